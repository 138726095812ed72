//! Random schedules against a walk along the clock, minute by minute, that knows nothing of how the next tick is found.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike};
use chrono_tz::{TZ_VARIANTS, Tz};
use ductile_domain::schedule::{Cron, Rule, Timing, Weekdays, Window, zone};
use ductile_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::table::at;

const MINUTE: TimeDelta = TimeDelta::minutes(1);

/// A field as it is written, and what it means.
#[derive(Debug, Clone)]
struct Field {
    text: String,
    values: BTreeSet<u32>,
}

/// One or two of: a value, a range, a range or a star with a step.
fn field(first: u32, last: u32) -> impl Strategy<Value = Field> {
    let item = (first..=last, first..=last, 1..=last, 0..4).prop_map(move |(a, b, step, kind)| {
        let (low, high) = (a.min(b), a.max(b));
        match kind {
            0 => (a.to_string(), vec![a]),
            1 => (format!("{low}-{high}"), (low..=high).collect()),
            2 => (format!("{low}-{high}/{step}"), (low..=high).step_by(step as usize).collect()),
            _ => (format!("*/{step}"), (first..=last).step_by(step as usize).collect::<Vec<_>>()),
        }
    });
    let items = prop::collection::vec(item, 1..3).prop_map(|items| Field {
        text: items.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(","),
        values: items.into_iter().flat_map(|(_, values)| values).collect(),
    });
    let star = Field { text: "*".to_owned(), values: (first..=last).collect() };
    prop_oneof![2 => Just(star), 3 => items]
}

#[derive(Debug, Clone)]
struct Expression {
    fields: [Field; 5],
}

fn expression() -> impl Strategy<Value = Expression> {
    let named = |names: &'static [&'static str], first: u32| {
        select((first..).zip(names).collect::<Vec<_>>())
            .prop_map(|(value, name)| Field { text: (*name).to_owned(), values: [value].into() })
    };
    let month = prop_oneof![
        6 => Just(Field { text: "*".to_owned(), values: (1..=12).collect() }),
        2 => field(1, 12),
        1 => named(&["Jan", "FEB", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1),
    ];
    let weekday = prop_oneof![3 => field(0, 7), 1 => named(&["sun", "Mon", "TUE", "wed", "thu", "fri", "sat"], 0)];
    (field(0, 59), field(0, 23), field(1, 31), month, weekday)
        .prop_map(|(minute, hour, day, month, weekday)| Expression { fields: [minute, hour, day, month, weekday] })
}

impl Expression {
    fn text(&self) -> String {
        self.fields.each_ref().map(|field| field.text.as_str()).join(" ")
    }

    fn is_star(&self, i: usize) -> bool {
        self.fields[i].text.starts_with('*')
    }

    fn matches(&self, local: NaiveDateTime) -> bool {
        let has = |i: usize, value: u32| self.fields[i].values.contains(&value);
        let weekday = local.weekday().num_days_from_sunday();
        let (day, weekday) = (has(2, local.day()), has(4, weekday) || weekday == 0 && has(4, 7));
        let is_day = if self.is_star(2) || self.is_star(4) { day && weekday } else { day || weekday };
        has(0, local.minute()) && has(1, local.hour()) && has(3, local.month()) && is_day
    }
}

fn clock(zone: Tz, at: Timestamp) -> NaiveDateTime {
    at.with_timezone(&zone).naive_local()
}

/// All ticks in (from, to], found by watching the clock of the zone. A fixed time fires when the clock first shows it or
/// more; a rhythm whenever it shows it.
fn walk(expression: &Expression, zone: Tz, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let is_fixed = !expression.is_star(1);
    let mut now = from.with_second(0).and_then(|at| at.with_nanosecond(0)).expect("a minute") - TimeDelta::hours(50);
    let mut latest = clock(zone, now);
    let mut ticks = Vec::new();
    while now < to {
        now += MINUTE;
        let local = clock(zone, now);
        let fires = if is_fixed {
            let mut passed = latest;
            let mut fires = false;
            while passed < local {
                passed += MINUTE;
                fires |= expression.matches(passed);
            }
            fires
        } else {
            expression.matches(local)
        };
        latest = latest.max(local);
        if fires && now > from && now <= to {
            ticks.push(now);
        }
    }
    ticks
}

