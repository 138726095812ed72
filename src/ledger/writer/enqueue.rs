//! New jobs, and the jobs that stand for them when they are duplicates.

use ductile_domain::job::NewJob;
use ductile_domain::time;
use rusqlite::{OptionalExtension as _, Row, params};

use super::context::Waiting;
use super::transaction::Transaction;
use crate::ops::{Born, Enqueued, Submission, Submitted, candidate};

// `+column` keeps the planner on the index of keys: that of plugins would walk over a long queue.
const IN_FLIGHT: &str = "SELECT id, status FROM job_queue WHERE dedupe_key = ?1 AND status IN ('queued', 'running')
    AND +plugin = ?2 AND +command = ?3 LIMIT 1";
const SUCCEEDED: &str = "SELECT id, status FROM job_queue WHERE dedupe_key = ?1 AND status = 'succeeded'
    AND completed_at > ?4 AND +plugin = ?2 AND +command = ?3 ORDER BY completed_at DESC LIMIT 1";
const SAME_EVENT: &str = "SELECT id, status FROM job_queue WHERE parent_job_id = ?1 AND source_event_id = ?2
    AND plugin = ?3 AND command = ?4 AND target_key = ?5";
const INSERT: &str = "INSERT INTO job_queue (id, plugin, command, payload, status, max_attempts, submitted_by,
        requested_by, dedupe_key, created_at, parent_job_id, source_event_id, target_key, event_context_id,
        enqueued_config_snapshot_id, join_id, join_branch, is_routed)
    VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[IN_FLIGHT, SUCCEEDED, SAME_EVENT, INSERT];

impl Transaction<'_> {
    /// Inserts the job, unless another stands for it: in flight when that was asked for, succeeded within the window,
    /// or of the same routed event and target. The rows of one batch see each other. Only a job that is inserted takes
    /// its seat and has its context written.
    pub(super) fn enqueue(&mut self, job: &NewJob, contexts: &mut Waiting<'_>) -> Result<Enqueued, rusqlite::Error> {
        if let Some(twin) = self.twin(job)? {
            return Ok(twin);
        }
        self.write_context(job.context, contexts)?;
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
            job.seat.map(|seat| seat.join.to_string()),
            job.seat.map(|seat| seat.branch),
            job.is_routed,
        ])?;
        if let Some(seat) = job.seat {
            self.take_seat(seat);
        }
        let mut reason = format!("enqueued by {}", job.submitted_by);
        if let Some(ended) = job.replay_of {
            reason.push_str(&format!(": replay of {ended}"));
        }
        let transition = self.transition(job.id, None, "queued", Some(reason), 1)?;
        self.ready.push(candidate(row, job.id, &job.plugin, None));
        Ok(Enqueued::Accepted { job: job.id, row, transition: transition.id })
    }

    /// Enqueues a job that is no answer to anything: those who asked are told of it beside what they asked for.
    pub(super) fn bear(&mut self, job: &NewJob, contexts: &mut Waiting<'_>) -> Result<(), rusqlite::Error> {
        if let Enqueued::Accepted { job: id, row, transition } = self.enqueue(job, contexts)? {
            let (plugin, command, context) = (job.plugin.clone(), job.command.clone(), job.context);
            let (pipeline, step) = self.place_of(context)?;
            self.tally.bear(Born { job: id, plugin, command, context, pipeline, step, row, transition });
        }
        Ok(())
    }

    /// Enqueues what a door brings in. Nothing of a submission whose jobs all have twins begins to wait for them.
    pub(super) fn submit(&mut self, submission: &Submission) -> Result<Submitted, rusqlite::Error> {
        let Submission { jobs, contexts, joins, arrivals } = submission;
        let mut contexts = Waiting::new(contexts);
        let jobs = jobs.iter().map(|job| self.enqueue(job, &mut contexts)).collect::<Result<Vec<_>, _>>()?;
        let is_known = !jobs.is_empty() && jobs.iter().all(|job| matches!(job, Enqueued::Duplicate { .. }));
        if is_known {
            return Ok(Submitted { jobs, born: Vec::new() });
        }
        joins.iter().try_for_each(|join| self.open_join(join, &mut contexts))?;
        arrivals.iter().try_for_each(|arrival| self.arrive(arrival, None))?;
        Ok(Submitted { jobs, born: self.settle(None)? })
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
