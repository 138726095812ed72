//! A server that does what it is told, and a tree around it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ductile_otp::{
    ActorEvent, Backoff, CallError, ChildSpec, Cx, Exit, Intensity, Message, Node, Phase, Reply, Restart, Root, Server,
    Shutdown, Slot, StartCause, StartError, StartInfo, Strategy, SupervisorSpec, Tree,
};

/// Long enough for any machine; waiting ends earlier.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("log").push(line.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("log"))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("log").clone()
    }
}

/// What a [`Probe`] is made of.
#[derive(Clone, Default)]
pub(crate) struct Args {
    pub(crate) name: String,
    pub(crate) log: Log,
    /// What `init` says instead of starting.
    pub(crate) refuse: Option<Exit>,
    /// `init` waits that long.
    pub(crate) slow_start: Duration,
    /// `terminate` waits that long.
    pub(crate) slow_stop: Duration,
    /// `continue_` fails.
    pub(crate) bad_continue: bool,
}

pub(crate) fn args(name: &str, log: &Log) -> Args {
    Args { name: name.into(), log: log.clone(), ..Args::default() }
}

/// Logs `+name`, `-name` (terminate) and `~name` (drop).
pub(crate) struct Probe {
    args: Args,
    start: StartInfo,
    kept: Vec<Reply<u64>>,
}

pub(crate) enum Msg {
    Who(Reply<u64>),
    Cause(Reply<StartCause>),
    End(Exit),
    Panic,
    Nap(Duration),
    Block(Duration),
    Keep(Reply<u64>),
    AnswerKept,
    Note(&'static str),
    CrashTask,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Who(_) => "Who",
            Self::Cause(_) => "Cause",
            Self::End(_) => "End",
            Self::Panic => "Panic",
            Self::Nap(_) => "Nap",
            Self::Block(_) => "Block",
            Self::Keep(_) => "Keep",
            Self::AnswerKept => "AnswerKept",
            Self::Note(_) => "Note",
            Self::CrashTask => "CrashTask",
        }
    }
}

impl Server for Probe {
    type Msg = Msg;
    type Args = Args;

    async fn init(args: Args, _cx: &Cx<Self>, start: StartInfo) -> Result<Self, Exit> {
        if !args.slow_start.is_zero() {
            args.log.add(format!("?{}", args.name));
            tokio::time::sleep(args.slow_start).await;
        }
        if let Some(exit) = args.refuse {
            return Err(exit);
        }
        args.log.add(format!("+{}", args.name));
        Ok(Self { args, start, kept: Vec::new() })
    }

    async fn continue_(&mut self, _cx: &Cx<Self>) -> Result<(), Exit> {
        if self.args.bad_continue { Err(Exit::Error("can't rebuild".into())) } else { Ok(()) }
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Who(reply) => reply.send(cx.incarnation()),
            Msg::Cause(reply) => reply.send(self.start.cause),
            Msg::End(exit) => return Err(exit),
            Msg::Panic => panic!("told to"),
            Msg::Nap(time) => tokio::time::sleep(time).await,
            Msg::Block(time) => std::thread::sleep(time),
            Msg::Keep(reply) => self.kept.push(reply),
            Msg::AnswerKept => self.kept.drain(..).for_each(|reply| reply.send(cx.incarnation())),
            Msg::Note(text) => self.args.log.add(text),
            Msg::CrashTask => {
                cx.spawn(async { panic!("in a task") });
            }
        }
        Ok(())
    }

    async fn terminate(&mut self, _cx: &Cx<Self>, _why: &Exit) {
        if !self.args.slow_stop.is_zero() {
            tokio::time::sleep(self.args.slow_stop).await;
        }
        self.args.log.add(format!("-{}", self.args.name));
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.args.name })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.args.log.add(format!("~{}", self.args.name));
    }
}

/// A mailbox for tests.
pub(crate) fn slot() -> Slot<Msg> {
    Slot::new(64, 5)
}

