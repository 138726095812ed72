//! Looking without touching: an own pool of read-only connections, short reads, typed rows.

mod family;
mod figures;
mod history;
mod jobs;
mod open_family;
mod pipelines;
mod plugins;
mod quarantine;
mod queue;
mod recorded;
mod schedules;
mod storage;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use crate::error::Error;

pub use family::{FAMILY_LIMIT, Family, FamilyRow, FamilyTiming, RESULT_BUDGET};
pub use figures::{STOPWATCH_LIMIT, StatusCount, Waiting};
pub use history::{AttemptRow, LogFilter, LogRow, StopwatchRow, TransitionRow};
pub use jobs::{JobFilter, JobRow};
pub use pipelines::{BranchRow, ContextRow, JoinRow, LINEAGE_LIMIT, PipelineActivity, Progress};
pub use plugins::{FactFilter, FactRow, SnapshotRow};
pub use quarantine::QuarantineRow;
pub use queue::{Counts, PluginCounts, QueuedPlugin, RunningRow};
pub use recorded::RecordedJob;
pub use schedules::{BreakerRow, BreakerTransitionRow, SilentRow, TickFilter, TickRow};
pub use storage::{Growth, Storage, TableSize, free_space};
pub(crate) use whole::copy_into;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Page<T> {
    /// The rows of this page.
    pub rows: Vec<T>,
    /// Rows that match, over all pages.
    pub total: u64,
}

/// Read access to committed rows. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Readers {
    /// For short reads: dispatch, one job, counts.
    pool: SqlitePool,
    /// For reads whose time depends on the history and on what callers ask. They wait for each other, and never keep
    /// dispatch waiting.
    lists: SqlitePool,
    path: PathBuf,
}

impl Readers {
    /// Connections are made when they are needed first.
    #[must_use]
    pub fn connect(path: &Path, busy_timeout: Duration) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .pragma("query_only", "ON")
            .pragma("trusted_schema", "OFF")
            .pragma("cache_size", "-1000")
            .busy_timeout(busy_timeout)
            .statement_cache_capacity(64)
            .row_buffer_size(256)
            .thread_name(|_| "ledger-reader".into())
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .min_connections(0)
                // a closed last reader would rebuild the shared index under the others
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(Duration::from_secs(5))
                .connect_lazy_with(options.clone())
        };
        Self { pool: pool(3), lists: pool(2), path: path.to_owned() }
    }

    /// Closes the connections; later reads fail.
    pub async fn close(&self) {
        self.pool.close().await;
        self.lists.close().await;
    }

    /// The database's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Names what was read when it could not be.
fn reading(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Read { what, source }
}

/// Stored JSON as it is; text that is no JSON becomes a JSON string, so that nothing is hidden.
fn json(text: Option<String>) -> Option<Box<RawValue>> {
    text.map(|text| {
        RawValue::from_string(text).unwrap_or_else(|_| {
            let shown = serde_json::to_string("unreadable JSON in the ledger").expect("a string serializes");
            RawValue::from_string(shown).expect("serde_json writes valid JSON")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{OpenOptions, open};

    /// Two endless searches must not stop the queue.
    #[tokio::test]
    async fn long_reads_do_not_keep_dispatch_waiting() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let boot = uuid::Uuid::nil().into();
        let ledger = open(OpenOptions::new(dir.path().join("ductile.db"), boot)).await.expect("opens");
        let readers = &ledger.readers;
        let held = [readers.lists.acquire().await, readers.lists.acquire().await];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(readers.counts().await.expect("at once"), Counts::default());
        assert!(readers.queued_plugins().await.expect("at once").is_empty());
        let filter = LogFilter { limit: 1, ..LogFilter::default() };
        let waited = tokio::time::timeout(Duration::from_millis(50), readers.job_log(&filter)).await;
        assert!(waited.is_err(), "a third long read waits for its turn");
        drop(held);
        assert_eq!(readers.job_log(&filter).await.expect("its turn").total, 0);
    }
}
