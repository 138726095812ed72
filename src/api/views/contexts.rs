//! The way that led to a job, as the API shows it: its context, what that accretes to, its hops, its join.

use std::collections::BTreeMap;

use ductile_domain::builtin;
use ductile_domain::ids::{ContextId, JobId};
use ductile_domain::pipeline::{Control, control};
use ductile_ledger::{ContextRow, JobRow, JoinRow, Readers};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::unreadable;
use crate::error::ApiError;

/// Hops that are shown; a longer way is shown from its end.
const MOST_HOPS: usize = 100;

/// A row of `event_context`.
#[derive(Debug, Serialize)]
pub(crate) struct ContextView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    /// The pipeline in which the step was written; absent for a plain route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<String>,
    created_at: String,
    /// What steps have claimed so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    baggage: Option<BTreeMap<String, Box<RawValue>>>,
    /// What the gateway keeps beside it: the pipeline that was started, the node in it, the run, the depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    control: Option<Box<RawValue>>,
    /// Bytes of what was left out because the rows before it had filled the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted_bytes: Option<i64>,
}

impl ContextView {
    fn of(row: ContextRow) -> Self {
        let omitted_bytes = row.accumulated.is_none().then_some(row.accumulated_bytes);
        let accumulated = row.accumulated.and_then(|text| serde_json::from_str(text.get()).ok());
        let mut baggage: Option<BTreeMap<String, Box<RawValue>>> = accumulated;
        let control = baggage.as_mut().and_then(|baggage| baggage.remove(control::KEY));
        Self {
            id: row.id,
            parent_id: row.parent_id,
            pipeline: row.pipeline,
            step_id: row.step_id,
            created_at: row.created_at,
            baggage,
            control,
            omitted_bytes,
        }
    }

    /// Takes out what plugins said.
    pub(super) fn conceal(&mut self) {
        self.baggage = None;
        self.omitted_bytes = None;
    }
}

/// One job of the way that led to a job.
#[derive(Debug, Serialize)]
pub(crate) struct Hop {
    pub(crate) job_id: String,
    plugin: String,
    command: String,
    status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<String>,
    /// What a step of the gateway's own decided: the type of its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Hop {
    /// Takes out what tells of payloads.
    pub(super) fn conceal(&mut self) {
        self.reason = None;
    }
}

/// What an attempt of a built-in step leaves as its result.
#[derive(Deserialize)]
struct Decided {
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
}

/// The context and those that it accretes to, the nearest first; empty when there is none, or it is pruned.
pub(crate) async fn lineage(readers: &Readers, context: Option<&str>) -> Result<Vec<ContextView>, ApiError> {
    Ok(rows(readers, context).await?.into_iter().map(ContextView::of).collect())
}

async fn rows(readers: &Readers, context: Option<&str>) -> Result<Vec<ContextRow>, ApiError> {
    match context.and_then(|id| id.parse::<ContextId>().ok()) {
        Some(id) => readers.lineage(id).await.map_err(unreadable),
        None => Ok(Vec::new()),
    }
}

/// One context.
pub(crate) async fn one(readers: &Readers, context: Option<&str>) -> Result<Option<ContextView>, ApiError> {
    match context.and_then(|id| id.parse::<ContextId>().ok()) {
        Some(id) => Ok(readers.context(id).await.map_err(unreadable)?.map(ContextView::of)),
        None => Ok(None),
    }
}

/// Which step of which pipeline the context was made for; `None` for a plain route's, and when it is pruned.
pub(crate) async fn control(readers: &Readers, id: ContextId) -> Result<Option<Control>, ApiError> {
    let row = readers.context(id).await.map_err(unreadable)?;
    Ok(row.and_then(|row| Control::of(row.accumulated.as_deref()?)))
}

/// The jobs that led to this one, the first of them first and this one last. What is pruned ends the way.
pub(crate) async fn hops(readers: &Readers, id: JobId) -> Result<Vec<Hop>, ApiError> {
    let mut way: Vec<JobRow> = Vec::new();
    let mut next = Some(id);
    while let Some(job) = next.filter(|_| way.len() < MOST_HOPS) {
        let Some(row) = readers.job(job).await.map_err(unreadable)? else { break };
        next = row.parent_job_id.as_deref().and_then(|parent| parent.parse().ok());
        way.push(row);
    }
    let mut contexts = rows(readers, way.iter().find_map(|job| job.event_context_id.as_deref())).await?;
    // What a join is given accretes to the context before its branches: theirs stand beside that line.
    for id in way.iter().filter_map(|job| job.event_context_id.as_deref()) {
        if let (false, Ok(id)) = (contexts.iter().any(|row| row.id == id), id.parse()) {
            contexts.extend(readers.context(id).await.map_err(unreadable)?);
        }
    }
    let contexts: BTreeMap<&str, &ContextRow> = contexts.iter().map(|row| (&*row.id, row)).collect();
    Ok(way.into_iter().rev().map(|job| hop(job, &contexts)).collect())
}

fn hop(job: JobRow, contexts: &BTreeMap<&str, &ContextRow>) -> Hop {
    let context = job.event_context_id.as_deref().and_then(|id| contexts.get(id));
    let decided: Option<Decided> = match &job.result {
        Some(result) if builtin::is_builtin(&job.plugin) => serde_json::from_str(result).ok(),
        _ => None,
    };
    let (reason, events) = decided.map(|decided| (decided.result, decided.events)).unwrap_or_default();
    Hop {
        job_id: job.id,
        plugin: job.plugin,
        command: job.command,
        status: job.status,
        pipeline: context.and_then(|row| row.pipeline.clone()),
        step_id: context.and_then(|row| row.step_id.clone()),
        decision: events.into_iter().next().map(|event| event.r#type),
        reason,
    }
}

/// The join that waits for the job, or that the job followed.
pub(crate) async fn join(readers: &Readers, id: JobId) -> Result<Option<JoinRow>, ApiError> {
    readers.join_of(id).await.map_err(unreadable)
}

/// Takes out what jobs brought to the join.
pub(super) fn conceal_join(join: &mut JoinRow) {
    for branch in &mut join.branches {
        branch.payload = None;
        branch.error = None;
    }
}
