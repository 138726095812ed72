//! What would keep a schedule from firing for ever: a clock that showed a future that was none, changes that come faster
//! than its interval, a resumption that nobody heard of. And what would set a paused one off.

use ductile_api::gateway::Gateway as _;

use crate::moved::{Moved, NOON, plugin};

const AHEAD: &str = "SELECT schedule_id, instant FROM schedule_ticks WHERE status = 'expected' ORDER BY 1, 2";

/// What was missed in that future has not come: it is expected when its time comes, and fires once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_years_ahead_stops_no_schedule() {
    let entries = [
        "{id: cron, cron: \"*/30 * * * *\", timezone: UTC, command: sync, if_running: queue}",
        "{id: daily, cron: \"0 15 * * *\", timezone: UTC, command: sync, if_running: queue}",
        "{id: every, every: 10m, command: sync, if_running: queue}",
    ];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.set("2036-06-01T12:10:00Z").await;
    moved.idle().await;
    moved.set("2026-03-01T12:05:00Z").await;
    let expected =
        ["cron 2026-03-01T13:00:00.000Z", "daily 2026-03-02T15:00:00.000Z", "every 2026-03-01T12:15:00.000Z"];
    assert_eq!(moved.lines(AHEAD).await, expected, "12:30 and 15:00 have fired, late");
    for time in ["2026-03-01T13:00:00Z", "2026-03-01T13:30:00Z", "2026-03-01T14:00:00Z"] {
        moved.until(time).await;
        moved.idle().await;
    }
    let fired = "SELECT substr(instant, 1, 16), coalesce(reason, '') FROM schedule_ticks WHERE schedule_id = 'cron' AND status = 'fired' ORDER BY 1";
    assert_eq!(
        moved.lines(fired).await,
        ["2026-03-01T12:30 late", "2026-03-01T13:00", "2026-03-01T13:30", "2026-03-01T14:00"]
    );
    moved.stop().await;
}

/// The same when the gateway started in that future.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_years_ahead_stops_no_schedule() {
    let entries = ["{id: cron, cron: \"*/30 * * * *\", timezone: UTC, command: sync, if_running: queue}"];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    let moved = moved.restarted("2036-06-01T12:10:00Z").await;
    moved.idle().await;
    moved.set("2026-03-01T12:05:00Z").await;
    assert_eq!(moved.lines(AHEAD).await, ["cron 2026-03-01T12:30:00.000Z"]);
    moved.until("2026-03-01T12:30:00Z").await;
    moved.idle().await;
    moved.until("2026-03-01T13:00:00Z").await;
    moved.idle().await;
    let fired = "SELECT substr(instant, 1, 16) FROM schedule_ticks WHERE status = 'fired' ORDER BY 1";
    assert_eq!(moved.lines(fired).await, ["2026-03-01T12:30", "2026-03-01T13:00"]);
    moved.stop().await;
}

/// Those that wait to catch up in that future are taken back with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_catch_up_in_a_future_that_is_none_is_taken_back() {
    let entries = ["{id: all, every: 10m, command: sync, catch_up: run_all, payload: {do: hang}}"];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.set("2026-03-01T14:05:00Z").await;
    assert!(moved.count("schedule_ticks WHERE status = 'expected'").await > 10, "the first job holds them up");
    moved.set("2026-03-01T12:05:00Z").await;
    assert_eq!(moved.lines(AHEAD).await, ["all 2026-03-01T12:15:00.000Z"]);
    assert_eq!(moved.entries().await, ["all active 12:15:00"]);
    moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    moved.settled().await;
    assert_eq!(moved.lines(AHEAD).await, ["all 2026-03-01T12:15:00.000Z"], "a reload changes nothing about it");
    moved.stop().await;
}

/// An operator's pause outlasts an entry that can't be read meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_of_the_pen_resumes_nothing() {
    let moved = Moved::start(NOON, &plugin("mine", &["{id: e, every: 10m, command: sync}"], "")).await;
    let pause = moved.gateway.handle().pause_schedules("mine".to_owned(), None, true, "a test".to_owned());
    assert_eq!(pause.await, Ok(vec!["e".to_owned()]));
    moved.edit("every: 10m", "every: 10 parsecs");
    let moved = moved.restarted("2026-03-01T12:01:00Z").await;
    assert_eq!(moved.entries().await, ["e paused_manual never"]);
    moved.edit("every: 10 parsecs", "every: 10m");
    let moved = moved.restarted("2026-03-01T12:02:00Z").await;
    moved.until("2026-03-01T12:30:00Z").await;
    assert_eq!(moved.jobs().await, 0);
    assert!(moved.entries().await[0].starts_with("e paused_manual"), "{:?}", moved.entries().await);
    moved.stop().await;
}

/// A message is a hint, the row is the truth: a resumption whose word was lost costs time, not the one chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumption_that_nobody_heard_of_is_found() {
    let entry = "{id: once, at: \"2026-03-01T12:05:00Z\", command: sync}";
    let moved = Moved::start(NOON, &plugin("mine", &[entry], "")).await;
    let pause = moved.gateway.handle().pause_schedules("mine".to_owned(), None, true, "a test".to_owned());
    assert_eq!(pause.await, Ok(vec!["once".to_owned()]));
    moved.until("2026-03-01T12:06:00Z").await;
    assert_eq!(moved.ticks().await, ["once 12:05:00 expected paused"]);
    moved.gateway.sql("UPDATE schedule_entries SET status = 'active'").await;
    moved.until("2026-03-01T12:08:00Z").await;
    moved.idle().await;
    assert_eq!(moved.ended().await, ["once 12:05:00 fired late"]);
    moved.stop().await;
}

/// Each change counts on from the last firing, or from where the grid began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_come_faster_than_the_interval_do_not_put_it_off_for_ever() {
    let moved = Moved::start(NOON, &plugin("mine", &["{id: e, every: 1h, command: sync}"], "")).await;
    moved.until("2026-03-01T13:00:00Z").await;
    moved.idle().await;
    let mut was = "every: 1h";
    for (time, is) in [("13:20", "every: 61m"), ("13:40", "every: 1h"), ("13:59", "every: 61m")] {
        moved.until(&format!("2026-03-01T{time}:00Z")).await;
        moved.edit(was, is);
        was = is;
        moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
        moved.settled().await;
    }
    assert_eq!(moved.entries().await, ["e active 14:01:00"]);
    moved.stop().await;
}
