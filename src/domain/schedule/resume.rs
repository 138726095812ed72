//! What becomes of a schedule's rows when it is looked at anew: at a start, after a reload, after a crash of the
//! scheduler, after the clock jumped. Rows and rule go in, rows come out; the rows are the truth.
//!
//! Of each schedule that fires on, one tick is expected ahead: the *forward* one, the last of the expected. Those before
//! it are overdue and catch up.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DurationRound as _, TimeDelta};

use super::{CatchUp, EntryStatus, Expected, Rule, Schedule, TickReason, TickStatus, Timing};
use crate::ids::BootId;
use crate::time::{self, Timestamp};

/// Instants that are looked at one by one before the newest are chosen.
const NEWEST: usize = 1_000;

/// Rows that a start or a jump of the clock writes for what passed, over all schedules.
const ROWS: usize = 20_000;

/// The fewest and the most of them that one schedule gets.
const OWN_ROWS: (usize, usize) = (20, 1_000);

/// `run_all` makes good for so many of the newest.
const MOST_CAUGHT_UP: usize = 100;

/// A tick that is overdue by less is not late.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);

/// Instants of an expression that are counted one by one before the rest is estimated, for each row of its own: a month of
/// minutes for one schedule, sixteen hours for each of a thousand.
const COUNTED: usize = 50;

/// What the rows say of a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its state.
    pub status: EntryStatus,
    /// Why it is in that state.
    pub reason: Option<&'a str>,
    /// The timing under which its ticks are expected.
    pub fingerprint: Option<&'a str>,
    /// Where the grid of an interval begins.
    pub anchor: Option<Timestamp>,
    /// The start of the gateway that armed a delay.
    pub armed_by: Option<BootId>,
    /// Instant of the newest tick of this fingerprint that has ended.
    pub last_instant: Option<Timestamp>,
    /// Its expected ticks under this fingerprint, in order.
    pub expected: &'a [Expected],
}

/// When, and in which life of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// When this gateway started; what was due before was due while it was down.
    pub started: Timestamp,
    /// This start of it.
    pub boot: BootId,
    /// No schedule of this start was looked at before: delays are armed.
    pub is_start: bool,
    /// The last jump of the clock: from, to.
    pub jump: Option<(Timestamp, Timestamp)>,
    /// The forward tick is sought behind this: now, or later where the rows know of ticks that have ended after now.
    pub floor: Timestamp,
    /// Missed instants that get rows of their own, of those in between that are caught up more; those before share one.
    pub own_rows: usize,
}

/// How many missed instants of each get rows of their own when so many schedules are looked at.
#[must_use]
pub fn own_rows(schedules: usize) -> usize {
    let (fewest, most) = OWN_ROWS;
    (ROWS / schedules.max(1)).clamp(fewest, most)
}

/// What the rows shall say.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Its state; an operator's pause stands above [`EntryStatus::Active`].
    pub status: EntryStatus,
    /// Why, where the state needs a word.
    pub reason: Option<String>,
    /// Where the grid of an interval begins.
    pub anchor: Option<Timestamp>,
    /// The start of the gateway that armed a delay.
    pub armed_by: Option<BootId>,
    /// How the expected ticks end that are not named here.
    pub others_end: (TickStatus, TickReason),
    /// Ticks that ended without being fired.
    pub ended: Vec<Passed>,
    /// Ticks that are expected, in order.
    pub expect: Vec<Expected>,
    /// The operator should know.
    pub is_surprising: bool,
}

/// A tick that ended without being fired, or a run of them that share a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Its instant; of a run the first.
    pub instant: Timestamp,
    /// When it was due.
    pub due: Timestamp,
    /// The last instant of a run, and how many it has: of many thousands of an expression an estimate.
    pub last: Option<(Timestamp, u32)>,
    /// How it ended.
    pub status: TickStatus,
    /// Why.
    pub reason: TickReason,
}

/// Instants after `floor` that may have ended already, when the clock shows less than it once did: whoever asks the rows
/// puts the floor behind those that have. Empty when no row is in the way.
#[must_use]
pub fn floor_candidates(timing: &Timing, known: &Known<'_>, floor: Timestamp, most: usize) -> Vec<Timestamp> {
    let Some(last) = known.last_instant.filter(|last| *last > floor) else { return Vec::new() };
    let mut candidates = Vec::new();
    let mut at = floor;
    while candidates.len() < most
        && let Some(next) = timing.next(known.anchor.unwrap_or(floor), at)
        && next.instant <= last
    {
        candidates.push(next.instant);
        at = next.instant;
    }
    candidates
}

