//! Pipelines in a real tree: what follows an event, what is decided without a process, and what a caller waits for.

use std::fs;
use std::time::Duration;

use ductile_api::events::Pulled;
use ductile_api::gateway::{Gateway as _, PipelineStart, Refusal, Submission, Submitted};
use ductile_domain::ids::JobId;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::gateway::{Gateway, PATIENCE, patient_numbers};

/// Plugins beside those of the harness, under `plugins:`.
const PLUGINS: &str = "  step:
    enabled: true
    retry: { max_attempts: 2, backoff_base: 10ms }
  loud:
    enabled: true
    uses: step
    notify_on_complete: true
  late:
    enabled: true
    uses: step
";

/// A gateway with these pipelines, and `routes` if they hold some.
async fn with(sections: &str) -> Gateway {
    Gateway::start_configured(4, 4, "", &format!("{PLUGINS}{sections}"), patient_numbers()).await
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

async fn try_start(gateway: &Gateway, pipeline: &str, payload: &str) -> Result<Vec<Submitted>, Refusal> {
    let start = PipelineStart {
        pipeline: pipeline.into(),
        payload: Some(raw(payload)),
        submitted_by: "api",
        requested_by: "a test".to_owned(),
        dedupe_key: None,
        is_single: false,
    };
    gateway.handle().start_pipeline(start).await
}

/// Starts a pipeline whose first step is one job.
async fn start(gateway: &Gateway, pipeline: &str, payload: &str) -> JobId {
    match try_start(gateway, pipeline, payload).await.expect("the pipeline starts").as_slice() {
        [Submitted::Accepted(job)] => *job,
        other => panic!("not one new job: {other:?}"),
    }
}

/// One job of a plugin, as a caller asks for it.
async fn call(gateway: &Gateway, plugin: &str, payload: &str, is_routed: bool) -> JobId {
    let submission = Submission {
        plugin: plugin.into(),
        command: "poll".into(),
        payload: Some(raw(payload)),
        submitted_by: "api",
        requested_by: "a test".to_owned(),
        dedupe_key: None,
        dedupe_in_flight: false,
        context: None,
        replay_of: None,
        is_routed,
    };
    match gateway.handle().submit(submission).await.expect("accepted") {
        Submitted::Accepted(job) => job,
        Submitted::Duplicate(..) => panic!("a duplicate"),
    }
}

async fn wait(gateway: &Gateway, job: JobId) {
    if !gateway.handle().wait_for_family(job, PATIENCE).await {
        panic!("it did not end: {}; {:?}", gateway.account().await, steps(gateway).await);
    }
}

/// Every job of the ledger in the order of its birth: node, or plugin outside of a pipeline, and status.
async fn steps(gateway: &Gateway) -> Vec<String> {
    let rows = gateway
        .sql(
            "SELECT coalesce(json_extract(c.accumulated_json, '$.ductile.node'), q.plugin) || ' ' || q.status
             FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id ORDER BY q.rowid",
        )
        .await;
    rows.into_iter().map(|mut row| row.remove(0)).collect()
}

/// The job of a node; the last one when there are several.
async fn job_of(gateway: &Gateway, node: &str) -> String {
    gateway
        .sql_one(&format!(
            "SELECT q.id FROM job_queue q JOIN event_context c ON c.id = q.event_context_id
             WHERE json_extract(c.accumulated_json, '$.ductile.node') = '{node}' ORDER BY q.rowid DESC"
        ))
        .await
}

/// What the process of a node's job was asked.
async fn asked(gateway: &Gateway, node: &str) -> Value {
    let job = job_of(gateway, node).await;
    let text = fs::read_to_string(gateway.path("requests").join(job)).expect("the request was kept");
    serde_json::from_str(&text).expect("JSON")
}

/// Live events of a type, so far.
fn told(gateway: &Gateway, kind: &str) -> Vec<Value> {
    let mut events = gateway.handle().events().subscribe(Some(0));
    let mut found = Vec::new();
    while let Some(Pulled::Events(batch)) = events.try_pull() {
        found.extend(batch.iter().filter(|numbered| numbered.event.kind == kind).map(|n| n.event.to_json()));
    }
    found
}

const CHAIN: &str = "
pipelines:
  - name: chain
    on: chain.start
    steps:
      - { id: one, uses: step, baggage: { first.n: payload.n } }
      - { id: two, uses: step, with: { do: quiet } }
      - { id: three, uses: step, with: { said: '{payload.result}', count: '{context.first.n}' } }
";

/// PIP-06, PIP-27, PIP-28, PIP-32, PIP-38, DIS-19: each step is the child of the one before; baggage reaches the last, `with` is
/// put together before it runs, and what followed is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_follows_the_one_before() {
    let gateway = with(CHAIN).await;
    let job = start(&gateway, "chain", r#"{"n": 1.50}"#).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["one succeeded", "two succeeded", "three succeeded"]);
    let parents = gateway.sql("SELECT parent_job_id FROM job_queue ORDER BY rowid").await;
    let (one, two) = (job_of(&gateway, "one").await, job_of(&gateway, "two").await);
    assert_eq!(parents, [["-".to_owned()], [one.clone()], [two]]);

    let three = asked(&gateway, "three").await;
    assert_eq!(three["event"]["type"], "ductile.step.succeeded");
    assert_eq!(three["payload"]["said"], "said nothing");
    assert_eq!(three["context"]["first"]["n"], 1.5);
    assert_eq!(three["context"]["ductile_pipeline"], "chain");
    assert_eq!(three["context"]["ductile_step_id"], "three");
    assert_eq!(three["context"]["ductile_route_depth"], 3);
    assert_eq!(three["context"].get("ductile"), None, "{three}");
    let text = fs::read_to_string(gateway.path("requests").join(job_of(&gateway, "three").await)).expect("kept");
    assert!(text.contains(r#""count":1.50"#), "numbers pass as they were written: {text}");

    let routed = told(&gateway, "router.enqueued");
    assert_eq!(routed.iter().map(|e| e["step_id"].as_str()).collect::<Vec<_>>(), [Some("two"), Some("three")]);
    assert_eq!(routed[0]["parent_job_id"], *one);
    assert_eq!((&routed[0]["pipeline"], &routed[0]["plugin"]), (&"chain".into(), &"step".into()));
    let context =
        gateway.sql_one(&format!("SELECT event_context_id FROM job_queue WHERE parent_job_id = '{one}'")).await;
    assert_eq!(routed[0]["event_context_id"], *context);
    let decided = told(&gateway, "job.preflight");
    assert!(decided.len() == 3 && decided.iter().all(|e| e["decision"] == "run" && e["reason"] == ""), "{decided:?}");
    gateway.stop().await;
}

/// PIP-10, PIP-11, PIP-12: the step after a split with `join` runs once, with what each branch brought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_waits_for_every_branch() {
    let gateway = with(
        "
pipelines:
  - name: all
    on: all.start
    steps:
      - { id: begin, uses: step }
      - split:
          - { id: left, uses: step, with: { do: '{payload.n}' } }
          - steps:
              - { id: right, uses: step }
              - { id: right_two, uses: step }
      - { id: end, uses: step, join: all }
  - name: broken
    on: broken.start
    steps:
      - { id: begin, uses: step }
      - split:
          - { id: left, uses: step, with: { do: fail } }
          - { id: right, uses: step }
      - { id: end, uses: step, join: all }
  - name: either
    on: either.start
    steps:
      - { id: begin, uses: step }
      - split:
          - { id: left, uses: step, with: { do: fail } }
          - { id: right, uses: step }
      - { id: end, uses: step, join: any_succeeded }
",
    )
    .await;
    let job = start(&gateway, "all", "{}").await;
    wait(&gateway, job).await;
    let mut all = steps(&gateway).await;
    assert_eq!(all.last().map(String::as_str), Some("end succeeded"));
    all.sort();
    let expected = ["begin", "end", "end__join", "left", "right", "right_two"].map(|node| format!("{node} succeeded"));
    assert_eq!(all, expected);
    let end = asked(&gateway, "end").await;
    let joined = told(&gateway, "router.enqueued").into_iter().find(|e| e["plugin"] == "core.join").expect("told");
    assert_eq!((&joined["pipeline"], &joined["step_id"]), (&"all".into(), &"end__join".into()));
    let branches = end["payload"]["branches"].as_array().expect("a list").clone();
    let seen: Vec<_> = branches.iter().map(|b| (&b["step"], &b["status"], &b["payload"]["n"])).collect();
    let (ok, n) = (Value::from("succeeded"), Value::from(7.1));
    assert_eq!(seen, [(&"left".into(), &ok, &n), (&"right".into(), &ok, &n)]);

    let job = start(&gateway, "broken", "{}").await;
    wait(&gateway, job).await;
    let broken = steps(&gateway).await.split_off(6);
    assert!(broken.contains(&"left failed".to_owned()) && broken.contains(&"right succeeded".to_owned()), "{broken:?}");
    assert_eq!(broken.last().map(String::as_str), Some("end__join failed"));
    let why =
        gateway.sql_one("SELECT last_error FROM job_queue WHERE plugin = 'core.join' AND status = 'failed'").await;
    assert!(why.contains("left") && why.contains("asked to"), "{why}");

    let job = start(&gateway, "either", "{}").await;
    wait(&gateway, job).await;
    let either = steps(&gateway).await.split_off(10);
    assert!(either.contains(&"left failed".to_owned()), "{either:?}");
    assert_eq!(either.last().map(String::as_str), Some("end succeeded"));
    let end = asked(&gateway, "end").await;
    assert_eq!(
        (&end["payload"]["branches"][0]["status"], &end["payload"]["branches"][0]["error"]),
        (&"failed".into(), &"asked to".into())
    );
    gateway.stop().await;
}

/// PIP-08: what is called runs in place, and the caller's next step follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_pipeline_returns() {
    let gateway = with(
        "
pipelines:
  - name: outer
    on: outer.start
    steps:
      - { id: before, uses: step, baggage: { from_outer: payload.x } }
      - { id: inside, call: inner }
      - { id: after, uses: step }
  - name: inner
    on: inner.start
    steps:
      - { id: a, uses: step }
      - { id: b, uses: step, with: { do: quiet } }
",
    )
    .await;
    let job = start(&gateway, "outer", r#"{"x": "y"}"#).await;
    wait(&gateway, job).await;
    assert_eq!(
        steps(&gateway).await,
        ["before succeeded", "inside/a succeeded", "inside/b succeeded", "after succeeded"]
    );
    let context = asked(&gateway, "inside/a").await["context"].clone();
    assert_eq!(
        (&context["from_outer"], &context["ductile_pipeline"], &context["ductile_step_id"]),
        (&"y".into(), &"inner".into(), &"a".into())
    );
    gateway.stop().await;
}

/// PIP-13, DIS-21: a decision is a job without a process; what it gates runs or is passed over, and what follows runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_decides_without_a_process() {
    let gateway = with(
        "
pipelines:
  - name: gated
    on: gated.start
    steps:
      - { id: maybe, uses: step, if: { path: payload.go, op: eq, value: true } }
      - { id: then, uses: step }
",
    )
    .await;
    let job = start(&gateway, "gated", r#"{"go": true}"#).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["maybe__switch succeeded", "maybe succeeded", "then succeeded"]);
    let job = start(&gateway, "gated", r#"{"go": "true"}"#).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await.split_off(3), ["maybe__switch succeeded", "then succeeded"]);
    assert_eq!(asked(&gateway, "then").await["payload"]["go"], "true", "the payload passes on as it came");
    let logged = gateway.sql("SELECT result FROM job_log WHERE plugin = 'core.switch' ORDER BY rowid").await;
    assert!(
        logged[0][0].contains("ductile.switch.true") && logged[1][0].contains("ductile.switch.false"),
        "{logged:?}"
    );
    let spans =
        gateway.sql_one("SELECT count(*) FROM job_stopwatch WHERE plugin = 'core.switch' AND status = 'ok'").await;
    assert_eq!(spans, "2");
    assert!(!gateway.path("requests").join(job.to_string()).exists(), "no process ran");
    gateway.stop().await;
}

/// PIP-45, PIP-46, PIP-47: the end of an opted-in root job starts each hook pipeline once; what a hook started fires none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_fires_once() {
    let gateway = with(
        "
pipelines:
  - name: tell
    on-hook: job.completed
    steps:
      - { id: told, uses: loud }
",
    )
    .await;
    let silent = call(&gateway, "step", "{}", true).await;
    wait(&gateway, silent).await;
    assert_eq!(steps(&gateway).await, ["step succeeded"]);
    let job = call(&gateway, "loud", "{}", true).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await.split_off(1), ["loud succeeded", "told succeeded"]);
    let hook = gateway.sql("SELECT submitted_by, parent_job_id FROM job_queue ORDER BY rowid DESC LIMIT 1").await;
    assert_eq!(hook, [["hook".to_owned(), job.to_string()]]);
    let told_of = asked(&gateway, "told").await["payload"].clone();
    assert_eq!(
        (&told_of["job_id"], &told_of["plugin"], &told_of["status"]),
        (&job.to_string().into(), &"loud".into(), &"succeeded".into())
    );
    let routed = told(&gateway, "router.enqueued");
    assert_eq!(routed.len(), 1);
    assert_eq!(routed[0]["parent_job_id"], job.to_string());
    assert_eq!((&routed[0]["pipeline"], &routed[0]["step_id"]), (&"tell".into(), &"told".into()));
    gateway.stop().await;
}

/// PIP-02, PIP-40, D-17: a pipeline that starts itself stops at its cap, and the drop is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_ends_at_its_depth() {
    let gateway = with(
        "
pipelines:
  - name: round
    on: once.more
    max_depth: 3
    steps:
      - { id: turn, uses: step, with: { do: again } }
",
    )
    .await;
    let job = start(&gateway, "round", "{}").await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["turn succeeded"; 3]);
    let errors = gateway.sql("SELECT last_error FROM job_queue ORDER BY rowid").await;
    assert!(errors[1][0] == "-" && errors[2][0].contains("once.more") && errors[2][0].contains("4 hops"), "{errors:?}");
    let dropped = told(&gateway, "event.dropped");
    assert_eq!(dropped.len(), 1);
    let last = gateway.sql_one("SELECT id FROM job_queue ORDER BY rowid DESC").await;
    for (key, value) in [
        ("job_id", last.into()),
        ("event_type", "once.more".into()),
        ("pipeline", "round".into()),
        ("depth", Value::from(4)),
        ("max_depth", 3.into()),
        ("reason", "depth".into()),
    ] {
        assert_eq!(dropped[0][key], value, "{key}");
    }
    gateway.stop().await;
}

