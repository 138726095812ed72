//! A compiled pipeline as a graph: its edges, and the pictures that are drawn of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::builtin;
use crate::pipeline::{Action, JoinMode, Node, Pipeline, Pipelines, Target, Trigger};

/// One compiled edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// Index of the node that it leaves; `None` for the trigger.
    pub(super) from: Option<usize>,
    /// Index of the node that it reaches; `None` for the end of the chain.
    pub(super) to: Option<usize>,
    /// The only type of event that takes it.
    pub(super) event: Option<&'static str>,
}

impl Pipeline {
    /// All edges: those of the trigger first, then those of each node in order.
    pub(super) fn edges(&self) -> Vec<Edge> {
        let joins = self.joins();
        let mut edges = Vec::new();
        self.leave(None, &self.entries, None, None, &mut edges);
        for (index, node) in self.nodes.iter().enumerate() {
            let join = joins.get(index).copied().flatten();
            let on_true = matches!(node.action, Action::Switch { .. }).then_some(builtin::SWITCH_TRUE);
            self.leave(Some(index), &node.next, join, on_true, &mut edges);
            if let Action::Switch { on_false, .. } = &node.action {
                self.leave(Some(index), on_false, join, Some(builtin::SWITCH_FALSE), &mut edges);
            }
        }
        edges
    }

    fn leave(
        &self,
        from: Option<usize>,
        targets: &[Target],
        join: Option<usize>,
        event: Option<&'static str>,
        edges: &mut Vec<Edge>,
    ) {
        if targets.is_empty() {
            edges.push(Edge { from, to: None, event });
        }
        for target in targets {
            match target {
                Target::Node(index) => edges.push(Edge { from, to: Some(*index), event }),
                Target::Arrive => edges.push(Edge { from, to: join, event }),
                Target::Split { join, branches } => {
                    branches.iter().for_each(|branch| self.leave(from, branch, Some(*join), event, edges));
                }
            }
        }
    }

    /// For each node the join that waits for it.
    fn joins(&self) -> Vec<Option<usize>> {
        let mut joins = vec![None; self.nodes.len()];
        let mut is_seen = vec![false; self.nodes.len()];
        let mut left: Vec<(&[Target], Option<usize>)> = vec![(&self.entries, None)];
        while let Some((targets, join)) = left.pop() {
            for target in targets {
                let index = match target {
                    Target::Node(index) => *index,
                    Target::Split { join: inner, branches } => {
                        left.extend(branches.iter().map(|branch| (branch.as_slice(), Some(*inner))));
                        *inner
                    }
                    Target::Arrive => continue,
                };
                if std::mem::replace(&mut is_seen[index], true) {
                    continue;
                }
                joins[index] = join;
                let node = &self.nodes[index];
                left.push((&node.next, join));
                if let Action::Switch { on_false, .. } = &node.action {
                    left.push((on_false, join));
                }
            }
        }
        joins
    }

    fn trigger_text(&self) -> String {
        let word = match self.trigger {
            Trigger::On(_) => "on",
            Trigger::Hook(_) => "on-hook",
        };
        let from = self.source_plugin.as_deref().map_or_else(String::new, |from| format!(" from {from}"));
        let condition = if self.condition.is_some() { ", if ..." } else { "" };
        format!("{word} {}{from}{condition}", self.trigger.event_type())
    }

