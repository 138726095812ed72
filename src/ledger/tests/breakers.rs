//! Breakers as rows: counted with the ends of scheduled jobs, probed by ticks, reset by operators.

mod support;

use std::time::Duration;

use ductile_domain::breaker::{BreakerPolicy, BreakerReason, Circuit};
use ductile_domain::ids::JobId;
use ductile_domain::job::NewJob;
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::retry::Ending;
use ductile_domain::schedule::{IfRunning, TickReason};
use ductile_ledger::{BreakerEvent, Due, Finished, Ticked};
use sqlx::Row as _;
use support::schedules::{due, fired, queueing, skipped};
use support::{Bed, failed, finish, retry_in, succeeded};

const POLICY: BreakerPolicy = BreakerPolicy { threshold: 2, reset_after: Duration::from_secs(300) };

/// State and count as readers see them.
async fn state(bed: &Bed) -> (String, u64) {
    let row = bed.ledger.readers.breakers(Some("echo")).await.expect("read").remove(0);
    (row.state, row.failure_count)
}

/// From, to, reason, count and job of every transition, the oldest first.
async fn transitions(bed: &Bed) -> Vec<(String, String, String, u64, Option<String>)> {
    let rows = bed.ledger.readers.breaker_transitions(Some("echo"), 100).await.expect("read");
    let rows = rows.into_iter().rev();
    rows.map(|r| (r.from_state.unwrap_or_default(), r.to_state, r.reason, r.failure_count, r.job_id)).collect()
}

fn words(event: &Option<BreakerEvent>) -> Option<(Circuit, Circuit, BreakerReason, u32)> {
    event.as_ref().map(|e| (e.change.from, e.change.to, e.change.reason, e.failure_count))
}

async fn open(bed: &Bed) {
    bed.generation(1, POLICY).await;
    for _ in 0..POLICY.threshold {
        let job = bed.scheduled("echo", "poll").await;
        bed.fail(&job).await;
    }
    assert_eq!(state(bed).await, ("open".into(), 2));
}

