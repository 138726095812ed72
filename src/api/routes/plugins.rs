//! Plugins: the catalog, one plugin's manifest, and the direct call of a command.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{EventId, JobId};
use ductile_domain::job::JobStatus;
use ductile_domain::manifest::{Command, FactRule};
use ductile_domain::time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::call::{Answer, Call, bad_parameter, find_plugin, json_answer, json_text, parse_wait, quoted};
use crate::error::{ApiError, Code};
use crate::gateway::{Gateway, Submission, Submitted};
use crate::routes::filters::flag;
use crate::routes::jobs;
use crate::views;

#[derive(Serialize)]
struct Brief<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    commands: Vec<&'a str>,
    /// The base plugin of an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<&'a str>,
    runnable: bool,
    /// False after a failed `init`; why is for those with a scope.
    healthy: bool,
}

#[derive(Serialize)]
struct Briefs<'a> {
    plugins: Vec<Brief<'a>>,
}

/// API-26.
pub(super) async fn list<G: Gateway>(call: Call<G>) -> Answer {
    let failed = views::failed_inits(call.app.gateway.readers()).await;
    let plugins = call.generation.catalog.iter().map(|plugin| Brief {
        name: &plugin.name,
        version: &plugin.manifest.version,
        description: plugin.manifest.description.as_deref(),
        commands: plugin.manifest.commands.iter().map(|c| c.name.as_str()).collect(),
        uses: base(plugin),
        runnable: plugin.is_runnable,
        healthy: !failed.contains_key(&*plugin.name),
    });
    json_answer(StatusCode::OK, &Briefs { plugins: plugins.collect() })
}

#[derive(Serialize)]
struct Full<'a> {
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    protocol: u32,
    /// The base plugin of an alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<&'a str>,
    runnable: bool,
    /// False after a failed `init`.
    healthy: bool,
    /// Why, for those who see results.
    #[serde(skip_serializing_if = "Option::is_none")]
    unhealthy_reason: Option<&'a str>,
    /// What its last `init` said, once one has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_result: Option<String>,
    /// Cap of its concurrent jobs.
    parallelism: u32,
    concurrency_safe: bool,
    config_keys: ConfigKeys<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fact_outputs: &'a [FactRule],
    commands: &'a [Command],
}

/// Keys of the operator's `config`; their values are shown by nobody.
#[derive(Serialize)]
struct ConfigKeys<'a> {
    required: &'a [String],
    optional: &'a [String],
}

/// API-27.
pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let plugin = find_plugin(&call.generation, call.param("plugin"))?;
    let manifest = &plugin.manifest;
    let failed = views::failed_inits(call.app.gateway.readers()).await;
    let failed = failed.get(&*plugin.name);
    let view = Full {
        name: &plugin.name,
        version: &manifest.version,
        description: manifest.description.as_deref(),
        protocol: manifest.protocol,
        uses: base(plugin),
        aliases: aliases(&call.generation, plugin),
        runnable: plugin.is_runnable,
        healthy: failed.is_none(),
        unhealthy_reason: failed.filter(|_| call.caller.sees_results()).map(String::as_str),
        init_result: views::init_result(call.app.gateway.readers(), &plugin.name).await,
        parallelism: plugin.parallelism,
        concurrency_safe: manifest.concurrency_safe,
        config_keys: ConfigKeys { required: &manifest.required_config, optional: &manifest.optional_config },
        fact_outputs: &manifest.fact_outputs,
        commands: &manifest.commands,
    };
    json_answer(StatusCode::OK, &view)
}

/// The base plugin of an alias.
fn base(plugin: &Plugin) -> Option<&str> {
    (*plugin.name != *plugin.manifest.name).then_some(&plugin.manifest.name)
}

/// The aliases of a base plugin.
fn aliases<'a>(generation: &'a Generation, plugin: &Plugin) -> Vec<&'a str> {
    generation.catalog.iter().filter(|p| base(p) == Some(&*plugin.name)).map(|p| &*p.name).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvokeQuery {
    wait: Option<String>,
    route: Option<String>,
}

/// The body of a direct call. Everything stays text until the plugin reads it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct InvokeBody<'a> {
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) dedupe_key: Option<String>,
}

