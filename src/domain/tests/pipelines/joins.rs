//! Sequences, splits, joins, calls and decisions, run to their ends.

use serde_json::{Value, json};

use crate::run::{Run, quiet, silent};
use crate::world::{event, sound};

fn fails_at(
    failing: &'static str,
) -> impl Fn(&str, &Value) -> Result<Vec<ductile_domain::outcome::EmittedEvent>, String> {
    move |node, _| if node == failing { Err("no luck".into()) } else { Ok(vec![event("x", "{\"k\":1}")]) }
}

fn fan(mode: &str) -> ductile_domain::generation::Generation {
    sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "begin", "uses": "a"},
        {"split": [{"id": "left", "uses": "b"}, {"steps": [{"id": "right", "uses": "b"}, {"id": "far", "uses": "c"}]}]},
        {"id": "end", "uses": "d", "join": mode},
        {"id": "after", "uses": "e"},
    ]}]))
}

/// PIP-06, PIP-09: one after the other, each the child of the one before, whether it emits or not.
#[test]
fn steps_run_in_their_order_and_each_is_the_child_of_the_one_before() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "one", "uses": "a"}, {"steps": [{"id": "two", "uses": "a.poll"}, {"id": "three", "uses": "a"}]}, {"id": "four", "uses": "a"},
    ]}]));
    for behaviour in [quiet, silent] {
        let run = Run::of(&generation, "p", "{}", &behaviour);
        assert_eq!(run.steps(), ["one", "two", "three", "four"]);
        for pair in run.ran.windows(2) {
            assert_eq!(pair[1].parent, Some(pair[0].id));
        }
    }
    let two = |_: &str, _: &Value| Ok(vec![event("x", "{}"), event("y", "{}")]);
    assert_eq!(Run::of(&generation, "p", "{}", &two).steps().len(), 1 + 2 + 4 + 8, "D-11: once for each event");
}

/// PIP-10, PIP-12, C D-12: with a join once and with everything that the branches brought, in authored order.
#[test]
fn a_join_runs_once_when_all_branches_have_ended() {
    let generation = fan("all");
    let run = Run::of(&generation, "p", "{}", &|node, _| Ok(vec![event("x", &format!("{{\"from\":\"{node}\"}}"))]));
    assert_eq!(run.steps(), ["begin", "left", "right", "far", "end", "after"]);
    let end = run.at("end");
    assert_eq!(end.parent, Some(run.at("end__join").id));
    let told: Vec<_> = end.payload["branches"].as_array().expect("a list").iter().collect();
    assert_eq!(
        (&told[0]["branch"], &told[0]["step"], &told[0]["payload"]["from"]),
        (&json!(0), &json!("left"), &json!("left"))
    );
    assert_eq!(
        (&told[1]["branch"], &told[1]["step"], &told[1]["payload"]["from"]),
        (&json!(1), &json!("right"), &json!("far"))
    );
    let depth = |node: &str| run.at(node).context["ductile"]["route_depth"].clone();
    assert_eq!((depth("far"), depth("end__join"), depth("end")), (json!(3), json!(4), json!(5)), "C-54");
}

/// PIP-11, decisions: a failed branch stops neither its siblings nor a join that asks for any.
#[test]
fn a_failed_branch_fails_a_join_of_all_and_not_one_of_any() {
    let run = |mode, node| {
        let generation = fan(mode);
        let run = Run::of(&generation, "p", "{}", &fails_at(node));
        (run.steps().join(" "), run.at("end__join").error.clone())
    };
    let (steps, error) = run("all", "left");
    assert_eq!(steps, "begin left right far");
    let error = error.expect("it failed");
    assert!(error.contains("branch 0 (left)") && error.contains("no luck"), "{error}");
    assert_eq!(run("any_succeeded", "left"), ("begin left right far end after".to_owned(), None));
    assert_eq!(run("any_succeeded", "right"), ("begin left right end after".to_owned(), None));
    let generation = fan("any_succeeded");
    let none = |node: &str, _: &Value| if node == "begin" { Ok(Vec::new()) } else { Err("no luck".to_owned()) };
    let run = Run::of(&generation, "p", "{}", &none);
    assert_eq!(run.steps(), ["begin", "left", "right"]);
    assert!(run.at("end__join").error.as_deref().is_some_and(|e| e.contains("no branch succeeded")));
}

/// PIP-12: without a join once per branch.
#[test]
fn without_a_join_the_next_step_runs_once_per_branch() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"split": [{"id": "l", "uses": "a"}, {"id": "m", "uses": "a"}, {"id": "r", "uses": "a"}]}, {"id": "end", "uses": "b"},
    ]}]));
    let run = Run::of(&generation, "p", "{}", &quiet);
    assert_eq!(run.steps(), ["l", "m", "r", "end", "end", "end"]);
}

