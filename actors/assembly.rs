//! What a configuration is made of beyond its files: the plugins that were found for it, its pipelines, and what tells two
//! of them apart. The same for a start and for a reload.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use ductile_config::Provenance;
use ductile_domain::catalog::{Catalog, Discovered, Plugin};
use ductile_domain::config::{Config, PluginEntry};
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::NewJob;
use ductile_domain::pipeline::Pipelines;
use ductile_domain::problem::Problem;
use ductile_domain::schedule::Schedules;
use ductile_ledger::{Init, Snapshot};
use serde::Serialize;

/// A configuration with its plugins.
pub(crate) struct Assembled {
    pub(crate) config: Config,
    pub(crate) catalog: Catalog,
    pub(crate) pipelines: Arc<Pipelines>,
    pub(crate) schedules: Arc<Schedules>,
    /// Also errors: those about single plugins leave only these plugins out.
    pub(crate) warnings: Vec<Problem>,
    /// Some pipeline or route can't be run as it is written.
    has_broken_pipelines: bool,
    pub(crate) prints: Prints,
}

/// What each entry under `plugins:` is made of.
pub(crate) type Prints = BTreeMap<String, Print>;

/// BLAKE3 hashes in lower-case hex. Two plugins with equal prints do the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Print {
    /// Over the operator's entry.
    settings: String,
    /// Over what `init` depends on: the entry's `config`, the manifest and the executable.
    init: String,
}

impl Assembled {
    /// C-64: an error in a pipeline refuses the whole; in strict mode a plugin that can't be loaded does too.
    pub(crate) fn is_refused(&self) -> bool {
        self.has_broken_pipelines || self.config.service.strict_mode && self.warnings.iter().any(Problem::is_error)
    }
}

/// Looks for the plugins of a loaded configuration and compiles its pipelines. Reads files, so not for an async thread while the gateway runs.
pub(crate) fn assemble(config: Config, warnings: Vec<Problem>, provenance: &Provenance) -> Assembled {
    let discovery = ductile_plugin::discover::discover_for(&config);
    let (catalog, found) = Catalog::build(&config, &discovery.plugins);
    let (pipelines, wrong) = Pipelines::compile(&config, &catalog);
    let has_broken_pipelines = wrong.iter().any(Problem::is_error);
    let (schedules, untimely) = Schedules::compile(&config, &catalog);
    let found = discovery.problems.into_iter().chain(found).chain(wrong).chain(untimely);
    let found = provenance.place(found.collect());
    let warnings = warnings.into_iter().chain(found).collect();
    let prints = config
        .plugins
        .iter()
        .map(|(name, entry)| {
            let found = discovery.plugins.get(entry.uses.as_deref().unwrap_or(name));
            (name.clone(), Print::of(entry, found))
        })
        .collect();
    Assembled {
        config,
        catalog,
        pipelines: Arc::new(pipelines),
        schedules: Arc::new(schedules),
        warnings,
        has_broken_pipelines,
        prints,
    }
}

/// Tells whether a plugin is still what it was: over its entry's `config`, its manifest and its executable, as
/// `config_snapshots` keeps it under `init`. `None` when it is not in the configuration or can't be loaded.
#[must_use]
pub fn fingerprint(config: &Config, catalog: &Catalog, plugin: &str) -> Option<String> {
    let plugin = catalog.get(plugin)?;
    let (manifest, dir, entrypoint) = (plugin.manifest.clone(), plugin.dir.clone(), plugin.entrypoint.clone());
    let found = Discovered { manifest, dir, entrypoint };
    Some(Print::of(config.plugins.get(&*plugin.name)?, Some(&found)).init)
}

impl Print {
    fn of(entry: &PluginEntry, found: Option<&Discovered>) -> Self {
        let config = serde_json::to_vec(&entry.config).unwrap_or_default();
        let mut settings = blake3::Hasher::new();
        // `Debug` shows all of the entry but the values of its config and of its schedules' payloads, which may be secrets.
        settings.update(format!("{entry:?}").as_bytes()).update(&config);
        for payload in entry.schedules.iter().filter_map(|schedule| schedule.payload.as_ref()) {
            settings.update(payload.get().as_bytes());
        }
        let mut init = blake3::Hasher::new();
        init.update(&config);
        for file in found.iter().flat_map(|f| [f.dir.join("manifest.yaml"), f.entrypoint.clone()]) {
            // A file that can't be read now is one that differs when it can be again.
            init.update(blake3::hash(&fs::read(file).unwrap_or_default()).as_bytes());
        }
        Self { settings: settings.finalize().to_hex().to_string(), init: init.finalize().to_hex().to_string() }
    }
}

/// The row of `config_snapshots` that a generation gets.
pub(crate) fn snapshot(
    generation: u64,
    reason: &'static str,
    config: &Config,
    catalog: &Catalog,
    pipelines: &Arc<Pipelines>,
    prints: &Prints,
) -> Snapshot {
    let may_init = |plugin: &&Arc<Plugin>| plugin.is_runnable && plugin.command("init").is_some();
    let inits = catalog.iter().filter(may_init);
    Snapshot {
        generation,
        // Jobs of what the operator removed or disabled end. What can't be loaded is neither: its jobs wait.
        plugins: config.plugins.keys().filter(|name| config.wants(name)).cloned().collect(),
        pipelines: pipelines.clone(),
        breakers: config.plugins.iter().map(|(name, entry)| (name.clone(), entry.circuit_breaker)).collect(),
        config_hash: config.source.hash.clone(),
        source_hash: config.source.hash.clone(),
        source_path: config.source.path.display().to_string(),
        source: "file".to_owned(),
        reason: reason.to_owned(),
        ductile_version: env!("CARGO_PKG_VERSION").to_owned(),
        binary_path: std::env::current_exe().map(|p| p.display().to_string()).unwrap_or_default(),
        plugin_fingerprints: serde_json::to_string(prints).unwrap_or_else(|_| "{}".to_owned()),
        sanitized_config: config.source.sanitized.to_string(),
        secret_fingerprints: "{}".to_owned(),
        inits: inits.filter_map(|plugin| Some(init(plugin, prints.get(&*plugin.name)?, reason))).collect(),
    }
}

/// MAN-23: never retried.
fn init(plugin: &Plugin, print: &Print, reason: &'static str) -> Init {
    let job = NewJob {
        requested_by: Some(reason.to_owned()),
        ..NewJob::new(JobId::from(uuid::Uuid::now_v7()), plugin.name.clone(), "init", "system")
    };
    Init { print: print.init.clone(), job }
}

/// What `system status` says of enabled entries whose plugin is not there; `None` when there are none.
pub(crate) fn lacking(generation: &Generation) -> Option<String> {
    let Generation { config, catalog, .. } = generation;
    let lacking = config.plugins.keys().filter(|name| config.wants(name) && catalog.get(name).is_none());
    let names = lacking.map(String::as_str).collect::<Vec<_>>().join(", ");
    let text = "enabled, but could not be loaded; their queued jobs wait; `ductile config check` says why";
    (!names.is_empty()).then(|| format!("plugins {names}: {text}"))
}

/// Logs every problem with its place.
pub(crate) fn log(problems: &[Problem]) {
    for problem in problems {
        let (category, field, hint) = (problem.category, problem.path.as_deref(), problem.hint.as_deref());
        let file = problem.file.as_ref().map(|f| f.display().to_string());
        let line = problem.line;
        if problem.is_error() {
            tracing::error!(component = "config", category, field, file, line, hint, "{}", problem.message);
        } else {
            tracing::warn!(component = "config", category, field, file, line, hint, "{}", problem.message);
        }
    }
}
