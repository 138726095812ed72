//! Limits of plugins, and jobs that keep ending abnormally: seen from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::cli::said;
use crate::gateway::{Gateway, PATIENCE, plugin_processes};

/// Kills itself unless the file beside it says that it was mended.
const FRAGILE: &str = "read -r request\necho 'about to die' >&2\n[ -e \"$0.mended\" ] || kill -SEGV $$\n\
                       printf '{\"status\":\"ok\",\"result\":\"mended\"}'";

/// Live events, heard from now on.
struct Events(BufReader<UnixStream>);

impl Events {
    fn open(gateway: &Gateway) -> Self {
        let mut stream = UnixStream::connect(gateway.path("ductile.sock")).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: ductile\r\n\r\n").expect("sent");
        let mut events = Self(BufReader::new(stream));
        while !events.line().trim().is_empty() {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an event in time");
        line
    }

    /// The data of the first event of that type.
    fn until(mut self, kind: &str) -> String {
        while self.line().trim() != format!("event: {kind}") {}
        loop {
            let line = self.line();
            if let Some(data) = line.strip_prefix("data:") {
                return data.trim().to_owned();
            }
        }
    }
}

/// Three abnormal ends quarantine a job with a bundle; it is run again alone until it is mended.
#[test]
fn a_job_that_dies_three_times_is_quarantined_and_reproduced() {
    let keys = "    config: {password: \"${CANARY}\"}\n    retry: {max_attempts: 9, backoff_base: 10ms}\n    limits: {open_files: 64}\n";
    let mut gateway =
        Gateway::new().script_with("fragile", FRAGILE, keys).plugin("echo").env("CANARY", "canary-7f3a").start();
    let events = Events::open(&gateway);
    let id = gateway.enqueue("fragile", "poll", "{\"n\":7}");
    let job = gateway.finished(&id);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("dead"), &json!(3)), "{job}");
    let error = job["last_error"].as_str().expect("a text");
    assert!(error.starts_with("quarantined: 3 attempts ended abnormally, the last: killed by signal 11"), "{error}");
    assert!(error.contains(&format!("ductile job reproduce {id}")), "{error}");
    let told = events.until("job.quarantined");
    assert!(told.contains(&id) && told.contains("quarantined: 3 attempts"), "{told}");

    let kept = gateway.get(&format!("/job/{id}/quarantine"));
    let bundle = &kept["bundle"];
    assert_eq!((&kept["plugin"], &bundle["request"]["payload"]), (&json!("fragile"), &json!({"n": 7})));
    assert_eq!(bundle["limits"]["open_files"], 64, "{bundle}");
    assert!(bundle["fingerprint"]["init"].is_string(), "{bundle}");
    let attempts = bundle["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!((&attempt["cause"], &attempt["signal"]), (&json!("signal"), &json!(11)), "{attempt}");
        assert!(attempt["stderr_tail"].as_str().is_some_and(|tail| tail.contains("about to die")), "{attempt}");
        assert!(attempt["cpu_ms"].is_u64(), "{attempt}");
    }
    assert!(!kept.to_string().contains("canary-7f3a"), "a secret of the configuration is in the bundle");

    let before = gateway.sql_one("SELECT count(*) FROM job_transitions");
    let (code, stdout, stderr) = said(&gateway.cli(&["job", "reproduce", &id]));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("killed by signal 11 (SIGSEGV)") && stdout.contains("about to die"), "{stdout}");
    let changed = "has changed since the job was quarantined";
    assert!(!stderr.contains(changed), "{stderr}");
    std::fs::write(gateway.path("plugins/fragile/run.sh.mended"), "").expect("written");
    let (code, stdout, stderr) = said(&gateway.cli(&["job", "reproduce", &id, "--json"]));
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    assert_eq!((code, &document["ok"], &document["result"]), (0, &json!(true), &json!("mended")), "{document}");
    assert_eq!(document["plugin_changed"], false);
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_transitions"), before, "nothing of it is recorded");
    assert_eq!(gateway.job(&id)["status"], "dead");

    // without a gateway it works as well, and says that the plugin is another now
    gateway.stop();
    let script = gateway.path("plugins/fragile/run.sh");
    let text = std::fs::read_to_string(&script).expect("the script");
    std::fs::write(&script, format!("{text}\n# another\n")).expect("written");
    let (code, stdout, stderr) = said(&gateway.cli(&["job", "reproduce", &id]));
    assert!(
        code == 0 && stderr.contains(changed) && stdout.contains("it ended well this time"),
        "{code} {stdout}{stderr}"
    );
}