    /// The pipeline as a Mermaid flow chart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut out = format!("flowchart TD\n    trigger([\"{}\"])\n", mermaid(&self.trigger_text()));
        for (index, node) in self.nodes.iter().enumerate() {
            let text = mermaid(&label(node)).replace('\n', "<br/>");
            let _ = match &node.action {
                Action::Switch { .. } => writeln!(out, "    n{index}{{\"{text}\"}}"),
                Action::Join { .. } => writeln!(out, "    n{index}[[\"{text}\"]]"),
                _ => writeln!(out, "    n{index}[\"{text}\"]"),
            };
        }
        for edge in self.edges() {
            let Some(to) = edge.to else { continue };
            let from = edge.from.map_or_else(|| "trigger".to_owned(), |from| format!("n{from}"));
            let _ = match edge.event.map(short) {
                Some(word) => writeln!(out, "    {from} -->|{word}| n{to}"),
                None => writeln!(out, "    {from} --> n{to}"),
            };
        }
        out
    }

    /// The pipeline in Graphviz' language.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n    rankdir=TB;\n    node [shape=box];\n", dot(&self.name));
        let _ = writeln!(out, "    trigger [shape=oval, label={}];", dot(&self.trigger_text()));
        for (index, node) in self.nodes.iter().enumerate() {
            let shape = match &node.action {
                Action::Switch { .. } => "diamond",
                Action::Join { .. } => "trapezium",
                _ => "box",
            };
            let _ = writeln!(out, "    n{index} [shape={shape}, label={}];", dot(&label(node)));
        }
        for edge in self.edges() {
            let Some(to) = edge.to else { continue };
            let from = edge.from.map_or_else(|| "trigger".to_owned(), |from| format!("n{from}"));
            let _ = match edge.event.map(short) {
                Some(word) => writeln!(out, "    {from} -> n{to} [label=\"{word}\"];"),
                None => writeln!(out, "    {from} -> n{to};"),
            };
        }
        out.push_str("}\n");
        out
    }
}

impl Pipelines {
    /// Which plugin's events reach which plugin: `nodes` are plugins (`*` for any), `edges` have `from`, `to`, `event_type`
    /// (null for any event of a step), `pipeline` and `step` (null for a plain route).
    #[must_use]
    pub fn topology(&self) -> Value {
        let mut edges = BTreeSet::new();
        for pipeline in self.iter() {
            let from = pipeline.source_plugin.as_deref().unwrap_or("*");
            let event = Some(pipeline.trigger.event_type());
            for (start, end) in pipeline.between_plugins() {
                let node = &pipeline.nodes[end];
                let begin = start.map_or((from, event), |start| (pipeline.nodes[start].plugin(), None));
                edges.insert((begin.0, node.plugin(), begin.1, Some(&*pipeline.name), Some(&*node.key)));
            }
        }
        for route in self.routes() {
            edges.insert((&*route.from, &*route.to, Some(&*route.event_type), None, None));
        }
        let nodes: BTreeSet<&str> = edges.iter().flat_map(|(from, to, ..)| [*from, *to]).collect();
        let nodes: Vec<Value> = nodes.into_iter().map(|id| json!({ "id": id, "kind": kind(id) })).collect();
        let edges: Vec<Value> = edges
            .into_iter()
            .map(|(from, to, event_type, pipeline, step)| {
                json!({ "from": from, "to": to, "event_type": event_type, "pipeline": pipeline, "step": step })
            })
            .collect();
        json!({ "nodes": nodes, "edges": edges })
    }
}

fn kind(id: &str) -> &'static str {
    match id {
        "*" => "any",
        builtin::RELAY => "relay",
        _ => "plugin",
    }
}

impl Pipeline {
    /// The edges that are left when decisions and joins are taken out.
    fn between_plugins(&self) -> BTreeSet<(Option<usize>, usize)> {
        let edges = self.edges();
        let mut behind: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for edge in &edges {
            if let (Some(from), Some(to)) = (edge.from, edge.to) {
                behind[from].push(to);
            }
        }
        let is_hidden = |index: usize| matches!(self.nodes[index].action, Action::Switch { .. } | Action::Join { .. });
        let mut found = BTreeSet::new();
        for start in edges.iter().map(|edge| edge.from).collect::<BTreeSet<_>>() {
            if start.is_some_and(is_hidden) {
                continue;
            }
            let mut left: Vec<usize> = edges.iter().filter(|e| e.from == start).filter_map(|e| e.to).collect();
            let mut is_seen = vec![false; self.nodes.len()];
            while let Some(index) = left.pop() {
                if std::mem::replace(&mut is_seen[index], true) {
                    continue;
                }
                match is_hidden(index) {
                    true => left.extend(&behind[index]),
                    false => {
                        found.insert((start, index));
                    }
                }
            }
        }
        found
    }
}

