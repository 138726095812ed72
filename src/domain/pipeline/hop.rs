//! One hop: what an event makes of the places that it reaches. Rows of context, joins, jobs, arrivals.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::baggage::BaggageFault;
use crate::builtin;
use crate::ids::{ContextId, EventId, Fresh, JobId, JoinId};
use crate::job::{NewJob, Seat};
use crate::path::Scope;
use crate::pipeline::{Action, Control, Node, Pipeline, Start, Target};
use crate::plan::{Arrival, NewContext, NewJoin};
use crate::raw::{Object, Raw};
use crate::time::{self, Timestamp};

/// An event on its way to jobs.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    pub(crate) id: EventId,
    pub(crate) kind: &'a str,
    /// The plugin, or the door, that it came from.
    pub(crate) source: &'a str,
    pub(crate) dedupe_key: Option<&'a str>,
    pub(crate) payload: &'a RawValue,
    pub(crate) at: Timestamp,
}

impl Event<'_> {
    /// The stored payload of a `handle` job.
    fn envelope(&self) -> Box<RawValue> {
        let mut envelope = Object::default();
        envelope.set_value("type", &Value::from(self.kind));
        envelope.set("payload", self.payload);
        if let Some(key) = self.dedupe_key {
            envelope.set_value("dedupe_key", &Value::from(key));
        }
        envelope.set_value("source", &Value::from(self.source));
        envelope.set_value("timestamp", &Value::from(time::format(self.at)));
        envelope.set_value("event_id", &Value::from(self.id.to_string()));
        envelope.to_raw_value()
    }

    /// The baggage of a chain that begins with this event.
    pub(crate) fn first_baggage(&self, fresh: Fresh<'_>) -> Box<RawValue> {
        let mut baggage = Object::default();
        baggage.set_value("origin_plugin", &Value::from(self.source));
        baggage.set_value("origin_event_id", &Value::from(self.id.to_string()));
        baggage.set_value("origin_event_type", &Value::from(self.kind));
        baggage.set_value("trace_id", &Value::from(fresh().to_string()));
        baggage.to_raw_value()
    }
}

/// On whose behalf jobs are made.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) submitted_by: &'static str,
    pub(crate) requested_by: Option<&'a str>,
    /// A door's own key; beside it the event's counts.
    pub(crate) dedupe_key: Option<&'a str>,
    pub(crate) dedupe_window: Duration,
    pub(crate) dedupe_in_flight: bool,
    pub(crate) parent: Option<JobId>,
    pub(crate) snapshot: Option<i64>,
    pub(crate) is_routed: bool,
}

/// One event, about to enter something.
#[derive(Debug)]
pub(crate) struct Hop<'a> {
    pub(crate) caller: &'a Caller<'a>,
    pub(crate) event: &'a Event<'a>,
    /// Row that the new ones accrete to.
    pub(crate) parent: Option<ContextId>,
    /// Baggage so far.
    pub(crate) baggage: &'a RawValue,
    /// What is the same for every job of the hop: root, instance, depths.
    pub(crate) control: Control,
}

/// Bytes that everything may have that follows from one event, or from all events of one attempt: one large payload for each
/// of a thousand branches would fill the memory.
pub(crate) const MOST_BYTES: usize = 128 << 20;

/// What each payload and each row of context costs beside its text.
const BYTES_BESIDE: usize = 512;

/// Why a hop can't be made.
#[derive(Debug)]
pub(crate) enum Unmade {
    /// A step's claims fail.
    Claim { pipeline: Arc<str>, step: Arc<str>, fault: BaggageFault },
    /// All that follows is more than [`MOST_BYTES`].
    TooMuch,
}

impl Unmade {
    /// The text for a pipeline that can't begin.
    pub(crate) fn at_entry(&self) -> String {
        match self {
            Self::Claim { .. } => format!("failed to create event context for pipeline entry: {self}"),
            Self::TooMuch => self.to_string(),
        }
    }

