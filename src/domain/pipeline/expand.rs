//! Puts what a pipeline calls in its place and ties its steps together, from the last to the first.

use std::collections::HashMap;
use std::sync::Arc;

use crate::builtin;
use crate::pipeline::calls::Size;
use crate::pipeline::definition::{Act, Definition, Step};
use crate::pipeline::{Action, JoinMode, Node, Pipeline, Target};

/// Hops that a chain may have when its author doesn't say: the longest path, but not less than this.
pub(super) const LEAST_CAP: u32 = 20;

/// Ties that one pipeline may have: splits without a join multiply them.
pub(super) const MAX_TIES: usize = 100_000;

/// Compiles a pipeline whose size is known, and whose callees are all sound. `None` when it has too many ties.
pub(super) fn expand(root: &Definition, size: Size, definitions: &HashMap<&str, &Definition>) -> Option<Pipeline> {
    let nodes = Vec::with_capacity(size.nodes);
    let mut expansion = Expansion { definitions, total: size.nodes, nodes, longest: Vec::new(), ties: 0 };
    let entries = expansion.sequence(root, &root.steps, "", Vec::new());
    let longest = expansion.longest_of(&entries);
    let Expansion { mut nodes, ties, .. } = expansion;
    nodes.reverse();
    let by_key = nodes.iter().enumerate().map(|(index, node)| (node.key.clone(), index)).collect();
    let pipeline = Pipeline {
        name: root.name.clone(),
        trigger: root.trigger.clone(),
        source_plugin: root.source_plugin.clone(),
        condition: root.condition.clone(),
        execution: root.execution,
        timeout: root.timeout,
        max_depth: root.max_depth.unwrap_or_else(|| longest.max(LEAST_CAP)),
        nodes,
        entries,
        by_key,
    };
    (ties <= MAX_TIES).then_some(pipeline)
}

/// A pipeline while it is being tied together. Nodes come into being in the reverse of their order.
struct Expansion<'a> {
    definitions: &'a HashMap<&'a str, &'a Definition>,
    total: usize,
    nodes: Vec<Node>,
    /// For each node the hops of the longest chain from it, in the order of `nodes`.
    longest: Vec<u32>,
    ties: usize,
}

impl<'a> Expansion<'a> {
    /// Ties a sequence together; `next` is what follows it. Answers what it begins with.
    fn sequence(&mut self, of: &'a Definition, steps: &'a [Step], prefix: &str, next: Vec<Target>) -> Vec<Target> {
        let mut next = next;
        // The join that waits for the step that is tied next.
        let mut join: Option<usize> = None;
        for step in steps.iter().rev() {
            let begin = match (join.take(), &step.act) {
                (Some(join), Act::Split(branches)) => self.joined(of, step, branches, prefix, join, next),
                _ => self.step(of, step, prefix, next),
            };
            join = step.join.map(|mode| self.join(of, step, prefix, mode, begin.clone()));
            next = begin;
        }
        next
    }

    /// Ties one step, with its decision.
    fn step(&mut self, of: &'a Definition, step: &'a Step, prefix: &str, next: Vec<Target>) -> Vec<Target> {
        let past = if step.condition.is_some() { next.clone() } else { Vec::new() };
        let begin = match &step.act {
            Act::Uses(callee, request) => {
                let (plugin, command) = (callee.plugin.clone(), callee.command.clone());
                let action = Action::Uses { plugin, command, request: request.clone() };
                self.node(of, &step.name, prefix, action, next, callee.max_attempts)
            }
            Act::Relay(relay) => {
                self.node(of, &step.name, prefix, Action::Relay(relay.clone()), next, builtin::MAX_ATTEMPTS)
            }
            Act::Sequence(steps) => self.sequence(of, steps, prefix, next),
            Act::Split(branches) => self.branches(of, branches, prefix, &next).concat(),
            Act::Call(name) => match self.definitions.get(&**name) {
                Some(callee) => self.sequence(callee, &callee.steps, &format!("{prefix}{}/", step.name), next),
                None => next,
            },
        };
        self.gated(of, step, prefix, begin, past)
    }

