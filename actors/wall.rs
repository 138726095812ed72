//! What was seen of the wall clock, and whether it jumped: it is compared with a clock that nobody can set.
//!
//! Survives every actor: whoever looks first notices a jump, and all hear of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::event::LiveEvent;
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::Clock;
use serde_json::{Map, Value};

use crate::shared::Shared;

/// Less is the clock being corrected.
const JUMP: TimeDelta = TimeDelta::seconds(1);

/// A clock that jumps again and again holds nobody up for longer.
const LONGEST_UNREST: Duration = Duration::from_secs(600);

/// The last look at the clock.
#[derive(Debug)]
pub(crate) struct Wall {
    clock: Clock,
    seen: Mutex<Seen>,
}

/// What one look saw.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the gateway started, by the clock as it goes now: nothing is due before it that was not due while it was down.
    started: Timestamp,
    wall: Timestamp,
    steady: Duration,
    /// The last jump: from, to.
    jump: Option<(Timestamp, Timestamp)>,
    /// When it was noticed, or the start.
    calm_since: Duration,
    /// When somebody was last told that it is calm, or the start.
    told_calm: Duration,
}

impl Wall {
    /// The gateway starts now.
    pub(crate) fn new(clock: Clock) -> Self {
        let (wall, steady) = clock.reading();
        Self {
            clock,
            seen: Mutex::new(Seen { started: wall, wall, steady, jump: None, calm_since: steady, told_calm: steady }),
        }
    }

    pub(crate) fn started(&self) -> Timestamp {
        self.lock().started
    }

    /// The last jump of the clock: from, to.
    pub(crate) fn jump(&self) -> Option<(Timestamp, Timestamp)> {
        self.lock().jump
    }

    /// Whether the clock has not jumped for so long, nor the gateway started. One that jumps all the time is called calm
    /// now and then.
    pub(crate) fn is_calm(&self, patience: Duration) -> bool {
        let (_, steady) = self.clock.reading();
        let mut seen = self.lock();
        let longest = LONGEST_UNREST.max(patience * 2);
        let is_calm =
            steady.saturating_sub(seen.calm_since) >= patience || steady.saturating_sub(seen.told_calm) >= longest;
        if is_calm {
            seen.told_calm = steady;
        }
        is_calm
    }

    /// Looks at the clock. Answers the time, and by how much it jumped since the last look.
    fn look(&self) -> (Timestamp, Option<TimeDelta>) {
        let mut seen = self.lock();
        let (wall, steady) = self.clock.reading();
        let passed = TimeDelta::from_std(steady.saturating_sub(seen.steady)).unwrap_or(TimeDelta::MAX);
        let by = wall.signed_duration_since(seen.wall).checked_sub(&passed).unwrap_or(TimeDelta::MAX);
        let jumped = by.abs() >= JUMP;
        if jumped {
            seen.jump = Some((seen.wall, wall));
            seen.calm_since = steady;
            seen.started = seen.started.min(wall);
        }
        (seen.wall, seen.steady) = (wall, steady);
        (wall, jumped.then_some(by))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time. A jump since the last look is told, and the rows of schedules are looked at anew after one back.
pub(crate) fn look(shared: &Shared) -> Timestamp {
    let (now, jumped) = shared.wall.look();
    if let Some(by) = jumped {
        let by_ms = by.num_milliseconds();
        let direction = if by_ms < 0 { "back" } else { "forward" };
        tracing::warn!(component = "scheduler", by_ms, now = %time::format(now), "the clock went {direction}, or the machine slept");
        let fields = Map::from_iter([("by_ms".to_owned(), Value::from(by_ms))]);
        shared.ring.emit(LiveEvent::other("clock.jumped", now, fields));
        if by_ms < 0 {
            shared.hints.changed(shared);
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_passing_of_time_explains_is_a_jump() {
        let at = time::parse("2026-03-01T12:00:00Z").expect("a time");
        let (clock, hand) = Clock::by_hand(at);
        let wall = Wall::new(clock);
        hand.pass(Duration::from_secs(3_600));
        assert_eq!(wall.look(), (at + TimeDelta::hours(1), None));
        assert_eq!((wall.started(), wall.jump()), (at, None));
        assert!(wall.is_calm(Duration::from_secs(3_600)) && !wall.is_calm(Duration::from_secs(3_601)));
        hand.set(at + TimeDelta::hours(3));
        assert_eq!(wall.look().1, Some(TimeDelta::hours(2)));
        assert_eq!(wall.jump(), Some((at + TimeDelta::hours(1), at + TimeDelta::hours(3))));
        assert!(wall.started() == at && !wall.is_calm(Duration::from_secs(1)));
        hand.set(at - TimeDelta::hours(1));
        assert_eq!(wall.look().1, Some(TimeDelta::hours(-4)));
        assert_eq!(wall.started(), at - TimeDelta::hours(1), "a start lies in no future");
        hand.set(at - TimeDelta::hours(1) - TimeDelta::milliseconds(900));
        assert_eq!(wall.look().1, None, "a correction is no jump");
    }

    #[test]
    fn a_clock_that_jumps_all_the_time_is_called_calm_now_and_then() {
        let (clock, hand) = Clock::by_hand(time::parse("2026-03-01T12:00:00Z").expect("a time"));
        let wall = Wall::new(clock);
        let patience = Duration::from_secs(120);
        let mut calm = Vec::new();
        for minute in 1..=30 {
            hand.pass(Duration::from_secs(60));
            hand.set(hand.now() + TimeDelta::seconds(2));
            assert!(wall.look().1.is_some());
            if wall.is_calm(patience) {
                calm.push(minute);
            }
        }
        assert_eq!(calm, [10, 20, 30]);
        hand.pass(patience);
        wall.look();
        assert!(wall.is_calm(patience), "it is");
        hand.set(hand.now() - TimeDelta::hours(1));
        wall.look();
        assert!(!wall.is_calm(patience), "one jump holds up as before");
    }
}
