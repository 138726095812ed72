//! Preflight: what an attempt is given, or does without a process.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::builtin;
use crate::generation::Generation;
use crate::job::ClaimedJob;
use crate::outcome::EmittedEvent;
use crate::path::Scope;
use crate::pipeline::{Action, Control, JoinMode, Node, Pipelines, Request, control};
use crate::raw::{Kind, Object, Raw};

/// What preflight comes to.
#[derive(Debug)]
pub enum Prepared {
    /// A plugin is to be run.
    Request {
        /// Replaces the stored payload, in the same form, where there is one.
        payload: Option<Box<RawValue>>,
        /// Replaces the stored context in the request (not for the plan, which needs the stored one).
        context: Option<Box<RawValue>>,
    },
    /// It is done without a process.
    Done {
        /// What it emits.
        events: Vec<EmittedEvent>,
        /// What was decided, for people.
        reason: String,
    },
}

/// Prepares an attempt under its generation. Cheap for a job without context.
///
/// # Errors
/// A text for `last_error`: the job fails with [`crate::outcome::Cause::Preflight`] and nothing is spawned.
pub fn prepare(generation: &Generation, job: &ClaimedJob) -> Result<Prepared, String> {
    let Some(accumulated) = job.context.as_deref() else {
        return Ok(Prepared::Request { payload: None, context: None });
    };
    let control = Control::of(accumulated).unwrap_or_default();
    let node = node_of(&generation.pipelines, &control, job)?;
    let stored = Stored::of(job);
    let context = control::shown(accumulated);
    match node.map(|node| &node.action) {
        Some(Action::Switch { condition, config_of, .. }) => {
            let config = config_of.as_deref().and_then(|plugin| generation.catalog.get(plugin)).map(|p| &*p.config);
            let payload = stored.payload.map(Raw::to_raw_value);
            let scope = Scope { payload: payload.as_deref(), context: Some(&context), config };
            let verdict = condition.evaluate(&scope);
            let kind = if verdict.holds { builtin::SWITCH_TRUE } else { builtin::SWITCH_FALSE };
            let dedupe_key = stored.envelope.and_then(|e| e.child("dedupe_key")?.text().map(|key| key.into_owned()));
            let event = EmittedEvent { kind: kind.to_owned(), payload, dedupe_key };
            Ok(Prepared::Done { events: vec![event], reason: verdict.reason })
        }
        Some(Action::Join { mode, .. }) => joined(*mode, &stored),
        Some(Action::Relay(_)) => Err("relay steps have no transport in this build".to_owned()),
        Some(Action::Uses { request, .. }) => {
            let payload = requested(&stored, &control::baggage_of(accumulated), &context, request)?;
            Ok(Prepared::Request { payload: Some(payload), context: Some(context) })
        }
        None => {
            let payload = requested(&stored, &control::baggage_of(accumulated), &context, &Request::default())?;
            Ok(Prepared::Request { payload: Some(payload), context: Some(context) })
        }
    }
}

/// The node that a job was made for; `None` for the job of a plain route.
///
/// # Errors
/// The node is not in force, or does something else now.
pub(crate) fn node_of<'p>(
    pipelines: &'p Pipelines,
    control: &Control,
    job: &ClaimedJob,
) -> Result<Option<&'p Node>, String> {
    let Some(key) = &control.node else { return Ok(None) };
    let same = |node: &&Node| node.plugin() == &*job.plugin && node.command() == &*job.command;
    match pipelines.node_of(control).filter(same) {
        Some(node) => Ok(Some(node)),
        None => {
            let root = control.root.as_deref().unwrap_or_default();
            Err(format!("step {key:?} of pipeline {root:?} is not in the configuration any more"))
        }
    }
}

