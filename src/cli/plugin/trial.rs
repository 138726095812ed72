//! `ductile plugin test`: a plugin's commands run here as the gateway would run them, and what it would have made of them.
//!
//! Request, process, judgement, plan and retry are the gateway's own functions; only the ledger is missing, and state
//! lives in memory from one command to the next.

use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use ductile_domain::catalog::{Catalog, Discovered, Plugin};
use ductile_domain::config::Config;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, EventId, JobId};
use ductile_domain::job::{ClaimedJob, Fence};
use ductile_domain::outcome::{Outcome, Timing};
use ductile_domain::plan::{self, NewFact, Plan, StateChange};
use ductile_domain::problem::Problem;
use ductile_domain::retry::{self, Ending};
use ductile_domain::time;
use ductile_plugin::outcome::{LARGEST_STATE, judge};
use ductile_plugin::{Bounds, End, Invocation, Limits, Runner, environment, protocol};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::record::millis;
use super::{check, read_object};
use crate::args::{Global, PluginTest};
use crate::error::Error;
use crate::exit_code;
use crate::report::{Report, Style};

/// The order in which the standard commands run; a plugin's own follow as they are declared.
const ORDER: [&str; 4] = ["health", "init", "poll", "handle"];

/// Runs the commands and prints what became of each.
///
/// # Errors
/// The gateway would not load the plugin, or an attempt would have failed.
pub(super) async fn run(args: &PluginTest, global: &Global, report: &mut Report) -> Result<(), Error> {
    let (found, mut problems) = check::look(&args.dir);
    let mut bench = None;
    if let Some(found) = found.filter(|_| !problems.iter().any(Problem::is_error)) {
        let (generation, more) = generation(&found, args, global, report)?;
        problems.extend(more);
        let plugin = generation.catalog.get(&found.manifest.name).map(|plugin| Plugin::clone(plugin));
        bench = plugin.map(|plugin| Bench::new(generation, plugin, args.timeout));
    }
    for problem in problems.iter().filter(|p| bench.is_none() || p.is_error() || !report.is_json()) {
        report.note(problem.to_string());
    }
    let Some(mut bench) = bench else {
        report.failure(&json!({"dir": args.dir, "ok": false, "problems": problems, "trials": []}));
        if problems.iter().any(|p| p.is_error() && p.path.as_deref().is_some_and(|at| at.contains(".config."))) {
            report
                .note("  give it a config with --plugin-config '{\"key\":\"value\"}', or its entry with --config DIR");
        }
        report.note("ductile: the gateway would not load this plugin, so nothing was run");
        return Err(Error::Told { code: exit_code::FAILED });
    };
    let commands = chosen(&bench.plugin, &args.commands)?;
    let payload = args.payload.as_deref().map(|p| read_object(p, "the payload")).transpose()?;
    if let Some(state) = &args.state {
        bench.state = Some(raw(&Value::Object(read_object(state, "the state")?)));
    }
    let manifest = bench.plugin.manifest.clone();
    report.styled(&format!("{} {} in {}", manifest.name, manifest.version, args.dir.display()), Style::Bold);
    let mut trials = Vec::new();
    for command in &commands {
        let is_silent = matches!(command.as_str(), "health" | "init") && args.commands.is_empty();
        let payload = payload.as_ref().filter(|_| !is_silent);
        let trial = bench.attempt(command, payload, args, report).await?;
        show(&trial, report);
        trials.push(trial);
    }
    bench.runner.shutdown();
    let failed = trials.iter().filter(|t| t["status"] != "succeeded").count();
    let good = trials.len() - failed;
    report.line(format!("{good} of {} command(s) would have succeeded", trials.len()));
    if report.is_json() {
        report.document(&json!({
            "dir": args.dir, "plugin": manifest.name, "version": manifest.version,
            "ok": failed == 0, "problems": problems, "trials": trials,
        }));
    }
    if failed == 0 { Ok(()) } else { Err(Error::Told { code: exit_code::FAILED }) }
}

