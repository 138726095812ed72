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
