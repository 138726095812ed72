//! Schedules on a moved clock: what fires, what does not, and what becomes of it over restarts and reloads.

use std::time::Duration;

use ductile_api::gateway::{Gateway as _, Refusal, Submitted};

use crate::moved::{Moved, NOON, plugin};

/// SCH-01, SCH-02, SCH-20, SCH-21, SCH-22: each tick has its job with the schedule's payload, and a restart between two
/// ticks moves neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interval_fires_on_its_grid_over_a_restart() {
    let moved = Moved::start(NOON, &plugin("mine", &["{id: ten, every: 10m, payload: {do: ok, n: 1}}"], "")).await;
    assert_eq!(moved.ticks().await, ["ten 12:10:00 expected"]);
    moved.until("2026-03-01T12:09:59.999Z").await;
    assert_eq!(moved.ended().await, [""; 0], "nothing fires before it is due");
    moved.until("2026-03-01T12:10:00Z").await;
    moved.idle().await;
    moved.until("2026-03-01T12:20:00Z").await;
    moved.idle().await;
    let moved = moved.restarted("2026-03-01T12:25:00Z").await;
    assert_eq!(moved.ticks().await, ["ten 12:10:00 fired", "ten 12:20:00 fired", "ten 12:30:00 expected"]);
    moved.until("2026-03-01T12:30:00Z").await;
    moved.idle().await;
    assert_eq!(moved.entries().await, ["ten active 12:40:00"]);
    let jobs = "SELECT plugin, command, payload, submitted_by, requested_by, status, dedupe_key FROM job_queue";
    let expected = |time: &str| {
        format!("mine poll {{\"do\":\"ok\",\"n\":1}} scheduler ten succeeded schedule:mine:ten:2026-03-01T{time}.000Z")
    };
    assert_eq!(moved.lines(jobs).await, ["12:10:00", "12:20:00", "12:30:00"].map(expected));
    let succeeded = "SELECT substr(last_fired_at, 12, 8), substr(last_success_at, 12, 8),
        last_success_job_id = (SELECT id FROM job_queue ORDER BY rowid DESC LIMIT 1) FROM schedule_entries";
    assert_eq!(moved.lines(succeeded).await, ["12:30:00 12:30:00 1"]);
    assert_eq!(moved.count("schedule_entries WHERE plugin IN ('work', 'other')").await, 0);
    moved.stop().await;
}

/// SCH-14, SCH-15: 0, 1 and 3 jobs for three intervals, however often it is started after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passed_while_the_gateway_was_down_is_caught_up_by_policy() {
    let entry =
        |policy| format!("{{id: {policy}, every: 10m, command: sync, catch_up: {policy}, payload: {{do: ok}}}}");
    let plugins: String = ["skip", "run_once", "run_all"].map(|policy| plugin(policy, &[&entry(policy)], "")).concat();
    let mut moved = Moved::start(NOON, &plugins).await;
    for now in ["2026-03-01T12:35:00Z", "2026-03-01T12:35:01Z", "2026-03-01T12:35:02Z"] {
        moved = moved.restarted(now).await;
    }
    caught_up(&moved).await;
    let missed = |schedule: &str, time: &str| format!("{schedule} {time} missed gateway_down");
    let mut expected = Vec::new();
    expected.extend(["12:10:00", "12:20:00", "12:30:00"].map(|time| format!("run_all {time} caught_up")));
    expected.push("run_all 12:40:00 expected".to_owned());
    expected.extend(["12:10:00", "12:20:00"].map(|time| missed("run_once", time)));
    expected.extend(["run_once 12:30:00 caught_up", "run_once 12:40:00 expected"].map(str::to_owned));
    expected.extend(["12:10:00", "12:20:00", "12:30:00"].map(|time| missed("skip", time)));
    expected.push("skip 12:40:00 expected".to_owned());
    assert_eq!(moved.ticks().await, expected);
    let jobs = "SELECT plugin, count(*), sum(dedupe_key LIKE 'catchup:%') FROM job_queue GROUP BY 1 ORDER BY 1";
    assert_eq!(moved.lines(jobs).await, ["run_all 3 3", "run_once 1 1"]);
    moved.stop().await;
}

