//! How much a plugin may print and how long its end may take.

use std::time::Duration;

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