/// BRK-02, BRK-03, BRK-04, BRK-06, BRK-07, BRK-09: a whole cycle, with the rows of each change in the transaction that
/// caused it.
#[tokio::test]
async fn a_breaker_goes_through_its_cycle() {
    let bed = Bed::new().await;
    bed.generation(1, POLICY).await;
    let first = bed.scheduled("echo", "poll").await;
    assert_eq!(bed.fail(&first).await.breaker, None);
    assert_eq!(state(&bed).await, ("closed".into(), 1));
    let second = bed.scheduled("echo", "poll").await;
    let event = bed.fail(&second).await.breaker;
    let opened = (Circuit::Closed, Circuit::Open, BreakerReason::FailureThreshold, 2);
    assert_eq!(words(&event), Some(opened));
    let event = event.expect("an event");
    assert_eq!((&*event.plugin, &*event.command, event.job), ("echo", "poll", Some(second.fence.job)));
    assert_eq!(bed.ledger.readers.open_breakers(|plugin| plugin == "echo").await.expect("read"), 1);
    assert_eq!(bed.ledger.readers.open_breakers(|plugin| plugin == "other").await.expect("read"), 0);

    assert_eq!(skipped(&bed.tick(due("default", bed.minute(0))).await), TickReason::BreakerOpen);
    bed.hands.advance(Duration::from_secs(299));
    assert_eq!(skipped(&bed.tick(due("default", bed.minute(1))).await), TickReason::BreakerOpen);
    bed.hands.advance(Duration::from_secs(1));
    let Ticked::Fired { job: probe, breaker, .. } = bed.tick(due("default", bed.minute(5))).await else {
        panic!("the probe fires");
    };
    assert_eq!(words(&breaker), Some((Circuit::Open, Circuit::HalfOpen, BreakerReason::CooldownElapsed, 2)));
    assert_eq!(skipped(&bed.tick(queueing("default", bed.minute(6))).await), TickReason::BreakerOpen);
    let claimed = bed.take(probe).await;
    let event = bed.fail(&claimed).await.breaker;
    assert_eq!(words(&event), Some((Circuit::HalfOpen, Circuit::Open, BreakerReason::FailureThreshold, 3)));

    bed.hands.advance(Duration::from_secs(300));
    let probe = fired(&bed.tick(due("default", bed.minute(10))).await);
    let claimed = bed.take(probe).await;
    let event = bed.succeed(&claimed).await.breaker;
    assert_eq!(words(&event), Some((Circuit::HalfOpen, Circuit::Closed, BreakerReason::Success, 0)));

    for _ in 0..2 {
        let job = bed.scheduled("echo", "poll").await;
        bed.fail(&job).await;
    }
    let events = bed.ledger.writer.reset_breaker("echo".into()).await.expect("reset");
    assert_eq!(words(&events.first().cloned()), Some((Circuit::Open, Circuit::Closed, BreakerReason::ManualReset, 0)));
    assert_eq!(state(&bed).await, ("closed".into(), 0));
    assert!(bed.ledger.writer.reset_breaker("echo".into()).await.expect("reset").is_empty());
    let found = transitions(&bed).await;
    let found: Vec<_> = found.iter().map(|(_, to, why, count, _)| (to.as_str(), why.as_str(), *count)).collect();
    let wanted = [
        ("open", "failure_threshold", 2),
        ("half_open", "cooldown_elapsed", 2),
        ("open", "failure_threshold", 3),
        ("half_open", "cooldown_elapsed", 3),
        ("closed", "success", 0),
        ("open", "failure_threshold", 2),
        ("closed", "manual_reset", 0),
    ];
    assert_eq!(found, wanted);
    assert_eq!(transitions(&bed).await[3].4, Some(probe.to_string()));
    let row = bed.ledger.readers.breakers(None).await.expect("read").remove(0);
    assert!(row.opened_at.is_some() && row.last_failure_at.is_some() && row.last_job_id.is_some());
    bed.ledger.close().await;
}

/// BRK-05: only failures in a row open it.
#[tokio::test]
async fn a_success_forgets_the_failures_before_it() {
    let bed = Bed::new().await;
    for is_success in [false, false, true, false, false] {
        let job = bed.scheduled("echo", "poll").await;
        let finished = if is_success { bed.succeed(&job).await } else { bed.fail(&job).await };
        assert_eq!(finished.breaker, None);
    }
    assert_eq!(state(&bed).await, ("closed".into(), 2));
    assert!(transitions(&bed).await.is_empty());
    bed.ledger.close().await;
}

/// BRK-01: jobs of others neither count nor are they held up, and each command has a breaker of its own.
#[tokio::test]
async fn only_scheduled_jobs_of_the_command_count() {
    let bed = Bed::new().await;
    bed.generation(1, POLICY).await;
    for _ in 0..3 {
        let job = bed.running("echo").await;
        assert_eq!(bed.fail(&job).await.breaker, None);
    }
    assert!(bed.ledger.readers.breakers(None).await.expect("read").is_empty());
    open(&bed).await;
    let job = bed.running("echo").await;
    bed.succeed(&job).await;
    assert_eq!(state(&bed).await, ("open".into(), 2), "what others did says nothing");
    let other =
        Due { job: NewJob { command: "sync".into(), ..due("x", bed.minute(0)).job }, ..due("x", bed.minute(0)) };
    fired(&bed.tick(other).await);
    let twin = Due { job: NewJob { plugin: "twin".into(), ..due("y", bed.minute(0)).job }, ..due("y", bed.minute(0)) };
    fired(&bed.tick(twin).await);
    bed.ledger.close().await;
}

