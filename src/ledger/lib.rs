//! The SQLite ledger: `open` yields one [`Writer`] and many [`Readers`]. Nothing outside this crate knows SQL.
//!
//! Everything that changes the database is an operation of the [`Writer`]; operations that wait together share one
//! transaction and are answered after its commit. Readers have their own connections and see committed rows only.

mod clock;
mod error;
mod examine;
mod feed;
mod migrate;
mod open;
mod ops;
mod readers;
mod schedules;
mod schema;
mod writer;

pub use clock::{Clock, Hand};
pub use error::{Error, WriteError};
pub use examine::{Examiner, StaleJobs};
pub use feed::{CommitFeed, Drained};
pub use migrate::{MigrationReport, migrate};
pub use open::{Ledger, OpenOptions, open};
pub use ops::{
    Born, Buried, Cancelled, Claimed, Claims, Deletable, Enqueued, Finish, Finished, Init, Orphan, Prune, Pruned,
    Recorded, Recovered, Refusal, Refused, Snapshot, Submission, Submitted, Transition, Vacuumed, Verdict,
};
pub use readers::{
    AttemptRow, BranchRow, BreakerRow, BreakerTransitionRow, ContextRow, Counts, FAMILY_LIMIT, FactFilter, FactRow,
    Family, FamilyRow, FamilyTiming, Growth, JobFilter, JobRow, JoinRow, LINEAGE_LIMIT, LogFilter, LogRow, Page,
    PipelineActivity, PluginCounts, Progress, QuarantineRow, QueuedPlugin, RESULT_BUDGET, Readers, RecordedJob,
    RunningRow, STOPWATCH_LIMIT, SilentRow, SnapshotRow, StatusCount, StopwatchRow, Storage, TableSize, TickFilter,
    TickRow, TransitionRow, Waiting, free_space,
};
pub use schedules::{Arrangement, BreakerEvent, Due, Ended, Entry, Ticked};
pub use schema::{APPLICATION_ID, VERSION};
pub use writer::{InForce, Writer, arm_failpoints, failpoints};
