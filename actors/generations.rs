//! Which generations are alive: the one in force, and those under which attempts still run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ductile_api::gateway::GenerationUse;
use ductile_domain::generation::Generation;

/// All generations of this boot that somebody still holds. Holds none itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Generations(Arc<Mutex<Vec<Known>>>);

#[derive(Debug)]
struct Known {
    no: u64,
    alive: Weak<Generation>,
    attempts: usize,
}

/// An attempt's place under its generation; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Place {
    no: u64,
    generations: Generations,
}

impl Generations {
    /// Counts a generation from its beginning.
    pub(crate) fn add(&self, generation: &Arc<Generation>) {
        let mut known = self.lock();
        known.retain(Known::is_alive);
        known.push(Known { no: generation.no, alive: Arc::downgrade(generation), attempts: 0 });
    }

    /// An attempt begins under it.
    pub(crate) fn enter(&self, generation: &Generation) -> Place {
        if let Some(known) = self.lock().iter_mut().find(|k| k.no == generation.no) {
            known.attempts += 1;
        }
        Place { no: generation.no, generations: self.clone() }
    }

    /// Those that are held, the oldest first.
    pub(crate) fn uses(&self) -> Vec<GenerationUse> {
        let mut known = self.lock();
        known.retain(Known::is_alive);
        known.iter().map(|k| GenerationUse { no: k.no, attempts: k.attempts }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// An attempt gives up its place a moment after the generation.
    fn is_alive(&self) -> bool {
        self.attempts > 0 || self.alive.strong_count() > 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(known) = self.generations.lock().iter_mut().find(|k| k.no == self.no) {
            known.attempts = known.attempts.saturating_sub(1);
        }
    }
}
