//! How an attempt ended, as data: a failed job is never a Rust error.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::time::Timestamp;

/// The status of one attempt, as `job_log` and `job_attempts` keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// The plugin said ok and exited with 0.
    Succeeded,
    /// Anything else but a timeout.
    Failed,
    /// The deadline passed.
    TimedOut,
    /// Preflight decided not to run.
    Skipped,
}

impl AttemptStatus {
    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
        }
    }
}

/// What kind of trouble ended an attempt; its word begins the reason in `job_transitions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The plugin answered `status: error`.
    PluginError,
    /// The plugin answered `status: error` with `retry: false`.
    RetryRefused,
    /// Non-zero exit other than 78.
    ExitCode,
    /// Exit 78 (EX_CONFIG): never retried.
    ExitConfig,
    /// Killed by a signal that the gateway did not send.
    Signal,
    /// Killed for want of memory: by its own limit, by the machine, or by what it ran itself (exit code 137).
    OutOfMemory,
    /// Not exactly one JSON object on stdout.
    Protocol,
    /// More stdout than the cap.
    OutputTooLarge,
    /// The deadline passed.
    Timeout,
    /// The entrypoint could not be executed: missing, not executable, bad format, busy.
    SpawnFailed,
    /// Preflight refused the job before any spawn.
    Preflight,
    /// The plugin succeeded, and what must follow could not be planned: a claim of baggage that fails.
    Routing,
    /// Someone cancelled the job.
    Cancelled,
    /// The gateway, or the attempt's actor, crashed while the attempt ran.
    Crashed,
    /// The plugin or the command is not in the generation any more.
    PluginGone,
}

impl Cause {
    /// The word used in reasons.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PluginError => "plugin_error",
            Self::RetryRefused => "retry_false",
            Self::ExitCode => "exit_code",
            Self::ExitConfig => "exit_78",
            Self::Signal => "signal",
            Self::OutOfMemory => "out_of_memory",
            Self::Protocol => "protocol_error",
            Self::OutputTooLarge => "output_too_large",
            Self::Timeout => "timeout",
            Self::SpawnFailed => "spawn_failed",
            Self::Preflight => "preflight",
            Self::Routing => "routing",
            Self::Cancelled => "cancelled",
            Self::Crashed => "crashed",
            Self::PluginGone => "plugin_gone",
        }
    }

    /// True when another attempt may end differently.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::RetryRefused
                | Self::ExitConfig
                | Self::Preflight
                | Self::Routing
                | Self::Cancelled
                | Self::PluginGone
        )
    }
}

impl Cause {
    /// Those of [`Cause::is_abnormal`].
    pub const ABNORMAL: [Self; 3] = [Self::Signal, Self::OutOfMemory, Self::Crashed];

    /// True for ends that the plugin did not choose: a job that keeps ending so is quarantined.
    #[must_use]
    pub const fn is_abnormal(self) -> bool {
        matches!(self, Self::Signal | Self::OutOfMemory | Self::Crashed)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the time of an attempt went. Wall times are nanoseconds since the Unix epoch, durations are monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Wall clock at the claim's hand-over to the runner.
    pub enter_wall_ns: i64,
    /// Wall clock when the process had been reaped.
    pub exit_wall_ns: i64,
    /// From spawn to reap.
    pub dur_ns: i64,
    /// Gateway time before the spawn: request built, thread found.
    pub runtime_pre_ns: i64,
    /// Gateway time after the reap: response parsed and judged.
    pub runtime_post_ns: i64,
}

/// What an attempt's processes used, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time of the process and of what it waited for; with a cgroup, of all its processes.
    pub cpu: Option<Duration>,
    /// Most bytes of memory at a time: of one process; with a cgroup, of all of them together.
    pub peak_memory: Option<u64>,
}

/// One event that a plugin emitted, before the core added source, timestamp and id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmittedEvent {
    /// Dotted type, matched exactly.
    #[serde(rename = "type")]
    pub kind: String,
    /// Arbitrary JSON; absent means `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// Inherited by the jobs it causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
}

/// One attempt, ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The attempt's status.
    pub status: AttemptStatus,
    /// The trouble, unless it succeeded or was skipped.
    pub cause: Option<Cause>,
    /// Text for `last_error`; names the cause and, where there is one, the next step. On a success it says what became
    /// of an event that was dropped.
    pub error: Option<String>,
    /// What the plugin printed on stdout, verbatim when it was UTF-8, bounded.
    pub result: Option<String>,
    /// What the plugin printed on stderr, bounded.
    pub stderr: Option<String>,
    /// Exit code, when the process exited.
    pub exit_code: Option<i32>,
    /// Signal that ended the process.
    pub signal: Option<i32>,
    /// Events of a success, in the plugin's order.
    pub events: Vec<EmittedEvent>,
    /// The plugin's snapshot, a JSON object, on success.
    pub state_updates: Option<Box<RawValue>>,
    /// Where the time went.
    pub timing: Timing,
    /// What it used.
    pub usage: Usage,
    /// Sub-spans of the stopwatch, a JSON array.
    pub subs: Option<String>,
    /// When the process had been reaped, or the decision fell without one.
    pub ended_at: Timestamp,
}

impl Outcome {
    /// An attempt that failed without a process having run.
    #[must_use]
    pub fn without_process(cause: Cause, error: String, at: Timestamp) -> Self {
        Self {
            status: AttemptStatus::Failed,
            cause: Some(cause),
            error: Some(error),
            result: None,
            stderr: None,
            exit_code: None,
            signal: None,
            events: Vec::new(),
            state_updates: None,
            timing: Timing::default(),
            usage: Usage::default(),
            subs: None,
            ended_at: at,
        }
    }
}
