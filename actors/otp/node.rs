//! One cell of the tree's table: written by supervisors and adapters, read by anybody at any time.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::dynamic::Nursery;
use crate::intensity::Gauge;
use crate::slot::AnyMailbox;
use crate::supervisor::SupMsg;
use crate::tree::{Handling, Kind, LastExit, Mailbox, Node, Phase};
use crate::{Exit, Restart, Shutdown, Slot, Strategy};

/// What never changes about a node.
pub(crate) struct NodeSpec {
    pub(crate) path: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) dynamic: bool,
}

pub(crate) struct NodeCell {
    pub(crate) path: Arc<str>,
    spec: NodeSpec,
    state: Mutex<State>,
    handling: Mutex<Option<(&'static str, Instant)>>,
    mailbox: OnceLock<Arc<dyn AnyMailbox>>,
    children: RwLock<Vec<Arc<Self>>>,
    nursery: OnceLock<Weak<Nursery>>,
    /// The supervisor of a static child, and the child's id there.
    pub(crate) boss: OnceLock<(Slot<SupMsg>, u32)>,
    /// Restarts of a supervisor's children.
    pub(crate) gauge: Option<Mutex<Gauge>>,
    #[cfg(feature = "test-hooks")]
    pub(crate) faults: Mutex<crate::ctl::Faults>,
}

struct State {
    phase: Phase,
    incarnation: u64,
    restarts: u64,
    started_at: Option<SystemTime>,
    last_exit: Option<LastExit>,
}

impl NodeCell {
    pub(crate) fn new(spec: NodeSpec, gauge: Option<Gauge>) -> Self {
        Self {
            path: Arc::clone(&spec.path),
            spec,
            state: Mutex::new(State {
                phase: Phase::Down,
                incarnation: 0,
                restarts: 0,
                started_at: None,
                last_exit: None,
            }),
            handling: Mutex::new(None),
            mailbox: OnceLock::new(),
            children: RwLock::new(Vec::new()),
            nursery: OnceLock::new(),
            boss: OnceLock::new(),
            gauge: gauge.map(Mutex::new),
            #[cfg(feature = "test-hooks")]
            faults: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub(crate) fn is_dynamic(&self) -> bool {
        self.spec.dynamic
    }

    pub(crate) fn shutdown(&self) -> Shutdown {
        self.spec.shutdown
    }

    pub(crate) fn restart(&self) -> Restart {
        self.spec.restart
    }

    pub(crate) fn set_mailbox(&self, mailbox: Arc<dyn AnyMailbox>) {
        let _ = self.mailbox.set(mailbox);
    }

    pub(crate) fn mailbox(&self) -> Option<&Arc<dyn AnyMailbox>> {
        self.mailbox.get()
    }

    pub(crate) fn set_children(&self, children: Vec<Arc<Self>>) {
        *self.children.write().unwrap_or_else(PoisonError::into_inner) = children;
    }

    pub(crate) fn set_nursery(&self, nursery: &Arc<Nursery>) {
        let _ = self.nursery.set(Arc::downgrade(nursery));
    }

    pub(crate) fn forget_child(&self, child: &Arc<Self>) {
        self.children.write().unwrap_or_else(PoisonError::into_inner).retain(|c| !Arc::ptr_eq(c, child));
    }

    /// In the order of their start.
    pub(crate) fn children(&self) -> Vec<Arc<Self>> {
        match self.nursery.get() {
            Some(nursery) => nursery.upgrade().map(|n| n.nodes()).unwrap_or_default(),
            None => self.children.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(crate) fn child(&self, name: &str) -> Option<Arc<Self>> {
        match self.nursery.get() {
            Some(nursery) => nursery.upgrade()?.node(name),
            None => {
                self.children.read().unwrap_or_else(PoisonError::into_inner).iter().find(|c| c.name() == name).cloned()
            }
        }
    }

    /// A new attempt to start: its incarnation, and how many starts succeeded before.
    pub(crate) fn starting(&self) -> (u64, u64) {
        let mut state = self.state();
        let before = if state.started_at.is_some() { state.restarts + 1 } else { 0 };
        state.incarnation += 1;
        state.phase = Phase::Starting;
        (state.incarnation, before)
    }

    pub(crate) fn up(&self, incarnation: u64) {
        let mut state = self.state();
        if state.incarnation == incarnation {
            state.phase = Phase::Up;
            if state.started_at.is_some() {
                state.restarts += 1;
            }
            state.started_at = Some(SystemTime::now());
        }
    }

    /// That incarnation goes to another phase; a former one has no say.
    pub(crate) fn phase(&self, incarnation: u64, phase: Phase) {
        let mut state = self.state();
        if state.incarnation == incarnation {
            state.phase = phase;
        }
    }

    /// Nothing runs; a zombie stays one.
    pub(crate) fn idle(&self) {
        let mut state = self.state();
        if state.phase != Phase::Zombie {
            state.phase = Phase::Down;
        }
    }

    /// Whatever incarnation is current.
    pub(crate) fn phase_now(&self, phase: Phase) {
        self.state().phase = phase;
    }

    pub(crate) fn ended(&self, incarnation: u64, exit: &Exit) {
        let last = LastExit { class: exit.class(), reason: exit.reason(), at: SystemTime::now() };
        let mut state = self.state();
        if state.incarnation == incarnation {
            state.phase = Phase::Down;
            state.last_exit = Some(last);
            drop(state);
            self.set_handling(None);
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.state().incarnation
    }

    pub(crate) fn set_handling(&self, kind: Option<&'static str>) {
        let now = kind.map(|kind| (kind, Instant::now()));
        *self.handling.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub(crate) fn in_hand(&self) -> Option<&'static str> {
        self.handling.lock().unwrap_or_else(PoisonError::into_inner).map(|(kind, _)| kind)
    }

    /// A copy of this node and all below it.
    pub(crate) fn view(&self) -> Node {
        let mut node = self.view_alone();
        node.children = self.children().iter().map(|child| child.view()).collect();
        node
    }

    fn view_alone(&self) -> Node {
        let handling = *self.handling.lock().unwrap_or_else(PoisonError::into_inner);
        let intensity = self
            .gauge
            .as_ref()
            .map(|gauge| gauge.lock().unwrap_or_else(PoisonError::into_inner).in_use(Instant::now()));
        let state = self.state();
        Node {
            path: Arc::clone(&self.path),
            name: self.name().to_owned(),
            kind: self.spec.kind,
            strategy: self.spec.strategy,
            restart: self.spec.restart,
            shutdown: self.spec.shutdown,
            phase: state.phase,
            incarnation: state.incarnation,
            restarts: state.restarts,
            started_at: state.started_at,
            last_exit: state.last_exit.clone(),
            mailbox: (self.spec.kind == Kind::Worker)
                .then(|| self.mailbox.get())
                .flatten()
                .map(|mailbox| mailbox.fill())
                .map(|(len, cap)| Mailbox { len, cap }),
            handling: handling.map(|(kind, since)| Handling { kind, time: since.elapsed() }),
            intensity,
            children: Vec::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until when a child stays down.
pub(crate) fn backoff_until(delay: Duration) -> Phase {
    Phase::Backoff { until: SystemTime::now() + delay }
}
