//! Faults on demand, for tests and chaos. Not part of a production build.

use std::collections::HashMap;
use std::time::Duration;

use ractor::ActorCell;

use crate::node::NodeCell;
use crate::{Exit, Node, Tree};

/// What shall go wrong at one node.
#[derive(Default)]
pub(crate) struct Faults {
    cell: Option<ActorCell>,
    fail_starts: u32,
    panics: HashMap<Option<String>, u32>,
}

fn faults(node: &NodeCell) -> std::sync::MutexGuard<'_, Faults> {
    node.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn launched(node: &NodeCell, cell: ActorCell) {
    faults(node).cell = Some(cell);
}

pub(crate) fn before_start(node: &NodeCell) -> Result<(), Exit> {
    let mut faults = faults(node);
    if faults.fail_starts == 0 {
        return Ok(());
    }
    faults.fail_starts -= 1;
    Err(Exit::Error("injected failure to start".into()))
}

pub(crate) fn before_message(node: &NodeCell, kind: &str) {
    let hit = {
        let mut faults = faults(node);
        let wanted = [Some(kind.to_owned()), None].into_iter().find(|wanted| faults.panics.contains_key(wanted));
        wanted.is_some_and(|wanted| {
            match faults.panics.get_mut(&wanted) {
                Some(n) if *n > 1 => *n -= 1,
                _ => {
                    faults.panics.remove(&wanted);
                }
            }
            true
        })
    };
    assert!(!hit, "injected panic at {kind}");
}

/// Makes actors fail.
#[derive(Debug, Clone)]
pub struct Ctl {
    tree: Tree,
}

impl Tree {
    /// Makes actors of this tree fail.
    #[must_use]
    pub fn ctl(&self) -> Ctl {
        Ctl { tree: self.clone() }
    }
}

impl Ctl {
    /// Kills the current incarnation at its next await, also that of a supervisor. False when there is none.
    pub fn kill(&self, path: &str) -> bool {
        let Some(node) = self.tree.cell(path) else { return false };
        let cell = faults(&node).cell.clone();
        cell.inspect(ActorCell::kill).is_some()
    }

    /// The actor panics when it takes up its next message of that kind, or any; adds up. False when there is no such actor.
    pub fn panic_next(&self, path: &str, kind: Option<&str>) -> bool {
        let Some(node) = self.tree.cell(path) else { return false };
        *faults(&node).panics.entry(kind.map(str::to_owned)).or_insert(0) += 1;
        true
    }

    /// Forgets the panics and failing starts of every actor that have not come to pass.
    pub fn calm(&self) {
        let mut nodes: Vec<_> = self.tree.snapshot().into_iter().collect();
        while let Some(node) = nodes.pop() {
            if let Some(cell) = self.tree.cell(&node.path) {
                let mut faults = faults(&cell);
                faults.panics.clear();
                faults.fail_starts = 0;
            }
            nodes.extend(node.children);
        }
    }

    /// The actor does nothing for that time, after what is in its mailbox. False when it is down.
    pub fn stall(&self, path: &str, time: Duration) -> bool {
        self.tree.cell(path).is_some_and(|node| node.mailbox().is_some_and(|mailbox| mailbox.stall(time)))
    }

    /// The next `n` starts of the actor fail. False when there is no such actor.
    pub fn fail_start(&self, path: &str, n: u32) -> bool {
        let Some(node) = self.tree.cell(path) else { return false };
        faults(&node).fail_starts = n;
        true
    }

    /// Waits for a node to look as wanted.
    ///
    /// # Errors
    /// After the deadline: the node as it looks then, if there is one.
    pub async fn await_node(
        &self,
        path: &str,
        wanted: impl Fn(&Node) -> bool,
        deadline: Duration,
    ) -> Result<Node, Option<Box<Node>>> {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            let node = self.tree.node(path);
            match node {
                Some(node) if wanted(&node) => return Ok(node),
                node if tokio::time::Instant::now() >= until => return Err(node.map(Box::new)),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}
