//! What pipelines leave behind: contexts and their lineage, joins, how far a run has come, when a pipeline last ran.

use ductile_domain::ids::{ContextId, JobId};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{RESULT_BUDGET, Readers, json, reading};
use crate::error::Error;

/// Rows of a lineage that are read; what is further from the job is left out.
pub const LINEAGE_LIMIT: u32 = 1_000;

/// A row of `event_context`.
#[derive(Debug, Clone, Serialize)]
pub struct ContextRow {
    /// Its id.
    pub id: String,
    /// The row that it accretes to.
    pub parent_id: Option<String>,
    /// Pipeline in which the step was written; `None` for a plain route.
    pub pipeline: Option<String>,
    /// Step that it was made for.
    pub step_id: Option<String>,
    /// The accumulated baggage with the control keys under `ductile`; `None` when the budget of the read was used up.
    pub accumulated: Option<Box<RawValue>>,
    /// Bytes of it.
    pub accumulated_bytes: i64,
    /// RFC 3339.
    pub created_at: String,
}

/// How far a run has come: its jobs with all that followed from them, but for what hooks started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows in `queued`.
    pub queued: u64,
    /// Rows in `running`.
    pub running: u64,
    /// Rows in `succeeded`.
    pub succeeded: u64,
    /// Rows in `skipped`.
    pub skipped: u64,
    /// Rows in `failed`.
    pub failed: u64,
    /// Rows in `dead`.
    pub dead: u64,
    /// The job that ended last.
    pub last: Option<String>,
}

impl Progress {
    /// True when every job has ended; successors are committed before their job ends, so that nothing more can follow.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.queued + self.running == 0
    }

    /// How many jobs there are.
    #[must_use]
    pub const fn jobs(&self) -> u64 {
        self.queued + self.running + self.succeeded + self.skipped + self.failed + self.dead
    }
}

/// A join with its branches in authored order.
#[derive(Debug, Clone, Serialize)]
pub struct JoinRow {
    /// Its id.
    pub id: String,
    /// The join that waits for it.
    pub outer_id: Option<String>,
    /// As which of its branches.
    pub outer_branch: Option<u32>,
    /// Jobs in its branches that have not ended, and joins nested in them that have not fired.
    pub open: i64,
    /// RFC 3339.
    pub created_at: String,
    /// When it fired, RFC 3339.
    pub fired_at: Option<String>,
    /// The `core.join` job that followed.
    pub fired_job_id: Option<String>,
    /// In authored order.
    pub branches: Vec<BranchRow>,
}

/// What a branch has brought to its join so far.
#[derive(Debug, Clone, Serialize)]
pub struct BranchRow {
    /// From 0.
    pub branch: u32,
    /// Its first step.
    pub step: String,
    /// `open`, `succeeded` or `failed`; it may fail before all of its jobs have ended.
    pub status: String,
    /// What its last job brought.
    pub payload: Option<Box<RawValue>>,
    /// Why it failed.
    pub error: Option<String>,
    /// The job that failed, or the last that reached the join.
    pub job_id: Option<String>,
}

/// When a pipeline was last at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PipelineActivity {
    /// The pipeline in which the steps were written.
    pub pipeline: String,
    /// Its newest job.
    pub last_job_id: String,
    /// Stored status of that job.
    pub last_status: String,
    /// When that job was enqueued, RFC 3339.
    pub last_at: String,
}

impl Readers {
    /// One row of `event_context`.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn context(&self, id: ContextId) -> Result<Option<ContextRow>, Error> {
        let row = sqlx::query(
            "SELECT id, parent_id, pipeline_name, step_id, accumulated_json, octet_length(accumulated_json), created_at
             FROM event_context WHERE id = ?1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(reading("a context"))?;
        Ok(row.as_ref().map(context_row))
    }

