//! The gateway as a whole: index, health, status, pause, resume, stop.

use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use ductile_domain::ids::BootId;
use ductile_domain::schedule::silent_after;
use ductile_domain::version::Build;
use serde::Serialize;
use serde_json::json;

use crate::call::{Answer, Call, json_answer};
use crate::gateway::{Gateway, GenerationUse, Health, Reloaded};
use crate::views;
use crate::views::schedules::{self, BreakerView};

/// API-02: where people and agents begin.
pub(super) async fn index<G: Gateway>(call: Call<G>) -> Answer {
    let health = call.app.gateway.health().await;
    json_answer(
        StatusCode::OK,
        &json!({
            "name": "Ductile Gateway",
            "description": "Lightweight, open-source integration engine for the agentic era.",
            "uptime_seconds": health.uptime_seconds,
            "discovery": {
                "health": "/healthz",
                "skills": "/skills",
                "plugins": "/plugins",
                "openapi": "/openapi.json",
                "ai_plugin": "/.well-known/ai-plugin.json",
            },
        }),
    )
}

#[derive(Serialize)]
struct PublicHealth<'a> {
    status: &'a str,
    uptime_seconds: u64,
    queue_depth: u64,
    plugins_loaded: usize,
    plugins_circuit_open: u64,
    config_path: &'a str,
    binary_path: &'a str,
    version: &'a str,
    commit: &'a str,
}

/// API-24: 200 while requests are served, 503 once the gateway drains. Reasons are for those with a scope.
pub(super) async fn health<G: Gateway>(call: Call<G>) -> Answer {
    let health = call.app.gateway.health().await;
    let is_draining = health.status == "draining";
    let build = call.app.gateway.build();
    let view = PublicHealth {
        status: &health.status,
        uptime_seconds: health.uptime_seconds,
        queue_depth: health.queue_depth,
        plugins_loaded: health.plugins_loaded,
        plugins_circuit_open: health.plugins_circuit_open,
        config_path: &call.generation.config.source.path.to_string_lossy(),
        binary_path: &call.app.binary_path,
        version: build.version,
        commit: build.commit,
    };
    let status = if is_draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = json_answer(status, &view)?;
    if is_draining {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    Ok(response)
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    health: Health,
    boot_id: BootId,
    generation: u64,
    config_snapshot_id: Option<i64>,
    generations: Vec<GenerationUse>,
    /// Plugins whose last `init` failed.
    unhealthy_plugins: Vec<String>,
    /// Circuit breakers that keep schedules from firing, or are about to try.
    open_breakers: Vec<BreakerView>,
    config_hash: &'a str,
    config_path: &'a str,
    binary_path: &'a str,
    #[serde(flatten)]
    build: Build,
    api: ApiStatus,
    max_workers: u32,
    /// A tick that is overdue by more than this did not happen.
    silent_after_seconds: u64,
    newest_event: u64,
}

#[derive(Serialize)]
struct ApiStatus {
    enabled: bool,
    listen: String,
    tokens: usize,
    watchers: usize,
}

pub(super) async fn status<G: Gateway>(call: Call<G>) -> Answer {
    let health = call.app.gateway.health().await;
    let unhealthy_plugins = views::failed_inits(call.app.gateway.readers()).await.into_keys().collect();
    let generation = &call.generation;
    // A ledger that can't be read now is told by `reasons`.
    let open_breakers = schedules::open_breakers(call.app.gateway.readers(), generation).await.unwrap_or_default();
    let config = &generation.config;
    json_answer(
        StatusCode::OK,
        &Status {
            health,
            boot_id: call.app.gateway.boot_id(),
            generation: generation.no,
            config_snapshot_id: generation.snapshot,
            generations: call.app.gateway.generations(),
            unhealthy_plugins,
            open_breakers,
            config_hash: &config.source.hash,
            config_path: &config.source.path.to_string_lossy(),
            binary_path: &call.app.binary_path,
            build: call.app.gateway.build(),
            api: ApiStatus {
                enabled: config.api.enabled,
                listen: config.api.listen.to_string(),
                tokens: config.api.tokens.len(),
                watchers: call.app.patience.watchers.saturating_sub(call.app.watchers.available_permits()),
            },
            max_workers: config.service.max_workers,
            silent_after_seconds: silent_after(config.service.tick_interval).as_secs(),
            newest_event: call.app.gateway.events().newest(),
        },
    )
}

pub(super) async fn pause<G: Gateway>(call: Call<G>) -> Answer {
    call.app.gateway.set_dispatch(false, call.caller.name()).await?;
    json_answer(StatusCode::OK, &json!({ "status": "ok", "paused": true }))
}

pub(super) async fn resume<G: Gateway>(call: Call<G>) -> Answer {
    call.app.gateway.set_dispatch(true, call.caller.name()).await?;
    json_answer(StatusCode::OK, &json!({ "status": "ok", "paused": false }))
}

#[derive(Serialize)]
struct ReloadAnswer {
    status: &'static str,
    message: &'static str,
    #[serde(flatten)]
    reloaded: Reloaded,
}

/// API-33: answers when the new configuration is in force for whatever begins from now on.
pub(super) async fn reload<G: Gateway>(call: Call<G>) -> Answer {
    let reloaded = call.app.gateway.reload(call.caller.name()).await?;
    let message = "Configuration reloaded successfully.";
    json_answer(StatusCode::OK, &ReloadAnswer { status: "ok", message, reloaded })
}

pub(super) async fn stop<G: Gateway>(call: Call<G>) -> Answer {
    call.app.gateway.stop(call.caller.name());
    json_answer(StatusCode::ACCEPTED, &json!({ "status": "stopping" }))
}
