//! Numbers over many jobs: how they ended lately, how long plugins take, what waits.

use ductile_domain::time::{self, Timestamp};
use serde::Serialize;
use sqlx::sqlite::Sqlite;
use sqlx::{QueryBuilder, Row as _};

use super::{Readers, reading};
use crate::error::Error;

/// Newest attempts of a plugin over which percentiles are computed.
pub const STOPWATCH_LIMIT: u32 = 10_000;

/// How many jobs ended in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCount {
    /// Stored status.
    pub status: String,
    /// Jobs.
    pub count: u64,
}

/// What waits beside the counts per plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Queued jobs that wait for the time of their retry.
    pub awaiting_retry: u64,
    /// When the oldest queued job was enqueued, RFC 3339.
    pub oldest_queued_at: Option<String>,
}

impl Readers {
    /// How many jobs of `job_queue` ended at or after `since`, by status.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn ended_since(&self, since: Timestamp) -> Result<Vec<StatusCount>, Error> {
        let rows = sqlx::query(
            "SELECT status, count(*) FROM job_queue
             WHERE status IN ('succeeded', 'skipped', 'failed', 'dead') AND completed_at >= ?1
             GROUP BY status ORDER BY status",
        )
        .bind(time::format(since))
        .fetch_all(&self.lists)
        .await
        .map_err(reading("how jobs ended"))?;
        Ok(rows
            .iter()
            .map(|r| StatusCount { status: r.get(0), count: u64::try_from(r.get::<i64, _>(1)).unwrap_or(0) })
            .collect())
    }

    /// What waits, beside [`Self::counts_by_plugin`]; a retry that is due at or before `now` waits for a worker only.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn waiting(&self, now: Timestamp) -> Result<Waiting, Error> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM job_queue WHERE next_retry_at > ?1 AND +status = 'queued'),
                (SELECT min(created_at) FROM job_queue WHERE status = 'queued')",
        )
        .bind(time::format(now))
        .fetch_one(&self.lists)
        .await
        .map_err(reading("what waits"))?;
        let awaiting: i64 = row.get(0);
        Ok(Waiting { awaiting_retry: u64::try_from(awaiting).unwrap_or(0), oldest_queued_at: row.get(1) })
    }

    /// How long the plugin's newest attempts took from spawn to reap, in nanoseconds, the newest first: at most
    /// [`STOPWATCH_LIMIT`], of one command and completed at or after `since` when those are given.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn durations(
        &self,
        plugin: &str,
        command: Option<&str>,
        since: Option<Timestamp>,
    ) -> Result<Vec<i64>, Error> {
        // records have no index by plugin; the log has one by plugin and time
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT s.dur_ns FROM job_log l INDEXED BY job_log_plugin_completed_idx
             CROSS JOIN job_stopwatch s ON s.job_id = l.job_id AND s.attempt = l.attempt WHERE l.plugin = ",
        );
        query.push_bind(plugin.to_owned());
        if let Some(command) = command {
            query.push(" AND l.command = ").push_bind(command.to_owned());
        }
        if let Some(since) = since {
            query.push(" AND l.completed_at >= ").push_bind(time::format(since));
        }
        query.push(" ORDER BY l.completed_at DESC, l.rowid DESC LIMIT ").push_bind(i64::from(STOPWATCH_LIMIT));
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("the stopwatch"))?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }
}
