//! The doors of a real gateway: what they show is what operators' SQL finds, and who may see it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{Gateway, PATIENCE, Response};

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("an address").port()
}

/// A request at the TCP door.
pub(crate) fn ask(port: u16, method: &str, path: &str, token: Option<&str>) -> Response {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    Response::parse(&answer).expect("an answer over HTTP")
}

fn hash(path: &Path) -> String {
    format!("blake3:{}", blake3::hash(&fs::read(path).expect("the file")).to_hex())
}

/// A registry of tokens behind the lines of `api:`.
fn with_registry(port: u16, scopes_hash: &str) -> String {
    format!(
        "  enabled: true\n  listen: 127.0.0.1:{port}\n  auth:\n    tokens:\n      - name: inline\n        token: ${{INLINE}}\n        \
         scopes: [jobs:ro]\ntokens:\n  - name: ops\n    key: ${{OPS}}\n    scopes_file: ops.json\n    scopes_hash: {scopes_hash}\n  \
         - name: hook\n    key: ${{HOOK}}\nwebhooks:\n  endpoints:\n    - path: /x\n      plugin: echo\n      secret_ref: hook\n"
    )
}

/// AUT-04, AUT-05, AUT-07, AUT-09: tokens of both places work with their scopes, a shared secret is no token, and a scope
/// file that was changed stops the start.
#[test]
fn tokens_come_from_two_places_and_a_changed_scope_file_stops_the_start() {
    let port = free_port();
    let builder = Gateway::new().plugin("echo");
    let scopes = builder.path().join("ops.json");
    fs::write(&scopes, r#"{"scopes": ["read:jobs", "echo:rw"]}"#).expect("the scope file");
    let secrets = [("INLINE", "canary-inline-1"), ("OPS", "canary-ops-2"), ("HOOK", "canary-hook-3")];
    let lines = with_registry(port, &hash(&scopes));
    let builder = secrets.iter().fold(builder.api(&lines), |builder, (name, value)| builder.env(name, *value));
    let mut gateway = builder.start();
    for (token, path, status) in [
        (Some("canary-inline-1"), "/jobs", 200),
        (Some("canary-inline-1"), "/plugin/echo", 403),
        (Some("canary-ops-2"), "/jobs", 200),
        (Some("canary-ops-2"), "/plugin/echo", 200),
        (Some("canary-ops-2"), "/config/view", 403),
        (Some("canary-hook-3"), "/jobs", 401),
        (Some("canary-ops"), "/jobs", 401),
        (None, "/jobs", 401),
        (None, "/healthz", 200),
    ] {
        let answer = ask(port, "GET", path, token);
        assert_eq!(answer.status, status, "{path} with {token:?}: {}", answer.body);
    }
    let view = gateway.request("GET", "/config/view", None);
    let tokens = view.json()["api"]["tokens"].clone();
    assert_eq!(tokens, json!([{"scopes": ["jobs:ro"]}, {"scopes": ["echo:rw", "jobs:ro"]}]));
    for text in [&view.body, &gateway.logs()] {
        assert!(!text.contains("canary-"), "a secret is shown: {text}");
    }
    assert_eq!(gateway.stop(), 0);
    fs::write(&scopes, r#"{"scopes": ["*"]}"#).expect("the scope file");
    gateway.spawn();
    assert_eq!(gateway.wait_exit(), 78, "{}", gateway.logs());
}

/// API-36, API-37: nothing under a suspicious key, and nothing from the environment, is shown.
#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let keys = "    config:\n      api_key: canary-key-1\n      url: ${CANARY_URL}\n      message: Hello\n";
    let gateway = Gateway::new().plugin_with("echo", keys).env("CANARY_URL", "https://canary-2.example").start();
    let answer = gateway.request("GET", "/config/view", None);
    let view = answer.json();
    assert_eq!(view["plugins"]["echo"]["config"]["message"], "Hello");
    assert_eq!(view["plugins"]["echo"]["config"]["api_key"], "[REDACTED]");
    assert!(!answer.body.contains("canary"), "{}", answer.body);
    assert_eq!((&view["api"]["enabled"], &view["api"]["tokens"]), (&json!(false), &json!([])));
    assert!(view["service"]["name"].is_string() && view["pipelines"].is_array() && view["compiled_routes"].is_object());
}

/// API-34, API-35, API-40, OPS-33, TEL-08: figures equal a computation over the tables.
#[test]
fn figures_are_those_of_the_tables() {
    let gateway = Gateway::new()
        .script("good", "sleep 0.0$(($$ % 5)); printf '{\"status\":\"ok\",\"result\":\"x\"}'")
        .script_with("bad", "exit 1", "    retry: {max_attempts: 2, backoff_base: 10ms}\n")
        .script_with("late", "exec sleep 30", "    timeout: 100ms\n    max_attempts: 1\n")
        .start();
    let mut ids: Vec<_> = (0..20).map(|_| gateway.enqueue("good", "poll", "{}")).collect();
    ids.extend(["bad", "late"].map(|plugin| gateway.enqueue(plugin, "poll", "{}")));
    for id in &ids {
        gateway.finished(id);
    }
    let stats = &gateway.get("/analytics/summary")["stats"];
    for row in gateway.sql("SELECT status, count(*) FROM job_queue GROUP BY status") {
        assert_eq!(stats[&row[0]].to_string(), row[1], "{row:?} in {stats}");
    }
    let queue = gateway.get("/analytics/queue");
    assert_eq!((&queue["queued"], &queue["running"]), (&json!(0), &json!(0)));
    let stopwatch = gateway.get("/stopwatch/good");
    let durations: Vec<i64> = gateway
        .sql("SELECT dur_ns FROM job_stopwatch WHERE plugin = 'good' ORDER BY dur_ns")
        .iter()
        .map(|row| row[0].parse().expect("a number"))
        .collect();
    assert_eq!(stopwatch["count"], 20);
    for (name, rank) in [("min", 1), ("p50", 10), ("p95", 19), ("p99", 20), ("max", 20)] {
        assert_eq!(stopwatch[name], durations[rank - 1], "{name} of {durations:?}");
    }
    let total = |query: &str| gateway.get(&format!("/job-logs?{query}"))["total"].to_string();
    for row in gateway.sql("SELECT plugin, status, count(*) FROM job_log GROUP BY plugin, status") {
        assert_eq!(total(&format!("plugin={}&status={}", row[0], row[1])), row[2], "{row:?}");
    }
    let timed_out = gateway.get("/jobs?status=timed_out");
    assert_eq!((&timed_out["total"], &timed_out["jobs"][0]["plugin"]), (&json!(1), &json!("late")));
    let job = gateway.get(&format!("/job/{}?include=all", ids[0]));
    let by_sql = gateway.sql_one(&format!(
        "SELECT max(exit_wall_ns) - min(enter_wall_ns) - sum(dur_ns) FROM job_stopwatch WHERE job_id = '{}'",
        ids[0]
    ));
    assert_eq!(job["timing"]["gateway_ns"].to_string(), by_sql);
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(job["transitions"].as_array().map(Vec::len), Some(3));
}

/// QUE-35: the same input runs again as a job of its own, also in the next start of the gateway.
#[test]
fn a_replayed_job_runs_with_the_recorded_input() {
    let mut gateway = Gateway::new()
        .script("say", "input=$(cat); printf '{\"status\":\"ok\",\"result\":\"x\",\"logs\":[{\"level\":\"info\",\"message\":\"%s\"}]}' \"$(printf '%s' \"$input\" | grep -o 'needle-[0-9]*' | head -1)\"")
        .start();
    let old = gateway.enqueue("say", "handle", r#"{"text":"needle-17"}"#);
    assert_eq!(gateway.finished(&old)["status"], "succeeded");
    gateway.kill_nine();
    gateway.start();
    let said = |job: &Value| job["result"]["logs"][0]["message"].as_str().unwrap_or_default().to_owned();
    let answer = gateway.request("POST", &format!("/job/{old}/replay"), None);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let new = answer.json()["job_id"].as_str().expect("an id").to_owned();
    assert_ne!(new, old);
    let job = gateway.finished(&new);
    assert_eq!((job["status"].as_str(), said(&job).as_str()), (Some("succeeded"), "needle-17"));
    assert_eq!((&job["submitted_by"], job.get("parent_job_id")), (&json!("api"), None));
    assert!(job["requested_by"].as_str().is_some_and(|by| by.starts_with("socket:")), "{job}");
    let first = &gateway.get(&format!("/job/{new}?include=transitions"))["transitions"][0];
    assert_eq!(first["reason"], format!("enqueued by api: replay of {old}"));
    let other =
        gateway.request("POST", &format!("/job/{old}/replay?wait=30s"), Some(r#"{"payload":{"text":"needle-99"}}"#));
    assert_eq!((other.status, said(&other.json()).as_str()), (200, "needle-99"), "{}", other.body);
    let tree = gateway.get(&format!("/job/{new}/tree"));
    assert_eq!((&tree[0]["job_id"], &tree[0]["parent_job_id"]), (&json!(new), &Value::Null));
    let missing = gateway.request("POST", "/job/00000000-0000-0000-0000-00000000dead/replay", None);
    assert_eq!((missing.status, &missing.json()["code"]), (404, &json!("unknown_job")));
}

/// FCT-13: the facts of the table, newest first.
#[test]
fn facts_are_those_of_the_table() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: py-greet needs python3, which is not installed");
        return;
    }
    let gateway = Gateway::new().plugin("py-greet").start();
    for name in ["Ada", "Bea", "Cyd"] {
        let id = gateway.enqueue("py-greet", "poll", &format!("{{\"name\":\"{name}\"}}"));
        assert_eq!(gateway.finished(&id)["status"], "succeeded");
    }
    let facts = gateway.get("/plugin/py-greet/facts?type=py-greet.snapshot");
    let shown: Vec<Vec<String>> = facts["facts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|fact| vec![fact["seq"].to_string(), fact["job_id"].as_str().unwrap_or_default().to_owned()])
        .collect();
    assert_eq!(shown, gateway.sql("SELECT seq, job_id FROM plugin_facts ORDER BY seq DESC"));
    assert_eq!(shown.len(), 3);
    let older = gateway.get("/plugin/py-greet/facts?before_seq=2");
    assert_eq!(older["facts"].as_array().map(Vec::len), Some(1));
}

/// OPS-34: version and commit are the same wherever they are asked for.
#[test]
fn every_door_names_the_same_build() {
    let gateway = Gateway::new().plugin("echo").start();
    let version = gateway.cli_json(&["version", "--json"]);
    assert!(version["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{version}");
    let status = gateway.cli_json(&["system", "status", "--json"]);
    let health = gateway.get("/healthz");
    for key in ["version", "commit"] {
        assert_eq!((&status[key], &health[key]), (&version[key], &version[key]), "{key}");
    }
    assert!(health["uptime_seconds"].is_u64());
}
