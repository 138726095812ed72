//! What the ledger is told and says about schedules, their ticks and breakers, as values.

use std::sync::Arc;

use ductile_domain::breaker::BreakerChange;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::NewJob;
use ductile_domain::schedule::{EntryStatus, Expected, IfRunning, TickReason, TickStatus};
use ductile_domain::time::Timestamp;

use crate::error::WriteError;
use crate::ops::Buried;

/// A tick of the table named that was taken back before it was due: the change that did it may be undone, so it counts as
/// never seen.
macro_rules! taken_back {
    ($table:literal) => {
        concat!(
            "(",
            $table,
            ".status = 'skipped' AND ",
            $table,
            ".reason IN ('removed', 'replaced', 'clock_went_back') AND ",
            $table,
            ".ended_at < ",
            $table,
            ".due_at)"
        )
    };
}

pub(crate) use taken_back;

/// What the rows of one schedule become. Times are kept with milliseconds.
#[derive(Debug, Clone)]
pub struct Arrangement {
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Its schedule.
    pub schedule: Arc<str>,
    /// What the schedule runs.
    pub command: Arc<str>,
    /// Its state. Whether it is active or paused by an operator is changed by [`crate::Writer::pause_schedules`] only, so
    /// that what was read before a pause or a resume does not undo it; here, either means both for a row that exists. A
    /// pause also outlasts an entry that can't be read meanwhile.
    pub status: EntryStatus,
    /// Why, where the state needs a word.
    pub reason: Option<String>,
    /// Tells its timing apart. Without one nothing is expected of it, and `ended` and `expect` are not looked at.
    pub fingerprint: Option<Arc<str>>,
    /// Where the grid of an interval begins.
    pub anchor: Option<Timestamp>,
    /// The start of the gateway that armed a delay.
    pub armed_by: Option<BootId>,
    /// How the expected ticks end that neither `ended` nor `expect` names, whatever their fingerprint.
    pub others_end: (TickStatus, TickReason),
    /// Ticks that have ended.
    pub ended: Vec<Ended>,
    /// Ticks that are expected, in order; those that are recorded as ended stay so.
    pub expect: Vec<Expected>,
    /// There is no such schedule any more: its row is deleted, its ticks stay.
    pub is_removed: bool,
}

/// A tick, or a run of ticks that share a row, that ended without being fired. One that had ended before stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its instant; of a run the first.
    pub instant: Timestamp,
    /// When it was due.
    pub due: Timestamp,
    /// The last instant of a run, and how many it has.
    pub last: Option<(Timestamp, u32)>,
    /// How it ended.
    pub status: TickStatus,
    /// Why.
    pub reason: TickReason,
}

/// One tick that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Its schedule.
    pub schedule: Arc<str>,
    /// Tells its timing apart.
    pub fingerprint: Arc<str>,
    /// The nominal instant.
    pub instant: Timestamp,
    /// When it was due.
    pub due: Timestamp,
    /// It makes good for one that passed: it waits for running jobs instead of giving way to them.
    pub is_catch_up: bool,
    /// It fires later than it was due.
    pub is_late: bool,
    /// It is not to be fired, for a reason that no row says (window, day, plugin gone, no space).
    pub skip: Option<TickReason>,
    /// What it enqueues.
    pub job: NewJob,
    /// What happens to it or to them while scheduled jobs of the same plugin and command are queued or running.
    pub if_running: IfRunning,
    /// It is skipped when so many jobs of the same plugin and command are queued or running, whoever asked for them.
    pub guard: Option<u32>,
    /// The tick that is expected after it, written when it ends.
    pub next: Option<Expected>,
    /// None comes after it: its schedule is exhausted when it ends.
    pub is_last: bool,
    /// Ticks that end with it, jumped over.
    pub passed: Vec<Ended>,
}

/// What became of a tick that was due.
#[derive(Debug, Clone)]
pub enum Ticked {
    /// Its job was enqueued.
    Fired {
        /// [`TickStatus::Fired`] or [`TickStatus::CaughtUp`].
        status: TickStatus,
        /// [`TickReason::Late`] or nothing.
        reason: Option<TickReason>,
        /// The job.
        job: JobId,
        /// Its first transition.
        transition: i64,
        /// Queued jobs that died for it.
        cancelled: Vec<Buried>,
        /// Running jobs whose cancellation was asked for with it: their actors want a hint.
        flagged: Vec<JobId>,
        /// It is the probe of a breaker.
        breaker: Option<BreakerEvent>,
    },
    /// It ended without a job of its own.
    Skipped {
        /// Why.
        reason: TickReason,
        /// The job that stood for it, when it was deduped.
        job: Option<JobId>,
        /// Queued jobs that died for it.
        cancelled: Vec<Buried>,
        /// Running jobs whose cancellation was asked for with it.
        flagged: Vec<JobId>,
    },
    /// It is still expected: ask again when a scheduled job of the plugin has ended.
    Waits {
        /// What for.
        reason: TickReason,
    },
    /// It has ended before, or the answer to it was lost: nothing was changed.
    AlreadyEnded,
    /// It alone could not be written; it is still expected.
    Failed(WriteError),
}

/// A breaker that changed its state: a row of `circuit_breaker_transitions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerEvent {
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Command.
    pub command: Arc<str>,
    /// What it did.
    pub change: BreakerChange,
    /// Failures in a row, after it.
    pub failure_count: u32,
    /// The job that caused it, or that is the probe.
    pub job: Option<JobId>,
    /// When it was committed.
    pub at: Timestamp,
}

/// A row of `schedule_entries` with what is expected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Plugin or alias.
    pub plugin: String,
    /// Its schedule.
    pub schedule: String,
    /// What the schedule runs.
    pub command: String,
    /// Its state.
    pub status: EntryStatus,
    /// Why, where the state needs a word.
    pub reason: Option<String>,
    /// The timing under which its ticks are expected.
    pub fingerprint: Option<String>,
    /// Where the grid of an interval begins.
    pub anchor: Option<Timestamp>,
    /// The start of the gateway that armed a delay.
    pub armed_by: Option<BootId>,
    /// When a tick last asked for a job, whether it got one or gave way.
    pub last_fired_at: Option<Timestamp>,
    /// When a job of it last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// That job.
    pub last_success_job_id: Option<String>,
    /// When the newest expected tick is due.
    pub next_run_at: Option<Timestamp>,
    /// Instant of the newest tick of this fingerprint that has ended. One that was taken back before it was due does not
    /// count.
    pub last_instant: Option<Timestamp>,
    /// Its ticks that are expected under this fingerprint, in order.
    pub expected: Vec<Expected>,
}
