//! Operations that share a transaction, and what each of them is told.

mod support;

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use ductile_domain::ids::BootId;
use ductile_domain::job::{Candidate, JobStatus};
use ductile_domain::outcome::Cause;
use ductile_ledger::{Cancelled, CommitFeed, Deletable, Enqueued, OpenOptions, Prune, Refusal, WriteError, open};
use support::{Bed, Call, Hands, failed, finish, new_job, retry_in};
use uuid::Uuid;

/// core.md, Writer: a failing operation rolls back, and then fails alone.
#[tokio::test]
async fn a_poisoned_operation_fails_alone() {
    let bed = Bed::new().await;
    let existing = bed.queued("echo").await.job;
    let writer = &bed.ledger.writer;
    let answers = bed
        .together(
            (0..5)
                .map(|n| {
                    let mut job = new_job("echo");
                    if n == 2 {
                        job.id = existing;
                    }
                    Box::pin(writer.enqueue(vec![job], 1)) as Call<'_, Result<Vec<Enqueued>, WriteError>>
                })
                .collect(),
        )
        .await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), n != 2, "{n}: {answer:?}");
    }
    assert!(matches!(answers[2], Err(WriteError::Refused(_))));
    assert_eq!(bed.number("SELECT count(*) FROM job_queue").await, 5);
    assert_eq!(bed.number("SELECT count(*) FROM job_transitions").await, 5);
    bed.ledger.close().await;
}

/// QUE-07: what was asked for first stands first, and ids of transitions ascend with it.
#[tokio::test]
async fn rows_and_transitions_follow_the_order_of_the_calls() {
    let bed = Bed::new().await;
    let jobs: Vec<_> = (0..40).map(|_| new_job("echo")).collect();
    let ids: Vec<_> = jobs.iter().map(|j| j.id).collect();
    let writer = &bed.ledger.writer;
    let calls = jobs
        .into_iter()
        .map(|job| Box::pin(writer.enqueue(vec![job], 1)) as Call<'_, Result<Vec<Enqueued>, WriteError>>)
        .collect();
    let answers: Vec<_> = bed.together(calls).await.into_iter().map(|a| a.expect("enqueued").remove(0)).collect();
    for (n, (answer, id)) in (1..).zip(answers.into_iter().zip(&ids)) {
        assert_eq!(answer, Enqueued::Accepted { job: *id, row: n, transition: n });
    }
    let listed: Vec<_> =
        bed.ledger.readers.candidates("echo", 0, 100).await.expect("read").into_iter().map(|c| c.job).collect();
    assert_eq!(listed, ids);
    assert_eq!(bed.feed.drain().candidates.into_iter().map(|c| c.job).collect::<Vec<_>>(), ids);
    bed.ledger.close().await;
}

/// A slot is free as soon as the end of its attempt has arrived, and the rows follow in this order.
#[tokio::test]
async fn a_slot_freed_in_a_batch_is_taken_in_it() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let next = bed.queued("echo").await;
    let mut request = bed.request(vec![next.clone()]);
    request.candidates[0].1 = 1;
    let refused = bed.ledger.writer.claim(request.clone()).await.expect("answered").refused;
    assert_eq!(refused[0].why, Refusal::PluginCap);
    let writer = &bed.ledger.writer;
    let claimed = std::sync::Mutex::new(0);
    bed.together(vec![
        Box::pin(async { drop(writer.finish(bed.succeeded(job.fence)).await.expect("finished")) }) as Call<'_, ()>,
        Box::pin(async {
            *claimed.lock().expect("no panic") = writer.claim(request).await.expect("answered").claimed.len();
        }),
    ])
    .await;
    assert_eq!(claimed.into_inner().expect("no panic"), 1);
    let order = "SELECT (SELECT id FROM job_transitions WHERE to_status = 'succeeded')
        < (SELECT max(id) FROM job_transitions WHERE to_status = 'running')";
    assert_eq!(bed.number(order).await, 1);
    bed.ledger.close().await;
}

