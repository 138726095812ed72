//! Cancellations: a queued row dies at once, a running one gets a flag that its attempt's end obeys.

use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use rusqlite::{OptionalExtension as _, params};

use super::hook::Gone;
use super::join::seat;
use super::transaction::Transaction;
use crate::ops::{Buried, Cancelled};

const FIND: &str = "SELECT rowid, status, attempt, plugin, command, join_id, join_branch FROM job_queue WHERE id = ?1";
const BURY: &str = "UPDATE job_queue SET status = 'dead', completed_at = ?2, next_retry_at = NULL, last_error = ?3,
    cancel_requested_at = ?2, cancel_requested_by = ?4, cancel_reason = ?5 WHERE rowid = ?1";
const FLAG: &str = "UPDATE job_queue SET cancel_requested_at = ?2, cancel_requested_by = ?3, cancel_reason = ?4
    WHERE rowid = ?1 AND cancel_requested_at IS NULL";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[FIND, BURY, FLAG];

impl Transaction<'_> {
    pub(super) fn cancel(&mut self, job: JobId, why: &str, requested_by: &str) -> Result<Cancelled, rusqlite::Error> {
        let id = job.to_string();
        let found = self.conn.prepare_cached(FIND)?.query_row([&id], |row| {
            let (plugin, command): (String, String) = (row.get(3)?, row.get(4)?);
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, plugin, command, seat(row, 5)?))
        });
        let Some((row, status, attempt, plugin, command, seat)) = found.optional()? else {
            return Ok(Cancelled::Unknown);
        };
        match status.parse() {
            Ok(JobStatus::Queued) => {
                let text = format!("cancelled: {why}");
                self.conn.prepare_cached(BURY)?.execute(params![row, self.at, text, requested_by, why])?;
                self.settle_init(&plugin, &command, &id, Some(&text), None)?;
                let transition = self.transition(job, Some("queued"), "dead", Some(text.clone()), attempt)?;
                let (plugin, command) = (&*plugin, &*command);
                self.gone(&Gone { job, plugin, command, seat, status: JobStatus::Dead, error: Some(&text) })?;
                let born = self.settle(Some(job))?;
                Ok(Cancelled::Dead(Buried { plugin: plugin.into(), command: command.into(), transition, born }))
            }
            Ok(JobStatus::Running) => {
                self.conn.prepare_cached(FLAG)?.execute(params![row, self.at, requested_by, why])?;
                Ok(Cancelled::Flagged)
            }
            Ok(status) => Ok(Cancelled::AlreadyTerminal(status)),
            Err(_) => Ok(Cancelled::Unknown),
        }
    }
}
