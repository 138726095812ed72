//! Runs of pipelines, read from what they left in a real ledger: how they ended, the way to each job, their replay.

use axum::body::Body;
use axum::http::StatusCode;
use ductile_api::gateway::Gateway;
use ductile_domain::ids::ContextId;
use ductile_domain::plan::NewContext;
use ductile_ledger::Submission;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Door, Fake, job, request};
use crate::jobs::new_job;

fn context(number: u128) -> ContextId {
    Uuid::from_u128(1_000 + number).into()
}

/// Which run of a pipeline a job belongs to.
fn run(number: u128) -> Uuid {
    Uuid::from_u128(9_000 + number)
}

/// A step's job.
struct Step {
    number: u128,
    parent: Option<u128>,
    plugin: &'static str,
    node: &'static str,
    run: Uuid,
}

/// A pipeline, its steps each with why it failed, the run's status, and what its result says.
type Case = (&'static str, Vec<(Step, Option<&'static str>)>, &'static str, &'static str);

fn step(number: u128, parent: impl Into<Option<u128>>, plugin: &'static str, node: &'static str) -> Step {
    Step { number, parent: parent.into(), plugin, node, run: run(1) }
}

impl Fake {
    /// Enqueues the job of a step of `pipeline` with its context; with every hop the baggage grows.
    async fn enqueue_step(&self, pipeline: &'static str, step: &Step) {
        let mut new = new_job(job(step.number), "handle");
        new.plugin = step.plugin.into();
        new.context = Some(context(step.number));
        new.parent = step.parent.map(job);
        new.submitted_by = if step.parent.is_some() { "route" } else { "api" };
        let accumulated = json!({
            "seen": (1..=step.number).collect::<Vec<_>>(),
            "ductile": {
                "pipeline": pipeline, "step_id": step.node, "root": pipeline, "node": step.node,
                "pipeline_instance_id": step.run, "route_depth": step.number, "route_max_depth": 20,
            },
        });
        let made = NewContext {
            id: context(step.number),
            parent: step.parent.map(context),
            pipeline: Some(pipeline.into()),
            step: Some(step.node.into()),
            accumulated: to_raw_value(&accumulated).expect("JSON"),
        };
        let submission = Submission { jobs: vec![new], contexts: vec![made], ..Submission::default() };
        self.ledger.writer.submit(submission, self.generation().no).await.expect("enqueued");
    }

    /// Enqueues and runs it; what it says is its node, or why it failed.
    async fn run_step(&self, pipeline: &'static str, step: &Step, failure: Option<&str>) {
        self.enqueue_step(pipeline, step).await;
        let said = json!({"status": "ok", "result": step.node, "events": [{"type": "ductile.switch.true"}]});
        self.run_saying(job(step.number), failure, &said.to_string()).await;
    }
}

/// API-07, API-11: the last step's result, or that of the first step that failed and was not made up for. What events
/// of the run started elsewhere decides nothing.
#[tokio::test]
async fn a_synchronous_run_is_answered_with_its_end() {
    let look = || (step(1, None, "echo", "look"), None);
    let switch = || (step(2, 1, "core.switch", "say__switch"), None);
    let begin = || (step(1, None, "echo", "begin"), None);
    let left = || (step(2, 1, "parrot", "left"), Some("left broke"));
    let right = || (step(3, 1, "parrot", "right"), None);
    let foreign = || (Step { run: run(2), ..step(4, 2, "parrot", "elsewhere") }, Some("not ours"));
    let cases: Vec<Case> = vec![
        ("greet", vec![look(), switch()], "succeeded", "look"),
        ("greet", vec![look(), switch(), (step(3, 2, "parrot", "say"), None), foreign()], "succeeded", "say"),
        ("greet", vec![look(), switch(), (step(3, 2, "parrot", "say"), Some("hoarse"))], "failed", "x"),
        ("greet", vec![(step(1, None, "echo", "look"), Some("blind"))], "failed", "x"),
        (
            "both",
            vec![
                begin(),
                left(),
                right(),
                (step(4, 3, "core.join", "end__join"), None),
                (step(5, 4, "parrot", "end"), None),
            ],
            "succeeded",
            "end",
        ),
        (
            "both",
            vec![begin(), left(), right(), (step(4, 3, "core.join", "end__join"), Some("both broke"))],
            "failed",
            "x",
        ),
    ];
    for (pipeline, steps, status, said) in cases {
        let door = Door::with_tokens(&[&["plugin:rw"]]).await;
        for (step, failure) in &steps {
            door.fake.run_step(pipeline, step, *failure).await;
        }
        door.fake.ended.send_replace(true);
        let path = format!("/pipeline/{pipeline}");
        let reply = door.post(&path, "").await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        let end = reply.json();
        assert_eq!((&end["job_id"], &end["status"]), (&json!(job(1)), &json!(status)), "{pipeline} {said}");
        let result = if status == "failed" { &end["result"]["error"] } else { &end["result"]["result"] };
        assert_eq!(result, said, "{pipeline}: {end}");
        assert!(end["duration_ms"].is_u64());
        let tree = end["tree"].as_array().expect("a list");
        assert_eq!(tree.len(), steps.len());
        for (shown, (step, _)) in tree.iter().zip(&steps) {
            assert_eq!((&shown["plugin"], &shown["command"]), (&json!(step.plugin), &json!("handle")));
            assert_eq!((&shown["pipeline"], &shown["step_id"]), (&json!(pipeline), &json!(step.node)));
            assert!(shown["job_id"].is_string() && shown["status"].is_string() && shown["result"].is_object());
        }
        assert_eq!(door.fake.places.taken(), 0);
        let narrow = door.ask(request("POST", &path, Some("plugin:rw"), Body::empty())).await;
        assert_eq!((narrow.status, &narrow.json()["status"]), (StatusCode::OK, &json!(status)));
        assert!(!narrow.text.contains("result") && !narrow.text.contains("last_error"), "{}", narrow.text);
    }
}

