//! Looks for schedules that have fallen silent: a tick that was expected and did not happen, or a schedule that is to fire
//! and of which nothing is expected. The scheduler is not asked: it may be what is broken.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;
use ductile_domain::event::LiveEvent;
use ductile_domain::schedule::silent_after;
use ductile_ledger::SilentRow;
use serde_json::{Map, Value};

use crate::shared::Shared;
use crate::wall;

/// Schedules that the operator reads of at most.
const NAMED: usize = 5;

/// What was told: each silence once.
#[derive(Debug, Default)]
pub(crate) struct Silence(HashSet<SilentRow>);

/// What a look found; `None` when nothing can be said now.
pub(crate) type Found = Option<Vec<SilentRow>>;

/// Looks. Says nothing while the scheduler had no time yet: after a start, and after the clock jumped.
pub(crate) async fn look(shared: Arc<Shared>) -> Found {
    let patience = silent_after(shared.generation().config.service.tick_interval);
    let now = wall::look(&shared);
    let flags = &shared.flags;
    let must_wait = flags.is_draining() || flags.intake_stopped().is_some() || !shared.wall.is_calm(patience);
    if must_wait {
        return None;
    }
    let before = now.checked_sub_signed(TimeDelta::from_std(patience).unwrap_or(TimeDelta::MAX))?;
    match shared.readers.silent(before).await {
        Ok(silent) => Some(silent),
        Err(error) => {
            tracing::warn!(component = "maintenance", %error, "could not look for silent schedules; trying again at the next tick");
            None
        }
    }
}

impl Silence {
    /// Tells what was found, and takes back what is over.
    pub(crate) fn tell(&mut self, shared: &Shared, found: Found) {
        let Some(silent) = found else { return };
        for row in &silent {
            if !self.0.contains(row) {
                announce(shared, row);
            }
        }
        match summary(&silent) {
            Some(text) => shared.flags.degrade("silent", text),
            None => shared.flags.clear("silent"),
        }
        self.0 = silent.into_iter().collect();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn announce(shared: &Shared, row: &SilentRow) {
    let SilentRow { plugin, schedule_id, instant, due_at } = row;
    tracing::error!(
        component = "scheduler",
        plugin,
        schedule_id,
        due_at,
        "a schedule is silent: its tick did not happen"
    );
    let fields = Map::from_iter([
        ("plugin".to_owned(), Value::from(plugin.as_str())),
        ("schedule_id".to_owned(), schedule_id.as_str().into()),
        ("instant".to_owned(), instant.as_deref().into()),
        ("due_at".to_owned(), due_at.as_deref().into()),
    ]);
    shared.ring.emit(LiveEvent::other("schedule.silent", shared.clock.now(), fields));
}

fn summary(silent: &[SilentRow]) -> Option<String> {
    let first = silent.first()?;
    let named = silent.iter().take(NAMED).map(|row| format!("{}/{}", row.plugin, row.schedule_id));
    let mut names: Vec<String> = named.collect();
    if silent.len() > NAMED {
        names.push(format!("and {} more", silent.len() - NAMED));
    }
    let since = first.due_at.as_deref().map_or_else(String::new, |due| format!(", the first since {due}"));
    Some(format!(
        "schedules that do not fire though they should: {}{since}; `ductile schedule explain {} {}` says what is expected",
        names.join(", "),
        first.plugin,
        first.schedule_id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_silent_schedules_are_named_and_the_rest_counted() {
        let row = |n: usize| SilentRow {
            plugin: "p".to_owned(),
            schedule_id: format!("s{n}"),
            instant: None,
            due_at: Some("2026-03-01T12:00:00.000Z".to_owned()),
        };
        assert_eq!(summary(&[]), None);
        let text = summary(&(0..7).map(row).collect::<Vec<_>>()).expect("a trouble");
        assert!(text.contains("p/s0, p/s1, p/s2, p/s3, p/s4, and 2 more, the first since 2026-03-01"), "{text}");
    }
}
