//! What is expected of schedules: written ahead, taken back, kept over restarts.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use ductile_domain::schedule::{EntryStatus, Expected, TickReason, TickStatus};
use ductile_domain::time::Timestamp;
use ductile_ledger::{Arrangement, Due, Ended, Ticked, WriteError};
use support::Bed;
use support::schedules::{PRINT, arrangement, due, ended, expected, fired, queueing};

type Ticks = Vec<(i64, String, Option<String>)>;

fn ticks<const N: usize>(wanted: [(i64, &str, Option<&str>); N]) -> Ticks {
    wanted.into_iter().map(|(minute, status, reason)| (minute, status.into(), reason.map(Into::into))).collect()
}

/// SCH-02, SCH-21, SCH-23: what was expected is expected again after a restart, and each field comes back.
#[tokio::test]
async fn what_is_expected_survives_a_restart() {
    let bed = Bed::new().await;
    let jittered = Expected { instant: bed.minute(7), due: bed.minute(7) + chrono::TimeDelta::seconds(13) };
    let written = Arrangement {
        reason: Some("a word".into()),
        anchor: Some(bed.minute(1)),
        armed_by: Some(bed.boot),
        expect: vec![expected(bed.minute(2)), jittered],
        ..arrangement("default", &[])
    };
    let boot = bed.boot;
    bed.arrange(written.clone()).await;
    bed.arrange(written).await;
    let bed = bed.reopen().await;
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!(bed.ledger.readers.entries().await.expect("read"), std::slice::from_ref(&entry));
    assert_eq!((entry.plugin.as_str(), entry.schedule.as_str(), entry.command.as_str()), ("echo", "default", "poll"));
    assert_eq!((entry.status, entry.reason.as_deref()), (EntryStatus::Active, Some("a word")));
    assert_eq!((entry.anchor, entry.armed_by), (Some(bed.minute(1)), Some(boot)));
    assert_eq!(entry.fingerprint.as_deref(), Some(PRINT));
    assert_eq!((entry.next_run_at, entry.last_instant), (Some(jittered.due), None));
    assert_eq!(entry.expected, [expected(bed.minute(2)), jittered]);
    assert!(bed.ledger.readers.entry("echo", "another").await.expect("read").is_none());
    bed.ledger.close().await;
}

/// SCH-23: what is no more expected ends with a reason; what has ended stays as it is.
#[tokio::test]
async fn another_arrangement_ends_what_it_does_not_name() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("default", &[bed.minute(0), bed.minute(5)])).await;
    bed.arrange(arrangement("other", &[bed.minute(0)])).await;
    fired(&bed.tick(due("default", bed.minute(0))).await);
    let missed = Arrangement {
        ended: vec![
            ended(bed.minute(5), TickStatus::Missed, TickReason::GatewayDown),
            ended(bed.minute(0), TickStatus::Missed, TickReason::GatewayDown),
            Ended {
                last: Some((bed.minute(-1), 9)),
                ..ended(bed.minute(-9), TickStatus::Missed, TickReason::GatewayDown)
            },
        ],
        ..arrangement("default", &[bed.minute(0), bed.minute(10)])
    };
    bed.arrange(missed).await;
    let history = [
        (-9, "missed", Some("gateway_down")),
        (0, "fired", None),
        (5, "missed", Some("gateway_down")),
        (10, "expected", None),
    ];
    assert_eq!(bed.ticks_of("default").await, ticks(history));
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!((entry.last_instant, entry.expected.len()), (Some(bed.minute(5)), 1));

    let changed = Arrangement { fingerprint: Some("other".into()), ..arrangement("default", &[bed.minute(10)]) };
    bed.hands.advance(Duration::from_secs(60));
    bed.arrange(changed).await;
    let rows = bed.rows_of("default").await;
    let of =
        |print: &str| rows.iter().filter(|r| r.fingerprint == print).map(|r| r.status.as_str()).collect::<Vec<_>>();
    assert_eq!((of("other"), of(PRINT)), (vec!["expected"], vec!["skipped", "missed", "missed", "fired"]));
    let run = rows.iter().find(|r| r.instants == 9).expect("a run of instants");
    assert_eq!(run.last_instant.as_deref(), Some("2025-12-31T23:59:00.000Z"));

    let removed = Arrangement {
        is_removed: true,
        others_end: (TickStatus::Skipped, TickReason::Removed),
        fingerprint: None,
        ..arrangement("default", &[])
    };
    bed.arrange(removed).await;
    assert!(bed.ledger.readers.entry("echo", "default").await.expect("read").is_none());
    assert_eq!(bed.rows_of("default").await[0].reason.as_deref(), Some("removed"));
    let stale = Due { fingerprint: "other".into(), ..due("default", bed.minute(10)) };
    assert!(matches!(bed.tick(stale).await, Ticked::AlreadyEnded), "a scheduler that does not know yet");
    assert_eq!(bed.ticks_of("other").await, ticks([(0, "expected", None)]));
    bed.ledger.close().await;
}

