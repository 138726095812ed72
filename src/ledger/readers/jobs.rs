//! `job_queue` as the doors show it.

use ductile_domain::ids::JobId;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use super::{Page, Readers, json, reading};
use crate::error::Error;

/// A row of `job_queue`; times are RFC 3339.
#[derive(Debug, Clone, Serialize)]
pub struct JobRow {
    /// Position in the FIFO.
    #[serde(skip)]
    pub row: i64,
    /// The job's id.
    #[serde(rename = "job_id")]
    pub id: String,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Input; `None` when the trigger sent none.
    pub payload: Option<Box<RawValue>>,
    /// Stored status.
    pub status: String,
    /// Number of the present or last attempt, from 1.
    pub attempt: u32,
    /// Attempts in total.
    pub max_attempts: u32,
    /// Kind of trigger.
    pub submitted_by: String,
    /// Who asked.
    pub requested_by: Option<String>,
    /// Key under which duplicates are found.
    pub dedupe_key: Option<String>,
    /// When it was enqueued.
    pub created_at: String,
    /// When the present or last attempt was claimed; null while queued.
    pub started_at: Option<String>,
    /// When it became terminal.
    pub completed_at: Option<String>,
    /// When the next attempt may start.
    pub next_retry_at: Option<String>,
    /// The last trouble.
    pub last_error: Option<String>,
    /// The job that caused this one.
    pub parent_job_id: Option<String>,
    /// The event that caused this one.
    pub source_event_id: Option<String>,
    /// The baggage of the hop.
    pub event_context_id: Option<String>,
    /// Configuration at the enqueue.
    pub enqueued_config_snapshot_id: Option<i64>,
    /// Configuration of the present or last attempt.
    pub started_config_snapshot_id: Option<i64>,
    /// Whether the job's end is asked for.
    pub cancel_requested_at: Option<String>,
    /// Stdout of the last attempt, from `job_log`; only where one job is read.
    #[serde(skip)]
    pub result: Option<String>,
    /// Stderr of the last attempt, likewise.
    #[serde(skip)]
    pub stderr: Option<String>,
    /// True when the row itself is pruned and this is what the log still says; it then knows neither `max_attempts`,
    /// which is `attempt`, nor the dedupe key.
    #[serde(skip)]
    pub is_pruned: bool,
}

const COLUMNS: &str = "q.rowid, q.id, q.plugin, q.command, q.payload, q.status, q.attempt, q.max_attempts, \
    q.submitted_by, q.requested_by, q.dedupe_key, q.created_at, q.started_at, q.completed_at, q.next_retry_at, \
    q.last_error, q.parent_job_id, q.source_event_id, q.event_context_id, q.enqueued_config_snapshot_id, \
    q.started_config_snapshot_id, q.cancel_requested_at";

fn job_row(row: &SqliteRow) -> JobRow {
    JobRow {
        row: row.get(0),
        id: row.get(1),
        plugin: row.get(2),
        command: row.get(3),
        payload: json(row.get(4)),
        status: row.get(5),
        attempt: row.get(6),
        max_attempts: row.get(7),
        submitted_by: row.get(8),
        requested_by: row.get(9),
        dedupe_key: row.get(10),
        created_at: row.get(11),
        started_at: row.get(12),
        completed_at: row.get(13),
        next_retry_at: row.get(14),
        last_error: row.get(15),
        parent_job_id: row.get(16),
        source_event_id: row.get(17),
        event_context_id: row.get(18),
        enqueued_config_snapshot_id: row.get(19),
        started_config_snapshot_id: row.get(20),
        cancel_requested_at: row.get(21),
        result: None,
        stderr: None,
        is_pruned: false,
    }
}

/// A status of attempts only.
const TIMED_OUT: &str = "timed_out";

/// Which jobs a list shows; empty fields match everything.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Stored statuses; `timed_out` stands for ended jobs whose last attempt timed out.
    pub statuses: Vec<String>,
    /// Plugin or alias.
    pub plugin: Option<String>,
    /// Command.
    pub command: Option<String>,
    /// Kind of trigger.
    pub submitted_by: Option<String>,
    /// Children of that job.
    pub parent: Option<JobId>,
    /// Created at or after, RFC 3339 UTC with milliseconds.
    pub from: Option<String>,
    /// Created before, likewise.
    pub to: Option<String>,
    /// Only jobs that were enqueued before that one: the next page of a list. `total` counts them all the same.
    pub before: Option<JobId>,
    /// Rows of a page.
    pub limit: u32,
    /// Rows before the page.
    pub offset: u32,
}

