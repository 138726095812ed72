//! How many restarts are too many, and how long to wait before the next one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// At most `max` restarts within `period`; one more and the supervisor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are still fine.
    pub max: u32,
    /// The window they are counted in.
    pub period: Duration,
}

impl Intensity {
    /// At most `max` restarts within `period`.
    #[must_use]
    pub const fn new(max: u32, period: Duration) -> Self {
        Self { max, period }
    }
}

impl Default for Intensity {
    /// OTP's: 1 in 5 s.
    fn default() -> Self {
        Self::new(1, Duration::from_secs(5))
    }
}

/// Restarts counted now, against the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntensityUse {
    /// Restarts within the period that ends now.
    pub used: u32,
    /// Most that are fine.
    pub max: u32,
    /// The window.
    pub period: Duration,
}

/// How long a child stays down before its next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Before the 1st, 2nd, ... restart in a row; the last one goes on. Empty: never wait.
    pub steps: Vec<Duration>,
    /// A child that was up this long starts again from the first step.
    pub stable_after: Duration,
}

impl Backoff {
    /// Never waits.
    #[must_use]
    pub fn none() -> Self {
        Self { steps: Vec::new(), stable_after: Duration::ZERO }
    }

    /// Before a restart that follows `streak` restarts in a row.
    #[must_use]
    pub fn delay(&self, streak: u32) -> Duration {
        let at = usize::try_from(streak).unwrap_or(usize::MAX);
        self.steps.get(at).or(self.steps.last()).copied().unwrap_or_default()
    }

    /// Time that `restarts` restarts in a row spend waiting.
    #[must_use]
    pub(crate) fn total(&self, restarts: u32) -> Duration {
        let listed = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        let listed_sum: Duration = self.steps.iter().take(restarts as usize).sum();
        listed_sum + self.steps.last().copied().unwrap_or_default().saturating_mul(restarts.saturating_sub(listed))
    }
}

impl Default for Backoff {
    /// 0, 50 ms, 250 ms, 1 s, 5 s; stable after 30 s.
    fn default() -> Self {
        Self {
            steps: [0, 50, 250, 1_000, 5_000].map(Duration::from_millis).to_vec(),
            stable_after: Duration::from_secs(30),
        }
    }
}

/// Counts restarts within a period, as OTP's `add_restart` does.
#[derive(Debug)]
pub(crate) struct Gauge {
    limit: Intensity,
    restarts: VecDeque<Instant>,
}

impl Gauge {
    pub(crate) fn new(limit: Intensity) -> Self {
        Self { limit, restarts: VecDeque::new() }
    }

    /// Counts one restart; false when it was one too many.
    pub(crate) fn add(&mut self, now: Instant) -> bool {
        self.prune(now);
        self.restarts.push_back(now);
        self.restarts.len() <= self.limit.max as usize
    }

    pub(crate) fn in_use(&mut self, now: Instant) -> IntensityUse {
        self.prune(now);
        let used = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        IntensityUse { used, max: self.limit.max, period: self.limit.period }
    }

    pub(crate) fn clear(&mut self) {
        self.restarts.clear();
    }

    fn prune(&mut self, now: Instant) {
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > self.limit.period) {
            self.restarts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_waits_6_3_seconds_over_five_restarts() {
        let backoff = Backoff::default();
        assert_eq!(backoff.total(5), Duration::from_millis(6_300));
        assert_eq!(backoff.total(7), Duration::from_millis(16_300));
        assert_eq!(backoff.delay(0), Duration::ZERO);
        assert_eq!(backoff.delay(99), Duration::from_secs(5));
    }

    #[test]
    fn restarts_are_counted_within_the_period_only() {
        let mut gauge = Gauge::new(Intensity::new(2, Duration::from_secs(10)));
        let start = Instant::now();
        assert!(gauge.add(start));
        assert!(gauge.add(start + Duration::from_secs(10)));
        assert!(!gauge.add(start + Duration::from_secs(10)), "the third within ten seconds");
        assert!(gauge.add(start + Duration::from_secs(21)));
        assert_eq!(gauge.in_use(start + Duration::from_secs(21)).used, 1);
    }
}
