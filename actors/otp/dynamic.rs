//! The supervisor of children that come and go: thousands of starts a second, no names that outlive them.
//!
//! A start runs on the caller's task and a temporary child's end on its own, so its process is idle unless a child must be restarted.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::child::{Brood, Lift, ZOMBIE_AFTER, end_running, reap, wait_for};
use crate::context::Timer;
use crate::intensity::Gauge;
use crate::node::{NodeCell, NodeSpec, backoff_until};
use crate::process::{Launch, Running, launch};
use crate::spec::{BoxFuture, INIT_TIMEOUT, LaunchFn, check_name, launcher};
use crate::tree::Kind;
use crate::{
    Backoff, Cx, Exit, Intensity, Message, Restart, Server, Shutdown, Slot, StartCause, StartError, StartInfo, Tree,
};

/// Owns children that come and go. A handle, made before the tree and given to it by [`crate::ChildSpec::dynamic`]; clones are the same
/// supervisor.
#[derive(Clone)]
pub struct DynSupervisor(Arc<Nursery>);

type OnExit = Box<dyn Fn(&str, &Exit) + Send + Sync>;

pub(crate) struct Nursery {
    intensity: Intensity,
    backoff: Backoff,
    max_children: usize,
    mailbox: (usize, u8),
    on_exit: Option<OnExit>,
    slot: Slot<DynMsg>,
    home: OnceLock<(Tree, Arc<NodeCell>)>,
    state: Mutex<State>,
    /// Told when a child that was asked to end is gone.
    gone: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    next_id: u64,
    children: HashMap<Arc<str>, Child>,
}

struct Child {
    id: u64,
    node: Arc<NodeCell>,
    slot: Arc<dyn Any + Send + Sync>,
    run: Run,
    shutdown: Shutdown,
    /// Only for children that come back: others' arguments are not kept.
    again: Option<Again>,
    /// Asked to end: it doesn't come back.
    ending: bool,
}

struct Again {
    restart: Restart,
    start: LaunchFn,
    streak: u32,
    born: Instant,
    timer: Option<Timer>,
}

enum Run {
    Starting,
    Up(Running),
    /// Somebody ends it.
    Ending(ractor::ActorCell),
    /// Waits for its restart.
    Down,
}

impl fmt::Debug for DynSupervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynSupervisor").field("children", &self.count()).finish_non_exhaustive()
    }
}

/// Takes a name until the child is up; given back when the start fails or is dropped.
struct Reservation<'a> {
    nursery: &'a Nursery,
    name: &'a Arc<str>,
    id: u64,
    kept: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.nursery.remove(self.name, self.id);
        }
    }
}

impl DynSupervisor {
    /// At most `max_children` at a time. The intensity counts restarts of children that are not temporary.
    #[must_use]
    pub fn new(intensity: Intensity, max_children: usize) -> Self {
        Self(Arc::new(Nursery {
            intensity,
            backoff: Backoff::default(),
            max_children,
            mailbox: (16, 4),
            on_exit: None,
            slot: Slot::new(1024, u8::MAX),
            home: OnceLock::new(),
            state: Mutex::default(),
            gone: Notify::new(),
        }))
    }

    /// Told of every end of a child by its name, on the child's task, after its state is gone; must be cheap and never wait. Before the
    /// first clone only.
    #[must_use]
    pub fn on_exit(self, told: impl Fn(&str, &Exit) + Send + Sync + 'static) -> Self {
        self.before_use(|nursery| nursery.on_exit = Some(Box::new(told)))
    }

    /// Capacity and call rank of the children's mailboxes; 16 and 4 unless said otherwise. Before the first clone only.
    #[must_use]
    pub fn mailbox(self, cap: usize, rank: u8) -> Self {
        self.before_use(|nursery| nursery.mailbox = (cap, rank))
    }

