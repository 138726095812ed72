//! Jobs: one, many, what followed from one, and their cancellation.

use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue};
use ductile_domain::ids::JobId;
use ductile_domain::scope::Need;
use ductile_ledger::QuarantineRow;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::call::{Answer, Call, bad_parameter, json_answer, parse_wait, quoted};
use crate::error::{ApiError, Code};
use crate::gateway::{Cancelled, Gateway};
use crate::routes::filters::{instant, job_id, page, status};
use crate::views::history::{self, Part};
use crate::views::{self, JobView, ListQuery};

/// Says that descendants were left out of a tree, which is a bare list.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static("ductile-truncated");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    wait: Option<String>,
    include: Option<String>,
}

/// API-14: one job; with `wait` once it is terminal or the time has passed; with the parts that `include` names.
pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let query: ShowQuery = call.query()?;
    let parts = parts(query.include.as_deref())?;
    let mut job = read(&call, id).await?;
    if let Some(wait) = query.wait.as_deref().map(parse_wait).transpose()?
        && !job.status.is_terminal()
    {
        call.wait(id, wait).await;
        job = read(&call, id).await?;
    }
    history::add(call.app.gateway.readers(), id, &parts, &mut job).await?;
    json_answer(StatusCode::OK, &view(job, call.caller.sees_results()))
}

/// A list such as `attempts,transitions`; `all` stands for every part.
fn parts(text: Option<&str>) -> Result<Vec<Part>, ApiError> {
    let known = || Part::ALL.map(Part::as_str).join(", ");
    let mut parts = Vec::new();
    for word in text.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
        match Part::ALL.into_iter().find(|part| part.as_str() == word) {
            _ if word == "all" => parts.extend(Part::ALL),
            Some(part) => parts.push(part),
            None => {
                let message = format!("`include` names no part of a job: {}", quoted(word));
                return Err(bad_parameter("include", message, format!("use {} or all, with commas between", known())));
            }
        }
    }
    Ok(parts)
}

/// API-16: the job and all that followed from it, the job first, then level by level.
pub(super) async fn tree<G: Gateway>(call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let found = history::tree(call.app.gateway.readers(), id, call.caller.sees_results()).await?;
    let (jobs, is_truncated) = found.ok_or_else(|| unknown(id))?;
    let mut response = json_answer(StatusCode::OK, &jobs)?;
    if is_truncated {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[derive(Serialize)]
struct Quarantined {
    job_id: String,
    plugin: String,
    command: String,
    reason: String,
    created_at: String,
    /// Input and output: for those who see what plugins said.
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<Box<RawValue>>,
}

/// What was kept of a quarantined job.
pub(super) async fn quarantine<G: Gateway>(call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let Some(row) = call.app.gateway.readers().quarantine(id).await.map_err(views::unreadable)? else {
        let job = read(&call, id).await?;
        return Err(ApiError::new(
            Code::NotQuarantined,
            format!("job {id} is not in quarantine: it is {}", job.status),
            "a job comes there when three of its attempts ended by a signal, out of memory or with the gateway; `GET /job/{id}?include=all` shows any job",
        )
        .context(json!({ "job_id": id, "status": job.status })));
    };
    let QuarantineRow { job_id, plugin, command, reason, bundle, created_at } = row;
    // the reason ends with what the plugin printed last
    let (reason, bundle) = match call.caller.sees_results() {
        true if call.caller.demand(&Need::Admin).is_ok() => (reason, Some(bundle)),
        true => (reason, without_state(&bundle)),
        false => ("quarantined".to_owned(), None),
    };
    json_answer(StatusCode::OK, &Quarantined { job_id, plugin, command, reason, created_at, bundle })
}

/// A plugin may keep tokens in its state, which no other route shows.
fn without_state(bundle: &RawValue) -> Option<Box<RawValue>> {
    let mut bundle: Value = serde_json::from_str(bundle.get()).ok()?;
    bundle["request"].as_object_mut()?.remove("state");
    serde_json::value::to_raw_value(&bundle).ok()
}

/// The job, or 404.
pub(super) async fn read<G: Gateway>(call: &Call<G>, id: JobId) -> Result<JobView, ApiError> {
    views::job(call.app.gateway.readers(), id).await?.ok_or_else(|| unknown(id))
}

/// The job without what the caller may not see.
pub(super) fn view(mut job: JobView, sees_results: bool) -> JobView {
    if !sees_results {
        job.conceal();
    }
    job
}

pub(super) fn unknown(id: JobId) -> ApiError {
    ApiError::new(
        Code::UnknownJob,
        format!("unknown job {id}"),
        "GET /jobs lists the jobs; of one that ended longer ago than service.job_log_retention nothing is left",
    )
    .context(json!({ "job_id": id }))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct CancelQuery {
    why: Option<String>,
}

/// Cancels a queued or running job; the ledger has it before the answer.
pub(super) async fn cancel<G: Gateway>(call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let query: CancelQuery = call.query()?;
    let by = call.caller.name();
    let why = match query.why {
        Some(why) if why.len() > 512 || why.chars().any(char::is_control) => {
            return Err(bad_parameter(
                "why",
                format!("`why` is no short line of text: {}", quoted(&why)),
                "use at most 512 bytes without control characters",
            ));
        }
        Some(why) if !why.trim().is_empty() => why,
        _ => format!("by {by}"),
    };
    match call.app.gateway.cancel(id, why, by).await? {
        Cancelled::Dead => json_answer(StatusCode::OK, &json!({ "job_id": id, "status": "dead", "cancelled": true })),
        Cancelled::Stopping => {
            json_answer(StatusCode::ACCEPTED, &json!({ "job_id": id, "status": "running", "cancelled": true }))
        }
        Cancelled::AlreadyTerminal(status) => Err(ApiError::new(
            Code::AlreadyTerminal,
            format!("job {id} had already ended: {status}"),
            "nothing is left to cancel",
        )
        .context(json!({ "job_id": id, "status": status }))),
        Cancelled::Unknown => Err(unknown(id)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobsQuery {
    plugin: Option<String>,
    command: Option<String>,
    status: Option<String>,
    submitted_by: Option<String>,
    parent_job_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    offset: Option<String>,
    before: Option<String>,
}

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<JobView>,
    total: u64,
    /// `before` of the next page, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// API-17: jobs by `created_at`, newest first.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
    let query: JobsQuery = call.query()?;
    let filter = ListQuery {
        plugin: query.plugin,
        command: query.command,
        status: query.status.as_deref().map(status).transpose()?,
        submitted_by: query.submitted_by,
        parent: job_id("parent_job_id", query.parent_job_id.as_deref())?,
        from: instant("from", query.from.as_deref())?,
        to: instant("to", query.to.as_deref())?,
        page: page(query.limit.as_deref(), query.offset.as_deref(), query.before)?,
    };
    let found = views::jobs(call.app.gateway.readers(), filter).await?;
    let sees_results = call.caller.sees_results();
    let next = found.items.last().filter(|_| found.has_more).map(|job| job.job_id.clone());
    let jobs = found.items.into_iter().map(|job| view(job, sees_results)).collect();
    json_answer(StatusCode::OK, &Jobs { jobs, total: found.total, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_or_refused() {
        assert_eq!(parts(None).expect("none"), []);
        assert_eq!(parts(Some("timing, attempts")).expect("known"), [Part::Timing, Part::Attempts]);
        assert_eq!(parts(Some("all")).expect("known"), Part::ALL);
        for bad in ["", "attempt", "attempts,,timing"] {
            assert!(parts(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
