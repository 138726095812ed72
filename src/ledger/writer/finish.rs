//! Ends of attempts: finished, or given back uncounted. A fenced or repeated call changes nothing.

use ductile_domain::ids::JobId;
use ductile_domain::job::{Fence, JobStatus, Seat};
use ductile_domain::outcome::{AttemptStatus, Cause};
use ductile_domain::plan::Plan;
use ductile_domain::retry::Ending;
use ductile_domain::time::{self, Timestamp};
use rusqlite::{OptionalExtension as _, Row, params};

use super::context::Waiting;
use super::hook::Gone;
use super::join::seat;
use super::transaction::Transaction;
use crate::error::WriteError;
use crate::ops::{Enqueued, Finish, Finished, Transition, Verdict, candidate};
use crate::schedules::BreakerEvent;

const FIND: &str = "SELECT rowid, status, claim_no, finished_claim_no, attempt, plugin, command, started_at,
        started_config_snapshot_id, next_retry_at, cancel_requested_at IS NOT NULL, cancel_reason, join_id, join_branch,
        event_context_id IS NOT NULL, iif(submitted_by = 'scheduler', coalesce(requested_by, ''), NULL)
    FROM job_queue WHERE id = ?1";
const LOG: &str = "INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at,
        started_at, completed_at, last_error, stderr, parent_job_id, source_event_id, event_context_id,
        enqueued_config_snapshot_id, started_config_snapshot_id, payload, requested_by)
    SELECT q.id || '-' || q.attempt, q.id, q.plugin, q.command, ?2, ?3, q.attempt, q.submitted_by, q.created_at,
        q.started_at, ?4, ?5, ?6, q.parent_job_id, q.source_event_id, q.event_context_id,
        q.enqueued_config_snapshot_id, q.started_config_snapshot_id, iif(?7, q.payload, NULL), q.requested_by
    FROM job_queue q WHERE q.rowid = ?1";
const ATTEMPT: &str = "INSERT INTO job_attempts (job_id, attempt, created_at, status, cause, exit_code, signal, error,
        started_at, completed_at, config_snapshot_id, cpu_ms, peak_memory)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
const STOPWATCH: &str = "INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns,
        runtime_pre_ns, runtime_post_ns, status, subs_json, recorded_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const STOPWATCH_OF_STEP: &str =
    "INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns,
        runtime_pre_ns, runtime_post_ns, status, subs_json, recorded_at, pipeline, step_id, pipeline_instance_id)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, c.pipeline_name, c.step_id,
        CASE WHEN json_valid(c.accumulated_json)
            THEN json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id') END
    FROM job_queue q LEFT JOIN event_context c ON c.id = q.event_context_id WHERE q.id = ?1";
const END: &str = "UPDATE job_queue SET status = ?2, completed_at = ?3, last_error = ?4, finished_claim_no = ?5,
    pid = NULL, pid_start = NULL WHERE rowid = ?1";
const QUEUE_AGAIN: &str = "UPDATE job_queue SET status = 'queued', attempt = attempt + 1, started_at = NULL,
    next_retry_at = ?2, last_error = ?3, finished_claim_no = ?4, boot_id = NULL, pid = NULL, pid_start = NULL
    WHERE rowid = ?1";
const GROW: &str = "UPDATE job_queue SET memory_tier = ?2 WHERE rowid = ?1";
const GIVE_BACK: &str = "UPDATE job_queue SET status = 'queued', started_at = NULL, next_retry_at = ?2,
    finished_claim_no = ?3, boot_id = NULL, pid = NULL, pid_start = NULL WHERE rowid = ?1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[FIND, LOG, ATTEMPT, STOPWATCH, STOPWATCH_OF_STEP, END, QUEUE_AGAIN, GROW, GIVE_BACK];

/// The row that an end is about.
pub(super) struct Found {
    pub(super) row: i64,
    status: String,
    claim_no: i64,
    finished_claim_no: i64,
    attempt: i64,
    pub(super) plugin: String,
    pub(super) command: String,
    started_at: Option<String>,
    snapshot: Option<i64>,
    due: Option<String>,
    is_cancelled: bool,
    cancel_reason: Option<String>,
    seat: Option<Seat>,
    has_context: bool,
    /// The schedule that asked for it.
    schedule: Option<String>,
}

