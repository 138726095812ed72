//! A replay: a new job with the recorded input of one that has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use ductile_domain::builtin::is_builtin;
use ductile_domain::ids::{ContextId, JobId};
use ductile_domain::job::JobStatus;
use ductile_domain::manifest::CommandType;
use ductile_domain::scope::Need;
use ductile_ledger::RecordedJob;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::call::{Answer, Call, find_target, json_answer, parse_wait, quoted, suggestion};
use crate::error::{ApiError, Code};
use crate::gateway::{Gateway, Submission};
use crate::routes::filters::flag;
use crate::routes::jobs::unknown;
use crate::routes::pipelines::demand_steps;
use crate::routes::plugins::{dedupe_key, demand_object, job_of, parse_object, waited};
use crate::views::contexts;
use crate::views::history::{self, TreeJob};
use crate::views::runs;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    wait: Option<String>,
    route: Option<String>,
}

/// What may differ from the recorded job.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReplayBody<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    dedupe_key: Option<String>,
    /// The step whose job is repeated, in the run that the path's job belongs to.
    #[serde(default)]
    from_step: Option<String>,
}

const SHAPE: &str = "send an object such as {\"from_step\": \"...\", \"payload\": {...}, \"dedupe_key\": \"...\"}; \
    all fields are optional";

/// QUE-35: enqueues a new job with the payload and the context of an ended one; a `payload` in the body replaces the
/// recorded one. The new job has no parent, and its first transition names the old one. `from_step` names the job of another
/// step of the same run; what follows the step follows again.
pub(super) async fn replay<G: Gateway>(mut call: Call<G>) -> Answer {
    let asked = call.job_id()?;
    let query: ReplayQuery = call.query()?;
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    let route = query.route.as_deref().map(|text| flag("route", Some(text))).transpose()?;
    let bytes = call.body().await?;
    let body: ReplayBody<'_> = parse_object(&bytes, SHAPE)?;
    demand_object(body.payload, SHAPE)?;
    let id = match &body.from_step {
        Some(step) => job_of_step(&call, asked, step).await?,
        None => asked,
    };
    // In a space of its own, so that the key of the old job's request does not find the old job.
    let key = dedupe_key(call.headers(), body.dedupe_key)?.map(|key| format!("replay:{id}:{key}"));
    let recorded = history::recorded(call.app.gateway.readers(), id).await?.ok_or_else(|| unknown(id))?;
    let context = context(id, &recorded)?;
    demand_step(&call, id, context).await?;
    let target = target(&call, &recorded).map_err(|error| gone(id, error))?;
    let Target { plugin, command, kind } = &target;
    if body.payload.is_some() || call.caller.denies(plugin, command) {
        // Another input is another call, and not only the repetition of one that was allowed.
        call.caller.demand(&Need::Invoke { plugin, command, kind: *kind })?;
    }
    let submission = Submission {
        payload: input(id, command, &recorded, body.payload)?,
        plugin: target.plugin,
        command: target.command,
        submitted_by: "api",
        requested_by: call.caller.name(),
        dedupe_in_flight: key.is_some(),
        dedupe_key: key,
        context,
        replay_of: Some(id),
        is_routed: route.unwrap_or(recorded.is_routed),
    };
    let submitted = call.app.gateway.submit(submission).await?;
    if let Some(wait) = wait {
        return waited(&call, submitted, wait).await;
    }
    let (job, status, is_duplicate) = job_of(submitted);
    let mut answer = json!({
        "job_id": job, "status": status, "plugin": recorded.plugin, "command": recorded.command, "replay_of": id,
    });
    if is_duplicate {
        answer["duplicate"] = true.into();
    }
    json_answer(if status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED }, &answer)
}

/// What a replay runs.
struct Target {
    plugin: Arc<str>,
    command: Arc<str>,
    kind: CommandType,
}

/// The recorded plugin and command, in the generation in force; the gateway's own steps always are.
fn target<G: Gateway>(call: &Call<G>, recorded: &RecordedJob) -> Result<Target, ApiError> {
    if is_builtin(&recorded.plugin) {
        let (plugin, command) = (recorded.plugin.as_str().into(), recorded.command.as_str().into());
        return Ok(Target { plugin, command, kind: CommandType::Write });
    }
    let (plugin, command) = find_target(&call.generation, &recorded.plugin, &recorded.command)?;
    Ok(Target { plugin: plugin.name.clone(), command: command.name.as_str().into(), kind: command.kind })
}

