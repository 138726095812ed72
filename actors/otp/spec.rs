//! A supervision tree as a list: what is started, in which order, and what happens when it ends.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::child::Lift;
use crate::process::{Launch, Running, launch};
use crate::{Backoff, DynSupervisor, Exit, Intensity, Server, Slot};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type LaunchFn = Arc<dyn Fn(Lift) -> BoxFuture<Result<Running, Exit>> + Send + Sync>;

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// After an abnormal end.
    Transient,
    /// Never; it is forgotten.
    Temporary,
}

impl Restart {
    /// `permanent`, `transient` or `temporary`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }
}

/// How a child is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asked, and killed after that time.
    After(Duration),
    /// Killed at once.
    Brutal,
    /// Asked, and waited for.
    Infinity,
}

/// Who else is restarted when one child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody.
    OneForOne,
    /// Those that were started after it.
    RestForOne,
    /// All.
    OneForAll,
}

impl Strategy {
    /// `one_for_one`, `rest_for_one` or `one_for_all`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::RestForOne => "rest_for_one",
            Self::OneForAll => "one_for_all",
        }
    }
}

/// A supervisor and its children in the order of their start.
#[derive(Debug)]
pub struct SupervisorSpec {
    /// Last part of its path.
    pub name: String,
    /// Who is restarted together.
    pub strategy: Strategy,
    /// When it gives up.
    pub intensity: Intensity,
    /// How long a child stays down.
    pub backoff: Backoff,
    /// In the order of their start.
    pub children: Vec<ChildSpec>,
}

/// One child of a supervisor.
pub struct ChildSpec {
    pub(crate) name: String,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) init_timeout: Duration,
    pub(crate) body: BodySpec,
}

pub(crate) enum BodySpec {
    Worker(LaunchFn),
    Supervisor(SupervisorSpec),
    Dynamic(DynSupervisor),
}

/// How long an `init` may take.
pub(crate) const INIT_TIMEOUT: Duration = Duration::from_secs(5);

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("name", &self.name).field("restart", &self.restart).finish_non_exhaustive()
    }
}

impl ChildSpec {
    /// A server: permanent, and given 5 s to stop.
    #[must_use]
    pub fn worker<S: Server>(name: impl Into<String>, slot: Slot<S::Msg>, args: S::Args) -> Self {
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            shutdown: Shutdown::After(Duration::from_secs(5)),
            init_timeout: INIT_TIMEOUT,
            body: BodySpec::Worker(launcher::<S>(slot, args)),
        }
    }

    /// A supervisor: always permanent, and waited for without limit.
    #[must_use]
    pub fn supervisor(spec: SupervisorSpec) -> Self {
        Self {
            name: spec.name.clone(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            init_timeout: INIT_TIMEOUT,
            body: BodySpec::Supervisor(spec),
        }
    }

    /// A dynamic supervisor: always permanent, and waited for without limit. Use one handle in one place of one tree.
    #[must_use]
    pub fn dynamic(name: impl Into<String>, supervisor: DynSupervisor) -> Self {
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            init_timeout: INIT_TIMEOUT,
            body: BodySpec::Dynamic(supervisor),
        }
    }

    /// When it is started again; supervisors stay permanent.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        if matches!(self.body, BodySpec::Worker(_)) {
            self.restart = restart;
        }
        self
    }

    /// How it is stopped; supervisors are always waited for.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        if matches!(self.body, BodySpec::Worker(_)) {
            self.shutdown = shutdown;
        }
        self
    }

    /// How long its `init` may take; 5 s unless said otherwise.
    #[must_use]
    pub fn init_timeout(mut self, limit: Duration) -> Self {
        self.init_timeout = limit;
        self
    }
}

/// What starts a server again and again from the same arguments.
pub(crate) fn launcher<S: Server>(slot: Slot<S::Msg>, args: S::Args) -> LaunchFn {
    Arc::new(move |lift| {
        let (slot, args) = (slot.clone(), args.clone());
        Box::pin(launch::<S>(Launch {
            args,
            meta: lift.meta(slot.rank()),
            slot,
            start: lift.start,
            init_timeout: lift.init_timeout,
            on_exit: lift.on_exit,
        }))
    })
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// The tree as it is written can't work.
    Spec(String),
    /// That actor could not start.
    Failed {
        /// Its path.
        path: String,
        /// What it said.
        exit: Exit,
    },
    /// The supervisor is not up.
    Down,
    /// The supervisor has as many children as it may have.
    Full {
        /// How many.
        max: usize,
    },
    /// A child of that name runs.
    NameTaken(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(what) => write!(f, "failed to check the tree: {what}"),
            Self::Failed { path, exit } => write!(f, "failed to start {path}: {exit}"),
            Self::Down => f.write_str("failed to start a child: its supervisor is down"),
            Self::Full { max } => write!(f, "failed to start a child: its supervisor has {max} already"),
            Self::NameTaken(name) => write!(f, "failed to start a child: {name} runs already"),
        }
    }
}

impl std::error::Error for StartError {}

/// Finds what can't work: names that clash or don't fit into a path, and back-off that makes giving up impossible.
pub(crate) fn check(spec: &SupervisorSpec) -> Result<(), StartError> {
    check_name(&spec.name)?;
    check_reachable(&spec.name, spec.intensity, &spec.backoff)?;
    let mut names = HashSet::new();
    for child in &spec.children {
        check_name(&child.name)?;
        if !names.insert(&child.name) {
            return Err(StartError::Spec(format!("{} has two children named {}", spec.name, child.name)));
        }
        match &child.body {
            BodySpec::Worker(_) => {}
            BodySpec::Supervisor(below) => check(below)?,
            BodySpec::Dynamic(below) => {
                let (intensity, backoff) = below.limits();
                check_reachable(&child.name, intensity, backoff)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<(), StartError> {
    if name.is_empty() || name.contains('/') {
        return Err(StartError::Spec(format!("{name:?} is no name: it must not be empty or contain a slash")));
    }
    Ok(())
}

/// A child that crashes at once each time must end its supervisor: else it crashes for ever and nobody hears of it.
fn check_reachable(name: &str, intensity: Intensity, backoff: &Backoff) -> Result<(), StartError> {
    let waits = backoff.total(intensity.max);
    if waits >= intensity.period && !waits.is_zero() {
        return Err(StartError::Spec(format!(
            "{name} can never give up: {} restarts wait {waits:?} in all, and the period is {:?}",
            intensity.max, intensity.period
        )));
    }
    Ok(())
}