/// RTR-01, RTR-03, RTR-07: events of any job are routed, to routes and to pipelines, unless the caller asked otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_called_job_emits_is_routed_unless_that_is_off() {
    let gateway = with(
        "
routes:
  - { from: loud, event_type: step.done, to: late }
pipelines:
  - name: any
    on: step.done
    from_plugin: loud
    steps:
      - { id: heard, uses: step, with: { do: quiet } }
",
    )
    .await;
    let job = call(&gateway, "loud", "{}", false).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["loud succeeded"]);
    let job = call(&gateway, "loud", r#"{"do":"two"}"#, true).await;
    wait(&gateway, job).await;
    let mut all = steps(&gateway).await.split_off(2);
    all.sort();
    assert_eq!(all, ["heard succeeded", "heard succeeded", "late succeeded", "late succeeded"]);
    let events = gateway.sql_one("SELECT count(DISTINCT source_event_id) FROM job_queue").await;
    assert_eq!(events, "2");
    gateway.stop().await;
}

/// DIS-22, PIP-34: a claim that fails ends the job that led to it; its result stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_fails_ends_the_job_that_led_to_it() {
    let gateway = with(
        "
pipelines:
  - name: claims
    on: claims.start
    steps:
      - { id: one, uses: step, baggage: { kept: payload.x } }
      - { id: two, uses: step, baggage: { kept: payload.n } }
",
    )
    .await;
    let job = start(&gateway, "claims", r#"{"x": 1}"#).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["one failed"]);
    let row = gateway.sql("SELECT status, last_error, result, attempt FROM job_log").await.remove(0);
    assert!(row[0] == "failed" && row[1].contains(r#"baggage path "kept" is immutable"#), "{row:?}");
    assert!(row[2].contains(r#""status":"ok""#) && row[3] == "1", "{row:?}");
    match try_start(&gateway, "claims", "{}").await {
        Err(Refusal::Baggage(why)) => assert!(why.contains("payload.x"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(steps(&gateway).await.len(), 1, "nothing was enqueued");
    gateway.stop().await;
}

/// DIS-17, PIP-29: what can't be put together fails before any process, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_put_together_spawns_nothing() {
    let gateway = with(
        "
pipelines:
  - name: hollow
    on: hollow.start
    steps:
      - { id: only, uses: step, with: { message: '{payload.nope}' } }
      - { id: never, uses: step }
",
    )
    .await;
    let job = start(&gateway, "hollow", "{}").await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["only failed"]);
    let row = gateway.sql("SELECT attempt, last_error FROM job_queue").await.remove(0);
    assert!(row[0] == "1" && row[1].contains("payload.nope"), "{row:?}");
    assert!(!gateway.path("requests").join(job.to_string()).exists(), "a process ran");
    let decided = told(&gateway, "job.preflight");
    assert!(decided.len() == 1 && decided[0]["decision"] == "fail" && decided[0]["reason"] == row[1], "{decided:?}");
    gateway.stop().await;
}

fn edit(gateway: &Gateway, from: &str, to: &str) {
    let path = gateway.path("config.yaml");
    let text = fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} is not in it:\n{text}");
    fs::write(path, text.replace(from, to)).expect("the configuration");
}

const WAITING: &str = "
pipelines:
  - name: waiting
    on: waiting.start
    steps:
      - { id: one, uses: step, with: { do: gate } }
      - { id: two, uses: late, with: { told: before } }
";

/// OPS-07: the step that begins after a reload is the one that the reload wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_between_two_steps_changes_the_second() {
    let gateway = with(WAITING).await;
    let job = start(&gateway, "waiting", "{}").await;
    gateway
        .until("the step runs", async || gateway.path("requests").join(job.to_string()).exists().then_some(()))
        .await;
    edit(&gateway, "told: before", "told: after");
    let reloaded = gateway.handle().reload("a test".to_owned()).await.expect("a good configuration");
    assert_eq!(reloaded.changed, ["pipelines.waiting"]);
    gateway.open_gate().await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["one succeeded", "two succeeded"]);
    assert_eq!(asked(&gateway, "two").await["payload"]["told"], "after");
    gateway.stop().await;
}

/// A reload takes the plugin of the next step away while the step before runs: what follows is planned again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_took_away_is_planned_again() {
    let gateway = with(WAITING).await;
    let job = start(&gateway, "waiting", "{}").await;
    gateway
        .until("the step runs", async || gateway.path("requests").join(job.to_string()).exists().then_some(()))
        .await;
    edit(&gateway, "  late:\n    enabled: true", "  late:\n    enabled: false");
    edit(&gateway, "uses: late, with", "uses: loud, with");
    gateway.handle().reload("a test".to_owned()).await.expect("a good configuration");
    gateway.open_gate().await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await, ["one succeeded", "two succeeded"]);
    assert_eq!(gateway.sql_one("SELECT plugin FROM job_queue ORDER BY rowid DESC").await, "loud");
    gateway.stop().await;
}