/// A step's job runs again only where its step is still in force, and for whom may run all that follows it.
async fn demand_step<G: Gateway>(call: &Call<G>, id: JobId, context: Option<ContextId>) -> Result<(), ApiError> {
    let Some(context) = context else { return Ok(()) };
    let control = contexts::control(call.app.gateway.readers(), context).await?;
    let Some(control) = control.filter(|control| control.root.is_some()) else { return Ok(()) };
    let pipeline = control.root.as_deref().and_then(|root| call.generation.pipelines.get(root));
    if let (Some(pipeline), Some(_)) = (pipeline, call.generation.pipelines.node_of(&control)) {
        return demand_steps(call, pipeline);
    }
    let [root, node] = [&control.root, &control.node].map(|name| name.as_deref().unwrap_or_default());
    let hint = "GET /pipelines lists what is in force; start the pipeline anew with POST /pipeline/{pipeline}";
    Err(refused(id, format!("step {node:?} of pipeline {root:?}, which job {id} was made for, is not in force"), hint))
}

/// The one job of a step in the run that a job belongs to; the step is named `STEP`, `PIPELINE/STEP` or by its key.
async fn job_of_step<G: Gateway>(call: &Call<G>, job: JobId, step: &str) -> Result<JobId, ApiError> {
    let run = runs::of(call.app.gateway.readers(), job).await?.ok_or_else(|| unknown(job))?;
    let found: Vec<&TreeJob> = run.iter().filter(|job| job.is_of_step(step)).collect();
    let listed = |jobs: &[&TreeJob]| jobs.iter().map(|job| job.place()).collect::<Vec<_>>();
    match found.as_slice() {
        [one] => one.job_id.parse().map_err(|e| ApiError::internal(format!("job {}: {e}", one.job_id))),
        [] => {
            let steps: Vec<&TreeJob> = run.iter().filter(|job| job.step_id.is_some()).collect();
            let known = steps.iter().filter_map(|job| job.step_id.as_deref());
            let hint =
                suggestion(step, known, "`context.steps` lists what has run; a step that never ran has no input");
            let why = format!("no job of this run is of step {}", quoted(step));
            Err(ApiError::new(Code::NotReplayable, why, hint)
                .context(json!({ "job_id": job, "steps": listed(&steps) })))
        }
        several => {
            let why = format!("{} jobs of this run are of step {}", several.len(), quoted(step));
            Err(ApiError::new(Code::NotReplayable, why, "replay the one that is meant by its own id")
                .context(json!({ "job_id": job, "steps": listed(several) })))
        }
    }
}

fn refused(id: JobId, why: String, hint: &'static str) -> ApiError {
    ApiError::new(Code::NotReplayable, why, hint).context(json!({ "job_id": id }))
}

/// What the recorded job ran does not run any more; the inner refusal says why.
fn gone(id: JobId, error: ApiError) -> ApiError {
    let hint = "bring the plugin back into the configuration, or call another command";
    refused(id, format!("job {id} can't be run again: {}", error.message()), hint)
}

/// The baggage of a job that has ended.
fn context(id: JobId, recorded: &RecordedJob) -> Result<Option<ContextId>, ApiError> {
    // Only the rows of ended jobs are ever pruned.
    let status = recorded.status.as_deref().map(str::parse::<JobStatus>).transpose();
    let status = status.map_err(|error| ApiError::internal(format!("job {id}: {error}")))?;
    if let Some(status) = status.filter(|status| !status.is_terminal()) {
        let hint = "wait for its end with GET /job/{id}?wait=30s, or cancel it";
        return Err(refused(id, format!("job {id} has not ended: {status}"), hint)
            .context(json!({ "job_id": id, "status": status })));
    }
    if !recorded.has_its_context {
        let hint = "trigger the pipeline anew; a longer retention keeps contexts";
        return Err(refused(id, format!("the context of job {id} is pruned"), hint));
    }
    let context = recorded.event_context_id.as_deref().map(str::parse).transpose();
    context.map_err(|error| ApiError::internal(format!("job {id}: its context is {error}")))
}

/// The recorded input, or the given one in its place: for `handle` inside the recorded event.
fn input(
    id: JobId,
    command: &str,
    recorded: &RecordedJob,
    given: Option<&RawValue>,
) -> Result<Option<Box<RawValue>>, ApiError> {
    let unreadable = || {
        let hint = "call the command anew, with a payload";
        refused(id, format!("the recorded input of job {id} can't be read"), hint)
    };
    let stored = recorded.payload.as_ref().map(|text| RawValue::from_string(text.clone())).transpose();
    let (Some(given), true) = (given, command == "handle") else {
        return match given {
            Some(payload) => Ok(Some(payload.to_owned())),
            None => stored.map_err(|_| unreadable()),
        };
    };
    let text = recorded.payload.as_deref().unwrap_or("{}");
    let mut event: BTreeMap<&str, &RawValue> = serde_json::from_str(text).map_err(|_| unreadable())?;
    event.insert("payload", given);
    serde_json::value::to_raw_value(&event).map(Some).map_err(|_| unreadable())
}
