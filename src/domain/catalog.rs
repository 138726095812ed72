//! The plugins of one generation: manifest and operator's settings joined.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::{Config, PluginEntry, ResourceLimits};
use crate::manifest::{Command, Manifest};
use crate::problem::{Problem, did_you_mean};
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
    /// Bounds of each of its processes.
    pub limits: ResourceLimits,
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
            let Some(discovered) = found.get(base) else {
                if entry.enabled {
                    problems.push(missing(name, entry, base, config, found));
                }
                continue;
            };
            if entry.enabled {
                let absent = absent_config(name, entry, &discovered.manifest);
                if !absent.is_empty() {
                    problems.extend(absent);
                    continue;
                }
            }
            problems.extend(doubts(name, entry, &discovered.manifest, found));
            catalog.insert(join(name, discovered, Some(entry), config.service.max_workers));
        }
        let is_used = |name: &str| config.plugins.values().any(|e| e.uses.as_deref() == Some(name));
        for (name, found) in found {
            if config.plugins.contains_key(name) {
                continue;
            }
            if !is_used(name) {
                let message = format!("plugin {name:?} discovered but not referenced in config");
                problems.push(Problem::warning("unused", message).at_path(format!("plugins.{name}")));
            }
            catalog.insert(join(name, found, None, config.service.max_workers));
        }
        (catalog, problems)
    }

    fn insert(&mut self, plugin: Plugin) {
        self.plugins.insert(plugin.name.clone(), Arc::new(plugin));
    }
}

/// A problem for each key that the manifest requires and the entry leaves out, or writes with nothing behind it.
fn absent_config(name: &str, entry: &PluginEntry, manifest: &Manifest) -> Vec<Problem> {
    let absent = manifest.required_config.iter().filter(|k| entry.config.get(*k).is_none_or(Value::is_null));
    absent
        .map(|key| {
            let written = entry.config.keys().map(String::as_str);
            let undeclared =
                written.filter(|k| !manifest.required_config.iter().chain(&manifest.optional_config).any(|d| d == k));
            let hint = match did_you_mean(key, undeclared) {
                Some(near) => format!("did you mean `{key}` where you wrote `{near}`?"),
                None => format!("add `{key}:` under plugins.{name}.config"),
            };
            Problem::error("plugin_refs", format!("plugin {name:?} needs the config key {key:?} and is not loaded"))
                .at_path(format!("plugins.{name}.config.{key}"))
                .hint(hint)
        })
        .collect()
}