/// BRK-01, D-08: a job counts once, by its last end; what was told to end says nothing.
#[tokio::test]
async fn a_job_counts_once_by_what_became_of_it() {
    let bed = Bed::new().await;
    let now = bed.hands.now();
    let writer = &bed.ledger.writer;
    let job = bed.scheduled("echo", "poll").await;
    let retried = finish(job.fence, failed(Cause::ExitCode, now), retry_in(now, 0));
    writer.finish(retried).await.expect("finished");
    assert!(bed.ledger.readers.breakers(None).await.expect("read").is_empty(), "an attempt is not the job");
    let job = bed.take(job.fence.job).await;
    let dead = finish(job.fence, failed(Cause::ExitCode, now), Ending::Dead);
    writer.finish(dead.clone()).await.expect("finished");
    writer.finish(dead).await.expect("repeated");
    assert_eq!(state(&bed).await, ("closed".into(), 1));

    let skipped = Outcome { status: AttemptStatus::Skipped, ..succeeded(now) };
    let silent = [
        (failed(Cause::Cancelled, now), Ending::Dead),
        (failed(Cause::PluginGone, now), Ending::Dead),
        (skipped, Ending::Skipped),
    ];
    for (outcome, ending) in silent {
        let job = bed.scheduled("echo", "poll").await;
        writer.finish(finish(job.fence, outcome, ending)).await.expect("finished");
        assert_eq!(state(&bed).await, ("closed".into(), 1));
    }
    // flagged: what it failed with came of that
    let job = bed.scheduled("echo", "poll").await;
    writer.cancel(job.fence.job, "x".into(), "x".into()).await.expect("flagged");
    writer.finish(finish(job.fence, failed(Cause::Signal, now), retry_in(now, 0))).await.expect("finished");
    // queued: it never ran
    let queued = fired(&bed.tick(due("default", bed.minute(0))).await);
    writer.cancel(queued, "x".into(), "x".into()).await.expect("dead");
    let job = bed.scheduled("echo", "poll").await;
    writer.cancel(job.fence.job, "x".into(), "x".into()).await.expect("flagged");
    writer.give_back(job.fence, "a stop".into(), None).await.expect("dead");
    assert_eq!(state(&bed).await, ("closed".into(), 1));
    bed.ledger.close().await;
}

/// BRK-08: it survives a restart; and a job that ended with the gateway counts when it is found.
#[tokio::test]
async fn a_breaker_survives_and_counts_what_is_recovered() {
    let bed = Bed::new().await;
    bed.generation(1, POLICY).await;
    let job = bed.scheduled("echo", "poll").await;
    bed.fail(&job).await;
    let lost = bed.scheduled("echo", "poll").await;
    let bed = bed.reopen().await;
    bed.generation(1, POLICY).await;
    let recovered = bed.ledger.writer.recover().await.expect("recovered");
    let Finished { breaker, .. } = &recovered[0].finished;
    assert_eq!(words(breaker), Some((Circuit::Closed, Circuit::Open, BreakerReason::FailureThreshold, 2)));
    let bed = bed.reopen().await;
    let row = bed.ledger.readers.breakers(None).await.expect("read").remove(0);
    assert_eq!((row.state.as_str(), row.last_job_id), ("open", Some(lost.fence.job.to_string())));
    bed.generation(1, POLICY).await;
    assert_eq!(skipped(&bed.tick(due("default", bed.minute(0))).await), TickReason::BreakerOpen);
    bed.ledger.close().await;
}

