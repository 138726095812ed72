//! What the writer shares with those who hand it the ends of attempts: the slots, and the next attempts, read ahead.
//!
//! Whoever brings a plain end takes the next attempt for its slot himself, so that no process waits for the writer to wake.
//! Both are the writer's to write, together, with its next transaction. Whatever may change what was read ahead clears
//! it under the same lock, and takes in what was taken before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ductile_domain::builtin::is_builtin;
use ductile_domain::job::Fence;

use super::batch::Item;
use super::claim::{Grant, Slots};
use super::{Ask, Op, Then};
use crate::clock::Clock;
use crate::ops::{Claims, Finish, Finished};

/// How long what was read ahead may be taken: somebody else may write into the file meanwhile.
const FRESH: Duration = Duration::from_millis(50);

/// The floor between the writer and everybody else.
pub(super) struct Floor {
    inner: Mutex<Inner>,
    clock: Clock,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) slots: Slots,
    /// In the order of preference.
    ready: VecDeque<Ready>,
    /// When the oldest of them was read.
    since: Option<Instant>,
    /// Ends and the grants for their slots that the writer has not seen.
    taken: Vec<Item>,
    /// The writer looks by itself in a moment.
    pub(super) is_watched: bool,
    is_closed: bool,
}

/// The next attempt of a candidate, as if it were claimed.
pub(super) struct Ready {
    pub(super) grant: Grant,
    pub(super) cap: u32,
    pub(super) max_running: u32,
    pub(super) ask: Arc<Ask>,
}

/// An attempt that was taken.
pub(super) struct Taken {
    pub(super) ask: Arc<Ask>,
    pub(super) claims: Claims,
    /// The writer sleeps.
    pub(super) is_unseen: bool,
}

impl Floor {
    pub(super) fn new(clock: Clock) -> Self {
        Self { inner: Mutex::default(), clock }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next attempt for the slot that a plain end frees. Hands `then` back when the end is the writer's matter.
    pub(super) fn take(&self, finish: &Arc<Finish>, then: Then<Finished>) -> Result<Taken, Then<Finished>> {
        let mut floor = self.lock();
        if finish.plan.state.is_some() {
            // the next attempt of the plugin must find the state that this one leaves
            floor.clear();
        }
        if finish.is_awaited || !finish.plan.is_plain() || !floor.is_fresh() {
            return Err(then);
        }
        let fence = finish.fence;
        let Some(at) = floor.next_after(fence) else { return Err(then) };
        let Some(Ready { mut grant, ask, .. }) = floor.ready.remove(at) else { return Err(then) };
        Arc::make_mut(&mut grant.claimed.job).started_at = super::store::stored(self.clock.now());
        let claimed = grant.claimed.clone();
        floor.slots.free(fence);
        floor.slots.hold(&claimed.job);
        floor.taken.push(Item::Op(Op::Finish(finish.clone(), then)));
        floor.taken.push(Item::Grant(grant, ask.started.clone()));
        let is_unseen = !std::mem::replace(&mut floor.is_watched, true);
        Ok(Taken { ask, claims: Claims { claimed: vec![claimed], refused: Vec::new(), is_taken: true }, is_unseen })
    }
}

impl Inner {
    fn is_fresh(&self) -> bool {
        !self.is_closed && self.since.is_some_and(|since| since.elapsed() < FRESH)
    }

    /// The first that fits once that slot is free.
    fn next_after(&self, fence: Fence) -> Option<usize> {
        let ending = self.slots.held(fence)?;
        self.ready.iter().position(|ready| {
            let job = &ready.grant.claimed.job;
            let others = self.slots.of(&job.plugin) - usize::from(*ending == job.plugin);
            (is_builtin(&job.plugin) || others < ready.cap as usize)
                && self.slots.len() <= ready.max_running as usize
                && !self.slots.contains(job.fence.job)
                && !self.slots.has_twin(&job.plugin, &job.command, job.dedupe_key.as_deref())
        })
    }

    /// Nothing may be taken until more is read ahead.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.since = None;
    }

    /// The candidate is decided otherwise.
    pub(super) fn remove(&mut self, row: i64) {
        self.ready.retain(|ready| ready.grant.claimed.job.row != row);
    }

    pub(super) fn has(&self, row: i64) -> bool {
        self.ready.iter().any(|ready| ready.grant.claimed.job.row == row)
    }

    /// How many are read ahead; none when they are too old.
    pub(super) fn ready(&mut self) -> usize {
        if self.since.is_some() && !self.is_fresh() {
            self.clear();
        }
        self.ready.len()
    }

    /// How many of them are the plugin's.
    pub(super) fn ready_of(&self, plugin: &str) -> usize {
        self.ready.iter().filter(|ready| &*ready.grant.claimed.job.plugin == plugin).count()
    }

    pub(super) fn put(&mut self, ready: Ready) {
        if !self.is_closed {
            self.since.get_or_insert_with(Instant::now);
            self.ready.push_back(ready);
        }
    }

    /// What was taken since the last look.
    pub(super) fn taken(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.taken)
    }

    /// Nothing is taken any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.clear();
    }
}

/// The writer's hold on the floor: however the writer ends, nothing stays there unanswered.
pub(super) struct Hold(pub(super) Arc<Floor>);

impl Drop for Hold {
    fn drop(&mut self) {
        let taken = {
            let mut floor = self.0.lock();
            floor.close();
            floor.taken()
        };
        // outside of the lock, since whoever is told may come back
        drop(taken);
    }
}
