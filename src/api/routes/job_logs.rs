//! The log of ended attempts: filtered, searched, page by page.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::call::{Answer, Call, bad_parameter, json_answer};
use crate::error::{ApiError, Code};
use crate::gateway::Gateway;
use crate::routes::filters::{flag, instant, job_id, page, status};
use crate::views::{self, LogQuery, LogView};

/// Each word of a search is looked for in every text that matches so far.
const MOST_WORDS: usize = 8;
const LONGEST_SEARCH: usize = 512;

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
    offset: Option<String>,
    before: Option<String>,
    include_result: Option<String>,
}

#[derive(Serialize)]
struct Logs {
    logs: Vec<LogView>,
    total: u64,
    /// `before` of the next page, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// API-19: ended attempts by `completed_at`, newest first.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
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
        job: job_id("job_id", query.job_id.as_deref())?,
        plugin: query.plugin,
        command: query.command,
        status: query.status.as_deref().map(status).transpose()?,
        submitted_by: query.submitted_by,
        from: instant("from", query.from.as_deref())?,
        to: instant("to", query.to.as_deref())?,
        text: query.query.map(search).transpose()?,
        page: page(query.limit.as_deref(), query.offset.as_deref(), query.before)?,
        include_result: include_result && sees_results,
    };
    let found = views::logs(call.app.gateway.readers(), filter).await?;
    let next = found.items.last().filter(|_| found.has_more).map(|log| log.log_id.clone());
    let mut logs = found.items;
    if !sees_results {
        logs.iter_mut().for_each(LogView::conceal);
    }
    json_answer(StatusCode::OK, &Logs { logs, total: found.total, next })
}

/// API-20: words that must all occur.
fn search(text: String) -> Result<String, ApiError> {
    if text.len() > LONGEST_SEARCH || text.split_whitespace().count() > MOST_WORDS {
        return Err(bad_parameter(
            "query",
            "`query` is too long",
            format!("search for at most {MOST_WORDS} words in {LONGEST_SEARCH} bytes"),
        ));
    }
    Ok(text)
}
