//! Schedules by the real clock: what is enqueued when, what becomes of ticks that can't fire, and what operators see of it.
//!
//! Intervals are short, and nothing is asserted of how late a tick fires: only of instants, of order and of ends.

use std::collections::HashSet;
use std::fs;

use ductile_domain::time::{self, Timestamp};
use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::{Builder, Gateway};
use crate::scenarios::{Recording, recording};

pub(crate) const OK: &str = "printf '{\"status\":\"ok\"}'";

/// Keeps running until the test puts the file `go` there.
const UNTIL_GO: &str = "while [ ! -e \"$DUCTILE_TEST_DIR/go\" ]; do sleep 0.02; done\nprintf '{\"status\":\"ok\"}'";

/// The keys of a plugin's entry with these schedules, each a map in one line.
pub(crate) fn schedules(entries: &[&str]) -> String {
    let lines: String = entries.iter().map(|entry| format!("      - {{{entry}}}\n")).collect();
    format!("    schedules:\n{lines}")
}

/// One plugin that answers ok, with these schedules.
pub(crate) fn scheduled(plugin: &str, entries: &[&str]) -> Builder {
    Gateway::new().script_with(plugin, OK, &schedules(entries))
}

fn parsed(text: &str) -> Timestamp {
    time::parse(text).unwrap_or_else(|| panic!("{text:?} is no time"))
}

/// A number from the ledger.
pub(crate) fn count(gateway: &Gateway, of: &str) -> u32 {
    gateway.sql_one(&format!("SELECT count(*) FROM {of}")).parse().expect("a number")
}

/// Waits until there are so many rows.
pub(crate) fn await_rows(gateway: &Gateway, of: &str, at_least: u32) {
    gateway.until_some(&format!("{at_least} of {of}"), |g| (count(g, of) >= at_least).then_some(()));
}

/// Promise 4, guarantees.md: of whatever has happened to a gateway, every tick has one row with an end and a reason, every job of
/// the scheduler has one tick, and no instant of a grid is missing.
pub(crate) fn accounted(gateway: &Gateway) {
    let wrong = |what: &str, query: &str| {
        let rows = gateway.sql(query);
        assert!(rows.is_empty(), "{what}: {rows:?}");
    };
    wrong(
        "two ticks of one identity",
        "SELECT plugin, schedule_id, fingerprint, instant FROM schedule_ticks GROUP BY 1, 2, 3, 4 HAVING count(*) > 1",
    );
    wrong("ended, and no time", "SELECT * FROM schedule_ticks WHERE (status = 'expected') <> (ended_at IS NULL)");
    wrong(
        "no reason",
        "SELECT * FROM schedule_ticks WHERE status IN ('skipped', 'missed') AND coalesce(reason, '') = ''",
    );
    wrong(
        "fired without its job",
        "SELECT t.* FROM schedule_ticks t LEFT JOIN job_queue q ON q.id = t.job_id
         WHERE t.status IN ('fired', 'caught_up') AND (q.id IS NULL OR q.submitted_by <> 'scheduler' OR q.requested_by <> t.schedule_id
            OR q.plugin <> t.plugin OR q.created_at < t.due_at)",
    );
    wrong(
        "a job of no tick, or of two",
        "SELECT q.id, count(t.id) FROM job_queue q LEFT JOIN schedule_ticks t ON t.job_id = q.id AND t.status IN ('fired', 'caught_up')
         WHERE q.submitted_by = 'scheduler' GROUP BY q.id HAVING count(t.id) <> 1",
    );
    wrong(
        "an active schedule that expects nothing",
        "SELECT * FROM schedule_entries e WHERE status = 'active' AND NOT EXISTS
            (SELECT 1 FROM schedule_ticks t WHERE t.plugin = e.plugin AND t.schedule_id = e.schedule_id AND t.fingerprint = e.fingerprint
             AND t.status = 'expected')",
    );
}

/// Asserts that the instants of a schedule follow each other at this distance, from the first to the last; answers how many.
pub(crate) fn unbroken(gateway: &Gateway, plugin: &str, every_ms: i64) -> usize {
    unbroken_of(gateway, &format!("plugin = '{plugin}'"), every_ms)
}