/// API-03, API-04, RTR-07: enqueues one job and answers once it is on disk; with `?route=false` its events go nowhere.
pub(super) async fn invoke<G: Gateway>(mut call: Call<G>) -> Answer {
    let query: InvokeQuery = call.query()?;
    let wait = query.wait.as_deref().map(parse_wait).transpose()?;
    let is_routed = query.route.as_deref().map_or(Ok(true), |text| flag("route", Some(text)))?;
    let bytes = call.body().await?;
    let body = parse_body(&bytes)?;
    let dedupe_key = dedupe_key(call.headers(), body.dedupe_key)?;
    let (plugin, command) = call.target()?;
    let payload = match (command.name.as_str(), body.payload) {
        ("handle", payload) => Some(envelope(payload, dedupe_key.as_deref())?),
        (_, payload) => payload.map(RawValue::to_owned),
    };
    let (plugin, command): (_, Arc<str>) = (plugin.name.clone(), command.name.as_str().into());
    let submission = Submission {
        plugin: plugin.clone(),
        command: command.clone(),
        payload,
        submitted_by: call.caller.submitted_by(call.headers()),
        requested_by: call.caller.name(),
        dedupe_in_flight: dedupe_key.is_some(),
        dedupe_key,
        context: None,
        replay_of: None,
        is_routed,
    };
    let submitted = call.app.gateway.submit(submission).await?;
    match wait {
        None => Ok(accepted(submitted, &plugin, &command)),
        Some(wait) => waited(&call, submitted, wait).await,
    }
}

pub(super) fn parse_body(bytes: &[u8]) -> Result<InvokeBody<'_>, ApiError> {
    const SHAPE: &str =
        "send an object such as {\"payload\": {...}, \"dedupe_key\": \"...\"}; both fields are optional";
    let body: InvokeBody<'_> = parse_object(bytes, SHAPE)?;
    demand_object(body.payload, SHAPE)?;
    Ok(body)
}

/// Reads the fields of a body; an empty one has none.
pub(super) fn parse_object<'a, T: Deserialize<'a> + Default>(
    bytes: &'a [u8],
    shape: &'static str,
) -> Result<T, ApiError> {
    let trimmed = bytes.trim_ascii();
    if trimmed.is_empty() {
        return Ok(T::default());
    }
    let body = serde_json::from_slice(trimmed).map_err(|error| {
        let code = if error.is_data() { Code::InvalidBody } else { Code::InvalidJson };
        ApiError::new(code, format!("the body can't be read: {error}"), shape)
    })?;
    // A derived reader would take an array as the list of fields.
    if !trimmed.starts_with(b"{") {
        return Err(ApiError::new(Code::InvalidBody, "the body is not an object", shape));
    }
    Ok(body)
}

/// API-43.
pub(super) fn demand_object(payload: Option<&RawValue>, shape: &'static str) -> Result<(), ApiError> {
    if payload.is_some_and(|payload| !payload.get().starts_with('{')) {
        return Err(ApiError::new(Code::InvalidBody, "`payload` is not an object", shape));
    }
    Ok(())
}

/// The key of the header or of the body; both may be given when they agree.
pub(super) fn dedupe_key(headers: &HeaderMap, in_body: Option<String>) -> Result<Option<String>, ApiError> {
    const HEADER: &str = "Idempotency-Key";
    const HINT: &str = "use 1 to 256 printable characters, in `Idempotency-Key` or in `dedupe_key`";
    let in_header = match headers.get("idempotency-key").map(|v| v.to_str().map(str::trim)) {
        None => None,
        Some(Ok(text)) => Some(text.to_owned()),
        Some(Err(_)) => {
            return Err(bad_parameter(HEADER, "`Idempotency-Key` is not ASCII text", HINT));
        }
    };
    if let (Some(header), Some(body)) = (&in_header, &in_body)
        && header != body
    {
        return Err(bad_parameter(
            HEADER,
            "`Idempotency-Key` and `dedupe_key` differ",
            "send one of them, or the same text in both",
        ));
    }
    let key = in_header.or(in_body);
    if let Some(key) = &key
        && (key.is_empty() || key.len() > 256 || key.chars().any(char::is_control))
    {
        return Err(bad_parameter("dedupe_key", format!("not a key for duplicates: {}", quoted(key)), HINT));
    }
    Ok(key)
}

