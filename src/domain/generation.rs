//! One configuration in force: immutable, shared, counted.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::pipeline::Pipelines;
use crate::schedule::{Schedule, Schedules};

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

impl Generation {
    /// All schedules of enabled plugins: also those of plugins that could not be loaded, whose ticks are accounted for and
    /// go on where they were when the plugin is there again.
    pub fn scheduled(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        let Self { config, schedules, .. } = self;
        let entries =
            config.plugins.iter().filter(|(name, _)| config.wants(name)).flat_map(|(_, entry)| &entry.schedules);
        let lacking = entries.filter(|schedule| schedules.get(&schedule.plugin, &schedule.id).is_none());
        schedules.iter().chain(lacking)
    }

    /// The one of that plugin and id.
    #[must_use]
    pub fn schedule(&self, plugin: &str, id: &str) -> Option<&Arc<Schedule>> {
        let entry = self.config.plugins.get(plugin).filter(|entry| entry.enabled);
        let lacking = || entry?.schedules.iter().find(|schedule| *schedule.plugin == *plugin && *schedule.id == *id);
        self.schedules.get(plugin, id).or_else(lacking)
    }
}
