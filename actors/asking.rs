//! The way back of a claim: what was granted is begun where it is granted, and told to the dispatcher.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ductile_domain::generation::Generation;
use ductile_domain::job::{ClaimedJob, Fence};
use ductile_ledger::Claims;
use ductile_otp::Slot;

use crate::dispatcher::Msg;
use crate::job::JobArgs;
use crate::shared::Shared;
use crate::{announce, attempt};

/// Dropped when nothing more will be decided: what was granted and not told is ended and given back.
pub(crate) struct Asking {
    dispatcher: Slot<Msg>,
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    /// Number of the claim.
    claim: u64,
    /// Begun by whoever brought an end.
    taken: Pairs<(Claims, JobArgs)>,
}

impl Asking {
    pub(crate) fn new(
        dispatcher: Slot<Msg>,
        shared: Arc<Shared>,
        generation: Arc<Generation>,
        claim: u64,
    ) -> Arc<Self> {
        Arc::new(Self { dispatcher, shared, generation, claim, taken: Pairs::default() })
    }

    /// Begins what was granted.
    pub(crate) fn decided(&self, claims: Claims) {
        let mut begun: Vec<_> =
            claims.claimed.iter().map(|claimed| attempt::begin(&self.shared, &self.generation, claimed)).collect();
        // It runs already, so that its actor may come with the commit: one wake-up for all that are written together.
        if claims.is_taken
            && let Some(args) = begun.pop()
        {
            if let Some((claims, args)) = self.taken.begun(args.job.fence, (claims, args)) {
                self.tell(claims, vec![args]);
            }
            return;
        }
        self.tell(claims, begun);
    }

    /// The row of an attempt is written.
    pub(crate) fn started(&self, job: &ClaimedJob, transition: i64) {
        announce::started(&self.shared, job, transition);
        if let Some((claims, args)) = self.taken.written(job.fence) {
            self.tell(claims, vec![args]);
        }
    }

    /// Lost when the mailbox is full: then the processes are ended, and the dispatcher's next poll counts again.
    fn tell(&self, claims: Claims, begun: Vec<JobArgs>) {
        let _ = self.dispatcher.try_cast(Msg::Decided { claim: self.claim, claims, begun });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.dispatcher.try_cast(Msg::Over { claim: self.claim });
    }
}

/// Brings together that an attempt was begun and that its row is written: whoever begins it is not waited for by the
/// writer, so that either may come first. What the writer itself has granted is noted in vain, once for each candidate.
struct Pairs<T>(Mutex<HashMap<Fence, Option<T>>>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Pairs<T> {
    /// Hands it back when its row is written already.
    fn begun(&self, fence: Fence, attempt: T) -> Option<T> {
        let mut pairs = self.lock();
        if pairs.remove(&fence).is_some() {
            return Some(attempt);
        }
        pairs.insert(fence, Some(attempt));
        None
    }

    /// Hands out what was begun before.
    fn written(&self, fence: Fence) -> Option<T> {
        let mut pairs = self.lock();
        let begun = pairs.remove(&fence).flatten();
        if begun.is_none() {
            pairs.insert(fence, None);
        }
        begun
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fence, Option<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ductile_domain::ids::JobId;

    use super::*;

    /// A commit takes no longer than a thread may have to wait for its processor.
    #[test]
    fn an_attempt_is_handed_out_whether_its_row_or_its_process_is_first() {
        let fence = Fence { job: JobId::from(uuid::Uuid::now_v7()), claim_no: 1 };
        let again = Fence { claim_no: 2, ..fence };
        let pairs = Pairs::default();
        assert_eq!(pairs.begun(fence, "first"), None);
        assert_eq!(pairs.written(again), None);
        assert_eq!(pairs.written(fence), Some("first"));
        assert_eq!(pairs.begun(again, "second"), Some("second"));
        assert!(pairs.lock().is_empty());
    }
}
