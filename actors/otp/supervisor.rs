//! The static supervisor: OTP's `supervisor.erl`, with a back-off that never sleeps in the mailbox. Holds no user code and never panics.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::child::{Body, Brood, ChildDef, Kid, Waiting};
use crate::intensity::Gauge;
use crate::node::{NodeCell, NodeSpec, backoff_until};
use crate::slot::Envelope;
use crate::spec::{BodySpec, BoxFuture};
use crate::tree::{Kind, Phase};
use crate::{
    Backoff, Cx, Exit, Intensity, Message, Restart, Server, Shutdown, Slot, StartInfo, Strategy, SupervisorSpec, Tree,
};

/// What never changes about a supervisor.
pub(crate) struct Plan {
    pub(crate) node: Arc<NodeCell>,
    pub(crate) slot: Slot<SupMsg>,
    strategy: Strategy,
    intensity: Intensity,
    backoff: Backoff,
    children: Vec<Arc<ChildDef>>,
    is_root: bool,
}

impl Plan {
    /// Builds the nodes of the whole tree below `spec`; nothing is started.
    pub(crate) fn new(spec: SupervisorSpec, above: Option<&str>, tree: &Tree) -> Self {
        let path: Arc<str> = match above {
            Some(above) => format!("{above}/{}", spec.name).into(),
            None => spec.name.as_str().into(),
        };
        let node = Arc::new(NodeCell::new(
            NodeSpec {
                path: Arc::clone(&path),
                kind: Kind::Supervisor,
                strategy: Some(spec.strategy),
                restart: Restart::Permanent,
                shutdown: Shutdown::Infinity,
                dynamic: false,
            },
            Some(Gauge::new(spec.intensity)),
        ));
        let slot = Slot::new(1024, u8::MAX);
        let children: Vec<_> = (0_u32..)
            .zip(spec.children)
            .map(|(id, child)| {
                let (node, body) = match child.body {
                    BodySpec::Supervisor(below) => {
                        let plan = Self::new(below, Some(&path), tree);
                        (Arc::clone(&plan.node), Body::Supervisor(Arc::new(plan)))
                    }
                    BodySpec::Dynamic(dynamic) => {
                        let node = dynamic.bind(&path, &child.name, tree);
                        (node, Body::Dynamic(dynamic))
                    }
                    BodySpec::Worker(start) => {
                        let node = NodeCell::new(
                            NodeSpec {
                                path: format!("{path}/{}", child.name).into(),
                                kind: Kind::Worker,
                                strategy: None,
                                restart: child.restart,
                                shutdown: child.shutdown,
                                dynamic: false,
                            },
                            None,
                        );
                        (Arc::new(node), Body::Worker(start))
                    }
                };
                let _ = node.boss.set((slot.clone(), id));
                Arc::new(ChildDef {
                    id,
                    node,
                    restart: child.restart,
                    shutdown: child.shutdown,
                    init_timeout: child.init_timeout,
                    body,
                })
            })
            .collect();
        node.set_children(children.iter().map(|child| Arc::clone(&child.node)).collect());
        Self {
            node,
            slot,
            strategy: spec.strategy,
            intensity: spec.intensity,
            backoff: spec.backoff,
            children,
            is_root: above.is_none(),
        }
    }
}

/// The running children, in the order of their start. Locked by the supervisor's process; after its death by whoever ends them.
#[derive(Default)]
pub(crate) struct Family {
    kids: tokio::sync::Mutex<Vec<Kid>>,
    tree: Mutex<Option<Tree>>,
}

impl Brood for Family {
    fn stop_all(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move {
            let mut kids = self.kids.lock().await;
            let Some(tree) = self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
            for kid in kids.iter_mut().rev() {
                kid.end(&tree).await;
            }
        })
    }
}

#[derive(Clone)]
pub(crate) struct SupArgs {
    pub(crate) plan: Arc<Plan>,
    pub(crate) family: Arc<Family>,
}

pub(crate) enum SupMsg {
    /// A child's incarnation ended, and its state is gone.
    Exited { id: u32, incarnation: u64, exit: Exit },
    /// A restart is due, unless something else happened to the child meanwhile.
    Retry { id: u32, token: u64 },
    /// An operator wants a restart.
    Restart { id: u32, done: oneshot::Sender<Result<(), Exit>> },
}

impl Message for SupMsg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "Exited",
            Self::Retry { .. } => "Retry",
            Self::Restart { .. } => "Restart",
        }
    }
}

pub(crate) struct Supervisor {
    plan: Arc<Plan>,
    family: Arc<Family>,
    next_token: u64,
}

