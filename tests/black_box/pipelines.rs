//! Pipelines, hooks and routes beyond the scenarios: what is refused, dropped or forbidden, and where that can be seen.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE};
use crate::scenarios::{Recording, asked, recording, settled};

/// PIP-44, PIP-48: each signal starts its own pipeline; of a failure it says why, in the words that messages are made of.
#[test]
fn each_signal_starts_its_own_hook() {
    let signals = ["completed", "failed", "timed_out", "dead"];
    let pipeline =
        |signal: &str| format!("  - name: on-{signal}\n    on-hook: job.{signal}\n    steps: [{{uses: notify}}]\n");
    let refuse = "printf '{\"status\":\"error\",\"error\":\"out of paper\",\"retry\":false}'";
    let gateway = recording()
        .step("good", "[]", "    notify_on_complete: true\n")
        .keeps("bad", refuse, "    notify_on_complete: true\n")
        .keeps("late", "exec sleep 30", "    notify_on_complete: true\n    timeout: 200ms\n    max_attempts: 1\n")
        .step("notify", "[]", "")
        .wiring(&format!("pipelines:\n{}", signals.map(pipeline).concat()))
        .start();
    for plugin in ["good", "bad", "late"] {
        let id = gateway.enqueue(plugin, "poll", "{}");
        gateway.finished(&id);
    }
    settled(&gateway);
    let fired = gateway.sql(
        "SELECT p.plugin, group_concat(json_extract(q.payload, '$.type'), ' ') FROM (SELECT * FROM job_queue ORDER BY rowid) q
         JOIN job_queue p ON p.id = q.parent_job_id WHERE q.submitted_by = 'hook' GROUP BY p.plugin ORDER BY p.plugin",
    );
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words.sort_unstable();
        words.join(" ")
    };
    let fired: Vec<_> = fired.iter().map(|row| format!("{}: {}", row[0], sorted(&row[1]))).collect();
    assert_eq!(
        fired,
        ["bad: job.completed job.failed", "good: job.completed", "late: job.completed job.dead job.timed_out"]
    );
    let why = gateway.sql(
        "SELECT json_extract(q.payload, '$.payload.message'), json_extract(q.payload, '$.payload.text'),
            'Job failed [bad]: ' || p.last_error, json_extract(q.payload, '$.payload.error') = p.last_error
         FROM job_queue q JOIN job_queue p ON p.id = q.parent_job_id WHERE json_extract(q.payload, '$.type') = 'job.failed'",
    );
    assert!(
        why[0][0].contains("out of paper") && why[0][0] == why[0][1] && why[0][0] == why[0][2] && why[0][3] == "1",
        "{why:?}"
    );
}

