//! What is accepted, what is refused, and what is said about it.

use std::time::Duration;

use ductile_domain::pipeline::{Execution, Signal, Trigger};
use serde_json::{Value, json};

use crate::world::{compile, config, of, sound, told, wired};

/// One pipeline named `p` with these fields instead of the usual ones; null removes one.
fn with(fields: Value) -> Value {
    let mut pipeline = json!({"name": "p", "on": "e", "steps": [{"uses": "a"}]});
    let map = pipeline.as_object_mut().expect("an object");
    for (key, value) in fields.as_object().expect("an object") {
        match value {
            Value::Null => map.remove(key),
            value => map.insert(key.clone(), value.clone()),
        };
    }
    json!([pipeline])
}

/// The only problem, which stands at that path and has that in its text and hint.
#[track_caller]
fn one(pipelines: &Value, path: &str, parts: &[&str]) {
    let (generation, problems) = compile(pipelines.clone(), json!([]));
    let [problem] = problems.as_slice() else { panic!("{pipelines}: {:#?}", told(&problems)) };
    assert_eq!(problem.path.as_deref(), Some(path), "{problem}");
    let text = problem.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert_eq!(problem.category, "pipelines");
    assert!(!problem.is_error() || generation.pipelines.get("p").is_none(), "used although {problem}");
}

/// PIP-01, PIP-44, PIP-52, C-110: the fields of a pipeline.
#[test]
fn a_pipeline_with_a_wrong_field_is_refused_with_its_place() {
    for (fields, path, parts) in [
        (json!({"name": null}), "pipelines[0].name", &["no name"] as &[&str]),
        (json!({"name": 3}), "pipelines[0].name", &["no text"]),
        (json!({"name": "a/b"}), "pipelines[0].name", &["\"a/b\""]),
        (json!({"on": null}), "pipelines.p.on", &["pipeline \"p\"", "on-hook"]),
        (json!({"on-hook": "job.failed"}), "pipelines.p.on-hook", &["exclude"]),
        (json!({"on": ["e"]}), "pipelines.p.on", &["type of event"]),
        (json!({"on": null, "on-hook": "job.faild"}), "pipelines.p.on-hook", &["did you mean `job.failed`?"]),
        (json!({"steps": null}), "pipelines.p.steps", &["no steps"]),
        (json!({"steps": []}), "pipelines.p.steps", &["list of steps"]),
        (json!({"steps": {"uses": "a"}}), "pipelines.p.steps", &["list of steps"]),
        (json!({"step": []}), "pipelines.p.step", &["unknown key", "did you mean `steps`?"]),
        (json!({"from_plugin": "aa"}), "pipelines.p.from_plugin", &["\"aa\"", "did you mean"]),
        (json!({"from_plugin": ["a", "b"]}), "pipelines.p.from_plugin", &["one plugin"]),
        (json!({"from_plugin": "broken"}), "pipelines.p.from_plugin", &["could not be loaded"]),
        (json!({"from_plugin": "core.switch"}), "pipelines.p.from_plugin", &["gateway's own"]),
        (json!({"max_depth": -1}), "pipelines.p.max_depth", &["from 0"]),
        (json!({"max_depth": "3"}), "pipelines.p.max_depth", &["whole number"]),
        (json!({"execution_mode": "sinc"}), "pipelines.p.execution_mode", &["did you mean `sync`?"]),
        (json!({"timeout": 30}), "pipelines.p.timeout", &["30s"]),
        (json!({"timeout": "0s"}), "pipelines.p.timeout", &["duration"]),
        (json!({"if": {"path": "config.x", "op": "exists"}}), "pipelines.p.if.path", &["not allowed here"]),
        (
            json!({"if": {"all": [{"path": "payload.x", "op": "exists"}, {"path": "payload.x", "op": "eqq", "value": 1}]}}),
            "pipelines.p.if.all[1].op",
            &["pipeline \"p\"", "eq"],
        ),
    ] {
        one(&with(fields), path, parts);
    }
    let (_, problems) = compile(json!(["text"]), json!([]));
    assert_eq!(told(&problems), ["pipelines[0]: pipeline 1: a pipeline is a mapping"]);
}