    /// The text for a pipeline that can't go on.
    pub(crate) fn on_the_way(&self) -> String {
        match self {
            Self::Claim { .. } => format!("failed to create event context: {self}"),
            Self::TooMuch => self.to_string(),
        }
    }
}

impl fmt::Display for Unmade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { pipeline, step, fault } => write!(f, "pipeline {pipeline:?}, step {step:?}: {fault}"),
            Self::TooMuch => {
                write!(
                    f,
                    "too much follows: payloads and baggage of all jobs have more than {MOST_BYTES} bytes together"
                )
            }
        }
    }
}

impl Hop<'_> {
    /// Enters the targets and collects what becomes of them.
    pub(crate) fn enter(
        &self,
        pipeline: &Pipeline,
        targets: &[Target],
        seat: Option<Seat>,
        grown: &mut Start,
        fresh: Fresh<'_>,
    ) -> Result<(), Unmade> {
        for target in targets {
            match target {
                Target::Node(index) => {
                    let node = &pipeline.nodes[*index];
                    let context = self.claim(node, self.control.depth, grown, fresh)?;
                    let job = self.job(pipeline, node, context, seat, fresh);
                    grown.weigh(job.payload.as_deref())?;
                    grown.jobs.push(job);
                }
                Target::Split { join, branches } => {
                    let id = JoinId::from(fresh());
                    let node = &pipeline.nodes[*join];
                    let context = self.claim(node, self.depth_of(node), grown, fresh)?;
                    let job = NewJob {
                        payload: None,
                        parent: None,
                        source_event: None,
                        dedupe_key: None,
                        ..self.job(pipeline, node, context, seat, fresh)
                    };
                    let names = branches.iter().map(|branch| first_step(pipeline, branch)).collect();
                    grown.joins.push(NewJoin { id, outer: seat, branches: names, job });
                    for (branch, targets) in (0..).zip(branches) {
                        self.enter(pipeline, targets, Some(Seat { join: id, branch }), grown, fresh)?;
                    }
                }
                Target::Arrive => {
                    if let Some(seat) = seat {
                        grown.weigh(Some(self.event.payload))?;
                        let payload = Some(self.event.payload.to_owned());
                        grown.arrivals.push(Arrival { seat, payload });
                    }
                }
            }
        }
        Ok(())
    }

    /// A join counts as one hop behind its longest branch. It is made although that may be one too deep: what follows
    /// it is not.
    fn depth_of(&self, join: &Node) -> u32 {
        let span = match join.action {
            Action::Join { span, .. } => span,
            _ => 0,
        };
        let depth = self.control.depth.saturating_add(span);
        match self.control.max_depth {
            0 => depth,
            cap => depth.min(cap),
        }
    }

    /// The row of context of a node's job, with what its step claims.
    fn claim(&self, node: &Node, depth: u32, grown: &mut Start, fresh: Fresh<'_>) -> Result<ContextId, Unmade> {
        let control = Control {
            pipeline: Some(node.pipeline.clone()),
            step_id: Some(node.step.clone()),
            node: Some(node.key.clone()),
            depth,
            ..self.control.clone()
        };
        let accumulated = match &node.action {
            Action::Uses { request, .. } if !request.baggage.is_empty() => {
                let scope = Scope { payload: Some(self.event.payload), context: Some(self.baggage), config: None };
                let claimed = request.baggage.claim(Some(self.baggage), &scope).map_err(|fault| Unmade::Claim {
                    pipeline: node.pipeline.clone(),
                    step: node.step.clone(),
                    fault,
                })?;
                control.with_baggage(&claimed)
            }
            _ => control.with_baggage(self.baggage),
        };
        let id = ContextId::from(fresh());
        let (pipeline, step) = (control.pipeline, control.step_id);
        grown.weigh(Some(&accumulated))?;
        grown.contexts.push(NewContext { id, parent: self.parent, pipeline, step, accumulated });
        Ok(id)
    }

    fn job(
        &self,
        pipeline: &Pipeline,
        node: &Node,
        context: ContextId,
        seat: Option<Seat>,
        fresh: Fresh<'_>,
    ) -> NewJob {
        let (plugin, command): (Arc<str>, Arc<str>) = match &node.action {
            Action::Uses { plugin, command, .. } => (plugin.clone(), command.clone()),
            _ => (node.plugin().into(), node.command().into()),
        };
        // A decision that was made once says nothing about whether the work behind it was done: only work is done once.
        let dedupe_key = match &node.action {
            Action::Uses { .. } => self.event.dedupe_key,
            _ => None,
        };
        let target_key = format!("{}/{}", pipeline.name, node.key);
        NewJob {
            max_attempts: node.max_attempts,
            ..self.new_job(plugin, command, dedupe_key, target_key, context, seat, fresh)
        }
    }

    /// The job of a plain route, with its row of context.
    pub(crate) fn enter_route(
        &self,
        to: &Arc<str>,
        max_attempts: u32,
        grown: &mut Start,
        fresh: Fresh<'_>,
    ) -> Result<(), Unmade> {
        let id = ContextId::from(fresh());
        let accumulated = self.control.with_baggage(self.baggage);
        grown.weigh(Some(&accumulated))?;
        grown.contexts.push(NewContext { id, parent: self.parent, pipeline: None, step: None, accumulated });
        let command = builtin::COMMAND.into();
        let job = self.new_job(to.clone(), command, self.event.dedupe_key, String::new(), id, None, fresh);
        grown.weigh(job.payload.as_deref())?;
        grown.jobs.push(NewJob { max_attempts, ..job });
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "each is one field of the job")]
    fn new_job(
        &self,
        plugin: Arc<str>,
        command: Arc<str>,
        dedupe_key: Option<&str>,
        target_key: String,
        context: ContextId,
        seat: Option<Seat>,
        fresh: Fresh<'_>,
    ) -> NewJob {
        let payload = match &*command {
            builtin::COMMAND => self.event.envelope(),
            _ => self.event.payload.to_owned(),
        };
        NewJob {
            id: JobId::from(fresh()),
            plugin,
            command,
            payload: Some(payload),
            max_attempts: 1,
            submitted_by: self.caller.submitted_by,
            requested_by: self.caller.requested_by.map(str::to_owned),
            dedupe_key: self.caller.dedupe_key.or(dedupe_key).map(str::to_owned),
            dedupe_window: self.caller.dedupe_window,
            dedupe_in_flight: self.caller.dedupe_in_flight,
            parent: self.caller.parent,
            source_event: Some(self.event.id),
            target_key,
            context: Some(context),
            seat,
            is_routed: self.caller.is_routed,
            snapshot: self.caller.snapshot,
            replay_of: None,
        }
    }
}