/// BRK-04: a probe that ended without a word does not keep the breaker half-open for ever.
#[tokio::test]
async fn a_cancelled_probe_is_replaced() {
    let bed = Bed::new().await;
    open(&bed).await;
    bed.hands.advance(POLICY.reset_after);
    let probe = fired(&bed.tick(due("default", bed.minute(5))).await);
    let cancelling = Due { if_running: IfRunning::Cancel, ..due("default", bed.minute(6)) };
    assert_eq!(skipped(&bed.tick(cancelling).await), TickReason::BreakerOpen, "the probe is not superseded");
    bed.ledger.writer.cancel(probe, "x".into(), "x".into()).await.expect("dead");
    let Ticked::Fired { job, breaker, .. } = bed.tick(due("default", bed.minute(7))).await else {
        panic!("another probe fires");
    };
    assert_eq!(breaker, None, "it is half-open already");
    let claimed = bed.take(job).await;
    bed.succeed(&claimed).await;
    assert_eq!(state(&bed).await, ("closed".into(), 0));
    bed.ledger.close().await;
}

/// BRK-04: with `if_running: queue` an older job runs beside the probe; only the probe's end decides.
#[tokio::test]
async fn an_older_job_that_ends_beside_the_probe_says_nothing() {
    let bed = Bed::new().await;
    bed.generation(1, POLICY).await;
    let older = [bed.scheduled("echo", "poll").await, bed.scheduled("echo", "poll").await];
    let last = bed.scheduled("echo", "poll").await;
    open(&bed).await;
    bed.succeed(&last).await;
    assert_eq!(state(&bed).await, ("open".into(), 2), "a success from before says nothing either");
    bed.hands.advance(POLICY.reset_after);
    let probe = fired(&bed.tick(queueing("default", bed.minute(5))).await);
    let bed = bed.reopen().await;
    bed.generation(1, POLICY).await;
    assert_eq!(bed.succeed(&older[0]).await.breaker, None);
    assert_eq!(bed.fail(&older[1]).await.breaker, None);
    assert_eq!(state(&bed).await, ("half_open".into(), 2));
    assert_eq!(skipped(&bed.tick(queueing("default", bed.minute(6))).await), TickReason::BreakerOpen);
    let claimed = bed.take(probe).await;
    let closed = (Circuit::HalfOpen, Circuit::Closed, BreakerReason::Success, 0);
    assert_eq!(words(&bed.succeed(&claimed).await.breaker), Some(closed));
    bed.ledger.close().await;
}

/// BRK-04: what still runs from before does not stand for a probe that was cancelled.
#[tokio::test]
async fn a_cancelled_probe_is_replaced_while_an_older_job_runs() {
    let bed = Bed::new().await;
    bed.generation(1, POLICY).await;
    let older = bed.scheduled("echo", "poll").await;
    open(&bed).await;
    bed.hands.advance(POLICY.reset_after);
    let cancelled = fired(&bed.tick(queueing("default", bed.minute(5))).await);
    bed.ledger.writer.cancel(cancelled, "x".into(), "x".into()).await.expect("dead");
    let probe = fired(&bed.tick(queueing("default", bed.minute(6))).await);
    bed.succeed(&older).await;
    assert_eq!(state(&bed).await, ("half_open".into(), 2));
    let claimed = bed.take(probe).await;
    bed.succeed(&claimed).await;
    assert_eq!(state(&bed).await, ("closed".into(), 0));
    bed.ledger.close().await;
}

/// A tick that is let pass but gives way otherwise is no probe.
#[tokio::test]
async fn only_a_job_is_a_probe() {
    let bed = Bed::new().await;
    open(&bed).await;
    bed.hands.advance(POLICY.reset_after);
    let api = bed.running("echo").await;
    let guarded = Due { guard: Some(1), ..due("default", bed.minute(5)) };
    assert_eq!(skipped(&bed.tick(guarded).await), TickReason::Guard);
    assert_eq!(state(&bed).await, ("open".into(), 2));
    bed.succeed(&api).await;
    fired(&bed.tick(Due { guard: Some(1), ..due("default", bed.minute(6)) }).await);
    assert_eq!(state(&bed).await, ("half_open".into(), 2));
    bed.ledger.close().await;
}

