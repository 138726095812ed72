//! The configuration on disk with its plugins and pipelines, as a start would put it in force, and all that it would
//! complain about.

use std::sync::Arc;

use ductile_config::Loaded;
use ductile_domain::catalog::Catalog;
use ductile_domain::config::Config;
use ductile_domain::generation::Generation;
use ductile_domain::pipeline::{Pipeline, Pipelines};
use ductile_domain::problem::{Problem, did_you_mean};
use ductile_domain::schedule::Schedules;
use ductile_domain::secrets::Secrets;
use serde_json::Value;

use crate::args::Global;
use crate::error::Error;
use crate::report::Report;

/// What would be in force.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Settings, plugins, pipelines; numbered 0, for it is nowhere in force.
    pub generation: Generation,
    /// What is worth knowing of the files.
    pub of_files: Vec<Problem>,
    /// What is wrong with plugins and their entries.
    pub of_plugins: Vec<Problem>,
    /// What is wrong with pipelines and routes.
    pub of_pipelines: Vec<Problem>,
}

impl Compiled {
    /// Loads the configuration that the flags name and compiles it. Problems of other parts are told on stderr with
    /// `-v` only: `config check` is the command for them.
    ///
    /// # Errors
    /// All problems of files that can't be loaded.
    pub(crate) fn load(global: &Global, report: &Report) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let path = ductile_config::locate(global.config.as_deref(), &env);
        report.detail(format!("configuration {}", path.display()));
        let compiled = Self::of(ductile_config::load(&path, &env).map_err(Error::Config)?);
        compiled.problems().for_each(|problem| report.detail(problem.to_string()));
        Ok(compiled)
    }

    /// Finds the plugins of a loaded configuration and compiles its pipelines.
    #[must_use]
    pub(crate) fn of(loaded: Loaded) -> Self {
        let Loaded { config, warnings, provenance } = loaded;
        let discovery = ductile_plugin::discover::discover_for(&config);
        let (catalog, of_plugins) = Catalog::build(&config, &discovery.plugins);
        let (pipelines, of_pipelines) = Pipelines::compile(&config, &catalog);
        let (schedules, of_schedules) = Schedules::compile(&config, &catalog);
        let of_plugins = discovery.problems.into_iter().chain(of_plugins).chain(of_schedules).collect();
        Self {
            generation: Generation {
                no: 0,
                snapshot: None,
                config,
                catalog,
                pipelines: Arc::new(pipelines),
                schedules: Arc::new(schedules),
            },
            of_files: warnings,
            of_plugins: provenance.place(of_plugins),
            of_pipelines: provenance.place(of_pipelines),
        }
    }

    /// All that is wrong, in the order of looking.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.of_files.iter().chain(&self.of_plugins).chain(&self.of_pipelines)
    }

    /// The settings.
    #[must_use]
    pub(crate) fn config(&self) -> &Config {
        &self.generation.config
    }

    /// A compiled pipeline.
    ///
    /// # Errors
    /// There is none of that name, or it has problems: then they are listed.
    pub(crate) fn pipeline(&self, name: &str) -> Result<&Arc<Pipeline>, Error> {
        if let Some(pipeline) = self.generation.pipelines.get(name) {
            return Ok(pipeline);
        }
        let names = || self.config().pipelines.iter().filter_map(|entry| entry["name"].as_str());
        if names().any(|written| written == name) && self.of_pipelines.iter().any(Problem::is_error) {
            return Err(Error::Config(self.of_pipelines.clone()));
        }
        Err(unknown(name, &names().collect::<Vec<_>>()))
    }

    /// Takes out what the sanitized configuration does not show either.
    pub(crate) fn redact(&self, value: &mut Value) {
        Secrets::of(self.config()).redact(value);
    }

    /// A text that was made of compiled pipelines, without secrets.
    #[must_use]
    pub(crate) fn shown(&self, text: String) -> String {
        let mut value = Value::from(text);
        self.redact(&mut value);
        value.as_str().unwrap_or_default().to_owned()
    }

    /// The pipeline as its author wrote it, without secrets. Its name may be one, so it is found by its place.
    #[must_use]
    pub(crate) fn written(&self, name: &str) -> &Value {
        let place = self.config().pipelines.iter().position(|entry| entry["name"] == name);
        let shown = self.config().source.sanitized["pipelines"].as_array();
        place.and_then(|place| shown?.get(place)).unwrap_or(&Value::Null)
    }
}

fn unknown(name: &str, names: &[&str]) -> Error {
    let hint = match did_you_mean(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "the configuration has none".to_owned(),
        None => format!("there is: {}", names.join(", ")),
    };
    Error::Failed(format!("there is no pipeline {name:?}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_pipeline_is_answered_with_the_nearest_name() {
        let told = |name: &str, names: &[&str]| unknown(name, names).to_string();
        assert_eq!(told("nightli", &["nightly", "x"]), "there is no pipeline \"nightli\"; did you mean nightly?");
        assert_eq!(told("zzz", &["nightly", "x"]), "there is no pipeline \"zzz\"; there is: nightly, x");
        assert_eq!(told("zzz", &[]), "there is no pipeline \"zzz\"; the configuration has none");
        assert_eq!(unknown("zzz", &[]).exit_code(), 1);
    }
}
