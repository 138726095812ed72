//! What was just committed and may be dispatched, so that the queue works from memory and reads the table only at its
//! start, after an overflow and for what falls due.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ductile_domain::job::Candidate;

/// Candidates held for the queue before the rest is left to the table.
const CAPACITY: usize = 4096;

/// The shared, bounded buffer between the writer and the queue. A hint: rows are the truth.
#[derive(Clone)]
pub struct CommitFeed {
    shared: Arc<Shared>,
}

struct Shared {
    buffer: Mutex<Drained>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What had been committed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Rows that became ready, in the order of their commits.
    pub candidates: Vec<Candidate>,
    /// True when rows were left out: read the table.
    pub overflowed: bool,
}

impl CommitFeed {
    /// A feed that calls `wake` after each commit that made rows ready. `wake` runs in the writer's task: it must
    /// neither block nor panic.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { shared: Arc::new(Shared { buffer: Mutex::default(), wake: Box::new(wake) }) }
    }

    /// Takes everything that waits.
    #[must_use]
    pub fn drain(&self) -> Drained {
        std::mem::take(&mut *self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds rows that became ready. The writer does so after each commit; what became ready with a snapshot is added by
    /// whoever puts its generation in force.
    pub fn push(&self, ready: Vec<Candidate>) {
        if ready.is_empty() {
            return;
        }
        {
            let mut buffer = self.shared.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            let room = CAPACITY.saturating_sub(buffer.candidates.len());
            buffer.overflowed |= ready.len() > room;
            buffer.candidates.extend(ready.into_iter().take(room));
        }
        (self.shared.wake)();
    }
}

impl Default for CommitFeed {
    /// A feed that wakes nobody.
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl fmt::Debug for CommitFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitFeed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_feed_says_that_rows_were_left_out() {
        let feed = CommitFeed::default();
        let job: ductile_domain::ids::JobId = "01890f3e-7c5a-7000-8000-000000000001".parse().expect("a UUID");
        let candidate = Candidate { row: 1, job, plugin: "echo".into(), due: None };
        feed.push(vec![candidate.clone(); CAPACITY]);
        feed.push(vec![candidate]);
        let drained = feed.drain();
        assert_eq!((drained.candidates.len(), drained.overflowed), (CAPACITY, true));
        assert_eq!(feed.drain(), Drained::default());
    }
}
