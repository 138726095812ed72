//! Circuit breakers of scheduled commands: their state, their history, and their reset.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Answer, Call, find_plugin, json_answer};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::routes::filters::limit;
use crate::views::schedules;
use crate::views::unreadable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    plugin: Option<String>,
    limit: Option<String>,
}

/// BRK-10: each breaker that has counted a job, and that of each scheduled command.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
    let query: Query = call.query()?;
    let most = limit(query.limit.as_deref())?;
    if let Some(plugin) = &query.plugin {
        known(&call, plugin).await?;
    }
    let readers = call.app.gateway.readers();
    let breakers = schedules::breakers(readers, &call.generation, query.plugin.as_deref(), most).await;
    json_answer(StatusCode::OK, &breakers.map_err(unreadable)?)
}

/// BRK-09: closes every breaker of a plugin.
pub(super) async fn reset<G: Gateway>(call: Call<G>) -> Answer {
    let plugin = call.param("plugin");
    known(&call, plugin).await?;
    let closed = call.app.gateway.reset_breaker(plugin.to_owned(), call.caller.name()).await?;
    json_answer(StatusCode::OK, &json!({ "status": "ok", "plugin": plugin, "closed": closed }))
}

/// A plugin that was removed may have left breakers behind.
async fn known<G: Gateway>(call: &Call<G>, plugin: &str) -> Result<(), ApiError> {
    let is_configured = call.generation.config.plugins.contains_key(plugin);
    let breakers = call.app.gateway.readers().breakers(Some(plugin)).await.map_err(unreadable)?;
    if is_configured || !breakers.is_empty() { Ok(()) } else { find_plugin(&call.generation, plugin).map(drop) }
}
