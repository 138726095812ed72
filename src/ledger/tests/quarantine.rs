//! Jobs whose attempts keep ending abnormally are quarantined with all that is known of them; more memory is kept.

mod support;

use std::time::Duration;

use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimRequest, Fence, NewJob};
use ductile_domain::outcome::{Cause, Outcome, Usage};
use ductile_domain::plan::NewContext;
use ductile_domain::retry::Ending;
use ductile_ledger::{Finished, Snapshot, Submission};
use serde_json::{Value, json};
use support::{Bed, failed, finish, new_job, raw, succeeded};

async fn enqueued(bed: &Bed, max_attempts: u32) -> JobId {
    let job = NewJob { max_attempts, payload: Some(raw(r#"{"n":1.50}"#)), ..new_job("fragile") };
    let id = job.id;
    bed.enqueue(job).await;
    id
}

async fn ends(bed: &Bed, job: JobId, outcome: Outcome, ending: Ending) -> Finished {
    let fence = taken(bed, job).await;
    bed.ledger.writer.finish(finish(fence, outcome, ending)).await.expect("finished")
}

/// Claims it under the newest configuration.
async fn taken(bed: &Bed, job: JobId) -> Fence {
    let snapshot = bed.ledger.readers.snapshots(1).await.expect("read").first().map(|s| s.id);
    let row = bed.ledger.readers.job(job).await.expect("read").expect("there");
    let candidate = Candidate { row: row.row, job, plugin: row.plugin.as_str().into(), due: None };
    let request = ClaimRequest { snapshot, ..bed.request(vec![candidate]) };
    bed.ledger.writer.claim(request).await.expect("claimed").claimed.remove(0).job.fence
}

/// The same for an attempt that is to be followed by another at once.
async fn fails(bed: &Bed, job: JobId, cause: Cause) -> Finished {
    let now = bed.hands.now();
    ends(bed, job, failed(cause, now), Ending::Retry { due: now }).await
}

async fn bundle(bed: &Bed, job: JobId) -> Option<Value> {
    let row = bed.ledger.readers.quarantine(job).await.expect("readable")?;
    Some(serde_json::from_str(row.bundle.get()).expect("JSON"))
}

#[tokio::test]
async fn the_third_abnormal_end_quarantines_with_a_bundle() {
    let bed = Bed::new().await;
    let snapshot = Snapshot {
        generation: 1,
        plugins: vec!["fragile".into()],
        plugin_fingerprints: json!({"fragile": {"settings": "s", "init": "i"}, "other": {"init": "o"}}).to_string(),
        sanitized_config: json!({"plugins": {"fragile": {"limits": {"memory": "64MB"}, "config": {"key": "hidden"}}}})
            .to_string(),
        ..Snapshot::default()
    };
    let recorded = bed.ledger.writer.record_snapshot(snapshot).await.expect("recorded");
    let job = NewJob { max_attempts: 9, payload: Some(raw(r#"{"n":1.50}"#)), ..new_job("fragile") };
    let context = NewContext { accumulated: raw(r#"{"origin":{"channel":7}}"#), ..support::context(None, "only") };
    let id = job.id;
    let job = NewJob { context: Some(context.id), snapshot: Some(recorded.id), ..job };
    let submission = Submission { jobs: vec![job], contexts: vec![context], ..Submission::default() };
    bed.ledger.writer.submit(submission, 1).await.expect("enqueued");

    let first = fails(&bed, id, Cause::Signal).await;
    assert!(!first.is_quarantined && fails(&bed, id, Cause::Timeout).await.status == first.status);
    assert!(!fails(&bed, id, Cause::OutOfMemory).await.is_quarantined);
    assert!(!fails(&bed, id, Cause::PluginError).await.is_quarantined, "it chose that end itself");
    let usage = Usage { cpu: Some(Duration::from_millis(1234)), peak_memory: Some(5_000_000) };
    let last = Outcome {
        signal: Some(11),
        stderr: Some(format!("{}the end", "x".repeat(20_000))),
        usage,
        ..failed(Cause::Signal, bed.hands.now())
    };
    let end = ends(&bed, id, last, Ending::Retry { due: bed.hands.now() }).await;
    assert!(end.is_quarantined && end.due.is_none(), "{end:?}");
    assert_eq!(end.status.map(|s| s.as_str()), Some("dead"));
    let reason = end.transitions.last().and_then(|t| t.reason.clone()).expect("a reason");
    assert!(
        reason.starts_with("quarantined: 3 attempts ended abnormally, the last: it went wrong: signal"),
        "{reason}"
    );
    assert!(reason.contains(&format!("ductile job reproduce {id}")), "{reason}");
    let row = bed.ledger.readers.job(id).await.expect("read").expect("there");
    assert_eq!((row.status.as_str(), row.last_error.as_deref()), ("dead", Some(&*reason)));

    let bundle = bundle(&bed, id).await.expect("a bundle");
    let request = &bundle["request"];
    assert_eq!((&request["plugin"], &request["command"]), (&json!("fragile"), &json!("poll")));
    assert_eq!(request["payload"].to_string(), r#"{"n":1.5}"#);
    assert_eq!(request["context"], json!({"origin": {"channel": 7}}));
    assert_eq!(bundle["fingerprint"], json!({"settings": "s", "init": "i"}));
    assert_eq!(bundle["limits"], json!({"memory": "64MB"}));
    assert!(!bundle.to_string().contains("hidden"), "no configuration is in it");
    let attempts = bundle["attempts"].as_array().expect("a list");
    let causes: Vec<_> = attempts.iter().map(|a| a["cause"].as_str().expect("a word")).collect();
    assert_eq!(causes, ["signal", "timeout", "out_of_memory", "plugin_error", "signal"]);
    let last = &attempts[4];
    assert_eq!((&last["signal"], &last["cpu_ms"], &last["peak_memory"]), (&json!(11), &json!(1234), &json!(5_000_000)));
    let tail = last["stderr_tail"].as_str().expect("text");
    assert!(tail.len() == 8192 && tail.ends_with("the end"), "{} bytes", tail.len());
    let shown = bed.ledger.readers.attempts(id).await.expect("read");
    assert_eq!(shown.last().map(|a| (a.cpu_ms, a.peak_memory)), Some((Some(1234), Some(5_000_000))));
}

/// Attempts that were used up by abnormal ends are a reason to look into the job too; other ends never are.
#[tokio::test]
async fn only_abnormal_ends_of_one_job_count() {
    let bed = Bed::new().await;
    let exhausted = enqueued(&bed, 3).await;
    for cause in [Cause::Signal, Cause::Crashed] {
        fails(&bed, exhausted, cause).await;
    }
    assert!(ends(&bed, exhausted, failed(Cause::OutOfMemory, bed.hands.now()), Ending::Dead).await.is_quarantined);
    let other = enqueued(&bed, 9).await;
    for cause in [Cause::ExitCode, Cause::Timeout, Cause::Protocol, Cause::OutputTooLarge, Cause::Signal, Cause::Signal]
    {
        assert!(!fails(&bed, other, cause).await.is_quarantined, "{cause}");
    }
    // given back is no attempt, and what another job did does not count
    let claimed = bed.take(other).await;
    bed.ledger.writer.give_back(claimed.fence, "a stop".into(), None).await.expect("given back");
    assert!(ends(&bed, other, succeeded(bed.hands.now()), Ending::Succeeded).await.status.is_some());
    assert_eq!(bed.number("SELECT count(*) FROM job_quarantine").await, 1);
    assert_eq!(bed.ledger.readers.quarantined().await.expect("read"), 1);

    let failing = enqueued(&bed, 9).await;
    for _ in 0..2 {
        fails(&bed, failing, Cause::Signal).await;
    }
    let end = ends(&bed, failing, failed(Cause::OutOfMemory, bed.hands.now()), Ending::Failed).await;
    assert!(!end.is_quarantined && end.status.is_some_and(|s| s.as_str() == "failed"), "{end:?}");
    let cancelled = enqueued(&bed, 9).await;
    for _ in 0..2 {
        fails(&bed, cancelled, Cause::Signal).await;
    }
    let claimed = bed.take(cancelled).await;
    bed.ledger.writer.cancel(cancelled, "enough".into(), "me".into()).await.expect("flagged");
    let now = bed.hands.now();
    let end = finish(claimed.fence, failed(Cause::Signal, now), Ending::Retry { due: now });
    let end = bed.ledger.writer.finish(end).await.expect("finished");
    assert!(!end.is_quarantined, "whoever cancels knows why: {end:?}");
}

/// A gateway that was killed three times under the same job: recovery counts as any end does.
#[tokio::test]
async fn a_job_that_was_running_at_three_crashes_is_quarantined() {
    let mut bed = Bed::new().await;
    let id = enqueued(&bed, 9).await;
    for crash in 1..=3 {
        bed.take(id).await;
        bed.ledger.writer.flush().await;
        bed = bed.reopen().await;
        let recovered = bed.ledger.writer.recover().await.expect("recovered");
        assert_eq!(recovered.len(), 1);
        assert_eq!(recovered[0].finished.is_quarantined, crash == 3, "crash {crash}");
    }
    let attempts = bundle(&bed, id).await.expect("a bundle")["attempts"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(3));
    assert_eq!(attempts[2]["cause"], "crashed");
}

/// OPC-26: the size is kept with the end that asked for it, and never gets smaller.
#[tokio::test]
async fn the_next_size_of_memory_is_written_with_the_end_and_stays() {
    let bed = Bed::new().await;
    let id = enqueued(&bed, 9).await;
    let now = bed.hands.now();
    let claimed = bed.take(id).await;
    assert_eq!(claimed.memory_tier, 0);
    let larger = Ending::RetryLarger { due: now, tier: 1 };
    bed.ledger.writer.finish(finish(claimed.fence, failed(Cause::OutOfMemory, now), larger)).await.expect("finished");
    fails(&bed, id, Cause::ExitCode).await;
    assert_eq!(bed.take(id).await.memory_tier, 1);
}
