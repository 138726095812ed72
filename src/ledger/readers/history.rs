//! What was: transitions, attempts, the log, the stopwatch.

use ductile_domain::ids::JobId;
use serde::Serialize;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use super::{Page, RESULT_BUDGET, Readers, reading};
use crate::error::Error;

/// A row of `job_transitions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransitionRow {
    /// Ascends over all jobs.
    pub id: i64,
    /// The job.
    pub job_id: String,
    /// Plugin of the job; `None` when its row is pruned.
    pub plugin: Option<String>,
    /// Command of the job, likewise.
    pub command: Option<String>,
    /// Status before, `None` for the enqueue.
    pub from_status: Option<String>,
    /// Status after.
    pub to_status: String,
    /// Why.
    pub reason: Option<String>,
    /// Number of the attempt.
    pub attempt: Option<u32>,
    /// RFC 3339.
    pub created_at: String,
}

/// A row of `job_attempts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptRow {
    /// Number, from 1.
    pub attempt: u32,
    /// How it ended.
    pub status: String,
    /// The trouble's word.
    pub cause: Option<String>,
    /// Exit code, when the process exited.
    pub exit_code: Option<i32>,
    /// Signal that ended the process.
    pub signal: Option<i32>,
    /// The trouble.
    pub error: Option<String>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub completed_at: Option<String>,
    /// Configuration under which it ran.
    pub config_snapshot_id: Option<i64>,
    /// Processor time of its processes in milliseconds, as far as it is known.
    pub cpu_ms: Option<i64>,
    /// The most memory that they used at a time in bytes, as far as it is known.
    pub peak_memory: Option<i64>,
}

/// A row of `job_log`: one finished attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogRow {
    /// `<job id>-<attempt>`.
    #[serde(rename = "log_id")]
    pub id: String,
    /// The job.
    pub job_id: String,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// How the attempt ended.
    pub status: String,
    /// Number, from 1.
    pub attempt: u32,
    /// Kind of trigger.
    pub submitted_by: String,
    /// When the job was enqueued.
    pub created_at: String,
    /// When the attempt was claimed.
    pub started_at: Option<String>,
    /// When it ended.
    pub completed_at: String,
    /// The trouble.
    pub last_error: Option<String>,
    /// What the plugin printed on stdout.
    pub result: Option<String>,
    /// What the plugin printed on stderr.
    pub stderr: Option<String>,
    /// The job that caused this one.
    pub parent_job_id: Option<String>,
    /// The event that caused this one.
    pub source_event_id: Option<String>,
    /// The baggage of the hop.
    pub event_context_id: Option<String>,
    /// Configuration of the attempt.
    pub started_config_snapshot_id: Option<i64>,
    /// Bytes of `result`, which is left out once the results of a page exceed the budget of a read.
    pub result_bytes: Option<i64>,
    /// Who asked.
    pub requested_by: Option<String>,
}

/// A row of `job_stopwatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StopwatchRow {
    /// Number of the attempt.
    pub attempt: u32,
    /// Pipeline, when part of one.
    pub pipeline: Option<String>,
    /// Step, when part of one.
    pub step_id: Option<String>,
    /// Nanoseconds since the Unix epoch.
    pub enter_wall_ns: i64,
    /// Nanoseconds since the Unix epoch.
    pub exit_wall_ns: i64,
    /// From spawn to reap.
    pub dur_ns: i64,
    /// Gateway time before the spawn.
    pub runtime_pre_ns: i64,
    /// Gateway time after the reap.
    pub runtime_post_ns: i64,
    /// How the attempt ended.
    pub status: String,
    /// Sub-spans, a JSON array.
    pub subs_json: Option<String>,
}

/// Which attempts a log list shows; empty fields match everything.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// One job.
    pub job: Option<JobId>,
    /// Plugin or alias.
    pub plugin: Option<String>,
    /// Command.
    pub command: Option<String>,
    /// Status of the attempt; `queued` and `running` stand for the job's status now, `dead` for that of its end.
    pub status: Option<String>,
    /// Kind of trigger.
    pub submitted_by: Option<String>,
    /// Words each of which stands in `last_error`, `stderr` or `result`; ASCII letters match in either case.
    pub query: Option<String>,
    /// Completed at or after, RFC 3339 UTC with milliseconds.
    pub from: Option<String>,
    /// Completed before, likewise.
    pub to: Option<String>,
    /// True brings `stderr` along.
    pub with_output: bool,
    /// True brings `result` along, within the budget of a read.
    pub with_result: bool,
    /// Only what is listed after the attempt with that id: the next page. `total` counts them all the same.
    pub before: Option<String>,
    /// Rows of a page.
    pub limit: u32,
    /// Rows before the page.
    pub offset: u32,
}

