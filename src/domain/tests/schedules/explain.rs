//! What people are told of ticks to come.

use std::time::Duration;

use chrono_tz::Tz;
use ductile_domain::schedule::{Rule, TickReason, Timing, Weekdays, Window};

use crate::table::{at, cron, shown};

/// `HH:MM: note` of the next ticks.
fn notes(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let timing = cron(text, zone);
    let ticks = timing.upcoming(at(after), at(after), count);
    let line = |tick: &ductile_domain::schedule::Upcoming| {
        let time = shown(&timing, tick.expected.instant);
        format!("{}: {}", &time[15..20], tick.note.as_deref().unwrap_or("-"))
    };
    ticks.iter().map(line).collect()
}

#[test]
fn a_time_change_is_explained_where_it_tells() {
    let ny = "America/New_York";
    let (spring, autumn) = ("2026-03-07T12:00:00-05:00", "2026-10-31T12:00:00-04:00");
    assert_eq!(
        notes("30 2 * * *", ny, spring, 2),
        ["03:00: 02:30 does not exist on that day: fires at 03:00, the first instant after the gap", "02:30: -"]
    );
    assert_eq!(
        notes("*/20 2,3 * * *", ny, spring, 2),
        ["03:00: 02:00 to 02:40 do not exist on that day: fires at 03:00, the first instant after the gap", "03:20: -"]
    );
    // Three o'clock is one of its own times.
    assert_eq!(notes("0 3 * * *", ny, spring, 1), ["03:00: -"]);
    assert_eq!(
        notes("30 1 * * *", ny, autumn, 2),
        ["01:30: 01:30 occurs twice on that day: fires at the first", "01:30: -"]
    );
    assert_eq!(
        notes("30 * * * *", ny, "2026-11-01T00:00:00-04:00", 4),
        [
            "00:30: -",
            "01:30: 01:30 occurs twice on that day: this is the first",
            "01:30: 01:30 occurs twice on that day: this is the second",
            "02:30: -"
        ]
    );
    assert_eq!(
        notes("30 */2 * * *", ny, "2026-03-08T00:00:00-05:00", 3),
        [
            "00:30: -",
            "04:30: 02:30 does not exist on that day and is left out: the expression follows elapsed time",
            "06:30: -"
        ]
    );
    assert_eq!(
        notes("0 9 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", 2),
        [
            "00:00: 2011-12-30 09:00 does not exist on that day: fires at 00:00, the first instant after the gap",
            "09:00: -"
        ]
    );
    assert_eq!(notes("0 0 1 1 *", "UTC", spring, 2), ["00:00: -", "00:00: -"]);
}

#[test]
fn ticks_that_will_be_skipped_say_why() {
    let window = Some(Window::parse("08:00-18:00").expect("a window"));
    let sunday = [chrono::Weekday::Sun].into_iter().collect();
    let timing = Timing::new(Rule::Every(Duration::from_secs(6 * 3_600)), Duration::ZERO, Tz::UTC, window, sunday);
    let timing = timing.expect("it fires");
    let anchor = at("2026-04-18T00:00:00Z");
    let seen: Vec<_> = timing.upcoming(anchor, anchor, 6).into_iter().map(|tick| tick.closed).collect();
    let (outside, not_on) = (Some(TickReason::OutsideWindow), Some(TickReason::NotOn));
    assert_eq!(seen, [outside, None, outside, not_on, not_on, not_on]);
}

#[test]
fn what_fires_once_has_one_tick_to_come() {
    let moment = at("2026-04-18T00:00:00Z");
    let timing = Timing::new(Rule::At(moment), Duration::ZERO, Tz::UTC, None, Weekdays::default()).expect("it fires");
    let before = at("2026-04-17T00:00:00Z");
    assert_eq!(timing.upcoming(before, before, 10).iter().map(|t| t.expected.instant).collect::<Vec<_>>(), [moment]);
    assert!(timing.upcoming(moment, moment, 10).is_empty());
}

/// However far the opening is: from one to the next, not from tick to tick.
#[test]
fn the_next_tick_that_fires_is_found_behind_all_that_do_not() {
    let friday = at("2026-04-17T18:00:00Z");
    let open_on = |rule, jitter, window: &str, not_on: &[chrono::Weekday]| {
        let window = Some(Window::parse(window).expect("a window"));
        let not_on: Weekdays = not_on.iter().copied().collect();
        Timing::new(rule, jitter, Tz::UTC, window, not_on).expect("it fires")
    };
    let weekend = [chrono::Weekday::Sat, chrono::Weekday::Sun];
    let second = Duration::from_secs(1);
    let every = open_on(Rule::Every(second), Duration::ZERO, "09:00-09:05", &weekend);
    assert_eq!(every.next_open(friday, friday).map(|t| t.due), Some(at("2026-04-20T09:00:00Z")));
    let cron = open_on(cron("7 9 * * *", "UTC").rule, Duration::ZERO, "09:00-10:00", &weekend);
    assert_eq!(cron.next_open(friday, friday).map(|t| t.due), Some(at("2026-04-20T09:07:00Z")));
    // one by one it is the same, where jitter brings ticks into the opening and out of it
    let jittery = open_on(Rule::Every(second * 600), second * 600, "09:00-09:10", &weekend);
    let mut after = friday;
    for _ in 0..20 {
        let found = jittery.next_open(friday, after).expect("there is one");
        let mut ticks = std::iter::successors(jittery.next(friday, after), |t| jittery.next(friday, t.instant));
        assert_eq!(ticks.find(|tick| jittery.closed(tick.due).is_none()), Some(found));
        after = found.instant;
    }
    let never = open_on(Rule::Every(second * 86_400), Duration::ZERO, "09:00-10:00", &[]);
    assert_eq!(never.next_open(friday, friday), None, "it is due at six in the evening for ever");
}
