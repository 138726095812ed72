//! The supervision tree as the doors show it.

use serde::{Deserialize, Serialize};

/// One actor or supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Path from the root, such as `root/exec_sup/job_sup/job:<id>`.
    pub path: String,
    /// Last part of the path.
    pub name: String,
    /// `supervisor` or `worker`.
    pub kind: String,
    /// `one_for_one`, `rest_for_one`, `one_for_all` or `dynamic`, for supervisors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strategy: Option<String>,
    /// `permanent`, `transient` or `temporary`.
    pub restart: String,
    /// `starting`, `up`, `backoff`, `stopping`, `down` or `zombie`.
    pub phase: String,
    /// Counts starts from 1.
    pub incarnation: u64,
    /// Restarts since the gateway's start.
    pub restarts: u64,
    /// RFC 3339.
    pub started_at: String,
    /// How the former incarnation ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_exit: Option<LastExit>,
    /// Fill of the mailbox, for workers with an address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mailbox: Option<Mailbox>,
    /// The message in hand, when it has been so for a while.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub handling: Option<Handling>,
    /// In the order of their start.
    pub children: Vec<TreeNode>,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// `normal`, `shutdown`, `killed`, `error` or `panic`.
    pub class: String,
    /// At most 4 KiB.
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

/// Fill of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Messages that wait or are being handled.
    pub len: usize,
    /// Most that fit.
    pub cap: usize,
}

/// The message that an actor works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// Its variant.
    pub message: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

impl TreeNode {
    /// The node with that path, this one included.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Self> {
        if self.path == path {
            return Some(self);
        }
        self.children.iter().find_map(|c| c.find(path))
    }
}

impl std::fmt::Display for TreeNode {
    /// One line per node, indented by depth.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let depth = self.path.matches('/').count();
        write!(
            f,
            "{:indent$}{} {} incarnation {} restarts {}",
            "",
            self.name,
            self.phase,
            self.incarnation,
            self.restarts,
            indent = depth * 2
        )?;
        if let Some(exit) = &self.last_exit {
            write!(f, " last exit {}: {}", exit.class, exit.reason)?;
        }
        writeln!(f)?;
        self.children.iter().try_for_each(|child| child.fmt(f))
    }
}
