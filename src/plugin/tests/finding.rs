//! Manifests and roots: what is loaded, what is refused, and that nothing is passed over in silence.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ductile_domain::manifest::{CommandType, Manifest};
use ductile_domain::problem::Problem;
use ductile_plugin::discover::discover;
use ductile_plugin::manifest::check;
use serde_json::json;

const GOOD: &str = "\
manifest_spec: ductile.plugin
manifest_version: 1
name: good
version: 0.1.0
protocol: 2
entrypoint: run.sh
commands:
  - name: poll
    type: read
";

fn checked(text: &str) -> Result<(Manifest, Vec<Problem>), Vec<Problem>> {
    check(text, Path::new("/p/manifest.yaml"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

/// A plugin directory `name` in `root` with that manifest and an executable `run.sh`.
fn write(root: &Path, name: &str, manifest: &str) -> PathBuf {
    let dir = root.join(name);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("manifest.yaml"), manifest).expect("a file");
    fs::write(dir.join("run.sh"), "#!/bin/sh\n").expect("a file");
    mode(&dir.join("run.sh"), 0o755);
    mode(&dir, 0o755);
    dir
}

fn named(name: &str) -> String {
    GOOD.replace("name: good", &format!("name: {name}"))
}

/// MAN-03, MAN-04, MAN-05, MAN-06, MAN-12, MAN-16, MAN-17, FCT-04, FCT-07: each fault alone is found at its line.
#[test]
fn each_fault_of_a_manifest_is_found_where_it_stands() {
    assert!(checked(GOOD).is_ok());
    let facts = "fact_outputs:\n  - when: {command: poll}\n    from: state_updates\n    fact_type: good.snapshot\n";
    assert!(checked(&format!("{GOOD}{facts}")).is_ok());
    for (from, to, path, line) in [
        ("manifest_spec: ductile.plugin", "manifest_spec: other", "manifest_spec", 1),
        ("manifest_version: 1", "manifest_version: '1'", "manifest_version", 2),
        ("manifest_version: 1", "manifest_version: 2", "manifest_version", 2),
        ("name: good", "name: a/b", "name", 3),
        ("name: good", "name: core.switch", "name", 3),
        ("protocol: 2", "protocol: 1", "protocol", 5),
        ("entrypoint: run.sh", "entrypoint: ../run.sh", "entrypoint", 6),
        ("entrypoint: run.sh", "entrypoint: /bin/sh", "entrypoint", 6),
        ("type: read", "type: rw", "commands[0].type", 9),
        ("from: state_updates", "from: result", "fact_outputs[0].from", 12),
        ("command: poll", "command: pol", "fact_outputs[0].when.command", 11),
        ("fact_type: good.snapshot", "fact_type: ''", "fact_outputs[0].fact_type", 13),
        (
            "fact_type: good.snapshot",
            "fact_type: a\n    compatibility_view: merge",
            "fact_outputs[0].compatibility_view",
            14,
        ),
        ("type: read", "type: read\n    values: {consume: [url]}", "commands[0].values.consume[0]", 10),
        ("type: read", "type: read\n    input_schema: {url: strnig}", "commands[0].input_schema", 10),
        ("manifest_spec", "stopwatch: {max_subs: 257}\nmanifest_spec", "stopwatch.max_subs", 1),
    ] {
        let text = format!("{GOOD}{facts}").replace(from, to);
        let problems = checked(&text).expect_err(to);
        assert_eq!(problems.len(), 1, "{to}: {problems:?}");
        let problem = &problems[0];
        assert_eq!((problem.path.as_deref(), problem.line), (Some(path), Some(line)), "{to}: {problem}");
        assert!(problem.hint.is_some(), "{to}: {problem}");
    }
    for field in ["manifest_spec", "manifest_version", "name", "version", "protocol", "entrypoint"] {
        let text: String = GOOD.lines().filter(|l| !l.starts_with(field)).flat_map(|l| [l, "\n"]).collect();
        let problems = checked(&text).expect_err(field);
        assert_eq!((problems.len(), problems[0].path.as_deref()), (1, Some(field)), "{problems:?}");
    }
    for commands in ["", "commands: []\n", "commands: {}\n", "commands: poll\n"] {
        let text = GOOD.replace("commands:\n  - name: poll\n    type: read\n", commands);
        assert!(checked(&text).is_err(), "{commands:?}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let text = "manifest_spec: x\nmanifest_version: 3\nname: ''\nprotcol: 2\ncommands: [{type: rw}]\n";
    let problems = checked(text).expect_err("everything is wrong");
    let paths: Vec<_> = problems.iter().filter_map(|p| p.path.as_deref()).collect();
    let expected =
        ["manifest_spec", "manifest_version", "protocol", "name", "version", "entrypoint", "commands[0].name"];
    assert_eq!(paths, expected, "{problems:?}");
    assert!(problems[2].hint.as_deref().is_some_and(|h| h.contains("protcol")), "{}", problems[2]);
}

/// MAN-11, C-29: a list and a map of commands are the same.
#[test]
fn commands_are_a_list_or_a_map() {
    let list = "commands:\n  - {name: health, type: read}\n  - {name: sync, type: write, description: d}\n";
    let map = "commands:\n  health: {type: read}\n  sync: {type: write, description: d}\n";
    let [a, b] = [list, map].map(|commands| {
        let text = GOOD.replace("commands:\n  - name: poll\n    type: read\n", commands);
        checked(&text).expect("valid").0.commands
    });
    assert_eq!(a, b);
}

/// MAN-12, MAN-15, MAN-17, C-30: what is left out gets its default, and unknown fields are tolerated.
#[test]
fn defaults_fill_what_is_left_out() {
    let text = GOOD.replace("    type: read\n", "    input_schema: {url: string}\n    novel: 1\nnovel: {a: 1}\n");
    let (manifest, warnings) = checked(&text).expect("valid");
    let poll = &manifest.commands[0];
    assert_eq!(poll.kind, CommandType::Write);
    assert_eq!(poll.input_schema, Some(json!({"type": "object", "properties": {"url": {"type": "string"}}})));
    assert_eq!((manifest.max_subs, manifest.concurrency_safe, manifest.fact_outputs.len()), (32, true, 0));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let zero = checked(&format!("{GOOD}stopwatch: {{max_subs: 0}}\n")).expect("valid").0;
    assert_eq!(zero.max_subs, 32);
}

/// MAN-01, MAN-02, MAN-18, MAN-19: the first of a name wins, a bad one stops no other, nothing is silent.
#[test]
fn roots_are_scanned_in_order_and_the_first_wins() {
    let temp = tempfile::tempdir().expect("a directory");
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    write(&one, "good", GOOD);
    write(&one, "broken", "name: [");
    write(&one, "lib", GOOD);
    write(&one, "_lib", GOOD);
    write(&one, ".hidden", GOOD);
    fs::remove_file(write(&one, "bare", "").join("manifest.yaml")).expect("our own file");
    fs::write(one.join("README.md"), "no plugin").expect("a file");
    write(&two, "good", &GOOD.replace("0.1.0", "9.9.9"));
    write(&two, "other", &named("other"));
    let missing = temp.path().join("missing");
    let found = discover(&[one.clone(), missing.clone(), two, one.clone()]);
    let names: Vec<_> = found.plugins.keys().map(String::as_str).collect();
    assert_eq!(names, ["good", "other"]);
    assert_eq!(found.plugins["good"].manifest.version, "0.1.0");
    assert_eq!(found.plugins["good"].entrypoint, one.canonicalize().expect("there").join("good/run.sh"));
    let texts: Vec<String> = found.problems.iter().map(Problem::to_string).collect();
    assert_eq!(texts.len(), 4, "{texts:#?}");
    for (part, is_error) in
        [("missing", true), ("broken/manifest.yaml:1", true), ("bare", false), ("already found", false)]
    {
        let problem = found.problems.iter().find(|p| p.to_string().contains(part));
        assert_eq!(problem.map(Problem::is_error), Some(is_error), "{part}: {texts:#?}");
    }
}

/// MAN-07, MAN-08, MAN-09, MAN-10: links out of the roots, writable directories and non-executables are refused.
#[test]
fn unsafe_plugins_are_refused_and_named() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("root");
    let outside = write(temp.path(), "outside", &named("outside"));
    write(&root, "fine", &named("fine"));
    mode(&write(&root, "writable", &named("writable")), 0o777);
    mode(&write(&root, "unexecutable", &named("unexecutable")).join("run.sh"), 0o644);
    mode(&write(&root, "writable_entry", &named("writable_entry")).join("run.sh"), 0o757);
    let linked = write(&root, "linked_entry", &named("linked_entry")).join("run.sh");
    fs::remove_file(&linked).expect("our own file");
    symlink("/bin/sh", &linked).expect("a link");
    symlink(&outside, root.join("linked")).expect("a link");
    symlink(root.join("nowhere"), root.join("dead")).expect("a link");
    symlink(root.join("fine"), root.join("twin")).expect("a link");
    let found = discover(std::slice::from_ref(&root));
    assert_eq!(found.plugins.keys().collect::<Vec<_>>(), ["fine"]);
    for name in ["writable", "unexecutable", "writable_entry", "linked_entry", "linked", "dead"] {
        let dir = root.join(name);
        let is_named = |p: &&Problem| p.file.as_ref().is_some_and(|f| f.starts_with(&dir));
        assert!(found.problems.iter().filter(is_named).any(|p| p.is_error() && p.hint.is_some()), "{name}");
    }
    let link = found.problems.iter().find(|p| p.message.contains("symbolic link")).expect("links are warned of");
    assert!(!link.is_error());
    mode(&root, 0o777);
    assert!(discover(&[root]).plugins.is_empty(), "a root that everybody may write was used");
}

#[test]
fn the_faults_of_the_tests_are_plugins_but_for_one() {
    let found = discover(&[support::root().join("tests/plugins")]);
    assert!(found.plugins.len() >= 15, "{:?}", found.plugins.keys());
    let errors: Vec<_> = found.problems.iter().filter(|p| p.is_error()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].message.contains("not executable"), "{}", errors[0]);
}