/// What the plugin of a step was given, without the baggage that fills its gaps, and without what the step's author gave
/// this plugin alone: what follows is written down and shown, and goes to others.
pub(crate) fn input_of(pipelines: &Pipelines, job: &ClaimedJob, node: Option<&Node>) -> Option<Box<RawValue>> {
    let stored = Stored::of(job);
    let plain = || stored.payload.map(Raw::to_raw_value);
    let (Some(Action::Uses { request, .. }), Some(accumulated)) = (node.map(|n| &n.action), job.context.as_deref())
    else {
        return plain();
    };
    if request.payload.is_empty() && request.with.is_empty() {
        return plain();
    }
    let merged = merge(&stored, &control::baggage_of(accumulated), &control::shown(accumulated), request, false);
    let Ok(merged) = merged else { return plain() };
    let own = request.payload.iter().map(|(key, _)| &**key).chain(request.with.keys());
    let is_secret = |key: &&str| {
        let value = Raw::from(&*merged).child(key);
        value.is_some_and(|value| pipelines.secrets.are_in(&value.to_raw_value()))
    };
    let secret: Vec<&str> = if pipelines.secrets.is_empty() { Vec::new() } else { own.filter(is_secret).collect() };
    let (false, Some(mut input)) = (secret.is_empty(), Object::read(Raw::from(&*merged))) else { return Some(merged) };
    for key in secret {
        match stored.payload.and_then(|payload| payload.child(key)) {
            Some(value) => input.set_raw(key.to_owned(), value),
            None => input.remove(key),
        }
    }
    Some(input.to_raw_value())
}

/// The stored payload of a job, taken apart.
struct Stored<'a> {
    /// The event's envelope, for `handle`.
    envelope: Option<Raw<'a>>,
    payload: Option<Raw<'a>>,
}

impl<'a> Stored<'a> {
    fn of(job: &'a ClaimedJob) -> Self {
        let stored = job.payload.as_deref().map(Raw::from);
        if &*job.command != builtin::COMMAND {
            return Self { envelope: None, payload: stored };
        }
        Self { envelope: stored, payload: stored.and_then(|envelope| envelope.child("payload")) }
    }
}

/// The payload of the request, in the form in which it is stored.
fn requested(
    stored: &Stored<'_>,
    baggage: &RawValue,
    context: &RawValue,
    request: &Request,
) -> Result<Box<RawValue>, String> {
    let payload = merge(stored, baggage, context, request, stored.envelope.is_some())?;
    let Some(mut envelope) = stored.envelope.and_then(Object::read) else { return Ok(payload) };
    envelope.set("payload", &payload);
    Ok(envelope.to_raw_value())
}

/// Literal defaults, then the payload, then the baggage for what is absent, then what `with` makes of all that.
/// `keeps_baggage` says whether the baggage stays in the result.
fn merge(
    stored: &Stored<'_>,
    baggage: &RawValue,
    context: &RawValue,
    request: &Request,
    keeps_baggage: bool,
) -> Result<Box<RawValue>, String> {
    let payload = stored.payload.unwrap_or(Raw::EMPTY);
    let is_object = payload.kind() == Kind::Object;
    if !is_object && request.payload.is_empty() && request.with.is_empty() {
        return Ok(payload.to_raw_value());
    }
    let mut plain = Object::default();
    for (key, value) in &request.payload {
        plain.set(&**key, value);
    }
    for (key, value) in payload.members() {
        plain.set_raw(key, value);
    }
    let mut merged = plain.clone();
    if stored.envelope.is_some() && is_object {
        for (key, value) in Raw::from(baggage).members() {
            if !merged.has(&key) {
                merged.set_raw(key, value);
            }
        }
    }
    if request.with.is_empty() {
        return Ok(if keeps_baggage { merged } else { plain }.to_raw_value());
    }
    let snapshot = if is_object { merged.to_raw_value() } else { payload.to_raw_value() };
    let scope = Scope { payload: Some(&snapshot), context: Some(context), config: None };
    let values = request.with.render(&scope).map_err(|error| error.to_string())?;
    let mut result = if keeps_baggage { merged } else { plain };
    for (key, value) in &values {
        result.set(&**key, value);
    }
    Ok(result.to_raw_value())
}