/// The commands to run, in their order.
fn chosen(plugin: &Plugin, named: &[String]) -> Result<Vec<String>, Error> {
    let declared: Vec<&str> = plugin.manifest.commands.iter().map(|c| c.name.as_str()).collect();
    if let Some(unknown) = named.iter().find(|name| !declared.contains(&name.as_str())) {
        return Err(Error::Usage(format!(
            "the plugin has no command {unknown:?}; it declares {}",
            declared.join(", ")
        )));
    }
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let standard = ORDER.into_iter().filter(|c| declared.contains(c));
    let own = declared.iter().copied().filter(|c| !ORDER.contains(c));
    Ok(standard.chain(own).map(str::to_owned).collect())
}

/// The plugin under the entry that the arguments give it, as a generation of its own.
fn generation(
    found: &Discovered,
    args: &PluginTest,
    global: &Global,
    report: &Report,
) -> Result<(Generation, Vec<Problem>), Error> {
    let name = &found.manifest.name;
    let written = global.config.as_deref().and_then(Path::to_str).filter(|text| text.trim_start().starts_with('{'));
    let entry = match args.plugin_config.as_deref().or(written) {
        Some(text) => Some(read_object(text, "the plugin's config")?),
        None => None,
    };
    let (config, mut problems) = match (&entry, &global.config) {
        (None, Some(path)) => in_force(name, path, report)?,
        _ => alone(found, entry.unwrap_or_default())?,
    };
    let plugins = [(name.clone(), found.clone())].into();
    let (catalog, more) = Catalog::build(&config, &plugins);
    problems.extend(more);
    Ok((
        Generation {
            no: 1,
            snapshot: None,
            config,
            catalog,
            pipelines: std::sync::Arc::default(),
            schedules: std::sync::Arc::default(),
        },
        problems,
    ))
}

/// A configuration with nothing but this plugin; variables in its values are filled in as the gateway does.
fn alone(found: &Discovered, config: Map<String, Value>) -> Result<(Config, Vec<Problem>), Error> {
    let dir = tempfile::tempdir().map_err(Error::io("make a temporary directory"))?;
    let name = &found.manifest.name;
    let root = found.dir.parent().unwrap_or(&found.dir);
    let document = json!({
        "plugin_roots": [root], "state": {"path": "ductile.db"},
        "plugins": {name: {"enabled": true, "config": config}},
    });
    let path = dir.path().join("config.yaml");
    // JSON is YAML.
    std::fs::write(&path, document.to_string()).map_err(Error::io("write a temporary configuration"))?;
    let env = |name: &str| std::env::var(name).ok();
    let loaded = ductile_config::load(&path, &env).map_err(Error::Config)?;
    Ok((loaded.config, Vec::new()))
}

/// The operator's configuration without its other plugins.
fn in_force(name: &str, path: &Path, report: &Report) -> Result<(Config, Vec<Problem>), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(Some(path), &env);
    let mut config = ductile_config::load(&path, &env).map_err(Error::Config)?.config;
    config.plugins.retain(|entry, _| entry == name);
    if config.plugins.is_empty() {
        return Err(Error::Failed(format!("{} has no entry plugins.{name}", path.display())));
    }
    report.detail(format!("plugins.{name} of {}", path.display()));
    Ok((config, Vec::new()))
}

/// What stands in for the gateway.
struct Bench {
    runner: Runner,
    boot: BootId,
    generation: Generation,
    plugin: Plugin,
    /// What the plugin left behind so far.
    state: Option<Box<RawValue>>,
}

impl Bench {
    fn new(generation: Generation, mut plugin: Plugin, timeout: Option<Duration>) -> Self {
        if timeout.is_some() {
            plugin.timeouts.clear();
            plugin.timeout = timeout;
        }
        Self { runner: Runner::new(1), boot: BootId::from(Uuid::now_v7()), generation, plugin, state: None }
    }

