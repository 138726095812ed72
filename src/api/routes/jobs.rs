//! Jobs: one, many, the log of their attempts, and their cancellation.

use std::str::FromStr;

use axum::http::StatusCode;
use ductile_domain::ids::JobId;
use ductile_domain::time;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::call::{Answer, Call, json_answer, parse_job_id, parse_wait, quoted};
use crate::error::{ApiError, Code};
use crate::gateway::{Cancelled, Gateway};
use crate::views::{self, JobView, ListQuery, LogQuery, LogView, StatusWord};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    wait: Option<String>,
}

/// API-14: one job; with `wait` once it is terminal or the time has passed.
pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let id = call.job_id()?;
    let query: ShowQuery = call.query()?;
    let mut job = read(&call, id).await?;
    if let Some(wait) = query.wait.as_deref().map(parse_wait).transpose()?
        && !job.status.is_terminal()
    {
        call.wait(id, wait).await;
        job = read(&call, id).await?;
    }
    json_answer(StatusCode::OK, &view(job, call.caller.sees_results()))
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

fn unknown(id: JobId) -> ApiError {
    ApiError::new(
        Code::UnknownJob,
        format!("unknown job {id}"),
        "GET /jobs lists jobs; one that ended long ago is in GET /job-logs only",
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
            return Err(ApiError::new(
                Code::InvalidParameter,
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
    limit: Option<String>,
}

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<JobView>,
    total: u64,
}

/// API-17: jobs by `created_at`, newest first.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
    let query: JobsQuery = call.query()?;
    let filter = ListQuery {
        plugin: query.plugin,
        command: query.command,
        status: query.status.as_deref().map(status).transpose()?,
        limit: limit(query.limit.as_deref())?,
    };
    let (jobs, total) = views::jobs(call.app.gateway.readers(), filter).await?;
    let sees_results = call.caller.sees_results();
    let jobs = jobs.into_iter().map(|job| view(job, sees_results)).collect();
    json_answer(StatusCode::OK, &Jobs { jobs, total })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    job_id: Option<String>,
    plugin: Option<String>,
    command: Option<String>,
    status: Option<String>,
    submitted_by: Option<String>,
    from: Option<String>,
    to: Option<String>,
    query: Option<String>,
    limit: Option<String>,
    include_result: Option<String>,
}

#[derive(Serialize)]
struct Logs {
    logs: Vec<LogView>,
    total: u64,
}

/// API-19: ended attempts by `completed_at`, newest first.
pub(super) async fn logs<G: Gateway>(call: Call<G>) -> Answer {
    let query: LogsQuery = call.query()?;
    let sees_results = call.caller.sees_results();
    if query.query.is_some() && !sees_results {
        // Which rows match would tell what the concealed fields hold.
        return Err(ApiError::new(
            Code::Forbidden,
            "searching in results needs the right to see them",
            "use a token with jobs:result:ro or jobs:ro",
        )
        .context(json!({ "scopes": ["jobs:result:ro", "jobs:ro", "*"] })));
    }
    let include_result = flag("include_result", query.include_result.as_deref())?;
    let filter = LogQuery {
        job: query.job_id.as_deref().map(|text| parse_job_id(text, Code::InvalidParameter)).transpose()?,
        plugin: query.plugin,
        command: query.command,
        status: query.status.as_deref().map(status).transpose()?,
        submitted_by: query.submitted_by,
        from: instant("from", query.from.as_deref())?,
        to: instant("to", query.to.as_deref())?,
        text: query.query.filter(|text| !text.is_empty()),
        limit: limit(query.limit.as_deref())?,
        include_result: include_result && sees_results,
    };
    let (mut logs, total) = views::logs(call.app.gateway.readers(), filter).await?;
    if !sees_results {
        logs.iter_mut().for_each(LogView::conceal);
    }
    json_answer(StatusCode::OK, &Logs { logs, total })
}

/// API-18: the stored words and three aliases.
fn status(text: &str) -> Result<StatusWord, ApiError> {
    StatusWord::from_str(text).map_err(|_| {
        ApiError::new(
            Code::InvalidParameter,
            format!("unknown status {}", quoted(text)),
            "use queued, running, succeeded, failed, timed_out, dead or skipped; pending, ok and error are understood",
        )
    })
}

/// API-22: what is too much is clamped; what is no number is refused.
fn limit(text: Option<&str>) -> Result<u32, ApiError> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u32>().unwrap_or(MAX_LIMIT) {
        limit if is_number && limit > 0 => Ok(limit.min(MAX_LIMIT)),
        _ => Err(ApiError::new(
            Code::InvalidParameter,
            format!("`limit` is not a number from 1: {}", quoted(text)),
            "use 1 to 200",
        )),
    }
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(ApiError::new(
            Code::InvalidParameter,
            format!("`{name}` is neither true nor false: {}", quoted(other)),
            "use true or false",
        )),
    }
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<time::Timestamp>, ApiError> {
    text.map(|text| {
        time::parse(text).ok_or_else(|| {
            ApiError::new(
                Code::InvalidParameter,
                format!("`{name}` is not an RFC 3339 time: {}", quoted(text)),
                "write it like 2026-02-21T10:00:00Z, with `+` in an offset as %2B",
            )
        })
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-22: a limit above 200 is clamped.
    #[test]
    fn a_limit_is_clamped_but_never_guessed() {
        for (text, expected) in [(None, 50), (Some("1"), 1), (Some("500"), 200), (Some("99999999999"), 200)] {
            assert_eq!(limit(text).expect("a number"), expected);
        }
        for bad in ["0", "-1", "", "x", "1e3", "+5"] {
            assert!(limit(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
