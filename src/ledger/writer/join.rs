//! Joins: how many of a split's jobs are left, and the job that follows the last of them.
//!
//! A join counts the jobs seated in its branches that have not ended, and the joins nested in them that have not fired.
//! Every operation sums up what it changes and settles the sums at its end, in its own transaction: a join that is left
//! with nothing open fires then, once. A job that hands its seat on to one child changes nothing and costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ductile_domain::ids::{ContextId, EventId, JobId, JoinId};
use ductile_domain::job::{JobStatus, NewJob, Seat, TRIGGERS};
use ductile_domain::plan::{Arrival, NewJoin};
use rusqlite::{OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::context::Waiting;
use super::transaction::Transaction;
use crate::ops::Born;

const INSERT: &str = "INSERT INTO pipeline_joins (id, outer_id, outer_branch, open, job, event_context_id, created_at)
    VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6)";
const BRANCH: &str = "INSERT INTO pipeline_join_branches (join_id, branch, step, status) VALUES (?1, ?2, ?3, 'open')";
const COUNT: &str = "UPDATE pipeline_joins SET open = open + ?2 WHERE id = ?1 AND fired_at IS NULL RETURNING open";
// What comes after the join has fired changes nothing about what it said.
const ARRIVE: &str = "UPDATE pipeline_join_branches SET payload = ?3, job_id = iif(status = 'failed', job_id, ?4)
    WHERE join_id = ?1 AND branch = ?2
        AND EXISTS (SELECT 1 FROM pipeline_joins j WHERE j.id = ?1 AND j.fired_at IS NULL)";
const FAIL: &str = "UPDATE pipeline_join_branches SET status = 'failed', error = ?3, job_id = ?4
    WHERE join_id = ?1 AND branch = ?2 AND status = 'open'
        AND EXISTS (SELECT 1 FROM pipeline_joins j WHERE j.id = ?1 AND j.fired_at IS NULL)";
const READ: &str = "SELECT outer_id, outer_branch, job, event_context_id FROM pipeline_joins WHERE id = ?1";
const CLOSE: &str = "UPDATE pipeline_join_branches SET status = 'succeeded' WHERE join_id = ?1 AND status = 'open'";
const BRANCHES: &str = "SELECT branch, step, status, payload, error, job_id FROM pipeline_join_branches
    WHERE join_id = ?1 ORDER BY branch";
const LEFT_OUT: &str =
    "UPDATE pipeline_join_branches SET status = 'failed', error = ?3 WHERE join_id = ?1 AND branch = ?2";
const FIRE: &str = "UPDATE pipeline_joins SET fired_at = ?2, fired_job_id = ?3 WHERE id = ?1";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[INSERT, BRANCH, COUNT, ARRIVE, FAIL, READ, CLOSE, BRANCHES, LEFT_OUT, FIRE];

/// Bytes that all branches together may bring. Steps that hand on what they got would double it with every join.
const MOST_BROUGHT: usize = 32 << 20;

/// What an operation has changed about joins, before it is settled.
#[derive(Default)]
pub(super) struct Tally {
    changes: BTreeMap<JoinId, Change>,
    born: Vec<Born>,
}

#[derive(Default)]
struct Change {
    by: i64,
    /// It was made by this operation, so that nothing may be open from its beginning.
    is_new: bool,
}

impl Tally {
    fn change(&mut self, join: JoinId, by: i64, is_new: bool) {
        let change = self.changes.entry(join).or_default();
        change.by += by;
        change.is_new |= is_new;
    }

    pub(super) fn bear(&mut self, born: Born) {
        self.born.push(born);
    }
}

/// The `core.join` job while it waits: what of a [`NewJob`] is not known otherwise when the join fires.
#[derive(Serialize, Deserialize)]
struct Template {
    id: JobId,
    plugin: Arc<str>,
    command: Arc<str>,
    max_attempts: u32,
    submitted_by: String,
    requested_by: Option<String>,
    target_key: String,
    is_routed: bool,
    snapshot: Option<i64>,
}

