//! Pipelines under fire: whatever dies, each run has exactly its steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ductile_api::gateway::{Gateway as _, PipelineStart, Refusal, Submitted};
use ductile_domain::ids::JobId;

use crate::chaos::{break_things, seed};
use crate::gateway::{Gateway, PATIENCE, patient_numbers};

const RUNS: usize = 100;
const DOORS: usize = 4;

/// A step has so many attempts that no storm uses them up.
const CONFIG: &str = "  step:
    enabled: true
    retry: { max_attempts: 60, backoff_base: 1ms }
pipelines:
  - name: storm
    on: storm.start
    steps:
      - { id: a, uses: step }
      - { id: b, uses: step, if: { path: payload.n, op: exists } }
      - { id: c, uses: step, if: { path: payload.none, op: exists } }
      - split:
          - { id: left, uses: step }
          - steps:
              - { id: right, uses: step }
              - { id: called, call: other }
      - { id: end, uses: step, join: all }
      - { id: last, uses: step, with: { do: quiet } }
  - name: other
    on: other.start
    steps:
      - { id: x, uses: step }
      - { id: y, uses: step }
";

const NODES: [&str; 11] =
    ["a", "b", "b__switch", "c__switch", "called/x", "called/y", "end", "end__join", "last", "left", "right"];

/// QUE-17, SUP-01, DIS-20: actors die every few milliseconds while a hundred pipelines run; every accepted run ends complete, and
/// no run has a step twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_has_exactly_its_steps_while_actors_die() {
    let seed = seed();
    eprintln!("CHAOS_SEED={seed}");
    let gateway = Gateway::start_configured(8, 8, "", CONFIG, patient_numbers()).await;
    let (over, faults) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let breaker = tokio::spawn(break_things(gateway.handle().clone(), seed, over.clone(), faults.clone()));
    // The runs shall last as long as the storm.
    let pause = Duration::from_millis(150);
    let doors: Vec<_> = (0..DOORS).map(|_| tokio::spawn(start_all(gateway.handle().clone(), "storm", pause))).collect();
    let mut accepted = Vec::new();
    for door in doors {
        accepted.extend(door.await.expect("the doors work"));
    }
    over.store(true, Ordering::Release);
    breaker.await.expect("the breaker works");
    gateway
        .until_within(PATIENCE * 2, "every job has ended", async || {
            let counts = gateway.shared().readers.counts().await.ok()?;
            (counts.queued + counts.running == 0).then_some(())
        })
        .await;
    for job in &accepted {
        assert!(gateway.handle().wait_for_family(*job, PATIENCE).await, "{job} has ended");
    }
    let rows = gateway
        .sql(
            "SELECT json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id'),
                json_extract(c.accumulated_json, '$.ductile.node'), q.status, q.id
             FROM job_queue q JOIN event_context c ON c.id = q.event_context_id",
        )
        .await;
    let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in &rows {
        assert_eq!(row[2], "succeeded", "{row:?}");
        runs.entry(&row[0]).or_default().push(&row[1]);
    }
    for (run, nodes) in &mut runs {
        nodes.sort_unstable();
        assert_eq!(nodes[..], NODES, "run {run}");
    }
    // A start whose answer was lost may have been accepted too.
    assert!(accepted.len() == RUNS && runs.len() >= RUNS, "{} of {} runs", runs.len(), accepted.len());
    let open = gateway.sql_one("SELECT count(*) FROM pipeline_joins WHERE fired_at IS NULL OR open <> 0").await;
    assert_eq!(open, "0", "joins that wait");
    let lost = gateway
        .sql_one("SELECT count(*) FROM job_queue q WHERE q.event_context_id NOT IN (SELECT id FROM event_context)")
        .await;
    assert_eq!(lost, "0", "jobs without their context");
    println!("{} runs, {} jobs, {} faults", runs.len(), rows.len(), faults.load(Ordering::Relaxed));
    assert_eq!(gateway.shared().tree.rank_violations(), 0, "an actor called upwards");
    gateway.stop().await;
}

/// The same steps by another plugin: each of the two configurations lacks what the other runs.
const TOGGLED: &str = "  step: { enabled: true, retry: { max_attempts: 60, backoff_base: 1ms } }
  odd: { enabled: @ODD@, uses: step }
  even: { enabled: @EVEN@, uses: step }
pipelines:
  - name: toggled
    on: toggled.start
    steps:
      - { id: a, uses: step }
      - split:
          - { id: left, uses: @USES@ }
          - { id: right, uses: step }
      - { id: end, uses: step, join: any_succeeded }
      - { id: tail, uses: @USES@ }
