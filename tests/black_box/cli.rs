//! What operators type: jobs, reload, raw requests, checks of the instance.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::gateway::{Gateway, sql};

/// Exit code, stdout and stderr.
pub(crate) fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// QUE-35: a replay is a job of its own with the recorded payload, or with another one; the old job stays as it is.
#[test]
fn a_job_is_replayed_with_its_payload_or_with_another() {
    let gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", r#"{"message":"first"}"#);
    let before = gateway.finished(&id);
    let replay = gateway.cli_json(&["job", "replay", &id, "--wait", "--json"]);
    assert_eq!(replay["status"], "succeeded", "{replay}");
    assert_ne!(replay["job_id"], *id);
    assert_eq!(replay["result"]["result"], "Echoed: first");
    let other = gateway.cli_json(&["job", "replay", &id, "--payload", r#"{"message":"second"}"#, "--wait", "--json"]);
    assert_eq!(other["result"]["result"], "Echoed: second");
    assert_eq!(gateway.job(&id), before);

    let (code, _, stderr) = said(&gateway.cli(&["job", "replay", "01890f3e-7c5a-7000-8000-00000000ffff"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("unknown_job"), "{stderr}");
}

/// CLI-27: without a file beside the socket, all that is recorded comes through the API; without a gateway from the file.
#[test]
fn a_job_is_inspected_the_same_with_and_without_a_gateway() {
    let mut gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", r#"{"message":"/srv/a.txt"}"#);
    gateway.finished(&id);
    let socket = format!("unix:{}", gateway.path("ductile.sock").display());
    let live = gateway.cli_json(&["job", "inspect", &id, "--json", "--api-url", &socket]);
    assert_eq!(live["artifacts"], json!(["/srv/a.txt"]));
    for (key, count) in [("attempts", 1), ("transitions", 3), ("stopwatch", 1), ("logs", 1), ("children", 0)] {
        assert_eq!(live[key].as_array().map(Vec::len), Some(count), "{key}: {live}");
    }
    assert!(live["timing"]["dur_ns"].as_i64().is_some_and(|n| n > 0), "{live}");
    let tree = gateway.cli_json(&["job", "tree", &id, "--json"]);
    assert_eq!(tree[0]["parent_job_id"], Value::Null);

    assert_eq!(gateway.stop(), 0);
    let offline = gateway.cli_json(&["job", "inspect", &id, "--json"]);
    let keys = [
        "job_id",
        "status",
        "payload",
        "attempts",
        "transitions",
        "stopwatch",
        "timing",
        "artifacts",
        "lineage",
        "hops",
    ];
    for key in keys {
        assert_eq!(offline[key], live[key], "{key}");
    }
    assert_eq!(gateway.cli_json(&["job", "tree", &id, "--json"])[0]["job_id"], *id);
}

/// CLI-28, OPS-33: the health procedure of the handbook: counts by plugin and status are those of SQL, names capitalized.
#[test]
fn logs_count_what_the_ledger_holds() {
    let gateway = Gateway::new()
        .plugin("echo")
        .script_with("failing", "printf '{\"status\":\"error\",\"error\":\"token expired\",\"retry\":false}'", "")
        .start();
    for _ in 0..3 {
        gateway.finished(&gateway.enqueue("echo", "poll", "{}"));
    }
    gateway.finished(&gateway.enqueue("failing", "poll", "{}"));
    for (plugin, status) in [("echo", "succeeded"), ("failing", "failed")] {
        let counted =
            gateway.sql_one(&format!("SELECT count(*) FROM job_log WHERE plugin = '{plugin}' AND status = '{status}'"));
        let from = ["job", "logs", "--plugin", plugin, "--status", status, "--from", "2020-01-01T00:00:00Z", "--json"];
        let page = gateway.cli_json(&from);
        assert_eq!(page["total"].to_string(), counted, "{page}");
        assert!(page["logs"].as_array().expect("a list").iter().all(|log| log["Status"] == status));
    }
    let page = gateway.cli_json(&["job", "logs", "--query", "expired", "--include-result", "--limit", "5", "--json"]);
    let log = &page["logs"][0];
    assert_eq!((&log["LastError"], &log["Result"]["error"]), (&json!("token expired"), &json!("token expired")));
    for key in ["JobID", "LogID", "Plugin", "Command", "Attempt", "SubmittedBy", "CreatedAt", "CompletedAt"] {
        assert!(!log[key].is_null(), "{key}: {log}");
    }
    let none = gateway.cli_json(&["job", "logs", "--submitted-by", "scheduler", "--json"]);
    assert_eq!(none, json!({"logs": [], "total": 0}), "C-84: an empty list is a list");
}

/// CLI-09: the outcome of a reload is told, a refused one with every problem and its place; the gateway goes on.
#[test]
fn a_reload_says_what_it_changed_or_why_it_did_not() {
    let mut gateway = Gateway::new().plugin("echo").script("other", "printf '{\"status\":\"ok\"}'").start();
    let config = gateway.path("config.yaml");
    let text = fs::read_to_string(&config).expect("the configuration");

    fs::write(&config, text.replace("  other:\n    enabled: true\n", "")).expect("written");
    let told = gateway.cli_json(&["system", "reload", "--json"]);
    assert_eq!((&told["status"], &told["generation"]), (&json!("ok"), &json!(2)), "{told}");
    assert!(told["changed"].to_string().contains("other") || told["removed"].to_string().contains("other"), "{told}");

    fs::write(&config, text.replace("  tick_interval: 1s\n", "  tick_interval: 1s\n  max_workers: none\n"))
        .expect("written");
    let (code, _, stderr) = said(&gateway.cli(&["system", "reload"]));
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("config.yaml:") && stderr.contains("service.max_workers"), "{stderr}");
    let (code, stdout, _) = said(&gateway.cli(&["system", "reload", "--dry-run"]));
    assert!(code == 78 && stdout.contains("would be refused") && stdout.contains("max_workers"), "{stdout}");
    let (code, stdout, _) = said(&gateway.cli(&["system", "reload", "--json"]));
    let document: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &document["problems"][0]["field"]), (78, &json!("service.max_workers")), "{document}");
    assert_eq!(gateway.get("/system/status")["generation"], 2);

    fs::write(&config, &text).expect("written");
    let (code, stdout, stderr) = said(&gateway.cli(&["system", "reload", "--signal"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(gateway.get("/system/status")["generation"], 3);

    assert_eq!(gateway.stop(), 0);
    let (code, _, stderr) = said(&gateway.cli(&["system", "reload"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("no gateway runs here"), "{stderr}");
}

/// CLI-32: the documented examples.
#[test]
fn any_request_can_be_made_from_the_command_line() {
    let gateway = Gateway::new().plugin("echo").start();
    assert!(gateway.cli_json(&["api", "/jobs"])["jobs"].is_array());
    assert_eq!(gateway.cli_json(&["api", "healthz"])["status"], "ok");
    let accepted = gateway.cli_json(&["api", "/plugin/echo/poll", "-f", "message=hello", "-H", "Idempotency-Key: one"]);
    let id = accepted["job_id"].as_str().expect("a job id");
    assert_eq!(gateway.finished(id)["result"]["result"], "Echoed: hello");
    let again = gateway.cli_json(&["api", "/plugin/echo/poll", "-b", r#"{"dedupe_key":"one"}"#]);
    assert_eq!(again["job_id"], *id);
    assert_eq!(gateway.cli_json(&["api", "/jobs", "-X", "GET", "-f", "status=dead"])["total"], 0);
    assert_eq!(gateway.cli_json(&["api", "/system/reload", "-X", "POST"])["status"], "ok");

    let (code, stdout, stderr) = said(&gateway.cli(&["api", "/no/such"]));
    let body: Value = serde_json::from_str(&stdout).expect("the gateway's own document");
    assert_eq!((code, &body["code"]), (1, &json!("no_such_route")), "{stderr}");
    assert!(stderr.contains("404"), "{stderr}");
}

/// CLI-05, CLI-32: who has no token exits with 77.
#[test]
fn a_request_without_a_token_is_not_permitted() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let gateway = Gateway::new().plugin("echo").api(&format!("  listen: 127.0.0.1:{port}\n")).start();
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(gateway.cli_json(&["api", "/healthz", "--api-url", &url])["status"], "ok");
    assert_eq!(said(&gateway.cli(&["api", "/jobs", "--api-url", &url])).0, 77);
    assert_eq!(said(&gateway.cli(&["job", "list", "--api-url", &url, "--api-key", "wrong"])).0, 77);
}

fn checks(output: &Output) -> (i32, Vec<(String, String, String)>) {
    let (code, stdout, stderr) = said(output);
    let list: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    let list = list.as_array().expect("a list");
    (code, list.iter().map(|c| (text(c, "id"), text(c, "status"), text(c, "detail"))).collect())
}

fn failed(checks: &[(String, String, String)]) -> Vec<&str> {
    checks.iter().filter(|c| c.1 == "fail").map(|c| c.0.as_str()).collect()
}

/// CLI-14, OPS-14, OPS-15, OPS-16, OPS-17, OPS-18: six ids, in their order; what is wrong fails, and nothing is changed.
#[test]
fn a_selfcheck_finds_what_is_wrong_and_changes_nothing() {
    let mut gateway = Gateway::new().plugin("echo").start();
    gateway.finished(&gateway.enqueue("echo", "poll", "{}"));
    let (code, live) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    let ids: Vec<&str> = live.iter().map(|c| c.0.as_str()).collect();
    let six = ["config_discovery", "config_load", "pid_lock", "db_integrity", "db_schema", "queue_terminal_freshness"];
    assert_eq!((code, ids), (0, six.to_vec()));
    assert!(live[2].2.contains(&gateway.pid().to_string()), "{live:?}");
    for check in &live[3..] {
        assert_eq!(check.2, "skipped: active gateway holds PID lock — quiesce before selfcheck");
    }
    assert_eq!(gateway.stop(), 0);

    let path = gateway.path("ductile.db");
    let state =
        |path: &Path| (fs::read(path).expect("read"), fs::metadata(path).and_then(|m| m.modified()).expect("a time"));
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(gateway.dir.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    let (before, beside) = (state(&path), names());
    let (code, quiet) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    assert_eq!((code, quiet.iter().all(|c| c.1 == "ok")), (0, true), "{quiet:?}");
    assert!(state(&path) == before, "the file is as it was");
    assert_eq!(names(), beside, "nothing is left beside it");

    sql(&path, "UPDATE ledger_meta SET value = '2099-01-01T00:00:00.000Z' WHERE name = 'last_stop_at'");
    sql(&path, "UPDATE ledger_meta SET value = '2098-01-01T00:00:00.000Z' WHERE name = 'last_start_at'");
    let (code, stale) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    assert_eq!((code, failed(&stale)), (1, vec!["queue_terminal_freshness"]), "{stale:?}");

    sql(&path, "DROP INDEX job_queue_status_created_at_idx");
    let (code, lacking) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    assert_eq!((code, failed(&lacking)), (1, vec!["db_schema", "queue_terminal_freshness"]));
    assert!(lacking[4].2.contains("job_queue_status_created_at_idx"), "{lacking:?}");

    let mut bytes = before.0;
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&path, bytes).expect("written");
    let (code, damaged) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    assert_eq!(code, 1);
    assert!(failed(&damaged).contains(&"db_integrity"), "{damaged:?}");
}

/// FCT-13, TEL-04: what a plugin recorded and how long it took.
#[test]
fn facts_and_times_of_a_plugin_are_shown() {
    let builder =
        Gateway::new().script("watch", "printf '{\"status\":\"ok\",\"result\":\"1\",\"state_updates\":{\"n\":1}}'");
    let manifest = builder.path().join("plugins/watch/manifest.yaml");
    let rule = "fact_outputs:\n  - when: {command: poll}\n    from: state_updates\n    fact_type: watch.snapshot\n";
    fs::write(&manifest, fs::read_to_string(&manifest).expect("the manifest") + rule).expect("written");
    let gateway = builder.start();
    for _ in 0..3 {
        gateway.finished(&gateway.enqueue("watch", "poll", "{}"));
    }
    let facts = gateway.cli_json(&["plugin", "facts", "watch", "--type", "watch.snapshot", "--limit", "2", "--json"]);
    let facts = facts["facts"].as_array().expect("a list");
    assert_eq!(facts.len(), 2);
    assert_eq!((&facts[0]["fact_type"], &facts[0]["fact"]), (&json!("watch.snapshot"), &json!({"n": 1})));
    assert!(facts[0]["seq"].as_i64() > facts[1]["seq"].as_i64(), "{facts:?}");
    let (code, stdout, _) = said(&gateway.cli(&["plugin", "facts", "watch"]));
    assert!(code == 0 && stdout.contains("watch.snapshot"), "{stdout}");

    let times = gateway.cli_json(&["plugin", "stopwatch", "watch", "--command", "poll", "--json"]);
    assert_eq!(times["count"], 3, "{times}");
    assert!(times["p50"].as_i64() <= times["p99"].as_i64(), "{times}");
    assert_eq!(said(&gateway.cli(&["plugin", "facts", "no-such"])).0, 1);
}

/// OPS-35: a plugin's own health tells a fault of its configuration.
#[test]
fn a_missing_key_is_told_by_the_plugins_health() {
    let script = "printf '{\"status\":\"error\",\"error\":\"missing webhook_url\",\"retry\":false}'";
    let gateway = Gateway::new().script("notify", script).start();
    let (code, _, stderr) = said(&gateway.cli(&["plugin", "run", "notify", "health"]));
    assert_eq!(code, 1);
    assert!(stderr.contains("missing webhook_url"), "{stderr}");
}

/// CLI-23: what `config init` writes runs, and its token opens the door.
#[test]
fn an_initialised_directory_runs() {
    let gateway = Gateway::new().prepare();
    let dir = gateway.path("fresh");
    let dir = dir.to_str().expect("text");
    let made = gateway.cli_json(&["config", "init", "--config", dir, "--json"]);
    let secret = made["token"]["secret"].as_str().expect("a secret");
    assert_eq!(secret.len(), 64);
    let checked = gateway.cli_json(&["config", "check", "--config", dir, "--json"]);
    assert_eq!(checked["valid"], true, "{checked}");
    let shown = gateway.cli_json(&["config", "show", "--config", dir, "--json"]);
    assert!(!shown.to_string().contains(secret));
    let read = gateway.cli(&["config", "get", "plugin:echo.enabled", "--config", dir]);
    assert_eq!(said(&read).1, "true\n");
}

/// OPS-14: after a crash the write-ahead log is read and left to the next start, like the file.
#[test]
fn a_selfcheck_after_a_crash_leaves_the_log_to_the_next_start() {
    let mut gateway = Gateway::new().plugin("echo").start();
    let id = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&id);
    gateway.kill_nine();
    let read = |name: &str| fs::read(gateway.path(name)).expect("read");
    let before = [read("ductile.db"), read("ductile.db-wal")];
    assert!(!before[1].is_empty(), "the log holds what was not copied back");
    let (code, found) = checks(&gateway.cli(&["system", "selfcheck", "--json"]));
    assert_eq!((code, failed(&found)), (0, vec![]), "{found:?}");
    assert!([read("ductile.db"), read("ductile.db-wal")] == before);
    gateway.start();
    assert_eq!(gateway.job(&id)["status"], "succeeded");
}

/// CLI-29: a list longer than a page of the API is put together from pages.
#[test]
fn a_long_list_is_whole() {
    let gateway = Gateway::new().plugin("echo").start();
    assert_eq!(said(&gateway.cli(&["system", "pause"])).0, 0);
    for _ in 0..205 {
        gateway.enqueue("echo", "poll", "{}");
    }
    for (limit, count) in [("3", 3), ("201", 201), ("1000", 205)] {
        let page = gateway.cli_json(&["job", "list", "--limit", limit, "--json"]);
        let jobs = page["jobs"].as_array().expect("a list");
        let ids: std::collections::BTreeSet<&str> = jobs.iter().filter_map(|j| j["job_id"].as_str()).collect();
        assert_eq!((ids.len(), &page["total"]), (count, &json!(205)));
    }
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_queue WHERE status = 'queued'"), "205", "CLI-29");
}

/// CLI-03: with `-v` a command says on stderr which files, addresses and requests it uses.
#[test]
fn verbose_commands_name_files_addresses_and_requests() {
    let gateway = Gateway::new().plugin("echo").start();
    let (code, stdout, stderr) = said(&gateway.cli(&["job", "list", "--json", "-v"]));
    assert_eq!(code, 0);
    assert!(serde_json::from_str::<Value>(&stdout).is_ok(), "{stdout}");
    for part in ["config.yaml", "ductile.db", "ductile.sock", "GET /jobs"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let (_, _, stderr) = said(&gateway.cli(&["config", "get", "plugins.echo.enabled", "-v"]));
    assert!(stderr.contains("plugins.echo.enabled:") && stderr.contains("config.yaml:"), "{stderr}");
}

/// OPS-33, CLI-28: the health procedure's own lines of Python, unchanged.
#[test]
fn the_health_procedure_runs_as_it_is_printed() {
    if !Path::new("/usr/bin/python3").exists() {
        println!("skipped: there is no python3");
        return;
    }
    let broken = "printf '{\"status\":\"error\",\"error\":\"token expired\",\"retry\":false}'";
    let gateway = Gateway::new().plugin("echo").script("broken", broken).start();
    for plugin in ["echo", "echo", "broken"] {
        gateway.finished(&gateway.enqueue(plugin, "poll", "{}"));
    }
    let triage = r#"
ductile job logs --from $(date -u -d '24 hours ago' --rfc-3339=seconds | tr ' ' 'T') \
  --limit 200 --json | \
  python3 -c "
import json,sys
d=json.load(sys.stdin)
logs=d['logs'] or []
fails=[l for l in logs if l['Status']=='failed']
print(f'Total jobs: {d[\"total\"]} Failures: {len(fails)}')
for f in fails:
    print(f'  {f[\"Plugin\"]:25} {f[\"CreatedAt\"][:16]} {f[\"LastError\"]}')
"
FROM=$(date -u -d '24 hours ago' +%Y-%m-%dT%H:%M:%SZ)
for plugin in echo broken; do
  ductile job logs --from "$FROM" --plugin "$plugin" --limit 200 --json 2>/dev/null \
    | python3 -c "
import sys,json
d=json.load(sys.stdin)
logs=d.get('logs') or []
total=d.get('total',0)
succ=sum(1 for j in logs if j.get('Status')=='succeeded')
fail=sum(1 for j in logs if j.get('Status')=='failed')
print(f'{\"$plugin\":<22} total={total:<4} in_window={len(logs)} succ={succ:<4} fail={fail}')
"
done
"#;
    let binary = Path::new(env!("CARGO_BIN_EXE_ductile")).parent().expect("a directory");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new("bash")
        .args(["-euc", triage])
        .env("PATH", path)
        .env("DUCTILE_CONFIG_DIR", gateway.dir.path())
        .output()
        .expect("a shell");
    let (code, stdout, stderr) = said(&output);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("Total jobs: 3 Failures: 1") && stdout.contains("token expired"), "{stdout}");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&stdout).contains("echo total=2 in_window=2 succ=2 fail=0"), "{stdout}");
    assert!(words(&stdout).contains("broken total=1 in_window=1 succ=0 fail=1"), "{stdout}");
}
