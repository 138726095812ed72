//! Pipelines: the list, one of them as written and as compiled, the whole wiring, a preview, a start.

use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::HeaderValue;
use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_domain::pipeline::{Action, Execution, Pipeline};
use ductile_domain::scope::Need;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::call::{Answer, Call, closed, json_answer};
use crate::error::{ApiError, Code};
use crate::gateway::{Gateway, PipelineStart, Submitted};
use crate::routes::filters::flag;
use crate::routes::jobs::TRUNCATED;
use crate::routes::plugins::{dedupe_key, job_of, parse_body};
use crate::views::pipelines as views;
use crate::views::runs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// What starts which pipeline, how it is waited for, and when it last did something; and the plain routes.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
    let NoQuery {} = call.query()?;
    json_answer(StatusCode::OK, &views::list(&call.generation, call.app.gateway.readers(), sees_jobs(&call)).await?)
}

/// One pipeline: its steps as their author wrote them, and what they were compiled to.
pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let NoQuery {} = call.query()?;
    let pipeline = find(&call)?;
    let readers = call.app.gateway.readers();
    json_answer(StatusCode::OK, &views::one(&call.generation, pipeline, readers, sees_jobs(&call)).await?)
}

/// API-41: which plugin's signals reach which plugin.
pub(super) async fn topology<G: Gateway>(call: Call<G>) -> Answer {
    let NoQuery {} = call.query()?;
    json_answer(StatusCode::OK, &views::topology(&call.generation))
}

/// CLI-35: what a payload would make of the pipeline. Nothing is enqueued and nothing is run.
pub(super) async fn dry_run<G: Gateway>(mut call: Call<G>) -> Answer {
    let NoQuery {} = call.query()?;
    let bytes = call.body().await?;
    let payload = parse_body(&bytes)?.payload.map_or("{}", RawValue::get);
    let payload = RawValue::from_string(payload.to_owned())
        .map_err(|error| ApiError::internal(format!("a payload that was read is no JSON: {error}")))?;
    json_answer(StatusCode::OK, &views::preview(&call.generation, find(&call)?, &payload)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartQuery {
    r#async: Option<String>,
}

/// API-06 to API-13: starts a pipeline; waits for the end of all its jobs when it is synchronous, unless `?async=true`.
pub(super) async fn start<G: Gateway>(mut call: Call<G>) -> Answer {
    let query: StartQuery = call.query()?;
    let is_detached = flag("async", query.r#async.as_deref())?;
    let bytes = call.body().await?;
    let body = parse_body(&bytes)?;
    let pipeline = find(&call)?;
    // In a space of its own: jobs are compared by plugin and command, and other pipelines may begin with the same ones.
    let dedupe_key =
        dedupe_key(call.headers(), body.dedupe_key)?.map(|key| format!("pipeline:{}:{key}", pipeline.name));
    demand_steps(&call, pipeline)?;
    let is_awaited = pipeline.execution == Execution::Synchronous && !is_detached;
    let gateway = &call.app.gateway;
    // Taken before anything is enqueued, so that a refusal leaves no trace.
    let place = match is_awaited.then(|| gateway.sync_place()) {
        Some(None) => return Err(ApiError::too_many_sync(call.generation.config.api.max_concurrent_sync)),
        place => place.flatten(),
    };
    let begin = Instant::now();
    let entries = gateway.start_pipeline(PipelineStart {
        pipeline: pipeline.name.clone(),
        payload: body.payload.map(RawValue::to_owned),
        submitted_by: call.caller.submitted_by(call.headers()),
        requested_by: call.caller.name(),
        is_single: is_awaited || dedupe_key.is_some(),
        dedupe_key,
    });
    let entries = entries.await?;
    let Some(&first) = entries.first() else {
        return Err(ApiError::internal(format!("pipeline {:?} was started with no job", pipeline.name)));
    };
    if place.is_none() {
        return accepted(pipeline, first, &entries);
    }
    let answer = awaited(&call, pipeline, first, begin).await;
    drop(place);
    answer
}

/// API-06: labels of the pipeline, though every job is a real step's (C-58).
fn accepted(pipeline: &Pipeline, first: Submitted, entries: &[Submitted]) -> Answer {
    let (job_id, status, is_duplicate) = job_of(first);
    let answer = Accepted {
        job_id,
        status,
        plugin: "pipeline",
        command: &pipeline.name,
        job_ids: entries.iter().map(|&entry| job_of(entry).0).collect(),
        duplicate: is_duplicate,
    };
    json_answer(if status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED }, &answer)
}

#[derive(Serialize)]
struct Accepted<'a> {
    /// The first entry.
    job_id: JobId,
    status: JobStatus,
    plugin: &'static str,
    command: &'a str,
    /// All entries, in authored order.
    job_ids: Vec<JobId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// API-07, API-10, API-11, API-13: the end of all that followed, or that the time was too short for it.
async fn awaited<G: Gateway>(call: &Call<G>, pipeline: &Pipeline, first: Submitted, begin: Instant) -> Answer {
    let (job, ..) = job_of(first);
    let time = pipeline.timeout.min(call.generation.config.api.max_sync_timeout);
    let is_over = tokio::select! {
        is_over = call.app.gateway.wait_for_family(job, time) => is_over,
        () = closed(call.closing()) => false,
    };
    if !is_over {
        let answer = json!({
            "job_id": job,
            "status": JobStatus::Running,
            "timeout_exceeded": true,
            "message": "Pipeline still running after timeout.",
        });
        return json_answer(StatusCode::ACCEPTED, &answer);
    }
    let run = runs::ended(call.app.gateway.readers(), pipeline, job, call.caller.sees_results()).await?;
    let (mut run, is_truncated) =
        run.ok_or_else(|| ApiError::internal(format!("job {job} ended and is not in the ledger")))?;
    run.duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut response = json_answer(StatusCode::OK, &run)?;
    if is_truncated {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A token that is denied a command starts no pipeline that runs it, and repeats no step of one.
pub(super) fn demand_steps<G: Gateway>(call: &Call<G>, pipeline: &Pipeline) -> Result<(), ApiError> {
    for node in &pipeline.nodes {
        let Action::Uses { plugin, command, .. } = &node.action else { continue };
        if call.caller.denies(plugin, command) {
            return Err(ApiError::new(
                Code::Forbidden,
                format!("step {:?} of the pipeline runs {plugin}.{command}, which the token is denied", node.key),
                format!("use a token without {plugin}:deny:{command}"),
            )
            .context(json!({ "step": node.key, "plugin": plugin, "command": command, "scopes": ["*"] })));
        }
    }
    Ok(())
}

/// When a pipeline last did something is told by its jobs.
fn sees_jobs<G: Gateway>(call: &Call<G>) -> bool {
    call.caller.may(&Need::Jobs)
}

/// The pipeline that the path names.
fn find<G: Gateway>(call: &Call<G>) -> Result<&Pipeline, ApiError> {
    let name = call.param("pipeline");
    let pipelines = &call.generation.pipelines;
    let found = pipelines.get(name).map(|pipeline| &**pipeline);
    found.ok_or_else(|| ApiError::unknown_pipeline(name, pipelines.iter().map(|pipeline| &*pipeline.name)))
}
