//! A year, and a fortnight of faster schedules: ticks equal the reference, none missing, none twice.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use chrono::TimeDelta;

use crate::reference;
use crate::script::{Dice, How, Segment, Spec, after, at, cron, cron_with_zone, every, random, time};
use crate::world::World;

const SYDNEY: &str = "Australia/Sydney";
const NEW_YORK: &str = "America/New_York";
const LONDON: &str = "Europe/London";
/// Half an hour of summer time.
const LORD_HOWE: &str = "Australia/Lord_Howe";

/// Every form. `down` is a time at which the gateway is down.
fn of_a_year(down: &str) -> Vec<Spec> {
    let mut specs = vec![
        every("beacon", "4h", 4 * 3600),
        every("daily", "daily", 86_400),
        every("weekly", "weekly", 7 * 86_400),
        every("monthly", "monthly", 30 * 86_400),
        every("drawn", "12h", 12 * 3600).jitter(20),
        every("drawn-by-day", "8h", 8 * 3600).jitter(20).window("08:00-18:00").zone(NEW_YORK),
        every("weekdays", "8h", 8 * 3600).zone(SYDNEY).not_on("sat, Sunday", &[6, 0]),
        every("by-night", "4h", 4 * 3600).zone(LORD_HOWE).window("22:00-06:00").not_on("3, 7", &[3, 0]),
        every("one-for-all", "4h", 4 * 3600).catch_up("run_once"),
        every("one-by-day", "8h", 8 * 3600).catch_up("run_once").zone(LONDON).window("08:30-17:00"),
        every("each", "20h", 20 * 3600).catch_up("run_all"),
        every("many", "4h", 4 * 3600).catch_up("run_all"),
        every("polite", "4h", 4 * 3600).of("polite"),
        every("rude", "4h", 4 * 3600).of("rude").not_on("mon, tuesday", &[1, 2]),
        every("held", "8h", 8 * 3600).held_up("held", 1, "running"),
        every("guarded", "8h", 8 * 3600).window("06:00-21:00").zone(SYDNEY).held_up("guarded", 3, "guard"),
        cron_with_zone("written-behind", SYDNEY, "0 7 * * *"),
        cron("nights", SYDNEY, "0 */8 * * *").window("22:00-06:00").not_on("sunday", &[0]),
        at("once", "2026-03-15T14:00:00Z"),
        at("once-there", "2026-10-04T02:30:00+10:00"),
        at("past", "2025-06-01T00:00:00Z"),
        // A Tuesday: it waits for the Wednesday.
        at("waits", "2026-05-05T03:00:00Z").zone(LONDON).window("09:00-17:00").not_on("tue", &[2]),
        at("while-down", down),
        after("delayed", 90),
        after("delayed-into-the-window", 10).zone(NEW_YORK).window("09:00-17:00"),
    ];
    for (n, (zone, text)) in CRONS.iter().enumerate() {
        specs.push(cron(&format!("cron-{n:02}"), zone, text));
    }
    specs
}

/// The hours of the changes, and everything that crontab(5) knows.
const CRONS: [(&str, &str); 26] = [
    (SYDNEY, "30 2 * * *"),
    (SYDNEY, "0 2,3 * * *"),
    (SYDNEY, "0 9 * * 1-5"),
    (SYDNEY, "15,45 1-3 * 4,10 *"),
    (SYDNEY, "@daily"),
    (NEW_YORK, "30 1 * * *"),
    (NEW_YORK, "30 1,13 * * *"),
    (NEW_YORK, "30 2 * * sun"),
    (NEW_YORK, "0 */6 * * *"),
    (NEW_YORK, "0 0 13 * 5"),
    (NEW_YORK, "0 0 */2 * mon"),
    (NEW_YORK, "0 12 1-7 * 1-5/2"),
    (NEW_YORK, "@midnight"),
    (LONDON, "30 1 * * *"),
    (LONDON, "0 1 * * 0"),
    (LONDON, "0 1 * * 7"),
    (LONDON, "20 0-3 * 3,10 *"),
    (LONDON, "0 */1 25-31 MAR,oct *"),
    (LONDON, "0 8-18/5 * jan-mar,11 mon-FRI"),
    (LONDON, "@weekly"),
    (LONDON, "@monthly"),
    (LONDON, "@yearly"),
    (LORD_HOWE, "45 1 * * *"),
    (LORD_HOWE, "15 2 * * *"),
    (LORD_HOWE, "0 * * 4,10 *"),
    (LORD_HOWE, "10,20 1,2,3 * * 6,7"),
];

