//! What agents read first, made from the catalog and the table of routes.

use axum::body::Body;
use ductile_api::routes;
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::harness::{Door, job, request};

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

/// API-28, AGT-01: pipelines are skills too, and a reload changes which.
#[tokio::test]
async fn pipelines_are_skills_as_long_as_they_are_in_force() {
    let door = Door::new().await;
    let named = |skills: &Value| -> Vec<String> {
        let skills = skills["skills"].as_array().expect("a list").iter().filter(|s| s["kind"] == "pipeline");
        skills.map(|s| s["name"].as_str().expect("a name").to_owned()).collect()
    };
    let skills = public(&door, "/skills").await;
    assert_eq!(named(&skills), ["pipeline.both", "pipeline.fan", "pipeline.greet", "pipeline.told"]);
    let of = |name: &str| skills["skills"].as_array().expect("a list").iter().find(|s| s["name"] == name).cloned();
    assert_eq!(
        of("pipeline.fan"),
        Some(
            json!({"name": "pipeline.fan", "kind": "pipeline", "endpoint": "/pipeline/fan", "pipeline": "fan", "trigger": "mail.seen",
            "execution_mode": "synchronous", "timeout_secs": 30})
        )
    );
    assert_eq!(
        of("pipeline.told").map(|s| s["execution_mode"].clone()),
        Some(json!("asynchronous")),
        "unless said otherwise"
    );
    door.fake.rewire(json!([{"name": "fresh", "on": "x.y", "steps": [{"uses": "echo"}]}]));
    assert_eq!(named(&public(&door, "/skills").await), ["pipeline.fresh"]);
    let paths = public(&door, "/openapi.json").await["paths"].clone();
    assert!(paths["/pipeline/fresh"].is_object() && paths.get("/pipeline/fan").is_none());
}

/// AGT-08: from `/` over the skills and the document to a call and to its result, by links only.
#[tokio::test]
async fn an_agent_finds_its_way_by_links() {
    let door = Door::new().await;
    let index = public(&door, "/").await;
    let link = |name: &str| index["discovery"][name].as_str().expect("a link").to_owned();
    let skills = public(&door, &link("skills")).await;
    let document = public(&door, &link("openapi")).await;
    for (name, payload) in
        [("plugin.echo.handle", json!({"message": "hi"})), ("pipeline.told", json!({"message": "hi"}))]
    {
        let skill = skills["skills"].as_array().expect("a list").iter().find(|s| s["name"] == name).expect("a skill");
        let endpoint = skill["endpoint"].as_str().expect("an endpoint");
        let operation = &document["paths"][endpoint]["post"];
        assert_eq!(operation["security"], json!([{"BearerAuth": []}]));
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
        assert_eq!(body["payload"]["type"], "object", "{operation}");
        let started = door.post(endpoint, json!({"payload": payload}).to_string()).await;
        assert!(operation["responses"].get(started.status.as_str()).is_some(), "{}", started.status);
        let id = started.json()["job_id"].as_str().expect("an id").to_owned();
        let (path, read) = document["paths"]
            .as_object()
            .and_then(|paths| paths.iter().find(|(path, _)| *path == "/job/{id}"))
            .expect("the job's own path");
        assert_eq!(read["get"]["parameters"][0]["name"], "id");
        door.get(&path.replace("{id}", &id)).await.refused(404, "unknown_job");
    }
    door.fake.enqueue(job(1), "handle").await;
    door.fake.run(job(1), None).await;
    let done = door.get(&format!("/job/{}", job(1))).await.json();
    assert_eq!((&done["status"], &done["result"]["result"]), (&json!("succeeded"), &json!("hello")));
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
    let fan = &paths["/pipeline/fan"]["post"];
    assert_eq!((&fan["operationId"], &fan["parameters"][0]["name"]), (&json!("pipeline.fan"), &json!("async")));
    let codes: Vec<_> = fan["responses"].as_object().expect("an object").keys().collect();
    assert_eq!(codes, ["200", "202", "400", "403", "413", "503"]);
    let input = &paths["/pipeline/greet"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(input["payload"]["properties"]["message"]["type"], "string", "what its first step takes");
    let mut ids = BTreeSet::new();
    for operation in paths.values().filter_map(Value::as_object).flat_map(|methods| methods.values()) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} stands twice");
        assert!(operation["responses"].as_object().is_some_and(|codes| !codes.is_empty()));
    }
}
