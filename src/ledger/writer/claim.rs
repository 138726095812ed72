//! Claims. Candidates are hints: status, due time, caps and running twins are decided here, from rows.

use std::collections::HashMap;
use std::sync::Arc;

use ductile_domain::job::{Candidate, ClaimRequest, ClaimedJob, Fence};
use ductile_domain::time;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::value::RawValue;

use super::transaction::Transaction;
use crate::ops::{Claimed, Claims, Refusal, Refused};

const RUNNING: &str = "SELECT plugin, count(*) FROM job_queue WHERE status = 'running' GROUP BY plugin";
const FIND: &str = "SELECT status, next_retry_at, plugin, command, payload, attempt, max_attempts, submitted_by,
        dedupe_key, created_at, claim_no, parent_job_id, event_context_id,
        (SELECT s.state FROM plugin_state s WHERE s.plugin_name = job_queue.plugin)
    FROM job_queue WHERE rowid = ?1 AND id = ?2";
const CONTEXT: &str = "SELECT accumulated_json FROM event_context WHERE id = ?1";
const TWIN: &str = "SELECT 1 FROM job_queue WHERE dedupe_key = ?1 AND status = 'running' AND +plugin = ?2
    AND +command = ?3";
const TAKE: &str = "UPDATE job_queue SET status = 'running', started_at = ?2, next_retry_at = NULL,
        claim_no = claim_no + 1, boot_id = ?3, pid = NULL, pid_start = NULL, started_config_snapshot_id = ?4
    WHERE rowid = ?1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[FIND, CONTEXT, TWIN, TAKE];

/// The rows in `running`, as the claims of one batch find and change them.
pub(super) struct Running {
    all: u32,
    of_plugin: HashMap<String, u32>,
}

impl Running {
    pub(super) fn count(conn: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = conn.prepare_cached(RUNNING)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let of_plugin: HashMap<String, u32> = rows.collect::<Result<_, _>>()?;
        Ok(Self { all: of_plugin.values().sum(), of_plugin })
    }

    fn of(&self, plugin: &str) -> u32 {
        self.of_plugin.get(plugin).copied().unwrap_or(0)
    }

    fn add(&mut self, plugin: &str) {
        self.all += 1;
        match self.of_plugin.get_mut(plugin) {
            Some(running) => *running += 1,
            None => drop(self.of_plugin.insert(plugin.to_owned(), 1)),
        }
    }
}

impl Transaction<'_> {
    pub(super) fn claim(&mut self, request: &ClaimRequest, running: &mut Running) -> Result<Claims, rusqlite::Error> {
        let mut claims = Claims::default();
        for (candidate, cap) in &request.candidates {
            match self.take(candidate, *cap, request, running)? {
                Ok(claimed) => claims.claimed.push(claimed),
                Err(why) => claims.refused.push(Refused { row: candidate.row, job: candidate.job, why }),
            }
        }
        if !self.ready.is_empty() {
            // what became ready in this batch and was taken in it is not ready any more
            self.ready.retain(|r| !claims.claimed.iter().any(|c| c.job.fence.job == r.job));
        }
        Ok(claims)
    }

    fn take(
        &self,
        candidate: &Candidate,
        cap: u32,
        request: &ClaimRequest,
        running: &mut Running,
    ) -> Result<Result<Claimed, Refusal>, rusqlite::Error> {
        let id = candidate.job.to_string();
        let mut find = self.conn.prepare_cached(FIND)?;
        let mut rows = find.query(params![candidate.row, id])?;
        let Some(row) = rows.next()? else { return Ok(Err(Refusal::Gone)) };
        if row.get_ref(0)?.as_str()? != "queued" {
            return Ok(Err(Refusal::Gone));
        }
        if row.get_ref(1)?.as_str_or_null()?.is_some_and(|due| due > self.at.as_str()) {
            return Ok(Err(Refusal::NotDue));
        }
        let mut claimed = self.read(row, candidate)?;
        let job = &claimed.job;
        if let Some(key) = &job.dedupe_key
            && self.conn.prepare_cached(TWIN)?.exists(params![key, &*job.plugin, &*job.command])?
        {
            return Ok(Err(Refusal::TwinRunning));
        }
        if running.of(&job.plugin) >= cap {
            return Ok(Err(Refusal::PluginCap));
        }
        if running.all >= request.max_running {
            return Ok(Err(Refusal::GlobalCap));
        }
        running.add(&job.plugin);
        let boot = request.boot.to_string();
        self.conn.prepare_cached(TAKE)?.execute(params![candidate.row, self.at, boot, request.snapshot])?;
        let reason = format!("attempt {} of {}", job.attempt, job.max_attempts);
        let transition =
            self.transition(candidate.job, Some("queued"), "running", Some(reason), i64::from(job.attempt))?;
        claimed.transition = transition.id;
        Ok(Ok(claimed))
    }

    fn read(&self, row: &Row<'_>, candidate: &Candidate) -> Result<Claimed, rusqlite::Error> {
        let mut unreadable = None;
        let mut json = |text: Option<String>, column: &'static str| {
            text.and_then(|text| RawValue::from_string(text).map_err(|_| unreadable = Some(column)).ok())
        };
        let payload = json(row.get(4)?, "payload");
        let state = json(row.get(13)?, "state");
        let context = match row.get::<_, Option<String>>(12)? {
            Some(id) => self.conn.prepare_cached(CONTEXT)?.query_row([id], |row| row.get(0)).optional()?,
            None => None,
        };
        let context = json(context, "accumulated_json");
        let created_at = time::parse(row.get_ref(9)?.as_str()?).unwrap_or(self.now);
        let parent = row.get_ref(11)?.as_str_or_null()?.and_then(|id| id.parse().ok());
        Ok(Claimed {
            job: ClaimedJob {
                fence: Fence { job: candidate.job, claim_no: row.get::<_, i64>(10)? + 1 },
                row: candidate.row,
                plugin: Arc::from(row.get_ref(2)?.as_str()?),
                command: Arc::from(row.get_ref(3)?.as_str()?),
                payload,
                attempt: row.get(5)?,
                max_attempts: row.get(6)?,
                submitted_by: Arc::from(row.get_ref(7)?.as_str()?),
                dedupe_key: row.get(8)?,
                created_at,
                started_at: self.now,
                state,
                context,
                parent,
            },
            transition: 0,
            unreadable,
        })
    }
}
