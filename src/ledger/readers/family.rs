//! A job with everything that followed from it, and where its time went.

use ductile_domain::ids::JobId;
use ductile_domain::pipeline::Control;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{ContextRow, JobRow, Readers, reading};
use crate::error::Error;

/// Jobs of one family that are read; what is deeper is left out.
pub const FAMILY_LIMIT: u32 = 1_000;

/// Bytes of results that one read brings along; beyond them only their sizes are told.
pub const RESULT_BUDGET: u32 = 16 * 1024 * 1024;

/// One job of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyRow {
    /// The job.
    pub job_id: String,
    /// The job that caused it; for the root of the question it may stand outside the answer.
    pub parent_job_id: Option<String>,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// Stored status.
    pub status: String,
    /// Number of the present or last attempt, from 1.
    pub attempt: u32,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub completed_at: Option<String>,
    /// The last trouble.
    pub last_error: Option<String>,
    /// What the last attempt printed on stdout; `None` also when the budget was used up.
    pub result: Option<String>,
    /// Bytes of it.
    pub result_bytes: Option<i64>,
    /// Kind of trigger.
    pub submitted_by: String,
    /// Pipeline in which its step was written, when part of one.
    pub pipeline: Option<String>,
    /// That step.
    pub step_id: Option<String>,
    /// The baggage of its hop.
    pub event_context_id: Option<String>,
    /// Its node in the pipeline that was started.
    pub node: Option<String>,
    /// Names the run of that pipeline.
    pub pipeline_instance_id: Option<String>,
}

/// A job and its descendants, the root first, level by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// At most [`FAMILY_LIMIT`].
    pub jobs: Vec<FamilyRow>,
    /// True when descendants were left out.
    pub is_truncated: bool,
}

/// Where the time of a family's attempts went, in nanoseconds; wall times since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FamilyTiming {
    /// Attempts that left a record.
    pub attempts: i64,
    /// When the first began.
    pub enter_wall_ns: i64,
    /// When the last had ended.
    pub exit_wall_ns: i64,
    /// Between the two.
    pub wall_ns: i64,
    /// In plugins, summed up.
    pub dur_ns: i64,
    /// The rest: what the gateway and the waiting took. Negative when plugins ran side by side.
    pub gateway_ns: i64,
}

const FAMILY: &str = "WITH RECURSIVE family (id, depth) AS (
        SELECT ?1, 0
        UNION ALL
        SELECT q.id, f.depth + 1 FROM family f JOIN job_queue q ON q.parent_job_id = f.id
        LIMIT ?2)";