    /// How long a child that comes back stays down. Before the first clone only.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.before_use(|nursery| nursery.backoff = backoff)
    }

    fn before_use(mut self, change: impl FnOnce(&mut Nursery)) -> Self {
        change(Arc::get_mut(&mut self.0).expect("a dynamic supervisor is set up before it is cloned"));
        self
    }

    /// Starts a child and waits for its `init`. Dropping the future before the child is up ends it.
    ///
    /// # Errors
    /// `Down`, `Full`, `NameTaken` or what its `init` said; nothing is left behind.
    pub async fn start_child<S: Server>(
        &self,
        name: String,
        args: S::Args,
        restart: Restart,
        shutdown: Shutdown,
    ) -> Result<Slot<S::Msg>, StartError> {
        check_name(&name)?;
        let nursery = &self.0;
        let Some((tree, home)) = nursery.home.get() else { return Err(StartError::Down) };
        let (cap, rank) = nursery.mailbox;
        let slot = Slot::<S::Msg>::new(cap, rank);
        let node = Arc::new(NodeCell::new(
            NodeSpec {
                path: format!("{}/{name}", home.path).into(),
                kind: Kind::Worker,
                strategy: None,
                restart,
                shutdown,
                dynamic: true,
            },
            None,
        ));
        let name: Arc<str> = name.into();
        let again = (restart != Restart::Temporary).then(|| Again {
            restart,
            start: launcher::<S>(slot.clone(), args.clone()),
            streak: 0,
            born: Instant::now(),
            timer: None,
        });
        let child = Child {
            id: 0,
            node: Arc::clone(&node),
            slot: Arc::clone(&slot.0) as Arc<dyn Any + Send + Sync>,
            run: Run::Starting,
            shutdown,
            again,
            ending: false,
        };
        let id = nursery.reserve(&name, child)?;
        let mut reservation = Reservation { nursery, name: &name, id, kept: false };
        let lift = nursery.lift(&name, id, &node, tree);
        let started = launch::<S>(Launch {
            args,
            meta: lift.meta(rank),
            slot: slot.clone(),
            start: lift.start,
            init_timeout: lift.init_timeout,
            on_exit: lift.on_exit,
        })
        .await;
        match started {
            Ok(run) => {
                reservation.kept = true;
                let Some(mut run) = nursery.settle(&name, id, run) else { return Ok(slot) };
                reap(&mut run, tree).await;
                nursery.remove(&name, id);
                Err(StartError::Down)
            }
            Err(exit) => Err(StartError::Failed { path: node.path.to_string(), exit }),
        }
    }

    /// Stops a child within its shutdown limit; it doesn't come back. False when there is none of that name.
    pub async fn terminate_child(&self, name: &str) -> bool {
        let Some((tree, _)) = self.0.home.get() else { return false };
        let (run, shutdown, id) = {
            let mut state = self.0.state();
            let Some(child) = state.children.get_mut(name) else { return false };
            (child.give_up(), child.shutdown, child.id)
        };
        match run {
            GivenUp::Ours(mut run) => end_running(&mut run, shutdown, going(), tree, false).await,
            GivenUp::Others => self.0.wait_gone(name, id).await,
            GivenUp::Idle => {}
        }
        self.0.remove(name, id);
        true
    }

    /// Names of the children, in no order.
    #[must_use]
    pub fn which(&self) -> Vec<String> {
        self.0.state().children.keys().map(|name| name.to_string()).collect()
    }

    /// Number of children.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.state().children.len()
    }

    /// Address of a child; none when there is no child of that name and message type.
    #[must_use]
    pub fn get<M: Message>(&self, name: &str) -> Option<Slot<M>> {
        let slot = Arc::clone(&self.0.state().children.get(name)?.slot);
        slot.downcast().ok().map(Slot)
    }

    pub(crate) fn limits(&self) -> (Intensity, &Backoff) {
        (self.0.intensity, &self.0.backoff)
    }

    pub(crate) fn slot(&self) -> &Slot<DynMsg> {
        &self.0.slot
    }

    pub(crate) fn brood(&self) -> Arc<dyn Brood> {
        Arc::clone(&self.0) as Arc<dyn Brood>
    }

    /// Gives it its place in a tree.
    pub(crate) fn bind(&self, above: &str, name: &str, tree: &Tree) -> Arc<NodeCell> {
        let node = Arc::new(NodeCell::new(
            NodeSpec {
                path: format!("{above}/{name}").into(),
                kind: Kind::Dynamic,
                strategy: None,
                restart: Restart::Permanent,
                shutdown: Shutdown::Infinity,
                dynamic: false,
            },
            Some(Gauge::new(self.0.intensity)),
        ));
        node.set_nursery(&self.0);
        let (_, home) = self.0.home.get_or_init(|| (tree.clone(), Arc::clone(&node)));
        Arc::clone(home)
    }
}

