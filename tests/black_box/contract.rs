//! Plugins that were written by the contract alone, in five languages, and the templates: one gateway runs them all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::{Builder, Gateway};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// What each language needs to be there, and the first letters of its plugins' names.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("sh_", "sh", "no sh"),
    ("py_", "python3", "no python3"),
    ("js_", "node", "no node"),
    ("rs_", "rustc", "no rustc"),
    ("c_", "cc", "no C compiler"),
];

/// Operators' entries that no directory has: aliases, and what a template is configured with.
const ENTRIES: [(&str, &str); 5] = [
    ("js_config_alias", "uses: js_config\nconfig: {url: other, secret: s}\n"),
    ("js_merge_alias", "uses: js_merge\n"),
    ("rs_meet_alias", "uses: rs_meet\nconfig: {dir: '${DUCTILE_TEST_DIR}', own: alias, other: base}\n"),
    ("sh_plugin", "config: {greeting: Hi}\n"),
    ("python_plugin", "config: {path: '${DUCTILE_TEST_DIR}/watched'}\nretry: {max_attempts: 1}\n"),
];

/// PRO-01 to PRO-14, PRO-16, FCT-01, FCT-04, FCT-06, FCT-08, FCT-09, FCT-10, FCT-14, TEL-01, TEL-03 to TEL-06, MAN-11,
/// MAN-21, MAN-24, MAN-25, MAN-26, QUE-22: what twenty plugins and the templates are promised, they get.
#[test]
fn twenty_plugins_in_five_languages_get_what_the_contract_promises() {
    let builder = Gateway::new();
    let root = builder.path().join("plugins");
    let dirs = install(&root);
    let names: Vec<String> = dirs.iter().map(|d| file_name(d)).collect();
    fs::write(builder.path().join("watched"), "12345").expect("a file");
    let test_dir = builder.path().display().to_string();
    let mut builder = builder
        .service("  max_workers: 8\n  plugin_env_passthrough: [DUCTILE_TEST_DIR]\n")
        .env("DUCTILE_TEST_DIR", test_dir)
        .env("CONTRACT_SECRET", "canary-5c1");
    for dir in &dirs {
        let entry = fs::read_to_string(dir.join("entry.yaml")).unwrap_or_default();
        builder = with_entry(builder, &file_name(dir), &entry);
    }
    for (name, entry) in ENTRIES {
        let base = entry.strip_prefix("uses: ").and_then(|e| e.lines().next()).unwrap_or(name);
        if names.iter().any(|n| n == base) || root.join(base).is_dir() {
            builder = with_entry(builder, name, entry);
        }
    }
    let gateway = builder.start();
    let mut suites: Vec<(String, Vec<Value>)> = dirs.iter().map(|d| (file_name(d), cases(d))).collect();
    suites.extend(templates(&gateway));
    std::thread::scope(|scope| {
        for (plugin, cases) in &suites {
            let gateway = &gateway;
            scope.spawn(move || cases.iter().for_each(|case| check(gateway, plugin, case)));
        }
    });
    let commands: usize = suites.iter().map(|(_, cases)| cases.len()).sum();
    println!("{} plugins answered {commands} cases", suites.len());
    every_command_was_run(&gateway, &suites);
    if names.iter().any(|n| n == "js_init") {
        let shown = gateway.get("/plugin/js_init");
        assert!(contains(&shown, &described()), "MAN-14, MAN-15: {shown}");
    }
    assert_eq!(gateway.sql_one("SELECT count(*) FROM plugin_facts WHERE command IN ('health', 'init')"), "0");
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_stopwatch WHERE status = 'capture_error'"), "0", "TEL-03");
    let attempts = gateway.sql_one("SELECT (SELECT count(*) FROM job_attempts) - (SELECT count(*) FROM job_stopwatch)");
    assert_eq!(attempts, "0", "TEL-01: one record per attempt");
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a name").to_str().expect("text").to_owned()
}