impl Server for Supervisor {
    type Msg = SupMsg;
    type Args = SupArgs;

    async fn init(args: SupArgs, cx: &Cx<Self>, _start: StartInfo) -> Result<Self, Exit> {
        let SupArgs { plan, family } = args;
        *family.tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.tree().clone());
        plan.node.set_children(plan.children.iter().map(|child| Arc::clone(&child.node)).collect());
        if let Some(gauge) = &plan.node.gauge {
            gauge.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let this = Self { plan, family, next_token: 0 };
        let failed = {
            let mut kids = this.family.kids.lock().await;
            *kids = this.plan.children.iter().cloned().map(Kid::new).collect();
            this.start_from(cx, &mut kids, 0, None).await.err()
        };
        if let Some((id, exit)) = failed {
            Arc::clone(&this.family).stop_all().await;
            let name = this.plan.children.iter().find(|child| child.id == id).map_or("?", |child| child.node.name());
            return Err(Exit::Error(format!("child {name} failed to start: {exit}")));
        }
        Ok(this)
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: SupMsg) -> Result<(), Exit> {
        match msg {
            SupMsg::Exited { id, incarnation, exit } => self.exited(cx, id, incarnation, &exit).await,
            SupMsg::Retry { id, token } => self.retry(cx, id, token).await,
            SupMsg::Restart { id, done } => {
                self.restart(cx, id, done).await;
                Ok(())
            }
        }
    }

    async fn terminate(&mut self, _cx: &Cx<Self>, _why: &Exit) {
        Arc::clone(&self.family).stop_all().await;
    }
}

impl Supervisor {
    async fn exited(&mut self, cx: &Cx<Self>, id: u32, incarnation: u64, exit: &Exit) -> Result<(), Exit> {
        let family = Arc::clone(&self.family);
        let mut kids = family.kids.lock().await;
        // An end that was caused or noticed by ourselves is no news: matched by incarnation, not by name.
        let at = kids.iter().position(|kid| {
            kid.def.id == id && kid.run.as_ref().is_some_and(|run| run.meta.incarnation == incarnation)
        });
        let Some(at) = at else { return Ok(()) };
        let kid = &mut kids[at];
        if kid.run.as_ref().is_some_and(|run| run.meta.born.elapsed() >= self.plan.backoff.stable_after) {
            kid.streak = 0;
        }
        kid.bury().await;
        let again = match kid.def.restart {
            Restart::Permanent => true,
            Restart::Transient => exit.is_abnormal(),
            Restart::Temporary => false,
        };
        if !again {
            if kid.def.restart == Restart::Temporary {
                self.forget(&mut kids, at);
            }
            return Ok(());
        }
        self.count(cx)?;
        self.end_group(cx, &mut kids, id, false).await;
        let delay = self.delay_of(&mut kids, id);
        if delay.is_zero() {
            self.start_group(cx, &mut kids, id, None).await;
        } else {
            self.wait(cx, &mut kids, id, delay, true);
        }
        Ok(())
    }

    async fn retry(&mut self, cx: &Cx<Self>, id: u32, token: u64) -> Result<(), Exit> {
        let family = Arc::clone(&self.family);
        let mut kids = family.kids.lock().await;
        let Some(kid) = kids.iter_mut().find(|kid| kid.def.id == id) else { return Ok(()) };
        let Some(Waiting { counted, .. }) = kid.waiting.take_if(|waiting| waiting.token == token) else {
            return Ok(());
        };
        if !counted {
            self.count(cx)?;
        }
        self.end_group(cx, &mut kids, id, false).await;
        self.start_group(cx, &mut kids, id, None).await;
        Ok(())
    }

    /// As after a crash, but not counted.
    async fn restart(&mut self, cx: &Cx<Self>, id: u32, done: oneshot::Sender<Result<(), Exit>>) {
        let family = Arc::clone(&self.family);
        let mut kids = family.kids.lock().await;
        let Some(kid) = kids.iter_mut().find(|kid| kid.def.id == id) else { return };
        kid.streak = 0;
        self.end_group(cx, &mut kids, id, true).await;
        let started = self.start_group(cx, &mut kids, id, Some(id)).await;
        let _ = done.send(started.map_or(Ok(()), Err));
    }

