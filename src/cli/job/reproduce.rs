//! `ductile job reproduce`: the request of a quarantined job run again here, alone, with the same limits; nothing is recorded.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::{ClaimedJob, Fence};
use ductile_domain::outcome::Outcome;
use ductile_domain::pipeline::{Prepared, prepare};
use ductile_plugin::outcome::judge;
use ductile_plugin::{Bounds, Cgroups, End, Invocation, Limits, Runner, environment, protocol};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{indented, job_id, text};
use crate::args::{Global, JobReproduce};
use crate::compiled::Compiled;
use crate::error::Error;
use crate::exit_code;
use crate::plugin::millis;
use crate::records::Records;
use crate::report::{Report, Style};

/// Runs the bundle's request and says how it ended.
///
/// # Errors
/// The job is not in quarantine, its plugin is not in the configuration, or the attempt ended badly.
pub(super) async fn run(args: &JobReproduce, global: &Global, report: &mut Report) -> Result<(), Error> {
    let id = job_id(&args.job)?;
    let kept = Records::new(global, report)?.quarantine(id, report).await?;
    let bundle = &kept["bundle"];
    if bundle.is_null() {
        return Err(Error::Failed("the token may not see what was kept of the job; use one with jobs:ro".to_owned()));
    }
    let generation = Compiled::load(global, report)?.generation;
    let claimed = claimed(bundle)?;
    let plugin = plugin(&generation, &claimed)?;
    report.styled(&format!("{} {} of job {id}", claimed.plugin, claimed.command), Style::Bold);
    let changed = has_changed(&generation, &claimed.plugin, bundle);
    if changed == Some(true) {
        report.note(format!("note: {} or its configuration has changed since the job was quarantined", claimed.plugin));
    }
    let trial = attempt(&generation, &plugin, &claimed, args.timeout, report).await?;
    let is_good = trial.outcome.cause.is_none();
    show(&trial, bundle, report);
    if report.is_json() {
        let mut document = trial.document();
        document["job_id"] = json!(id);
        document["quarantined"] = json!({"at": kept["created_at"], "reason": kept["reason"]});
        document["plugin_changed"] = json!(changed);
        document["ok"] = json!(is_good);
        report.document(&document);
    }
    if is_good { Ok(()) } else { Err(Error::Told { code: exit_code::FAILED }) }
}

/// The job as it was claimed for its last attempt, but for its id: what it does now is not what it did then.
fn claimed(bundle: &Value) -> Result<ClaimedJob, Error> {
    let request = &bundle["request"];
    let word = |key: &str| {
        let found = request[key].as_str();
        found.ok_or_else(|| Error::Answer(format!("the bundle has no {key}: {request}")))
    };
    let raw = |value: &Value| (!value.is_null()).then(|| as_raw(value));
    let now = Utc::now();
    Ok(ClaimedJob {
        fence: Fence { job: JobId::from(Uuid::now_v7()), claim_no: 1 },
        row: 1,
        plugin: word("plugin")?.into(),
        command: word("command")?.into(),
        payload: raw(&request["payload"]),
        attempt: 1,
        max_attempts: 1,
        submitted_by: "cli".into(),
        dedupe_key: None,
        created_at: now,
        started_at: now,
        state: raw(&request["state"]),
        context: raw(&request["context"]),
        context_id: request["context_id"].as_str().and_then(|id| id.parse().ok()),
        seat: None,
        is_routed: false,
        memory_tier: bundle["memory_tier"].as_u64().and_then(|tier| u32::try_from(tier).ok()).unwrap_or(0),
        parent: None,
    })
}

fn as_raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("serde_json writes valid JSON")
}

/// The plugin of the present configuration.
fn plugin(generation: &Generation, job: &ClaimedJob) -> Result<Arc<Plugin>, Error> {
    let name = &job.plugin;
    let found = generation.catalog.get(name);
    let found = found.ok_or_else(|| {
        Error::Failed(format!("the configuration has no plugin {name:?} that can be loaded; `ductile config check`"))
    })?;
    match found.command(&job.command) {
        Some(_) => Ok(found.clone()),
        None => Err(Error::Failed(format!("plugin {name:?} has no command {:?} any more", job.command))),
    }
}

/// Whether manifest, executable or configuration are others than those that the last attempt had; `None` when that is not
/// known.
fn has_changed(generation: &Generation, plugin: &str, bundle: &Value) -> Option<bool> {
    let then = bundle["fingerprint"]["init"].as_str()?;
    Some(ductile_actors::fingerprint(&generation.config, &generation.catalog, plugin)? != then)
}

