//! Manifests and roots: what is loaded, what is refused, and that nothing is passed over in silence.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ductile_domain::manifest::{CommandType, Manifest};
use ductile_domain::problem::Problem;
use ductile_plugin::discover::{Links, discover, discover_with, look_at};
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
        ("type: read", "type: read\n    output_schema: {url: strnig}", "commands[0].output_schema", 10),
        ("type: read", "type: read\n    input_schema: text", "commands[0].input_schema", 10),
        ("type: read", "type: read\n    idempotent: 'yes'", "commands[0].idempotent", 10),
        ("type: read", "type: read\n    retry_safe: 1", "commands[0].retry_safe", 10),
        ("type: read", "type: read\n    description: [a]", "commands[0].description", 10),
        ("type: read", "type: read\n    values: payload.url", "commands[0].values", 10),
        ("type: read", "type: read\n    values: {consume: payload.url}", "commands[0].values.consume", 10),
        ("type: read", "type: read\n    values: {consume: [payload.a.b.c]}", "commands[0].values.consume[0]", 10),
        ("type: read", "type: read\n    values: {emit: [a.b]}", "commands[0].values.emit[0]", 10),
        ("type: read", "type: read\n    values: {emit: [{event: job.x}]}", "commands[0].values.emit[0].event", 10),
        ("type: read", "type: read\n    values: {emit: [{values: []}]}", "commands[0].values.emit[0].event", 10),
        ("- name: poll\n", "- name: poll\n    streaming: true\n", "commands[0].streaming", 9),
        ("manifest_spec", "stopwatch: {max_subs: many}\nmanifest_spec", "stopwatch.max_subs", 1),
        ("manifest_spec", "stopwatch: 64\nmanifest_spec", "stopwatch", 1),
        ("manifest_spec", "config_keys: [a]\nmanifest_spec", "config_keys", 1),
        ("manifest_spec", "config_keys: {required: a}\nmanifest_spec", "config_keys.required", 1),
        ("manifest_spec", "config_keys: {required: [1]}\nmanifest_spec", "config_keys.required[0]", 1),
        ("manifest_spec", "description: {a: b}\nmanifest_spec", "description", 1),
        ("manifest_spec", "concurrency_safe: 'no'\nmanifest_spec", "concurrency_safe", 1),
        ("manifest_spec", "fact_outputs_of: 1\ndaemon: true\nmanifest_spec", "daemon", 2),
    ] {
        let text = format!("{GOOD}{facts}").replacen(from, to, 1);
        let problems = checked(&text).expect_err(to);
        let errors: Vec<_> = problems.iter().filter(|p| p.is_error()).collect();
        assert_eq!(errors.len(), 1, "{to}: {problems:?}");
        let problem = errors[0];
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
    let expected = [
        "protcol",
        "manifest_spec",
        "manifest_version",
        "protocol",
        "name",
        "version",
        "entrypoint",
        "commands[0].name",
    ];
    assert_eq!(paths, expected, "{problems:?}");
    assert!(problems[0].hint.as_deref().is_some_and(|h| h.contains("`protocol`")), "{}", problems[0]);
    assert!(problems[3].hint.as_deref().is_some_and(|h| h.contains("protcol")), "{}", problems[3]);
}

/// MAN-17: more than 256 sub-spans refuse the plugin with a warning; 0, 1 and 256 are fine.
#[test]
fn too_many_sub_spans_are_refused_with_a_warning() {
    let problems = checked(&format!("{GOOD}stopwatch: {{max_subs: 257}}\n")).expect_err("too many");
    assert_eq!((problems.len(), problems[0].is_error(), problems[0].line), (1, false, Some(10)), "{problems:?}");
    for (written, kept) in [(0, 32), (1, 1), (64, 64), (256, 256)] {
        let (manifest, problems) = checked(&format!("{GOOD}stopwatch: {{max_subs: {written}}}\n")).expect("valid");
        assert_eq!((manifest.max_subs, problems.len()), (kept, 0));
    }
}

