//! The scenarios that the testing guide names, played against the real binary, one test or more for each.
//!
//! One is missing, because what it is about does not exist: `webhook-ingress` waits for the door of webhooks.

use std::fs;

use serde_json::{Value, json};

use crate::doors::{ask, free_port};
use crate::gateway::{Builder, Gateway, plugin_processes};

/// A gateway whose plugins keep the requests that they get.
pub(crate) fn recording() -> Builder {
    let builder = Gateway::new();
    let dir = builder.path().display().to_string();
    builder.env("DUCTILE_TEST_DIR", dir)
}

pub(crate) trait Recording {
    /// A plugin that keeps its request and then runs `rest`.
    fn keeps(self, name: &str, rest: &str, keys: &str) -> Self;
    /// A plugin that keeps its request, says `<name> did it`, and emits these events (a JSON list).
    fn step(self, name: &str, events: &str, keys: &str) -> Self;
}

impl Recording for Builder {
    fn keeps(self, name: &str, rest: &str, keys: &str) -> Self {
        let keep = "mkdir -p \"$DUCTILE_TEST_DIR/requests\"\ncat > \"$DUCTILE_TEST_DIR/requests/$DUCTILE_JOB_ID\"\n";
        self.script_with(name, &format!("{keep}{rest}\n"), &format!("    env_passthrough: [DUCTILE_TEST_DIR]\n{keys}"))
    }

    fn step(self, name: &str, events: &str, keys: &str) -> Self {
        let answer = format!("printf '%s' '{{\"status\":\"ok\",\"result\":\"{name} did it\",\"events\":{events}}}'");
        self.keeps(name, &answer, keys)
    }
}

/// Plugin, node or `-`, status, and plugin of the parent or `-`, of every job in the order of their birth.
pub(crate) fn story(gateway: &Gateway) -> Vec<String> {
    let rows = gateway.sql(
        "SELECT q.plugin, coalesce(json_extract(c.accumulated_json, '$.ductile.node'), '-'), q.status, coalesce(p.plugin, '-')
         FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id LEFT JOIN job_queue p ON p.id = q.parent_job_id
         ORDER BY q.rowid",
    );
    rows.iter().map(|row| row.join(" ")).collect()
}

/// What follows an end is committed with it, so that nothing open means that nothing more comes.
pub(crate) fn settled(gateway: &Gateway) -> Vec<String> {
    let open = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')";
    gateway.until_some("every job has ended", |g| (g.sql_one(open) == "0").then_some(()));
    story(gateway)
}

/// What the only job of a plugin was asked.
pub(crate) fn asked(gateway: &Gateway, plugin: &str) -> Value {
    let jobs = gateway.sql(&format!("SELECT id FROM job_queue WHERE plugin = '{plugin}'"));
    assert_eq!(jobs.len(), 1, "jobs of {plugin}");
    let kept = gateway.path("requests").join(&jobs[0][0]);
    serde_json::from_str(&fs::read_to_string(kept).expect("the request was kept")).expect("JSON")
}

fn jobs(gateway: &Gateway) -> String {
    gateway.sql_one("SELECT count(*) FROM job_queue")
}

