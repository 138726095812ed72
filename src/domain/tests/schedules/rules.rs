//! Grids, one-shots, jitter, windows, fingerprints.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use ductile_domain::schedule::{Cron, Rule, TickReason, TickStatus, Timing, Weekdays, Window, named, zone};
use ductile_domain::time::Timestamp;

use crate::table::{at, shown};

fn timing(rule: Rule) -> Timing {
    Timing::new(rule, Duration::ZERO, Tz::UTC, None, Weekdays::default()).expect("it fires")
}

fn bounded(window: &str, not_on: &[&str], zone: &str) -> Timing {
    let window = (!window.is_empty()).then(|| Window::parse(window).expect("a window"));
    let not_on = not_on.iter().map(|day| Weekdays::day(day).expect("a day")).collect();
    let every = Rule::Every(Duration::from_secs(60));
    Timing::new(every, Duration::ZERO, zone::parse(zone).expect("a zone"), window, not_on).expect("it fires")
}

fn instant(timing: &Timing, anchor: &str, after: &str) -> Option<Timestamp> {
    timing.next(at(anchor), at(after)).map(|tick| tick.instant)
}

/// SCH-05, D-27.
#[test]
fn an_interval_is_a_grid_from_its_anchor() {
    let anchor = "2026-01-01T00:00:07.250Z";
    for (interval, after, expected) in [
        (Duration::from_secs(300), anchor, "2026-01-01T00:05:07.250Z"),
        (Duration::from_secs(300), "2026-01-01T00:05:07.249Z", "2026-01-01T00:05:07.250Z"),
        (Duration::from_secs(300), "2026-01-01T00:05:07.250Z", "2026-01-01T00:10:07.250Z"),
        (Duration::from_millis(1), "2026-06-01T12:00:00Z", "2026-06-01T12:00:00.001Z"),
        (named("hourly").expect("named"), anchor, "2026-01-01T01:00:07.250Z"),
        (named("daily").expect("named"), anchor, "2026-01-02T00:00:07.250Z"),
        (named("weekly").expect("named"), anchor, "2026-01-08T00:00:07.250Z"),
        (named("monthly").expect("named"), anchor, "2026-01-31T00:00:07.250Z"),
        // Not before its first, though the clock went back.
        (Duration::from_secs(300), "2025-12-31T00:00:00Z", "2026-01-01T00:05:07.250Z"),
    ] {
        assert_eq!(instant(&timing(Rule::Every(interval)), anchor, after), Some(at(expected)), "{interval:?} {after}");
    }
    assert_eq!(named("yearly"), None);
    // Two milliseconds over eight thousand years: no walk along the grid.
    let fast = timing(Rule::Every(Duration::from_millis(2)));
    assert_eq!(instant(&fast, "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"), Some(at("9999-01-01T00:00:00.002Z")));
    assert_eq!(fast.cadence(at(anchor)), Some(Duration::from_millis(2)));
}

/// SCH-08: once, then never again.
#[test]
fn at_is_one_instant() {
    let once = timing(Rule::At(at("2026-03-15T15:00:00.0009+01:00")));
    let instant = |after| instant(&once, "1970-01-01T00:00:00Z", after);
    assert_eq!(instant("2026-03-15T13:59:59.999Z"), Some(at("2026-03-15T14:00:00Z")));
    assert_eq!((instant("2026-03-15T14:00:00Z"), instant("2027-01-01T00:00:00Z")), (None, None));
    assert_eq!(once.cadence(at("2026-01-01T00:00:00Z")), None);
}

/// SCH-09: so long after the start of the gateway.
#[test]
fn after_counts_from_the_start() {
    let timing = timing(Rule::After(Duration::from_secs(30)));
    let start = "2026-03-15T14:00:00Z";
    assert_eq!(instant(&timing, start, start), Some(at("2026-03-15T14:00:30Z")));
    assert_eq!(instant(&timing, start, "2026-03-15T14:00:30Z"), None);
    assert_eq!(instant(&timing, "2026-03-15T15:00:00Z", start), Some(at("2026-03-15T15:00:30Z")));
}