/// A permanent probe of that name.
pub(crate) fn probe(name: &str, slot: &Slot<Msg>, log: &Log) -> ChildSpec {
    ChildSpec::worker::<Probe>(name, slot.clone(), args(name, log))
}

pub(crate) fn many(max: u32) -> Intensity {
    Intensity::new(max, Duration::from_secs(10))
}

pub(crate) fn sup(name: &str, strategy: Strategy, max: u32, children: Vec<ChildSpec>) -> SupervisorSpec {
    SupervisorSpec { name: name.into(), strategy, intensity: many(max), backoff: Backoff::none(), children }
}

/// A running tree, its events and what its probes logged.
pub(crate) struct Rig {
    pub(crate) tree: Tree,
    pub(crate) root: Root,
    pub(crate) events: Arc<Mutex<Vec<ActorEvent>>>,
}

pub(crate) async fn try_start(spec: SupervisorSpec) -> Result<Rig, StartError> {
    let events: Arc<Mutex<Vec<ActorEvent>>> = Arc::default();
    let sink = Arc::clone(&events);
    let tree = Tree::new(move |event| sink.lock().expect("events").push(event));
    let root = Root::start(spec, tree.clone()).await?;
    Ok(Rig { tree, root, events })
}

pub(crate) async fn start(spec: SupervisorSpec) -> Rig {
    try_start(spec).await.expect("the tree starts")
}

impl Rig {
    pub(crate) fn node(&self, path: &str) -> Node {
        self.tree.node(path).unwrap_or_else(|| panic!("no node {path}"))
    }

    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Node) -> bool) -> Node {
        match self.tree.ctl().await_node(path, wanted, SOON).await {
            Ok(node) => node,
            Err(node) => panic!("{path} never came to look as wanted: {node:#?}"),
        }
    }

    /// Waits until that incarnation is up.
    pub(crate) async fn up(&self, path: &str, incarnation: u64) -> Node {
        self.until(path, |node| node.phase == Phase::Up && node.incarnation >= incarnation).await
    }

    pub(crate) async fn down(&self, path: &str) -> Node {
        self.until(path, |node| node.phase == Phase::Down).await
    }

    pub(crate) async fn stop(&self) -> Exit {
        self.root.stop("test is over", SOON).await
    }

    pub(crate) fn kinds(&self, path: &str) -> Vec<&'static str> {
        let events = self.events.lock().expect("events");
        events.iter().filter(|event| &*event.path == path).map(|event| event.kind).collect()
    }

    pub(crate) fn find(&self, kind: &str) -> Option<ActorEvent> {
        self.events.lock().expect("events").iter().find(|event| event.kind == kind).cloned()
    }
}

/// Ends an actor in one of the ways that there are.
pub(crate) fn end(slot: &Slot<Msg>, how: Exit) {
    let msg = if let Exit::Panic { .. } = how { Msg::Panic } else { Msg::End(how) };
    slot.try_cast(msg).expect("it is up");
}

pub(crate) fn abnormal() -> Exit {
    Exit::Error("abnormal".into())
}

pub(crate) fn panic() -> Exit {
    Exit::Panic { message: String::new(), location: String::new() }
}

pub(crate) fn shutdown() -> Exit {
    Exit::Shutdown("done".into())
}

/// Lets everything happen that needs no time.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The incarnation that answers; a question that waited in a mailbox that died is asked again.
pub(crate) async fn who(slot: &Slot<Msg>) -> u64 {
    loop {
        match slot.call(Msg::Who, SOON).await {
            Ok(incarnation) => return incarnation,
            Err(CallError::Down | CallError::Crashed) => tokio::task::yield_now().await,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

pub(crate) fn temporary(name: &str, slot: &Slot<Msg>, log: &Log) -> ChildSpec {
    probe(name, slot, log).restart(Restart::Temporary)
}

pub(crate) fn transient(name: &str, slot: &Slot<Msg>, log: &Log) -> ChildSpec {
    probe(name, slot, log).restart(Restart::Transient)
}

pub(crate) fn within(time: u64) -> Shutdown {
    Shutdown::After(Duration::from_millis(time))
}
