//! Circuit breakers of the scheduler: when they open, what they hold back, how they close, and who is told.

use std::fs;

use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::{Builder, Gateway};
use crate::scenarios::recording;
use crate::schedules::{accounted, await_rows, count, schedules};

/// Does what the next line of the file `script` says; after its last line, what that says.
const BY_SCRIPT: &str = r#"n=$(cat "$DUCTILE_TEST_DIR/n" 2>/dev/null || echo 0)
n=$((n + 1))
echo $n > "$DUCTILE_TEST_DIR/n"
word=$(sed -n "${n}p" "$DUCTILE_TEST_DIR/script")
[ -n "$word" ] || word=$(tail -n 1 "$DUCTILE_TEST_DIR/script")
case $word in
  ok) printf '{"status":"ok"}' ;;
  wait) while [ ! -e "$DUCTILE_TEST_DIR/go" ]; do sleep 0.02; done; printf '{"status":"ok"}' ;;
  *) printf '{"status":"error","error":"as the script says","retry":false}' ;;
esac
"#;

/// A plugin that is polled each half second and does what the script says.
fn scripted(breaker: &str, script: &str) -> Builder {
    let keys = format!("    env_passthrough: [DUCTILE_TEST_DIR]\n{breaker}{}", schedules(&["id: s, every: 500ms"]));
    let builder = recording().script_with("shaky", BY_SCRIPT, &keys);
    fs::write(builder.path().join("script"), script).expect("the script");
    builder
}

fn state(gateway: &Gateway) -> String {
    gateway.sql_one("SELECT state FROM circuit_breakers WHERE plugin = 'shaky' AND command = 'poll'")
}

fn await_state(gateway: &Gateway, wanted: &str) {
    gateway.until_some(&format!("the breaker is {wanted}"), |g| (state(g) == wanted).then_some(()));
}

/// From, to and reason of every change.
fn changes(gateway: &Gateway) -> Vec<String> {
    let rows = gateway.sql("SELECT from_state, to_state, reason FROM circuit_breaker_transitions ORDER BY id");
    rows.iter().map(|row| row.join(" ")).collect()
}

const OPENED: &str = "closed open failure_threshold";

