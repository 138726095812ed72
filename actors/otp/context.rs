//! What a server may do besides handling messages: timers, owned tasks, its own address and its own stop.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor::ActorRef;
use tokio::task::AbortHandle;

use crate::panic_report::caught;
use crate::process::Meta;
use crate::slot::Envelope;
use crate::{Exit, Server, Slot, Tree};

/// An incarnation's view of itself.
pub struct Cx<S: Server> {
    meta: Arc<Meta>,
    slot: Slot<S::Msg>,
    me: ActorRef<Envelope<S::Msg>>,
}

impl<S: Server> Cx<S> {
    pub(crate) fn new(meta: Arc<Meta>, slot: Slot<S::Msg>, me: ActorRef<Envelope<S::Msg>>) -> Self {
        Self { meta, slot, me }
    }

    /// Path from the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.meta.node.path
    }

    /// Its own address.
    #[must_use]
    pub fn slot(&self) -> &Slot<S::Msg> {
        &self.slot
    }

    /// The tree it lives in.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.meta.tree
    }

    /// Counts attempts to start from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.meta.incarnation
    }

    /// Sends a message to this incarnation after that time, unless the timer is dropped before. Takes no place in the mailbox.
    pub fn send_after(&self, time: Duration, msg: S::Msg) -> Timer {
        let live = Arc::new(AtomicBool::new(true));
        let (to, flag) = (self.me.clone(), Arc::clone(&live));
        let task = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let _ = to.send_message(Envelope::Timer(msg, flag));
        });
        Timer { live, task: task.abort_handle() }
    }

    /// Runs a task that the actor owns: it ends with the actor, and its panic ends the actor.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let (meta, me) = (Arc::clone(&self.meta), self.me.get_cell());
        Task(self.meta.spawn(async move {
            if let Err(panic) = caught(task).await {
                meta.ask_to_stop(meta.panicked(&*panic));
                me.stop(None);
            }
        }))
    }

    /// Asks for its own end after the message in hand; messages that wait are not handled.
    pub fn stop(&self, why: Exit) {
        self.meta.ask_to_stop(why);
        self.me.stop(None);
    }

    /// This incarnation, past its address.
    pub(crate) fn direct(&self) -> ActorRef<Envelope<S::Msg>> {
        self.me.clone()
    }

    pub(crate) fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }
}

/// A message that is due later; dropping it takes the message back, even when it is already in the mailbox.
#[derive(Debug)]
#[must_use = "dropping a timer stops it"]
pub struct Timer {
    live: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.live.store(false, Ordering::Release);
        self.task.abort();
    }
}

/// A task that its actor owns.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Ends it at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
