//! Facts, figures, the configuration in force, and lists page by page.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Door, job, request};

async fn run(door: &Door, numbers: std::ops::RangeInclusive<u128>, failure: Option<&str>) {
    for number in numbers {
        door.fake.enqueue(job(number), "poll").await;
        door.fake.run(job(number), failure).await;
    }
}

/// FCT-13: newest first, by type, page by page.
#[tokio::test]
async fn facts_are_listed_by_type_and_page_by_page() {
    let door = Door::with_tokens(&[&["echo:ro"]]).await;
    run(&door, 1..=3, None).await;
    let body = door.get("/plugin/echo/facts").await.json();
    assert_eq!((&body["plugin"], body["facts"].as_array().map(Vec::len)), (&json!("echo"), Some(3)));
    let newest = &body["facts"][0];
    assert_eq!((&newest["seq"], &newest["fact_type"]), (&json!(3), &json!("echo.seen")));
    assert_eq!((&newest["job_id"], &newest["command"]), (&json!(job(3)), &json!("poll")));
    assert!(newest["fact"].is_object() && newest["created_at"].is_string(), "{newest}");
    assert!(body.get("next").is_none());
    let first = door.get("/plugin/echo/facts?limit=2").await.json();
    assert_eq!(first["next"], 2);
    let second = door.get("/plugin/echo/facts?limit=2&before_seq=2").await.json();
    assert_eq!((&second["facts"][0]["seq"], second.get("next")), (&json!(1), None));
    assert_eq!(door.get("/plugin/echo/facts?type=other").await.json()["facts"], json!([]));
    assert_eq!(door.get("/plugin/parrot/facts").await.json()["facts"], json!([]), "an alias has its own");
    door.get("/plugin/nobody/facts").await.refused(404, "unknown_plugin");
    for (bad, name) in [("limit=x", "limit"), ("before_seq=-1", "before_seq"), ("before_seq=", "before_seq")] {
        let body = door.get(&format!("/plugin/echo/facts?{bad}")).await.refused(400, "invalid_parameter");
        assert_eq!(body["context"]["parameter"], name);
    }
    let ask = |path| door.ask(request("GET", path, Some("echo:ro"), Body::empty()));
    assert_eq!(ask("/plugin/echo/facts").await.status, StatusCode::OK);
    ask("/plugin/parrot/facts").await.refused(403, "forbidden");
}