/// SCH-10, C-20: within half of the jitter on both sides, the same whenever asked, spread.
#[test]
fn jitter_moves_the_due_time_and_not_the_instant() {
    let (interval, jitter) = (Duration::from_secs(60), Duration::from_secs(10));
    let timing = Timing::new(Rule::Every(interval), jitter, Tz::UTC, None, Weekdays::default()).expect("it fires");
    let anchor = at("2026-01-01T00:00:00Z");
    let ticks: Vec<_> = timing.upcoming(anchor, anchor, 1_000).into_iter().map(|tick| tick.expected).collect();
    assert_eq!(ticks, timing.upcoming(anchor, anchor, 1_000).iter().map(|t| t.expected).collect::<Vec<_>>());
    let offsets: Vec<i64> = ticks.iter().map(|tick| (tick.due - tick.instant).num_milliseconds()).collect();
    assert!(offsets.iter().all(|ms| (-5_000..=5_000).contains(ms)), "{offsets:?}");
    assert!(ticks.iter().zip(1..).all(|(tick, k)| tick.instant == anchor + TimeDelta::minutes(k)));
    let (low, high) =
        (offsets.iter().filter(|ms| **ms < -4_000).count(), offsets.iter().filter(|ms| **ms > 4_000).count());
    // A tenth each, of a thousand draws: five deviations are 47.
    assert!((53..=147).contains(&low) && (53..=147).contains(&high), "{low} {high}");
    assert!(offsets.iter().collect::<BTreeSet<_>>().len() > 900);
    let other = timing.clone().drawn_for("mail", "hourly").upcoming(anchor, anchor, 1_000);
    let together = ticks.iter().zip(&other).filter(|(tick, other)| tick.due == other.expected.due).count();
    assert!(together < 10, "schedules with one timing are due together {together} times of a thousand");
    assert_eq!(timing.clone().drawn_for("mail", "hourly").fingerprint, timing.fingerprint);
    let widest = Timing::new(Rule::Every(interval), interval, Tz::UTC, None, Weekdays::default()).expect("it fires");
    let dues: Vec<_> = widest.upcoming(anchor, anchor, 1_000).into_iter().map(|tick| tick.expected.due).collect();
    assert!(dues.is_sorted() && dues[0] > anchor);
}

#[test]
fn what_never_fires_or_overlaps_itself_is_refused() {
    let refused = |rule, jitter, not_on| Timing::new(rule, jitter, Tz::UTC, None, not_on).expect_err("refused");
    let minute = Duration::from_secs(60);
    let none = Weekdays::default();
    assert!(refused(Rule::Every(Duration::ZERO), Duration::ZERO, none).contains("`every`"));
    assert!(refused(Rule::Every(minute), minute * 2, none).contains("`jitter`"));
    assert!(refused(Rule::Every(minute), Duration::ZERO, Weekdays::ALL).contains("`not_on`"));
    // Jitter of others is dropped.
    let cron = Rule::Cron(Cron::parse("@daily").expect("valid"));
    let timing = Timing::new(cron, minute, Tz::UTC, None, none).expect("it fires");
    assert_eq!(timing.jitter, Duration::ZERO);
}

/// SCH-11, SCH-12, SCH-07: judged in the zone of the schedule.
#[test]
fn windows_and_days_are_judged_in_local_time() {
    let (outside, not_on) = (Some(TickReason::OutsideWindow), Some(TickReason::NotOn));
    for (window, days, zone, time, expected) in [
        ("08:00-18:00", &[][..], "UTC", "2026-04-15T08:00:00Z", None),
        ("08:00-18:00", &[], "UTC", "2026-04-15T07:59:59.999Z", outside),
        ("08:00-18:00", &[], "UTC", "2026-04-15T18:00:00Z", outside),
        ("08:00-18:00", &[], "UTC", "2026-04-15T17:59:59.999Z", None),
        ("22:00-06:00", &[], "UTC", "2026-04-15T23:00:00Z", None),
        ("22:00-06:00", &[], "UTC", "2026-04-15T05:59:00Z", None),
        ("22:00-06:00", &[], "UTC", "2026-04-15T06:00:00Z", outside),
        ("08:00-18:00", &[], "Australia/Sydney", "2026-04-15T22:30:00Z", None),
        ("08:00-18:00", &[], "Australia/Sydney", "2026-04-15T09:00:00Z", outside),
        ("00:00-24:00", &[], "UTC", "2026-04-15T00:00:00Z", None),
        ("", &["saturday", "0"], "UTC", "2026-04-17T23:59:59Z", None),
        ("", &["saturday", "0"], "UTC", "2026-04-18T00:00:00Z", not_on),
        ("", &["saturday", "7"], "UTC", "2026-04-19T23:59:59Z", not_on),
        ("", &["sat"], "Australia/Sydney", "2026-04-17T14:00:00Z", not_on),
        // The day is that of the moment, also past midnight.
        ("22:00-06:00", &["sat"], "UTC", "2026-04-18T01:00:00Z", not_on),
        ("22:00-06:00", &["sat"], "UTC", "2026-04-19T01:00:00Z", None),
    ] {
        assert_eq!(bounded(window, days, zone).closed(at(time)), expected, "{window} {days:?} {zone} {time}");
    }
}

