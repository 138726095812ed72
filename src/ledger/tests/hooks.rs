//! Hooks: what the end of a job starts, committed with that end whatever way it comes.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::config::{Config, NotifyOnComplete, PluginEntry, Service};
use ductile_domain::ids::JobId;
use ductile_domain::job::{ClaimedJob, NewJob};
use ductile_domain::manifest::{Command, CommandType, Manifest};
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::pipeline::Pipelines;
use ductile_domain::retry::Ending;
use ductile_domain::schedule::IfRunning;
use ductile_ledger::{Born, Cancelled, Due, Snapshot, Ticked, Verdict};
use serde_json::{Value, json};
use support::schedules::due;
use support::{Bed, failed, finish, new_job, retry_in, succeeded};

/// `hooked` and `chain` fire hooks, `plain` does not; `notify` is what they start.
fn pipelines(pipelines: Value) -> Arc<Pipelines> {
    let command = Command {
        name: "handle".into(),
        kind: CommandType::Write,
        description: None,
        idempotent: None,
        retry_safe: None,
        input_schema: None,
        output_schema: None,
        values: None,
    };
    let manifest = |name: &str| Manifest {
        name: name.into(),
        version: "1".into(),
        protocol: 2,
        entrypoint: "run".into(),
        description: None,
        commands: vec![command.clone()],
        required_config: Vec::new(),
        optional_config: Vec::new(),
        concurrency_safe: true,
        max_subs: 16,
        fact_outputs: Vec::new(),
    };
    let entry = |notify_on_complete| PluginEntry { notify_on_complete, ..PluginEntry::default() };
    let plugins = [
        ("hooked", NotifyOnComplete::Roots),
        ("chain", NotifyOnComplete::Cascade),
        ("plain", NotifyOnComplete::Never),
        ("notify", NotifyOnComplete::Never),
    ];
    let config = Config {
        service: Service { hook_max_depth: 3, ..Service::default() },
        plugins: plugins.into_iter().map(|(name, notify)| (name.to_owned(), entry(notify))).collect(),
        pipelines: pipelines.as_array().expect("a list").clone(),
        ..Config::default()
    };
    let found = plugins.into_iter().map(|(name, _)| {
        let dir = PathBuf::from("/p");
        (name.to_owned(), Discovered { manifest: Arc::new(manifest(name)), entrypoint: dir.join("run"), dir })
    });
    let (catalog, _) = Catalog::build(&config, &found.collect());
    let (compiled, problems) = Pipelines::compile(&config, &catalog);
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:?}");
    Arc::new(compiled)
}

/// One pipeline for each signal.
fn on_each_signal() -> Arc<Pipelines> {
    let signals = ["job.completed", "job.failed", "job.timed_out", "job.dead"];
    let list = signals.map(|signal| json!({"name": signal, "on-hook": signal, "steps": [{"uses": "notify"}]}));
    pipelines(Value::from(list.to_vec()))
}

async fn put_in_force(bed: &Bed, generation: u64, plugins: &[&str], pipelines: &Arc<Pipelines>) -> Vec<Born> {
    let snapshot = Snapshot {
        generation,
        plugins: plugins.iter().map(|plugin| (*plugin).to_owned()).collect(),
        pipelines: pipelines.clone(),
        ..Snapshot::default()
    };
    let recorded = bed.ledger.writer.record_snapshot(snapshot).await.expect("recorded");
    recorded.buried.into_iter().flat_map(|buried| buried.born).collect()
}

/// By which signals the jobs were started, all of them children of `parent`.
async fn signals(bed: &Bed, born: &[Born], parent: JobId) -> Vec<String> {
    let mut signals = Vec::new();
    for job in born {
        assert_eq!(&*job.plugin, "notify");
        let row = bed.ledger.readers.job(job.job).await.expect("read").expect("there");
        assert_eq!((row.submitted_by.as_str(), row.parent_job_id), ("hook", Some(parent.to_string())));
        let envelope: Value = serde_json::from_str(row.payload.expect("a payload").get()).expect("JSON");
        assert_eq!(envelope["payload"]["job_id"], parent.to_string());
        signals.push(envelope["type"].as_str().expect("a type").to_owned());
        let context = row.event_context_id.expect("a context").parse().expect("a UUID");
        let context = bed.ledger.readers.context(context).await.expect("read").expect("there");
        assert_eq!(context.parent_id, None, "nothing is inherited");
    }
    signals.sort_unstable();
    signals
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Succeed,
    Fail,
    Die,
    TimeOut,
    CancelQueued,
    /// By a tick that takes its place.
    Supersede,
    GiveBackCancelled,
    Bury,
    Crash,
}

