//! Starting, being seen, and stopping.

use nix::sys::signal::Signal;

use crate::gateway::{Gateway, plugin_processes};

/// CLI-07, OPS-01, OPS-02, OPS-11, OPS-28: one gateway per ledger; the second start says who holds the lock and changes nothing.
#[test]
fn a_second_gateway_is_refused() {
    let mut gateway = Gateway::new().plugin("echo").start();
    gateway.until("it says so", |gateway| gateway.logs().contains("ductile running").then_some(()));
    assert_eq!(gateway.sql_one("PRAGMA journal_mode"), "wal", "DBS-01");
    let snapshots = gateway.sql_one("SELECT count(*) FROM config_snapshots");
    let second = gateway.cli(&["system", "start"]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned() + &String::from_utf8_lossy(&second.stdout);
    assert!(text.contains("Failed to acquire PID lock"), "{text}");
    assert!(text.contains(&gateway.pid().to_string()), "{text}");
    assert_eq!(gateway.sql_one("SELECT count(*) FROM config_snapshots"), snapshots);
    assert_eq!(gateway.get("/healthz")["status"], "ok");
    assert_eq!(gateway.stop(), 0);
    gateway.start();
    gateway.kill_nine();
    gateway.start();
}

/// SUP-01, SUP-09: every actor of the design stands in the tree, in the order of the design, and is up.
#[test]
fn the_tree_shows_every_actor() {
    let gateway = Gateway::new().plugin("echo").start();
    let tree = gateway.get("/system/tree");
    assert!(tree["boot_id"].is_string() && tree["generation"] == 1, "{tree}");
    let mut paths = Vec::new();
    walk(&tree["root"], &mut paths);
    let expected = [
        "root",
        "root/control_sup",
        "root/control_sup/config",
        "root/storage_sup",
        "root/storage_sup/ledger",
        "root/storage_sup/space",
        "root/storage_sup/maintenance",
        "root/policy_sup",
        "root/policy_sup/router",
        "root/policy_sup/breaker",
        "root/exec_sup",
        "root/exec_sup/job_sup",
        "root/exec_sup/reaper",
        "root/exec_sup/queue",
        "root/exec_sup/dispatcher",
        "root/flow_sup",
        "root/flow_sup/scheduler",
        "root/api_sup",
        "root/api_sup/http",
        "root/drain_sup",
        "root/drain_sup/drainer",
    ];
    assert_eq!(paths, expected);
    let shown = gateway.cli_json(&["system", "tree", "--json"]);
    assert_eq!(shown["root"]["path"], "root");
}

fn walk(node: &serde_json::Value, paths: &mut Vec<String>) {
    assert_eq!(node["phase"], "up", "{node}");
    assert_eq!(node["restarts"], 0, "{node}");
    paths.push(node["path"].as_str().expect("a path").to_owned());
    for child in node["children"].as_array().expect("children") {
        walk(child, paths);
    }
}

/// SUP-04: an actor that is restarted leaves its siblings alone and everything works on.
#[test]
fn a_restarted_actor_leaves_its_siblings_alone() {
    let gateway = Gateway::new().plugin("echo").start();
    for (name, path) in
        [("ledger", "root/storage_sup/ledger"), ("queue", "root/exec_sup/queue"), ("router", "root/policy_sup/router")]
    {
        let response = gateway.request("POST", &format!("/system/actors/{}/restart", path.replace('/', "%2F")), None);
        assert!(response.status < 300, "{name}: {}", response.body);
        gateway.until_some("it is up again", |g| {
            let tree = g.get("/system/tree");
            let node = find(&tree["root"], path)?;
            (node["incarnation"] == 2 && node["phase"] == "up").then_some(())
        });
        let id = gateway.enqueue("echo", "poll", "{}");
        assert_eq!(gateway.finished(&id)["status"], "succeeded", "after {name}");
    }
    let tree = gateway.get("/system/tree");
    for untouched in ["root/policy_sup/breaker", "root/exec_sup/job_sup", "root/exec_sup/reaper", "root/api_sup/http"] {
        assert_eq!(find(&tree["root"], untouched).expect("there")["incarnation"], 1, "{untouched}");
    }
}

fn find<'a>(node: &'a serde_json::Value, path: &str) -> Option<&'a serde_json::Value> {
    if node["path"] == path {
        return Some(node);
    }
    node["children"].as_array()?.iter().find_map(|c| find(c, path))
}

