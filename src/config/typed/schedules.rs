//! `plugins.<name>.schedules`: each entry is read for itself. What is wrong with one keeps only that one from firing, so its
//! problems are errors of category `schedule`, which refuse no load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use ductile_domain::ids::is_name;
use ductile_domain::problem::Problem;
use ductile_domain::schedule::{CatchUp, Cron, IfRunning, Rule, Schedule, Timing, Weekdays, Window, named};
use ductile_domain::time;
use serde_json::value::{RawValue, to_raw_value};

use super::zone;
use crate::findings::{Findings, SCHEDULE};
use crate::node::{Content, Filled, Node, Origin};
use crate::section::{Section, duration};
use crate::show::{self, Shown};
use crate::units::LONGEST;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// A command that no plugin can declare.
const UNUSABLE: &str = "?";
const RULES: [&str; 4] = ["every", "cron", "at", "after"];

/// The entries of one plugin, in the order in which they were written.
pub(crate) fn read(
    plugin: &str,
    keys: &mut Section<'_>,
    zone: zone::Default,
    findings: &mut Findings,
) -> Vec<Arc<Schedule>> {
    let plugin: Arc<str> = plugin.into();
    let mut ids = BTreeSet::new();
    let items = keys.items("schedules", findings).into_iter().enumerate();
    items.map(|(i, (node, path))| Arc::new(entry(&plugin, i, node, &path, zone, &mut ids, findings))).collect()
}

