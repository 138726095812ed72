//! How much a plugin may print, how long its end may take, and what the kernel lets it use.

use std::time::Duration;

use ductile_domain::config::ResourceLimits;

/// Bounds of one attempt. Exceeding them costs the attempt, and nobody else anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of stdout that are kept; one more ends the process group and fails the attempt.
    pub stdout: usize,
    /// Bytes of stderr that are kept; the rest is read and dropped.
    pub stderr: usize,
    /// Time between SIGTERM and SIGKILL.
    pub term_grace: Duration,
    /// Time for which stdout and stderr may stay open after the process itself has ended.
    pub pipe_grace: Duration,
}

impl Default for Limits {
    /// 10 MiB, 64 KiB, 5 s, 200 ms.
    fn default() -> Self {
        Self {
            stdout: 10 * 1024 * 1024,
            stderr: 64 * 1024,
            term_grace: Duration::from_secs(5),
            pipe_grace: Duration::from_millis(200),
        }
    }
}

/// What the kernel lets the processes of one attempt use. `None` bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Bytes of memory: of all processes together with a cgroup, of each without.
    pub memory: Option<u64>,
    /// Processor time of each process, in whole seconds, rounded up.
    pub cpu_time: Option<Duration>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Processes and threads: of the attempt with a cgroup, of the user without.
    pub processes: Option<u64>,
}

impl Bounds {
    /// What an operator's limits come to for an attempt of that tier of memory; `None` when they bound nothing.
    #[must_use]
    pub fn of(limits: &ResourceLimits, tier: u32) -> Option<Self> {
        let bounds = Self {
            memory: limits.memory_of(tier),
            cpu_time: limits.cpu_time,
            open_files: limits.open_files,
            processes: limits.processes,
        };
        (bounds != Self::default()).then_some(bounds)
    }
}
