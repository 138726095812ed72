//! Ticks as they are explained to people: what is to come, and what a time change did to it.

use chrono::{NaiveDateTime, TimeDelta};
use chrono_tz::Tz;

use super::cron::Cron;
use super::zone::{self, Change, Meaning};
use super::{Expected, Rule, TickReason, Timing};
use crate::time::Timestamp;

/// A tick that is to come, with what can be said of it ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// The tick.
    pub expected: Expected,
    /// Why it will be skipped, or wait, when it is due.
    pub closed: Option<TickReason>,
    /// What a time change does to it.
    pub note: Option<String>,
}

impl Timing {
    /// The next `count` ticks after `after`; see [`Timing::next`].
    #[must_use]
    pub fn upcoming(&self, anchor: Timestamp, after: Timestamp, count: usize) -> Vec<Upcoming> {
        let first = self.next(anchor, after);
        let ticks = std::iter::successors(first, |tick| self.next(anchor, tick.instant)).take(count);
        ticks
            .map(|expected| Upcoming { expected, closed: self.closed(expected.due), note: self.note(expected.instant) })
            .collect()
    }

    /// What a time change does, or did, to the tick of that instant.
    #[must_use]
    pub fn note(&self, instant: Timestamp) -> Option<String> {
        match &self.rule {
            Rule::Cron(cron) if zone::is_within_reach(instant) => {
                left_out(cron, self.zone, instant).or_else(|| repeated(cron, self.zone, instant))
            }
            _ => None,
        }
    }
}

/// Of a local time that the clocks showed twice.
fn repeated(cron: &Cron, zone: Tz, instant: Timestamp) -> Option<String> {
    let local = zone::local(zone, instant);
    let Meaning::Twice(first, _) = zone::meaning(zone, local)? else { return None };
    let text = local.format("%H:%M");
    Some(match (cron.is_fixed(), first == instant) {
        (true, _) => format!("{text} occurs twice on that day: fires at the first"),
        (false, true) => format!("{text} occurs twice on that day: this is the first"),
        (false, false) => format!("{text} occurs twice on that day: this is the second"),
    })
}

/// Of local times that the clocks did not show just before.
fn left_out(cron: &Cron, zone: Tz, instant: Timestamp) -> Option<String> {
    let day_before = instant.checked_sub_signed(TimeDelta::days(1))?;
    let change = match cron.is_fixed() {
        true => zone::change(zone, instant.checked_sub_signed(TimeDelta::seconds(1))?, instant)?,
        false => zone::change(zone, day_before, instant)?,
    };
    let Change { at, from, to } = change;
    // The first and the last of them, and that there is one at all.
    let times =
        || std::iter::successors(cron.first_local(from), |seen| cron.first_local(*seen + TimeDelta::minutes(1)));
    let (first, last) = (times().next().filter(|time| *time < to)?, times().take_while(|time| *time < to).last()?);
    let shown = |time: NaiveDateTime| match time.date() == zone::local(zone, instant).date() {
        true => time.format("%H:%M").to_string(),
        false => time.format("%Y-%m-%d %H:%M").to_string(),
    };
    let subject = match first == last {
        true => format!("{} does", shown(first)),
        false => format!("{} to {} do", shown(first), shown(last)),
    };
    if cron.is_fixed() {
        let now = zone::local(zone, instant).format("%H:%M");
        return Some(format!("{subject} not exist on that day: fires at {now}, the first instant after the gap"));
    }
    // Only the first tick after it says so.
    let is_first = zone::first_instant(zone, at, |local| cron.first_local(local)) == Some(instant);
    is_first.then(|| format!("{subject} not exist on that day and is left out: the expression follows elapsed time"))
}
