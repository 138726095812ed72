//! The one connection that writes: how it is opened and closed, and how a batch becomes a transaction.

use std::path::PathBuf;
use std::sync::Arc;

use ductile_domain::config::Durability;
use ductile_domain::ids::BootId;
use ductile_domain::time::{self, Timestamp};
use fail::fail_point;
use rusqlite::{Connection, OpenFlags};

use super::batch::Item;
use super::checkpoint::Checkpoints;
use super::in_force::{InForce, Terms};
use super::prune::Round;
use super::transaction::{Done, Transaction};
use super::{Op, Spawn};
use crate::clock::Clock;
use crate::error::WriteError;
use crate::open::OpenOptions;
use crate::ops::{Finished, Verdict};

/// The connection and what its writes depend on.
pub(super) struct Store {
    pub(super) conn: Connection,
    pub(super) boot: BootId,
    pub(super) in_force: Option<Arc<Terms>>,
    /// Where the next writer finds it.
    home: InForce,
    clock: Clock,
    durability: Durability,
    /// What `PRAGMA synchronous` is now: true for FULL.
    is_synced: bool,
    pub(super) checkpoints: Checkpoints,
    /// The write-ahead log.
    pub(super) log: PathBuf,
    /// What pruning has looked at so far.
    pub(super) round: Round,
}

/// Times are stored with milliseconds, so nothing finer may leave through an answer.
pub(super) fn stored(now: Timestamp) -> Timestamp {
    chrono::DurationRound::duration_trunc(now, chrono::TimeDelta::milliseconds(1)).unwrap_or(now)
}

impl Store {
    pub(super) fn open(options: &OpenOptions) -> Result<Self, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&options.path, flags)?;
        conn.busy_timeout(options.busy_timeout)?;
        conn.set_prepared_statement_cache_capacity(64);
        // A large cache would cost more than it saves: SQLite walks over all of it at every commit that moved pages in
        // a tree, and the pages that matter are the newest of each tree.
        conn.execute_batch(
            "PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024;
             PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON;
             PRAGMA synchronous = FULL",
        )?;
        let mut log = options.path.clone().into_os_string();
        log.push("-wal");
        let checkpoints = Checkpoints::start(&conn, &options.path, options.busy_timeout);
        Ok(Self {
            conn,
            boot: options.boot,
            in_force: options.in_force.get(),
            home: options.in_force.clone(),
            clock: options.clock.clone(),
            durability: options.durability,
            is_synced: true,
            checkpoints,
            log: log.into(),
            round: Round::default(),
        })
    }

    /// Marks the stop as clean and closes the connection; the last one removes `-wal` and `-shm`.
    pub(super) fn close(self) -> Result<(), rusqlite::Error> {
        let now = time::format(self.now());
        self.conn.execute(
            "INSERT INTO ledger_meta (name, value) VALUES ('clean_shutdown', '1'), ('last_stop_at', ?1)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [now],
        )?;
        self.checkpoints.end();
        self.conn.close().map_err(|(_, error)| error)
    }

    /// A number that changes with every commit of another connection, and with none of this one.
    pub(super) fn version(&self) -> Result<i64, rusqlite::Error> {
        self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
    }

    /// A claim that was asked for under a former generation: its attempts would begin under what is no more in force.
    pub(super) fn is_outdated(&self, snapshot: Option<i64>) -> bool {
        let in_force = self.in_force.as_ref().map(|in_force| in_force.snapshot);
        snapshot.zip(in_force).is_some_and(|(asked, now)| asked < now)
    }

    pub(super) fn now(&self) -> Timestamp {
        stored(self.clock.now())
    }

    /// Puts a generation in force whose snapshot is committed.
    pub(super) fn put_in_force(&mut self, terms: Arc<Terms>) {
        self.home.put(terms.clone());
        self.in_force = Some(terms);
    }

    /// Hands the operation back unless the generation in force can't carry its plan; then it is answered.
    pub(super) fn in_order(&self, op: Op) -> Option<Op> {
        let Some(in_force) = &self.in_force else { return Some(op) };
        let (generation, jobs) = match &op {
            Op::Finish(finish, _) => (finish.plan.generation, finish.plan.children.as_slice()),
            Op::Submit { submission, generation, .. } => (*generation, submission.jobs.as_slice()),
            Op::GiveBack { .. } | Op::Cancel { .. } => return Some(op),
        };
        if generation == in_force.generation {
            return Some(op);
        }
        let gone = jobs.iter().map(|j| &*j.plugin).find(|p| !in_force.knows(p)).map(str::to_owned);
        match (gone, op) {
            (None, op) => return Some(op),
            (Some(_), Op::Finish(_, then)) => then(Ok(Finished::unchanged(Verdict::Replan))),
            (Some(plugin), op) => op.refuse(WriteError::PluginGone { plugin }),
        }
        None
    }

    /// Commits the pieces in one transaction, or nothing.
    pub(super) fn commit(&mut self, items: &[Item], spawns: &[Spawn], is_awaited: bool) -> Result<Done, WriteError> {
        self.set_synchronous(is_awaited)?;
        fail_point!("ledger_before_begin");
        let in_force = self.in_force.as_deref();
        let done = self.transaction(|conn, now| Transaction::new(conn, now, in_force).run(items, spawns))?;
        fail_point!("ledger_after_commit");
        self.checkpoints.after_commit(&self.conn);
        Ok(done)
    }

    /// Finds out whether the file can be written. Leaves nothing behind.
    pub(super) fn probe(&mut self) -> Result<(), WriteError> {
        self.set_synchronous(false)?;
        self.transaction(|conn, _| {
            conn.execute("INSERT OR REPLACE INTO ledger_meta (name, value) VALUES ('probe', '')", [])?;
            conn.execute("DELETE FROM ledger_meta WHERE name = 'probe'", [])
        })?;
        Ok(())
    }

    /// Runs `work` between `BEGIN IMMEDIATE` and `COMMIT`; after an error nothing of it is left.
    pub(super) fn transaction<T>(
        &self,
        work: impl FnOnce(&Connection, Timestamp) -> Result<T, rusqlite::Error>,
    ) -> Result<T, WriteError> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        fail_point!("ledger_after_begin");
        let result = work(&self.conn, self.now()).and_then(|value| {
            fail_point!("ledger_before_commit");
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(value)
        });
        // a full disk ends the transaction by itself: then there is nothing to roll back
        if result.is_err() && !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        result.map_err(WriteError::from)
    }

    /// `synchronous` can't change inside a transaction; only changes are sent.
    pub(super) fn set_synchronous(&mut self, is_awaited: bool) -> Result<(), WriteError> {
        let wanted = match self.durability {
            Durability::Accepted => is_awaited,
            Durability::Full => true,
            Durability::Normal => false,
        };
        if wanted != self.is_synced {
            let sql = if wanted { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            self.conn.execute_batch(sql)?;
            self.is_synced = wanted;
        }
        Ok(())
    }
}