/// A change that takes a tick back before it is due may be undone: the tick is not lost by that, and fires once.
#[tokio::test]
async fn a_tick_that_was_taken_back_is_expected_again() {
    let bed = Bed::new().await;
    for reason in [TickReason::Removed, TickReason::Replaced, TickReason::ClockWentBack] {
        let schedule = reason.as_str();
        let instants = [bed.minute(-1), bed.minute(5)];
        bed.arrange(arrangement(schedule, &instants)).await;
        let back = Arrangement {
            is_removed: reason == TickReason::Removed,
            others_end: (TickStatus::Skipped, reason),
            ..arrangement(schedule, &[])
        };
        bed.arrange(back).await;
        let skipped = [(-1, "skipped", Some(schedule)), (5, "skipped", Some(schedule))];
        assert_eq!(bed.ticks_of(schedule).await, ticks(skipped));
        let ended = bed.ledger.readers.ended_ticks("echo", schedule, PRINT, &instants).await.expect("read");
        assert_eq!(ended, HashSet::from([bed.minute(-1)]), "the one that was due has had its turn");
        bed.arrange(arrangement(schedule, &instants)).await;
        let again = [(-1, "skipped", Some(schedule)), (5, "expected", None)];
        assert_eq!(bed.ticks_of(schedule).await, ticks(again));
        let entry = bed.ledger.readers.entry("echo", schedule).await.expect("read").expect("there");
        assert_eq!((entry.last_instant, entry.next_run_at), (Some(bed.minute(-1)), Some(bed.minute(5))));
        fired(&bed.tick(queueing(schedule, bed.minute(5))).await);
        bed.arrange(arrangement(schedule, &instants)).await;
        let done = [(-1, "skipped", Some(schedule)), (5, "fired", None)];
        assert_eq!(bed.ticks_of(schedule).await, ticks(done), "once");
    }
    bed.ledger.close().await;
}

#[tokio::test]
async fn the_instants_of_a_run_have_ended_with_it() {
    let bed = Bed::new().await;
    // the first of them is one that was expected
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    let run = Ended { last: Some((bed.minute(4), 5)), ..ended(bed.minute(0), TickStatus::Skipped, TickReason::NotOn) };
    let single = ended(bed.minute(7), TickStatus::Skipped, TickReason::NotOn);
    bed.arrange(Arrangement { ended: vec![run, single], ..arrangement("default", &[bed.minute(9)]) }).await;
    let asked: Vec<Timestamp> = (-1..10).map(|n| bed.minute(n)).collect();
    let found = bed.ledger.readers.ended_ticks("echo", "default", PRINT, &asked).await.expect("read");
    let wanted: HashSet<Timestamp> = [0, 1, 2, 3, 4, 7].map(|n| bed.minute(n)).into();
    assert_eq!(found, wanted);
    for (plugin, print) in [("echo", "other"), ("other", PRINT)] {
        assert!(bed.ledger.readers.ended_ticks(plugin, "default", print, &asked).await.expect("read").is_empty());
    }
    bed.ledger.close().await;
}

/// D-28, D-29: a tick that waits for its window is the same tick, due later.
#[tokio::test]
async fn a_tick_may_become_due_later() {
    let bed = Bed::new().await;
    bed.arrange(arrangement("once", &[bed.minute(1)])).await;
    let later = Expected { instant: bed.minute(1), due: bed.minute(30) };
    bed.arrange(Arrangement { expect: vec![later], ..arrangement("once", &[]) }).await;
    let entry = bed.ledger.readers.entry("echo", "once").await.expect("read").expect("there");
    assert_eq!((entry.expected, entry.next_run_at), (vec![later], Some(bed.minute(30))));
    assert_eq!(bed.rows_of("once").await.len(), 1);
    bed.ledger.close().await;
}

