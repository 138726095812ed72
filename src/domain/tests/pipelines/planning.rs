//! Which jobs follow which events.

use ductile_domain::outcome::EmittedEvent;
use ductile_domain::pipeline::{Prepared, prepare};
use ductile_domain::plan::plan;
use serde_json::json;

use crate::run::claimed;
use crate::world::{DEDUPE, children, counter, emits, event, job, now, raw, sound, success, value, wired};

/// RTR-01, RTR-02, RTR-03, RTR-04, PIP-02: every match gives a job, by equality alone.
#[test]
fn an_event_starts_every_pipeline_and_route_of_exactly_its_type() {
    let generation = wired(
        json!([
            {"name": "one", "on": "x.y", "steps": [{"uses": "b"}]},
            {"name": "two", "on": "x.y", "steps": [{"id": "first", "uses": "b.poll"}, {"uses": "c"}]},
            {"name": "other", "on": "x", "steps": [{"uses": "b"}]},
        ]),
        json!([
            {"from": "a", "event_type": "x.y", "to": "c"},
            {"from": "b", "event_type": "x.y", "to": "c"},
            {"from": "a", "event_type": "x.*", "to": "c"},
        ]),
    );
    let plan =
        emits(&generation, "a", vec![event("x.y", r#"{"n":1}"#), event("x.z", "{}"), event("x.y", r#"{"n":2}"#)]);
    let expected = ["b.handle one/step_1", "b.poll two/first", "c.handle "];
    assert_eq!(children(&plan), [expected, expected].concat());
    assert_eq!(plan.unmatched, ["x.z"]);
    assert!(plan.fault.is_none() && plan.dropped.is_empty() && plan.joins.is_empty() && plan.arrivals.is_empty());
    assert_eq!(plan.generation, 7);
    let sources: Vec<_> = plan.children.iter().map(|j| j.source_event.expect("an event")).collect();
    assert!(sources[..3].iter().all(|s| *s == sources[0]) && sources[3] != sources[0], "one id per event");
    for child in &plan.children {
        assert_eq!((child.submitted_by, child.max_attempts, child.snapshot), ("route", 3, Some(3)));
        assert_eq!(child.parent, Some(job("a", "poll").fence.job));
        assert!(child.is_routed && child.seat.is_none() && child.dedupe_key.is_none() && !child.dedupe_in_flight);
        assert!(plan.contexts.iter().any(|c| Some(c.id) == child.context && c.parent.is_none()));
    }
    assert_eq!(plan.contexts.len(), plan.children.len());
}

/// The stored form of what `handle` and other commands get.
#[test]
fn handle_gets_an_envelope_and_other_commands_the_payload() {
    let generation =
        sound(json!([{"name": "p", "on": "e", "steps": [{"split": [{"uses": "b"}, {"uses": "b.poll"}]}]}]));
    let mut emitted = event("e", r#"{"z":1.10,"a":"\u00e9","n":12345678901234567890}"#);
    emitted.dedupe_key = Some("twin".into());
    let plan = emits(&generation, "a", vec![emitted]);
    let [handle, poll] = plan.children.as_slice() else { panic!("{:?}", children(&plan)) };
    let payload = r#"{"z":1.10,"a":"\u00e9","n":12345678901234567890,"ductile_upstream_plugin":"a"}"#;
    assert_eq!(poll.payload.as_ref().expect("a payload").get(), payload, "as it was written, in its order");
    let id = handle.source_event.expect("an event");
    assert_eq!(
        handle.payload.as_ref().expect("a payload").get(),
        format!(
            r#"{{"type":"e","payload":{payload},"dedupe_key":"twin","source":"a","timestamp":"2026-01-02T03:04:05.678Z","event_id":"{id}"}}"#
        )
    );
    for child in &plan.children {
        assert_eq!((child.dedupe_key.as_deref(), child.dedupe_window), (Some("twin"), DEDUPE));
    }
}

/// A chain that begins gets its origin; control values stand beside it.
#[test]
fn a_first_context_names_the_origin_of_its_chain() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [{"id": "x", "uses": "b"}]}]));
    let plan = emits(&generation, "a", vec![event("e", "{}")]);
    let [context] = plan.contexts.as_slice() else { panic!("{:?}", plan.contexts) };
    assert_eq!((context.pipeline.as_deref(), context.step.as_deref()), (Some("p"), Some("x")));
    let accumulated = value(&context.accumulated);
    assert_eq!(accumulated["origin_plugin"], "a");
    assert_eq!(accumulated["origin_event_type"], "e");
    assert_eq!(accumulated["origin_event_id"], plan.children[0].source_event.expect("an event").to_string());
    assert!(accumulated["trace_id"].is_string());
    let mut control = accumulated["ductile"].clone();
    assert!(control.as_object_mut().expect("an object").remove("pipeline_instance_id").is_some());
    let expected =
        json!({"pipeline": "p", "step_id": "x", "root": "p", "node": "x", "route_depth": 1, "route_max_depth": 20});
    assert_eq!(control, expected);
}