/// BRK-02: the policy is that of the configuration in force, three failures and half an hour without one.
#[tokio::test]
async fn the_policy_in_force_decides() {
    let bed = Bed::new().await;
    for (generation, policy, needed) in
        [(1, BreakerPolicy::default(), 3), (2, BreakerPolicy { threshold: 1, ..POLICY }, 1)]
    {
        bed.generation(generation, policy).await;
        for n in 1..=needed {
            let job = bed.scheduled("echo", "poll").await;
            assert_eq!(bed.fail(&job).await.breaker.is_some(), n == needed, "{n} of {needed}");
        }
        let tick = due("default", bed.minute(i64::try_from(generation).expect("small")));
        assert_eq!(
            skipped(&bed.ledger.writer.tick(vec![tick], generation).await.expect("answered")[0]),
            TickReason::BreakerOpen
        );
        bed.ledger.writer.reset_breaker("echo".into()).await.expect("reset");
    }
    bed.ledger.close().await;
}

/// BRK-09: a reset is for every command of the plugin, and for no other plugin.
#[tokio::test]
async fn a_reset_is_for_one_plugin() {
    let bed = Bed::new().await;
    for (plugin, command) in [("echo", "poll"), ("echo", "sync"), ("other", "poll")] {
        for _ in 0..3 {
            let job = bed.scheduled(plugin, command).await;
            bed.fail(&job).await;
        }
    }
    let counting = bed.scheduled("echo", "third").await;
    bed.fail(&counting).await;
    let events = bed.ledger.writer.reset_breaker("echo".into()).await.expect("reset");
    assert_eq!(events.iter().map(|e| &*e.command).collect::<Vec<_>>(), ["poll", "sync"]);
    let rows = bed.ledger.readers.breakers(None).await.expect("read");
    let rows: Vec<_> = rows.iter().map(|r| (r.plugin.as_str(), r.state.as_str(), r.failure_count)).collect();
    assert_eq!(rows, [("echo", "closed", 0), ("echo", "closed", 0), ("echo", "closed", 0), ("other", "open", 3)]);
    bed.ledger.close().await;
}

/// DBS-07, DBS-08, DBS-09, BRK-06, BRK-07, SCH-21: the documented columns, and what may not be changed.
#[tokio::test]
async fn the_tables_have_the_documented_columns() {
    let bed = Bed::new().await;
    let tables = [
        (
            "circuit_breakers",
            "plugin command state failure_count opened_at last_failure_at last_job_id updated_at probe_job_id",
            "plugin command",
        ),
        (
            "circuit_breaker_transitions",
            "id plugin command from_state to_state failure_count reason job_id created_at",
            "id",
        ),
        (
            "schedule_entries",
            "plugin schedule_id command status reason last_fired_at last_success_job_id last_success_at next_run_at \
             updated_at fingerprint anchor_at armed_by",
            "plugin schedule_id",
        ),
    ];
    for (table, columns, key) in tables {
        let rows = sqlx::query("SELECT name, pk FROM pragma_table_info(?1)").bind(table);
        let rows = rows.fetch_all(&mut bed.sql().await).await.expect("read");
        let names: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        assert_eq!(names.join(" "), columns, "{table}");
        let mut keys: Vec<(i64, String)> = rows.iter().map(|r| (r.get(1), r.get(0))).filter(|(n, _)| *n > 0).collect();
        keys.sort();
        assert_eq!(keys.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" "), key, "{table}");
    }
    open(&bed).await;
    let changed =
        sqlx::raw_sql("UPDATE circuit_breaker_transitions SET reason = 'x'").execute(&mut bed.sql().await).await;
    assert!(changed.expect_err("refused").to_string().contains("append-only"));
    let job: JobId = bed.ledger.readers.breakers(None).await.expect("read")[0]
        .last_job_id
        .clone()
        .expect("a job")
        .parse()
        .expect("a UUID");
    assert!(bed.ledger.readers.job(job).await.expect("read").is_some());
    bed.ledger.close().await;
}
