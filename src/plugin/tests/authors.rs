//! What authors get: the helpers' own tests run, and the templates are sound plugins.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::process::Command;

use ductile_domain::catalog::Plugin;
use ductile_domain::outcome::{AttemptStatus, Cause};
use ductile_plugin::discover::discover;
use serde_json::{Value, json};

use support::{Bench, job, plugin, raw, root};

/// TEL-09, C-46: the helpers for Python and sh pass their own tests.
#[test]
fn the_helpers_pass_their_own_tests() {
    let tests = root().join("plugins/_lib/tests");
    let mut command = Command::new("python3");
    let ran = match command.args(["-B", "-m", "unittest", "discover", "-s"]).arg(&tests).output() {
        Ok(ran) => ran,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no python3 on this machine");
            return;
        }
        Err(error) => panic!("python3 can't be run: {error}"),
    };
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("\nOK"), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

/// Directories that begin with `_` are no plugins; as a root, the templates load without a complaint.
#[test]
fn the_templates_load_without_a_complaint_and_are_no_plugins_themselves() {
    let shipped = discover(&[root().join("plugins")]);
    assert!(shipped.problems.is_empty(), "{:?}", shipped.problems);
    assert!(shipped.plugins.keys().all(|name| !name.ends_with("_plugin")), "{:?}", shipped.plugins.keys());
    let templates = discover(&[root().join("plugins/_template")]);
    assert!(templates.problems.is_empty(), "{:?}", templates.problems);
    assert_eq!(templates.plugins.keys().collect::<Vec<_>>(), ["python_plugin", "sh_plugin"]);
}

fn template(name: &str, config: &Value) -> Plugin {
    Plugin { config: raw(&config.to_string()), ..plugin(&root().join("plugins/_template").join(name)) }
}

/// What the plugin answered to one request, with the judgement's cause.
fn asked(plugin: &Plugin, command: &str, payload: Option<&Value>, state: &Value) -> (Option<Cause>, Value) {
    let bench = Bench::new();
    let mut job = job(plugin, command, payload.map(Value::to_string).as_deref());
    job.state = Some(raw(&state.to_string()));
    let exited = bench.runner.start(bench.invocation(plugin, &job), |_, _| {}).wait();
    let now = ductile_domain::time::parse("2026-01-01T00:00:30Z").expect("valid");
    let (outcome, warnings) = ductile_plugin::outcome::judge(exited, plugin, command, now);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(outcome.status == AttemptStatus::Succeeded, outcome.cause.is_none());
    let text = outcome.result.expect("an answer");
    (outcome.cause, serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn the_template_in_sh_answers_every_command() {
    let plugin = template("sh_plugin", &json!({"greeting": "Grüß dich"}));
    let empty = json!({});
    let (cause, answer) = asked(&plugin, "poll", Some(&json!({"name": "\"Zoë\"\n'$(id)'"})), &empty);
    assert_eq!((cause, &answer["result"]), (None, &json!("Grüß dich, \"Zoë\"\n'$(id)'!")));
    let envelope = json!({"type": "a.b", "payload": {"name": "you"}, "event_id": "e"});
    let (cause, answer) = asked(&plugin, "handle", Some(&envelope), &empty);
    assert_eq!((cause, &answer["events"][0]["payload"]["greeting"]), (None, &json!("Grüß dich, you!")));
    assert_eq!(asked(&plugin, "health", None, &empty).0, None);
    let blank = template("sh_plugin", &json!({"greeting": " "}));
    assert_eq!(asked(&blank, "health", None, &empty).0, Some(Cause::ExitConfig));
    assert_eq!(asked(&plugin, "nonsense", None, &empty).0, Some(Cause::RetryRefused));
}

#[test]
fn the_template_in_python_remembers_what_it_saw() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("watched");
    std::fs::write(&path, "four").expect("a file");
    let plugin = template("python_plugin", &json!({"path": path, "least_change": "2"}));
    let (cause, first) = asked(&plugin, "poll", None, &json!({}));
    assert_eq!((cause, &first["state_updates"]), (None, &json!({"path": path, "size": 4})));
    assert_eq!(first["events"][0]["type"], "python_plugin.changed");
    assert_eq!(first["ductile_stopwatch_subs"][0]["bytes"], 4);
    let (_, same) = asked(&plugin, "poll", None, &first["state_updates"]);
    assert_eq!((same.get("events"), &same["state_updates"]), (None, &first["state_updates"]));
    let (cause, forgot) = asked(&plugin, "forget", None, &first["state_updates"]);
    assert_eq!((cause, &forgot["state_updates"]["size"]), (None, &json!(null)));
    let (cause, handled) =
        asked(&plugin, "handle", Some(&json!({"type": "a.b", "payload": {"path": path}})), &json!({}));
    assert_eq!((cause, &handled["events"][0]["payload"]["size"]), (None, &json!(4)));
    for command in ["health", "init"] {
        let (cause, answer) = asked(&plugin, command, None, &json!({}));
        assert_eq!((cause, answer.get("state_updates")), (None, None), "{command}");
    }
    assert_eq!(asked(&plugin, "handle", Some(&json!({"type": "a.b"})), &json!({})).0, Some(Cause::RetryRefused));
    std::fs::remove_file(&path).expect("our own file");
    assert_eq!(asked(&plugin, "poll", None, &json!({})).0, Some(Cause::PluginError));
    let wrong = template("python_plugin", &json!({"path": path, "least_change": "many"}));
    assert_eq!(asked(&wrong, "health", None, &json!({})).0, Some(Cause::ExitConfig));
}