impl Found {
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            row: row.get(0)?,
            status: row.get(1)?,
            claim_no: row.get(2)?,
            finished_claim_no: row.get(3)?,
            attempt: row.get(4)?,
            plugin: row.get(5)?,
            command: row.get(6)?,
            started_at: row.get(7)?,
            snapshot: row.get(8)?,
            due: row.get(9)?,
            is_cancelled: row.get(10)?,
            cancel_reason: row.get(11)?,
            seat: seat(row, 12)?,
            has_context: row.get(14)?,
            schedule: row.get(15)?,
        })
    }

    /// The end of a claim is noted in `finished_claim_no`, negative when it was given back.
    fn verdict(&self, claim_no: i64, noted_as: i64) -> Verdict {
        if self.status == "running" && self.claim_no == claim_no {
            Verdict::Applied
        } else if self.finished_claim_no == noted_as {
            Verdict::AlreadyApplied
        } else {
            Verdict::Fenced
        }
    }

    /// The text for a row whose cancellation was asked for.
    fn cancellation(&self) -> Option<String> {
        self.is_cancelled.then(|| format!("cancelled: {}", self.cancel_reason.as_deref().unwrap_or_default()))
    }

    /// The row as it is now that it has ended.
    fn gone<'a>(&'a self, job: JobId, status: JobStatus, error: Option<&'a str>) -> Gone<'a> {
        Gone { job, plugin: &self.plugin, command: &self.command, seat: self.seat, status, error }
    }

    /// The answer to a call that changes nothing.
    fn untouched(&self, verdict: Verdict) -> Finished {
        let due = self.due.as_deref().and_then(time::parse);
        Finished { status: self.status.parse().ok(), due, ..Finished::unchanged(verdict) }
    }
}

fn applied(status: JobStatus, due: Option<Timestamp>, transitions: Vec<Transition>) -> Finished {
    Finished { status: Some(status), due, transitions, ..Finished::unchanged(Verdict::Applied) }
}