/// The same with the whole pipeline gone: the job ends, nothing follows, nobody waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_took_away_for_good_does_not_follow() {
    let gateway = with(WAITING).await;
    let job = start(&gateway, "waiting", "{}").await;
    gateway
        .until("the step runs", async || gateway.path("requests").join(job.to_string()).exists().then_some(()))
        .await;
    edit(&gateway, "  late:\n    enabled: true", "  late:\n    enabled: false");
    edit(&gateway, &WAITING[1..], "");
    gateway.handle().reload("a test".to_owned()).await.expect("a good configuration");
    gateway.open_gate().await;
    wait(&gateway, job).await;
    let all = steps(&gateway).await;
    assert!(all.len() == 1 && !all[0].ends_with("queued"), "{all:?}");
    gateway.stop().await;
}

/// C-64, PIP-42: a pipeline that calls itself is refused with its place; what is in force stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_pipeline_refuses_a_reload() {
    let gateway = with(CHAIN).await;
    edit(&gateway, "{ id: two, uses: step, with: { do: quiet } }", "{ id: two, call: chain }");
    match gateway.handle().reload("a test".to_owned()).await {
        Err(Refusal::InvalidConfig(problems)) => {
            let problem = problems.iter().find(|p| p.is_error()).expect("an error");
            assert!(problem.file.is_some() && problem.line.is_some(), "{problem:?}");
        }
        other => panic!("{other:?}"),
    }
    let job = start(&gateway, "chain", r#"{"n": 1}"#).await;
    wait(&gateway, job).await;
    assert_eq!(steps(&gateway).await.len(), 3);
    match try_start(&gateway, "nobody", "{}").await {
        Err(Refusal::UnknownPipeline(name)) => assert_eq!(name, "nobody"),
        other => panic!("{other:?}"),
    }
    gateway.stop().await;
}

