//! `service:` and the keys at the root that belong to it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono_tz::Tz;
use ductile_domain::config::Service;
use ductile_domain::problem::Problem;

use super::{retention, zone};
use crate::dotenv::is_variable;
use crate::findings::Findings;
use crate::intake::Intake;
use crate::node::{Node, Origin};
use crate::section::Section;
use crate::show::{self, Shown};
use crate::units::{LONGEST, written};

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const FASTEST_TICK: Duration = Duration::from_millis(100);
/// Far above what a machine can run, far below what breaks arithmetic.
pub(crate) const MOST_WORKERS: u32 = 1024;

/// A chain of hooks that is longer is a loop.
const DEEPEST_HOOKS: u32 = 100;

/// What the section says, and what other sections must know of it.
pub(crate) struct Read {
    pub(crate) service: Service,
    /// `max_workers`, or no limit at all when it could not be read.
    pub(crate) most_workers: u32,
    /// `service.api_port`.
    pub(crate) api_port: Option<(u16, Origin)>,
    /// Where `strict_mode` was written.
    pub(crate) strict_origin: Option<Origin>,
    /// Zone of schedules that name none.
    pub(crate) zone: zone::Default,
}

pub(crate) fn read(top: &mut Section<'_>, intake: &Intake<'_>, findings: &mut Findings) -> Read {
    let root_level = top.word("log_level", &LEVELS, findings);
    let node = top.get("service");
    let mut keys = Section::open(node, "service", "service", findings);
    let name = name(&mut keys, findings);
    let log_level = keys.word("log_level", &LEVELS, findings).or(root_level).unwrap_or("info");
    let dedupe_ttl = keys.duration("dedupe_ttl", Duration::ZERO..=LONGEST, findings).unwrap_or(DAY);
    let strict_mode = keys.boolean("strict_mode", findings).unwrap_or(false);
    let max_workers = keys.number("max_workers", 1..=MOST_WORKERS, findings);
    let has_bad_workers = max_workers.is_none() && keys.get("max_workers").is_some();
    let zone = zone::read(&mut keys, findings);
    let has_bad_zone = zone.is_none() && keys.get("timezone").is_some();
    let zone = match zone {
        Some(zone) => zone::Default { zone, is_guessed: false },
        None if has_bad_zone => zone::Default { zone: Tz::UTC, is_guessed: false },
        None => zone::of_the_machine(intake.env),
    };
    let service = Service {
        name,
        log_level: log_level.to_owned(),
        log_format: keys.word("log_format", &["json", "text"], findings).unwrap_or("json").to_owned(),
        tick_interval: tick_interval(&mut keys, findings),
        max_workers: max_workers.unwrap_or_else(default_workers),
        dedupe_ttl,
        job_queue_retention: queue_retention(&mut keys, dedupe_ttl, findings),
        job_log_retention: keys.duration("job_log_retention", SECOND..=LONGEST, findings).unwrap_or(30 * DAY),
        retention: retention::read(&mut keys, findings),
        drain_timeout: keys.duration("drain_timeout", Duration::ZERO..=DAY, findings).unwrap_or(30 * SECOND),
        strict_mode,
        allow_symlinks: symlinks(&mut keys, strict_mode, intake, findings),
        plugin_env_passthrough: variable_names(&mut keys, "plugin_env_passthrough", findings),
        hook_max_depth: keys.number("hook_max_depth", 0..=DEEPEST_HOOKS, findings).unwrap_or(4),
        timezone: zone.zone,
    };
    let port = keys.number("api_port", 0..=u32::from(u16::MAX), findings).and_then(|p| u16::try_from(p).ok());
    let api_port = port.zip(keys.get("api_port").map(|n| n.origin));
    let strict_origin = keys.get("strict_mode").map(|n| n.origin);
    // Acted on by the start on macOS only.
    keys.texts("tcc_paths", findings);
    keys.close(findings);
    let most_workers = if has_bad_workers { MOST_WORKERS } else { service.max_workers };
    Read { service, most_workers, api_port, strict_origin, zone }
}

/// One processor is left to the gateway itself.
fn default_workers() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    u32::try_from(processors.saturating_sub(1)).unwrap_or(MOST_WORKERS).clamp(1, MOST_WORKERS)
}

fn name(keys: &mut Section<'_>, findings: &mut Findings) -> String {
    let Some((name, node)) = keys.text("name", findings) else { return "ductile".to_owned() };
    let fits =
        name.split('-').all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if !fits {
        let problem = keys.warning("name", format!("{} does not follow the naming convention", node.shown()));
        findings.add(problem.hint("use lower-case words joined by hyphens, such as `home-primary`"), node.origin);
    }
    name.to_owned()
}

