//! The way that led to a job, read from the file in the API's shapes: its context, what that accretes to, its hops, its
//! join.

use ductile_domain::builtin::is_builtin;
use ductile_domain::ids::{ContextId, JobId};
use ductile_domain::pipeline::control;
use ductile_ledger::{ContextRow, JobRow, Readers};
use serde_json::{Value, json};

use super::{output, to_value, without_nulls};
use crate::error::Error;

/// Hops that are shown, as by the API.
const MOST_HOPS: usize = 100;

/// Adds `context`, `lineage`, `hops` and `join`.
///
/// # Errors
/// The file can't be read.
pub(super) async fn add(readers: &Readers, id: JobId, job: &mut Value) -> Result<(), Error> {
    let lineage = lineage(readers, job["event_context_id"].as_str()).await?;
    let contexts = lineage.iter().map(context).collect::<Result<Vec<_>, _>>()?;
    if let Some(nearest) = contexts.first() {
        job["context"] = nearest.clone();
    }
    job["lineage"] = Value::from(contexts);
    job["hops"] = hops(readers, id).await?;
    if let Some(join) = readers.join_of(id).await.map_err(Error::ledger)? {
        job["join"] = to_value(&join)?;
    }
    Ok(())
}

/// The context and those that it accretes to, the nearest first.
async fn lineage(readers: &Readers, context: Option<&str>) -> Result<Vec<ContextRow>, Error> {
    match context.and_then(|id| id.parse::<ContextId>().ok()) {
        Some(id) => readers.lineage(id).await.map_err(Error::ledger),
        None => Ok(Vec::new()),
    }
}

fn context(row: &ContextRow) -> Result<Value, Error> {
    let mut baggage = row.accumulated.as_ref().map(to_value).transpose()?.unwrap_or_default();
    let control = baggage.as_object_mut().and_then(|fields| fields.remove(control::KEY));
    let omitted = row.accumulated.is_none().then_some(row.accumulated_bytes);
    let mut view = json!({
        "id": row.id, "parent_id": row.parent_id, "pipeline": row.pipeline, "step_id": row.step_id,
        "created_at": row.created_at, "baggage": baggage, "control": control, "omitted_bytes": omitted,
    });
    without_nulls(&mut view);
    Ok(view)
}

/// The jobs that led to this one, the first of them first and this one last. What is pruned ends the way.
async fn hops(readers: &Readers, id: JobId) -> Result<Value, Error> {
    let mut way: Vec<JobRow> = Vec::new();
    let mut next = Some(id);
    while let Some(job) = next.filter(|_| way.len() < MOST_HOPS) {
        let Some(row) = readers.job(job).await.map_err(Error::ledger)? else { break };
        next = row.parent_job_id.as_deref().and_then(|parent| parent.parse().ok());
        way.push(row);
    }
    let mut contexts = lineage(readers, way.iter().find_map(|job| job.event_context_id.as_deref())).await?;
    // What a join is given accretes to the context before its branches: theirs stand beside that line.
    for id in way.iter().filter_map(|job| job.event_context_id.as_deref()) {
        if let (false, Ok(id)) = (contexts.iter().any(|row| row.id == id), id.parse()) {
            contexts.extend(readers.context(id).await.map_err(Error::ledger)?);
        }
    }
    let hops = way.into_iter().rev().map(|job| {
        let of = contexts.iter().find(|context| Some(&context.id) == job.event_context_id.as_ref());
        hop(job, of)
    });
    Ok(hops.collect())
}

fn hop(job: JobRow, context: Option<&ContextRow>) -> Value {
    let decided = job.result.as_deref().filter(|_| is_builtin(&job.plugin)).map(output).unwrap_or_default();
    let mut hop = json!({
        "job_id": job.id, "plugin": job.plugin, "command": job.command, "status": job.status,
        "pipeline": context.and_then(|row| row.pipeline.as_deref()),
        "step_id": context.and_then(|row| row.step_id.as_deref()),
        "decision": decided["events"][0]["type"], "reason": decided["result"],
    });
    without_nulls(&mut hop);
    hop
}
