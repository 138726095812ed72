//! What becomes of a schedule's rows when it is looked at anew: every instant is accounted for, once.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use ductile_domain::ids::BootId;
use ductile_domain::schedule::{
    CatchUp, Cron, EntryStatus, Expected, IfRunning, Known, Moment, Passed, Resumed, Rule, Schedule, TickReason,
    TickStatus, Timing, Weekdays, Window, floor_candidates, own_rows, resume,
};
use ductile_domain::time::{self, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

const NOON: &str = "2026-03-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time")
}

fn boot(n: u128) -> BootId {
    BootId::from(Uuid::from_u128(n))
}

fn schedule(rule: Rule, catch_up: CatchUp) -> Schedule {
    bounded(rule, catch_up, Duration::ZERO, None)
}

fn bounded(rule: Rule, catch_up: CatchUp, jitter: Duration, window: Option<Window>) -> Schedule {
    Schedule {
        plugin: "p".into(),
        index: 0,
        id: "s".into(),
        command: "poll".into(),
        payload: None,
        timing: Timing::new(rule, jitter, Tz::UTC, window, Weekdays::default()),
        catch_up,
        if_running: IfRunning::Skip,
    }
}

fn every(seconds: u64) -> Rule {
    Rule::Every(Duration::from_secs(seconds))
}

fn cron(text: &str) -> Rule {
    Rule::Cron(Cron::parse(text).expect("an expression"))
}

/// A look while the gateway runs.
fn running(now: Timestamp) -> Moment {
    Moment {
        now,
        started: at("2000-01-01T00:00:00Z"),
        boot: boot(1),
        is_start: false,
        jump: None,
        floor: now,
        own_rows: 1_000,
    }
}

/// The first look of a start.
fn starting(now: Timestamp) -> Moment {
    Moment { started: now, is_start: true, ..running(now) }
}

/// The rows of a schedule, as the ledger keeps them.
#[derive(Debug, Clone)]
struct Rows {
    status: EntryStatus,
    fingerprint: Option<Arc<str>>,
    anchor: Option<Timestamp>,
    armed_by: Option<BootId>,
    expected: Vec<Expected>,
    ended: Vec<Passed>,
}

impl Rows {
    fn of(schedule: &Schedule, resumed: Resumed) -> Self {
        Self {
            status: resumed.status,
            fingerprint: schedule.timing.as_ref().ok().map(|timing| timing.fingerprint.clone()),
            anchor: resumed.anchor,
            armed_by: resumed.armed_by,
            expected: resumed.expect,
            ended: resumed.ended,
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            status: self.status,
            reason: None,
            fingerprint: self.fingerprint.as_deref(),
            anchor: self.anchor,
            armed_by: self.armed_by,
            last_instant: self.ended.iter().map(|passed| passed.last.map_or(passed.instant, |(last, _)| last)).max(),
            expected: &self.expected,
        }
    }

    /// Looks anew, and keeps what had ended.
    fn look(&mut self, schedule: &Schedule, at: &Moment) {
        let resumed = resume(schedule, Some(self.known()), at);
        let (status, reason) = resumed.others_end;
        let is_named = |instant| {
            resumed.expect.iter().any(|e| e.instant == instant) || resumed.ended.iter().any(|e| e.instant == instant)
        };
        let others = self.expected.iter().filter(|e| !is_named(e.instant));
        let others: Vec<_> =
            others.map(|e| Passed { instant: e.instant, due: e.due, last: None, status, reason }).collect();
        let ended = std::mem::take(&mut self.ended);
        *self = Self::of(schedule, resumed);
        self.ended.extend(ended.into_iter().chain(others));
    }

    fn missed(&self) -> Vec<(String, TickReason)> {
        self.ended.iter().map(|passed| (clock(passed.instant), passed.reason)).collect()
    }
}

fn clock(at: Timestamp) -> String {
    at.format("%H:%M:%S").to_string()
}

fn instants(expected: &[Expected]) -> Vec<String> {
    expected.iter().map(|expected| clock(expected.instant)).collect()
}