/// Whether a tick is overdue by less than a minute, and than half its distance from the next one: it has not passed yet.
#[must_use]
pub fn is_young(timing: &Timing, anchor: Timestamp, expected: Expected, now: Timestamp) -> bool {
    let age = now.signed_duration_since(expected.due);
    if age >= GRACE {
        return false;
    }
    let next = timing.next(anchor, expected.instant);
    next.is_none_or(|next| age < next.instant.signed_duration_since(expected.instant) / 2)
}

/// Looks at one schedule anew.
#[must_use]
pub fn resume(schedule: &Schedule, known: Option<Known<'_>>, at: &Moment) -> Resumed {
    let now = at.now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(at.now);
    let at = &Moment { now, floor: at.floor.max(now), ..*at };
    let timing = match &schedule.timing {
        Ok(timing) => timing,
        Err(why) => return invalid(why, known.as_ref()),
    };
    // what was invalid keeps the timing that it had before
    match known.filter(|known| known.fingerprint == Some(&*timing.fingerprint)) {
        Some(known) => match &timing.rule {
            Rule::Every(_) | Rule::Cron(_) => go_on(schedule, timing, &known, at),
            Rule::At(_) => still_at(timing, &known, at),
            Rule::After(delay) => still_after(timing, *delay, &known, at),
        },
        None => anew(timing, known.as_ref(), at),
    }
}

/// Its ticks are taken back, and its timing is kept for when it can be read again.
fn invalid(why: &str, known: Option<&Known<'_>>) -> Resumed {
    Resumed {
        status: EntryStatus::PausedInvalid,
        reason: Some(why.to_owned()),
        anchor: known.and_then(|known| known.anchor),
        armed_by: known.and_then(|known| known.armed_by),
        ..Resumed::of(EntryStatus::PausedInvalid)
    }
}

/// A schedule that is new, or has another timing than before.
fn anew(timing: &Timing, known: Option<&Known<'_>>, at: &Moment) -> Resumed {
    match timing.rule {
        Rule::Every(_) => {
            // counted from its last firing, a change does not delay it by more than its interval
            let begin = known.and_then(|known| known.last_instant.or(known.anchor));
            let anchor = begin.filter(|begin| *begin <= at.now).unwrap_or(at.now);
            Resumed { anchor: Some(anchor), ..Resumed::forward(timing.next(anchor, at.now)) }
        }
        Rule::Cron(_) => Resumed::forward(timing.next(at.now, at.now)),
        Rule::At(_) => first_at(timing, at),
        Rule::After(delay) => armed(timing, delay, at),
    }
}

/// `at` that is expected from now on.
fn first_at(timing: &Timing, at: &Moment) -> Resumed {
    let Rule::At(instant) = timing.rule else { return Resumed::of(EntryStatus::Exhausted) };
    if instant <= at.now {
        let reason = format!("its time, {}, was past when it was first seen", time::format(instant));
        return Resumed { is_surprising: true, ..Resumed::exhausted(reason) };
    }
    Resumed::forward(Some(when_open(timing, timing.expected(instant))))
}

/// `after`: armed by a start of the gateway only.
fn armed(timing: &Timing, delay: Duration, at: &Moment) -> Resumed {
    if !at.is_start {
        return Resumed::exhausted("it is armed by the next start of the gateway".to_owned());
    }
    arm(timing, delay, at.started, at)
}

fn arm(timing: &Timing, delay: Duration, from: Timestamp, at: &Moment) -> Resumed {
    let before = from.checked_sub_signed(TimeDelta::milliseconds(1)).unwrap_or(from);
    let Some(expected) = timing.next(from, before) else {
        return Resumed::exhausted(format!("{delay:?} after the start is beyond the calendar"));
    };
    Resumed { anchor: Some(from), armed_by: Some(at.boot), ..Resumed::forward(Some(when_open(timing, expected))) }
}

/// What fires once waits for its window.
fn when_open(timing: &Timing, expected: Expected) -> Expected {
    Expected { due: timing.opens(expected.due).unwrap_or(expected.due), ..expected }
}

fn still_at(timing: &Timing, known: &Known<'_>, at: &Moment) -> Resumed {
    if known.status == EntryStatus::Exhausted {
        return Resumed::kept(known);
    }
    match known.expected {
        [] if known.last_instant.is_some() => Resumed::exhausted("it has fired".to_owned()),
        [] => first_at(timing, at),
        // it fires late, for it has never fired
        _ => waiting(timing, known, at),
    }
}