impl Readers {
    /// One job with the output of its last attempt, from the log when its row is pruned; `None` when neither is left.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRow>, Error> {
        let row = sqlx::query(
            "SELECT q.rowid, q.id, q.plugin, q.command, q.payload, q.status, q.attempt, q.max_attempts,
                q.submitted_by, q.requested_by, q.dedupe_key, q.created_at, q.started_at, q.completed_at,
                q.next_retry_at, q.last_error, q.parent_job_id, q.source_event_id, q.event_context_id,
                q.enqueued_config_snapshot_id, q.started_config_snapshot_id, q.cancel_requested_at,
                l.result, l.stderr
             FROM job_queue q LEFT JOIN job_log l
                ON l.id = q.id || '-' || (SELECT max(a.attempt) FROM job_attempts a WHERE a.job_id = q.id)
             WHERE q.id = ?1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(reading("job"))?;
        match row {
            Some(row) => Ok(Some(JobRow { result: row.get(22), stderr: row.get(23), ..job_row(&row) })),
            None => self.pruned_job(id).await,
        }
    }

    /// A job of which only the log is left. Only the rows of ended jobs are pruned, so its last transition says how it
    /// ended; without that the last attempt does.
    pub(super) async fn pruned_job(&self, id: JobId) -> Result<Option<JobRow>, Error> {
        let row = sqlx::query(
            "SELECT 0, l.job_id, l.plugin, l.command, l.payload,
                coalesce((SELECT t.to_status FROM job_transitions t WHERE t.job_id = l.job_id ORDER BY t.id DESC LIMIT 1),
                    iif(l.status = 'timed_out', 'dead', l.status)),
                l.attempt, l.attempt, l.submitted_by, l.requested_by, NULL, l.created_at, l.started_at, l.completed_at,
                NULL, l.last_error, l.parent_job_id, l.source_event_id, l.event_context_id,
                l.enqueued_config_snapshot_id, l.started_config_snapshot_id, NULL, l.result, l.stderr
             FROM job_log l WHERE l.id >= ?1 || '-' AND l.id < ?1 || '.' ORDER BY l.attempt DESC LIMIT 1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(reading("job"))?;
        Ok(row.map(|row| JobRow { result: row.get(22), stderr: row.get(23), is_pruned: true, ..job_row(&row) }))
    }

    /// The jobs that match, the newest first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Page<JobRow>, Error> {
        let mut count = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM job_queue q WHERE true");
        conditions(&mut count, filter);
        let total: i64 = count.build().fetch_one(&self.lists).await.map_err(reading("jobs"))?.get(0);
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS).push(" FROM job_queue q WHERE true");
        conditions(&mut query, filter);
        if let Some(before) = filter.before {
            query.push(" AND q.rowid < (SELECT b.rowid FROM job_queue b WHERE b.id = ");
            query.push_bind(before.to_string()).push(")");
        }
        query.push(" ORDER BY q.rowid DESC LIMIT ").push_bind(i64::from(filter.limit));
        query.push(" OFFSET ").push_bind(i64::from(filter.offset));
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("jobs"))?;
        Ok(Page { rows: rows.iter().map(job_row).collect(), total: u64::try_from(total).unwrap_or(0) })
    }
}

fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &JobFilter) {
    if !filter.statuses.is_empty() {
        let mut list = query.push(" AND (q.status IN (").separated(", ");
        for status in &filter.statuses {
            list.push_bind(status.clone());
        }
        query.push(")");
        if filter.statuses.iter().any(|status| status == TIMED_OUT) {
            query.push(
                " OR q.status IN ('failed', 'dead') AND 'timed_out' = (SELECT a.status FROM job_attempts a \
                 WHERE a.job_id = q.id ORDER BY a.attempt DESC LIMIT 1)",
            );
        }
        query.push(")");
    }
    let equal = [
        (" AND q.plugin = ", filter.plugin.clone()),
        (" AND q.command = ", filter.command.clone()),
        (" AND q.submitted_by = ", filter.submitted_by.clone()),
        (" AND q.parent_job_id = ", filter.parent.map(|p| p.to_string())),
        (" AND q.created_at >= ", filter.from.clone()),
        (" AND q.created_at < ", filter.to.clone()),
    ];
    for (sql, value) in equal {
        if let Some(value) = value {
            query.push(sql).push_bind(value);
        }
    }
}