/// MAN-14, MAN-15, MAN-16: the whole manifest of the development guide, in both forms of `commands`.
#[test]
fn every_field_of_the_guide_is_read_in_both_forms() {
    let head = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: my_plugin\nversion: 1.2\nprotocol: 2\n\
                entrypoint: ./bin/run\ndescription: What it does.\nconcurrency_safe: false\n\
                fact_outputs:\n- when: {command: poll}\n  from: state_updates\n  fact_type: my_plugin.snapshot\n\
                config_keys: {required: [id, key], optional: [path]}\nstopwatch: {max_subs: 64}\nx-team: ours\n";
    let fields = "type: read, description: Fetches., idempotent: true, retry_safe: false, \
                  input_schema: {url: string, depth: {type: integer, minimum: 1}}, \
                  output_schema: {type: object, required: [status]}, \
                  values: {consume: [payload.url, payload.a.b], emit: [{event: my_plugin.seen, values: [payload.*]}]}";
    for commands in [format!("commands: [{{name: poll, {fields}}}]\n"), format!("commands: {{poll: {{{fields}}}}}\n")] {
        let (manifest, problems) = checked(&format!("{head}{commands}")).expect("valid");
        assert!(problems.is_empty(), "{problems:?}");
        let seen = serde_json::to_value(&manifest).expect("JSON");
        let expected = json!({
            "name": "my_plugin", "version": "1.2", "protocol": 2, "entrypoint": "./bin/run",
            "description": "What it does.", "concurrency_safe": false, "max_subs": 64,
            "required_config": ["id", "key"], "optional_config": ["path"],
            "fact_outputs": [{"command": "poll", "fact_type": "my_plugin.snapshot"}],
            "commands": [{
                "name": "poll", "type": "read", "description": "Fetches.", "idempotent": true, "retry_safe": false,
                "input_schema": {"type": "object", "properties":
                    {"url": {"type": "string"}, "depth": {"type": "integer", "minimum": 1}}},
                "output_schema": {"type": "object", "required": ["status"]},
                "values": {"consume": ["payload.url", "payload.a.b"],
                    "emit": [{"event": "my_plugin.seen", "values": ["payload.*"]}]},
            }],
        });
        assert_eq!(seen, expected);
    }
}

/// Unknown fields at every level are ignored, said with their line, and the near word is offered.
#[test]
fn unknown_fields_are_said_and_never_silent() {
    let text = GOOD.replace("    type: read\n", "    type: read\n    idempotant: true\n    values: {emits: []}\n")
        + "descriptoin: d\nx-mine: 1\nconfig_keys: {requird: [a]}\nstopwatch: {max: 3}\n\
           fact_outputs: [{when: {command: poll, on: x}, from: state_updates, fact_type: a, reduce: b}]\n";
    let (_, problems) = checked(&text).expect("loads");
    let seen: Vec<_> = problems.iter().filter_map(|p| Some((p.path.as_deref()?, p.line?))).collect();
    let expected = [
        ("descriptoin", 12),
        ("commands[0].idempotant", 10),
        ("commands[0].values.emits", 11),
        ("fact_outputs[0].reduce", 16),
        ("fact_outputs[0].when.on", 16),
        ("config_keys.requird", 14),
        ("stopwatch.max", 15),
    ];
    assert_eq!(seen, expected, "{problems:#?}");
    assert!(problems[1].hint.as_deref().is_some_and(|h| h.contains("`idempotent`")), "{}", problems[1]);
    assert!(problems.iter().all(|p| !p.is_error()));
}

/// FCT-07, FCT-09: two rules for two commands load; one for health is said to be useless, a repeated one is refused.
#[test]
fn fact_rules_are_checked_against_the_commands() {
    let rule =
        |command: &str| format!("- {{when: {{command: {command}}}, from: state_updates, fact_type: good.snapshot}}\n");
    let head =
        format!("{GOOD}  - {{name: token_refresh, type: write}}\n  - {{name: health, type: read}}\nfact_outputs:\n");
    let (manifest, problems) = checked(&format!("{head}{}{}", rule("poll"), rule("token_refresh"))).expect("valid");
    assert_eq!((manifest.fact_outputs.len(), problems.len()), (2, 0));
    let (_, problems) = checked(&format!("{head}{}", rule("health"))).expect("loads");
    assert!(problems[0].message.contains("never records"), "{problems:?}");
    assert!(checked(&format!("{head}{}{}", rule("poll"), rule("poll"))).is_err());
}

