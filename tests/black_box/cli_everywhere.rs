//! What holds for every command, found by walking the help: reading ones print one JSON document, changing ones can be
//! asked what they would do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::said;
use crate::gateway::Gateway;

/// Commands that neither read nor change: they run a gateway, or a quarantined job, in the foreground.
const FOREGROUND: [&str; 3] = ["system start", "system demo", "job reproduce"];

/// A line for each command, without its flags for output. `{...}` is filled in.
const SAMPLES: [(&str, &str); 53] = [
    ("api", "/jobs"),
    ("config check", ""),
    ("config get", "service.name"),
    ("config init", "--config {FRESH}"),
    ("config show", ""),
    ("init", "--config {FRESH}"),
    ("inspect", "{JOB}"),
    ("job cancel", "{JOB}"),
    ("job inspect", "{JOB}"),
    ("job list", "--all"),
    ("job logs", ""),
    ("job replay", "{JOB}"),
    ("job reproduce", "{JOB}"),
    ("job tree", "{JOB}"),
    ("job wait", "{JOB}"),
    ("logs", "echo"),
    ("pipeline dry-run", "greet -f message=hello"),
    ("pipeline list", ""),
    ("pipeline run", "greet"),
    ("pipeline show", "greet"),
    ("pipeline visualize", "greet"),
    ("plugin check", "{PLUGIN}"),
    ("plugin facts", "echo"),
    ("plugin list", ""),
    ("plugin run", "echo"),
    ("plugin show", "echo"),
    ("plugin stopwatch", "echo"),
    ("plugin test", "{PLUGIN}"),
    ("plugins", ""),
    ("queue", ""),
    ("run", "echo"),
    ("schedule explain", "echo"),
    ("schedule list", ""),
    ("schedule pause", "echo"),
    ("schedule resume", "echo default"),
    ("schedule run", "echo"),
    ("status", ""),
    ("system breaker", ""),
    ("system doctor", ""),
    ("system migrate", ""),
    ("system pause", ""),
    ("system reload", ""),
    ("system reset", "echo"),
    ("system restart", "root/policy_sup/router"),
    ("system resume", ""),
    ("system selfcheck", ""),
    ("system status", ""),
    ("system stop", ""),
    ("system storage", ""),
    ("system tree", ""),
    ("version", ""),
    ("system start", ""),
    ("system demo", ""),
];

/// All commands without subcommands, each with its help.
pub(crate) fn leaves(gateway: &Gateway) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![String::new()];
    while let Some(path) = waiting.pop() {
        let words: Vec<&str> = path.split_whitespace().chain(["--help"]).collect();
        let (code, help, stderr) = said(&gateway.cli(&words));
        assert_eq!(code, 0, "{path} --help: {stderr}");
        let listed = help.split("\nCommands:\n").nth(1).map(|rest| rest.lines().take_while(|l| l.starts_with("  ")));
        match listed {
            None => drop(found.insert(path, help)),
            Some(lines) => {
                // Descriptions that go on in the next line are indented further.
                let names = lines.filter(|l| !l.starts_with("   ")).filter_map(|l| l.split_whitespace().next());
                waiting.extend(names.map(|name| format!("{path} {name}").trim().to_owned()));
            }
        }
    }
    found
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        // What the running gateway itself writes.
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() && !name.starts_with("ductile.db") && name != "gateway.log" {
            found.insert(path.clone(), fs::read(&path).expect("read"));
        }
    }
    found
}

/// What a command could have changed in the ledger.
fn record(gateway: &Gateway) -> Vec<String> {
    ["job_queue", "job_transitions", "job_log", "config_snapshots", "plugin_facts", "circuit_breaker_transitions"]
        .map(|table| gateway.sql_one(&format!("SELECT count(*) FROM {table}")))
        .to_vec()
}

