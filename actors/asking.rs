//! The way back of a claim: what was granted is begun where it is granted, and told to the dispatcher.

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
    /// Begun by whoever brought an end, and not written yet.
    untold: Mutex<Vec<(Fence, Claims, JobArgs)>>,
}

impl Asking {
    pub(crate) fn new(
        dispatcher: Slot<Msg>,
        shared: Arc<Shared>,
        generation: Arc<Generation>,
        claim: u64,
    ) -> Arc<Self> {
        Arc::new(Self { dispatcher, shared, generation, claim, untold: Mutex::default() })
    }

    /// Begins what was granted.
    pub(crate) fn decided(&self, claims: Claims) {
        let mut begun: Vec<_> =
            claims.claimed.iter().map(|claimed| attempt::begin(&self.shared, &self.generation, claimed)).collect();
        // It runs already, so that its actor may come with the commit: one wake-up for all that are written together.
        if claims.is_taken
            && let [args] = &mut begun[..]
        {
            let args = args.clone();
            self.untold().push((args.job.fence, claims, args));
            return;
        }
        self.tell(claims, begun);
    }

    /// The row of an attempt is written.
    pub(crate) fn started(&self, job: &ClaimedJob, transition: i64) {
        announce::started(&self.shared, job, transition);
        let told = {
            let mut untold = self.untold();
            let at = untold.iter().position(|(fence, ..)| *fence == job.fence);
            at.map(|at| untold.swap_remove(at))
        };
        if let Some((_, claims, args)) = told {
            self.tell(claims, vec![args]);
        }
    }

    /// Lost when the mailbox is full: then the processes are ended, and the dispatcher's next poll counts again.
    fn tell(&self, claims: Claims, begun: Vec<JobArgs>) {
        let _ = self.dispatcher.try_cast(Msg::Decided { claim: self.claim, claims, begun });
    }

    fn untold(&self) -> MutexGuard<'_, Vec<(Fence, Claims, JobArgs)>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.dispatcher.try_cast(Msg::Over { claim: self.claim });
    }
}
