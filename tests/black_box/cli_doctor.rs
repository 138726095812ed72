//! `system doctor` names each fault that an operator may meet, and `system status` agrees with the process.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::Gateway;

/// Exit code and the findings.
fn doctor(gateway: &Gateway, more: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = said(&gateway.cli(&[&["system", "doctor", "--json"], more].concat()));
    (code, serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}")))
}

/// What the doctor says of that check, first word its status.
fn finding(document: &Value, id: &str) -> String {
    let checks = document["checks"].as_array().expect("a list");
    let of_id = checks.iter().filter(|check| check["id"] == id);
    of_id.map(|c| format!("{}: {}", c["status"].as_str().expect("a word"), c["detail"])).collect::<Vec<_>>().join("; ")
}

/// CLI-16, OPS-24: a gateway that is well gives no warning, and what is done to it is found.
#[test]
fn the_doctor_finds_what_ails_a_running_gateway() {
    let broken = "printf '{\"status\":\"error\",\"error\":\"no route to host\",\"retry\":false}'";
    let ill = "case $(cat) in *health*) echo '{\"status\":\"error\",\"error\":\"missing webhook_url\"}' ;; \
               *) echo '{\"status\":\"ok\",\"result\":\"\"}' ;; esac";
    let gateway = Gateway::new().plugin("echo").script("broken", broken).script("ill", ill).start();
    let others = "plugin \\\"";
    let (code, well) = doctor(&gateway, &[]);
    assert_eq!(code, 0, "{well}");
    for id in ["lock", "database", "gateway", "breakers", "queue", "ended_jobs", "supervision", "unhealthy_plugins"] {
        assert!(finding(&well, id).starts_with("ok"), "{id}: {well}");
    }
    assert!(finding(&well, "plugins").contains(others), "the repository's other plugins are not configured: {well}");

    assert_eq!(said(&gateway.cli(&["system", "pause"])).0, 0);
    assert!(finding(&doctor(&gateway, &[]).1, "dispatch").starts_with("warn"));
    assert_eq!(said(&gateway.cli(&["system", "resume"])).0, 0);

    gateway.finished(&gateway.enqueue("broken", "poll", "{}"));
    assert!(finding(&doctor(&gateway, &[]).1, "ended_jobs").starts_with("warn: \"1 failed"));

    let config = gateway.path("config.yaml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("{text}# edited\n")).expect("written");
    assert!(finding(&doctor(&gateway, &[]).1, "generation").starts_with("warn"));

    // Its own word on its health fails, and leaves nothing behind that would be tried again.
    let (code, sick) = doctor(&gateway, &["--health"]);
    let health = finding(&sick, "health");
    assert_eq!(code, 1);
    assert!(health.contains("ok: \"echo\"") && health.contains("fail: \"ill: missing webhook_url\""), "{health}");
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')"), "0");
}

/// OPS-24: what would keep a gateway from starting is found without starting one.
#[test]
fn the_doctor_finds_what_would_keep_a_gateway_from_starting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("an address");
    let gateway = Gateway::new().script("mine", "true").api(&format!("  listen: {listen}\n")).prepare();
    let (code, document) = doctor(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(finding(&document, "address").starts_with("fail"), "{document}");
    assert_eq!(finding(&document, "gateway"), "ok: \"none runs\"");
    drop(taken);
    assert_eq!(doctor(&gateway, &[]).0, 0);

    let script = gateway.path("plugins/mine/run.sh");
    fs::write(&script, "#!/no/such/shell\n").expect("written");
    let (code, document) = doctor(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(finding(&document, "plugins").starts_with("fail"), "{document}");

    fs::write(gateway.path("ductile.db"), "this is no database, but text").expect("written");
    assert!(finding(&doctor(&gateway, &[]).1, "database").starts_with("fail"));

    fs::write(gateway.path("config.yaml"), "service:\n  max_workers: many\n").expect("written");
    let (code, document) = doctor(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(finding(&document, "config").contains("service.max_workers"), "{document}");
}

/// CLI-08, OPS-34, C-99: healthy beside a live gateway, with the pid of the process and the database in use.
#[test]
fn the_status_is_that_of_the_process() {
    let mut gateway = Gateway::new().plugin("echo").start();
    let status = gateway.cli_json(&["system", "status", "--json"]);
    assert_eq!(status["status"], "ok");
    assert_eq!((&status["pid_lock"]["status"], &status["pid_lock"]["pid"]), (&json!("OK"), &json!(gateway.pid())));
    assert_eq!(status["state_path"], json!(gateway.path("ductile.db")));
    assert_eq!(status["plugins_loaded"], 1);
    let version = gateway.cli_json(&["version", "--json"]);
    assert_eq!(status["version"], version["version"]);
    assert!(version["commit"].is_string() && version["build_time"].is_string(), "{version}");
    let (code, text, _) = said(&gateway.cli(&["system", "status"]));
    assert_eq!(code, 0);
    for part in ["HEALTHY", &format!("held by running gateway, pid {}", gateway.pid()), "ductile.db", "uptime"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(gateway.stop(), 0);
    assert_eq!(gateway.cli_json(&["system", "status", "--json"])["status"], "stopped");
}
