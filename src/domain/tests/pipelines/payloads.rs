//! What the payload and the baggage of a next step are made of.

use ductile_domain::plan::plan;
use serde_json::{Value, json};

use crate::run::Run;
use crate::world::{counter, emits, event, job, now, raw, sound, success, value};

/// DIS-25, C-43: six names go on by themselves, in the payload only.
#[test]
fn six_names_of_the_input_reach_the_next_plugin() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "one", "uses": "a"}, {"id": "two", "uses": "b", "with": {"filename": "of two"}}, {"id": "three", "uses": "c"},
    ]}]));
    let input = r#"{"pattern":1,"prompt":2,"model":3,"output_dir":4,"output_path":5,"filename":6,"other":7}"#;
    let run = Run::of(&generation, "p", input, &|_, _| Ok(vec![event("x", r#"{"model":"mine"}"#)]));
    let two = &run.at("two").payload;
    let expected =
        json!({"pattern": 1, "prompt": 2, "model": "mine", "output_dir": 4, "output_path": 5, "filename": "of two"});
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&two[key], value, "{key}");
    }
    assert!(two.get("other").is_none());
    assert_eq!(run.at("three").payload["filename"], "of two", "the input is what the plugin was given");
    assert_eq!(run.at("two").context["ductile"]["node"], "two");
    assert!(run.at("two").context.get("prompt").is_none());
    let outside = emits(&generation, "a", vec![event("e", "{}")]);
    assert!(!outside.children[0].payload.as_ref().expect("a payload").get().contains("pattern"));
}

/// C-42 and the facts: `result` and where an event came from, unless the producer says so itself.
#[test]
fn the_result_and_the_source_of_an_event_are_added_unless_they_are_there() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [{"uses": "b"}]}]));
    let child = |payload: &str, answer: &str| {
        let mut outcome = success(vec![event("e", payload)]);
        outcome.result = Some(answer.to_owned());
        let plan = plan(&generation, &job("a", "poll"), &outcome, now(), &mut counter());
        value(plan.children[0].payload.as_ref().expect("a payload"))["payload"].clone()
    };
    assert_eq!(
        child("{}", r#"{"status":"ok","result":"done"}"#),
        json!({"result": "done", "ductile_upstream_plugin": "a"})
    );
    assert_eq!(child(r#"{"result":1}"#, r#"{"status":"ok","result":"done"}"#)["result"], 1);
    for empty in [r#"{"status":"ok","result":""}"#, r#"{"status":"ok","result":null}"#, r#"{"status":"ok"}"#, "{", ""] {
        assert!(child("{}", empty).get("result").is_none(), "{empty}");
    }
    assert_eq!(child(r#"{"ductile_upstream_plugin":"me"}"#, "{}")["ductile_upstream_plugin"], "me");
    assert_eq!(child("[1,2]", "{}"), json!([1, 2]), "what is no object stays as it is");
}

/// PIP-06, C-42: a step without events hands on its input with its own result and name, not those of the step before.
#[test]
fn a_step_without_events_hands_on_its_input() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "one", "uses": "a", "payload": {"extra": true}}, {"id": "two", "uses": "b.poll"}, {"id": "three", "uses": "c"},
    ]}]));
    let run = Run::of(&generation, "p", r#"{"k":1.50}"#, &|_, _| Ok(Vec::new()));
    assert_eq!(
        run.at("three").payload,
        json!({
            "k": 1.5, "extra": true, "ductile_upstream_plugin": "b", "ductile_upstream_pipeline": "p",
            "ductile_upstream_step_id": "two", "origin_plugin": "api",
            "origin_event_id": run.at("three").context["origin_event_id"],
            "origin_event_type": "e", "trace_id": run.at("three").context["trace_id"],
        })
    );
    assert_eq!(run.at("two").payload.get("origin_plugin"), None, "baggage fills the gaps of `handle` only");
}