/// A join in a branch of a join, as the first thing and as the last; and a split that a decision goes past.
#[test]
fn joins_nest_and_may_be_gone_past() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"split": [
            {"steps": [
                {"split": [{"id": "ll", "uses": "a"}, {"id": "lr", "uses": "a"}]},
                {"id": "l", "uses": "b", "join": "all"},
            ]},
            {"steps": [
                {"split": [{"id": "rl", "uses": "a"}, {"id": "rr", "uses": "a"}], "id": "maybe",
                 "if": {"path": "payload.go", "op": "exists"}},
                {"id": "r", "uses": "b", "join": "all"},
            ]},
            {"id": "lone", "uses": "c", "if": {"path": "payload.lone", "op": "exists"}},
        ]},
        {"id": "end", "uses": "d", "join": "all"},
    ]}]));
    let run = Run::of(&generation, "p", r#"{"go":1}"#, &quiet);
    let mut steps = run.steps();
    assert_eq!(steps.pop(), Some("end"), "the last of all");
    steps.sort_unstable();
    assert_eq!(steps, ["l", "ll", "lr", "r", "rl", "rr"], "the third branch arrives without a job of its own");
    let run = Run::of(&generation, "p", r#"{"lone":1}"#, &quiet);
    let mut steps = run.steps();
    assert_eq!(steps.pop(), Some("end"));
    steps.sort_unstable();
    assert_eq!(steps, ["l", "ll", "lone", "lr", "r"]);
}

/// PIP-08, decisions: a call runs in place, and its caller goes on behind it with what it emitted.
#[test]
fn a_call_runs_in_place_and_returns() {
    let generation = sound(json!([
        {"name": "outer", "on": "e", "steps": [
            {"id": "begin", "uses": "a", "baggage": {"k": "payload.k"}}, {"id": "sub", "call": "inner"}, {"id": "end", "uses": "a"},
        ]},
        {"name": "inner", "on": "f", "max_depth": 1, "steps": [{"id": "x", "uses": "b"}, {"id": "y", "uses": "c"}]},
    ]));
    let run = Run::of(&generation, "outer", r#"{"k":"v"}"#, &|node, _| {
        Ok(vec![event("q", &format!("{{\"by\":\"{node}\"}}"))])
    });
    assert_eq!(run.steps(), ["begin", "sub/x", "sub/y", "end"]);
    let inside = run.at("sub/x");
    assert_eq!(inside.context["k"], "v", "the caller's baggage");
    assert_eq!(inside.context["ductile"]["pipeline"], "inner");
    assert_eq!(inside.context["ductile"]["step_id"], "x");
    assert_eq!(inside.context["ductile"]["root"], "outer");
    assert_eq!(run.at("end").payload["by"], "sub/y");
    let instances: std::collections::BTreeSet<_> =
        run.ran.iter().map(|r| r.context["ductile"]["pipeline_instance_id"].to_string()).collect();
    assert_eq!(instances.len(), 1, "one run");
}

/// PIP-13, DIS-21: a decision is a job of its own; what it gates runs, or what follows does.
#[test]
fn a_decision_runs_its_step_or_goes_past_it() {
    let generation = sound(json!([{"name": "p", "on": "e", "steps": [
        {"id": "gated", "uses": "a", "if": {"all": [{"path": "payload.n", "op": "gt", "value": 3}, {"path": "config.limit", "op": "eq", "value": 5}]}},
        {"id": "next", "uses": "b"},
        {"id": "last", "uses": "c", "if": {"path": "context.ductile_pipeline", "op": "neq", "value": "p"}},
    ]}]));
    let run = Run::of(&generation, "p", r#"{"n":4}"#, &quiet);
    assert_eq!(run.steps(), ["gated", "next"]);
    assert_eq!(run.at("gated").payload["n"], 4, "the switch hands on what it got");
    let run = Run::of(&generation, "p", r#"{"n":3}"#, &quiet);
    assert_eq!(run.steps(), ["next"]);
    let plugins: Vec<_> = run.ran.iter().map(|r| r.plugin.as_str()).collect();
    assert_eq!(plugins, ["core.switch", "b", "core.switch"]);
    assert!(run.ran.iter().all(|r| !r.has_failed));
    assert_eq!(run.at("next").payload.get("ductile_upstream_plugin"), None, "unchanged");
}

/// An event of a branch that starts another pipeline does not keep the join waiting.
#[test]
fn a_pipeline_that_a_branch_starts_is_no_part_of_its_join() {
    let generation = sound(json!([
        {"name": "p", "on": "e", "steps": [
            {"split": [{"id": "l", "uses": "a"}, {"id": "r", "uses": "a"}]}, {"id": "end", "uses": "b", "join": "all"},
        ]},
        {"name": "q", "on": "x", "steps": [{"id": "other", "uses": "c"}]},
    ]));
    let run = Run::of(&generation, "p", "{}", &|node, _| match node {
        "other" => Err("no luck".to_owned()),
        _ => Ok(vec![event("x", "{}")]),
    });
    assert_eq!(run.steps().iter().filter(|s| **s == "other").count(), 3);
    assert!(!run.at("end").has_failed && !run.at("end__join").has_failed);
}