    /// Counts a restart; an error when it was one too many.
    fn count(&self, cx: &Cx<Self>) -> Result<(), Exit> {
        let Some(gauge) = &self.plan.node.gauge else { return Ok(()) };
        let (fine, used) = {
            let mut gauge = gauge.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            (gauge.add(now), gauge.in_use(now))
        };
        cx.tree().tell_intensity("supervisor.intensity", &self.plan.node, used);
        if fine {
            return Ok(());
        }
        let Intensity { max, period } = self.plan.intensity;
        let why = format!("gave up: more than {max} restarts within {period:?}");
        if self.plan.is_root {
            cx.tree().tell_intensity("supervisor.meltdown", &self.plan.node, used);
            Err(Exit::Error(why))
        } else {
            cx.tree().tell_intensity("supervisor.escalated", &self.plan.node, used);
            Err(Exit::Shutdown(why))
        }
    }

    /// Ends, in reverse order, whoever is restarted together with `id`. Temporary bystanders don't come back.
    async fn end_group(&self, cx: &Cx<Self>, kids: &mut Vec<Kid>, id: u32, itself: bool) {
        for at in (0..kids.len()).rev() {
            let kid = &mut kids[at];
            let is_hit = match self.plan.strategy {
                Strategy::OneForOne => false,
                Strategy::RestForOne => kid.def.id > id,
                Strategy::OneForAll => kid.def.id != id,
            };
            if is_hit || (itself && kid.def.id == id) {
                kid.end(cx.tree()).await;
                if kid.def.restart == Restart::Temporary {
                    self.forget(kids, at);
                }
            }
        }
    }

    /// Starts whoever is restarted together with `id`; at a failure the rest stays down until the retry. `asked`: by an operator.
    async fn start_group(&mut self, cx: &Cx<Self>, kids: &mut [Kid], id: u32, asked: Option<u32>) -> Option<Exit> {
        let at = kids.iter().position(|kid| kid.def.id == id)?;
        let failed = match self.plan.strategy {
            Strategy::OneForOne => self.start_from(cx, &mut kids[at..=at], 0, asked).await,
            Strategy::RestForOne => self.start_from(cx, kids, at, asked).await,
            Strategy::OneForAll => self.start_from(cx, kids, 0, asked).await,
        };
        let (failed, exit) = failed.err()?;
        // Not tried again inline: a stop that waits in the mailbox goes first.
        let delay = self.delay_of(kids, failed);
        self.wait(cx, kids, failed, delay, false);
        Some(exit)
    }

    async fn start_from(
        &self,
        cx: &Cx<Self>,
        kids: &mut [Kid],
        from: usize,
        asked: Option<u32>,
    ) -> Result<(), (u32, Exit)> {
        for kid in &mut kids[from..] {
            let id = kid.def.id;
            // To this incarnation, also while its address is not open yet: a child may end before its supervisor is up.
            let me = cx.direct();
            let told = move |incarnation, exit| {
                let _ = me.send_message(Envelope::Free(SupMsg::Exited { id, incarnation, exit }));
            };
            let started = kid.launch(cx.tree(), asked == Some(id), told).await;
            match started {
                Ok(run) => kid.run = Some(run),
                // Not needed: stays down.
                Err(Exit::Normal) => kid.brood = None,
                Err(exit) => return Err((id, exit)),
            }
        }
        Ok(())
    }

    /// How long `id` stays down now, and one restart more in its row.
    fn delay_of(&self, kids: &mut [Kid], id: u32) -> std::time::Duration {
        let Some(kid) = kids.iter_mut().find(|kid| kid.def.id == id) else { return std::time::Duration::ZERO };
        let delay = self.plan.backoff.delay(kid.streak);
        kid.streak = kid.streak.saturating_add(1);
        delay
    }

    fn wait(&mut self, cx: &Cx<Self>, kids: &mut [Kid], id: u32, delay: std::time::Duration, counted: bool) {
        let Some(kid) = kids.iter_mut().find(|kid| kid.def.id == id) else { return };
        self.next_token += 1;
        let token = self.next_token;
        kid.def.node.phase_now(backoff_until(delay));
        let timer = if delay.is_zero() {
            let _ = cx.direct().send_message(Envelope::Free(SupMsg::Retry { id, token }));
            None
        } else {
            cx.tree().tell_backoff(&kid.def.node, kid.def.node.incarnation(), delay);
            Some(cx.send_after(delay, SupMsg::Retry { id, token }))
        };
        kid.waiting = Some(Waiting { token, counted, _timer: timer });
    }

    fn forget(&self, kids: &mut Vec<Kid>, at: usize) {
        let kid = kids.remove(at);
        kid.def.node.phase_now(Phase::Down);
        if let Some(mailbox) = kid.def.node.mailbox() {
            mailbox.gone();
        }
        self.plan.node.forget_child(&kid.def.node);
    }
}
