//! Ticks that are due: each ends with its job in one transaction, or with the reason why there is none.

use ductile_domain::breaker::Admission;
use ductile_domain::ids::JobId;
use ductile_domain::job::Candidate;
use ductile_domain::schedule::{IfRunning, TickReason, TickStatus};
use ductile_domain::time;
use fail::fail_point;
use rusqlite::{OptionalExtension as _, params};

use super::context::Waiting;
use super::entry::{End, Timed};
use super::store::Store;
use super::transaction::Transaction;
use crate::error::WriteError;
use crate::ops::{Buried, Cancelled, Enqueued};
use crate::schedules::{Due, Ticked};

const STATUS: &str = "SELECT status FROM schedule_ticks
    WHERE plugin = ?1 AND schedule_id = ?2 AND fingerprint = ?3 AND instant = ?4";
const IS_PAUSED: &str = "SELECT status = 'paused_manual' FROM schedule_entries WHERE plugin = ?1 AND schedule_id = ?2";
const SCHEDULED: &str = "SELECT id FROM job_queue WHERE plugin = ?1 AND command = ?2 AND submitted_by = 'scheduler'
    AND status IN ('queued', 'running') ORDER BY rowid";
const IS_SCHEDULED: &str = "SELECT 1 FROM job_queue WHERE plugin = ?1 AND command = ?2 AND submitted_by = 'scheduler'
    AND status IN ('queued', 'running') LIMIT 1";
const IS_ALIVE: &str = "SELECT 1 FROM job_queue WHERE id = ?1 AND status IN ('queued', 'running')";
/// Whether there are more than `?3`.
const OUTSTANDING: &str = "SELECT 1 FROM job_queue WHERE plugin = ?1 AND command = ?2
    AND status IN ('queued', 'running') LIMIT 1 OFFSET ?3";
const WAIT: &str = "UPDATE schedule_ticks SET reason = ?5 WHERE plugin = ?1 AND schedule_id = ?2 AND fingerprint = ?3
    AND instant = ?4 AND status = 'expected' AND reason IS NOT ?5";
const AFTERWARDS: &str = "UPDATE schedule_entries SET last_fired_at = iif(?4, ?6, last_fired_at),
        next_run_at = (SELECT t.due_at FROM schedule_ticks t WHERE t.plugin = ?1 AND t.schedule_id = ?2
            AND t.status = 'expected' ORDER BY t.instant DESC LIMIT 1),
        status = iif(?5, 'exhausted', status), updated_at = ?6
    WHERE plugin = ?1 AND schedule_id = ?2 AND fingerprint = ?3";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[STATUS, IS_PAUSED, SCHEDULED, IS_SCHEDULED, IS_ALIVE, OUTSTANDING, WAIT, AFTERWARDS];

impl<'a> From<&'a Due> for Timed<'a> {
    fn from(due: &'a Due) -> Self {
        Self { plugin: &due.plugin, schedule: &due.schedule, fingerprint: &due.fingerprint }
    }
}

/// Jobs that a tick cancelled.
#[derive(Default)]
struct Superseded {
    dead: Vec<Buried>,
    flagged: Vec<JobId>,
}