    /// Ties a split whose branches a join waits for. Who goes past the split has nothing to wait for.
    fn joined(
        &mut self,
        of: &'a Definition,
        step: &'a Step,
        branches: &'a [Step],
        prefix: &str,
        join: usize,
        past: Vec<Target>,
    ) -> Vec<Target> {
        let branches = self.branches(of, branches, prefix, &[Target::Arrive]);
        let longest = branches.iter().map(|branch| self.longest_of(branch)).max().unwrap_or(0);
        // Nodes were made from the last to the first.
        let made = self.total - 1 - join;
        if let Some(Action::Join { span, .. }) = self.nodes.get_mut(made).map(|node| &mut node.action) {
            *span = longest;
        }
        self.gated(of, step, prefix, vec![Target::Split { join, branches }], past)
    }

    fn branches(&mut self, of: &'a Definition, steps: &'a [Step], prefix: &str, next: &[Target]) -> Vec<Vec<Target>> {
        let tie = |branch| self.step(of, branch, prefix, next.to_vec());
        let mut branches: Vec<_> = steps.iter().rev().map(tie).collect();
        branches.reverse();
        branches
    }

    /// The decision before a step that has an `if`.
    fn gated(
        &mut self,
        of: &'a Definition,
        step: &'a Step,
        prefix: &str,
        begin: Vec<Target>,
        past: Vec<Target>,
    ) -> Vec<Target> {
        let Some(condition) = &step.condition else { return begin };
        let config_of = match &step.act {
            Act::Uses(callee, _) => Some(callee.plugin.clone()),
            _ => None,
        };
        let action = Action::Switch { condition: condition.clone(), config_of, on_false: past };
        self.node(of, &format!("{}__switch", step.name), prefix, action, begin, builtin::MAX_ATTEMPTS)
    }

    fn join(&mut self, of: &'a Definition, step: &'a Step, prefix: &str, mode: JoinMode, next: Vec<Target>) -> usize {
        self.node(
            of,
            &format!("{}__join", step.name),
            prefix,
            Action::Join { mode, span: 0 },
            next,
            builtin::MAX_ATTEMPTS,
        );
        self.total - self.nodes.len()
    }

    fn node(
        &mut self,
        of: &Definition,
        step: &str,
        prefix: &str,
        action: Action,
        next: Vec<Target>,
        max_attempts: u32,
    ) -> Vec<Target> {
        let mut longest = self.longest_of(&next);
        self.ties += next.len();
        if let Action::Switch { on_false, .. } = &action {
            longest = longest.max(self.longest_of(on_false));
            self.ties += on_false.len();
        }
        self.longest.push(longest.saturating_add(1));
        let step: Arc<str> = step.into();
        let key = if prefix.is_empty() { step.clone() } else { format!("{prefix}{step}").into() };
        // A pipeline with too many ties is thrown away; until then they must not fill the memory.
        let next = if self.ties > MAX_TIES { Vec::new() } else { next };
        self.nodes.push(Node { key, pipeline: of.name.clone(), step, action, next, max_attempts });
        vec![Target::Node(self.total - self.nodes.len())]
    }

    /// Hops of the longest chain from any of these.
    fn longest_of(&self, targets: &[Target]) -> u32 {
        let from = |target: &Target| match target {
            Target::Node(index) => self.longest_from(*index),
            Target::Split { join, .. } => {
                let span = match self.nodes.get(self.total - 1 - join).map(|node| &node.action) {
                    Some(Action::Join { span, .. }) => *span,
                    _ => 0,
                };
                span.saturating_add(self.longest_from(*join))
            }
            Target::Arrive => 0,
        };
        targets.iter().map(from).max().unwrap_or(0)
    }

    fn longest_from(&self, index: usize) -> u32 {
        self.longest.get(self.total - 1 - index).copied().unwrap_or(0)
    }
}