/// PIP-05, PIP-30, D-37, C-110: the fields of a step, named with pipeline and step.
#[test]
fn a_wrong_step_is_refused_with_its_place_and_its_name() {
    for (step, path, parts) in [
        (json!("a"), "pipelines.p.steps[0]", &["mapping"] as &[&str]),
        (json!({}), "pipelines.p.steps[0]", &["step \"step_1\"", "does nothing", "exactly one"]),
        (json!({"id": "x", "uses": "a", "call": "q"}), "pipelines.p.steps[0]", &["step \"x\"", "uses and call"]),
        (json!({"uses": "a", "wth": {}}), "pipelines.p.steps[0].wth", &["did you mean `with`?"]),
        (json!({"uses": "a", "id": "a/b"}), "pipelines.p.steps[0].id", &["no name"]),
        (json!({"uses": "a", "id": "x__switch"}), "pipelines.p.steps[0].id", &["gateway gives"]),
        (json!({"uses": 3}), "pipelines.p.steps[0].uses", &["name of a plugin"]),
        (json!({"uses": "a", "with": "x"}), "pipelines.p.steps[0].with", &["mapping"]),
        (json!({"split": []}), "pipelines.p.steps[0].split", &["list of steps"]),
        (json!({"steps": [{"uses": "nobody"}]}), "pipelines.p.steps[0].steps[0].uses", &["nobody"]),
        (json!({"split": [{"uses": "nobody"}]}), "pipelines.p.steps[0].split[0].uses", &["nobody"]),
        (json!({"steps": [{"uses": "a"}], "with": {}}), "pipelines.p.steps[0].with", &["`uses`"]),
        (json!({"split": [{"uses": "a"}], "baggage": {}}), "pipelines.p.steps[0].baggage", &["`uses`"]),
        (json!({"uses": "a", "join": "all"}), "pipelines.p.steps[0].join", &["no split directly before"]),
        (
            json!({"uses": "a", "baggage": {"from": "payload.x"}}),
            "pipelines.p.steps[0].baggage.namespace",
            &["namespace"],
        ),
        (
            json!({"uses": "a", "baggage": {"origin_plugin": "payload.x"}}),
            "pipelines.p.steps[0].baggage.origin_plugin",
            &["gateway"],
        ),
        (json!({"uses": "a", "if": {"path": "env.x", "op": "exists"}}), "pipelines.p.steps[0].if.path", &["env.x"]),
        (
            json!({"steps": [{"uses": "a"}], "if": {"path": "config.x", "op": "exists"}}),
            "pipelines.p.steps[0].if",
            &["config.*"],
        ),
        (json!({"uses": "a", "payload": []}), "pipelines.p.steps[0].payload", &["mapping"]),
        (json!({"call": 1}), "pipelines.p.steps[0].call", &["name of a pipeline"]),
        (json!({"call": "nobody"}), "pipelines.p.steps[0].call", &["\"nobody\""]),
        (json!({"relay": {"to": "lap", "event": "x"}}), "pipelines.p.steps[0].relay.to", &["did you mean \"lab\"?"]),
        (json!({"relay": {"to": "lab"}}), "pipelines.p.steps[0].relay.event", &["type of event"]),
        (
            json!({"relay": {"to": "lab", "event": "x", "with": {"k": "env.x"}}}),
            "pipelines.p.steps[0].relay.with.k",
            &["env.x"],
        ),
        (json!({"relay": {"to": "lab", "event": "x", "url": "y"}}), "pipelines.p.steps[0].relay.url", &["unknown key"]),
        (
            json!({"relay": {"to": "lab", "event": "x", "dedupe_key": 3}}),
            "pipelines.p.steps[0].relay.dedupe_key",
            &["path"],
        ),
    ] {
        one(&with(json!({"steps": [step]})), path, parts);
    }
}

/// PIP-07, C-39, RTR-06: the whole text first, then plugin and command at the last dot.
#[test]
fn what_a_step_uses_is_found_or_the_nearest_is_named() {
    for (uses, plugin, command) in [
        ("a", "a", "handle"),
        ("b.poll", "b", "poll"),
        ("a.poll", "a.poll", "handle"),
        ("a.poll.poll", "a.poll", "poll"),
        ("reader.poll", "reader", "poll"),
    ] {
        let generation = sound(with(json!({"steps": [{"uses": uses}]})));
        let node = &generation.pipelines.get("p").expect("compiled").nodes[0];
        assert_eq!((node.plugin(), node.command(), node.max_attempts), (plugin, command, 3), "{uses}");
    }
    for (uses, parts) in [
        ("reader", &["no command \"handle\"", "`reader.poll`"] as &[&str]),
        ("b.pol", &["no command \"pol\"", "did you mean `b.poll`?"]),
        ("rot", &["no plugin", "did you mean \"root\"?"]),
        ("off", &["disabled", "plugins.off.enabled: true"]),
        ("off.poll", &["disabled"]),
        ("broken", &["enabled but could not be loaded", "plugins.broken"]),
        ("broken.poll", &["\"broken\"", "could not be loaded"]),
        ("unlisted", &["not in the configuration"]),
        ("core.switch", &["gateway's own"]),
        ("chian.poll", &["\"chian.poll\""]),
    ] {
        one(&with(json!({"steps": [{"uses": uses}]})), "pipelines.p.steps[0].uses", parts);
    }
}