/// SCH-14: of an expression the newest tick may still fire, when nobody would call it late.
#[test]
fn a_start_misses_what_passed_but_for_what_is_only_just_due() {
    let hourly = schedule(cron("0 * * * *"), CatchUp::Skip);
    let first = Rows::of(&hourly, resume(&hourly, None, &starting(at(NOON))));
    assert_eq!(instants(&first.expected), ["13:00:00"]);
    for (now, expected, missed) in [
        ("2026-03-01T15:00:59Z", vec!["15:00:00"], vec!["13:00:00", "14:00:00"]),
        ("2026-03-01T15:01:00Z", vec!["16:00:00"], vec!["13:00:00", "14:00:00", "15:00:00"]),
    ] {
        let mut rows = first.clone();
        rows.look(&hourly, &starting(at(now)));
        assert_eq!(instants(&rows.expected), expected, "{now}");
        let missed: Vec<_> = missed.into_iter().map(|at| (at.to_owned(), TickReason::GatewayDown)).collect();
        assert_eq!(rows.missed(), missed, "{now}");
    }
    // an interval is counted from its last tick, so one that passed is not fired beside it
    let interval = schedule(every(3_600), CatchUp::Skip);
    let mut rows = Rows::of(&interval, resume(&interval, None, &starting(at(NOON))));
    rows.look(&interval, &starting(at("2026-03-01T13:00:01Z")));
    assert_eq!((instants(&rows.expected), rows.ended.len()), (vec!["14:00:00".to_owned()], 1));
}

/// Of what passed only the newest that would have fired is made good for, and what waits since an earlier start counts.
#[test]
fn catching_up_is_bounded_over_starts_and_stays_in_its_window() {
    let [from, to] = ["08:00:00", "18:00:00"].map(|text| text.parse().expect("a time of day"));
    let window = Some(Window { from, to });
    let once = bounded(every(3_600), CatchUp::RunOnce, Duration::ZERO, window);
    let mut rows = Rows::of(&once, resume(&once, None, &starting(at(NOON))));
    rows.look(&once, &starting(at("2026-03-02T03:30:00Z")));
    assert_eq!(instants(&rows.expected), ["17:00:00", "04:00:00"]);
    rows.look(&once, &starting(at("2026-03-02T09:30:00Z")));
    assert_eq!(instants(&rows.expected), ["09:00:00", "10:00:00"], "one for all, the newest");
    assert!(rows.ended.iter().any(|passed| clock(passed.instant) == "17:00:00"));
    let all = schedule(every(60), CatchUp::RunAll);
    let mut rows = Rows::of(&all, resume(&all, None, &starting(at(NOON))));
    for hours in 1..5 {
        rows.look(&all, &starting(at(NOON) + TimeDelta::hours(hours)));
        assert!(rows.expected.len() <= 101, "{}", rows.expected.len());
    }
    assert_eq!(rows.expected.len() + rows.ended.len(), 240);
}

/// A machine that slept for years: the rows stay few and the look is quick, whatever the rule.
#[test]
fn years_that_passed_share_a_row() {
    let now = at(NOON) + TimeDelta::days(3_650);
    for rule in [every(1), cron("* * * * *")] {
        let expected = if matches!(rule, Rule::Every(_)) { 3_650 * 86_400 - 1 } else { 3_650 * 1_440 - 1 };
        let schedule = schedule(rule, CatchUp::Skip);
        let mut rows = Rows::of(&schedule, resume(&schedule, None, &starting(at(NOON))));
        let jump = Some((at(NOON), now));
        rows.look(&schedule, &Moment { jump, ..running(now) });
        assert_eq!(rows.ended.len(), 1_001);
        assert!(rows.ended.iter().all(|passed| passed.reason == TickReason::ClockJumped));
        let counted: i64 = rows.ended.iter().map(|passed| passed.last.map_or(1, |(_, n)| i64::from(n))).sum();
        assert!((counted - expected).abs() <= 2, "{counted} of {expected}");
        assert_eq!(rows.expected.len(), 2, "the late one and the next");
    }
}

