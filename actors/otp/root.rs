//! The root of a tree: start it in order, wait for its end, stop it in reverse.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::child::{Brood, Lift, launch_supervisor};
use crate::node::NodeCell;
use crate::process::Meta;
use crate::spec::check;
use crate::supervisor::{Family, Plan};
use crate::{Exit, StartCause, StartError, StartInfo, SupervisorSpec, Tree};

/// A running tree. Dropping it stops the tree in the background.
#[derive(Debug)]
pub struct Root {
    tree: Tree,
    stop: Stop,
    exit: watch::Receiver<Option<Exit>>,
}

struct Stop {
    cell: ractor::ActorCell,
    meta: Arc<Meta>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").field("path", &self.meta.node.path).finish_non_exhaustive()
    }
}

/// Ends what a dropped start has started so far.
struct Unfinished {
    family: Option<Arc<Family>>,
    tree: Tree,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let (Some(family), Ok(runtime)) = (self.family.take(), tokio::runtime::Handle::try_current()) {
            self.tree.hurry();
            runtime.spawn(family.stop_all());
        }
    }
}

impl Root {
    /// Starts the whole tree, children left to right; returns when all are up. Dropping the future ends what was started.
    ///
    /// # Errors
    /// `Spec` when the tree can't work as written, or when `tree` has a root already; `Failed` when a child didn't start: those that did are
    /// stopped again, in reverse.
    pub async fn start(spec: SupervisorSpec, tree: Tree) -> Result<Self, StartError> {
        check(&spec)?;
        let plan = Arc::new(Plan::new(spec, None, &tree));
        let node = Arc::clone(&plan.node);
        if !tree.set_root(Arc::clone(&node)) {
            return Err(StartError::Spec("a tree has one root only".into()));
        }
        let family = Arc::new(Family::default());
        let mut unfinished = Unfinished { family: Some(Arc::clone(&family)), tree: tree.clone() };
        let (publish, exit) = watch::channel(None);
        let (ended, end) = tokio::sync::oneshot::channel();
        let (incarnation, _) = node.starting();
        tree.tell("actor.starting", &node, incarnation);
        let lift = Lift {
            node: Arc::clone(&node),
            tree: tree.clone(),
            start: StartInfo { cause: StartCause::Boot, incarnation },
            init_timeout: None,
            on_exit: Box::new(move |exit| {
                let _ = ended.send(exit);
            }),
        };
        let started = launch_supervisor(&plan, Arc::clone(&family), lift).await;
        unfinished.family = None;
        let run = match started {
            Ok(run) => run,
            Err(exit) => {
                family.stop_all().await;
                close(&node);
                return Err(StartError::Failed { path: node.path.to_string(), exit });
            }
        };
        let stop = Stop { cell: run.cell.clone(), meta: Arc::clone(&run.meta) };
        tokio::spawn(async move {
            let exit = end.await.unwrap_or(Exit::Killed);
            let _ = run.join.await;
            // Only a root that was killed has left children behind.
            family.stop_all().await;
            close(&node);
            publish.send_replace(Some(exit));
        });
        Ok(Self { tree, stop, exit })
    }

    /// Stops the tree in reverse order. After `grace` each child gets 100 ms more and is then killed; call it again with a shorter one to
    /// lose patience. Returns when all has ended.
    pub async fn stop(&self, reason: impl Into<String>, grace: Duration) -> Exit {
        self.stop.meta.ask_to_stop(Exit::Shutdown(reason.into()));
        self.stop.cell.stop(None);
        if let Ok(exit) = tokio::time::timeout(grace, self.wait()).await {
            return exit;
        }
        self.tree.hurry();
        self.wait().await
    }

    /// Waits for the end. `Exit::Shutdown` after a stop; `Exit::Error` when the root gave up.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.map(|exit| exit.clone());
        exit.ok().flatten().unwrap_or(Exit::Killed)
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.stop.meta.ask_to_stop(Exit::Shutdown("nobody holds the tree any more".into()));
        self.stop.cell.stop(None);
    }
}

/// Nobody waits for an address of an ended tree.
fn close(node: &NodeCell) {
    if let Some(mailbox) = node.mailbox() {
        mailbox.gone();
    }
    for child in node.children() {
        close(&child);
    }
}
