//! Breakers: their rows change with the end of a job, with the tick that probes, and by an operator's reset.

use std::collections::BTreeMap;

use ductile_domain::breaker::{Breaker, BreakerChange, BreakerPolicy, Circuit};
use ductile_domain::ids::JobId;
use ductile_domain::time;
use rusqlite::{OptionalExtension as _, Row, params};

use super::store::Store;
use super::transaction::Transaction;
use crate::error::WriteError;
use crate::schedules::BreakerEvent;

const READ: &str =
    "SELECT state, failure_count, opened_at, last_failure_at, last_job_id, probe_job_id FROM circuit_breakers
    WHERE plugin = ?1 AND command = ?2";
const COMMANDS: &str = "SELECT command FROM circuit_breakers WHERE plugin = ?1 ORDER BY command";
const WRITE: &str = "INSERT INTO circuit_breakers (plugin, command, state, failure_count, opened_at, last_failure_at,
        last_job_id, probe_job_id, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (plugin, command) DO UPDATE SET state = excluded.state, failure_count = excluded.failure_count,
        opened_at = excluded.opened_at, last_failure_at = excluded.last_failure_at,
        last_job_id = excluded.last_job_id, probe_job_id = excluded.probe_job_id, updated_at = excluded.updated_at";
const RECORD: &str = "INSERT INTO circuit_breaker_transitions (plugin, command, from_state, to_state, failure_count,
        reason, job_id, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[READ, COMMANDS, WRITE, RECORD];

/// The breaker that guards a plugin's command, with what it is judged by.
pub(super) struct Guard<'a> {
    pub(super) plugin: &'a str,
    pub(super) command: &'a str,
    pub(super) breaker: Breaker,
    pub(super) policy: BreakerPolicy,
}

impl Transaction<'_> {
    pub(super) fn breaker<'a>(&self, plugin: &'a str, command: &'a str) -> Result<Guard<'a>, rusqlite::Error> {
        let breaker = self.conn.prepare_cached(READ)?.query_row([plugin, command], read).optional()?;
        let policies = self.in_force.map(|terms| &terms.breakers);
        let policy = policies.and_then(|of: &BTreeMap<_, _>| of.get(plugin)).copied().unwrap_or_default();
        Ok(Guard { plugin, command, breaker: breaker.unwrap_or_default(), policy })
    }

    /// Counts the end of a scheduled job; `is_success` is `None` when it says nothing.
    pub(super) fn count(
        &self,
        plugin: &str,
        command: &str,
        job: JobId,
        is_success: Option<bool>,
    ) -> Result<Option<BreakerEvent>, rusqlite::Error> {
        if is_success.is_none() {
            return Ok(None);
        }
        let mut guard = self.breaker(plugin, command)?;
        let change = guard.breaker.count(&guard.policy, job, is_success, self.now);
        self.keep(&guard, change, Some(job))
    }

    /// Fires the probe of a breaker that let it pass.
    pub(super) fn probe(&self, guard: &mut Guard<'_>, job: JobId) -> Result<Option<BreakerEvent>, rusqlite::Error> {
        let change = guard.breaker.probe(job);
        self.keep(guard, change, Some(job))
    }

    /// Closes every breaker of the plugin; those that were closed forget their failures.
    fn reset_breaker(&self, plugin: &str) -> Result<Vec<BreakerEvent>, rusqlite::Error> {
        let mut statement = self.conn.prepare_cached(COMMANDS)?;
        let commands = statement.query_map([plugin], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let mut events = Vec::new();
        for command in &commands {
            let mut guard = self.breaker(plugin, command)?;
            let change = guard.breaker.reset();
            events.extend(self.keep(&guard, change, None)?);
        }
        Ok(events)
    }

    /// Writes the row, and the change if it is one.
    fn keep(
        &self,
        guard: &Guard<'_>,
        change: Option<BreakerChange>,
        job: Option<JobId>,
    ) -> Result<Option<BreakerEvent>, rusqlite::Error> {
        let Guard { plugin, command, breaker, .. } = guard;
        self.conn.prepare_cached(WRITE)?.execute(params![
            plugin,
            command,
            breaker.state.as_str(),
            breaker.failure_count,
            breaker.opened_at.map(time::format),
            breaker.last_failure_at.map(time::format),
            breaker.last_job.map(|id| id.to_string()),
            breaker.probe.map(|id| id.to_string()),
            self.at,
        ])?;
        let Some(change) = change else { return Ok(None) };
        self.conn.prepare_cached(RECORD)?.execute(params![
            plugin,
            command,
            change.from.as_str(),
            change.to.as_str(),
            breaker.failure_count,
            change.reason.as_str(),
            job.map(|id| id.to_string()),
            self.at,
        ])?;
        let (plugin, command) = ((*plugin).into(), (*command).into());
        Ok(Some(BreakerEvent { plugin, command, change, failure_count: breaker.failure_count, job, at: self.now }))
    }
}

/// Words that are not ours count as those of a breaker that never saw a job.
fn read(row: &Row<'_>) -> Result<Breaker, rusqlite::Error> {
    let moment = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?.and_then(time::parse));
    let job = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?.and_then(|id| id.parse().ok()));
    Ok(Breaker {
        state: Circuit::parse(row.get_ref(0)?.as_str()?).unwrap_or_default(),
        failure_count: u32::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        opened_at: moment(2)?,
        last_failure_at: moment(3)?,
        last_job: job(4)?,
        probe: job(5)?,
    })
}

impl Store {
    pub(super) fn reset_breaker(&mut self, plugin: &str) -> Result<Vec<BreakerEvent>, WriteError> {
        self.set_synchronous(true)?;
        self.transaction(|conn, now| Transaction::new(conn, now, None).reset_breaker(plugin))
    }
}
