//! Ticks that are due, as rows: each ends once, with its job or with the reason why there is none.

mod support;

use std::time::Duration;

use ductile_domain::breaker::BreakerPolicy;
use ductile_domain::job::{JobStatus, NewJob};
use ductile_domain::schedule::{IfRunning, TickReason, TickStatus};
use ductile_ledger::{Due, TickFilter, Ticked, WriteError};
use sqlx::Row as _;
use support::schedules::{arrangement, due, ended, expected, fired, queueing, skipped};
use support::{Bed, join, new_job, seat, seated};

const JOBS: &str = "SELECT count(*) FROM job_queue";

/// SCH-18, guarantees 4: the tick and its job are one, and a call that is repeated after a lost answer finds that.
#[tokio::test]
async fn a_repeated_tick_fires_once() {
    let bed = Bed::new().await;
    let (now, next) = (bed.minute(0), bed.minute(5));
    bed.arrange(arrangement("default", &[now])).await;
    let tick = Due { next: Some(expected(next)), ..due("default", now) };
    let job = fired(&bed.tick(tick.clone()).await);
    assert_eq!(bed.feed.drain().candidates.iter().map(|c| c.job).collect::<Vec<_>>(), [job]);
    let row = bed.ledger.readers.job(job).await.expect("read").expect("there");
    assert_eq!((row.submitted_by.as_str(), row.requested_by.as_deref()), ("scheduler", Some("default")));
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!((entry.last_fired_at, entry.next_run_at, entry.last_instant), (Some(now), Some(next), Some(now)));
    assert_eq!(entry.expected, [expected(next)]);

    let fresh = due("default", now).job;
    for job in [tick.job.clone(), fresh] {
        assert!(matches!(bed.tick(Due { job, ..tick.clone() }).await, Ticked::AlreadyEnded));
    }
    let bed = bed.reopen().await;
    assert!(matches!(bed.tick(tick.clone()).await, Ticked::AlreadyEnded));
    assert_eq!(bed.number(JOBS).await, 1);
    let rows = bed.rows_of("default").await;
    assert_eq!(rows[1].job_id, Some(job.to_string()));
    assert_eq!(bed.ticks_of("default").await, [(0, "fired".into(), None), (5, "expected".into(), None)]);
    // should the row ever be lost, the key is left
    sqlx::raw_sql("DELETE FROM schedule_ticks").execute(&mut bed.sql().await).await.expect("deleted");
    let lost = Due { job: NewJob { id: due("x", now).job.id, ..tick.job.clone() }, ..tick };
    let Ticked::Skipped { reason: TickReason::Running, .. } = bed.tick(lost.clone()).await else {
        panic!("its job is in flight");
    };
    sqlx::raw_sql("DELETE FROM schedule_ticks").execute(&mut bed.sql().await).await.expect("deleted");
    let lost = Due { if_running: IfRunning::Queue, ..lost };
    let Ticked::Skipped { reason: TickReason::Deduped, job: Some(twin), .. } = bed.tick(lost).await else {
        panic!("its key is taken");
    };
    assert_eq!((twin, bed.number(JOBS).await), (job, 1));
    bed.ledger.close().await;
}

/// SCH-16: a prior job that the scheduler submitted decides; those of others do not count.
#[tokio::test]
async fn each_overlap_policy_does_what_it_says() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    bed.queued("echo").await;
    let first = fired(&bed.tick(due("default", bed.minute(0))).await);
    assert_eq!(skipped(&bed.tick(due("default", bed.minute(1))).await), TickReason::Running);
    bed.take(first).await;
    assert_eq!(skipped(&bed.tick(due("default", bed.minute(2))).await), TickReason::Running);
    let queued = fired(&bed.tick(queueing("default", bed.minute(3))).await);

    let tick = Due { if_running: IfRunning::Cancel, ..due("default", bed.minute(4)) };
    let Ticked::Fired { job, cancelled, flagged, .. } = bed.tick(tick).await else { panic!("it fires") };
    assert_eq!(flagged, [first]);
    assert_eq!(cancelled.iter().map(|b| b.transition.job).collect::<Vec<_>>(), [queued]);
    assert_eq!(cancelled[0].transition.reason.as_deref(), Some("cancelled: superseded by schedule default"));
    for (id, status) in [(first, JobStatus::Running), (queued, JobStatus::Dead), (job, JobStatus::Queued)] {
        assert_eq!(bed.ledger.readers.status(id).await.expect("read"), Some(status));
    }
    let row = bed.ledger.readers.job(queued).await.expect("read").expect("there");
    assert_eq!(row.last_error.as_deref(), Some("cancelled: superseded by schedule default"));
    let running = bed.ledger.readers.running().await.expect("read");
    assert_eq!(running[0].cancel_reason.as_deref(), Some("superseded by schedule default"));
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE submitted_by = 'api' AND status = 'queued'").await, 1);
    bed.ledger.close().await;
}

