//! What an attempt is asked, and what it refuses before anything is spawned.

use std::sync::Arc;

use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_domain::pipeline::{Prepared, prepare};
use ductile_domain::plan::plan;
use serde_json::{Value, json};

use crate::run::{claimed, origin};
use crate::world::{compile, counter, event, job, now, raw, sound, success, value};

/// The first job of pipeline `p`.
fn first(generation: &Generation, payload: &str) -> ClaimedJob {
    let pipeline = generation.pipelines.get("p").expect("compiled");
    let mut start = generation.pipelines.start(pipeline, &raw(payload), &origin(), &mut counter()).expect("it starts");
    let context = start.contexts.remove(0).accumulated;
    claimed(&start.jobs[0], Some(context))
}

fn request(generation: &Generation, job: &ClaimedJob) -> Result<(Value, Value), String> {
    match prepare(generation, job)? {
        Prepared::Request { payload, context } => {
            Ok((payload.as_deref().map(value).unwrap_or_default(), context.as_deref().map(value).unwrap_or_default()))
        }
        Prepared::Done { reason, .. } => panic!("done: {reason}"),
    }
}

fn step(step: Value) -> Generation {
    sound(json!([{"name": "p", "on": "e", "steps": [step]}]))
}

/// PIP-27, PIP-28, PIP-31, C-52: literals, then the payload, then `with`, from one snapshot and with types kept.
#[test]
fn with_remaps_what_the_payload_and_its_defaults_hold() {
    let generation = step(json!({
        "uses": "a.poll.poll", "payload": {"default": "d", "n": 0, "brace": "{payload.n}"},
        "with": {"n": "{payload.m}", "m": "{payload.n}", "text": "n={payload.n} of {context.ductile_pipeline}", "all": [1, "{payload.default}"]},
    }));
    let (payload, _) =
        request(&generation, &first(&generation, r#"{"n":1.10,"m":{"deep":12345678901234567890}}"#)).expect("fine");
    assert_eq!(payload["text"], "n=1.10 of p");
    assert_eq!(
        (&payload["default"], &payload["brace"], &payload["all"]),
        (&json!("d"), &json!("{payload.n}"), &json!([1, "d"]))
    );
    let Ok(Prepared::Request { payload: Some(payload), .. }) =
        prepare(&generation, &first(&generation, r#"{"n":1.10,"m":{"deep":12345678901234567890}}"#))
    else {
        panic!("no request")
    };
    assert!(
        payload.get().contains(r#""m":1.10"#) && payload.get().contains(r#""n":{"deep":12345678901234567890}"#),
        "{payload}"
    );
}

/// The facts: `handle` gets its envelope with the baggage merged in, and the context by flat names.
#[test]
fn a_request_for_handle_has_the_envelope_and_the_flat_context() {
    let generation = step(
        json!({"id": "x", "uses": "a", "baggage": {"web.url": "payload.url"}, "with": {"line": "{payload.web.url}!"}}),
    );
    let (envelope, context) =
        request(&generation, &first(&generation, r#"{"url":"u","trace_id":"own"}"#)).expect("fine");
    assert_eq!((&envelope["type"], &envelope["source"]), (&json!("e"), &json!("api")));
    assert_eq!(envelope["timestamp"], "2026-01-02T03:04:05.678Z");
    let payload = &envelope["payload"];
    assert_eq!((&payload["url"], &payload["web"], &payload["line"]), (&json!("u"), &json!({"url": "u"}), &json!("u!")));
    assert_eq!(payload["trace_id"], "own", "the payload has the last word over the baggage");
    assert!(payload.get("ductile").is_none());
    assert!(context.get("ductile").is_none(), "{context}");
    assert_eq!((&context["ductile_pipeline"], &context["ductile_step_id"]), (&json!("p"), &json!("x")));
    assert_eq!((&context["ductile_route_depth"], &context["ductile_route_max_depth"]), (&json!(1), &json!(20)));
    assert!(context["ductile_pipeline_instance_id"].is_string());
    assert_eq!(context["web"]["url"], "u");
}

/// The facts: the baggage fills the gaps of `handle` alone.
#[test]
fn other_commands_get_no_baggage_in_their_payload() {
    let uses = |uses: &str| {
        step(json!({"uses": uses, "baggage": {"claimed": "payload.k"}, "with": {"t": "{payload.claimed}"}}))
    };
    let (handle, poll) = (uses("b"), uses("b.poll"));
    assert_eq!(request(&handle, &first(&handle, r#"{"k":1}"#)).expect("fine").0["payload"]["t"], 1);
    assert!(request(&poll, &first(&poll, r#"{"k":1}"#)).expect_err("refused").contains("payload.claimed"));
    assert_eq!(
        request(&poll, &first(&poll, r#"{"k":1,"claimed":2}"#)).expect("fine").0,
        json!({"k": 1, "claimed": 2, "t": 2})
    );
}

/// PIP-29, DIS-17: a path that leads nowhere, or a text that is no template, fails the job and names it.
#[test]
fn a_template_without_a_value_refuses_the_attempt() {
    for (template, part) in [
        ("{payload.nope}", "payload.nope"),
        ("{payload.x", "without its partner"),
        ("a {context.no.where}", "context.no.where"),
    ] {
        let (generation, _) =
            compile(json!([{"name": "p", "on": "e", "steps": [{"uses": "a", "with": {"key": template}}]}]), json!([]));
        let error = request(&generation, &first(&generation, "{}")).expect_err("refused");
        assert!(error.contains(part) && error.contains("\"key\""), "{error}");
    }
}

/// A payload that is no object is replaced when the step makes one of it, and left alone otherwise.
#[test]
fn a_payload_that_is_no_object_can_still_be_used() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "x", "uses": "a"}, {"id": "y", "uses": "b", "with": {"text": "{payload}"}},
    ]}]));
    let first = first(&generation, "{}");
    let plan = plan(&generation, &first, &success(vec![event("q", "\"words\"")]), now(), &mut counter());
    let second = claimed(&plan.children[0], Some(plan.contexts[0].accumulated.clone()));
    assert_eq!(request(&generation, &second).expect("fine").0["payload"], json!({"text": "words"}));
}

/// A job outside of every pipeline is handed on as it is stored.
#[test]
fn a_job_without_context_is_left_alone() {
    let generation = sound(json!([]));
    let Ok(Prepared::Request { payload: None, context: None }) = prepare(&generation, &job("a", "poll")) else {
        panic!("something was made of it")
    };
}

/// A step that a reload took away, or gave another plugin, is named; its attempt runs nothing.
#[test]
fn a_step_that_is_gone_refuses_the_attempt_and_what_would_follow_it() {
    let before = step(json!({"id": "x", "uses": "a"}));
    let stored = first(&before, "{}");
    for pipelines in [
        json!([]),
        json!([{"name": "p", "on": "e", "steps": [{"id": "y", "uses": "a"}]}]),
        json!([{"name": "p", "on": "e", "steps": [{"id": "x", "uses": "b"}]}]),
        json!([{"name": "p", "on": "e", "steps": [{"id": "x", "uses": "a.poll.poll"}]}]),
    ] {
        let after = Generation { pipelines: sound(pipelines.clone()).pipelines, ..sound(json!([])) };
        let error = request(&after, &stored).expect_err("refused");
        assert!(error.contains("\"x\"") && error.contains("\"p\"") && error.contains("any more"), "{error}");
        let plan = plan(&after, &stored, &success(vec![event("e", "{}")]), now(), &mut counter());
        assert_eq!(plan.fault, Some(error), "{pipelines}");
    }
    let same = Generation { pipelines: Arc::clone(&before.pipelines), ..sound(json!([])) };
    assert!(request(&same, &stored).is_ok());
}

/// PIP-43: a relay step says that it can't be sent.
#[test]
fn a_relay_step_is_compiled_and_refused_when_it_runs() {
    let generation = step(json!({"id": "out", "relay": {
        "to": "lab", "event": "backup.ready", "dedupe_key": "payload.id", "with": {"id": "payload.id"}, "baggage": {"t": "context.trace_id"},
    }}));
    let job = first(&generation, "{}");
    assert_eq!((&*job.plugin, &*job.command), ("core.relay", "handle"));
    assert!(request(&generation, &job).expect_err("refused").contains("relay"));
}
