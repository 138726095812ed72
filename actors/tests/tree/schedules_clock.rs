//! Wall clocks that jump, go back and sleep: nothing is lost in silence, and nothing fires twice.

use ductile_domain::time;

use crate::moved::{Moved, NOON, plugin};

const SCHEDULES: [&str; 3] = [
    "{id: all, every: 10m, command: sync, catch_up: run_all, if_running: queue}",
    "{id: cron, cron: \"*/30 * * * *\", timezone: UTC, command: sync, if_running: queue}",
    "{id: every, every: 10m, command: sync, if_running: queue}",
];

/// The expected tick fires late, what lies between is missed or caught up, and the jump is the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_forward_loses_no_tick_in_silence() {
    let moved = Moved::start(NOON, &plugin("mine", &SCHEDULES, "")).await;
    moved.set("2026-03-01T13:05:00Z").await;
    moved.idle().await;
    let mut expected = vec!["all 12:10:00 fired late".to_owned()];
    expected.extend(["12:20", "12:30", "12:40", "12:50", "13:00"].map(|at| format!("all {at}:00 caught_up")));
    expected.push("all 13:10:00 expected".to_owned());
    expected.extend(
        ["cron 12:30:00 fired late", "cron 13:00:00 missed clock_jumped", "cron 13:30:00 expected"].map(str::to_owned),
    );
    expected.push("every 12:10:00 fired late".to_owned());
    expected
        .extend(["12:20", "12:30", "12:40", "12:50", "13:00"].map(|at| format!("every {at}:00 missed clock_jumped")));
    expected.push("every 13:10:00 expected".to_owned());
    assert_eq!(moved.ticks().await, expected);
    assert_eq!(moved.jobs().await, 8);
    moved.stop().await;
}

/// A jump over less than a minute makes nobody late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_jump_only_moves_the_firing() {
    let moved = Moved::start(NOON, &plugin("mine", &SCHEDULES, "")).await;
    moved.until("2026-03-01T12:09:30Z").await;
    moved.set("2026-03-01T12:10:20Z").await;
    assert_eq!(moved.ended().await, ["all 12:10:00 fired", "every 12:10:00 fired"]);
    moved.stop().await;
}

/// Ticks that have fired do not fire again; those ahead are expected anew; what was taken back comes again in its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_fires_nothing_twice() {
    let moved = Moved::start(NOON, &plugin("mine", &SCHEDULES, "")).await;
    for time in ["12:10", "12:20", "12:30"] {
        moved.until(&format!("2026-03-01T{time}:00Z")).await;
    }
    moved.idle().await;
    moved.set("2026-03-01T11:45:00Z").await;
    // 12:00 was before the first start and is free, 12:30 is not
    let expected =
        "SELECT schedule_id, substr(instant, 12, 5) FROM schedule_ticks WHERE status = 'expected' ORDER BY 1";
    assert_eq!(moved.lines(expected).await, ["all 11:55", "cron 12:00", "every 11:55"]);
    let back = moved.lines("SELECT schedule_id, substr(instant, 12, 5), status FROM schedule_ticks WHERE reason = 'clock_went_back' ORDER BY 1").await;
    assert_eq!(back, ["all 12:40 skipped", "cron 13:00 skipped", "every 12:40 skipped"]);
    for time in ["11:55", "12:00", "12:05", "12:15", "12:25", "12:31", "12:35", "12:45", "12:55", "13:00"] {
        moved.until(&format!("2026-03-01T{time}:00Z")).await;
    }
    moved.idle().await;
    let cron: Vec<_> = moved.ended().await.into_iter().filter(|tick| tick.starts_with("cron")).collect();
    assert_eq!(cron, ["cron 12:00:00 fired", "cron 12:30:00 fired", "cron 13:00:00 fired"]);
    each_job_has_its_tick(&moved).await;
    moved.stop().await;
}

