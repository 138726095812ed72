//! Live events: what `/events` shows as it happens.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::ids::JobId;
use crate::time::{self, Timestamp};

/// One event, before it is rendered.
#[derive(Debug, Clone)]
pub struct LiveEvent {
    /// Type, such as `job.started` or `actor.crashed`.
    pub kind: Cow<'static, str>,
    /// When it happened.
    pub at: Timestamp,
    /// Its fields.
    pub fields: Fields,
}

/// The type of the event that a row of `job_transitions` is, live and replayed. `from` and `to` are states of a job or of
/// an attempt.
#[must_use]
pub fn of_transition(from: Option<&str>, to: &str) -> &'static str {
    match (from, to) {
        (None, _) => "job.enqueued",
        (_, "running") => "job.started",
        (_, "succeeded") => "job.completed",
        (_, "skipped") => "job.skipped",
        (_, "failed") => "job.failed",
        (_, "timed_out") => "job.timed_out",
        (_, "dead") => "job.dead",
        (Some("running"), _) => "job.given_back",
        _ => "job.retry_scheduled",
    }
}

/// The fields of an event; jobs are typed because they are many.
#[derive(Debug, Clone)]
pub enum Fields {
    /// Something happened to a job.
    Job(Box<JobFields>),
    /// Anything else: an object.
    Other(Map<String, Value>),
}

/// What job events say.
#[derive(Debug, Clone)]
pub struct JobFields {
    /// The job.
    pub job: JobId,
    /// Its plugin.
    pub plugin: Arc<str>,
    /// Its command.
    pub command: Arc<str>,
    /// Row of `job_transitions`, when the event is one; `?since=` replays from it.
    pub transition: Option<i64>,
    /// Number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// Further fields.
    pub more: Vec<(&'static str, Value)>,
}

impl LiveEvent {
    /// An event that speaks of no job.
    #[must_use]
    pub fn other(kind: impl Into<Cow<'static, str>>, at: Timestamp, fields: Map<String, Value>) -> Self {
        Self { kind: kind.into(), at, fields: Fields::Other(fields) }
    }

    /// One JSON object with `type`, `at` and the event's fields side by side.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("type".into(), Value::from(&*self.kind));
        out.insert("at".into(), Value::from(time::format(self.at)));
        match &self.fields {
            Fields::Other(fields) => out.extend(fields.clone()),
            Fields::Job(job) => {
                out.insert("job_id".into(), Value::from(job.job.to_string()));
                out.insert("plugin".into(), Value::from(&*job.plugin));
                out.insert("command".into(), Value::from(&*job.command));
                if let Some(id) = job.transition {
                    out.insert("transition_id".into(), Value::from(id));
                }
                if let Some(attempt) = job.attempt {
                    out.insert("attempt".into(), Value::from(attempt));
                }
                for (key, value) in &job.more {
                    out.insert((*key).into(), value.clone());
                }
            }
        }
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::of_transition;

    /// Both lead back to the queue; only one of them waits for its time.
    #[test]
    fn what_was_given_back_is_told_apart_from_a_retry() {
        assert_eq!(of_transition(Some("running"), "queued"), "job.given_back");
        assert_eq!(of_transition(Some("failed"), "queued"), "job.retry_scheduled");
        assert_eq!(of_transition(None, "queued"), "job.enqueued");
    }
}
