//! The tree as data: readable at any time, without a message, also while actors are stuck.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use crate::node::NodeCell;
use crate::{ActorEvent, CrashReport, Exit, IntensityUse, Restart, RestartHandle, Shutdown, Strategy, panic_report};

/// Worker or supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs a [`crate::Server`].
    Worker,
    /// Owns children.
    Supervisor,
    /// Owns children that come and go.
    Dynamic,
}

/// Where an actor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its `init` runs, or its children are being started.
    Starting,
    /// It takes messages.
    Up,
    /// Down, and started again at that time.
    Backoff {
        /// When.
        until: SystemTime,
    },
    /// Asked to stop, or ending after an error.
    Stopping,
    /// Not running.
    Down,
    /// Killed, and still running code that never waits.
    Zombie,
}

impl Phase {
    /// `starting`, `up`, `backoff`, `stopping`, `down` or `zombie`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Backoff { .. } => "backoff",
            Self::Stopping => "stopping",
            Self::Down => "down",
            Self::Zombie => "zombie",
        }
    }
}

/// A copy of one node and all below it.
#[derive(Debug, Clone)]
pub struct Node {
    /// From the root, parts joined by `/`.
    pub path: Arc<str>,
    /// Last part of the path.
    pub name: String,
    /// Worker or supervisor.
    pub kind: Kind,
    /// Of a static supervisor.
    pub strategy: Option<Strategy>,
    /// When it is started again.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Where it is in its life.
    pub phase: Phase,
    /// Counts attempts to start; 0 before the first.
    pub incarnation: u64,
    /// Successful starts after the first.
    pub restarts: u64,
    /// Last successful start.
    pub started_at: Option<SystemTime>,
    /// How the former incarnation ended.
    pub last_exit: Option<LastExit>,
    /// Of a worker that was started once.
    pub mailbox: Option<Mailbox>,
    /// The message in hand.
    pub handling: Option<Handling>,
    /// Restarts of a supervisor's children.
    pub intensity: Option<IntensityUse>,
    /// In the order of their start.
    pub children: Vec<Node>,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastExit {
    /// `normal`, `shutdown`, `killed`, `error` or `panic`.
    pub class: &'static str,
    /// At most 4 KiB.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

/// Fill of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mailbox {
    /// Messages that wait, are in hand, or wait for their reply.
    pub len: usize,
    /// Most that fit.
    pub cap: usize,
}

/// The message in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handling {
    /// Its variant.
    pub kind: &'static str,
    /// For how long.
    pub time: Duration,
}

/// Why an actor's view of itself can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectError {
    /// No actor of that path.
    Unknown,
    /// Not running.
    Down,
    /// No answer within the deadline.
    Unresponsive,
}

impl std::fmt::Display for InspectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "failed to inspect: no such actor",
            Self::Down => "failed to inspect: the actor is down",
            Self::Unresponsive => "failed to inspect: the actor does not respond",
        })
    }
}

impl std::error::Error for InspectError {}

/// The table of all actors of one root, and where its events go.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    root: OnceLock<Arc<NodeCell>>,
    sink: Box<dyn Fn(ActorEvent) + Send + Sync>,
    rank_violations: AtomicU64,
    hurry: AtomicBool,
    hurried: Notify,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("root", &self.0.root.get().map(|root| &root.path)).finish_non_exhaustive()
    }
}

impl Tree {
    /// An empty tree. The sink gets every event, on whatever task it happens; it must be cheap and never wait. It is called without locks
    /// held, and its panics are swallowed.
    #[must_use]
    pub fn new(sink: impl Fn(ActorEvent) + Send + Sync + 'static) -> Self {
        panic_report::install();
        Self(Arc::new(Inner {
            root: OnceLock::new(),
            sink: Box::new(sink),
            rank_violations: AtomicU64::new(0),
            hurry: AtomicBool::new(false),
            hurried: Notify::new(),
        }))
    }

    /// A copy of the whole tree; nothing before its root was started.
    #[must_use]
    pub fn snapshot(&self) -> Option<Node> {
        self.0.root.get().map(|root| root.view())
    }