/// PIP-03, PIP-04, PIP-41, C-51, C-53, C-56: words and defaults.
#[test]
fn what_is_left_out_has_a_default_and_words_have_synonyms() {
    let compiled = |fields| sound(with(fields)).pipelines.get("p").expect("compiled").clone();
    let plain = compiled(json!({}));
    assert_eq!(
        (plain.execution, plain.timeout, plain.max_depth),
        (Execution::Asynchronous, Duration::from_secs(30), 20)
    );
    for (word, execution) in [
        ("async", Execution::Asynchronous),
        ("asynchronous", Execution::Asynchronous),
        ("sync", Execution::Synchronous),
        ("synchronous", Execution::Synchronous),
    ] {
        assert_eq!(compiled(json!({"execution_mode": word})).execution, execution, "{word}");
    }
    let other = compiled(json!({"timeout": "3m", "max_depth": 0}));
    assert_eq!((other.timeout, other.max_depth), (Duration::from_secs(180), 0));
    let long: Vec<Value> = (0..15).map(|_| json!({"uses": "a", "if": {"path": "payload.x", "op": "exists"}})).collect();
    assert_eq!(compiled(json!({"steps": long})).max_depth, 30, "the longest path, decisions included");
    let hook = compiled(json!({"on": null, "on-hook": "job.dead", "from_plugin": "root"}));
    assert_eq!(hook.trigger, Trigger::Hook(Signal::Dead));
}

/// C-51, PIP-12, PIP-23, API-09, RTR-02: what works, but perhaps not as it was meant.
#[test]
fn doubtful_pipelines_are_used_and_warned_of() {
    let sync_split = json!({"execution_mode": "sync", "steps": [{"split": [{"uses": "a"}, {"uses": "b"}]}]});
    for (fields, path, parts) in [
        (json!({"on": "job.failed"}), "pipelines.p.on", &["write `on-hook: job.failed`"] as &[&str]),
        (json!({"on": "job.compleded"}), "pipelines.p.on", &["never comes", "did you mean `on-hook: job.completed`?"]),
        (json!({"on": "ductile.switch.true"}), "pipelines.p.on", &["never comes"]),
        (json!({"on": "a.*"}), "pipelines.p.on", &["letter by letter"]),
        (json!({"from_plugin": "off"}), "pipelines.p.from_plugin", &["disabled"]),
        (
            json!({"on": null, "on-hook": "job.dead", "from_plugin": "a"}),
            "pipelines.p.from_plugin",
            &["notify_on_complete"],
        ),
        (
            json!({"on": null, "on-hook": "job.dead", "if": {"path": "context.x", "op": "exists"}}),
            "pipelines.p.if",
            &["context.*", "hook"],
        ),
        (
            json!({"steps": [{"split": [{"uses": "a"}, {"uses": "b"}]}, {"id": "after", "uses": "c"}]}),
            "pipelines.p.steps[1]",
            &["step \"after\"", "once per branch", "join: all"],
        ),
        (
            json!({"steps": [{"steps": [{"split": [{"uses": "a"}, {"uses": "b"}]}]}, {"uses": "c"}]}),
            "pipelines.p.steps[1]",
            &["once per branch"],
        ),
        (sync_split, "pipelines.p.execution_mode", &["?async=true"]),
        (json!({"steps": [{"uses": "a", "with": {"k": "{payload.x"}}]}), "pipelines.p.steps[0].with.k", &["will fail"]),
    ] {
        let pipelines = with(fields);
        one(&pipelines, path, parts);
        assert!(compile(pipelines.clone(), json!([])).0.pipelines.get("p").is_some(), "{pipelines}");
    }
}