/// D-28: one-shots wait until then.
#[test]
fn a_closed_schedule_opens_at_the_first_instant_inside() {
    let ny = "America/New_York";
    for (window, days, zone, from, expected) in [
        ("", &[][..], "UTC", "2026-04-15T12:00:00Z", "Wed 2026-04-15 12:00+00:00"),
        ("08:00-18:00", &[], "UTC", "2026-04-15T12:00:00Z", "Wed 2026-04-15 12:00+00:00"),
        ("08:00-18:00", &[], "UTC", "2026-04-15T19:00:00Z", "Thu 2026-04-16 08:00+00:00"),
        ("08:00-18:00", &["sat", "sun"], "UTC", "2026-04-17T19:00:00Z", "Mon 2026-04-20 08:00+00:00"),
        ("22:00-06:00", &["sat"], "UTC", "2026-04-17T07:00:00Z", "Fri 2026-04-17 22:00+00:00"),
        ("22:00-06:00", &["sat"], "UTC", "2026-04-18T00:00:00Z", "Sun 2026-04-19 00:00+00:00"),
        (
            "08:00-18:00",
            &["mon", "tue", "wed", "thu", "fri", "sat"],
            "UTC",
            "2026-04-19T18:00:00Z",
            "Sun 2026-04-26 08:00+00:00",
        ),
        // Over the gap: it opens at its end, or on the next day.
        ("02:30-04:00", &[], ny, "2026-03-08T01:00:00-05:00", "Sun 2026-03-08 03:00-04:00"),
        ("02:10-02:50", &[], ny, "2026-03-08T01:00:00-05:00", "Mon 2026-03-09 02:10-04:00"),
        // The hour that is repeated opens a second time, in the middle of the window too.
        ("01:10-01:20", &[], ny, "2026-11-01T01:30:00-04:00", "Sun 2026-11-01 01:10-05:00"),
        ("00:30-01:20", &[], ny, "2026-11-01T01:30:00-04:00", "Sun 2026-11-01 01:00-05:00"),
        // A day that did not exist.
        ("", &["thu"], "Pacific/Apia", "2011-12-29T12:00:00-10:00", "Sat 2011-12-31 00:00+14:00"),
        ("08:00-09:00", &["sat"], "Pacific/Apia", "2011-12-29T12:00:00-10:00", "Sun 2012-01-01 08:00+14:00"),
    ] {
        let timing = bounded(window, days, zone);
        let opens = timing.opens(at(from)).expect("it opens");
        assert_eq!(shown(&timing, opens), expected, "{window} {days:?} {zone} {from}");
    }
}

#[test]
fn a_fingerprint_tells_timings_apart_and_nothing_else() {
    let every = || Rule::Every(Duration::from_secs(60));
    let cron = |text| Rule::Cron(Cron::parse(text).expect("valid"));
    let (minute, none) = (Duration::from_secs(60), Weekdays::default());
    let window = Some(Window::parse("08:00-18:00").expect("a window"));
    let sunday = [chrono::Weekday::Sun].into_iter().collect();
    let (utc, berlin) = (Tz::UTC, Tz::Europe__Berlin);
    let print = |rule, jitter, zone, window, not_on| {
        Timing::new(rule, jitter, zone, window, not_on).expect("it fires").fingerprint.to_string()
    };
    let all = [
        print(every(), Duration::ZERO, utc, None, none),
        print(every(), Duration::from_secs(1), utc, None, none),
        print(Rule::Every(minute * 2), Duration::ZERO, utc, None, none),
        print(Rule::After(minute), Duration::ZERO, utc, None, none),
        print(Rule::At(at("1970-01-01T00:01:00Z")), Duration::ZERO, utc, None, none),
        print(every(), Duration::ZERO, utc, window, none),
        print(every(), Duration::ZERO, berlin, window, none),
        print(every(), Duration::ZERO, utc, None, sunday),
        print(every(), Duration::ZERO, utc, window, sunday),
        print(cron("0 0 * * *"), Duration::ZERO, utc, None, none),
        print(cron("0 0 * * *"), Duration::ZERO, berlin, None, none),
        print(cron("0 0 * * 1-6"), Duration::ZERO, utc, None, none),
        print(cron("0 * * * *"), Duration::ZERO, utc, None, none),
        print(cron("0 0-23 * * *"), Duration::ZERO, utc, None, none),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert!(
        all.iter()
            .all(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()))
    );
    // The zone of the machine says nothing of a grid, nor does spelling, nor jitter that is dropped.
    assert_eq!(all[0], print(every(), Duration::ZERO, berlin, None, none));
    assert_eq!(all[9], print(cron("@daily"), minute, utc, None, none));
    // Rows of older versions are found by it.
    assert_eq!(all[0], "2f6b31ffe49dcac6");
    assert_eq!(all[9], "520898c5d286d8ee");
}

#[test]
fn stored_words_are_read_back() {
    assert!(TickStatus::ALL.into_iter().all(|status| TickStatus::parse(status.as_str()) == Some(status)));
    assert!(TickReason::ALL.into_iter().all(|reason| TickReason::parse(reason.as_str()) == Some(reason)));
    assert_eq!((TickStatus::parse("Fired"), TickReason::parse("")), (None, None));
}
