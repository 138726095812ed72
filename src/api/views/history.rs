//! What followed from a job and what became of it, as the API shows it: attempts, transitions, times, its family.

use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_ledger::{AttemptRow, FamilyTiming, Readers, RecordedJob, StopwatchRow, TransitionRow};
use serde::Serialize;
use serde_json::value::RawValue;

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
}

impl Part {
    pub(crate) const ALL: [Self; 5] = [Self::Attempts, Self::Transitions, Self::Stopwatch, Self::Timing, Self::Payload];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Transitions => "transitions",
            Self::Stopwatch => "stopwatch",
            Self::Timing => "timing",
            Self::Payload => "payload",
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
        }
    }
    Ok(())
}

/// One job of a tree as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct TreeJob {
    job_id: String,
    /// Null for a job that nothing but a door caused.
    parent_job_id: Option<String>,
    plugin: String,
    command: String,
    status: JobStatus,
    attempt: u32,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    /// Bytes of a result that was left out because the results before it had filled the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_omitted_bytes: Option<i64>,
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
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            last_error: row.last_error.filter(|_| sees_results),
            result: row.result.filter(|_| sees_results).and_then(output),
            result_omitted_bytes: row.result_bytes.filter(|_| is_omitted && sees_results),
        })
    });
    let jobs: Vec<_> = jobs.collect::<Result<_, ApiError>>()?;
    Ok(Some((jobs, family.is_truncated)))
}

/// What a replay repeats; `None` when neither row nor log of the job is left.
pub(crate) async fn recorded(readers: &Readers, id: JobId) -> Result<Option<RecordedJob>, ApiError> {
    readers.recorded(id).await.map_err(unreadable)
}
