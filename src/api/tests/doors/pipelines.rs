//! Pipelines at the door: who may start them, what they answer, and what is shown of them.

use axum::body::Body;
use axum::http::StatusCode;
use ductile_api::gateway::{Refusal, Submitted};
use ductile_domain::job::JobStatus;
use serde_json::json;
use std::time::Duration;

use crate::harness::{ADMIN, Door, job, request};

/// API-06, API-08: 202 with the pipeline's labels; nobody waits for a synchronous pipeline that is asked for so.
#[tokio::test]
async fn a_pipeline_is_started_and_answers_202() {
    let door = Door::new().await;
    for path in ["/pipeline/told", "/pipeline/told?async=false", "/pipeline/greet?async=true"] {
        let reply = door.post(path, r#"{"payload": {"id": 1.00}}"#).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{path}: {}", reply.text);
        let name = if path.contains("told") { "told" } else { "greet" };
        assert_eq!(
            reply.json(),
            json!({"job_id": job(1), "status": "queued", "plugin": "pipeline", "command": name, "job_ids": [job(1)]})
        );
        let start = door.fake.started().remove(0);
        assert_eq!((&*start.pipeline, start.submitted_by, start.requested_by.as_str()), (name, "api", "*"));
        assert_eq!(start.payload.as_ref().map(|p| p.get()), Some(r#"{"id": 1.00}"#), "bytes as they came");
        assert!(start.dedupe_key.is_none() && !start.is_single);
    }
    assert!(door.fake.asked().is_empty(), "nobody waits: {:?}", door.fake.asked());
    assert_eq!(door.post("/pipeline/told", "").await.status, StatusCode::ACCEPTED);
    assert!(door.fake.started()[0].payload.is_none());
}

/// C-58: the answer's job is the first entry, and all are listed.
#[tokio::test]
async fn all_entries_of_a_pipeline_are_listed() {
    let door = Door::new().await;
    *door.fake.entries.lock().expect("not poisoned") =
        Ok(vec![Submitted::Accepted(job(1)), Submitted::Accepted(job(2))]);
    let answer = door.post("/pipeline/fan?async=true", "").await.json();
    assert_eq!((&answer["job_id"], &answer["job_ids"]), (&json!(job(1)), &json!([job(1), job(2)])));
}

/// API-42, API-43: what is malformed, unknown or not to be had from the payload is refused, and says what to do.
#[tokio::test]
async fn a_start_that_cannot_be_is_refused() {
    let door = Door::new().await;
    for (path, body, code) in [
        ("/pipeline/told", "{", "invalid_json"),
        ("/pipeline/told", "[]", "invalid_body"),
        ("/pipeline/told", r#"{"payload":3}"#, "invalid_body"),
        ("/pipeline/told", r#"{"url":"x"}"#, "invalid_body"),
        ("/pipeline/told?async=perhaps", "", "invalid_parameter"),
        ("/pipeline/told?wait=3s", "", "invalid_parameter"),
        ("/pipeline/told/dry-run", "[]", "invalid_body"),
        ("/pipeline/told/dry-run?async=true", "", "invalid_parameter"),
    ] {
        door.post(path, body).await.refused(400, code);
    }
    for path in ["/pipeline/tolt", "/pipeline/tolt/dry-run"] {
        let body = door.post(path, "").await.refused(404, "unknown_pipeline");
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("\"told\"")), "{body}");
    }
    door.get("/pipeline/tolt").await.refused(404, "unknown_pipeline");
    assert!(door.fake.started().is_empty(), "nothing was asked of the gateway");
    let answer = |refusal| *door.fake.entries.lock().expect("not poisoned") = Err(refusal);
    answer(Refusal::Baggage("step \"look\": baggage \"mail.id\": payload.id is missing".to_owned()));
    let body = door.post("/pipeline/greet?async=true", "").await.refused(400, "invalid_baggage");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("payload.id")), "{body}");
    answer(Refusal::ContextTooLarge { bytes_actual: 2_000_000, bytes_limit: 1_048_576 });
    let reply = door.post("/pipeline/greet?async=true", "").await;
    let body = reply.json();
    assert_eq!((reply.status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("context_too_large")));
    for place in [&body, &body["context"]] {
        assert_eq!((&place["bytes_actual"], &place["bytes_limit"]), (&json!(2_000_000), &json!(1_048_576)));
    }
    answer(Refusal::UnknownPipeline("greet".to_owned()));
    door.post("/pipeline/greet?async=true", "").await.refused(404, "unknown_pipeline");
}

/// API-09: there would be no one job to wait for.
#[tokio::test]
async fn a_synchronous_call_needs_one_entry() {
    let door = Door::new().await;
    *door.fake.entries.lock().expect("not poisoned") = Err(Refusal::SeveralEntries { entries: 2 });
    let body = door.post("/pipeline/fan", "").await.refused(400, "several_entries");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("?async=true")), "{body}");
    assert!(door.fake.started()[0].is_single);
    assert_eq!(door.fake.places.taken(), 0, "the place is free again");
}