/// A month of seconds: the newest thousand have rows of their own, the others one together, and `run_all` is bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_time_down_is_accounted_for_in_few_rows() {
    let entry = "{id: s, every: 1s, command: sync, catch_up: run_all, if_running: queue, payload: {do: ok}}";
    let moved = Moved::start(NOON, &plugin("mine", &[entry], "")).await;
    moved.gateway.handle().set_dispatch(false, "a test".to_owned()).await.expect("paused");
    let moved = moved.restarted("2026-03-31T12:00:00Z").await;
    caught_up_but_for(&moved, 0).await;
    let missed =
        "SELECT status, count(*), sum(instants), min(instant), max(coalesce(last_instant, instant)) FROM schedule_ticks
        WHERE status <> 'expected' AND instant < '2026-03-31T12:00:00' GROUP BY 1 ORDER BY 1";
    assert_eq!(
        moved.lines(missed).await,
        [
            "caught_up 100 100 2026-03-31T11:58:20.000Z 2026-03-31T11:59:59.000Z",
            "missed 901 2591899 2026-03-01T12:00:01.000Z 2026-03-31T11:58:19.000Z",
        ]
    );
    moved.stop().await;
}

/// SCH-16: an older job makes a tick give way, or not, or it is cancelled for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_still_runs_is_treated_by_policy() {
    let entry =
        |policy| format!("{{id: {policy}, every: 10m, command: sync, if_running: {policy}, payload: {{do: hang}}}}");
    let plugins: String = ["skip", "queue", "cancel"].map(|policy| plugin(policy, &[&entry(policy)], "")).concat();
    let moved = Moved::start(NOON, &plugins).await;
    moved.until("2026-03-01T12:10:00Z").await;
    moved
        .gateway
        .until("all three run", async || (moved.count("job_queue WHERE status = 'running'").await == 3).then_some(()))
        .await;
    moved.until("2026-03-01T12:20:00Z").await;
    assert_eq!(
        moved.ended().await,
        [
            "cancel 12:10:00 fired",
            "cancel 12:20:00 fired",
            "queue 12:10:00 fired",
            "queue 12:20:00 fired",
            "skip 12:10:00 fired",
            "skip 12:20:00 skipped running",
        ]
    );
    let ends = "SELECT status, last_error FROM job_queue WHERE plugin = 'cancel' ORDER BY rowid LIMIT 1";
    let end = async || Some(moved.lines(ends).await).filter(|end| end[0].starts_with("dead"));
    let end = moved.gateway.until("the older job is dead", end).await;
    assert_eq!(end, ["dead cancelled: superseded by schedule cancel"]);
    moved.stop().await;
}

/// SCH-17: whoever asked for a poll, it counts; and the cap holds also where `if_running` gives way to none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_polls_than_the_guard_allows() {
    let entry = "{id: p, every: 10m, if_running: queue, payload: {do: hang}}";
    let guarded = plugin("guarded", &[entry], "    max_outstanding_polls: 2\n");
    let moved = Moved::start(NOON, &(guarded + &plugin("single", &["{id: s, every: 10m}"], ""))).await;
    moved.gateway.enqueue("single", "hang").await;
    for time in ["2026-03-01T12:10:00Z", "2026-03-01T12:20:00Z", "2026-03-01T12:30:00Z"] {
        moved.until(time).await;
    }
    assert_eq!(
        moved.ended().await,
        [
            "p 12:10:00 fired",
            "p 12:20:00 fired",
            "p 12:30:00 skipped guard",
            "s 12:10:00 skipped guard",
            "s 12:20:00 skipped guard",
            "s 12:30:00 skipped guard",
        ]
    );
    moved.stop().await;
}

