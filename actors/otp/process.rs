//! The process of an actor: runs a server's callbacks on ractor, and sees to it that the state ends in the actor's own task.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::node::NodeCell;
use crate::panic_report::{self, PanicNote, caught};
use crate::slot::Envelope;
use crate::tree::Phase;
use crate::{CrashReport, Cx, Exit, Message, Server, Shutdown, Slot, StartInfo, Tree};

tokio::task_local! {
    /// The actor whose code runs.
    static CURRENT: Arc<Meta>;
}

/// The actor whose code runs on this task.
pub(crate) fn current() -> Option<Arc<Meta>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// What is known of one incarnation, by itself and by its supervisor.
pub(crate) struct Meta {
    pub(crate) node: Arc<NodeCell>,
    pub(crate) tree: Tree,
    pub(crate) incarnation: u64,
    pub(crate) rank: u8,
    pub(crate) born: Instant,
    ending: Mutex<Ending>,
    tasks: Mutex<Option<JoinSet<()>>>,
}

#[derive(Default)]
struct Ending {
    /// Why it was asked to stop.
    why: Option<Exit>,
    /// How it ended.
    exit: Option<Exit>,
    panic: Option<PanicNote>,
}

impl Meta {
    pub(crate) fn new(node: Arc<NodeCell>, tree: Tree, incarnation: u64, rank: u8) -> Self {
        Self { node, tree, incarnation, rank, born: Instant::now(), ending: Mutex::default(), tasks: Mutex::new(None) }
    }

    pub(crate) fn note_panic(&self, note: PanicNote) {
        self.ending().panic = Some(note);
    }

    /// Why it shall stop; the first reason stands.
    pub(crate) fn ask_to_stop(&self, why: Exit) {
        self.ending().why.get_or_insert(why);
    }

    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = tasks.get_or_insert_with(JoinSet::new);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(CURRENT.scope(Arc::clone(self), task))
    }

    /// Ends the tasks that it owns.
    pub(crate) async fn end_tasks(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    pub(crate) fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> Exit {
        let location = self.ending().panic.as_ref().map(|note| note.location.clone()).unwrap_or_default();
        Exit::Panic { message: panic_report::text(panic), location }
    }

    fn abort_tasks(&self) {
        if let Some(tasks) = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            tasks.abort_all();
        }
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes how it ended: in the tree, then as an event.
    fn publish(&self, exit: &Exit) {
        let report = exit.is_abnormal().then(|| {
            let note = self.ending().panic.take().unwrap_or_default();
            CrashReport {
                path: Arc::clone(&self.node.path),
                incarnation: self.incarnation,
                message: self.node.in_hand(),
                mailbox: self.node.mailbox().map(|mailbox| mailbox.fill()),
                uptime: self.born.elapsed(),
                reason: exit.reason(),
                location: (!note.location.is_empty()).then_some(note.location),
                backtrace: note.backtrace,
            }
        });
        self.node.ended(self.incarnation, exit);
        self.tree.tell_end(&self.node, self.incarnation, exit, report);
    }
}

/// What its supervisor holds of a running child.
pub(crate) struct Running {
    pub(crate) cell: ActorCell,
    pub(crate) join: JoinHandle<()>,
    pub(crate) meta: Arc<Meta>,
}

impl Running {
    pub(crate) fn ask_to_stop(&self, why: Exit) {
        self.meta.ask_to_stop(why);
        self.cell.stop(None);
    }
}

/// What a new incarnation is started with.
pub(crate) struct Launch<S: Server> {
    pub(crate) args: S::Args,
    pub(crate) slot: Slot<S::Msg>,
    pub(crate) meta: Arc<Meta>,
    pub(crate) start: StartInfo,
    pub(crate) init_timeout: Option<Duration>,
    /// Told once, in the actor's own task, after its state is gone. Not told of a failed start.
    pub(crate) on_exit: Box<dyn FnOnce(Exit) + Send>,
}

