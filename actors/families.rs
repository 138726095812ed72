//! Who waits for a job with all that follows from it: told by the ends of its jobs, which name what they cause.
//!
//! What is known here is a hint; the rows are read before anybody is told that a family has ended.

use std::collections::HashSet;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ductile_domain::ids::JobId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shared::{SLOW_POLL, Shared};

/// The families that somebody waits for. Few: the doors bound them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Families(Arc<Mutex<Vec<Arc<Watch>>>>);

#[derive(Debug, Default)]
struct Watch {
    known: Mutex<Known>,
    over: Notify,
}

/// What is known of a family.
#[derive(Debug)]
enum Known {
    /// Its rows are being read: ends that arrive meanwhile are kept, each with what it causes.
    Nothing(Vec<(JobId, Vec<JobId>)>),
    /// Its jobs that have not ended.
    Open(HashSet<JobId>),
}

impl Default for Known {
    fn default() -> Self {
        Self::Nothing(Vec::new())
    }
}

/// A place among those who wait; dropping it gives it up.
struct Watcher {
    watch: Arc<Watch>,
    families: Families,
}

impl Families {
    fn watch(&self) -> Watcher {
        let watch = Arc::new(Watch::default());
        self.lock().push(watch.clone());
        Watcher { watch, families: self.clone() }
    }

    /// A job has ended and caused `followers`. Costs a look at an empty list when nobody waits.
    pub(crate) fn ended(&self, job: JobId, followers: impl Fn() -> Vec<JobId>) {
        let watches = self.lock();
        if watches.is_empty() {
            return;
        }
        let followers = followers();
        for watch in watches.iter() {
            watch.ended(job, &followers);
        }
    }

    /// Families that are waited for.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Watch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn ended(&self, job: JobId, followers: &[JobId]) {
        match &mut *self.lock() {
            Known::Nothing(meanwhile) => meanwhile.push((job, followers.to_vec())),
            Known::Open(open) => {
                if end(open, job, followers) && open.is_empty() {
                    self.over.notify_waiters();
                }
            }
        }
    }

    /// The rows are about to be read.
    fn forget(&self) {
        *self.lock() = Known::default();
    }

    /// These had not ended when they were read. False when all of them have by now.
    fn learn(&self, read: &[JobId]) -> bool {
        let mut known = self.lock();
        let mut open: HashSet<JobId> = read.iter().copied().collect();
        if let Known::Nothing(meanwhile) = &mut *known {
            // What ended before the read and was told after it is in none of the rows, and adds nothing.
            for (job, followers) in mem::take(meanwhile) {
                end(&mut open, job, &followers);
            }
        }
        let has_open = !open.is_empty();
        *known = Known::Open(open);
        has_open
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the job was one of the family's.
fn end(open: &mut HashSet<JobId>, job: JobId, followers: &[JobId]) -> bool {
    let was_open = open.remove(&job);
    if was_open {
        open.extend(followers);
    }
    was_open
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.families.lock().retain(|watch| !Arc::ptr_eq(watch, &self.watch));
    }
}

/// Waits until the job and all that followed from it have ended, and that is on disk. False after `timeout`.
pub(crate) async fn wait(shared: &Shared, job: JobId, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Watcher { watch, .. } = &shared.families.watch();
    loop {
        let mut over = pin!(watch.over.notified());
        over.as_mut().enable();
        watch.forget();
        match shared.readers.open_in_family(job).await {
            Ok(open) if open.is_empty() => return is_on_disk(shared).await,
            // all have ended since: their rows are read again
            Ok(open) if !watch.learn(&open) => continue,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(component = "api", job_id = %job, %error, "could not read what followed from a job; trying again");
            }
        }
        let poll = (Instant::now() + SLOW_POLL).min(deadline);
        let _ = tokio::time::timeout_at(poll, over).await;
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Ends are not synced by themselves. Whoever is told of them must not see them undone by a power cut.
async fn is_on_disk(shared: &Shared) -> bool {
    match shared.sync_ledger().await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(component = "ledger", %error, "could not sync what is about to be answered");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>() -> [JobId; N] {
        std::array::from_fn(|_| JobId::from(uuid::Uuid::now_v7()))
    }

    /// A chain whose middle ended between the read of the rows and the moment at which they are known.
    #[test]
    fn what_ends_while_the_rows_are_read_is_not_missed() {
        let families = Families::default();
        let [first, second, third, stranger] = ids();
        let Watcher { watch, .. } = &families.watch();
        families.ended(first, || vec![second]);
        families.ended(second, || vec![third]);
        families.ended(stranger, || vec![first]);
        assert!(watch.learn(&[second]), "the third is open");
        assert!(matches!(&*watch.lock(), Known::Open(open) if *open == HashSet::from([third])));
        families.ended(third, Vec::new);
        assert!(matches!(&*watch.lock(), Known::Open(open) if open.is_empty()));
        assert!(!watch.learn(&[]));
    }

    #[test]
    fn nobody_is_remembered_who_waits_no_more() {
        let families = Families::default();
        let (one, two) = (families.watch(), families.watch());
        drop(one);
        assert_eq!(families.len(), 1);
        drop(two);
        families.ended(ids::<1>()[0], || panic!("nobody waits"));
        assert_eq!(families.len(), 0);
    }
}