/// What an author gives one plugin from the environment is neither written down nor given to the next one.
#[test]
fn secrets_of_a_step_stay_with_its_plugin() {
    let pipelines = json!([{"name": "p", "on": "e", "steps": [
        {"id": "one", "uses": "a", "payload": {"model": "hush-model", "open": "seen"},
            "with": {"auth": "Bearer hush-token", "filename": "hush-file", "k": "hush-k", "more": ["{payload.k}", "hush-token"], "n": "{payload.k}"}},
        {"id": "two", "uses": "b"},
    ]}]);
    let mut config = crate::world::config(pipelines, json!([]));
    let shown = config.source.sanitized.to_string().replace("hush", "[REDACTED]");
    config.source.sanitized = serde_json::from_str(&shown).expect("JSON");
    let generation = crate::world::of(config);
    for events in [Vec::new(), vec![event("x", "{}")]] {
        let run = Run::of(&generation, "p", r#"{"k":1.50}"#, &|_, _| Ok(events.clone()));
        let one = run.at("one").payload.to_string();
        assert!(one.contains("Bearer hush-token") && one.contains("hush-model"), "the plugin itself gets them: {one}");
        let two = &run.at("two").payload;
        assert!(!two.to_string().contains("hush"), "{two}");
        if events.is_empty() {
            assert_eq!((&two["open"], &two["k"], &two["n"]), (&json!("seen"), &json!(1.5), &json!(1.5)));
        }
    }
}

/// PIP-32, PIP-35, PIP-37, PIP-38: claims are made on entry, accrete, and reach every later step.
#[test]
fn claims_accrete_and_reach_every_later_step() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "one", "uses": "a", "baggage": {"web.url": "payload.url"}},
        {"id": "two", "uses": "b", "baggage": {"from": "payload.meta", "namespace": "web.meta"}},
        {"id": "three", "uses": "c"},
        {"id": "four", "uses": "d", "baggage": {"copy": "context.web.url"}},
    ]}]));
    let run =
        Run::of(&generation, "p", r#"{"url":"u","meta":{"a":1}}"#, &|_, _| Ok(vec![event("x", r#"{"meta":{"a":1}}"#)]));
    let baggage = |node: &str| {
        let mut context = run.at(node).context.clone();
        let map = context.as_object_mut().expect("an object");
        map.retain(|key, _| !key.starts_with("origin_") && !matches!(key.as_str(), "trace_id" | "ductile"));
        context
    };
    assert_eq!(baggage("one"), json!({"web": {"url": "u"}}));
    assert_eq!(baggage("two"), json!({"web": {"url": "u", "meta": {"a": 1}}}));
    assert_eq!(baggage("three"), baggage("two"));
    assert_eq!(baggage("four"), json!({"web": {"url": "u", "meta": {"a": 1}}, "copy": "u"}));
    assert_eq!(run.at("three").payload["web"]["url"], "u", "and fills what the payload of `handle` lacks");
}

/// PIP-10: branches share the baggage at the split and nothing after it.
#[test]
fn branches_do_not_see_each_others_claims() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "begin", "uses": "a", "baggage": {"both": "payload.n"}},
        {"split": [
            {"steps": [{"id": "l", "uses": "a", "baggage": {"mine": "payload.n"}}, {"id": "l2", "uses": "a"}]},
            {"steps": [{"id": "r", "uses": "a", "baggage": {"mine": "payload.m"}}, {"id": "r2", "uses": "a"}]},
        ]},
        {"id": "end", "uses": "b", "join": "all"},
    ]}]));
    let run = Run::of(&generation, "p", r#"{"n":1}"#, &|_, _| Ok(vec![event("x", r#"{"n":1,"m":2}"#)]));
    assert_eq!((&run.at("l2").context["mine"], &run.at("r2").context["mine"]), (&json!(1), &json!(2)));
    assert_eq!((&run.at("end").context["both"], run.at("end").context.get("mine")), (&json!(1), None));
}

/// PIP-33, PIP-34, PIP-39, DIS-22, DIS-23: a claim that can't be made lets nothing follow and says why.
#[test]
fn a_claim_that_fails_is_the_fault_of_the_attempt() {
    let generation = sound(json!([
        {"name": "p", "on": "e", "steps": [
            {"id": "one", "uses": "a", "baggage": {"k": "payload.k"}}, {"id": "two", "uses": "b", "baggage": {"k": "payload.k"}},
        ]},
        {"name": "q", "on": "other", "steps": [{"id": "x", "uses": "b", "baggage": {"y": "payload.y"}}]},
        {"name": "r", "on": "other", "steps": [{"uses": "b"}]},
    ]));
    let emitting = |kind: &'static str, payload: &'static str| move |_: &str, _: &Value| Ok(vec![event(kind, payload)]);
    let run = Run::of(&generation, "p", r#"{"k":1}"#, &emitting("quiet", r#"{"k":1.0}"#));
    assert_eq!(run.steps(), ["one", "two"], "the same value may be claimed again");
    let run = Run::of(&generation, "p", r#"{"k":1}"#, &emitting("quiet", r#"{"k":2}"#));
    assert_eq!(run.steps(), ["one"]);
    let error = run.at("one").error.clone().expect("a fault");
    assert!(
        error.contains("baggage path \"k\" is immutable") && error.contains("\"p\"") && error.contains("\"two\""),
        "{error}"
    );
    let plan = emits(&generation, "a", vec![event("other", "{}")]);
    let fault = plan.fault.expect("a fault");
    assert!(fault.starts_with("failed to create event context for pipeline entry"), "{fault}");
    assert!(fault.contains("payload.y") && fault.contains("\"q\""), "{fault}");
    assert!(plan.children.is_empty() && plan.contexts.is_empty(), "nothing is done by halves");
}

/// DIS-22: what the plugin reported stays recorded when nothing can follow.
#[test]
fn a_fault_keeps_the_state() {
    let generation = sound(json!([{"name": "q", "on": "e", "steps": [{"uses": "b", "baggage": {"y": "payload.y"}}]}]));
    let mut outcome = success(vec![event("e", "{}")]);
    outcome.state_updates = Some(raw(r#"{"seen":1}"#));
    let plan = plan(&generation, &job("a", "poll"), &outcome, now(), &mut counter());
    assert!(plan.fault.is_some() && plan.state.is_some());
}
