//! What the doors need of the gateway. `actors` implements it, tests fake it; so actors depend on this crate and
//! never the reverse.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, ContextId, JobId};
use ductile_domain::job::JobStatus;
use ductile_domain::problem::Problem;
use ductile_domain::time::Timestamp;
use ductile_domain::tree::TreeNode;
use ductile_domain::version::Build;
use ductile_ledger::Readers;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::events::EventRing;
pub use crate::sync_places::{SyncPlace, SyncPlaces};

/// A request to run one command of one plugin.
#[derive(Debug)]
pub struct Submission {
    /// Plugin or alias, known to be runnable in `generation`.
    pub plugin: Arc<str>,
    /// Declared command.
    pub command: Arc<str>,
    /// The payload object as it arrived; `None` means the request had none.
    pub payload: Option<Box<RawValue>>,
    /// `api` or `cli`.
    pub submitted_by: &'static str,
    /// Token name or socket user.
    pub requested_by: String,
    /// Key under which duplicates are found.
    pub dedupe_key: Option<String>,
    /// Also answer with a job of the same key that is queued or running.
    pub dedupe_in_flight: bool,
    /// Accumulated baggage, for a replay of a job that had some.
    pub context: Option<ContextId>,
    /// The ended job that this one repeats.
    pub replay_of: Option<JobId>,
    /// False: what the job emits starts no pipeline and follows no route.
    pub is_routed: bool,
}

/// A request to start a pipeline by its name. Its trigger, `from_plugin` and `if` are not asked: whoever names a pipeline
/// means it.
#[derive(Debug)]
pub struct PipelineStart {
    /// Name of a pipeline, known in the generation that the door saw.
    pub pipeline: Arc<str>,
    /// The payload object as it arrived; `None` means `{}`.
    pub payload: Option<Box<RawValue>>,
    /// `api` or `cli`.
    pub submitted_by: &'static str,
    /// Token name or socket user.
    pub requested_by: String,
    /// Key under which duplicates are found, in the window of a call and also while the job of the key is queued or
    /// running; comes with `is_single` only.
    pub dedupe_key: Option<String>,
    /// Refuse a start that is not exactly one job: nobody could say what to wait for, or what is a duplicate.
    pub is_single: bool,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// A new row, on disk.
    Accepted(JobId),
    /// A job with the same key exists.
    Duplicate(JobId, JobStatus),
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was queued and is `dead` now.
    Dead,
    /// It runs; its process is being stopped.
    Stopping,
    /// It had ended before.
    AlreadyTerminal(JobStatus),
    /// No such job.
    Unknown,
}

/// Why the gateway could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Try again after that time: mailbox full, ledger busy, disk full, draining.
    Unavailable {
        /// What is the matter, for people.
        reason: String,
        /// Value for `Retry-After`.
        retry_after: Duration,
    },
    /// No actor has that path.
    UnknownActor(String),
    /// A reload has put a generation in force that lacks the plugin.
    PluginGone(String),
    /// The generation in force has no pipeline of that name.
    UnknownPipeline(String),
    /// The generation in force has no such schedule.
    UnknownSchedule {
        /// The plugin that was named.
        plugin: String,
        /// The schedule that was named; `None` when the plugin has none at all.
        schedule: Option<String>,
    },
    /// The schedule can't be read, so nothing of it is run; the text says why.
    InvalidSchedule {
        /// Its plugin.
        plugin: String,
        /// Its id.
        schedule: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A start with `is_single` would have been more than one job.
    SeveralEntries {
        /// Jobs that the pipeline begins with.
        entries: usize,
    },
    /// What the first steps claim as baggage can't be had from the payload; the text names the path.
    Baggage(String),
    /// The context that the first steps claim is larger than contexts may be.
    ContextTooLarge {
        /// Bytes that it has.
        bytes_actual: u64,
        /// Bytes that it may have.
        bytes_limit: u64,
    },
    /// The configuration on disk can't be put in force: every problem. Nothing was changed.
    InvalidConfig(Vec<Problem>),
    /// Something that should not happen; the text goes to the log, not to the caller.
    Internal(String),
}

/// A generation that a reload has put in force, and what is different in it. Paths are dotted, such as `plugins.echo` or
/// `service.max_workers`; of a plugin only the name is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// RFC 3339.
    pub reloaded_at: String,
    /// Number of the generation.
    pub generation: u64,
    /// Its row of `config_snapshots`.
    pub config_snapshot_id: i64,
    /// What the former one did not have.
    pub added: Vec<String>,
    /// What is otherwise now, plugins whose files have changed included.
    pub changed: Vec<String>,
    /// What only the former one had.
    pub removed: Vec<String>,
    /// What has changed on disk and takes effect with the next start only.
    pub restart_required: Vec<String>,
    /// What is worth knowing about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// A generation that is still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GenerationUse {
    /// Its number.
    pub no: u64,
    /// Attempts that run under it.
    pub attempts: usize,
}

