//! What followed from a job: its history, its tree, its replay.

use axum::body::Body;
use axum::http::StatusCode;
use ductile_domain::ids::EventId;
use ductile_domain::job::NewJob;
use ductile_ledger::{Deletable, Prune};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

use crate::harness::{Door, job, request};

fn with_payload(text: &str) -> impl FnOnce(&mut NewJob) {
    let payload = RawValue::from_string(text.to_owned()).expect("JSON");
    move |job| job.payload = Some(payload)
}

/// A routed child of `job(parent)`.
fn child_of(parent: u128) -> impl FnOnce(&mut NewJob) {
    move |child| {
        child.parent = Some(job(parent));
        child.source_event = Some(EventId::from(Uuid::now_v7()));
        child.submitted_by = "route";
    }
}

/// TEL-08 and promise 8: attempts, transitions and times are added when they are asked for.
#[tokio::test]
async fn a_job_is_shown_with_the_parts_that_are_asked_for() {
    let door = Door::with_tokens(&[&["jobs:status:ro"]]).await;
    door.fake.enqueue_with(job(1), "poll", with_payload(r#"{"n":1.00}"#)).await;
    door.fake.run(job(1), Some("token expired")).await;
    let path = format!("/job/{}", job(1));
    let plain = door.get(&path).await.json();
    for part in ["attempts", "transitions", "stopwatch", "timing", "payload"] {
        assert!(plain.get(part).is_none(), "{part} in {plain}");
    }
    let reply = door.get(&format!("{path}?include=attempts,transitions,payload")).await;
    let shown = reply.json();
    assert_eq!(shown["attempts"][0]["status"], "failed");
    assert_eq!(shown["attempts"][0]["cause"], "plugin_error");
    let steps: Vec<_> =
        shown["transitions"].as_array().expect("a list").iter().map(|t| t["to_status"].clone()).collect();
    assert_eq!(steps, ["queued", "running", "failed"]);
    assert!(shown.get("stopwatch").is_none(), "{shown}");
    assert!(reply.text.contains(r#""payload":{"n":1.00}"#), "as it was recorded: {}", reply.text);
    let all = door.get(&format!("{path}?include=all")).await.json();
    assert!(all["stopwatch"].is_array() && all["attempts"].is_array(), "{all}");

    let narrow = request("GET", &format!("{path}?include=all"), Some("jobs:status:ro"), Body::empty());
    let narrow = door.ask(narrow).await;
    assert_eq!(narrow.json()["attempts"][0]["cause"], "plugin_error");
    assert!(!narrow.text.contains("token expired") && !narrow.text.contains("payload"), "{}", narrow.text);
    let body = door.get(&format!("{path}?include=attempts,history")).await.refused(400, "invalid_parameter");
    assert_eq!(body["context"]["parameter"], "include");
}

/// What was kept of a quarantined job is shown to those who see results, the state of its plugin to operators only,
/// and its existence to the others.
#[tokio::test]
async fn the_bundle_of_a_quarantined_job_is_for_those_who_see_results() {
    let door = Door::with_tokens(&[&["jobs:tree:ro"], &["jobs:ro"], &["jobs:status:ro"]]).await;
    door.fake.enqueue_with(job(3), "poll", with_payload(r#"{"secret":"sauce"}"#)).await;
    let path = format!("/job/{}/quarantine", job(3));
    let refused = door.get(&path).await.refused(404, "not_quarantined");
    assert_eq!(refused["context"]["status"], "queued");
    for _ in 0..3 {
        door.fake.crash(job(3)).await;
    }
    let shown = door.get(&path).await.json();
    assert_eq!(shown["bundle"]["request"]["payload"], json!({"secret": "sauce"}));
    assert_eq!(shown["bundle"]["attempts"][2]["stderr_tail"], "a needle in stderr");
    assert!(shown["reason"].as_str().is_some_and(|r| r.starts_with("quarantined: 3 attempts")), "{shown}");
    let as_token = |token| request("GET", &path, Some(token), Body::empty());
    assert!(shown["bundle"]["request"].get("state").is_some(), "{shown}");
    let results = door.ask(as_token("jobs:ro")).await.json();
    assert_eq!(results["bundle"]["request"]["payload"], json!({"secret": "sauce"}));
    assert!(results["bundle"]["request"].get("state").is_none(), "{results}");
    let narrow = door.ask(as_token("jobs:tree:ro")).await;
    assert_eq!(narrow.json()["reason"], "quarantined");
    assert!(!narrow.text.contains("sauce") && !narrow.text.contains("SIGSEGV"), "{}", narrow.text);
    door.ask(as_token("jobs:status:ro")).await.refused(403, "forbidden");
    door.get(&format!("/job/{}/quarantine", job(99))).await.refused(404, "unknown_job");
}

/// API-16: the fields, the job first, then level by level.
#[tokio::test]
async fn a_tree_is_the_job_and_all_that_followed() {
    let door = Door::with_tokens(&[&["jobs:tree:ro"]]).await;
    let path = format!("/job/{}/tree", job(1));
    door.get(&path).await.refused(404, "unknown_job");
    door.fake.enqueue(job(1), "poll").await;
    door.fake.run(job(1), None).await;
    door.fake.enqueue_with(job(2), "handle", child_of(1)).await;
    door.fake.enqueue_with(job(3), "handle", child_of(2)).await;
    door.fake.enqueue_with(job(4), "handle", child_of(1)).await;
    door.fake.run(job(2), Some("broken")).await;
    let reply = door.get(&path).await;
    let tree = reply.json();
    let tree = tree.as_array().expect("a list");
    assert!(!reply.headers.contains_key("ductile-truncated"));
    let ids: Vec<_> = tree.iter().map(|j| j["job_id"].clone()).collect();
    assert_eq!(ids, [1, 2, 4, 3].map(|n| Value::from(job(n).to_string())));
    assert_eq!(tree[0]["parent_job_id"], Value::Null);
    assert_eq!(tree[3]["parent_job_id"], job(2).to_string());
    assert_eq!((&tree[0]["status"], &tree[1]["status"]), (&json!("succeeded"), &json!("failed")));
    assert_eq!((&tree[0]["plugin"], &tree[0]["command"]), (&json!("echo"), &json!("poll")));
    assert_eq!(tree[0]["result"]["result"], "hello");
    assert!(tree[0]["started_at"].is_string() && tree[0]["completed_at"].is_string());
    assert!(tree[3].get("result").is_none());
    let narrow = door.ask(request("GET", &path, Some("jobs:tree:ro"), Body::empty())).await;
    assert_eq!(narrow.json()[1]["status"], "failed");
    assert!(!narrow.text.contains("hello") && !narrow.text.contains("broken"), "{}", narrow.text);
    door.get("/job/17/tree").await.refused(400, "invalid_path");
}

/// QUE-35: a new job with the recorded input; who asked is recorded, and the old job is named.
#[tokio::test]
async fn a_replay_repeats_the_recorded_input() {
    let door = Door::new().await;
    let path = format!("/job/{}/replay", job(7));
    door.post(&path, "").await.refused(404, "unknown_job");
    door.post("/job/17/replay", "").await.refused(400, "invalid_path");
    door.fake.enqueue_with(job(7), "poll", with_payload(r#"{"n":1.00}"#)).await;
    let body = door.post(&path, "").await.refused(409, "not_replayable");
    assert_eq!(body["context"]["status"], "queued");
    door.fake.run(job(7), Some("broken")).await;
    let reply = door.post(&path, "").await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    assert_eq!(
        reply.json(),
        json!({"job_id": job(1), "status": "queued", "plugin": "echo", "command": "poll", "replay_of": job(7)})
    );
    let submitted = door.fake.submitted().remove(0);
    assert_eq!(submitted.payload.as_ref().map(|p| p.get()), Some(r#"{"n":1.00}"#));
    assert_eq!((submitted.submitted_by, submitted.requested_by.as_str()), ("api", "*"));
    assert_eq!((submitted.replay_of, submitted.context, submitted.dedupe_key), (Some(job(7)), None, None));

    door.post(&path, r#"{"payload": {"n": 2}}"#).await;
    let submitted = door.fake.submitted().remove(0);
    assert_eq!(submitted.payload.as_ref().map(|p| p.get()), Some(r#"{"n": 2}"#));
    for bad in ["3", r#"{"payload": 3}"#, r#"{"paylaod": {}}"#] {
        door.post(&path, bad).await.refused(400, "invalid_body");
    }
    let mut keyed = request("POST", &path, Some(crate::harness::ADMIN), Body::empty());
    keyed.headers_mut().insert("idempotency-key", "k1".parse().expect("a value"));
    door.ask(keyed).await;
    let submitted = door.fake.submitted().remove(0);
    assert_eq!(submitted.dedupe_key, Some(format!("replay:{}:k1", job(7))));
    assert!(submitted.dedupe_in_flight);
}

/// QUE-35: also once the queue's row is pruned; the log keeps what a replay needs.
#[tokio::test]
async fn a_job_is_replayed_from_the_log_when_its_row_is_pruned() {
    let door = Door::new().await;
    door.fake.enqueue_with(job(7), "poll", with_payload(r#"{"n":1}"#)).await;
    door.fake.run(job(7), None).await;
    door.fake.an_hour_passes();
    let prune = Prune { retention: vec![(Deletable::Jobs, Duration::from_secs(60))], limit: 10 };
    door.fake.ledger.writer.prune(prune).await.expect("pruned");
    let shown = door.get(&format!("/job/{}?include=all", job(7))).await.json();
    assert_eq!((&shown["pruned"], &shown["status"]), (&json!(true), &json!("succeeded")));
    assert_eq!((&shown["result"]["result"], &shown["payload"]), (&json!("hello"), &json!({"n": 1})));
    let tree = door.get(&format!("/job/{}/tree", job(7))).await.json();
    assert_eq!((tree.as_array().map(Vec::len), &tree[0]["result"]["result"]), (Some(1), &json!("hello")));
    assert_eq!(door.post(&format!("/job/{}/replay", job(7)), "").await.status, StatusCode::ACCEPTED);
    assert_eq!(door.fake.submitted()[0].payload.as_ref().map(|p| p.get()), Some(r#"{"n":1}"#));
}

/// API-04: another payload for `handle` stands in the recorded event.
#[tokio::test]
async fn a_replayed_event_keeps_all_but_its_payload() {
    let door = Door::new().await;
    let event = r#"{"type":"mail.seen","payload":{"n":1},"source":"imap","event_id":"x","dedupe_key":"d"}"#;
    door.fake.enqueue_with(job(7), "handle", with_payload(event)).await;
    door.fake.run(job(7), None).await;
    let path = format!("/job/{}/replay", job(7));
    door.post(&path, "").await;
    assert_eq!(door.fake.submitted()[0].payload.as_ref().map(|p| p.get()), Some(event));
    door.post(&path, r#"{"payload":{"n":2.00}}"#).await;
    let payload = door.fake.submitted().remove(0).payload.expect("an event").get().to_owned();
    assert!(payload.contains(r#""payload":{"n":2.00}"#), "{payload}");
    let shown: Value = serde_json::from_str(&payload).expect("JSON");
    let mut expected: Value = serde_json::from_str(event).expect("JSON");
    expected["payload"] = json!({"n": 2.0});
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn what_cannot_run_any_more_is_not_replayed() {
    let door = Door::new().await;
    for (number, plugin, command) in [(2, "gone", "poll"), (3, "alone", "poll"), (4, "echo", "gone")] {
        door.fake.enqueue_with(job(number), command, |job| job.plugin = plugin.into()).await;
        door.fake.ledger.writer.cancel(job(number), "x".into(), "x".into()).await.expect("cancelled");
        let path = format!("/job/{}/replay", job(number));
        let body = door.post(&path, "").await.refused(409, "not_replayable");
        assert_eq!(body["context"]["job_id"], job(number).to_string());
    }
    door.fake.enqueue_with(job(5), "poll", |job| job.context = Some(Uuid::from_u128(9).into())).await;
    door.fake.ledger.writer.cancel(job(5), "x".into(), "x".into()).await.expect("cancelled");
    let body = door.post(&format!("/job/{}/replay", job(5)), "").await.refused(409, "not_replayable");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("context")), "{body}");
    assert!(door.fake.submitted().is_empty());
}

/// The right to change jobs is not the right to run anything: another payload is another call, and a denial holds.
#[tokio::test]
async fn a_replay_grants_no_more_than_the_token_may_do() {
    let door = Door::with_tokens(&[
        &["jobs:rw"],
        &["jobs:rw", "echo:allow:poll"],
        &["jobs:rw", "echo:deny:poll"],
        &["jobs:ro"],
    ])
    .await;
    door.fake.enqueue(job(7), "poll").await;
    door.fake.run(job(7), None).await;
    let path = format!("/job/{}/replay", job(7));
    for (token, body, is_allowed) in [
        ("jobs:rw", "", true),
        ("jobs:rw", r#"{"payload":{}}"#, false),
        ("jobs:rw echo:allow:poll", r#"{"payload":{}}"#, true),
        ("jobs:rw echo:deny:poll", "", false),
        ("jobs:ro", "", false),
    ] {
        let reply = door.ask(request("POST", &path, Some(token), Body::from(body))).await;
        assert_eq!(reply.status == StatusCode::ACCEPTED, is_allowed, "{token} {body}: {}", reply.text);
        if !is_allowed {
            reply.refused(403, "forbidden");
        }
    }
    assert_eq!(door.fake.submitted().len(), 2);
}
