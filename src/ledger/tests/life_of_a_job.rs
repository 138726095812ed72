//! A job from its enqueue to its end, as rows.

mod support;

use ductile_domain::job::JobStatus;
use ductile_domain::outcome::Cause;
use ductile_domain::retry::Ending;
use ductile_ledger::{Enqueued, Verdict};
use support::{Bed, failed, finish, new_job, retry_in};

/// QUE-01, QUE-03, QUE-05, QUE-09, QUE-30, QUE-34: every step of a job that succeeds is a row.
#[tokio::test]
async fn a_job_that_succeeds_leaves_every_row_behind() {
    let bed = Bed::new().await;
    let new = new_job("echo");
    let id = new.id;
    let Enqueued::Accepted { job, row, transition } = bed.enqueue(new).await else { panic!("a new job is accepted") };
    assert_eq!((job, row, transition), (id, 1, 1));
    let drained = bed.feed.drain();
    assert_eq!(drained.candidates.len(), 1);
    let stored = bed.ledger.readers.job(id).await.expect("read").expect("the row is there");
    assert_eq!((stored.status.as_str(), stored.attempt, stored.started_at), ("queued", 1, None));

    let claims = bed.claim(drained.candidates).await;
    let claimed = &claims.claimed[0];
    assert_eq!(claimed.unreadable, None);
    assert_eq!(claimed.job.payload.as_ref().map(|p| p.get()), Some(r#"{"n":1.10,"text":"é\u0000\""}"#));
    assert_eq!((claimed.job.attempt, claimed.job.max_attempts, claimed.job.fence.claim_no), (1, 4, 1));

    let finished = bed.ledger.writer.finish(bed.succeeded(claimed.job.fence)).await.expect("finished");
    assert_eq!((finished.verdict, finished.status), (Verdict::Applied, Some(JobStatus::Succeeded)));
    let stored = bed.ledger.readers.job(id).await.expect("read").expect("the row is there");
    assert_eq!((stored.status.as_str(), stored.last_error), ("succeeded", None));
    assert_eq!(stored.result.as_deref(), Some(r#"{"status":"ok"}"#));
    assert!(stored.started_at.is_some() && stored.completed_at.is_some() && stored.next_retry_at.is_none());
    let pairs: Vec<_> = bed
        .ledger
        .readers
        .transitions(id)
        .await
        .expect("read")
        .into_iter()
        .map(|t| (t.id, t.from_status, t.to_status))
        .collect();
    assert_eq!(
        pairs,
        [
            (1, None, "queued".to_owned()),
            (2, Some("queued".to_owned()), "running".to_owned()),
            (3, Some("running".to_owned()), "succeeded".to_owned())
        ]
    );
    assert_eq!(bed.ledger.readers.attempts(id).await.expect("read").len(), 1);
    assert_eq!(bed.ledger.readers.stopwatch(id).await.expect("read").len(), 1);
    assert_eq!(
        bed.number("SELECT count(*) FROM job_log WHERE json_valid(payload) AND stderr = 'to stderr' || char(10)").await,
        1
    );
    bed.ledger.close().await;
}

/// QUE-06, QUE-25, QUE-28: a failure waits for its time with the next attempt, and ends dead after the last.
#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_ends_dead() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let outcome = failed(Cause::ExitCode, bed.hands.now());
    let ending = retry_in(bed.hands.now(), 30);
    let finished = bed.ledger.writer.finish(finish(job.fence, outcome.clone(), ending)).await.expect("finished");
    assert_eq!(finished.status, Some(JobStatus::Queued));
    let words: Vec<_> = finished.transitions.iter().map(|t| (t.from, t.to)).collect();
    assert_eq!(words, [(Some("running"), "failed"), (Some("failed"), "queued")]);
    let waiting = bed.feed.drain().candidates.pop().expect("the row waits");
    assert_eq!(waiting.due, finished.due);
    assert!(bed.claim(vec![waiting.clone()]).await.claimed.is_empty(), "it is not due");

    bed.hands.advance(std::time::Duration::from_secs(30));
    let again = bed.claim(vec![waiting]).await.claimed.remove(0).job;
    assert_eq!((again.attempt, again.fence.claim_no), (2, 2));
    let finished = bed.ledger.writer.finish(finish(again.fence, outcome, Ending::Dead)).await.expect("finished");
    let words: Vec<_> = finished.transitions.iter().map(|t| (t.from, t.to)).collect();
    assert_eq!(words, [(Some("running"), "failed"), (Some("failed"), "dead")]);
    let stored = bed.ledger.readers.job(job.fence.job).await.expect("read").expect("there");
    assert_eq!((stored.status.as_str(), stored.attempt), ("dead", 2));
    assert_eq!(stored.last_error.as_deref(), Some("it went wrong: exit_code"));
    bed.ledger.close().await;
}

#[tokio::test]
async fn a_repeated_finish_changes_nothing_and_a_stale_one_is_fenced() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let done = bed.succeeded(job.fence);
    assert_eq!(bed.ledger.writer.finish(done.clone()).await.expect("finished").verdict, Verdict::Applied);
    let again = bed.ledger.writer.finish(done).await.expect("answered");
    assert_eq!((again.verdict, again.status), (Verdict::AlreadyApplied, Some(JobStatus::Succeeded)));
    assert!(again.transitions.is_empty());

    let job = bed.running("echo").await;
    let back = bed.ledger.writer.give_back(job.fence, "drain".into(), None).await.expect("given back");
    assert_eq!((back.verdict, back.status), (Verdict::Applied, Some(JobStatus::Queued)));
    let candidates = bed.feed.drain().candidates;
    let again = bed.claim(candidates).await.claimed.remove(0).job;
    assert_eq!((again.attempt, again.fence.claim_no), (1, 2));
    let stale = bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("answered");
    assert_eq!(stale.verdict, Verdict::Fenced);
    assert_eq!(bed.number("SELECT count(*) FROM job_attempts").await, 1);
    bed.ledger.close().await;
}
