//! Live events of jobs: said after the commit that made them true, never before.

use std::sync::Arc;

use chrono::Utc;
use ductile_domain::event::{self, Fields, JobFields, LiveEvent};
use ductile_domain::ids::JobId;
use ductile_domain::job::{ClaimedJob, Fence, JobStatus, NewJob};
use ductile_domain::time;
use ductile_ledger::{Buried, Enqueued, Finished, Init, Orphan};
use serde_json::Value;

use crate::shared::Shared;

/// A job as its events name it.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    job: JobId,
    plugin: Arc<str>,
    command: Arc<str>,
    dedupe_key: Option<String>,
    attempt: Option<u32>,
}

impl Announced {
    pub(crate) fn of(new: &NewJob) -> Self {
        Self {
            job: new.id,
            plugin: new.plugin.clone(),
            command: new.command.clone(),
            dedupe_key: new.dedupe_key.clone(),
            attempt: None,
        }
    }

    pub(crate) fn of_attempt(claimed: &ClaimedJob) -> Self {
        Self::of_row(claimed.fence.job, &claimed.plugin, &claimed.command, claimed.attempt)
    }

    pub(crate) fn of_orphan(orphan: &Orphan) -> Self {
        Self::of_row(orphan.fence.job, &orphan.plugin, &orphan.command, orphan.attempt)
    }

    pub(crate) fn of_row(job: JobId, plugin: &Arc<str>, command: &Arc<str>, attempt: u32) -> Self {
        Self { job, plugin: plugin.clone(), command: command.clone(), dedupe_key: None, attempt: Some(attempt) }
    }

    fn say(&self, shared: &Shared, kind: &'static str, transition: Option<i64>, more: Vec<(&'static str, Value)>) {
        shared.ring.emit(LiveEvent {
            kind: kind.into(),
            at: Utc::now(),
            fields: Fields::Job(Box::new(JobFields {
                job: self.job,
                plugin: self.plugin.clone(),
                command: self.command.clone(),
                transition,
                attempt: self.attempt,
                more,
            })),
        });
    }
}

/// Preflight decided about an attempt: `run`, or `fail` with a reason.
pub(crate) fn preflight(shared: &Shared, claimed: &ClaimedJob, decision: &'static str, reason: &str) {
    let more = vec![("decision", decision.into()), ("reason", reason.into())];
    Announced::of_attempt(claimed).say(shared, "job.preflight", None, more);
}

/// Jobs were accepted, or recognised as duplicates.
pub(crate) fn enqueued(shared: &Shared, announced: &[Announced], results: &[Enqueued]) {
    for (new, result) in announced.iter().zip(results) {
        match result {
            Enqueued::Accepted { transition, .. } => new.say(shared, "job.enqueued", Some(*transition), Vec::new()),
            Enqueued::Duplicate { job, status } => {
                let key = new.dedupe_key.as_deref().unwrap_or_default();
                tracing::info!(
                    component = "ledger", plugin = %new.plugin, dedupe_key = key, existing_job_id = %job, status = %status,
                    "not enqueued: a job with this dedupe key exists"
                );
                let existing = Announced { job: *job, ..new.clone() };
                existing.say(
                    shared,
                    "job.deduped",
                    None,
                    vec![("dedupe_key", key.into()), ("status", status.as_str().into())],
                );
            }
        }
    }
}

/// A job was claimed by this boot.
pub(crate) fn started(shared: &Shared, job: &ClaimedJob, transition: i64) {
    Announced::of_attempt(job).say(shared, "job.started", Some(transition), Vec::new());
}

/// The inits that a generation owes, as the ledger took them.
pub(crate) fn inits(shared: &Shared, inits: &[Init], results: Vec<Option<Enqueued>>) {
    let owed = inits.iter().zip(results).filter_map(|(init, result)| Some((Announced::of(&init.job), result?)));
    let (announced, results): (Vec<_>, Vec<_>) = owed.unzip();
    enqueued(shared, &announced, &results);
}

/// Queued jobs died with their plugins.
pub(crate) fn buried(shared: &Shared, buried: &[Buried]) {
    if !buried.is_empty() {
        tracing::warn!(
            component = "config",
            jobs = buried.len(),
            "queued jobs are dead: their plugins were removed or disabled"
        );
    }
    for job in buried {
        dead(shared, job);
    }
}

/// A queued job died.
pub(crate) fn dead(shared: &Shared, buried: &Buried) {
    let Buried { plugin, command, transition } = buried;
    let job = Announced {
        job: transition.job,
        plugin: plugin.clone(),
        command: command.clone(),
        dedupe_key: None,
        attempt: None,
    };
    let reason = transition.reason.as_deref().unwrap_or_default();
    job.say(shared, "job.dead", Some(transition.id), vec![("reason", reason.into())]);
    shared.waiters.ended(transition.job);
}

/// An attempt ended: each of its transitions is an event, and those who wait for the job are told.
pub(crate) fn finished(shared: &Shared, job: &Announced, finished: &Finished) {
    for transition in &finished.transitions {
        let mut more = Vec::new();
        if let Some(reason) = &transition.reason {
            more.push(("reason", Value::from(reason.as_str())));
        }
        let kind = event::of_transition(transition.from, transition.to);
        if let ("job.retry_scheduled", Some(due)) = (kind, finished.due) {
            more.push(("next_retry_at", time::format(due).into()));
        }
        job.say(shared, kind, Some(transition.id), more);
    }
    if finished.status.is_none_or(JobStatus::is_terminal) {
        shared.waiters.ended(job.job);
    }
}

/// A number in `0.0..1.0` for the backoff: random as the job's id is, and the same whenever it is asked for.
pub(crate) fn fraction(fence: Fence) -> f64 {
    let (_, low) = fence.job.uuid().as_u64_pair();
    let mixed = (low ^ fence.claim_no.unsigned_abs()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