pub(crate) fn unbroken_of(gateway: &Gateway, which: &str, every_ms: i64) -> usize {
    let rows = gateway.sql(&format!(
        "SELECT instant, coalesce(last_instant, instant), instants FROM schedule_ticks WHERE {which} ORDER BY instant"
    ));
    for pair in rows.windows(2) {
        let gap = (parsed(&pair[1][0]) - parsed(&pair[0][1])).num_milliseconds();
        assert_eq!(gap, every_ms, "between {:?} and {:?}", pair[0], pair[1]);
    }
    for row in &rows {
        let span = (parsed(&row[1]) - parsed(&row[0])).num_milliseconds();
        assert_eq!((span / every_ms + 1).to_string(), row[2], "{row:?}");
    }
    rows.len()
}

/// SCH-01, SCH-21, SCH-22, SCH-24, SCH-18: a schedule's jobs come at its instants with its payload, and the entry's row tells of them.
#[test]
fn an_interval_fires_at_its_instants_with_its_payload() {
    let gateway = recording()
        .keeps("beat", OK, &schedules(&["id: pulse, every: 2s, payload: {source: clock, nested: {n: 7}}"]))
        .start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 3);
    gateway.until_some("the third job has ended", |g| {
        (count(g, "job_queue WHERE status = 'succeeded'") >= 3).then_some(())
    });
    let rows = gateway.sql(
        "SELECT t.instant, q.submitted_by, q.requested_by, q.command, q.dedupe_key, q.id FROM schedule_ticks t
         JOIN job_queue q ON q.id = t.job_id WHERE t.status = 'fired' ORDER BY t.instant LIMIT 3",
    );
    for row in &rows {
        assert_eq!(row[1..4], ["scheduler", "pulse", "poll"]);
        assert_eq!(row[4], format!("schedule:beat:pulse:{}", row[0]), "SCH-18");
        let request: Value =
            serde_json::from_str(&fs::read_to_string(gateway.path("requests").join(&row[5])).expect("kept"))
                .expect("JSON");
        assert_eq!(request["payload"], json!({"source": "clock", "nested": {"n": 7}}));
    }
    assert!(unbroken(&gateway, "beat", 2000) >= 3);
    let entry = gateway.sql(
        "SELECT status, last_fired_at IS NOT NULL, last_success_at IS NOT NULL, last_success_job_id, next_run_at, reason
         FROM schedule_entries WHERE plugin = 'beat' AND schedule_id = 'pulse'",
    );
    assert_eq!(entry[0][..3], ["active", "1", "1"], "{entry:?}");
    assert_eq!(count(&gateway, &format!("job_queue WHERE id = '{}' AND status = 'succeeded'", entry[0][3])), 1);
    // SCH-24: the documented query.
    let upcoming = gateway.sql(
        "SELECT plugin, schedule_id, next_run_at, last_success_at FROM schedule_entries WHERE status='active' ORDER BY next_run_at",
    );
    assert_eq!((upcoming.len(), upcoming[0][1].as_str()), (1, "pulse"), "{upcoming:?}");
    accounted(&gateway);
}

/// SCH-02: neither a stop nor a kill moves the next run, nor does a start fire one that is not due.
#[test]
fn a_restart_moves_no_next_run() {
    let mut gateway = scheduled("slow", &["id: hourly, every: 1h", "id: nightly, cron: '30 3 * * *'"]).start();
    let next =
        |g: &Gateway| g.sql("SELECT schedule_id, next_run_at, anchor_at FROM schedule_entries ORDER BY schedule_id");
    gateway.until_some("both are there", |g| (next(g).len() == 2).then_some(()));
    let before = next(&gateway);
    assert!(before.iter().all(|row| row[1] != "-"), "{before:?}");
    for round in 0..2 {
        if round == 0 {
            gateway.kill_nine();
        } else {
            assert_eq!(gateway.stop(), 0);
        }
        gateway.start();
        let scheduler = |g: &Gateway| g.get("/system/actors/root%2Fflow_sup%2Fscheduler");
        gateway.until_some("the scheduler is up", |g| (scheduler(g)["phase"] == "up").then_some(()));
        assert_eq!(next(&gateway), before, "round {round}");
    }
    assert_eq!((count(&gateway, "schedule_ticks"), count(&gateway, "job_queue")), (2, 0));
    accounted(&gateway);
}

