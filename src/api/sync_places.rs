//! The places of calls that wait for a pipeline's end: counted over all doors, with a limit that a reload may change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many synchronous calls wait now; the gateway holds one for its whole life.
#[derive(Debug, Clone, Default)]
pub struct SyncPlaces {
    taken: Arc<AtomicU32>,
}

impl SyncPlaces {
    /// Takes a place unless `limit` or more are taken.
    #[must_use]
    pub fn take(&self, limit: u32) -> Option<SyncPlace> {
        let next = |taken: u32| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        Some(SyncPlace { taken: self.taken.clone() })
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }
}

/// One taken place; dropping it frees it.
#[derive(Debug)]
#[must_use]
pub struct SyncPlace {
    taken: Arc<AtomicU32>,
}

impl Drop for SyncPlace {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-12: the limit may shrink below what is taken; a place is free again when its call is over.
    #[test]
    fn no_more_places_are_taken_than_the_limit_allows() {
        let places = SyncPlaces::default();
        let held: Vec<_> = (0..3).map(|_| places.take(3).expect("free")).collect();
        assert!(places.take(3).is_none() && places.take(1).is_none());
        drop(held);
        assert_eq!(places.taken(), 0);
        assert!(places.take(1).is_some() && places.take(0).is_none());
    }
}
