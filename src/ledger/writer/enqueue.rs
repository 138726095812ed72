//! New jobs, and the jobs that stand for them when they are duplicates.

use ductile_domain::job::NewJob;
use ductile_domain::time;
use rusqlite::{OptionalExtension as _, Row, params};

use super::transaction::Transaction;
use crate::ops::{Enqueued, candidate};

// `+column` keeps the planner on the index of keys: that of plugins would walk over a long queue.
const IN_FLIGHT: &str = "SELECT id, status FROM job_queue WHERE dedupe_key = ?1 AND status IN ('queued', 'running')
    AND +plugin = ?2 AND +command = ?3 LIMIT 1";
const SUCCEEDED: &str = "SELECT id, status FROM job_queue WHERE dedupe_key = ?1 AND status = 'succeeded'
    AND completed_at > ?4 AND +plugin = ?2 AND +command = ?3 ORDER BY completed_at DESC LIMIT 1";
const SAME_EVENT: &str = "SELECT id, status FROM job_queue WHERE parent_job_id = ?1 AND source_event_id = ?2
    AND plugin = ?3 AND command = ?4 AND target_key = ?5";
const INSERT: &str = "INSERT INTO job_queue (id, plugin, command, payload, status, max_attempts, submitted_by,
        requested_by, dedupe_key, created_at, parent_job_id, source_event_id, target_key, event_context_id,
        enqueued_config_snapshot_id)
    VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[IN_FLIGHT, SUCCEEDED, SAME_EVENT, INSERT];

impl Transaction<'_> {
    /// Inserts the job, unless another stands for it: in flight when that was asked for, succeeded within the window,
    /// or of the same routed event and target. The rows of one batch see each other.
    pub(super) fn enqueue(&mut self, job: &NewJob) -> Result<Enqueued, rusqlite::Error> {
        if let Some(twin) = self.twin(job)? {
            return Ok(twin);
        }
        let row = self.conn.prepare_cached(INSERT)?.insert(params![
            job.id.to_string(),
            &*job.plugin,
            &*job.command,
            job.payload.as_ref().map(|p| p.get()),
            job.max_attempts,
            job.submitted_by,
            job.requested_by,
            job.dedupe_key,
            self.at,
            job.parent.map(|id| id.to_string()),
            job.source_event.map(|id| id.to_string()),
            job.target_key,
            job.context.map(|id| id.to_string()),
            job.snapshot,
        ])?;
        let mut reason = format!("enqueued by {}", job.submitted_by);
        if let Some(ended) = job.replay_of {
            reason.push_str(&format!(": replay of {ended}"));
        }
        let transition = self.transition(job.id, None, "queued", Some(reason), 1)?;
        self.ready.push(candidate(row, job.id, &job.plugin, None));
        Ok(Enqueued::Accepted { job: job.id, row, transition: transition.id })
    }

    fn twin(&self, job: &NewJob) -> Result<Option<Enqueued>, rusqlite::Error> {
        let (plugin, command) = (&*job.plugin, &*job.command);
        let mut twin = None;
        if let Some(key) = &job.dedupe_key {
            if job.dedupe_in_flight {
                let found = self.conn.prepare_cached(IN_FLIGHT)?.query_row(params![key, plugin, command], duplicate);
                twin = found.optional()?;
            }
            if twin.is_none() && !job.dedupe_window.is_zero() {
                let window = chrono::TimeDelta::from_std(job.dedupe_window).unwrap_or(chrono::TimeDelta::MAX);
                let since = self.now.checked_sub_signed(window).map_or_else(String::new, time::format);
                let found =
                    self.conn.prepare_cached(SUCCEEDED)?.query_row(params![key, plugin, command, since], duplicate);
                twin = found.optional()?;
            }
        }
        if let (None, Some(parent), Some(event)) = (&twin, job.parent, job.source_event) {
            let (parent, event) = (parent.to_string(), event.to_string());
            let target = params![parent, event, plugin, command, job.target_key];
            twin = self.conn.prepare_cached(SAME_EVENT)?.query_row(target, duplicate).optional()?;
        }
        Ok(twin.flatten())
    }
}

/// `None` when the row was not written by us; the new job is inserted then.
fn duplicate(row: &Row<'_>) -> Result<Option<Enqueued>, rusqlite::Error> {
    let (job, status) = (row.get_ref(0)?.as_str()?.parse(), row.get_ref(1)?.as_str()?.parse());
    let (Ok(job), Ok(status)) = (job, status) else { return Ok(None) };
    Ok(Some(Enqueued::Duplicate { job, status }))
}