    /// One attempt from its request to what would have followed, as the document of `--json`.
    async fn attempt(
        &mut self,
        command: &str,
        payload: Option<&Map<String, Value>>,
        args: &PluginTest,
        report: &Report,
    ) -> Result<Value, Error> {
        let job = self.job(command, payload, &args.event_type);
        let deadline = self.plugin.deadline(command);
        let stdin = protocol::request(&job, &self.plugin, Utc::now() + deadline);
        report.detail(format!("request of {command}: {}", without_config(&stdin)));
        let names = self.generation.config.service.plugin_env_passthrough.iter().chain(&self.plugin.env_passthrough);
        let invocation = Invocation {
            program: self.plugin.entrypoint.as_path().into(),
            dir: None,
            env: environment::allowed(std::env::vars_os(), names.map(String::as_str)),
            extra_env: environment::of_attempt(self.boot, job.fence.job, job.attempt),
            stdin,
            deadline,
            limits: Limits::default(),
            bounds: Bounds::of(&self.plugin.limits, job.memory_tier),
        };
        let mut run = self.runner.start(invocation, |_, _| {});
        let exited = tokio::select! {
            exited = run.done() => exited,
            // The process has a group of its own, so the terminal's signal does not reach it.
            _ = tokio::signal::ctrl_c() => {
                run.cancel();
                run.done().await;
                return Err(Error::Failed(format!("interrupted; {command} was ended")));
            }
        };
        if let End::SpawnFailed { ours: true, error } = &exited.end {
            return Err(Error::Failed(format!("could not start {command} for lack of means here: {error}")));
        }
        let (outcome, warnings) = judge(exited, &self.plugin, command, Utc::now());
        Ok(self.conclude(&job, &outcome, warnings, deadline))
    }

    /// A job as the dispatcher would have claimed it.
    fn job(&self, command: &str, payload: Option<&Map<String, Value>>, event_type: &str) -> ClaimedJob {
        let now = Utc::now();
        let payload = match (command, payload) {
            ("handle", payload) => Some(json!({
                "type": event_type, "payload": payload.cloned().unwrap_or_default(), "source": "cli",
                "timestamp": time::format(now), "event_id": EventId::from(Uuid::now_v7()),
            })),
            (_, payload) => payload.cloned().map(Value::Object),
        };
        ClaimedJob {
            fence: Fence { job: JobId::from(Uuid::now_v7()), claim_no: 1 },
            row: 1,
            plugin: self.plugin.name.clone(),
            command: command.into(),
            payload: payload.as_ref().map(raw),
            attempt: 1,
            max_attempts: self.plugin.retry.max_attempts,
            submitted_by: "cli".into(),
            dedupe_key: None,
            created_at: now,
            started_at: now,
            state: self.state.clone(),
            context: None,
            context_id: None,
            seat: None,
            is_routed: true,
            memory_tier: 0,
            parent: None,
        }
    }

