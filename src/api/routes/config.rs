//! The configuration in force, without its secrets.

use axum::http::StatusCode;
use ductile_domain::config::Config;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, json_answer};
use crate::gateway::Gateway;
use crate::views::pipelines::compiled_routes;

/// API-36, API-37: the merged configuration in which the loader replaced secrets; of tokens only their scopes;
/// and what pipelines were compiled to.
pub(super) async fn view<G: Gateway>(call: Call<G>) -> Answer {
    let mut view = shown(&call.generation.config);
    view.insert("compiled_routes".into(), compiled_routes(&call.generation));
    json_answer(StatusCode::OK, &view)
}

fn shown(config: &Config) -> Map<String, Value> {
    let mut view = config.source.sanitized.as_object().cloned().unwrap_or_default();
    let mut api = view.remove("api").and_then(into_object).unwrap_or_default();
    // C-83: `api.tokens` holds what both places of tokens grant; their entries hold keys and are left out.
    api.remove("auth");
    view.remove("tokens");
    api.insert("enabled".into(), config.api.enabled.into());
    api.insert("listen".into(), config.api.listen.to_string().into());
    let tokens = config.api.tokens.iter().map(|token| json!({ "scopes": token.grants.words().collect::<Vec<_>>() }));
    api.insert("tokens".into(), tokens.collect());
    view.insert("api".into(), Value::Object(api));
    for (key, nothing) in [("service", json!({})), ("plugins", json!({})), ("pipelines", json!([]))] {
        view.entry(key).or_insert(nothing);
    }
    view
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(fields) = value { Some(fields) } else { None }
}