/// What stands in a box.
fn label(node: &Node) -> String {
    match &node.action {
        Action::Uses { plugin, command, .. } => format!("{}\n{plugin}.{command}", node.key),
        Action::Switch { .. } => format!("{}\nif ...", node.key),
        Action::Join { mode: JoinMode::All, .. } => format!("{}\njoin: all", node.key),
        Action::Join { mode: JoinMode::AnySucceeded, .. } => format!("{}\njoin: any_succeeded", node.key),
        Action::Relay(relay) => format!("{}\nrelay {} to {}", node.key, relay.event, relay.to),
    }
}

fn short(event: &'static str) -> &'static str {
    if event == builtin::SWITCH_TRUE { "true" } else { "false" }
}

/// Text that can't end its own quotes, nor mean anything to Mermaid.
fn mermaid(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("#quot;"),
            '#' => out.push_str("#35;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            '`' => out.push_str("#96;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A quoted text of Graphviz.
fn dot(text: &str) -> String {
    let escaped: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    format!("\"{}\"", escaped.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The compiled routes of a pipeline, a list: `id`, `source` (`trigger` or `hook_signal`, or `pipeline` and `step_id`;
/// `event_type`, `source_plugin`, `if`, `depth_lt`) and `destination` (`kind`: uses, call or terminal; `pipeline` where the
/// step was written, `step_id`, `plugin`, `command`).
#[must_use]
pub fn routes_view(pipeline: &Pipeline) -> Value {
    let key = |index: usize| -> &Arc<str> { &pipeline.nodes[index].key };
    let routes = pipeline.edges().into_iter().map(|edge| {
        let mut source = serde_json::Map::new();
        let id = match (edge.from, edge.to) {
            (None, Some(to)) => format!("entry:{}", key(to)),
            (Some(from), Some(to)) => format!("edge:{}->{}", key(from), key(to)),
            (Some(from), None) => format!("terminal:{}", key(from)),
            (None, None) => "terminal:".to_owned(),
        };
        let id = edge.event.map_or_else(|| id.clone(), |event| format!("{id}@{event}"));
        match edge.from {
            Some(from) => {
                source.insert("pipeline".into(), (*pipeline.name).into());
                source.insert("step_id".into(), (**key(from)).into());
                if let Some(event) = edge.event {
                    source.insert("event_type".into(), event.into());
                }
            }
            None => {
                let (word, value) = match &pipeline.trigger {
                    Trigger::On(event) => ("trigger", &**event),
                    Trigger::Hook(signal) => ("hook_signal", signal.as_str()),
                };
                source.insert(word.into(), value.into());
                source.insert("event_type".into(), value.into());
                if let Some(from) = &pipeline.source_plugin {
                    source.insert("source_plugin".into(), (**from).into());
                }
                if let Some(condition) = &pipeline.condition {
                    source.insert("if".into(), condition.to_json());
                }
            }
        }
        if let (Some(from), Some(builtin::SWITCH_TRUE)) = (edge.from, edge.event)
            && let Action::Switch { condition, .. } = &pipeline.nodes[from].action
        {
            source.insert("if".into(), condition.to_json());
        }
        let destination = match edge.to.map(|to| &pipeline.nodes[to]) {
            None => json!({ "kind": "terminal" }),
            Some(node) => json!({
                // A step that came in by a call keeps the name of the pipeline in which it was written.
                "kind": if node.pipeline == pipeline.name { "uses" } else { "call" },
                "pipeline": &*node.pipeline, "step_id": &*node.key, "plugin": node.plugin(), "command": node.command(),
            }),
        };
        if edge.to.is_some() && pipeline.max_depth > 0 {
            source.insert("depth_lt".into(), pipeline.max_depth.into());
        }
        json!({ "id": id, "source": source, "destination": destination })
    });
    routes.collect()
}