/// Zones and days with something about them.
const CHANGES: [(&str, &str); 24] = [
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("America/Santiago", "2026-09-06T04:00:00Z"),
    ("America/Santiago", "2026-04-05T03:00:00Z"),
    ("America/Havana", "2026-11-01T05:00:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("Pacific/Kwajalein", "1993-08-21T12:00:00Z"),
    ("Pacific/Kwajalein", "1969-09-30T13:00:00Z"),
    ("America/St_Johns", "2010-11-07T02:31:00Z"),
    ("America/St_Johns", "1988-04-03T03:31:00Z"),
    ("Antarctica/Troll", "2026-03-29T01:00:00Z"),
    ("Antarctica/Casey", "2018-03-10T17:00:00Z"),
    ("Europe/Dublin", "2026-03-29T01:00:00Z"),
    ("Africa/Casablanca", "2026-02-15T02:00:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00:00Z"),
    ("Asia/Kathmandu", "1985-12-31T18:30:00Z"),
    ("Pacific/Chatham", "2026-09-26T14:00:00Z"),
    ("America/Caracas", "2016-05-01T07:00:00Z"),
    ("Europe/Moscow", "1991-03-31T00:00:00Z"),
];

/// Near a time change, or anywhere in a time whose clocks differ by whole minutes.
fn place() -> impl Strategy<Value = (Tz, Timestamp)> {
    let change = (select(&CHANGES[..]), -36 * 3_600_000i64..6 * 3_600_000).prop_map(|((zone, change), ms)| {
        (zone::parse(zone).expect("a zone"), at(change) + TimeDelta::milliseconds(ms))
    });
    let seconds = at("1975-01-01T00:00:00Z").timestamp()..at("2099-01-01T00:00:00Z").timestamp();
    let anywhere = (select(&TZ_VARIANTS[..]), seconds)
        .prop_map(|(zone, seconds)| (zone, DateTime::from_timestamp(seconds, 0).expect("a time")));
    prop_oneof![3 => change, 2 => anywhere]
}

fn timing(rule: Rule, zone: Tz, window: Option<Window>, not_on: Weekdays) -> Timing {
    Timing::new(rule, Duration::ZERO, zone, window, not_on).expect("it fires")
}

/// All ticks that `next` yields in (from, to].
fn chain(timing: &Timing, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let ticks = std::iter::successors(timing.next(from, from), |tick| timing.next(from, tick.instant));
    ticks.map(|tick| tick.instant).take_while(|instant| *instant <= to).collect()
}

fn window() -> impl Strategy<Value = Option<Window>> {
    let texts =
        ["00:00-24:00", "08:00-18:00", "22:00-06:00", "01:10-01:20", "00:30-01:20", "02:10-02:50", "23:30-00:30"];
    prop::option::weighted(0.8, select(texts.to_vec()).prop_map(|text| Window::parse(text).expect("a window")))
}

fn days() -> impl Strategy<Value = Weekdays> {
    let not_all = prop::collection::btree_set(0..7u32, 0..7);
    not_all.prop_map(|days| days.iter().filter_map(|day| Weekdays::day(&day.to_string())).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// SCH-06, SCH-07, D-31: the chain of next ticks is what the clock would have shown.
    #[test]
    fn the_next_ticks_are_those_that_a_watcher_of_the_clock_sees(
        expression in expression(), (zone, from) in place(), hours in 1i64..60,
    ) {
        let Ok(cron) = Cron::parse(&expression.text()) else {
            // Only what no month has.
            prop_assert!(!expression.fields[2].values.iter().any(|day| *day <= 29));
            return Ok(());
        };
        prop_assert_eq!(cron.is_fixed(), !expression.is_star(1));
        let timing = timing(Rule::Cron(cron), zone, None, Weekdays::default());
        let to = from + TimeDelta::hours(hours);
        let seen = walk(&expression, zone, from, to);
        prop_assert_eq!(chain(&timing, from, to), seen, "{} {}", expression.text(), zone);
    }

    /// SCH-11, SCH-12, D-28: it opens at the first minute at which it is not closed.
    #[test]
    fn it_opens_at_the_first_open_minute(window in window(), not_on in days(), (zone, from) in place()) {
        let timing = timing(Rule::At(from), zone, window, not_on);
        let from = from.with_second(0).and_then(|at| at.with_nanosecond(0)).expect("a minute");
        let opens = timing.opens(from).expect("some day is open");
        let is_open = |at: Timestamp| {
            let local = clock(zone, at);
            !not_on.contains(local.weekday()) && window.is_none_or(|window| window.contains(local.time()))
        };
        let mut now = from;
        while !is_open(now) {
            now += MINUTE;
            prop_assert!(now <= opens, "it is open at {} already, {} from {}", opens, zone, from);
        }
        prop_assert_eq!(opens, now, "{} from {}", zone, from);
        prop_assert_eq!(timing.closed(opens), None);
    }
}