/// SCH-16: what a tick cancels leaves its join as any cancelled job does.
#[tokio::test]
async fn a_cancelled_job_leaves_its_join() {
    let bed = Bed::new().await;
    let split = join(None, 1);
    let parent = bed.running("router").await;
    let child = NewJob { submitted_by: "scheduler", ..seated("echo", seat(&split, 0)) };
    let plan = ductile_domain::plan::Plan { joins: vec![split], children: vec![child], ..Default::default() };
    let end = ductile_ledger::Finish { plan, ..bed.succeeded(parent.fence) };
    bed.ledger.writer.finish(end).await.expect("finished");
    let tick = Due { if_running: IfRunning::Cancel, ..due("default", bed.minute(0)) };
    let Ticked::Fired { cancelled, .. } = bed.tick(tick).await else { panic!("it fires") };
    assert_eq!(cancelled[0].born.len(), 1, "the join's job");
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// SCH-17: every poll of the plugin counts, whoever asked for it, but none that the tick itself cancels; and what gives
/// way has cancelled nothing.
#[tokio::test]
async fn the_poll_guard_counts_all_but_what_is_cancelled() {
    let bed = Bed::new().await;
    let api = bed.running("echo").await;
    let guarded = |minute, guard| Due { guard: Some(guard), ..queueing("default", bed.minute(minute)) };
    assert_eq!(skipped(&bed.tick(guarded(0, 1)).await), TickReason::Guard);
    let job = fired(&bed.tick(guarded(1, 2)).await);
    assert_eq!(skipped(&bed.tick(guarded(2, 2)).await), TickReason::Guard);
    assert_eq!(skipped(&bed.tick(guarded(3, 0)).await), TickReason::Guard);

    let cancel = |minute, guard| Due { if_running: IfRunning::Cancel, ..guarded(minute, guard) };
    assert_eq!(skipped(&bed.tick(cancel(4, 1)).await), TickReason::Guard);
    assert_eq!(bed.ledger.readers.status(job).await.expect("read"), Some(JobStatus::Queued), "nothing was cancelled");
    bed.succeed(&api).await;
    let Ticked::Fired { cancelled, .. } = bed.tick(cancel(5, 1)).await else { panic!("the guard has room") };
    assert_eq!(cancelled.len(), 1);
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE status = 'queued'").await, 1);
    let entry = bed.ledger.readers.entries().await.expect("read");
    assert!(entry.is_empty(), "a tick makes no schedule");
    bed.ledger.close().await;
}

/// SCH-14, SCH-15: what is caught up waits for its turn, and a second start finds it done.
#[tokio::test]
async fn what_is_caught_up_waits_and_fires_once() {
    let bed = Bed::new().await;
    let minutes = [0, 1, 9].map(|n| bed.minute(n));
    bed.arrange(arrangement("default", &minutes)).await;
    let late = |minute| {
        let tick = due("default", bed.minute(minute));
        let key = tick.job.dedupe_key.clone().expect("a key").replacen("schedule", "catchup", 1);
        Due { is_catch_up: true, job: NewJob { dedupe_key: Some(key), ..tick.job.clone() }, ..tick }
    };
    let first = bed.tick(late(0)).await;
    let job = fired(&first);
    assert!(matches!(first, Ticked::Fired { status: TickStatus::CaughtUp, reason: None, .. }));
    for _ in 0..2 {
        assert!(matches!(bed.tick(late(1)).await, Ticked::Waits { reason: TickReason::Running }));
    }
    let row = bed.ledger.readers.job(job).await.expect("read").expect("there");
    assert!(row.dedupe_key.expect("a key").contains("catchup"));
    let waiting = [
        (0, "caught_up".into(), None),
        (1, "expected".into(), Some("running".to_owned())),
        (9, "expected".into(), None),
    ];
    assert_eq!(bed.ticks_of("default").await, waiting);
    let claimed = bed.take(job).await;
    bed.succeed(&claimed).await;
    let api = bed.running("echo").await;
    let guarded = |tick| Due { guard: Some(1), ..tick };
    assert!(matches!(bed.tick(guarded(late(1))).await, Ticked::Waits { reason: TickReason::Guard }));
    bed.succeed(&api).await;
    fired(&bed.tick(guarded(late(1))).await);
    let together = Due { if_running: IfRunning::Queue, ..late(2) };
    fired(&bed.tick(together).await);

    let (first, second) = (late(0), late(1));
    let bed = bed.reopen().await;
    for tick in [first, second] {
        assert!(matches!(bed.tick(tick).await, Ticked::AlreadyEnded));
    }
    assert_eq!(bed.number("SELECT count(*) FROM schedule_ticks WHERE status = 'caught_up'").await, 3);
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!(entry.next_run_at, Some(bed.minute(9)), "what is caught up moves nothing");
    bed.ledger.close().await;
}

/// SCH-08: a schedule without a next tick is exhausted by its last.
#[tokio::test]
async fn the_last_tick_exhausts_its_schedule() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("once", &[bed.minute(1)])).await;
    let tick = Due { is_last: true, is_late: true, ..due("once", bed.minute(1)) };
    let paused = bed.ledger.writer.pause_schedules("echo".into(), None, true).await.expect("paused");
    assert_eq!(paused, ["once"]);
    assert!(matches!(bed.tick(tick.clone()).await, Ticked::Waits { reason: TickReason::Paused }));
    bed.ledger.writer.pause_schedules("echo".into(), Some("once".into()), false).await.expect("resumed");
    let ticked = bed.tick(tick.clone()).await;
    assert!(matches!(ticked, Ticked::Fired { status: TickStatus::Fired, reason: Some(TickReason::Late), .. }));
    let entry = bed.ledger.readers.entry("echo", "once").await.expect("read").expect("there");
    assert_eq!((entry.status.as_str(), entry.next_run_at, entry.expected.len()), ("exhausted", None, 0));
    assert!(matches!(bed.tick(tick).await, Ticked::AlreadyEnded));
    assert_eq!(bed.ticks_of("once").await, [(1, "fired".into(), Some("late".into()))]);
    let changed = bed.ledger.writer.pause_schedules("echo".into(), None, true).await.expect("answered");
    assert!(changed.is_empty(), "what is exhausted can't be paused");
    bed.ledger.close().await;
}