/// What fires once and is overdue waits again when its window has closed meanwhile.
fn waiting(timing: &Timing, known: &Known<'_>, at: &Moment) -> Resumed {
    let mut kept = Resumed::kept(known);
    for expected in &mut kept.expect {
        let is_late = at.now.signed_duration_since(expected.due) > GRACE;
        if is_late
            && timing.closed(at.now).is_some()
            && let Some(due) = timing.opens(at.now)
        {
            expected.due = due;
        }
    }
    kept
}

fn still_after(timing: &Timing, delay: Duration, known: &Known<'_>, at: &Moment) -> Resumed {
    let forward = known.expected.last();
    if known.armed_by != Some(at.boot) {
        let was_due = forward.is_some_and(|expected| expected.due < at.started);
        let others_end = match was_due {
            true => (TickStatus::Missed, TickReason::GatewayDown),
            false => (TickStatus::Skipped, TickReason::Replaced),
        };
        return Resumed { others_end, ..armed(timing, delay, at) };
    }
    let Some(forward) = forward else {
        return match known.status {
            EntryStatus::Exhausted => Resumed::kept(known),
            _ => Resumed::exhausted("it is armed by the next start of the gateway".to_owned()),
        };
    };
    let delay_ahead = TimeDelta::from_std(delay).ok().and_then(|delay| at.now.checked_add_signed(delay));
    if delay_ahead.is_some_and(|latest| forward.instant > latest) {
        let others_end = (TickStatus::Skipped, TickReason::ClockWentBack);
        return Resumed { others_end, ..arm(timing, delay, at.now, at) };
    }
    waiting(timing, known, at)
}

/// An interval or an expression that is known.
fn go_on(schedule: &Schedule, timing: &Timing, known: &Known<'_>, at: &Moment) -> Resumed {
    let anchor = known.anchor.unwrap_or(at.now);
    let kept = Resumed::kept(known);
    let Some((forward, overdue)) = known.expected.split_last() else {
        // it was not to be read, or its next tick had ended before it was expected
        let has_grid = matches!(timing.rule, Rule::Every(_));
        return Resumed { anchor: has_grid.then_some(anchor), ..Resumed::forward(timing.next(anchor, at.floor)) };
    };
    // what was to be made good for is ahead again, by a clock that went back
    let (overdue, ahead): (Vec<Expected>, Vec<_>) = overdue.iter().partition(|expected| expected.due <= at.now);
    let (old, late): (Vec<_>, Vec<_>) = overdue.into_iter().partition(|expected| expected.due < at.started);
    let line = Line { schedule, timing, anchor, own_rows: at.own_rows.max(1) };
    if forward.due < at.started {
        return line.was_down(kept, *forward, &old, at);
    }
    // what catches up since an earlier start does so by the policy of today
    let (mut expect, ended) = line.choose(&old, &mut line.run());
    expect.extend(late);
    let kept = match ahead.is_empty() {
        true => Resumed { ended, ..kept },
        false => Resumed { ended, others_end: (TickStatus::Skipped, TickReason::ClockWentBack), ..kept },
    };
    if forward.due <= at.now {
        return line.was_late(kept, expect, *forward, at);
    }
    match went_back(timing, anchor, forward, at) {
        Some((anchor, next)) => {
            expect.push(next);
            let others_end = (TickStatus::Skipped, TickReason::ClockWentBack);
            Resumed { anchor: Some(anchor), others_end, expect, ..kept }
        }
        None => {
            expect.push(*forward);
            Resumed { expect, ..kept }
        }
    }
}

/// The grid's anchor and its next tick, when the forward tick is farther ahead than it can be by this clock.
fn went_back(timing: &Timing, anchor: Timestamp, forward: &Expected, at: &Moment) -> Option<(Timestamp, Expected)> {
    if let Rule::Every(interval) = timing.rule {
        let most = TimeDelta::from_std(interval.saturating_add(timing.jitter)).ok()?;
        if forward.instant <= at.now.checked_add_signed(most)? {
            return None;
        }
        return Some((at.now, timing.next(at.now, at.now)?));
    }
    let next = timing.next(anchor, at.floor)?;
    (next.instant < forward.instant).then_some((anchor, next))
}

/// The instants of one schedule.
struct Line<'a> {
    schedule: &'a Schedule,
    timing: &'a Timing,
    anchor: Timestamp,
    own_rows: usize,
}

