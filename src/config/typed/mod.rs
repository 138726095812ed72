//! From the merged document to [`Config`]: every section typed, defaults filled in, rules between sections checked.

mod api;
mod limits;
mod plugins;
mod retention;
mod schedules;
mod service;
mod state;
mod tokens;
mod zone;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ductile_domain::config::{Config, Source};
use ductile_domain::problem::Problem;
use serde_json::Value;

use crate::findings::Findings;
use crate::intake::{Intake, path_list};
use crate::node::{Content, Node};
use crate::paths::resolve;
use crate::section::Section;

/// Sections whose shape is checked but on which this build does not act yet: name and whether it is a list.
const LATER: [(&str, bool); 3] = [("instances", true), ("webhooks", false), ("remote_ingress", false)];

/// The typed configuration; what is wrong goes to `findings` and is replaced by its default, so that all is found.
pub(crate) fn read(root: &Node, intake: &mut Intake<'_>, findings: &mut Findings) -> Config {
    let mut top = Section::open(Some(root), "", "service", findings);
    let service_keys = service::read(&mut top, intake, findings);
    let state = state::read(&mut top, intake, findings);
    let plugin_roots = plugin_roots(&mut top, intake, findings);
    let plugins = plugins::read(top.get("plugins"), &service_keys, findings);
    let tokens = tokens::read(root, &mut top, intake, findings);
    let api = api::read(&mut top, &service_keys, tokens, findings);
    let pipelines = list(&mut top, "pipelines", findings);
    let routes = list(&mut top, "routes", findings);
    let instances = instances(&mut top);
    // Read by the loader before typing.
    top.get("include");
    let mut variables = top.section("environment_vars", findings);
    variables.get("include");
    variables.close(findings);
    // Acted on by the start on macOS only.
    top.texts("tcc_paths", findings);
    removed(&mut top, findings);
    for (key, is_list) in LATER {
        let shape_fits = top.get(key).is_none_or(|n| match n.content {
            Content::List(_) => is_list,
            Content::Map(_) => !is_list,
            _ => false,
        });
        if shape_fits {
            top.later(&[key], findings);
        } else if let Some(node) = top.get(key) {
            let what = if is_list { "a list" } else { "a map" };
            let category = if key == "webhooks" { key } else { "service" };
            let problem = Problem::error(category, format!("expected {what}, found {}", node.kind()));
            findings.add(problem.at_path(key), node.origin);
        }
    }
    top.close(findings);
    Config {
        service: service_keys.service,
        plugin_roots,
        plugins,
        api,
        state,
        pipelines,
        routes,
        instances,
        source: Source::default(),
    }
}

/// A list whose entries the compiler of pipelines types and checks.
fn list(top: &mut Section<'_>, key: &'static str, findings: &mut Findings) -> Vec<Value> {
    let Some(node) = top.get(key) else { return Vec::new() };
    match node.to_json() {
        Value::Array(items) => items,
        _ => {
            let problem = Problem::error(key, format!("expected a list, found {}", node.kind())).at_path(key);
            findings.add(problem.hint("begin each entry with `- `"), node.origin);
            Vec::new()
        }
    }
}

/// The names only, so that a `relay` step can be checked; an instance is not acted on yet.
fn instances(top: &mut Section<'_>) -> Vec<String> {
    let Some(Content::List(items)) = top.get("instances").map(|node| &node.content) else { return Vec::new() };
    let names = items.iter().filter_map(|item| item.map()?.get("name")?.text());
    names.map(str::to_owned).collect()
}

fn plugin_roots(top: &mut Section<'_>, intake: &Intake<'_>, findings: &mut Findings) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    let mut seen = Vec::new();
    for (_, text) in path_list(top.get("plugin_roots"), "plugin_roots", findings) {
        let root = resolve(&text, intake.dir, intake.env);
        let identity = root.canonicalize().unwrap_or_else(|_| root.clone());
        if !seen.contains(&identity) {
            seen.push(identity);
            roots.push(root);
        }
    }
    roots
}

fn removed(top: &mut Section<'_>, findings: &mut Findings) {
    if let Some(node) = top.get("workspace") {
        let problem =
            Problem::warning("unused", "`workspace` was removed: the gateway provides no working directories")
                .at_path("workspace")
                .hint("remove the section; a plugin that needs a directory manages its own");
        findings.add(problem, node.origin);
    }
}

/// Merged document with every known setting present, as `config show` prints it.
pub(crate) fn with_defaults(config: &Config, root: &BTreeMap<String, Node>) -> BTreeMap<String, Node> {
    let mut root: BTreeMap<_, _> = root.iter().filter(|(key, _)| !key.starts_with("x-")).map(cloned).collect();
    service::show(&config.service, &mut root);
    state::show(&config.state, &mut root);
    api::show(&config.api, &mut root);
    plugins::show(&config.plugins, &mut root);
    root
}

fn cloned((key, node): (&String, &Node)) -> (String, Node) {
    (key.clone(), node.clone())
}