    fn conclude(
        &mut self,
        job: &ClaimedJob,
        outcome: &Outcome,
        mut warnings: Vec<String>,
        deadline: Duration,
    ) -> Value {
        let ending = retry::decide(outcome, job.attempt, job.max_attempts, &self.plugin.retry, 0.0);
        let plan = plan::plan(&self.generation, job, outcome, outcome.ended_at, &mut uuid::Uuid::now_v7);
        self.keep_state(&plan, &mut warnings);
        let retry = match &ending {
            Ending::Retry { due } | Ending::RetryLarger { due, .. } => {
                json!({"after_ms": (*due - outcome.ended_at).num_milliseconds()})
            }
            _ => Value::Null,
        };
        let answer: Value = outcome.result.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        let facts: Vec<Value> = plan.facts.iter().map(fact).collect();
        json!({
            "command": &*job.command,
            "status": outcome.status,
            "cause": outcome.cause.map(|cause| cause.as_str()),
            "error": outcome.error,
            "result": answer["result"],
            "retry": matches!(ending, Ending::Retry { .. } | Ending::RetryLarger { .. }),
            "retry_after_ms": retry["after_ms"],
            "max_attempts": job.max_attempts,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "events": outcome.events,
            "state_updates": outcome.state_updates,
            "facts": facts,
            "state": self.state,
            "logs": answer["logs"],
            "warnings": warnings,
            "stderr": outcome.stderr,
            "stdout": outcome.result,
            "stopwatch": stopwatch(&outcome.timing),
            "deadline_ms": u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Lays the snapshot over the state as the ledger does.
    fn keep_state(&mut self, plan: &Plan, warnings: &mut Vec<String>) {
        let new = match &plan.state {
            None => return,
            Some(StateChange::Mirror(snapshot)) => snapshot.clone(),
            Some(StateChange::Merge(updates)) => {
                let read = |text: &RawValue| serde_json::from_str::<Map<String, Value>>(text.get()).unwrap_or_default();
                let mut state = self.state.as_deref().map(read).unwrap_or_default();
                state.extend(read(updates));
                raw(&Value::Object(state))
            }
        };
        if new.get().len() > LARGEST_STATE {
            warnings.push(format!("the state would have {} bytes, more than {LARGEST_STATE}", new.get().len()));
        } else {
            self.state = Some(new);
        }
    }
}

fn fact(fact: &NewFact) -> Value {
    json!({"fact_type": fact.fact_type, "fact": fact.fact})
}

fn stopwatch(timing: &Timing) -> Value {
    json!({"dur_ns": timing.dur_ns, "runtime_pre_ns": timing.runtime_pre_ns, "runtime_post_ns": timing.runtime_post_ns})
}

/// A request for people to read: the values of its config may be an operator's secrets.
fn without_config(request: &[u8]) -> String {
    let mut request: Value = serde_json::from_slice(request).unwrap_or_default();
    for value in request["config"].as_object_mut().into_iter().flat_map(|config| config.values_mut()) {
        *value = Value::from("[REDACTED]");
    }
    request.to_string()
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("serde_json writes valid JSON")
}

fn show(trial: &Value, report: &mut Report) {
    let text = |key: &str| trial[key].as_str().unwrap_or_default();
    let took = millis(trial["stopwatch"]["dur_ns"].as_u64().unwrap_or(0));
    report.line("");
    report.styled(&format!("{}: {} in {took}", text("command"), text("status")), Style::of_state(text("status")));
    let mut field = |name: &str, value: &Value| match value {
        Value::Null => {}
        Value::String(value) => value.lines().for_each(|line| report.field(name, &crate::table::one_line(line))),
        other => report.field(name, &other.to_string()),
    };
    field("error", &trial["error"]);
    if let Some(cause) = trial["cause"].as_str() {
        let next = match trial["retry_after_ms"].as_u64() {
            Some(after) => {
                let after = crate::tree_view::span(Duration::from_millis(after));
                format!("retried after {after}, {} attempts in all", trial["max_attempts"])
            }
            None if trial["max_attempts"] == 1 => "not retried: one attempt is all that the entry allows".to_owned(),
            None => "not retried: no retry can mend it".to_owned(),
        };
        field("cause", &Value::from(format!("{cause}; {next}")));
    }
    field("result", &trial["result"]);
    for event in trial["events"].as_array().into_iter().flatten() {
        field("event", event);
    }
    field("state", if trial["state_updates"].is_null() { &Value::Null } else { &trial["state"] });
    for fact in trial["facts"].as_array().into_iter().flatten() {
        field("fact", fact);
    }
    for log in trial["logs"].as_array().into_iter().flatten() {
        let word = |key: &str| log[key].as_str().unwrap_or_default();
        field("log", &Value::from(format!("{:<5} {}", word("level"), word("message"))));
    }
    for warning in trial["warnings"].as_array().into_iter().flatten() {
        field("warning", warning);
    }
    field("stderr", &trial["stderr"]);
}