/// What an entry says that will not do what its writer thinks.
fn doubts(name: &str, entry: &PluginEntry, manifest: &Manifest, found: &BTreeMap<String, Discovered>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(uses) = entry.uses.as_deref().filter(|u| *u != name && found.contains_key(name)) {
        let message = format!("a discovered plugin is named {name:?} too; this entry runs {uses:?} in its place");
        problems.push(
            Problem::warning("plugin_refs", message)
                .at_path(format!("plugins.{name}.uses"))
                .hint("give the alias a name of its own"),
        );
    }
    let declared = || manifest.commands.iter().map(|c| c.name.as_str());
    for command in entry.timeouts.keys().filter(|c| manifest.command(c).is_none()) {
        let hint = match did_you_mean(command, declared()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it declares {}", declared().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("plugin {name:?} has no command {command:?}, so this limit never applies");
        problems.push(
            Problem::warning("plugin_refs", message).at_path(format!("plugins.{name}.timeouts.{command}")).hint(hint),
        );
    }
    problems
}

fn missing(
    name: &str,
    entry: &PluginEntry,
    base: &str,
    config: &Config,
    found: &BTreeMap<String, Discovered>,
) -> Problem {
    let problem = if entry.uses.is_some() {
        Problem::error("plugin_refs", format!("alias {name:?} uses {base:?}, which was not discovered"))
    } else {
        Problem::error("plugin_refs", format!("plugin {name:?} was not discovered in any plugin root"))
    };
    let problem = problem.at_path(format!("plugins.{name}"));
    // An alias of an alias would leave open whose settings count.
    let behind = config.plugins.get(base).and_then(|e| e.uses.as_deref()).filter(|b| found.contains_key(*b));
    if let (Some(behind), true) = (behind, entry.uses.is_some()) {
        return problem.hint(format!("{base:?} is an alias itself; write `uses: {behind}`"));
    }
    match did_you_mean(base, found.keys().map(String::as_str)) {
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
        limits: entry.map(|e| e.limits.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Service;
    use crate::manifest::{CommandType, PROTOCOL};
    use serde_json::json;

    fn config(entries: &[(&str, PluginEntry)]) -> Config {
        Config {
            service: Service { max_workers: 3, ..Service::default() },
            plugins: entries.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())).collect(),
            ..Config::default()
        }
    }

    fn entry(uses: Option<&str>, config: Value) -> PluginEntry {
        PluginEntry {
            uses: uses.map(str::to_owned),
            config: config.as_object().cloned().unwrap_or_default(),
            ..PluginEntry::default()
        }
    }

    /// `base`, which needs `url`, and `other`, which may not run beside itself.
    fn found() -> BTreeMap<String, Discovered> {
        let plugin = |name: &str, required: &[&str], concurrency_safe| {
            let manifest = Manifest {
                name: name.to_owned(),
                version: "1".into(),
                protocol: PROTOCOL,
                entrypoint: "run".into(),
                description: None,
                commands: vec![Command::new("poll", CommandType::Read)],
                required_config: required.iter().map(|k| (*k).to_owned()).collect(),
                optional_config: vec!["ulr_list".into()],
                concurrency_safe,
                max_subs: 32,
                fact_outputs: Vec::new(),
            };
            let found = Discovered { manifest: Arc::new(manifest), dir: "/p".into(), entrypoint: "/p/run".into() };
            (name.to_owned(), found)
        };
        [plugin("base", &["url"], true), plugin("other", &[], false)].into()
    }

    fn hints(problems: &[Problem]) -> Vec<(&str, &str)> {
        problems.iter().map(|p| (p.path.as_deref().unwrap_or(""), p.hint.as_deref().unwrap_or(""))).collect()
    }

    /// MAN-13, C-112: a required key that is missing, or has nothing behind it, leaves that entry out and no other.
    #[test]
    fn an_entry_without_a_required_key_is_left_out_and_said() {
        for (written, hint) in [
            (json!({}), "add `url:` under plugins.base.config"),
            (json!({"url": null}), "add `url:` under plugins.base.config"),
            (json!({"uri": "x"}), "did you mean `url` where you wrote `uri`?"),
        ] {
            let entries = [("base", entry(None, written)), ("mine", entry(Some("base"), json!({"url": ""})))];
            let (catalog, problems) = Catalog::build(&config(&entries), &found());
            assert!(catalog.get("base").is_none() && catalog.get("mine").is_some_and(|p| p.is_runnable));
            let errors: Vec<_> = problems.into_iter().filter(Problem::is_error).collect();
            assert_eq!(hints(&errors), [("plugins.base.config.url", hint)]);
            assert!(errors[0].message.contains("\"base\"") && errors[0].message.contains("\"url\""), "{}", errors[0]);
        }
        let disabled = PluginEntry { enabled: false, ..entry(None, json!({})) };
        let (catalog, problems) = Catalog::build(&config(&[("base", disabled)]), &found());
        assert!(catalog.get("base").is_some_and(|p| !p.is_runnable), "MAN-22");
        assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}");
    }

    /// MAN-20: what nobody mentions is listed with a warning and can't be run; what an alias uses is mentioned.
    #[test]
    fn what_the_configuration_does_not_mention_is_listed_and_not_run() {
        let (catalog, problems) =
            Catalog::build(&config(&[("mine", entry(Some("base"), json!({"url": "u"})))]), &found());
        assert!(catalog.get("other").is_some_and(|p| !p.is_runnable));
        assert!(catalog.get("base").is_some_and(|p| !p.is_runnable));
        let texts: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(texts, ["WARN  [unused] plugins.other: plugin \"other\" discovered but not referenced in config"]);
    }

    /// MAN-21, QUE-22: an alias has settings and limits of its own; what is not safe beside itself has one slot.
    #[test]
    fn an_alias_has_its_own_settings() {
        let mine = PluginEntry { parallelism: Some(2), ..entry(Some("other"), json!({"k": 1})) };
        let (catalog, problems) =
            Catalog::build(&config(&[("other", entry(None, json!({}))), ("mine", mine)]), &found());
        let (other, mine) = (catalog.get("other").expect("there"), catalog.get("mine").expect("there"));
        assert_eq!((&*mine.name, &*mine.manifest.name), ("mine", "other"));
        assert_eq!((other.parallelism, mine.parallelism), (1, 2));
        assert_eq!((other.config.get(), mine.config.get()), ("{}", "{\"k\":1}"));
        assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}");
    }

    /// C-40: a name that nobody has, an alias of an alias, a hidden plugin, a limit of no command.
    #[test]
    fn entries_that_miss_their_aim_are_told_where_to_aim() {
        let limited = PluginEntry {
            timeouts: [("pol".to_owned(), Duration::from_secs(1))].into(),
            ..entry(Some("base"), json!({"url": "u"}))
        };
        let entries = [
            ("alias", limited),
            ("alias_of_alias", entry(Some("alias"), json!({}))),
            ("bases", entry(None, json!({}))),
            ("other", entry(Some("base"), json!({"url": "u"}))),
            ("nobody", entry(None, json!({}))),
        ];
        let (_, problems) = Catalog::build(&config(&entries), &found());
        let seen = hints(&problems);
        for (path, hint) in [
            ("plugins.alias.timeouts.pol", "did you mean `poll`?"),
            ("plugins.alias_of_alias", "\"alias\" is an alias itself; write `uses: base`"),
            ("plugins.bases", "did you mean \"base\"?"),
            ("plugins.nobody", "add its directory to plugin_roots"),
            ("plugins.other.uses", "give the alias a name of its own"),
        ] {
            assert!(seen.iter().any(|(p, h)| *p == path && h.starts_with(hint)), "{path}: {seen:#?}");
        }
        assert_eq!(seen.len(), 5, "{seen:#?}");
    }
}
