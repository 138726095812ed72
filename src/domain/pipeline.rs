//! Pipelines and routes as they are in force: compiled once for each generation, immutable, found by event in one look-up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::baggage::Baggage;
use crate::catalog::Catalog;
use crate::condition::Condition;
use crate::config::{Config, NotifyOnComplete};
use crate::path::Path;
use crate::problem::Problem;
use crate::secrets::Secrets;
use crate::template::With;

mod calls;
mod compile;
pub mod control;
mod definition;
mod duration;
mod expand;
mod findings;
mod graph;
pub mod hooks;
pub(crate) mod hop;
mod known;
pub mod prepare;
mod preview;
pub mod start;

pub use control::Control;
pub use graph::routes_view;
pub use hooks::Ended;
pub use prepare::{Prepared, prepare};
pub use preview::dry_run;
pub use start::{Origin, Start, StartFault};

/// All pipelines and routes of one generation. The default has none.
#[derive(Default)]
pub struct Pipelines {
    by_name: BTreeMap<Arc<str>, Arc<Pipeline>>,
    /// Pipelines that an event of that type starts, in the order of the configuration.
    by_event: HashMap<Arc<str>, Vec<Arc<Pipeline>>>,
    /// Pipelines that a signal starts.
    by_signal: HashMap<Signal, Vec<Arc<Pipeline>>>,
    routes: Vec<Route>,
    /// Indexes of the routes that an event of that type takes.
    routes_by_event: HashMap<Arc<str>, Vec<usize>>,
    /// The plugins whose ends fire hooks.
    notifies: HashMap<Arc<str>, NotifyOnComplete>,
    hook_max_depth: u32,
    /// `service.dedupe_ttl`.
    dedupe_window: Duration,
    /// What of the steps' values came from the environment, and is for the step's plugin alone.
    pub(crate) secrets: Secrets,
}

impl fmt::Debug for Pipelines {
    /// Names and numbers only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipelines")
            .field("pipelines", &self.by_name.keys().collect::<Vec<_>>())
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

impl Pipelines {
    /// Compiles what the configuration says, and finds every problem of all pipelines and routes at once.
    ///
    /// A pipeline with an error is left out, and so is one that calls it.
    #[must_use]
    pub fn compile(config: &Config, catalog: &Catalog) -> (Self, Vec<Problem>) {
        compile::compile(config, catalog)
    }

    /// The pipeline of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Pipeline>> {
        self.by_name.get(name)
    }

    /// All pipelines in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.by_name.values()
    }

    /// The plain routes in the order of the configuration.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The node that a job was made for: `None` when its pipeline, or the node in it, is not in force.
    #[must_use]
    pub fn node_of(&self, control: &Control) -> Option<&Node> {
        let pipeline = self.by_name.get(control.root.as_deref()?)?;
        let index = *pipeline.by_key.get(control.node.as_deref()?)?;
        pipeline.nodes.get(index)
    }

    /// True when nothing starts at an event of that type.
    #[must_use]
    pub fn is_unheard(&self, event: &str) -> bool {
        !self.by_event.contains_key(event) && !self.routes_by_event.contains_key(event)
    }

    /// The pipelines that an event of that type may start.
    pub(crate) fn on_event(&self, event: &str) -> &[Arc<Pipeline>] {
        self.by_event.get(event).map(Vec::as_slice).unwrap_or_default()
    }

    /// The routes that an event of that type may take.
    pub(crate) fn routes_on(&self, event: &str) -> impl Iterator<Item = &Route> {
        let indexes = self.routes_by_event.get(event).map(Vec::as_slice).unwrap_or_default();
        indexes.iter().filter_map(|index| self.routes.get(*index))
    }

    fn on_signal(&self, signal: Signal) -> &[Arc<Pipeline>] {
        self.by_signal.get(&signal).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A plain route: an event of one plugin is handed to another's `handle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Plugin that emits.
    pub from: Arc<str>,
    /// Type of the event, matched exactly.
    pub event_type: Arc<str>,
    /// Plugin that gets it.
    pub to: Arc<str>,
    /// Attempts of its jobs in total.
    pub max_attempts: u32,
}

/// One pipeline with everything that it calls put in place.
pub struct Pipeline {
    /// Its name.
    pub name: Arc<str>,
    /// What starts it.
    pub trigger: Trigger,
    /// `from_plugin`: the only plugin whose events or ends start it.
    pub source_plugin: Option<Arc<str>>,
    /// `if`: what must hold of an event besides.
    pub condition: Option<Arc<Condition>>,
    /// How a caller over the API waits.
    pub execution: Execution,
    /// Longest wait of a synchronous call.
    pub timeout: Duration,
    /// Most hops of a chain in it; 0 means that there is no limit.
    pub max_depth: u32,
    /// Its steps, decisions and joins in authored order.
    pub nodes: Vec<Node>,
    /// What its trigger starts.
    pub entries: Vec<Target>,
    by_key: HashMap<Arc<str>, usize>,
}

