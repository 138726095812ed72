//! The rows of schedules: what is expected of each, what has ended without being fired, and what an operator paused.

use ductile_domain::ids::JobId;
use ductile_domain::schedule::{EntryStatus, Expected, TickReason, TickStatus};
use ductile_domain::time::{self, Timestamp};
use rusqlite::params;

use super::store::Store;
use super::transaction::Transaction;
use crate::error::WriteError;
use crate::schedules::{Arrangement, Ended, taken_back};

const EXPECTED: &str = "SELECT id, fingerprint, instant FROM schedule_ticks
    WHERE plugin = ?1 AND schedule_id = ?2 AND status = 'expected'";
const END: &str = "UPDATE schedule_ticks SET status = ?2, reason = ?3, ended_at = ?4 WHERE id = ?1";
/// A tick that was taken back before it was due has never had its turn; when the change that took it is undone, it is
/// expected again. So is one that was missed by a clock that was ahead: its time has not come.
const FORGET: &str = concat!(
    "DELETE FROM schedule_ticks
    WHERE plugin = ?1 AND schedule_id = ?2 AND fingerprint = ?3 AND instant = ?4
        AND (",
    taken_back!("schedule_ticks"),
    " OR status = 'missed' AND due_at > ?5)"
);
const EXPECT: &str =
    "INSERT INTO schedule_ticks (plugin, schedule_id, fingerprint, instant, due_at, status, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, 'expected', ?6)
    ON CONFLICT (plugin, schedule_id, fingerprint, instant) DO UPDATE SET due_at = excluded.due_at
    WHERE schedule_ticks.status = 'expected' AND schedule_ticks.due_at <> excluded.due_at";
const END_OR_NOTE: &str =
    "INSERT INTO schedule_ticks (plugin, schedule_id, fingerprint, instant, due_at, status, reason,
        job_id, instants, last_instant, created_at, ended_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)
    ON CONFLICT (plugin, schedule_id, fingerprint, instant) DO UPDATE SET status = excluded.status,
        reason = excluded.reason, job_id = excluded.job_id, instants = excluded.instants,
        last_instant = excluded.last_instant, ended_at = excluded.ended_at
    WHERE schedule_ticks.status = 'expected'";
const ENTRY: &str =
    "INSERT INTO schedule_entries (plugin, schedule_id, command, status, reason, fingerprint, anchor_at,
        armed_by, updated_at, next_run_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
        (SELECT t.due_at FROM schedule_ticks t WHERE t.plugin = ?1 AND t.schedule_id = ?2 AND t.status = 'expected'
            ORDER BY t.instant DESC LIMIT 1))
    ON CONFLICT (plugin, schedule_id) DO UPDATE SET command = excluded.command, reason = excluded.reason,
        status = iif(schedule_entries.status = 'paused_manual' AND excluded.status <> 'exhausted'
            OR schedule_entries.status = 'active' AND excluded.status = 'paused_manual',
            schedule_entries.status, excluded.status),
        fingerprint = excluded.fingerprint, anchor_at = excluded.anchor_at, armed_by = excluded.armed_by,
        updated_at = excluded.updated_at, next_run_at = excluded.next_run_at";
const REMOVE: &str = "DELETE FROM schedule_entries WHERE plugin = ?1 AND schedule_id = ?2";
const PAUSE: &str = "UPDATE schedule_entries SET status = ?3, updated_at = ?4
    WHERE plugin = ?1 AND status = ?2 AND (?5 IS NULL OR schedule_id = ?5) RETURNING schedule_id";
const SUCCEEDED: &str = "UPDATE schedule_entries SET last_success_at = ?3, last_success_job_id = ?4, updated_at = ?3
    WHERE plugin = ?1 AND schedule_id = ?2";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[EXPECTED, END, FORGET, EXPECT, END_OR_NOTE, ENTRY, REMOVE, PAUSE, SUCCEEDED];

/// Names the ticks of one schedule under one timing.
#[derive(Clone, Copy)]
pub(super) struct Timed<'a> {
    pub(super) plugin: &'a str,
    pub(super) schedule: &'a str,
    pub(super) fingerprint: &'a str,
}

/// How a tick ended.
pub(super) struct End {
    pub(super) instant: Timestamp,
    pub(super) due: Timestamp,
    pub(super) last: Option<(Timestamp, u32)>,
    pub(super) status: TickStatus,
    pub(super) reason: Option<TickReason>,
    pub(super) job: Option<JobId>,
}

impl From<&Ended> for End {
    fn from(ended: &Ended) -> Self {
        let Ended { instant, due, last, status, reason } = *ended;
        Self { instant, due, last, status, reason: Some(reason), job: None }
    }
}

