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
    /// The job whose end decides, while it is half-open.
    pub probe: Option<JobId>,
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
    /// Decides about a tick. `is_probe_alive` says whether the probe is queued or running: one that ended without counting
    /// (it was cancelled) must not block for ever.
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

    /// The probe was fired, perhaps in the place of one that never counted.
    pub fn probe(&mut self, job: JobId) -> Option<BreakerChange> {
        self.probe = Some(job);
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
        // what was fired before it opened and is no probe tells nothing about now
        let is_silent = match self.state {
            Circuit::Closed => false,
            Circuit::Open => is_success,
            Circuit::HalfOpen => self.probe != Some(job),
        };
        if is_silent {
            return None;
        }
        self.last_job = Some(job);
        self.probe = None;
        if is_success {
            self.failure_count = 0;
            return self.change(Circuit::Closed, BreakerReason::Success);
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
        self.probe = None;
        self.change(Circuit::Closed, BreakerReason::ManualReset)
    }

    fn change(&mut self, to: Circuit, reason: BreakerReason) -> Option<BreakerChange> {
        let from = std::mem::replace(&mut self.state, to);
        (from != to).then_some(BreakerChange { from, to, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    const POLICY: BreakerPolicy = BreakerPolicy { threshold: 3, reset_after: Duration::from_secs(60) };

    fn job() -> JobId {
        "01890f3e-7c5a-7000-8000-000000000001".parse().expect("a UUID")
    }

    fn older() -> JobId {
        "01890f3e-7c5a-7000-8000-000000000000".parse().expect("a UUID")
    }

    fn at(seconds: i64) -> Timestamp {
        time::parse("2026-01-01T00:00:00Z").expect("valid") + chrono::TimeDelta::seconds(seconds)
    }

    fn after(ends: &[bool]) -> Breaker {
        let mut breaker = Breaker::default();
        for is_success in ends {
            breaker.count(&POLICY, job(), Some(*is_success), at(0));
        }
        breaker
    }

    /// BRK-02: the defaults.
    #[test]
    fn three_failures_and_half_an_hour_are_the_default() {
        assert_eq!(BreakerPolicy::default(), BreakerPolicy { threshold: 3, reset_after: Duration::from_secs(1800) });
    }

    /// BRK-02, BRK-05: only failures in a row open it.
    #[test]
    fn a_success_between_failures_forgets_them() {
        let breaker = after(&[false, false, true, false, false]);
        assert_eq!((breaker.state, breaker.failure_count), (Circuit::Closed, 2));
        assert_eq!(breaker.admit(&POLICY, true, at(0)), Admission::Pass);
        let mut breaker = after(&[false, false]);
        let change = breaker.count(&POLICY, job(), Some(false), at(7));
        let opened =
            BreakerChange { from: Circuit::Closed, to: Circuit::Open, reason: BreakerReason::FailureThreshold };
        assert_eq!(change, Some(opened));
        assert_eq!((breaker.opened_at, breaker.last_failure_at), (Some(at(7)), Some(at(7))));
    }

    /// BRK-03, BRK-04: it stays shut for its time, then lets one probe pass, whose end decides.
    #[test]
    fn an_open_breaker_lets_one_probe_pass_after_its_time() {
        let mut open = after(&[false, false, false]);
        assert_eq!(open.admit(&POLICY, false, at(59)), Admission::Refuse);
        assert_eq!(open.admit(&POLICY, false, at(60)), Admission::Probe);
        let change = open.probe(job()).expect("a change");
        assert_eq!((change.to, change.reason), (Circuit::HalfOpen, BreakerReason::CooldownElapsed));
        assert_eq!(open.admit(&POLICY, true, at(999)), Admission::Refuse, "one at a time");
        let mut failed = open;
        let change = failed.count(&POLICY, job(), Some(false), at(70)).expect("a change");
        assert_eq!((change.from, change.to), (Circuit::HalfOpen, Circuit::Open));
        assert_eq!(failed.admit(&POLICY, false, at(129)), Admission::Refuse, "its time begins anew");
        let change = open.count(&POLICY, job(), Some(true), at(70)).expect("a change");
        assert_eq!((change.to, change.reason, open.failure_count), (Circuit::Closed, BreakerReason::Success, 0));
    }

    /// A probe that was cancelled says nothing: the next tick probes again, without another transition.
    #[test]
    fn a_probe_that_never_counted_is_replaced() {
        let mut half = after(&[false, false, false]);
        half.probe(older());
        assert_eq!(half.count(&POLICY, older(), None, at(61)), None);
        assert_eq!(half.admit(&POLICY, false, at(62)), Admission::Probe);
        assert_eq!(half.probe(job()), None);
        assert_eq!(half.count(&POLICY, older(), Some(true), at(63)), None, "another probes in its place");
        let change = half.count(&POLICY, job(), Some(true), at(64)).expect("a change");
        assert_eq!((change.from, change.to), (Circuit::HalfOpen, Circuit::Closed));
    }

    /// BRK-04: one that was fired before it opened runs beside the probe, and ends first.
    #[test]
    fn only_the_probe_decides_while_it_is_half_open() {
        let mut half = after(&[false, false, false]);
        half.probe(job());
        let before = half;
        for is_success in [true, false] {
            assert_eq!(half.count(&POLICY, older(), Some(is_success), at(61)), None);
            assert_eq!(half, before);
        }
        let change = half.count(&POLICY, job(), Some(false), at(62)).expect("a change");
        assert_eq!((change.from, change.to, half.failure_count), (Circuit::HalfOpen, Circuit::Open, 4));
        assert_eq!(half.probe, None);
    }

    #[test]
    fn what_was_fired_before_it_opened_does_not_close_it() {
        let mut open = after(&[false, false, false]);
        assert_eq!(open.count(&POLICY, job(), Some(true), at(1)), None);
        assert_eq!((open.state, open.failure_count), (Circuit::Open, 3));
        assert_eq!(open.count(&POLICY, job(), Some(false), at(30)), None);
        assert_eq!((open.state, open.failure_count), (Circuit::Open, 4));
        assert_eq!(open.admit(&POLICY, false, at(60)), Admission::Probe, "a late failure does not hold it open longer");
    }

    #[test]
    fn a_clock_that_went_back_does_not_hold_it_open() {
        let open = after(&[false, false, false]);
        assert_eq!(open.admit(&POLICY, false, at(-1)), Admission::Probe);
    }

    /// BRK-09: a reset closes it whatever it was.
    #[test]
    fn a_reset_closes_and_forgets() {
        let mut open = after(&[false, false, false]);
        let change = open.reset().expect("a change");
        assert_eq!(
            (change.from, change.to, change.reason),
            (Circuit::Open, Circuit::Closed, BreakerReason::ManualReset)
        );
        assert_eq!(open.failure_count, 0);
        assert_eq!(open.reset(), None);
    }

    #[test]
    fn every_state_is_read_back_from_its_word() {
        for state in Circuit::ALL {
            assert_eq!(Circuit::parse(state.as_str()), Some(state));
        }
        assert_eq!(Circuit::parse("ajar"), None);
    }
}