/// What a join decides about the branches that the ledger counted.
fn joined(mode: JoinMode, stored: &Stored<'_>) -> Result<Prepared, String> {
    let has_branches = |raw: &Raw<'_>| raw.child("branches").is_some();
    let payload = stored.payload.filter(has_branches).or(stored.envelope.filter(has_branches));
    let Some(payload) = payload else { return Err("the join was not told of its branches".to_owned()) };
    let branches: Vec<Raw<'_>> = payload.child("branches").map(|list| list.elements().collect()).unwrap_or_default();
    let has_failed =
        |branch: &Raw<'_>| branch.child("status").and_then(Raw::text).is_none_or(|status| status != "succeeded");
    let failed: Vec<&Raw<'_>> = branches.iter().filter(|branch| has_failed(branch)).collect();
    let told = |branch: &Raw<'_>| {
        let text = |key| branch.child(key).and_then(Raw::text).unwrap_or_default();
        let number = branch.child("branch").map_or("?", Raw::get);
        format!("branch {number} ({}) failed: {}", text("step"), text("error"))
    };
    match mode {
        JoinMode::All if !failed.is_empty() => {
            let texts: Vec<String> = failed.into_iter().map(told).collect();
            Err(format!("join: {}", texts.join("; ")))
        }
        JoinMode::AnySucceeded if failed.len() == branches.len() => {
            let texts: Vec<String> = failed.into_iter().map(told).collect();
            Err(format!("join: no branch succeeded: {}", texts.join("; ")))
        }
        _ => {
            let reason = format!("{} of {} branches succeeded", branches.len() - failed.len(), branches.len());
            let payload = Some(payload.to_raw_value());
            let event = EmittedEvent { kind: builtin::JOINED.to_owned(), payload, dedupe_key: None };
            Ok(Prepared::Done { events: vec![event], reason })
        }
    }
}

/// What of a payload goes from a plugin's input to its events by itself.
pub(crate) const CARRIED: [&str; 6] = ["pattern", "prompt", "model", "output_dir", "output_path", "filename"];

/// The payload of an event for what follows it: with the response's `result`, the six names of [`CARRIED`], and where it
/// came from. `is_synthetic`: the payload is the step's input, so what it says about another step is not kept.
pub(crate) fn handed_on(
    payload: Option<&RawValue>,
    input: Option<&RawValue>,
    result: Option<&RawValue>,
    plugin: &str,
    control: Option<&Control>,
    is_synthetic: bool,
) -> Box<RawValue> {
    let Some(mut object) = payload.map_or_else(|| Some(Object::default()), |payload| Object::read(payload.into()))
    else {
        return payload.map_or_else(|| Raw::EMPTY.to_raw_value(), RawValue::to_owned);
    };
    if let Some(result) = result
        && (is_synthetic || !object.has("result"))
    {
        object.set("result", result);
    }
    if let Some(input) = input.map(Raw::from) {
        for name in CARRIED.into_iter().filter(|name| !object.has(name)).collect::<Vec<_>>() {
            if let Some(value) = input.child(name) {
                object.set_raw(name, value);
            }
        }
    }
    let known = control.filter(|control| control.node.is_some());
    let upstream = [
        ("ductile_upstream_plugin", Some(plugin)),
        ("ductile_upstream_pipeline", known.and_then(|c| c.pipeline.as_deref())),
        ("ductile_upstream_step_id", known.and_then(|c| c.step_id.as_deref())),
    ];
    for (key, value) in upstream {
        if is_synthetic {
            object.remove(key);
        }
        if let Some(value) = value.filter(|_| !object.has(key)) {
            object.set_value(key, &Value::from(value));
        }
    }
    object.to_raw_value()
}
