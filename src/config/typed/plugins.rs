//! `plugins:`: the operator's entries.

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::config::{NotifyOnComplete, PluginEntry};
use ductile_domain::ids::is_name;
use ductile_domain::problem::Problem;
use ductile_domain::retry::{LONGEST_BACKOFF, RetryPolicy};
use serde_json::{Map, Value};

use super::service::{self, MOST_WORKERS, variable_names};
use super::{limits, schedules};
use crate::findings::Findings;
use crate::node::{Node, join};
use crate::section::{Section, duration};
use crate::show::{self, Shown};

const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
const MOST_ATTEMPTS: u32 = 1000;
const MOST_POLLS: u32 = 1000;

pub(crate) fn read(
    node: Option<&Node>,
    service: &service::Read,
    findings: &mut Findings,
) -> BTreeMap<String, PluginEntry> {
    let all = Section::open(node, "plugins", "plugins", findings);
    let mut plugins = BTreeMap::new();
    for (name, node) in all.entries() {
        if name.starts_with("x-") {
            continue;
        }
        let path = join("plugins", name);
        if !is_name(name) {
            let problem = Problem::error("plugins", format!("{name:?} can't be the name of a plugin")).at_path(&path);
            findings.add(problem.hint(NAMES), node.origin);
        }
        plugins.insert(name.clone(), entry(name, node, &path, service, findings));
    }
    plugins
}

const NAMES: &str = "use letters, digits, `_`, `-` and `.`, beginning with a letter or a digit";

fn entry(name: &str, node: &Node, path: &str, service: &service::Read, findings: &mut Findings) -> PluginEntry {
    let mut keys = Section::open(Some(node), path, "plugins", findings);
    let enabled = keys.boolean("enabled", findings).unwrap_or(true);
    let uses = uses(&mut keys, findings);
    let config = config(&mut keys, findings);
    let retry = retry(&mut keys, findings);
    let parallelism = parallelism(&mut keys, service.most_workers, findings);
    let timeouts = timeouts(&mut keys, findings);
    let timeout = keys.duration("timeout", SHORTEST_TIMEOUT..=LONGEST_TIMEOUT, findings);
    let env_passthrough = variable_names(&mut keys, "env_passthrough", findings);
    if let Some(node) = keys.get("schedule") {
        let problem = Problem::warning("schedule", "`schedule` is ignored").at_path(join(path, "schedule"));
        findings.add(problem.hint("write `schedules:`, a list"), node.origin);
    }
    let notify_on_complete = notify_on_complete(&mut keys, findings);
    let schedules = schedules::read(name, &mut keys, service.zone, findings);
    let max_outstanding_polls = keys.number("max_outstanding_polls", 1..=MOST_POLLS, findings);
    let circuit_breaker = limits::breaker(&mut keys, findings);
    let limits = limits::limits(&mut keys, findings);
    keys.close(findings);
    PluginEntry {
        enabled,
        uses,
        config,
        retry,
        parallelism,
        timeouts,
        timeout,
        env_passthrough,
        notify_on_complete,
        schedules,
        max_outstanding_polls: max_outstanding_polls.unwrap_or(1),
        circuit_breaker,
        limits,
    }
}

fn notify_on_complete(keys: &mut Section<'_>, findings: &mut Findings) -> NotifyOnComplete {
    let is_word =
        keys.get("notify_on_complete").and_then(Node::text).is_some_and(|t| t.trim().parse::<bool>().is_err());
    if !is_word {
        let fires = keys.boolean("notify_on_complete", findings).unwrap_or(false);
        return if fires { NotifyOnComplete::Roots } else { NotifyOnComplete::Never };
    }
    match keys.word("notify_on_complete", &["true", "false", "cascade"], findings) {
        Some("cascade") => NotifyOnComplete::Cascade,
        _ => NotifyOnComplete::Never,
    }
}