/// Copies and compiles what this machine has the language for, and says what it has not.
fn install(root: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let source = Path::new(REPOSITORY).join("tests/plugins/contract");
    for (prefix, tool, lack) in LANGUAGES {
        let all = subdirectories(&source).into_iter().filter(|d| file_name(d).starts_with(prefix)).collect::<Vec<_>>();
        assert_eq!(all.len(), 4, "plugins of {prefix}");
        let is_here = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().expect("sh runs");
        if !is_here.status.success() {
            println!("skipped: the four plugins of {prefix}: {lack} on this machine");
            continue;
        }
        dirs.extend(all.iter().map(|dir| copy(dir, root)));
    }
    let compilers = dirs.iter().filter_map(|dir| {
        let mut command = if dir.join("main.rs").is_file() {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition", "2021", "-C", "debuginfo=0", "main.rs", "-o", "run"]);
            rustc
        } else if dir.join("main.c").is_file() {
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "main.c", "-o", "run"]);
            cc
        } else {
            return None;
        };
        Some((dir, command.current_dir(dir).spawn().expect("the compiler starts")))
    });
    for (dir, mut compiler) in compilers.collect::<Vec<_>>() {
        assert!(compiler.wait().expect("ended").success(), "{} does not compile", dir.display());
    }
    let shipped = Path::new(REPOSITORY).join("plugins");
    copy(&shipped.join("_lib"), root);
    for template in subdirectories(&shipped.join("_template")) {
        copy(&template, root);
    }
    dirs
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    let mut dirs: Vec<_> = entries.filter(|p| p.is_dir()).collect();
    dirs.sort();
    dirs
}

/// Copies the files of a directory, with their modes.
fn copy(dir: &Path, root: &Path) -> PathBuf {
    let to = root.join(dir.file_name().expect("a name"));
    fs::create_dir_all(&to).expect("a directory");
    for entry in fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path()) {
        if entry.is_file() {
            fs::copy(&entry, to.join(entry.file_name().expect("a name"))).expect("copied");
        }
    }
    to
}

fn with_entry(builder: Builder, name: &str, entry: &str) -> Builder {
    let indented: String = entry.lines().map(|line| format!("    {line}\n")).collect();
    builder.plugin_with(name, &indented)
}

fn cases(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("cases.json")).expect("cases");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

/// The cases of the templates, whose directories hold nothing that an author would have to remove.
fn templates(gateway: &Gateway) -> Vec<(String, Vec<Value>)> {
    let path = gateway.path("watched").display().to_string();
    let ok = |result: &str| json!({"status": "succeeded", "result": {"result": result}});
    vec![
        (
            "sh_plugin".to_owned(),
            vec![
                json!({"command": "poll", "payload": {"name": "Zoë \"'$(id)'\""}, "job": ok("Hi, Zoë \"'$(id)'\"!")}),
                json!({"command": "handle", "payload": {"name": "you"}, "job": ok("Hi, you!"), "stderr_has": "greeting you"}),
                json!({"command": "health", "job": ok("configuration is usable")}),
            ],
        ),
        (
            "python_plugin".to_owned(),
            vec![
                json!({"command": "poll", "job": ok("5 bytes"), "facts": 1, "fact": {"path": path, "size": 5}, "subs": 1}),
                json!({"command": "poll", "job": ok("5 bytes"), "facts": 2, "state": {"path": path, "size": 5}}),
                json!({"command": "forget", "job": ok("forgotten"), "facts": 3, "state": {"path": path, "size": null}}),
                json!({"command": "handle", "payload": {"path": path}, "job": ok("5 bytes"), "facts": 3}),
                json!({"command": "handle", "payload": {}, "job": {"status": "failed"}, "error_has": "has no `path`"}),
                json!({"command": "health", "job": ok("configuration is usable"), "facts": 3}),
                json!({"command": "init", "job": ok("watches one file"), "facts": 3}),
            ],
        ),
    ]
}

