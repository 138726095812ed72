//! Schedules against the plugins they name: what can't run keeps its entry and its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{IfRunning, Rule, Schedule, Schedules};
use crate::catalog::{Catalog, Plugin};
use crate::config::{Config, PluginEntry};
use crate::problem::{Problem, did_you_mean};

const CATEGORY: &str = "schedule";

impl Schedules {
    /// The schedules of a configuration, checked against its plugins: every problem is reported, and an entry with an error
    /// stays with the reason in its [`Schedule::timing`].
    ///
    /// Plugins that are disabled or could not be loaded have none; the catalog said why.
    #[must_use]
    pub fn compile(config: &Config, catalog: &Catalog) -> (Self, Vec<Problem>) {
        let mut schedules = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, entry) in config.plugins.iter().filter(|(_, entry)| entry.enabled) {
            let Some(plugin) = catalog.get(name) else { continue };
            for schedule in &entry.schedules {
                let mut schedule = schedule.clone();
                if let Some(problem) = unfit(&schedule, plugin) {
                    schedule = Arc::new(refused(&schedule, &problem.message));
                    problems.push(problem);
                }
                problems.extend(doubts(&schedule, entry));
                schedules.insert((schedule.plugin.clone(), schedule.id.clone()), schedule);
            }
        }
        (Self { schedules }, problems)
    }
}

/// The schedule with one more reason for being `paused_invalid`.
fn refused(schedule: &Schedule, reason: &str) -> Schedule {
    let timing = match &schedule.timing {
        Ok(_) => Err(reason.to_owned()),
        Err(before) => Err(format!("{before}; {reason}")),
    };
    Schedule { timing, ..schedule.clone() }
}

/// Why that command can't be run by a schedule (C-17).
fn unfit(schedule: &Schedule, plugin: &Plugin) -> Option<Problem> {
    let Schedule { plugin: name, command, .. } = schedule;
    let is_schedulable = |command: &str| !matches!(command, "handle" | "health");
    let commands = || plugin.manifest.commands.iter().map(|c| c.name.as_str()).filter(|c| is_schedulable(c));
    let others = || match commands().collect::<Vec<_>>() {
        none if none.is_empty() => "the plugin has no command that can be".to_owned(),
        some => format!("write one of {}", some.join(", ")),
    };
    let (message, hint) = match &**command {
        "handle" => ("`handle` answers events and can't be scheduled".to_owned(), others()),
        "health" => ("`health` runs on demand and can't be scheduled".to_owned(), others()),
        command if plugin.command(command).is_none() => {
            let hint = did_you_mean(command, commands()).map(|near| format!("did you mean `{near}`?"));
            (format!("plugin {name:?} has no command {command:?}"), hint.unwrap_or_else(others))
        }
        _ => return None,
    };
    Some(Problem::error(CATEGORY, message).at_path(path(schedule, "command")).hint(hint))
}

/// What will not do what its writer thinks.
fn doubts(schedule: &Schedule, entry: &PluginEntry) -> Vec<Problem> {
    let mut problems = Vec::new();
    if schedule.if_running == IfRunning::Queue && &*schedule.command == "poll" && entry.max_outstanding_polls <= 1 {
        let message = "`if_running: queue` has no effect on `poll` while `max_outstanding_polls` is 1";
        let hint = format!("raise plugins.{}.max_outstanding_polls, or remove `if_running`", schedule.plugin);
        problems.push(Problem::warning(CATEGORY, message).at_path(path(schedule, "if_running")).hint(hint));
    }
    if let Ok(timing) = &schedule.timing
        && let Rule::Cron(cron) = &timing.rule
        && !cron.is_ever_within(timing.window, timing.not_on)
    {
        let message = "every tick is skipped: none of its times is inside `only_between` and outside `not_on`";
        let hint = "change the expression, or what bounds it";
        problems.push(Problem::warning(CATEGORY, message).at_path(path(schedule, "cron")).hint(hint));
    }
    problems
}

fn path(schedule: &Schedule, key: &str) -> String {
    format!("plugins.{}.schedules[{}].{key}", schedule.plugin, schedule.index)
}