/// What was never quarantined has nothing kept, and the answer says what to do.
#[test]
fn a_job_that_is_not_in_quarantine_is_told_so() {
    let mut gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&id);
    let (code, _, stderr) = said(&gateway.cli(&["job", "reproduce", &id]));
    assert!(code == 1 && stderr.contains("is not in quarantine: it is succeeded"), "{code} {stderr}");
    gateway.stop();
    let (code, _, stderr) = said(&gateway.cli(&["job", "reproduce", &id]));
    assert!(code == 1 && stderr.contains("is not in quarantine: it is succeeded"), "{code} {stderr}");
    let unknown = "01890f3e-7c5a-7000-8000-00000000ffff";
    assert_eq!(said(&gateway.cli(&["job", "reproduce", unknown])).0, 1);
}

/// A gateway that is killed three times under one job: that job is quarantined, and no other pays for it.
#[test]
fn a_job_that_runs_whenever_the_gateway_is_killed_is_quarantined() {
    let mut gateway = Gateway::new()
        .script_with("poison", "exec sleep 100", "    env_passthrough: [DUCTILE_TEST_DIR]\n    max_attempts: 9\n")
        .plugin("echo")
        .service("  max_workers: 4\n");
    let dir = gateway.path().display().to_string();
    gateway = gateway.env("DUCTILE_TEST_DIR", dir);
    let mut gateway = gateway.start();
    let poison = gateway.enqueue("poison", "poll", "{}");
    let mut others = Vec::new();
    for crash in 1..=3 {
        others.push(gateway.enqueue("echo", "poll", "{}"));
        gateway.until_some("it runs as a process", |g| {
            let row = g.sql_one(&format!(
                "SELECT status = 'running' AND pid IS NOT NULL FROM job_queue WHERE id = '{poison}'"
            ));
            (row == "1").then_some(())
        });
        gateway.kill_nine();
        gateway.start();
        let (attempts, status) = (crash.to_string(), if crash < 3 { "0" } else { "1" });
        let recorded = format!("SELECT count(*) FROM job_attempts WHERE job_id = '{poison}' AND cause = 'crashed'");
        assert_eq!(gateway.sql_one(&recorded), attempts);
        let dead = format!("SELECT status = 'dead' FROM job_queue WHERE id = '{poison}'");
        assert_eq!(gateway.sql_one(&dead), status, "after crash {crash}");
    }
    let job = gateway.job(&poison);
    assert!(job["last_error"].as_str().is_some_and(|e| e.starts_with("quarantined: 3 attempts")), "{job}");
    assert_eq!(gateway.get(&format!("/job/{poison}/quarantine"))["bundle"]["attempts"][2]["cause"], "crashed");
    for other in &others {
        assert_eq!(gateway.finished(other)["status"], "succeeded");
    }
    gateway.until_some("no process is left", |g| plugin_processes(g.dir.path()).is_empty().then_some(()));
}

/// Our own stop gives attempts back: it never counts, however often it happens.
#[test]
fn stops_never_quarantine() {
    let mut gateway = Gateway::new()
        .script_with(
            "slow",
            "[ -e \"$0.done\" ] || exec sleep 100\nprintf '{\"status\":\"ok\",\"result\":\"\"}'",
            "    max_attempts: 2\n",
        )
        .service("  drain_timeout: 50ms\n")
        .start();
    let id = gateway.enqueue("slow", "poll", "{}");
    for _ in 0..4 {
        gateway.until_some("it runs", |g| (g.job(&id)["status"] == "running").then_some(()));
        gateway.stop();
        gateway.start();
    }
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_attempts"), "0");
    std::fs::write(gateway.path("plugins/slow/run.sh.done"), "").expect("written");
    gateway.stop();
    gateway.start();
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
}

