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
    let doors: Vec<_> = (0..DOORS).map(|_| tokio::spawn(keep_starting(gateway.handle().clone()))).collect();
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

async fn keep_starting(handle: ductile_actors::Handle) -> Vec<JobId> {
    let mut accepted = Vec::new();
    while accepted.len() < RUNS / DOORS {
        let start = PipelineStart {
            pipeline: "storm".into(),
            payload: None,
            submitted_by: "api",
            requested_by: "a test".to_owned(),
            dedupe_key: None,
            is_single: true,
        };
        match handle.start_pipeline(start).await.as_deref() {
            Ok([Submitted::Accepted(job)]) => accepted.push(*job),
            Ok(other) => panic!("not one new job: {other:?}"),
            Err(Refusal::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        // The runs shall last as long as the storm.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    accepted
}