/// SCH-08, SCH-09: a time fires once ever, a delay once per start; neither is woken by a reload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fires_once_fires_once() {
    let entries = [
        "{id: after, after: 2m, command: sync}",
        "{id: at, at: \"2026-03-01T12:05:00Z\", command: sync}",
        "{id: late, at: \"2026-03-01T12:30:00Z\", command: sync}",
        "{id: past, at: \"2026-03-01T13:00:00+02:00\", command: sync}",
    ];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    let began = ["after active 12:02:00", "at active 12:05:00", "late active 12:30:00", "past exhausted never"];
    assert_eq!(moved.entries().await, began);
    moved.until("2026-03-01T12:02:00Z").await;
    moved.idle().await;
    moved.until("2026-03-01T12:05:00Z").await;
    moved.idle().await;
    moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    moved.settled().await;
    let fired = ["after exhausted never", "at exhausted never", "late active 12:30:00", "past exhausted never"];
    assert_eq!(moved.entries().await, fired);
    // down when `late` was due: it has never fired, so it fires now
    let moved = moved.restarted("2026-03-01T13:00:00Z").await;
    moved.idle().await;
    moved.until("2026-03-01T13:02:00Z").await;
    moved.idle().await;
    let ended = ["after 12:02:00 fired", "after 13:02:00 fired", "at 12:05:00 fired", "late 12:30:00 fired late"];
    assert_eq!(moved.ended().await, ended);
    assert_eq!(moved.jobs().await, 4);
    let moved = moved.restarted("2026-03-01T14:00:00Z").await;
    let again = ["after active 14:02:00", "at exhausted never", "late exhausted never", "past exhausted never"];
    assert_eq!(moved.entries().await, again);
    moved.stop().await;
}

/// D-28: a single chance is not lost to a window or to a pause, an interval's tick is skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fires_once_waits_for_its_window_and_for_its_operator() {
    let entries = [
        "{id: night, at: \"2026-03-01T12:05:00Z\", command: sync, only_between: \"22:00-06:00\", timezone: UTC}",
        "{id: often, every: 12h, command: sync, only_between: \"08:00-18:00\", timezone: UTC}",
        "{id: paused, at: \"2026-03-01T12:10:00Z\", command: sync}",
        "{id: sunday, every: 1h, command: sync, not_on: [sunday], timezone: UTC, if_running: queue}",
    ];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    let handle = moved.gateway.handle();
    let pause =
        |paused| handle.pause_schedules("mine".to_owned(), Some("paused".to_owned()), paused, "a test".to_owned());
    assert_eq!(pause(true).await, Ok(vec!["paused".to_owned()]));
    assert_eq!(pause(true).await, Ok(Vec::new()), "it was paused already");
    moved.settled().await;
    moved.until("2026-03-01T13:00:00Z").await;
    let waiting = ["night 12:05:00 expected", "often 00:00:00 expected", "paused 12:10:00 expected paused"];
    assert_eq!(moved.ticks().await[..3], waiting);
    assert_eq!(moved.ended().await, ["sunday 13:00:00 skipped not_on"]);
    let entries = moved.entries().await;
    assert_eq!(entries[0], "night active 22:00:00");
    assert_eq!(entries[2], "paused paused_manual 12:10:00");
    assert_eq!(pause(false).await, Ok(vec!["paused".to_owned()]));
    moved.settled().await;
    moved.until("2026-03-01T22:00:00Z").await;
    moved.until("2026-03-02T00:00:00Z").await;
    let ended = moved.ended().await;
    let once = ["night 12:05:00 fired", "often 00:00:00 skipped outside_window", "paused 12:10:00 fired late"];
    assert_eq!(ended[..3], once);
    // a day of `not_on` ends with the day
    assert_eq!(ended[ended.len() - 2..], ["sunday 23:00:00 skipped not_on", "sunday 00:00:00 fired"]);
    let unknown = handle.pause_schedules("mine".to_owned(), Some("nobody".to_owned()), true, "a test".to_owned()).await;
    assert!(matches!(unknown, Err(Refusal::UnknownSchedule { .. })), "{unknown:?}");
    moved.stop().await;
}