/// BRK-01, BRK-02, BRK-03, BRK-06, BRK-08, BRK-09, BRK-10, BRK-11: three failures in a row open it, nothing more is scheduled, others
/// still call the plugin, a restart changes nothing, and an operator closes it.
#[test]
fn an_open_breaker_holds_back_the_scheduler_alone_until_it_is_reset() {
    let mut gateway = scripted("", "fail\n").start();
    await_state(&gateway, "open");
    let jobs = count(&gateway, "job_queue WHERE submitted_by = 'scheduler'");
    assert_eq!(jobs, 3, "the default threshold");
    let skipped = "schedule_ticks WHERE status = 'skipped' AND reason = 'breaker_open'";
    await_rows(&gateway, skipped, 3);
    assert_eq!(count(&gateway, "job_queue WHERE submitted_by = 'scheduler'"), jobs, "BRK-03");
    let row = gateway.sql(
        "SELECT plugin, command, state, failure_count, opened_at IS NOT NULL, last_failure_at IS NOT NULL, last_job_id, updated_at IS NOT NULL
         FROM circuit_breakers",
    );
    let last =
        gateway.sql_one("SELECT id FROM job_queue WHERE submitted_by = 'scheduler' ORDER BY completed_at DESC LIMIT 1");
    assert_eq!(row, [["shaky", "poll", "open", "3", "1", "1", &last, "1"]]);
    assert_eq!(changes(&gateway), [OPENED]);

    let id = gateway.enqueue("shaky", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "failed", "BRK-01: it runs for others");
    assert_eq!(gateway.sql_one("SELECT failure_count FROM circuit_breakers"), "3", "BRK-01: and does not count");

    let health = gateway.get("/healthz");
    assert_eq!(health["plugins_circuit_open"], 1, "{health}");
    let status = gateway.get("/system/status");
    assert!(status.to_string().contains("shaky"), "BRK-11: {status}");
    let (_, text, _) = said(&gateway.cli(&["system", "status"]));
    assert!(text.contains("shaky") && text.contains("breaker"), "BRK-11: {text}");

    for kill in [true, false] {
        if kill {
            gateway.kill_nine();
        } else {
            assert_eq!(gateway.stop(), 0);
        }
        gateway.start();
        let before = count(&gateway, skipped);
        await_rows(&gateway, skipped, before + 2);
        assert_eq!(state(&gateway), "open", "BRK-08");
    }
    assert_eq!(count(&gateway, "job_queue WHERE submitted_by = 'scheduler'"), jobs);

    for args in [&["system", "breaker", "--json"][..], &["system", "breaker", "shaky", "--json"]] {
        let told = gateway.cli_json(args);
        let text = told.to_string();
        let breaker = find(&told, "failure_count").unwrap_or_else(|| panic!("{told}"));
        assert_eq!((&breaker["state"], &breaker["failure_count"]), (&json!("open"), &json!(3)), "BRK-10: {told}");
        assert!(find(&told, "transitions").is_some_and(|t| t["transitions"].is_array()), "BRK-10: {told}");
        assert!(text.contains("failure_threshold"), "{told}");
    }
    let (code, text, _) = said(&gateway.cli(&["system", "breaker"]));
    assert!(code == 0 && text.contains("shaky") && text.contains("open"), "{text}");

    let (code, _, stderr) = said(&gateway.cli(&["system", "reset", "shakey"]));
    assert_eq!(code, 1, "{stderr}");
    fs::write(gateway.path("script"), "ok\n").expect("the script");
    let (code, _, stderr) = said(&gateway.cli(&["system", "reset", "shaky"]));
    assert_eq!(code, 0, "BRK-09: {stderr}");
    assert_eq!(changes(&gateway), [OPENED, "open closed manual_reset"]);
    assert_eq!(gateway.sql("SELECT state, failure_count FROM circuit_breakers"), [["closed", "0"]]);
    assert_eq!(gateway.get("/healthz")["plugins_circuit_open"], 0);
    await_rows(&gateway, "job_queue WHERE submitted_by = 'scheduler' AND status = 'succeeded'", 2);
    accounted(&gateway);
}

/// The innermost object that has that key, anywhere.
fn find(value: &Value, key: &str) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(key) => {
            map.values().find_map(|v| find(v, key)).or_else(|| Some(value.clone()))
        }
        Value::Object(map) => map.values().find_map(|v| find(v, key)),
        Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