    /// The node of that path with all below it.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<Node> {
        self.cell(path).map(|cell| cell.view())
    }

    /// What the actor says of itself ([`crate::Server::inspect`]).
    ///
    /// # Errors
    /// See [`InspectError`].
    pub async fn inspect(&self, path: &str, deadline: Duration) -> Result<Value, InspectError> {
        let cell = self.cell(path).ok_or(InspectError::Unknown)?;
        let (to, answer) = oneshot::channel();
        if !cell.mailbox().is_some_and(|mailbox| mailbox.inspect(to)) {
            return Err(InspectError::Down);
        }
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(InspectError::Down),
            Err(_) => Err(InspectError::Unresponsive),
        }
    }

    /// Restarts on an operator's word.
    #[must_use]
    pub fn restarts(&self) -> RestartHandle {
        RestartHandle::new(self.clone())
    }

    /// Calls that went towards a higher rank; always a mistake.
    #[must_use]
    pub fn rank_violations(&self) -> u64 {
        self.0.rank_violations.load(Ordering::Relaxed)
    }

    pub(crate) fn count_rank_violation(&self) {
        self.0.rank_violations.fetch_add(1, Ordering::Relaxed);
    }

    /// False when the tree has a root already.
    pub(crate) fn set_root(&self, root: Arc<NodeCell>) -> bool {
        self.0.root.set(root).is_ok()
    }

    pub(crate) fn cell(&self, path: &str) -> Option<Arc<NodeCell>> {
        let root = self.0.root.get()?;
        let mut parts = path.split('/');
        if parts.next() != Some(root.name()) {
            return None;
        }
        let mut cell = Arc::clone(root);
        for part in parts {
            cell = cell.child(part)?;
        }
        Some(cell)
    }

    /// From now on hardly anything of a shutdown limit is waited for.
    pub(crate) fn hurry(&self) {
        self.0.hurry.store(true, Ordering::Release);
        self.0.hurried.notify_waiters();
    }

    pub(crate) async fn hurried(&self) {
        let told = self.0.hurried.notified();
        if !self.0.hurry.load(Ordering::Acquire) {
            told.await;
        }
    }

    pub(crate) fn emit(&self, event: ActorEvent) {
        // Whoever listens can't take the emitter down with it.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.0.sink)(event)));
    }

    pub(crate) fn tell(&self, kind: &'static str, node: &NodeCell, incarnation: u64) {
        self.emit(event(kind, node, incarnation));
    }

    pub(crate) fn tell_backoff(&self, node: &NodeCell, incarnation: u64, delay: Duration) {
        self.emit(ActorEvent { delay: Some(delay), ..event("actor.backoff", node, incarnation) });
    }

    pub(crate) fn tell_intensity(&self, kind: &'static str, node: &NodeCell, intensity: IntensityUse) {
        if kind != "supervisor.intensity" {
            tracing::error!(path = %node.path, used = intensity.used, max = intensity.max, "{kind}: too many restarts");
        }
        self.emit(ActorEvent { intensity: Some(intensity), ..event(kind, node, node.incarnation()) });
    }

    /// The end of an incarnation; `report` makes it a crash or a kill.
    pub(crate) fn tell_end(&self, node: &NodeCell, incarnation: u64, exit: &Exit, report: Option<CrashReport>) {
        let kind = match exit {
            Exit::Normal | Exit::Shutdown(_) => "actor.exited",
            Exit::Killed => "actor.killed",
            Exit::Error(_) | Exit::Panic { .. } => "actor.crashed",
        };
        if let (Some(report), true) = (&report, kind == "actor.crashed") {
            tracing::error!(
                path = %node.path,
                incarnation,
                message = report.message,
                location = report.location,
                reason = %report.reason,
                "actor crashed"
            );
        }
        let reason = (!matches!(exit, Exit::Normal)).then(|| exit.reason());
        self.emit(ActorEvent { reason, report: report.map(Box::new), ..event(kind, node, incarnation) });
    }
}

fn event(kind: &'static str, node: &NodeCell, incarnation: u64) -> ActorEvent {
    ActorEvent {
        kind,
        path: Arc::clone(&node.path),
        incarnation,
        at: SystemTime::now(),
        dynamic: node.is_dynamic(),
        reason: None,
        report: None,
        delay: None,
        intensity: None,
    }
}
