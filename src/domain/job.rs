//! A job, the states it may be in, and the proof that a write about an attempt is still wanted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{BootId, ContextId, EventId, JobId, JoinId};
use crate::time::Timestamp;

/// The state of a row in `job_queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for a worker, for its retry time, or for a twin with the same dedupe key.
    Queued,
    /// Claimed by a live attempt actor of the boot in `boot_id`.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended by a preflight that decided not to run.
    Skipped,
    /// Ended by a failure that no retry can mend.
    Failed,
    /// Ended with its attempts exhausted, cancelled, or without its plugin.
    Dead,
}

/// Every legal change of `job_queue.status`; `None` stands for "no row yet". The SQL trigger and the diagram in the
/// documentation are compared with this table by tests.
pub const LEGAL_TRANSITIONS: &[(Option<JobStatus>, JobStatus)] = &[
    (None, JobStatus::Queued),
    (Some(JobStatus::Queued), JobStatus::Running),
    (Some(JobStatus::Queued), JobStatus::Dead),
    (Some(JobStatus::Running), JobStatus::Succeeded),
    (Some(JobStatus::Running), JobStatus::Skipped),
    (Some(JobStatus::Running), JobStatus::Queued),
    (Some(JobStatus::Running), JobStatus::Failed),
    (Some(JobStatus::Running), JobStatus::Dead),
];

impl JobStatus {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Succeeded, Self::Skipped, Self::Failed, Self::Dead];

    /// The word stored in the ledger and shown by every door.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }

    /// True for the states that a row never leaves.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Skipped | Self::Failed | Self::Dead)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no job status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownStatus(pub String);

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown status {:?}: use queued, running, succeeded, failed, timed_out, dead or skipped", self.0)
    }
}

impl std::error::Error for UnknownStatus {}

impl FromStr for JobStatus {
    type Err = UnknownStatus;

    /// Accepts the stored words only; filters with aliases are the doors' matter.
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Identifies one claim of one job. Every later write about the attempt carries it and changes nothing once the row
/// has been claimed again or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The job that was claimed.
    pub job: JobId,
    /// Its `claim_no` after the claim; grows by one with every claim.
    pub claim_no: i64,
}

/// The branch that a job belongs to: its join fires when the last job of all its branches has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The innermost join that waits for the job.
    pub join: JoinId,
    /// Which branch of the split, from 0 in authored order.
    pub branch: u32,
}

/// The kinds of triggers: what [`NewJob::submitted_by`] may be.
pub const TRIGGERS: [&str; 8] = ["api", "cli", "scheduler", "webhook", "route", "relay", "hook", "system"];

/// Work to be enqueued. The ledger decides about duplicates in the transaction that inserts it.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The id that the row gets.
    pub id: JobId,
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// A command that its manifest declares.
    pub command: Arc<str>,
    /// For `handle` the event envelope, otherwise the payload object; `None` when the trigger sent none.
    pub payload: Option<Box<RawValue>>,
    /// Attempts in total, at least 1.
    pub max_attempts: u32,
    /// Kind of trigger, one of [`TRIGGERS`].
    pub submitted_by: &'static str,
    /// Who asked: token name, socket user, schedule id, peer.
    pub requested_by: Option<String>,
    /// Key under which duplicates are found.
    pub dedupe_key: Option<String>,
    /// Window in which a succeeded job with the same key and target suppresses this one.
    pub dedupe_window: Duration,
    /// Also suppress while a job with the same key and target is queued or running.
    pub dedupe_in_flight: bool,
    /// The job whose event or end caused this one.
    pub parent: Option<JobId>,
    /// The event that caused this one.
    pub source_event: Option<EventId>,
    /// Id of the compiled route, empty for plain routes; with parent, event, plugin and command it is unique.
    pub target_key: String,
    /// Accumulated baggage of the hop.
    pub context: Option<ContextId>,
    /// The join that waits for it, if any.
    pub seat: Option<Seat>,
    /// False: what it emits starts no pipeline and follows no route.
    pub is_routed: bool,
    /// Configuration snapshot in force.
    pub snapshot: Option<i64>,
    /// The ended job whose input this one repeats; named in the reason of its first transition.
    pub replay_of: Option<JobId>,
}

impl NewJob {
    /// A job that nothing caused: no input, one attempt, no key, nothing that it belongs to.
    #[must_use]
    pub fn new(
        id: JobId,
        plugin: impl Into<Arc<str>>,
        command: impl Into<Arc<str>>,
        submitted_by: &'static str,
    ) -> Self {
        Self {
            id,
            plugin: plugin.into(),
            command: command.into(),
            payload: None,
            max_attempts: 1,
            submitted_by,
            requested_by: None,
            dedupe_key: None,
            dedupe_window: Duration::ZERO,
            dedupe_in_flight: false,
            parent: None,
            source_event: None,
            target_key: String::new(),
            context: None,
            seat: None,
            is_routed: true,
            snapshot: None,
            replay_of: None,
        }
    }
}

/// A job that this boot has just taken for one attempt.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// Proof for every later write.
    pub fence: Fence,
    /// Position in the FIFO (`rowid`).
    pub row: i64,
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Command to run.
    pub command: Arc<str>,
    /// Stored payload, see [`NewJob::payload`].
    pub payload: Option<Box<RawValue>>,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts in total.
    pub max_attempts: u32,
    /// Kind of trigger.
    pub submitted_by: Arc<str>,
    /// Key that twins share.
    pub dedupe_key: Option<String>,
    /// When the job was enqueued.
    pub created_at: Timestamp,
    /// When this attempt was claimed.
    pub started_at: Timestamp,
    /// The plugin's current compatibility view, a JSON object; `None` when there is no row.
    pub state: Option<Box<RawValue>>,
    /// The accumulated baggage, a JSON object; `None` outside pipelines and routes.
    pub context: Option<Box<RawValue>>,
    /// Row of `event_context` that holds it.
    pub context_id: Option<ContextId>,
    /// The join that waits for it, if any.
    pub seat: Option<Seat>,
    /// False: what it emits starts no pipeline and follows no route.
    pub is_routed: bool,
    /// Which size of memory it gets: 0 for the plugin's `limits.memory`, n for the n-th of `limits.tiers`.
    pub memory_tier: u32,
    /// The job that caused this one.
    pub parent: Option<JobId>,
}

/// A queued job as the queue's index holds it: a hint, never a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Position in the FIFO (`rowid`).
    pub row: i64,
    /// The job.
    pub job: JobId,
    /// Plugin or alias, the unit of caps.
    pub plugin: Arc<str>,
    /// When it may run; `None` means at once.
    pub due: Option<Timestamp>,
}

/// Caps to be rechecked in the transaction of a claim.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The boot that will own the rows.
    pub boot: BootId,
    /// Candidates in the order of preference, each with the cap of its plugin.
    pub candidates: Vec<(Candidate, u32)>,
    /// Cap of rows in `running` over all plugins.
    pub max_running: u32,
    /// Configuration snapshot under which the attempts start.
    pub snapshot: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_terminal_state() {
        for (from, _) in LEGAL_TRANSITIONS {
            assert!(from.is_none_or(|s| !s.is_terminal()));
        }
    }

    #[test]
    fn every_status_is_read_back_from_its_word() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("retrying".parse::<JobStatus>().is_err());
    }
}
