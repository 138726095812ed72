//! What authors type: `plugin check` and `plugin test`, which say what the gateway would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::{Gateway, PATIENCE};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

const MANIFEST: &str = "\
manifest_spec: ductile.plugin
manifest_version: 1
name: mine
version: 0.1.0
protocol: 2
entrypoint: run.sh
description: Mine
commands:
  - {name: poll, type: read, description: Polls}
  - {name: handle, type: write, description: Handles}
  - {name: health, type: read, description: Says whether it can run}
  - {name: refresh, type: write, description: Refreshes}
";

/// A plugin of one's own.
struct Mine(tempfile::TempDir);

impl Mine {
    fn new(manifest: &str, script: &str) -> Self {
        let mine = Self(tempfile::tempdir().expect("temporary directory"));
        let dir = mine.dir();
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("manifest.yaml"), manifest).expect("the manifest");
        fs::write(dir.join("run.sh"), script).expect("the script");
        fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("an executable");
        mine
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("mine")
    }
}

fn ductile(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ductile"))
        .args(args)
        .env_remove("DUCTILE_CONFIG_DIR")
        .env("CANARY_SECRET", "s3cr3t-canary")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn on(action: &str, dir: &Path, more: &[&str]) -> (i32, Value) {
    let dir = dir.to_str().expect("text");
    let (code, stdout, stderr) = said(&ductile(&[&["plugin", action, dir, "--json"], more].concat()));
    (code, serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}")))
}

/// Every plugin that is shipped, and the templates, pass without a word.
#[test]
fn the_shipped_plugins_pass_the_check() {
    let roots = ["plugins", "plugins/_template"].map(|root| Path::new(REPOSITORY).join(root));
    let mut checked = 0;
    for root in roots {
        for entry in fs::read_dir(root).expect("listed").flatten() {
            if !entry.path().join("manifest.yaml").is_file() {
                continue;
            }
            let (code, document) = on("check", &entry.path(), &[]);
            let problems = document["problems"].as_array().expect("a list");
            let known = |p: &Value| p["message"].as_str().is_some_and(|m| m.contains("is not on the PATH"));
            if problems.iter().any(known) {
                println!("skipped: {} has no interpreter here", entry.path().display());
                continue;
            }
            assert_eq!((code, &document["valid"], problems.len()), (0, &json!(true), 0), "{document}");
            checked += 1;
        }
    }
    assert!(checked > 3, "only {checked} plugins were found");
}

/// MAN-03, MAN-05, MAN-07, MAN-09, MAN-19: each problem has its file, its line where there is one, and a next step.
#[test]
fn a_check_names_file_line_and_next_step_of_each_problem() {
    let bad = MANIFEST.replace("protocol: 2", "protocol: 1").replace("type: read, description: Polls", "type: rw");
    let mine = Mine::new(&bad, "#!/bin/sh\n");
    let (code, document) = on("check", &mine.dir(), &[]);
    assert_eq!((code, &document["valid"]), (1, &json!(false)), "{document}");
    let errors: Vec<(&Value, &Value)> = document["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|p| p["severity"] == "error")
        .map(|p| (&p["field"], &p["line"]))
        .collect();
    assert_eq!(errors, [(&json!("protocol"), &json!(5)), (&json!("commands[0].type"), &json!(9))], "{document}");
    assert!(document["problems"].as_array().expect("a list").iter().all(|p| p["hint"].is_string()), "{document}");
    let (code, stdout, _) = said(&ductile(&["plugin", "check", mine.dir().to_str().expect("text")]));
    assert_eq!(code, 1);
    assert!(stdout.contains("manifest.yaml:5:"), "{stdout}");

    for (script, mode, part) in [
        ("#!/bin/sh\n", 0o644, "not executable"),
        ("#!/no/such/interpreter\n", 0o755, "/no/such/interpreter is not there"),
        ("#!/bin/sh\r\n", 0o755, "carriage return"),
        ("#!/bin/sh\n", 0o757, "writable by everybody"),
    ] {
        let mine = Mine::new(MANIFEST, script);
        fs::set_permissions(mine.dir().join("run.sh"), fs::Permissions::from_mode(mode)).expect("our own file");
        let (code, document) = on("check", &mine.dir(), &[]);
        assert_eq!(code, 1, "{document}");
        assert!(document.to_string().contains(part), "{part}: {document}");
        let (code, document) = on("test", &mine.dir(), &[]);
        assert_eq!((code, &document["trials"]), (1, &json!([])), "what would not be loaded is not run: {document}");
    }
}

/// The commands run in their order, get what they would get, and leave state to each other as in the gateway.
#[test]
fn a_trial_is_what_the_gateway_would_do() {
    let script = r#"#!/bin/sh
request=$(cat)
case $request in
  *'"command":"health"'*) echo '{"status":"ok","result":"fine","state_updates":{"no":1}}' ;;
  *'"command":"poll"'*) echo '{"status":"ok","result":"one","state_updates":{"a":1},"logs":[{"level":"info","message":"hi"}]}' ;;
  *'"command":"handle"'*)
    case $request in *'"state":{"a":1}'*'"type":"some.event"'*'"n":7'*) ;; *) echo "not as expected: $request" >&2; exit 3 ;; esac
    echo '{"status":"ok","result":"two","state_updates":{"b":2},"events":[{"type":"mine.done","payload":{"k":"v"}}]}' ;;
  *) env >&2; [ -z "$CANARY_SECRET" ] || exit 4
     echo '{"status":"error","error":"not today"}' ;;
