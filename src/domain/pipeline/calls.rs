//! Who calls whom: calls that lead nowhere, in a circle, too deep, or to more nodes than a pipeline may have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pipeline::definition::{Act, Definition, MAX_NESTING, Step};
use crate::pipeline::findings::Findings;
use crate::problem::did_you_mean;

/// Nodes that one pipeline may have with everything that it calls.
pub(super) const MAX_NODES: usize = 10_000;

/// What a pipeline comes to with everything that it calls put in place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) nodes: usize,
    nesting: usize,
}

/// The pipelines that can be compiled, with their sizes; everything else has been reported.
pub(super) fn check(definitions: &[Definition], findings: &mut Findings) -> HashMap<Arc<str>, Size> {
    let by_name: HashMap<&str, usize> = definitions.iter().enumerate().map(|(i, d)| (&*d.name, i)).collect();
    let callees: Vec<Vec<usize>> = definitions
        .iter()
        .map(|definition| {
            let mut found = Vec::new();
            for (step, name) in definition.calls() {
                if let Some(callee) = by_name.get(&**name) {
                    found.push(*callee);
                    continue;
                }
                let hint = match did_you_mean(name, by_name.keys().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "`call` takes the name of another pipeline".to_owned(),
                };
                // Having no size, it leaves this pipeline out.
                let place = definition.place_of(step).at("call");
                findings.error(&place, &format!("no pipeline is named {name:?}"), hint);
            }
            found
        })
        .collect();
    let (order, is_left) = callees_first(&callees);
    report_circles(definitions, &callees, &is_left, findings);
    let mut sizes: HashMap<Arc<str>, Size> = HashMap::new();
    for index in order {
        let Some(definition) = definitions.get(index) else { continue };
        if !definition.is_sound {
            continue;
        }
        // A callee without a size has been reported, and is enough to leave its callers out.
        let Some(size) = size_of(&definition.steps, &sizes) else { continue };
        if size.nodes > MAX_NODES {
            let hint = "split it into pipelines that are started by events".to_owned();
            let message = format!("with what it calls it has {} nodes; at most {MAX_NODES} are allowed", size.nodes);
            findings.error(&definition.place.at("steps"), &message, hint);
        } else if size.nesting > MAX_NESTING {
            let hint = "start some of the called pipelines by events instead".to_owned();
            let message = format!("with what it calls its steps are nested deeper than {MAX_NESTING} levels");
            findings.error(&definition.place.at("steps"), &message, hint);
        } else {
            sizes.insert(definition.name.clone(), size);
        }
    }
    sizes
}

/// The pipelines in an order in which callees come first, and which ones have no place in it.
fn callees_first(callees: &[Vec<usize>]) -> (Vec<usize>, Vec<bool>) {
    let mut missing: Vec<usize> = callees.iter().map(Vec::len).collect();
    let mut callers: Vec<Vec<usize>> = vec![Vec::new(); callees.len()];
    for (caller, list) in callees.iter().enumerate() {
        for callee in list {
            if let Some(callers) = callers.get_mut(*callee) {
                callers.push(caller);
            }
        }
    }
    let mut order: Vec<usize> = (0..callees.len()).filter(|i| missing[*i] == 0).collect();
    let mut next = 0;
    while let Some(index) = order.get(next).copied() {
        next += 1;
        for caller in &callers[index] {
            missing[*caller] -= 1;
            if missing[*caller] == 0 {
                order.push(*caller);
            }
        }
    }
    let is_left = missing.iter().map(|missing| *missing > 0).collect();
    (order, is_left)
}

/// Reports each circle of calls once.
fn report_circles(definitions: &[Definition], callees: &[Vec<usize>], is_left: &[bool], findings: &mut Findings) {
    let left = |index: &usize| is_left.get(*index).copied().unwrap_or(false);
    let mut is_seen = vec![false; definitions.len()];
    for start in 0..definitions.len() {
        let mut path = Vec::new();
        let mut at = Some(start).filter(left);
        while let Some(index) = at.filter(|index| !is_seen[*index]) {
            is_seen[index] = true;
            path.push(index);
            at = callees[index].iter().copied().find(left);
        }
        let Some(begin) = at.and_then(|index| path.iter().position(|p| *p == index)) else { continue };
        let circle = &path[begin..];
        let names = circle.iter().chain(circle.first()).filter_map(|i| definitions.get(*i)).map(|d| &*d.name);
        let text = names.collect::<Vec<_>>().join(" -> ");
        let Some(definition) = circle.first().and_then(|i| definitions.get(*i)) else { continue };
        let next = circle.get(1).or(circle.first()).and_then(|i| definitions.get(*i)).map(|d| &d.name);
        let call = definition.calls().into_iter().find(|(_, name)| Some(*name) == next);
        let place = call.map_or_else(|| definition.place.clone(), |(step, _)| definition.place_of(step).at("call"));
        let hint = "a pipeline can't contain itself; emit an event that starts it again instead".to_owned();
        findings.error(&place, &format!("the calls go in a circle: {text}"), hint);
    }
}

/// Size of a sequence of steps; `None` when something that it calls has none.
fn size_of(steps: &[Step], sizes: &HashMap<Arc<str>, Size>) -> Option<Size> {
    let mut total = Size::default();
    for step in steps {
        let inside = match &step.act {
            Act::Uses(..) | Act::Relay(_) => Size { nodes: 1, nesting: 0 },
            Act::Call(name) => *sizes.get(name)?,
            Act::Sequence(steps) | Act::Split(steps) => size_of(steps, sizes)?,
        };
        let own = usize::from(step.condition.is_some()) + usize::from(step.join.is_some());
        total.nodes = total.nodes.saturating_add(inside.nodes).saturating_add(own);
        total.nesting = total.nesting.max(inside.nesting);
    }
    total.nesting += 1;
    Some(total)
}