fn going() -> Exit {
    Exit::Shutdown("stopped by its supervisor".into())
}

impl Nursery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn nodes(&self) -> Vec<Arc<NodeCell>> {
        let mut nodes: Vec<_> =
            self.state().children.values().map(|child| (child.id, Arc::clone(&child.node))).collect();
        nodes.sort_unstable_by_key(|(id, _)| *id);
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Option<Arc<NodeCell>> {
        self.state().children.get(name).map(|child| Arc::clone(&child.node))
    }

    fn reserve(&self, name: &Arc<str>, mut child: Child) -> Result<u64, StartError> {
        let mut state = self.state();
        if !state.open {
            return Err(StartError::Down);
        }
        if state.children.len() >= self.max_children {
            return Err(StartError::Full { max: self.max_children });
        }
        if state.children.contains_key(name) {
            return Err(StartError::NameTaken(name.to_string()));
        }
        state.next_id += 1;
        child.id = state.next_id;
        let id = child.id;
        state.children.insert(Arc::clone(name), child);
        Ok(id)
    }

    fn lift(self: &Arc<Self>, name: &Arc<str>, id: u64, node: &Arc<NodeCell>, tree: &Tree) -> Lift {
        let (incarnation, before) = node.starting();
        let cause = if before == 0 { StartCause::Boot } else { StartCause::Restart(before) };
        let (nursery, name) = (Arc::clone(self), Arc::clone(name));
        Lift {
            node: Arc::clone(node),
            tree: tree.clone(),
            start: StartInfo { cause, incarnation },
            init_timeout: Some(INIT_TIMEOUT),
            on_exit: Box::new(move |exit| nursery.exited(&name, id, &exit)),
        }
    }

    /// The child is up. Given back, killed, when it must end at once; forgotten when it has ended already.
    fn settle(&self, name: &str, id: u64, run: Running) -> Option<Running> {
        let mut state = self.state();
        let open = state.open;
        let child = state.children.get_mut(name).filter(|child| child.id == id)?;
        if !matches!(child.run, Run::Starting) {
            return None;
        }
        if open && !child.ending {
            child.run = Run::Up(run);
            return None;
        }
        run.cell.kill();
        Some(run)
    }

    fn remove(&self, name: &str, id: u64) {
        let gone = {
            let mut state = self.state();
            match state.children.get(name) {
                Some(child) if child.id == id => state.children.remove(name),
                _ => None,
            }
        };
        let Some(child) = gone else { return };
        if let Some(mailbox) = child.node.mailbox() {
            mailbox.gone();
        }
        if child.ending {
            self.gone.notify_waiters();
        }
    }

    /// On the child's task, after its state is gone.
    fn exited(&self, name: &Arc<str>, id: u64, exit: &Exit) {
        let comes_back = {
            let mut state = self.state();
            let open = state.open;
            match state.children.get_mut(name) {
                Some(child) if child.id == id => {
                    let comes_back = open
                        && !child.ending
                        && match child.again.as_ref().map(|again| again.restart) {
                            Some(Restart::Permanent) => true,
                            Some(Restart::Transient) => exit.is_abnormal(),
                            Some(Restart::Temporary) | None => false,
                        };
                    if comes_back {
                        child.run = Run::Down;
                    }
                    comes_back
                }
                _ => false,
            }
        };
        if comes_back {
            self.slot.send_free(DynMsg::Exited { name: Arc::clone(name), id });
        } else {
            self.remove(name, id);
        }
        if let Some(told) = &self.on_exit {
            let _ = catch_unwind(AssertUnwindSafe(|| told(name, exit)));
        }
    }

