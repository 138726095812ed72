//! What others tell the scheduler without waiting for it: a schedule was paused or resumed, the clock went back, a job
//! ended that a tick may wait for. Survives it, and is only a hint: the rows say the same.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::scheduler;
use crate::shared::Shared;

/// Read by the scheduler whenever it wakes.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// All schedules of this start were looked at once.
    is_under_way: AtomicBool,
    /// Counts reasons to look at all rows anew.
    changes: AtomicU64,
    /// Ticks wait for ends of jobs.
    has_waiting: AtomicBool,
    /// The plugins of which jobs ended meanwhile.
    ended: Mutex<HashSet<Arc<str>>>,
}

impl Hints {
    /// False until all schedules of this start have been looked at: what one incarnation of the scheduler has not done,
    /// the next does as the first.
    pub(crate) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    pub(crate) fn set_under_way(&self) {
        self.is_under_way.store(true, Ordering::Release);
    }

    /// Changes when the rows of schedules were changed by somebody else, or mean something else by now.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The rows of schedules are to be looked at anew.
    pub(crate) fn changed(&self, shared: &Shared) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        shared.addresses.scheduler.wake(|| scheduler::Msg::Look);
    }

    /// Whether to be told of ends of jobs.
    pub(crate) fn wait_for_jobs(&self, has_waiting: bool) {
        self.has_waiting.store(has_waiting, Ordering::Release);
    }

    /// A job ended for good. Costs one look when no tick waits.
    pub(crate) fn job_ended(&self, shared: &Shared, plugin: &Arc<str>) {
        if !self.has_waiting.load(Ordering::Acquire) {
            return;
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(plugin.clone());
        shared.addresses.scheduler.wake(|| scheduler::Msg::Look);
    }

    /// The plugins of which jobs ended since the last question.
    pub(crate) fn ended(&self) -> HashSet<Arc<str>> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