/// Each end grants one candidate of a claim that stands, in the order of preference; what is withdrawn comes back.
#[tokio::test]
async fn each_end_grants_one_candidate_of_a_claim_that_stands() {
    let bed = Bed::new().await;
    let mut job = bed.running("echo").await;
    let mut candidates = Vec::new();
    for _ in 0..4 {
        candidates.push(bed.queued("echo").await);
    }
    let mut request = bed.request(candidates.clone());
    request.max_running = 1;
    let (decided, mut parts) = tokio::sync::mpsc::unbounded_channel();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let writer = &bed.ledger.writer;
    writer.claim_then(
        request,
        true,
        move |claims| drop(decided.send(claims)),
        std::sync::Arc::new(move |job: &_, transition| {
            let job: &ductile_domain::job::ClaimedJob = job;
            let _ = started.send((job.fence.job, transition));
        }),
    );
    let mut last = 0;
    for wanted in &candidates[..2] {
        writer.finish(bed.succeeded(job.fence)).await.expect("finished");
        let part = parts.recv().await.expect("decided");
        assert_eq!((part.claimed.len(), part.refused.len()), (1, 0));
        job = part.claimed[0].job.clone();
        assert_eq!(job.fence.job, wanted.job);
        let (started, transition) = starts.recv().await.expect("written");
        assert!(started == wanted.job && transition > last);
        last = transition;
        assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE status = 'running'").await, 1);
    }
    // what is cancelled before its turn never gets one
    writer.cancel(candidates[2].job, "no need".into(), "admin".into()).await.expect("cancelled");
    writer.withdraw_claims();
    let rest = parts.recv().await.expect("decided");
    assert_eq!(rest.refused.iter().map(|r| r.why).collect::<Vec<_>>(), [Refusal::Withdrawn; 2]);
    assert!(parts.recv().await.is_none(), "nothing more is decided");
    bed.ledger.close().await;
}

/// A slot does not wait for the writer: once the next attempt is read ahead, whoever brings the end takes it on his own
/// thread, and both are written in this order. An end that leaves a state behind is the writer's matter.
#[tokio::test]
async fn whoever_brings_an_end_takes_the_next_attempt() {
    const ENDS: usize = 60;
    let bed = Bed::new().await;
    let mut job = bed.running("echo").await;
    let mut candidates = Vec::new();
    for _ in 0..ENDS {
        candidates.push(bed.queued("echo").await);
    }
    let mut request = bed.request(candidates.clone());
    request.max_running = 1;
    let writer = &bed.ledger.writer;
    let (decided, parts) = std::sync::mpsc::channel();
    let decided = move |claims| drop(decided.send((std::thread::current().id(), claims)));
    writer.claim_then(request, true, decided, std::sync::Arc::new(|_, _| ()));
    let mut taken = 0;
    for (n, wanted) in candidates.iter().enumerate() {
        let leaves_state = n % 3 == 2;
        let mut end = bed.succeeded(job.fence);
        if leaves_state {
            let state = serde_json::value::RawValue::from_string("{}".into()).expect("JSON");
            end.plan.state = Some(ductile_domain::plan::StateChange::Merge(state));
        }
        let (ended, end_told) = tokio::sync::oneshot::channel();
        writer.finish_then(std::sync::Arc::new(end), move |answer| drop(ended.send(answer)));
        end_told.await.expect("told").expect("finished");
        let (thread, part) = parts.recv().expect("decided");
        assert_eq!(thread == std::thread::current().id(), part.is_taken);
        assert!(!(part.is_taken && leaves_state), "the next attempt must find the state");
        taken += usize::from(part.is_taken);
        job = part.claimed[0].job.clone();
        assert_eq!(job.fence.job, wanted.job);
        assert_eq!(job.state.is_some(), n >= 2, "the state that was left is there");
    }
    assert!(taken > 0, "none was read ahead in time");
    writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    let order = bed.number(
        "SELECT count(*) FROM job_transitions a JOIN job_transitions b ON b.id = a.id + 1
         WHERE a.to_status = 'succeeded' AND b.to_status = 'running'",
    );
    assert_eq!(
        order.await,
        i64::try_from(ENDS).expect("few"),
        "each end stands before the start that it made room for"
    );
    bed.ledger.close().await;
}

/// A cancellation that came first is seen by the claim behind it, one that came later marks the attempt.
#[tokio::test]
async fn a_cancelled_job_is_never_granted() {
    let bed = Bed::new().await;
    let (first, second) = (bed.queued("echo").await, bed.queued("echo").await);
    let writer = &bed.ledger.writer;
    let answers = bed
        .together(vec![
            Box::pin(async {
                format!("{:?}", writer.cancel(first.job, "x".into(), "x".into()).await.expect("answered"))
            }) as Call<'_, String>,
            Box::pin(async {
                let claims = writer.claim(bed.request(vec![first.clone(), second.clone()])).await.expect("answered");
                format!("{:?} {:?}", claims.claimed[0].job.fence.job == second.job, claims.refused[0].why)
            }),
        ])
        .await;
    assert!(answers[0].starts_with("Dead"), "{answers:?}");
    assert_eq!(answers[1], "true Gone");
    let late = writer.cancel(second.job, "x".into(), "x".into()).await.expect("answered");
    assert_eq!(late, Cancelled::Flagged);
    bed.ledger.close().await;
}