esac
"#;
    let mine = Mine::new(MANIFEST, script);
    let (code, document) = on("test", &mine.dir(), &["--payload", r#"{"n":7}"#, "--event-type", "some.event"]);
    assert_eq!((code, &document["ok"]), (1, &json!(false)), "one command fails: {document}");
    let trials = document["trials"].as_array().expect("a list");
    let names: Vec<&str> = trials.iter().filter_map(|t| t["command"].as_str()).collect();
    assert_eq!(names, ["health", "poll", "handle", "refresh"]);
    let [health, poll, handle, refresh] = &trials[..] else { panic!("four: {document}") };
    assert_eq!((&health["status"], &health["state"]), (&json!("succeeded"), &Value::Null), "health keeps no state");
    assert!(health["warnings"].to_string().contains("health keeps no state"), "{health}");
    assert_eq!((&poll["result"], &poll["state"]), (&json!("one"), &json!({"a": 1})));
    assert_eq!(poll["logs"][0]["message"], "hi");
    assert_eq!(handle["status"], "succeeded", "{handle}");
    assert_eq!(handle["state"], json!({"a": 1, "b": 2}), "without a rule for facts state is merged");
    assert_eq!(handle["events"], json!([{"type": "mine.done", "payload": {"k": "v"}}]));
    assert_eq!((&refresh["cause"], &refresh["retry"]), (&json!("plugin_error"), &json!(true)), "{refresh}");
    assert_eq!(refresh["retry_after_ms"], 30_000);
    assert!(!refresh["stderr"].to_string().contains("s3cr3t-canary"));

    let (code, document) = on("test", &mine.dir(), &["--command", "poll", "--state", r#"{"z":0}"#]);
    assert_eq!((code, document["trials"].as_array().map(Vec::len)), (0, Some(1)));
    assert_eq!(document["trials"][0]["state"], json!({"a": 1, "z": 0}));
    assert_eq!(said(&ductile(&["plugin", "test", mine.dir().to_str().expect("text"), "-c", "nope"])).0, 2);
}

/// MAN-13: required keys come from the entry, which is given as JSON or taken from a configuration.
#[test]
fn a_trial_needs_the_config_that_the_manifest_requires() {
    let manifest = format!("{MANIFEST}config_keys:\n  required: [url]\n");
    let script = "#!/bin/sh\ncase $(cat) in *'\"url\":\"http://x\"'*) echo '{\"status\":\"ok\",\"result\":\"\"}' ;; *) exit 5 ;; esac\n";
    let mine = Mine::new(&manifest, script);
    let (code, document) = on("test", &mine.dir(), &["-c", "health"]);
    assert_eq!(code, 1);
    assert!(document["problems"].to_string().contains("url"), "{document}");
    for more in [["--plugin-config", r#"{"url":"http://x"}"#], ["--config", r#"{"url":"http://x"}"#]] {
        let (code, document) = on("test", &mine.dir(), &[&["-c", "health"][..], &more].concat());
        assert_eq!(code, 0, "{document}");
    }
    let config = mine.0.path().join("config.yaml");
    fs::write(&config, "plugin_roots: []\n").expect("written");
    let (code, document) = on("check", &mine.dir(), &["--config", config.to_str().expect("text")]);
    assert_eq!(code, 0, "a warning: {document}");
    assert!(document["problems"].to_string().contains("in no plugin root"), "{document}");
    let text = "plugin_roots: [.]\nplugins:\n  mine:\n    enabled: true\n    config: {url: 'http://x'}\n    retry: {max_attempts: 1}\n";
    fs::write(&config, text).expect("written");
    let (code, document) = on("test", &mine.dir(), &["-c", "poll", "--config", config.to_str().expect("text")]);
    assert_eq!((code, &document["trials"][0]["max_attempts"]), (0, &json!(1)), "{document}");
    let (_, document) = on("check", &mine.dir(), &["--config", config.to_str().expect("text")]);
    assert_eq!(document["problems"], json!([]), "it is found and has an entry");
    let dir = mine.dir();
    let verbose =
        ["plugin", "test", dir.to_str().expect("text"), "-v", "--plugin-config", r#"{"url":"s3cr3t-canary"}"#];
    let (_, _, stderr) = said(&ductile(&verbose));
    assert!(stderr.contains("request of poll") && !stderr.contains("s3cr3t-canary"), "{stderr}");
}

/// QUE-26, QUE-27: what a trial says of each fault is, word by word, what the gateway records of it.
#[test]
fn a_trial_and_an_attempt_are_judged_alike() {
    let faults = [
        ("exit_78", "exit_78", false),
        ("exit_1_ok_json", "exit_code", true),
        ("garbage", "protocol_error", true),
        ("two_objects", "protocol_error", true),
        ("non_utf8", "protocol_error", true),
        ("killed_by_signal", "signal", true),
        ("flood_stdout", "output_too_large", true),
        ("hang", "timeout", true),
    ];
    let root = Path::new(REPOSITORY).join("tests/plugins");
    let keys = "    retry: {max_attempts: 1}\n    timeouts: {poll: 1s}\n";
    let builder = faults.iter().fold(Gateway::new(), |builder, (fault, ..)| builder.plugin_with(fault, keys));
    let mut gateway = builder.prepare();
    let config = gateway.path("config.yaml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replacen("plugin_roots:\n", &format!("plugin_roots:\n  - {}\n", root.display()), 1);
    fs::write(&config, text).expect("written");
    gateway.start();
    for (fault, cause, retry) in faults {
        let (code, document) = on("test", &root.join(fault), &["--command", "poll", "--timeout", "1s"]);
        let trial = &document["trials"][0];
        assert_eq!((code, &trial["cause"], &trial["retry"]), (1, &json!(cause), &json!(retry)), "{fault}: {document}");
        let id = gateway.enqueue(fault, "poll", "{}");
        gateway.finished(&id);
        let inspected = gateway.cli_json(&["job", "inspect", &id, "--json"]);
        let attempt = &inspected["attempts"][0];
        for key in ["status", "cause", "error", "exit_code", "signal"] {
            assert_eq!(attempt[key], trial[key], "{fault}: {key}");
        }
        assert_eq!(inspected["logs"][0]["stderr"], trial["stderr"], "{fault}");
    }
}

/// A trial that is interrupted leaves no process behind, although the plugin has a group of its own.
#[test]
fn an_interrupted_trial_ends_its_plugin() {
    let mine = Mine::new(MANIFEST, "#!/bin/sh\necho $$ > \"$HOME/pid\"\nsleep 600 &\nwait\n");
    let home = mine.0.path();
    let mut trial = Command::new(env!("CARGO_BIN_EXE_ductile"))
        .args(["plugin", "test", mine.dir().to_str().expect("text"), "-c", "poll"])
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let pid = until_some("the plugin runs", || fs::read_to_string(home.join("pid")).ok()?.trim().parse::<i32>().ok());
    let process = nix::unistd::Pid::from_raw(i32::try_from(trial.id()).expect("a pid"));
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).expect("our own child");
    assert_eq!(trial.wait().expect("a child of ours").code(), Some(1));
    until_some("the plugin is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

fn until_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
