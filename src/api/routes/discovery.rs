//! What agents read first: the skills, the OpenAPI documents, the well-known file. All are made from the catalog in force
//! and from the table of routes.

use axum::http::StatusCode;
use ductile_domain::catalog::Plugin;
use ductile_domain::manifest::{Command, CommandType};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, find_plugin, json_answer};
use crate::gateway::Gateway;
use crate::routes::{Access, RouteInfo, routes};

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

/// API-28: what can be invoked. Pipelines do not exist yet, so these are the commands of plugins.
pub(super) async fn skills<G: Gateway>(call: Call<G>) -> Answer {
    let plugins = call.generation.catalog.iter().filter(|plugin| plugin.is_runnable);
    let skills = plugins.flat_map(|plugin| plugin.manifest.commands.iter().map(|command| skill(plugin, command)));
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

/// API-29: every command of every plugin that was discovered, and the fixed routes.
pub(super) async fn openapi<G: Gateway>(call: Call<G>) -> Answer {
    let mut paths = Map::new();
    for route in routes() {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.to_ascii_lowercase()] = fixed(route);
    }
    for plugin in call.generation.catalog.iter() {
        add_commands(plugin, &mut paths);
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
            // The door takes the input as `payload`, beside a key against duplicates.
            let body =
                json!({ "type": "object", "properties": { "payload": schema, "dedupe_key": { "type": "string" } } });
            operation["requestBody"] =
                json!({ "required": false, "content": { "application/json": { "schema": body } } });
        }
        paths.insert(endpoint(plugin, command), json!({ "post": operation }));
    }
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