/// DIS-20, PIP-49: whoever waits for a pipeline never sees it complete too early, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_caller_sees_every_step() {
    let gateway = with(
        "
pipelines:
  - name: five
    on: five.start
    steps:
      - uses: step
      - { uses: step, if: { path: payload.n, op: gt, value: 3 } }
      - split:
          - uses: step
          - uses: step
",
    )
    .await;
    let begun = tokio::time::Instant::now();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let handle = gateway.handle().clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let start = PipelineStart {
                        pipeline: "five".into(),
                        payload: None,
                        submitted_by: "api",
                        requested_by: "a test".to_owned(),
                        dedupe_key: None,
                        is_single: true,
                    };
                    let submitted = handle.start_pipeline(start).await.expect("accepted");
                    let [Submitted::Accepted(job)] = submitted[..] else { panic!("{submitted:?}") };
                    assert!(handle.wait_for_family(job, PATIENCE).await);
                    let family = handle.readers().family(job).await.expect("readable").expect("there");
                    let seen: Vec<_> = family.jobs.iter().map(|j| (&*j.plugin, &*j.status)).collect();
                    assert!(seen.len() == 5 && seen.iter().all(|(_, status)| *status == "succeeded"), "{seen:?}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    // Each of the ten waits of a caller that only polls takes five seconds.
    assert!(begun.elapsed() < Duration::from_secs(40), "nobody is told of the ends");
    let begun = tokio::time::Instant::now();
    let job = start(&gateway, "five", r#"{"do":"gate"}"#).await;
    assert!(!gateway.handle().wait_for_family(job, Duration::from_millis(50)).await, "it waits at the gate");
    assert!(begun.elapsed() >= Duration::from_millis(50));
    gateway.open_gate().await;
    wait(&gateway, job).await;
    let limit = gateway.handle().generation().config.api.max_concurrent_sync as usize;
    let places: Vec<_> = std::iter::from_fn(|| gateway.handle().sync_place()).take(limit + 1).collect();
    assert_eq!(places.len(), limit, "API-12");
    gateway.stop().await;
}
