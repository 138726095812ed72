//! Every directory under `fixtures/pipelines/` is a configuration; `expected.txt` in it is what compiling it must say,
//! exactly.
//!
//! `UPDATE_EXPECTED=1 cargo test -p ductile-config` writes the files anew; read the difference before committing it.

use std::path::Path;

use ductile_domain::problem::Problem;

use crate::verdict::{compile, lines, loaded, plugins};

/// The environment; what it gives holds this word and must never be shown.
const CANARY: &str = "canary";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "PLUGIN" => "secret-canary-plugin",
        "PATTERN" => "canary-[0-9",
        "WORD" => "canary",
        "TEMPLATE" => "see {payload.canary-value and {context",
        _ => return None,
    };
    Some(value.to_owned())
}

/// PIP-01, PIP-05, PIP-07, PIP-08, PIP-14, PIP-15, PIP-16, PIP-19, PIP-20, PIP-26, PIP-30, PIP-35, PIP-36, PIP-39,
/// PIP-41, PIP-42, PIP-43, PIP-51, PIP-52, RTR-05, RTR-06: all problems of each sample, each with file, line, column,
/// field and what to do, and none with what the environment gave.
#[test]
fn every_problem_of_pipelines_is_reported_exactly() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipelines");
    let mut dirs: Vec<_> =
        std::fs::read_dir(&root).expect("fixtures are there").map(|e| e.expect("readable").path()).collect();
    dirs.sort();
    assert!(dirs.len() > 9, "the fixtures were not found");
    let found = plugins(["echo", "notify", "fetch", "fetch.store", "off", "idle"]);
    for dir in dirs {
        let loaded = loaded(&dir.join("config.yaml"), &env);
        let (_, problems) = compile(&loaded, &found);
        let actual = lines(&problems).replace(&dir.display().to_string(), "<dir>");
        assert!(!actual.contains(CANARY), "{} shows a value of the environment:\n{actual}", dir.display());
        for problem in &problems {
            let is_placed = problem.path.is_some() && problem.file.is_some() && problem.line.is_some();
            assert!(is_placed, "{} has a problem without a place: {problem}", dir.display());
        }
        let is_good = dir.file_name().is_some_and(|name| name == "only_warnings");
        assert_eq!(problems.iter().any(Problem::is_error), !is_good, "{}:\n{actual}", dir.display());
        let file = dir.join("expected.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&file, &actual).expect("writable");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(expected == actual, "{} says\n{actual}\nand not\n{expected}", dir.display());
    }
}
