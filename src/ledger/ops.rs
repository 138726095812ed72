//! The operations of the writer and their answers, as values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::breaker::BreakerPolicy;
use ductile_domain::config::Service;
use ductile_domain::ids::{BootId, ContextId, JobId};
use ductile_domain::job::{Candidate, ClaimedJob, Fence, JobStatus, NewJob};
use ductile_domain::outcome::Outcome;
use ductile_domain::pipeline::Pipelines;
use ductile_domain::plan::{Arrival, NewContext, NewJoin, Plan};
use ductile_domain::retry::Ending;
use ductile_domain::time::Timestamp;

use crate::schedules::BreakerEvent;

/// A committed row of `job_transitions`: the durable event of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Ascends over all jobs.
    pub id: i64,
    /// The job.
    pub job: JobId,
    /// A status of the row or of an attempt; `None` for the enqueue.
    pub from: Option<&'static str>,
    /// A status of the row or of an attempt (`timed_out` is one of an attempt only).
    pub to: &'static str,
    /// Why; begins with the cause's word.
    pub reason: Option<String>,
    /// When it was committed.
    pub at: Timestamp,
}

/// What became of one new job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// A new row.
    Accepted {
        /// The job.
        job: JobId,
        /// Position in the FIFO.
        row: i64,
        /// Its first transition.
        transition: i64,
    },
    /// An existing job stands for it.
    Duplicate {
        /// That job.
        job: JobId,
        /// Its status now.
        status: JobStatus,
    },
}

/// What a door brings in: all of it is committed, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// The jobs; when all of them turn out to be duplicates, nothing else is written either.
    pub jobs: Vec<NewJob>,
    /// Rows that the jobs and the joins refer to. One that only duplicates name is not written.
    pub contexts: Vec<NewContext>,
    /// Joins that begin to wait for some of the jobs.
    pub joins: Vec<NewJoin>,
    /// Branches without a step, which reach their joins at once.
    pub arrivals: Vec<Arrival>,
}

impl From<Vec<NewJob>> for Submission {
    fn from(jobs: Vec<NewJob>) -> Self {
        Self { jobs, ..Self::default() }
    }
}

/// Answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// What became of its jobs, in their order.
    pub jobs: Vec<Enqueued>,
    /// The jobs of joins that nothing holds up.
    pub born: Vec<Born>,
}

/// A job that the ledger itself enqueued: one that follows a join, or one that a hook starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Born {
    /// The job.
    pub job: JobId,
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Command.
    pub command: Arc<str>,
    /// Row of `event_context` that it has.
    pub context: Option<ContextId>,
    /// Pipeline that the row names.
    pub pipeline: Option<Arc<str>>,
    /// Step that the row names.
    pub step: Option<Arc<str>>,
    /// Position in the FIFO.
    pub row: i64,
    /// Its first transition.
    pub transition: i64,
}

/// One attempt that has ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Proof of the claim.
    pub fence: Fence,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// What follows for the job; a cancelled job is never tried again, whatever stands here.
    pub ending: Ending,
    /// What must be committed with it.
    pub plan: Plan,
    /// True when the answer leaves the gateway, so that the commit must be on disk before it.
    pub is_awaited: bool,
}

/// Whether a fenced write found its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Committed now.
    Applied,
    /// The same claim had been finished before: a reply was lost.
    AlreadyApplied,
    /// The row was claimed again, has ended otherwise or is gone: nothing was changed.
    Fenced,
    /// A plugin that the plan needs is not in the generation in force: plan again. Nothing was changed.
    Replan,
}

/// Answer to a finish or to a claim given back.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Whether it was applied.
    pub verdict: Verdict,
    /// The row's status after it; `None` when the row is gone.
    pub status: Option<JobStatus>,
    /// When the row may be claimed again, for a row that waits for its retry.
    pub due: Option<Timestamp>,
    /// The rows written, in their order.
    pub transitions: Vec<Transition>,
    /// What became of the plan's children, in their order.
    pub children: Vec<Enqueued>,
    /// The jobs that its end caused beyond them.
    pub born: Vec<Born>,
    /// What its end did to the breaker of its plugin and command.
    pub breaker: Option<BreakerEvent>,
    /// The job is `dead` because its attempts kept ending abnormally; its bundle is written.
    pub is_quarantined: bool,
}

