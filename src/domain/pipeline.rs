//! Pipelines and routes as they are in force: compiled once for each generation, immutable, found by event in one look-up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::problem::Problem;

pub mod control;
pub mod hooks;
pub mod prepare;
pub mod start;

pub use control::Control;
pub use hooks::Ended;
pub use prepare::{Prepared, prepare};
pub use start::{Origin, Start, StartFault};

/// All pipelines and routes of one generation. The default has none.
#[derive(Debug, Default)]
pub struct Pipelines {
    by_name: BTreeMap<Arc<str>, Arc<Pipeline>>,
    /// Pipelines that an event of that type starts, in the order of the configuration.
    by_event: HashMap<Arc<str>, Vec<Arc<Pipeline>>>,
    /// Pipelines that a signal starts.
    by_signal: HashMap<Signal, Vec<Arc<Pipeline>>>,
    routes: Vec<Route>,
}

impl Pipelines {
    /// Compiles what the configuration says, and finds every problem of all pipelines and routes at once.
    ///
    /// A pipeline with an error is left out, and so is one that calls it.
    #[must_use]
    pub fn compile(_config: &Config, _catalog: &Catalog) -> (Self, Vec<Problem>) {
        (Self::default(), Vec::new())
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
        !self.by_event.contains_key(event) && self.routes.iter().all(|r| &*r.event_type != event)
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
#[derive(Debug)]
pub struct Pipeline {
    /// Its name.
    pub name: Arc<str>,
    /// What starts it.
    pub trigger: Trigger,
    /// `from_plugin`: the only plugin whose events or ends start it.
    pub source_plugin: Option<Arc<str>>,
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
#[derive(Debug, Clone)]
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

impl Node {
    /// The plugin that its jobs name.
    #[must_use]
    pub fn plugin(&self) -> &str {
        match &self.action {
            Action::Uses { plugin, .. } => plugin,
            Action::Switch { .. } => crate::builtin::SWITCH,
            Action::Join { .. } => crate::builtin::JOIN,
            Action::Relay { .. } => crate::builtin::RELAY,
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
#[derive(Debug, Clone)]
pub enum Action {
    /// Runs a command of a plugin.
    Uses {
        /// Plugin or alias.
        plugin: Arc<str>,
        /// Its command.
        command: Arc<str>,
    },
    /// Decides whether the gated step runs.
    Switch {
        /// Plugin whose configuration `config.*` means.
        config_of: Option<Arc<str>>,
        /// What follows when the condition does not hold.
        on_false: Vec<Target>,
    },
    /// Waits for the branches of a split.
    Join {
        /// When it succeeds.
        mode: JoinMode,
    },
    /// Hands an event to another gateway.
    Relay {
        /// The instance's name.
        to: Arc<str>,
        /// Type that the event has there.
        event: Arc<str>,
    },
}

/// When a join succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinMode {
    /// No branch failed.
    All,
    /// At least one branch did not fail.
    AnySucceeded,
}

/// Where an event goes.
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
