//! What agents read first: the skills, the OpenAPI documents, the well-known file. All are made from the catalog and the
//! pipelines in force and from the table of routes.

use std::fmt::Write;

use axum::http::StatusCode;
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::manifest::{Command, CommandType};
use ductile_domain::pipeline::{Action, Execution, Pipeline, Target};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, find_plugin, json_answer};
use crate::gateway::Gateway;
use crate::routes::{Access, RouteInfo, routes};
use crate::views::pipelines::seconds;

#[derive(Serialize)]
struct Skill<'a> {
    name: String,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    endpoint: String,
    tier: &'a str,
    plugin: &'a str,
    command: &'a str,
}

#[derive(Serialize)]
struct PipelineSkill<'a> {
    name: String,
    kind: &'a str,
    endpoint: String,
    pipeline: &'a str,
    /// Type of the event or signal that starts it otherwise.
    trigger: &'a str,
    execution_mode: &'a str,
    timeout_secs: Value,
}

/// API-28, AGT-01: what can be invoked: the commands of plugins, then the pipelines.
pub(super) async fn skills<G: Gateway>(call: Call<G>) -> Answer {
    let plugins = call.generation.catalog.iter().filter(|plugin| plugin.is_runnable);
    let commands = plugins.flat_map(|plugin| plugin.manifest.commands.iter().map(|command| skill(plugin, command)));
    let pipelines = call.generation.pipelines.iter().map(|pipeline| PipelineSkill {
        name: format!("pipeline.{}", pipeline.name),
        kind: "pipeline",
        endpoint: pipeline_endpoint(pipeline),
        pipeline: &pipeline.name,
        trigger: pipeline.trigger.event_type(),
        execution_mode: pipeline.execution.as_str(),
        timeout_secs: seconds(pipeline.timeout),
    });
    let skills = commands.map(|skill| json!(skill)).chain(pipelines.map(|skill| json!(skill)));
    json_answer(StatusCode::OK, &json!({ "skills": skills.collect::<Vec<_>>() }))
}

fn skill<'a>(plugin: &'a Plugin, command: &'a Command) -> Skill<'a> {
    Skill {
        name: format!("plugin.{}.{}", plugin.name, command.name),
        kind: "plugin",
        description: command.description.as_deref(),
        endpoint: endpoint(plugin, command),
        tier: match command.kind {
            CommandType::Read => "READ",
            CommandType::Write => "WRITE",
        },
        plugin: &plugin.name,
        command: &command.name,
    }
}

/// Names need no escapes in a path.
fn endpoint(plugin: &Plugin, command: &Command) -> String {
    format!("/plugin/{}/{}", plugin.name, command.name)
}

fn pipeline_endpoint(pipeline: &Pipeline) -> String {
    let mut path = String::from("/pipeline/");
    for byte in pipeline.name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("a String takes all text");
        }
    }
    path
}

/// API-32.
pub(super) async fn ai_plugin<G: Gateway>(_: Call<G>) -> Answer {
    json_answer(
        StatusCode::OK,
        &json!({
            "schema_version": "v1",
            "name_for_human": "Ductile Gateway",
            "name_for_model": "ductile",
            "description_for_human": "Integration gateway for triggering plugins and pipelines.",
            "description_for_model": "Discover and invoke plugins. Fetch /openapi.json for the full spec, or \
                /plugin/{name}/openapi.json for a single plugin. Invoke commands via POST /plugin/{name}/{command}.",
            "auth": { "type": "bearer" },
            "api": { "type": "openapi", "url": "/openapi.json" },
        }),
    )
}

/// API-29: every command of every plugin that was discovered, every pipeline, and the fixed routes.
pub(super) async fn openapi<G: Gateway>(call: Call<G>) -> Answer {
    let mut paths = Map::new();
    for route in routes() {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.to_ascii_lowercase()] = fixed(route);
    }
    for plugin in call.generation.catalog.iter() {
        add_commands(plugin, &mut paths);
    }
    for pipeline in call.generation.pipelines.iter() {
        paths.insert(pipeline_endpoint(pipeline), json!({ "post": run(&call.generation, pipeline) }));
    }
    json_answer(StatusCode::OK, &document(paths))
}

