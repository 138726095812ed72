//! What ails a gateway that runs, as it says itself.

use std::time::{Duration, Instant};

use ductile_domain::config::Service;
use ductile_domain::schedule::silent_after;
use ductile_domain::time;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Finding;
use crate::client::{Client, encode};
use crate::error::Error;
use crate::schedule::breaker_text;
use crate::tree_view::span;

/// A job that has waited longer than this is worth a look.
const LONG_WAIT: Duration = Duration::from_secs(10 * 60);
/// What a plugin's `health` gets, beside the time in the queue.
const HEALTH: Duration = Duration::from_secs(15);
/// How often a job of it is looked at: an attempt that failed and waits for its retry is answer enough.
const LOOK: Duration = Duration::from_millis(200);

/// Asks the gateway; that none runs is no fault.
pub(super) async fn look(client: &Client, on_disk: Option<&str>, runs_health: bool) -> Vec<Finding> {
    let status = match client.get("/system/status").await {
        Ok(status) => status,
        Err(Error::Unreachable { .. }) => return vec![Finding::ok("gateway", "none runs")],
        Err(error) => return vec![Finding::fail("gateway", error.to_string(), "see its log")],
    };
    let mut findings = vec![gateway(&status)];
    if on_disk.is_some_and(|hash| status["config_hash"] != hash) {
        findings.push(Finding::warn(
            "generation",
            "the configuration on disk is not the one in force",
            "`ductile config check && ductile system reload`",
        ));
    }
    if status["paused"] == true {
        findings.push(Finding::warn("dispatch", "paused: no job is taken from the queue", "`ductile system resume`"));
    }
    findings.push(limits(&status));
    findings.push(breakers(&status));
    // a gateway of a former release does not say it
    let silence = status["silent_after_seconds"].as_u64().map(Duration::from_secs);
    let silence = silence.unwrap_or_else(|| silent_after(Service::default().tick_interval));
    findings.push(asked(client, "/scheduler/jobs", "schedules", |jobs| schedules(jobs, silence)).await);
    findings.push(asked(client, "/analytics/queue", "queue", queue).await);
    findings.push(asked(client, "/analytics/summary", "ended_jobs", ended).await);
    findings.push(asked(client, "/system/tree", "supervision", supervision).await);
    findings.push(asked(client, "/plugins", "unhealthy_plugins", unhealthy).await);
    if runs_health {
        findings.extend(health(client).await);
    }
    findings
}

async fn asked(client: &Client, path: &str, id: &'static str, judge: impl FnOnce(&Value) -> Finding) -> Finding {
    match client.get(path).await {
        Ok(answer) => judge(&answer),
        Err(error) => Finding::warn(id, format!("GET {path}: {error}"), "see the gateway's log"),
    }
}

fn gateway(status: &Value) -> Finding {
    let word = status["status"].as_str().unwrap_or("unknown");
    let reasons: Vec<&str> = status["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let up = span(Duration::from_secs(status["uptime_seconds"].as_u64().unwrap_or(0)));
    let version = status["version"].as_str().unwrap_or("?");
    match word {
        "ok" => Finding::ok("gateway", format!("version {version}, up {up}")),
        _ => Finding::fail("gateway", format!("{word}: {}", reasons.join("; ")), "the reasons say what to do"),
    }
}

fn breakers(status: &Value) -> Finding {
    let open: Vec<String> = status["open_breakers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|breaker| {
            let text = |key: &str| breaker[key].as_str().unwrap_or("?");
            format!("{} {}: {}", text("plugin"), text("command"), breaker_text(breaker))
        })
        .collect();
    match open.is_empty() {
        true => Finding::ok("breakers", "none is open"),
        false => Finding::warn(
            "breakers",
            open.join(", "),
            "`ductile job logs --status failed` says why; `ductile system reset PLUGIN` closes it",
        ),
    }
}

/// Schedules that do not fire: paused, unreadable, or without the tick that was due so long ago. Ticks that catch up stand
/// before the one that is told.
fn schedules(answer: &Value, silence: Duration) -> Finding {
    let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |is_meant: &dyn Fn(&Value) -> bool| {
        let meant = jobs.iter().filter(|job| is_meant(job));
        let text = |job: &Value, key: &str| job[key].as_str().unwrap_or("?").to_owned();
        meant.map(|job| format!("{} {}", text(job, "plugin"), text(job, "schedule_id"))).collect::<Vec<_>>().join(", ")
    };
    let silent = named(&|job| job["status"] == "active" && is_silent(job, silence));
    let invalid = named(&|job| job["status"] == "paused_invalid");
    let paused = named(&|job| job["status"] == "paused_manual");
    let active = jobs.iter().filter(|job| job["status"] == "active").count();
    let mut told = Vec::new();
    for (what, names) in [("silent", &silent), ("can't be read", &invalid), ("paused by an operator", &paused)] {
        if !names.is_empty() {
            told.push(format!("{what}: {names}"));
        }
    }
    let hint = "`ductile schedule explain PLUGIN SCHEDULE` says why";
    match (silent.is_empty(), told.is_empty()) {
        (false, _) => Finding::fail("schedules", told.join("; "), hint),
        (true, false) => Finding::warn("schedules", told.join("; "), hint),
        (true, true) => Finding::ok("schedules", format!("{active} active, {} in all", jobs.len())),
    }
}

