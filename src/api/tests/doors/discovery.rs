//! What agents read first, made from the catalog and the table of routes.

use axum::body::Body;
use ductile_api::routes;
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::harness::{Door, request};

async fn public(door: &Door, path: &str) -> Value {
    door.ask(request("GET", path, None, Body::empty())).await.json()
}

/// API-28, API-32.
#[tokio::test]
async fn skills_and_the_well_known_file_lead_to_commands() {
    let door = Door::new().await;
    let skills = public(&door, "/skills").await;
    let skills = skills["skills"].as_array().expect("a list");
    let names: Vec<_> = skills.iter().map(|s| s["name"].as_str().expect("a name")).collect();
    assert!(names.contains(&"plugin.echo.poll") && names.contains(&"plugin.parrot.handle"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("alone")), "what can't be run is no skill: {names:?}");
    let handle = skills.iter().find(|s| s["name"] == "plugin.echo.handle").expect("there");
    assert_eq!(
        handle,
        &json!({"name": "plugin.echo.handle", "kind": "plugin", "description": "Takes an event", "endpoint": "/plugin/echo/handle", "tier": "WRITE",
            "plugin": "echo", "command": "handle"})
    );
    let file = public(&door, "/.well-known/ai-plugin.json").await;
    assert_eq!((&file["schema_version"], &file["name_for_model"]), (&json!("v1"), &json!("ductile")));
    assert_eq!(file["auth"], json!({"type": "bearer"}));
    assert_eq!(file["api"], json!({"type": "openapi", "url": "/openapi.json"}));
    assert!(file["name_for_human"].is_string() && file["description_for_human"].is_string());
    assert!(file["description_for_model"].as_str().is_some_and(|text| text.contains("POST /plugin/{name}/{command}")));
}

/// API-30, API-31: the sample's fields; a command without a schema has no body, one without a description is named.
#[tokio::test]
async fn the_document_of_a_plugin_describes_its_commands() {
    let door = Door::new().await;
    let document = public(&door, "/plugin/echo/openapi.json").await;
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.1.0"), &json!("Ductile Gateway")));
    let paths: Vec<_> = document["paths"].as_object().expect("an object").keys().collect();
    assert_eq!(paths, ["/plugin/echo/facts", "/plugin/echo/handle", "/plugin/echo/poll"]);
    let poll = &document["paths"]["/plugin/echo/poll"]["post"];
    assert_eq!((&poll["operationId"], &poll["tags"]), (&json!("echo__poll"), &json!(["echo"])));
    assert_eq!((&poll["summary"], poll.get("requestBody")), (&json!("echo: poll"), None));
    let codes: Vec<_> = poll["responses"].as_object().expect("an object").keys().collect();
    assert_eq!(codes, ["202", "400", "403"]);
    assert_eq!(poll["security"], json!([{"BearerAuth": []}]));
    assert_eq!(document["components"]["securitySchemes"]["BearerAuth"], json!({"type": "http", "scheme": "bearer"}));
    let handle = &document["paths"]["/plugin/echo/handle"]["post"];
    assert_eq!(handle["summary"], "Takes an event");
    let schema = &handle["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["properties"]["payload"]["properties"]["message"]["type"], "string");
    let unknown = door.ask(request("GET", "/plugin/nobody/openapi.json", None, Body::empty())).await;
    unknown.refused(404, "unknown_plugin");
}

/// API-29: every command of every plugin and every route, each operation with an id of its own.
#[tokio::test]
async fn the_whole_document_has_every_command_and_every_route() {
    let door = Door::new().await;
    let document = public(&door, "/openapi.json").await;
    let paths = document["paths"].as_object().expect("an object");
    for route in routes() {
        let operation = &paths[route.path][route.method.to_ascii_lowercase()];
        assert_eq!(operation["summary"], route.summary);
        let holes = route.path.matches('{').count();
        assert_eq!(operation["parameters"].as_array().map(Vec::len), Some(holes), "{route:?}");
    }
    for path in ["/plugin/echo/poll", "/plugin/parrot/handle", "/plugin/alone/poll"] {
        assert!(paths[path]["post"].is_object(), "{path}");
    }
    let mut ids = BTreeSet::new();
    for operation in paths.values().filter_map(Value::as_object).flat_map(|methods| methods.values()) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} stands twice");
        assert!(operation["responses"].as_object().is_some_and(|codes| !codes.is_empty()));
    }
}
