//! One child of a static supervisor: how it is started and how it is ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::context::Timer;
use crate::dynamic::DynServer;
use crate::node::NodeCell;
use crate::process::{Launch, Meta, Running, launch};
use crate::spec::{BoxFuture, LaunchFn};
use crate::supervisor::{Family, Plan, SupArgs, Supervisor};
use crate::tree::Phase;
use crate::{DynSupervisor, Exit, Restart, Shutdown, StartCause, StartInfo, Tree};

/// How long a killed actor may take before it is left behind as a zombie.
pub(crate) const ZOMBIE_AFTER: Duration = Duration::from_secs(1);

/// What is left of a child's shutdown limit when the tree hurries: enough to let go, not to finish work.
const IN_A_HURRY: Duration = Duration::from_millis(100);

/// The children of a supervisor, which outlive its process: if that is killed, its own supervisor ends them.
pub(crate) trait Brood: Send + Sync {
    /// Ends all, in reverse order; returns when none runs.
    fn stop_all(self: Arc<Self>) -> BoxFuture<()>;
}

/// What never changes about a child.
pub(crate) struct ChildDef {
    pub(crate) id: u32,
    pub(crate) node: Arc<NodeCell>,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) init_timeout: Duration,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Worker(LaunchFn),
    Supervisor(Arc<Plan>),
    Dynamic(DynSupervisor),
}

/// What an incarnation is started with, whatever its type.
pub(crate) struct Lift {
    pub(crate) node: Arc<NodeCell>,
    pub(crate) tree: Tree,
    pub(crate) start: StartInfo,
    pub(crate) init_timeout: Option<Duration>,
    pub(crate) on_exit: Box<dyn FnOnce(Exit) + Send>,
}

impl Lift {
    pub(crate) fn meta(&self, rank: u8) -> Arc<Meta> {
        Arc::new(Meta::new(Arc::clone(&self.node), self.tree.clone(), self.start.incarnation, rank))
    }
}

/// A child as its supervisor holds it.
pub(crate) struct Kid {
    pub(crate) def: Arc<ChildDef>,
    pub(crate) run: Option<Running>,
    pub(crate) brood: Option<Arc<dyn Brood>>,
    /// Restarts in a row.
    pub(crate) streak: u32,
    pub(crate) waiting: Option<Waiting>,
}

/// A restart that is due.
pub(crate) struct Waiting {
    pub(crate) token: u64,
    /// The restart was counted when the child ended.
    pub(crate) counted: bool,
    pub(crate) _timer: Option<Timer>,
}

impl Kid {
    pub(crate) fn new(def: Arc<ChildDef>) -> Self {
        Self { def, run: None, brood: None, streak: 0, waiting: None }
    }

    /// Starts the next incarnation; whoever drops the future ends an `init` that is under way.
    pub(crate) fn launch(
        &mut self,
        tree: &Tree,
        asked: bool,
        told: impl FnOnce(u64, Exit) + Send + 'static,
    ) -> BoxFuture<Result<Running, Exit>> {
        let node = &self.def.node;
        self.waiting = None;
        let (incarnation, before) = node.starting();
        tree.tell("actor.starting", node, incarnation);
        let cause = match (asked, before) {
            (true, _) => StartCause::Operator,
            (false, 0) => StartCause::Boot,
            (false, n) => StartCause::Restart(n),
        };
        let lift = Lift {
            node: Arc::clone(node),
            tree: tree.clone(),
            start: StartInfo { cause, incarnation },
            init_timeout: Some(self.def.init_timeout),
            on_exit: Box::new(move |exit| told(incarnation, exit)),
        };
        match &self.def.body {
            Body::Worker(start) => start(lift),
            Body::Supervisor(plan) => {
                // Held here before the first child exists, so that a killed start leaves no orphan.
                let family = Arc::new(Family::default());
                self.brood = Some(Arc::clone(&family) as Arc<dyn Brood>);
                launch_supervisor(plan, family, lift)
            }
            Body::Dynamic(dynamic) => {
                self.brood = Some(dynamic.brood());
                Box::pin(launch::<DynServer>(Launch {
                    args: dynamic.clone(),
                    slot: dynamic.slot().clone(),
                    meta: lift.meta(u8::MAX),
                    start: lift.start,
                    init_timeout: None,
                    on_exit: lift.on_exit,
                }))
            }
        }
    }

