//! What waits and what runs: the reads behind dispatch and health.

use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, JobStatus};
use ductile_domain::time::{self, Timestamp};
use serde::Serialize;
use sqlx::Row as _;

use super::{Readers, reading};
use crate::error::Error;
use crate::ops::candidate;

/// How many jobs wait and run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows in `queued`.
    pub queued: u64,
    /// Rows in `running`.
    pub running: u64,
}

/// The same per plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginCounts {
    /// Plugin or alias.
    pub plugin: String,
    /// Rows in `queued`.
    pub queued: u64,
    /// Rows in `running`.
    pub running: u64,
}

/// A plugin with queued jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueuedPlugin {
    /// Plugin or alias.
    pub plugin: String,
    /// Its oldest queued row.
    pub first_row: i64,
}

/// A row in `running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningRow {
    /// The job.
    pub job_id: String,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Attempts in total.
    pub max_attempts: u32,
    /// Number of the claim.
    pub claim_no: i64,
    /// The start of the gateway that owns it.
    pub boot_id: Option<String>,
    /// Its process, once recorded.
    pub pid: Option<i32>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// True when its end is asked for.
    pub is_cancel_requested: bool,
    /// Why.
    #[serde(skip)]
    pub cancel_reason: Option<String>,
}

impl Readers {
    /// How many jobs wait and run.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn counts(&self) -> Result<Counts, Error> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM job_queue WHERE status = 'queued'),
                (SELECT count(*) FROM job_queue WHERE status = 'running')",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(reading("the counts"))?;
        Ok(Counts { queued: unsigned(row.get(0)), running: unsigned(row.get(1)) })
    }

    /// How many jobs of each plugin wait and run.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn counts_by_plugin(&self) -> Result<Vec<PluginCounts>, Error> {
        let rows = sqlx::query(
            "SELECT plugin, sum(queued), sum(running) FROM (
                SELECT plugin, count(*) AS queued, 0 AS running FROM job_queue WHERE status = 'queued' GROUP BY plugin
                UNION ALL
                SELECT plugin, 0, count(*) FROM job_queue WHERE status = 'running' GROUP BY plugin)
             GROUP BY plugin ORDER BY plugin",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the counts"))?;
        Ok(rows
            .iter()
            .map(|r| PluginCounts { plugin: r.get(0), queued: unsigned(r.get(1)), running: unsigned(r.get(2)) })
            .collect())
    }

    /// The plugins with queued jobs, however many jobs there are.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn queued_plugins(&self) -> Result<Vec<QueuedPlugin>, Error> {
        // hops from plugin to plugin in the index: DISTINCT would walk over every queued row
        let rows = sqlx::query(
            "WITH RECURSIVE names (plugin) AS (
                SELECT min(plugin) FROM job_queue WHERE status = 'queued'
                UNION ALL
                SELECT (SELECT min(q.plugin) FROM job_queue q WHERE q.status = 'queued' AND q.plugin > names.plugin)
                FROM names WHERE names.plugin IS NOT NULL)
             SELECT plugin, (SELECT min(q.rowid) FROM job_queue q WHERE q.status = 'queued' AND q.plugin = names.plugin)
             FROM names WHERE plugin IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the queued plugins"))?;
        Ok(rows.iter().map(|r| QueuedPlugin { plugin: r.get(0), first_row: r.get(1) }).collect())
    }

    /// The queued jobs of a plugin after row `after`, the oldest first, at most `limit`; 0 begins at the front.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn candidates(&self, plugin: &str, after: i64, limit: u32) -> Result<Vec<Candidate>, Error> {
        let rows = sqlx::query(
            "SELECT rowid, id, next_retry_at FROM job_queue
             WHERE status = 'queued' AND plugin = ?1 AND rowid > ?2 ORDER BY rowid LIMIT ?3",
        )
        .bind(plugin)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the candidates"))?;
        Ok(rows
            .iter()
            .filter_map(|r| {
                let due = r.get::<Option<String>, _>(2).as_deref().and_then(time::parse);
                // an id that is no UUID was not written by us
                Some(candidate(r.get(0), r.get::<String, _>(1).parse().ok()?, plugin, due))
            })
            .collect())
    }

    /// When the next job that waits for its retry falls due, if any.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query("SELECT min(next_retry_at) FROM job_queue WHERE next_retry_at IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .map_err(reading("the next retry"))?;
        Ok(row.get::<Option<String>, _>(0).as_deref().and_then(time::parse))
    }

    /// The queued jobs whose retry time is at or before `until`, the earliest first, at most `limit`.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn due(&self, until: Timestamp, limit: u32) -> Result<Vec<Candidate>, Error> {
        let rows = sqlx::query(
            "SELECT rowid, id, plugin, next_retry_at FROM job_queue
             WHERE next_retry_at IS NOT NULL AND next_retry_at <= ?1 AND +status = 'queued'
             ORDER BY next_retry_at, rowid LIMIT ?2",
        )
        .bind(time::format(until))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the due jobs"))?;
        Ok(rows
            .iter()
            .filter_map(|r| {
                let due = r.get::<Option<String>, _>(3).as_deref().and_then(time::parse);
                Some(candidate(r.get(0), r.get::<String, _>(1).parse().ok()?, &r.get::<String, _>(2), due))
            })
            .collect())
    }

    /// The status of a job; `None` when there is no such row.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn status(&self, job: JobId) -> Result<Option<JobStatus>, Error> {
        let row = sqlx::query("SELECT status FROM job_queue WHERE id = ?1")
            .bind(job.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(reading("a job's status"))?;
        Ok(row.and_then(|row| row.get::<String, _>(0).parse().ok()))
    }

    /// How many breakers are open, of the plugins that are in force: one that was removed leaves its rows behind.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn open_breakers(&self, is_in_force: impl Fn(&str) -> bool) -> Result<u64, Error> {
        let rows = sqlx::query("SELECT plugin FROM circuit_breakers WHERE state = 'open'")
            .fetch_all(&self.pool)
            .await
            .map_err(reading("the breakers"))?;
        Ok(rows.iter().filter(|row| is_in_force(row.get(0))).count() as u64)
    }

    /// Every row in `running`.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn running(&self) -> Result<Vec<RunningRow>, Error> {
        let rows = sqlx::query(
            "SELECT id, plugin, command, attempt, max_attempts, claim_no, boot_id, pid, started_at,
                    cancel_requested_at IS NOT NULL, cancel_reason
             FROM job_queue WHERE status = 'running' ORDER BY rowid",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the running jobs"))?;
        Ok(rows
            .iter()
            .map(|r| RunningRow {
                job_id: r.get(0),
                plugin: r.get(1),
                command: r.get(2),
                attempt: r.get(3),
                max_attempts: r.get(4),
                claim_no: r.get(5),
                boot_id: r.get(6),
                pid: r.get(7),
                started_at: r.get(8),
                is_cancel_requested: r.get(9),
                cancel_reason: r.get(10),
            })
            .collect())
    }
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
