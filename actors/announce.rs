//! Live events of jobs: said after the commit that made them true, never before.

pub(crate) mod schedules;

use std::collections::HashMap;
use std::sync::Arc;

use ductile_domain::event::{self, Fields, JobFields, LiveEvent};
use ductile_domain::ids::{ContextId, JobId};
use ductile_domain::job::{ClaimedJob, Fence, JobStatus, NewJob};
use ductile_domain::plan::Dropped;
use ductile_domain::time;
use ductile_ledger::{Born, Buried, Enqueued, Finish, Finished, Init, Orphan, Verdict};
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
    /// A poll that the scheduler asked for: its begin and its end have events of their own.
    is_scheduled_poll: bool,
}

impl Announced {
    pub(crate) fn of(new: &NewJob) -> Self {
        Self {
            job: new.id,
            plugin: new.plugin.clone(),
            command: new.command.clone(),
            dedupe_key: new.dedupe_key.clone(),
            attempt: None,
            is_scheduled_poll: is_scheduled_poll(new.submitted_by, &new.command),
        }
    }

    pub(crate) fn of_attempt(claimed: &ClaimedJob) -> Self {
        let is_scheduled_poll = is_scheduled_poll(&claimed.submitted_by, &claimed.command);
        let job = Self::of_row(claimed.fence.job, &claimed.plugin, &claimed.command, claimed.attempt);
        Self { is_scheduled_poll, ..job }
    }

    pub(crate) fn of_orphan(orphan: &Orphan) -> Self {
        Self::of_row(orphan.fence.job, &orphan.plugin, &orphan.command, orphan.attempt)
    }

    pub(crate) fn of_row(job: JobId, plugin: &Arc<str>, command: &Arc<str>, attempt: u32) -> Self {
        Self { attempt: Some(attempt), ..Self::born(job, plugin.clone(), command.clone()) }
    }

    fn born(job: JobId, plugin: Arc<str>, command: Arc<str>) -> Self {
        Self { job, plugin, command, dedupe_key: None, attempt: None, is_scheduled_poll: false }
    }

    /// The router made the job.
    fn routed(
        &self,
        shared: &Shared,
        parent: Option<JobId>,
        context: Option<ContextId>,
        pipeline: Option<&str>,
        step: Option<&str>,
    ) {
        let more = vec![
            ("parent_job_id", parent.map_or(Value::Null, |id| id.to_string().into())),
            ("pipeline", pipeline.into()),
            ("step_id", step.into()),
            ("event_context_id", context.map_or(Value::Null, |id| id.to_string().into())),
        ];
        self.say(shared, "router.enqueued", None, more);
    }