impl Transaction<'_> {
    /// Ends a tick, or finds that it must wait.
    fn tick(&mut self, due: &Due) -> Result<Ticked, rusqlite::Error> {
        let (plugin, command) = (&*due.job.plugin, &*due.job.command);
        let instant = time::format(due.instant);
        let identity = [&*due.plugin, &*due.schedule, &*due.fingerprint, &instant];
        let status = self.conn.prepare_cached(STATUS)?.query_row(identity, |row| row.get::<_, String>(0)).optional()?;
        if status.is_some_and(|status| status != TickStatus::Expected.as_str()) {
            return Ok(Ticked::AlreadyEnded);
        }
        let entry = [&*due.plugin, &*due.schedule];
        let is_paused = self.conn.prepare_cached(IS_PAUSED)?.query_row(entry, |row| row.get(0)).optional()?;
        if is_paused.unwrap_or(false) {
            return self.wait_or_skip(due.is_last, due, TickReason::Paused);
        }
        if let Some(reason) = due.skip {
            return self.skip(due, reason);
        }
        // all of them only for who cancels them: a schedule that queues may have thousands
        let (is_busy, superseded) = if due.if_running == IfRunning::Cancel {
            let scheduled = self.scheduled(plugin, command)?;
            (!scheduled.is_empty(), scheduled)
        } else {
            (self.conn.prepare_cached(IS_SCHEDULED)?.exists([plugin, command])?, Vec::new())
        };
        match due.if_running {
            IfRunning::Skip | IfRunning::Cancel if is_busy && due.is_catch_up => {
                return self.wait(due, TickReason::Running);
            }
            IfRunning::Skip if is_busy => return self.wait_or_skip(due.is_last, due, TickReason::Running),
            IfRunning::Skip | IfRunning::Queue | IfRunning::Cancel => {}
        }
        let mut breaker = self.breaker(plugin, command)?;
        let is_probe_alive = match breaker.breaker.probe {
            Some(probe) => self.conn.prepare_cached(IS_ALIVE)?.exists([probe.to_string()])?,
            None => false,
        };
        let admission = breaker.breaker.admit(&breaker.policy, is_probe_alive, self.now);
        if admission == Admission::Refuse {
            return self.wait_or_skip(due.is_last, due, TickReason::BreakerOpen);
        }
        // before anything is cancelled: a tick that gives way must not have killed what it gives way to
        if self.is_guard_full(due, superseded.len())? {
            return self.wait_or_skip(due.is_catch_up || due.is_last, due, TickReason::Guard);
        }
        let Superseded { dead: cancelled, flagged } = self.supersede(due, &superseded)?;
        let (job, transition) = match self.enqueue(&due.job, &mut Waiting::new(&[]))? {
            Enqueued::Accepted { job, transition, .. } => (job, transition),
            Enqueued::Duplicate { job, .. } => {
                let reason = TickReason::Deduped;
                self.end(due, TickStatus::Skipped, Some(reason), Some(job))?;
                return Ok(Ticked::Skipped { reason, job: Some(job), cancelled, flagged });
            }
        };
        let breaker = if admission == Admission::Probe { self.probe(&mut breaker, job)? } else { None };
        let (status, reason) = match (due.is_catch_up, due.is_late) {
            (true, _) => (TickStatus::CaughtUp, None),
            (false, is_late) => (TickStatus::Fired, is_late.then_some(TickReason::Late)),
        };
        self.end(due, status, reason, Some(job))?;
        Ok(Ticked::Fired { status, reason, job, transition, cancelled, flagged, breaker })
    }

    /// Jobs of the same plugin and command that the scheduler enqueued and that have not ended.
    fn scheduled(&self, plugin: &str, command: &str) -> Result<Vec<JobId>, rusqlite::Error> {
        let mut statement = self.conn.prepare_cached(SCHEDULED)?;
        let ids = statement.query_map([plugin, command], |row| Ok(row.get_ref(0)?.as_str()?.parse()))?;
        // a row whose id is no UUID was not written by us
        ids.filter_map(|id| id.map(Result::ok).transpose()).collect()
    }

    /// Whether as many jobs are outstanding as may be, without those that the tick cancels.
    fn is_guard_full(&self, due: &Due, superseded: usize) -> Result<bool, rusqlite::Error> {
        let Some(most) = due.guard else { return Ok(false) };
        // the one that would be too many with it
        let Some(others) = most.checked_sub(1) else { return Ok(true) };
        let others = i64::from(others).saturating_add(i64::try_from(superseded).unwrap_or(i64::MAX));
        let jobs = params![&*due.job.plugin, &*due.job.command, others];
        self.conn.prepare_cached(OUTSTANDING)?.exists(jobs)
    }

    fn supersede(&mut self, due: &Due, jobs: &[JobId]) -> Result<Superseded, rusqlite::Error> {
        let mut superseded = Superseded::default();
        let why = format!("superseded by schedule {}", due.schedule);
        for job in jobs {
            match self.cancel(*job, &why, &due.schedule)? {
                Cancelled::Dead(buried) => superseded.dead.push(buried),
                Cancelled::Flagged => superseded.flagged.push(*job),
                Cancelled::AlreadyTerminal(_) | Cancelled::Unknown => {}
            }
        }
        Ok(superseded)
    }

    /// What has only one chance keeps it.
    fn wait_or_skip(&self, can_wait: bool, due: &Due, reason: TickReason) -> Result<Ticked, rusqlite::Error> {
        if can_wait { self.wait(due, reason) } else { self.skip(due, reason) }
    }

    fn skip(&self, due: &Due, reason: TickReason) -> Result<Ticked, rusqlite::Error> {
        self.end(due, TickStatus::Skipped, Some(reason), None)?;
        Ok(Ticked::Skipped { reason, job: None, cancelled: Vec::new(), flagged: Vec::new() })
    }

    /// Leaves it expected, and notes what for.
    fn wait(&self, due: &Due, reason: TickReason) -> Result<Ticked, rusqlite::Error> {
        let Timed { plugin, schedule, fingerprint } = due.into();
        let instant = time::format(due.instant);
        let wait = params![plugin, schedule, fingerprint, instant, reason.as_str()];
        self.conn.prepare_cached(WAIT)?.execute(wait)?;
        Ok(Ticked::Waits { reason })
    }

    /// Writes the end of a tick and of those that it jumped over, and what is expected next.
    fn end(
        &self,
        due: &Due,
        status: TickStatus,
        reason: Option<TickReason>,
        job: Option<JobId>,
    ) -> Result<(), rusqlite::Error> {
        let timed = Timed::from(due);
        let end = End { instant: due.instant, due: due.due, last: None, status, reason, job };
        self.end_tick(timed, &end)?;
        due.passed.iter().try_for_each(|passed| self.end_tick(timed, &passed.into()))?;
        due.next.iter().try_for_each(|next| self.expect_tick(timed, *next))?;
        let has_asked = match status {
            TickStatus::Fired | TickStatus::CaughtUp => true,
            TickStatus::Skipped => matches!(
                reason,
                Some(TickReason::Running | TickReason::Guard | TickReason::BreakerOpen | TickReason::Deduped)
            ),
            TickStatus::Expected | TickStatus::Missed => false,
        };
        self.conn.prepare_cached(AFTERWARDS)?.execute(params![
            timed.plugin,
            timed.schedule,
            timed.fingerprint,
            has_asked,
            due.is_last,
            self.at,
        ])?;
        Ok(())
    }
}