impl Line<'_> {
    /// The forward tick was due before the gateway started; `old` ones wait to catch up since before.
    fn was_down(&self, kept: Resumed, forward: Expected, old: &[Expected], at: &Moment) -> Resumed {
        let mut passed = self.run();
        self.pass(&mut passed, forward, |expected| expected.due < at.started, at.started);
        let last = passed.last().unwrap_or(forward.instant);
        let mut next = None;
        // the newest of an expression may still fire: nobody cares for a minute
        if matches!(self.timing.rule, Rule::Cron(_))
            && let Some(newest) = passed.newest.back().copied()
            && self.is_young(newest, at.now)
        {
            passed.newest.pop_back();
            next = Some(newest);
        }
        let next = next.or_else(|| self.timing.next(self.anchor, last));
        let (caught_up, mut ended) = self.choose(old, &mut passed);
        let expect = caught_up.into_iter().chain(next).collect();
        ended.extend(passed.into_rows(TickReason::GatewayDown));
        Resumed { expect, ended, ..kept.unless_over(next) }
    }

    /// The forward tick is overdue, and perhaps more after it: the clock jumped, the machine slept, or the ledger was held
    /// up. The forward one fires all the same.
    fn was_late(&self, kept: Resumed, mut expect: Vec<Expected>, forward: Expected, at: &Moment) -> Resumed {
        expect.push(forward);
        let is_over = |expected: &Expected| expected.due <= at.now && !self.is_young(*expected, at.now);
        let mut passed = self.run();
        if let Some(second) = self.timing.next(self.anchor, forward.instant) {
            self.pass(&mut passed, second, is_over, at.now);
        }
        let Some(last) = passed.last() else { return Resumed { expect, ..kept } };
        let was_jumped = at.jump.is_some_and(|(from, to)| forward.due <= to && last > from);
        let reason = if was_jumped { TickReason::ClockJumped } else { TickReason::Overrun };
        let next = self.timing.next(self.anchor, last);
        let (caught_up, _) = self.choose(&[], &mut passed);
        expect.extend(caught_up.into_iter().chain(next));
        let mut ended = kept.ended;
        ended.extend(passed.into_rows(reason));
        Resumed { expect, ended, ..kept }
    }

    /// Takes those out that are made good for, of `passed` and of the `old` ones before it, and answers how the other old
    /// ones end.
    fn choose(&self, old: &[Expected], passed: &mut Run) -> (Vec<Expected>, Vec<Passed>) {
        let most = match self.schedule.catch_up {
            _ if !matches!(self.timing.rule, Rule::Every(_)) => 0,
            CatchUp::Skip => 0,
            CatchUp::RunOnce => 1,
            CatchUp::RunAll => MOST_CAUGHT_UP,
        };
        // what was due outside of its window would not have fired either
        let is_open = |expected: &&Expected| self.timing.closed(expected.due).is_none();
        let all = old.iter().chain(&passed.newest).rev().filter(is_open);
        let mut chosen: Vec<Expected> = all.take(most).copied().collect();
        chosen.reverse();
        let is_chosen = |expected: &Expected| chosen.binary_search(expected).is_ok();
        passed.newest.retain(|expected| !is_chosen(expected));
        // a shared row spans nothing that is caught up
        let spared = chosen.first().map_or(0, |first| passed.newest.iter().filter(|e| *e > first).count());
        passed.keep(self.own_rows.max(spared));
        let others = old.iter().copied().filter(|expected| !is_chosen(expected)).collect();
        let ended = Run { newest: others, ..self.run() }.into_rows(TickReason::GatewayDown);
        (chosen, ended)
    }

    /// Of an expression nothing is caught up, so that no more of the newest are needed than get rows.
    fn run(&self) -> Run {
        let most = if matches!(self.timing.rule, Rule::Every(_)) { NEWEST } else { self.own_rows };
        Run { earlier: None, newest: VecDeque::new(), most }
    }

    fn is_young(&self, expected: Expected, now: Timestamp) -> bool {
        is_young(self.timing, self.anchor, expected, now)
    }

    /// From `first` on as long as they are `over`, which ends at `until` at the latest.
    fn pass(&self, run: &mut Run, first: Expected, is_over: impl Fn(&Expected) -> bool, until: Timestamp) {
        let mut next = Some(first).filter(&is_over);
        let mut counted = 0;
        while let Some(expected) = next {
            run.push(expected);
            counted += 1;
            let mut from = expected.instant;
            if counted == self.counted_before_a_leap() {
                from = self.leap(run, first.instant, from, until);
                counted = 1;
            }
            next = self.timing.next(self.anchor, from).filter(&is_over);
        }
    }

    fn counted_before_a_leap(&self) -> u32 {
        match self.timing.rule {
            // by division
            Rule::Every(_) => 2,
            _ => u32::try_from(self.own_rows * COUNTED).unwrap_or(u32::MAX),
        }
    }

    /// Counts what lies between without looking at it, and answers from where to look on: enough of the newest are left.
    fn leap(&self, run: &mut Run, first: Timestamp, from: Timestamp, until: Timestamp) -> Timestamp {
        let gap = match self.timing.rule {
            Rule::Every(interval) => i64::try_from(interval.as_millis()).unwrap_or(i64::MAX),
            _ => from.signed_duration_since(first).num_milliseconds() / (run.count() - 1).max(1),
        };
        let gap = gap.max(1);
        let left = until.signed_duration_since(from).num_milliseconds() / gap;
        let spared = left.saturating_sub(2 * run.most as i64);
        let to = gap.checked_mul(spared).and_then(|ms| from.checked_add_signed(TimeDelta::milliseconds(ms)));
        match to {
            Some(to) if spared > 0 => {
                run.skip_to(to, u32::try_from(spared).unwrap_or(u32::MAX));
                to
            }
            _ => from,
        }
    }
}

