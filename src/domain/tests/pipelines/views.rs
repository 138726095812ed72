//! How a compiled pipeline is shown.

use ductile_domain::pipeline::{StartFault, dry_run, routes_view};
use serde_json::{Value, json};

use crate::world::{raw, sound, wired};

fn sample() -> Value {
    json!([
        {"name": "p", "on": "mail.\"seen\"", "from_plugin": "a", "if": {"path": "payload.k", "op": "exists"}, "steps": [
            {"id": "look", "uses": "b", "if": {"path": "payload.n", "op": "gt", "value": 3}, "baggage": {"mail.n": "payload.n"}},
            {"split": [{"id": "l", "uses": "c"}, {"id": "r", "call": "q"}]},
            {"id": "end", "uses": "d", "join": "any_succeeded"},
        ]},
        {"name": "q", "on-hook": "job.failed", "max_depth": 0, "steps": [{"id": "x", "uses": "e.poll", "with": {"t": "{payload.n}!"}}]},
    ])
}

/// PIP-50 and the facts: ids, sources and destinations of compiled routes.
#[test]
fn compiled_routes_say_what_starts_what() {
    let generation = sound(sample());
    let view = routes_view(generation.pipelines.get("p").expect("compiled"));
    let routes = view.as_array().expect("a list");
    let ids: Vec<_> = routes.iter().map(|r| r["id"].as_str().expect("an id")).collect();
    assert_eq!(
        ids,
        [
            "entry:look__switch",
            "edge:look__switch->look@ductile.switch.true",
            "edge:look__switch->l@ductile.switch.false",
            "edge:look__switch->r/x@ductile.switch.false",
            "edge:look->l",
            "edge:look->r/x",
            "edge:l->end__join",
            "edge:r/x->end__join",
            "edge:end__join->end",
            "terminal:end",
        ]
    );
    assert_eq!(
        routes[0],
        json!({
            "id": "entry:look__switch",
            "source": {
                "trigger": "mail.\"seen\"", "event_type": "mail.\"seen\"", "source_plugin": "a",
                "if": {"path": "payload.k", "op": "exists"}, "depth_lt": 20,
            },
            "destination": {"kind": "uses", "pipeline": "p", "step_id": "look__switch", "plugin": "core.switch", "command": "handle"},
        })
    );
    assert_eq!(routes[1]["source"]["if"]["op"], "gt");
    assert_eq!(
        routes[5]["destination"],
        json!({"kind": "call", "pipeline": "q", "step_id": "r/x", "plugin": "e", "command": "poll"})
    );
    assert_eq!(routes[9]["destination"], json!({"kind": "terminal"}));
    let hook = routes_view(generation.pipelines.get("q").expect("compiled"));
    assert_eq!(
        hook[0]["source"],
        json!({"hook_signal": "job.failed", "event_type": "job.failed"}),
        "no guard without a cap"
    );
}

/// CLI-34: pictures of every node, in which no name can break out of its quotes.
#[test]
fn diagrams_show_every_step_and_escape_what_they_quote() {
    let generation = sound(sample());
    let pipeline = generation.pipelines.get("p").expect("compiled");
    let mermaid = pipeline.mermaid();
    assert!(
        mermaid.starts_with("flowchart TD\n    trigger([\"on mail.#quot;seen#quot; from a, if ...\"])\n"),
        "{mermaid}"
    );
    for line in [
        "n0{\"look__switch<br/>if ...\"}",
        "trigger --> n0",
        "n0 -->|true| n1",
        "n0 -->|false| n2",
        "n4[[\"end__join<br/>join: any_succeeded\"]]",
        "n2 --> n4",
        "n4 --> n5",
    ] {
        assert!(mermaid.lines().any(|l| l.trim() == line), "{line:?} in {mermaid}");
    }
    let dot = pipeline.dot();
    assert!(dot.starts_with("digraph \"p\" {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains(r#"label="on mail.\"seen\" from a, if ...""#), "{dot}");
    assert!(dot.contains("n0 -> n1 [label=\"true\"];") && dot.contains(r#"label="l\nc.handle""#), "{dot}");
}

/// API-41: decisions and joins are no plugins.
#[test]
fn the_topology_has_plugins_and_the_events_between_them() {
    let generation = wired(sample(), json!([{"from": "a", "event_type": "mail.read", "to": "f"}]));
    let topology = generation.pipelines.topology();
    let edges: Vec<String> = topology["edges"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| {
            let text = |key: &str| e[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {} {}", text("from"), text("to"), text("event_type"), text("pipeline"), text("step"))
        })
        .collect();
    assert_eq!(
        edges,
        [
            "* e job.failed q x",
            "a b mail.\"seen\" p look",
            "a c mail.\"seen\" p l",
            "a e mail.\"seen\" p r/x",
            "a f mail.read - -",
            "b c - p l",
            "b e - p r/x",
            "c d - p end",
            "e d - p end",
        ]
    );
    let ids: Vec<_> = topology["nodes"].as_array().expect("a list").iter().map(|n| n["id"].clone()).collect();
    assert_eq!(ids, ["*", "a", "b", "c", "d", "e", "f"]);
}

/// CLI-35: decisions and requests as far as they are known; nothing is enqueued, so nothing is asked of anyone.
#[test]
fn a_dry_run_tells_what_is_known_and_what_is_not() {
    let generation = sound(sample());
    let walk = |payload: &str| {
        dry_run(&generation, generation.pipelines.get("p").expect("compiled"), &raw(payload)).expect("it starts")
    };
    let states = |view: &Value| -> Vec<String> {
        let steps = view["steps"].as_array().expect("a list");
        steps
            .iter()
            .map(|s| format!("{}: {}", s["node"].as_str().expect("a key"), s["state"].as_str().expect("a state")))
            .collect()
    };
    let view = walk(r#"{"n":4,"k":1}"#);
    assert_eq!(
        states(&view),
        [
            "look__switch: decided",
            "look: requested",
            "l: decided at run time",
            "r/x: decided at run time",
            "end__join: decided at run time",
            "end: decided at run time",
        ]
    );
    assert_eq!(
        (&view["starts"], &view["steps"][0]["holds"], &view["steps"][1]["baggage"]),
        (&json!(true), &json!(true), &json!({"mail.n": 4}))
    );
    assert_eq!(view["steps"][1]["payload"]["n"], 4);
    let view = walk(r#"{"n":3}"#);
    assert_eq!(states(&view)[..4], ["look__switch: decided", "look: bypassed", "l: requested", "r/x: requested"]);
    assert_eq!((&view["starts"], &view["if"]["holds"]), (&json!(false), &json!(false)));
    assert_eq!(view["steps"][3]["payload"]["t"], "3!");
    assert_eq!(states(&walk("{}"))[3], "r/x: refused");
    let claims = sound(json!([{"name": "p", "on": "e", "steps": [{"uses": "a", "baggage": {"k": "payload.k"}}]}]));
    let refused = dry_run(&claims, claims.pipelines.get("p").expect("compiled"), &raw("{}"));
    assert!(matches!(refused, Err(StartFault::Baggage(_))), "{refused:?}");
}
