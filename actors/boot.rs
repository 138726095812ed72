//! From a configuration file to a running tree, and back: what is done outside every actor.
//!
//! Order: configuration, lock, ledger, plugins, sockets, tree. Each step that fails says what was wrong and what to do,
//! and leaves nothing behind.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use ductile_api::events::EventRing;
use ductile_api::gateway::{Gateway as _, Refusal, SyncPlaces};
use ductile_api::server::Connections;
use ductile_config::Provenance;
use ductile_domain::config::Config;
use ductile_domain::event::LiveEvent;
use ductile_domain::generation::Generation;
use ductile_domain::ids::BootId;
use ductile_domain::problem::Problem;
use ductile_domain::version::Build;
use ductile_ledger::{Clock, CommitFeed, Ledger, OpenOptions};
use ductile_otp::{ActorEvent, DynSupervisor, Exit, Intensity, Root, Tree};
use ductile_plugin::{Cgroups, Runner};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::assembly::{self, Assembled};
use crate::environments::Environments;
use crate::families::Families;
use crate::generations::Generations;
use crate::handle::Handle;
use crate::hints::Hints;
use crate::http::{self, Door, Listeners};
use crate::lock::Lock;
use crate::notify::Notifier;
use crate::shared::{Addresses, Crashes, Flags, Processes, Shared};
use crate::space::Guard;
use crate::tree::{self, Numbers};
use crate::waiters::Waiters;
use crate::wall::Wall;
use crate::{announce, queue, reaper};

/// Attempts that may live at a time; the caps of the configuration are far below.
const MOST_ATTEMPTS: usize = 65_536;

/// Why the gateway did not start.
#[derive(Debug)]
pub enum BootError {
    /// The configuration has errors; all of them.
    Config(Vec<Problem>),
    /// Another gateway, or something else, holds the lock.
    Lock(String),
    /// The ledger can't be used.
    Ledger(ductile_ledger::Error),
    /// A socket can't be bound.
    Listen(String),
    /// An actor did not start.
    Tree(String),
}

impl BootError {
    /// 78 for configuration and integrity, 70 for the tree, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) => 78,
            Self::Ledger(error) if error.is_integrity() => 78,
            Self::Tree(_) => 70,
            Self::Ledger(_) | Self::Lock(_) | Self::Listen(_) => 1,
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                for problem in problems {
                    writeln!(f, "{problem}")?;
                }
                let errors = problems.iter().filter(|p| p.is_error()).count();
                write!(f, "Configuration invalid ({errors} error(s), {} warning(s))", problems.len() - errors)
            }
            Self::Lock(text) | Self::Listen(text) | Self::Tree(text) => f.write_str(text),
            Self::Ledger(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BootError {}

/// What a start needs.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// The configuration, loaded and checked.
    pub config: Config,
    /// Which build starts.
    pub build: Build,
    /// Its warnings, to be logged.
    pub warnings: Vec<Problem>,
    /// Where each of its values was written, for what else is found in it.
    pub provenance: Provenance,
    /// The tree's numbers.
    pub numbers: Numbers,
    /// Told of each configuration that a reload puts in force.
    pub on_reload: OnReload,
    /// The wall clock; tests move it.
    pub clock: Clock,
}

/// What follows a reload outside of the tree, such as the log's level. Must not block.
#[derive(Clone, Default)]
pub struct OnReload(Option<Arc<ReloadHook>>);

type ReloadHook = dyn Fn(&Config) + Send + Sync;

impl OnReload {
    /// Calls `apply` with each new configuration.
    pub fn new(apply: impl Fn(&Config) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(apply)))
    }

    pub(crate) fn call(&self, config: &Config) {
        if let Some(apply) = &self.0 {
            apply(config);
        }
    }
}

impl fmt::Debug for OnReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnReload").field(&self.0.is_some()).finish()
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    root: Root,
    _lock: Lock,
}

/// Beside the ledger: the lock file and the control socket.
#[must_use]
pub fn control_socket(state_path: &Path) -> PathBuf {
    state_path.with_file_name("ductile.sock")
}

