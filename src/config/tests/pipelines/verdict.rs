//! What a start would say of a configuration whose plugins are made up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ductile_config::{Loaded, load};
use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::config::Config;
use ductile_domain::manifest::{Command, CommandType, Manifest, PROTOCOL};
use ductile_domain::pipeline::Pipelines;
use ductile_domain::problem::Problem;
use serde_json::Value;

/// The checkout.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout")
}

/// A plugin of that name that has these commands.
fn plugin(name: &str, commands: &[&str]) -> (String, Discovered) {
    let manifest = Manifest {
        name: name.to_owned(),
        version: "1".to_owned(),
        protocol: PROTOCOL,
        entrypoint: "run".to_owned(),
        description: None,
        commands: commands.iter().map(|name| Command::new(*name, CommandType::Write)).collect(),
        required_config: Vec::new(),
        optional_config: Vec::new(),
        concurrency_safe: true,
        max_subs: 16,
        fact_outputs: Vec::new(),
    };
    let dir = PathBuf::from("/plugins").join(name);
    let discovered = Discovered { manifest: Arc::new(manifest), entrypoint: dir.join("run"), dir };
    (name.to_owned(), discovered)
}

/// Plugins that are found, each with `handle` and `poll`, or with the command that a name with a dot asks for.
pub(crate) fn plugins<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Discovered> {
    let mut commands: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in names {
        let (plugin, command) = name.rsplit_once('.').unwrap_or((name, "handle"));
        commands.entry(plugin).or_default().extend(["handle", "poll", command]);
    }
    commands.iter().map(|(name, commands)| plugin(name, &commands.iter().copied().collect::<Vec<_>>())).collect()
}

/// Everything that is said of pipelines and routes, with places.
pub(crate) fn compile(loaded: &Loaded, found: &BTreeMap<String, Discovered>) -> (Pipelines, Vec<Problem>) {
    let (catalog, _) = Catalog::build(&loaded.config, found);
    let (pipelines, problems) = Pipelines::compile(&loaded.config, &catalog);
    (pipelines, loaded.provenance.place(problems))
}

/// Loads one file.
pub(crate) fn loaded(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    load(path, &env).unwrap_or_else(|problems| panic!("{}:\n{}", path.display(), lines(&problems)))
}

/// Loads one document.
pub(crate) fn loaded_text(yaml: &str) -> Result<Loaded, Vec<Problem>> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.yaml");
    std::fs::write(&path, yaml).expect("writable");
    load(&path, &home)
}

/// The only variable that samples name.
pub(crate) fn home(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/me".to_owned())
}

/// Every plugin that pipelines and routes name, and the bases of aliases.
pub(crate) fn named(config: &Config) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    config.pipelines.iter().chain(&config.routes).for_each(|value| collect(value, &mut names));
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("uses" | "from_plugin" | "from" | "to", Value::String(name)) => {
                        // A claim's `from` is a path, a relay's `to` an instance.
                        let is_path = name.starts_with("payload") || name.starts_with("context");
                        if !is_path && !map.contains_key("event") {
                            names.insert(name.clone());
                        }
                    }
                    ("with" | "payload" | "if", _) => {}
                    _ => collect(value, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        _ => {}
    }
}

/// One line each.
pub(crate) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}