/// Instants that passed: the newest one by one, the earlier ones as a number.
#[derive(Debug)]
struct Run {
    /// The first, the last, how many.
    earlier: Option<(Expected, Timestamp, u32)>,
    newest: VecDeque<Expected>,
    /// So many are kept one by one.
    most: usize,
}

impl Run {
    fn push(&mut self, expected: Expected) {
        self.newest.push_back(expected);
        self.keep(self.most);
    }

    /// Leaves so many of the newest; those before are counted.
    fn keep(&mut self, newest: usize) {
        while self.newest.len() > newest
            && let Some(oldest) = self.newest.pop_front()
        {
            self.count_in(oldest, oldest.instant, 1);
        }
    }

    fn count_in(&mut self, first: Expected, last: Timestamp, instants: u32) {
        let (first, before) = self.earlier.map_or((first, 0), |(first, _, before)| (first, before));
        self.earlier = Some((first, last, before.saturating_add(instants)));
    }

    /// All so far and `skipped` more, up to that instant, are earlier ones.
    fn skip_to(&mut self, last: Timestamp, skipped: u32) {
        self.keep(0);
        if let Some((first, ..)) = self.earlier {
            self.count_in(first, last, skipped);
        }
    }

    /// How many passed.
    fn count(&self) -> i64 {
        self.newest.len() as i64 + self.earlier.map_or(0, |(.., n)| i64::from(n))
    }

    /// Nothing that passed is after it.
    fn last(&self) -> Option<Timestamp> {
        let newest = self.newest.back().map(|newest| newest.instant);
        newest.or(self.earlier.map(|(_, last, _)| last))
    }

    fn into_rows(self, reason: TickReason) -> Vec<Passed> {
        let missed =
            |Expected { instant, due }, last| Passed { instant, due, last, status: TickStatus::Missed, reason };
        let earlier = self.earlier.map(|(first, last, n)| missed(first, (n > 1).then_some((last, n))));
        earlier.into_iter().chain(self.newest.into_iter().map(|expected| missed(expected, None))).collect()
    }
}

impl Resumed {
    fn of(status: EntryStatus) -> Self {
        Self {
            status,
            reason: None,
            anchor: None,
            armed_by: None,
            others_end: (TickStatus::Skipped, TickReason::Replaced),
            ended: Vec::new(),
            expect: Vec::new(),
            is_surprising: false,
        }
    }

    fn exhausted(reason: String) -> Self {
        Self { reason: Some(reason), ..Self::of(EntryStatus::Exhausted) }
    }

    fn forward(next: Option<Expected>) -> Self {
        Self { expect: next.into_iter().collect(), ..Self::of(EntryStatus::Active).unless_over(next) }
    }

    /// As the rows say.
    fn kept(known: &Known<'_>) -> Self {
        let status = match known.status {
            EntryStatus::Exhausted if known.expected.is_empty() => EntryStatus::Exhausted,
            _ => EntryStatus::Active,
        };
        Self {
            reason: known.reason.filter(|_| status == EntryStatus::Exhausted).map(str::to_owned),
            anchor: known.anchor,
            armed_by: known.armed_by,
            expect: known.expected.to_vec(),
            ..Self::of(status)
        }
    }

    fn unless_over(self, next: Option<Expected>) -> Self {
        if next.is_some() {
            return self;
        }
        let reason = Some("it has no further instant".to_owned());
        Self { status: EntryStatus::Exhausted, reason, ..self }
    }
}