impl Store {
    /// Ends ticks in one transaction; when it fails, each gets its own. What became ready is told whatever the answer.
    pub(super) fn tick(
        &mut self,
        dues: &[Due],
        generation: u64,
        ready: &mut Vec<Candidate>,
    ) -> Result<Vec<Ticked>, WriteError> {
        if self.in_force.as_ref().is_some_and(|terms| terms.generation != generation) {
            return Err(WriteError::Outdated);
        }
        self.set_synchronous(true)?;
        match self.tick_together(dues, ready) {
            Err(error) if error.is_of_the_file() => return Err(error),
            Err(error) if dues.len() == 1 => return Ok(vec![Ticked::Failed(error)]),
            Err(error) => {
                tracing::warn!(component = "ledger", %error, ticks = dues.len(), "ticks failed together, trying each alone");
            }
            done => return done,
        }
        let mut ticked = Vec::with_capacity(dues.len());
        let mut trouble = None;
        for due in dues {
            let done = match &trouble {
                Some(error) => Err(WriteError::clone(error)),
                None => self.tick_together(std::slice::from_ref(due), ready),
            };
            match done {
                Ok(done) => ticked.extend(done),
                Err(error) => {
                    trouble = error.is_of_the_file().then(|| error.clone());
                    ticked.push(Ticked::Failed(error));
                }
            }
        }
        Ok(ticked)
    }

    fn tick_together(&mut self, dues: &[Due], ready: &mut Vec<Candidate>) -> Result<Vec<Ticked>, WriteError> {
        fail_point!("ledger_before_begin");
        let in_force = self.in_force.as_deref();
        let (ticked, became_ready) = self.transaction(|conn, now| {
            let mut transaction = Transaction::new(conn, now, in_force);
            let ticked = dues.iter().map(|due| transaction.tick(due)).collect::<Result<Vec<_>, _>>()?;
            Ok((ticked, transaction.ready))
        })?;
        fail_point!("ledger_after_commit");
        self.checkpoints.after_commit(&self.conn);
        ready.extend(became_ready);
        Ok(ticked)
    }
}