/// PIP-44, PIP-45, PIP-47, core.md: every way to end fires its signals with the end, and what they start is told.
#[tokio::test]
async fn every_way_to_end_fires_hooks() {
    use Way::{Bury, CancelQueued, Crash, Die, Fail, GiveBackCancelled, Succeed, Supersede, TimeOut};
    let hooks = on_each_signal();
    for (way, expected) in [
        (Succeed, vec!["job.completed"]),
        (Fail, vec!["job.completed", "job.failed"]),
        (Die, vec!["job.completed", "job.dead", "job.failed"]),
        (TimeOut, vec!["job.completed", "job.dead", "job.timed_out"]),
        (CancelQueued, vec!["job.completed", "job.dead"]),
        (Supersede, vec!["job.completed", "job.dead"]),
        (GiveBackCancelled, vec!["job.completed", "job.dead"]),
        (Bury, vec!["job.completed", "job.dead"]),
        (Crash, vec!["job.completed", "job.dead", "job.failed"]),
    ] {
        let mut bed = Bed::new().await;
        put_in_force(&bed, 1, &["hooked", "notify"], &hooks).await;
        let submitted_by = if matches!(way, Supersede) { "scheduler" } else { "api" };
        let new = NewJob { max_attempts: 1, submitted_by, ..new_job("hooked") };
        let job = new.id;
        bed.enqueue(new).await;
        let mut successor = None;
        let _ = bed.feed.drain();
        let writer = bed.ledger.writer.clone();
        let now = bed.hands.now();
        let end = async |outcome: Outcome, ending| {
            let fence = bed.take(job).await.fence;
            writer.finish(finish(fence, outcome, ending)).await.expect("finished").born
        };
        let born = match way {
            Succeed => end(succeeded(now), Ending::Succeeded).await,
            Fail => end(failed(Cause::ExitConfig, now), Ending::Failed).await,
            Die => end(failed(Cause::ExitCode, now), Ending::Dead).await,
            TimeOut => {
                let status = ductile_domain::outcome::AttemptStatus::TimedOut;
                end(Outcome { status, ..failed(Cause::Timeout, now) }, Ending::Dead).await
            }
            CancelQueued => match writer.cancel(job, "x".into(), "x".into()).await.expect("answered") {
                Cancelled::Dead(buried) => buried.born,
                other => panic!("{other:?}"),
            },
            Supersede => {
                let tick = due("default", now);
                let next = NewJob { plugin: "hooked".into(), ..tick.job.clone() };
                successor = Some(next.id);
                let tick = Due { job: next, if_running: IfRunning::Cancel, ..tick };
                match writer.tick(vec![tick], 1).await.expect("answered").remove(0) {
                    Ticked::Fired { mut cancelled, .. } => cancelled.remove(0).born,
                    other => panic!("{other:?}"),
                }
            }
            GiveBackCancelled => {
                let claimed = bed.take(job).await;
                writer.cancel(job, "x".into(), "x".into()).await.expect("answered");
                writer.give_back(claimed.fence, "a stop".into(), None).await.expect("answered").born
            }
            Bury => put_in_force(&bed, 2, &["notify"], &hooks).await,
            Crash => {
                bed.take(job).await;
                bed = bed.reopen().await;
                // as at a start: the configuration is recorded before anything is recovered
                put_in_force(&bed, 1, &["hooked", "notify"], &hooks).await;
                let recovered = bed.ledger.writer.recover().await.expect("recovered");
                recovered.into_iter().flat_map(|r| r.finished.born).collect()
            }
        };
        assert_eq!(signals(&bed, &born, job).await, expected, "{way:?}");
        if !matches!(way, Bury) {
            let told: Vec<_> = bed.feed.drain().candidates.iter().map(|c| c.job).collect();
            let wanted: Vec<_> = born.iter().map(|b| b.job).chain(successor).collect();
            assert_eq!(told, wanted, "{way:?}: the queue is told");
        }
        assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE plugin = 'notify'").await, born.len() as i64);
        bed.ledger.close().await;
    }
}