/// SCH-08: what fires once is not lost to a job in flight, a full guard or an open breaker, and its wait is no silence.
#[tokio::test]
async fn the_only_tick_of_a_schedule_waits_for_its_turn() {
    let bed = Bed::new().await;
    bed.generation(1, BreakerPolicy { threshold: 1, reset_after: Duration::from_secs(60) }).await;
    bed.arrange(arrangement("once", &[bed.minute(1)])).await;
    let once = Due { is_last: true, guard: Some(1), ..due("once", bed.minute(1)) };
    let waits_for = async |reason: TickReason| {
        for _ in 0..2 {
            assert!(matches!(bed.tick(once.clone()).await, Ticked::Waits { reason: told } if told == reason));
        }
        assert_eq!(bed.ticks_of("once").await, [(1, "expected".into(), Some(reason.as_str().to_owned()))]);
        assert_eq!(bed.ledger.readers.silent(bed.minute(9)).await.expect("read"), []);
    };
    let job = bed.scheduled("echo", "poll").await;
    waits_for(TickReason::Running).await;
    bed.succeed(&job).await;
    let api = bed.running("echo").await;
    waits_for(TickReason::Guard).await;
    bed.succeed(&api).await;
    let job = bed.scheduled("echo", "poll").await;
    bed.fail(&job).await;
    waits_for(TickReason::BreakerOpen).await;
    bed.hands.advance(Duration::from_secs(60));
    fired(&bed.tick(once.clone()).await);
    assert!(matches!(bed.tick(once.clone()).await, Ticked::AlreadyEnded));
    assert_eq!(bed.ticks_of("once").await, [(1, "fired".into(), None)]);
    bed.ledger.close().await;
}