/// True when its tick is long overdue, or none is expected.
fn is_silent(job: &Value, silence: Duration) -> bool {
    let due = job["next_run_at"].as_str().and_then(time::parse);
    due.is_none_or(|due| (chrono::Utc::now() - due).to_std().is_ok_and(|late| late > silence))
}

/// A level that is no better is no fault: limits hold on every one of them.
fn limits(status: &Value) -> Finding {
    let level = status["limits"]["level"].as_str().unwrap_or("unknown");
    let what = match level {
        "cgroup" => "a cgroup bounds each attempt as a whole, and ends it",
        "cgroup_kill_only" => "a cgroup ends each attempt as a whole; each of its processes is bounded by itself",
        _ => "each process of a plugin is bounded by itself",
    };
    let why = status["limits"]["reason"].as_str().map_or_else(String::new, |why| format!(" ({why})"));
    Finding::ok("limits", format!("{level}: {what}{why}"))
}

fn queue(queue: &Value) -> Finding {
    let number = |key: &str| queue[key].as_u64().unwrap_or(0);
    let detail = format!(
        "{} queued ({} wait for a retry), {} running",
        number("queued"),
        number("awaiting_retry"),
        number("running")
    );
    let waiting = number("queued").saturating_sub(number("awaiting_retry"));
    let oldest = queue["oldest_queued_at"].as_str().and_then(time::parse);
    let age = oldest.and_then(|at| (chrono::Utc::now() - at).to_std().ok()).filter(|_| waiting > 0);
    match age.filter(|age| *age > LONG_WAIT) {
        Some(age) => Finding::warn("queue", format!("{detail}; the oldest since {}", span(age)), "`ductile job list`"),
        None => Finding::ok("queue", detail),
    }
}

fn ended(summary: &Value) -> Finding {
    let count = |status: &str| summary["stats"][status].as_u64().unwrap_or(0);
    let window = summary["window"].as_str().unwrap_or("24h");
    let detail =
        format!("{} failed, {} dead, {} succeeded in {window}", count("failed"), count("dead"), count("succeeded"));
    match count("failed") + count("dead") {
        0 => Finding::ok("ended_jobs", detail),
        _ => {
            Finding::warn("ended_jobs", detail, "`ductile job list --status dead`, `ductile job logs --status failed`")
        }
    }
}

fn supervision(tree: &Value) -> Finding {
    let mut restarted = Vec::new();
    let mut down = Vec::new();
    let mut waiting = vec![&tree["root"]];
    while let Some(node) = waiting.pop() {
        let path = node["path"].as_str().unwrap_or("?");
        if let Some(restarts) = node["restarts"].as_u64().filter(|n| *n > 0) {
            restarted.push(format!("{path} ({restarts})"));
        }
        if node["restart"] == "permanent" && node["phase"] != "up" {
            down.push(format!("{path} is {}", node["phase"].as_str().unwrap_or("?")));
        }
        waiting.extend(node["children"].as_array().into_iter().flatten());
    }
    if !down.is_empty() {
        return Finding::fail("supervision", down.join(", "), "`ductile system tree --watch`; the log says why");
    }
    match restarted.len() {
        0 => Finding::ok("supervision", "every actor is up and none was restarted"),
        _ => Finding::warn(
            "supervision",
            format!("restarted: {}", restarted.join(", ")),
            "`ductile system tree` has the reasons",
        ),
    }
}

fn unhealthy(answer: &Value) -> Finding {
    let plugins = answer["plugins"].as_array().into_iter().flatten();
    let names: Vec<&str> = plugins.filter(|p| p["healthy"] == false).filter_map(|p| p["name"].as_str()).collect();
    match names.len() {
        0 => Finding::ok("unhealthy_plugins", "none"),
        _ => Finding::fail(
            "unhealthy_plugins",
            format!("their init failed: {}", names.join(" ")),
            "`ductile plugin show NAME` says why",
        ),
    }
}

