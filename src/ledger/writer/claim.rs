//! Claims. Candidates are hints: status, due time and twins are decided here from the committed row, caps from the
//! attempts that hold a slot. A claim is granted at once and written with the next transaction, at most a few
//! milliseconds later and before anything else about the attempt.

use std::collections::HashMap;
use std::sync::Arc;

use ductile_domain::builtin::is_builtin;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::{Candidate, ClaimedJob, Fence};
use ductile_domain::time::{self, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::value::RawValue;

use super::join::seat;
use super::transaction::Transaction;
use crate::ops::{Claimed, Refusal};

const RUNNING: &str = "SELECT id, claim_no, plugin, command, dedupe_key FROM job_queue WHERE status = 'running'";
const FIND: &str = "SELECT status, next_retry_at, plugin, command, payload, attempt, max_attempts, submitted_by,
        dedupe_key, created_at, claim_no, parent_job_id, event_context_id,
        (SELECT s.state FROM plugin_state s WHERE s.plugin_name = job_queue.plugin),
        join_id, join_branch, is_routed, memory_tier
    FROM job_queue WHERE rowid = ?1 AND id = ?2";
const CONTEXT: &str = "SELECT accumulated_json FROM event_context WHERE id = ?1";
const TAKE: &str = "UPDATE job_queue SET status = 'running', started_at = ?3, next_retry_at = NULL,
        claim_no = claim_no + 1, boot_id = ?4, pid = NULL, pid_start = NULL, started_config_snapshot_id = ?5
    WHERE rowid = ?1 AND status = 'queued' AND claim_no = ?2";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[RUNNING, FIND, CONTEXT, TAKE];

/// A claim that was granted.
pub(super) struct Grant {
    pub(super) claimed: Claimed,
    pub(super) boot: BootId,
    pub(super) snapshot: Option<i64>,
}

/// An attempt that holds a slot.
struct Held {
    claim_no: i64,
    plugin: Arc<str>,
    command: Arc<str>,
    dedupe_key: Option<String>,
}

/// The attempts that hold a slot: the rows in `running`, with the grants and without the ends that wait to be written.
#[derive(Default)]
pub(super) struct Slots(HashMap<JobId, Held>);

impl Slots {
    /// Counts from rows.
    pub(super) fn read(conn: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = conn.prepare_cached(RUNNING)?;
        let mut rows = statement.query([])?;
        let mut slots = HashMap::new();
        while let Some(row) = rows.next()? {
            // a row whose id is no UUID was not written by us
            let Ok(job) = row.get_ref(0)?.as_str()?.parse() else { continue };
            let (plugin, command) = (Arc::from(row.get_ref(2)?.as_str()?), Arc::from(row.get_ref(3)?.as_str()?));
            slots.insert(job, Held { claim_no: row.get(1)?, plugin, command, dedupe_key: row.get(4)? });
        }
        Ok(Self(slots))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of them are the plugin's.
    pub(super) fn of(&self, plugin: &str) -> usize {
        self.0.values().filter(|held| &*held.plugin == plugin).count()
    }

    pub(super) fn contains(&self, job: JobId) -> bool {
        self.0.contains_key(&job)
    }

    /// The plugin of a claim that holds a slot.
    pub(super) fn held(&self, fence: Fence) -> Option<&Arc<str>> {
        self.0.get(&fence.job).filter(|held| held.claim_no == fence.claim_no).map(|held| &held.plugin)
    }

    /// The gateway's own steps have no cap but the gateway's.
    pub(super) fn is_at_cap(&self, plugin: &str, cap: u32) -> bool {
        !is_builtin(plugin) && self.of(plugin) >= cap as usize
    }

    /// Whether an attempt with the same plugin, command and dedupe key holds a slot.
    pub(super) fn has_twin(&self, plugin: &str, command: &str, key: Option<&str>) -> bool {
        let Some(key) = key else { return false };
        let is_twin = |h: &Held| h.dedupe_key.as_deref() == Some(key) && &*h.plugin == plugin && &*h.command == command;
        self.0.values().any(is_twin)
    }

    pub(super) fn hold(&mut self, job: &ClaimedJob) {
        let held = Held {
            claim_no: job.fence.claim_no,
            plugin: job.plugin.clone(),
            command: job.command.clone(),
            dedupe_key: job.dedupe_key.clone(),
        };
        self.0.insert(job.fence.job, held);
    }

    /// Frees the slot of a claim that ends.
    pub(super) fn free(&mut self, fence: Fence) {
        if self.0.get(&fence.job).is_some_and(|held| held.claim_no == fence.claim_no) {
            self.0.remove(&fence.job);
        }
    }

    /// Grants one candidate an attempt, or says why not.
    pub(super) fn grant(
        &mut self,
        conn: &Connection,
        candidate: &Candidate,
        cap: u32,
        max_running: u32,
        now: Timestamp,
    ) -> Result<Result<Claimed, Refusal>, rusqlite::Error> {
        let id = candidate.job.to_string();
        let mut find = conn.prepare_cached(FIND)?;
        let mut rows = find.query(params![candidate.row, id])?;
        let Some(row) = rows.next()? else { return Ok(Err(Refusal::Gone)) };
        if row.get_ref(0)?.as_str()? != "queued" || self.0.contains_key(&candidate.job) {
            return Ok(Err(Refusal::Gone));
        }
        if row.get_ref(1)?.as_str_or_null()?.is_some_and(|due| due > time::format(now).as_str()) {
            return Ok(Err(Refusal::NotDue));
        }
        if self.has_twin(row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?, row.get_ref(8)?.as_str_or_null()?) {
            return Ok(Err(Refusal::TwinRunning));
        }
        if self.is_at_cap(&candidate.plugin, cap) {
            return Ok(Err(Refusal::PluginCap));
        }
        if self.len() >= max_running as usize {
            return Ok(Err(Refusal::GlobalCap));
        }
        let claimed = read(conn, row, candidate, now)?;
        self.hold(&claimed.job);
        Ok(Ok(claimed))
    }
}

/// The next attempt of a candidate that may run now, if it had a slot.
pub(super) fn read_ahead(
    conn: &Connection,
    candidate: &Candidate,
    now: Timestamp,
) -> Result<Option<Claimed>, rusqlite::Error> {
    let mut find = conn.prepare_cached(FIND)?;
    let mut rows = find.query(params![candidate.row, candidate.job.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let is_due = row.get_ref(1)?.as_str_or_null()?.is_none_or(|due| due <= time::format(now).as_str());
    if row.get_ref(0)?.as_str()? != "queued" || !is_due {
        return Ok(None);
    }
    read(conn, row, candidate, now).map(Some)
}

fn read(conn: &Connection, row: &Row<'_>, candidate: &Candidate, now: Timestamp) -> Result<Claimed, rusqlite::Error> {
    let mut unreadable = None;
    // what is no text can't be read either
    let mut json = |text: Result<Option<String>, rusqlite::Error>, column: &'static str| {
        let value = text.map(|text| text.map(RawValue::from_string).transpose());
        value.map_err(drop).and_then(|value| value.map_err(drop)).unwrap_or_else(|()| {
            unreadable = Some(column);
            None
        })
    };
    let payload = json(row.get(4), "payload");
    let state = json(row.get(13), "state");
    let context = match row.get::<_, Option<String>>(12)? {
        Some(id) => conn.prepare_cached(CONTEXT)?.query_row([id], |row| row.get(0)).optional(),
        None => Ok(None),
    };
    let context = json(context, "accumulated_json");
    let job = ClaimedJob {
        fence: Fence { job: candidate.job, claim_no: row.get::<_, i64>(10)? + 1 },
        row: candidate.row,
        plugin: Arc::from(row.get_ref(2)?.as_str()?),
        command: Arc::from(row.get_ref(3)?.as_str()?),
        payload,
        attempt: row.get(5)?,
        max_attempts: row.get(6)?,
        submitted_by: Arc::from(row.get_ref(7)?.as_str()?),
        dedupe_key: row.get(8)?,
        created_at: time::parse(row.get_ref(9)?.as_str()?).unwrap_or(now),
        started_at: now,
        state,
        context,
        context_id: row.get_ref(12)?.as_str_or_null()?.and_then(|id| id.parse().ok()),
        seat: seat(row, 14)?,
        is_routed: row.get(16)?,
        memory_tier: row.get(17)?,
        parent: row.get_ref(11)?.as_str_or_null()?.and_then(|id| id.parse().ok()),
    };
    Ok(Claimed { job: Arc::new(job), unreadable })
}

impl Transaction<'_> {
    /// Writes a grant. `None` when somebody else has changed the row meanwhile: the attempt's later writes are fenced
    /// then.
    pub(super) fn take(&self, grant: &Grant) -> Result<Option<i64>, rusqlite::Error> {
        let job = &grant.claimed.job;
        let started_at = time::format(job.started_at);
        let taken = self.conn.prepare_cached(TAKE)?.execute(params![
            job.row,
            job.fence.claim_no - 1,
            started_at,
            grant.boot.to_string(),
            grant.snapshot
        ])?;
        if taken == 0 {
            return Ok(None);
        }
        let reason = format!("attempt {} of {}", job.attempt, job.max_attempts);
        let transition =
            self.transition(job.fence.job, Some("queued"), "running", Some(reason), i64::from(job.attempt))?;
        Ok(Some(transition.id))
    }
}