/// Starts a pipeline that is waited for, and answers its run.
fn run(gateway: &Gateway, pipeline: &str, payload: &str) -> Value {
    let answer = gateway.request("POST", &format!("/pipeline/{pipeline}"), Some(&format!("{{\"payload\":{payload}}}")));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// `scheduler-recovery`. DOC-06: what was running when the gateway was killed is an orphan until the next start, which ends its
/// process and tries it again, or ends the job that has no attempt left.
#[test]
fn an_orphaned_job_is_recovered_by_the_next_start() {
    let nap = "[ \"$DUCTILE_ATTEMPT\" = 1 ] && exec sleep 60\nprintf '{\"status\":\"ok\",\"result\":\"woken\"}'";
    let mut gateway = recording()
        .keeps("patient", nap, "    retry: {max_attempts: 2, backoff_base: 10ms}\n")
        .keeps("single", nap, "    max_attempts: 1\n")
        .service("  max_workers: 2\n")
        .start();
    let scheduler = gateway.get("/system/actors/root%2Fflow_sup%2Fscheduler");
    assert_eq!(scheduler["phase"], "up", "{scheduler}");
    let ids = ["patient", "single"].map(|plugin| gateway.enqueue(plugin, "poll", "{}"));
    gateway.until("both have read their request and sleep", |g| {
        let kept = fs::read_dir(g.path("requests")).map_or(0, Iterator::count);
        (kept == 2 && plugin_processes(g.dir.path()).len() == 2).then_some(())
    });
    gateway.kill_nine();
    let former = plugin_processes(gateway.dir.path());
    assert_eq!(
        (gateway.sql_one("SELECT count(*) FROM job_queue WHERE status = 'running'"), former.len()),
        ("2".into(), 2)
    );

    gateway.start();
    assert!(
        !plugin_processes(gateway.dir.path()).iter().any(|pid| former.contains(pid)),
        "orphaned processes are ended"
    );
    let [again, ended] = ids.each_ref().map(|id| gateway.finished(id));
    assert_eq!(
        (&again["status"], &again["attempt"], &again["result"]["result"]),
        (&json!("succeeded"), &json!(2), &json!("woken"))
    );
    assert_eq!(ended["status"], "dead", "{ended}");
    let transitions = |id: &str| {
        let rows = gateway.sql(&format!(
            "SELECT to_status, coalesce(reason, '') FROM job_transitions WHERE job_id = '{id}' ORDER BY id"
        ));
        let words: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        (words.join(" "), rows.iter().any(|row| row[1].contains("crashed")))
    };
    assert_eq!(transitions(&ids[0]), ("queued running failed queued running succeeded".to_owned(), true));
    assert_eq!(transitions(&ids[1]), ("queued running failed dead".to_owned(), true));
    let attempts =
        gateway.sql(&format!("SELECT attempt, status FROM job_attempts WHERE job_id = '{}' ORDER BY attempt", ids[0]));
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(gateway.logs().matches("recovered a job that was running").count(), 2);
}

/// `scheduler-recovery`. DOC-06, SCH-02, SCH-15: a scheduled poll that ran when the gateway was killed is tried again under its own tick, and
/// its schedule goes on from where it was: what passed meanwhile is caught up once, as it says.
#[test]
fn a_schedule_goes_on_where_it_was_when_the_gateway_was_killed() {
    let nap = "[ \"$DUCTILE_ATTEMPT\" = 1 ] && [ ! -e \"$DUCTILE_TEST_DIR/awake\" ] && exec sleep 60\nprintf '{\"status\":\"ok\"}'";
    let keys = "    retry: {max_attempts: 2, backoff_base: 10ms}\n    schedules:\n      - {id: watch, every: 1s, catch_up: run_once}\n";
    let mut gateway = recording().keeps("watcher", nap, keys).start();
    gateway.until("the first poll sleeps, and a tick after it was skipped", |g| {
        let skipped = g.sql_one("SELECT count(*) FROM schedule_ticks WHERE status = 'skipped' AND reason = 'running'");
        (skipped != "0" && plugin_processes(g.dir.path()).len() == 1).then_some(())
    });
    gateway.kill_nine();
    fs::write(gateway.path("awake"), "").expect("the mark");
    let orphan = gateway.sql("SELECT id, requested_by FROM job_queue WHERE status = 'running'");
    assert_eq!((orphan.len(), orphan[0][1].as_str()), (1, "watch"), "{orphan:?}");
    let expected = gateway.sql_one("SELECT instant FROM schedule_ticks WHERE status = 'expected'");
    let count = |g: &Gateway, status: &str| {
        let count = g.sql_one(&format!("SELECT count(*) FROM schedule_ticks WHERE status = '{status}'"));
        count.parse::<u32>().expect("a number")
    };
    let has_passed = format!("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 seconds') > '{expected}'");
    gateway.until("two instants have passed", |g| (g.sql_one(&has_passed) == "1").then_some(()));

    let fired = count(&gateway, "fired");
    gateway.start();
    assert_eq!(gateway.finished(&orphan[0][0])["attempt"], 2);
    gateway.until("one was caught up, and the schedule goes on", |g| {
        (count(g, "caught_up") == 1 && count(g, "fired") > fired + 1).then_some(())
    });
    let tick = gateway.sql(&format!("SELECT status FROM schedule_ticks WHERE job_id = '{}'", orphan[0][0]));
    assert_eq!(tick, [["fired"]], "what was recovered has one tick, its own");
    assert!(count(&gateway, "missed") >= 1, "the others were missed");
    crate::schedules::unbroken(&gateway, "watcher", 1000);
    crate::schedules::accounted(&gateway);
}

/// `api-e2e`. DOC-07, API-06, API-14, API-16, API-21, API-42: with real tokens at the TCP door, pipelines and plugins are started by
/// those who may, and what became of them is read back.
#[test]
fn the_api_starts_pipelines_for_those_who_may() {
    let port = free_port();
    let token = |name: &str, scopes: &str| {
        format!("      - name: {name}\n        token: ${{{name}}}\n        scopes: [{scopes}]\n")
    };
    let api = format!(
        "  enabled: true\n  listen: 127.0.0.1:{port}\n  auth:\n    tokens:\n{}{}{}",
        token("WRITER", "'plugin:rw', 'jobs:ro'"),
        token("READER", "'plugin:ro', 'jobs:ro'"),
        token("NARROW", "'jobs:status:ro'"),
    );
    let wiring = "pipelines:\n  - name: relate\n    on: tale.told\n    steps:\n      - {id: tell, uses: echo}\n      - {id: retell, uses: echo}\n";
    let builder = ["WRITER", "READER", "NARROW"]
        .iter()
        .fold(Gateway::new().plugin("echo"), |b, name| b.env(name, format!("canary-{name}-1")));
    let gateway = builder.api(&api).wiring(wiring).start();

    for (token, path, status) in [
        (None, "/pipeline/relate", 401),
        (Some("nonsense"), "/pipeline/relate", 401),
        (Some("canary-READER-1"), "/pipeline/relate", 403),
        (Some("canary-NARROW-1"), "/pipeline/relate", 403),
        (Some("canary-READER-1"), "/plugin/echo/poll", 403),
        (Some("canary-WRITER-1"), "/pipeline/relay", 404),
    ] {
        let answer = ask(port, "POST", path, token);
        assert_eq!(answer.status, status, "{path} with {token:?}: {}", answer.body);
        assert!(answer.json()["error"].is_string(), "{}", answer.body);
    }
    assert_eq!(jobs(&gateway), "0", "what was refused left nothing");

    let answer = ask(port, "POST", "/pipeline/relate", Some("canary-WRITER-1"));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let accepted = answer.json();
    assert_eq!(
        (&accepted["status"], &accepted["plugin"], &accepted["command"]),
        (&json!("queued"), &json!("pipeline"), &json!("relate"))
    );
    let id = accepted["job_id"].as_str().expect("an id");
    let row = gateway.sql(&format!("SELECT plugin, command, submitted_by FROM job_queue WHERE id = '{id}'"));
    assert_eq!(row, [["echo", "handle", "api"]]);
    let direct = ask(port, "POST", "/plugin/echo/poll", Some("canary-WRITER-1"));
    assert_eq!(direct.status, 202, "{}", direct.body);

    assert_eq!(
        settled(&gateway)[..3].iter().filter(|line| line.starts_with("echo")).count(),
        3,
        "two steps and the direct call: {:?}",
        story(&gateway)
    );
    let read = |path: &str| {
        let answer = ask(port, "GET", path, Some("canary-READER-1"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    };
    let job = read(&format!("/job/{id}"));
    assert_eq!((&job["status"], &job["result"]["status"]), (&json!("succeeded"), &json!("ok")), "{job}");
    let tree = read(&format!("/job/{id}/tree"));
    assert_eq!(
        (tree.as_array().map(Vec::len), &tree[0]["parent_job_id"], &tree[1]["parent_job_id"]),
        (Some(2), &Value::Null, &json!(id))
    );
    let log = read(&format!("/job-logs?job_id={id}"));
    assert_eq!((&log["total"], &log["logs"][0]["status"]), (&json!(1), &json!("succeeded")), "{log}");
    let narrow = ask(port, "GET", &format!("/job/{id}"), Some("canary-NARROW-1")).json();
    assert_eq!((&narrow["status"], narrow.get("result")), (&json!("succeeded"), None), "{narrow}");
}

/// `hook-route-compilation`. DOC-08, PIP-45, PIP-46, PIP-47: the end of a root job starts one hook job, whose `call` was expanded and
/// which knows of the job only what the envelope says.
#[test]
fn a_hook_starts_the_entry_of_the_pipeline_that_it_calls() {
    let gateway = recording()
        .step("root", "[]", "    notify_on_complete: true\n")
        .step("silent", "[]", "")
        .step("notify", "[]", "    notify_on_complete: true\n")
        .wiring(
            "pipelines:\n  - name: on-end\n    on-hook: job.completed\n    steps:\n      - {id: go, call: tell}\n  \
             - name: tell\n    on: tell.start\n    steps:\n      - {id: say, uses: notify}\n",
        )
        .start();
    let id = gateway.enqueue("root", "poll", r#"{"secret":"of the root"}"#);
    gateway.enqueue("silent", "poll", "{}");
    assert_eq!(
        settled(&gateway),
        ["root - succeeded -", "silent - succeeded -", "notify go/say succeeded root"],
        "one hook job: not for a plugin that asked for none, and not for the hook's own job"
    );
    let hook = gateway.sql(
        "SELECT q.submitted_by, q.parent_job_id, coalesce(c.parent_id, 'none'), json_extract(c.accumulated_json, '$.ductile.route_depth')
         FROM job_queue q JOIN event_context c ON c.id = q.event_context_id WHERE q.plugin = 'notify'",
    );
    assert_eq!(hook, [["hook", id.as_str(), "none", "1"]], "it names who fired it and inherits nothing");
    let request = asked(&gateway, "notify");
    let event = &request["event"];
    assert_eq!((&event["type"], &event["source"]), (&json!("job.completed"), &json!("root")), "{event}");
    let payload = &event["payload"];
    let told = ["job_id", "plugin", "command", "status", "attempt"].map(|key| payload[key].clone());
    assert_eq!(told, [json!(id), json!("root"), json!("poll"), json!("succeeded"), json!(1)]);
    assert!(
        payload["duration_ms"].is_u64() && payload.get("error").is_none() && payload.get("message").is_none(),
        "{payload}"
    );
    assert!(!request.to_string().contains("of the root"), "the payload of the job is not in the envelope: {request}");
}

const TERMINAL: &str = "pipelines:
  - name: brief
    on: brief.start
    execution_mode: synchronous
    steps:
      - id: early
        uses: early
        if: {path: payload.is_early, op: eq, value: true}
      - {id: late, uses: late}
  - name: torn
    on: torn.start
    execution_mode: synchronous
    steps:
      - {id: early, uses: early}
      - {id: tear, uses: broken}
      - {id: never, uses: late}
  - name: wide
    on: wide.start
    execution_mode: synchronous
    steps:
      - split: [{uses: early}, {uses: late}]
";

/// `sync-terminal-route`. DOC-09, API-07, API-08, API-09, API-11, PIP-13, PIP-49: who waits gets the result of the step that came last,
/// never that of one that was passed over.
#[test]
fn who_waits_gets_the_result_of_the_step_that_came_last() {
    let gateway = recording()
        .step("early", "[]", "")
        .step("late", "[]", "")
        .keeps("broken", "printf '{\"status\":\"error\",\"error\":\"torn apart\",\"retry\":false}'", "")
        .wiring(TERMINAL)
        .start();
    let run_of = |payload| run(&gateway, "brief", payload);
    let answer = run_of(r#"{"is_early":false}"#);
    assert_eq!((&answer["status"], answer["duration_ms"].is_u64()), (&json!("succeeded"), true), "{answer}");
    assert_eq!(answer["result"]["result"], "late did it");
    let tree: Vec<_> = answer["tree"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|job| (&job["plugin"], &job["command"], &job["status"]))
        .collect();
    let done = json!("succeeded");
    let handle = json!("handle");
    assert_eq!(tree, [(&json!("core.switch"), &handle, &done), (&json!("late"), &handle, &done)]);
    assert_eq!(answer["job_id"], answer["tree"][0]["job_id"]);
    assert_eq!(story(&gateway), ["core.switch early__switch succeeded -", "late late succeeded core.switch"]);
    let told = gateway.sql(
        "SELECT q.plugin, (SELECT group_concat(t.to_status, ' ') FROM (SELECT * FROM job_transitions ORDER BY id) t WHERE t.job_id = q.id),
            (SELECT count(*) FROM job_log l WHERE l.job_id = q.id AND l.status = 'succeeded')
         FROM job_queue q ORDER BY q.rowid",
    );
    let whole = "queued running succeeded";
    assert_eq!(told, [["core.switch", whole, "1"], ["late", whole, "1"]], "the ledger tells it as for any job");

    let answer = run_of(r#"{"is_early":true}"#);
    assert_eq!(
        (answer["result"]["result"].as_str(), answer["tree"].as_array().map(Vec::len)),
        (Some("late did it"), Some(3)),
        "{answer}"
    );

    let answer = run(&gateway, "torn", "{}");
    assert_eq!(
        (&answer["status"], &answer["result"]["error"], answer["tree"].as_array().map(Vec::len)),
        (&json!("failed"), &json!("torn apart"), Some(2))
    );

    let before = jobs(&gateway);
    let answer = gateway.request("POST", "/pipeline/wide", Some("{}"));
    assert!(answer.status == 400 && answer.body.contains("?async=true"), "{}", answer.body);
    assert_eq!(jobs(&gateway), before, "a refusal leaves nothing");
    for pipeline in ["wide", "brief"] {
        let answer = gateway.request("POST", &format!("/pipeline/{pipeline}?async=true"), Some("{}"));
        assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")), "{}", answer.body);
    }
    settled(&gateway);
}

/// `conditional-with-route`. DOC-10, PIP-13, PIP-27, PIP-28, PIP-40: a decision is a job between the steps; the step that it lets run
/// gets what `with` says, and each hop counts.
#[test]
fn a_decision_passes_a_step_over_or_lets_it_run_with_what_with_says() {
    let wiring = "pipelines:\n  - name: sift\n    on: sift.start\n    execution_mode: synchronous\n    max_depth: 7\n    steps:\n      - id: gate\n        \
                  uses: gated\n        if: {path: payload.kind, op: eq, value: audio}\n        with:\n          name: '{payload.file}'\n          \
                  label: 'a {payload.kind} of {payload.size}'\n          size: '{payload.size}'\n      - {id: end, uses: last}\n";
    let start = || recording().step("gated", "[]", "").step("last", "[]", "").wiring(wiring).start();
    let depths = "SELECT json_extract(c.accumulated_json, '$.ductile.node'), json_extract(c.accumulated_json, '$.ductile.route_depth'),
            json_extract(c.accumulated_json, '$.ductile.route_max_depth')
         FROM job_queue q JOIN event_context c ON c.id = q.event_context_id ORDER BY q.rowid";

    let gateway = start();
    run(&gateway, "sift", r#"{"kind":"text","file":"a.txt"}"#);
    assert_eq!(story(&gateway), ["core.switch gate__switch succeeded -", "last end succeeded core.switch"]);
    assert_eq!(gateway.sql(depths), [["gate__switch", "1", "7"], ["end", "2", "7"]]);
    let events =
        gateway.sql_one("SELECT json_extract(result, '$.events[0].type') FROM job_log WHERE plugin = 'core.switch'");
    assert_eq!(events, "ductile.switch.false");
    assert_eq!(
        asked(&gateway, "last")["event"]["payload"]["file"],
        "a.txt",
        "what follows gets the payload as it came"
    );
    drop(gateway);

    let gateway = start();
    run(&gateway, "sift", r#"{"kind":"audio","file":"b.mp3","size":1048576}"#);
    assert_eq!(
        story(&gateway),
        ["core.switch gate__switch succeeded -", "gated gate succeeded core.switch", "last end succeeded gated"]
    );
    assert_eq!(gateway.sql(depths), [["gate__switch", "1", "7"], ["gate", "2", "7"], ["end", "3", "7"]]);
    let request = asked(&gateway, "gated");
    let payload = &request["event"]["payload"];
    let mapped = ["name", "label", "size", "file"].map(|key| payload[key].clone());
    assert_eq!(mapped, [json!("b.mp3"), json!("a audio of 1048576"), json!(1_048_576), json!("b.mp3")], "{payload}");
    let context = &request["context"];
    let shown =
        ["ductile_plugin", "ductile_pipeline", "ductile_step_id", "ductile_route_depth", "ductile_route_max_depth"]
            .map(|key| context[key].clone());
    assert_eq!(shown, [json!("gated"), json!("sift"), json!("gate"), json!(2), json!(7)], "{context}");
    let payload = &asked(&gateway, "last")["event"]["payload"];
    assert_eq!((&payload["result"], &payload["ductile_upstream_plugin"]), (&json!("gated did it"), &json!("gated")));
}

/// `from-plugin-scoping`. DOC-11, PIP-25: only the ends and events of the named plugin start a scoped pipeline; one without a scope hears
/// all. What comes from no plugin at all is tested with webhooks.
#[test]
fn a_scoped_pipeline_hears_one_plugin_only() {
    let pipeline = |name: &str, trigger: &str, uses: &str, from: &str| {
        format!("  - name: {name}\n    {trigger}\n{from}    steps: [{{uses: {uses}}}]\n")
    };
    let from = "    from_plugin: alpha\n";
    let pipelines = [
        pipeline("scoped", "on-hook: job.completed", "one", from),
        pipeline("open", "on-hook: job.completed", "all", ""),
        pipeline("scoped-event", "on: said", "one", from),
        pipeline("open-event", "on: said", "all", ""),
    ];
    let said = r#"[{"type":"said","payload":{}}]"#;
    let gateway = recording()
        .step("alpha", said, "    notify_on_complete: true\n")
        .step("beta", said, "    notify_on_complete: true\n")
        .step("one", "[]", "")
        .step("all", "[]", "")
        .wiring(&format!("pipelines:\n{}", pipelines.concat()))
        .start();
    for plugin in ["alpha", "beta"] {
        let id = gateway.enqueue(plugin, "poll", "{}");
        gateway.finished(&id);
    }
    settled(&gateway);
    let heard = gateway.sql(
        "SELECT p.plugin, group_concat(json_extract(c.accumulated_json, '$.ductile.root'), ' ' ORDER BY q.target_key)
         FROM job_queue q JOIN job_queue p ON p.id = q.parent_job_id
         JOIN event_context c ON c.id = q.event_context_id GROUP BY p.plugin ORDER BY p.plugin",
    );
    assert_eq!(heard, [["alpha", "open-event open scoped-event scoped"], ["beta", "open-event open"]]);
    let routes = &gateway.get("/config/view")["compiled_routes"];
    assert_eq!(routes["scoped"][0]["source"]["source_plugin"], "alpha", "{routes}");
    assert_eq!(routes["open"][0]["source"].get("source_plugin"), None, "{routes}");
    assert!(routes["open"][0].is_object(), "{routes}");
}

/// `context-aware-trigger-if`. DOC-11, PIP-21, PIP-22, PIP-23: a pipeline's condition sees the baggage of the run that the event came out
/// of; where there is none it does not hold, and what does not hold leaves no job at all.
#[test]
fn a_pipelines_condition_sees_the_baggage_of_the_run_before() {
    let wiring = "pipelines:
  - name: serve
    on: serve.start
    execution_mode: synchronous
    steps:
      - id: tell
        uses: teller
        baggage: {tenant.name: payload.tenant}
  - name: acme-only
    on: told
    if: {path: context.tenant.name, op: eq, value: acme}
    steps: [{id: hear, uses: hearer}]
  - name: hooked
    on-hook: job.completed
    if: {path: context.tenant.name, op: eq, value: acme}
    steps: [{id: hook, uses: hearer}]
";
    let gateway = recording()
        .step("teller", r#"[{"type":"told","payload":{}}]"#, "    notify_on_complete: true\n")
        .step("hearer", "[]", "")
        .wiring(wiring)
        .start();
    let nodes = |answer: &Value| {
        let tree = answer["tree"].as_array().expect("a list");
        tree.iter().map(|job| job["plugin"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&run(&gateway, "serve", r#"{"tenant":"acme"}"#)), ["teller", "hearer"]);
    let heard = asked(&gateway, "hearer");
    assert_eq!(heard["context"]["tenant"]["name"], "acme", "the baggage goes on with the event: {heard}");
    assert_eq!(nodes(&run(&gateway, "serve", r#"{"tenant":"umbrella"}"#)), ["teller"]);
    let id = gateway.enqueue("teller", "poll", r#"{"tenant":{"name":"acme"}}"#);
    assert_eq!(gateway.finished(&id)["status"], "succeeded", "no context is no error");
    let story = settled(&gateway);
    let expected =
        ["teller tell succeeded -", "hearer hear succeeded teller", "teller tell succeeded -", "teller - succeeded -"];
    assert_eq!(story, expected, "neither a decision nor a hook");
}