/// Starts everything; returns when every actor is up.
///
/// # Errors
/// The first step that failed, with what it left undone.
pub async fn boot(options: BootOptions) -> Result<Running, BootError> {
    let BootOptions { config, build, warnings, provenance, numbers, on_reload, clock } = options;
    let started = Instant::now();
    let wall = Wall::new(clock.clone());
    let lock = Lock::acquire(&config.state.path.with_file_name("ductile.lock")).map_err(BootError::Lock)?;
    let boot = BootId::from(uuid::Uuid::new_v4());

    let assembled = assembly::assemble(config, warnings, &provenance);
    if assembled.is_refused() {
        return Err(BootError::Config(assembled.warnings));
    }
    let Assembled { config, catalog, pipelines, schedules, warnings, prints, .. } = assembled;
    // Errors about single plugins leave only these plugins out.
    assembly::log(&warnings);

    // The feed and the jobs' supervisor are made before what they tell is there.
    let addresses = Addresses::new();
    let queue = addresses.queue.clone();
    let feed = CommitFeed::new(move || queue.wake(|| queue::Msg::ReadyChanged));
    let home: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let told = home.clone();
    let jobs = DynSupervisor::new(Intensity::default(), MOST_ATTEMPTS).on_exit(move |name, exit| {
        if let Some(shared) = told.get().and_then(Weak::upgrade) {
            attempt_ended(&shared, name, exit);
        }
    });

    let ledger_options = OpenOptions {
        durability: config.state.durability,
        feed: feed.clone(),
        clock: clock.clone(),
        ..OpenOptions::new(&config.state.path, boot)
    };
    let Ledger { writer, readers, was_clean, former_boot } =
        ductile_ledger::open(ledger_options.clone()).await.map_err(BootError::Ledger)?;
    let snapshot = assembly::snapshot(1, "start", &config, &catalog, &pipelines, &prints);
    let recorded = writer
        .record_snapshot(snapshot.clone())
        .await
        .map_err(|e| BootError::Tree(format!("failed to record the configuration in the ledger: {e}")))?;
    let paused = readers.mark("paused").await.ok().flatten().is_some();
    let listeners = listen(&config)?;

    let ring = EventRing::new(boot);
    let emit = ring.clone();
    let cgroups = Arc::new(Cgroups::look());
    let swept = cgroups.sweep();
    if swept > 0 {
        tracing::warn!(component = "gateway", cgroups = swept, "ended what a former gateway had left in its cgroups");
    }
    let runner = Runner::with_cgroups(config.service.max_workers as usize, cgroups);
    let generation = Arc::new(Generation { no: 1, snapshot: Some(recorded.id), config, catalog, pipelines, schedules });
    let generations = Generations::default();
    generations.add(&generation);
    let shared = Arc::new(Shared {
        boot,
        build,
        started,
        tree: Tree::new(move |event| lifecycle(&emit, event)),
        ring,
        readers,
        clock,
        wall,
        hints: Hints::default(),
        addresses,
        jobs,
        runner,
        feed,
        waiters: Waiters::default(),
        families: Families::default(),
        sync_places: SyncPlaces::default(),
        crashes: Crashes::default(),
        processes: Processes::default(),
        environments: Environments::default(),
        former_boot,
        was_clean,
        space: Guard::of(&ledger_options.path),
        ledger_options,
        opened: Mutex::new(Some(writer)),
        writer: Mutex::default(),
        listeners,
        connections: Connections::default(),
        generation: watch::channel(generation).0,
        generations,
        reloads: tokio::sync::Mutex::new(prints),
        notifier: Notifier::from_env(),
        on_reload,
        flags: Flags::default(),
        stop: watch::channel(None).0,
    });
    shared.flags.set_paused(paused);
    shared.flags.tell_lacking(&shared.generation());
    let _ = home.set(Arc::downgrade(&shared));
    announce::buried(&shared, &recorded.buried);
    // The queue reads them from their rows.
    announce::inits(&shared, &snapshot.inits, recorded.inits);
    let root = Root::start(tree::tree(&shared, &numbers), shared.tree.clone())
        .await
        .map_err(|e| BootError::Tree(format!("the supervision tree did not start: {e}")))?;
    tracing::info!(
        component = "gateway", boot_id = %boot, ready_ms = started.elapsed().as_millis() as u64,
        plugins = shared.generation().catalog.iter().filter(|p| p.is_runnable).count(), "ductile running"
    );
    shared.notifier.ready();
    Ok(Running { shared, root, _lock: lock })
}

