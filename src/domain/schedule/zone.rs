//! Local times and instants: what a time change leaves out, and what it repeats.
//!
//! Everything between the years 1 and 9999 is total; what is outside has no instant.

use std::str::FromStr;

use chrono::{DateTime, Datelike, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::cron::LAST_YEAR;
use crate::problem::did_you_mean;
use crate::time::Timestamp;

/// The zone of that IANA name.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse(name: &str) -> Result<Tz, String> {
    Tz::from_str(name).map_err(|_| {
        let same = TZ_VARIANTS.iter().map(|zone| zone.name()).find(|known| known.eq_ignore_ascii_case(name));
        match same.or_else(|| did_you_mean(name, TZ_VARIANTS.iter().map(|zone| zone.name()))) {
            Some(near) => format!("{name:?} is not an IANA time zone; did you mean `{near}`?"),
            None => format!("{name:?} is not an IANA time zone; write one such as `Europe/Berlin` or `UTC`"),
        }
    })
}

/// Local times of other years have no instant here: nothing between them can overflow.
pub(super) fn is_within_reach(at: Timestamp) -> bool {
    (1..=LAST_YEAR).contains(&at.year())
}

/// What a local time means in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One instant.
    Once(Timestamp),
    /// Two: the clocks went back.
    Twice(Timestamp, Timestamp),
    /// None: the clocks went forward over it. The first instant after.
    Never(Timestamp),
}

impl Meaning {
    /// When a fixed local time fires (D-31).
    pub(super) fn first(self) -> Timestamp {
        match self {
            Self::Once(at) | Self::Twice(at, _) | Self::Never(at) => at,
        }
    }
}

/// Clocks are at most so far from UTC.
const FARTHEST: TimeDelta = TimeDelta::hours(18);

/// What that local time means.
pub(super) fn meaning(zone: Tz, local: NaiveDateTime) -> Option<Meaning> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Some(Meaning::Once(at.with_timezone(&Utc))),
        LocalResult::Ambiguous(a, b) => {
            let (a, b) = (a.with_timezone(&Utc), b.with_timezone(&Utc));
            Some(Meaning::Twice(a.min(b), a.max(b)))
        }
        LocalResult::None => {
            let (from, to) =
                (local.checked_sub_signed(FARTHEST)?.and_utc(), local.checked_add_signed(FARTHEST)?.and_utc());
            Some(Meaning::Never(first_where(from, to, |at| self::local(zone, at) > local)))
        }
    }
}

/// What clocks show then.
pub(super) fn local(zone: Tz, at: Timestamp) -> NaiveDateTime {
    at.naive_utc() + offset(zone, at)
}

/// How far clocks are ahead of UTC then.
pub(super) fn offset(zone: Tz, at: Timestamp) -> TimeDelta {
    TimeDelta::seconds(i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()))
}

/// The first whole second in (from, to] for which `holds`, given that it holds from some instant on.
fn first_where(from: Timestamp, to: Timestamp, holds: impl Fn(Timestamp) -> bool) -> Timestamp {
    let (mut before, mut after) = (from.timestamp(), to.timestamp());
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let is_after = DateTime::from_timestamp(middle, 0).is_none_or(&holds);
        (before, after) = if is_after { (before, middle) } else { (middle, after) };
    }
    DateTime::from_timestamp(after, 0).unwrap_or(to)
}

const DAY: TimeDelta = TimeDelta::hours(24);
/// No zone changes its clocks twice within so long.
const APART: TimeDelta = TimeDelta::hours(6);

/// A change of the clocks: `from` would have been the local time then, `to` is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) at: Timestamp,
    pub(super) from: NaiveDateTime,
    pub(super) to: NaiveDateTime,
}

/// The first change of the clocks in (from, to], which is at most a day long.
pub(super) fn change(zone: Tz, from: Timestamp, to: Timestamp) -> Option<Change> {
    let before = offset(zone, from);
    let mut seen = from;
    while seen < to {
        let next = to.min(seen.checked_add_signed(APART)?);
        if offset(zone, next) != before {
            let at = first_where(seen, next, |at| offset(zone, at) != before);
            return Some(Change { at, from: at.naive_utc() + before, to: local(zone, at) });
        }
        seen = next;
    }
    None
}

/// The first instant that is not before `from` and whose local time is one of a set. `search` returns the first of the set
/// that is not before a local time.
///
/// Between two changes of the clocks local times are a shifted UTC, so the search goes from change to change. It skips what
/// is far from any match: a local time is never more than a day away from where it would be without changes.
pub(super) fn first_instant(
    zone: Tz,
    from: Timestamp,
    search: impl Fn(NaiveDateTime) -> Option<NaiveDateTime>,
) -> Option<Timestamp> {
    let mut from = from;
    while is_within_reach(from) {
        let local = local(zone, from);
        let found = from.checked_add_signed(search(local)? - local)?;
        let tomorrow = from.checked_add_signed(DAY)?;
        from = match change(zone, from, found.min(tomorrow)) {
            Some(change) => change.at,
            None if found <= tomorrow => return Some(found),
            None => tomorrow.max(found.checked_sub_signed(DAY * 2)?),
        };
    }
    None
}