/// One attempt, ended.
struct Trial {
    plugin: Arc<str>,
    command: Arc<str>,
    outcome: Outcome,
    warnings: Vec<String>,
    level: &'static str,
    bounds: Option<Bounds>,
}

async fn attempt(
    generation: &Generation,
    plugin: &Plugin,
    job: &ClaimedJob,
    timeout: Option<Duration>,
    report: &Report,
) -> Result<Trial, Error> {
    let mut asked = job.clone();
    match prepare(generation, job) {
        Err(text) => return Err(Error::Failed(format!("it can't be run under this configuration: {text}"))),
        Ok(Prepared::Done { reason, .. }) => {
            return Err(Error::Failed(format!("{} runs no process: {reason}", job.plugin)));
        }
        Ok(Prepared::Request { payload, context }) => {
            asked.payload = payload.or(asked.payload);
            asked.context = context.or(asked.context);
        }
    }
    let deadline = timeout.unwrap_or_else(|| plugin.deadline(&job.command));
    let names = generation.config.service.plugin_env_passthrough.iter().chain(&plugin.env_passthrough);
    let bounds = Bounds::of(&plugin.limits, job.memory_tier);
    let invocation = Invocation {
        program: plugin.entrypoint.as_path().into(),
        dir: None,
        env: environment::allowed(std::env::vars_os(), names.map(String::as_str)),
        extra_env: environment::of_attempt(BootId::from(Uuid::now_v7()), job.fence.job, job.attempt),
        stdin: protocol::request(&asked, plugin, Utc::now() + deadline),
        deadline,
        limits: Limits::default(),
        bounds,
    };
    let cgroups = Arc::new(Cgroups::look());
    let runner = Runner::with_cgroups(1, cgroups.clone());
    report.detail(format!("limits by {}", cgroups.level().as_str()));
    let mut running = runner.start(invocation, |_, _| {});
    let exited = tokio::select! {
        exited = running.done() => exited,
        // The process has a group of its own, so the terminal's signal does not reach it.
        _ = tokio::signal::ctrl_c() => {
            running.cancel();
            running.done().await;
            return Err(Error::Failed("interrupted; the plugin was ended".to_owned()));
        }
    };
    runner.shutdown();
    if let End::SpawnFailed { ours: true, error } = &exited.end {
        return Err(Error::Failed(format!("could not start the plugin for lack of means here: {error}")));
    }
    let (outcome, warnings) = judge(exited, plugin, &job.command, Utc::now());
    let level = cgroups.level().as_str();
    Ok(Trial { plugin: job.plugin.clone(), command: job.command.clone(), outcome, warnings, level, bounds })
}

impl Trial {
    fn document(&self) -> Value {
        let Self { outcome, .. } = self;
        let answer = outcome.result.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        json!({
            "plugin": &*self.plugin,
            "command": &*self.command,
            "status": outcome.status,
            "cause": outcome.cause.map(|cause| cause.as_str()),
            "error": outcome.error,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "result": answer.map_or(Value::Null, |answer| answer["result"].clone()),
            "stdout": outcome.result,
            "stderr": outcome.stderr,
            "warnings": self.warnings,
            "dur_ns": outcome.timing.dur_ns,
            "cpu_ms": outcome.usage.cpu.and_then(|cpu| u64::try_from(cpu.as_millis()).ok()),
            "peak_memory": outcome.usage.peak_memory,
            "limits": {
                "level": self.level,
                "memory": self.bounds.and_then(|bounds| bounds.memory),
            },
        })
    }
}

fn show(trial: &Trial, bundle: &Value, report: &mut Report) {
    for attempt in bundle["attempts"].as_array().into_iter().flatten() {
        report.field("then", &format!("attempt {}: {}", attempt["attempt"], text(attempt, "error")));
    }
    let outcome = &trial.outcome;
    let took = millis(u64::try_from(outcome.timing.dur_ns).unwrap_or(0));
    let word = outcome.status.as_str();
    let cause = outcome.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
    report.field_styled("now", &format!("{word}{cause} in {took}"), Style::of_state(word));
    if let Some(error) = &outcome.error {
        report.field("error", error);
    }
    for warning in &trial.warnings {
        report.field("warning", warning);
    }
    for (name, output) in [("stdout", &outcome.result), ("stderr", &outcome.stderr)] {
        if let Some(output) = output.as_deref().filter(|output| !output.trim().is_empty()) {
            report.styled(&format!("{name}:"), Style::Dim);
            indented(output, 40, report);
        }
    }
    if outcome.cause.is_none() {
        report.line(
            "it ended well this time: nothing of it was recorded; `ductile job replay` runs it through the queue",
        );
    }
}
