//! Schedules: rules that say when a plugin's command is due, and the ticks that they owe.
//!
//! A tick is identified by plugin, schedule, fingerprint and instant. The instant is nominal: jitter moves only when the
//! tick is due. Two schedules with one fingerprint have the same ticks.

mod compile;
mod cron;
mod days;
mod explain;
mod resume;
mod timing;
mod words;
pub mod zone;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::value::RawValue;

pub use cron::Cron;
pub use days::{Weekdays, Window};
pub use explain::Upcoming;
pub use resume::{GRACE, Known, Moment, Passed, Resumed, floor_candidates, is_young, own_rows, resume};
pub use timing::named;
pub use words::Span;

use crate::time::Timestamp;

/// All schedules of a generation, by plugin and id.
#[derive(Debug, Clone, Default)]
pub struct Schedules {
    schedules: BTreeMap<(Arc<str>, Arc<str>), Arc<Schedule>>,
}

/// One entry of `plugins.<name>.schedules`.
#[derive(Clone)]
pub struct Schedule {
    /// Plugin or alias.
    pub plugin: Arc<str>,
    /// Its place in `plugins.<name>.schedules`, from 0.
    pub index: usize,
    /// Unique within the plugin; `default` unless the operator named it.
    pub id: Arc<str>,
    /// Command to run; `poll` unless the operator named one.
    pub command: Arc<str>,
    /// Given to the command; a JSON object.
    pub payload: Option<Box<RawValue>>,
    /// When it is due, or why that can't be said: such an entry is `paused_invalid`.
    pub timing: Result<Timing, String>,
    /// What becomes of ticks that passed while the gateway was down.
    pub catch_up: CatchUp,
    /// What becomes of a tick while a job of the same plugin and command is queued or running.
    pub if_running: IfRunning,
}

/// So long after its due time, a tick that waits for nothing has not happened, and its schedule is silent.
#[must_use]
pub fn silent_after(tick_interval: Duration) -> Duration {
    const LEAST: Duration = Duration::from_secs(60);
    LEAST.max(tick_interval.saturating_mul(2))
}

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The rule.
    pub rule: Rule,
    /// Width of the interval around the instant from which the due time is drawn; for [`Rule::Every`] only.
    pub jitter: Duration,
    /// Zone in which `cron`, the window and the days are read.
    pub zone: Tz,
    /// `only_between`: local times of day.
    pub window: Option<Window>,
    /// `not_on`: days of the week without ticks.
    pub not_on: Weekdays,
    /// Tells timings apart; lower-case hex.
    pub fingerprint: Arc<str>,
    /// Keeps the jitter of schedules apart that have one timing: see [`Timing::drawn_for`].
    seed: u64,
}

/// What yields the instants.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// A grid of this width, beginning at the schedule's anchor.
    Every(Duration),
    /// A crontab(5) expression.
    Cron(Cron),
    /// Once, then.
    At(Timestamp),
    /// Once, so long after each cold start of the gateway.
    After(Duration),
}

/// `catch_up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// They are missed.
    #[default]
    Skip,
    /// One job for all of them.
    RunOnce,
    /// One job each, at most 100.
    RunAll,
}

impl CatchUp {
    /// The operator's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::RunOnce => "run_once",
            Self::RunAll => "run_all",
        }
    }
}

/// `if_running`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfRunning {
    /// The tick is skipped.
    #[default]
    Skip,
    /// It fires all the same, within the poll guard.
    Queue,
    /// The jobs are cancelled, then it fires.
    Cancel,
}

impl IfRunning {
    /// The operator's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Cancel => "cancel",
        }
    }
}

/// A tick that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// The nominal instant, by which it is identified.
    pub instant: Timestamp,
    /// When it fires.
    pub due: Timestamp,
}

/// `schedule_entries.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryStatus {
    /// Its next tick is expected.
    Active,
    /// Its entry can't be read as a schedule.
    PausedInvalid,
    /// An operator paused it.
    PausedManual,
    /// It has fired and will not fire again.
    Exhausted,
}

impl EntryStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::PausedInvalid, Self::PausedManual, Self::Exhausted];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PausedInvalid => "paused_invalid",
            Self::PausedManual => "paused_manual",
            Self::Exhausted => "exhausted",
        }
    }

    /// The status of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// `schedule_ticks.status`: all but the first are ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickStatus {
    /// It is to come, or waits for its turn.
    Expected,
    /// Its job was enqueued.
    Fired,
    /// Its job was enqueued, later than it was due, because the gateway was down then.
    CaughtUp,
    /// It was decided not to fire it.
    Skipped,
    /// Nobody was there to fire it.
    Missed,
}

impl TickStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Expected, Self::Fired, Self::CaughtUp, Self::Skipped, Self::Missed];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Fired => "fired",
            Self::CaughtUp => "caught_up",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// The status of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Why a tick ended as it did, or waits: `schedule_ticks.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickReason {
    /// Outside of `only_between`.
    OutsideWindow,
    /// On a day of `not_on`.
    NotOn,
    /// A job of the same plugin and command was queued or running.
    Running,
    /// As many polls as `max_outstanding_polls` were queued or running.
    Guard,
    /// The breaker of plugin and command was open.
    BreakerOpen,
    /// An existing job stood for it.
    Deduped,
    /// The operator had paused the schedule.
    Paused,
    /// The plugin could not be run.
    PluginGone,
    /// Intake was stopped for want of space.
    NoSpace,
    /// The gateway was down when it was due.
    GatewayDown,
    /// The clock jumped over it.
    ClockJumped,
    /// The gateway ran, but did not come to it before the next one was due.
    Overrun,
    /// The clock went back to before it, and another tick took its place.
    ClockWentBack,
    /// The schedule was changed before it.
    Replaced,
    /// The schedule was removed before it.
    Removed,
    /// It fired later than it was due.
    Late,
}

impl TickReason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::OutsideWindow,
        Self::NotOn,
        Self::Running,
        Self::Guard,
        Self::BreakerOpen,
        Self::Deduped,
        Self::Paused,
        Self::PluginGone,
        Self::NoSpace,
        Self::GatewayDown,
        Self::ClockJumped,
        Self::Overrun,
        Self::ClockWentBack,
        Self::Replaced,
        Self::Removed,
        Self::Late,
    ];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutsideWindow => "outside_window",
            Self::NotOn => "not_on",
            Self::Running => "running",
            Self::Guard => "guard",
            Self::BreakerOpen => "breaker_open",
            Self::Deduped => "deduped",
            Self::Paused => "paused",
            Self::PluginGone => "plugin_gone",
            Self::NoSpace => "no_space",
            Self::GatewayDown => "gateway_down",
            Self::ClockJumped => "clock_jumped",
            Self::Overrun => "overrun",
            Self::ClockWentBack => "clock_went_back",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
            Self::Late => "late",
        }
    }

    /// The reason of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for TickReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Schedules {
    /// The schedule of that plugin and id.
    #[must_use]
    pub fn get(&self, plugin: &str, id: &str) -> Option<&Arc<Schedule>> {
        self.schedules.get(&(plugin.into(), id.into()))
    }

    /// All of them, by plugin and id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.schedules.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.schedules.is_empty()
    }
}
