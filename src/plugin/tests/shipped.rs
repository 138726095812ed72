//! The plugins that are shipped: they load without a complaint and answer as their READMEs say.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::time::Duration;

use ductile_domain::outcome::{AttemptStatus, Cause};
use ductile_plugin::discover::discover;
use serde_json::{Value, json};

use support::{Bench, raw, root};

fn shipped(name: &str) -> ductile_domain::catalog::Plugin {
    support::plugin(&root().join("plugins").join(name))
}

fn answer(bench: &Bench, plugin: &ductile_domain::catalog::Plugin, command: &str, payload: Option<&str>) -> Value {
    let (outcome, warnings) = bench.judged(plugin, command, payload);
    assert_eq!(outcome.status, AttemptStatus::Succeeded, "{outcome:?}");
    assert!(warnings.is_empty(), "{warnings:?}");
    serde_json::from_str(&outcome.result.expect("an answer")).expect("JSON")
}

#[test]
fn the_shipped_plugins_load_without_a_complaint() {
    let found = discover(&[root().join("plugins")]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    for name in ["echo", "py-greet", "stress", "sys_exec"] {
        let plugin = &found.plugins[name];
        assert!(plugin.manifest.command("health").is_some(), "{name}");
        assert!(plugin.dir.join("README.md").is_file(), "{name}");
    }
}

#[test]
fn echo_answers_any_message_with_valid_json() {
    let bench = Bench::new();
    let echo = shipped("echo");
    for message in
        ["Hello API", "", "a\"b\\c/é\n\t\u{1}", "%s $(id) `id` ${HOME}", "\\\"message\\\":", "\"payload\":{}", "}{"]
    {
        let payload = json!({"before": {"payload": 1}, "message": message}).to_string();
        let answer = answer(&bench, &echo, "poll", Some(&payload));
        assert_eq!(answer["result"], format!("Echoed: {message}"), "{payload}");
        assert_eq!(answer["events"][0]["payload"]["message"], message);
    }
    for payload in [None, Some("{}"), Some(r#"{"message":5}"#), Some(r#"{"message":{"message":"#)] {
        if payload.is_none_or(|p| serde_json::from_str::<Value>(p).is_ok()) {
            assert_eq!(answer(&bench, &echo, "poll", payload)["result"], "Echoed: Hello", "{payload:?}");
        }
    }
    let large = json!({"message": "\"\\".repeat(100_000)}).to_string();
    assert!(answer(&bench, &echo, "poll", Some(&large))["result"].as_str().is_some_and(|r| r.contains("bytes")));
    let event = json!({"type": "a.b", "payload": {"message": "from an event"}, "event_id": "e"}).to_string();
    assert_eq!(answer(&bench, &echo, "handle", Some(&event))["events"][0]["type"], "echo.handled");
    let health = answer(&bench, &echo, "health", Some(r#"{"command":"poll"}"#));
    assert_eq!(health["result"], "healthy");
}

#[test]
fn py_greet_leaves_the_documented_snapshot() {
    let bench = Bench::new();
    let answer = answer(&bench, &shipped("py-greet"), "poll", Some(r#"{"name":"Zoë"}"#));
    assert_eq!(answer["state_updates"]["last_greeting"], "Hello, Zoë!");
    let keys: Vec<_> = answer["state_updates"].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["last_greeting", "last_run"]);
}

#[test]
fn stress_does_what_its_payload_says() {
    let bench = Bench::with_deadline(Duration::from_secs(30));
    let stress = shipped("stress");
    for (payload, cause) in [
        (json!({"mode": "sleep", "seconds": 0.01}), None),
        (json!({"mode": "memory", "megabytes": 4}), None),
        (json!({"mode": "stderr"}), None),
        (json!({"mode": "exit", "code": 78}), Some(Cause::ExitConfig)),
        (json!({"mode": "exit", "code": 3}), Some(Cause::ExitCode)),
        (json!({"mode": "error"}), Some(Cause::PluginError)),
        (json!({"mode": "error", "retry": false}), Some(Cause::RetryRefused)),
        (json!({"mode": "nonsense"}), Some(Cause::RetryRefused)),
        (json!({"mode": "sleep", "seconds": -1}), Some(Cause::RetryRefused)),
        (json!({"mode": "stdout"}), Some(Cause::OutputTooLarge)),
    ] {
        let (outcome, _) = bench.judged(&stress, "poll", Some(&payload.to_string()));
        assert_eq!(outcome.cause, cause, "{payload}: {:?}", outcome.error);
    }
}

#[test]
fn sys_exec_runs_its_command_and_takes_payloads_as_data() {
    let bench = Bench::new();
    let mut plugin = shipped("sys_exec");
    let hostile = json!({"path": "$(touch /nonexistent/x); echo pwned", "LD_PRELOAD\u{0}": "x", "n": 5}).to_string();
    plugin.config = raw(r#"{"command":["/bin/sh","-c","printf '%s|%s' \"$PAYLOAD_PATH\" \"$PAYLOAD_N\""]}"#);
    let answer = answer(&bench, &plugin, "poll", Some(&hostile));
    assert_eq!(answer["events"][0]["payload"]["stdout"], "$(touch /nonexistent/x); echo pwned|5");
    assert!(answer["ductile_stopwatch_subs"][0]["dur_ns"].as_u64().is_some());

    plugin.config = raw(r#"{"command":"echo oops >&2; exit 7"}"#);
    let (outcome, _) = bench.judged(&plugin, "handle", None);
    assert_eq!((outcome.cause, outcome.error.as_deref()), (Some(Cause::ExitCode), Some("exit code 7")));
    assert_eq!(outcome.stderr.as_deref(), Some("oops\n"));

    for config in
        [r#"{"command":""}"#, r#"{"command":"true","working_dir":"/nonexistent"}"#, r#"{"command":["/nonexistent/x"]}"#]
    {
        plugin.config = raw(config);
        let (outcome, _) = bench.judged(&plugin, "poll", None);
        assert_eq!(outcome.cause, Some(Cause::ExitConfig), "{config}");
    }
}