/// A short account of the gateway's state.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// `ok`, `degraded`, `draining`.
    pub status: String,
    /// Why it is not `ok`; empty otherwise.
    pub reasons: Vec<String>,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Jobs in `queued`.
    pub queue_depth: u64,
    /// Jobs in `running`.
    pub running: u64,
    /// Plugins that can be run.
    pub plugins_loaded: usize,
    /// Open breakers.
    pub plugins_circuit_open: u64,
    /// True while the operator has paused dispatch.
    pub paused: bool,
    /// How plugins' limits are held.
    pub limits: LimitsLevel,
}

/// How the limits of plugins are held on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct LimitsLevel {
    /// `cgroup`, `cgroup_kill_only` or `rlimits`.
    pub level: &'static str,
    /// Why it is no better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Default for LimitsLevel {
    /// Each process by itself.
    fn default() -> Self {
        Self { level: "rlimits", reason: None }
    }
}

/// The gateway as its doors see it. Futures end within the deadline that the implementation sets.
pub trait Gateway: Send + Sync + 'static {
    /// Enqueues one job; answers after its commit is on disk.
    fn submit(&self, submission: Submission) -> impl Future<Output = Result<Submitted, Refusal>> + Send;
    /// Starts a pipeline under the generation in force: its first jobs with their contexts and joins, all in one commit
    /// that is on disk before the answer. The answer has the entries in authored order, at least one; every other refusal
    /// than [`Refusal::Unavailable`] and [`Refusal::Internal`] has enqueued nothing.
    fn start_pipeline(&self, start: PipelineStart) -> impl Future<Output = Result<Vec<Submitted>, Refusal>> + Send;
    /// Resolves to true when the job and all that followed from it are terminal and that is on disk, to false when
    /// `timeout` has passed before. Followers are committed before the job that causes them ends, so the family never
    /// seems complete too early. Dropping the future ends the waiting only.
    fn wait_for_family(&self, job: JobId, timeout: Duration) -> impl Future<Output = bool> + Send;
    /// A place among the `api.max_concurrent_sync` calls that may wait for a pipeline at the same time over all doors;
    /// `None` while all are taken. Dropping it frees it.
    fn sync_place(&self) -> Option<SyncPlace>;
    /// Cancels a job; `why` becomes `cancelled: <why>` in `last_error`.
    fn cancel(
        &self,
        job: JobId,
        why: String,
        requested_by: String,
    ) -> impl Future<Output = Result<Cancelled, Refusal>> + Send;
    /// Resolves when the job is terminal or `timeout` has passed; answers from commits, never by polling fast.
    fn wait(&self, job: JobId, timeout: Duration) -> impl Future<Output = ()> + Send;
    /// Stops (false) or resumes (true) taking jobs from the queue.
    fn set_dispatch(&self, on: bool, requested_by: String) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Runs a schedule's command with its payload now. No tick: the schedule, its guard and its breaker are not asked, and
    /// nothing is counted for them. Answers after the commit is on disk.
    fn run_schedule(
        &self,
        plugin: String,
        schedule: String,
        submitted_by: &'static str,
        requested_by: String,
    ) -> impl Future<Output = Result<Submitted, Refusal>> + Send;
    /// Pauses (true) or resumes (false) one schedule of a plugin, or all of them, across reloads and restarts. Answers the
    /// ids of those that were not so before, when that is on disk.
    fn pause_schedules(
        &self,
        plugin: String,
        schedule: Option<String>,
        paused: bool,
        requested_by: String,
    ) -> impl Future<Output = Result<Vec<String>, Refusal>> + Send;
    /// Closes every breaker of the plugin and forgets its failures. Answers how many were not closed, when that is on disk.
    fn reset_breaker(
        &self,
        plugin: String,
        requested_by: String,
    ) -> impl Future<Output = Result<usize, Refusal>> + Send;
    /// Restarts one actor; not counted against the intensity.
    fn restart_actor(&self, path: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// The actor's own view of its state, `None` when it does not answer in 500 ms.
    fn inspect_actor(&self, path: &str) -> impl Future<Output = Result<Option<Value>, Refusal>> + Send;
    /// Reads the configuration again and puts it in force, or changes nothing. One at a time: a second one waits, and then
    /// reads again.
    fn reload(&self, requested_by: String) -> impl Future<Output = Result<Reloaded, Refusal>> + Send;
    /// Begins a graceful stop of the whole gateway.
    fn stop(&self, requested_by: String);
    /// The supervision tree now.
    fn tree(&self) -> TreeNode;
    /// The configuration in force.
    fn generation(&self) -> Arc<Generation>;
    /// The generations that somebody still holds, the one in force last.
    fn generations(&self) -> Vec<GenerationUse>;
    /// Why no new work is taken in at the moment, if it is not: too little space is free beside the ledger.
    fn intake_stopped(&self) -> Option<String> {
        None
    }
    /// State for health checks, from memory and one short read.
    fn health(&self) -> impl Future<Output = Health> + Send;
    /// The live events.
    fn events(&self) -> &EventRing;
    /// Read access to the ledger.
    fn readers(&self) -> &Readers;
    /// The gateway's wall clock, with which its rows are stamped.
    fn now(&self) -> Timestamp;
    /// This start of the gateway.
    fn boot_id(&self) -> BootId;
    /// Which build of the gateway it is.
    fn build(&self) -> Build;
}
