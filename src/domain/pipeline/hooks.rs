//! Which hook pipelines the end of a job starts.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::condition::Condition;
use crate::config::NotifyOnComplete;
use crate::ids::{EventId, Fresh, JobId};
use crate::job::JobStatus;
use crate::outcome::AttemptStatus;
use crate::path::Scope;
use crate::pipeline::hop::{Caller, Event, Hop};
use crate::pipeline::{Control, Pipelines, Signal, Start};
use crate::raw::Object;
use crate::time::Timestamp;

/// `submitted_by` of the jobs that hooks start.
const HOOK: &str = "hook";

/// A job that has just ended for good.
#[derive(Debug, Clone)]
pub struct Ended<'a> {
    /// The job.
    pub job: JobId,
    /// Its plugin.
    pub plugin: &'a str,
    /// Its command.
    pub command: &'a str,
    /// The job that caused it.
    pub parent: Option<JobId>,
    /// Kind of its trigger.
    pub submitted_by: &'a str,
    /// Its terminal state.
    pub status: JobStatus,
    /// How its last attempt ended; `None` when it never ran.
    pub last_attempt: Option<AttemptStatus>,
    /// Number of that attempt, 0 when it never ran.
    pub attempt: u32,
    /// How long that attempt took, in milliseconds.
    pub duration_ms: i64,
    /// Its `last_error`.
    pub error: Option<&'a str>,
    /// Its accumulated baggage.
    pub context: Option<&'a RawValue>,
    /// Row of the configuration snapshot in force.
    pub snapshot: Option<i64>,
    /// When it ended.
    pub now: Timestamp,
}

impl Pipelines {
    /// True when the end of a job of that plugin may start anything. Cheap: to be asked before [`Ended`] is put together.
    #[must_use]
    pub fn has_hooks(&self, plugin: &str) -> bool {
        !self.by_signal.is_empty() && self.notifies.contains_key(plugin)
    }

    /// The jobs that the end of this one starts: parent is the job that ended, `submitted_by` is `hook`.
    #[must_use]
    pub fn hook_jobs(&self, ended: &Ended<'_>, fresh: Fresh<'_>) -> Start {
        let mut all = Start::default();
        let Some(hook_depth) = self.hook_depth(ended) else { return all };
        for signal in signals(ended) {
            let pipelines = self.on_signal(signal);
            if pipelines.is_empty() {
                continue;
            }
            let payload = payload(ended, signal);
            let scope = Scope { payload: Some(&payload), context: None, config: None };
            let event = Event {
                id: EventId::from(fresh()),
                kind: signal.as_str(),
                source: ended.plugin,
                dedupe_key: None,
                payload: &payload,
                at: ended.now,
            };
            for pipeline in pipelines {
                let is_from = pipeline.source_plugin.as_deref().is_none_or(|from| from == ended.plugin);
                let holds = |condition: &Arc<Condition>| condition.evaluate(&scope).holds;
                if !is_from || !pipeline.condition.as_ref().is_none_or(holds) {
                    continue;
                }
                let caller = Caller {
                    submitted_by: HOOK,
                    requested_by: None,
                    dedupe_key: None,
                    dedupe_window: self.dedupe_window,
                    dedupe_in_flight: false,
                    parent: Some(ended.job),
                    snapshot: ended.snapshot,
                    is_routed: true,
                };
                let control = Control {
                    root: Some(pipeline.name.clone()),
                    instance: Some(fresh()),
                    depth: 1,
                    max_depth: pipeline.max_depth,
                    hook_depth: Some(hook_depth),
                    ..Control::default()
                };
                let baggage = event.first_baggage(fresh);
                let hop = Hop { caller: &caller, event: &event, parent: None, baggage: &baggage, control };
                let mut start = Start::default();
                match hop.enter(pipeline, &pipeline.entries, None, &mut start, fresh) {
                    Ok(()) => all.append(start),
                    Err(unmade) => all.faults.push(unmade.at_entry()),
                }
            }
        }
        all
    }

    /// How many hooks the chain of a job that this end starts has; `None` when it starts none.
    fn hook_depth(&self, ended: &Ended<'_>) -> Option<u32> {
        let mode = self.notifies.get(ended.plugin)?;
        if ended.submitted_by == HOOK {
            let so_far = ended.context.and_then(Control::of).and_then(|control| control.hook_depth).unwrap_or(1);
            let may = *mode == NotifyOnComplete::Cascade && so_far < self.hook_max_depth;
            return may.then_some(so_far + 1);
        }
        ended.parent.is_none().then_some(1)
    }
}

/// What an end is a signal of.
fn signals(ended: &Ended<'_>) -> impl Iterator<Item = Signal> {
    let by_attempt = match (ended.status, ended.last_attempt) {
        (JobStatus::Failed | JobStatus::Dead, Some(AttemptStatus::TimedOut)) => Some(Signal::TimedOut),
        (JobStatus::Failed, _) | (JobStatus::Dead, Some(AttemptStatus::Failed)) => Some(Signal::Failed),
        _ => None,
    };
    let dead = (ended.status == JobStatus::Dead).then_some(Signal::Dead);
    by_attempt.into_iter().chain(dead).chain(Some(Signal::Completed))
}

/// The lifecycle envelope.
fn payload(ended: &Ended<'_>, signal: Signal) -> Box<RawValue> {
    let status = match signal {
        Signal::TimedOut => AttemptStatus::TimedOut.as_str(),
        Signal::Failed => AttemptStatus::Failed.as_str(),
        Signal::Completed | Signal::Dead => ended.status.as_str(),
    };
    let mut payload = Object::default();
    payload.set_value("job_id", &Value::from(ended.job.to_string()));
    payload.set_value("plugin", &Value::from(ended.plugin));
    payload.set_value("command", &Value::from(ended.command));
    payload.set_value("status", &Value::from(status));
    payload.set_value("attempt", &Value::from(ended.attempt));
    payload.set_value("duration_ms", &Value::from(ended.duration_ms));
    if matches!(ended.status, JobStatus::Failed | JobStatus::Dead) {
        let error = ended.error.unwrap_or_default();
        let message = Value::from(format!("Job failed [{}]: {error}", ended.plugin));
        payload.set_value("message", &message);
        payload.set_value("text", &message);
        payload.set_value("error", &Value::from(error));
    }
    payload.to_raw_value()
}