/// PIP-42, PIP-08, C-55: names that stand twice, calls that lead nowhere or in circles; and all of it at once.
#[test]
fn all_problems_of_all_pipelines_are_found_at_once() {
    let (generation, problems) = compile(
        json!([
            {"name": "one", "on": "e", "steps": [{"id": "go", "call": "two"}]},
            {"name": "two", "on": "e", "steps": [{"call": "three"}]},
            {"name": "three", "on": "e", "steps": [{"split": [{"uses": "a"}, {"call": "two"}]}]},
            {"name": "self", "on": "e", "steps": [{"call": "self"}]},
            {"name": "twin", "on": "e", "steps": [{"id": "x", "uses": "a"}, {"id": "x", "uses": "b"}]},
            {"name": "twin", "on": "e", "steps": [{"uses": "a"}]},
            {"name": "asks", "on": "e", "steps": [{"call": "twni"}]},
            {"name": "leans", "on": "e", "steps": [{"call": "twin"}]},
            {"name": "sound", "on": "e", "steps": [{"uses": "a"}]},
            {"steps": [{"uses": "nobody"}]},
        ]),
        json!([]),
    );
    assert_eq!(
        told(&problems),
        [
            "pipelines.twin.steps[1].id: pipeline \"twin\": another step is named \"x\"",
            "pipelines[5].name: pipeline 6: an earlier pipeline is named \"twin\" already",
            "pipelines[9].name: pipeline 10: it has no name",
            "pipelines[9].on: pipeline 10: nothing starts it: it has neither `on` nor `on-hook`",
            "pipelines[9].steps[0].uses: pipeline 10, step \"step_1\": no plugin or alias is named \"nobody\"",
            "pipelines.asks.steps[0].call: pipeline \"asks\", step \"step_1\": no pipeline is named \"twni\"",
            "pipelines.two.steps[0].call: pipeline \"two\", step \"step_1\": the calls go in a circle: two -> three -> two",
            "pipelines.self.steps[0].call: pipeline \"self\", step \"step_1\": the calls go in a circle: self -> self",
        ]
    );
    let names: Vec<_> = generation.pipelines.iter().map(|p| p.name.to_string()).collect();
    assert_eq!(names, ["sound"], "what calls something unsound is left out too");
}

/// PIP-20: what would take a machine down is refused instead of compiled.
#[test]
fn pipelines_that_grow_out_of_bounds_are_refused() {
    let mut nested = json!([{"uses": "a"}]);
    for _ in 0..40 {
        nested = json!([{"steps": nested}]);
    }
    let (_, problems) = compile(with(json!({"steps": nested})), json!([]));
    assert!(problems[0].message.contains("nested deeper than 32"), "{}", problems[0]);

    // Each one calls the one before it ten times.
    let mut doubling = vec![json!({"name": "p0", "on": "e", "steps": [{"uses": "a"}]})];
    for i in 1..=12 {
        let calls: Vec<Value> = (0..10).map(|_| json!({"call": format!("p{}", i - 1)})).collect();
        doubling.push(json!({"name": format!("p{i}"), "on": "e", "steps": calls}));
    }
    let (generation, problems) = compile(Value::Array(doubling), json!([]));
    assert_eq!(
        told(&problems),
        ["pipelines.p5.steps: pipeline \"p5\": with what it calls it has 100000 nodes; at most 10000 are allowed"]
    );
    assert_eq!(generation.pipelines.get("p4").expect("compiled").nodes.len(), 10_000);
    assert!(generation.pipelines.get("p12").is_none());

    let branches: Vec<Value> = (0..500).map(|_| json!({"uses": "a"})).collect();
    let (_, problems) = compile(with(json!({"steps": [{"split": branches}, {"split": branches}]})), json!([]));
    assert!(problems.iter().any(|p| p.is_error() && p.message.contains("multiply")), "{:?}", told(&problems));

    let chain: Vec<Value> = (0..100)
        .map(|i| json!({"name": format!("c{i}"), "on": "e", "steps": [{"uses": "a"}, {"call": format!("c{}", i + 1)}]}))
        .chain([json!({"name": "c100", "on": "e", "steps": [{"uses": "a"}]})])
        .collect();
    let (_, problems) = compile(Value::Array(chain), json!([]));
    assert!(problems.iter().any(|p| p.message.contains("nested deeper")), "{:?}", told(&problems));
}