fn entry(
    plugin: &Arc<str>,
    index: usize,
    node: &Node,
    path: &str,
    zone: zone::Default,
    ids: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> Schedule {
    if node.map().is_none() {
        let problem = Problem::error(SCHEDULE, format!("expected a map, found {}", node.kind())).at_path(path);
        let timing = Err(problem.message.clone());
        findings.add(problem.hint("write `- every: 5m`, or another of `cron`, `at`, `after`"), node.origin);
        let (id, command) = (unnamed(index).into(), UNUSABLE.into());
        let (catch_up, if_running) = (CatchUp::default(), IfRunning::default());
        return Schedule { plugin: plugin.clone(), index, id, command, payload: None, timing, catch_up, if_running };
    }
    let before = findings.problems.len();
    let mut keys = Section::open(Some(node), path, SCHEDULE, findings);
    let id = id(&mut keys, index, node.origin, ids, findings);
    let command = command(&mut keys, findings);
    let payload = payload(&mut keys, findings);
    let timing = timing(&mut keys, node, zone, findings);
    let catch_up = match keys.word("catch_up", &["skip", "run_once", "run_all"], findings) {
        Some("run_once") => CatchUp::RunOnce,
        Some("run_all") => CatchUp::RunAll,
        _ => CatchUp::Skip,
    };
    if let (Some(node), Some(Timing { rule, .. })) = (keys.get("catch_up"), &timing)
        && catch_up != CatchUp::Skip
        && !matches!(rule, Rule::Every(_))
    {
        let problem = keys.warning("catch_up", "only the ticks of `every` are caught up; this is ignored");
        findings.add(problem, node.origin);
    }
    let if_running = match keys.word("if_running", &["skip", "queue", "cancel"], findings) {
        Some("queue") => IfRunning::Queue,
        Some("cancel") => IfRunning::Cancel,
        _ => IfRunning::Skip,
    };
    if let Some(node) = keys.get("preferred_window") {
        let problem = keys.warning("preferred_window", "`preferred_window` is not enforced");
        findings.add(problem.hint("`only_between` is"), node.origin);
    }
    keys.close(findings);
    let wrong: Vec<String> = findings.problems[before..].iter().filter_map(|p| reason(p, path)).collect();
    let timing = match timing {
        Some(timing) if wrong.is_empty() => Ok(timing.drawn_for(plugin, &id)),
        _ if wrong.is_empty() => Err("a variable that it names is not defined".to_owned()),
        _ => Err(wrong.join("; ")),
    };
    Schedule {
        plugin: plugin.clone(),
        id: id.into(),
        command: command.into(),
        payload,
        timing,
        catch_up,
        if_running,
        index,
    }
}

/// What an error says of the entry, for its row.
fn reason(problem: &Problem, path: &str) -> Option<String> {
    let at = problem.path.as_deref().and_then(|at| at.strip_prefix(path)).unwrap_or_default();
    let at = at.trim_start_matches('.');
    let colon = if at.is_empty() { "" } else { ": " };
    problem.is_error().then(|| format!("{at}{colon}{}", problem.message))
}

/// SCH-03: unique within the plugin. An entry whose id can't be used gets one that no operator can write, so that it is
/// listed beside the others.
fn id(
    keys: &mut Section<'_>,
    index: usize,
    origin: Origin,
    ids: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> String {
    let Ok(written) = name(keys, "id", findings) else { return unnamed(index) };
    let (id, origin) = written.unwrap_or(("default", origin));
    if ids.insert(id.to_owned()) {
        return id.to_owned();
    }
    let problem = keys.error("id", format!("another schedule of the plugin has the id {id:?}"));
    findings.add(problem.hint("give each an `id` of its own"), origin);
    format!("{id}{}", unnamed(index))
}

fn unnamed(index: usize) -> String {
    format!("#{}", index + 1)
}

fn command(keys: &mut Section<'_>, findings: &mut Findings) -> String {
    match name(keys, "command", findings) {
        Ok(written) => written.map_or("poll", |(command, _)| command).to_owned(),
        Err(Unusable) => UNUSABLE.to_owned(),
    }
}

struct Unusable;

/// A name that rows and lists show, and where it was written; `None` when it was not.
fn name<'a>(
    keys: &mut Section<'a>,
    key: &'static str,
    findings: &mut Findings,
) -> Result<Option<(&'a str, Origin)>, Unusable> {
    let Some((text, node)) = keys.text(key, findings) else {
        return if keys.get(key).is_some() { Err(Unusable) } else { Ok(None) };
    };
    let (why, hint) = match (is_name(text), node.filled) {
        (_, Filled::FromEnvironment) => {
            (format!("{} can't be a name that is recorded and shown", node.shown()), "write the name itself")
        }
        (true, _) => return Ok(Some((text, node.origin))),
        (false, _) => (
            format!("{} is not a name", node.shown()),
            "use letters, digits, `_`, `-` and `.`, beginning with a letter or a digit",
        ),
    };
    findings.add(keys.error(key, why).hint(hint), node.origin);
    Err(Unusable)
}

fn payload(keys: &mut Section<'_>, findings: &mut Findings) -> Option<Box<RawValue>> {
    let node = keys.get("payload")?;
    if node.map().is_none() {
        findings.add(keys.error("payload", format!("expected a map, found {}", node.kind())), node.origin);
        return None;
    }
    to_raw_value(&node.to_json()).ok()
}

/// `None` after a problem, and where a variable is not defined.
fn timing(keys: &mut Section<'_>, entry: &Node, zone: zone::Default, findings: &mut Findings) -> Option<Timing> {
    let written_zone = zone::read(keys, findings);
    let has_bad_zone = written_zone.is_none() && keys.get("timezone").is_some();
    let window = keys.parsed("only_between", findings, Window::parse);
    let not_on = not_on(keys, findings);
    let rule = rule(keys, entry, findings);
    let jitter = jitter(keys, rule.as_ref().map(|(rule, _)| rule), findings);
    let (rule, own_zone) = rule?;
    if let (Some(own), Some(named), Some(node)) = (own_zone, written_zone, keys.get("timezone"))
        && own != named
    {
        let text = format!("{} is not {}, the zone that the cron expression names", node.shown(), own.name());
        findings.add(keys.error("timezone", text).hint("keep one of the two"), node.origin);
    }
    let is_local = matches!(rule, Rule::Cron(_)) || window.is_some() || not_on != Weekdays::default();
    let zone = match own_zone.or(written_zone) {
        Some(zone) => zone,
        None => {
            if zone.is_guessed && is_local && !has_bad_zone {
                findings.add(zone::guessed(&keys.path), entry.origin);
            }
            zone.zone
        }
    };
    match Timing::new(rule, jitter, zone, window, not_on) {
        Ok(timing) => Some(timing),
        Err(why) => {
            findings.add(Problem::error(SCHEDULE, why).at_path(&keys.path), entry.origin);
            None
        }
    }
}

/// SCH-04: exactly one of four keys, and the zone that a cron expression brings along.
fn rule(keys: &mut Section<'_>, entry: &Node, findings: &mut Findings) -> Option<(Rule, Option<Tz>)> {
    let written: Vec<&str> =
        RULES.into_iter().filter(|key| keys.get(key).is_some() || keys.is_undefined(key)).collect();
    match written[..] {
        [_] => {}
        [] => {
            let problem = Problem::error(SCHEDULE, "nothing says when it is due").at_path(&keys.path);
            findings.add(problem.hint("add one of `every`, `cron`, `at`, `after`"), entry.origin);
        }
        [..] => {
            let text = format!("{} are set, and only one can be", list(&written));
            let problem = Problem::error(SCHEDULE, text).at_path(&keys.path);
            findings.add(problem.hint("make an entry of its own, with an `id`, for each"), entry.origin);
        }
    }
    let every = every(keys, findings).map(|every| (Rule::Every(every), None));
    let cron = cron(keys, findings);
    let at = at(keys, findings).map(|at| (Rule::At(at), None));
    let after = keys.duration("after", Duration::ZERO..=LONGEST, findings).map(|after| (Rule::After(after), None));
    if written.len() == 1 { every.or(cron).or(at).or(after) } else { None }
}

/// `a`, `b` and `c`.
fn list(keys: &[&str]) -> String {
    let (last, first) = keys.split_last().expect("more than one");
    format!("`{}` and `{last}`", first.join("`, `"))
}

/// SCH-05: a duration, or a word for one.
fn every(keys: &mut Section<'_>, findings: &mut Findings) -> Option<Duration> {
    let node = keys.get("every")?;
    if let Some(interval) = node.text().and_then(named) {
        return Some(interval);
    }
    if node.text().is_some_and(|text| !text.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '-')) {
        let problem = keys.error("every", format!("{} is no interval", node.shown()));
        let hint = "write a duration such as 5m or 2h, or hourly, daily, weekly, monthly";
        findings.add(problem.hint(hint), node.origin);
        return None;
    }
    let interval = duration(node, &format!("{}.every", keys.path), SCHEDULE, MILLISECOND..=LONGEST, findings)?;
    if interval < SECOND {
        let problem = keys.warning("every", "below 1s it fills the ledger: each tick is a row, and a job");
        findings.add(problem, node.origin);
    }
    Some(interval)
}