impl Running {
    /// The way in for doors and tests.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone())
    }

    /// Stops everything in reverse order and waits for it. Drains first: see the drainer.
    ///
    /// Answers the exit of the root.
    pub async fn stop(&self, reason: &str) -> Exit {
        self.shared.flags.begin_shutdown();
        self.shared.notifier.stopping();
        let exit = self.root.stop(reason, self.overall()).await;
        let _ = std::fs::remove_file(control_socket(&self.shared.ledger_options.path));
        exit
    }

    /// After this a stop waits for nobody any more.
    fn overall(&self) -> Duration {
        self.shared.generation().config.service.drain_timeout + Duration::from_secs(60)
    }

    /// Runs until a signal, an order or the root's own end; answers the process's exit code.
    pub async fn run(self, mut signals: Signals) -> i32 {
        let mut ordered = self.shared.stop.subscribe();
        let beat = self.beat();
        let mut beat = pin!(beat);
        let reason = loop {
            tokio::select! {
                exit = self.root.wait() => return self.gave_up(&exit),
                order = signals.next() => match order {
                    Order::Stop(signal) => break signal.to_owned(),
                    Order::Reload => self.reload(),
                },
                order = ordered.wait_for(Option::is_some) => {
                    let by = order.ok().and_then(|o| o.clone()).unwrap_or_default();
                    break format!("asked by {by}");
                }
                () = &mut beat => {}
            }
        };
        tracing::info!(component = "gateway", reason, "stopping");
        tokio::select! {
            exit = self.stop(&reason) => {
                if exit.is_abnormal() {
                    return self.gave_up(&exit);
                }
                tracing::info!(component = "gateway", "stopped");
                0
            }
            () = signals.impatience(&self.shared) => {
                tracing::error!(component = "gateway", "third signal: leaving at once; running jobs are recovered at the next start");
                130
            }
            () = tokio::time::sleep(self.overall() + Duration::from_secs(10)) => {
                tracing::error!(component = "gateway", "the stop took too long; leaving, the tree is on stderr");
                eprintln!("ductile: the stop took too long; this is the tree:\n{}", self.handle().tree());
                75
            }
        }
    }

    /// Beside everything else: a stop does not wait for it. The outcome is logged where it is known.
    fn reload(&self) {
        let handle = self.handle();
        drop(tokio::spawn(async move {
            if let Err(Refusal::Unavailable { reason, .. }) = handle.reload("SIGHUP".to_owned()).await {
                tracing::error!(component = "config", reason, "SIGHUP: not reloaded");
            }
        }));
    }

    /// Tells the watchdog of the service manager for ever that this runtime still turns, if there is one.
    async fn beat(&self) {
        let Some(every) = self.shared.notifier.watchdog() else { return std::future::pending().await };
        loop {
            self.shared.notifier.alive();
            tokio::time::sleep(every).await;
        }
    }

    fn gave_up(&self, exit: &Exit) -> i32 {
        tracing::error!(component = "gateway", %exit, "supervision gave up");
        eprintln!("ductile: supervision gave up: {exit}\n{}", self.handle().tree());
        70
    }
}

/// The signals that stop the gateway, and the one that reloads it.
#[derive(Debug)]
pub struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

/// What a signal asks for.
enum Order {
    Stop(&'static str),
    Reload,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the runtime can't register a handler.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.term.recv() => Order::Stop("SIGTERM"),
            _ = self.int.recv() => Order::Stop("SIGINT"),
            _ = self.hup.recv() => Order::Reload,
        }
    }

    /// A gateway that stops reloads nothing.
    async fn stop(&mut self) -> &'static str {
        loop {
            if let Order::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// A second signal shortens the drain to nothing, a third ends the wait.
    async fn impatience(&mut self, shared: &Shared) {
        let second = self.stop().await;
        tracing::warn!(component = "gateway", signal = second, "second signal: running jobs are interrupted now");
        shared.flags.hurry();
        self.stop().await;
    }
}

/// Binds the control socket and, when the API is enabled, its TCP address.
fn listen(config: &Config) -> Result<Listeners, BootError> {
    let path = control_socket(&config.state.path);
    let control = ductile_api::bind_control_socket(&path).map_err(|e| BootError::Listen(e.to_string()))?;
    let tcp = if config.api.enabled {
        let refused = |e: http::Refused| BootError::Listen(format!("{e}; {}", e.hint()));
        Some(Arc::new(Door::bind(&config.api).map_err(refused)?))
    } else {
        None
    };
    Ok(Listeners::new(control, tcp))
}

/// The supervisor of the attempts saw one end. A death without a report is the reaper's to record.
fn attempt_ended(shared: &Shared, name: &str, exit: &Exit) {
    if shared.crashes.len() == 0 {
        return;
    }
    let Some(job) = name.strip_prefix("job:").and_then(|id| id.parse().ok()) else { return };
    if exit.is_abnormal() {
        shared.crashes.explain(job, &exit.to_string());
        shared.addresses.reaper.wake(|| reaper::Msg::Crashed);
    } else {
        shared.crashes.excuse(job);
    }
}

/// A lifecycle event of the generic layer as a live event. The starts and normal ends of attempts are left out: their
/// jobs tell them.
fn lifecycle(ring: &EventRing, event: ActorEvent) {
    if event.dynamic
        && event.report.is_none()
        && matches!(event.kind, "actor.starting" | "actor.started" | "actor.exited")
    {
        return;
    }
    if let Some(report) = &event.report {
        tracing::error!(
            component = "supervisor", path = %report.path, incarnation = report.incarnation, message_in_hand = report.message,
            location = report.location.as_deref(), uptime_ms = report.uptime.as_millis() as u64, "{}: {}", event.kind, report.reason
        );
    }
    let mut fields = Map::new();
    fields.insert("path".into(), Value::from(&*event.path));
    fields.insert("incarnation".into(), Value::from(event.incarnation));
    if let Some(reason) = event.reason {
        fields.insert("reason".into(), Value::from(reason));
    }
    if let Some(delay) = event.delay {
        fields.insert("delay_ms".into(), Value::from(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)));
    }
    if let Some(report) = event.report {
        fields.insert("message".into(), Value::from(report.message));
        fields.insert("location".into(), Value::from(report.location));
    }
    if let Some(used) = event.intensity {
        fields.insert("used".into(), Value::from(used.used));
        fields.insert("max".into(), Value::from(used.max));
    }
    ring.emit(LiveEvent::other(event.kind, event.at.into(), fields));
}
