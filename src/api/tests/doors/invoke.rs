//! `POST /plugin/{plugin}/{command}`: what is enqueued, and what is refused without a trace.

use axum::body::Body;
use axum::http::StatusCode;
use ductile_api::gateway::{Refusal, Submitted};
use ductile_domain::job::JobStatus;
use serde_json::{Value, json};
use std::time::Duration;

use crate::harness::{ADMIN, BODY_LIMIT, Door, job, request};

/// API-03: 202 with the four fields, and exactly one submission.
#[tokio::test]
async fn a_call_enqueues_one_job_and_answers_202() {
    let door = Door::new().await;
    let reply = door.post("/plugin/echo/poll", r#"{"payload": {"n": 1.00}}"#).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let expected = json!({"job_id": job(1), "status": "queued", "plugin": "echo", "command": "poll"});
    assert_eq!(reply.json(), expected);
    let submitted = door.fake.submitted();
    assert_eq!(submitted.len(), 1);
    let one = &submitted[0];
    assert_eq!((&*one.plugin, &*one.command, one.submitted_by), ("echo", "poll", "api"));
    assert_eq!(one.requested_by, "*", "the token's name");
    assert_eq!(one.payload.as_ref().map(|p| p.get()), Some(r#"{"n": 1.00}"#), "bytes as they came");
    assert!(one.dedupe_key.is_none() && !one.dedupe_in_flight);
}

/// API-03: the payload is optional.
#[tokio::test]
async fn an_empty_body_is_a_call_without_a_payload() {
    let door = Door::new().await;
    for body in ["", "{}", "  ", r#"{"payload":null}"#] {
        assert_eq!(door.post("/plugin/echo/poll", body).await.status, StatusCode::ACCEPTED, "{body:?}");
        assert!(door.fake.submitted()[0].payload.is_none());
    }
}

/// API-04: `handle` gets an event of type `api.trigger`.
#[tokio::test]
async fn the_payload_of_handle_is_wrapped_in_an_event() {
    let door = Door::new().await;
    door.post("/plugin/echo/handle", r#"{"payload":{"a":[1,2]},"dedupe_key":"k"}"#).await;
    let submitted = door.fake.submitted();
    let text = submitted[0].payload.as_ref().expect("an envelope").get();
    let event: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!((&event["type"], &event["payload"]), (&json!("api.trigger"), &json!({"a": [1, 2]})));
    for key in ["source", "timestamp", "event_id"] {
        assert!(event[key].is_string(), "{key} in {event}");
    }
    door.post("/plugin/echo/handle", "").await;
    let submitted = door.fake.submitted();
    assert!(submitted[0].payload.as_ref().is_some_and(|p| p.get().contains(r#""payload":{}"#)));
}

/// API-42, API-43: malformed bodies give 400 and enqueue nothing.
#[tokio::test]
async fn a_malformed_body_is_refused_and_enqueues_nothing() {
    let door = Door::new().await;
    for (body, code) in [
        (&b"{"[..], "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b"{\"payload\":{}} {}", "invalid_json"),
        (b"{\"payload\":{\"a\":\"\xff\"}}", "invalid_json"),
        (b"3", "invalid_body"),
        (b"[{\"a\":1}]", "invalid_body"),
        (b"{\"payload\":3}", "invalid_body"),
        (b"{\"payload\":[{}]}", "invalid_body"),
        (b"{\"message\":\"hello\"}", "invalid_body"),
        (b"{\"payload\":{},\"dedupe_key\":7}", "invalid_body"),
    ] {
        let reply = door.post("/plugin/echo/poll", body.to_vec()).await;
        let answer = reply.refused(400, code);
        assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("payload")), "{answer}");
    }
    let deep = format!("{{\"payload\":{{\"a\":{}{}}}}}", "[".repeat(1_500), "]".repeat(1_500));
    let status = door.post("/plugin/echo/poll", deep).await.status;
    assert!(status == StatusCode::ACCEPTED || status == StatusCode::BAD_REQUEST, "{status}");
    door.fake.submitted();
    for path in ["/plugin/echo/poll?wait=soon", "/plugin/echo/poll?wiat=1s", "/plugin/echo/poll?wait=1s&wait=2s"] {
        door.post(path, "").await.refused(400, "invalid_parameter");
    }
    assert!(door.fake.submitted().is_empty());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_and_while_it_is_read() {
    let door = Door::new().await;
    let large = format!(r#"{{"payload":{{"a":"{}"}}}}"#, "x".repeat(BODY_LIMIT));
    let body = door.post("/plugin/echo/poll", large.clone()).await.refused(413, "body_too_large");
    assert_eq!(body["context"]["bytes_limit"], BODY_LIMIT);
    let mut announced = request("POST", "/plugin/echo/poll", Some(ADMIN), Body::empty());
    announced.headers_mut().insert("content-length", (BODY_LIMIT + 1).to_string().parse().expect("a value"));
    door.ask(announced).await.refused(413, "body_too_large");
    let fits = format!(r#"{{"payload":{{"a":"{}"}}}}"#, "x".repeat(BODY_LIMIT - 20));
    assert!(fits.len() <= BODY_LIMIT);
    assert_eq!(door.post("/plugin/echo/poll", fits).await.status, StatusCode::ACCEPTED);
    assert_eq!(door.fake.submitted().len(), 1);
}

#[tokio::test]
async fn names_that_nothing_has_are_refused_with_a_suggestion() {
    let door = Door::new().await;
    let body = door.post("/plugin/ech/poll", "").await.refused(404, "unknown_plugin");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("echo")), "{body}");
    let body = door.post("/plugin/echo/pol", "").await.refused(404, "unknown_command");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("poll")), "{body}");
    let body = door.post("/plugin/alone/poll", "").await.refused(404, "plugin_not_runnable");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("plugins.alone")), "{body}");
    let odd = format!("/plugin/{}/poll", "%0a".repeat(3_000));
    assert!(door.post(&odd, "").await.refused(404, "unknown_plugin")["error"].as_str().is_some_and(|e| e.len() < 700));
}

#[tokio::test]
async fn a_key_for_duplicates_comes_from_the_header_or_the_body() {
    let door = Door::new().await;
    let keyed = |header: Option<&str>, body: &'static str| {
        let mut request = request("POST", "/plugin/echo/poll", Some(ADMIN), body.into());
        if let Some(key) = header {
            request.headers_mut().insert("idempotency-key", key.parse().expect("a value"));
        }
        door.ask(request)
    };
    for (header, body) in [(Some("k1"), ""), (None, r#"{"dedupe_key":"k1"}"#), (Some("k1"), r#"{"dedupe_key":"k1"}"#)] {
        assert_eq!(keyed(header, body).await.status, StatusCode::ACCEPTED);
        let one = door.fake.submitted().remove(0);
        assert_eq!((one.dedupe_key.as_deref(), one.dedupe_in_flight), (Some("k1"), true));
    }
    keyed(Some("k1"), r#"{"dedupe_key":"k2"}"#).await.refused(400, "invalid_parameter");
    keyed(Some(""), "").await.refused(400, "invalid_parameter");
    keyed(None, r#"{"dedupe_key":"a\nb"}"#).await.refused(400, "invalid_parameter");
    keyed(Some(&"k".repeat(257)), "").await.refused(400, "invalid_parameter");
    assert!(door.fake.submitted().is_empty());
}

#[tokio::test]
async fn a_duplicate_is_answered_with_the_job_that_exists() {
    let door = Door::new().await;
    for (status, code) in [(JobStatus::Running, StatusCode::ACCEPTED), (JobStatus::Succeeded, StatusCode::OK)] {
        *door.fake.answer.lock().expect("not poisoned") = Ok(Submitted::Duplicate(job(5), status));
        let reply = door.post("/plugin/echo/poll", r#"{"dedupe_key":"k"}"#).await;
        assert_eq!(reply.status, code);
        let expected =
            json!({"job_id": job(5), "status": status, "plugin": "echo", "command": "poll", "duplicate": true});
        assert_eq!(reply.json(), expected);
    }
}

#[tokio::test]
async fn a_gateway_that_cannot_take_it_says_when_to_try_again() {
    let door = Door::new().await;
    let refusal = Refusal::Unavailable { reason: "the disk is full".into(), retry_after: Duration::from_millis(2_500) };
    *door.fake.answer.lock().expect("not poisoned") = Err(refusal);
    let reply = door.post("/plugin/echo/poll", "").await;
    reply.refused(503, "unavailable");
    assert_eq!(reply.headers["retry-after"], "3");
    *door.fake.answer.lock().expect("not poisoned") = Err(Refusal::Internal("secret-of-the-log".into()));
    let reply = door.post("/plugin/echo/poll", "").await;
    reply.refused(500, "internal");
    assert!(!reply.text.contains("secret-of-the-log"));
}

#[tokio::test]
async fn a_panic_costs_its_caller_the_answer_and_nobody_else() {
    let mut fake = crate::harness::Fake::new(&[]).await;
    fake.panics = true;
    let door = Door::of(fake);
    let reply = door.post("/plugin/echo/poll", "").await;
    reply.refused(500, "internal");
    assert!(!reply.text.contains("secret-of-the-log"));
    assert_eq!(door.get("/healthz").await.status, StatusCode::OK);
}