/// C-22: the expression, and the zone behind it.
fn cron(keys: &mut Section<'_>, findings: &mut Findings) -> Option<(Rule, Option<Tz>)> {
    let (cron, zone) = keys.parsed("cron", findings, Cron::parse_with_zone)?;
    Some((Rule::Cron(cron), zone))
}

fn at(keys: &mut Section<'_>, findings: &mut Findings) -> Option<time::Timestamp> {
    let (text, node) = keys.text("at", findings)?;
    // Milliseconds are what the ledger keeps, and a tick is found again by its instant.
    let at = time::parse(text.trim()).and_then(|at| time::parse(&time::format(at)));
    if at.is_none() {
        let problem = keys.error("at", format!("{} is not a time", node.shown()));
        let hint = "write it as RFC 3339 with `Z` or an offset, such as 2026-03-15T14:00:00Z";
        findings.add(problem.hint(hint), node.origin);
    }
    at
}

fn jitter(keys: &mut Section<'_>, rule: Option<&Rule>, findings: &mut Findings) -> Duration {
    let Some(jitter) = keys.duration("jitter", Duration::ZERO..=LONGEST, findings) else { return Duration::ZERO };
    let Some(node) = keys.get("jitter") else { return Duration::ZERO };
    match rule {
        Some(Rule::Every(interval)) if jitter > *interval => {
            let problem = keys.error("jitter", format!("{} is more than the interval", node.shown()));
            findings.add(problem.hint("ticks would overtake each other; shorten it"), node.origin);
            Duration::ZERO
        }
        Some(Rule::Every(_)) | None => jitter,
        Some(_) => {
            findings.add(keys.warning("jitter", "only `every` has jitter; this is ignored"), node.origin);
            Duration::ZERO
        }
    }
}

/// SCH-12: names or numbers; a lone one too.
fn not_on(keys: &mut Section<'_>, findings: &mut Findings) -> Weekdays {
    let mut days = Weekdays::default();
    let Some(node) = keys.get("not_on") else { return days };
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    for (i, item) in items.iter().enumerate() {
        let text = match &item.content {
            Content::Text(text) => text.trim().to_owned(),
            Content::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match Weekdays::day(&text) {
            Some(day) => days.insert(day),
            None if item.filled == Filled::Undefined => {}
            None => {
                let key = if std::ptr::eq(item, node) { "not_on".to_owned() } else { format!("not_on[{i}]") };
                let problem = keys.error(&key, format!("{} is not a day of the week", item.shown()));
                findings.add(
                    problem.hint("write names such as saturday or sat, or 0 to 7 (0 and 7 are Sunday)"),
                    item.origin,
                );
            }
        }
    }
    days
}

/// Fills in what each entry left to its default.
pub(crate) fn show(schedules: &[Arc<Schedule>], keys: &mut BTreeMap<String, Node>) {
    let Some(Content::List(items)) = keys.get_mut("schedules").map(|node| &mut node.content) else { return };
    for (schedule, item) in schedules.iter().zip(items) {
        let Content::Map(keys) = &mut item.content else { continue };
        show::fill(keys, "id", Shown::text(&schedule.id));
        show::fill(keys, "command", Shown::text(&schedule.command));
        show::fill(keys, "catch_up", Shown::text(schedule.catch_up.as_str()));
        show::fill(keys, "if_running", Shown::text(schedule.if_running.as_str()));
        if let Ok(timing) = &schedule.timing {
            show::fill(keys, "timezone", Shown::text(timing.zone.name()));
        }
    }
}
