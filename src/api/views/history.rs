//! What followed from a job and what became of it, as the API shows it: attempts, transitions, times, its family.

use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_ledger::{AttemptRow, FamilyTiming, JoinRow, Readers, RecordedJob, StopwatchRow, TransitionRow};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::contexts::{self, ContextView, Hop};
use super::{JobView, output, unreadable};
use crate::error::ApiError;

/// What `?include=` adds to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Attempts,
    Transitions,
    Stopwatch,
    Timing,
    Payload,
    Context,
    Lineage,
    Hops,
    Join,
}

impl Part {
    pub(crate) const ALL: [Self; 9] = [
        Self::Attempts,
        Self::Transitions,
        Self::Stopwatch,
        Self::Timing,
        Self::Payload,
        Self::Context,
        Self::Lineage,
        Self::Hops,
        Self::Join,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Transitions => "transitions",
            Self::Stopwatch => "stopwatch",
            Self::Timing => "timing",
            Self::Payload => "payload",
            Self::Context => "context",
            Self::Lineage => "lineage",
            Self::Hops => "hops",
            Self::Join => "join",
        }
    }
}

/// The parts of a job that are shown when they are asked for.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Parts {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transitions: Option<Vec<TransitionRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopwatch: Option<Vec<StopwatchRow>>,
    /// TEL-08, over the job and its descendants.
    #[serde(skip_serializing_if = "Option::is_none")]
    timing: Option<FamilyTiming>,
    /// Of the hop that led to the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextView>,
    /// It and what it accretes to, the nearest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<Vec<ContextView>>,
    /// The jobs that led to this one, which is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<Vec<Hop>>,
    /// What waits for the job, or what it followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<JoinRow>,
}

impl Parts {
    /// Takes out what needs the right to see results: what callers sent and plugins said.
    pub(super) fn conceal(&mut self) {
        self.payload = None;
        for attempt in self.attempts.iter_mut().flatten() {
            attempt.error = None;
        }
        for transition in self.transitions.iter_mut().flatten() {
            transition.reason = None;
        }
        for record in self.stopwatch.iter_mut().flatten() {
            record.subs_json = None;
        }
        self.context.iter_mut().chain(self.lineage.iter_mut().flatten()).for_each(ContextView::conceal);
        self.hops.iter_mut().flatten().for_each(Hop::conceal);
        self.join.iter_mut().for_each(contexts::conceal_join);
    }
}

/// Adds the parts that were asked for.
pub(crate) async fn add(readers: &Readers, id: JobId, parts: &[Part], job: &mut JobView) -> Result<(), ApiError> {
    let shown = &mut job.parts;
    for part in parts {
        match part {
            Part::Attempts => shown.attempts = Some(readers.attempts(id).await.map_err(unreadable)?),
            Part::Transitions => shown.transitions = Some(readers.transitions(id).await.map_err(unreadable)?),
            Part::Stopwatch => shown.stopwatch = Some(readers.stopwatch(id).await.map_err(unreadable)?),
            Part::Timing => shown.timing = readers.family_timing(id).await.map_err(unreadable)?,
            Part::Payload => shown.payload = job.recorded.take(),
            Part::Context => shown.context = contexts::one(readers, job.event_context_id.as_deref()).await?,
            Part::Lineage => shown.lineage = Some(contexts::lineage(readers, job.event_context_id.as_deref()).await?),
            Part::Hops => shown.hops = Some(contexts::hops(readers, id).await?),
            Part::Join => shown.join = contexts::join(readers, id).await?,
        }
    }
    Ok(())
}

/// One job of a tree as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct TreeJob {
    pub(crate) job_id: String,
    /// Null for a job that nothing but a door caused.
    pub(crate) parent_job_id: Option<String>,
    pub(crate) plugin: String,
    command: String,
    pub(crate) status: JobStatus,
    attempt: u32,
    submitted_by: String,
    /// The pipeline in which its step was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_context_id: Option<String>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Box<RawValue>>,
    /// Bytes of a result that was left out because the results before it had filled the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_omitted_bytes: Option<i64>,
    /// Its node in the pipeline that was started, and which run of that it belongs to.
    #[serde(skip)]
    pub(crate) node: Option<String>,
    #[serde(skip)]
    pub(crate) run: Option<String>,
}

impl TreeJob {
    /// True when it was made for that step: `STEP`, `PIPELINE/STEP`, or the node's key.
    pub(crate) fn is_of_step(&self, step: &str) -> bool {
        let is_written = self.step_id.as_deref().is_some_and(|own| {
            let rest = step.strip_suffix(own).map(|rest| rest.strip_suffix('/'));
            own == step || rest.is_some_and(|rest| rest.is_some() && rest == self.pipeline.as_deref())
        });
        is_written || self.node.as_deref() == Some(step)
    }

    /// Where in the run it stands, in short.
    pub(crate) fn place(&self) -> Value {
        json!({ "job_id": self.job_id, "pipeline": self.pipeline, "step_id": self.step_id, "status": self.status })
    }
}

/// A job and its descendants, and whether some were left out; `None` when there is no such job.
pub(crate) async fn tree(
    readers: &Readers,
    id: JobId,
    sees_results: bool,
) -> Result<Option<(Vec<TreeJob>, bool)>, ApiError> {
    let Some(family) = readers.family(id).await.map_err(unreadable)? else { return Ok(None) };
    let jobs = family.jobs.into_iter().map(|row| {
        let status = row.status.parse().map_err(|e| ApiError::internal(format!("job {}: {e}", row.job_id)))?;
        let is_omitted = row.result.is_none() && row.result_bytes.is_some();
        Ok(TreeJob {
            job_id: row.job_id,
            parent_job_id: row.parent_job_id,
            plugin: row.plugin,
            command: row.command,
            status,
            attempt: row.attempt,
            submitted_by: row.submitted_by,
            pipeline: row.pipeline,
            step_id: row.step_id,
            event_context_id: row.event_context_id,
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            last_error: row.last_error.filter(|_| sees_results),
            result: row.result.filter(|_| sees_results).and_then(output),
            result_omitted_bytes: row.result_bytes.filter(|_| is_omitted && sees_results),
            node: row.node,
            run: row.pipeline_instance_id,
        })
    });
    let jobs: Vec<_> = jobs.collect::<Result<_, ApiError>>()?;
    Ok(Some((jobs, family.is_truncated)))
}

/// What a replay repeats; `None` when neither row nor log of the job is left.
pub(crate) async fn recorded(readers: &Readers, id: JobId) -> Result<Option<RecordedJob>, ApiError> {
    readers.recorded(id).await.map_err(unreadable)
}
