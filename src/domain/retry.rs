//! The one decision about what follows an attempt: succeed, retry later, fail or die.

use std::time::Duration;

use crate::outcome::{AttemptStatus, Cause, Outcome};
use crate::time::Timestamp;

/// A plugin's retry policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in total, at least 1.
    pub max_attempts: u32,
    /// First delay; doubles with each attempt.
    pub backoff_base: Duration,
}

impl Default for RetryPolicy {
    /// 4 attempts, 30 s.
    fn default() -> Self {
        Self { max_attempts: 4, backoff_base: Duration::from_secs(30) }
    }
}

/// Delays never exceed this, however often a job was tried.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 60 * 60);

impl RetryPolicy {
    /// `base * 2^(attempt-1) + random(0, base)`; `fraction` in `0.0..1.0` is the random draw.
    #[must_use]
    pub fn backoff(&self, attempt: u32, fraction: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let fixed = self.backoff_base.saturating_mul(1 << doublings);
        let jitter = self.backoff_base.mul_f64(fraction.clamp(0.0, 1.0));
        fixed.saturating_add(jitter).min(LONGEST_BACKOFF)
    }
}

/// What becomes of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Row ends `succeeded`.
    Succeeded,
    /// Row ends `skipped`.
    Skipped,
    /// Row ends `failed`: no retry can help.
    Failed,
    /// Row ends `dead`: attempts exhausted or cancelled.
    Dead,
    /// Row goes back to `queued` and is due then.
    Retry {
        /// When the next attempt may start.
        due: Timestamp,
    },
}

/// Decides what follows an attempt.
///
/// `attempt` counts from 1. `fraction` in `0.0..1.0` is the random draw of the backoff. A crash of the gateway is
/// retried at once; a cancelled job is `dead`.
#[must_use]
pub fn decide(outcome: &Outcome, attempt: u32, max_attempts: u32, policy: &RetryPolicy, fraction: f64) -> Ending {
    match outcome.status {
        AttemptStatus::Succeeded => return Ending::Succeeded,
        AttemptStatus::Skipped => return Ending::Skipped,
        AttemptStatus::Failed | AttemptStatus::TimedOut => {}
    }
    match outcome.cause {
        Some(Cause::Cancelled | Cause::PluginGone) => Ending::Dead,
        Some(cause) if !cause.is_retryable() => Ending::Failed,
        _ if attempt >= max_attempts => Ending::Dead,
        Some(Cause::Crashed) => Ending::Retry { due: outcome.ended_at },
        _ => Ending::Retry { due: outcome.ended_at + policy.backoff(attempt, fraction) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    fn failed(cause: Cause) -> Outcome {
        Outcome::without_process(cause, "x".into(), time::parse("2026-01-01T00:00:00Z").expect("valid"))
    }

    /// QUE-24: delays are base * 2^(attempt-1) + random(0, base).
    #[test]
    fn backoff_doubles_and_adds_at_most_one_base() {
        let policy = RetryPolicy::default();
        for (attempt, low) in [(1, 30), (2, 60), (3, 120)] {
            assert_eq!(policy.backoff(attempt, 0.0), Duration::from_secs(low));
            assert_eq!(policy.backoff(attempt, 1.0), Duration::from_secs(low + 30));
        }
        assert_eq!(policy.backoff(u32::MAX, 0.5), LONGEST_BACKOFF);
    }

    /// QUE-26, QUE-27, QUE-28: which causes are retried, and how jobs end.
    #[test]
    fn the_cause_decides_whether_another_attempt_follows() {
        let policy = RetryPolicy::default();
        for cause in [
            Cause::PluginError,
            Cause::ExitCode,
            Cause::Signal,
            Cause::Protocol,
            Cause::OutputTooLarge,
            Cause::Timeout,
            Cause::SpawnFailed,
            Cause::Crashed,
        ] {
            let outcome = failed(cause);
            assert!(matches!(decide(&outcome, 1, 4, &policy, 0.0), Ending::Retry { .. }), "{cause}");
            assert_eq!(decide(&outcome, 4, 4, &policy, 0.0), Ending::Dead, "{cause}");
        }
        for cause in [Cause::RetryRefused, Cause::ExitConfig, Cause::Preflight] {
            assert_eq!(decide(&failed(cause), 1, 4, &policy, 0.0), Ending::Failed, "{cause}");
        }
        assert_eq!(decide(&failed(Cause::Cancelled), 1, 4, &policy, 0.0), Ending::Dead);
    }

    /// D-10: recovered attempts are due at once.
    #[test]
    fn a_crash_is_retried_without_delay() {
        let outcome = failed(Cause::Crashed);
        assert_eq!(decide(&outcome, 1, 4, &RetryPolicy::default(), 0.9), Ending::Retry { due: outcome.ended_at });
    }
}
