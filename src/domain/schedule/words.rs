//! How schedules are written and shown.

use std::fmt;
use std::time::Duration;

use super::{Rule, Schedule, TickReason};
use crate::time;

impl Rule {
    /// The key of the configuration that it was written under.
    #[must_use]
    pub const fn mode(&self) -> &'static str {
        match self {
            Self::Every(_) => "every",
            Self::Cron(_) => "cron",
            Self::At(_) => "at",
            Self::After(_) => "after",
        }
    }
}

impl fmt::Display for Rule {
    /// Such as `every 5m` or `cron 0 9 * * 1-5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode();
        match self {
            Self::Every(span) | Self::After(span) => write!(f, "{mode} {}", Span(*span)),
            Self::Cron(cron) => write!(f, "{mode} {}", cron.text),
            Self::At(at) => write!(f, "{mode} {}", time::format(*at)),
        }
    }
}

/// A duration in its largest whole unit: `90s`, `5m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128, u128); 4] =
            [("d", 86_400_000, 2), ("h", 3_600_000, 1), ("m", 60_000, 2), ("s", 1_000, 1)];
        let ms = self.0.as_millis();
        match UNITS.iter().find(|(_, unit, least)| ms >= unit * least && ms.is_multiple_of(*unit)) {
            Some((name, unit, _)) => write!(f, "{}{name}", ms / unit),
            None if ms == 0 => f.write_str("0s"),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl TickReason {
    /// What it says to an operator who asks why.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::OutsideWindow => "it was due outside of `only_between`",
            Self::NotOn => "it was due on a day of `not_on`",
            Self::Running => {
                "a scheduled job of the same command was queued or running, and `if_running` gives way to it"
            }
            Self::Guard => "as many polls as `max_outstanding_polls` were queued or running",
            Self::BreakerOpen => "the circuit breaker was open after failures in a row",
            Self::Deduped => "a job with the same key existed and stood for it",
            Self::Paused => "the schedule was paused by an operator",
            Self::PluginGone => "the plugin could not be run",
            Self::NoSpace => "too little space was free for the gateway to take anything in",
            Self::GatewayDown => "the gateway was down when it was due",
            Self::ClockJumped => "the clock jumped over it, or the machine slept",
            Self::Overrun => "the gateway could not write it down in time: the ledger or the scheduler was held up",
            Self::ClockWentBack => "the clock went back, and another tick took its place",
            Self::Replaced => "the schedule was changed before it was due",
            Self::Removed => "the schedule or its plugin was removed or disabled before it was due",
            Self::Late => "it fired later than it was due",
        }
    }
}

impl fmt::Debug for Schedule {
    /// Without the payload, whose values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule")
            .field("plugin", &self.plugin)
            .field("index", &self.index)
            .field("id", &self.id)
            .field("command", &self.command)
            .field("timing", &self.timing)
            .field("catch_up", &self.catch_up)
            .field("if_running", &self.if_running)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_was_written() {
        let every = |secs| Rule::Every(Duration::from_secs(secs)).to_string();
        assert_eq!([300, 90, 86_400, 2_592_000].map(every), ["every 5m", "every 90s", "every 24h", "every 30d"]);
        assert_eq!(Rule::After(Duration::ZERO).to_string(), "after 0s");
        assert_eq!(Rule::After(Duration::from_millis(1_500)).to_string(), "after 1500ms");
    }
}