/// What is decided outside and what is paused ends without asking for a job.
#[tokio::test]
async fn a_tick_that_is_not_to_fire_ends_with_its_reason() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    let tick = Due {
        skip: Some(TickReason::OutsideWindow),
        next: Some(expected(bed.minute(1))),
        passed: vec![
            ended(bed.minute(3), TickStatus::Missed, TickReason::ClockJumped),
            // ended already: it stays as it is
            ended(bed.minute(0), TickStatus::Missed, TickReason::ClockJumped),
        ],
        ..due("default", bed.minute(0))
    };
    assert_eq!(skipped(&bed.tick(tick).await), TickReason::OutsideWindow);
    bed.ledger.writer.pause_schedules("echo".into(), None, true).await.expect("paused");
    let bed = bed.reopen().await;
    let tick = Due { next: Some(expected(bed.minute(2))), ..due("default", bed.minute(1)) };
    assert_eq!(skipped(&bed.tick(tick).await), TickReason::Paused);
    let rows: [(i64, String, Option<String>); 4] = [
        (0, "skipped".into(), Some("outside_window".into())),
        (1, "skipped".into(), Some("paused".into())),
        (2, "expected".into(), None),
        (3, "missed".into(), Some("clock_jumped".into())),
    ];
    assert_eq!(bed.ticks_of("default").await, rows);
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!((entry.status.as_str(), entry.last_fired_at), ("paused_manual", None));
    assert_eq!(bed.number(JOBS).await, 0);
    bed.ledger.close().await;
}

/// Each tick of a call finds what those before it did.
#[tokio::test]
async fn ticks_of_one_call_see_each_other() {
    let bed = Bed::new().await;
    let calls = vec![due("a", bed.minute(0)), due("b", bed.minute(0)), queueing("c", bed.minute(0))];
    let ticked = bed.ledger.writer.tick(calls, 1).await.expect("answered");
    let (first, third) = (fired(&ticked[0]), fired(&ticked[2]));
    assert_eq!(skipped(&ticked[1]), TickReason::Running);
    assert_ne!(first, third);
    let cancelling = Due { if_running: IfRunning::Cancel, ..due("d", bed.minute(0)) };
    let calls = vec![queueing("a", bed.minute(1)), cancelling, due("a", bed.minute(1))];
    let ticked = bed.ledger.writer.tick(calls, 1).await.expect("answered");
    let Ticked::Fired { cancelled, .. } = &ticked[1] else { panic!("it fires") };
    assert_eq!(cancelled.len(), 3);
    assert!(matches!(ticked[2], Ticked::AlreadyEnded));
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE status = 'queued'").await, 1);
    bed.ledger.close().await;
}

/// A tick of a former configuration changes nothing.
#[tokio::test]
async fn a_tick_of_another_generation_is_outdated() {
    let bed = Bed::new().await;
    bed.generation(1, BreakerPolicy::default()).await;
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    bed.generation(2, BreakerPolicy::default()).await;
    let tick = due("default", bed.minute(0));
    let refused = bed.ledger.writer.tick(vec![tick.clone()], 1).await.expect_err("another is in force");
    assert!(matches!(refused, WriteError::Outdated), "{refused}");
    assert_eq!(bed.ticks_of("default").await, [(0, "expected".into(), None)]);
    fired(&bed.ledger.writer.tick(vec![tick], 2).await.expect("answered")[0]);
    bed.ledger.close().await;
}

/// One that can't be written fails alone, and stays expected.
#[tokio::test]
async fn a_tick_that_cannot_be_written_fails_alone() {
    let bed = Bed::new().await;
    let taken = bed.queued("other").await.job;
    bed.arrange(arrangement("b", &[bed.minute(0)])).await;
    let mut poisoned = queueing("b", bed.minute(0));
    poisoned.job.id = taken;
    let calls = vec![queueing("a", bed.minute(0)), poisoned.clone(), queueing("c", bed.minute(0))];
    let ticked = bed.ledger.writer.tick(calls, 1).await.expect("answered");
    fired(&ticked[0]);
    assert!(matches!(ticked[1], Ticked::Failed(WriteError::Refused(_))), "{:?}", ticked[1]);
    fired(&ticked[2]);
    assert!(matches!(bed.tick(poisoned).await, Ticked::Failed(_)), "also when it comes alone");
    assert_eq!(bed.ticks_of("b").await, [(0, "expected".into(), None)]);
    assert_eq!(bed.feed.drain().candidates.len(), 3, "the queue is told of what fired");
    bed.ledger.close().await;
}

/// A file that can't be written fails the call as a whole; the same call works later.
#[tokio::test]
async fn a_held_lock_fails_the_call_and_leaves_nothing() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("a", &[bed.minute(0)])).await;
    let mut other = bed.sql().await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("locked");
    let calls = vec![due("a", bed.minute(0)), queueing("b", bed.minute(0))];
    let refused = bed.ledger.writer.tick(calls.clone(), 1).await.expect_err("the lock is held");
    assert!(refused.is_transient(), "{refused}");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("released");
    assert_eq!(bed.number(JOBS).await, 0);
    for ticked in &bed.ledger.writer.tick(calls, 1).await.expect("answered") {
        fired(ticked);
    }
    bed.ledger.close().await;
}

