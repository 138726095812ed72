//! The gateway as a whole, its catalog and its actors.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;

use crate::harness::{Door, job, request};
use ductile_api::gateway::{Cancelled, Refusal};
use ductile_domain::job::JobStatus;
use ductile_domain::problem::Problem;

/// API-02, API-24, API-25: the fields, without a token.
#[tokio::test]
async fn anyone_may_ask_how_the_gateway_is() {
    let door = Door::new().await;
    let ask = |path| door.ask(request("GET", path, None, Body::empty()));
    let index = ask("/").await.json();
    assert_eq!(index["name"], "Ductile Gateway");
    assert_eq!(index["uptime_seconds"], 7);
    let named: Vec<_> = index["discovery"].as_object().expect("an object").keys().cloned().collect();
    assert_eq!(named, ["ai_plugin", "health", "openapi", "plugins", "skills"]);
    for (name, path) in index["discovery"].as_object().expect("an object") {
        assert_eq!(ask(path.as_str().expect("a path")).await.status, StatusCode::OK, "{name} is named and not served");
    }
    for path in ["/healthz", "/health"] {
        let reply = ask(path).await;
        assert_eq!(reply.status, StatusCode::OK);
        let health = reply.json();
        assert_eq!(health["status"], "ok");
        assert_eq!(health["queue_depth"], 3);
        assert_eq!((&health["version"], &health["commit"]), (&json!("1.2.3"), &json!("abcdef123456")), "OPS-34");
        assert_eq!(health["config_path"], "/etc/ductile/config.yaml");
        for key in ["uptime_seconds", "plugins_loaded", "plugins_circuit_open", "binary_path", "version"] {
            assert!(!health[key].is_null(), "{key} in {health}");
        }
        assert!(!reply.text.contains("a reason for operators"), "reasons are not public");
    }
    *door.fake.health.lock().expect("not poisoned") = "degraded";
    assert_eq!(ask("/healthz").await.status, StatusCode::OK);
    *door.fake.health.lock().expect("not poisoned") = "draining";
    let reply = ask("/healthz").await;
    assert_eq!((reply.status, &reply.json()["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("draining")));
    assert!(reply.headers.contains_key("retry-after"));
}

/// API-26, API-27.
#[tokio::test]
async fn the_catalog_shows_plugins_and_aliases() {
    let door = Door::new().await;
    let list = door.ask(request("GET", "/plugins", None, Body::empty())).await.json();
    let names: Vec<_> = list["plugins"].as_array().expect("a list").iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["alone", "echo", "parrot"]);
    assert_eq!(
        list["plugins"][1],
        json!({"name": "echo", "version": "0.1.0", "description": "A demonstration plugin",
            "commands": ["poll", "handle", "facts"], "runnable": true, "healthy": true})
    );
    let parrot = door.get("/plugin/parrot").await.json();
    assert_eq!((&parrot["uses"], &parrot["protocol"]), (&json!("echo"), &json!(2)));
    assert_eq!(parrot["commands"][0], json!({"name": "poll", "type": "read"}));
    assert_eq!(list["plugins"][2]["uses"], "echo");
    let echo = door.get("/plugin/echo").await.json();
    assert_eq!((&echo["aliases"], echo.get("uses")), (&json!(["parrot"]), None));
    assert_eq!((&echo["parallelism"], &echo["concurrency_safe"]), (&json!(4), &json!(true)));
    assert_eq!(echo["config_keys"], json!({"required": [], "optional": []}));
    door.get("/plugin/nothing").await.refused(404, "unknown_plugin");
}

#[tokio::test]
async fn operators_steer_the_gateway_under_their_name() {
    let door = Door::new().await;
    assert_eq!(door.post("/system/pause", "").await.json()["paused"], true);
    assert_eq!(door.post("/system/resume", "").await.json()["paused"], false);
    assert_eq!(door.post("/system/stop", "").await.status, StatusCode::ACCEPTED);
    assert_eq!(door.fake.asked(), ["dispatch false *", "dispatch true *", "stop *"]);
    let status = door.get("/system/status").await.json();
    assert_eq!((&status["generation"], &status["config_snapshot_id"]), (&json!(4), &json!(9)));
    assert_eq!(status["reasons"], json!(["a reason for operators"]));
    assert_eq!((&status["version"], &status["commit"]), (&json!("1.2.3"), &json!("abcdef123456")), "OPS-34");
    assert_eq!(status["build_time"], "2026-01-01T00:00:00Z");
    assert_eq!(status["boot_id"], door.fake.ring.boot().to_string());
}

/// API-33: what a reload did, or every problem that refused it.
#[tokio::test]
async fn a_reload_says_what_is_different_or_everything_that_is_wrong() {
    let door = Door::new().await;
    let answer = door.post("/system/reload", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            StatusCode::OK,
            json!({"status": "ok", "message": "Configuration reloaded successfully.", "generation": 5,
                "reloaded_at": "2026-01-01T00:00:00.000Z", "config_snapshot_id": 10, "added": ["plugins.new"],
                "changed": ["service.max_workers"], "removed": ["plugins.old"], "restart_required": ["state.path"]})
        )
    );
    assert_eq!(door.fake.asked(), ["reload *"]);
    let first = Problem::error("service", "must be at least 1").in_file("/c/config.yaml").at(3, 5);
    let problems = vec![first.at_path("service.max_workers").hint("remove the key"), Problem::warning("unused", "x")];
    *door.fake.reloaded.lock().expect("not poisoned") = Err(Refusal::InvalidConfig(problems));
    let body = door.post("/system/reload", "").await.refused(422, "invalid_config");
    assert_eq!(
        body["context"]["problems"],
        json!([
            {"severity": "error", "category": "service", "message": "must be at least 1", "file": "/c/config.yaml",
                "line": 3, "column": 5, "field": "service.max_workers", "hint": "remove the key"},
            {"severity": "warning", "category": "unused", "message": "x"},
        ])
    );
    let status = door.get("/system/status").await.json();
    assert_eq!(status["generations"], json!([{"no": 3, "attempts": 2}, {"no": 4, "attempts": 0}]));
}

#[tokio::test]
async fn an_actor_is_found_with_and_without_the_root_in_its_path() {
    let door = Door::new().await;
    let tree = door.get("/system/tree").await.json();
    assert_eq!((&tree["generation"], &tree["root"]["path"]), (&json!(4), &json!("root")));
    for path in ["/system/actors/root%2Fexec_sup%2Fqueue", "/system/actors/exec_sup%2Fqueue"] {
        let actor = door.get(path).await.json();
        assert_eq!((&actor["path"], &actor["state"]), (&json!("root/exec_sup/queue"), &json!("its state")));
        assert_eq!(actor["responsive"], true);
    }
    assert_eq!(door.get("/system/actors/exec_sup%2Fstuck").await.json()["responsive"], false);
    assert_eq!(door.get("/system/actors/root").await.json()["kind"], "supervisor");
    let body = door.get("/system/actors/exec_sup%2Fquue").await.refused(404, "unknown_actor");
    assert!(body["hint"].is_string());
    assert_eq!(door.post("/system/actors/exec_sup%2Fqueue/restart", "").await.status, StatusCode::OK);
    assert!(door.fake.asked().contains(&"restart root/exec_sup/queue".to_owned()));
    door.post("/system/actors/nobody/restart", "").await.refused(404, "unknown_actor");
}

#[tokio::test]
async fn a_cancellation_says_what_became_of_it() {
    let door = Door::new().await;
    let path = format!("/job/{}/cancel?why=no%20longer%20needed", job(3));
    assert_eq!(door.post(&path, "").await.json()["status"], "dead");
    assert_eq!(door.fake.asked(), [format!("cancel {} no longer needed *", job(3))]);
    let answer = |cancelled| *door.fake.cancelled.lock().expect("not poisoned") = cancelled;
    answer(Cancelled::Stopping);
    assert_eq!(door.post(&path, "").await.status, StatusCode::ACCEPTED);
    answer(Cancelled::AlreadyTerminal(JobStatus::Succeeded));
    assert_eq!(door.post(&path, "").await.refused(409, "already_terminal")["context"]["status"], "succeeded");
    answer(Cancelled::Unknown);
    door.post(&path, "").await.refused(404, "unknown_job");
    door.post("/job/17/cancel", "").await.refused(400, "invalid_path");
}
