//! Schedules and their ticks: what is due, what became of it and why, and an operator's hand on them.

use std::sync::Arc;

use axum::http::StatusCode;
use ductile_domain::schedule::{Schedule, TickStatus};
use ductile_ledger::{TickFilter, TickRow};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::call::{Answer, Call, bad_parameter, find_plugin, json_answer, quoted};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::routes::filters::{limit, sequence};
use crate::routes::plugins;
use crate::views::schedules::{self, ScheduleView};
use crate::views::unreadable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobsQuery {
    plugin: Option<String>,
}

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<ScheduleView>,
}

/// Every schedule of the generation in force, by plugin and id.
pub(super) async fn jobs<G: Gateway>(call: Call<G>) -> Answer {
    let query: JobsQuery = call.query()?;
    if let Some(plugin) = &query.plugin
        && ids(&call, plugin).next().is_none()
    {
        find_plugin(&call.generation, plugin)?;
    }
    let readers = call.app.gateway.readers();
    let jobs = schedules::schedules(readers, &call.generation, query.plugin.as_deref()).await.map_err(unreadable)?;
    json_answer(StatusCode::OK, &Jobs { jobs })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TicksQuery {
    plugin: Option<String>,
    schedule: Option<String>,
    status: Option<String>,
    limit: Option<String>,
    before: Option<String>,
}

#[derive(Serialize)]
struct Ticks {
    ticks: Vec<TickRow>,
    /// `before` of the next page, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// Ticks of all schedules, also of those that the configuration no longer has, the newest first.
pub(super) async fn ticks<G: Gateway>(call: Call<G>) -> Answer {
    let query: TicksQuery = call.query()?;
    let most = limit(query.limit.as_deref())?;
    if let Some(status) = query.status.as_deref().filter(|status| TickStatus::parse(status).is_none()) {
        let words = TickStatus::ALL.map(TickStatus::as_str).join(", ");
        let message = format!("unknown status of a tick {}", quoted(status));
        return Err(bad_parameter("status", message, format!("use one of {words}")));
    }
    let filter = TickFilter {
        plugin: query.plugin,
        schedule: query.schedule,
        status: query.status,
        before_id: sequence("before", query.before.as_deref())?,
        limit: most + 1,
    };
    let mut ticks = call.app.gateway.readers().ticks(&filter).await.map_err(unreadable)?;
    let has_more = ticks.len() > most as usize;
    ticks.truncate(most as usize);
    let next = ticks.last().filter(|_| has_more).map(|tick| tick.id);
    json_answer(StatusCode::OK, &Ticks { ticks, next })
}

/// When a schedule ran, when it did not and why, and when it will.
pub(super) async fn explain<G: Gateway>(call: Call<G>) -> Answer {
    let schedule = call.schedule()?;
    let gateway = &call.app.gateway;
    let told = schedules::explain(gateway.readers(), &call.generation, schedule, gateway.now()).await;
    json_answer(StatusCode::OK, &told.map_err(unreadable)?)
}

/// Enqueues the schedule's command with its payload, now. No tick.
pub(super) async fn run<G: Gateway>(call: Call<G>) -> Answer {
    let schedule = call.schedule()?;
    let (plugin, id) = (schedule.plugin.to_string(), schedule.id.to_string());
    let by = (call.caller.submitted_by(call.headers()), call.caller.name());
    let submitted = call.app.gateway.run_schedule(plugin, id, by.0, by.1).await?;
    Ok(plugins::accepted(submitted, &schedule.plugin, &schedule.command))
}

/// Ticks are skipped until it is resumed; those of `at` and `after` wait.
pub(super) async fn pause<G: Gateway>(call: Call<G>) -> Answer {
    let schedule = call.schedule()?.clone();
    set(&call, &schedule.plugin, Some(&schedule.id), true).await
}

pub(super) async fn resume<G: Gateway>(call: Call<G>) -> Answer {
    let schedule = call.schedule()?.clone();
    set(&call, &schedule.plugin, Some(&schedule.id), false).await
}

pub(super) async fn pause_all<G: Gateway>(call: Call<G>) -> Answer {
    set(&call, call.param("plugin"), None, true).await
}

pub(super) async fn resume_all<G: Gateway>(call: Call<G>) -> Answer {
    set(&call, call.param("plugin"), None, false).await
}

async fn set<G: Gateway>(call: &Call<G>, plugin: &str, id: Option<&str>, paused: bool) -> Answer {
    if id.is_none() && ids(call, plugin).next().is_none() {
        find_plugin(&call.generation, plugin)?;
        return Err(ApiError::unknown_schedule(plugin, None, []));
    }
    let (gateway, by) = (&call.app.gateway, call.caller.name());
    let changed = gateway.pause_schedules(plugin.to_owned(), id.map(str::to_owned), paused, by).await?;
    let answer = json!({ "status": "ok", "plugin": plugin, "paused": paused, "changed": changed });
    json_answer(StatusCode::OK, &answer)
}

fn ids<'a, G: Gateway>(call: &'a Call<G>, plugin: &'a str) -> impl Iterator<Item = &'a str> {
    call.generation.scheduled().filter(move |schedule| *schedule.plugin == *plugin).map(|schedule| &*schedule.id)
}

impl<G: Gateway> Call<G> {
    /// The schedule that the path names, in the generation in force.
    pub(crate) fn schedule(&self) -> Result<&Arc<Schedule>, ApiError> {
        let (plugin, id) = (self.param("plugin"), self.last_param("schedule"));
        if let Some(schedule) = self.generation.schedule(plugin, id) {
            return Ok(schedule);
        }
        find_plugin(&self.generation, plugin)?;
        Err(ApiError::unknown_schedule(plugin, Some(id), ids(self, plugin)))
    }
}