/// SCH-21, DBS-09: what succeeded for a schedule stands in its row; nobody else's success does.
#[tokio::test]
async fn a_success_is_noted_for_its_schedule() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    bed.arrange(arrangement("other", &[])).await;
    let job = fired(&bed.tick(due("default", bed.minute(0))).await);
    bed.hands.advance(Duration::from_secs(3));
    let claimed = bed.take(job).await;
    bed.succeed(&claimed).await;
    let api = NewJob { requested_by: Some("default".into()), ..new_job("echo") };
    let id = api.id;
    bed.enqueue(api).await;
    bed.hands.advance(Duration::from_secs(3));
    let claimed = bed.take(id).await;
    bed.succeed(&claimed).await;
    let failing = bed.scheduled("echo", "poll").await;
    bed.fail(&failing).await;
    let entries = bed.ledger.readers.entries().await.expect("read");
    let at = bed.minute(0) + chrono::TimeDelta::seconds(3);
    assert_eq!((entries[0].last_success_at, &entries[0].last_success_job_id), (Some(at), &Some(job.to_string())));
    assert_eq!((entries[1].schedule.as_str(), entries[1].last_success_at), ("other", None));
    bed.ledger.close().await;
}

/// SCH-24: the query that is printed for operators.
#[tokio::test]
async fn upcoming_runs_are_one_query() {
    let bed = Bed::new().await;
    for (schedule, minute) in [("late", 9), ("soon", 1), ("paused", 2)] {
        bed.arrange(arrangement(schedule, &[bed.minute(minute)])).await;
    }
    bed.ledger.writer.pause_schedules("echo".into(), Some("paused".into()), true).await.expect("paused");
    let rows = sqlx::query(
        "SELECT plugin, schedule_id, next_run_at, last_success_at FROM schedule_entries
         WHERE status='active' ORDER BY next_run_at",
    )
    .fetch_all(&mut bed.sql().await)
    .await
    .expect("it runs");
    let found: Vec<(String, String)> = rows.iter().map(|r| (r.get(1), r.get(2))).collect();
    let wanted = [("soon", "2026-01-01T00:01:00.000Z"), ("late", "2026-01-01T00:09:00.000Z")];
    assert_eq!(found, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    bed.ledger.close().await;
}

/// guarantees 3 and 4: what has ended stays so; the database itself refuses.
#[tokio::test]
async fn the_database_refuses_to_change_a_tick_that_has_ended() {
    let bed = Bed::new().await;
    fired(&bed.tick(due("default", bed.minute(0))).await);
    for sql in ["UPDATE schedule_ticks SET status = 'expected'", "UPDATE schedule_ticks SET job_id = 'x'"] {
        let error = sqlx::raw_sql(sql).execute(&mut bed.sql().await).await.expect_err("refused");
        assert!(error.to_string().contains("a tick ends once"), "{error}");
    }
    let twice = "INSERT INTO schedule_ticks (plugin, schedule_id, fingerprint, instant, due_at, status, created_at)
        SELECT plugin, schedule_id, fingerprint, instant, due_at, 'expected', created_at FROM schedule_ticks";
    let error = sqlx::raw_sql(twice).execute(&mut bed.sql().await).await.expect_err("refused");
    assert!(error.to_string().contains("UNIQUE"), "{error}");
    bed.ledger.close().await;
}

#[tokio::test]
async fn ticks_are_listed_by_page_and_filter() {
    let bed = Bed::new().await;
    for minute in 0..5 {
        bed.tick(due("default", bed.minute(minute))).await;
    }
    bed.tick(queueing("other", bed.minute(0))).await;
    let list = async |filter: TickFilter| -> Vec<i64> {
        let rows = bed.ledger.readers.ticks(&filter).await.expect("read");
        rows.into_iter().map(|row| row.id).collect()
    };
    let all = TickFilter { limit: 4, ..TickFilter::default() };
    assert_eq!(list(all.clone()).await, [6, 5, 4, 3]);
    assert_eq!(list(TickFilter { before_id: Some(3), ..all.clone() }).await, [2, 1]);
    assert_eq!(list(TickFilter { status: Some("fired".into()), ..all.clone() }).await, [6, 1]);
    assert_eq!(list(TickFilter { schedule: Some("default".into()), ..all.clone() }).await, [5, 4, 3, 2]);
    assert_eq!(list(TickFilter { plugin: Some("nobody".into()), ..all }).await, [0; 0]);
    bed.ledger.close().await;
}
