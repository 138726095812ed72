//! Each fault costs its own job and nothing else.

use crate::gateway::{Gateway, plugin_processes};

/// SUP-02, SUP-08, DIS-08, DIS-09, DIS-12, DIS-13, PRO-12: the whole hostile suite beside good jobs.
#[test]
fn every_fault_costs_only_its_own_job() {
    let once = "    env_passthrough: [DUCTILE_TEST_DIR]\n    max_attempts: 1\n    timeout: 2s\n";
    // A crash test that runs /proc over the suite's processes needs each to carry the test's mark.
    let faults = [
        ("segfault", "kill -SEGV $$"),
        ("garbage", "echo 'hello, world'"),
        ("two_answers", "printf '{\"status\":\"ok\",\"result\":\"1\"}{\"status\":\"ok\",\"result\":\"2\"}'"),
        ("silent", "exit 0"),
        ("liar", "printf '{\"status\":\"ok\",\"result\":\"\"}'; exit 1"),
        ("binary", "head -c 1000 /dev/urandom"),
        ("flood", "exec cat /dev/zero"),
        ("hang", "exec sleep 100"),
        ("stubborn", "trap '' TERM; while :; do sleep 0.2; done"),
        ("orphan", "sleep 100 & exec 3>&1; exit 1"),
    ];
    let mut builder = Gateway::new().plugin("echo").service("  max_workers: 4\n");
    for (name, script) in faults {
        builder = builder.script_with(name, script, once);
    }
    let dir = builder.path().display().to_string();
    let gateway = builder.env("DUCTILE_TEST_DIR", dir).start();
    let bad: Vec<_> = faults.iter().map(|(name, _)| (name, gateway.enqueue(name, "poll", "{}"))).collect();
    let good: Vec<_> = (0..20).map(|_| gateway.enqueue("echo", "poll", "{}")).collect();
    for (name, id) in &bad {
        let job = gateway.finished(id);
        assert_eq!(job["status"], "dead", "{name}: {job}");
        let error = gateway.sql_one(&format!("SELECT last_error FROM job_queue WHERE id = '{id}'"));
        assert!(error.len() > 5, "{name} has a reason: {error:?}");
    }
    for id in &good {
        assert_eq!(gateway.finished(id)["status"], "succeeded");
    }
    gateway.until_some("no process is left", |g| plugin_processes(g.dir.path()).is_empty().then_some(()));
    assert_eq!(gateway.get("/healthz")["status"], "ok");
    assert_eq!(
        gateway.sql_one(
            "SELECT coalesce(max(length(stderr)), 0) <= 65536 AND max(length(result)) <= 11000000 FROM job_log"
        ),
        "1"
    );
    let tree = gateway.get("/system/tree").to_string();
    assert!(!tree.contains("\"restarts\":1"), "no actor was harmed: {tree}");
}

/// A missing interpreter or entrypoint is the plugin's failure and says what could not be run.
#[test]
fn an_entrypoint_that_cannot_run_is_explained() {
    let gateway = Gateway::new().script_with("broken", "", "    max_attempts: 1\n").start();
    std::fs::write(gateway.path("plugins/broken/run.sh"), "#!/no/such/interpreter\n").expect("rewritten");
    let id = gateway.enqueue("broken", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "dead");
    std::fs::remove_file(gateway.path("plugins/broken/run.sh")).expect("removed");
    let id = gateway.enqueue("broken", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "dead");
    let error = gateway.sql_one(&format!("SELECT last_error FROM job_queue WHERE id = '{id}'"));
    assert!(error.contains("run.sh"), "{error}");
}
