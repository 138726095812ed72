//! Which plugins an operator gets: loaded, listed, shadowed, disabled, refused, and what is said about each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{Builder, Gateway};

const OK: &str = "printf '{\"status\":\"ok\",\"result\":\"ran\"}'\n";

/// Adds lines to the manifest of a script that was just added.
fn also(builder: Builder, name: &str, lines: &str) -> Builder {
    let path = builder.path().join("plugins").join(name).join("manifest.yaml");
    let text = fs::read_to_string(&path).expect("the manifest") + lines;
    fs::write(path, text).expect("written");
    builder
}

/// Writes a plugin that the configuration does not mention.
fn unmentioned(builder: &Builder, name: &str, version: &str) {
    let dir = builder.path().join("plugins").join(name);
    fs::create_dir_all(&dir).expect("a directory");
    let manifest = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: {version}\nprotocol: 2\n\
         entrypoint: run.sh\ncommands: [{{name: poll, type: read}}]\n"
    );
    fs::write(dir.join("manifest.yaml"), manifest).expect("the manifest");
    fs::write(dir.join("run.sh"), format!("#!/bin/sh\n{OK}")).expect("the script");
    executable(&dir.join("run.sh"), 0o755);
}

fn executable(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

fn listed(gateway: &Gateway) -> Vec<(String, bool)> {
    let plugins = gateway.get("/plugins");
    let all = plugins["plugins"].as_array().expect("a list").iter();
    all.map(|p| (p["name"].as_str().expect("a name").to_owned(), p["runnable"] == json!(true))).collect()
}

fn refusal(gateway: &Gateway, plugin: &str) -> (u16, Value) {
    let answer = gateway.request("POST", &format!("/plugin/{plugin}/poll"), None);
    (answer.status, answer.json())
}

/// MAN-01, MAN-02, MAN-09, MAN-13, MAN-17, MAN-18, MAN-19, MAN-20, MAN-22: each is as it must be, beside all the others.
#[test]
fn every_plugin_that_was_found_is_run_listed_or_named_as_refused() {
    let builder = Gateway::new().script("fine", OK).script("off", OK);
    let builder = also(builder.script("needs", OK), "needs", "config_keys: {required: [url, secret]}\n");
    let builder = also(
        builder.script_with("has", OK, "    config: {url: u, secret: s}\n"),
        "has",
        "config_keys: {required: [url, secret]}\n",
    );
    let builder = also(builder.script("spans", OK), "spans", "stopwatch: {max_subs: 257}\n");
    let builder = also(builder.script("typo", OK), "typo", "entry_point: x\nprotocoll: 2\n");
    unmentioned(&builder, "stranger", "1");
    // The repository's own echo stands in a later root.
    unmentioned(&builder, "echo", "99");
    let root = builder.path().join("plugins");
    fs::create_dir(root.join("bare")).expect("a directory");
    fs::write(root.join("bare/run.py"), "").expect("a file");
    unmentioned(&builder, "open", "1");
    executable(&root.join("open"), 0o777);
    unmentioned(&builder, "broken", "1");
    fs::write(root.join("broken/manifest.yaml"), "name: [").expect("a file");
    let mut gateway = builder.prepare();
    let config = fs::read_to_string(gateway.path("config.yaml")).expect("the configuration");
    let config = config.replace("  off:\n    enabled: true\n", "  off:\n    enabled: false\n");
    fs::write(gateway.path("config.yaml"), config).expect("written");
    gateway.start();

    let listed = listed(&gateway);
    let is = |name: &str| listed.iter().find(|(n, _)| n == name).map(|(_, runnable)| *runnable);
    for (name, expected) in [
        ("fine", Some(true)),
        ("has", Some(true)),
        ("typo", Some(true)),
        ("off", Some(false)),
        ("stranger", Some(false)),
        ("echo", Some(false)),
        ("needs", None),
        ("spans", None),
        ("bare", None),
        ("open", None),
        ("broken", None),
    ] {
        assert_eq!(is(name), expected, "{name}");
    }
    assert_eq!(gateway.get("/plugin/echo")["version"], "99", "MAN-02");
    let id = gateway.enqueue("fine", "poll", "{}");
    assert_eq!(gateway.finished(&id)["result"]["result"], "ran");
    for name in ["off", "stranger"] {
        let (status, body) = refusal(&gateway, name);
        assert_eq!((status, &body["code"]), (404, &json!("plugin_not_runnable")), "{name}: {body}");
        assert!(body["hint"].as_str().is_some_and(|h| h.contains(&format!("plugins.{name}"))), "{body}");
    }
    for name in ["needs", "spans", "open"] {
        let (status, body) = refusal(&gateway, name);
        assert_eq!((status, &body["code"]), (404, &json!("unknown_plugin")), "{name}: {body}");
        let is_configured = name != "open";
        assert_eq!(body["hint"].as_str().is_some_and(|h| h.contains("config check")), is_configured, "{body}");
    }
    for (level, parts) in [
        ("ERROR", vec!["\"needs\\\"", "\"url\\\"", "plugins.needs.config.url"]),
        ("ERROR", vec!["\"needs\\\"", "\"secret\\\""]),
        ("WARN", vec!["max_subs", "256", "spans"]),
        ("WARN", vec!["typo", "protocoll", "did you mean `protocol`?"]),
        ("WARN", vec!["\"stranger\\\" discovered but not referenced in config", "\"category\":\"unused\""]),
        ("WARN", vec!["\"echo\\\" was already found in"]),
        ("WARN", vec!["run.py", "bare"]),
        ("ERROR", vec!["writable by everybody", "plugins/open"]),
        ("ERROR", vec!["broken/manifest.yaml"]),
    ] {
        let is_said = |l: &str| l.contains(&format!("\"level\":\"{level}\"")) && parts.iter().all(|p| l.contains(p));
        gateway.until_some(&format!("{level} {parts:?} is said"), |g| g.logs().lines().any(is_said).then_some(()));
    }
    let check = gateway.cli(&["config", "check"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("plugin \"stranger\" discovered but not referenced in config"), "{said}");
    assert!(said.contains("needs the config key \"url\" and is not loaded"), "{said}");
}

/// Promise 5: what was accepted for a plugin that can't be loaded after a start waits, visibly, until it can.
#[test]
fn jobs_of_a_plugin_that_cannot_be_loaded_wait_until_it_can() {
    let mut gateway = Gateway::new().script("late", OK).script("fine", OK).start();
    assert_eq!(gateway.request("POST", "/system/pause", None).status, 200);
    let waiting = gateway.enqueue("late", "poll", "{}");
    gateway.stop();
    let manifest = gateway.path("plugins/late/manifest.yaml");
    let sound = fs::read_to_string(&manifest).expect("the manifest");
    fs::write(&manifest, sound.replace("protocol: 2", "protocol: 3")).expect("written");
    gateway.start();
    assert_eq!(gateway.request("POST", "/system/resume", None).status, 200);
    let other = gateway.enqueue("fine", "poll", "{}");
    assert_eq!(gateway.finished(&other)["status"], "succeeded", "it holds up nobody");
    assert_eq!(gateway.job(&waiting)["status"], "queued");
    let health = gateway.get("/healthz").to_string() + &gateway.get("/system/status").to_string();
    assert!(health.contains("plugins late: enabled, but could not be loaded"), "{health}");
    fs::write(&manifest, sound).expect("written");
    let reloaded = gateway.request("POST", "/system/reload", None);
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    assert_eq!(gateway.finished(&waiting)["result"]["result"], "ran");
    assert_eq!(gateway.get("/healthz")["status"], "ok");
}

/// MAN-13, C-112: a missing key refuses the start in strict mode, and the refusal names it.
#[test]
fn strict_mode_does_not_start_without_a_required_key() {
    let builder = also(Gateway::new().script("needs", OK), "needs", "config_keys: {required: [url]}\n");
    let mut gateway = builder.service("  strict_mode: true\n").prepare();
    gateway.spawn();
    assert_eq!(gateway.wait_exit(), 78);
    let logs = gateway.logs();
    assert!(logs.contains("plugins.needs.config.url") && logs.contains("needs the config key"), "{logs}");
}

/// MAN-10: with `allow_symlinks: false` a plugin that is reached by a link is not loaded.
#[test]
fn links_are_followed_only_when_the_configuration_allows_it() {
    for (allowed, is_there) in [(true, true), (false, false)] {
        let builder = Gateway::new().service(&format!("  allow_symlinks: {allowed}\n"));
        unmentioned(&builder, "real", "1");
        let dir = builder.path().join("plugins/real");
        fs::rename(dir.join("run.sh"), dir.join("other.sh")).expect("our own file");
        std::os::unix::fs::symlink("other.sh", dir.join("run.sh")).expect("a link");
        let gateway = builder.start();
        assert_eq!(listed(&gateway).iter().any(|(n, _)| n == "real"), is_there, "{allowed}");
        gateway.until_some("the link is said", |g| g.logs().contains("symbolic link").then_some(()));
    }
}

/// QUE-29, C-11: what preflight refuses ends as failed after one attempt: no process, no retry, no child.
#[test]
fn what_preflight_refuses_is_failed_without_a_process() {
    let gateway = Gateway::new()
        .script("touches", &format!("echo x >> \"$DUCTILE_TEST_DIR/ran\"\n{OK}"))
        .service("  plugin_env_passthrough: [DUCTILE_TEST_DIR]\n");
    let dir = gateway.path().display().to_string();
    let gateway = gateway.env("DUCTILE_TEST_DIR", dir).start();
    assert_eq!(gateway.request("POST", "/system/pause", None).status, 200);
    let broken = gateway.enqueue("touches", "poll", r#"{"a":1}"#);
    let sound = gateway.enqueue("touches", "poll", r#"{"a":2}"#);
    gateway.sql(&format!("UPDATE job_queue SET payload = '{{broken' WHERE id = '{broken}'"));
    assert_eq!(gateway.request("POST", "/system/resume", None).status, 200);
    assert_eq!(gateway.finished(&sound)["status"], "succeeded");
    let job = gateway.finished(&broken);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
    assert!(job["last_error"].as_str().is_some_and(|e| e.starts_with("preflight: ")), "{job}");
    let ran = fs::read_to_string(gateway.path("ran")).expect("one ran");
    assert_eq!(ran.lines().count(), 1, "a process was started for the refused job");
    assert_eq!(gateway.sql_one(&format!("SELECT count(*) FROM job_queue WHERE parent_job_id = '{broken}'")), "0");
}