";

fn toggled(is_odd: bool) -> String {
    let uses = if is_odd { "odd" } else { "even" };
    let text = TOGGLED.replace("@ODD@", &is_odd.to_string());
    text.replace("@EVEN@", &(!is_odd).to_string()).replace("@USES@", uses)
}

/// What reloads take away while it is owed ends with a reason, or is planned again; no run waits for what will not come, none
/// has a step twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_ends_while_reloads_take_its_steps_away() {
    let gateway = Gateway::start_configured(4, 4, "", &toggled(true), patient_numbers()).await;
    let path = gateway.path("config.yaml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let (over, handle) = (Arc::new(AtomicBool::new(false)), gateway.handle().clone());
    let stop = over.clone();
    let toggler = tokio::spawn(async move {
        let mut reloads = 0_usize;
        while !stop.load(Ordering::Acquire) {
            reloads += 1;
            let next = text.replace(&toggled(true), &toggled(reloads.is_multiple_of(2)));
            std::fs::write(&path, next).expect("the configuration");
            handle.reload("a test".to_owned()).await.expect("a good configuration");
            // Long enough for some runs, and too short for most.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        reloads
    });
    let doors: Vec<_> = (0..DOORS)
        .map(|_| tokio::spawn(start_all(gateway.handle().clone(), "toggled", Duration::from_millis(40))))
        .collect();
    let mut accepted = Vec::new();
    for door in doors {
        accepted.extend(door.await.expect("the doors work"));
    }
    for job in &accepted {
        assert!(gateway.handle().wait_for_family(*job, PATIENCE).await, "{job} has ended; {}", gateway.account().await);
    }
    over.store(true, Ordering::Release);
    let reloads = toggler.await.expect("no panic");
    let in_peace = start_one(gateway.handle(), "toggled").await.expect("accepted");
    assert!(gateway.handle().wait_for_family(in_peace, PATIENCE).await);
    let rows = gateway
        .sql(
            "SELECT json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id'),
                json_extract(c.accumulated_json, '$.ductile.node'), q.status, q.last_error
             FROM job_queue q JOIN event_context c ON c.id = q.event_context_id",
        )
        .await;
    let mut runs: BTreeMap<&str, BTreeMap<&str, (&str, &str)>> = BTreeMap::new();
    for row in &rows {
        let before = runs.entry(&row[0]).or_default().insert(&row[1], (&row[2], &row[3]));
        assert!(before.is_none(), "a step twice: {row:?}");
    }
    let mut complete = 0;
    for (run, nodes) in &runs {
        let broken: Vec<_> = nodes.values().filter(|(status, _)| *status != "succeeded").collect();
        assert!(broken.iter().all(|(_, why)| *why != "-"), "run {run} says no reason: {nodes:?}");
        if broken.is_empty() {
            complete += 1;
            assert!(nodes.keys().eq(["a", "end", "end__join", "left", "right", "tail"].iter()), "run {run}: {nodes:?}");
        }
    }
    let open = gateway.sql_one("SELECT count(*) FROM pipeline_joins WHERE fired_at IS NULL OR open <> 0").await;
    assert_eq!((accepted.len(), open.as_str()), (RUNS, "0"));
    let replanned = gateway.shared().tree.inspect("root/policy_sup/router", PATIENCE).await.expect("it answers");
    println!("{} runs, {complete} complete, {reloads} reloads, router {replanned}", runs.len());
    assert!(complete > 0, "not even the one in peace");
    gateway.stop().await;
}

/// A share of the runs, each started a while after the one before.
async fn start_all(handle: ductile_actors::Handle, pipeline: &str, pause: Duration) -> Vec<JobId> {
    let mut accepted = Vec::new();
    while accepted.len() < RUNS / DOORS {
        match start_one(&handle, pipeline).await {
            Ok(job) => accepted.push(job),
            Err(Refusal::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(pause).await;
    }
    accepted
}

async fn start_one(handle: &ductile_actors::Handle, pipeline: &str) -> Result<JobId, Refusal> {
    let start = PipelineStart {
        pipeline: pipeline.into(),
        payload: None,
        submitted_by: "api",
        requested_by: "a test".to_owned(),
        dedupe_key: None,
        is_single: true,
    };
    match handle.start_pipeline(start).await?[..] {
        [Submitted::Accepted(job)] => Ok(job),
        ref other => panic!("not one new job: {other:?}"),
    }
}
