//! The table of all routes: each stands on the public list or names its need, or it does not compile.

mod actors;
mod breakers;
mod config;
mod discovery;
mod events;
mod figures;
mod filters;
mod gateway;
mod job_logs;
mod jobs;
mod pipelines;
mod plugins;
mod replay;
mod schedules;
mod storage;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::extract::path::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use tokio::sync::Semaphore;

use crate::call::{Answer, App, Call, Patience, serve};
use crate::error::{ApiError, Code};
use crate::gateway::Gateway;

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: the public list. A token that is sent is not looked at.
    Public,
    /// To run the command that the path names.
    Invoke,
    /// To read what the plugin in the path declares.
    Plugin,
    /// To start the pipeline in the path, or to see what that would do.
    RunPipeline,
    /// To see how plugins are wired.
    Wiring,
    /// To run the command of the schedule that the path names.
    RunSchedule,
    /// To read what the plugin in the path did and left.
    Facts,
    /// To see jobs.
    Jobs,
    /// To see a job with all that followed from it.
    JobTree,
    /// To search the log of ended attempts.
    JobLogs,
    /// To change jobs.
    JobsWrite,
    /// To see live events.
    Events,
    /// Everything.
    Admin,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct RouteInfo {
    /// `GET` or `POST`; only the latter changes anything.
    pub method: &'static str,
    /// Path with its parameters in braces.
    pub path: &'static str,
    /// What it asks of its callers.
    pub access: Access,
    /// What it does.
    pub summary: &'static str,
}

macro_rules! table {
    ($($method:ident $path:literal $access:ident $handler:path, $summary:literal;)*) => {
        const TABLE: &[RouteInfo] = &[$(RouteInfo {
            method: stringify!($method),
            path: $path,
            access: Access::$access,
            summary: $summary,
        }),*];

        fn mount<G: Gateway>() -> Router<Arc<App<G>>> {
            Router::new()$(.route($path, gated(MethodFilter::$method, Access::$access, $handler)))*
        }
    };
}