/// Runs `health` of every plugin that declares it, all at once; what would be tried again is cancelled instead.
async fn health(client: &Client) -> Vec<Finding> {
    let plugins = match client.get("/plugins").await {
        Ok(answer) => answer,
        Err(error) => return vec![Finding::warn("health", error.to_string(), "see the gateway's log")],
    };
    let mut runs = JoinSet::new();
    for plugin in plugins["plugins"].as_array().into_iter().flatten() {
        let declares = plugin["commands"].as_array().is_some_and(|commands| commands.contains(&json!("health")));
        if let Some(name) = plugin["name"].as_str().filter(|_| declares && plugin["runnable"] != false) {
            let (client, name) = (client.clone(), name.to_owned());
            runs.spawn(async move {
                let trouble = health_of(&client, &name).await.unwrap_or_else(|error| Some(error.to_string()));
                (name, trouble)
            });
        }
    }
    let mut all = runs.join_all().await;
    all.sort();
    if all.is_empty() {
        return vec![Finding::ok("health", "no plugin that runs declares it")];
    }
    let finding = |(name, trouble): (String, Option<String>)| match trouble {
        None => Finding::ok("health", name),
        Some(trouble) => {
            let hint = format!("`ductile plugin run {name} health` shows all of it");
            Finding::fail("health", format!("{name}: {trouble}"), hint)
        }
    };
    all.into_iter().map(finding).collect()
}

/// What is wrong with the plugin, by its own word: that of its first attempt.
async fn health_of(client: &Client, name: &str) -> Result<Option<String>, Error> {
    let accepted = client.post(&format!("/plugin/{}/health", encode(name)), Some(&json!({}))).await?;
    let id = accepted["job_id"].as_str().ok_or_else(|| Error::Answer(format!("no job id in {accepted}")))?;
    let deadline = Instant::now() + HEALTH;
    loop {
        let job = client.get_waiting(&format!("/job/{id}?wait={}ms", LOOK.as_millis()), LOOK).await?;
        let error = job["last_error"].as_str().map(str::to_owned);
        match job["status"].as_str().unwrap_or("?") {
            "succeeded" => return Ok(None),
            status @ ("queued" | "running") => {
                if error.is_none() && Instant::now() < deadline {
                    continue;
                }
                // It may have ended meanwhile; then there is nothing to cancel.
                let _ = client.post(&format!("/job/{id}/cancel?why=doctor"), None).await;
                return Ok(Some(error.unwrap_or_else(|| format!("{status} after {} s", HEALTH.as_secs()))));
            }
            status => return Ok(Some(error.unwrap_or_else(|| status.to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_queue_that_stands_is_warned_of_and_one_that_waits_for_retries_is_not() {
        let old = "2020-01-01T00:00:00Z";
        let at = |queued: u64, awaiting: u64| {
            queue(&json!({"queued": queued, "awaiting_retry": awaiting, "running": 0, "oldest_queued_at": old})).status
        };
        assert_eq!((at(2, 0), at(2, 2), at(0, 0)), (Level::Warn, Level::Ok, Level::Ok));
    }

    /// BRK-11.
    #[test]
    fn a_schedule_that_does_not_fire_is_named() {
        let job = |id: &str, status: &str, next: Option<&str>| json!({"plugin": "p", "schedule_id": id, "status": status, "next_run_at": next});
        let (past, future) = (Some("2020-01-01T00:00:00Z"), Some("2999-01-01T00:00:00Z"));
        let look = |jobs: &[Value]| {
            let found = schedules(&json!({ "jobs": jobs }), Duration::from_secs(120));
            (found.status, found.detail)
        };
        assert_eq!(
            look(&[job("a", "active", future), job("b", "exhausted", None)]),
            (Level::Ok, "1 active, 2 in all".to_owned())
        );
        for next in [past, None] {
            assert_eq!(look(&[job("a", "active", next)]), (Level::Fail, "silent: p a".to_owned()));
        }
        let late = time::format(chrono::Utc::now() - chrono::TimeDelta::seconds(90));
        let late = json!({ "jobs": [job("a", "active", Some(&late))] });
        let found = [60, 120].map(|limit| schedules(&late, Duration::from_secs(limit)).status);
        assert_eq!(found, [Level::Fail, Level::Ok], "as the gateway itself judges it");
        let told =
            look(&[job("a", "paused_manual", past), job("b", "paused_invalid", None), job("c", "active", future)]);
        assert_eq!(told, (Level::Warn, "can't be read: p b; paused by an operator: p a".to_owned()));
        let open = json!({"open_breakers": [{"plugin": "p", "command": "poll", "state": "open", "failure_count": 3, "threshold": 3}]});
        assert_eq!(breakers(&open).detail, "p poll: open, 3 of 3 failures in a row");
        assert_eq!(breakers(&json!({"open_breakers": []})).status, Level::Ok);
    }

    #[test]
    fn an_actor_that_is_down_fails_and_one_that_was_restarted_warns() {
        let node = |phase: &str, restarts: u64| json!({"path": "root/a", "phase": phase, "restart": "permanent", "restarts": restarts, "children": []});
        let tree = |child: Value| json!({"root": {"path": "root", "phase": "up", "restart": "permanent", "restarts": 0, "children": [child]}});
        assert_eq!(supervision(&tree(node("up", 0))).status, Level::Ok);
        assert_eq!(supervision(&tree(node("up", 2))).status, Level::Warn);
        assert_eq!(supervision(&tree(node("backoff", 2))).status, Level::Fail);
    }
}
