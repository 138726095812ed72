//! What a payload would make of a pipeline, as far as that can be known before anything runs.

use std::collections::{BTreeMap, VecDeque};

use chrono::DateTime;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::generation::Generation;
use crate::ids::ContextId;
use crate::job::{ClaimedJob, Fence, NewJob};
use crate::outcome::{AttemptStatus, Outcome, Timing, Usage};
use crate::path::Scope;
use crate::pipeline::{Action, Control, Node, Origin, Pipeline, Prepared, StartFault, control, prepare};
use crate::plan::{self, NewContext};

/// What can't be known yet is told in these words.
const LATER: &str = "decided at run time";

/// What stands for the time, which changes nothing here.
const EPOCH: crate::time::Timestamp = DateTime::UNIX_EPOCH;

/// Walks a pipeline with a payload, an object, as if it were started by hand. Nothing is enqueued.
///
/// The answer has `pipeline`, `trigger`, `execution_mode`, `max_depth`, `starts` (false when the pipeline's own `if` would not
/// let such an event in, with `if`: what decided), `faults`, and `steps` in authored order. A step has `node`, `pipeline`,
/// `step`, `plugin`, `command` and `state`: `decided` (a decision, with `holds` and `reason`), `requested` (with `payload`
/// and `context` of its request), `refused` (with `error`), `bypassed`, or `decided at run time`. Claims are in `baggage`:
/// values where they are known, else their sources.
///
/// # Errors
/// The first steps claim what the payload does not have, or too much.
pub fn dry_run(generation: &Generation, pipeline: &Pipeline, payload: &RawValue) -> Result<Value, StartFault> {
    let mut next = 0_u128;
    let mut fresh = move || {
        next += 1;
        Uuid::from_u128(next)
    };
    let origin = Origin {
        submitted_by: "api",
        requested_by: None,
        dedupe_key: None,
        dedupe_window: std::time::Duration::ZERO,
        dedupe_in_flight: false,
        snapshot: generation.snapshot,
        now: EPOCH,
    };
    let start = generation.pipelines.start(pipeline, payload, &origin, &mut fresh)?;
    let mut walk = Walk { generation, pipeline, told: BTreeMap::new(), contexts: BTreeMap::new(), faults: Vec::new() };
    walk.keep(start.contexts);
    let mut left: VecDeque<NewJob> = start.jobs.into();
    // Each node is met once on the way of one payload, unless branches without a join meet it again.
    let mut steps_left = pipeline.nodes.len().saturating_mul(2);
    while let Some(job) = left.pop_front().filter(|_| steps_left > 0) {
        steps_left -= 1;
        left.extend(walk.meet(&job, &mut fresh));
    }
    let is_open = walk.reachable();
    let steps: Vec<Value> = pipeline
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| walk.told.remove(&index).unwrap_or_else(|| unknown(node, is_open[index])))
        .collect();
    let scope = Scope { payload: Some(payload), context: None, config: None };
    let verdict = pipeline.condition.as_ref().map(|condition| condition.evaluate(&scope));
    Ok(json!({
        "pipeline": &*pipeline.name,
        "trigger": pipeline.trigger.event_type(),
        "execution_mode": pipeline.execution.as_str(),
        "max_depth": pipeline.max_depth,
        "starts": verdict.as_ref().is_none_or(|verdict| verdict.holds),
        "if": verdict.map(|verdict| json!({ "holds": verdict.holds, "reason": verdict.reason })),
        "steps": steps,
        "faults": walk.faults,
    }))
}

struct Walk<'a> {
    generation: &'a Generation,
    pipeline: &'a Pipeline,
    /// What is known, by the node's index.
    told: BTreeMap<usize, Value>,
    contexts: BTreeMap<ContextId, Box<RawValue>>,
    faults: Vec<String>,
}