/// Runs one case, and fails with everything that is known about it.
fn check(gateway: &Gateway, plugin: &str, case: &Value) {
    let command = case["command"].as_str().expect("a command");
    let targets: Vec<&str> = match case["together"].as_array() {
        Some(jobs) => jobs.iter().map(|j| j["plugin"].as_str().expect("a name")).collect(),
        None => vec![case["plugin"].as_str().unwrap_or(plugin)],
    };
    let body = match case.get("payload") {
        None | Some(Value::Null) => String::new(),
        Some(payload) => format!("{{\"payload\":{}}}", written(payload)),
    };
    let jobs: Vec<(&str, String)> = targets
        .into_iter()
        .map(|target| {
            let answer = gateway.request("POST", &format!("/plugin/{target}/{command}"), Some(&body));
            assert_eq!(answer.status, 202, "{target} {command}: {}", answer.body);
            (target, answer.json()["job_id"].as_str().expect("an id").to_owned())
        })
        .collect();
    for (target, id) in jobs {
        let job = gateway.finished(&id);
        let fail = |what: &str, seen: &str| {
            let shown: String = job.to_string().chars().take(3000).collect();
            panic!("{target} {command}: {what}: {seen}\ncase {case}\njob {shown}");
        };
        let wanted = case.get("job").cloned().unwrap_or_else(|| json!({"status": "succeeded"}));
        if !contains(&job, &wanted) {
            fail("the job is not as expected", "");
        }
        let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
        let sql = |query: &str| gateway.sql_one(query);
        for (key, seen) in [("error_has", text("last_error")), ("stderr_has", text("stderr"))] {
            if let Some(part) = case[key].as_str().filter(|part| !seen.contains(part)) {
                fail(&format!("{key} {part:?}"), &seen);
            }
        }
        if let Some(part) = case["result_text_has"].as_str() {
            let answer = gateway.request("GET", &format!("/job/{id}"), None).body;
            if !answer.contains(part) {
                fail("the answer was not passed on as it was written", &answer);
            }
        }
        for part in case["log_has"].as_array().into_iter().flatten() {
            let part = part.as_str().expect("text");
            gateway.until_some(&format!("the log has {part:?}"), |g| {
                g.logs().lines().any(|line| line.contains(part) && line.contains(&id)).then_some(())
            });
        }
        if let Some(number) = case["facts"].as_u64() {
            let seen = sql(&format!("SELECT count(*) FROM plugin_facts WHERE plugin_name = '{target}'"));
            if seen != number.to_string() {
                fail("facts", &seen);
            }
        }
        if let Some(fact) = case.get("fact") {
            let newest =
                format!("SELECT fact_json FROM plugin_facts WHERE plugin_name = '{target}' AND job_id = '{id}'");
            let seen: Value = serde_json::from_str(&sql(&newest)).expect("a fact of this job");
            if !contains(&seen, fact) {
                fail("the fact is another", &seen.to_string());
            }
        }
        if let Some(state) = case.get("state") {
            let seen = sql(&format!("SELECT state FROM plugin_state WHERE plugin_name = '{target}'"));
            if serde_json::from_str::<Value>(&seen).unwrap_or_default() != *state {
                fail("the state is another", &seen);
            }
        }
        if let Some(number) = case["subs"].as_u64() {
            let subs = "coalesce(json_array_length(subs_json), 0)";
            let seen = sql(&format!("SELECT {subs} FROM job_stopwatch WHERE job_id = '{id}'"));
            if seen != number.to_string() {
                fail("sub-spans", &seen);
            }
        }
        if let Some(status) = case["stopwatch"].as_str() {
            let seen = sql(&format!("SELECT group_concat(DISTINCT status) FROM job_stopwatch WHERE job_id = '{id}'"));
            if seen != status {
                fail("the stopwatch says otherwise", &seen);
            }
        }
    }
}

/// JSON text of a payload; see `tests/plugins/contract/README.md` for `$repeat` and `$raw`.
fn written(payload: &Value) -> String {
    match payload {
        Value::Object(map) if map.contains_key("$raw") => map["$raw"].as_str().expect("text").to_owned(),
        Value::Object(map) if map.contains_key("$repeat") => {
            let text = map["$repeat"][0].as_str().expect("text");
            let times = usize::try_from(map["$repeat"][1].as_u64().expect("a number")).expect("fits");
            json!(text.repeat(times)).to_string()
        }
        Value::Object(map) => {
            let fields = map.iter().map(|(k, v)| format!("{}:{}", json!(k), written(v)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// True when `seen` has everything of `wanted`: maps may have more keys, lists must be as long, all else equal.
fn contains(seen: &Value, wanted: &Value) -> bool {
    match (seen, wanted) {
        (Value::Object(seen), Value::Object(wanted)) => {
            wanted.iter().all(|(k, v)| seen.get(k).is_some_and(|s| contains(s, v)))
        }
        (Value::Array(seen), Value::Array(wanted)) => {
            seen.len() == wanted.len() && seen.iter().zip(wanted).all(|(s, w)| contains(s, w))
        }
        (seen, wanted) => seen == wanted,
    }
}

/// No command of any manifest was left out.
fn every_command_was_run(gateway: &Gateway, suites: &[(String, Vec<Value>)]) {
    for (plugin, cases) in suites {
        let shown = gateway.get(&format!("/plugin/{plugin}"));
        for command in shown["commands"].as_array().expect("commands") {
            assert!(cases.iter().any(|c| c["command"] == command["name"]), "no case runs {plugin} {}", command["name"]);
        }
    }
}

/// What `GET /plugin/js_init` must say of its commands, which are declared as a map.
fn described() -> Value {
    json!({"commands": [
        {"name": "health", "type": "read"},
        {"name": "init", "type": "read", "description": "What it offers", "idempotent": true, "retry_safe": true},
        {
            "name": "poll",
            "input_schema": {"type": "object", "properties": {"url": {"type": "string"}, "depth": {"minimum": 1}}},
            "output_schema": {"type": "object", "properties": {"events": {"type": "array"}}},
            "values": {"consume": ["payload.url", "payload.*"], "emit": [{"event": "js_init.done", "values": ["payload.a.b"]}]},
        },
    ]})
}