/// A pause outlives restarts and reloads, and each tick in it is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_schedule_skips_its_ticks_until_it_is_resumed() {
    let moved = Moved::start(NOON, &plugin("mine", &["{every: 10m, command: sync}"], "")).await;
    let paused = moved.gateway.handle().pause_schedules("mine".to_owned(), None, true, "a test".to_owned()).await;
    assert_eq!(paused, Ok(vec!["default".to_owned()]));
    moved.settled().await;
    moved.until("2026-03-01T12:10:00Z").await;
    let moved = moved.restarted("2026-03-01T12:15:00Z").await;
    moved.until("2026-03-01T12:20:00Z").await;
    moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    moved.settled().await;
    moved.until("2026-03-01T12:30:00Z").await;
    assert_eq!(moved.entries().await, ["default paused_manual 12:40:00"]);
    let run = moved.gateway.handle().run_schedule("mine".into(), "default".into(), "cli", "a test".into()).await;
    assert!(matches!(run, Ok(Submitted::Accepted(_))), "{run:?}");
    moved.gateway.handle().pause_schedules("mine".to_owned(), None, false, "a test".to_owned()).await.expect("resumed");
    moved.idle().await;
    moved.until("2026-03-01T12:40:00Z").await;
    let skipped = ["12:10:00", "12:20:00", "12:30:00"].map(|time| format!("default {time} skipped paused"));
    let ended = moved.ended().await;
    assert_eq!(ended[..3], skipped);
    assert_eq!(ended[3..], ["default 12:40:00 fired"]);
    assert_eq!(moved.lines("SELECT submitted_by FROM job_queue").await, ["cli", "scheduler"]);
    moved.stop().await;
}

/// SCH-23: what a reload changes begins anew, what it leaves keeps its next tick, and what it takes back is expected again
/// when it is put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_only_what_was_changed() {
    let entries = [
        "{id: changed, every: 10m, command: sync, if_running: queue}",
        "{id: kept, every: 45m, command: sync}",
        "{id: night, cron: \"30 13 * * *\", timezone: UTC, command: sync}",
        "{id: removed, every: 10m, command: sync, if_running: queue}",
    ];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.until("2026-03-01T12:10:00Z").await;
    moved.idle().await;
    moved.until("2026-03-01T12:12:00Z").await;
    let reload = async || {
        moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
        moved.settled().await;
    };
    moved.edit("id: changed, every: 10m", "id: changed, every: 4m");
    moved.edit(
        "      - {id: removed, every: 10m, command: sync, if_running: queue}\n",
        "      - {id: added, every: 10m, command: sync}\n",
    );
    moved.edit("30 13 * * *", "31 13 * * *");
    reload().await;
    assert_eq!(
        moved.ticks().await,
        [
            "added 12:22:00 expected",
            "changed 12:10:00 fired",
            "changed 12:14:00 expected",
            "changed 12:20:00 skipped replaced",
            "kept 12:45:00 expected",
            "night 13:30:00 skipped replaced",
            "night 13:31:00 expected",
            "removed 12:10:00 fired",
            "removed 12:20:00 skipped removed",
        ]
    );
    let names = ["added active 12:22:00", "changed active 12:14:00", "kept active 12:45:00", "night active 13:31:00"];
    assert_eq!(moved.entries().await, names);
    moved.edit("31 13 * * *", "30 13 * * *");
    reload().await;
    let night: Vec<_> = moved.ticks().await.into_iter().filter(|tick| tick.starts_with("night")).collect();
    assert_eq!(night, ["night 13:30:00 expected", "night 13:31:00 skipped replaced"]);
    // what is no timing changes no tick
    moved.edit("{id: kept, every: 45m, command: sync}", "{id: kept, every: 45m, command: handle, payload: {do: ok}}");
    moved.edit("command: handle", "command: poll");
    reload().await;
    assert_eq!(moved.entries().await[2], "kept active 12:45:00");
    assert_eq!(moved.lines("SELECT command FROM schedule_entries WHERE schedule_id = 'kept'").await, ["poll"]);
    moved.edit("  mine:\n    enabled: true", "  mine:\n    enabled: false");
    reload().await;
    assert_eq!(moved.count("schedule_entries").await, 0);
    assert_eq!(moved.count("schedule_ticks WHERE status = 'expected'").await, 0);
    moved.stop().await;
}