/// Starts an incarnation; returns when its `init` has returned. Dropping the future ends the `init`.
pub(crate) async fn launch<S: Server>(launch: Launch<S>) -> Result<Running, Exit> {
    let meta = Arc::clone(&launch.meta);
    meta.node.set_mailbox(Arc::clone(&launch.slot.0) as Arc<dyn crate::slot::AnyMailbox>);
    // Not linked: ractor would kill the children of an ended supervisor at once and in no order.
    match Proc::<S>::spawn(None, Proc(PhantomData), launch).await {
        Ok((me, join)) => Ok(Running { cell: me.get_cell(), join, meta }),
        Err(_) => {
            let exit = meta.ending().exit.take().unwrap_or(Exit::Killed);
            meta.end_tasks().await;
            match &exit {
                Exit::Normal => meta.node.ended(meta.incarnation, &exit),
                _ => meta.publish(&exit),
            }
            Err(exit)
        }
    }
}

struct Proc<S>(PhantomData<fn() -> S>);

/// A server and what ends with it.
struct Life<S: Server> {
    server: Option<S>,
    cx: Cx<S>,
    on_exit: Option<Box<dyn FnOnce(Exit) + Send>>,
}

impl<S: Server> Actor for Proc<S> {
    type Msg = Envelope<S::Msg>;
    type State = Life<S>;
    type Arguments = Launch<S>;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, launch: Launch<S>) -> Result<Life<S>, ActorProcessingErr> {
        let Launch { args, slot, meta, start, init_timeout, on_exit } = launch;
        let cx = Cx::new(Arc::clone(&meta), slot, me.clone());
        #[cfg(feature = "test-hooks")]
        crate::ctl::launched(&meta.node, me.get_cell());
        let started = {
            let init = caught(CURRENT.scope(Arc::clone(&meta), async {
                #[cfg(feature = "test-hooks")]
                crate::ctl::before_start(&meta.node)?;
                S::init(args, &cx, start).await
            }));
            match init_timeout {
                None => Ok(init.await),
                Some(limit) => tokio::time::timeout(limit, init).await,
            }
        };
        let exit = match started {
            Ok(Ok(Ok(server))) => {
                meta.node.up(meta.incarnation);
                cx.slot().open(&meta.node.path, meta.incarnation, me);
                meta.tree.tell("actor.started", &meta.node, meta.incarnation);
                return Ok(Life { server: Some(server), cx, on_exit: Some(on_exit) });
            }
            Ok(Ok(Err(exit))) => exit,
            Ok(Err(panic)) => meta.panicked(&*panic),
            Err(_) => Exit::Error("init took too long".into()),
        };
        meta.ending().exit = Some(exit);
        Err(ended())
    }

    async fn post_start(&self, _me: ActorRef<Self::Msg>, life: &mut Life<S>) -> Result<(), ActorProcessingErr> {
        let Life { server: Some(server), cx, .. } = life else { return Err(ended()) };
        let meta = cx.meta();
        match caught(CURRENT.scope(Arc::clone(meta), server.continue_(cx))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(exit)) => life.end(exit, false).await,
            Err(panic) => {
                let exit = meta.panicked(&*panic);
                life.end(exit, true).await
            }
        }
    }

    async fn handle(
        &self,
        _me: ActorRef<Self::Msg>,
        envelope: Self::Msg,
        life: &mut Life<S>,
    ) -> Result<(), ActorProcessingErr> {
        match envelope {
            Envelope::Counted { msg, _permit, ticket } => {
                if ticket.is_some_and(|ticket| !ticket.take()) {
                    return Ok(());
                }
                life.run(msg).await
            }
            Envelope::Free(msg) => life.run(msg).await,
            Envelope::Wake(msg) => {
                life.cx.slot().clear_wake();
                life.run(msg).await
            }
            Envelope::Timer(msg, live) => {
                if !live.load(std::sync::atomic::Ordering::Acquire) {
                    return Ok(());
                }
                life.run(msg).await
            }
            Envelope::Inspect(to) => {
                let Some(server) = &life.server else { return Err(ended()) };
                // A view that panics is nobody's crash: the asker gets no answer.
                let meta = Arc::clone(life.cx.meta());
                let view = CURRENT.sync_scope(meta, || catch_unwind(AssertUnwindSafe(|| server.inspect())));
                if let Ok(view) = view {
                    let _ = to.send(view);
                }
                Ok(())
            }
            #[cfg(feature = "test-hooks")]
            Envelope::Stall(time) => {
                life.cx.meta().node.set_handling(Some("stall"));
                tokio::time::sleep(time).await;
                life.cx.meta().node.set_handling(None);
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _me: ActorRef<Self::Msg>, life: &mut Life<S>) -> Result<(), ActorProcessingErr> {
        let why = life.cx.meta().ending().why.take();
        life.end(why.unwrap_or_else(|| Exit::Shutdown("stopped".into())), false).await
    }
}

impl<S: Server> Life<S> {
    async fn run(&mut self, msg: S::Msg) -> Result<(), ActorProcessingErr> {
        let Self { server: Some(server), cx, .. } = self else { return Err(ended()) };
        let meta = cx.meta();
        let kind = msg.kind();
        meta.node.set_handling(Some(kind));
        let handled = caught(CURRENT.scope(Arc::clone(meta), async {
            #[cfg(feature = "test-hooks")]
            crate::ctl::before_message(&meta.node, kind);
            server.handle(cx, msg).await
        }))
        .await;
        match handled {
            Ok(Ok(())) => {
                meta.node.set_handling(None);
                Ok(())
            }
            Ok(Err(exit)) => self.end(exit, false).await,
            Err(panic) => {
                let exit = meta.panicked(&*panic);
                self.end(exit, true).await
            }
        }
    }

    /// Closes the address, lets the server clean up, and drops it here, in its own task.
    async fn end(&mut self, mut exit: Exit, panicked: bool) -> Result<(), ActorProcessingErr> {
        let meta = Arc::clone(self.cx.meta());
        self.close();
        meta.node.phase(meta.incarnation, Phase::Stopping);
        if let (Some(server), false) = (self.server.as_mut(), panicked) {
            let limit = match meta.node.shutdown() {
                Shutdown::After(limit) => Some(limit),
                Shutdown::Brutal => Some(Duration::ZERO),
                Shutdown::Infinity => None,
            };
            let work = caught(CURRENT.scope(Arc::clone(&meta), server.terminate(&self.cx, &exit)));
            let done = match limit {
                None => work.await,
                Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or(Ok(())),
            };
            if let Err(panic) = done {
                exit = meta.panicked(&*panic);
            }
        }
        self.drop_server();
        meta.end_tasks().await;
        meta.ending().exit = Some(exit);
        Err(ended())
    }

    fn close(&self) {
        use crate::slot::AnyMailbox as _;
        self.cx.slot().0.close(self.cx.incarnation());
    }

    fn drop_server(&mut self) {
        if let Some(server) = self.server.take() {
            let meta = Arc::clone(self.cx.meta());
            let _ = CURRENT.sync_scope(meta, || catch_unwind(AssertUnwindSafe(|| drop(server))));
        }
    }
}

/// The one place every incarnation passes at its end, however it ended.
impl<S: Server> Drop for Life<S> {
    fn drop(&mut self) {
        self.close();
        self.drop_server();
        let meta = self.cx.meta();
        meta.abort_tasks();
        // No ending was noted: the future of the actor was dropped under it.
        let exit = meta.ending().exit.take().unwrap_or(Exit::Killed);
        meta.publish(&exit);
        if let Some(told) = self.on_exit.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| told(exit)));
        }
    }
}

/// What ractor is told: the truth is in `Meta`.
fn ended() -> ActorProcessingErr {
    Box::new(Ended)
}

#[derive(Debug)]
struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ended")
    }
}

impl std::error::Error for Ended {}