/// DIS-03: no field asks for a plugin that stays: the refusal says what to do instead.
#[test]
fn there_is_no_streaming_plugin() {
    for field in ["mode: stream", "daemon: true", "websocket: wss://x", "long_poll: 30s", "streaming: true"] {
        let problems = checked(&format!("{GOOD}{field}\n")).expect_err(field);
        assert!(problems[0].hint.as_deref().is_some_and(|h| h.contains("webhook")), "{}", problems[0]);
    }
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
    let paths: Vec<_> = warnings.iter().filter_map(|w| w.path.as_deref()).collect();
    assert_eq!(paths, ["novel", "commands[0].novel", "commands[0]"], "{warnings:?}");
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

/// MAN-08, MAN-10: a link inside the roots is a warning, or, where links are refused, the end of that plugin.
#[test]
fn links_are_warned_of_or_refused() {
    let temp = tempfile::tempdir().expect("a directory");
    let base = temp.path().canonicalize().expect("there");
    let (root, shared) = (base.join("root"), base.join("shared"));
    write(&root, "plain", &named("plain"));
    symlink(write(&shared, "dir", &named("linked_dir")), root.join("dir")).expect("a link");
    let entry = write(&root, "entry", &named("linked_entry")).join("run.sh");
    fs::rename(&entry, shared.join("real.sh")).expect("our own file");
    symlink(shared.join("real.sh"), &entry).expect("a link");
    let manifest = write(&root, "manifest", &named("linked_manifest")).join("manifest.yaml");
    fs::rename(&manifest, shared.join("real.yaml")).expect("our own file");
    symlink(shared.join("real.yaml"), &manifest).expect("a link");
    let roots = [root.clone(), shared.clone()];
    let names = |links| discover_with(&roots, links).plugins.into_keys().collect::<Vec<_>>();
    assert_eq!(names(Links::Allowed), ["linked_dir", "linked_entry", "linked_manifest", "plain"]);
    let found = discover_with(&roots, Links::Allowed);
    let warned = found.problems.iter().filter(|p| !p.is_error() && p.message.contains("symbolic link"));
    assert_eq!(warned.count(), 3, "{:?}", found.problems);
    // The directory itself stands in a root of its own, so it is found there without a link.
    assert_eq!(names(Links::Refused), ["linked_dir", "plain"]);
    let found = discover_with(&roots, Links::Refused);
    let refused = found.problems.iter().filter(|p| p.is_error() && p.message.contains("allow_symlinks"));
    assert_eq!(refused.count(), 3, "{:?}", found.problems);
    assert!(discover_with(&roots[..1], Links::Allowed).plugins.len() == 1, "links out of the roots were followed");
    symlink(&root, base.join("alias")).expect("a link");
    assert!(discover_with(&[base.join("alias")], Links::Refused).plugins.is_empty(), "a linked root was used");
}

/// MAN-06, MAN-09: an entrypoint in a directory of its own is safe only if nobody else may write that directory; what
/// is no file is never opened.
#[test]
fn what_lies_between_is_checked_too() {
    let temp = tempfile::tempdir().expect("a directory");
    let root = temp.path().join("root");
    for (name, bits) in [("closed", 0o755), ("open", 0o777)] {
        let dir = write(&root, name, &named(name).replace("run.sh", "./bin/run.sh"));
        fs::create_dir(dir.join("bin")).expect("a directory");
        fs::rename(dir.join("run.sh"), dir.join("bin/run.sh")).expect("our own file");
        mode(&dir.join("bin"), bits);
    }
    let pipe = write(&root, "pipe", "").join("manifest.yaml");
    fs::remove_file(&pipe).expect("our own file");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let huge = format!("{}#{}\n", named("huge"), "x".repeat(1 << 20));
    write(&root, "huge", &huge);
    let found = discover(std::slice::from_ref(&root));
    assert_eq!(found.plugins.keys().collect::<Vec<_>>(), ["closed"]);
    let texts: Vec<_> = found.problems.iter().map(Problem::to_string).collect();
    for part in ["open/bin is writable", "it is no file", "more than 1 MiB"] {
        assert!(texts.iter().any(|t| t.contains(part)), "{part}: {texts:#?}");
    }
}

#[test]
fn the_faults_of_the_tests_are_plugins_but_for_one() {
    let found = discover(&[support::root().join("tests/plugins")]);
    assert!(found.plugins.len() >= 15, "{:?}", found.plugins.keys());
    let errors: Vec<_> = found.problems.iter().filter(|p| p.is_error()).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].message.contains("not executable"), "{}", errors[0]);
}

/// What an author is told about one directory is what the gateway would say, and a template may be looked at.
#[test]
fn one_directory_is_looked_at_as_a_scan_would() {
    let root = tempfile::tempdir().expect("temporary directory");
    write(root.path(), "other", GOOD);
    let dir = write(root.path(), "good", GOOD);
    let found = look_at(&dir);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert_eq!(found.plugins["good"].entrypoint, dir.canonicalize().expect("it exists").join("run.sh"));

    let template = write(root.path(), "_template", GOOD);
    let found = look_at(&template);
    assert!(found.plugins.contains_key("good"));
    assert!(found.problems.len() == 1 && !found.problems[0].is_error(), "{:?}", found.problems);

    mode(&dir.join("run.sh"), 0o644);
    let empty = root.path().join("empty");
    fs::create_dir(&empty).expect("a directory");
    for (bad, said) in [
        (dir.clone(), "not executable"),
        (empty, "no manifest.yaml"),
        (dir.join("run.sh"), "no directory"),
        (root.path().join("nowhere"), "can't be used"),
    ] {
        let found = look_at(&bad);
        assert!(found.plugins.is_empty(), "{}", bad.display());
        let told = found.problems.iter().any(|p| p.is_error() && p.message.contains(said));
        assert!(told, "{}: {:?}", bad.display(), found.problems);
    }
}