/// OPC-26, OPC-27, D-50: out of memory is tried once more with the next size, and then the job has failed; the size stays.
#[test]
fn an_attempt_without_memory_gets_the_next_size_once() {
    let eats = "mib=$(sed 's/.*\"mib\":\\([0-9]*\\).*/\\1/')\nexec python3 -c 'import sys; x = bytearray(b\"x\") * (int(sys.argv[1]) << 20); \
                print(\"{\\\"status\\\":\\\"ok\\\",\\\"result\\\":\\\"had it\\\"}\")' \"$mib\"";
    let keys = "    retry: {max_attempts: 9, backoff_base: 10ms}\n    limits: {memory: 64MB, tiers: [256MB, 2GB]}\n";
    let told = "    retry: {max_attempts: 9, backoff_base: 10ms}\n    limits: {memory: 64MB, tiers: [256MB]}\n";
    let plain = "    retry: {max_attempts: 4, backoff_base: 10ms}\n";
    let gateway = Gateway::new()
        .script_with("eats", eats, keys)
        .script_with("says_137", "echo Killed >&2; exit 137", told)
        .script_with("untiered", "exit 137", plain)
        .start();
    let tiers = |id: &str| {
        let causes = gateway
            .sql(&format!("SELECT coalesce(cause, status) FROM job_attempts WHERE job_id = '{id}' ORDER BY attempt"));
        let tier = gateway.sql_one(&format!("SELECT memory_tier FROM job_queue WHERE id = '{id}'"));
        (causes.concat().join(" "), tier)
    };
    let fits = gateway.enqueue("eats", "poll", "{\"mib\":1}");
    let second = gateway.enqueue("eats", "poll", "{\"mib\":120}");
    let never = gateway.enqueue("eats", "poll", "{\"mib\":500}");
    let (oom, plain) = (gateway.enqueue("says_137", "poll", "{}"), gateway.enqueue("untiered", "poll", "{}"));
    assert_eq!(gateway.finished(&fits)["status"], "succeeded");
    assert_eq!(gateway.finished(&second)["status"], "succeeded", "{}", gateway.job(&second));
    assert_eq!(tiers(&second), ("out_of_memory succeeded".to_owned(), "1".to_owned()));
    for id in [&never, &oom] {
        let job = gateway.finished(id);
        assert_eq!(job["status"], "failed", "{job}");
        assert!(job["last_error"].as_str().is_some_and(|e| e.starts_with("out of memory")), "{job}");
        assert_eq!(
            tiers(id),
            ("out_of_memory out_of_memory".to_owned(), "1".to_owned()),
            "one retry, never a third size"
        );
    }
    let job = gateway.finished(&plain);
    assert!(job["status"] == "dead" && tiers(&plain).0 == "out_of_memory out_of_memory out_of_memory", "{job}");
}

/// `system doctor` and `system status` say how limits are held, and a limit reaches the process.
#[test]
fn a_plugin_runs_within_its_limits() {
    let script = "ulimit -n >&2\nprintf '{\"status\":\"ok\",\"result\":\"\"}'";
    let gateway = Gateway::new()
        .script_with("bounded", &format!("read -r request\n{script}"), "    limits: {open_files: 77}\n")
        .start();
    let id = gateway.enqueue("bounded", "poll", "{}");
    gateway.finished(&id);
    let printed = gateway.sql_one(&format!("SELECT stderr FROM job_log WHERE job_id = '{id}'"));
    assert_eq!(printed.trim(), "77");
    let status = gateway.get("/system/status");
    let level = status["limits"]["level"].as_str().expect("a level").to_owned();
    assert!(["cgroup", "cgroup_kill_only", "rlimits"].contains(&&*level), "{status}");
    let doctor = gateway.cli_json(&["system", "doctor", "--json"]);
    let check = doctor["checks"].as_array().expect("a list").iter().find(|c| c["id"] == "limits").expect("a finding");
    assert!(check["detail"].as_str().is_some_and(|d| d.starts_with(&level)) && check["status"] == "ok", "{check}");
}
