//! One transaction: every piece of a batch, and what each of them is told after the commit.

use ductile_domain::ids::JobId;
use ductile_domain::job::Candidate;
use ductile_domain::time::{self, Timestamp};
use rusqlite::{Connection, params};

use super::batch::Item;
use super::in_force::Terms;
use super::join::Tally;
use super::{Op, Spawn};
use crate::error::WriteError;
use crate::ops::{Cancelled, Finished, Submitted, Transition, Verdict};

/// What one piece of a batch is told.
pub(super) enum Answer {
    Finished(Result<Finished, WriteError>),
    Cancelled(Cancelled),
    Submitted(Submitted),
    /// The transition to `running`, if it was written.
    Started(Option<i64>),
}

impl Answer {
    /// Hands it to whoever asked.
    pub(super) fn give(self, item: Item) {
        match (item, self) {
            (Item::Op(Op::Finish(_, then) | Op::GiveBack { then, .. }), Self::Finished(answer)) => then(answer),
            (Item::Op(Op::Cancel { then, .. }), Self::Cancelled(answer)) => then(Ok(answer)),
            (Item::Op(Op::Submit { then, .. }), Self::Submitted(answer)) => then(Ok(answer)),
            (Item::Grant(grant, started), Self::Started(Some(transition))) => started(&grant.claimed.job, transition),
            // each piece is answered by its own kind; dropping `then` says that the writer is closed
            _ => {}
        }
    }

    /// True when rows are as whoever counted slots took them to be.
    pub(super) fn is_as_expected(&self) -> bool {
        match self {
            Self::Finished(Ok(finished)) => matches!(finished.verdict, Verdict::Applied | Verdict::AlreadyApplied),
            Self::Finished(Err(_)) | Self::Started(None) => false,
            Self::Cancelled(_) | Self::Submitted(_) | Self::Started(Some(_)) => true,
        }
    }
}

/// What a batch did, if it is committed.
pub(super) struct Done {
    /// By the place of the piece in the batch.
    pub(super) answers: Vec<Answer>,
    /// Rows that became ready.
    pub(super) ready: Vec<Candidate>,
}

/// An open transaction.
pub(super) struct Transaction<'a> {
    pub(super) conn: &'a Connection,
    pub(super) now: Timestamp,
    /// The same as it is stored.
    pub(super) at: String,
    pub(super) ready: Vec<Candidate>,
    pub(super) in_force: Option<&'a Terms>,
    /// What the present operation changes about joins.
    pub(super) tally: Tally,
}

pub(super) const RECORD_SPAWN: &str =
    "UPDATE job_queue SET pid = ?3, pid_start = ?4 WHERE id = ?1 AND claim_no = ?2 AND +status = 'running'";
pub(super) const TRANSITION: &str =
    "INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at, attempt)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

impl<'a> Transaction<'a> {
    pub(super) fn new(conn: &'a Connection, now: Timestamp, in_force: Option<&'a Terms>) -> Self {
        Self { conn, now, at: time::format(now), ready: Vec::new(), in_force, tally: Tally::default() }
    }

    /// Runs the pieces in their order: each finds what those before it did.
    pub(super) fn run(mut self, items: &[Item], spawns: &[Spawn]) -> Result<Done, rusqlite::Error> {
        let answers = items.iter().map(|item| self.one(item)).collect::<Result<_, _>>()?;
        for spawn in spawns {
            let job = spawn.fence.job.to_string();
            let process = params![job, spawn.fence.claim_no, spawn.pid, spawn.pid_start];
            self.conn.prepare_cached(RECORD_SPAWN)?.execute(process)?;
        }
        Ok(Done { answers, ready: self.ready })
    }

    fn one(&mut self, item: &Item) -> Result<Answer, rusqlite::Error> {
        Ok(match item {
            Item::Grant(grant, _) => Answer::Started(self.take(grant)?),
            Item::Op(Op::Finish(finish, _)) => Answer::Finished(self.finish(finish)?),
            Item::Op(Op::GiveBack { fence, reason, due, .. }) => {
                Answer::Finished(Ok(self.give_back(*fence, reason, *due)?))
            }
            Item::Op(Op::Cancel { job, why, requested_by, .. }) => {
                Answer::Cancelled(self.cancel(*job, why, requested_by)?)
            }
            Item::Op(Op::Submit { submission, .. }) => Answer::Submitted(self.submit(submission)?),
        })
    }

    /// Appends a row of `job_transitions`.
    pub(super) fn transition(
        &self,
        job: JobId,
        from: Option<&'static str>,
        to: &'static str,
        reason: Option<String>,
        attempt: i64,
    ) -> Result<Transition, rusqlite::Error> {
        let id = self.conn.prepare_cached(TRANSITION)?.insert(params![
            job.to_string(),
            from,
            to,
            reason,
            self.at,
            attempt
        ])?;
        Ok(Transition { id, job, from, to, reason, at: self.now })
    }
}

#[cfg(test)]
mod tests {
    use crate::writer::{
        breaker, cancel, claim, context, enqueue, entry, finish, hook, init, join, memory, quarantine, tick,
    };

    /// The writer's cost must not grow with history: no statement of a batch walks over a table.
    #[test]
    fn no_statement_of_a_batch_walks_over_a_table() {
        let conn = rusqlite::Connection::open_in_memory().expect("a database in memory");
        conn.execute_batch(crate::schema::BASELINE).expect("the schema is valid");
        let pipelines = [context::ALL, hook::ALL, join::ALL].concat();
        let plain =
            [cancel::ALL, claim::ALL, enqueue::ALL, finish::ALL, init::ALL, memory::ALL, quarantine::ALL].concat();
        let schedules = [breaker::ALL, entry::ALL, tick::ALL].concat();
        let all = [plain, pipelines, schedules, vec![super::RECORD_SPAWN]].concat();
        let mut seen = 0;
        for statement in all {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).expect(statement);
            let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>("detail"));
            for step in steps.expect("explained") {
                let step = step.expect("text");
                assert!(!step.starts_with("SCAN ") || step == "SCAN CONSTANT ROW", "{statement}: {step}");
                // all rows of one status are looked at for the few that run only
                let is_long = step.contains("(status=?)") && !statement.contains("status = 'running'");
                assert!(!is_long, "{statement}: {step}");
                seen += 1;
            }
        }
        assert!(seen > 12, "only {seen} steps were looked at");
    }
}
