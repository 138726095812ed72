//! From what the configuration says to what is in force, with every problem on the way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::builtin;
use crate::catalog::Catalog;
use crate::config::{Config, NotifyOnComplete, PluginEntry};
use crate::pipeline::definition::{self, Definition, warn_of_event_type};
use crate::pipeline::findings::{Findings, Place};
use crate::pipeline::known::Known;
use crate::pipeline::{Execution, Pipelines, Route, Target, Trigger, calls, expand};
use crate::problem::Problem;
use crate::secrets::Secrets;

const ROUTE_KEYS: &[&str] = &["from", "event_type", "to"];

pub(super) fn compile(config: &Config, catalog: &Catalog) -> (Pipelines, Vec<Problem>) {
    let known = Known { config, catalog };
    let mut compiled = Pipelines {
        hook_max_depth: config.service.hook_max_depth,
        dedupe_window: config.service.dedupe_ttl,
        secrets: Secrets::of(config),
        notifies: config
            .plugins
            .iter()
            // also of those that are switched off: the jobs that this buries end too
            .filter(|(_, entry)| entry.notify_on_complete != NotifyOnComplete::Never)
            .map(|(name, entry)| (name.as_str().into(), entry.notify_on_complete))
            .collect(),
        ..Pipelines::default()
    };
    let fires = |entry: &PluginEntry| entry.enabled && entry.notify_on_complete != NotifyOnComplete::Never;
    let is_silent = !config.plugins.values().any(fires);
    let mut findings = Findings::new("pipelines");
    let mut taken = HashSet::new();
    let entries = config.pipelines.iter().enumerate();
    let definitions: Vec<Definition> =
        entries.filter_map(|(i, entry)| definition::read(i, entry, &mut taken, known, &mut findings)).collect();
    let sizes = calls::check(&definitions, &mut findings);
    let by_name: HashMap<&str, &Definition> = definitions.iter().map(|d| (&*d.name, d)).collect();
    for definition in &definitions {
        let Some(size) = sizes.get(&definition.name) else { continue };
        let Some(pipeline) = expand::expand(definition, *size, &by_name).map(Arc::new) else {
            let hint = "join the splits, or start a pipeline for each branch by an event".to_owned();
            let message = format!("its splits multiply to more than {} ties", expand::MAX_TIES);
            findings.error(&definition.place.at("steps"), &message, hint);
            continue;
        };
        if pipeline.execution == Execution::Synchronous && begins_with_several(&pipeline.entries) {
            let hint = "begin with one step, or set execution_mode: async".to_owned();
            let message = "it begins with several jobs, so it can only be called with ?async=true";
            findings.warning(&definition.place.at("execution_mode"), message, hint);
        }
        if matches!(pipeline.trigger, Trigger::Hook(_)) && is_silent {
            let hint = "set notify_on_complete: true on the plugins whose ends it is about".to_owned();
            findings.warning(&definition.place, "no plugin fires hooks, so it never starts", hint);
        }
        match &pipeline.trigger {
            Trigger::On(event) => compiled.by_event.entry(event.clone()).or_default().push(pipeline.clone()),
            Trigger::Hook(signal) => compiled.by_signal.entry(*signal).or_default().push(pipeline.clone()),
        }
        compiled.by_name.insert(definition.name.clone(), pipeline);
    }
    let mut problems = findings.problems;
    let mut findings = Findings::new("routes");
    for (index, entry) in config.routes.iter().enumerate() {
        let Some(route) = route(index, entry, known, &mut findings) else { continue };
        let same =
            |other: &Route| (&other.from, &other.event_type, &other.to) == (&route.from, &route.event_type, &route.to);
        if let Some(first) = compiled.routes.iter().position(same) {
            let place = place_of_route(index);
            findings.warning(
                &place,
                "it says the same as an earlier one",
                format!("remove it, or change what differs from route {}", first + 1),
            );
            continue;
        }
        compiled.routes_by_event.entry(route.event_type.clone()).or_default().push(compiled.routes.len());
        compiled.routes.push(route);
    }
    problems.extend(findings.problems);
    (compiled, problems)
}

/// True when entering them starts more than one job.
fn begins_with_several(targets: &[Target]) -> bool {
    let count = |target: &Target| match target {
        Target::Split { branches, .. } => branches.iter().map(|branch| branch.len()).sum(),
        Target::Node(_) | Target::Arrive => 1,
    };
    targets.iter().map(count).sum::<usize>() > 1
}

fn place_of_route(index: usize) -> Place {
    Place { path: format!("routes[{index}]"), subject: format!("route {}", index + 1) }
}

fn route(index: usize, entry: &Value, known: Known<'_>, findings: &mut Findings) -> Option<Route> {
    let errors = findings.errors;
    let place = place_of_route(index);
    let Some(map) = entry.as_object() else {
        findings.error(&place, "a route is a mapping", "write from, event_type and to".to_owned());
        return None;
    };
    for key in map.keys().filter(|key| !ROUTE_KEYS.contains(&key.as_str())) {
        match key.as_str() {
            "if" | "from_plugin" => {
                let hint = "write a pipeline with `on`, `from_plugin` and `if` instead".to_owned();
                findings.error(&place.at(key), "routes have no conditions", hint);
            }
            _ => findings.unknown_keys(&place, std::iter::once(key), ROUTE_KEYS),
        }
    }
    let mut text = |key: &str, what: &str| {
        let text = map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text.is_none() {
            findings.error(&place.at(key), &format!("`{key}` needs {what}"), format!("add `{key}:`"));
        }
        text
    };
    let from = text("from", "the name of a plugin");
    let event_type = text("event_type", "a type of event");
    let to = text("to", "the name of a plugin");
    if let Some(event_type) = event_type {
        warn_of_event_type(findings, event_type, &place.at("event_type"));
    }
    if let Some(from) = from
        && let Err(unusable) = known.runnable(from)
    {
        let is_off = known.config.plugins.get(from).is_some_and(|entry| !entry.enabled);
        let at = place.at("from");
        match is_off {
            true => findings.warning(&at, &unusable.message, unusable.hint),
            false => findings.error(&at, &unusable.message, unusable.hint),
        }
    }
    let target = to.map(|to| known.handler(to));
    let max_attempts = match target {
        Some(Ok(max_attempts)) => max_attempts,
        Some(Err(unusable)) => {
            findings.error(&place.at("to"), &unusable.message, unusable.hint);
            1
        }
        None => 1,
    };
    if findings.errors > errors {
        return None;
    }
    Some(Route { from: from?.into(), event_type: event_type?.into(), to: to?.into(), max_attempts })
}

impl Known<'_> {
    /// The attempts of a plugin's `handle`, when it has one.
    fn handler(&self, name: &str) -> Result<u32, super::known::Unusable> {
        let plugin = self.runnable(name)?;
        match plugin.command(builtin::COMMAND) {
            Some(_) => Ok(plugin.retry.max_attempts),
            None => Err(super::known::without_command(plugin, builtin::COMMAND)),
        }
    }
}
