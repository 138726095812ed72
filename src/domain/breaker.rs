//! Circuit breakers: a schedule whose jobs keep failing stops firing for a while. Pure; the rows are the ledger's.
//!
//! One per plugin and command. Only jobs that the scheduler submitted count, once each, by their terminal state (D-08);
//! only the scheduler asks for admission (C-26).

use std::time::Duration;

use crate::ids::JobId;
use crate::time::Timestamp;

/// `plugins.<name>.circuit_breaker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it, at least 1.
    pub threshold: u32,
    /// How long it stays open before one probe may pass.
    pub reset_after: Duration,
}

impl Default for BreakerPolicy {
    /// 3 failures, 30 minutes.
    fn default() -> Self {
        Self { threshold: 3, reset_after: Duration::from_secs(30 * 60) }
    }
}

/// `circuit_breakers.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Circuit {
    /// Ticks fire.
    #[default]
    Closed,
    /// No tick fires.
    Open,
    /// One probe is under way.
    HalfOpen,
}

impl Circuit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A row of `circuit_breakers`; one that does not exist is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Its state.
    pub state: Circuit,
    /// Failures in a row.
    pub failure_count: u32,
    /// When it opened last.
    pub opened_at: Option<Timestamp>,
    /// When a job failed last.
    pub last_failure_at: Option<Timestamp>,
    /// The job that was counted last.
    pub last_job: Option<JobId>,
}

/// `circuit_breaker_transitions.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerReason {
    /// Enough failures in a row, or the probe failed.
    FailureThreshold,
    /// The probe succeeded.
    Success,
    /// `reset_after` has passed.
    CooldownElapsed,
    /// An operator reset it.
    ManualReset,
}

impl BreakerReason {
    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureThreshold => "failure_threshold",
            Self::Success => "success",
            Self::CooldownElapsed => "cooldown_elapsed",
            Self::ManualReset => "manual_reset",
        }
    }
}

/// A change of state, to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerChange {
    /// From.
    pub from: Circuit,
    /// To.
    pub to: Circuit,
    /// Why.
    pub reason: BreakerReason,
}

/// Whether a tick may fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Pass,
    /// It may, as the one probe: the breaker becomes half-open with it.
    Probe,
    /// It may not.
    Refuse,
}

impl Breaker {
    /// Decides about a tick. `is_probe_alive` says whether a job that the scheduler submitted for the same plugin and
    /// command is queued or running: a probe that ended without counting (it was cancelled) must not block for ever.
    #[must_use]
    pub fn admit(&self, policy: &BreakerPolicy, is_probe_alive: bool, now: Timestamp) -> Admission {
        match self.state {
            Circuit::Closed => Admission::Pass,
            Circuit::HalfOpen if is_probe_alive => Admission::Refuse,
            Circuit::HalfOpen => Admission::Probe,
            Circuit::Open => {
                let since = self.opened_at.map(|at| now.signed_duration_since(at));
                // a clock that went back to before it opened must not hold it open for longer
                let is_over = since
                    .is_none_or(|s| s < chrono::TimeDelta::zero() || s.to_std().is_ok_and(|s| s >= policy.reset_after));
                if is_over { Admission::Probe } else { Admission::Refuse }
            }
        }
    }

    /// The probe was fired.
    pub fn probe(&mut self) -> Option<BreakerChange> {
        self.change(Circuit::HalfOpen, BreakerReason::CooldownElapsed)
    }

    /// A job ended; `is_success` is `None` for an end that says nothing, such as a cancellation.
    pub fn count(
        &mut self,
        policy: &BreakerPolicy,
        job: JobId,
        is_success: Option<bool>,
        now: Timestamp,
    ) -> Option<BreakerChange> {
        let is_success = is_success?;
        self.last_job = Some(job);
        if is_success {
            self.failure_count = 0;
            return match self.state {
                // it was fired before the breaker opened and is no probe
                Circuit::Open => None,
                Circuit::HalfOpen | Circuit::Closed => self.change(Circuit::Closed, BreakerReason::Success),
            };
        }
        self.failure_count = self.failure_count.saturating_add(1);
        self.last_failure_at = Some(now);
        if self.state == Circuit::Closed && self.failure_count < policy.threshold {
            return None;
        }
        let change = self.change(Circuit::Open, BreakerReason::FailureThreshold);
        if change.is_some() {
            self.opened_at = Some(now);
        }
        change
    }

    /// An operator resets it.
    pub fn reset(&mut self) -> Option<BreakerChange> {
        self.failure_count = 0;
        self.change(Circuit::Closed, BreakerReason::ManualReset)
    }

    fn change(&mut self, to: Circuit, reason: BreakerReason) -> Option<BreakerChange> {
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then_some(BreakerChange { from, to, reason })
    }
}
