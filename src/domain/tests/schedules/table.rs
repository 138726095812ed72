//! Expressions, zones and time changes with the answers that the manuals give, found by hand.

use std::time::Duration;

use ductile_domain::schedule::{Cron, Rule, Timing, Weekdays, zone};
use ductile_domain::time::{self, Timestamp};

pub(crate) fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time")
}

pub(crate) fn cron(text: &str, zone: &str) -> Timing {
    let cron = Cron::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let zone = zone::parse(zone).expect("a zone");
    Timing::new(Rule::Cron(cron), Duration::ZERO, zone, None, Weekdays::default()).expect("it fires")
}

/// The next local times after a local time, with the offset where clocks matter.
fn next(text: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let timing = cron(text, zone_name);
    let mut from = at(after);
    let mut seen = Vec::new();
    for _ in 0..count {
        let Some(next) = timing.next(from, from) else { break };
        from = next.instant;
        seen.push(from.with_timezone(&timing.zone).format("%a %Y-%m-%d %H:%M%:z").to_string());
    }
    seen
}

/// SCH-06, D-31.
#[test]
fn time_changes_fire_fixed_times_once_and_rhythms_by_elapsed_time() {
    for (text, zone, after, expected) in [
        (
            "30 2 * * *",
            "America/New_York",
            "2026-03-08T00:00:00-05:00",
            vec!["Sun 2026-03-08 03:00-04:00", "Mon 2026-03-09 02:30-04:00"],
        ),
        (
            "0 0 * * *",
            "America/Santiago",
            "2026-09-05T00:00:00-04:00",
            vec!["Sun 2026-09-06 01:00-03:00", "Mon 2026-09-07 00:00-03:00"],
        ),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00:00+10:30", vec!["Sun 2026-10-04 02:30+11:00"]),
        (
            "0 2,14 * * *",
            "America/New_York",
            "2026-03-08T00:00:00-05:00",
            vec!["Sun 2026-03-08 03:00-04:00", "Sun 2026-03-08 14:00-04:00"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T00:00:00-04:00",
            vec!["Sun 2026-11-01 01:30-04:00", "Mon 2026-11-02 01:30-05:00"],
        ),
        (
            "30 1,13 * * *",
            "America/New_York",
            "2026-11-01T00:00:00-04:00",
            vec!["Sun 2026-11-01 01:30-04:00", "Sun 2026-11-01 13:30-05:00"],
        ),
        (
            "*/30 * * * *",
            "America/New_York",
            "2026-11-01T00:30:00-04:00",
            vec![
                "Sun 2026-11-01 01:00-04:00",
                "Sun 2026-11-01 01:30-04:00",
                "Sun 2026-11-01 01:00-05:00",
                "Sun 2026-11-01 01:30-05:00",
                "Sun 2026-11-01 02:00-05:00",
            ],
        ),
    ] {
        assert_eq!(next(text, zone, after, expected.len()), expected, "{text} {zone}");
    }
}
