//! The `init` that each plugin is owed: once when it is found, once more when its configuration or its files have
//! changed, and how the last one ended. Kept in `ledger_meta`, which no retention prunes.

use ductile_domain::job::NewJob;
use rusqlite::{OptionalExtension as _, params};

use super::context::Waiting;
use super::transaction::Transaction;
use crate::ops::{Enqueued, Init, Snapshot};

// The name is `init:` and the plugin's.
const READ: &str = "SELECT json_extract(value, '$.print') FROM ledger_meta WHERE name = 'init:' || ?1";
const OWE: &str = "INSERT INTO ledger_meta (name, value) VALUES ('init:' || ?1, json_object('print', ?2, 'job_id', ?3))
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// Of the answer only the text for people and agents is kept, within bounds.
const SETTLE: &str = "UPDATE ledger_meta SET value = json_set(value, '$.job_id', ?2, '$.error', ?3,
        '$.result', CASE WHEN json_valid(?4) THEN substr(json_extract(?4, '$.result'), 1, 65536) END)
    WHERE name = 'init:' || ?1";
/// A plugin that was removed is found anew when it comes back.
const FORGET: &str = "DELETE FROM ledger_meta WHERE name >= 'init:' AND name < 'init;'
    AND substr(name, 6) NOT IN (SELECT value FROM json_each(?1))";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[READ, OWE, SETTLE];

impl Transaction<'_> {
    /// Enqueues the inits that are due under a generation; the others are answered with `None`.
    pub(super) fn owe_inits(
        &mut self,
        snapshot: &Snapshot,
        plugins: &str,
        id: i64,
    ) -> Result<Vec<Option<Enqueued>>, rusqlite::Error> {
        self.conn.execute(FORGET, [plugins])?;
        snapshot.inits.iter().map(|init| self.owe(init, id)).collect()
    }

    fn owe(&mut self, init: &Init, snapshot: i64) -> Result<Option<Enqueued>, rusqlite::Error> {
        let plugin = &*init.job.plugin;
        let last = self.conn.prepare_cached(READ)?.query_row([plugin], |row| row.get::<_, Option<String>>(0));
        if last.optional()?.flatten().as_deref() == Some(&*init.print) {
            return Ok(None);
        }
        self.conn.prepare_cached(OWE)?.execute(params![plugin, init.print, init.job.id.to_string()])?;
        self.enqueue(&NewJob { snapshot: Some(snapshot), ..init.job.clone() }, &mut Waiting::default()).map(Some)
    }

    /// Notes how an `init` ended and what it answered; one that an operator ran by hand counts as well.
    pub(super) fn settle_init(
        &self,
        plugin: &str,
        command: &str,
        job: &str,
        error: Option<&str>,
        answer: Option<&str>,
    ) -> Result<(), rusqlite::Error> {
        if command == "init" {
            self.conn.prepare_cached(SETTLE)?.execute(params![plugin, job, error, answer])?;
        }
        Ok(())
    }
}