/// SCH-03, SCH-04, SCH-19, SCH-25: an entry that can't be a schedule fails the check and is paused, and the others go on.
#[test]
fn an_invalid_entry_stops_no_other() {
    let bad = schedules(&[
        "id: both, every: 1h, cron: '0 9 * * *'",
        "id: none",
        "id: odd, cron: '61 * * * *'",
        "id: handled, command: handle, every: 1h",
        "id: unknown, command: pole, every: 1h",
        "id: fine, every: 1s",
    ]);
    let mut gateway =
        Gateway::new().script_with("mixed", OK, &bad).script_with("other", OK, &schedules(&["every: 1s"])).prepare();
    let (code, stdout, stderr) = said(&gateway.cli(&["config", "check"]));
    let told = format!("{stdout}{stderr}");
    assert_eq!(code, 78, "{told}");
    for place in ["schedules[0]", "schedules[1]", "schedules[2].cron", "schedules[3].command", "schedules[4].command"] {
        assert!(told.contains(place), "{place} is not named: {told}");
    }
    gateway.start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired' AND plugin = 'other'", 2);
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired' AND schedule_id = 'fine'", 1);
    let entries = gateway
        .sql("SELECT schedule_id, status, reason FROM schedule_entries WHERE plugin = 'mixed' ORDER BY schedule_id");
    let paused: Vec<_> = entries.iter().filter(|row| row[1] == "paused_invalid").map(|row| row[0].as_str()).collect();
    assert_eq!(paused, ["both", "handled", "none", "odd", "unknown"], "{entries:?}");
    assert!(entries.iter().all(|row| (row[1] == "active") == (row[2] == "-")), "each says why: {entries:?}");
    assert_eq!(count(&gateway, "schedule_ticks WHERE schedule_id IN ('both', 'none', 'odd', 'handled', 'unknown')"), 0);
    assert_eq!(gateway.sql_one("SELECT schedule_id FROM schedule_entries WHERE plugin = 'other'"), "default", "SCH-03");
    accounted(&gateway);
}

/// SCH-08, D-29: a time fires once ever; one that was past when it was first seen never does, and the log says so.
#[test]
fn a_time_fires_once_ever() {
    let soon = time::format(chrono_now() + std::time::Duration::from_secs(3));
    let entry = format!("id: once, at: '{soon}'");
    let mut gateway = scheduled("reminder", &[&entry, "id: past, at: '2020-01-01T00:00:00+10:00'"]).start();
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'once' AND status = 'fired'", 1);
    let statuses = |g: &Gateway| g.sql("SELECT schedule_id, status FROM schedule_entries ORDER BY schedule_id");
    let exhausted = [["once", "exhausted"], ["past", "exhausted"]];
    assert_eq!(statuses(&gateway), exhausted);
    assert!(gateway.logs().lines().any(|line| line.contains("WARN") && line.contains("past")), "{}", gateway.logs());
    assert_eq!(gateway.sql_one("SELECT instant FROM schedule_ticks WHERE schedule_id = 'once'"), soon);
    for _ in 0..2 {
        gateway.kill_nine();
        gateway.start();
        assert_eq!(gateway.request("POST", "/system/reload", None).status, 200);
    }
    assert_eq!(statuses(&gateway), exhausted);
    assert_eq!(count(&gateway, "job_queue"), 1);
    accounted(&gateway);
}

fn chrono_now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

/// SCH-09, D-29: a delay fires once after each start, not after a reload.
#[test]
fn a_delay_is_armed_by_each_start() {
    let mut gateway = scheduled("boot", &["id: hello, after: 1s"]).start();
    for round in 1..=3 {
        await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", round);
        assert_eq!(gateway.request("POST", "/system/reload", None).status, 200);
        assert_eq!(gateway.sql_one("SELECT status FROM schedule_entries"), "exhausted");
        assert_eq!(gateway.stop(), 0);
        assert_eq!((count(&gateway, "schedule_ticks"), count(&gateway, "job_queue")), (round, round));
        gateway.start();
    }
    accounted(&gateway);
}

