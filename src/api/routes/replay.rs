//! A replay: a new job with the recorded input of one that has ended.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use ductile_domain::ids::{ContextId, JobId};
use ductile_domain::job::JobStatus;
use ductile_domain::scope::Need;
use ductile_ledger::RecordedJob;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::call::{Answer, Call, find_target, json_answer, parse_wait};
use crate::error::{ApiError, Code};
use crate::gateway::{Gateway, Submission};
use crate::routes::jobs::unknown;
use crate::routes::plugins::{dedupe_key, job_of, parse_body, waited};
use crate::views::history;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    wait: Option<String>,
}

/// QUE-35: enqueues a new job with the payload and the context of an ended one; a `payload` in the body replaces the
/// recorded one. The new job has no parent, and its first transition names the old one.
pub(super) async fn replay<G: Gateway>(mut call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let query: ReplayQuery = call.query()?;
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    let bytes = call.body().await?;
    let body = parse_body(&bytes)?;
    // In a space of its own, so that the key of the old job's request does not find the old job.
    let key = dedupe_key(call.headers(), body.dedupe_key)?.map(|key| format!("replay:{id}:{key}"));
    let recorded = history::recorded(call.app.gateway.readers(), id).await?.ok_or_else(|| unknown(id))?;
    let context = context(id, &recorded)?;
    let (plugin, command) =
        find_target(&call.generation, &recorded.plugin, &recorded.command).map_err(|error| gone(id, error))?;
    if body.payload.is_some() || call.caller.denies(&plugin.name, &command.name) {
        // Another input is another call, and not only the repetition of one that was allowed.
        call.caller.demand(&Need::Invoke { plugin: &plugin.name, command: &command.name, kind: command.kind })?;
    }
    let submission = Submission {
        plugin: plugin.name.clone(),
        command: command.name.as_str().into(),
        payload: input(id, &command.name, &recorded, body.payload)?,
        submitted_by: "api",
        requested_by: call.caller.name(),
        dedupe_in_flight: key.is_some(),
        dedupe_key: key,
        context,
        replay_of: Some(id),
        is_routed: true,
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
