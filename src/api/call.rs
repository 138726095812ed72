//! One request on its way to its handler: who calls, what it may do, and the readings of path, query and body.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use axum::extract::path::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::manifest::Command;
use ductile_domain::problem::did_you_mean;
use ductile_domain::scope::Need;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::auth::Caller;
use crate::error::{ApiError, Code};
use crate::gateway::Gateway;
use crate::routes::Access;
use crate::server::Origin;

/// How long things may take, and how many may watch.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a body to arrive.
    pub body: Duration,
    /// For an answer to be made; streams are not cut by it.
    pub answer: Duration,
    /// Longest that `?wait=` is honoured.
    pub wait: Duration,
    /// Between two comments that keep a stream of live events alive.
    pub keep_alive: Duration,
    /// Most streams of live events at a time.
    pub watchers: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            body: Duration::from_secs(30),
            answer: Duration::from_secs(90),
            wait: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            watchers: 64,
        }
    }
}

/// What all requests share.
pub(crate) struct App<G> {
    pub(crate) gateway: Arc<G>,
    pub(crate) patience: Patience,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) binary_path: String,
}

/// One request, let in.
pub(crate) struct Call<G> {
    pub(crate) app: Arc<App<G>>,
    pub(crate) caller: Caller,
    pub(crate) generation: Arc<Generation>,
    parts: Parts,
    params: RawPathParams,
    /// In a mutex only to be `Sync`, which bodies are not; it is never locked.
    body: Mutex<Body>,
}

/// What handlers answer.
pub(crate) type Answer = Result<Response, ApiError>;

/// Lets a request in or refuses it, runs its handler, and turns whatever goes wrong into the one error shape.
pub(crate) async fn serve<G, H, F>(
    app: Arc<App<G>>,
    access: Access,
    handler: H,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response
where
    G: Gateway,
    H: FnOnce(Call<G>) -> F + Send,
    F: Future<Output = Answer> + Send,
{
    let mut patience = app.patience.answer;
    if access == Access::RunPipeline {
        patience = patience.saturating_add(app.gateway.generation().config.api.max_sync_timeout);
    }
    let answer = async move { handler(enter(app, access, params, request)?).await };
    match timeout(patience, survive(answer)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::new(
            Code::Timeout,
            "the request took longer than the gateway allows",
            "try again; GET /system/status says what the gateway is waiting for",
        )
        .into_response(),
    }
}

fn enter<G: Gateway>(
    app: Arc<App<G>>,
    access: Access,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Call<G>, ApiError> {
    let (parts, body) = request.into_parts();
    let generation = app.gateway.generation();
    let peer = parts.extensions.get::<Arc<Origin>>().map(|origin| &origin.peer);
    let caller = Caller::identify(peer, &parts.headers, &generation, access == Access::Public)?;
    let params = params
        .map_err(|_| ApiError::new(Code::InvalidPath, "the path is not valid UTF-8", "percent-encode it as UTF-8"))?;
    let call = Call { app, caller, generation, parts, params, body: Mutex::new(body) };
    match access {
        Access::Public => {}
        Access::Invoke => {
            let (plugin, command) = call.target()?;
            call.caller.demand(&Need::Invoke { plugin: &plugin.name, command: &command.name, kind: command.kind })?;
        }
        Access::RunSchedule => {
            let schedule = call.schedule()?;
            let (plugin, command) = find_target(&call.generation, &schedule.plugin, &schedule.command)?;
            call.caller.demand(&Need::Invoke { plugin: &plugin.name, command: &command.name, kind: command.kind })?;
        }
        Access::Plugin => call.caller.demand(&Need::Plugin { plugin: call.param("plugin") })?,
        Access::RunPipeline => call.caller.demand(&Need::RunPipeline)?,
        Access::Wiring => call.caller.demand(&Need::Wiring)?,
        Access::Facts => call.caller.demand(&Need::Facts { plugin: call.param("plugin") })?,
        Access::JobTree => call.caller.demand(&Need::JobTree)?,
        Access::Jobs => call.caller.demand(&Need::Jobs)?,
        Access::JobLogs => call.caller.demand(&Need::JobLogs)?,
        Access::JobsWrite => call.caller.demand(&Need::JobsWrite)?,
        Access::Events => call.caller.demand(&Need::Events)?,
        Access::Admin => call.caller.demand(&Need::Admin)?,
    }
    Ok(call)
}

/// A panic in a handler is an answer of 500 to one caller, and nothing to all others.
async fn survive(answer: impl Future<Output = Answer>) -> Answer {
    let mut answer = pin!(answer);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(ApiError::internal(format!("a handler panicked: {}", panic_text(&*panic))))),
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

impl<G: Gateway> Call<G> {
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The part of the path with that name, percent-decoded; empty when the route has none such.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The job that the path names.
    pub(crate) fn job_id(&self) -> Result<JobId, ApiError> {
        parse_job_id(self.param("id"), Code::InvalidPath)
    }

    /// The plugin and the command that the path names, runnable in the generation in force.
    pub(crate) fn target(&self) -> Result<(&Arc<Plugin>, &Command), ApiError> {
        find_target(&self.generation, self.param("plugin"), self.last_param("command"))
    }

    /// The part of the path with that name, or the last part of a path that spells it out.
    pub(crate) fn last_param(&self, name: &str) -> &str {
        let last = || self.parts.uri.path().rsplit('/').next().unwrap_or_default();
        self.params.iter().find(|(key, _)| *key == name).map_or_else(last, |(_, value)| value)
    }

    /// The query's parameters; unknown and repeated ones are refused, for a filter with a slip would show everything.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let Query(query) = Query::try_from_uri(&self.parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            ApiError::new(Code::InvalidParameter, format!("query: {text}"), "correct or remove the parameter")
        })?;
        Ok(query)
    }

    /// The whole body, within the configured limit and in time.
    pub(crate) async fn body(&mut self) -> Result<Bytes, ApiError> {
        let limit = self.generation.config.api.max_body_size;
        let announced = self.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit as u64) {
            return Err(too_large(limit));
        }
        let body =
            Limited::new(std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner)), limit).collect();
        match timeout(self.app.patience.body, body).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if is_over_limit(&*error) => Err(too_large(limit)),
            Ok(Err(_)) => Err(ApiError::new(
                Code::BodyUnreadable,
                "the body could not be read to its end",
                "send as many bytes as the headers announce",
            )),
            Err(_) => Err(ApiError::new(
                Code::BodyTimeout,
                "the body did not arrive in time",
                "send the body at once, together with the head",
            )),
        }
    }

    /// Waits until the job is terminal, the time has passed or the door closes.
    pub(crate) async fn wait(&self, job: JobId, time: Duration) {
        let closed = closed(self.closing());
        tokio::select! {
            () = self.app.gateway.wait(job, time.min(self.app.patience.wait)) => {}
            () = closed => {}
        }
    }

    /// Turns true when the door closes; `None` outside a server.
    pub(crate) fn closing(&self) -> Option<watch::Receiver<bool>> {
        self.parts.extensions.get::<Arc<Origin>>().map(|origin| origin.closing.clone())
    }
}

