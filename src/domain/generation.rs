//! One configuration in force: immutable, shared, counted.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::pipeline::Pipelines;
use crate::schedule::Schedules;

/// What every attempt of its time runs under. Freed with its last job.
#[derive(Debug)]
pub struct Generation {
    /// 1 at the start, one more with each reload.
    pub no: u64,
    /// Row of `config_snapshots`, once recorded.
    pub snapshot: Option<i64>,
    /// The operator's settings.
    pub config: Config,
    /// The plugins.
    pub catalog: Catalog,
    /// The pipelines and routes, compiled against `catalog`.
    pub pipelines: Arc<Pipelines>,
    /// The schedules of runnable plugins, and those that can't be read.
    pub schedules: Arc<Schedules>,
}
