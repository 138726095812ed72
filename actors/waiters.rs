//! Who waits for the end of a job: told at the commit that makes it terminal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ductile_domain::ids::JobId;
use tokio::sync::Notify;

/// Waiting callers by job. A waiter that goes away leaves nothing behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters {
    by_job: Arc<Mutex<HashMap<JobId, Arc<Notify>>>>,
}

/// A place in the line; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Waiter {
    job: JobId,
    notify: Arc<Notify>,
    waiters: Waiters,
}

impl Waiters {
    /// Registers interest. Register first and read the row afterwards, so that no end falls in between.
    pub(crate) fn register(&self, job: JobId) -> Waiter {
        let mut by_job = self.by_job.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = by_job.entry(job).or_default().clone();
        Waiter { job, notify, waiters: self.clone() }
    }

    /// Jobs that somebody waits for.
    pub(crate) fn len(&self) -> usize {
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Wakes everyone who waits for `job`. Costs a look into an empty map when nobody does.
    pub(crate) fn ended(&self, job: JobId) {
        let by_job = self.by_job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = by_job.get(&job) {
            notify.notify_waiters();
        }
    }
}

impl Waiter {
    /// Resolves at the job's end. Poll it once (see [`tokio::sync::futures::Notified::enable`]) before reading the row.
    pub(crate) fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut by_job = self.waiters.by_job.lock().unwrap_or_else(PoisonError::into_inner);
        // Two owners are the map's entry and this waiter: nobody else is left.
        if Arc::strong_count(&self.notify) == 2 {
            by_job.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test]
    async fn all_waiters_hear_of_the_end_and_leave_nothing_behind() {
        let waiters = Waiters::default();
        let job = JobId::from(uuid::Uuid::now_v7());
        let (one, two) = (waiters.register(job), waiters.register(job));
        {
            let (mut first, mut second) = (pin!(one.ended()), pin!(two.ended()));
            first.as_mut().enable();
            second.as_mut().enable();
            waiters.ended(job);
            first.await;
            second.await;
        }
        drop(one);
        assert_eq!(waiters.by_job.lock().expect("not poisoned").len(), 1);
        drop(two);
        assert!(waiters.by_job.lock().expect("not poisoned").is_empty());
    }
}
