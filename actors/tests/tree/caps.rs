//! Caps and same-key exclusion as rows tell them.

use std::time::Duration;

use ductile_api::gateway::Gateway as _;

use crate::gateway::{Gateway, patient_numbers};

/// QUE-15: jobs of one key and target run one after the other, all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_one_key_never_run_together() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(gateway.submit("work", "slow", Some("one")).await.expect("accepted"));
    }
    let free = gateway.enqueue("work", "ok").await;
    gateway.handle().set_dispatch(true, "a test".into()).await.expect("resumed");
    for job in &jobs {
        assert_eq!(gateway.finished(*job).await, "succeeded");
    }
    assert_eq!(gateway.finished(free).await, "succeeded");
    let all = "SELECT count(*) FROM job_log WHERE status = 'succeeded'";
    assert_eq!(gateway.sql_one(all).await, "7", "every one of them ran");
    // Claims and ends are ordered by their transitions: between two claims of the key lies an end.
    let history = gateway
        .sql(
            "SELECT t.to_status FROM job_transitions t JOIN job_queue q ON q.id = t.job_id
             WHERE q.dedupe_key = 'one' AND t.to_status <> 'queued' ORDER BY t.id",
        )
        .await;
    let words: Vec<&str> = history.iter().map(|r| r[0].as_str()).collect();
    assert_eq!(words, ["running", "succeeded"].repeat(6));
    gateway.stop().await;
}

/// QUE-16: one key, two targets: both run at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_differ_run_together_under_one_key() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    let one = gateway.submit("work", "hang", Some("both")).await.expect("accepted");
    let two = gateway.submit("other", "hang", Some("both")).await.expect("accepted");
    gateway.process_of(one).await;
    gateway.process_of(two).await;
    assert_eq!(gateway.shared().readers.counts().await.expect("read").running, 2);
    gateway.stop().await;
}

/// QUE-17, SUP-07: a running row that this gateway never started takes a slot and excludes its twins, until the reaper
/// finds that nobody runs it and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_running_row_counts() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
    let foreign = gateway.submit("work", "ok", Some("k")).await.expect("accepted");
    let boot = gateway.shared().boot;
    gateway
        .sql(&format!(
            "UPDATE job_queue SET status = 'running', claim_no = claim_no + 1, boot_id = '{boot}' WHERE id = '{foreign}'"
        ))
        .await;
    let twin = gateway.submit("work", "ok", Some("k")).await.expect("accepted");
    let mut others = Vec::new();
    for _ in 0..6 {
        others.push(gateway.enqueue("other", "slow").await);
    }
    gateway.handle().set_dispatch(true, "a test".into()).await.expect("resumed");
    gateway
        .until("the others have ended, one at a time", async || {
            let rows = gateway.shared().readers.running().await.ok()?;
            assert!(rows.len() <= 2, "the cap does not count the foreign row: {rows:?}");
            let mut open = 0;
            for job in &others {
                open += usize::from(!gateway.shared().readers.status(*job).await.ok()??.is_terminal());
            }
            (open == 0).then_some(())
        })
        .await;
    assert_eq!(gateway.finished(foreign).await, "succeeded");
    assert_eq!(gateway.finished(twin).await, "succeeded");
    let order = gateway
        .sql_one(&format!(
            "SELECT (SELECT min(id) FROM job_transitions WHERE job_id = '{twin}' AND to_status = 'running') >
                    (SELECT min(id) FROM job_transitions WHERE job_id = '{foreign}' AND to_status = 'queued' AND from_status = 'running')"
        ))
        .await;
    assert_eq!(order, "1", "the twin ran beside the foreign row");
    tokio::time::timeout(Duration::from_secs(30), gateway.stop()).await.expect("it stops");
}