/// PIP-09, PIP-08, PIP-13: names of nodes, in authored order, with the names that their author knows.
#[test]
fn nodes_have_names_of_their_own_in_authored_order() {
    let generation = sound(json!([
        {"name": "outer", "on": "e", "steps": [
            {"uses": "a"},
            {"id": "named", "uses": "b"},
            {"steps": [{"uses": "c", "if": {"path": "payload.x", "op": "exists"}}]},
            {"id": "inside", "call": "inner", "if": {"path": "payload.y", "op": "exists"}},
            {"split": [{"uses": "d"}, {"call": "inner"}]},
            {"id": "end", "uses": "e", "join": "all", "if": {"path": "payload.z", "op": "exists"}},
        ]},
        {"name": "inner", "on": "f", "steps": [{"uses": "f"}, {"id": "last", "uses": "f"}]},
    ]));
    let outer = generation.pipelines.get("outer").expect("compiled");
    let nodes: Vec<_> =
        outer.nodes.iter().map(|n| format!("{} {}/{} {}", n.key, n.pipeline, n.step, n.plugin())).collect();
    assert_eq!(
        nodes,
        [
            "step_1 outer/step_1 a",
            "named outer/named b",
            "step_2__switch outer/step_2__switch core.switch",
            "step_2 outer/step_2 c",
            "inside__switch outer/inside__switch core.switch",
            "inside/step_1 inner/step_1 f",
            "inside/last inner/last f",
            "step_3 outer/step_3 d",
            "step_4/step_1 inner/step_1 f",
            "step_4/last inner/last f",
            "end__join outer/end__join core.join",
            "end__switch outer/end__switch core.switch",
            "end outer/end e",
        ]
    );
}

/// RTR-01, RTR-05, RTR-06: routes have three fields and nothing else.
#[test]
fn a_wrong_route_is_refused_with_its_place() {
    for (route, path, parts) in [
        (json!("x"), "routes[0]", &["mapping"] as &[&str]),
        (json!({"event_type": "e", "to": "a"}), "routes[0].from", &["name of a plugin"]),
        (json!({"from": "a", "to": "b"}), "routes[0].event_type", &["type of event"]),
        (json!({"from": "a", "event_type": "e", "to": "b", "if": {}}), "routes[0].if", &["no conditions", "pipeline"]),
        (json!({"from": "a", "event_type": "e", "to": "b", "tto": 1}), "routes[0].tto", &["unknown key"]),
        (json!({"from": "a", "event_type": "e", "to": "nobody"}), "routes[0].to", &["\"nobody\""]),
        (json!({"from": "a", "event_type": "e", "to": "off"}), "routes[0].to", &["disabled"]),
        (json!({"from": "a", "event_type": "e", "to": "reader"}), "routes[0].to", &["no command \"handle\""]),
        (json!({"from": "nobody", "event_type": "e", "to": "a"}), "routes[0].from", &["\"nobody\""]),
    ] {
        let (generation, problems) = compile(json!([]), json!([route]));
        let [problem] = problems.as_slice() else { panic!("{route}: {:?}", told(&problems)) };
        assert_eq!((problem.path.as_deref(), problem.category), (Some(path), "routes"), "{problem}");
        assert!(parts.iter().all(|part| problem.to_string().contains(part)), "{problem}");
        assert!(problem.is_error() && generation.pipelines.routes().is_empty(), "{problem}");
    }
    let twice = json!([
        {"from": "a", "event_type": "e", "to": "b"},
        {"from": "off", "event_type": "e", "to": "b"},
        {"from": "a", "event_type": "e", "to": "b"},
    ]);
    assert_eq!(
        wired(json!([]), twice).pipelines.routes().len(),
        2,
        "a disabled source and a repetition are only warned of"
    );
}

/// Values may be secrets that were filled in: only names are told.
#[test]
fn debug_output_has_no_values() {
    let mut config = config(
        with(json!({
            "if": {"path": "payload.x", "op": "eq", "value": "canary"},
            "steps": [{"uses": "a", "with": {"k": "canary"}, "payload": {"p": "canary"},
                "if": {"path": "payload.x", "op": "eq", "value": "canary"}}],
        })),
        json!([]),
    );
    // that document is made to be shown
    config.source.sanitized = json!(null);
    let generation = of(config);
    let text = format!("{generation:?} {:?}", generation.pipelines.get("p"));
    assert!(text.contains("step_1") && !text.contains("canary"), "{text}");
}