/// SCH-04, SCH-25: what can't be read is kept from firing alone; a reload brings no such thing, but lives with what was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_entry_stops_no_other() {
    let entries = ["{id: bad, cron: \"61 * * * *\", timezone: UTC}", "{id: good, every: 10m, command: sync}"];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    assert_eq!(moved.entries().await, ["bad paused_invalid never", "good active 12:10:00"]);
    assert_ne!(moved.gateway.sql_one("SELECT reason FROM schedule_entries WHERE schedule_id = 'bad'").await, "-");
    moved.until("2026-03-01T12:10:00Z").await;
    moved.idle().await;
    let handle = moved.gateway.handle();
    let run = handle.run_schedule("mine".to_owned(), "bad".to_owned(), "api", "a test".to_owned()).await;
    assert!(matches!(run, Err(Refusal::InvalidSchedule { .. })), "{run:?}");
    handle.reload("a test".to_owned()).await.expect("it was invalid before");
    moved.edit("id: good, every: 10m", "id: good, every: 10m, cron: \"* * * * *\"");
    let refused = handle.reload("a test".to_owned()).await;
    assert!(matches!(refused, Err(Refusal::InvalidConfig(_))), "{refused:?}");
    moved.edit(", cron: \"* * * * *\"", "");
    moved.edit("61 * * * *", "30 * * * *");
    handle.reload("a test".to_owned()).await.expect("all is well");
    moved.settled().await;
    assert_eq!(moved.entries().await, ["bad active 12:30:00", "good active 12:20:00"]);
    // a start goes on without it, and its tick is taken back
    moved.edit("30 * * * *", "60 * * * *");
    let moved = moved.restarted("2026-03-01T12:15:00Z").await;
    assert_eq!(moved.entries().await, ["bad paused_invalid never", "good active 12:20:00"]);
    moved.edit("60 * * * *", "30 * * * *");
    let moved = moved.restarted("2026-03-01T12:16:00Z").await;
    assert_eq!(moved.ticks().await[0], "bad 12:30:00 expected");
    moved.stop().await;
}

/// A plugin whose files are gone keeps its schedules and the place in their grids; no tick is lost in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_of_a_plugin_that_is_gone_are_accounted_for() {
    let moved = Moved::start(NOON, &plugin("mine", &["{id: m, every: 10m, command: sync}"], "")).await;
    let (here, away) = (moved.gateway.path("plugins/work"), moved.gateway.path("away"));
    std::fs::rename(&here, &away).expect("moved away");
    let moved = moved.restarted("2026-03-01T12:05:00Z").await;
    moved.until("2026-03-01T12:10:00Z").await;
    assert_eq!(moved.ticks().await, ["m 12:10:00 skipped plugin_gone", "m 12:20:00 expected"]);
    // an operator's hand is on it all the same
    for (paused, status) in [(true, "paused_manual"), (false, "active")] {
        let set = moved.gateway.handle().pause_schedules("mine".into(), Some("m".into()), paused, "a test".into());
        assert_eq!(set.await.expect("known"), ["m"]);
        moved.settled().await;
        assert_eq!(moved.entries().await, [format!("m {status} 12:20:00")]);
    }
    let run = moved.gateway.handle().run_schedule("mine".into(), "m".into(), "cli", "a test".into()).await;
    assert!(matches!(run, Err(Refusal::PluginGone(_))), "{run:?}");
    std::fs::rename(&away, &here).expect("moved back");
    let moved = moved.restarted("2026-03-01T12:15:00Z").await;
    moved.until("2026-03-01T12:20:00Z").await;
    assert_eq!(moved.ended().await[1], "m 12:20:00 fired");
    moved.stop().await;
}

/// While nothing is taken in, ticks are skipped and say so; what fires once waits for better times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_are_skipped_for_want_of_space() {
    let entries = ["{id: at, at: \"2026-03-01T12:05:00Z\", command: sync}", "{id: m, every: 10m, command: sync}"];
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    moved.edit("  path: ./ductile.db\n", "  path: ./ductile.db\n  min_free_space: 1024GB\n");
    let moved = moved.restarted("2026-03-01T12:01:00Z").await;
    if !moved.gateway.handle().health().await.reasons.iter().any(|reason| reason.contains("no new work")) {
        println!("skipped: more space is free here than can be asked for");
        return moved.stop().await;
    }
    moved.until("2026-03-01T12:05:00Z").await;
    moved.until("2026-03-01T12:10:00Z").await;
    assert_eq!(moved.ticks().await[..2], ["at 12:05:00 expected", "m 12:10:00 skipped no_space"]);
    moved.edit("  min_free_space: 1024GB\n", "  min_free_space: 0\n");
    let moved = moved.restarted("2026-03-01T12:11:00Z").await;
    moved.idle().await;
    assert_eq!(moved.ended().await[0], "at 12:05:00 fired late");
    moved.stop().await;
}