/// CLI-02, CLI-04, CLI-06, CLI-35: for every command that the help lists.
#[test]
fn every_command_reads_as_json_or_says_what_it_would_do() {
    let mut gateway = Gateway::new().plugin_with("echo", "    schedules: [{every: 30d}]\n").prepare();
    let config = gateway.path("config.yaml");
    let pipeline = "pipelines:\n  - name: greet\n    on: somebody.came\n    steps:\n      - uses: echo.poll\n";
    let whole = fs::read_to_string(&config).expect("a configuration") + pipeline;
    fs::write(&config, whole).expect("written");
    gateway.start();
    let job = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&job);
    let fresh = gateway.path("fresh").display().to_string();
    let plugin = format!("{}/plugins/echo", env!("CARGO_MANIFEST_DIR"));
    let samples: BTreeMap<&str, &str> = SAMPLES.into_iter().collect();
    let leaves = leaves(&gateway);
    let listed: Vec<&str> = leaves.keys().map(String::as_str).collect();
    let known: Vec<&str> = samples.keys().copied().collect();
    assert_eq!(listed, known, "each command that the help lists has a sample here");

    let (before, recorded) = (files(gateway.dir.path()), record(&gateway));
    let (mut read, mut changing) = (0, 0);
    for (command, help) in &leaves {
        if FOREGROUND.contains(&command.as_str()) {
            continue;
        }
        let changes = help.contains("--dry-run");
        let line =
            samples[command.as_str()].replace("{JOB}", &job).replace("{FRESH}", &fresh).replace("{PLUGIN}", &plugin);
        for form in [&["--json"][..], &["--output", "json"]] {
            let mut words: Vec<&str> = command.split(' ').chain(line.split_whitespace()).collect();
            words.extend(form);
            words.extend(changes.then_some("--dry-run"));
            let (code, stdout, stderr) = said(&gateway.cli(&words));
            assert_eq!(code, 0, "{words:?}: {stdout}{stderr}");
            let document: Value = serde_json::from_str(&stdout)
                .unwrap_or_else(|e| panic!("{words:?} printed no JSON document ({e}): {stdout}"));
            if changes {
                assert_eq!(document["dry_run"], true, "{words:?}: {document}");
            }
        }
        if changes { changing += 1 } else { read += 1 }
    }
    assert_eq!(record(&gateway), recorded, "no command has recorded anything");
    assert_eq!(files(gateway.dir.path()), before, "no command has written anything");
    assert!(gateway.get("/system/status")["paused"] == false);
    assert!(read > 15 && changing > 8, "{read} reading and {changing} changing commands were found");
}

#[test]
fn the_table_of_commands_is_the_helps() {
    let page = fs::read_to_string(format!("{}/docs/cli.md", env!("CARGO_MANIFEST_DIR"))).expect("the page");
    let told: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let listed: Vec<String> = leaves(&Gateway::new().prepare())
        .iter()
        .map(|(command, help)| {
            let about = help.split("\n\n").next().expect("a first paragraph");
            format!("| `{command}` | {} |", about.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(told, listed);
}

/// CLI-01, C-91: an alias answers what its command answers.
#[test]
fn aliases_answer_what_their_commands_answer() {
    let gateway = Gateway::new().plugin("echo").start();
    let job = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&job);
    for (alias, command) in [
        ("plugins", "plugin list"),
        ("logs echo", "job logs --plugin echo"),
        ("queue --all", "job list --all"),
        ("inspect {JOB}", "job inspect {JOB}"),
        ("run echo --dry-run", "plugin run echo --dry-run"),
        ("init --dry-run --config /nonexistent", "config init --dry-run --config /nonexistent"),
        ("--version", "version"),
    ] {
        let [alias, command] = [alias, command].map(|line| {
            let line = line.replace("{JOB}", &job);
            let words: Vec<&str> = line.split_whitespace().chain(["--json"]).collect();
            gateway.cli_json(&words)
        });
        assert_eq!(alias, command);
    }
    // Only the time that has passed may differ.
    let status = |words: &[&str]| {
        let mut status = gateway.cli_json(words);
        status["uptime_seconds"] = Value::Null;
        status
    };
    assert_eq!(status(&["status", "--json"]), status(&["system", "status", "--json"]));
}
