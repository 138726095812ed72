//! The way from YAML to compiled pipelines: it ends, whatever is wrong has a place, nothing of the environment is shown,
//! and what is compiled is a graph without circles whose every node can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::generation::Generation;
use ductile_domain::manifest::{Command, CommandType, Manifest, PROTOCOL};
use ductile_domain::pipeline::{Action, Pipeline, Pipelines, Target as Next, dry_run, routes_view};
use ductile_domain::problem::Problem;
use serde_json::value::RawValue;

use super::{Target, check, reached, shape};

pub(super) const TARGET: Target = Target { name: "pipelines", seeds: SEEDS, words: WORDS, run };

const SEEDS: &[&str] = &[
    include_str!("../../cookbook/audio-wisdom.yaml"),
    include_str!("../../cookbook/baggage.yaml"),
    include_str!("../../cookbook/changelog.yaml"),
    include_str!("../../cookbook/commands.yaml"),
    include_str!("../../cookbook/conditions.yaml"),
    include_str!("../../cookbook/failure-hooks.yaml"),
    include_str!("../../cookbook/relay.yaml"),
    include_str!("../../cookbook/remap.yaml"),
    include_str!("../../cookbook/routes.yaml"),
    include_str!("../../cookbook/steps.yaml"),
    "pipelines:\n  - name: p\n    on: a.b\n    max_depth: 3\n    timeout: 5s\n    steps:\n      - call: q\n      - split:\n          - call: q\n          - steps:\n              - split: [{uses: echo}, {uses: notify}]\n              - {uses: echo, join: any_succeeded, if: {path: config.x, op: exists}}\n      - {uses: echo, join: all}\n  - name: q\n    on: c.d\n    steps: [{id: x, uses: fetch.store, with: {a: \"{payload.x}\"}, baggage: {a.b: payload.x}}]\n",
    "pipelines:\n  - &p\n    name: p\n    on: ${X}\n    steps: [{uses: \"${X}\"}, {call: \"${X}\"}]\n  - <<: *p\n    name: q${X}\nroutes:\n  - {from: echo, event_type: a, to: notify}\n",
    "pipelines:\n  - {name: a, on: x, steps: [{call: b}, {call: b}]}\n  - {name: b, on: x, steps: [{call: c}, {call: c}]}\n  - {name: c, on: x, steps: [{call: d}, {call: d}]}\n  - {name: d, on: x, steps: [{uses: echo}]}\n",
];

const WORDS: &[&str] = &[
    "pipelines:",
    "routes:",
    "instances:",
    "name: ",
    "on: ",
    "on-hook: job.failed",
    "from_plugin: echo",
    "if: ",
    "max_depth: 0",
    "execution_mode: sync",
    "timeout: 1s",
    "steps:",
    "split:",
    "call: ",
    "uses: echo",
    "relay: {to: lab, event: x}",
    "join: all",
    "id: ",
    "with: {a: \"{payload.x}\"}",
    "payload: {a: 1}",
    "baggage: {a.b: payload.x}",
    "{path: payload.x, op: eq, value: 1}",
    "all: []",
    "not: ",
    "${X}",
    "${X:-echo}",
    "$${",
    "&a ",
    "*a",
    "<<: *a",
    "- ",
    "  ",
    "\n",
    "p",
    "q",
    "null",
    "1e9",
    "\"",
];

/// What the walk begins with; it has most of what the seeds ask for.
const PAYLOAD: &str = r#"{"x":1,"url":"u","kind":"video","duration_sec":40,"status":"error","metadata":{"a":{"b":1}},
"content":"c","new_commits":true,"changed":false,"archive_id":7,"archive_path":"/a","checksum":"0","stdout":"s"}"#;

/// Nodes of a pipeline that is still walked and drawn.
const MOST_DRAWN: usize = 200;

/// What the variable `X` stands for.
const SECRET: &str = "hushed-up-0451";

fn env(name: &str) -> Option<String> {
    (name == "X").then(|| SECRET.to_owned())
}

fn run(input: &str) -> Result<u64, String> {
    // Whatever reads other files is not ours to try.
    if ["include", "scopes_file"].iter().any(|word| input.contains(word)) {
        return Ok(1);
    }
    let path = std::env::temp_dir().join(format!("ductile-fuzz-{}.yaml", std::process::id()));
    std::fs::write(&path, input).map_err(|error| format!("{}: {error}", path.display()))?;
    let loaded = ductile_config::load(&path, &env);
    // A file that is left over by a panic is the finding itself.
    std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            shown(&problems)?;
            return Ok(reached(shapes(&problems)));
        }
    };
    let found = plugins();
    for name in found.keys() {
        loaded.config.plugins.entry(name.clone()).or_default();
    }
    let (catalog, _) = Catalog::build(&loaded.config, &found);
    let (pipelines, problems) = Pipelines::compile(&loaded.config, &catalog);
    let problems = loaded.provenance.place(problems);
    shown(&problems)?;
    for problem in &problems {
        check(problem.path.is_some() && problem.line.is_some(), || format!("without a place: {problem}"))?;
    }
    let is_sound = !problems.iter().any(Problem::is_error);
    let is_complete = pipelines.iter().count() == loaded.config.pipelines.len();
    check(!is_sound || is_complete, || "a pipeline is missing and nothing is said of it".to_owned())?;
    let routes = pipelines.routes().len().min(3);
    let generation = Generation {
        no: 1,
        snapshot: None,
        config: loaded.config,
        catalog,
        pipelines: Arc::new(pipelines),
        schedules: Arc::default(),
    };
    let topology = generation.pipelines.topology();
    check(topology.is_object(), || format!("the topology is no object: {topology}"))?;
    let mut sizes = Vec::new();
    for pipeline in generation.pipelines.iter() {
        sizes.push((
            pipeline.nodes.len().checked_ilog2(),
            walk(pipeline)?.checked_ilog2(),
            views(&generation, pipeline)?,
        ));
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(reached((shapes(&problems), sizes, routes)))
}