/// OPS-08: a stop lets the running job end, refuses new work, and exits 0.
#[test]
fn a_stop_waits_for_the_running_job() {
    let mut gateway =
        Gateway::new().script("slow", "sleep 1.5; printf '{\"status\":\"ok\",\"result\":\"done\"}'").start();
    let id = gateway.enqueue("slow", "poll", "{}");
    gateway.until_some("it runs", |g| (g.job(&id)["status"] == "running").then_some(()));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(), 0, "{}", gateway.logs());
    assert_eq!(gateway.sql_one(&format!("SELECT status FROM job_queue WHERE id = '{id}'")), "succeeded");
    assert!(!gateway.path("ductile.sock").exists() || gateway.try_request("GET", "/healthz", None).is_none());
}

/// OPS-08, D-44: a second signal gives the running attempt back, uncounted, and the next start runs it at once.
#[test]
fn a_second_signal_gives_the_attempt_back() {
    let builder = Gateway::new().script_with(
        "slow",
        "test -e \"$DUCTILE_TEST_DIR/quick\" || sleep 60\nprintf '{\"status\":\"ok\",\"result\":\"done\"}'",
        "    env_passthrough: [DUCTILE_TEST_DIR]\n",
    );
    let dir = builder.path().display().to_string();
    let mut gateway = builder.env("DUCTILE_TEST_DIR", dir).start();
    let id = gateway.enqueue("slow", "poll", "{}");
    gateway.until_some("its process runs", |g| (!plugin_processes(g.dir.path()).is_empty()).then_some(()));
    gateway.signal(Signal::SIGTERM);
    gateway.until_some("it drains", |g| g.logs().contains("draining").then_some(()));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(), 0, "{}", gateway.logs());
    assert!(plugin_processes(gateway.dir.path()).is_empty(), "a plugin process is left");
    assert_eq!(
        gateway.sql(&format!("SELECT status, attempt FROM job_queue WHERE id = '{id}'")),
        [["queued", "1"].map(str::to_owned)]
    );
    assert_eq!(gateway.sql_one(&format!("SELECT count(*) FROM job_attempts WHERE job_id = '{id}'")), "0");
    std::fs::write(gateway.path("quick"), "").expect("the mark");
    gateway.start();
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
    assert_eq!(gateway.sql_one(&format!("SELECT attempt FROM job_queue WHERE id = '{id}'")), "1");
}

/// DIS-14: a gateway on `pause` accepts work and runs none until it is resumed, also across a restart.
#[test]
fn a_paused_gateway_accepts_and_runs_nothing() {
    let mut gateway = Gateway::new().plugin("echo").start();
    assert!(gateway.cli(&["system", "pause"]).status.success());
    let id = gateway.enqueue("echo", "poll", "{}");
    assert_eq!(gateway.stop(), 0);
    gateway.start();
    assert_eq!(gateway.get("/system/status")["paused"], true);
    assert_eq!(gateway.job(&id)["status"], "queued");
    assert!(gateway.cli(&["system", "resume"]).status.success());
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
}

/// CLI-37, D-42: without a gateway the answer says so, and the code is 69.
#[test]
fn commands_say_that_no_gateway_runs() {
    let gateway = Gateway::new().plugin("echo").prepare();
    let output = gateway.cli(&["plugin", "run", "echo"]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("ductile.sock") && text.contains("system start"), "{text}");
}

/// CLI-31: a command run by hand goes through the queue and prints its result.
#[test]
fn a_plugin_is_run_by_hand_through_the_queue() {
    let gateway = Gateway::new().plugin("echo").script("bad", "echo oops >&2; exit 3").start();
    let output = gateway.cli(&["plugin", "run", "echo", "poll", "--payload", r#"{"message":"by hand"}"#]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gateway.sql_one("SELECT submitted_by FROM job_queue"), "cli");
    let failed = gateway.cli(&["plugin", "run", "bad", "poll", "--timeout", "1s"]);
    assert_ne!(failed.status.code(), Some(0));
}

/// The gateway stops by order of its owner.
#[test]
fn the_gateway_stops_by_command() {
    let mut gateway = Gateway::new().plugin("echo").start();
    let output = gateway.cli(&["system", "stop"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gateway.wait_exit(), 0);
}

/// OPS-09, OPS-10: every log line is JSON with the promised fields.
#[test]
fn every_log_line_is_json() {
    let mut gateway =
        Gateway::new().script("noisy", "echo warning >&2; printf '{\"status\":\"ok\",\"result\":\"\"}'").start();
    let id = gateway.enqueue("noisy", "poll", "{}");
    gateway.finished(&id);
    gateway.stop();
    let logs = gateway.logs();
    let mut saw_stderr = false;
    for line in logs.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["timestamp", "level", "component", "message"] {
            assert!(entry[key].is_string(), "{key} in {line}");
        }
        saw_stderr |= entry["plugin"] == "noisy" && entry["job_id"] == *id && entry["level"] == "WARN";
    }
    assert!(saw_stderr, "DIS-10: {logs}");
}