impl Transaction<'_> {
    fn find(&self, job: &str) -> Result<Option<Found>, rusqlite::Error> {
        self.conn.prepare_cached(FIND)?.query_row([job], Found::read).optional()
    }

    /// Ends an attempt with everything that its plan holds. The inner error is this operation's own: nothing was
    /// written for it then.
    pub(super) fn finish(&mut self, finish: &Finish) -> Result<Result<Finished, WriteError>, rusqlite::Error> {
        let (fence, outcome) = (finish.fence, &finish.outcome);
        let job = fence.job.to_string();
        let Some(found) = self.find(&job)? else { return Ok(Ok(Finished::unchanged(Verdict::Fenced))) };
        let verdict = found.verdict(fence.claim_no, fence.claim_no);
        if verdict != Verdict::Applied {
            return Ok(Ok(found.untouched(verdict)));
        }
        if let Err(refused) = self.remember(&finish.plan, &found, &job)? {
            return Ok(Err(refused));
        }
        let children = self.carry_out(&finish.plan, &job)?;
        let mut next = Next::of(finish, found.cancellation());
        if next.may_be_quarantined(finish) && !found.is_cancelled {
            next.quarantine = self.quarantine_reason(fence.job, &job, outcome)?;
        }
        let next = next.quarantined();
        let attempt_status = outcome.status.as_str();
        let ended_at = time::format(outcome.ended_at);
        let is_last = next.status.is_terminal();
        let (result, stderr) = (&outcome.result, &outcome.stderr);
        self.conn.prepare_cached(LOG)?.execute(params![
            found.row,
            attempt_status,
            result,
            ended_at,
            next.error,
            stderr,
            is_last
        ])?;
        self.conn.prepare_cached(ATTEMPT)?.execute(params![
            job,
            found.attempt,
            self.at,
            attempt_status,
            outcome.cause.map(Cause::as_str),
            outcome.exit_code,
            outcome.signal,
            next.error,
            found.started_at,
            ended_at,
            found.snapshot,
            outcome.usage.cpu.and_then(|cpu| i64::try_from(cpu.as_millis()).ok()),
            outcome.usage.peak_memory.and_then(|bytes| i64::try_from(bytes).ok()),
        ])?;
        let timing = &outcome.timing;
        if timing.enter_wall_ns > 0 {
            let word = match outcome.status {
                AttemptStatus::Succeeded => "ok",
                AttemptStatus::TimedOut => "timeout",
                AttemptStatus::Failed | AttemptStatus::Skipped => "err",
            };
            let statement = if found.has_context { STOPWATCH_OF_STEP } else { STOPWATCH };
            self.conn.prepare_cached(statement)?.execute(params![
                job,
                found.plugin,
                found.attempt,
                timing.enter_wall_ns,
                timing.exit_wall_ns,
                timing.dur_ns,
                timing.runtime_pre_ns,
                timing.runtime_post_ns,
                word,
                outcome.subs,
                self.at,
            ])?;
        }
        let mut transitions = Vec::with_capacity(2);
        let first = reason_of(finish);
        transitions.push(self.transition(fence.job, Some("running"), attempt_status, first, found.attempt)?);
        if attempt_status != next.status.as_str() {
            let to = next.status.as_str();
            transitions.push(self.transition(fence.job, Some(attempt_status), to, next.reason, found.attempt)?);
        }
        if let Some(reason) = &next.quarantine {
            self.quarantine(found.row, reason)?;
        }
        if is_last {
            let error = next.quarantine.as_deref().or(next.error.as_deref());
            let end = params![found.row, next.status.as_str(), ended_at, error, fence.claim_no];
            self.conn.prepare_cached(END)?.execute(end)?;
            // a success may have a text too, about what became of its events
            let trouble = error.filter(|_| outcome.status != AttemptStatus::Succeeded);
            self.settle_init(&found.plugin, &found.command, &job, trouble, result.as_deref())?;
            self.gone(&found.gone(fence.job, next.status, error))?;
        } else {
            let due = next.due.map(time::format);
            self.conn.prepare_cached(QUEUE_AGAIN)?.execute(params![found.row, due, next.error, fence.claim_no])?;
            if let Ending::RetryLarger { tier, .. } = finish.ending {
                self.conn.prepare_cached(GROW)?.execute(params![found.row, tier])?;
            }
            self.ready.push(candidate(found.row, fence.job, &found.plugin, next.due));
        }
        let breaker = match &found.schedule {
            Some(schedule) if is_last => self.count_scheduled(&found, schedule, finish, next.status)?,
            _ => None,
        };
        let born = self.settle(Some(fence.job))?;
        let is_quarantined = next.quarantine.is_some();
        Ok(Ok(Finished { children, born, breaker, is_quarantined, ..applied(next.status, next.due, transitions) }))
    }

    /// What the last end of a job that a schedule asked for says about the schedule and about the breaker.
    fn count_scheduled(
        &self,
        found: &Found,
        schedule: &str,
        finish: &Finish,
        status: JobStatus,
    ) -> Result<Option<BreakerEvent>, rusqlite::Error> {
        let job = finish.fence.job;
        let is_told_to =
            found.is_cancelled || matches!(finish.outcome.cause, Some(Cause::Cancelled | Cause::PluginGone));
        let is_success = match status {
            JobStatus::Succeeded => Some(true),
            JobStatus::Failed | JobStatus::Dead => (!is_told_to).then_some(false),
            JobStatus::Skipped | JobStatus::Queued | JobStatus::Running => None,
        };
        if is_success == Some(true) {
            self.note_success(&found.plugin, schedule, job)?;
        }
        self.count(&found.plugin, &found.command, job, is_success)
    }

    /// Writes what follows from an attempt, before its job becomes terminal.
    fn carry_out(&mut self, plan: &Plan, job: &str) -> Result<Vec<Enqueued>, rusqlite::Error> {
        let mut contexts = Waiting::new(&plan.contexts);
        for join in &plan.joins {
            self.open_join(join, &mut contexts)?;
        }
        let children = plan.children.iter().map(|child| self.enqueue(child, &mut contexts));
        let children = children.collect::<Result<_, _>>()?;
        plan.arrivals.iter().try_for_each(|arrival| self.arrive(arrival, Some(job)))?;
        Ok(children)
    }

    /// Puts a claim back uncounted, or buries the job when its cancellation was asked for.
    pub(super) fn give_back(
        &mut self,
        fence: Fence,
        reason: &str,
        due: Option<Timestamp>,
    ) -> Result<Finished, rusqlite::Error> {
        let Some(found) = self.find(&fence.job.to_string())? else { return Ok(Finished::unchanged(Verdict::Fenced)) };
        let verdict = found.verdict(fence.claim_no, -fence.claim_no);
        if verdict != Verdict::Applied {
            return Ok(found.untouched(verdict));
        }
        if let Some(text) = found.cancellation() {
            let end = params![found.row, "dead", self.at, text, -fence.claim_no];
            self.conn.prepare_cached(END)?.execute(end)?;
            self.settle_init(&found.plugin, &found.command, &fence.job.to_string(), Some(&text), None)?;
            let transition = self.transition(fence.job, Some("running"), "dead", Some(text.clone()), found.attempt)?;
            self.gone(&found.gone(fence.job, JobStatus::Dead, Some(&text)))?;
            let born = self.settle(Some(fence.job))?;
            return Ok(Finished { born, ..applied(JobStatus::Dead, None, vec![transition]) });
        }
        let text = due.map(time::format);
        self.conn.prepare_cached(GIVE_BACK)?.execute(params![found.row, text, -fence.claim_no])?;
        let reason = format!("given back: {reason}");
        let transition = self.transition(fence.job, Some("running"), "queued", Some(reason), found.attempt)?;
        self.ready.push(candidate(found.row, fence.job, &found.plugin, due));
        Ok(applied(JobStatus::Queued, due, vec![transition]))
    }
}