    /// The row and those that it accretes to, the nearest first, at most [`LINEAGE_LIMIT`].
    ///
    /// # Errors
    /// When the read failed.
    pub async fn lineage(&self, id: ContextId) -> Result<Vec<ContextRow>, Error> {
        // sizes are summed up first, so that baggage beyond the budget is never loaded
        let rows = sqlx::query(
            "WITH RECURSIVE line (id, parent_id, hops) AS (
                SELECT id, parent_id, 0 FROM event_context WHERE id = ?1
                UNION ALL
                SELECT c.id, c.parent_id, l.hops + 1 FROM line l JOIN event_context c ON c.id = l.parent_id
                LIMIT ?2),
             summed AS (SELECT l.id, l.hops, octet_length(c.accumulated_json) AS bytes,
                    sum(octet_length(c.accumulated_json)) OVER (ORDER BY l.hops) AS so_far
                FROM line l JOIN event_context c ON c.id = l.id)
             SELECT c.id, c.parent_id, c.pipeline_name, c.step_id,
                (SELECT x.accumulated_json FROM event_context x WHERE x.id = s.id AND s.so_far <= ?3), s.bytes, c.created_at
             FROM summed s JOIN event_context c ON c.id = s.id ORDER BY s.hops",
        )
        .bind(id.to_string())
        .bind(i64::from(LINEAGE_LIMIT))
        .bind(i64::from(RESULT_BUDGET))
        .fetch_all(&self.lists)
        .await
        .map_err(reading("a context's lineage"))?;
        Ok(rows.iter().map(context_row).collect())
    }

    /// How far a run has come that began with these jobs. Jobs that hooks started do not belong to it.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn progress(&self, roots: &[JobId]) -> Result<Progress, Error> {
        let roots = serde_json::to_string(roots).expect("ids serialize into memory");
        let row = sqlx::query(
            "WITH RECURSIVE run (id) AS (
                SELECT value FROM json_each(?1)
                UNION ALL
                SELECT q.id FROM run r JOIN job_queue q ON q.parent_job_id = r.id AND q.submitted_by <> 'hook')
             SELECT count(*) FILTER (WHERE q.status = 'queued'), count(*) FILTER (WHERE q.status = 'running'),
                count(*) FILTER (WHERE q.status = 'succeeded'), count(*) FILTER (WHERE q.status = 'skipped'),
                count(*) FILTER (WHERE q.status = 'failed'), count(*) FILTER (WHERE q.status = 'dead'),
                -- times have milliseconds only; of two that ended in the same one the younger was last
                max(q.completed_at || '/' || printf('%019d', q.rowid) || '/' || q.id)
             FROM run r JOIN job_queue q ON q.id = r.id",
        )
        .bind(roots)
        .fetch_one(&self.pool)
        .await
        .map_err(reading("the progress of a run"))?;
        let count = |column: usize| u64::try_from(row.get::<i64, _>(column)).unwrap_or(0);
        let last = row.get::<Option<String>, _>(6).and_then(|key| Some(key.rsplit_once('/')?.1.to_owned()));
        Ok(Progress {
            queued: count(0),
            running: count(1),
            succeeded: count(2),
            skipped: count(3),
            failed: count(4),
            dead: count(5),
            last,
        })
    }

    /// The join that waits for the job, or that the job followed.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn join_of(&self, job: JobId) -> Result<Option<JoinRow>, Error> {
        // a join's job names its join as its event, and may itself sit in a branch of an outer one
        let found = sqlx::query(
            "SELECT j.id, j.outer_id, j.outer_branch, j.open, j.created_at, j.fired_at, j.fired_job_id
             FROM job_queue q JOIN pipeline_joins j ON j.id = iif(q.plugin = 'core.join', q.source_event_id, q.join_id)
             WHERE q.id = ?1",
        )
        .bind(job.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(reading("a join"))?;
        let Some(row) = found else { return Ok(None) };
        let id: String = row.get(0);
        let branches = sqlx::query(
            "SELECT branch, step, status, payload, error, job_id FROM pipeline_join_branches WHERE join_id = ?1
             ORDER BY branch",
        )
        .bind(&id)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("a join's branches"))?;
        Ok(Some(JoinRow {
            id,
            outer_id: row.get(1),
            outer_branch: row.get(2),
            open: row.get(3),
            created_at: row.get(4),
            fired_at: row.get(5),
            fired_job_id: row.get(6),
            branches: branches.iter().map(branch_row).collect(),
        }))
    }

    /// When each pipeline was last at work, by name; those that never were, or not for as long as rows are kept, are
    /// missing.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn pipeline_activity(&self) -> Result<Vec<PipelineActivity>, Error> {
        // one step of the index for each name, not one for each row
        let rows = sqlx::query(
            "WITH RECURSIVE names (name) AS (
                SELECT min(pipeline_name) FROM event_context WHERE pipeline_name IS NOT NULL
                UNION ALL
                SELECT (SELECT min(c.pipeline_name) FROM event_context c WHERE c.pipeline_name > n.name)
                FROM names n WHERE n.name IS NOT NULL),
             -- contexts outlive their jobs: when the newest have none any more, neither have those before them
             last (name, row) AS (SELECT n.name, (SELECT q.rowid FROM (SELECT id FROM event_context
                        WHERE pipeline_name = n.name ORDER BY created_at DESC, rowid DESC LIMIT 100) c
                    CROSS JOIN job_queue q ON q.event_context_id = c.id LIMIT 1)
                FROM names n WHERE n.name IS NOT NULL)
             SELECT l.name, q.id, q.status, q.created_at FROM last l JOIN job_queue q ON q.rowid = l.row ORDER BY l.name",
        )
        .fetch_all(&self.lists)
        .await
        .map_err(reading("the pipelines' activity"))?;
        Ok(rows
            .iter()
            .map(|row| PipelineActivity {
                pipeline: row.get(0),
                last_job_id: row.get(1),
                last_status: row.get(2),
                last_at: row.get(3),
            })
            .collect())
    }
}

fn context_row(row: &SqliteRow) -> ContextRow {
    ContextRow {
        id: row.get(0),
        parent_id: row.get(1),
        pipeline: row.get(2),
        step_id: row.get(3),
        accumulated: json(row.get(4)),
        accumulated_bytes: row.get(5),
        created_at: row.get(6),
    }
}

fn branch_row(row: &SqliteRow) -> BranchRow {
    BranchRow {
        branch: row.get(0),
        step: row.get(1),
        status: row.get(2),
        payload: json(row.get(3)),
        error: row.get(4),
        job_id: row.get(5),
    }
}
