//! Schedules against the plugins they name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::config::{Config, PluginEntry};
use ductile_domain::manifest::{Command, CommandType, Manifest, PROTOCOL};
use ductile_domain::problem::Problem;
use ductile_domain::schedule::{CatchUp, Cron, IfRunning, Rule, Schedule, Schedules, Timing, Weekdays, Window};

fn schedule(index: usize, id: &str, command: &str, rule: Rule) -> Schedule {
    Schedule {
        plugin: "p".into(),
        index,
        id: id.into(),
        command: command.into(),
        payload: None,
        timing: Timing::new(rule, Duration::ZERO, Tz::UTC, None, Weekdays::default()),
        catch_up: CatchUp::Skip,
        if_running: IfRunning::Skip,
    }
}

fn hourly() -> Rule {
    Rule::Every(Duration::from_secs(3_600))
}

fn compile(entry: PluginEntry, schedules: Vec<Schedule>, is_found: bool) -> (Schedules, Vec<Problem>) {
    let manifest = Manifest {
        name: "p".to_owned(),
        version: "1".into(),
        protocol: PROTOCOL,
        entrypoint: "run".into(),
        description: None,
        commands: ["poll", "handle", "health", "init", "digest"].map(|c| Command::new(c, CommandType::Write)).into(),
        required_config: Vec::new(),
        optional_config: Vec::new(),
        concurrency_safe: true,
        max_subs: 32,
        fact_outputs: Vec::new(),
    };
    let discovered = Discovered { manifest: Arc::new(manifest), dir: "/p".into(), entrypoint: "/p/run".into() };
    let found: BTreeMap<_, _> = is_found.then(|| ("p".to_owned(), discovered)).into_iter().collect();
    let entry = PluginEntry { schedules: schedules.into_iter().map(Arc::new).collect(), ..entry };
    let config = Config { plugins: [("p".to_owned(), entry)].into(), ..Config::default() };
    let (catalog, _) = Catalog::build(&config, &found);
    Schedules::compile(&config, &catalog)
}

/// SCH-19, C-17, SCH-25: what can't be run is refused by itself, with its place; the others stand.
#[test]
fn commands_that_do_not_exist_or_may_not_be_scheduled_are_refused() {
    let schedules = vec![
        schedule(0, "good", "poll", hourly()),
        schedule(1, "h", "handle", hourly()),
        schedule(2, "hh", "health", hourly()),
        schedule(3, "slip", "digset", hourly()),
        schedule(4, "far", "compact", hourly()),
        schedule(5, "init", "init", hourly()),
    ];
    let (compiled, problems) = compile(PluginEntry::default(), schedules, true);
    let seen: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        seen,
        [
            "ERROR [schedule] plugins.p.schedules[1].command: `handle` answers events and can't be scheduled (write one of poll, init, digest)",
            "ERROR [schedule] plugins.p.schedules[2].command: `health` runs on demand and can't be scheduled (write one of poll, init, digest)",
            "ERROR [schedule] plugins.p.schedules[3].command: plugin \"p\" has no command \"digset\" (did you mean `digest`?)",
            "ERROR [schedule] plugins.p.schedules[4].command: plugin \"p\" has no command \"compact\" (write one of poll, init, digest)",
        ]
    );
    assert_eq!(compiled.len(), 6);
    let why = |id: &str| compiled.get("p", id).expect("kept").timing.clone().err();
    assert_eq!((why("good"), why("init")), (None, None));
    assert_eq!(why("h").as_deref(), Some("`handle` answers events and can't be scheduled"));
}

/// Two things may be wrong with one entry.
#[test]
fn an_entry_that_cannot_be_read_keeps_its_reason_and_gets_another() {
    let broken = Schedule { timing: Err("cron: no".to_owned()), ..schedule(0, "a", "handle", hourly()) };
    let unread = Schedule { timing: Err("cron: no".to_owned()), ..schedule(1, "b", "poll", hourly()) };
    let (compiled, problems) = compile(PluginEntry::default(), vec![broken, unread], true);
    assert_eq!(problems.len(), 1);
    let why = |id: &str| compiled.get("p", id).expect("kept").timing.clone().err();
    assert_eq!(why("a").as_deref(), Some("cron: no; `handle` answers events and can't be scheduled"));
    assert_eq!(why("b").as_deref(), Some("cron: no"));
}

#[test]
fn plugins_that_do_not_run_have_no_schedules() {
    let schedules = || vec![schedule(0, "a", "handle", hourly())];
    let disabled = PluginEntry { enabled: false, ..PluginEntry::default() };
    for (entry, is_found) in [(disabled, true), (PluginEntry::default(), false)] {
        let (compiled, problems) = compile(entry, schedules(), is_found);
        assert!(compiled.is_empty() && problems.is_empty(), "{problems:?}");
    }
}

/// C-18: the guard is the harder word.
#[test]
fn a_queue_of_polls_behind_a_guard_of_one_is_doubted() {
    let queue = |command| vec![Schedule { if_running: IfRunning::Queue, ..schedule(0, "a", command, hourly()) }];
    let guard = |max_outstanding_polls| PluginEntry { max_outstanding_polls, ..PluginEntry::default() };
    let (compiled, problems) = compile(guard(1), queue("poll"), true);
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "WARN  [schedule] plugins.p.schedules[0].if_running: `if_running: queue` has no effect on `poll` while `max_outstanding_polls` is 1 (raise plugins.p.max_outstanding_polls, or remove `if_running`)"
        ]
    );
    assert!(compiled.get("p", "a").is_some_and(|s| s.timing.is_ok()));
    assert!(compile(guard(2), queue("poll"), true).1.is_empty());
    assert!(compile(guard(1), queue("digest"), true).1.is_empty());
}

#[test]
fn an_expression_that_is_always_closed_is_doubted() {
    let doubts = |text: &str, window: &str, day: &str| {
        let rule = Rule::Cron(Cron::parse(text).expect("valid"));
        let window = (!window.is_empty()).then(|| Window::parse(window).expect("a window"));
        let not_on = Weekdays::day(day).into_iter().collect();
        let timing = Timing::new(rule.clone(), Duration::ZERO, Tz::UTC, window, not_on);
        let one = Schedule { timing, ..schedule(0, "a", "poll", rule) };
        let (compiled, problems) = compile(PluginEntry::default(), vec![one], true);
        assert!(compiled.get("p", "a").is_some_and(|s| s.timing.is_ok()) && problems.iter().all(|p| !p.is_error()));
        problems.len()
    };
    assert_eq!(doubts("0 7 * * *", "08:00-18:00", ""), 1);
    assert_eq!(doubts("0 7-8 * * *", "08:00-18:00", ""), 0);
    assert_eq!(doubts("0 9 * * 7", "", "sun"), 1);
    assert_eq!(doubts("0 9 * * 6,7", "", "sun"), 0);
    // A thirteenth is no Sunday always.
    assert_eq!(doubts("0 9 13 * 0", "", "sun"), 0);
    assert_eq!(doubts("0 9 * * *", "", ""), 0);
}