/// Ten thousand schedules after a year: twenty rows each, and what is to be made good for all the same.
#[test]
fn of_many_schedules_fewer_rows_are_written() {
    assert_eq!([0, 1, 20, 100, 1_000, 10_000].map(own_rows), [1_000, 1_000, 1_000, 200, 20, 20]);
    let (noon, later) = (at(NOON), at(NOON) + TimeDelta::days(365));
    let minutes = 365 * 1_440;
    for (rule, catch_up, caught_up) in
        [(cron("* * * * *"), CatchUp::Skip, 0), (every(60), CatchUp::Skip, 0), (every(60), CatchUp::RunAll, 100)]
    {
        let schedule = schedule(rule, catch_up);
        let mut rows = Rows::of(&schedule, resume(&schedule, None, &starting(noon)));
        rows.look(&schedule, &Moment { own_rows: 20, ..starting(later) });
        assert_eq!((rows.ended.len(), rows.expected.len()), (21, caught_up + 1));
        let counted: i64 = rows.ended.iter().map(|passed| passed.last.map_or(1, |(_, n)| i64::from(n))).sum();
        let all = minutes - i64::try_from(caught_up).expect("small");
        assert!((counted - all).abs() <= 2, "{counted} of {all}");
        let newest_missed = rows.ended.last().expect("one").instant;
        let first_expected = rows.expected.first().expect("one").instant;
        assert_eq!(first_expected - newest_missed, TimeDelta::minutes(1));
    }
}

/// A shared row spans nothing that is caught up, though its window let few of the newest be.
#[test]
fn no_shared_row_spans_what_is_caught_up() {
    let window = Window::parse("10:00-10:10").expect("a window");
    let schedule = bounded(every(300), CatchUp::RunAll, Duration::ZERO, Some(window));
    let mut rows = Rows::of(&schedule, resume(&schedule, None, &starting(at(NOON))));
    rows.look(&schedule, &Moment { own_rows: 20, ..starting(at(NOON) + TimeDelta::days(30)) });
    let (first, _) = rows.expected.split_first().expect("some are caught up");
    for passed in &rows.ended {
        let Some((last, _)) = passed.last else { continue };
        assert!(last < first.instant, "{passed:?} {first:?}");
    }
    assert!(rows.expected.len() > 5 && rows.ended.len() > 100, "{} {}", rows.expected.len(), rows.ended.len());
}

/// D-29: a delay is armed by starts only, and a clock that was set back does not hold it up.
#[test]
fn a_delay_is_armed_by_each_start_and_by_nothing_else() {
    let delay = schedule(Rule::After(Duration::from_secs(30)), CatchUp::Skip);
    let mut rows = Rows::of(&delay, resume(&delay, None, &starting(at(NOON))));
    assert_eq!(instants(&rows.expected), ["12:00:30"]);
    rows.look(&delay, &Moment { started: at(NOON), ..running(at(NOON) - TimeDelta::days(365)) });
    assert_eq!(instants(&rows.expected), ["12:00:30"]);
    assert_eq!(rows.expected[0].instant, at(NOON) - TimeDelta::days(365) + TimeDelta::seconds(30));
    let late = Moment { boot: boot(2), ..starting(at("2026-03-01T15:00:00Z")) };
    rows.look(&delay, &late);
    assert_eq!(instants(&rows.expected), ["15:00:30"]);
    let new = resume(&delay, None, &running(at(NOON)));
    assert_eq!((new.status, new.expect.len()), (EntryStatus::Exhausted, 0));
}

#[test]
fn a_time_that_was_past_when_it_was_first_seen_never_fires() {
    let past = schedule(Rule::At(at(NOON)), CatchUp::Skip);
    let seen = resume(&past, None, &starting(at(NOON)));
    assert_eq!((seen.status, seen.is_surprising, seen.expect.len()), (EntryStatus::Exhausted, true, 0));
    let mut rows = Rows::of(&past, resume(&past, None, &starting(at("2026-03-01T11:00:00Z"))));
    rows.look(&past, &starting(at("2026-03-01T13:00:00Z")));
    assert_eq!((instants(&rows.expected), rows.status), (vec!["12:00:00".to_owned()], EntryStatus::Active));
}