/// API-07: what is left out of a large tree is said to be.
#[tokio::test]
async fn a_run_of_too_many_jobs_says_that_some_are_left_out() {
    let door = Door::new().await;
    door.fake.run_step("greet", &step(1, None, "echo", "look"), None).await;
    let children = (2..=1_001).map(|number| {
        let mut child = new_job(job(number), "poll");
        child.parent = Some(job(1));
        child
    });
    door.fake.ledger.writer.enqueue(children.collect(), door.fake.generation().no).await.expect("enqueued");
    door.fake.ended.send_replace(true);
    let reply = door.post("/pipeline/greet", "").await;
    assert_eq!(
        (reply.status, &reply.headers["ductile-truncated"]),
        (StatusCode::OK, &"true".parse().expect("a value"))
    );
    let end = reply.json();
    assert_eq!((&end["result"]["result"], end["tree"].as_array().map(Vec::len)), (&json!("look"), Some(1_000)));
}

/// CLI-27, QUE-35: the context with its baggage, what it accretes to, and the hops with what was decided.
#[tokio::test]
async fn a_job_of_a_pipeline_is_shown_with_the_way_that_led_to_it() {
    let door = Door::with_tokens(&[&["jobs:status:ro"]]).await;
    for step in [step(1, None, "echo", "look"), step(2, 1, "core.switch", "say__switch"), step(3, 2, "parrot", "say")] {
        door.fake.run_step("greet", &step, None).await;
    }
    let path = format!("/job/{}?include=context,lineage,hops,join", job(3));
    let shown = door.get(&path).await.json();
    assert_eq!(shown["event_context_id"], json!(context(3)));
    let own = &shown["context"];
    assert_eq!((&own["id"], &own["parent_id"]), (&json!(context(3)), &json!(context(2))));
    assert_eq!((&own["pipeline"], &own["step_id"]), (&json!("greet"), &json!("say")));
    assert_eq!(own["baggage"], json!({"seen": [1, 2, 3]}), "the control keys stand apart");
    assert_eq!((&own["control"]["route_depth"], &own["control"]["pipeline_instance_id"]), (&json!(3), &json!(run(1))));
    let lineage: Vec<_> =
        shown["lineage"].as_array().expect("a list").iter().map(|c| c["baggage"]["seen"].clone()).collect();
    assert_eq!(lineage, [json!([1, 2, 3]), json!([1, 2]), json!([1])], "the nearest first");
    let hops = shown["hops"].as_array().expect("a list");
    let steps: Vec<_> = hops.iter().map(|hop| hop["step_id"].clone()).collect();
    assert_eq!(steps, ["look", "say__switch", "say"]);
    assert_eq!((&hops[1]["decision"], &hops[1]["reason"]), (&json!("ductile.switch.true"), &json!("say__switch")));
    assert!(hops[0].get("decision").is_none() && shown.get("join").is_none(), "{shown}");
    let narrow = door.ask(request("GET", &path, Some("jobs:status:ro"), Body::empty())).await;
    let shown = narrow.json();
    assert!(shown["context"].get("baggage").is_none() && shown["hops"][1].get("reason").is_none(), "{shown}");
    assert_eq!(shown["hops"][1]["decision"], "ductile.switch.true");
    assert!(!narrow.text.contains("seen"), "{}", narrow.text);
    let plain = door.get(&format!("/job/{}", job(3))).await.json();
    assert!(plain.get("context").is_none() && plain.get("hops").is_none());
}