/// Resolves when the door closes.
pub(crate) async fn closed(closing: Option<watch::Receiver<bool>>) {
    if let Some(mut closing) = closing
        && closing.wait_for(|closing| *closing).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn is_over_limit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<LengthLimitError>()
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::BodyTooLarge,
        format!("the body is larger than {limit} bytes"),
        "send less, or raise api.max_body_size",
    )
    .context(json!({ "bytes_limit": limit }))
}

pub(crate) fn parse_job_id(text: &str, code: Code) -> Result<JobId, ApiError> {
    JobId::from_str(text).map_err(|error| {
        ApiError::new(code, format!("{} is {error}", quoted(text)), "GET /jobs lists the jobs with their ids")
    })
}

/// The plugin of that name, runnable or not.
pub(crate) fn find_plugin<'a>(generation: &'a Generation, name: &str) -> Result<&'a Arc<Plugin>, ApiError> {
    generation.catalog.get(name).ok_or_else(|| {
        if generation.config.wants(name) {
            let text = format!("plugin {name:?} is configured, but could not be loaded");
            return ApiError::new(Code::UnknownPlugin, text, "`ductile config check` says why");
        }
        let known = generation.catalog.iter().map(|p| &*p.name);
        ApiError::new(
            Code::UnknownPlugin,
            format!("unknown plugin {}", quoted(name)),
            suggestion(name, known, "GET /plugins lists the plugins"),
        )
    })
}

/// The plugin and the command of those names, runnable in that generation.
pub(crate) fn find_target<'a>(
    generation: &'a Generation,
    plugin: &str,
    command: &str,
) -> Result<(&'a Arc<Plugin>, &'a Command), ApiError> {
    let plugin = find_plugin(generation, plugin)?;
    if !plugin.is_runnable {
        let name = &plugin.name;
        return Err(ApiError::new(
            Code::PluginNotRunnable,
            format!("plugin {name:?} was discovered, but is disabled or not configured"),
            format!("add `plugins.{name}` with `enabled: true` to the configuration and reload"),
        )
        .context(json!({ "plugin": name })));
    }
    let Some(found) = plugin.command(command) else {
        let known: Vec<_> = plugin.manifest.commands.iter().map(|c| c.name.as_str()).collect();
        let otherwise = format!("GET /plugin/{} lists its commands", plugin.name);
        return Err(ApiError::new(
            Code::UnknownCommand,
            format!("plugin {:?} declares no command {}", plugin.name, quoted(command)),
            suggestion(command, known.iter().copied(), &otherwise),
        )
        .context(json!({ "plugin": plugin.name, "commands": known })));
    };
    Ok((plugin, found))
}

/// A parameter that is not what it must be; `context` names it.
pub(crate) fn bad_parameter(name: &str, message: impl Into<String>, hint: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidParameter, message.into(), hint.into()).context(json!({ "parameter": name }))
}

/// `did you mean ...?` when a known word is near, and where to look in any case.
pub(crate) fn suggestion<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    match did_you_mean(shortened(wanted), known) {
        Some(near) => format!("did you mean {near:?}? {otherwise}"),
        None => otherwise.to_owned(),
    }
}

/// Text of the caller's, quoted, escaped and short enough to be repeated to them.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(128)]
}

/// Reads `30s`, `500ms`, `1m` or plain seconds.
pub(crate) fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if scale > 0 => Ok(Duration::from_millis(number.saturating_mul(scale))),
        _ => Err(bad_parameter(
            "wait",
            format!("`wait` is no time: {}", quoted(text)),
            "write it like 30s, 500ms or 1m; more than 60s is shortened to that",
        )),
    }
}

/// An answer of one JSON value.
pub(crate) fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_string(value).map_err(|e| ApiError::internal(format!("an answer is no JSON: {e}")))?;
    Ok(json_text(status, text))
}

/// An answer of JSON that is text already.
pub(crate) fn json_text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_with_its_unit() {
        for (text, ms) in [("30s", 30_000), ("500ms", 500), ("1m", 60_000), ("7", 7_000), ("0", 0)] {
            assert_eq!(parse_wait(text).expect(text), Duration::from_millis(ms));
        }
        for bad in ["", "s", "-1s", "1h", "1.5s", " 1s", "99999999999999999999s", "30S"] {
            assert!(parse_wait(bad).is_err(), "{bad:?}");
        }
    }
}