/// Wraps the payload as the event that `handle` expects, without reading it.
fn envelope(payload: Option<&RawValue>, dedupe_key: Option<&str>) -> Result<Box<RawValue>, ApiError> {
    let payload = payload.map_or("{}", RawValue::get);
    let mut text = String::with_capacity(payload.len() + 192);
    text.push_str(r#"{"type":"api.trigger","payload":"#);
    text.push_str(payload);
    if let Some(key) = dedupe_key {
        text.push_str(r#","dedupe_key":"#);
        text.push_str(&serde_json::Value::from(key).to_string());
    }
    let (at, id) = (time::format(chrono::Utc::now()), EventId::from(Uuid::now_v7()));
    write!(text, r#","source":"api","timestamp":"{at}","event_id":"{id}"}}"#).expect("a String takes all text");
    RawValue::from_string(text).map_err(|error| ApiError::internal(format!("the envelope is no JSON: {error}")))
}

pub(super) fn job_of(submitted: Submitted) -> (JobId, JobStatus, bool) {
    match submitted {
        Submitted::Accepted(job) => (job, JobStatus::Queued, false),
        Submitted::Duplicate(job, status) => (job, status, true),
    }
}

/// Plugin and command come from the catalog, whose names need no escapes.
pub(super) fn accepted(submitted: Submitted, plugin: &str, command: &str) -> Response {
    let (job, status, is_duplicate) = job_of(submitted);
    let mut text = String::with_capacity(192);
    write!(text, r#"{{"job_id":"{job}","status":"{status}","plugin":"{plugin}","command":"{command}""#)
        .expect("a String takes all text");
    text.push_str(if is_duplicate { r#","duplicate":true}"# } else { "}" });
    let code = if status.is_terminal() { StatusCode::OK } else { StatusCode::ACCEPTED };
    json_text(code, text)
}

pub(super) async fn waited<G: Gateway>(call: &Call<G>, submitted: Submitted, wait: Duration) -> Answer {
    let (job, _, is_duplicate) = job_of(submitted);
    call.wait(job, wait).await;
    let job = jobs::read(call, job).await?;
    let mut view = jobs::view(job, call.caller.sees_results());
    view.duplicate = is_duplicate.then_some(true);
    let is_over = view.status.is_terminal();
    view.timeout_exceeded = (!is_over).then_some(true);
    json_answer(if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, &view)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-43: only objects are accepted.
    #[test]
    fn a_body_that_is_no_object_of_objects_is_refused() {
        for bad in ["3", "[]", "[{}]", "null", "\"x\"", "{\"payload\":3}", "{\"payload\":[1]}", "{\"payload\":\"x\"}"] {
            assert!(parse_body(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in
            ["{", "{\"payload\":{}} x", "{\"payload\":{},\"payload\":{}}", "{\"message\":1}", "{\"payload\":{\"a\":}}"]
        {
            assert!(parse_body(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_body(b"{\"payload\":{\"a\":\"\xff\"}}").is_err(), "not UTF-8");
        for good in ["", "  \n", "{}", "{\"payload\":null}", " {\"payload\": {\"a\": [1, 2]}} "] {
            assert!(parse_body(good.as_bytes()).is_ok(), "{good}");
        }
    }

    /// API-04: the event that `handle` gets.
    #[test]
    fn the_payload_stands_unchanged_in_the_envelope() {
        let payload = RawValue::from_string(r#"{"n":1.00, "b":"\u00e9"}"#.to_owned()).expect("JSON");
        let text = envelope(Some(&payload), Some("a\"b")).expect("an envelope").get().to_owned();
        assert!(text.contains(r#""payload":{"n":1.00, "b":"\u00e9"}"#), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["type"], "api.trigger");
        assert_eq!(value["source"], "api");
        assert_eq!(value["dedupe_key"], "a\"b");
        assert!(value["event_id"].as_str().is_some_and(|id| id.parse::<EventId>().is_ok()));
        assert!(value["timestamp"].as_str().is_some_and(|at| time::parse(at).is_some()));
        let empty = envelope(None, None).expect("an envelope").get().to_owned();
        assert!(empty.contains(r#""payload":{}"#), "{empty}");
    }
}
