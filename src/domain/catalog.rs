//! The plugins of one generation: manifest and operator's settings joined.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::config::{Config, PluginEntry};
use crate::manifest::{Command, Manifest};
use crate::problem::Problem;
use crate::retry::RetryPolicy;

/// A plugin that was found in a root, before the operator's settings.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// Checked manifest.
    pub manifest: Arc<Manifest>,
    /// Its directory, symlinks resolved.
    pub dir: PathBuf,
    /// Absolute path of the executable, symlinks resolved.
    pub entrypoint: PathBuf,
}

/// A plugin or alias as the dispatcher uses it. Its `Debug` leaves out `config`, which may hold secrets.
#[derive(Clone)]
pub struct Plugin {
    /// Its own name: the alias for an alias.
    pub name: Arc<str>,
    /// What it declares.
    pub manifest: Arc<Manifest>,
    /// Its directory.
    pub dir: PathBuf,
    /// Absolute path of the executable.
    pub entrypoint: PathBuf,
    /// True when the operator's configuration has an entry that is enabled.
    pub is_runnable: bool,
    /// The operator's `config`, a JSON object.
    pub config: Box<RawValue>,
    /// Limits and policies.
    pub retry: RetryPolicy,
    /// Cap of its concurrent jobs.
    pub parallelism: u32,
    /// `timeouts.<command>`.
    pub timeouts: BTreeMap<String, Duration>,
    /// Flat `timeout`.
    pub timeout: Option<Duration>,
    /// Names of environment variables that it gets beside the allow-list.
    pub env_passthrough: Vec<String>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("dir", &self.dir)
            .field("entrypoint", &self.entrypoint)
            .field("is_runnable", &self.is_runnable)
            .field("retry", &self.retry)
            .field("parallelism", &self.parallelism)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// The declared command of that name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.manifest.command(name)
    }

    /// `timeouts.<command>`, else `timeout`, else the built-in: poll 60 s, handle 120 s, health 10 s, init 30 s, any other 60 s.
    #[must_use]
    pub fn deadline(&self, command: &str) -> Duration {
        self.timeouts.get(command).copied().or(self.timeout).unwrap_or(match command {
            "handle" => Duration::from_secs(120),
            "health" => Duration::from_secs(10),
            "init" => Duration::from_secs(30),
            _ => Duration::from_secs(60),
        })
    }
}

/// All plugins of a generation by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    plugins: BTreeMap<Arc<str>, Arc<Plugin>>,
}

impl Catalog {
    /// The plugin or alias of that name, runnable or not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.plugins.get(name)
    }

    /// All plugins in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.values()
    }

    /// Joins what was found with what the operator wrote.
    ///
    /// Every problem is reported; an entry with an error is left out, the others stand.
    #[must_use]
    pub fn build(config: &Config, found: &BTreeMap<String, Discovered>) -> (Self, Vec<Problem>) {
        let mut catalog = Self::default();
        let mut problems = Vec::new();
        for (name, entry) in &config.plugins {
            let base = entry.uses.as_deref().unwrap_or(name);
            let Some(found) = found.get(base) else {
                if entry.enabled {
                    problems.push(missing(name, entry, base, found));
                }
                continue;
            };
            if entry.enabled {
                let absent: Vec<_> =
                    found.manifest.required_config.iter().filter(|k| !entry.config.contains_key(*k)).collect();
                for key in &absent {
                    problems.push(
                        Problem::error("plugin_refs", format!("plugin {name:?} needs the config key {key:?}"))
                            .at_path(format!("plugins.{name}.config.{key}"))
                            .hint(format!("add `{key}:` under plugins.{name}.config")),
                    );
                }
                if !absent.is_empty() {
                    continue;
                }
            }
            let plugin = join(name, found, Some(entry), config.service.max_workers);
            catalog.plugins.insert(plugin.name.clone(), Arc::new(plugin));
        }
        for (name, found) in found {
            if !config.plugins.contains_key(name) {
                problems.push(
                    Problem::warning("unused", format!("plugin {name:?} discovered but not referenced in config"))
                        .at_path(format!("plugins.{name}")),
                );
                let plugin = join(name, found, None, config.service.max_workers);
                catalog.plugins.insert(plugin.name.clone(), Arc::new(plugin));
            }
        }
        (catalog, problems)
    }
}

fn missing(name: &str, entry: &PluginEntry, base: &str, found: &BTreeMap<String, Discovered>) -> Problem {
    let problem = if entry.uses.is_some() {
        Problem::error("plugin_refs", format!("alias {name:?} uses {base:?}, which was not discovered"))
    } else {
        Problem::error("plugin_refs", format!("plugin {name:?} was not discovered in any plugin root"))
    };
    let problem = problem.at_path(format!("plugins.{name}"));
    match crate::problem::did_you_mean(base, found.keys().map(String::as_str)) {
        Some(near) => {
            problem.hint(format!("did you mean {near:?}? otherwise add its directory to plugin_roots, or `uses:`"))
        }
        None => problem
            .hint("add its directory to plugin_roots, add `uses: <plugin>` for an alias, or set `enabled: false`"),
    }
}

fn join(name: &str, found: &Discovered, entry: Option<&PluginEntry>, max_workers: u32) -> Plugin {
    let config = entry.map(|e| &e.config).filter(|c| !c.is_empty());
    let text = config.and_then(|c| serde_json::to_string(c).ok()).unwrap_or_else(|| "{}".to_owned());
    let default_cap = if found.manifest.concurrency_safe { max_workers } else { 1 };
    Plugin {
        name: name.into(),
        manifest: found.manifest.clone(),
        dir: found.dir.clone(),
        entrypoint: found.entrypoint.clone(),
        is_runnable: entry.is_some_and(|e| e.enabled),
        config: RawValue::from_string(text).expect("serde_json writes valid JSON"),
        retry: entry.map(|e| e.retry).unwrap_or_default(),
        parallelism: entry.and_then(|e| e.parallelism).unwrap_or(default_cap).max(1),
        timeouts: entry.map(|e| e.timeouts.clone()).unwrap_or_default(),
        timeout: entry.and_then(|e| e.timeout),
        env_passthrough: entry.map(|e| e.env_passthrough.clone()).unwrap_or_default(),
    }
}
