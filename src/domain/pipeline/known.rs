//! Which plugins and commands a pipeline or a route may name.

use std::sync::Arc;

use crate::builtin;
use crate::catalog::{Catalog, Plugin};
use crate::config::Config;
use crate::manifest::Command;
use crate::problem::did_you_mean;

/// The plugins of the generation that is being compiled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) catalog: &'a Catalog,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Callee {
    pub(super) plugin: Arc<str>,
    pub(super) command: Arc<str>,
    pub(super) max_attempts: u32,
}

/// Why a name can't be used, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl<'a> Known<'a> {
    /// Resolves `uses`: the whole text as a plugin or alias, else plugin and command at the last dot.
    pub(super) fn callee(&self, text: &str) -> Result<Callee, Unusable> {
        let (plugin, command) = match text.rsplit_once('.') {
            Some((plugin, command)) if !self.is_named(text) && self.is_named(plugin) => (plugin, command),
            _ => (text, builtin::COMMAND),
        };
        let plugin = self.runnable(plugin)?;
        let Some(command) = plugin.command(command) else { return Err(without_command(plugin, command)) };
        Ok(Callee {
            plugin: plugin.name.clone(),
            command: command.name.as_str().into(),
            max_attempts: plugin.retry.max_attempts,
        })
    }

    /// A plugin that may be run.
    pub(super) fn runnable(&self, name: &str) -> Result<&'a Arc<Plugin>, Unusable> {
        if builtin::is_builtin(name) {
            return Err(Unusable {
                message: format!("{name:?} is the gateway's own and can't be named"),
                hint: Some("it is put where `if`, `join` and `relay` ask for it".to_owned()),
            });
        }
        let entry = self.config.plugins.get(name);
        match (self.catalog.get(name), entry) {
            (Some(plugin), _) if plugin.is_runnable => Ok(plugin),
            (_, Some(entry)) if !entry.enabled => Err(Unusable {
                message: format!("plugin {name:?} is disabled"),
                hint: Some(format!("set plugins.{name}.enabled: true")),
            }),
            (_, Some(_)) => Err(Unusable {
                message: format!("plugin {name:?} is enabled but could not be loaded"),
                hint: Some(format!("see what is said of plugins.{name}")),
            }),
            (Some(_), None) => Err(Unusable {
                message: format!("plugin {name:?} is not in the configuration"),
                hint: Some(format!("add `{name}: {{enabled: true}}` under plugins")),
            }),
            (None, None) => {
                let hint = match self.nearest(name) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "write the name of a plugin or alias, or `<plugin>.<command>`".to_owned(),
                };
                Err(Unusable { message: format!("no plugin or alias is named {name:?}"), hint: Some(hint) })
            }
        }
    }

    /// True when the configuration or a plugin root has the name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.catalog.get(name).is_some() || self.config.plugins.contains_key(name)
    }

    fn nearest(&self, name: &str) -> Option<&'a str> {
        let names = || {
            let configured = self.config.plugins.keys().map(String::as_str);
            self.catalog.iter().map(|p| &*p.name).chain(configured)
        };
        let plugin = |text| did_you_mean(text, names());
        plugin(name).or_else(|| plugin(name.rsplit_once('.')?.0))
    }
}

/// The command that a plugin lacks.
pub(super) fn without_command(plugin: &Plugin, command: &str) -> Unusable {
    let declared = || plugin.manifest.commands.iter().map(|c: &Command| c.name.as_str());
    let hint = match did_you_mean(command, declared()) {
        Some(near) => format!("did you mean `{}.{near}`?", plugin.name),
        None => {
            let all: Vec<_> = declared().map(|c| format!("`{}.{c}`", plugin.name)).collect();
            format!("it has {}", all.join(", "))
        }
    };
    Unusable { message: format!("plugin {:?} has no command {command:?}", plugin.name), hint: Some(hint) }
}