/// SCH-05, SCH-06, SCH-07, SCH-08, SCH-09, SCH-10, SCH-11, SCH-12, SCH-14, D-27, D-28, D-29, D-31, promise 4: a year of every form in four
/// zones over both of their time changes, with the gateway stopped and its clock put forward and back at random: the ledger holds
/// exactly the ticks that the reference expects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_schedules_is_that_of_the_reference() {
    let mut segments = random(&mut Dice::new(), time("2026-01-01T00:00:00Z"), time("2026-12-31T12:00:00Z"), 12);
    // One start half a minute behind the hour: what cron missed by that little fires late.
    let last = segments.pop().expect("at least one");
    let cut = time("2026-12-20T22:40:00Z");
    segments.push(Segment { to: cut, ..last.clone() });
    segments.push(Segment { how: How::Down, from: time("2026-12-21T13:00:30Z"), to: last.to });
    let down = segments.iter().zip(&segments[1..]).find(|(_, next)| next.how == How::Down).expect("it is stopped");
    let down = down.0.to + (down.1.from - down.0.to) / 2;
    simulate(&of_a_year(&ductile_domain::time::format(down)), &segments).await;
}

/// The same for a fortnight, with minutes between ticks and a stop of five days: more instants than get rows of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fortnight_of_minutes_is_that_of_the_reference() {
    let (from, to) = (time("2026-03-25T00:00:00Z"), time("2026-04-08T00:00:00Z"));
    let mut segments = random(&mut Dice::new(), from, time("2026-03-31T00:00:00Z"), 3);
    segments.push(Segment { how: How::Down, from: time("2026-04-04T10:30:00Z"), to });
    let specs = [
        every("beacon", "hourly", 3600),
        cron("nickname", LONDON, "@hourly"),
        every("fast", "5m", 300),
        every("fast-by-day", "5m", 300).zone(SYDNEY).window("08:00-18:00").catch_up("run_once"),
        every("fast-each", "4m", 240).catch_up("run_all"),
        every("drawn", "10m", 600).jitter(10),
        cron("fives", SYDNEY, "*/5 * * * *"),
        cron("fives-at-night", LONDON, "*/5 0-4 * * *"),
        cron("fixed-fives", LONDON, "0,5,10,15,20,25,30,35,40,45,50,55 0-4 * * *"),
        cron("tens", LORD_HOWE, "5-59/10 * * * *"),
        cron("fixed-tens", LORD_HOWE, "5-59/10 1-3 * * *"),
        cron("each-minute", LORD_HOWE, "* 1-2 5 4 *"),
        after("delayed", 90),
    ];
    simulate(&specs, &segments).await;
}

async fn simulate(specs: &[Spec], segments: &[Segment]) {
    if !reference::is_here() {
        return;
    }
    let began = Instant::now();
    let mut world = World::new(specs, segments[0].from);
    world.play(segments).await;
    let played = began.elapsed();
    let rows = world.rows().await;
    world.jobs_match().await;
    world.stop().await;
    let dues = World::dues(specs, &rows);
    for (id, dues) in &dues {
        varies(id, dues);
    }
    let expected = reference::rows(specs, segments, &dues);
    let span = segments.last().expect("at least one").to - segments[0].from;
    println!(
        "{} days of {} schedules, {} ticks, {} moves of the clock, in {played:.1?}; the reference took {:.1?}",
        span.num_days(),
        specs.len(),
        rows.len(),
        world.steps,
        began.elapsed() - played
    );
    compare(&rows, &expected, segments);
}

/// SCH-10: what is drawn varies, and lies on both sides.
fn varies(id: &str, dues: &BTreeMap<String, String>) {
    let offsets: HashSet<i64> =
        dues.iter().map(|(instant, due)| (time(due) - time(instant)).num_milliseconds()).collect();
    let (low, high) = (offsets.iter().min().expect("ticks"), offsets.iter().max().expect("ticks"));
    assert!(offsets.len() * 10 > dues.len() * 9, "{id}: {} different offsets of {}", offsets.len(), dues.len());
    assert!(*low < 0 && *high > 0, "{id}: between {low} and {high} ms");
}

fn compare(rows: &[String], expected: &[String], segments: &[Segment]) {
    if rows == expected {
        return;
    }
    let (have, want): (HashSet<_>, HashSet<_>) = (rows.iter().collect(), expected.iter().collect());
    let mut wrong: Vec<String> =
        rows.iter().filter(|row| !want.contains(row)).map(|row| format!("{row}\tledger")).collect();
    wrong.extend(expected.iter().filter(|row| !have.contains(row)).map(|row| format!("{row}\treference")));
    wrong.sort_unstable();
    for segment in segments {
        println!("{:?} {} to {}", segment.how, segment.from, segment.to);
    }
    // The first of each schedule.
    let mut shown = String::new();
    for of_one in wrong.chunk_by(|a, b| a.split('\t').next() == b.split('\t').next()) {
        shown.push_str(&format!("{} rows:\n  {}\n", of_one.len(), of_one[..of_one.len().min(12)].join("\n  ")));
    }
    panic!("{} rows differ:\n{shown}", wrong.len());
}

/// Scripts make sense: after each event the gateway runs for some hours.
#[test]
fn random_scripts_go_on_between_their_events() {
    for seed in 0..200 {
        for (to, count) in [("2026-12-31T12:00:00Z", 12), ("2026-01-07T00:00:00Z", 3)] {
            let segments = random(&mut Dice::of(seed), time("2026-01-01T00:00:00Z"), time(to), count);
            for segment in &segments {
                assert!(segment.to - segment.from > TimeDelta::hours(6), "{seed}: {segment:?}");
            }
        }
    }
}