table! {
    GET "/" Public gateway::index, "Where to begin.";
    GET "/healthz" Public gateway::health, "Health, for monitors.";
    GET "/health" Public gateway::health, "The same as /healthz.";
    GET "/plugins" Public plugins::list, "All plugins, briefly.";
    GET "/skills" Public discovery::skills, "What can be invoked.";
    GET "/openapi.json" Public discovery::openapi, "The OpenAPI document of the gateway and all plugins.";
    GET "/.well-known/ai-plugin.json" Public discovery::ai_plugin, "Where agents begin.";
    GET "/plugin/{plugin}/openapi.json" Public discovery::openapi_of_plugin, "The OpenAPI document of one plugin.";
    GET "/plugin/{plugin}" Plugin plugins::show, "What one plugin declares.";
    POST "/plugin/{plugin}/{command}" Invoke plugins::invoke, "Enqueue one job; `?wait=30s` waits for its end, `?route=false` keeps its events from going on.";
    GET "/pipelines" Wiring pipelines::list, "All pipelines and routes, and when pipelines were last active.";
    GET "/pipeline/{pipeline}" Wiring pipelines::show, "One pipeline, as written and as compiled.";
    POST "/pipeline/{pipeline}" RunPipeline pipelines::start, "Start a pipeline; a synchronous one is waited for, unless `?async=true`.";
    POST "/pipeline/{pipeline}/dry-run" RunPipeline pipelines::dry_run, "What a payload would make of a pipeline; nothing is enqueued.";
    GET "/topology" Wiring pipelines::topology, "Which plugin's events reach which plugin.";
    GET "/plugin/{plugin}/facts" Facts figures::facts, "The facts that a plugin left, newest first.";
    POST "/plugin/{plugin}/facts" Invoke plugins::invoke, "Enqueue one job of a command that is called `facts`.";
    GET "/stopwatch/{plugin}" Jobs figures::stopwatch, "How long a plugin's attempts take.";
    GET "/job/{id}" Jobs jobs::show, "One job; `?wait=30s` waits for its end, `?include=` adds its history.";
    GET "/job/{id}/tree" JobTree jobs::tree, "A job and all that followed from it.";
    GET "/job/{id}/quarantine" JobTree jobs::quarantine, "What was kept of a job that was quarantined, to look into it.";
    POST "/job/{id}/replay" JobsWrite replay::replay, "Enqueue a new job with the input of an ended one.";
    POST "/job/{id}/cancel" JobsWrite jobs::cancel, "Cancel a job.";
    GET "/jobs" Jobs jobs::list, "Jobs, newest first.";
    GET "/job-logs" JobLogs job_logs::list, "Ended attempts, newest first.";
    GET "/events" Events events::stream, "Live events as server-sent events.";
    GET "/analytics/queue" Admin figures::queue, "What waits and what runs.";
    GET "/analytics/summary" Admin figures::summary, "How jobs ended in the last 24 hours.";
    GET "/scheduler/jobs" Wiring schedules::jobs, "All schedules, and when each is due next.";
    GET "/scheduler/ticks" Wiring schedules::ticks, "What became of every tick, newest first.";
    GET "/scheduler/{plugin}/{schedule}" Facts schedules::explain, "One schedule with its last and next ticks, and the reasons.";
    GET "/scheduler/{plugin}/pause" Facts schedules::explain, "The same of a schedule that is called `pause`.";
    GET "/scheduler/{plugin}/resume" Facts schedules::explain, "The same of a schedule that is called `resume`.";
    POST "/scheduler/{plugin}/{schedule}/run" RunSchedule schedules::run, "Enqueue the schedule's command with its payload now; no tick is counted.";
    POST "/scheduler/{plugin}/{schedule}/pause" Admin schedules::pause, "Skip the ticks of one schedule until it is resumed.";
    POST "/scheduler/{plugin}/{schedule}/resume" Admin schedules::resume, "Let one schedule fire again.";
    POST "/scheduler/{plugin}/pause" Admin schedules::pause_all, "Skip the ticks of all schedules of a plugin.";
    POST "/scheduler/{plugin}/resume" Admin schedules::resume_all, "Let all schedules of a plugin fire again.";
    GET "/config/view" Admin config::view, "The configuration in force, without secrets.";
    GET "/system/status" Admin gateway::status, "The gateway's state in full.";
    GET "/system/breakers" Admin breakers::list, "The circuit breakers of scheduled commands and what they did.";
    POST "/system/reset/{plugin}" Admin breakers::reset, "Close the circuit breakers of a plugin.";
    GET "/system/storage" Admin storage::show, "What the database is made of, how it grows, and what is free beside it.";
    POST "/system/pause" Admin gateway::pause, "Stop taking jobs from the queue.";
    POST "/system/resume" Admin gateway::resume, "Take jobs from the queue again.";
    POST "/system/reload" Admin gateway::reload, "Read the configuration again and put it in force.";
    POST "/system/stop" Admin gateway::stop, "Stop the gateway gracefully.";
    GET "/system/tree" Admin actors::tree, "The supervision tree.";
    GET "/system/actors/{path}" Admin actors::show, "One actor and its own view of its state.";
    POST "/system/actors/{path}/restart" Admin actors::restart, "Restart one actor.";
}

/// All routes, for tests and documentation.
#[must_use]
pub fn routes() -> &'static [RouteInfo] {
    TABLE
}

/// The whole HTTP face of a gateway, for any number of listeners.
pub fn router<G: Gateway>(gateway: Arc<G>) -> Router {
    router_with(gateway, Patience::default())
}

/// Like [`router`], with other times than the usual.
pub fn router_with<G: Gateway>(gateway: Arc<G>, patience: Patience) -> Router {
    let binary_path = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let watchers = Arc::new(Semaphore::new(patience.watchers));
    mount().fallback(no_such_route).method_not_allowed_fallback(method_not_allowed).with_state(Arc::new(App {
        gateway,
        patience,
        watchers,
        binary_path,
    }))
}

fn gated<G, H, F>(method: MethodFilter, access: Access, handler: H) -> MethodRouter<Arc<App<G>>>
where
    G: Gateway,
    H: Fn(Call<G>) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    on(
        method,
        move |State(app): State<Arc<App<G>>>,
              params: Result<RawPathParams, RawPathParamsRejection>,
              request: Request| serve(app, access, handler, params, request),
    )
}

async fn no_such_route(request: Request) -> Response {
    let path = request.uri().path();
    let known = TABLE.iter().map(|route| route.path);
    ApiError::new(
        Code::NoSuchRoute,
        format!("nothing is served under {}", crate::call::quoted(path)),
        crate::call::suggestion(path, known, "GET / shows where to begin"),
    )
    .into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{} is not served under this path", crate::call::quoted(request.method().as_str())),
        "the `Allow` header names what is",
    )
    .into_response()
}
