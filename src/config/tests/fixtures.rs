//! Every directory under `fixtures/` is a configuration; `expected.txt` in it is what loading it must say, exactly.
//!
//! `UPDATE_EXPECTED=1 cargo test -p ductile-config` writes the files anew; read the difference before committing it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ductile_config::{Loaded, load};
use ductile_domain::problem::Problem;

/// Texts that must never be shown; all hold this word.
const CANARY: &str = "canary";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "HOME" => "/home/me",
        "TZ" => "Australia/Sydney",
        "SECRET_CANARY" => "env-canary-0451",
        "OTHER_TOKEN" => "other-canary-0451",
        "RELAY_CANARY" => "relay-canary-0451",
        _ => return None,
    };
    Some(value.to_owned())
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
    let entries = std::fs::read_dir(&dir).expect("fixtures are there");
    let mut dirs: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    dirs.sort();
    assert!(dirs.len() > 3, "fixtures of {kind} were not found");
    dirs
}

fn compare(dir: &Path, actual: &str) {
    let shown = dir.display().to_string();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout");
    let actual = actual.replace(&shown, "<dir>").replace(&root.display().to_string(), "<checkout>");
    assert!(!actual.contains(CANARY), "a secret is shown for {shown}:\n{actual}");
    let file = dir.join("expected.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &actual).expect("writable");
    }
    let expected = std::fs::read_to_string(&file).expect("expected.txt is there");
    assert!(expected == actual, "{shown} says\n{actual}\nand not\n{expected}");
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut out, problem| {
        writeln!(out, "{problem}").expect("writing to a text");
        out
    })
}

/// CFG-08, CFG-10, CFG-23, CFG-25, CFG-26, CFG-31, AUT-06, AUT-08, QUE-32, C-77, C-80: all problems of each bad
/// configuration, each with file, line, column, field and hint, and none with a secret.
#[test]
fn every_problem_of_a_bad_configuration_is_reported_exactly() {
    for dir in fixtures("bad") {
        match load(&dir.join("config.yaml"), &env) {
            Ok(_) => panic!("{} was accepted", dir.display()),
            Err(problems) => {
                assert!(problems.iter().any(Problem::is_error), "{}", dir.display());
                compare(&dir, &lines(&problems));
            }
        }
    }
}

/// CFG-02, CFG-03, CFG-04, CFG-06, CFG-07, CFG-25, CFG-29, CFG-30, CFG-34, CLI-20: warnings and resolved document of
/// each good configuration, with defaults, without secrets.
#[test]
fn a_good_configuration_is_resolved_exactly() {
    for dir in fixtures("good") {
        resolved(&dir);
    }
}

/// SCH-03, SCH-04, SCH-05, SCH-13, SCH-25, CFG-30, BRK-02: entries of schedules that are wrong refuse no configuration;
/// each says why, and the others stand beside it. An entry's own text of the environment is shown nowhere.
#[test]
fn what_is_wrong_with_a_schedule_is_said_and_leaves_the_others_in_force() {
    for dir in fixtures("schedules") {
        let loaded = resolved(&dir);
        for schedule in loaded.config.plugins.values().flat_map(|entry| &entry.schedules) {
            let path = format!("plugins.{}.schedules[{}]", schedule.plugin, schedule.index);
            let is_told = loaded.warnings.iter().any(|problem| {
                let at = problem.path.as_deref().and_then(|at| at.strip_prefix(&path));
                problem.is_error() && at.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            let is_enabled = loaded.config.wants(&schedule.plugin);
            assert_eq!(schedule.timing.is_err() && is_enabled, is_told, "{path} of {}", dir.display());
        }
    }
}

/// Compares warnings and resolved document with what is expected.
fn resolved(dir: &Path) -> Loaded {
    let loaded = load(&dir.join("config.yaml"), &env).unwrap_or_else(|p| panic!("{}:\n{}", dir.display(), lines(&p)));
    let Loaded { config, warnings, .. } = &loaded;
    let mut sanitized = config.source.sanitized.clone();
    // The only default that depends on the machine.
    if dir.ends_with("empty") {
        sanitized["service"]["max_workers"] = "depends on the machine".into();
    }
    let reasons = config.plugins.values().flat_map(|entry| &entry.schedules).filter_map(|schedule| {
        let why = schedule.timing.as_ref().err()?;
        Some(format!("{} {} is invalid: {why}\n", schedule.plugin, schedule.id))
    });
    let reasons: String = reasons.collect();
    let document = serde_json::to_string_pretty(&sanitized).expect("JSON");
    compare(dir, &format!("{}{reasons}{document}\n", lines(warnings)));
    let debug = format!("{loaded:?}");
    assert!(!debug.contains(CANARY), "a secret is in the debug output of {}", dir.display());
    loaded
}
