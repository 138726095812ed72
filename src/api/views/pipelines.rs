//! Pipelines as the API shows them: what starts each, its steps as written, what they were compiled to, without secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::config::Config;
use ductile_domain::generation::Generation;
use ductile_domain::pipeline::{Pipeline, Route, StartFault, Trigger, dry_run, routes_view};
use ductile_ledger::{PipelineActivity, Readers};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::unreadable;
use crate::error::ApiError;
use crate::gateway::Refusal;
use ductile_domain::secrets::Secrets;

/// One pipeline.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineView<'a> {
    name: &'a str,
    /// Type of the event, or the signal.
    trigger: &'a str,
    /// True when the trigger is the end of a job.
    on_hook: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_plugin: Option<&'a str>,
    execution_mode: &'static str,
    /// Longest wait of a synchronous call; `api.max_sync_timeout` may cut it.
    timeout_secs: Value,
    /// Most hops of a chain in it; 0 means that there is no limit.
    max_depth: u32,
    /// As written.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    condition: Option<&'a Value>,
    /// As written.
    steps: &'a Value,
    /// Its newest job that is still recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_activity: Option<LastActivity>,
}

/// The newest job of a pipeline.
#[derive(Debug, Serialize)]
struct LastActivity {
    /// When it was enqueued.
    at: String,
    job_id: String,
    status: String,
}

/// `GET /pipelines`.
#[derive(Debug, Serialize)]
pub(crate) struct Wiring<'a> {
    pipelines: Vec<PipelineView<'a>>,
    routes: Vec<RouteView<'a>>,
}

/// A plain route.
#[derive(Debug, Serialize)]
struct RouteView<'a> {
    from: &'a str,
    event_type: &'a str,
    to: &'a str,
}

/// `GET /pipeline/{pipeline}`.
#[derive(Debug, Serialize)]
pub(crate) struct WholePipeline<'a> {
    #[serde(flatten)]
    pipeline: PipelineView<'a>,
    /// What it was compiled to.
    compiled_routes: Value,
}

/// All pipelines and routes in force. Whose jobs did what is told to those who may see jobs.
pub(crate) async fn list<'a>(
    generation: &'a Generation,
    readers: &Readers,
    sees_jobs: bool,
) -> Result<Wiring<'a>, ApiError> {
    let mut last = activity(readers, sees_jobs).await?;
    let pipelines = generation.pipelines.iter().map(|pipeline| {
        let mut view = PipelineView::of(&generation.config, pipeline);
        view.last_activity = last.remove(&*pipeline.name);
        view
    });
    let pipelines = pipelines.collect();
    let route = |route: &'a Route| RouteView { from: &route.from, event_type: &route.event_type, to: &route.to };
    Ok(Wiring { pipelines, routes: generation.pipelines.routes().iter().map(route).collect() })
}

/// One pipeline in full.
pub(crate) async fn one<'a>(
    generation: &'a Generation,
    pipeline: &'a Pipeline,
    readers: &Readers,
    sees_jobs: bool,
) -> Result<WholePipeline<'a>, ApiError> {
    let mut view = PipelineView::of(&generation.config, pipeline);
    view.last_activity = activity(readers, sees_jobs).await?.remove(&*pipeline.name);
    let mut compiled_routes = routes_view(pipeline);
    Secrets::of(&generation.config).redact(&mut compiled_routes);
    Ok(WholePipeline { pipeline: view, compiled_routes })
}

async fn activity(readers: &Readers, sees_jobs: bool) -> Result<BTreeMap<String, LastActivity>, ApiError> {
    if !sees_jobs {
        return Ok(BTreeMap::new());
    }
    let rows = readers.pipeline_activity().await.map_err(unreadable)?;
    let last = |row: PipelineActivity| {
        (row.pipeline, LastActivity { at: row.last_at, job_id: row.last_job_id, status: row.last_status })
    };
    Ok(rows.into_iter().map(last).collect())
}

/// API-36, PIP-50: what each pipeline was compiled to, by its name.
pub(crate) fn compiled_routes(generation: &Generation) -> Value {
    let pipelines = generation.pipelines.iter().map(|pipeline| (pipeline.name.to_string(), routes_view(pipeline)));
    let mut compiled = Value::Object(pipelines.collect());
    Secrets::of(&generation.config).redact(&mut compiled);
    compiled
}

/// API-41: plugins, and the events by which they reach each other.
pub(crate) fn topology(generation: &Generation) -> Value {
    let mut topology = generation.pipelines.topology();
    Secrets::of(&generation.config).redact(&mut topology);
    topology
}

/// CLI-35.
pub(crate) fn preview(generation: &Generation, pipeline: &Pipeline, payload: &RawValue) -> Result<Value, ApiError> {
    let mut preview = dry_run(generation, pipeline, payload).map_err(|fault| match fault {
        StartFault::Baggage(why) => Refusal::Baggage(why),
        StartFault::TooLarge { actual, limit } => {
            Refusal::ContextTooLarge { bytes_actual: actual as u64, bytes_limit: limit as u64 }
        }
    })?;
    Secrets::of(&generation.config).redact(&mut preview);
    Ok(preview)
}

static NOTHING: Value = Value::Null;

impl<'a> PipelineView<'a> {
    fn of(config: &'a Config, pipeline: &'a Pipeline) -> Self {
        let authored = authored(config, &pipeline.name);
        Self {
            name: &pipeline.name,
            trigger: pipeline.trigger.event_type(),
            on_hook: matches!(pipeline.trigger, Trigger::Hook(_)),
            from_plugin: pipeline.source_plugin.as_deref(),
            execution_mode: pipeline.execution.as_str(),
            timeout_secs: seconds(pipeline.timeout),
            max_depth: pipeline.max_depth,
            condition: authored.get("if"),
            steps: authored.get("steps").unwrap_or(&NOTHING),
            last_activity: None,
        }
    }
}

/// The entry of the sanitized document. Its name may be hidden there, so it is found by its place.
fn authored<'a>(config: &'a Config, name: &str) -> &'a Value {
    let place = config.pipelines.iter().position(|entry| entry.get("name").and_then(Value::as_str) == Some(name));
    let shown = config.source.sanitized.get("pipelines").and_then(Value::as_array);
    place.and_then(|place| shown?.get(place)).unwrap_or(&NOTHING)
}

/// Whole seconds as an integer, as in the samples.
pub(crate) fn seconds(time: Duration) -> Value {
    if time.subsec_nanos() == 0 { time.as_secs().into() } else { time.as_secs_f64().into() }
}