impl fmt::Debug for Pipeline {
    /// Names and numbers only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("trigger", &self.trigger)
            .field("nodes", &self.nodes)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// What starts a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// An event of that type.
    On(Arc<str>),
    /// The end of a job.
    Hook(Signal),
}

impl Trigger {
    /// The type of the event that starts it.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self {
            Self::On(event) => event,
            Self::Hook(signal) => signal.as_str(),
        }
    }
}

/// The signals of a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// It ended, however.
    Completed,
    /// Its last attempt failed.
    Failed,
    /// Its last attempt timed out.
    TimedOut,
    /// It is dead.
    Dead,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::TimedOut, Self::Dead];

    /// The word that `on-hook` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "job.completed",
            Self::Failed => "job.failed",
            Self::TimedOut => "job.timed_out",
            Self::Dead => "job.dead",
        }
    }
}

/// A word that names no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownSignal;

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or(UnknownSignal)
    }
}

/// How a caller over the API waits for a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// Not at all.
    Asynchronous,
    /// Until every job of it has ended.
    Synchronous,
}

impl Execution {
    /// The word that the API shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asynchronous => "asynchronous",
            Self::Synchronous => "synchronous",
        }
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One job of a pipeline.
#[derive(Clone)]
pub struct Node {
    /// Unique in the root pipeline: `step_2`, or `<call step>/<step of what is called>`.
    pub key: Arc<str>,
    /// The pipeline in which its author wrote it.
    pub pipeline: Arc<str>,
    /// Its step there: the id, or `step_<n>`; decisions and joins have `__switch` or `__join` appended.
    pub step: Arc<str>,
    /// What it does.
    pub action: Action,
    /// What follows it; for a decision, when its condition holds.
    pub next: Vec<Target>,
    /// Attempts of its jobs in total.
    pub max_attempts: u32,
}

impl fmt::Debug for Node {
    /// Names only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}.{}) -> {:?}", self.key, self.plugin(), self.command(), self.next)
    }
}

impl Node {
    /// The plugin that its jobs name.
    #[must_use]
    pub fn plugin(&self) -> &str {
        match &self.action {
            Action::Uses { plugin, .. } => plugin,
            Action::Switch { .. } => crate::builtin::SWITCH,
            Action::Join { .. } => crate::builtin::JOIN,
            Action::Relay(_) => crate::builtin::RELAY,
        }
    }

    /// The command that its jobs name.
    #[must_use]
    pub fn command(&self) -> &str {
        match &self.action {
            Action::Uses { command, .. } => command,
            _ => crate::builtin::COMMAND,
        }
    }
}

/// What a node does.
#[derive(Clone)]
pub enum Action {
    /// Runs a command of a plugin.
    Uses {
        /// Plugin or alias.
        plugin: Arc<str>,
        /// Its command.
        command: Arc<str>,
        /// What it is asked with.
        request: Arc<Request>,
    },
    /// Decides whether the gated step runs.
    Switch {
        /// What must hold for the step to run.
        condition: Arc<Condition>,
        /// Plugin whose configuration `config.*` means.
        config_of: Option<Arc<str>>,
        /// What follows when the condition does not hold.
        on_false: Vec<Target>,
    },
    /// Waits for the branches of a split.
    Join {
        /// When it succeeds.
        mode: JoinMode,
        /// Hops of its longest branch.
        span: u32,
    },
    /// Hands an event to another gateway.
    Relay(Arc<Relay>),
}

/// What a step makes of an event for the plugin that it uses.
#[derive(Default)]
pub struct Request {
    /// `payload`: literal defaults.
    pub payload: Vec<(Box<str>, Box<RawValue>)>,
    /// `with`: what is remapped right before the spawn.
    pub with: With,
    /// `baggage`: what is claimed on entry.
    pub baggage: Baggage,
}

/// A step that hands an event to another gateway.
#[derive(Debug)]
pub struct Relay {
    /// The instance's name.
    pub to: Arc<str>,
    /// Type that the event has there.
    pub event: Arc<str>,
    /// Where its dedupe key is found.
    pub dedupe_key: Option<Path>,
    /// What of the payload it carries; all of it when absent.
    pub with: Option<Vec<(Box<str>, Path)>>,
    /// What it carries as baggage.
    pub baggage: Vec<(Box<str>, Path)>,
}

/// When a join succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMode {
    /// No branch failed.
    All,
    /// At least one branch did not fail.
    AnySucceeded,
}

/// One of the places where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A node, by its index in [`Pipeline::nodes`].
    Node(usize),
    /// The branches of a split that a join waits for.
    Split {
        /// The join's node.
        join: usize,
        /// What each branch begins with, in authored order.
        branches: Vec<Vec<Target>>,
    },
    /// The end of a branch: the innermost join counts it.
    Arrive,
}
