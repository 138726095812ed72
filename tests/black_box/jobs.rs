//! The life of a job from its door to its record.

use std::time::{Duration, Instant};

use crate::gateway::Gateway;

/// A plugin that answers ok and repeats its request as the result's text would: kept in a file beside the test.
const KEEPS_REQUEST: &str = "cat > \"$DUCTILE_TEST_DIR/request.json\"\nenv > \"$DUCTILE_TEST_DIR/env.txt\"\npwd > \"$DUCTILE_TEST_DIR/pwd.txt\"\nid -u > \"$DUCTILE_TEST_DIR/uid.txt\"\nprintf '{\"status\":\"ok\",\"result\":\"kept\"}'\n";
const PASS: &str = "    env_passthrough: [DUCTILE_TEST_DIR]\n";

fn keeper() -> Gateway {
    let builder = Gateway::new().script_with("keeper", KEEPS_REQUEST, PASS);
    with_test_dir(builder).start()
}

/// Lets plugins find the test's directory, and tests find their plugins.
fn with_test_dir(builder: crate::gateway::Builder) -> crate::gateway::Builder {
    let dir = builder.path().display().to_string();
    builder.env("DUCTILE_TEST_DIR", dir)
}

/// QUE-01, QUE-03, API-03: a trigger is a committed row before it is acknowledged, and the plugin's answer is in the ledger.
#[test]
fn a_triggered_command_runs_and_is_recorded() {
    let gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", r#"{"message":"hello"}"#);
    assert_eq!(gateway.sql_one(&format!("SELECT count(*) FROM job_queue WHERE id = '{id}'")), "1");
    let job = gateway.finished(&id);
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["result"]["status"], "ok");
    let row = gateway.sql(&format!(
        "SELECT q.status, q.attempt, q.max_attempts, q.submitted_by, l.status, l.attempt, l.id, json_valid(l.result) \
         FROM job_queue q JOIN job_log l ON l.job_id = q.id WHERE q.id = '{id}'"
    ));
    assert_eq!(row, [["succeeded", "1", "4", "api", "succeeded", "1", &format!("{id}-1"), "1"].map(str::to_owned)]);
    let transitions = gateway.sql(&format!(
        "SELECT coalesce(from_status, ''), to_status FROM job_transitions WHERE job_id = '{id}' ORDER BY id"
    ));
    assert_eq!(
        transitions,
        [["", "queued"], ["queued", "running"], ["running", "succeeded"]].map(|r| r.map(str::to_owned).to_vec())
    );
    assert_eq!(gateway.sql_one(&format!("SELECT count(*) FROM job_attempts WHERE job_id = '{id}'")), "1");
    assert_eq!(gateway.sql_one(&format!("SELECT status FROM job_stopwatch WHERE job_id = '{id}'")), "ok");
}

/// PRO-01, PRO-02, PRO-03, PRO-04, DIS-01, DIS-15: the request has exactly the promised keys, and stdin is closed behind it.
#[test]
fn a_poll_gets_its_payload_and_no_event() {
    let gateway = keeper();
    let id = gateway.enqueue("keeper", "poll", r#"{"a":[1,2,{"b":null}],"text":"ä\n\u0000"}"#);
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
    let request: serde_json::Value =
        serde_json::from_slice(&std::fs::read(gateway.path("request.json")).expect("kept")).expect("JSON");
    let mut keys: Vec<_> = request.as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["command", "config", "context", "deadline_at", "job_id", "payload", "protocol", "state"]);
    assert_eq!(request["protocol"], 2);
    assert_eq!(request["job_id"], *id);
    assert_eq!(request["payload"], serde_json::json!({"a": [1, 2, {"b": null}], "text": "ä\n\u{0}"}));
    assert_eq!(request["context"]["ductile_plugin"], "keeper");
    assert_eq!(request["state"], serde_json::json!({}));
}