impl Start {
    /// Counts a payload or a row of context in.
    fn weigh(&mut self, json: Option<&RawValue>) -> Result<(), Unmade> {
        self.bytes = self.bytes.saturating_add(json.map_or(0, |json| json.get().len())).saturating_add(BYTES_BESIDE);
        if self.bytes > MOST_BYTES { Err(Unmade::TooMuch) } else { Ok(()) }
    }
}

/// What a branch begins with, by the name that its author knows.
fn first_step(pipeline: &Pipeline, targets: &[Target]) -> Arc<str> {
    match targets.first() {
        Some(Target::Node(index)) => {
            let step = &pipeline.nodes[*index].step;
            step.strip_suffix("__switch").map_or_else(|| step.clone(), Into::into)
        }
        Some(Target::Split { branches, .. }) => branches.first().map_or_else(|| "".into(), |b| first_step(pipeline, b)),
        Some(Target::Arrive) | None => "".into(),
    }
}

/// The value of a response's `result`, unless it is empty.
pub(crate) fn result_of(response: Option<&str>) -> Option<&RawValue> {
    #[derive(serde::Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    let result = serde_json::from_str::<Response<'_>>(response?).ok()?.result?;
    (!matches!(Raw::from(result).get(), "null" | "\"\"")).then_some(result)
}