    fn say(&self, shared: &Shared, kind: &'static str, transition: Option<i64>, more: Vec<(&'static str, Value)>) {
        shared.ring.emit(LiveEvent {
            kind: kind.into(),
            at: shared.clock.now(),
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

/// Jobs that the ledger itself enqueued at the end of `parent`, or with a request that began with a join.
pub(crate) fn born(shared: &Shared, parent: Option<JobId>, born: &[Born]) {
    for born in born {
        let Born { job, plugin, command, context, pipeline, step, transition, .. } = born;
        let (plugin, command) = (plugin.clone(), command.clone());
        let job = Announced::born(*job, plugin, command);
        job.say(shared, "job.enqueued", Some(*transition), Vec::new());
        job.routed(shared, parent, *context, pipeline.as_deref(), step.as_deref());
    }
}

/// A job was claimed by this boot.
pub(crate) fn started(shared: &Shared, job: &ClaimedJob, transition: i64) {
    let job = Announced::of_attempt(job);
    job.say(shared, "job.started", Some(transition), Vec::new());
    if job.is_scheduled_poll {
        job.say(shared, "poll.started", None, Vec::new());
    }
}

fn is_scheduled_poll(submitted_by: &str, command: &str) -> bool {
    submitted_by == "scheduler" && command == "poll"
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
    let Buried { plugin, command, transition, born } = buried;
    let job = Announced::born(transition.job, plugin.clone(), command.clone());
    let reason = transition.reason.as_deref().unwrap_or_default();
    job.say(shared, "job.dead", Some(transition.id), vec![("reason", reason.into())]);
    self::born(shared, Some(transition.job), born);
    shared.hints.job_ended(shared, plugin);
    shared.families.ended(transition.job, || born.iter().map(|born| born.job).collect());
    shared.waiters.ended(transition.job);
}

/// An attempt ended with all that its plan holds.
pub(crate) fn ended(shared: &Shared, finish: &Finish, job: &Announced, finished: &Finished) {
    if finished.verdict == Verdict::Applied {
        followed(shared, finish, job, finished);
    }
    self::finished(shared, job, finished);
}

fn followed(shared: &Shared, finish: &Finish, parent: &Announced, finished: &Finished) {
    let plan = &finish.plan;
    // One plugin may cause a hundred thousand jobs, and this may run on the writer's thread.
    let places: HashMap<_, _> = plan.contexts.iter().map(|context| (context.id, context)).collect();
    for (child, result) in plan.children.iter().zip(&finished.children) {
        let child_announced = Announced::of(child);
        enqueued(shared, std::slice::from_ref(&child_announced), std::slice::from_ref(result));
        if matches!(result, Enqueued::Accepted { .. }) {
            let place = child.context.and_then(|id| places.get(&id));
            let (pipeline, step) = place.map_or((None, None), |p| (p.pipeline.as_deref(), p.step.as_deref()));
            child_announced.routed(shared, Some(parent.job), child.context, pipeline, step);
        }
    }
    for dropped in &plan.dropped {
        let (event, pipeline) = (dropped.event.as_str(), dropped.pipeline.as_deref());
        tracing::error!(component = "router", plugin = %parent.plugin, job_id = %parent.job, pipeline, "{}", why_dropped(dropped));
        let more = vec![
            ("event_type", event.into()),
            ("pipeline", pipeline.into()),
            ("depth", dropped.depth.into()),
            ("max_depth", dropped.max_depth.into()),
            ("reason", "depth".into()),
        ];
        parent.say(shared, "event.dropped", None, more);
    }
    if let Some(fault) = &plan.fault {
        tracing::error!(component = "router", plugin = %parent.plugin, job_id = %parent.job, "{fault}");
    }
}

/// What became of an event whose chain is as deep as it may be.
pub(crate) fn why_dropped(dropped: &Dropped) -> String {
    let Dropped { event, depth, max_depth, .. } = dropped;
    format!("event {event:?} was dropped: its chain would be {depth} hops deep, and {max_depth} are allowed")
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
    if finished.is_quarantined {
        quarantined(shared, job, finished);
    }
    born(shared, Some(job.job), &finished.born);
    if let Some(event) = &finished.breaker {
        schedules::breaker(shared, event);
    }
    if finished.status.is_none_or(JobStatus::is_terminal) {
        if let Some(status) = finished.status.filter(|_| job.is_scheduled_poll && !finished.transitions.is_empty()) {
            job.say(shared, "poll.completed", None, vec![("status", status.as_str().into())]);
        }
        shared.hints.job_ended(shared, &job.plugin);
        shared.families.ended(job.job, || followers(finished));
        shared.waiters.ended(job.job);
    }
}

/// A job died because its attempts kept ending abnormally.
fn quarantined(shared: &Shared, job: &Announced, finished: &Finished) {
    let last = finished.transitions.last();
    let reason = last.and_then(|transition| transition.reason.as_deref()).unwrap_or_default();
    tracing::error!(component = "job", plugin = %job.plugin, job_id = %job.job, "{reason}");
    job.say(shared, "job.quarantined", last.map(|transition| transition.id), vec![("reason", reason.into())]);
}

/// The jobs that an end has caused.
fn followers(finished: &Finished) -> Vec<JobId> {
    let children = finished.children.iter().filter_map(|child| match child {
        Enqueued::Accepted { job, .. } => Some(*job),
        Enqueued::Duplicate { .. } => None,
    });
    children.chain(finished.born.iter().map(|born| born.job)).collect()
}

/// A number in `0.0..1.0` for the backoff: random as the job's id is, and the same whenever it is asked for.
pub(crate) fn fraction(fence: Fence) -> f64 {
    let (_, low) = fence.job.uuid().as_u64_pair();
    let mixed = (low ^ fence.claim_no.unsigned_abs()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