/// What a pipeline last did is for those who may see jobs.
#[tokio::test]
async fn pipelines_say_when_they_were_last_active() {
    let door = Door::with_tokens(&[&["plugin:ro"]]).await;
    door.fake.run_step("greet", &step(1, None, "echo", "look"), Some("blind")).await;
    let of = |listed: &Value, name: &str| {
        listed["pipelines"].as_array().expect("a list").iter().find(|p| p["name"] == name).expect("listed").clone()
    };
    let listed = door.get("/pipelines").await.json();
    let last = &of(&listed, "greet")["last_activity"];
    assert_eq!((&last["job_id"], &last["status"]), (&json!(job(1)), &json!("failed")));
    assert!(last["at"].is_string() && of(&listed, "fan").get("last_activity").is_none());
    assert_eq!(door.get("/pipeline/greet").await.json()["last_activity"], *last);
    let narrow = door.ask(request("GET", "/pipelines", Some("plugin:ro"), Body::empty())).await.json();
    assert!(of(&narrow, "greet").get("last_activity").is_none(), "{narrow}");
}

/// QUE-35: a new job of the same step on the recorded context, linked to the old one.
#[tokio::test]
async fn a_step_of_a_run_is_replayed_by_its_name() {
    let door = Door::new().await;
    let steps = [
        (step(1, None, "echo", "look"), None),
        (step(2, 1, "core.switch", "say__switch"), None),
        (step(3, 2, "parrot", "say"), Some("hoarse")),
        (Step { run: run(2), ..step(4, 2, "parrot", "say") }, None),
        (step(5, 1, "parrot", "twice"), None),
        (step(6, 1, "parrot", "twice"), None),
    ];
    for (step, failure) in &steps {
        door.fake.run_step("greet", step, *failure).await;
    }
    // Any job of the run stands for it.
    for (asked, named, found) in
        [(1, "say", 3), (3, "look", 1), (3, "greet/say", 3), (5, "say__switch", 2), (4, "say", 4)]
    {
        let path = format!("/job/{}/replay", job(asked));
        let reply = door.post(&path, json!({"from_step": named}).to_string()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{named}: {}", reply.text);
        assert_eq!(reply.json()["replay_of"], json!(job(found)), "{named}");
        let submitted = door.fake.submitted().remove(0);
        assert_eq!((submitted.replay_of, submitted.context), (Some(job(found)), Some(context(found))), "{named}");
        assert!(submitted.is_routed);
    }
    let path = format!("/job/{}/replay", job(1));
    let body = door.post(&path, r#"{"from_step":"sai"}"#).await.refused(409, "not_replayable");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("\"say\"")), "{body}");
    assert_eq!(body["context"]["steps"].as_array().map(Vec::len), Some(5), "of this run only: {body}");
    let body = door.post(&path, r#"{"from_step":"twice"}"#).await.refused(409, "not_replayable");
    assert_eq!(body["context"]["steps"].as_array().map(Vec::len), Some(2), "{body}");
    let body = door.post(&format!("/job/{}/replay", job(5)), "").await.refused(409, "not_replayable");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("\"twice\"")), "no such step is in force: {body}");
    door.post(&path, r#"{"from_step":7}"#).await.refused(400, "invalid_body");
    door.post(&format!("/job/{}/replay", job(77)), r#"{"from_step":"say"}"#).await.refused(404, "unknown_job");
    assert!(door.fake.submitted().is_empty());
    let quiet = door.post(&format!("{path}?route=false"), r#"{"payload":{"n":1}}"#).await;
    assert_eq!(quiet.status, StatusCode::ACCEPTED, "{}", quiet.text);
    assert!(!door.fake.submitted()[0].is_routed);
}

/// What follows a step follows its replay too, so that whoever may not start the pipeline may not begin in its midst.
#[tokio::test]
async fn a_step_is_not_replayed_by_a_token_that_is_denied_another_one() {
    let door = Door::with_tokens(&[&["jobs:rw", "parrot:deny:poll"], &["jobs:rw", "parrot:deny:handle"]]).await;
    door.fake.run_step("greet", &step(1, None, "echo", "look"), None).await;
    let path = format!("/job/{}/replay", job(1));
    let ask = |token: &'static str| door.ask(request("POST", &path, Some(token), Body::empty()));
    let body = ask("jobs:rw parrot:deny:poll").await.refused(403, "forbidden");
    assert_eq!((&body["context"]["plugin"], &body["context"]["step"]), (&json!("parrot"), &json!("say")));
    assert!(door.fake.submitted().is_empty());
    assert_eq!(ask("jobs:rw parrot:deny:handle").await.status, StatusCode::ACCEPTED);
}

/// RTR-07: a replay of what was not routed is not routed either, unless it is asked for.
#[tokio::test]
async fn a_replay_is_routed_as_its_job_was() {
    let door = Door::new().await;
    door.fake.enqueue_with(job(7), "poll", |job| job.is_routed = false).await;
    door.fake.run(job(7), None).await;
    for (query, is_routed) in [("", false), ("?route=true", true)] {
        door.post(&format!("/job/{}/replay{query}", job(7)), "").await;
        assert_eq!(door.fake.submitted()[0].is_routed, is_routed, "{query}");
    }
}