impl Readers {
    /// The job, from the log when its row is pruned, and the descendants whose rows and ancestors' rows are left; `None`
    /// when nothing is left of the job.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn family(&self, job: JobId) -> Result<Option<Family>, Error> {
        self.family_within(job, FAMILY_LIMIT, RESULT_BUDGET).await
    }

    /// The same with other bounds: jobs, and bytes of results.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn family_within(&self, job: JobId, limit: u32, budget: u32) -> Result<Option<Family>, Error> {
        // sizes are summed up first, so that results beyond the budget are never loaded
        let sql = format!(
            "{FAMILY},
             sized AS (
                SELECT f.depth, q.rowid AS row, l.id AS log, octet_length(l.result) AS bytes
                FROM family f JOIN job_queue q ON q.id = f.id LEFT JOIN job_log l
                    ON l.id = q.id || '-' || (SELECT max(a.attempt) FROM job_attempts a WHERE a.job_id = q.id)),
             summed AS (SELECT depth, row, log, bytes, sum(bytes) OVER (ORDER BY depth, row) AS so_far FROM sized)
             SELECT q.id, q.parent_job_id, q.plugin, q.command, q.status, q.attempt, q.created_at, q.started_at,
                q.completed_at, q.last_error,
                (SELECT l.result FROM job_log l WHERE l.id = s.log AND s.so_far <= ?3), s.bytes, q.submitted_by,
                c.pipeline_name, c.step_id, q.event_context_id, json_extract(c.accumulated_json, '$.ductile.node'),
                json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id')
             FROM summed s JOIN job_queue q ON q.rowid = s.row LEFT JOIN event_context c ON c.id = q.event_context_id
             ORDER BY s.depth, s.row"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(job.to_string())
            .bind(i64::from(limit) + 1)
            .bind(i64::from(budget))
            .fetch_all(&self.lists)
            .await
            .map_err(reading("a job's family"))?;
        let mut jobs: Vec<_> = rows.iter().map(family_row).collect();
        if jobs.first().is_none_or(|first| first.job_id != job.to_string()) {
            let Some(root) = self.pruned_job(job).await? else { return Ok(None) };
            let context = match root.event_context_id.as_deref().and_then(|id| id.parse().ok()) {
                Some(id) => self.context(id).await?,
                None => None,
            };
            jobs.insert(0, pruned_root(root, context));
        }
        let is_truncated = jobs.len() > limit as usize;
        jobs.truncate(limit as usize);
        Ok(Some(Family { jobs, is_truncated }))
    }

    /// Where the time of the job and its descendants went; `None` when no attempt has left a record.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn family_timing(&self, job: JobId) -> Result<Option<FamilyTiming>, Error> {
        let sql = format!(
            "{FAMILY} SELECT count(*), min(s.enter_wall_ns), max(s.exit_wall_ns), sum(s.dur_ns)
             FROM family f JOIN job_stopwatch s ON s.job_id = f.id"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(job.to_string())
            .bind(i64::from(FAMILY_LIMIT))
            .fetch_one(&self.lists)
            .await
            .map_err(reading("a job's times"))?;
        let (Some(enter), Some(exit), Some(dur)) =
            (row.get::<Option<i64>, _>(1), row.get::<Option<i64>, _>(2), row.get::<Option<i64>, _>(3))
        else {
            return Ok(None);
        };
        let wall = exit.saturating_sub(enter);
        Ok(Some(FamilyTiming {
            attempts: row.get(0),
            enter_wall_ns: enter,
            exit_wall_ns: exit,
            wall_ns: wall,
            dur_ns: dur,
            gateway_ns: wall.saturating_sub(dur),
        }))
    }
}

fn family_row(row: &SqliteRow) -> FamilyRow {
    FamilyRow {
        job_id: row.get(0),
        parent_job_id: row.get(1),
        plugin: row.get(2),
        command: row.get(3),
        status: row.get(4),
        attempt: row.get(5),
        created_at: row.get(6),
        started_at: row.get(7),
        completed_at: row.get(8),
        last_error: row.get(9),
        result: row.get(10),
        result_bytes: row.get(11),
        submitted_by: row.get(12),
        pipeline: row.get(13),
        step_id: row.get(14),
        event_context_id: row.get(15),
        node: row.get(16),
        pipeline_instance_id: row.get(17),
    }
}

fn pruned_root(row: JobRow, context: Option<ContextRow>) -> FamilyRow {
    let control = context.as_ref().and_then(|context| Control::of(context.accumulated.as_ref()?)).unwrap_or_default();
    let (pipeline, step_id) = context.map_or((None, None), |context| (context.pipeline, context.step_id));
    FamilyRow {
        job_id: row.id,
        parent_job_id: row.parent_job_id,
        plugin: row.plugin,
        command: row.command,
        status: row.status,
        attempt: row.attempt,
        created_at: row.created_at,
        started_at: row.started_at,
        completed_at: row.completed_at,
        last_error: row.last_error,
        result_bytes: row.result.as_ref().and_then(|result| i64::try_from(result.len()).ok()),
        result: row.result,
        submitted_by: row.submitted_by,
        pipeline,
        step_id,
        event_context_id: row.event_context_id,
        node: control.node.map(|node| node.to_string()),
        pipeline_instance_id: control.instance.map(|instance| instance.to_string()),
    }
}