/// What is made of a compiled pipeline without running it; answers how the walk of a payload went.
fn views(generation: &Generation, pipeline: &Pipeline) -> Result<Option<String>, String> {
    // Calls of calls make thousands of nodes; one such pipeline is drawn like another.
    if pipeline.nodes.len() > MOST_DRAWN {
        return Ok(None);
    }
    let (mermaid, dot, _) = (pipeline.mermaid(), pipeline.dot(), routes_view(pipeline));
    for drawing in [mermaid, dot] {
        let lines = drawing.lines().count();
        check(lines > pipeline.nodes.len(), || format!("{} nodes in {lines} lines", pipeline.nodes.len()))?;
    }
    let payload = RawValue::from_string(PAYLOAD.to_owned()).map_err(|error| error.to_string())?;
    match dry_run(generation, pipeline, &payload) {
        Ok(walk) => {
            let told = walk["steps"].as_array().map_or(0, Vec::len);
            check(told == pipeline.nodes.len(), || format!("{told} of {} steps are told", pipeline.nodes.len()))?;
            let states: BTreeSet<String> =
                walk["steps"].as_array().into_iter().flatten().map(|step| step["state"].to_string()).collect();
            Ok(Some(format!("{states:?} {}", walk["starts"])))
        }
        Err(fault) => Ok(Some(shape(&fault.to_string()))),
    }
}

/// Secrets stay out of what is shown.
fn shown(problems: &[Problem]) -> Result<(), String> {
    match problems.iter().map(ToString::to_string).find(|text| text.contains(SECRET)) {
        Some(text) => Err(format!("a value of the environment is shown: {text}")),
        None => Ok(()),
    }
}

fn shapes(problems: &[Problem]) -> Vec<String> {
    let shapes: BTreeSet<String> = problems.iter().map(|problem| shape(&problem.message)).collect();
    shapes.into_iter().take(4).collect()
}

/// Answers the longest way; every node is on some way, and none is on a circle.
fn walk(pipeline: &Pipeline) -> Result<usize, String> {
    let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
    let mut longest = 0;
    // A node is done when all that follows it is; what is open and met again is a circle.
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut stack: Vec<(usize, bool)> = follow(&pipeline.entries).into_iter().map(|node| (node, false)).collect();
    while let Some((node, is_left)) = stack.pop() {
        let Some(at) = pipeline.nodes.get(node) else { return Err(format!("no node {node} in {}", pipeline.name)) };
        let mut next = follow(&at.next);
        if let Action::Switch { on_false, .. } = &at.action {
            next.extend(follow(on_false));
        }
        if is_left {
            let length = 1 + next.iter().filter_map(|n| ends.get(n)).max().copied().unwrap_or(0);
            ends.insert(node, length);
            open.remove(&node);
            longest = longest.max(length);
        } else if !ends.contains_key(&node) {
            check(open.insert(node), || format!("{} has a circle at {}", pipeline.name, at.key))?;
            stack.push((node, true));
            for next in next {
                check(!open.contains(&next), || format!("{} has a circle at {}", pipeline.name, at.key))?;
                if !ends.contains_key(&next) {
                    stack.push((next, false));
                }
            }
        }
    }
    check(ends.len() == pipeline.nodes.len(), || format!("a node of {} can't be reached", pipeline.name))?;
    Ok(longest)
}

/// The nodes that targets lead to, the joins of splits too.
fn follow(targets: &[Next]) -> Vec<usize> {
    let mut nodes = Vec::new();
    for target in targets {
        match target {
            Next::Node(node) => nodes.push(*node),
            Next::Split { join, branches, .. } => {
                nodes.push(*join);
                branches.iter().for_each(|branch| nodes.extend(follow(branch)));
            }
            Next::Arrive => {}
        }
    }
    nodes
}

/// What the seeds name.
fn plugins() -> BTreeMap<String, Discovered> {
    ["echo", "notify", "fetch", "fabric", "youtube", "whisper", "discord_notify", "harvest"]
        .into_iter()
        .map(|name| {
            let manifest = Manifest {
                name: name.to_owned(),
                version: "1".to_owned(),
                protocol: PROTOCOL,
                entrypoint: "run".to_owned(),
                description: None,
                commands: ["handle", "store"].map(|command| Command::new(command, CommandType::Write)).into(),
                required_config: Vec::new(),
                optional_config: Vec::new(),
                concurrency_safe: true,
                max_subs: 16,
                fact_outputs: Vec::new(),
            };
            let dir = PathBuf::from("/plugins").join(name);
            let found = Discovered { manifest: Arc::new(manifest), entrypoint: dir.join("run"), dir };
            (name.to_owned(), found)
        })
        .collect()
}
