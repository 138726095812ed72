//! What a file that can't be written for a while costs: time, and nothing else.

mod support;

use std::time::Duration;

use ductile_domain::job::JobStatus;
use ductile_ledger::{Refusal, Snapshot, Verdict, WriteError};
use sqlx::sqlite::SqliteConnection;
use support::{Bed, new_job};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The write lock, as an operator's shell holds it; dropping it gives it back.
async fn lock(bed: &Bed) -> SqliteConnection {
    let mut lock = bed.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut lock).await.expect("a lock");
    lock
}

async fn release(mut lock: SqliteConnection) {
    sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.expect("released");
}

/// 0007: after a failed commit nothing is granted until one succeeds, also when nothing but claims waits for one.
#[tokio::test]
async fn claims_are_granted_again_though_nothing_else_is_written() {
    let bed = Bed::new().await;
    let candidate = bed.queued("echo").await;
    let held = lock(&bed).await;
    let refused = bed.ledger.writer.enqueue(vec![new_job("echo")], 1).await;
    assert!(matches!(refused, Err(WriteError::Busy)), "{refused:?}");
    release(held).await;
    let claims = tokio::time::timeout(PATIENCE, bed.claim(vec![candidate])).await.expect("decided");
    assert_eq!(claims.claimed.len(), 1);
    assert_eq!(bed.number("SELECT count(*) FROM ledger_meta WHERE name = 'probe'").await, 0);
    bed.ledger.close().await;
}

/// A configuration never overtakes what was granted before it: it would bury a job whose process runs.
#[tokio::test]
async fn a_snapshot_does_not_overtake_a_grant_that_could_not_be_written() {
    let bed = Bed::new().await;
    let _other = bed.running("echo").await;
    let candidate = bed.queued("echo").await;
    let held = lock(&bed).await;
    let (decided, mut parts) = tokio::sync::mpsc::unbounded_channel();
    let writer = bed.ledger.writer.clone();
    let decided = move |claims| drop(decided.send(claims));
    writer.claim_then(bed.request(vec![candidate]), true, decided, std::sync::Arc::new(|_, _| ()));
    let snapshot = Snapshot { generation: 2, plugins: vec!["other".into()], ..Snapshot::default() };
    let (enqueued, recorded) = tokio::join!(
        async {
            let refused = writer.enqueue(vec![new_job("echo")], 1).await;
            // the batch has failed; the snapshot behind it waits for the lock by itself
            release(held).await;
            refused
        },
        writer.record_snapshot(snapshot),
    );
    assert!(matches!(enqueued, Err(WriteError::Busy)), "{enqueued:?}");
    let job = parts.recv().await.expect("decided").claimed.remove(0).job;
    assert!(matches!(recorded, Err(WriteError::Busy)), "{recorded:?}");
    let finished = tokio::time::timeout(PATIENCE, writer.finish(bed.succeeded(job.fence))).await.expect("answered");
    let finished = finished.expect("finished");
    assert_eq!((finished.verdict, finished.status), (Verdict::Applied, Some(JobStatus::Succeeded)));
    bed.ledger.close().await;
}

/// A process that was noted while the file could not be written is noted when it can.
#[tokio::test]
async fn a_spawn_outlasts_a_failed_commit() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let held = lock(&bed).await;
    bed.ledger.writer.record_spawn(job.fence, 4711, 99);
    let refused = bed.ledger.writer.enqueue(vec![new_job("echo")], 1).await;
    assert!(matches!(refused, Err(WriteError::Busy)), "{refused:?}");
    release(held).await;
    bed.ledger.writer.flush().await;
    assert_eq!(bed.ledger.readers.running().await.expect("read")[0].pid, Some(4711));
    bed.ledger.close().await;
}

/// A row that can't be read costs its own job: it is not asked for again at once, and stored JSON that is no text fails
/// the attempt.
#[tokio::test]
async fn a_row_that_can_not_be_read_stands_in_nobodys_way() {
    let bed = Bed::new().await;
    let (bad, odd, good) = (bed.queued("echo").await, bed.queued("echo").await, bed.queued("echo").await);
    let mut sql = bed.sql().await;
    for (row, change) in [(bad.row, "created_at = CAST(x'ff' AS TEXT)"), (odd.row, "payload = CAST(x'22ff22' AS TEXT)")]
    {
        let change = sqlx::AssertSqlSafe(format!("UPDATE job_queue SET {change} WHERE rowid = {row}"));
        sqlx::raw_sql(change).execute(&mut sql).await.expect("changed");
    }
    let claims = bed.claim(vec![bad, odd.clone(), good.clone()]).await;
    let taken: Vec<_> = claims.claimed.iter().map(|c| (c.job.fence.job, c.unreadable)).collect();
    assert_eq!(taken, [(odd.job, Some("payload")), (good.job, None)]);
    assert_eq!(claims.refused.iter().map(|r| r.why).collect::<Vec<_>>(), [Refusal::Gone]);
    bed.ledger.close().await;
}