/// The name of a view is no reserved word: a plugin may call a command so.
#[tokio::test]
async fn a_command_may_be_called_like_a_view() {
    let door = Door::new().await;
    assert_eq!(door.post("/plugin/echo/facts", r#"{"payload":{"a":1}}"#).await.status, StatusCode::ACCEPTED);
    let submitted = door.fake.submitted().remove(0);
    assert_eq!((&*submitted.plugin, &*submitted.command), ("echo", "facts"));
}

/// API-40: count and percentiles of the records.
#[tokio::test]
async fn the_stopwatch_tells_how_long_attempts_take() {
    let door = Door::new().await;
    let none = door.get("/stopwatch/echo").await.json();
    assert_eq!((&none["count"], none.get("p50")), (&json!(0), None));
    run(&door, 1..=20, None).await;
    let shown = door.get("/stopwatch/echo").await.json();
    // The harness lets job n take n milliseconds.
    let ms = |n: u64| json!(n * 1_000_000);
    assert_eq!((&shown["count"], &shown["p50"], &shown["p95"]), (&json!(20), &ms(10), &ms(19)));
    assert_eq!((&shown["p99"], &shown["min"], &shown["max"]), (&ms(20), &ms(1), &ms(20)));
    assert_eq!((&shown["unit"], &shown["limited"]), (&json!("ns"), &json!(false)));
    assert_eq!(door.get("/stopwatch/echo?command=handle").await.json()["count"], 0);
    let one = door.get("/stopwatch/echo?command=poll&window=366d").await.json();
    assert_eq!((&one["command"], &one["window"]), (&json!("poll"), &json!("366d")));
    door.get("/stopwatch/nobody").await.refused(404, "unknown_plugin");
    for (bad, name) in [("window=1w", "window"), ("command=..%2F", "command")] {
        let body = door.get(&format!("/stopwatch/echo?{bad}")).await.refused(400, "invalid_parameter");
        assert_eq!(body["context"]["parameter"], name);
    }
}

/// API-34, API-35.
#[tokio::test]
async fn the_queue_and_the_last_day_are_summed_up() {
    let door = Door::new().await;
    run(&door, 1..=3, None).await;
    run(&door, 4..=4, Some("broken")).await;
    door.fake.enqueue(job(5), "poll").await;
    let queue = door.get("/analytics/queue").await.json();
    assert_eq!((&queue["queued"], &queue["running"], &queue["awaiting_retry"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!((&queue["max_workers"], &queue["utilization"]), (&json!(4), &json!(0.0)));
    assert!(queue["oldest_queued_at"].is_string());
    assert_eq!(queue["per_plugin"], json!([{"plugin": "echo", "queued": 1, "running": 0, "parallelism": 4}]));
    let summary = door.get("/analytics/summary?window=366d").await.json();
    assert_eq!(summary, json!({"window": "366d", "stats": {"dead": 0, "failed": 1, "skipped": 0, "succeeded": 3}}));
    // The harness lets attempts end in February 2026.
    let day = door.get("/analytics/summary").await.json();
    assert_eq!(day["window"], "24h");
    door.get("/analytics/summary?window=soon").await.refused(400, "invalid_parameter");
    door.get("/analytics/queue?x=1").await.refused(400, "invalid_parameter");
}

/// API-36, API-37, C-83: scopes and no token; what the loader replaced stays replaced.
#[tokio::test]
async fn the_configuration_in_force_is_shown_without_secrets() {
    let fake = crate::harness::Fake::new(&[&["jobs:ro", "events:ro"]]).await;
    fake.configure(|config| {
        config.source.sanitized = json!({
            "service": {"name": "ductile", "log_level": "info"},
            "api": {"max_body_size": 5, "auth": {"tokens": [{"token": "[REDACTED]", "scopes": ["*"]}]}},
            "tokens": [{"name": "ops", "key": "[REDACTED]", "scopes_file": "scopes/ops.json"}],
            "plugins": {"echo": {"enabled": true, "config": {"api_key": "[REDACTED]", "message": "Hello"}}},
        });
    });
    let door = Door::of(fake);
    let reply = door.get("/config/view").await;
    let view = reply.json();
    assert_eq!((&view["service"]["name"], &view["plugins"]["echo"]["enabled"]), (&json!("ductile"), &json!(true)));
    assert_eq!(
        view["api"],
        json!({"enabled": true, "listen": "127.0.0.1:8080", "max_body_size": 5,
            "tokens": [{"scopes": ["*"]}, {"scopes": ["events:ro", "jobs:ro"]}]})
    );
    assert_eq!(view["pipelines"], json!([]));
    assert_eq!(view["plugins"]["echo"]["config"]["api_key"], "[REDACTED]");
    assert!(view.get("tokens").is_none() && !reply.text.contains("canary"), "{}", reply.text);
}

/// API-17, API-19: a list is read page by page, from `next` to `before`, and a place that is gone is said to be.
#[tokio::test]
async fn lists_are_read_page_by_page() {
    let door = Door::new().await;
    run(&door, 1..=5, None).await;
    for (path, list, id) in [("/jobs", "jobs", "job_id"), ("/job-logs", "logs", "log_id")] {
        let mut seen = Vec::new();
        let mut more = String::new();
        loop {
            let page = door.get(&format!("{path}?limit=2{more}")).await.json();
            assert_eq!(page["total"], 5, "{path}");
            seen.extend(page[list].as_array().expect("a list").iter().map(|item| item[id].clone()));
            match page.get("next").and_then(Value::as_str) {
                Some(next) => more = format!("&before={next}"),
                None => break,
            }
        }
        let all = door.get(path).await.json();
        assert_eq!(seen, all[list].as_array().expect("a list").iter().map(|i| i[id].clone()).collect::<Vec<_>>());
        assert_eq!(seen.len(), 5, "{path}");
        let offset = door.get(&format!("{path}?offset=3&limit=9")).await.json();
        assert_eq!(offset[list].as_array().map(Vec::len), Some(2), "{path}");
        for bad in ["before=x", "before=00000000-0000-0000-0000-00000000dead", "offset=x", "offset=1&before=y"] {
            let body = door.get(&format!("{path}?{bad}")).await.refused(400, "invalid_parameter");
            assert!(["before", "offset"].iter().any(|name| body["context"]["parameter"] == *name), "{body}");
        }
    }
}

/// Every refusal of a parameter names it.
#[tokio::test]
async fn a_parameter_that_is_wrong_is_named() {
    let door = Door::new().await;
    door.fake.enqueue(job(1), "poll").await;
    let one = format!("/job/{}", job(1));
    for (path, name) in [
        ("/jobs?status=foo", "status"),
        ("/jobs?limit=0", "limit"),
        ("/jobs?from=yesterday", "from"),
        ("/jobs?parent_job_id=17", "parent_job_id"),
        ("/job-logs?to=tomorrow", "to"),
        ("/job-logs?job_id=17", "job_id"),
        ("/job-logs?include_result=maybe", "include_result"),
        ("/job-logs?query=a+b+c+d+e+f+g+h+i", "query"),
        ("/events?type=a%20b", "type"),
        ("/events?job_id=17", "job_id"),
        ("/events?since=x", "since"),
        (&*format!("{one}?wait=soon"), "wait"),
        (&*format!("{one}?include=x"), "include"),
    ] {
        let body = door.get(path).await.refused(400, "invalid_parameter");
        assert_eq!(body["context"]["parameter"], name, "{path}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(name)), "{body}");
    }
    for (path, named) in [("/jobs?staus=ok", "staus"), ("/job-logs?form=x", "form"), ("/jobs?limit=1&limit=2", "limit")]
    {
        let body = door.get(path).await.refused(400, "invalid_parameter");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(named)), "{body}");
    }
}