impl Finished {
    /// Nothing was changed, and of the row nothing is known.
    pub(crate) const fn unchanged(verdict: Verdict) -> Self {
        Self {
            verdict,
            status: None,
            due: None,
            transitions: Vec::new(),
            children: Vec::new(),
            born: Vec::new(),
            breaker: None,
            is_quarantined: false,
        }
    }
}

/// A job taken for one attempt.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub job: Arc<ClaimedJob>,
    /// A stored JSON value that can't be read: its column. The attempt must fail without a process.
    pub unreadable: Option<&'static str>,
}

/// Why a candidate was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such row, or it is not queued: forget the candidate.
    Gone,
    /// It waits for its retry time.
    NotDue,
    /// A twin with the same plugin, command and dedupe key runs.
    TwinRunning,
    /// The plugin is at its cap.
    PluginCap,
    /// The gateway is at its cap.
    GlobalCap,
    /// The claim was withdrawn before it was decided.
    Withdrawn,
}

/// A candidate that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Position in the FIFO.
    pub row: i64,
    /// The job.
    pub job: JobId,
    /// Why.
    pub why: Refusal,
}

/// Answer to a claim.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Taken, in the order of preference.
    pub claimed: Vec<Claimed>,
    /// Not taken.
    pub refused: Vec<Refused>,
    /// Whoever brought an end took it at once, on his own thread.
    pub is_taken: bool,
}

impl Claims {
    /// True when nothing was decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claimed.is_empty() && self.refused.is_empty()
    }
}

/// Answer to a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued and is `dead` now.
    Dead(Buried),
    /// It runs; the row is marked, so that it is not tried again.
    Flagged,
    /// It had ended before.
    AlreadyTerminal(JobStatus),
    /// No such job.
    Unknown,
}

/// A row in `running` whose owner is gone: read before recovery, so that its process can be ended first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The claim that is to be finished.
    pub fence: Fence,
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Command.
    pub command: Arc<str>,
    /// Number of the attempt.
    pub attempt: u32,
    /// Attempts in total.
    pub max_attempts: u32,
    /// The start of the gateway that owned it.
    pub boot: Option<BootId>,
    /// Its process, when the spawn was recorded.
    pub pid: Option<i32>,
    /// Start time of the process, against reused pids.
    pub pid_start: Option<i64>,
}

/// An orphan whose attempt was finished as crashed.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// What was found.
    pub orphan: Orphan,
    /// What became of it.
    pub finished: Finished,
}

/// A configuration that comes into force.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Number of the generation.
    pub generation: u64,
    /// Plugins and aliases that can be run in it; the ones that were known and are missing here lose their queued jobs.
    /// The gateway's own steps need not be named.
    pub plugins: Vec<String>,
    /// Its pipelines, of which the ledger itself starts those that wait for the end of a job.
    pub pipelines: Arc<Pipelines>,
    /// When the schedules of its plugins stop firing; a plugin that is not here has the default.
    pub breakers: BTreeMap<String, BreakerPolicy>,
    /// Hash over the configuration in force.
    pub config_hash: String,
    /// Hash over the raw files.
    pub source_hash: String,
    /// Path of `config.yaml`.
    pub source_path: String,
    /// `file` or another kind of source.
    pub source: String,
    /// `start` or `reload`.
    pub reason: String,
    /// Version of the gateway.
    pub ductile_version: String,
    /// Path of the gateway's executable.
    pub binary_path: String,
    /// JSON: fingerprints of the plugins.
    pub plugin_fingerprints: String,
    /// JSON: the configuration with secrets replaced.
    pub sanitized_config: String,
    /// JSON: fingerprints of the secrets.
    pub secret_fingerprints: String,
    /// The inits of its plugins; those that ran before are left out by the ledger.
    pub inits: Vec<Init>,
}

