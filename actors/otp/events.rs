//! What the tree tells about itself as it happens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::IntensityUse;

/// Something happened to an actor or a supervisor.
#[derive(Debug, Clone)]
pub struct ActorEvent {
    /// `actor.starting`, `.started`, `.exited`, `.crashed`, `.backoff`, `.killed`, `.zombie`; `supervisor.intensity`, `.escalated`,
    /// `.meltdown`.
    pub kind: &'static str,
    /// Whom it happened to.
    pub path: Arc<str>,
    /// The incarnation that it happened to.
    pub incarnation: u64,
    /// When.
    pub at: SystemTime,
    /// The child of a dynamic supervisor; there are thousands of them.
    pub dynamic: bool,
    /// How it ended, or why.
    pub reason: Option<String>,
    /// With `actor.crashed` and `actor.killed`.
    pub report: Option<Box<CrashReport>>,
    /// With `actor.backoff`: until the next start.
    pub delay: Option<Duration>,
    /// With `supervisor.*`: restarts counted, against the limit.
    pub intensity: Option<IntensityUse>,
}

/// All that is known about an end that nobody asked for.
#[derive(Debug, Clone)]
pub struct CrashReport {
    /// Path from the root; its parts are the ancestors.
    pub path: Arc<str>,
    /// Which start of it.
    pub incarnation: u64,
    /// Kind of the message in hand.
    pub message: Option<&'static str>,
    /// Messages in the mailbox and its capacity.
    pub mailbox: Option<(usize, usize)>,
    /// Since its start.
    pub uptime: Duration,
    /// At most 4 KiB.
    pub reason: String,
    /// `file:line` of a panic.
    pub location: Option<String>,
    /// When the process was told to keep backtraces.
    pub backtrace: Option<String>,
}