/// QUE-15, QUE-17, QUE-18, QUE-19: why candidates are refused.
#[tokio::test]
async fn a_claim_rechecks_status_caps_and_twins() {
    let bed = Bed::new().await;
    let mut candidates = Vec::new();
    for plugin in ["a", "a", "b", "twins", "twins", "c"] {
        let mut job = new_job(plugin);
        job.dedupe_key = (plugin == "twins").then(|| "k".to_owned());
        let id = job.id;
        let Enqueued::Accepted { row, .. } = bed.enqueue(job).await else { panic!("accepted") };
        candidates.push(Candidate { row, job: id, plugin: plugin.into(), due: None });
    }
    let stranger = Candidate { row: candidates[0].row, ..candidates[5].clone() };
    let mut request = bed.request(candidates);
    request.candidates.insert(0, (stranger, 9));
    request.candidates.iter_mut().for_each(|c| c.1 = if &*c.0.plugin == "a" { 1 } else { 9 });
    request.max_running = 3;
    let claims = bed.ledger.writer.claim(request).await.expect("answered");
    let taken: Vec<_> = claims.claimed.iter().map(|c| c.job.plugin.to_string()).collect();
    assert_eq!(taken, ["a", "b", "twins"]);
    let why: Vec<_> = claims.refused.iter().map(|r| r.why).collect();
    assert_eq!(why, [Refusal::Gone, Refusal::PluginCap, Refusal::TwinRunning, Refusal::GlobalCap]);
    bed.ledger.close().await;
}

/// core.md: cancel is an operation of the ledger; a cancelled job is never tried again.
#[tokio::test]
async fn a_cancelled_job_is_not_tried_again() {
    let bed = Bed::new().await;
    let writer = &bed.ledger.writer;
    let queued = bed.queued("echo").await.job;
    let answer = writer.cancel(queued, "no need".into(), "admin".into()).await.expect("answered");
    assert!(matches!(answer, Cancelled::Dead { .. }));
    let again = writer.cancel(queued, "no need".into(), "admin".into()).await.expect("answered");
    assert_eq!(again, Cancelled::AlreadyTerminal(JobStatus::Dead));
    let unknown = writer.cancel(Uuid::now_v7().into(), "x".into(), "x".into()).await.expect("answered");
    assert_eq!(unknown, Cancelled::Unknown);

    for gives_back in [false, true] {
        let job = bed.running("echo").await;
        let answer = writer.cancel(job.fence.job, "no need".into(), "admin".into()).await.expect("answered");
        assert_eq!(answer, Cancelled::Flagged);
        let finished = if gives_back {
            writer.give_back(job.fence, "drain".into(), None).await
        } else {
            let outcome = failed(Cause::Signal, bed.hands.now());
            writer.finish(finish(job.fence, outcome, retry_in(bed.hands.now(), 1))).await
        };
        assert_eq!(finished.expect("answered").status, Some(JobStatus::Dead));
        let row = bed.ledger.readers.job(job.fence.job).await.expect("read").expect("there");
        assert_eq!(row.last_error.as_deref(), Some("cancelled: no need"));
        assert!(row.completed_at.is_some() && row.next_retry_at.is_none());
    }
    bed.ledger.close().await;
}

/// QUE-02: an operator's reader and writer beside the gateway never make it see `database is locked`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_never_see_a_locked_database() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = open(OpenOptions::new(dir.path().join("ductile.db"), Uuid::now_v7().into())).await.expect("opened");
    let path = dir.path().join("ductile.db");
    let other = tokio::spawn(async move {
        use sqlx::ConnectOptions as _;
        let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("connected");
        for n in 0..100 {
            sqlx::query("INSERT INTO ledger_meta (name, value) VALUES (?1, 'x')")
                .bind(format!("note-{n}"))
                .execute(&mut conn)
                .await
                .expect("not locked");
            sqlx::query("SELECT count(*) FROM job_queue").fetch_one(&mut conn).await.expect("not locked");
        }
    });
    for _ in 0..100 {
        ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("not locked");
        ledger.readers.counts().await.expect("not locked");
    }
    other.await.expect("no panic");
    assert_eq!(ledger.readers.counts().await.expect("read").queued, 100);
    ledger.close().await;
}

#[tokio::test]
async fn a_spawn_is_noted_soon_and_not_after_the_attempts_end() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    bed.ledger.writer.record_spawn(job.fence, 4711, 99);
    let deadline = Instant::now() + Duration::from_secs(10);
    while bed.ledger.readers.running().await.expect("read")[0].pid != Some(4711) {
        assert!(Instant::now() < deadline, "the spawn was never noted");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    bed.ledger.writer.record_spawn(job.fence, 4712, 99);
    bed.ledger.writer.flush().await;
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE pid IS NOT NULL").await, 0);
    bed.ledger.close().await;
}