/// A plugin's `init`, to be enqueued unless the last one had the same print.
#[derive(Debug, Clone)]
pub struct Init {
    /// Tells whether the plugin or its configuration has changed.
    pub print: String,
    /// Its command is `init`.
    pub job: NewJob,
}

/// Answer to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Row of `config_snapshots`.
    pub id: i64,
    /// Queued jobs of plugins that are not in force any more, now `dead`.
    pub buried: Vec<Buried>,
    /// What became of the inits, in their order; `None` when nothing has changed since the last one.
    pub inits: Vec<Option<Enqueued>>,
    /// Rows that became ready and are not in the feed: nobody shall claim them before the generation is known.
    pub ready: Vec<Candidate>,
}

/// A queued job that died: it was cancelled, or its plugin was removed or disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Command.
    pub command: Arc<str>,
    /// To `dead`.
    pub transition: Transition,
    /// The jobs that its end caused.
    pub born: Vec<Born>,
}

/// Rows that retention may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deletable {
    /// Terminal rows of `job_queue`.
    Jobs,
    /// `job_log` and `job_stopwatch`.
    Log,
    /// `job_transitions`, but never the newest.
    Transitions,
    /// `job_attempts`.
    Attempts,
    /// `circuit_breaker_transitions`.
    BreakerTransitions,
    /// `plugin_facts`, but never the newest per plugin and type.
    Facts,
    /// `event_context` that no job and no waiting join refers to, and joins that have fired.
    Contexts,
    /// `schedule_ticks` that have ended, but never the newest of a schedule's timing in force.
    Ticks,
    /// `job_quarantine`.
    Quarantine,
    /// `storage_samples`.
    Samples,
    /// `config_snapshots` that no job refers to, by the time at which another replaced them.
    Snapshots,
}

impl Prune {
    /// Everything by the operator's settings.
    #[must_use]
    pub fn by_settings(service: &Service) -> Self {
        let retention = |kind: Deletable| Some((kind, service.retention_of(kind.table())?));
        Self { retention: Deletable::ALL.into_iter().filter_map(retention).collect(), limit: u32::MAX }
    }
}

impl Deletable {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Jobs,
        Self::Log,
        Self::Transitions,
        Self::Attempts,
        Self::BreakerTransitions,
        Self::Facts,
        Self::Contexts,
        Self::Ticks,
        Self::Quarantine,
        Self::Samples,
        Self::Snapshots,
    ];

    /// The table whose retention it is.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Jobs => "job_queue",
            Self::Log => "job_log",
            Self::Transitions => "job_transitions",
            Self::Attempts => "job_attempts",
            Self::BreakerTransitions => "circuit_breaker_transitions",
            Self::Facts => "plugin_facts",
            Self::Contexts => "event_context",
            Self::Ticks => "schedule_ticks",
            Self::Quarantine => "job_quarantine",
            Self::Samples => "storage_samples",
            Self::Snapshots => "config_snapshots",
        }
    }
}

/// One step of pruning.
#[derive(Debug, Clone)]
pub struct Prune {
    /// What goes, and from which age on.
    pub retention: Vec<(Deletable, Duration)>,
    /// Most rows of a kind that the step deletes; its time is bounded whatever stands here.
    pub limit: u32,
}

/// What one step deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows deleted, in the order of the request.
    pub deleted: Vec<(Deletable, u64)>,
    /// True when not every old row was looked at: call again.
    pub has_more: bool,
}

/// What one step gave back to the file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Pages of the file.
    pub pages: u64,
    /// True when more than a reserve is still free: call again.
    pub has_more: bool,
}

/// A candidate for a row that has become ready.
pub(crate) fn candidate(row: i64, job: JobId, plugin: &str, due: Option<Timestamp>) -> Candidate {
    Candidate { row, job, plugin: plugin.into(), due }
}