/// A repeated key finds the run that exists, whose one job is the run's.
#[tokio::test]
async fn a_repeated_start_is_answered_with_the_job_that_exists() {
    let door = Door::new().await;
    *door.fake.entries.lock().expect("not poisoned") = Ok(vec![Submitted::Duplicate(job(5), JobStatus::Running)]);
    let mut keyed = request("POST", "/pipeline/told", Some(ADMIN), Body::empty());
    keyed.headers_mut().insert("idempotency-key", "k1".parse().expect("a value"));
    let answer = door.ask(keyed).await.json();
    assert_eq!(
        (&answer["job_id"], &answer["duplicate"], &answer["status"]),
        (&json!(job(5)), &json!(true), &json!("running"))
    );
    let start = door.fake.started().remove(0);
    assert_eq!((start.dedupe_key.as_deref(), start.is_single), (Some("pipeline:told:k1"), true), "others' keys differ");
}

/// API-10, API-13: the pipeline's own time, but never more than the configured; the work goes on.
#[tokio::test]
async fn a_wait_that_is_too_short_says_so() {
    for (limit, waited) in [(300_000, "200ms"), (20, "20ms")] {
        let fake = crate::harness::Fake::new(&[]).await;
        fake.configure(|config| config.api.max_sync_timeout = Duration::from_millis(limit));
        let door = Door::of(fake);
        let reply = door.post("/pipeline/greet", r#"{"payload":{"id":1}}"#).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        assert_eq!(
            reply.json(),
            json!({"job_id": job(1), "status": "running", "timeout_exceeded": true,
                "message": "Pipeline still running after timeout."})
        );
        assert_eq!(door.fake.asked(), [format!("wait for the family of {} {waited}", job(1))]);
        assert_eq!(door.fake.places.taken(), 0);
    }
}

/// API-12, D-15: one call more than may wait is refused before anything is enqueued; a place is free again with its call.
#[tokio::test]
async fn only_so_many_calls_wait_at_the_same_time() {
    let fake = crate::harness::Fake::new(&[]).await;
    fake.configure(|config| {
        config.api.max_concurrent_sync = 2;
        config.api.max_sync_timeout = Duration::from_secs(60);
    });
    let door = std::sync::Arc::new(Door::of(fake));
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let door = door.clone();
            tokio::spawn(async move { door.open(request("POST", "/pipeline/greet", Some(ADMIN), Body::empty())).await })
        })
        .collect();
    let both = async {
        while door.fake.asked().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::DEADLINE, both).await.expect("both wait");
    door.fake.started();
    let body = door.post("/pipeline/greet", "").await.refused(503, "too_many_sync");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("?async=true")), "{body}");
    assert!(door.fake.started().is_empty(), "nothing was enqueued");
    assert_eq!(door.post("/pipeline/greet?async=true", "").await.status, StatusCode::ACCEPTED);
    // A caller that goes away takes its place with it.
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(door.fake.places.taken(), 0);
}

/// API-06: the right to write starts pipelines, the right to read shows them; a denied command closes what runs it.
#[tokio::test]
async fn a_denied_command_closes_the_pipelines_that_run_it() {
    let door =
        Door::with_tokens(&[&["plugin:rw", "parrot:deny:handle"], &["plugin:rw", "echo:deny:poll"], &["plugin:ro"]])
            .await;
    let ask = |token: &'static str, path: &'static str| {
        let router = &door;
        async move { router.ask(request("POST", path, Some(token), Body::empty())).await }
    };
    let body = ask("plugin:rw parrot:deny:handle", "/pipeline/told").await.refused(403, "forbidden");
    assert_eq!((&body["context"]["plugin"], &body["context"]["command"]), (&json!("parrot"), &json!("handle")));
    ask("plugin:ro", "/pipeline/told").await.refused(403, "forbidden");
    assert!(door.fake.started().is_empty());
    assert_eq!(ask("plugin:rw echo:deny:poll", "/pipeline/told").await.status, StatusCode::ACCEPTED);
    ask("plugin:ro", "/pipeline/told/dry-run").await.refused(403, "forbidden");
    assert_eq!(
        ask("plugin:rw parrot:deny:handle", "/pipeline/told/dry-run").await.status,
        StatusCode::OK,
        "nothing runs"
    );
}

/// RTR-07: what a called plugin emits goes on, unless the caller says otherwise.
#[tokio::test]
async fn a_call_may_ask_that_its_events_go_nowhere() {
    let door = Door::new().await;
    for (query, is_routed) in [("", true), ("?route=true", true), ("?route=false", false), ("?route=0", false)] {
        door.post(&format!("/plugin/echo/poll{query}"), "").await;
        assert_eq!(door.fake.submitted()[0].is_routed, is_routed, "{query}");
    }
    door.post("/plugin/echo/poll?route=no", "").await.refused(400, "invalid_parameter");
    assert!(door.fake.submitted().is_empty());
}

