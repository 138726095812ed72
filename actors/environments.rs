//! The environment that each plugin gets, computed once per generation.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;

/// Names and values, shared by all attempts of a plugin under one generation.
pub(crate) type Environment = Arc<[(OsString, OsString)]>;

/// Environments by plugin, for the generation that was asked for last.
#[derive(Debug, Default)]
pub(crate) struct Environments {
    known: Mutex<(u64, HashMap<Arc<str>, Environment>)>,
}

impl Environments {
    /// The allow-list and what the operator passes through.
    pub(crate) fn of(&self, generation: &Generation, plugin: &Plugin) -> Environment {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != generation.no {
            *known = (generation.no, HashMap::new());
        }
        if let Some(environment) = known.1.get(&plugin.name) {
            return environment.clone();
        }
        let service = &generation.config.service.plugin_env_passthrough;
        let names = service.iter().chain(&plugin.env_passthrough).map(String::as_str);
        let environment: Environment = ductile_plugin::environment::allowed(std::env::vars_os(), names);
        known.1.insert(plugin.name.clone(), environment.clone());
        environment
    }
}