/// OPS-03: the rows of another boot are found with their processes, and tried again at once, or are dead.
#[tokio::test]
async fn orphans_of_another_boot_are_recovered() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let old = bed.boot;
    bed.ledger.writer.record_spawn(job.fence, 4711, 99);
    bed.ledger.writer.flush().await;
    assert!(bed.ledger.writer.orphans().await.expect("read").is_empty(), "its owner is this boot");
    let bed = bed.reopen().await;
    let orphans = bed.ledger.writer.orphans().await.expect("read");
    assert_eq!((orphans[0].boot, orphans[0].pid, orphans[0].pid_start), (Some(old), Some(4711), Some(99)));
    let recovered = bed.ledger.writer.recover().await.expect("recovered");
    let words: Vec<_> = recovered[0].finished.transitions.iter().map(|t| (t.from, t.to)).collect();
    assert_eq!(words, [(Some("running"), "failed"), (Some("failed"), "queued")]);
    assert!(recovered[0].finished.transitions[0].reason.as_ref().is_some_and(|r| r.starts_with("crashed")));
    let again = bed.claim(bed.feed.drain().candidates).await.claimed.remove(0).job;
    assert_eq!((again.fence.job, again.attempt), (job.fence.job, 2));
    assert!(bed.ledger.writer.recover().await.expect("recovered").is_empty());
    bed.ledger.close().await;
}

#[tokio::test]
async fn doors_are_refused_at_once_when_too_much_waits() {
    let (dir, boot) = (tempfile::tempdir().expect("a directory"), BootId::from(Uuid::now_v7()));
    let mut options = OpenOptions::new(dir.path().join("ductile.db"), boot);
    options.capacity = 2;
    let ledger = open(options).await.expect("opened");
    let bed = Bed { dir, ledger, feed: CommitFeed::default(), boot, hands: Hands::new() };
    let writer = &bed.ledger.writer;
    let calls = (0..3)
        .map(|_| Box::pin(writer.enqueue(vec![new_job("echo")], 1)) as Call<'_, Result<Vec<Enqueued>, WriteError>>)
        .collect();
    let answers = bed.together(calls).await;
    assert!(answers[0].is_ok() && answers[1].is_ok());
    assert!(matches!(answers[2], Err(WriteError::Overloaded)));
    writer.enqueue(vec![new_job("echo")], 1).await.expect("there is room again");
    bed.ledger.close().await;
}

/// supervision.md pitfall 12: dropping a call neither undoes nor tears its transaction.
#[tokio::test]
async fn a_dropped_call_is_still_committed() {
    let bed = Bed::new().await;
    for _ in 0..20 {
        let mut call = Box::pin(bed.ledger.writer.enqueue(vec![new_job("echo")], 1));
        poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
    }
    bed.ledger.writer.flush().await;
    assert_eq!(bed.ledger.readers.counts().await.expect("read").queued, 20);
    bed.ledger.close().await;
}

#[tokio::test]
async fn a_closed_writer_says_so_and_what_waited_was_done() {
    let bed = Bed::new().await;
    let writer = bed.ledger.writer.clone();
    let mut waiting = Box::pin(writer.enqueue(vec![new_job("echo")], 1));
    poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
    bed.ledger.close().await;
    waiting.await.expect("it was accepted before");
    let late = writer.enqueue(vec![new_job("echo")], 1).await;
    assert!(matches!(late, Err(WriteError::Closed)));
}

/// OPS-13, QUE-31: pruning takes what is older than its retention, in bounded steps, and nothing that is alive.
#[tokio::test]
async fn pruning_is_bounded_and_spares_what_is_alive() {
    let bed = Bed::new().await;
    for _ in 0..5 {
        let job = bed.running("echo").await;
        bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    }
    bed.queued("echo").await;
    bed.running("echo").await;
    bed.hands.advance(Duration::from_secs(100));
    let prune = Prune {
        retention: vec![(Deletable::Jobs, Duration::from_secs(60)), (Deletable::Log, Duration::from_secs(1000))],
        limit: 3,
    };
    let first = bed.ledger.writer.prune(prune.clone()).await.expect("pruned");
    assert_eq!((first.deleted[0], first.has_more), ((Deletable::Jobs, 3), true));
    let second = bed.ledger.writer.prune(prune).await.expect("pruned");
    assert_eq!((second.deleted[0], second.has_more), ((Deletable::Jobs, 2), false));
    assert_eq!(bed.number("SELECT count(*) FROM job_queue").await, 2);
    assert_eq!(bed.number("SELECT count(*) FROM job_log").await, 5, "the log has its own retention");
    assert!(bed.ledger.readers.mark("last_prune_at").await.expect("read").is_some());
    bed.ledger.writer.checkpoint().await.expect("checkpointed");
    bed.ledger.close().await;
}
