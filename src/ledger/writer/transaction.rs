//! One transaction: every operation of a batch, kind by kind, and what each of them is told after the commit.

use ductile_domain::ids::JobId;
use ductile_domain::job::Candidate;
use ductile_domain::time::{self, Timestamp};
use rusqlite::{Connection, params};

use super::claim::Running;
use super::{Op, Spawn};
use crate::error::WriteError;
use crate::ops::{Cancelled, Claims, Enqueued, Finished, Transition};

/// What one operation is told.
pub(super) enum Answer {
    Finished(Result<Finished, WriteError>),
    Cancelled(Cancelled),
    Enqueued(Vec<Enqueued>),
    Claims(Claims),
}

impl Answer {
    /// Hands it to whoever asked.
    pub(super) fn give(self, op: Op) {
        match (op, self) {
            (Op::Finish(_, then) | Op::GiveBack { then, .. }, Self::Finished(answer)) => then(answer),
            (Op::Cancel { then, .. }, Self::Cancelled(answer)) => then(Ok(answer)),
            (Op::Enqueue { then, .. }, Self::Enqueued(answer)) => then(Ok(answer)),
            (Op::Claim(_, then) | Op::StandingClaim(_, then), Self::Claims(answer)) => then(Ok(answer)),
            // each operation is answered by its own kind; dropping `then` says that the writer is closed
            _ => {}
        }
    }
}

/// What a batch did, if it is committed.
pub(super) struct Done {
    /// By the place of the operation in the batch.
    pub(super) answers: Vec<Answer>,
    /// Rows that became ready and were not claimed in the same batch.
    pub(super) ready: Vec<Candidate>,
}

impl Done {
    /// Attempts that the batch began.
    pub(super) fn began(&self) -> impl Iterator<Item = JobId> {
        let claims = self.answers.iter().filter_map(|a| if let Answer::Claims(c) = a { Some(c) } else { None });
        claims.flat_map(|c| c.claimed.iter().map(|c| c.job.fence.job))
    }
}

/// An open transaction.
pub(super) struct Transaction<'a> {
    pub(super) conn: &'a Connection,
    pub(super) now: Timestamp,
    /// The same as it is stored.
    pub(super) at: String,
    pub(super) ready: Vec<Candidate>,
}

pub(super) const RECORD_SPAWN: &str =
    "UPDATE job_queue SET pid = ?3, pid_start = ?4 WHERE id = ?1 AND claim_no = ?2 AND +status = 'running'";
pub(super) const TRANSITION: &str =
    "INSERT INTO job_transitions (job_id, from_status, to_status, reason, created_at, attempt)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

impl<'a> Transaction<'a> {
    pub(super) fn new(conn: &'a Connection, now: Timestamp) -> Self {
        Self { conn, now, at: time::format(now), ready: Vec::new() }
    }

    /// Runs the operations. Their order by kind is part of the contract: a slot that an end frees can be claimed in
    /// the same batch, so claims come last.
    pub(super) fn run(mut self, ops: &[Op], spawns: &[Spawn]) -> Result<Done, rusqlite::Error> {
        let mut answers: Vec<Option<Answer>> = ops.iter().map(|_| None).collect();
        for (op, answer) in ops.iter().zip(&mut answers) {
            *answer = match op {
                Op::Finish(finish, _) => Some(Answer::Finished(self.finish(finish)?)),
                Op::GiveBack { fence, reason, due, .. } => {
                    Some(Answer::Finished(Ok(self.give_back(*fence, reason, *due)?)))
                }
                _ => None,
            };
        }
        for spawn in spawns {
            let job = spawn.fence.job.to_string();
            self.conn.prepare_cached(RECORD_SPAWN)?.execute(params![
                job,
                spawn.fence.claim_no,
                spawn.pid,
                spawn.pid_start
            ])?;
        }
        for (op, answer) in ops.iter().zip(&mut answers) {
            if let Op::Cancel { job, why, requested_by, .. } = op {
                *answer = Some(Answer::Cancelled(self.cancel(*job, why, requested_by)?));
            }
        }
        for (op, answer) in ops.iter().zip(&mut answers) {
            if let Op::Enqueue { jobs, .. } = op {
                let enqueued = jobs.iter().map(|job| self.enqueue(job)).collect::<Result<_, _>>()?;
                *answer = Some(Answer::Enqueued(enqueued));
            }
        }
        let mut running = None;
        for (op, answer) in ops.iter().zip(&mut answers) {
            if let Op::Claim(request, _) | Op::StandingClaim(request, _) = op {
                let running = match &mut running {
                    Some(running) => running,
                    none => none.insert(Running::count(self.conn)?),
                };
                *answer = Some(Answer::Claims(self.claim(request, running)?));
            }
        }
        Ok(Done { answers: answers.into_iter().flatten().collect(), ready: self.ready })
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
    use crate::writer::{cancel, claim, enqueue, finish, memory};

    /// The writer's cost must not grow with history: no statement of a batch walks over a table.
    #[test]
    fn no_statement_of_a_batch_walks_over_a_table() {
        let conn = rusqlite::Connection::open_in_memory().expect("a database in memory");
        conn.execute_batch(crate::schema::BASELINE).expect("the schema is valid");
        let all = [cancel::ALL, claim::ALL, enqueue::ALL, finish::ALL, memory::ALL, &[super::RECORD_SPAWN]].concat();
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