/// SCH-14, SCH-15: of the instants that passed while the gateway was down none, one or each gets a job, and a second restart adds none.
#[test]
fn missed_instants_are_caught_up_as_the_entry_says() {
    let mut builder = Gateway::new();
    for policy in ["skip", "run_once", "run_all"] {
        builder = builder.script_with(policy, OK, &schedules(&[&format!("id: s, every: 1s, catch_up: {policy}")]));
    }
    let mut gateway = builder.start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 3);
    gateway.kill_nine();
    let expected = gateway.sql_one("SELECT max(due_at) FROM schedule_ticks WHERE status = 'expected'");
    let passed = parsed(&expected) + std::time::Duration::from_secs(3);
    gateway.until_some("three instants and one have passed", |_| (chrono_now() > passed).then_some(()));
    let down = "status IN ('missed', 'caught_up')";
    for _ in 0..3 {
        gateway.start();
        gateway.until_some("nothing waits to be caught up", |g| {
            let seen = count(g, &format!("schedule_ticks WHERE {down} AND plugin = 'run_all'")) >= 4;
            let waits = "schedule_ticks WHERE status = 'expected' AND due_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 second')";
            (seen && count(g, waits) == 0).then_some(())
        });
        gateway.kill_nine();
    }
    accounted(&gateway);
    for policy in ["skip", "run_once", "run_all"] {
        unbroken(&gateway, policy, 1000);
        let of = |status: &str| {
            count(
                &gateway,
                &format!(
                    "schedule_ticks WHERE plugin = '{policy}' AND status = '{status}' AND instant <= '{}'",
                    time::format(passed)
                ),
            )
        };
        let (missed, caught_up) = (of("missed"), of("caught_up"));
        assert!(missed + caught_up >= 4, "{policy}: {missed} and {caught_up}");
        match policy {
            "skip" => assert_eq!(caught_up, 0),
            "run_once" => assert_eq!(caught_up, 1, "{missed} missed"),
            _ => assert_eq!(missed, 0, "{caught_up} caught up"),
        }
    }
    let reasons = gateway.sql("SELECT DISTINCT reason FROM schedule_ticks WHERE status = 'missed'");
    assert_eq!(reasons, [["gateway_down"]]);
    let keys = gateway.sql("SELECT q.dedupe_key, t.plugin, t.instant FROM schedule_ticks t JOIN job_queue q ON q.id = t.job_id WHERE t.status = 'caught_up'");
    for row in keys {
        assert_eq!(row[0], format!("catchup:{}:s:{}", row[1], row[2]), "SCH-15");
    }
}

/// SCH-16, D-13: while a job is in flight a tick is skipped, queued behind it, or takes its place.
#[test]
fn a_tick_beside_a_running_job_does_as_its_policy_says() {
    let mut builder = recording();
    for (policy, guard) in [("skip", 1), ("queue", 2), ("cancel", 1)] {
        let keys = format!(
            "    env_passthrough: [DUCTILE_TEST_DIR]\n    max_outstanding_polls: {guard}\n{}",
            schedules(&[&format!("id: s, every: 1s, if_running: {policy}")])
        );
        builder = builder.script_with(policy, UNTIL_GO, &keys);
    }
    let gateway = builder.service("  max_workers: 4\n").start();
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'skip' AND status = 'skipped'", 2);
    await_rows(&gateway, "schedule_ticks WHERE plugin = 'queue' AND status = 'skipped'", 2);
    await_rows(&gateway, "job_queue WHERE plugin = 'cancel' AND status = 'dead'", 2);

    let reasons = |plugin: &str| {
        gateway.sql(&format!(
            "SELECT DISTINCT status, reason FROM schedule_ticks WHERE plugin = '{plugin}' AND status = 'skipped'"
        ))
    };
    assert_eq!(count(&gateway, "job_queue WHERE plugin = 'skip'"), 1);
    assert_eq!(reasons("skip"), [["skipped", "running"]]);
    assert_eq!(count(&gateway, "job_queue WHERE plugin = 'queue'"), 2, "up to the guard");
    assert_eq!(reasons("queue"), [["skipped", "guard"]], "SCH-17");
    let dead = gateway.sql("SELECT DISTINCT last_error FROM job_queue WHERE plugin = 'cancel' AND status = 'dead'");
    assert_eq!(dead, [["cancelled: superseded by schedule s"]]);
    assert!(
        count(
            &gateway,
            "job_queue WHERE plugin = 'cancel' AND status IN ('queued', 'running') AND cancel_requested_at IS NULL"
        ) <= 1
    );
    fs::write(gateway.path("go"), "").expect("the mark");
    await_rows(&gateway, "job_queue WHERE plugin = 'skip' AND status = 'succeeded'", 2);
    accounted(&gateway);
}