/// What the row becomes.
struct Next<'a> {
    status: JobStatus,
    due: Option<Timestamp>,
    /// Why it becomes something else than its attempt.
    reason: Option<String>,
    error: Option<std::borrow::Cow<'a, str>>,
    /// Why it is quarantined; then that is why it becomes `dead`.
    quarantine: Option<String>,
}

impl<'a> Next<'a> {
    /// A cancelled job is never tried again.
    fn of(finish: &'a Finish, cancellation: Option<String>) -> Self {
        let error = finish.outcome.error.as_deref().map(Into::into);
        let (status, due, reason) = match (&finish.ending, cancellation) {
            (Ending::Retry { .. } | Ending::RetryLarger { .. }, Some(text)) => {
                let reason = Some(text.clone());
                let error = Some(text.into());
                return Self { status: JobStatus::Dead, due: None, reason, error, quarantine: None };
            }
            (Ending::Retry { due } | Ending::RetryLarger { due, .. }, None) => {
                (JobStatus::Queued, Some(*due), Some(format!("retrying: due {}", time::format(*due))))
            }
            (Ending::Dead, _) => (JobStatus::Dead, None, Some(dead_reason(finish))),
            (Ending::Succeeded, _) => (JobStatus::Succeeded, None, None),
            (Ending::Skipped, _) => (JobStatus::Skipped, None, None),
            (Ending::Failed, _) => (JobStatus::Failed, None, None),
        };
        Self { status, due, reason, error, quarantine: None }
    }

    /// Only what would be tried again, or was tried too often: a job that has failed has a reason of its own.
    fn may_be_quarantined(&self, finish: &Finish) -> bool {
        self.status == JobStatus::Queued || self.status == JobStatus::Dead && finish.ending == Ending::Dead
    }

    /// A quarantined job is dead, whatever was planned for it.
    fn quarantined(mut self) -> Self {
        if let Some(reason) = &self.quarantine {
            (self.status, self.due) = (JobStatus::Dead, None);
            self.reason = Some(shorten(reason).to_owned());
        }
        self
    }
}

/// Why the attempt ended; begins with the cause's word.
fn reason_of(finish: &Finish) -> Option<String> {
    match (finish.outcome.cause.map(Cause::as_str), &finish.outcome.error) {
        (None, None) => None,
        (None, Some(error)) => Some(shorten(error).to_owned()),
        (Some(cause), None) => Some(cause.to_owned()),
        // a text that begins with the cause's word needs it only once
        (Some(cause), Some(error)) if error.starts_with(cause) => Some(shorten(error).to_owned()),
        (Some(cause), Some(error)) => Some(format!("{cause}: {}", shorten(error))),
    }
}

fn dead_reason(finish: &Finish) -> String {
    match finish.outcome.cause {
        Some(cause) if !cause.is_retryable() => match &finish.outcome.error {
            Some(error) => shorten(error).to_owned(),
            None => cause.to_string(),
        },
        _ => "attempts exhausted".to_owned(),
    }
}

/// Reasons are for reading; the whole text stands in `last_error`.
fn shorten(text: &str) -> &str {
    const MOST: usize = 300;
    if text.len() <= MOST {
        return text;
    }
    &text[..(0..=MOST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shorten(&"é".repeat(200)).len(), 300);
        assert_eq!(shorten(&format!("x{}", "é".repeat(200))).len(), 299);
    }
}