    async fn wait_gone(&self, name: &str, id: u64) {
        loop {
            let told = self.gone.notified();
            if self.state().children.get(name).is_none_or(|child| child.id != id) {
                return;
            }
            told.await;
        }
    }

    /// Ends all children at once, with one timer.
    async fn end_all(&self) {
        let Some((tree, _)) = self.home.get() else { return };
        let (mut running, mut others, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut state = self.state();
            state.open = false;
            for (name, child) in &mut state.children {
                let key = (Arc::clone(name), child.id);
                match child.give_up() {
                    GivenUp::Ours(run) => running.push((key, run, child.shutdown)),
                    GivenUp::Others => others.push(key),
                    GivenUp::Idle => idle.push(key),
                }
            }
        }
        for (name, id) in idle {
            self.remove(&name, id);
        }
        let mut limit = Some(Duration::ZERO);
        for (_, run, shutdown) in &running {
            match shutdown {
                Shutdown::Brutal => {}
                Shutdown::After(time) => limit = limit.map(|limit| limit.max(*time)),
                Shutdown::Infinity => limit = None,
            }
            match shutdown {
                Shutdown::Brutal => run.cell.kill(),
                Shutdown::After(_) | Shutdown::Infinity => run.ask_to_stop(going()),
            }
        }
        let until = limit.map(|limit| Instant::now() + limit);
        let mut left = Vec::new();
        for (key, mut run, _) in running {
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if wait_for(&mut run.join, rest, tree, false).await {
                run.meta.end_tasks().await;
            } else {
                run.cell.kill();
                left.push((key, run));
            }
        }
        for ((name, id), mut run) in left {
            reap(&mut run, tree).await;
            self.remove(&name, id);
        }
        // Being started, or being ended by somebody else.
        for (name, id) in others {
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            let gone = self.wait_gone(&name, id);
            if tokio::time::timeout(rest.unwrap_or_default().max(INIT_TIMEOUT), gone).await.is_err() {
                self.kill(&name, id);
                let _ = tokio::time::timeout(ZOMBIE_AFTER, self.wait_gone(&name, id)).await;
            }
        }
    }

    /// Kills a child that somebody else is ending.
    fn kill(&self, name: &str, id: u64) {
        if let Some(Child { run: Run::Ending(cell), .. }) =
            self.state().children.get(name).filter(|child| child.id == id)
        {
            cell.kill();
        }
    }
}

/// Who has to end a child that was given up.
enum GivenUp {
    /// Whoever gave it up.
    Ours(Running),
    /// Somebody is at it: being started, or being ended.
    Others,
    /// Nobody: it waits for its restart.
    Idle,
}

impl Child {
    /// It shall end and not come back.
    fn give_up(&mut self) -> GivenUp {
        self.ending = true;
        if let Some(again) = &mut self.again {
            again.timer = None;
        }
        match std::mem::replace(&mut self.run, Run::Down) {
            Run::Up(run) => {
                self.run = Run::Ending(run.cell.clone());
                GivenUp::Ours(run)
            }
            Run::Down => GivenUp::Idle,
            other => {
                self.run = other;
                GivenUp::Others
            }
        }
    }
}

impl Brood for Nursery {
    fn stop_all(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move { self.end_all().await })
    }
}

pub(crate) enum DynMsg {
    /// A child that comes back has ended.
    Exited { name: Arc<str>, id: u64 },
    /// Its restart is due.
    Retry { name: Arc<str>, id: u64, counted: bool },
}

impl Message for DynMsg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "Exited",
            Self::Retry { .. } => "Retry",
        }
    }
}

/// The process of a dynamic supervisor.
pub(crate) struct DynServer(Arc<Nursery>);

impl Server for DynServer {
    type Msg = DynMsg;
    type Args = DynSupervisor;

