//! How far a chain may go.

use serde_json::json;

use ductile_domain::pipeline::StartFault;

use crate::run::{Run, origin, silent};
use crate::world::{counter, emits, event, raw, sound, wired};

/// PIP-40, C-53, C-54, D-17: pipelines that start each other stop at the cap, and the event that went no further is named.
#[test]
fn two_pipelines_that_start_each_other_stop_at_the_cap() {
    let generation = sound(json!([
        {"name": "ping", "on": "ping", "max_depth": 5, "steps": [{"id": "i", "uses": "a"}]},
        {"name": "pong", "on": "pong", "max_depth": 0, "steps": [{"id": "o", "uses": "b"}]},
    ]));
    let run =
        Run::of(&generation, "ping", "{}", &|node, _| Ok(vec![event(if node == "i" { "pong" } else { "ping" }, "{}")]));
    assert_eq!(run.steps(), ["i", "o", "i", "o", "i", "o"]);
    let [dropped] = run.dropped.as_slice() else { panic!("{:?}", run.dropped) };
    assert_eq!((dropped.event.as_str(), dropped.pipeline.as_deref()), ("ping", Some("ping")));
    assert_eq!((dropped.depth, dropped.max_depth), (7, 5));
    let last = run.ran.last().expect("jobs");
    assert!(!last.has_failed, "a chain that ends is no failure of the job");
    assert_eq!(last.context["ductile"]["route_depth"], 6, "0 is no limit");
    let instances: std::collections::BTreeSet<_> =
        run.ran.iter().map(|r| r.context["ductile"]["pipeline_instance_id"].to_string()).collect();
    assert_eq!(instances.len(), 6, "each start is a run of its own");
    let origins: std::collections::BTreeSet<_> = run.ran.iter().map(|r| r.context["trace_id"].to_string()).collect();
    assert_eq!(origins.len(), 1, "of one chain");
}

/// PIP-41: the author's cap counts every hop, decisions and joins too.
#[test]
fn max_depth_stops_a_pipeline_in_its_midst() {
    let steps = json!([{"id": "one", "uses": "a"}, {"id": "two", "uses": "a", "if": {"path": "payload.x", "op": "exists"}}, {"id": "three", "uses": "a"}]);
    let generation = sound(json!([{"name": "p", "on": "e", "max_depth": 3, "steps": steps}]));
    let run = Run::of(&generation, "p", r#"{"x":1}"#, &silent);
    assert_eq!(run.steps(), ["one", "two"]);
    assert_eq!(run.dropped[0].event, "ductile.step.succeeded");
    let generation = sound(json!([{"name": "p", "on": "e", "max_depth": 1, "steps": [
        {"split": [{"id": "l", "uses": "a"}, {"id": "r", "uses": "a"}]}, {"id": "end", "uses": "b", "join": "all"},
    ]}]));
    let run = Run::of(&generation, "p", "{}", &silent);
    assert_eq!(run.steps(), ["l", "r"]);
    assert!(!run.at("end__join").has_failed && run.dropped.len() == 1, "the join is made, what follows it is not");
    assert_eq!(run.at("end__join").context["ductile"]["route_depth"], 1, "nothing is said to be deeper than it may");
}

/// Plain routes that feed each other stop at twenty hops.
#[test]
fn routes_in_a_circle_stop() {
    let generation = wired(
        json!([]),
        json!([{"from": "a", "event_type": "e", "to": "b"}, {"from": "b", "event_type": "e", "to": "a"}]),
    );
    let plan = emits(&generation, "a", vec![event("e", "{}")]);
    let mut run = Run::new(&generation);
    let start = ductile_domain::pipeline::Start { contexts: plan.contexts, jobs: plan.children, ..Default::default() };
    run.take(start);
    run.finish(&|_, _| Ok(vec![event("e", "{}")]));
    assert_eq!(run.ran.len(), 20);
    assert_eq!((run.dropped.len(), run.dropped[0].depth, run.dropped[0].pipeline.clone()), (1, 21, None));
    assert_eq!(run.ran[0].context["ductile"], json!({"route_depth": 1, "route_max_depth": 20}), "no pipeline, no step");
    assert_eq!(run.ran[0].context["origin_plugin"], "a");
}

/// What one attempt causes is held in memory and written at once, so a plugin must not fill either by a large answer.
#[test]
fn too_much_at_once_is_refused_before_it_is_made() {
    let branches: Vec<_> = (0..100).map(|n| json!({"id": format!("b{n}"), "uses": "c"})).collect();
    let generation = wired(
        json!([
            {"name": "wide", "on": "w", "steps": [{"split": branches}]},
            {"name": "narrow", "on": "n", "steps": [{"uses": "c"}]},
        ]),
        json!([{"from": "a", "event_type": "r", "to": "b"}]),
    );
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    let plan = emits(&generation, "a", vec![event("w", &large)]);
    let fault = plan.fault.expect("200 MiB are too much");
    assert!(fault.starts_with("too much follows") && fault.contains("134217728 bytes"), "{fault}");
    assert!(plan.children.is_empty() && plan.contexts.is_empty());
    for kind in ["n", "r"] {
        let many: Vec<_> = (0..100_000).map(|_| event(kind, "{}")).collect();
        assert!(
            emits(&generation, "a", many).fault.is_some_and(|fault| fault.starts_with("too much follows")),
            "{kind}"
        );
    }
    let plan = emits(&generation, "a", (0..1_000).map(|_| event("n", "{}")).collect());
    assert_eq!((plan.fault, plan.children.len()), (None, 1_000));
    let pipeline = generation.pipelines.get("wide").expect("compiled");
    let refused = generation.pipelines.start(pipeline, &raw(&large), &origin(), &mut counter());
    assert!(matches!(refused, Err(StartFault::Baggage(text)) if text.starts_with("too much follows")));
}