/// What starts a pipeline, its steps as written, what they were compiled to.
#[tokio::test]
async fn pipelines_are_listed_and_shown_as_written_and_as_compiled() {
    let door = Door::with_tokens(&[&["plugin:ro"]]).await;
    let listed = door.ask(request("GET", "/pipelines", Some("plugin:ro"), Body::empty())).await.json();
    let names: Vec<_> = listed["pipelines"].as_array().expect("a list").iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["both", "fan", "greet", "told"]);
    assert_eq!(listed["routes"], json!([{"from": "echo", "event_type": "mail.read", "to": "parrot"}]));
    let greet = &listed["pipelines"][2];
    assert_eq!(
        (&greet["trigger"], &greet["from_plugin"], &greet["execution_mode"], &greet["timeout_secs"], &greet["on_hook"]),
        (&json!("mail.seen"), &json!("echo"), &json!("synchronous"), &json!(0.2), &json!(false))
    );
    assert_eq!(greet["if"], json!({"path": "payload.kind", "op": "eq", "value": "mail"}));
    let told = &listed["pipelines"][3];
    assert_eq!((&told["trigger"], &told["on_hook"]), (&json!("job.failed"), &json!(true)));
    assert_eq!((&told["execution_mode"], &told["timeout_secs"]), (&json!("asynchronous"), &json!(30)));
    let shown = door.get("/pipeline/greet").await.json();
    assert_eq!((&shown["steps"][0]["id"], &shown["steps"][1]["uses"]), (&json!("look"), &json!("parrot.poll")));
    let routes = shown["compiled_routes"].as_array().expect("a list");
    assert!(routes.iter().any(|route| route["id"] == "entry:look"), "{routes:?}");
}

/// API-37, AUT-09: what came from the environment into a pipeline is in no answer, compiled or as written.
#[tokio::test]
async fn no_answer_shows_what_the_environment_gave_a_pipeline() {
    let door = Door::new().await;
    for path in ["/pipelines", "/pipeline/told", "/topology", "/config/view", "/skills", "/openapi.json"] {
        let reply = door.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        assert!(!reply.text.contains("canary-wired"), "{path}: {}", reply.text);
    }
    let preview = door.post("/pipeline/told/dry-run", r#"{"payload":{"error":"broken"}}"#).await;
    let request = &preview.json()["steps"][0]["payload"];
    assert_eq!(
        (&request["url"], &request["text"]),
        (&json!("[REDACTED]"), &json!("[REDACTED]broken")),
        "{}",
        preview.text
    );
    assert!(!preview.text.contains("canary-wired"), "{}", preview.text);
}

/// API-36, PIP-50: the compiled routes of each pipeline by its name, beside the pipelines as written.
#[tokio::test]
async fn the_configuration_shows_what_pipelines_were_compiled_to() {
    let door = Door::new().await;
    let view = door.get("/config/view").await.json();
    assert_eq!(view["pipelines"].as_array().map(Vec::len), Some(4));
    let routes = view["compiled_routes"].as_object().expect("an object");
    assert_eq!(routes.keys().collect::<Vec<_>>(), ["both", "fan", "greet", "told"]);
    let entry = routes["greet"].as_array().expect("a list").iter().find(|r| r["id"] == "entry:look").expect("an entry");
    assert_eq!((&entry["source"]["trigger"], &entry["source"]["source_plugin"]), (&json!("mail.seen"), &json!("echo")));
    assert_eq!(entry["source"]["if"]["path"], "payload.kind");
    assert!(!entry["source"]["depth_lt"].is_null(), "{entry}");
    assert_eq!((&entry["destination"]["plugin"], &entry["destination"]["step_id"]), (&json!("echo"), &json!("look")));
}

/// API-41: plugins are the nodes, events between them the edges.
#[tokio::test]
async fn the_topology_says_which_events_reach_which_plugin() {
    let door = Door::with_tokens(&[&["plugin:ro"], &["jobs:ro"]]).await;
    let ask = |token| door.ask(request("GET", "/topology", Some(token), Body::empty()));
    ask("jobs:ro").await.refused(403, "forbidden");
    let topology = ask("plugin:ro").await.json();
    let edges = topology["edges"].as_array().expect("a list");
    assert!(topology["nodes"].is_array());
    assert!(
        edges.iter().any(|e| e["from"] == "echo" && e["to"] == "parrot" && e["event_type"] == "mail.read"),
        "{edges:?}"
    );
    assert!(edges.iter().any(|e| e["pipeline"] == "greet"), "{edges:?}");
}

/// CLI-35: decisions and payloads without a job.
#[tokio::test]
async fn a_preview_enqueues_nothing() {
    let door = Door::new().await;
    for (body, status) in [(r#"{"payload":{"id":7,"loud":true}}"#, 200), (r#"{"payload":{"loud":true}}"#, 400)] {
        let reply = door.post("/pipeline/greet/dry-run", body).await;
        assert_eq!(reply.status.as_u16(), status, "{}", reply.text);
    }
    assert!(door.fake.started().is_empty() && door.fake.asked().is_empty());
}
