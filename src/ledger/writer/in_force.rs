//! What the last configuration snapshot put in force. It outlives the writer: the next one on the same file, of the same
//! start of the gateway, goes on under it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ductile_domain::breaker::BreakerPolicy;
use ductile_domain::builtin::is_builtin;
use ductile_domain::pipeline::Pipelines;

/// A generation as far as the writer needs it.
pub(crate) struct Terms {
    pub(crate) generation: u64,
    pub(crate) snapshot: i64,
    pub(crate) plugins: HashSet<String>,
    pub(crate) pipelines: Arc<Pipelines>,
    pub(crate) breakers: BTreeMap<String, BreakerPolicy>,
}

impl Terms {
    /// The gateway's own steps are part of every generation.
    pub(crate) fn knows(&self, plugin: &str) -> bool {
        self.plugins.contains(plugin) || is_builtin(plugin)
    }
}

/// Where the writers of one start of the gateway find the generation in force. Clones share it; only writers change it.
#[derive(Clone, Default)]
pub struct InForce(Arc<Mutex<Option<Arc<Terms>>>>);

impl InForce {
    /// The number of the generation, once there is one.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.get().map(|terms| terms.generation)
    }

    pub(crate) fn get(&self) -> Option<Arc<Terms>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put(&self, terms: Arc<Terms>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(terms);
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InForce").field(&self.get().map(|terms| terms.generation)).finish()
    }
}