fn uses(keys: &mut Section<'_>, findings: &mut Findings) -> Option<String> {
    let (uses, node) = keys.text("uses", findings)?;
    if !is_name(uses) {
        let problem = keys.error("uses", format!("{} can't be the name of a plugin", node.shown()));
        findings.add(problem.hint(NAMES), node.origin);
    }
    Some(uses.to_owned())
}

fn parallelism(keys: &mut Section<'_>, max_workers: u32, findings: &mut Findings) -> Option<u32> {
    let parallelism = keys.number("parallelism", 1..=MOST_WORKERS, findings)?;
    if let Some(node) = keys.get("parallelism")
        && parallelism > max_workers
    {
        let text = format!("{parallelism} is more than service.max_workers, which is {max_workers}");
        let hint = "lower it, or set service.max_workers (default: one less than there are processors)";
        findings.add(keys.error("parallelism", text).hint(hint), node.origin);
    }
    Some(parallelism)
}

/// Handed to the plugin as it is: its keys are the plugin's matter.
fn config(keys: &mut Section<'_>, findings: &mut Findings) -> Map<String, Value> {
    let Some(node) = keys.get("config") else { return Map::new() };
    match node.to_json() {
        Value::Object(map) => map,
        _ => {
            findings.add(keys.error("config", format!("expected a map, found {}", node.kind())), node.origin);
            Map::new()
        }
    }
}

/// `retry.max_attempts` wins over the flat `max_attempts`.
fn retry(keys: &mut Section<'_>, findings: &mut Findings) -> RetryPolicy {
    let default = RetryPolicy::default();
    let flat = keys.number("max_attempts", 1..=MOST_ATTEMPTS, findings);
    let mut nested = keys.section("retry", findings);
    let attempts = nested.number("max_attempts", 1..=MOST_ATTEMPTS, findings);
    let base = nested.duration("backoff_base", Duration::ZERO..=LONGEST_BACKOFF, findings);
    nested.close(findings);
    if let (Some(flat), Some(attempts), Some(node)) = (flat, attempts, keys.get("max_attempts"))
        && flat != attempts
    {
        let text = format!("retry.max_attempts says {attempts}, this says {flat}; retry.max_attempts wins");
        findings.add(keys.warning("max_attempts", text).hint("keep one of the two"), node.origin);
    }
    RetryPolicy {
        max_attempts: attempts.or(flat).unwrap_or(default.max_attempts),
        backoff_base: base.unwrap_or(default.backoff_base),
    }
}

fn timeouts(keys: &mut Section<'_>, findings: &mut Findings) -> BTreeMap<String, Duration> {
    let commands = keys.section("timeouts", findings);
    let mut timeouts = BTreeMap::new();
    for (command, node) in commands.entries() {
        let path = join(&commands.path, command);
        if let Some(value) = duration(node, &path, "plugins", SHORTEST_TIMEOUT..=LONGEST_TIMEOUT, findings) {
            timeouts.insert(command.clone(), value);
        }
    }
    timeouts
}

pub(crate) fn show(plugins: &BTreeMap<String, PluginEntry>, root: &mut BTreeMap<String, Node>) {
    let entries = show::map(root, "plugins");
    for (name, plugin) in plugins {
        let keys = show::map(entries, name);
        keys.remove("max_attempts");
        show::fill(keys, "enabled", Shown::boolean(plugin.enabled));
        let notifies = match plugin.notify_on_complete {
            NotifyOnComplete::Never => Shown::boolean(false),
            NotifyOnComplete::Roots => Shown::boolean(true),
            NotifyOnComplete::Cascade => Shown::text("cascade"),
        };
        show::fill(keys, "notify_on_complete", notifies);
        let retry = show::map(keys, "retry");
        show::fill(retry, "max_attempts", Shown::number(plugin.retry.max_attempts.into()));
        show::fill(retry, "backoff_base", Shown::duration(plugin.retry.backoff_base));
        limits::show(plugin, keys);
        schedules::show(&plugin.schedules, keys);
    }
}
