//! When a schedule is due: its instants, their jitter, and when it is closed.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta};
use chrono_tz::Tz;

use super::cron::Cron;
use super::days::{self, Weekdays, Window};
use super::zone;
use super::{Expected, Rule, TickReason, Timing};
use crate::time::Timestamp;

/// The interval of a name that `every` accepts beside durations: fixed lengths (D-27).
#[must_use]
pub fn named(name: &str) -> Option<Duration> {
    const HOUR: u64 = 3_600;
    let hours = match name {
        "hourly" => 1,
        "daily" => 24,
        "weekly" => 7 * 24,
        "monthly" => 30 * 24,
        _ => return None,
    };
    Some(Duration::from_secs(hours * HOUR))
}

/// Times are recorded in milliseconds, so nothing here is finer.
const FINEST: Duration = Duration::from_millis(1);

/// Openings behind which a tick is sought that fires.
const OPENINGS: usize = 1_000;

impl Timing {
    /// Joins a rule with what bounds it. Jitter of other rules than [`Rule::Every`] is dropped: who reads it warns.
    ///
    /// # Errors
    /// A sentence for the operator when it would never be due, or jitter is wider than the interval.
    pub fn new(
        rule: Rule,
        jitter: Duration,
        zone: Tz,
        window: Option<Window>,
        not_on: Weekdays,
    ) -> Result<Self, String> {
        let (rule, jitter) = match rule {
            Rule::Every(interval) if interval < FINEST => {
                return Err("`every` must be longer than nothing; write a duration such as `5m`".to_owned());
            }
            Rule::Every(interval) if jitter > interval => {
                return Err(format!(
                    "`jitter` ({jitter:?}) is longer than the interval ({interval:?}); write at most the interval"
                ));
            }
            Rule::At(at) => (Rule::At(whole_millis(at)), Duration::ZERO),
            Rule::Every(_) => (rule, jitter),
            Rule::Cron(_) | Rule::After(_) => (rule, Duration::ZERO),
        };
        if not_on == Weekdays::ALL {
            return Err("`not_on` names all days, so it never fires; leave one out".to_owned());
        }
        let mut timing = Self { rule, jitter, zone, window, not_on, fingerprint: Arc::from(""), seed: 0 };
        timing.fingerprint = timing.identity().into();
        Ok(timing)
    }

    /// The same, with a jitter of its own for that schedule: those that begin together shall not be due together.
    #[must_use]
    pub fn drawn_for(self, plugin: &str, schedule: &str) -> Self {
        let hash = blake3::hash(format!("{plugin}\n{schedule}").as_bytes());
        Self { seed: first_number(&hash), ..self }
    }

    /// The first tick whose instant is after `after`. `anchor` is where the grid of [`Rule::Every`] begins, and the start
    /// of the gateway for [`Rule::After`]; the other rules do not look at it. None where there is no other, up to the
    /// year 9999.
    #[must_use]
    pub fn next(&self, anchor: Timestamp, after: Timestamp) -> Option<Expected> {
        let instant = match &self.rule {
            Rule::Every(interval) => grid(anchor, *interval, after)?,
            Rule::Cron(cron) => next_of(cron, self.zone, after)?,
            Rule::At(at) => *at,
            Rule::After(delay) => from_millis(anchor.timestamp_millis().checked_add(millis(*delay))?)?,
        };
        (instant > after && instant.year() <= super::cron::LAST_YEAR).then(|| self.expected(instant))
    }

    /// The tick of an instant.
    #[must_use]
    pub fn expected(&self, instant: Timestamp) -> Expected {
        let due = instant.checked_add_signed(TimeDelta::milliseconds(self.offset(instant)));
        Expected { instant, due: due.unwrap_or(instant) }
    }

    /// Why nothing fires then: the local time is outside of the window, or the day is one of `not_on`.
    #[must_use]
    pub fn closed(&self, at: Timestamp) -> Option<TickReason> {
        if !self.is_bounded() || !zone::is_within_reach(at) {
            return None;
        }
        let local = zone::local(self.zone, at);
        if self.not_on.contains(local.weekday()) {
            return Some(TickReason::NotOn);
        }
        self.window.is_some_and(|window| !window.contains(local.time())).then_some(TickReason::OutsideWindow)
    }

    /// The first instant that is not before `at` and at which it isn't closed.
    #[must_use]
    pub fn opens(&self, at: Timestamp) -> Option<Timestamp> {
        match self.is_bounded() {
            true => zone::first_instant(self.zone, at, |local| days::first_open(self.window, self.not_on, local)),
            false => Some(at),
        }
    }