    async fn init(args: DynSupervisor, _cx: &Cx<Self>, _start: StartInfo) -> Result<Self, Exit> {
        if let Some(gauge) = args.0.home.get().and_then(|(_, node)| node.gauge.as_ref()) {
            gauge.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        args.0.state().open = true;
        Ok(Self(args.0))
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: DynMsg) -> Result<(), Exit> {
        match msg {
            DynMsg::Exited { name, id } => {
                let Some(delay) = self.next_delay(&name, id) else { return Ok(()) };
                self.count(cx)?;
                if delay.is_zero() {
                    self.start_again(cx, &name, id).await;
                } else {
                    self.wait(cx, &name, id, delay, true);
                }
                Ok(())
            }
            DynMsg::Retry { name, id, counted } => {
                if !counted {
                    self.count(cx)?;
                }
                self.start_again(cx, &name, id).await;
                Ok(())
            }
        }
    }

    async fn terminate(&mut self, _cx: &Cx<Self>, _why: &Exit) {
        self.0.end_all().await;
    }
}

impl DynServer {
    fn count(&self, cx: &Cx<Self>) -> Result<(), Exit> {
        let node = &cx.meta().node;
        let Some(gauge) = &node.gauge else { return Ok(()) };
        let (fine, used) = {
            let mut gauge = gauge.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            (gauge.add(now), gauge.in_use(now))
        };
        cx.tree().tell_intensity("supervisor.intensity", node, used);
        if fine {
            return Ok(());
        }
        cx.tree().tell_intensity("supervisor.escalated", node, used);
        Err(Exit::Shutdown(format!("gave up: more than {} restarts within {:?}", used.max, used.period)))
    }

    fn next_delay(&self, name: &str, id: u64) -> Option<Duration> {
        let mut state = self.0.state();
        let child = state.children.get_mut(name).filter(|child| child.id == id)?;
        let again = child.again.as_mut()?;
        if again.born.elapsed() >= self.0.backoff.stable_after {
            again.streak = 0;
        }
        let delay = self.0.backoff.delay(again.streak);
        again.streak = again.streak.saturating_add(1);
        Some(delay)
    }

    async fn start_again(&mut self, cx: &Cx<Self>, name: &Arc<str>, id: u64) {
        let (start, node) = {
            let mut state = self.0.state();
            let open = state.open;
            let child = state.children.get_mut(name).filter(|child| child.id == id && open && !child.ending);
            let Some(child) = child.filter(|child| matches!(child.run, Run::Down)) else { return };
            let Some(again) = &mut child.again else { return };
            again.timer = None;
            again.born = Instant::now();
            child.run = Run::Starting;
            (Arc::clone(&again.start), Arc::clone(&child.node))
        };
        let lift = self.0.lift(name, id, &node, cx.tree());
        let mut reservation = Reservation { nursery: &self.0, name, id, kept: false };
        let started = start(lift).await;
        reservation.kept = true;
        match started {
            Ok(run) => {
                if let Some(mut run) = self.0.settle(name, id, run) {
                    reap(&mut run, cx.tree()).await;
                    self.0.remove(name, id);
                }
            }
            Err(Exit::Normal) => self.0.remove(name, id),
            Err(_) => {
                let ending = {
                    let mut state = self.0.state();
                    match state.children.get_mut(name).filter(|child| child.id == id) {
                        Some(child) => {
                            child.run = Run::Down;
                            child.ending
                        }
                        None => return,
                    }
                };
                match self.next_delay(name, id) {
                    Some(delay) if !ending => self.wait(cx, name, id, delay, false),
                    _ => self.0.remove(name, id),
                }
            }
        }
    }

    fn wait(&self, cx: &Cx<Self>, name: &Arc<str>, id: u64, delay: Duration, counted: bool) {
        let mut state = self.0.state();
        let Some(child) = state.children.get_mut(&**name).filter(|child| child.id == id) else { return };
        let Some(again) = &mut child.again else { return };
        again.timer = Some(cx.send_after(delay, DynMsg::Retry { name: Arc::clone(name), id, counted }));
        let node = Arc::clone(&child.node);
        drop(state);
        node.phase_now(backoff_until(delay));
        cx.tree().tell_backoff(&node, node.incarnation(), delay);
    }
}