/// The same when the clock went back while the gateway was down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_before_the_last_tick_fires_nothing_twice() {
    let moved = Moved::start(NOON, &plugin("mine", &SCHEDULES, "")).await;
    moved.until("2026-03-01T12:10:00Z").await;
    moved.until("2026-03-01T12:20:00Z").await;
    moved.until("2026-03-01T12:30:00Z").await;
    moved.idle().await;
    let moved = moved.restarted("2026-03-01T12:15:00Z").await;
    let expected =
        "SELECT schedule_id, substr(instant, 12, 5) FROM schedule_ticks WHERE status = 'expected' ORDER BY 1";
    assert_eq!(moved.lines(expected).await, ["all 12:25", "cron 13:00", "every 12:25"]);
    moved.until("2026-03-01T12:25:00Z").await;
    moved.until("2026-03-01T12:30:00Z").await;
    moved.idle().await;
    assert_eq!(moved.count("schedule_ticks WHERE schedule_id = 'cron' AND status = 'fired'").await, 1);
    each_job_has_its_tick(&moved).await;
    moved.stop().await;
}

/// A machine without a clock of its own starts in the past and is set right soon: no daily tick is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_years_behind_costs_no_tick() {
    let entries =
        ["{id: daily, cron: \"0 15 * * *\", timezone: UTC, command: sync}", "{id: soon, after: 1m, command: sync}"];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.until("2026-03-01T12:01:00Z").await;
    moved.idle().await;
    let moved = moved.restarted("2020-01-01T00:00:00Z").await;
    moved.pass(std::time::Duration::from_secs(60)).await;
    moved.idle().await;
    moved.set("2026-03-01T14:00:00Z").await;
    moved.idle().await;
    let next = "SELECT instant FROM schedule_ticks WHERE schedule_id = 'daily' AND status = 'expected'";
    assert_eq!(moved.lines(next).await, ["2026-03-01T15:00:00.000Z"]);
    moved.until("2026-03-01T15:00:00Z").await;
    moved.idle().await;
    let fired =
        "SELECT substr(instant, 1, 10) FROM schedule_ticks WHERE schedule_id = 'daily' AND status = 'fired' ORDER BY 1";
    assert_eq!(moved.lines(fired).await, ["2020-01-01", "2026-03-01"]);
    assert_eq!(moved.count("schedule_ticks WHERE schedule_id = 'soon' AND status = 'fired'").await, 2);
    let missed = "SELECT sum(instants) FROM schedule_ticks WHERE status = 'missed'";
    let days =
        time::parse("2026-03-01T15:00:00Z").expect("a time") - time::parse("2020-01-01T15:00:00Z").expect("a time");
    assert_eq!(moved.gateway.sql_one(missed).await, (days.num_days() - 1).to_string());
    moved.stop().await;
}

/// A database that was written under another zone: intervals go on as they were, expressions by the new zone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_time_zone_of_the_system_loses_nothing_and_fires_nothing_twice() {
    let entries = ["{id: cron, cron: \"30 * * * *\", command: sync}", "{id: every, every: 25m, command: sync}"];
    let mut moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.edit("  tick_interval: 1s\n", "  tick_interval: 1s\n  timezone: UTC\n");
    let zones = ["UTC", "Australia/Lord_Howe", "America/New_York"];
    let times = ["12:10", "12:20", "12:26"];
    for (zones, time) in zones.windows(2).zip(times) {
        moved = moved.restarted(&format!("2026-03-01T{time}:00Z")).await;
        moved.edit(zones[0], zones[1]);
    }
    let moved = moved.restarted("2026-03-01T12:24:00Z").await;
    for time in ["12:25", "12:30", "12:50", "13:15", "13:30"] {
        moved.until(&format!("2026-03-01T{time}:00Z")).await;
        moved.idle().await;
    }
    let fired = "SELECT schedule_id, substr(instant, 12, 5) FROM schedule_ticks WHERE status = 'fired' ORDER BY 1, 2";
    assert_eq!(moved.lines(fired).await, ["cron 12:30", "cron 13:30", "every 12:25", "every 12:50", "every 13:15"]);
    assert_eq!(moved.count("schedule_ticks WHERE status = 'missed'").await, 0);
    each_job_has_its_tick(&moved).await;
    moved.stop().await;
}

async fn each_job_has_its_tick(moved: &Moved) {
    let fired = moved.count("schedule_ticks WHERE status IN ('fired', 'caught_up')").await;
    let jobs = moved.count("job_queue WHERE submitted_by = 'scheduler' AND id IN (SELECT job_id FROM schedule_ticks WHERE status IN ('fired', 'caught_up'))").await;
    assert_eq!((fired, moved.jobs().await), (jobs, jobs));
}