    /// The first tick after `after` that is due while nothing is closed; see [`Timing::next`]. None when there is none, or
    /// none was found behind a thousand openings.
    #[must_use]
    pub fn next_open(&self, anchor: Timestamp, after: Timestamp) -> Option<Expected> {
        let mut tick = self.next(anchor, after)?;
        for _ in 0..OPENINGS {
            if self.closed(tick.due).is_none() {
                return Some(tick);
            }
            // jitter may bring one into the opening whose instant is before it
            let reach = TimeDelta::from_std(self.jitter).ok()? + TimeDelta::milliseconds(1);
            let from = self.opens(tick.due)?.checked_sub_signed(reach)?;
            tick = self.next(anchor, from.max(tick.instant))?;
        }
        None
    }

    /// How far the next two instants after `at` are apart. None for what fires once.
    #[must_use]
    pub fn cadence(&self, at: Timestamp) -> Option<Duration> {
        match &self.rule {
            Rule::Every(interval) => Some(*interval),
            Rule::Cron(cron) => {
                let first = next_of(cron, self.zone, at)?;
                (next_of(cron, self.zone, first)? - first).to_std().ok()
            }
            Rule::At(_) | Rule::After(_) => None,
        }
    }

    fn is_bounded(&self) -> bool {
        self.window.is_some() || !self.not_on.is_empty()
    }

    /// Milliseconds that the due time is after the instant, in [-jitter/2, +jitter/2]: the same whenever asked.
    fn offset(&self, instant: Timestamp) -> i64 {
        let width = millis(self.jitter);
        if width == 0 {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.fingerprint.as_bytes());
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&instant.timestamp_millis().to_le_bytes());
        // Both bounds are within it: `half` is rounded down.
        let half = width / 2;
        let drawn = first_number(&hasher.finalize()) % (half.unsigned_abs() * 2 + 1);
        drawn as i64 - half
    }

    /// Over what decides its ticks: the zone is part of it only where local times are.
    fn identity(&self) -> String {
        let rule = match &self.rule {
            Rule::Every(interval) => format!("every {}", interval.as_millis()),
            Rule::Cron(cron) => format!("cron {}", cron.canonical()),
            Rule::At(at) => format!("at {}", at.timestamp_millis()),
            Rule::After(delay) => format!("after {}", delay.as_millis()),
        };
        let is_local = matches!(self.rule, Rule::Cron(_)) || self.is_bounded();
        let zone = if is_local { self.zone.name() } else { "" };
        let window = self.window.map(|window| window.to_string()).unwrap_or_default();
        let text = format!("{rule}\n{}\n{zone}\n{window}\n{}", self.jitter.as_millis(), self.not_on);
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

/// The first point of the grid after its anchor that is after `after`: by division, however far the anchor is.
fn grid(anchor: Timestamp, interval: Duration, after: Timestamp) -> Option<Timestamp> {
    let (anchor, interval) = (anchor.timestamp_millis(), millis(interval).max(1));
    let passed = after.timestamp_millis().checked_sub(anchor)?.max(0) / interval;
    from_millis(anchor.checked_add(interval.checked_mul(passed.checked_add(1)?)?)?)
}

/// The first instant of an expression after `after` (D-31).
fn next_of(cron: &Cron, zone: Tz, after: Timestamp) -> Option<Timestamp> {
    if !zone::is_within_reach(after) {
        return None;
    }
    if !cron.is_fixed() {
        let from = after.checked_add_signed(TimeDelta::nanoseconds(1))?;
        return zone::first_instant(zone, from, |local| cron.first_local(local));
    }
    // Where clocks went back, times up to those that they showed before have passed already: at most a day of minutes.
    let mut local = zone::local(zone, after);
    loop {
        local = cron.first_local(local.checked_add_signed(TimeDelta::nanoseconds(1))?)?;
        let instant = zone::meaning(zone, local)?.first();
        if instant > after {
            return Some(instant);
        }
    }
}

fn first_number(hash: &blake3::Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Saturating: no recorded time is farther away.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn from_millis(millis: i64) -> Option<Timestamp> {
    DateTime::from_timestamp_millis(millis)
}

fn whole_millis(at: Timestamp) -> Timestamp {
    from_millis(at.timestamp_millis()).unwrap_or(at)
}