/// QUE-10, PIP-45: a job that dies because its plugin is switched off is an end like any other.
#[test]
fn a_job_that_a_reload_buries_fires_its_hook() {
    let gateway = recording()
        .step("gone", "[]", "    notify_on_complete: true\n")
        .step("notify", "[]", "")
        .wiring("pipelines:\n  - name: on-death\n    on-hook: job.dead\n    from_plugin: gone\n    steps: [{uses: notify}]\n")
        .start();
    assert_eq!(gateway.request("POST", "/system/pause", None).status, 200);
    let id = gateway.enqueue("gone", "poll", "{}");
    let config = gateway.path("config.yaml");
    let text = fs::read_to_string(&config)
        .expect("a configuration")
        .replace("  gone:\n    enabled: true", "  gone:\n    enabled: false");
    fs::write(&config, text).expect("written");
    let answer = gateway.request("POST", "/system/reload", None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(gateway.request("POST", "/system/resume", None).status, 200);
    assert_eq!(settled(&gateway), ["gone - dead -", "notify step_1 succeeded gone"]);
    let payload = &asked(&gateway, "notify")["event"]["payload"];
    assert_eq!((&payload["job_id"], &payload["status"]), (&json!(id), &json!("dead")), "{payload}");
}

/// PIP-26: several sources in one matcher are refused, with the place.
#[test]
fn a_list_of_sources_is_refused() {
    let gateway = Gateway::new()
        .plugin("echo")
        .wiring("pipelines:\n  - name: p\n    on: x\n    from_plugin: [echo]\n    steps: [{uses: echo}]\n")
        .prepare();
    let output = gateway.cli(&["config", "check"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains("pipelines.p.from_plugin") && text.contains("one plugin"), "{text}");
}

/// RTR-01, RTR-02, RTR-03, RTR-04, RTR-07, API-03: what a directly called plugin emits goes its ways, each of them once, unless the caller
/// forbids it.
#[test]
fn events_of_a_direct_call_go_their_ways_unless_the_caller_forbids_it() {
    let events = r#"[{"type":"said","payload":{"n":1}},{"type":"said.more","payload":{"n":2}}]"#;
    let gateway = recording()
        .step("talker", events, "")
        .step("scribe", "[]", "")
        .step("critic", "[]", "")
        .wiring(
            "routes:\n  - {from: talker, event_type: said, to: scribe}\n  - {from: talker, event_type: said, to: critic}\n  \
             - {from: critic, event_type: said, to: scribe}\npipelines:\n  - name: hear\n    on: said\n    steps: [{uses: critic}]\n",
        )
        .start();
    let answer = gateway.request("POST", "/plugin/talker/poll?route=false", None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(settled(&gateway), ["talker - succeeded -"]);
    let id = gateway.enqueue("talker", "poll", "{}");
    let mut followed = settled(&gateway).split_off(2);
    followed.sort_unstable();
    assert_eq!(followed, ["critic - succeeded talker", "critic step_1 succeeded talker", "scribe - succeeded talker"]);
    let rows = gateway.sql(&format!(
        "SELECT count(DISTINCT source_event_id), group_concat(DISTINCT submitted_by), group_concat(DISTINCT command)
         FROM job_queue WHERE parent_job_id = '{id}'"
    ));
    assert_eq!(rows, [["1", "route", "handle"]], "one event, three jobs");
    let event = &asked(&gateway, "scribe")["event"];
    assert_eq!(
        (&event["type"], &event["source"], &event["payload"]["n"]),
        (&json!("said"), &json!("talker"), &json!(1))
    );
}

/// DIS-17, DIS-18, DIS-19, PIP-29, QUE-29: what was decided before anything was spawned is told, with the reason when that was to refuse.
#[test]
fn what_was_decided_before_the_spawn_is_told() {
    let wiring = "pipelines:\n  - name: check\n    on: check.start\n    execution_mode: synchronous\n    steps:\n      - id: good\n        \
                  uses: good\n        if: {path: payload.n, op: gt, value: 1}\n      - id: lost\n        uses: lost\n        \
                  with: {text: '{payload.nowhere}'}\n      - {id: never, uses: good}\n";
    let gateway = recording().step("good", "[]", "").step("lost", "[]", "").wiring(wiring).start();
    let answer = gateway.request("POST", "/pipeline/check", Some(r#"{"payload":{"n":2}}"#));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("failed")), "{}", answer.body);
    assert_eq!(
        settled(&gateway),
        ["core.switch good__switch succeeded -", "good good succeeded core.switch", "lost lost failed good"],
        "a refused step is followed by none"
    );
    let job = gateway.sql("SELECT status, attempt, last_error FROM job_queue WHERE plugin = 'lost'").remove(0);
    assert_eq!(job[..2], ["failed", "1"]);
    assert!(job[2].contains("payload.nowhere"), "{job:?}");
    assert_eq!(fs::read_dir(gateway.path("requests")).expect("one ran").count(), 1, "only one process was spawned");
    let told = kept_events(&gateway, "job.preflight", 3);
    let decisions: Vec<_> = told.iter().map(|event| (event["plugin"].as_str(), event["decision"].as_str())).collect();
    assert_eq!(
        decisions,
        [(Some("core.switch"), Some("run")), (Some("good"), Some("run")), (Some("lost"), Some("fail"))],
        "skip is for what nothing does yet"
    );
    assert!(
        told[0]["reason"] == "" && told[2]["reason"].as_str().is_some_and(|why| why.contains("payload.nowhere")),
        "{told:?}"
    );
    assert!(told.iter().all(|event| event["job_id"].is_string() && event["command"] == "handle"), "{told:?}");
}

/// So many live events of a type out of those that this boot still holds.
pub(crate) fn kept_events(gateway: &Gateway, kind: &str, count: usize) -> Vec<Value> {
    let boot = gateway.get("/system/tree")["boot_id"].as_str().expect("a boot id").to_owned();
    let mut stream = UnixStream::connect(gateway.path("ductile.sock")).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let path = format!("/events?type={kind}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\nLast-Event-ID: {boot}-0\r\n\r\n")
        .expect("sent");
    let lines = BufReader::new(stream).lines().map(|line| line.expect("an event in time"));
    let events = lines.filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok());
    events.filter(|event: &Value| event["type"] == kind).take(count).collect()
}
