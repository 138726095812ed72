//! A wall clock that jumps under the real binary, by libfaketime; where that is not installed the tests say so.

use std::fs;
use std::path::PathBuf;

use ductile_domain::time::{self, Timestamp};

use crate::gateway::{Builder, Gateway};
use crate::schedules::{OK, accounted, await_rows, count, schedules};

/// The library that stands between a process and its wall clock.
fn library() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"))
        .find(|p| p.is_file());
    if found.is_none() {
        println!("skipped: libfaketime, which moves the wall clock of a process, is not installed");
    }
    found
}

/// Lets the gateway read its wall clock through the library; timers go on as ever.
fn moved(builder: Builder) -> Option<Builder> {
    let library = library()?;
    let clock = builder.path().join("clock");
    fs::write(&clock, "+0").expect("the clock");
    Some(
        builder
            .env("LD_PRELOAD", library.display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1"),
    )
}

/// The clock is so many seconds ahead from now on.
fn set(gateway: &Gateway, ahead: i64) {
    // Replaced, not rewritten: a reader never sees half a number.
    let draft = gateway.path("clock.new");
    fs::write(&draft, format!("{ahead:+}")).expect("the clock");
    fs::rename(draft, gateway.path("clock")).expect("the clock");
}

fn ahead_to(at: &str) -> i64 {
    let at: Timestamp = time::parse(at).expect("a time");
    (at - Timestamp::from(std::time::SystemTime::now())).num_seconds()
}

fn ends(gateway: &Gateway, plugin: &str) -> Vec<Vec<String>> {
    gateway.sql(&format!(
        "SELECT status, coalesce(reason, '-'), instants FROM schedule_ticks WHERE plugin = '{plugin}' AND status <> 'expected' ORDER BY instant, id"
    ))
}

/// Guarantees, schedules: a suspended machine that wakes hours later, and a clock that is set back, lose no tick and fire none twice.
#[test]
fn a_clock_that_jumps_loses_no_tick_and_fires_none_twice() {
    let builder = Gateway::new()
        .script_with("hourly", OK, &schedules(&["id: s, every: 1h"]))
        .script_with("all", OK, &schedules(&["id: s, every: 1h, catch_up: run_all"]))
        .script_with("cron", OK, &schedules(&["id: s, cron: '0 * * * *', timezone: UTC"]))
        .script_with("second", OK, &schedules(&["id: s, every: 1s"]));
    let Some(builder) = moved(builder) else { return };
    let mut gateway = builder.start();
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'", 2);

    // Three hours and a minute later at once: of the three instants the expected one fires late.
    set(&gateway, 3 * 3600 + 60);
    gateway.until("the jump is accounted for", |g| {
        (ends(g, "hourly").len() >= 3 && ends(g, "all").len() >= 3).then_some(())
    });
    let passed = ["missed", "clock_jumped", "1"];
    assert_eq!(ends(&gateway, "hourly"), [["fired", "late", "1"], passed, passed]);
    let all = ends(&gateway, "all");
    assert!(all.len() == 3 && all[0][0] == "fired" && all[1][0] == "caught_up" && all[2][0] == "caught_up", "{all:?}");
    let cron = ends(&gateway, "cron");
    assert!(cron.len() >= 3 && cron[0][..2] == ["fired", "late"], "{cron:?}");
    // Ten thousand instants of the fastest: a thousand rows, and one for those before.
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'missed'", 1001);
    assert_eq!(count(&gateway, "schedule_ticks WHERE plugin = 'second' AND instants > 1"), 1);
    let fired = count(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'");
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'", fired + 2);
    accounted(&gateway);
    assert!(gateway.logs().lines().any(|l| l.contains("WARN") && l.contains("clock")), "{}", gateway.logs());

    // Two hours back: what lies ahead is expected anew, what has been is not repeated.
    let jobs = |g: &Gateway, plugin: &str| count(g, &format!("job_queue WHERE plugin = '{plugin}'"));
    let before = ["hourly", "all", "cron"].map(|p| jobs(&gateway, p));
    set(&gateway, 3600);
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND reason = 'clock_went_back'", 1);
    let fired = count(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'");
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'", fired + 2);
    assert_eq!(["hourly", "all", "cron"].map(|p| jobs(&gateway, p)), before);
    gateway.kill_nine();
    // Another hour back while it is down.
    set(&gateway, 0);
    gateway.start();
    let fired = count(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'");
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'second' AND status = 'fired'", fired + 2);
    assert_eq!(["hourly", "all", "cron"].map(|p| jobs(&gateway, p)), before);
    accounted(&gateway);
    let silent = "SELECT plugin, due_at FROM schedule_ticks WHERE status = 'expected' ORDER BY plugin";
    let soon = time::format(Timestamp::from(std::time::SystemTime::now()) + std::time::Duration::from_secs(3660));
    let ahead: Vec<_> = gateway.sql(silent).into_iter().filter(|row| row[0] != "cron").collect();
    assert!(
        ahead.len() == 3 && ahead.iter().all(|row| row[1] <= soon),
        "no interval waits for a time that was: {ahead:?}"
    );
}

/// D-31, SCH-06, SCH-07: the night in which Sydney's clocks leave out an hour, and the one in which they repeat it, seen by the real binary.
#[test]
fn a_time_change_passes_while_the_gateway_runs() {
    let nights = [
        // 02:00 becomes 03:00 at 16:00 UTC.
        ("2026-10-03T15:50:00Z", "30 2 * * *", "2026-10-03T16:00:00.000Z", "2026-10-04T15:30:00.000Z"),
        // 03:00 becomes 02:00 at 16:00 UTC: 02:59 comes twice, at 15:59 and 16:59.
        ("2026-04-04T15:49:00Z", "59 2 * * *", "2026-04-04T15:59:00.000Z", "2026-04-05T16:59:00.000Z"),
    ];
    for (from, cron, instant, next) in nights {
        let entry = format!("id: s, cron: '{cron}', timezone: Australia/Sydney");
        let Some(builder) = moved(Gateway::new().script_with("night", OK, &schedules(&[&entry]))) else { return };
        let mut gateway = builder.prepare();
        set(&gateway, ahead_to(from));
        gateway.start();
        await_rows(&gateway, "schedule_ticks WHERE status = 'expected'", 1);
        set(&gateway, ahead_to(instant) - 2);
        await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 1);
        let rows = gateway.sql("SELECT instant, status FROM schedule_ticks ORDER BY instant");
        assert_eq!(rows, [[instant, "fired"], [next, "expected"]], "{cron}");
        accounted(&gateway);
    }
}

/// SCH-02, SCH-14: a gateway that was down for a month across a time change, under another time zone of the system.
#[test]
fn a_month_of_being_down_is_accounted_for() {
    let entries = ["id: daily, cron: '0 9 * * *', timezone: Europe/London", "id: grid, every: 6h, catch_up: run_once"];
    let Some(builder) = moved(Gateway::new().script_with("p", OK, &schedules(&entries))) else { return };
    let mut gateway = builder.env("TZ", "America/New_York").prepare();
    set(&gateway, ahead_to("2026-10-10T12:00:00Z"));
    gateway.start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'expected'", 2);
    let anchor = gateway.sql_one("SELECT anchor_at FROM schedule_entries WHERE schedule_id = 'grid'");
    gateway.kill_nine();
    gateway.forget_env("TZ");
    gateway.set_env("TZ", "Asia/Kolkata");
    set(&gateway, ahead_to("2026-11-09T12:30:00Z"));
    gateway.start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'caught_up'", 1);
    let days = gateway.sql("SELECT instant, status FROM schedule_ticks WHERE schedule_id = 'daily' ORDER BY instant");
    // 08:00 UTC in summer, 09:00 from the 25th of October on.
    let expected: Vec<_> = (11..=31)
        .map(|day| format!("2026-10-{day:02}"))
        .chain((1..=9).map(|day| format!("2026-11-{day:02}")))
        .map(|day| {
            let hour = if day.as_str() < "2026-10-25" { 8 } else { 9 };
            vec![format!("{day}T{hour:02}:00:00.000Z"), "missed".to_owned()]
        })
        .collect();
    assert_eq!(days[..days.len() - 1], expected);
    assert_eq!(days.last(), Some(&vec!["2026-11-10T09:00:00.000Z".to_owned(), "expected".to_owned()]));
    assert_eq!(gateway.sql_one("SELECT anchor_at FROM schedule_entries WHERE schedule_id = 'grid'"), anchor);
    assert_eq!(count(&gateway, "schedule_ticks WHERE schedule_id = 'grid' AND status = 'missed'"), 119);
    crate::schedules::unbroken_of(&gateway, "schedule_id = 'grid'", 6 * 3_600_000);
    assert_eq!(count(&gateway, "job_queue"), 1);
    accounted(&gateway);
}
