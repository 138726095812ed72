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
    assert!(dirs.len() > 4, "fixtures of {kind} were not found");
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
        let loaded =
            load(&dir.join("config.yaml"), &env).unwrap_or_else(|p| panic!("{}:\n{}", dir.display(), lines(&p)));
        let Loaded { config, warnings, .. } = &loaded;
        let mut sanitized = config.source.sanitized.clone();
        // The only default that depends on the machine.
        if dir.ends_with("empty") {
            sanitized["service"]["max_workers"] = "depends on the machine".into();
        }
        let document = serde_json::to_string_pretty(&sanitized).expect("JSON");
        compare(&dir, &format!("{}{document}\n", lines(warnings)));
        let debug = format!("{loaded:?}");
        assert!(!debug.contains(CANARY), "a secret is in the debug output of {}", dir.display());
    }
}