/// What schedules and breakers do is said live, with the fields by which one finds it in the tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_schedules_do_is_said_live() {
    let entries = [
        "{id: p, every: 10m, payload: {do: config}}",
        "{id: w, cron: \"20 12 * * *\", only_between: \"13:00-14:00\", timezone: UTC, command: sync}",
    ];
    let breaker =
        "    retry:\n      max_attempts: 1\n    circuit_breaker:\n      threshold: 1\n      reset_after: 2h\n";
    let moved = Moved::start(NOON, &plugin("mine", &entries, breaker)).await;
    for time in ["2026-03-01T12:10:00Z", "2026-03-01T12:20:00Z"] {
        moved.until(time).await;
        moved.idle().await;
    }
    moved.set("2026-03-01T12:45:00Z").await;
    moved.gateway.handle().reset_breaker("mine".to_owned(), "a test".to_owned()).await.expect("reset");
    let said = |kinds: &[&str]| -> Vec<String> {
        let text = |event: &serde_json::Value, key: &str| event[key].as_str().map_or("-", |text| text).to_owned();
        let line = |event: &serde_json::Value| {
            format!("{} {} {}", text(event, "type"), text(event, "schedule_id"), text(event, "reason"))
        };
        moved.events(kinds).iter().map(line).collect()
    };
    let schedules = [
        "scheduler.fired p -",
        "scheduler.skipped p breaker_open",
        "scheduler.skipped w outside_window",
        "scheduler.missed p clock_jumped",
        "scheduler.skipped p breaker_open",
    ];
    let mut told = said(&["scheduler."]);
    told[1..3].sort();
    assert_eq!(told, schedules);
    let mut first = moved.events(&["scheduler.fired"]).remove(0);
    let job = moved.gateway.sql_one("SELECT id FROM job_queue").await;
    assert!(first.as_object_mut().expect("an object").remove("at").is_some());
    let wanted = serde_json::json!({
        "type": "scheduler.fired", "plugin": "mine", "schedule_id": "p", "instant": "2026-03-01T12:10:00.000Z",
        "due_at": "2026-03-01T12:10:00.000Z", "job_id": job, "reason": null,
    });
    assert_eq!(first, wanted);
    assert_eq!(said(&["breaker."]), ["breaker.opened - failure_threshold", "breaker.closed - manual_reset"]);
    assert_eq!(said(&["poll."]), ["poll.started - -", "poll.completed - -"]);
    let jumps = moved.events(&["clock.jumped"]);
    assert_eq!((jumps.len(), &jumps[0]["by_ms"]), (1, &serde_json::json!(25 * 60 * 1_000)));
    moved.stop().await;
}

/// A schedule that should fire and of which nothing is expected is told of, and taken back when it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_falls_silent_is_heard_of() {
    let moved = Moved::start(NOON, &plugin("mine", &["{id: m, every: 10m, command: sync}"], "")).await;
    moved.lines("INSERT INTO schedule_entries (plugin, schedule_id, command, status) VALUES ('ghost', 'g', 'poll', 'active')").await;
    let handle = moved.gateway.handle();
    let is_told = async |told: bool| {
        let reasons = handle.health().await.reasons.join("; ");
        (reasons.contains("ghost/g") == told).then_some(reasons)
    };
    assert!(is_told(false).await.is_some());
    moved.pass(Duration::from_secs(120)).await;
    let reasons = moved.gateway.until("the silence is told", async || is_told(true).await).await;
    assert!(!reasons.contains("mine/m"), "{reasons}");
    handle.reload("a test".to_owned()).await.expect("reloaded");
    moved.settled().await;
    moved.gateway.until("the silence is over", async || is_told(false).await).await;
    moved.stop().await;
}

async fn caught_up(moved: &Moved) {
    caught_up_but_for(moved, 0).await;
    moved.idle().await;
}

/// Only that many ticks that are due wait.
async fn caught_up_but_for(moved: &Moved, waiting: usize) {
    let overdue = format!(
        "schedule_ticks WHERE status = 'expected' AND due_at <= '{}'",
        ductile_domain::time::format(moved.hand.now())
    );
    moved
        .gateway
        .until("the ticks have caught up", async || (moved.count(&overdue).await == waiting).then_some(()))
        .await;
    moved.settled().await;
}
