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
    /// The same, and from then on its attempts get more memory.
    RetryLarger {
        /// When the next attempt may start.
        due: Timestamp,
        /// Which size: n for the n-th of the plugin's `limits.tiers`.
        tier: u32,
    },
}

/// Abnormal ends of one job after which it is not tried again.
pub const QUARANTINE_AFTER: u32 = 3;

/// True when a job is to be quarantined: `abnormal_ends` of its attempts ended abnormally, this one among them.
#[must_use]
pub const fn is_quarantined(cause: Cause, abnormal_ends: u32) -> bool {
    cause.is_abnormal() && abnormal_ends >= QUARANTINE_AFTER
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

/// The same for a plugin that declares `tiers` sizes of memory beyond the first. `tier` is the size that the attempt had.
///
/// An attempt that ran out of memory is followed by one with the next size, once; then the job has failed, because more
/// attempts of the same size would only repeat it.
#[must_use]
pub fn with_more_memory(ending: Ending, outcome: &Outcome, tier: u32, tiers: usize) -> Ending {
    if tiers == 0 || outcome.cause != Some(Cause::OutOfMemory) {
        return ending;
    }
    match ending {
        Ending::Retry { due } if tier == 0 => Ending::RetryLarger { due, tier: 1 },
        Ending::Retry { .. } | Ending::RetryLarger { .. } | Ending::Dead if tier > 0 => Ending::Failed,
        ending => ending,
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
            Cause::OutOfMemory,
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

    /// OPC-26, D-50: once at the next size, then the job has failed, however many attempts or sizes are left.
    #[test]
    fn an_attempt_without_memory_gets_the_next_size_once() {
        let policy = RetryPolicy::default();
        let outcome = failed(Cause::OutOfMemory);
        let decided =
            |attempt, tier, tiers| with_more_memory(decide(&outcome, attempt, 4, &policy, 0.0), &outcome, tier, tiers);
        assert!(matches!(decided(1, 0, 3), Ending::RetryLarger { tier: 1, .. }));
        assert!(matches!(decided(2, 0, 1), Ending::RetryLarger { tier: 1, .. }), "other troubles came before");
        for (attempt, tiers) in [(2, 3), (2, 1), (4, 3)] {
            assert_eq!(decided(attempt, 1, tiers), Ending::Failed, "attempt {attempt} of {tiers} sizes");
        }
        assert_eq!(decided(4, 0, 3), Ending::Dead, "no attempt is left");
        assert!(matches!(decided(1, 0, 0), Ending::Retry { .. }), "without sizes it is a failure like any other");
        let other = failed(Cause::Signal);
        let kept = with_more_memory(decide(&other, 2, 4, &policy, 0.0), &other, 1, 3);
        assert!(matches!(kept, Ending::Retry { .. }), "the size stays");
    }

    #[test]
    fn only_the_third_abnormal_end_quarantines() {
        for cause in Cause::ABNORMAL {
            assert!(cause.is_abnormal() && cause.is_retryable(), "{cause}");
            assert_eq!([1, 2, 3, 4].map(|n| is_quarantined(cause, n)), [false, false, true, true], "{cause}");
        }
        for cause in [Cause::Timeout, Cause::ExitCode, Cause::Protocol, Cause::Cancelled, Cause::OutputTooLarge] {
            assert!(!is_quarantined(cause, 9), "{cause}");
        }
    }

    /// D-10: recovered attempts are due at once.
    #[test]
    fn a_crash_is_retried_without_delay() {
        let outcome = failed(Cause::Crashed);
        assert_eq!(decide(&outcome, 1, 4, &RetryPolicy::default(), 0.9), Ending::Retry { due: outcome.ended_at });
    }
}
