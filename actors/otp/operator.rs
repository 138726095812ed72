//! Restarts on an operator's word: not counted against the intensity.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::supervisor::SupMsg;
use crate::{Exit, Restart, Tree};

/// Restarts actors by their path, from any task.
#[derive(Debug, Clone)]
pub struct RestartHandle {
    tree: Tree,
}

/// Why nothing is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartError {
    /// No actor of that path.
    Unknown,
    /// The root, a temporary child or a dynamic one: nobody starts it again.
    NotRestartable,
    /// Its supervisor is not up.
    Down,
    /// Not done within the deadline; it may still come to pass.
    Timeout,
    /// It didn't start; its supervisor tries again.
    Failed(Exit),
}

impl fmt::Display for RestartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("failed to restart: no such actor"),
            Self::NotRestartable => f.write_str("failed to restart: nobody starts this actor again"),
            Self::Down => f.write_str("failed to restart: its supervisor is down"),
            Self::Timeout => f.write_str("failed to restart in time"),
            Self::Failed(exit) => write!(f, "failed to restart: {exit}"),
        }
    }
}

impl std::error::Error for RestartError {}

/// A restart that was asked for.
#[derive(Debug)]
pub struct Restarting(oneshot::Receiver<Result<(), Exit>>);

impl RestartHandle {
    pub(crate) fn new(tree: Tree) -> Self {
        Self { tree }
    }

    /// Asks for a restart of that actor, and with it of those that its supervisor's strategy restarts together with it. Doesn't wait, so
    /// an actor may ask for its own restart.
    ///
    /// # Errors
    /// `Unknown`, `NotRestartable` or `Down`.
    pub fn restart(&self, path: &str) -> Result<Restarting, RestartError> {
        let node = self.tree.cell(path).ok_or(RestartError::Unknown)?;
        let (boss, id) = node.boss.get().ok_or(RestartError::NotRestartable)?;
        if node.restart() == Restart::Temporary {
            return Err(RestartError::NotRestartable);
        }
        let (done, answer) = oneshot::channel();
        if boss.send_free(SupMsg::Restart { id: *id, done }) { Ok(Restarting(answer)) } else { Err(RestartError::Down) }
    }
}

impl Restarting {
    /// Waits until it is up again. Not from inside the part of the tree that is restarted.
    ///
    /// # Errors
    /// `Timeout`, `Failed`, or `Down` when the supervisor ended meanwhile.
    pub async fn done(self, deadline: Duration) -> Result<(), RestartError> {
        match tokio::time::timeout(deadline, self.0).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(exit))) => Err(RestartError::Failed(exit)),
            Ok(Err(_)) => Err(RestartError::Down),
            Err(_) => Err(RestartError::Timeout),
        }
    }
}
