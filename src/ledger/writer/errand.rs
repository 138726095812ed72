//! The rare operations: recovery, configuration snapshots, changes of marks. Each has the connection for itself.

use std::sync::Arc;

use ductile_domain::builtin;
use ductile_domain::job::{Candidate, Fence, JobStatus};
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::plan::Plan;
use ductile_domain::retry::{RetryPolicy, decide};
use ductile_domain::time::{self, Timestamp};
use rusqlite::{Connection, Row, params};

use super::Op;
use super::batch::Item;
use super::hook::Gone;
use super::in_force::Terms;
use super::join::seat;
use super::store::Store;
use super::transaction::{Answer, Transaction};
use crate::error::WriteError;
use crate::ops::{Buried, Finish, Orphan, Recorded, Recovered, Snapshot, Verdict};

/// Orphans finished per transaction.
const RECOVERY_STEP: usize = 128;

impl Store {
    pub(super) fn orphans(&self) -> Result<Vec<Orphan>, WriteError> {
        let mut statement = self.conn.prepare(
            "SELECT id, claim_no, plugin, command, attempt, max_attempts, boot_id, pid, pid_start FROM job_queue
             WHERE status = 'running' AND boot_id IS NOT ?1 ORDER BY rowid",
        )?;
        let rows = statement.query_map([self.boot.to_string()], orphan)?;
        // a row whose id is no UUID was not written by us, and must not keep the gateway from starting
        Ok(rows.filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    /// Finishes every orphan as crashed. Also answers the rows that became ready.
    pub(super) fn recover(&mut self) -> Result<(Vec<Recovered>, Vec<Candidate>), WriteError> {
        let orphans = self.orphans()?;
        let (mut recovered, mut ready) = (Vec::with_capacity(orphans.len()), Vec::new());
        for chunk in orphans.chunks(RECOVERY_STEP) {
            match self.end_orphans(chunk, &mut recovered, &mut ready) {
                Err(error) if !error.is_of_the_file() => {}
                done => {
                    done?;
                    continue;
                }
            }
            // one row that can't be ended must not keep the gateway from starting
            for orphan in chunk {
                match self.end_orphans(std::slice::from_ref(orphan), &mut recovered, &mut ready) {
                    Err(error) if !error.is_of_the_file() => {
                        tracing::error!(component = "ledger", job_id = %orphan.fence.job, %error, "could not end the attempt of a former start");
                    }
                    done => done?,
                }
            }
        }
        Ok((recovered, ready))
    }

    fn end_orphans(
        &mut self,
        orphans: &[Orphan],
        recovered: &mut Vec<Recovered>,
        ready: &mut Vec<Candidate>,
    ) -> Result<(), WriteError> {
        let now = self.now();
        // nobody waits for these: the answers are read from the transaction
        let ends = orphans.iter().map(|o| Item::Op(Op::Finish(Arc::new(crashed(o, now)), Box::new(drop))));
        let done = self.commit(&ends.collect::<Vec<_>>(), &[], false)?;
        ready.extend(done.ready);
        for (orphan, answer) in orphans.iter().zip(done.answers) {
            if let Answer::Finished(Ok(finished)) = answer
                && finished.verdict == Verdict::Applied
            {
                recovered.push(Recovered { orphan: orphan.clone(), finished });
            }
        }
        Ok(())
    }

    pub(super) fn mark(&mut self, name: &str, value: Option<String>) -> Result<(), WriteError> {
        self.set_synchronous(true)?;
        match value {
            Some(value) => self.conn.execute(SET_MARK, [name, &value])?,
            None => self.conn.execute("DELETE FROM ledger_meta WHERE name = ?1", [name])?,
        };
        Ok(())
    }

    pub(super) fn record_snapshot(&mut self, snapshot: Snapshot) -> Result<Recorded, WriteError> {
        self.set_synchronous(true)?;
        let (recorded, terms) = self.transaction(|conn, now| write_snapshot(conn, now, snapshot))?;
        self.put_in_force(Arc::new(terms));
        Ok(recorded)
    }
}

pub(super) const SET_MARK: &str = "INSERT INTO ledger_meta (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";

fn write_snapshot(conn: &Connection, now: Timestamp, snapshot: Snapshot) -> Result<(Recorded, Terms), rusqlite::Error> {
    let at = time::format(now);
    conn.execute(
        "INSERT INTO config_snapshots (config_hash, source_hash, source_path, source, reason, loaded_at,
            ductile_version, binary_path, snapshot_format, semantics, plugin_fingerprints, sanitized_config,
            secret_fingerprints) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, 'merged', ?9, ?10, ?11)",
        params![
            snapshot.config_hash,
            snapshot.source_hash,
            snapshot.source_path,
            snapshot.source,
            snapshot.reason,
            at,
            snapshot.ductile_version,
            snapshot.binary_path,
            snapshot.plugin_fingerprints,
            snapshot.sanitized_config,
            snapshot.secret_fingerprints,
        ],
    )?;
    let id = conn.last_insert_rowid();
    let plugins = serde_json::to_string(&snapshot.plugins).expect("strings serialize into memory");
    let mut statement = conn.prepare(
        "UPDATE job_queue SET status = 'dead', completed_at = ?1, next_retry_at = NULL,
            last_error = 'cancelled: plugin ' || plugin || ' was removed or disabled'
         WHERE status = 'queued' AND plugin NOT IN (SELECT value FROM json_each(?2))
            AND plugin NOT IN (SELECT value FROM json_each(?3))
         RETURNING id, last_error, attempt, plugin, command, join_id, join_branch",
    )?;
    let own = serde_json::to_string(&builtin::NAMES).expect("strings serialize into memory");
    let rows = statement.query_map(params![at, &plugins, own], |row| {
        let (plugin, command): (String, String) = (row.get(3)?, row.get(4)?);
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, plugin, command, seat(row, 5)?))
    })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    // what follows from it follows under the configuration that it comes with
    let terms = Terms {
        generation: snapshot.generation,
        snapshot: id,
        plugins: snapshot.plugins.iter().cloned().collect(),
        pipelines: snapshot.pipelines.clone(),
        breakers: snapshot.breakers.clone(),
    };
    let mut transaction = Transaction::new(conn, now, Some(&terms));
    let mut buried = Vec::with_capacity(rows.len());
    for (job, reason, attempt, plugin, command, seat) in rows {
        // a row whose id is no UUID was not written by us
        let Ok(job) = job.parse() else { continue };
        let transition = transaction.transition(job, Some("queued"), "dead", Some(reason.clone()), attempt)?;
        let gone =
            Gone { job, plugin: &plugin, command: &command, seat, status: JobStatus::Dead, error: Some(&reason) };
        transaction.gone(&gone)?;
        let born = transaction.settle(Some(job))?;
        buried.push(Buried { plugin: plugin.into(), command: command.into(), transition, born });
    }
    let inits = transaction.owe_inits(&snapshot, &plugins, id)?;
    let ready = transaction.ready;
    Ok((Recorded { id, buried, inits, ready }, terms))
}

/// `None` when the row was not written by us.
fn orphan(row: &Row<'_>) -> Result<Option<Orphan>, rusqlite::Error> {
    let Ok(job) = row.get_ref(0)?.as_str()?.parse() else { return Ok(None) };
    Ok(Some(Orphan {
        fence: Fence { job, claim_no: row.get(1)? },
        plugin: Arc::from(row.get_ref(2)?.as_str()?),
        command: Arc::from(row.get_ref(3)?.as_str()?),
        attempt: row.get(4)?,
        max_attempts: row.get(5)?,
        boot: row.get_ref(6)?.as_str_or_null()?.and_then(|b| b.parse().ok()),
        pid: row.get(7)?,
        pid_start: row.get(8)?,
    }))
}

fn crashed(orphan: &Orphan, now: Timestamp) -> Finish {
    let text = "crashed: the gateway ended while the attempt ran";
    let outcome = Outcome::without_process(Cause::Crashed, text.to_owned(), now);
    let ending = decide(&outcome, orphan.attempt, orphan.max_attempts, &RetryPolicy::default(), 0.0);
    Finish { fence: orphan.fence, outcome, ending, plan: Plan::default(), is_awaited: false }
}
