//! Facts and figures: what plugins observed, how long they take, what waits, how jobs ended.

use axum::http::StatusCode;
use ductile_domain::ids::is_name;
use ductile_ledger::{FactFilter, FactRow};
use serde::{Deserialize, Serialize};

use crate::call::{Answer, Call, bad_parameter, find_plugin, json_answer, quoted};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::routes::filters::{limit, sequence, window};
use crate::views::figures::{self, Stopwatch};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsQuery {
    r#type: Option<String>,
    limit: Option<String>,
    before_seq: Option<String>,
}

#[derive(Serialize)]
struct Facts<'a> {
    plugin: &'a str,
    facts: Vec<FactRow>,
    /// `before_seq` of the next page, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// FCT-13: the facts of a plugin, newest first; also of one that the configuration no longer has.
pub(super) async fn facts<G: Gateway>(call: Call<G>) -> Answer {
    let query: FactsQuery = call.query()?;
    let most = limit(query.limit.as_deref())?;
    let before = sequence("before_seq", query.before_seq.as_deref())?;
    let plugin = call.param("plugin");
    let filter = FactFilter { fact_type: query.r#type, before, limit: most + 1 };
    let mut facts = figures::facts(call.app.gateway.readers(), plugin, &filter).await?;
    if facts.is_empty() {
        find_plugin(&call.generation, plugin)?;
    }
    let has_more = facts.len() > most as usize;
    facts.truncate(most as usize);
    let next = facts.last().filter(|_| has_more).and_then(|fact| fact.seq);
    json_answer(StatusCode::OK, &Facts { plugin, facts, next })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopwatchQuery {
    command: Option<String>,
    window: Option<String>,
}

#[derive(Serialize)]
struct StopwatchOf<'a> {
    plugin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<&'a str>,
    #[serde(flatten)]
    stopwatch: Stopwatch,
}

/// API-40: count and percentiles of `dur_ns` over the newest attempts of a plugin.
pub(super) async fn stopwatch<G: Gateway>(call: Call<G>) -> Answer {
    let query: StopwatchQuery = call.query()?;
    let (plugin, command) = (call.param("plugin"), query.command.as_deref());
    if let Some(command) = command.filter(|command| !is_name(command)) {
        return Err(bad_command(command));
    }
    let since = query.window.as_deref().map(window).transpose()?;
    let stopwatch = figures::stopwatch(call.app.gateway.readers(), plugin, command, since).await?;
    if stopwatch.count() == 0 {
        find_plugin(&call.generation, plugin)?;
    }
    json_answer(StatusCode::OK, &StopwatchOf { plugin, command, window: query.window.as_deref(), stopwatch })
}

fn bad_command(command: &str) -> ApiError {
    bad_parameter("command", format!("`command` is no command's name: {}", quoted(command)), "use one such as poll")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}

/// API-34.
pub(super) async fn queue<G: Gateway>(call: Call<G>) -> Answer {
    let NoQuery {} = call.query()?;
    json_answer(StatusCode::OK, &figures::queue(call.app.gateway.readers(), &call.generation).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SummaryQuery {
    window: Option<String>,
}

#[derive(Serialize)]
struct Summary<'a, S> {
    window: &'a str,
    stats: S,
}

/// API-35: how many jobs ended in which way, in the last 24 hours unless `window` says otherwise.
pub(super) async fn summary<G: Gateway>(call: Call<G>) -> Answer {
    let query: SummaryQuery = call.query()?;
    let text = query.window.as_deref().unwrap_or("24h");
    let stats = figures::summary(call.app.gateway.readers(), window(text)?).await?;
    json_answer(StatusCode::OK, &Summary { window: text, stats })
}