/// SCH-21, D-30: what an operator paused stays paused until it is resumed, whatever is arranged.
#[tokio::test]
async fn a_pause_survives_until_it_is_resumed() {
    let bed = Bed::new().await;
    for schedule in ["a", "b", "broken"] {
        bed.arrange(arrangement(schedule, &[bed.minute(1)])).await;
    }
    let broken = Arrangement {
        status: EntryStatus::PausedInvalid,
        reason: Some("no rule".into()),
        fingerprint: None,
        expect: vec![expected(bed.minute(1))],
        ..arrangement("broken", &[])
    };
    bed.arrange(broken).await;
    assert_eq!(bed.ticks_of("broken").await, ticks([(1, "skipped", Some("replaced"))]));
    let pause = async |bed: &Bed, schedule: Option<&str>, on| {
        let changed = bed.ledger.writer.pause_schedules("echo".into(), schedule.map(Into::into), on).await;
        changed.expect("answered")
    };
    assert_eq!(pause(&bed, None, true).await, ["a", "b"]);
    assert!(pause(&bed, Some("a"), true).await.is_empty(), "it is paused already");
    assert!(bed.ledger.writer.pause_schedules("other".into(), None, true).await.expect("answered").is_empty());
    let bed = bed.reopen().await;
    for schedule in ["a", "b"] {
        bed.arrange(arrangement(schedule, &[bed.minute(2)])).await;
    }
    let status = async |bed: &Bed, schedule| {
        bed.ledger.readers.entry("echo", schedule).await.expect("read").expect("there").status
    };
    assert_eq!(status(&bed, "a").await, EntryStatus::PausedManual);
    assert_eq!(pause(&bed, Some("a"), false).await, ["a"]);
    // as it was read before it was resumed
    bed.arrange(Arrangement { status: EntryStatus::PausedManual, ..arrangement("a", &[bed.minute(2)]) }).await;
    assert_eq!((status(&bed, "a").await, status(&bed, "b").await), (EntryStatus::Active, EntryStatus::PausedManual));
    assert_eq!(status(&bed, "broken").await, EntryStatus::PausedInvalid);
    assert_eq!(pause(&bed, None, false).await, ["b"]);
    bed.ledger.close().await;
}

/// An active schedule whose tick is overdue is silent, and so is one of which nothing is expected.
#[tokio::test]
async fn silent_schedules_are_found() {
    let bed = Bed::new().await;
    let silent = async |minute| -> Vec<(String, Option<String>)> {
        let rows = bed.ledger.readers.silent(bed.minute(minute)).await.expect("read");
        rows.into_iter().map(|row| (row.schedule_id, row.due_at)).collect()
    };
    bed.arrange(arrangement("catching_up", &[bed.minute(0), bed.minute(9)])).await;
    bed.arrange(arrangement("paused", &[bed.minute(0)])).await;
    bed.ledger.writer.pause_schedules("echo".into(), Some("paused".into()), true).await.expect("paused");
    bed.arrange(Arrangement { status: EntryStatus::Exhausted, ..arrangement("done", &[]) }).await;
    bed.arrange(arrangement("overdue", &[bed.minute(2)])).await;
    assert!(silent(2).await.is_empty());
    let overdue = ("overdue".to_owned(), Some("2026-01-01T00:02:00.000Z".to_owned()));
    assert_eq!(silent(3).await, std::slice::from_ref(&overdue));
    bed.arrange(arrangement("lost", &[])).await;
    assert_eq!(silent(3).await, [("lost".to_owned(), None), overdue]);
    bed.ledger.close().await;
}