fn tick_interval(keys: &mut Section<'_>, findings: &mut Findings) -> Duration {
    let interval = keys.duration("tick_interval", FASTEST_TICK..=DAY, findings);
    if let Some(node) = keys.get("tick_interval")
        && interval.is_some_and(|i| i < SECOND)
    {
        let problem = keys.warning("tick_interval", "below 1s it costs processor time and gains nothing");
        findings.add(problem.hint("jobs, retries and schedules do not wait for the tick"), node.origin);
    }
    interval.unwrap_or(60 * SECOND)
}

/// Duplicates are found among terminal rows, so these must outlive the window in which they count.
fn queue_retention(keys: &mut Section<'_>, dedupe_ttl: Duration, findings: &mut Findings) -> Duration {
    let Some(retention) = keys.duration("job_queue_retention", SECOND..=LONGEST, findings) else {
        let node = keys.get("dedupe_ttl");
        if let (Some(node), true, None) = (node, dedupe_ttl > DAY, keys.get("job_queue_retention")) {
            let text = format!("{} is longer than job_queue_retention (default 1d)", written(dedupe_ttl));
            let hint = format!("set service.job_queue_retention to at least {}", written(dedupe_ttl));
            findings.add(keys.error("dedupe_ttl", text).hint(hint), node.origin);
        }
        return DAY;
    };
    if let Some(node) = keys.get("job_queue_retention")
        && retention < dedupe_ttl
    {
        let text = format!("{} is shorter than dedupe_ttl ({})", written(retention), written(dedupe_ttl));
        let hint = format!("set it to at least {}, or shorten dedupe_ttl", written(dedupe_ttl));
        findings.add(keys.error("job_queue_retention", text).hint(hint), node.origin);
    }
    retention
}

/// Names of environment variables; what can't be one is reported and left out.
pub(crate) fn variable_names(keys: &mut Section<'_>, key: &'static str, findings: &mut Findings) -> Vec<String> {
    let mut names = Vec::new();
    for (i, (name, node)) in keys.texts(key, findings).into_iter().enumerate() {
        if is_variable(name) {
            names.push(name.to_owned());
        } else {
            let problem = keys.error(&format!("{key}[{i}]"), "this is not the name of an environment variable");
            findings.add(problem.hint("letters, digits and `_`; names only, no values and no patterns"), node.origin);
        }
    }
    names
}

fn symlinks(keys: &mut Section<'_>, strict_mode: bool, intake: &Intake<'_>, findings: &mut Findings) -> bool {
    let allowed = keys.boolean("allow_symlinks", findings).unwrap_or(!strict_mode);
    for path in &intake.symlinks {
        let problem = if allowed {
            Problem::warning("service", "this configuration file is a symlink")
        } else {
            Problem::error("service", "this configuration file is a symlink, and service.allow_symlinks is false")
                .hint("replace it by the file itself, or set service.allow_symlinks: true")
        };
        findings.problems.push(problem.in_file(path));
    }
    allowed
}

pub(crate) fn show(service: &Service, root: &mut BTreeMap<String, Node>) {
    // The root's level is already in the canonical place.
    root.remove("log_level");
    let keys = show::map(root, "service");
    keys.remove("api_port");
    show::fill(keys, "name", Shown::text(&service.name));
    show::fill(keys, "log_level", Shown::text(&service.log_level));
    show::fill(keys, "log_format", Shown::text(&service.log_format));
    show::fill(keys, "tick_interval", Shown::duration(service.tick_interval));
    show::fill(keys, "max_workers", Shown::number(service.max_workers.into()));
    show::fill(keys, "dedupe_ttl", Shown::duration(service.dedupe_ttl));
    show::fill(keys, "job_queue_retention", Shown::duration(service.job_queue_retention));
    show::fill(keys, "job_log_retention", Shown::duration(service.job_log_retention));
    retention::show(&service.retention, keys);
    show::fill(keys, "drain_timeout", Shown::duration(service.drain_timeout));
    show::fill(keys, "strict_mode", Shown::boolean(service.strict_mode));
    show::fill(keys, "allow_symlinks", Shown::boolean(service.allow_symlinks));
    show::fill(keys, "hook_max_depth", Shown::number(service.hook_max_depth.into()));
    show::fill(keys, "timezone", Shown::text(service.timezone.name()));
}