/// API-30: the commands of one plugin.
pub(super) async fn openapi_of_plugin<G: Gateway>(call: Call<G>) -> Answer {
    let mut paths = Map::new();
    add_commands(find_plugin(&call.generation, call.param("plugin"))?, &mut paths);
    json_answer(StatusCode::OK, &document(paths))
}

fn document(paths: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ductile Gateway", "version": "1.0" },
        "paths": paths,
        "components": { "securitySchemes": { "BearerAuth": { "type": "http", "scheme": "bearer" } } },
    })
}

fn add_commands(plugin: &Plugin, paths: &mut Map<String, Value>) {
    for command in &plugin.manifest.commands {
        let mut operation = json!({
            "operationId": format!("{}__{}", plugin.name, command.name),
            "summary": summary(plugin, command),
            "tags": [plugin.name],
            "responses": {
                "202": { "description": "Job queued" },
                "400": { "description": "Bad request" },
                "403": { "description": "Insufficient scope" },
            },
            "security": [{ "BearerAuth": [] }],
        });
        if let Some(schema) = &command.input_schema {
            operation["requestBody"] = body_with(schema);
        }
        paths.insert(endpoint(plugin, command), json!({ "post": operation }));
    }
}

/// The door takes the input as `payload`, beside a key against duplicates.
fn body_with(payload: &Value) -> Value {
    let body = json!({ "type": "object", "properties": { "payload": payload, "dedupe_key": { "type": "string" } } });
    json!({ "required": false, "content": { "application/json": { "schema": body } } })
}

/// The start of a pipeline as an operation; its input is what its first step takes, where it begins with one.
fn run(generation: &Generation, pipeline: &Pipeline) -> Value {
    let input = match pipeline.entries.as_slice() {
        [Target::Node(first)] => match pipeline.nodes.get(*first).map(|node| &node.action) {
            Some(Action::Uses { plugin, command, .. }) => {
                generation.catalog.get(plugin).and_then(|p| p.command(command))
            }
            _ => None,
        },
        _ => None,
    };
    let schema = input.and_then(|command| command.input_schema.clone()).unwrap_or_else(|| json!({ "type": "object" }));
    let mut operation = json!({
        "operationId": format!("pipeline.{}", pipeline.name),
        "summary": format!("Run the pipeline {}, which {} starts otherwise", pipeline.name, pipeline.trigger.event_type()),
        "tags": ["pipelines"],
        "parameters": [{ "name": "async", "in": "query", "required": false, "schema": { "type": "boolean" } }],
        "requestBody": body_with(&schema),
        "responses": {
            "202": { "description": "First job queued, or not all jobs ended in time" },
            "400": { "description": "Bad request" },
            "403": { "description": "Insufficient scope" },
            "413": { "description": "The claimed baggage is too large" },
        },
        "security": [{ "BearerAuth": [] }],
    });
    if pipeline.execution == Execution::Synchronous {
        operation["responses"]["200"] = json!({ "description": "All jobs ended" });
        operation["responses"]["503"] = json!({ "description": "Too many calls wait already" });
    }
    operation
}

/// API-31.
fn summary(plugin: &Plugin, command: &Command) -> String {
    command.description.clone().unwrap_or_else(|| format!("{}: {}", plugin.name, command.name))
}

/// A route of the table as an operation.
fn fixed(route: &RouteInfo) -> Value {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters =
        names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let is_public = route.access == Access::Public;
    let mut responses = json!({ "200": { "description": "Done" } });
    if !is_public {
        responses["401"] = json!({ "description": "Missing or unknown token" });
        responses["403"] = json!({ "description": "Insufficient scope" });
    }
    json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": ["gateway"],
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": responses,
        "security": if is_public { json!([]) } else { json!([{ "BearerAuth": [] }]) },
    })
}

/// `get_job_id_tree`, or `get_root`; unique, since a plugin's have two underscores.
fn operation_id(route: &RouteInfo) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let path = words.collect::<Vec<_>>().join("_");
    let path = if path.is_empty() { "root" } else { &path };
    format!("{}_{path}", route.method.to_ascii_lowercase())
}
