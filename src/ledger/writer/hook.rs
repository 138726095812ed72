//! Hooks: what the end of a job starts by the pipelines in force, committed with that end.

use std::sync::Arc;

use ductile_domain::ids::JobId;
use ductile_domain::job::{JobStatus, Seat};
use ductile_domain::outcome::AttemptStatus;
use ductile_domain::pipeline::{Ended, Pipelines};
use ductile_domain::time;
use rusqlite::{OptionalExtension as _, Row};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::context::Waiting;
use super::transaction::Transaction;

/// Only for jobs that nobody caused, and for those that a hook did.
const READ: &str = "SELECT q.parent_job_id, q.submitted_by, a.attempt, a.status, a.started_at, a.completed_at,
        (SELECT c.accumulated_json FROM event_context c WHERE c.id = q.event_context_id)
    FROM job_queue q LEFT JOIN job_attempts a ON a.job_id = q.id
    WHERE q.id = ?1 AND (q.parent_job_id IS NULL OR q.submitted_by = 'hook')
    ORDER BY a.attempt DESC LIMIT 1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[READ];

/// A job that has just become terminal.
pub(super) struct Gone<'a> {
    pub(super) job: JobId,
    pub(super) plugin: &'a str,
    pub(super) command: &'a str,
    pub(super) seat: Option<Seat>,
    pub(super) status: JobStatus,
    pub(super) error: Option<&'a str>,
}

/// What else a hook is told.
struct Told {
    parent: Option<JobId>,
    submitted_by: String,
    attempt: Option<u32>,
    last_attempt: Option<String>,
    duration_ms: i64,
    context: Option<Box<RawValue>>,
}

impl Told {
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let at = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?.and_then(time::parse));
        let took = at(4)?.zip(at(5)?).map_or(0, |(start, end)| (end - start).num_milliseconds());
        Ok(Self {
            parent: row.get_ref(0)?.as_str_or_null()?.and_then(|id| id.parse().ok()),
            submitted_by: row.get(1)?,
            attempt: row.get(2)?,
            last_attempt: row.get(3)?,
            duration_ms: took.max(0),
            context: row.get::<_, Option<String>>(6)?.and_then(|text| RawValue::from_string(text).ok()),
        })
    }
}

/// The status that a stored word stands for.
fn attempt_status(word: &str) -> Option<AttemptStatus> {
    use AttemptStatus::{Failed, Skipped, Succeeded, TimedOut};
    [Succeeded, Failed, TimedOut, Skipped].into_iter().find(|status| status.as_str() == word)
}

impl Transaction<'_> {
    /// Everything that the end of a job changes about others; settled with the operation.
    pub(super) fn gone(&mut self, gone: &Gone<'_>) -> Result<(), rusqlite::Error> {
        if let Some(seat) = gone.seat {
            self.leave_seat(seat, &gone.job.to_string(), gone.status, gone.error)?;
        }
        match self.in_force.map(|terms| (&terms.pipelines, terms.snapshot)) {
            Some((pipelines, snapshot)) if pipelines.has_hooks(gone.plugin) => {
                self.fire_hooks(gone, pipelines, snapshot)
            }
            _ => Ok(()),
        }
    }

    fn fire_hooks(
        &mut self,
        gone: &Gone<'_>,
        pipelines: &Arc<Pipelines>,
        snapshot: i64,
    ) -> Result<(), rusqlite::Error> {
        let told = self.conn.prepare_cached(READ)?.query_row([gone.job.to_string()], Told::read).optional()?;
        let Some(told) = told else { return Ok(()) };
        let ended = Ended {
            job: gone.job,
            plugin: gone.plugin,
            command: gone.command,
            parent: told.parent,
            submitted_by: &told.submitted_by,
            status: gone.status,
            last_attempt: told.last_attempt.as_deref().and_then(attempt_status),
            attempt: told.attempt.unwrap_or(0),
            duration_ms: told.duration_ms,
            error: gone.error,
            context: told.context.as_deref(),
            snapshot: Some(snapshot),
            now: self.now,
        };
        let start = pipelines.hook_jobs(&ended, &mut Uuid::now_v7);
        for fault in &start.faults {
            tracing::error!(component = "ledger", job_id = %gone.job, fault, "a hook could not be started");
        }
        let mut contexts = Waiting::new(&start.contexts);
        for join in &start.joins {
            self.open_join(join, &mut contexts)?;
        }
        for job in &start.jobs {
            self.bear(job, &mut contexts)?;
        }
        start.arrivals.iter().try_for_each(|arrival| self.arrive(arrival, None))
    }
}