/// SCH-17: whoever asked for them, no scheduled poll joins as many as the guard allows.
#[test]
fn the_guard_counts_polls_of_others_too() {
    let keys =
        format!("    env_passthrough: [DUCTILE_TEST_DIR]\n{}", schedules(&["id: s, every: 1s, if_running: queue"]));
    let gateway = recording().script_with("busy", UNTIL_GO, &keys).prepare();
    let mut gateway = gateway;
    gateway.start();
    let asked = gateway.enqueue("busy", "poll", "{}");
    await_rows(&gateway, "schedule_ticks WHERE status = 'skipped' AND reason = 'guard'", 3);
    assert!(count(&gateway, "job_queue WHERE status IN ('queued', 'running') AND submitted_by = 'scheduler'") <= 1);
    fs::write(gateway.path("go"), "").expect("the mark");
    assert_eq!(gateway.finished(&asked)["status"], "succeeded");
    await_rows(&gateway, "job_queue WHERE submitted_by = 'scheduler' AND status = 'succeeded'", 2);
    accounted(&gateway);
}

/// SCH-20: a plugin without schedules is none of the scheduler's, and is called as ever.
#[test]
fn a_plugin_without_schedules_is_called_as_ever() {
    let gateway = scheduled("timed", &["every: 1s"]).plugin("echo").start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 1);
    assert_eq!(count(&gateway, "schedule_entries WHERE plugin = 'echo'"), 0);
    let id = gateway.enqueue("echo", "poll", "{}");
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
}

fn edit(gateway: &Gateway, from: &str, to: &str) {
    let path = gateway.path("config.yaml");
    let text = fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{from:?} is not in the configuration:\n{text}");
    fs::write(path, text.replace(from, to)).expect("the configuration");
}