/// API-04, PRO-03, PRO-11: a handle gets its payload wrapped in an event of type `api.trigger`.
#[test]
fn a_handle_gets_an_event() {
    let gateway = keeper();
    let id = gateway.enqueue("keeper", "handle", r#"{"n":7}"#);
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
    let request: serde_json::Value =
        serde_json::from_slice(&std::fs::read(gateway.path("request.json")).expect("kept")).expect("JSON");
    assert_eq!(request["event"]["type"], "api.trigger");
    assert_eq!(request["event"]["payload"], request["payload"]);
    assert_eq!(request["payload"], serde_json::json!({"n": 7}));
    for key in ["source", "timestamp", "event_id"] {
        assert!(request["event"][key].is_string(), "{key}: {request}");
    }
}

/// DIS-14: the gateway's user and directory, the allow-listed environment, and nothing of the gateway's own.
#[test]
fn a_plugin_sees_only_the_environment_that_was_declared() {
    let builder = Gateway::new().script_with("keeper", KEEPS_REQUEST, PASS).env("CANARY_SECRET", "s3cr3t-canary");
    let gateway = with_test_dir(builder).start();
    let id = gateway.enqueue("keeper", "poll", "{}");
    gateway.finished(&id);
    let env = std::fs::read_to_string(gateway.path("env.txt")).expect("kept");
    assert!(!env.contains("canary"), "{env}");
    let names: Vec<_> = env.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).collect();
    for name in
        ["DUCTILE_JOB_ID", "DUCTILE_ATTEMPT", "DUCTILE_IDEMPOTENCY_KEY", "DUCTILE_BOOT_ID", "PATH", "DUCTILE_TEST_DIR"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(!names.contains(&"DUCTILE_CONFIG_DIR"), "{names:?}");
    assert!(env.contains(&format!("DUCTILE_JOB_ID={id}")));
    assert_eq!(
        std::fs::read_to_string(gateway.path("uid.txt")).expect("kept").trim(),
        nix::unistd::getuid().to_string()
    );
}

/// QUE-23, QUE-28, QUE-30, D-01: a plugin that always fails is tried as often as allowed and ends dead.
#[test]
fn a_job_that_always_fails_ends_dead_after_its_attempts() {
    let gateway = Gateway::new()
        .script_with(
            "failing",
            "printf '{\"status\":\"error\",\"error\":\"no luck\"}'",
            "    retry: {max_attempts: 3, backoff_base: 20ms}\n",
        )
        .start();
    let id = gateway.enqueue("failing", "poll", "{}");
    let job = gateway.finished(&id);
    assert_eq!(job["status"], "dead", "{job}");
    assert_eq!(gateway.sql_one(&format!("SELECT last_error FROM job_queue WHERE id = '{id}'")), "no luck");
    assert_eq!(
        gateway
            .sql_one(&format!("SELECT group_concat(attempt || status, ' ') FROM job_attempts WHERE job_id = '{id}'")),
        "1failed 2failed 3failed"
    );
    let pairs = gateway.sql_one(&format!("SELECT group_concat(coalesce(from_status, '') || '>' || to_status, ' ') FROM (SELECT * FROM job_transitions WHERE job_id = '{id}' ORDER BY id)"));
    assert_eq!(
        pairs,
        ">queued queued>running running>failed failed>queued queued>running running>failed failed>queued queued>running running>failed failed>dead",
        "QUE-06"
    );
}

/// QUE-26, QUE-27: exit 78 and `retry: false` end a job at once.
#[test]
fn permanent_failures_are_not_retried() {
    let gateway = Gateway::new()
        .script("refuses", "printf '{\"status\":\"error\",\"error\":\"bad id\",\"retry\":false}'")
        .script("misconfigured", "printf '{\"status\":\"ok\",\"retry\":true}'; exit 78")
        .start();
    for plugin in ["refuses", "misconfigured"] {
        let id = gateway.enqueue(plugin, "poll", "{}");
        let job = gateway.finished(&id);
        assert_eq!(job["status"], "failed", "{plugin}: {job}");
        assert_eq!(gateway.sql_one(&format!("SELECT count(*) FROM job_attempts WHERE job_id = '{id}'")), "1");
    }
    let reason = gateway.sql_one("SELECT t.reason FROM job_transitions t JOIN job_queue q ON q.id = t.job_id WHERE q.plugin = 'refuses' AND t.to_status = 'failed'");
    assert!(reason.contains("retry"), "{reason}");
}

/// QUE-25: a job that awaits its retry is queued with a time, and not run before it, also after a restart.
#[test]
fn a_retry_waits_for_its_time_across_a_restart() {
    let mut gateway =
        Gateway::new().script_with("failing", "exit 1", "    retry: {max_attempts: 2, backoff_base: 3s}\n").start();
    let id = gateway.enqueue("failing", "poll", "{}");
    gateway.until_some("the retry is scheduled", |g| {
        (g.sql_one(&format!("SELECT status || coalesce(next_retry_at, '') FROM job_queue WHERE id = '{id}'")).len()
            > 20)
            .then_some(())
    });
    assert_eq!(gateway.stop(), 0);
    gateway.start();
    assert_eq!(gateway.finished(&id)["status"], "dead");
    let late = gateway.sql_one(&format!(
        "SELECT (julianday(started_at) - (SELECT julianday(completed_at) FROM job_log WHERE id = '{id}-1')) * 86400 BETWEEN 2.9 AND 20 FROM job_log WHERE id = '{id}-2'"
    ));
    assert_eq!(late, "1", "{:?}", gateway.sql("SELECT id, started_at, completed_at FROM job_log"));
}

/// QUE-07: with one worker, jobs start in the order in which they were created.
#[test]
fn jobs_start_first_in_first_out() {
    let gateway = Gateway::new().plugin("echo").service("  max_workers: 1\n").start();
    let ids: Vec<String> = (0..10).map(|_| gateway.enqueue("echo", "poll", "{}")).collect();
    for id in &ids {
        gateway.finished(id);
    }
    let order = gateway.sql("SELECT job_id FROM job_transitions WHERE to_status = 'running' ORDER BY id");
    assert_eq!(order.into_iter().flatten().collect::<Vec<_>>(), ids);
}

/// QUE-18, QUE-19, QUE-20, QUE-21: caps hold, and a capped plugin does not hold up another one.
#[test]
fn a_capped_plugin_does_not_hold_up_another() {
    let gateway = Gateway::new()
        .script_with("slow", "sleep 1; printf '{\"status\":\"ok\",\"result\":\"slow\"}'", "    parallelism: 1\n")
        .plugin("echo")
        .service("  max_workers: 2\n")
        .start();
    let slow: Vec<String> = (0..3).map(|_| gateway.enqueue("slow", "poll", "{}")).collect();
    let quick = gateway.enqueue("echo", "poll", "{}");
    assert_eq!(gateway.finished(&quick)["status"], "succeeded");
    assert_ne!(gateway.job(&slow[2])["status"], "succeeded");
    let mut most = 0;
    gateway.until_some("the slow jobs have ended", |g| {
        most = most.max(
            g.sql_one("SELECT count(*) FROM job_queue WHERE plugin = 'slow' AND status = 'running'")
                .parse::<i32>()
                .expect("a number"),
        );
        (g.job(&slow[2])["status"] == "succeeded").then_some(())
    });
    assert_eq!(most, 1);
}

/// QUE-11, QUE-13, QUE-14: a key suppresses what has succeeded with it; an idempotency key also what is on its way.
#[test]
fn duplicates_are_answered_with_the_job_that_exists() {
    let gateway =
        Gateway::new().plugin("echo").script("slow", "sleep 2; printf '{\"status\":\"ok\",\"result\":\"\"}'").start();
    let post = |plugin: &str, body: &str| {
        let response = gateway.request("POST", &format!("/plugin/{plugin}/poll"), Some(body));
        (response.status, response.json())
    };
    let (_, first) = post("echo", r#"{"dedupe_key":"k1"}"#);
    gateway.finished(first["job_id"].as_str().expect("an id"));
    let (_, second) = post("echo", r#"{"dedupe_key":"k1"}"#);
    assert_eq!(second["job_id"], first["job_id"]);
    assert_eq!(second["duplicate"], true, "{second}");
    // The log is written behind the answer.
    gateway.until_some("the drop is logged", |g| g.logs().contains("\"dedupe_key\":\"k1\"").then_some(()));
    let (_, one) = post("slow", r#"{"dedupe_key":"k2"}"#);
    let (_, two) = post("slow", r#"{"dedupe_key":"k2"}"#);
    assert_eq!(
        gateway.sql_one("SELECT count(*) FROM job_queue WHERE dedupe_key = 'k2'"),
        if one["job_id"] == two["job_id"] { "1" } else { "2" }
    );
}

/// A cancelled job is dead, whether it was queued or ran, and its process is gone.
#[test]
fn a_cancelled_job_is_dead_and_its_process_gone() {
    let builder = Gateway::new()
        .script_with("sleeper", "sleep 60", "    env_passthrough: [DUCTILE_TEST_DIR]\n    parallelism: 1\n")
        .service("  max_workers: 2\n");
    let gateway = with_test_dir(builder).start();
    let running = gateway.enqueue("sleeper", "poll", "{}");
    let queued = gateway.enqueue("sleeper", "poll", "{}");
    gateway.until_some("the first runs", |g| (g.job(&running)["status"] == "running").then_some(()));
    gateway
        .until_some("its process runs", |g| (!crate::gateway::plugin_processes(g.dir.path()).is_empty()).then_some(()));
    for id in [&queued, &running] {
        let response = gateway.request("POST", &format!("/job/{id}/cancel"), Some(r#"{"reason":"not needed"}"#));
        assert!(matches!(response.status, 200 | 202), "{}", response.body);
        let job = gateway.finished(id);
        assert_eq!(job["status"], "dead", "{job}");
        assert!(
            gateway.sql_one(&format!("SELECT last_error FROM job_queue WHERE id = '{id}'")).starts_with("cancelled: ")
        );
    }
    gateway
        .until_some("the process is gone", |g| crate::gateway::plugin_processes(g.dir.path()).is_empty().then_some(()));
}

/// FCT-05, FCT-06, FCT-11: state is written with the end of the job and handed to the next one, also after a restart.
#[test]
fn the_next_job_gets_the_state_of_the_last() {
    let script = "in=$(cat); case $in in *'\"seen\":1'*) n=2;; *) n=1;; esac\nprintf '{\"status\":\"ok\",\"result\":\"x\",\"state_updates\":{\"seen\":%s}}' $n";
    let mut gateway = Gateway::new().script("counter", script).start();
    let first = gateway.enqueue("counter", "poll", "{}");
    gateway.finished(&first);
    assert_eq!(gateway.sql_one("SELECT state FROM plugin_state WHERE plugin_name = 'counter'"), r#"{"seen":1}"#);
    gateway.kill_nine();
    gateway.start();
    let second = gateway.enqueue("counter", "poll", "{}");
    gateway.finished(&second);
    assert_eq!(gateway.sql_one("SELECT state FROM plugin_state WHERE plugin_name = 'counter'"), r#"{"seen":2}"#);
}

/// SUP-14: health answers at once while every worker is busy.
#[test]
fn health_answers_while_all_workers_are_busy() {
    let gateway = Gateway::new().script("sleeper", "sleep 20").service("  max_workers: 2\n").start();
    for _ in 0..6 {
        gateway.enqueue("sleeper", "poll", "{}");
    }
    gateway.until_some("two run", |g| (g.get("/healthz")["queue_depth"] == 4).then_some(()));
    let asked = Instant::now();
    gateway.get("/healthz");
    gateway.get("/system/tree");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// DIS-06, DIS-07: a deadline ends the whole group, and the attempt is `timed_out`.
#[test]
fn a_timeout_ends_the_whole_group() {
    let builder = Gateway::new().script_with(
        "hangs",
        "sleep 77 &\nsleep 77",
        "    env_passthrough: [DUCTILE_TEST_DIR]\n    timeout: 300ms\n    max_attempts: 1\n",
    );
    let gateway = with_test_dir(builder).start();
    let id = gateway.enqueue("hangs", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "dead");
    assert_eq!(gateway.sql_one(&format!("SELECT status FROM job_attempts WHERE job_id = '{id}'")), "timed_out");
    assert_eq!(gateway.sql_one(&format!("SELECT status FROM job_stopwatch WHERE job_id = '{id}'")), "timeout");
    assert!(crate::gateway::plugin_processes(gateway.dir.path()).is_empty(), "SUP-08: a process outlived its job");
}

/// PRO-17, DIS-26: one id joins queue row, attempts, log, stopwatch and transitions.
#[test]
fn one_id_joins_the_whole_record() {
    let gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&id);
    let joined = gateway.sql_one(&format!(
        "SELECT count(*) FROM job_queue q JOIN job_log l ON l.job_id = q.id JOIN job_attempts a ON a.job_id = q.id \
         JOIN job_stopwatch s ON s.job_id = q.id JOIN job_transitions t ON t.job_id = q.id WHERE q.id = '{id}'"
    ));
    assert_eq!(joined, "3");
}

/// DIS-04, DIS-05, PRO-05: the deadline told to the plugin is the command's default, or what the operator wrote.
#[test]
fn the_deadline_follows_the_command_and_the_operator() {
    let script =
        "in=$(cat); d=${in##*\\\"deadline_at\\\":\\\"}; printf '{\"status\":\"ok\",\"result\":\"%s\"}' \"${d%%\\\"*}\"";
    let gateway = Gateway::new()
        .script("plain", script)
        .script_with("flat", script, "    timeout: 7m\n")
        .script_with("fine", script, "    timeout: 7m\n    timeouts: {poll: 9m}\n")
        .start();
    for (plugin, command, seconds) in [
        ("plain", "poll", 60.0),
        ("plain", "handle", 120.0),
        ("plain", "health", 10.0),
        ("flat", "poll", 420.0),
        ("fine", "poll", 540.0),
        ("fine", "handle", 420.0),
    ] {
        let id = gateway.enqueue(plugin, command, "{}");
        assert_eq!(gateway.finished(&id)["status"], "succeeded");
        let left: f64 = gateway
            .sql_one(&format!(
                "SELECT (julianday(json_extract(result, '$.result')) - julianday(started_at)) * 86400 FROM job_log WHERE job_id = '{id}'"
            ))
            .parse()
            .expect("seconds");
        assert!((seconds - 1.0..seconds + 20.0).contains(&left), "{plugin} {command}: {left} for {seconds}");
    }
}

/// DIS-24: a plugin gets its own configuration and state and nothing of another's.
#[test]
fn a_plugin_gets_nothing_of_another() {
    let one = "cat > \"$DUCTILE_TEST_DIR/one.json\"; printf '{\"status\":\"ok\",\"result\":\"x\",\"state_updates\":{\"mark\":\"state-of-one\"}}'";
    let two = "cat > \"$DUCTILE_TEST_DIR/two.json\"; printf '{\"status\":\"ok\",\"result\":\"x\"}'";
    let builder = Gateway::new()
        .script_with("one", one, "    env_passthrough: [DUCTILE_TEST_DIR]\n    config: {mark: config-of-one}\n")
        .script_with("two", two, "    env_passthrough: [DUCTILE_TEST_DIR]\n    config: {mark: config-of-two}\n");
    let gateway = with_test_dir(builder).start();
    for plugin in ["one", "two", "one"] {
        let id = gateway.enqueue(plugin, "poll", "{}");
        gateway.finished(&id);
    }
    let read = |name: &str| std::fs::read_to_string(gateway.path(name)).expect("kept");
    assert!(read("one.json").contains("config-of-one") && read("one.json").contains("state-of-one"));
    assert!(read("two.json").contains("config-of-two") && !read("two.json").contains("of-one"), "{}", read("two.json"));
}

/// DIS-16, QUE-34: what a plugin prints stands in the ledger and in no file.
#[test]
fn what_a_plugin_prints_stands_in_no_file() {
    let mut gateway =
        Gateway::new().script("prints", "printf '{\"status\":\"ok\",\"result\":\"findme-in-a-file\"}'").start();
    let id = gateway.enqueue("prints", "poll", r#"{"asked":"findme-input"}"#);
    gateway.finished(&id);
    assert_eq!(gateway.stop(), 0);
    let mut files: Vec<_> = std::fs::read_dir(gateway.dir.path())
        .expect("the directory")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["config.yaml", "ductile.db", "ductile.lock", "gateway.log", "plugins"],
        "no -wal: the stop was clean"
    );
    assert!(!gateway.logs().contains("findme-in-a-file"));
    let kept =
        gateway.sql_one("SELECT result LIKE '%findme-in-a-file%' AND payload LIKE '%findme-input%' FROM job_log");
    assert_eq!(kept, "1");
}

/// QUE-04, PRO-16, SUP-03: who asked is recorded; an undeclared event passes unchecked and matches nothing; the core
/// judges by exit code and JSON alone.
#[test]
fn events_that_match_nothing_cost_nothing() {
    let gateway = Gateway::new()
        .script("emits", "printf '{\"status\":\"ok\",\"result\":\"x\",\"events\":[{\"type\":\"emits.undeclared\",\"payload\":{\"any\":1}}]}'")
        .start();
    let id = gateway.enqueue("emits", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
    assert_eq!(gateway.sql("SELECT submitted_by, count(*) FROM job_queue"), [["api", "1"].map(str::to_owned)]);
    assert!(gateway.sql_one("SELECT requested_by FROM job_queue").starts_with("socket:"));
}

/// TEL-10, API-38: a watcher sees a job's life in order, with the fields that the events promise.
#[test]
fn a_watcher_sees_a_job_live() {
    let gateway =
        Gateway::new().script_with("fails", "exit 1", "    retry: {max_attempts: 2, backoff_base: 10ms}\n").start();
    let id = gateway.enqueue("fails", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "dead");
    let frames = gateway.events_since(0, |seen| seen.iter().any(|e| e["type"] == "job.dead"));
    let kinds: Vec<_> =
        frames.iter().filter(|e| e["job_id"] == *id).map(|e| e["type"].as_str().expect("a type")).collect();
    assert_eq!(
        kinds,
        ["job.enqueued", "job.started", "job.failed", "job.retry_scheduled", "job.started", "job.failed", "job.dead"]
    );
    let ids: Vec<_> = frames.iter().filter_map(|e| e["transition_id"].as_i64()).collect();
    assert!(ids.is_sorted() && ids.len() == kinds.len(), "{frames:?}");
    assert!(frames.iter().all(|e| e["plugin"] == "fails" && e["command"] == "poll" && e["at"].is_string()));
}