/// PIP-25, PIP-21, PIP-24: first the plugin, then the condition; nothing is made when one of them says no.
#[test]
fn a_pipeline_starts_only_when_its_plugin_and_its_condition_fit() {
    let generation = sound(json!([{
        "name": "p", "on": "e", "from_plugin": "a", "if": {"path": "payload.new", "op": "eq", "value": true},
        "steps": [{"id": "x", "uses": "b", "if": {"path": "payload.changed", "op": "eq", "value": true}}],
    }]));
    for (plugin, payload, expected) in [
        ("a", r#"{"new":true}"#, vec!["core.switch.handle p/x__switch"]),
        ("b", r#"{"new":true}"#, vec![]),
        ("a", r#"{"new":"true"}"#, vec![]),
        ("a", "{}", vec![]),
    ] {
        let plan = emits(&generation, plugin, vec![event("e", payload)]);
        assert_eq!(children(&plan), expected, "{plugin} {payload}");
        assert_eq!(plan.contexts.len(), expected.len());
        assert_eq!(plan.unmatched.is_empty(), !expected.is_empty(), "{plugin} {payload}");
    }
}

/// PIP-22, D-32: `context.*` is what the emitting job carries, and never holds outside of a pipeline.
#[test]
fn a_condition_on_context_needs_a_chain() {
    let generation = sound(json!([{
        "name": "p", "on": "e", "if": {"path": "context.web.lang", "op": "neq", "value": "en"}, "steps": [{"uses": "b"}],
    }]));
    let mut claimed = job("a", "poll");
    for (context, is_started) in [
        (None, false),
        (Some(r#"{"web":{"lang":"de"},"ductile":{"route_depth":1,"route_max_depth":20}}"#), true),
        (Some(r#"{"web":{"lang":"en"},"ductile":{"route_depth":1,"route_max_depth":20}}"#), false),
    ] {
        claimed.context = context.map(raw);
        let plan = plan(&generation, &claimed, &success(vec![event("e", "{}")]), now(), &mut counter());
        assert_eq!(plan.children.len(), usize::from(is_started), "{context:?}");
    }
}

/// RTR-07, C-59: whoever started a job, its events are routed, unless the call asked for none.
#[test]
fn a_call_may_ask_that_nothing_follows() {
    let generation = wired(
        json!([{"name": "p", "on": "e", "steps": [{"uses": "b"}]}]),
        json!([{"from": "a", "event_type": "e", "to": "c"}]),
    );
    for trigger in ["api", "cli", "scheduler", "webhook", "relay"] {
        let claimed = ductile_domain::job::ClaimedJob { submitted_by: trigger.into(), ..job("a", "poll") };
        let outcome = success(vec![event("e", "{}")]);
        assert_eq!(plan(&generation, &claimed, &outcome, now(), &mut counter()).children.len(), 2, "{trigger}");
        let quiet = ductile_domain::job::ClaimedJob { is_routed: false, ..claimed };
        let silent = plan(&generation, &quiet, &outcome, now(), &mut counter());
        assert!(silent.children.is_empty() && silent.contexts.is_empty());
        assert_eq!(silent.unmatched, ["e"]);
    }
}

/// What is done once is the work: a decision before it neither uses the key up nor loses it.
#[test]
fn a_dedupe_key_goes_past_decisions_to_the_step_behind_them() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "x", "uses": "b", "if": {"path": "payload.n", "op": "exists"}}, {"id": "y", "uses": "c"},
    ]}]));
    let keyed = EmittedEvent { dedupe_key: Some("twin".into()), ..event("e", r#"{"n":1}"#) };
    let first = emits(&generation, "a", vec![keyed]);
    assert_eq!(first.children[0].dedupe_key, None);
    let switch = claimed(&first.children[0], Some(first.contexts[0].accumulated.clone()));
    let Ok(Prepared::Done { events, .. }) = prepare(&generation, &switch) else { panic!("not decided") };
    let second = plan(&generation, &switch, &success(events), now(), &mut counter());
    assert_eq!(second.children[0].dedupe_key.as_deref(), Some("twin"));
    let gated = claimed(&second.children[0], Some(second.contexts[0].accumulated.clone()));
    let third = plan(&generation, &gated, &success(Vec::new()), now(), &mut counter());
    assert_eq!(third.children[0].dedupe_key, None, "another event has another key");
}

/// A step that was asked to start nothing else still goes on in its pipeline, as quietly.
#[test]
fn a_silent_step_is_followed_by_silent_steps() {
    let generation = sound(json!([
        {"name": "p", "on": "e", "steps": [{"id": "x", "uses": "b"}, {"id": "y", "uses": "c"}]},
        {"name": "q", "on": "e", "steps": [{"uses": "d"}]},
    ]));
    let first = emits(&generation, "a", vec![event("e", "{}")]);
    let outcome = success(vec![event("e", "{}")]);
    for (is_routed, expected) in [(true, vec!["p/y", "p/x", "q/step_1"]), (false, vec!["p/y"])] {
        let mut job = claimed(&first.children[0], Some(first.contexts[0].accumulated.clone()));
        job.is_routed = is_routed;
        let plan = plan(&generation, &job, &outcome, now(), &mut counter());
        assert_eq!(plan.children.iter().map(|c| c.target_key.as_str()).collect::<Vec<_>>(), expected);
        assert!(plan.children.iter().all(|child| child.is_routed == is_routed) && plan.unmatched.is_empty());
    }
}

/// PIP-53, C-45: the type that a plugin chooses selects what follows.
#[test]
fn the_type_of_an_event_selects_the_pipeline() {
    let generation = sound(json!([
        {"name": "image", "on": "image.detected", "steps": [{"uses": "b"}]},
        {"name": "text", "on": "text.detected", "steps": [{"uses": "c"}]},
    ]));
    assert_eq!(children(&emits(&generation, "a", vec![event("image.detected", "{}")])), ["b.handle image/step_1"]);
    assert_eq!(children(&emits(&generation, "a", vec![event("text.detected", "{}")])), ["c.handle text/step_1"]);
}

/// A failure starts nothing, whatever it brought along.
#[test]
fn a_failed_attempt_is_followed_by_nothing() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [{"uses": "b"}]}]));
    let mut outcome = success(vec![event("e", "{}")]);
    outcome.status = ductile_domain::outcome::AttemptStatus::Failed;
    let plan = plan(&generation, &job("a", "poll"), &outcome, now(), &mut counter());
    assert!(plan.children.is_empty() && plan.unmatched.is_empty());
}