impl Walk<'_> {
    fn keep(&mut self, contexts: Vec<NewContext>) {
        self.contexts.extend(contexts.into_iter().map(|context| (context.id, context.accumulated)));
    }

    /// Prepares a job as an attempt would, and answers what follows when nothing has to run for that.
    fn meet(&mut self, job: &NewJob, fresh: &mut dyn FnMut() -> Uuid) -> Vec<NewJob> {
        let context = job.context.and_then(|id| self.contexts.get(&id)).cloned();
        let key = context.as_deref().and_then(Control::of).and_then(|control| control.node);
        let Some(index) = key.and_then(|key| self.pipeline.by_key.get(&key).copied()) else { return Vec::new() };
        let node = &self.pipeline.nodes[index];
        let claimed = claim(job, context);
        let mut told = about(node);
        if let (Action::Uses { request, .. }, Some(accumulated)) = (&node.action, claimed.context.as_deref()) {
            let baggage = control::baggage_of(accumulated);
            let claims = request.baggage.claims().iter().map(|claim| {
                let segments: Vec<&str> = claim.key.split('.').collect();
                let whole = serde_json::from_str::<Value>(baggage.get()).unwrap_or_default();
                let value = segments.iter().try_fold(&whole, |value, segment| value.get(segment)).cloned();
                (claim.key.clone(), value.unwrap_or_default())
            });
            told.insert("baggage".into(), Value::Object(claims.collect()));
        }
        let mut following = Vec::new();
        match prepare(self.generation, &claimed) {
            Ok(Prepared::Done { events, reason }) => {
                told.insert("state".into(), "decided".into());
                let holds = events.iter().all(|event| event.kind != crate::builtin::SWITCH_FALSE);
                told.insert("holds".into(), holds.into());
                told.insert("reason".into(), reason.into());
                let outcome = done(events);
                let plan = plan::plan(self.generation, &claimed, &outcome, EPOCH, fresh);
                self.faults.extend(plan.fault);
                self.keep(plan.contexts);
                following = plan.children;
            }
            Ok(Prepared::Request { payload, context }) => {
                let object = |raw: Option<Box<RawValue>>| {
                    raw.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok()).unwrap_or_default()
                };
                let payload = object(payload);
                let payload = match &*job.command {
                    crate::builtin::COMMAND => payload.get("payload").cloned().unwrap_or_default(),
                    _ => payload,
                };
                told.insert("state".into(), "requested".into());
                told.insert("payload".into(), payload);
                told.insert("context".into(), object(context));
            }
            Err(text) => {
                told.insert("state".into(), "refused".into());
                told.insert("error".into(), text.into());
            }
        }
        self.told.insert(index, Value::Object(told));
        following
    }

    /// For each node whether something that is not known yet leads to it.
    fn reachable(&self) -> Vec<bool> {
        let edges = self.pipeline.edges();
        let mut behind: Vec<Vec<usize>> = vec![Vec::new(); self.pipeline.nodes.len()];
        for edge in &edges {
            if let (Some(from), Some(to)) = (edge.from, edge.to) {
                behind[from].push(to);
            }
        }
        let mut is_open = vec![false; self.pipeline.nodes.len()];
        let runs = |told: &Value| told["state"] == "requested";
        let mut left: Vec<usize> = self.told.iter().filter(|(_, told)| runs(told)).map(|(index, _)| *index).collect();
        while let Some(index) = left.pop() {
            for to in &behind[index] {
                if !std::mem::replace(&mut is_open[*to], true) {
                    left.push(*to);
                }
            }
        }
        is_open
    }
}

fn about(node: &Node) -> Map<String, Value> {
    let mut told = Map::new();
    for (key, value) in [
        ("node", &*node.key),
        ("pipeline", &*node.pipeline),
        ("step", &*node.step),
        ("plugin", node.plugin()),
        ("command", node.command()),
    ] {
        told.insert(key.into(), value.into());
    }
    told
}

fn unknown(node: &Node, is_open: bool) -> Value {
    let mut told = about(node);
    told.insert("state".into(), if is_open { LATER } else { "bypassed" }.into());
    match &node.action {
        Action::Switch { condition, .. } => {
            told.insert("if".into(), condition.to_json());
        }
        Action::Uses { request, .. } => {
            let claims = request.baggage.claims().iter();
            let claims = claims.map(|claim| (claim.key.clone(), Value::from(claim.from.to_string())));
            told.insert("baggage".into(), Value::Object(claims.collect()));
        }
        Action::Join { .. } | Action::Relay(_) => {}
    }
    Value::Object(told)
}

fn claim(job: &NewJob, context: Option<Box<RawValue>>) -> ClaimedJob {
    ClaimedJob {
        fence: Fence { job: job.id, claim_no: 1 },
        row: 1,
        plugin: job.plugin.clone(),
        command: job.command.clone(),
        payload: job.payload.clone(),
        attempt: 1,
        max_attempts: job.max_attempts,
        submitted_by: job.submitted_by.into(),
        dedupe_key: job.dedupe_key.clone(),
        created_at: EPOCH,
        started_at: EPOCH,
        state: None,
        context,
        context_id: job.context,
        seat: job.seat,
        is_routed: false,
        memory_tier: 0,
        parent: job.parent,
    }
}

fn done(events: Vec<crate::outcome::EmittedEvent>) -> Outcome {
    Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: None,
        stderr: None,
        exit_code: None,
        signal: None,
        events,
        state_updates: None,
        timing: Timing::default(),
        usage: Usage::default(),
        subs: None,
        ended_at: EPOCH,
    }
}
