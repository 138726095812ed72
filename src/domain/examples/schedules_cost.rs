//! What schedules cost: to find the next tick of one, and to take the first of many from a heap and put its next tick back.
//!
//! `cargo run --release -p ductile-domain --example schedules_cost`

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::DateTime;
use chrono_tz::Tz;
use ductile_domain::ids::BootId;
use ductile_domain::schedule::{
    CatchUp, Cron, EntryStatus, IfRunning, Known, Moment, Rule, Schedule, Timing, Weekdays, own_rows, resume,
};
use ductile_domain::time::Timestamp;

const OPERATIONS: u32 = 200_000;

/// Every form that repeats, in four zones; no two with the same rule.
fn schedules(count: usize) -> Vec<Timing> {
    let zones = [Tz::UTC, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::America__Santiago];
    let rule = |i: usize| {
        let (minute, hour) = (i % 60, i % 24);
        let text = match i % 4 {
            0 => return Rule::Every(Duration::from_secs(30 + i as u64 % 86_400)),
            1 => format!("{minute} * * * *"),
            2 => format!("{minute} {hour},{} * * 1-5", (hour + 7) % 24),
            _ => format!("*/{} {hour} 1-{} * sun", 1 + i % 59, 1 + i % 28),
        };
        Rule::Cron(Cron::parse(&text).expect("valid"))
    };
    let timing = |i| Timing::new(rule(i), Duration::ZERO, zones[i / 4 % 4], None, Weekdays::default());
    (0..count).map(|i| timing(i).expect("it fires")).collect()
}

/// Takes the first tick and puts the next of its schedule in its place; returns the cost of one.
fn turn(timings: &[Timing], start: Timestamp) -> Duration {
    let first =
        |(i, timing): (usize, &Timing)| timing.next(start, start).map(|tick| Reverse((tick.due, i, tick.instant)));
    let mut heap: BinaryHeap<_> = timings.iter().enumerate().filter_map(first).collect();
    let begun = Instant::now();
    for _ in 0..OPERATIONS {
        let Some(Reverse((_, i, instant))) = heap.pop() else { break };
        heap.extend(timings[i].next(start, instant).map(|tick| Reverse((tick.due, i, tick.instant))));
    }
    black_box(heap.len());
    begun.elapsed() / OPERATIONS
}

/// What a start after a year does with so many schedules; returns how many rows it would write.
fn after_a_year(count: usize, start: Timestamp) -> usize {
    let timing = Timing::new(
        Rule::Cron(Cron::parse("* * * * *").expect("valid")),
        Duration::ZERO,
        Tz::America__New_York,
        None,
        Weekdays::default(),
    );
    let schedule = Schedule {
        plugin: "p".into(),
        index: 0,
        id: "s".into(),
        command: "poll".into(),
        payload: None,
        timing,
        catch_up: CatchUp::Skip,
        if_running: IfRunning::Skip,
    };
    let timing = schedule.timing.as_ref().expect("it fires");
    let expected = [timing.next(start, start).expect("it fires")];
    let known = Known {
        status: EntryStatus::Active,
        reason: None,
        fingerprint: Some(&timing.fingerprint),
        anchor: None,
        armed_by: None,
        last_instant: None,
        expected: &expected,
    };
    let now = start + chrono::TimeDelta::days(365);
    let boot = BootId::from(uuid::Uuid::nil());
    let at = Moment { now, started: now, boot, is_start: true, jump: None, floor: now, own_rows: own_rows(count) };
    (0..count).map(|_| black_box(resume(&schedule, Some(known), &at)).ended.len()).sum()
}

/// The cost of a call, the best of five rounds.
fn best(calls: u32, mut call: impl FnMut()) -> Duration {
    let round = |_| {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        begun.elapsed() / calls
    };
    (0..5).map(round).min().unwrap_or_default()
}

fn main() {
    let start = DateTime::from_timestamp(1_772_000_000, 0).expect("in range");
    println!("{:>10} {:>22} {:>8}", "schedules", "pop, next, push (ns)", "ratio");
    let mut base = None;
    for count in [10, 100, 1_000, 10_000] {
        let timings = schedules(count);
        let cost = (0..3).map(|_| turn(&timings, start)).min().unwrap_or_default().as_nanos() as f64;
        println!("{count:>10} {cost:>22.0} {:>8.2}", cost / *base.get_or_insert(cost));
    }
    let begun = Instant::now();
    let rows = after_a_year(10_000, start);
    println!("\n10,000 expressions of minutes after a year down: {:?}, {rows} rows", begun.elapsed());
    println!("\n{:>24} {:>22} {:>12} {:>12}", "expression", "zone", "parse (us)", "next (ns)");
    for (text, zone) in [
        ("* * * * *", Tz::UTC),
        ("*/5 * * * *", Tz::America__New_York),
        ("0 9 * * 1-5", Tz::America__New_York),
        ("30 2 8 3 *", Tz::America__New_York),
        ("0 0 29 2 *", Tz::UTC),
        ("0 0 29 2 */7", Tz::UTC),
        ("*/5 */24 29 2 */7", Tz::America__Santiago),
        ("0 */24 2-8 9 */7", Tz::America__Santiago),
    ] {
        let parse = best(1_000, || drop(black_box(Cron::parse(black_box(text)))));
        let rule = Rule::Cron(Cron::parse(text).expect("valid"));
        let timing = Timing::new(rule, Duration::ZERO, zone, None, Weekdays::default()).expect("it fires");
        let next = best(1_000, || {
            black_box(timing.next(start, black_box(start)));
        });
        println!("{text:>24} {:>22} {:>12.1} {:>12}", zone.name(), parse.as_nanos() as f64 / 1e3, next.as_nanos());
    }
}