/// SCH-23: a reload changes, removes and adds schedules, and leaves those alone that stay as they are.
#[test]
fn a_reload_changes_only_what_was_changed() {
    // Those that are due together must not wait for each other's jobs.
    let entries = ["id: kept, every: 1h", "id: changed, every: 2h, if_running: queue", "id: removed, every: 1s"];
    let keys = format!("    max_outstanding_polls: 100\n{}", schedules(&entries));
    let gateway = Gateway::new().script_with("p", OK, &keys).start();
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'removed' AND status = 'fired'", 1);
    let of = |id: &str| {
        gateway.sql(&format!(
            "SELECT next_run_at, anchor_at, fingerprint FROM schedule_entries WHERE schedule_id = '{id}'"
        ))
    };
    let (kept, changed) = (of("kept"), of("changed"));
    edit(&gateway, "every: 2h", "every: 1s");
    edit(&gateway, "{id: removed, every: 1s}", "{id: added, every: 1s, if_running: queue}");
    let answer = gateway.request("POST", "/system/reload", None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    for id in ["changed", "added"] {
        await_rows(&gateway, &format!("schedule_ticks WHERE schedule_id = '{id}' AND status = 'fired'"), 2);
    }
    assert_eq!(of("kept"), kept);
    assert_ne!(of("changed")[0][2], changed[0][2], "another timing has another fingerprint");
    assert_eq!(of("removed"), Vec::<Vec<String>>::new());
    let ends = gateway.sql(
        "SELECT schedule_id, status, reason FROM schedule_ticks WHERE reason IN ('removed', 'replaced') ORDER BY schedule_id",
    );
    assert_eq!(ends, [["changed", "skipped", "replaced"], ["removed", "skipped", "removed"]]);
    assert_eq!(count(&gateway, "schedule_ticks WHERE schedule_id = 'removed' AND status = 'expected'"), 0);
    // A reload that would break a schedule is refused, and the schedules go on.
    edit(&gateway, "{id: added, every: 1s,", "{id: added, every: often,");
    let answer = gateway.request("POST", "/system/reload", None);
    assert_eq!(answer.status, 422, "{}", answer.body);
    let fired = count(&gateway, "schedule_ticks WHERE schedule_id = 'added' AND status = 'fired'");
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'added' AND status = 'fired'", fired + 2);
    accounted(&gateway);
}

/// Leaves out today and tomorrow, for a test that runs at midnight.
fn not_today() -> String {
    let days = ["sun", "Monday", "2", "wed", "thursday", "FRI", "6"];
    let today = usize::try_from(chrono_now().timestamp() / 86_400 + 4).expect("after 1970") % 7;
    format!("timezone: UTC, not_on: [{}, {}]", days[today], days[(today + 1) % 7])
}

/// SCH-11, SCH-12: outside of its window or on a day that is left out, a tick is skipped and says why.
#[test]
fn a_closed_window_skips_ticks() {
    // Two windows of two minutes, twelve hours apart: at least one of them is closed now, and stays so for the test.
    let entries: [&str; 4] = [
        "id: noon, every: 1s, timezone: UTC, only_between: '11:59-12:01'",
        "id: midnight, every: 1s, timezone: UTC, only_between: '23:59-00:01'",
        &format!("id: never, every: 1s, {}", not_today()),
        "id: always, every: 1s, timezone: UTC, only_between: '00:00-23:59', not_on: []",
    ];
    let gateway = scheduled("p", &entries).start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'skipped' AND schedule_id = 'never'", 2);
    await_rows(&gateway, "schedule_ticks WHERE status = 'skipped' AND schedule_id IN ('noon', 'midnight')", 2);
    let reasons =
        gateway.sql("SELECT DISTINCT reason FROM schedule_ticks WHERE schedule_id = 'never' AND status = 'skipped'");
    assert_eq!(reasons, [["not_on"]]);
    let reasons = gateway.sql(
        "SELECT DISTINCT reason FROM schedule_ticks WHERE schedule_id IN ('noon', 'midnight') AND status = 'skipped' AND reason <> 'running'",
    );
    assert_eq!(reasons, [["outside_window"]]);
    assert_eq!(count(&gateway, "job_queue WHERE requested_by = 'never'"), 0);
    accounted(&gateway);
}

/// CLI: `schedule list|explain|pause|resume|run`, and the doors behind them.
#[test]
fn operators_list_explain_pause_resume_and_run_schedules() {
    let mut gateway = recording()
        .keeps(
            "p",
            OK,
            &schedules(&[
                "id: fast, every: 1s",
                "id: nightly, cron: '30 2 * * *', timezone: Australia/Sydney, payload: {by: hand}",
            ]),
        )
        .start();
    await_rows(&gateway, "schedule_ticks WHERE status = 'fired'", 2);
    let (code, text, stderr) = said(&gateway.cli(&["schedule", "list"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(text.contains("fast") && text.contains("nightly"), "{text}");
    let jobs = gateway.get("/scheduler/jobs");
    let find = |id: &str| {
        jobs["jobs"].as_array().expect("a list").iter().find(|j| j["schedule_id"] == id).expect("listed").clone()
    };
    let (fast, nightly) = (find("fast"), find("nightly"));
    assert_eq!(
        (&fast["plugin"], &fast["command"], &fast["mode"], &fast["status"]),
        (&json!("p"), &json!("poll"), &json!("every"), &json!("active"))
    );
    assert_eq!((&nightly["mode"], &nightly["timezone"]), (&json!("cron"), &json!("Australia/Sydney")));
    assert!(nightly["next_run_at"].is_string(), "{nightly}");
    let ticks = gateway.get("/scheduler/ticks?plugin=p&schedule=fast&status=fired&limit=1");
    assert_eq!(ticks["ticks"].as_array().map(Vec::len), Some(1), "{ticks}");

    let (code, text, stderr) = said(&gateway.cli(&["schedule", "explain", "p", "nightly"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(text.contains("Australia/Sydney") && text.contains("02:30"), "{text}");
    let explained = gateway.cli_json(&["schedule", "explain", "p", "fast", "--json"]);
    assert!(explained.to_string().contains("fired"), "{explained}");

    let (code, _, stderr) = said(&gateway.cli(&["schedule", "pause", "p", "fast"]));
    assert_eq!(code, 0, "{stderr}");
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'fast' AND status = 'skipped' AND reason = 'paused'", 2);
    assert_eq!(gateway.sql_one("SELECT status FROM schedule_entries WHERE schedule_id = 'fast'"), "paused_manual");
    let fired = count(&gateway, "schedule_ticks WHERE schedule_id = 'fast' AND status = 'fired'");
    gateway.kill_nine();
    gateway.start();
    assert_eq!(gateway.request("POST", "/system/reload", None).status, 200);
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'fast' AND status = 'skipped' AND reason = 'paused'", 4);
    assert_eq!(
        count(&gateway, "schedule_ticks WHERE schedule_id = 'fast' AND status = 'fired'"),
        fired,
        "paused it stays"
    );
    let (code, _, stderr) = said(&gateway.cli(&["schedule", "resume", "p"]));
    assert_eq!(code, 0, "{stderr}");
    await_rows(&gateway, "schedule_ticks WHERE schedule_id = 'fast' AND status = 'fired'", fired + 2);

    let before: HashSet<_> =
        gateway.sql("SELECT id FROM job_queue WHERE submitted_by <> 'scheduler'").into_iter().flatten().collect();
    let (code, _, stderr) = said(&gateway.cli(&["schedule", "run", "p", "nightly"]));
    assert_eq!(code, 0, "{stderr}");
    let ran: Vec<_> = gateway
        .sql("SELECT id, command, payload FROM job_queue WHERE submitted_by <> 'scheduler'")
        .into_iter()
        .filter(|row| !before.contains(&row[0]))
        .collect();
    assert_eq!(ran.len(), 1, "{ran:?}");
    assert_eq!((ran[0][1].as_str(), ran[0][2].contains("\"by\"")), ("poll", true));
    assert_eq!(gateway.finished(&ran[0][0])["status"], "succeeded");
    assert_eq!(count(&gateway, "schedule_ticks WHERE schedule_id = 'nightly'"), 1, "running it by hand is no tick");
    for args in [["schedule", "explain", "p", "nothing"], ["schedule", "run", "nobody", "fast"]] {
        let (code, _, stderr) = said(&gateway.cli(&args));
        assert_eq!(code, 1, "{args:?}: {stderr}");
    }
    accounted(&gateway);
}

/// Live events of the scheduler name the schedule, its instant and the job.
#[test]
fn ticks_are_told_live() {
    let gateway = scheduled("p", &["id: a, every: 1s", &format!("id: b, every: 1s, {}", not_today())]).start();
    let is = |event: &Value, kind: &str, id: &str| event["type"] == kind && event["schedule_id"] == id;
    let events = gateway.events_since(0, |seen| {
        seen.iter().any(|e| is(e, "scheduler.fired", "a")) && seen.iter().any(|e| is(e, "scheduler.skipped", "b"))
    });
    let fired = events.iter().find(|e| is(e, "scheduler.fired", "a")).expect("seen");
    let job = fired["job_id"].as_str().expect("its job");
    assert_eq!(
        gateway.sql_one(&format!("SELECT instant FROM schedule_ticks WHERE job_id = '{job}'")),
        fired["instant"].as_str().expect("its instant")
    );
    let skipped = events.iter().find(|e| is(e, "scheduler.skipped", "b")).expect("seen");
    assert_eq!(skipped["reason"], "not_on", "{skipped}");
}