async fn done(bed: &Bed, job: &ClaimedJob) -> Vec<Born> {
    bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished").born
}

/// PIP-45: what is tried again, what was caused by a job, and what did not ask for it fires nothing; nothing fires twice.
#[tokio::test]
async fn only_the_end_of_a_root_that_asked_for_it_fires() {
    let bed = Bed::new().await;
    let hooked = NewJob { max_attempts: 4, ..new_job("hooked") };
    let before = bed.running("hooked").await;
    assert!(done(&bed, &before).await.is_empty(), "no configuration is in force yet");
    put_in_force(&bed, 0, &["hooked", "plain", "notify"], &on_each_signal()).await;

    let job = hooked.id;
    bed.enqueue(hooked).await;
    let claimed = bed.take(job).await;
    let now = bed.hands.now();
    let retried = finish(claimed.fence, failed(Cause::ExitCode, now), retry_in(now, 0));
    assert!(bed.ledger.writer.finish(retried).await.expect("finished").born.is_empty());
    let claimed = bed.take(job).await;
    assert_eq!(done(&bed, &claimed).await.len(), 1);
    let again = bed.ledger.writer.finish(bed.succeeded(claimed.fence)).await.expect("answered");
    assert_eq!((again.verdict, again.born.len()), (Verdict::AlreadyApplied, 0));

    let plain = bed.running("plain").await;
    assert!(done(&bed, &plain).await.is_empty());
    let child = NewJob { parent: Some(plain.fence.job), submitted_by: "route", ..new_job("hooked") };
    let id = child.id;
    bed.enqueue(child).await;
    let child = bed.take(id).await;
    assert!(done(&bed, &child).await.is_empty(), "it has a parent");
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE submitted_by = 'hook'").await, 1);
    bed.ledger.close().await;
}

/// decisions, hooks: a chain of hooks ends at its depth.
#[tokio::test]
async fn a_chain_of_hooks_ends_at_its_depth() {
    let bed = Bed::new().await;
    let endless = json!([{"name": "again", "on-hook": "job.completed", "steps": [{"uses": "chain"}]}]);
    put_in_force(&bed, 1, &["chain"], &pipelines(endless)).await;
    let mut job = bed.running("chain").await;
    let mut hooks = 0;
    while let [born] = done(&bed, &job).await.as_slice() {
        hooks += 1;
        assert!(hooks < 10, "it never ends");
        job = bed.take(born.job).await;
        assert_eq!(&*job.submitted_by, "hook");
    }
    assert_eq!(hooks, 3, "service.hook_max_depth");
    bed.ledger.close().await;
}

/// A hook pipeline that begins with a split and its join is whole, and its join fires as any other.
#[tokio::test]
async fn a_hook_may_begin_with_a_split_and_its_join() {
    let bed = Bed::new().await;
    let steps = json!([{"split": [{"uses": "notify"}, {"uses": "plain"}]}, {"uses": "notify", "join": "all"}]);
    let list = json!([{"name": "both", "on-hook": "job.completed", "steps": steps}]);
    put_in_force(&bed, 1, &["hooked", "notify", "plain"], &pipelines(list)).await;
    let job = bed.running("hooked").await;
    let born = done(&bed, &job).await;
    assert_eq!(born.len(), 2);
    bed.assert_joins_are_balanced().await;
    assert_eq!(bed.number("SELECT open FROM pipeline_joins").await, 2);
    let first = bed.take(born[0].job).await;
    assert!(done(&bed, &first).await.is_empty());
    let second = bed.take(born[1].job).await;
    let last = done(&bed, &second).await;
    assert_eq!(last.iter().map(|b| &*b.plugin).collect::<Vec<_>>(), ["core.join"]);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}
