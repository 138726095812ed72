//! `ductile system status`: is it well, and if not, why.

use serde_json::{Value, json};

use crate::args::Global;
use crate::client::{Client, Target};
use crate::error::Error;
use crate::instance::{Instance, Lock};
use crate::offline::Offline;
use crate::report::{Report, Style};
use crate::schedule::{breaker_text, of_status};
use crate::tree_view::span;

/// Asks the gateway, or reads the database when none runs.
///
/// # Errors
/// The gateway is not well, not permitted to be asked, or not there at all.
pub(crate) async fn run(global: &Global, report: &mut Report) -> Result<(), Error> {
    if let Some(url) = &global.api_url {
        let client = Client::new(Target::parse(url)?, global.api_key.clone());
        let status = client.get("/system/status").await?;
        return show(status, None, report);
    }
    let instance = Instance::locate(global, report)?;
    let lock = Lock::look(&instance.lock());
    match Client::new(Target::Socket(instance.socket()), None).get("/system/status").await {
        Ok(status) => show(status, Some((&instance, lock)), report),
        Err(error) if error.is_unreachable() => {
            let offline = Offline::instead(&instance, &error, report)?;
            let counts = offline.counts().await?;
            show_offline(&instance, lock, &counts, report);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn pid_lock(lock: Lock) -> Value {
    match lock {
        Lock::Held(pid) => json!({"status": "OK", "detail": "held by running gateway", "pid": pid}),
        Lock::Free => json!({"status": "OK", "detail": "free: no gateway runs", "pid": null}),
        Lock::Unknown => json!({"status": "FAIL", "detail": "the lock file can't be read", "pid": null}),
    }
}

fn lock_text(lock: &Value) -> String {
    let text = |key: &str| lock[key].as_str().unwrap_or_default();
    match lock["pid"].as_u64() {
        Some(pid) => format!("{} ({}, pid {pid})", text("status"), text("detail")),
        None => format!("{} ({})", text("status"), text("detail")),
    }
}

fn show(mut status: Value, local: Option<(&Instance, Lock)>, report: &mut Report) -> Result<(), Error> {
    if let (Some((instance, lock)), Some(fields)) = (local, status.as_object_mut()) {
        fields.insert("pid_lock".into(), pid_lock(lock));
        fields.insert("state_path".into(), json!(instance.state));
        fields.insert("socket".into(), json!(instance.socket()));
    }
    let word = status["status"].as_str().unwrap_or("unknown").to_owned();
    let reasons: Vec<String> = status["reasons"]
        .as_array()
        .map(|list| list.iter().map(|r| r.as_str().map_or_else(|| r.to_string(), str::to_owned)).collect())
        .unwrap_or_default();
    if report.is_json() {
        report.document(&status);
    } else {
        let title = if word == "ok" { "HEALTHY".to_owned() } else { word.to_uppercase() };
        report.field_styled("gateway", &title, Style::of_state(&word));
        for reason in &reasons {
            report.field_styled("", reason, Style::Yellow);
        }
        print(&status, report);
    }
    match word.as_str() {
        "ok" => Ok(()),
        _ => Err(Error::Failed(format!("the gateway is {word}: {}", reasons.join("; ")))),
    }
}

fn print(status: &Value, report: &mut Report) {
    let text = |key: &str| match &status[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if status["pid_lock"].is_object() {
        report.field("pid_lock", &lock_text(&status["pid_lock"]));
    }
    if let Some(seconds) = status["uptime_seconds"].as_u64() {
        report.field("uptime", &span(std::time::Duration::from_secs(seconds)));
    }
    let paused = if status["paused"] == true { ", PAUSED: `ductile system resume` goes on" } else { "" };
    report.field(
        "jobs",
        &format!(
            "{} queued, {} running of at most {}{paused}",
            text("queue_depth"),
            text("running"),
            text("max_workers")
        ),
    );
    report.field(
        "plugins",
        &format!("{} loaded, {} with an open circuit", text("plugins_loaded"), text("plugins_circuit_open")),
    );
    for breaker in status["open_breakers"].as_array().into_iter().flatten() {
        let text = |key: &str| breaker[key].as_str().unwrap_or("?");
        let (plugin, state) = (text("plugin"), text("state"));
        let told = format!("{plugin} {}: {}; `ductile system reset {plugin}`", text("command"), breaker_text(breaker));
        report.field_styled("breaker", &told, of_status(state));
    }
    if let Some(level) = status["limits"]["level"].as_str() {
        report.field("limits", &format!("by {level}"));
    }
    let unhealthy: Vec<&str> =
        status["unhealthy_plugins"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !unhealthy.is_empty() {
        report.field_styled("unhealthy", &format!("{} (their init failed)", unhealthy.join(" ")), Style::Yellow);
    }
    report.field("generation", &format!("{} (config {})", text("generation"), short(&text("config_hash"))));
    let former: Vec<String> = status["generations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|held| held["no"] != status["generation"])
        .map(|held| format!("{} by {} attempt(s)", held["no"], held["attempts"]))
        .collect();
    if !former.is_empty() {
        report.field("still held", &former.join(", "));
    }
    report.field("boot", &text("boot_id"));
    let commit = status["commit"].as_str().map(|commit| format!(" (commit {commit})")).unwrap_or_default();
    report.field("version", &format!("{}{commit}", text("version")));
    report.field("config", &text("config_path"));
    if status["state_path"].is_string() {
        report.field("state DB", &text("state_path"));
        report.field("socket", &text("socket"));
    }
    report.field("binary", &text("binary_path"));
    let api = &status["api"];
    if api["enabled"] == true {
        let tokens = api["tokens"].as_u64().unwrap_or(0);
        let listen = api["listen"].as_str().unwrap_or("-");
        let note = if tokens == 0 { "no tokens: the public list only" } else { "tokens needed" };
        report.field("api", &format!("http://{listen} ({note})"));
    } else if api.is_object() {
        report.field("api", "off; the control socket serves");
    }
}

fn show_offline(instance: &Instance, lock: Lock, counts: &Value, report: &mut Report) {
    if report.is_json() {
        report.document(&json!({
            "status": "stopped",
            "pid_lock": pid_lock(lock),
            "config_path": instance.config,
            "state_path": instance.state,
            "queue_depth": counts["queued"],
            "running": counts["running"],
        }));
        return;
    }
    report.field_styled("gateway", "NOT RUNNING", Style::Yellow);
    report.field("pid_lock", &lock_text(&pid_lock(lock)));
    report.field("jobs", &format!("{} queued, {} running when it ended", counts["queued"], counts["running"]));
    report.field("config", &instance.config.to_string_lossy());
    report.field("state DB", &instance.state.to_string_lossy());
    report.field("next", "ductile system start");
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