/// BRK-02, BRK-04, BRK-07: after the cooldown one poll probes; its failure opens the breaker again, its success closes it.
#[test]
fn one_probe_decides_whether_the_breaker_closes() {
    let gateway =
        scripted("    circuit_breaker: {threshold: 2, reset_after: 2s}\n", "fail\nfail\nfail\nwait\nok\n").start();
    gateway.until_some("a second probe is under way", |g| {
        (changes(g).len() == 4 && state(g) == "half_open").then_some(())
    });
    let story = [
        OPENED,
        "open half_open cooldown_elapsed",
        "half_open open failure_threshold",
        "open half_open cooldown_elapsed",
    ];
    assert_eq!(changes(&gateway), story);
    // While it is under way no second one is let through, whatever `if_running` says of it.
    let skipped = "schedule_ticks WHERE status = 'skipped' AND reason IN ('breaker_open', 'running', 'guard')";
    let before = count(&gateway, skipped);
    await_rows(&gateway, skipped, before + 2);
    assert_eq!(count(&gateway, "job_queue WHERE submitted_by = 'scheduler'"), 4);
    fs::write(gateway.path("go"), "").expect("the mark");
    await_state(&gateway, "closed");
    assert_eq!(changes(&gateway).last().map(String::as_str), Some("half_open closed success"));
    assert_eq!(gateway.sql_one("SELECT failure_count FROM circuit_breakers"), "0");
    let jobs = gateway.sql(
        "SELECT t.reason, q.status, q.submitted_by FROM circuit_breaker_transitions t JOIN job_queue q ON q.id = t.job_id ORDER BY t.id",
    );
    assert!(jobs.iter().all(|row| row[2] == "scheduler"), "{jobs:?}");
    assert!(jobs.iter().any(|row| row[0] == "success" && row[1] == "succeeded"), "{jobs:?}");
    let times = gateway.sql(
        "SELECT (julianday(b.created_at) - julianday(a.created_at)) * 86400000 >= 1999 FROM circuit_breaker_transitions a
         JOIN circuit_breaker_transitions b ON b.id = a.id + 1 WHERE b.reason = 'cooldown_elapsed'",
    );
    assert!(times.iter().all(|row| row[0] == "1"), "no probe before reset_after");
    // The fourth reason.
    fs::write(gateway.path("script"), "fail\n").expect("the script");
    await_state(&gateway, "open");
    assert_eq!(gateway.cli(&["system", "reset", "shaky"]).status.code(), Some(0));
    let reasons = gateway.sql("SELECT DISTINCT reason FROM circuit_breaker_transitions ORDER BY reason");
    assert_eq!(reasons, [["cooldown_elapsed"], ["failure_threshold"], ["manual_reset"], ["success"]], "BRK-07");
    accounted(&gateway);
}

/// BRK-05, D-08: a success in between begins the count anew, and a job counts once, whatever its attempts.
#[test]
fn a_success_between_failures_keeps_it_closed() {
    let gateway = scripted("", "fail\nfail\nok\nfail\nfail\nwait\n").start();
    await_rows(&gateway, "job_queue WHERE submitted_by = 'scheduler' AND status = 'failed'", 4);
    gateway.until_some("the sixth is under way", |g| {
        (count(g, "job_queue WHERE submitted_by = 'scheduler'") == 6).then_some(())
    });
    assert_eq!(gateway.sql("SELECT state, failure_count FROM circuit_breakers"), [["closed", "2"]]);
    assert_eq!(changes(&gateway), Vec::<String>::new());
    fs::write(gateway.path("go"), "").expect("the mark");
    accounted(&gateway);
}

/// D-08: three attempts of one job are one failure; and the opening is told live.
#[test]
fn a_job_counts_once_however_often_it_is_tried() {
    let keys = format!(
        "    env_passthrough: [DUCTILE_TEST_DIR]\n    max_attempts: 3\n    retry: {{backoff_base: 10ms}}\n    \
         circuit_breaker: {{threshold: 2, reset_after: 1h}}\n{}",
        schedules(&["id: s, every: 500ms"])
    );
    let script = "while [ ! -e \"$DUCTILE_TEST_DIR/go\" ]; do sleep 0.02; done\nexit 1";
    let gateway = recording().script_with("shaky", script, &keys).start();
    // Nothing fails before somebody listens.
    let events = gateway.events_since(0, |seen| {
        fs::write(gateway.path("go"), "").expect("the mark");
        seen.iter().any(|e| e["type"] == "breaker.opened")
    });
    let opened = events.iter().find(|e| e["type"] == "breaker.opened").expect("seen");
    assert_eq!(
        (&opened["plugin"], &opened["command"], &opened["from"], &opened["to"], &opened["failure_count"]),
        (&json!("shaky"), &json!("poll"), &json!("closed"), &json!("open"), &json!(2)),
        "{opened}"
    );
    await_state(&gateway, "open");
    assert_eq!(count(&gateway, "job_queue WHERE submitted_by = 'scheduler'"), 2);
    assert_eq!(count(&gateway, "job_attempts"), 6);
}