impl Template {
    fn of(job: &NewJob) -> Self {
        Self {
            id: job.id,
            plugin: job.plugin.clone(),
            command: job.command.clone(),
            max_attempts: job.max_attempts,
            submitted_by: job.submitted_by.to_owned(),
            requested_by: job.requested_by.clone(),
            target_key: job.target_key.clone(),
            is_routed: job.is_routed,
            snapshot: job.snapshot,
        }
    }
}

/// A join that fires.
struct Waited {
    outer: Option<Seat>,
    job: Option<Template>,
    context: Option<ContextId>,
}

impl Waited {
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            outer: seat(row, 0)?,
            job: row.get_ref(2)?.as_str().ok().and_then(|job| serde_json::from_str(job).ok()),
            context: row.get_ref(3)?.as_str_or_null()?.and_then(|id| id.parse().ok()),
        })
    }
}

/// The seat in the columns `at` and the one after it; `None` too when it was not written by us.
pub(super) fn seat(row: &Row<'_>, at: usize) -> Result<Option<Seat>, rusqlite::Error> {
    let join = row.get_ref(at)?.as_str_or_null()?.and_then(|id| id.parse().ok());
    Ok(join.zip(row.get(at + 1)?).map(|(join, branch)| Seat { join, branch }))
}

/// One element of `branches` in the payload of a `core.join` job.
#[derive(Serialize)]
struct Branch {
    branch: u32,
    step: String,
    status: String,
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

#[derive(Serialize)]
struct Payload {
    branches: Vec<Branch>,
}

impl Transaction<'_> {
    /// A join begins to wait.
    pub(super) fn open_join(&mut self, join: &NewJoin, contexts: &mut Waiting<'_>) -> Result<(), rusqlite::Error> {
        self.write_context(join.job.context, contexts)?;
        let id = join.id.to_string();
        let job = serde_json::to_string(&Template::of(&join.job)).expect("plain values serialize into memory");
        self.conn.prepare_cached(INSERT)?.execute(params![
            id,
            join.outer.map(|seat| seat.join.to_string()),
            join.outer.map(|seat| seat.branch),
            job,
            join.job.context.map(|id| id.to_string()),
            self.at,
        ])?;
        for (branch, step) in (0_u32..).zip(&join.branches) {
            self.conn.prepare_cached(BRANCH)?.execute(params![id, branch, &**step])?;
        }
        self.tally.change(join.id, 0, true);
        if let Some(outer) = join.outer {
            self.tally.change(outer.join, 1, false);
        }
        Ok(())
    }

    /// A job has taken a seat.
    pub(super) fn take_seat(&mut self, seat: Seat) {
        self.tally.change(seat.join, 1, false);
    }

    /// A branch has brought something to its join; `job` is the one that did.
    pub(super) fn arrive(&self, arrival: &Arrival, job: Option<&str>) -> Result<(), rusqlite::Error> {
        let Arrival { seat, payload } = arrival;
        let payload = payload.as_ref().map(|payload| payload.get());
        self.conn.prepare_cached(ARRIVE)?.execute(params![seat.join.to_string(), seat.branch, payload, job])?;
        Ok(())
    }

    /// A seated job has ended.
    pub(super) fn leave_seat(
        &mut self,
        seat: Seat,
        job: &str,
        status: JobStatus,
        error: Option<&str>,
    ) -> Result<(), rusqlite::Error> {
        if matches!(status, JobStatus::Failed | JobStatus::Dead) {
            self.conn.prepare_cached(FAIL)?.execute(params![seat.join.to_string(), seat.branch, error, job])?;
        }
        self.tally.change(seat.join, -1, false);
        Ok(())
    }

