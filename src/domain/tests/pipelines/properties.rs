//! Whatever someone writes compiles or is refused, and what compiles runs exactly the authored steps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::run::{Run, quiet, silent};
use crate::world::{compile, sound};

/// A sound sequence of steps, without ids. `depth` bounds the nesting.
fn sequence(depth: u32) -> BoxedStrategy<Vec<Value>> {
    let leaf = prop::sample::select(vec!["a", "b", "c.poll"]).prop_map(|uses| json!({ "uses": uses }));
    let one = if depth == 0 {
        leaf.boxed()
    } else {
        let group = sequence(depth - 1).prop_map(|steps| json!({ "steps": steps }));
        let branch = prop_oneof![leaf.clone(), sequence(depth - 1).prop_map(|steps| json!({ "steps": steps }))];
        let split = prop::collection::vec(branch, 1..4).prop_map(|branches| json!({ "split": branches }));
        let call = Just(json!({ "call": "callee" }));
        prop_oneof![4 => leaf, 2 => group, 2 => split, 1 => call].boxed()
    };
    let gated = (one, prop::option::weighted(0.3, any::<bool>())).prop_map(|(mut step, gate)| {
        if let Some(holds) = gate {
            let op = if holds { "neq" } else { "eq" };
            step["if"] = json!({"path": "context.trace_id", "op": op, "value": null});
        }
        step
    });
    (prop::collection::vec(gated, 1..4), any::<bool>())
        .prop_map(|(mut steps, joins)| {
            for i in 1..steps.len() {
                if joins && steps[i - 1].get("split").is_some() {
                    steps[i]["join"] = json!("all");
                }
            }
            steps
        })
        .boxed()
}

/// How often each plugin's step is run when the steps are read literally: by their numbers in the text.
fn expected(
    steps: &[Value],
    times: usize,
    prefix: &str,
    counter: &mut usize,
    counts: &mut BTreeMap<String, usize>,
) -> usize {
    let mut times = times;
    let mut joined = 1;
    for (i, step) in steps.iter().enumerate() {
        let waits = steps.get(i + 1).is_some_and(|next| next.get("join").is_some());
        let reaching = times;
        let holds = step.get("if").is_none_or(|c| c["op"] == "neq");
        let inside = if holds { reaching } else { 0 };
        let leaving = one(step, inside, prefix, counter, counts);
        if waits {
            joined = reaching;
        }
        times = if holds { leaving } else { reaching };
        if steps.get(i + 1).is_some_and(|next| next.get("join").is_some()) {
            times = joined;
        }
    }
    times
}

/// How often a chain leaves a step that is entered `times` times.
fn one(step: &Value, times: usize, prefix: &str, counter: &mut usize, counts: &mut BTreeMap<String, usize>) -> usize {
    if let Some(steps) = step["steps"].as_array() {
        return expected(steps, times, prefix, counter, counts);
    }
    if let Some(branches) = step["split"].as_array() {
        return branches.iter().map(|branch| one(branch, times, prefix, counter, counts)).sum();
    }
    *counter += 1;
    let node = format!("{prefix}step_{counter}");
    if step.get("call").is_some() {
        for inner in ["x", "y"] {
            *counts.entry(format!("{node}/{inner}")).or_default() += times;
        }
    } else {
        *counts.entry(node).or_default() += times;
    }
    times
}

/// Anything at all, made of the words of the language.
fn anything() -> impl Strategy<Value = Value> {
    let words = vec![
        "name",
        "on",
        "on-hook",
        "from_plugin",
        "if",
        "max_depth",
        "execution_mode",
        "timeout",
        "steps",
        "id",
        "uses",
        "call",
        "split",
        "relay",
        "with",
        "baggage",
        "payload",
        "join",
        "all",
        "path",
        "op",
        "value",
        "to",
        "event",
        "from",
        "namespace",
    ];
    let texts = vec![
        "a",
        "p",
        "e",
        "job.failed",
        "sync",
        "3s",
        "payload.x",
        "{payload.x}",
        "{",
        "exists",
        "a.poll",
        "nobody",
        "lab",
        "all",
        "",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        let key = prop::sample::select(words.clone()).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// PIP-06, PIP-08 to PIP-13: exactly the authored steps run, each as often as the splits before it say.
    #[test]
    fn a_run_executes_exactly_the_authored_steps(steps in sequence(3), emits in any::<bool>()) {
        let generation = sound(json!([
            {"name": "p", "on": "e", "max_depth": 0, "steps": steps},
            {"name": "callee", "on": "never", "steps": [{"id": "x", "uses": "d"}, {"id": "y", "uses": "e"}]},
        ]));
        let mut counts = BTreeMap::new();
        expected(&steps, 1, "", &mut 0, &mut counts);
        counts.retain(|_, times| *times > 0);
        // Splits without joins multiply; what is too long to run is not run.
        prop_assume!(counts.values().sum::<usize>() < 2_000);
        let run = if emits { Run::of(&generation, "p", "{}", &quiet) } else { Run::of(&generation, "p", "{}", &silent) };
        let mut ran: BTreeMap<String, usize> = BTreeMap::new();
        for node in run.steps() {
            *ran.entry(node.to_owned()).or_default() += 1;
        }
        prop_assert_eq!(ran, counts);
        prop_assert!(run.ran.iter().all(|ran| !ran.has_failed));
    }

    /// PIP-05, PIP-52: nothing that can be written down makes the compiler panic, and an error leaves its pipeline out.
    #[test]
    fn anything_compiles_or_is_refused(pipelines in prop::collection::vec(anything(), 0..4), route in anything()) {
        let (generation, problems) = compile(Value::from(pipelines), json!([route]));
        for problem in &problems {
            prop_assert!(problem.path.is_some(), "{}", problem);
        }
        for pipeline in generation.pipelines.iter() {
            prop_assert!(!pipeline.nodes.is_empty() && !pipeline.entries.is_empty());
        }
    }

    /// A pipeline whose parts are mutilated is refused or compiled, and what is compiled can be shown.
    #[test]
    fn a_mutilated_pipeline_never_panics(steps in sequence(2), key in "[a-z_-]{1,8}", value in anything(), at in 0_usize..3) {
        let mut steps = steps;
        let at = at.min(steps.len() - 1);
        steps[at][&key] = value;
        let (generation, _) = compile(json!([
            {"name": "p", "on": "e", "steps": steps},
            {"name": "callee", "on": "never", "steps": [{"uses": "d"}]},
        ]), json!([]));
        if let Some(pipeline) = generation.pipelines.get("p") {
            prop_assert!(ductile_domain::pipeline::routes_view(pipeline).is_array());
            prop_assert!(pipeline.mermaid().lines().count() > pipeline.nodes.len());
        }
    }
}