fn transition(row: &SqliteRow) -> TransitionRow {
    TransitionRow {
        id: row.get(0),
        job_id: row.get(1),
        plugin: row.get(2),
        command: row.get(3),
        from_status: row.get(4),
        to_status: row.get(5),
        reason: row.get(6),
        attempt: row.get(7),
        created_at: row.get(8),
    }
}

impl Readers {
    /// All transitions of a job in their order.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn transitions(&self, job: JobId) -> Result<Vec<TransitionRow>, Error> {
        let rows = sqlx::query(
            "SELECT t.id, t.job_id, q.plugin, q.command, t.from_status, t.to_status, t.reason, t.attempt, t.created_at
             FROM job_transitions t LEFT JOIN job_queue q ON q.id = t.job_id WHERE t.job_id = ?1 ORDER BY t.id",
        )
        .bind(job.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(reading("transitions"))?;
        Ok(rows.iter().map(transition).collect())
    }

    /// The transitions of one or of all jobs after `id`, at most `limit`: a replay of the durable events.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn transitions_since(
        &self,
        id: i64,
        job: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<TransitionRow>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT t.id, t.job_id, q.plugin, q.command, t.from_status, t.to_status, t.reason, t.attempt, t.created_at
             FROM job_transitions t LEFT JOIN job_queue q ON q.id = t.job_id WHERE t.id > ",
        );
        query.push_bind(id);
        if let Some(job) = job {
            query.push(" AND t.job_id = ").push_bind(job.to_string());
        }
        query.push(" ORDER BY t.id LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("transitions"))?;
        Ok(rows.iter().map(transition).collect())
    }

    /// The oldest and the newest transition that the ledger holds; `None` when there is none.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn transition_bounds(&self) -> Result<Option<(i64, i64)>, Error> {
        let row = sqlx::query(
            "SELECT (SELECT min(id) FROM job_transitions) AS oldest, (SELECT max(id) FROM job_transitions)",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(reading("transitions"))?;
        Ok(row.get::<Option<i64>, _>(0).zip(row.get(1)))
    }

    /// The finished attempts of a job in their order.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRow>, Error> {
        let rows = sqlx::query(
            "SELECT attempt, status, cause, exit_code, signal, error, started_at, completed_at, config_snapshot_id,
                cpu_ms, peak_memory FROM job_attempts WHERE job_id = ?1 ORDER BY attempt",
        )
        .bind(job.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(reading("attempts"))?;
        Ok(rows
            .iter()
            .map(|row| AttemptRow {
                attempt: row.get(0),
                status: row.get(1),
                cause: row.get(2),
                exit_code: row.get(3),
                signal: row.get(4),
                error: row.get(5),
                started_at: row.get(6),
                completed_at: row.get(7),
                config_snapshot_id: row.get(8),
                cpu_ms: row.get(9),
                peak_memory: row.get(10),
            })
            .collect())
    }

    /// Where the time of a job's attempts went.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn stopwatch(&self, job: JobId) -> Result<Vec<StopwatchRow>, Error> {
        let rows = sqlx::query(
            "SELECT attempt, pipeline, step_id, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns,
                status, subs_json FROM job_stopwatch WHERE job_id = ?1 ORDER BY attempt, id",
        )
        .bind(job.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(reading("stopwatch"))?;
        Ok(rows
            .iter()
            .map(|row| StopwatchRow {
                attempt: row.get(0),
                pipeline: row.get(1),
                step_id: row.get(2),
                enter_wall_ns: row.get(3),
                exit_wall_ns: row.get(4),
                dur_ns: row.get(5),
                runtime_pre_ns: row.get(6),
                runtime_post_ns: row.get(7),
                status: row.get(8),
                subs_json: row.get(9),
            })
            .collect())
    }

    /// True when the log has an attempt with that id, `<job id>-<attempt>`.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn has_log(&self, id: &str) -> Result<bool, Error> {
        let found = sqlx::query("SELECT 1 FROM job_log WHERE id = ?1").bind(id).fetch_optional(&self.pool).await;
        Ok(found.map_err(reading("the job log"))?.is_some())
    }

    /// The finished attempts that match, the newest first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn job_log(&self, filter: &LogFilter) -> Result<Page<LogRow>, Error> {
        let mut count = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM job_log l WHERE true");
        conditions(&mut count, filter);
        let total: i64 = count.build().fetch_one(&self.lists).await.map_err(reading("the job log"))?.get(0);
        let mut query = QueryBuilder::<Sqlite>::new("WITH page AS (SELECT l.rowid AS row, l.completed_at AS at");
        query.push(if filter.with_result { ", octet_length(l.result) AS bytes" } else { ", NULL AS bytes" });
        query.push(" FROM job_log l WHERE true");
        conditions(&mut query, filter);
        if let Some(before) = &filter.before {
            query.push(" AND (l.completed_at, l.rowid) < (SELECT b.completed_at, b.rowid FROM job_log b WHERE b.id = ");
            query.push_bind(before.clone()).push(")");
        }
        query.push(" ORDER BY l.completed_at DESC, l.rowid DESC LIMIT ").push_bind(i64::from(filter.limit));
        query.push(" OFFSET ").push_bind(i64::from(filter.offset));
        // sizes are summed up first, so that results beyond the budget are never loaded
        query.push(
            "), summed AS (SELECT row, at, bytes, sum(bytes) OVER (ORDER BY at DESC, row DESC) AS so_far FROM page) \
             SELECT l.id, l.job_id, l.plugin, l.command, l.status, l.attempt, l.submitted_by, l.created_at, \
             l.started_at, l.completed_at, l.last_error, l.parent_job_id, l.source_event_id, l.event_context_id, \
             l.started_config_snapshot_id, l.requested_by, s.bytes, ",
        );
        query.push("iif(s.so_far <= ").push_bind(i64::from(RESULT_BUDGET)).push(", l.result, NULL)");
        query.push(if filter.with_output { ", l.stderr" } else { ", NULL" });
        query.push(" FROM summed s JOIN job_log l ON l.rowid = s.row ORDER BY s.at DESC, s.row DESC");
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("the job log"))?;
        let rows = rows
            .iter()
            .map(|row| LogRow {
                id: row.get(0),
                job_id: row.get(1),
                plugin: row.get(2),
                command: row.get(3),
                status: row.get(4),
                attempt: row.get(5),
                submitted_by: row.get(6),
                created_at: row.get(7),
                started_at: row.get(8),
                completed_at: row.get(9),
                last_error: row.get(10),
                parent_job_id: row.get(11),
                source_event_id: row.get(12),
                event_context_id: row.get(13),
                started_config_snapshot_id: row.get(14),
                requested_by: row.get(15),
                result_bytes: row.get(16),
                result: row.get(17),
                stderr: row.get(18),
            })
            .collect();
        Ok(Page { rows, total: u64::try_from(total).unwrap_or(0) })
    }
}

fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &LogFilter) {
    if let Some(job) = filter.job {
        // ids are `<job>-<attempt>`, so that the primary key finds a job's rows: `.` is the byte after `-`
        query.push(" AND l.id >= ").push_bind(format!("{job}-")).push(" AND l.id < ").push_bind(format!("{job}."));
    }
    let equal = [
        (" AND l.plugin = ", &filter.plugin),
        (" AND l.command = ", &filter.command),
        (" AND l.submitted_by = ", &filter.submitted_by),
        (" AND l.completed_at >= ", &filter.from),
        (" AND l.completed_at < ", &filter.to),
    ];
    for (sql, value) in equal {
        if let Some(value) = value {
            query.push(sql).push_bind(value.clone());
        }
    }
    match filter.status.as_deref() {
        None => {}
        Some("dead") => {
            // the row may be pruned, and its history need not be
            query.push(" AND l.job_id IN (SELECT t.job_id FROM job_transitions t WHERE t.to_status = 'dead')");
        }
        Some(status @ ("queued" | "running")) => {
            query.push(" AND l.job_id IN (SELECT q.id FROM job_queue q WHERE q.status = ");
            query.push_bind(status.to_owned()).push(")");
        }
        Some(status) => {
            query.push(" AND l.status = ").push_bind(status.to_owned());
        }
    }
    for word in filter.query.iter().flat_map(|text| text.split_whitespace()) {
        let pattern = containing(word);
        query.push(" AND (l.last_error LIKE ").push_bind(pattern.clone()).push(r" ESCAPE '\'");
        query.push(" OR l.stderr LIKE ").push_bind(pattern.clone()).push(r" ESCAPE '\'");
        query.push(" OR l.result LIKE ").push_bind(pattern).push(r" ESCAPE '\')");
    }
}

/// A pattern of `LIKE` for texts in which the word stands.
fn containing(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() + 2);
    pattern.push('%');
    for c in word.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
