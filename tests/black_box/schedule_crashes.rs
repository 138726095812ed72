//! `kill -9` while schedules fire each second and faster: every tick is accounted for, and none fires twice.

use std::time::Duration;

use crate::gateway::{Builder, Gateway};
use crate::schedules::{OK, accounted, await_rows, count, schedules, unbroken};

/// Plugin, milliseconds between its instants, and the rest of its schedule.
const BEATS: [(&str, i64, &str); 4] = [
    ("skips", 250, "if_running: queue"),
    ("once", 500, "if_running: queue, catch_up: run_once"),
    ("all", 500, "if_running: queue, catch_up: run_all"),
    ("polite", 250, "catch_up: run_all"),
];

fn beating() -> Builder {
    BEATS.into_iter().fold(Gateway::new().service("  max_workers: 4\n"), |builder, (plugin, every, rest)| {
        let entry = format!("id: beat, every: {every}ms, {rest}");
        let keys = format!("    max_outstanding_polls: 1000\n    max_attempts: 20\n{}", schedules(&[&entry]));
        builder.script_with(plugin, OK, &keys)
    })
}

fn settle(gateway: &mut Gateway) {
    gateway.until_some("nothing waits to be caught up", |g| {
        let waits =
            "schedule_ticks WHERE status = 'expected' AND due_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 seconds')";
        (count(g, waits) == 0).then_some(())
    });
    assert_eq!(gateway.stop(), 0);
    gateway.start();
    gateway.until_some("every job has ended", |g| {
        // The schedules go on: what was there at the start is what counts.
        (count(g, "job_queue WHERE status IN ('queued', 'running') AND created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-2 seconds')") == 0)
            .then_some(())
    });
    gateway.kill_nine();
}

fn check(gateway: &Gateway) {
    accounted(gateway);
    for (plugin, every, rest) in BEATS {
        assert!(unbroken(gateway, plugin, every) >= 10, "{plugin}");
        let missed = count(gateway, &format!("schedule_ticks WHERE plugin = '{plugin}' AND status = 'missed'"));
        let caught = count(gateway, &format!("schedule_ticks WHERE plugin = '{plugin}' AND status = 'caught_up'"));
        assert!(plugin != "skips" || missed > 0, "{plugin}: {missed} missed");
        assert!(!rest.contains("run_all") || missed == 0, "{plugin}: {missed} missed");
        assert_eq!(caught > 0, rest.contains("catch_up"), "{plugin}: {caught} caught up");
    }
    assert_eq!(gateway.sql_one("PRAGMA integrity_check"), "ok");
}

/// SCH-02, SCH-15, SCH-18, promise 4: killed at random times, nine times.
#[test]
fn every_tick_is_accounted_for_after_kill_nine() {
    let mut gateway = beating().start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 4);
    let mut seed = u64::from(std::process::id());
    for round in 0..9 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Up to 0.8 s of running, now and then less than the first tick takes, and up to 0.4 s of being down.
        std::thread::sleep(Duration::from_millis((seed >> 40) % 800));
        gateway.kill_nine();
        std::thread::sleep(Duration::from_millis(if round % 3 == 0 { 700 } else { (seed >> 20) % 400 }));
        gateway.start();
    }
    settle(&mut gateway);
    check(&gateway);
}

/// The writer stops for good at an edge of a commit while ticks fire, and is killed there: a tick and its job are there together or not.
#[test]
fn a_kill_at_every_commit_edge_leaves_tick_and_job_together() {
    let points = ductile_ledger::failpoints();
    assert!(points.len() >= 4, "{points:?}");
    let mut gateway = beating().env("FAILPOINTS", "").prepare();
    for (round, point) in points.iter().enumerate() {
        gateway.forget_env("FAILPOINTS");
        gateway.set_env("FAILPOINTS", &format!("{point}={}*off->pause", 20 + 7 * round));
        gateway.spawn();
        gateway.until("the writer has stopped", |g| {
            let asked = g.request_within(Duration::from_millis(700), "POST", "/plugin/skips/poll", Some("{}"));
            let paused = asked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            paused.then_some(())
        });
        gateway.kill_nine();
        accounted(&gateway);
    }
    gateway.forget_env("FAILPOINTS");
    gateway.start();
    settle(&mut gateway);
    accounted(&gateway);
    for (plugin, every, _) in BEATS {
        unbroken(&gateway, plugin, every);
    }
}
