//! Whatever is asked has an answer: no overflow, no endless search.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use chrono_tz::{TZ_VARIANTS, Tz};
use ductile_domain::schedule::{Cron, Rule, Timing, Weekdays, Window};
use ductile_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::table::{at, cron, shown};

fn anytime() -> impl Strategy<Value = Timestamp> {
    let (first, last) = (Timestamp::MIN_UTC.timestamp_millis(), Timestamp::MAX_UTC.timestamp_millis());
    let year = |year: i64| (year - 1970) * 31_556_952_000;
    prop_oneof![
        Just(Timestamp::MIN_UTC),
        Just(Timestamp::MAX_UTC),
        (first..=last).prop_map(|ms| DateTime::from_timestamp_millis(ms).expect("in range")),
        (year(-2)..year(3)).prop_map(|ms| DateTime::from_timestamp_millis(ms).expect("in range")),
        (year(9_990)..year(10_010)).prop_map(|ms| DateTime::from_timestamp_millis(ms).expect("in range")),
        (year(1800)..year(2200)).prop_map(|ms| DateTime::from_timestamp_millis(ms).expect("in range")),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::MAX),
        any::<u64>().prop_map(Duration::from_secs),
        any::<u64>().prop_map(Duration::from_nanos),
        (1u64..100_000_000).prop_map(Duration::from_millis),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let texts = [
        "* * * * *",
        "0 0 29 2 */7",
        "30 */23 29 2 */7",
        "59 23 31 12 *",
        "0 0 1 1 *",
        "17 2,3 * * 0",
        "*/7 */5 * * *",
    ];
    prop_oneof![
        duration().prop_map(Rule::Every),
        duration().prop_map(Rule::After),
        anytime().prop_map(Rule::At),
        select(texts.to_vec()).prop_map(|text| Rule::Cron(Cron::parse(text).expect("valid"))),
    ]
}

fn bounds() -> impl Strategy<Value = (Option<Window>, Weekdays)> {
    let texts = ["", "08:00-18:00", "22:00-06:00", "02:10-02:11"];
    (select(texts.to_vec()), prop::collection::vec(0..7u32, 0..5)).prop_map(|(window, days)| {
        (Window::parse(window).ok(), days.iter().filter_map(|day| Weekdays::day(&day.to_string())).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_question_has_an_answer(
        rule in rule(), jitter in duration(), zone in select(&TZ_VARIANTS[..]), (window, not_on) in bounds(),
        anchor in anytime(), after in anytime(),
    ) {
        let Ok(timing) = Timing::new(rule, jitter, zone, window, not_on) else { return Ok(()) };
        for moment in [anchor, after] {
            if let Some(opens) = timing.opens(moment) {
                prop_assert!(opens >= moment);
                prop_assert_eq!(timing.closed(opens), None);
            }
            let _ = (timing.cadence(moment), timing.note(moment), timing.expected(moment));
        }
        let ticks = timing.upcoming(anchor, after, 3);
        let instants: Vec<_> = ticks.iter().map(|tick| tick.expected.instant).collect();
        prop_assert!(instants.first().is_none_or(|first| *first > after) && instants.is_sorted_by(|a, b| a < b));
        for tick in &ticks {
            let offset = (tick.expected.due - tick.expected.instant).abs();
            prop_assert!(offset.to_std().expect("positive") <= timing.jitter / 2);
        }
    }

    /// SCH-05: on the grid, and the first of it that is later.
    #[test]
    fn the_next_point_of_a_grid_is_the_first_after(
        anchor in -1_000_000_000_000i64..10_000_000_000_000, passed in 0i64..10_000_000_000_000, interval in 1i64..10_000_000_000,
    ) {
        let time = |ms| DateTime::from_timestamp_millis(ms).expect("in range");
        let every = Rule::Every(Duration::from_millis(interval.unsigned_abs()));
        let timing = Timing::new(every, Duration::ZERO, Tz::UTC, None, Weekdays::default()).expect("it fires");
        let (anchor, after) = (time(anchor), time(anchor + passed));
        let instant = timing.next(anchor, after).expect("there is one").instant;
        let width = TimeDelta::milliseconds(interval);
        prop_assert_eq!((instant - anchor).num_milliseconds() % interval, 0);
        prop_assert!(instant > after && instant - width <= after && instant > anchor);
    }
}

/// Times are written with four digits of the year, so nothing is expected after them.
#[test]
fn ticks_end_with_the_year_9999() {
    let last = |text: &str, after: &str| cron(text, "UTC").next(at(after), at(after)).map(|tick| tick.instant);
    assert_eq!(last("0 0 31 12 *", "9999-06-01T00:00:00Z"), Some(at("9999-12-31T00:00:00Z")));
    assert_eq!(last("0 0 31 12 *", "9999-12-31T00:00:00Z"), None);
    assert_eq!(last("* * * * *", "9999-12-31T23:59:00Z"), None);
    assert_eq!(last("0 0 29 2 */7", "9990-01-01T00:00:00Z"), None);
    let every = Rule::Every(Duration::from_secs(3_600));
    let timing = Timing::new(every, Duration::ZERO, Tz::UTC, None, Weekdays::default()).expect("it fires");
    assert_eq!(timing.next(at("9999-01-01T00:00:00Z"), at("9999-12-31T23:00:00Z")), None);
}

/// Santiago leaves out the midnight of the first Sunday from 2 September on, and this is the rhythm of just that hour.
#[test]
fn a_time_that_is_in_the_gap_of_every_year_ends_the_search() {
    let next = |text: &str| {
        let timing = cron(text, "America/Santiago");
        let after = at("2026-01-01T00:00:00Z");
        timing.next(after, after).map(|tick| shown(&timing, tick.instant))
    };
    assert_eq!(next("0 0 2-8 9 */7").as_deref(), Some("Sun 2026-09-06 01:00-03:00"));
    // The tables of the zones end in 2099; from then on clocks stay.
    assert_eq!(next("0 */24 2-8 9 */7").as_deref(), Some("Sun 2100-09-05 00:00-03:00"));
}
