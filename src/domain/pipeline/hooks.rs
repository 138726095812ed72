//! Which hook pipelines the end of a job starts.

use serde_json::value::RawValue;

use crate::ids::{Fresh, JobId};
use crate::job::JobStatus;
use crate::outcome::AttemptStatus;
use crate::pipeline::{Pipelines, Signal, Start};
use crate::time::Timestamp;

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
    pub fn has_hooks(&self, _plugin: &str) -> bool {
        Signal::ALL.into_iter().any(|s| !self.on_signal(s).is_empty())
    }

    /// The jobs that the end of this one starts: parent is the job that ended, `submitted_by` is `hook`.
    #[must_use]
    pub fn hook_jobs(&self, _ended: &Ended<'_>, _fresh: Fresh<'_>) -> Start {
        Start::default()
    }
}