    /// Writes the sums of an operation, and lets every join fire that is left with nothing open. `last` is the job that
    /// the operation ended. Answers the jobs that were born.
    pub(super) fn settle(&mut self, last: Option<JobId>) -> Result<Vec<Born>, rusqlite::Error> {
        // what a firing changes about an outer join is added to what waits already, or settled again
        while let Some((join, Change { by, is_new })) = self.tally.changes.pop_first() {
            if by == 0 && !is_new {
                continue;
            }
            let counted = self.conn.prepare_cached(COUNT)?.query_row(params![join.to_string(), by], |row| row.get(0));
            match counted.optional()? {
                Some(1..=i64::MAX) => {}
                Some(_) => self.fire(join, last)?,
                None => tracing::error!(component = "ledger", %join, "a seat names a join that does not wait"),
            }
        }
        Ok(std::mem::take(&mut self.tally.born))
    }

    fn fire(&mut self, join: JoinId, last: Option<JobId>) -> Result<(), rusqlite::Error> {
        let id = join.to_string();
        let Waited { outer, job, context } = self.conn.prepare_cached(READ)?.query_row([&id], Waited::read)?;
        self.conn.prepare_cached(CLOSE)?.execute([&id])?;
        let followed_by = job.as_ref().map(|job| job.id.to_string());
        self.conn.prepare_cached(FIRE)?.execute(params![id, self.at, followed_by])?;
        if let Some(outer) = outer {
            self.tally.change(outer.join, -1, false);
        }
        let Some(Template {
            id: follower,
            plugin,
            command,
            max_attempts,
            submitted_by,
            requested_by,
            target_key,
            is_routed,
            snapshot,
        }) = job
        else {
            tracing::error!(component = "ledger", %join, "a join's job can't be read: nothing follows its branches");
            if let Some(outer) = outer {
                let error = "the job that follows a join inside of this branch can't be read";
                self.conn.prepare_cached(FAIL)?.execute(params![
                    outer.join.to_string(),
                    outer.branch,
                    error,
                    None::<&str>
                ])?;
            }
            return Ok(());
        };
        let trigger = TRIGGERS.into_iter().find(|word| *word == submitted_by).unwrap_or("route");
        let job = NewJob {
            payload: Some(self.payload_of(&id)?),
            max_attempts,
            requested_by,
            parent: last,
            source_event: Some(EventId::from(join.uuid())),
            target_key,
            context,
            seat: outer,
            is_routed,
            snapshot: self.in_force.map(|terms| terms.snapshot).or(snapshot),
            ..NewJob::new(follower, plugin, command, trigger)
        };
        self.bear(&job, &mut Waiting::default())
    }

    /// What the branches brought, in authored order. A branch whose payload has no room fails, so that nobody takes the
    /// rest for all of it.
    fn payload_of(&self, join: &str) -> Result<Box<RawValue>, rusqlite::Error> {
        let mut statement = self.conn.prepare_cached(BRANCHES)?;
        let mut rows = statement.query([join])?;
        let (mut branches, mut left_out, mut left) = (Vec::new(), Vec::new(), MOST_BROUGHT);
        while let Some(row) = rows.next()? {
            let brought = row.get_ref(3)?.as_str_or_null()?.unwrap_or_default();
            let mut branch = Branch {
                branch: row.get(0)?,
                step: row.get(1)?,
                status: row.get(2)?,
                payload: None,
                error: row.get(4)?,
                job_id: row.get(5)?,
            };
            match left.checked_sub(brought.len()) {
                Some(rest) => {
                    left = rest;
                    branch.payload = RawValue::from_string(brought.to_owned()).ok();
                }
                None if branch.status != "failed" => {
                    branch.status = "failed".to_owned();
                    left_out.push(branches.len());
                    let bytes = brought.len();
                    branch.error = Some(format!(
                        "its payload of {bytes} bytes is left out: the branches of a join may bring {MOST_BROUGHT} bytes together"
                    ));
                }
                None => {}
            }
            branches.push(branch);
        }
        drop(rows);
        for at in left_out {
            let Branch { branch, error, .. }: &Branch = &branches[at];
            self.conn.prepare_cached(LEFT_OUT)?.execute(params![join, branch, error])?;
        }
        let payload = Payload { branches };
        Ok(serde_json::value::to_raw_value(&payload).expect("branches serialize into memory"))
    }
}