/// Of a clock that shows a time once more.
#[test]
fn what_has_ended_is_not_sought_again() {
    let hourly = schedule(cron("0 * * * *"), CatchUp::Skip);
    let timing = hourly.timing.as_ref().expect("an expression");
    let expected = [timing.expected(at("2026-03-01T16:00:00Z"))];
    let known = Known {
        status: EntryStatus::Active,
        reason: None,
        fingerprint: Some(&timing.fingerprint),
        anchor: None,
        armed_by: None,
        last_instant: Some(at("2026-03-01T15:00:00Z")),
        expected: &expected,
    };
    let asked = floor_candidates(timing, &known, at("2026-03-01T12:30:00Z"), 10);
    assert_eq!(asked.iter().map(|at| clock(*at)).collect::<Vec<_>>(), ["13:00:00", "14:00:00", "15:00:00"]);
    let now = at("2026-03-01T12:30:00Z");
    let all_ended = resume(&hourly, Some(known), &Moment { floor: at("2026-03-01T15:00:00Z"), ..running(now) });
    assert_eq!(instants(&all_ended.expect), ["16:00:00"]);
    let one_free = resume(&hourly, Some(known), &Moment { floor: at("2026-03-01T13:59:59Z"), ..running(now) });
    assert_eq!(instants(&one_free.expect), ["14:00:00"]);
    assert_eq!(one_free.others_end, (TickStatus::Skipped, TickReason::ClockWentBack));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let expressions = ["*/5 * * * *", "0 * * * *", "17 3 * * *", "0 0 1 * *", "* 9-17 * * 1-5", "30 1,13 * * *"];
    prop_oneof![(1_u64..200_000).prop_map(every), proptest::sample::select(expressions.to_vec()).prop_map(cron)]
}

fn any_policy() -> impl Strategy<Value = CatchUp> {
    prop_oneof![Just(CatchUp::Skip), Just(CatchUp::RunOnce), Just(CatchUp::RunAll)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Stops, starts, sleeps and jumps forward: afterwards each instant up to now has ended or is expected, exactly once, and
    /// one tick ahead is expected. Looking twice changes nothing.
    #[test]
    fn every_instant_is_accounted_for_once(
        rule in any_rule(), catch_up in any_policy(), jitter in 0_u64..2_000, own_rows in 20_usize..1_000,
        looks in prop::collection::vec((any::<bool>(), 1_u64..1_000_000), 1..6),
    ) {
        let jitter = match rule { Rule::Every(interval) => Duration::from_secs(jitter).min(interval), _ => Duration::ZERO };
        let schedule = bounded(rule, catch_up, jitter, None);
        let timing = schedule.timing.as_ref().expect("a timing");
        let begin = at(NOON);
        let mut rows = Rows::of(&schedule, resume(&schedule, None, &starting(begin)));
        let mut now = begin;
        for (is_start, seconds) in looks {
            now += TimeDelta::seconds(i64::try_from(seconds).expect("small"));
            let moment = if is_start { starting(now) } else { running(now) };
            // of an expression many would be an estimate
            let own_rows = if matches!(timing.rule, Rule::Every(_)) { own_rows } else { 1_000 };
            let moment = Moment { own_rows, ..moment };
            rows.look(&schedule, &moment);
            let again = resume(&schedule, Some(rows.known()), &moment);
            prop_assert_eq!(&again.expect, &rows.expected);
            prop_assert!(again.ended.is_empty());
        }
        let mut spans: Vec<(Timestamp, Timestamp, u64)> = rows.ended.iter()
            .map(|p| p.last.map_or((p.instant, p.instant, 1), |(last, n)| (p.instant, last, u64::from(n))))
            .chain(rows.expected.iter().map(|e| (e.instant, e.instant, 1)))
            .collect();
        spans.sort();
        // every instant from the first on, without a hole and without one twice
        let anchor = rows.anchor.unwrap_or(begin);
        let mut after = begin;
        for (first, last, n) in &spans {
            prop_assert_eq!(timing.next(anchor, after).map(|e| e.instant), Some(*first));
            let mut steps = 1;
            let mut at = *first;
            while at < *last && steps <= *n {
                at = timing.next(anchor, at).expect("there is a last").instant;
                steps += 1;
            }
            prop_assert_eq!((at, steps), (*last, *n));
            after = *last;
        }
        let forward = rows.expected.last().expect("one is expected");
        let following = timing.next(anchor, forward.instant).expect("another");
        prop_assert!(forward.due > now || following.due > now - TimeDelta::seconds(60), "{forward:?} at {now}");
    }
}