    /// Stops the child if it runs, and whatever it left behind. Cancelled, it can be called again.
    pub(crate) async fn end(&mut self, tree: &Tree) {
        self.waiting = None;
        if let Some(run) = &mut self.run {
            let why = Exit::Shutdown("stopped by its supervisor".into());
            end_running(run, self.def.shutdown, why, tree, self.brood.is_some()).await;
            self.run = None;
        } else {
            self.def.node.idle();
        }
        self.end_brood().await;
    }

    /// Waits for the last of an incarnation that has ended. Cancelled, it can be called again.
    pub(crate) async fn bury(&mut self) {
        if let Some(run) = &mut self.run {
            let _ = (&mut run.join).await;
            let meta = Arc::clone(&run.meta);
            self.run = None;
            meta.end_tasks().await;
        }
        self.end_brood().await;
    }

    async fn end_brood(&mut self) {
        if let Some(brood) = &self.brood {
            Arc::clone(brood).stop_all().await;
        }
        self.brood = None;
    }
}

/// No `async fn`: the type of the future must not depend on itself.
pub(crate) fn launch_supervisor(plan: &Arc<Plan>, family: Arc<Family>, lift: Lift) -> BoxFuture<Result<Running, Exit>> {
    let args = SupArgs { plan: Arc::clone(plan), family };
    let meta = lift.meta(u8::MAX);
    let slot = plan.slot.clone();
    Box::pin(launch::<Supervisor>(Launch {
        args,
        slot,
        meta,
        start: lift.start,
        init_timeout: None,
        on_exit: lift.on_exit,
    }))
}

/// Asks, waits, kills, waits: returns when the child is gone or left behind as a zombie. `supervises`: it is never killed, since it hurries
/// by itself.
pub(crate) async fn end_running(run: &mut Running, how: Shutdown, why: Exit, tree: &Tree, supervises: bool) {
    run.meta.node.phase(run.meta.incarnation, Phase::Stopping);
    if how != Shutdown::Brutal {
        run.ask_to_stop(why);
        let limit = if let Shutdown::After(limit) = how { Some(limit) } else { None };
        if wait_for(&mut run.join, limit, tree, supervises).await {
            run.meta.end_tasks().await;
            return;
        }
    }
    run.cell.kill();
    reap(run, tree).await;
}

/// After a kill: waits, and leaves behind what can't be killed.
pub(crate) async fn reap(run: &mut Running, tree: &Tree) {
    if tokio::time::timeout(ZOMBIE_AFTER, &mut run.join).await.is_ok() {
        run.meta.end_tasks().await;
        return;
    }
    let node = &run.meta.node;
    tracing::error!(path = %node.path, incarnation = run.meta.incarnation, "actor does not die: it runs code that never waits");
    node.phase(run.meta.incarnation, Phase::Zombie);
    if let Some(mailbox) = node.mailbox() {
        mailbox.close(run.meta.incarnation);
    }
    tree.tell("actor.zombie", node, run.meta.incarnation);
}

/// Whether it ended in time. Little is left when the tree hurries, except for supervisors.
pub(crate) async fn wait_for(
    join: &mut JoinHandle<()>,
    limit: Option<Duration>,
    tree: &Tree,
    supervises: bool,
) -> bool {
    tokio::select! {
        biased;
        _ = join => true,
        () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => false,
        () = async { tree.hurried().await; tokio::time::sleep(IN_A_HURRY).await }, if !supervises => false,
    }
}