impl Transaction<'_> {
    fn arrange(&self, to: &Arrangement) -> Result<(), rusqlite::Error> {
        let (plugin, schedule) = (&*to.plugin, &*to.schedule);
        let fingerprint = to.fingerprint.as_deref();
        if let Some(fingerprint) = fingerprint {
            let timed = Timed { plugin, schedule, fingerprint };
            to.ended.iter().try_for_each(|ended| self.end_tick(timed, &ended.into()))?;
        }
        let kept: Vec<String> = match fingerprint {
            Some(_) if !to.is_removed => to.expect.iter().map(|e| time::format(e.instant)).collect(),
            _ => Vec::new(),
        };
        let (status, reason) = to.others_end;
        let mut statement = self.conn.prepare_cached(EXPECTED)?;
        let rows = statement.query_map([plugin, schedule], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        for (id, of, instant) in rows.collect::<Result<Vec<_>, _>>()? {
            if fingerprint != Some(&*of) || !kept.contains(&instant) {
                let end = params![id, status.as_str(), reason.as_str(), self.at];
                self.conn.prepare_cached(END)?.execute(end)?;
            }
        }
        if to.is_removed {
            self.conn.prepare_cached(REMOVE)?.execute([plugin, schedule])?;
            return Ok(());
        }
        if let Some(fingerprint) = fingerprint {
            let timed = Timed { plugin, schedule, fingerprint };
            to.expect.iter().try_for_each(|expected| self.expect_tick(timed, *expected))?;
        }
        self.conn.prepare_cached(ENTRY)?.execute(params![
            plugin,
            schedule,
            &*to.command,
            to.status.as_str(),
            to.reason,
            fingerprint,
            to.anchor.map(time::format),
            to.armed_by.map(|boot| boot.to_string()),
            self.at,
        ])?;
        Ok(())
    }

    /// A tick that has ended is not expected again.
    pub(super) fn expect_tick(&self, timed: Timed<'_>, expected: Expected) -> Result<(), rusqlite::Error> {
        let Timed { plugin, schedule, fingerprint } = timed;
        let instant = time::format(expected.instant);
        self.conn.prepare_cached(FORGET)?.execute([plugin, schedule, fingerprint, &instant, &self.at])?;
        let due = time::format(expected.due);
        self.conn.prepare_cached(EXPECT)?.execute([plugin, schedule, fingerprint, &instant, &due, &self.at])?;
        Ok(())
    }

    /// Ends a tick, whether it was expected or not; changes nothing about one that has ended.
    pub(super) fn end_tick(&self, timed: Timed<'_>, end: &End) -> Result<(), rusqlite::Error> {
        let (last, instants) = end.last.map_or((None, 1), |(last, n)| (Some(time::format(last)), n));
        self.conn.prepare_cached(END_OR_NOTE)?.execute(params![
            timed.plugin,
            timed.schedule,
            timed.fingerprint,
            time::format(end.instant),
            time::format(end.due),
            end.status.as_str(),
            end.reason.map(TickReason::as_str),
            end.job.map(|job| job.to_string()),
            instants,
            last,
            self.at,
        ])?;
        Ok(())
    }

    /// A job of the schedule has succeeded.
    pub(super) fn note_success(&self, plugin: &str, schedule: &str, job: JobId) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(SUCCEEDED)?.execute([plugin, schedule, &self.at, &job.to_string()])?;
        Ok(())
    }

    fn pause(&self, plugin: &str, schedule: Option<&str>, on: bool) -> Result<Vec<String>, rusqlite::Error> {
        let (active, paused) = (EntryStatus::Active.as_str(), EntryStatus::PausedManual.as_str());
        let (from, to) = if on { (active, paused) } else { (paused, active) };
        let mut statement = self.conn.prepare_cached(PAUSE)?;
        let mut changed: Vec<String> = statement
            .query_map(params![plugin, from, to, self.at, schedule], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        changed.sort();
        Ok(changed)
    }
}

impl Store {
    /// Writes all of them in one transaction; when it fails, each gets its own.
    pub(super) fn arrange(&mut self, arrangements: &[Arrangement]) -> Result<Vec<Result<(), WriteError>>, WriteError> {
        self.set_synchronous(false)?;
        match self.arrange_together(arrangements) {
            Ok(()) => return Ok(vec![Ok(()); arrangements.len()]),
            Err(error) if error.is_of_the_file() => return Err(error),
            Err(error) => {
                tracing::warn!(component = "ledger", %error, schedules = arrangements.len(), "schedules failed together, trying each alone");
            }
        }
        let mut trouble = None;
        let alone = |to| {
            let done = match &trouble {
                Some(error) => Err(WriteError::clone(error)),
                None => self.arrange_together(std::slice::from_ref(to)),
            };
            if let Err(error) = &done
                && error.is_of_the_file()
            {
                trouble = Some(error.clone());
            }
            done
        };
        Ok(arrangements.iter().map(alone).collect())
    }

    fn arrange_together(&self, arrangements: &[Arrangement]) -> Result<(), WriteError> {
        self.transaction(|conn, now| {
            let transaction = Transaction::new(conn, now, None);
            arrangements.iter().try_for_each(|to| transaction.arrange(to))
        })
    }

    pub(super) fn pause_schedules(
        &mut self,
        plugin: &str,
        schedule: Option<&str>,
        on: bool,
    ) -> Result<Vec<String>, WriteError> {
        self.set_synchronous(true)?;
        self.transaction(|conn, now| Transaction::new(conn, now, None).pause(plugin, schedule, on))
    }
}