/// What many schedules cost the writer. Not judged: machines differ.
#[tokio::test]
async fn two_hundred_are_arranged_together() {
    let bed = Bed::new().await;
    let many = |from: i64| -> Vec<Arrangement> {
        let one = |n: i64| Arrangement {
            ended: vec![ended(bed.minute(from), TickStatus::Missed, TickReason::GatewayDown)],
            ..arrangement(&format!("schedule-{n}"), &[bed.minute(from + 1)])
        };
        (0..200).map(one).collect()
    };
    for from in 0..3 {
        let began = std::time::Instant::now();
        let arranged = bed.ledger.writer.arrange(many(from)).await.expect("answered");
        assert!(arranged.iter().all(Result::is_ok));
        println!("200 schedules, one missed tick each: {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    let dues = (0..200)
        .map(|n| Due { next: Some(expected(bed.minute(9))), ..queueing(&format!("schedule-{n}"), bed.minute(3)) });
    let ticked = bed.ledger.writer.tick(dues.collect(), 1).await.expect("answered");
    println!("200 ticks, each with its job and the next one: {:?}", began.elapsed());
    assert_eq!(ticked.iter().map(fired).collect::<HashSet<_>>().len(), 200);
    assert_eq!(bed.number("SELECT count(*) FROM schedule_ticks WHERE status = 'expected'").await, 200);
    assert_eq!(bed.number("SELECT count(*) FROM schedule_ticks WHERE status = 'missed'").await, 600);
    assert_eq!(bed.ledger.readers.entries().await.expect("read").len(), 200);
    bed.ledger.close().await;
}

/// One row that can't be written holds up no other schedule, and leaves nothing of its own.
#[tokio::test]
async fn an_arrangement_that_cannot_be_written_fails_alone() {
    let bed = Bed::new().await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON schedule_entries WHEN NEW.schedule_id = 'b'
        BEGIN SELECT RAISE(ABORT, 'refused'); END";
    sqlx::raw_sql(refuse).execute(&mut bed.sql().await).await.expect("made");
    let all = || ["a", "b", "c"].map(|schedule| arrangement(schedule, &[bed.minute(1)])).to_vec();
    let answers = bed.ledger.writer.arrange(all()).await.expect("answered");
    assert!(matches!(&answers[..], [Ok(()), Err(WriteError::Refused(_)), Ok(())]), "{answers:?}");
    assert_eq!(bed.ticks_of("a").await, ticks([(1, "expected", None)]));
    assert_eq!(bed.ticks_of("b").await, []);
    assert_eq!(bed.ticks_of("c").await, ticks([(1, "expected", None)]));
    let alone = bed.ledger.writer.arrange(vec![all().remove(1)]).await.expect("answered");
    assert!(matches!(&alone[..], [Err(WriteError::Refused(_))]), "{alone:?}");
    sqlx::raw_sql("DROP TRIGGER refuse").execute(&mut bed.sql().await).await.expect("dropped");
    let answers = bed.ledger.writer.arrange(all()).await.expect("answered");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(bed.ticks_of("b").await, ticks([(1, "expected", None)]));
    bed.ledger.close().await;
}

/// A clock that was ahead has missed what is to come: that fires in its time.
#[tokio::test]
async fn what_was_missed_ahead_of_its_time_is_expected_again() {
    let bed = Bed::new().await;
    let missed = |n| ended(bed.minute(n), TickStatus::Missed, TickReason::ClockJumped);
    let run = Ended { last: Some((bed.minute(90), 80)), ..missed(10) };
    bed.arrange(Arrangement { ended: vec![missed(-5), missed(5), run], ..arrangement("default", &[]) }).await;
    let asked = [5, 10, 20].map(|n| bed.minute(n));
    assert!(bed.ledger.readers.ended_ticks("echo", "default", PRINT, &asked).await.expect("read").is_empty());
    bed.arrange(arrangement("default", &[bed.minute(-5), bed.minute(5)])).await;
    let history = [(-5, "missed", Some("clock_jumped")), (5, "expected", None), (10, "missed", Some("clock_jumped"))];
    assert_eq!(bed.ticks_of("default").await, ticks(history));
    fired(&bed.tick(Due { next: Some(expected(bed.minute(10))), ..queueing("default", bed.minute(5)) }).await);
    let history = [(-5, "missed", Some("clock_jumped")), (5, "fired", None), (10, "expected", None)];
    assert_eq!(bed.ticks_of("default").await, ticks(history));
    bed.ledger.close().await;
}
