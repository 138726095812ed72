//! Pruning: takes rows that are older than their table's retention, in steps that are bounded by time, so that nobody
//! waits long behind one, whatever rows there are and however large.
//!
//! A round is as many steps as it takes to look at every old row. Each table is walked in the order of an index, from
//! where the last step stopped; what may go is deleted row by row, since one row may be larger than a thousand others.
//! What is old and still needed is passed over.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ductile_domain::time::{self, Timestamp};
use rusqlite::{Connection, Statement, params};

use super::errand::SET_MARK;
use super::store::Store;
use crate::error::WriteError;
use crate::ops::{Deletable, Prune, Pruned};
use crate::schedules::taken_back;

/// How long a step goes on taking rows. Its last row and the commit come on top.
const STEP: Duration = Duration::from_millis(20);

/// Rows that are looked for at a time: their numbers are held in memory.
const CHUNK: usize = 128;

/// A walk over the old rows of one table.
struct Walk {
    kind: Deletable,
    table: &'static str,
    /// The column that says how old a row is.
    time: &'static str,
    order: Order,
    /// Condition on what is walked over.
    only: &'static str,
    /// Condition on what is deleted; `?2` is the time before which a row is old.
    unless_needed: &'static str,
    /// Deletes one part of the row `?1`, as long as it has any.
    part: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Oldest first, by an index over the time.
    Time,
    /// Youngest first, by an index over the time.
    TimeBack,
    /// By number: these ascend with time, so the walk ends at the first row that is not old. Rows from a future that the
    /// clock once showed are passed over, or they would stop it for years.
    Number,
}

/// What needs other rows goes before them.
const WALKS: [Walk; 16] = [
    jobs("status = 'succeeded'"),
    jobs("status = 'skipped'"),
    jobs("status = 'failed'"),
    jobs("status = 'dead'"),
    Walk { order: Order::Time, ..plain(Deletable::Log, "job_log", "completed_at") },
    plain(Deletable::Log, "job_stopwatch", "recorded_at"),
    Walk {
        // numbers must go on ascending for those who resume behind one
        unless_needed: "id < (SELECT max(n.id) FROM job_transitions n)",
        ..plain(Deletable::Transitions, "job_transitions", "created_at")
    },
    plain(Deletable::Attempts, "job_attempts", "created_at"),
    plain(Deletable::BreakerTransitions, "circuit_breaker_transitions", "created_at"),
    Walk {
        unless_needed: "id < (SELECT max(n.id) FROM plugin_facts n
            WHERE n.plugin_name = plugin_facts.plugin_name AND n.fact_type = plugin_facts.fact_type)",
        ..plain(Deletable::Facts, "plugin_facts", "created_at")
    },
    Walk {
        // those that accrete to a context are younger, and go before it
        order: Order::TimeBack,
        unless_needed: "NOT EXISTS (SELECT 1 FROM job_queue q WHERE q.event_context_id = event_context.id)
            AND NOT EXISTS (SELECT 1 FROM event_context c WHERE c.parent_id = event_context.id)
            AND NOT EXISTS (SELECT 1 FROM pipeline_joins j
                WHERE j.event_context_id = event_context.id AND j.fired_at IS NULL)",
        ..plain(Deletable::Contexts, "event_context", "created_at")
    },
    Walk {
        order: Order::Time,
        // what its branches brought may be large, each of them
        part: Some(
            "DELETE FROM pipeline_join_branches WHERE (join_id, branch) = (SELECT b.join_id, b.branch
                FROM pipeline_joins j JOIN pipeline_join_branches b ON b.join_id = j.id WHERE j.rowid = ?1 LIMIT 1)",
        ),
        ..plain(Deletable::Contexts, "pipeline_joins", "fired_at")
    },
    Walk {
        order: Order::Time,
        // the newest end under the timing in force says where the next tick lies, but none that was taken back does
        unless_needed: concat!(
            "(NOT EXISTS (SELECT 1 FROM schedule_entries e WHERE e.plugin = schedule_ticks.plugin
                AND e.schedule_id = schedule_ticks.schedule_id AND e.fingerprint = schedule_ticks.fingerprint)
            OR ",
            taken_back!("schedule_ticks"),
            " OR EXISTS (SELECT 1 FROM schedule_ticks n WHERE n.plugin = schedule_ticks.plugin
                AND n.schedule_id = schedule_ticks.schedule_id AND n.fingerprint = schedule_ticks.fingerprint
                AND n.instant > schedule_ticks.instant AND n.ended_at IS NOT NULL AND NOT ",
            taken_back!("n"),
            "))"
        ),
        ..plain(Deletable::Ticks, "schedule_ticks", "ended_at")
    },
    plain(Deletable::Quarantine, "job_quarantine", "created_at"),
    Walk { order: Order::Time, ..plain(Deletable::Samples, "storage_samples", "at") },
    Walk {
        unless_needed: "id < (SELECT max(n.id) FROM config_snapshots n)",
        ..plain(Deletable::Snapshots, "config_snapshots", "loaded_at")
    },
];

const fn plain(kind: Deletable, table: &'static str, time: &'static str) -> Walk {
    Walk { kind, table, time, order: Order::Number, only: "", unless_needed: "", part: None }
}

/// A job ends after it was created, so an index over its creation finds it; its end is what counts.
const fn jobs(status: &'static str) -> Walk {
    Walk {
        order: Order::Time,
        only: status,
        unless_needed: "completed_at < ?2",
        ..plain(Deletable::Jobs, "job_queue", "created_at")
    }
}

impl Walk {
    /// Answers number and time of the next rows, at most `?4`, behind the one with the time `?2` and the number `?3`. In
    /// the order of time only what is older than `?1` is found.
    fn find(&self) -> String {
        let Self { table, time, only, .. } = self;
        let and = if only.is_empty() { "" } else { " AND " };
        match self.order {
            Order::Time => format!(
                "SELECT rowid, {time} FROM {table} WHERE {only}{and}{time} < ?1 AND ({time}, rowid) > (?2, ?3)
                 ORDER BY {time}, rowid LIMIT ?4"
            ),
            Order::TimeBack => format!(
                "SELECT rowid, {time} FROM {table} WHERE {only}{and}{time} < ?1 AND ({time}, rowid) < (?2, ?3)
                 ORDER BY {time} DESC, rowid DESC LIMIT ?4"
            ),
            Order::Number => format!("SELECT rowid, {time} FROM {table} WHERE rowid > ?3 ORDER BY rowid LIMIT ?4"),
        }
    }

    fn delete(&self) -> String {
        let Self { table, unless_needed, .. } = self;
        let and = if unless_needed.is_empty() { "" } else { " AND " };
        format!("DELETE FROM {table} WHERE rowid = ?1{and}{unless_needed}")
    }

    fn begin(&self) -> Place {
        match self.order {
            Order::TimeBack => Place { time: "~".to_owned(), number: i64::MAX, is_done: false },
            Order::Time | Order::Number => Place { time: String::new(), number: i64::MIN, is_done: false },
        }
    }
}

/// How far a walk has come: to the last row that it has looked at.
#[derive(Clone)]
struct Place {
    time: String,
    number: i64,
    is_done: bool,
}

/// How far a round has come.
#[derive(Clone)]
pub(super) struct Round {
    places: Vec<Place>,
    /// The walk that begins the next step, so that each has its turn.
    turn: usize,
    referred: Referred,
}

impl Default for Round {
    fn default() -> Self {
        Self { places: WALKS.iter().map(Walk::begin).collect(), turn: 0, referred: Referred::default() }
    }
}

/// The configuration snapshots that jobs refer to. No index finds them, so all jobs are looked at, but only when some
/// snapshot is old. A job that comes meanwhile refers to one that is not.
#[derive(Clone, Default)]
struct Referred {
    snapshots: HashSet<i64>,
    number: i64,
    is_complete: bool,
}

const REFERRED: &str = "SELECT rowid, enqueued_config_snapshot_id, started_config_snapshot_id FROM job_queue
    WHERE rowid > ?1 ORDER BY rowid";

/// The age of a snapshot counts from when the next one replaced it.
const IS_REPLACED: &str = "SELECT 1 FROM config_snapshots WHERE id = (SELECT min(n.id) FROM config_snapshots n
    WHERE n.id > ?1) AND loaded_at < ?2";

impl Referred {
    /// Answers whether it is complete.
    fn gather(&mut self, conn: &Connection, until: Instant) -> Result<bool, rusqlite::Error> {
        if self.is_complete {
            return Ok(true);
        }
        let mut statement = conn.prepare(REFERRED)?;
        let mut rows = statement.query([self.number])?;
        while let Some(row) = rows.next()? {
            self.number = row.get(0)?;
            let both: [Option<i64>; 2] = [row.get(1)?, row.get(2)?];
            self.snapshots.extend(both.into_iter().flatten());
            if Instant::now() >= until {
                return Ok(false);
            }
        }
        self.is_complete = true;
        Ok(true)
    }
}

impl Store {
    /// One step of the round that is under way, or of a new one.
    pub(super) fn prune(&mut self, prune: &Prune) -> Result<Pruned, WriteError> {
        self.set_synchronous(false)?;
        // kept only if it is committed
        let mut round = self.round.clone();
        let pruned = self.transaction(|conn, now| Step::new(conn, now, prune).run(&mut round))?;
        self.round = if pruned.has_more { round } else { Round::default() };
        self.checkpoints.after_commit(&self.conn);
        Ok(pruned)
    }
}

/// One step.
struct Step<'a> {
    conn: &'a Connection,
    now: Timestamp,
    prune: &'a Prune,
    until: Instant,
    pruned: Pruned,
}

impl<'a> Step<'a> {
    fn new(conn: &'a Connection, now: Timestamp, prune: &'a Prune) -> Self {
        let deleted = prune.retention.iter().map(|(kind, _)| (*kind, 0)).collect();
        Self { conn, now, prune, until: Instant::now() + STEP, pruned: Pruned { deleted, has_more: false } }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn run(mut self, round: &mut Round) -> Result<Pruned, rusqlite::Error> {
        let first = round.turn;
        for index in (0..WALKS.len()).map(|n| (first + n) % WALKS.len()) {
            if self.is_over() {
                round.turn = index;
                self.pruned.has_more = true;
                break;
            }
            let walk = &WALKS[index];
            for kind in 0..self.prune.retention.len() {
                if self.prune.retention[kind].0 == walk.kind && !round.places[index].is_done {
                    self.walk(kind, walk, index, round)?;
                    self.pruned.has_more |= !round.places[index].is_done;
                }
            }
        }
        let now = time::format(self.now);
        if self.pruned.has_more {
            self.conn.execute(SET_MARK, ["last_prune_step_at", &now])?;
        } else {
            self.conn.execute(SET_MARK, ["last_prune_at", &now])?;
        }
        Ok(self.pruned)
    }

    /// Goes on with one walk until it ends, or the step does.
    fn walk(&mut self, kind: usize, walk: &Walk, index: usize, round: &mut Round) -> Result<(), rusqlite::Error> {
        let age = chrono::TimeDelta::from_std(self.prune.retention[kind].1).unwrap_or(chrono::TimeDelta::MAX);
        let Round { places, referred, .. } = round;
        let place = &mut places[index];
        let Some(cutoff) = self.now.checked_sub_signed(age).map(time::format) else {
            place.is_done = true;
            return Ok(());
        };
        let now = time::format(self.now);
        let mut find = self.conn.prepare(&walk.find())?;
        let mut taker = Taker::new(self.conn, walk, &cutoff, self.until)?;
        loop {
            let found = find.query_map(params![cutoff, place.time, place.number, CHUNK as i64], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default()))
            })?;
            let found: Vec<_> = found.collect::<Result<_, _>>()?;
            let is_last = found.len() < CHUNK;
            for (number, time) in found {
                // what is of the future is passed over
                if time >= cutoff && time <= now {
                    place.is_done = true;
                    return Ok(());
                }
                let deleted = &mut self.pruned.deleted[kind].1;
                if time < cutoff {
                    if *deleted >= u64::from(self.prune.limit) {
                        return Ok(());
                    }
                    match taker.take(number, referred)? {
                        Some(rows) => *deleted += rows,
                        None => return Ok(()),
                    }
                }
                (place.time, place.number) = (time, number);
                if Instant::now() >= self.until {
                    return Ok(());
                }
            }
            if is_last {
                place.is_done = true;
                return Ok(());
            }
        }
    }
}

/// Takes the rows of one walk.
struct Taker<'a> {
    conn: &'a Connection,
    walk: &'a Walk,
    cutoff: &'a str,
    until: Instant,
    delete: Statement<'a>,
    part: Option<Statement<'a>>,
}

impl<'a> Taker<'a> {
    fn new(conn: &'a Connection, walk: &'a Walk, cutoff: &'a str, until: Instant) -> Result<Self, rusqlite::Error> {
        let delete = conn.prepare(&walk.delete())?;
        let part = walk.part.map(|sql| conn.prepare(sql)).transpose()?;
        Ok(Self { conn, walk, cutoff, until, delete, part })
    }

    /// Deletes one old row unless it is needed, and answers how many went; `None` when the time is over before that is
    /// done.
    fn take(&mut self, number: i64, referred: &mut Referred) -> Result<Option<u64>, rusqlite::Error> {
        if self.walk.kind == Deletable::Snapshots {
            if !self.conn.prepare(IS_REPLACED)?.exists(params![number, self.cutoff])? {
                return Ok(Some(0));
            }
            if !referred.gather(self.conn, self.until)? {
                return Ok(None);
            }
            if referred.snapshots.contains(&number) {
                return Ok(Some(0));
            }
        }
        if let Some(part) = &mut self.part {
            while part.execute([number])? > 0 {
                if Instant::now() >= self.until {
                    return Ok(None);
                }
            }
        }
        let rows = match self.delete.parameter_count() {
            1 => self.delete.execute([number])?,
            _ => self.delete.execute(params![number, self.cutoff])?,
        };
        Ok(Some(rows as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step's cost must not grow with the tables.
    #[test]
    fn no_walk_looks_at_rows_that_are_not_old() {
        let conn = Connection::open_in_memory().expect("a database in memory");
        conn.execute_batch(crate::schema::BASELINE).expect("the schema is valid");
        let parts = WALKS.iter().filter_map(|walk| walk.part).map(str::to_owned);
        let walks = WALKS.iter().flat_map(|walk| [walk.find(), walk.delete()]);
        for statement in walks.chain(parts).chain([IS_REPLACED.to_owned(), REFERRED.to_owned()]) {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).expect(&statement);
            let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>("detail"));
            for step in steps.expect("explained") {
                let step = step.expect("text");
                assert!(!step.starts_with("SCAN ") && !step.contains("TEMP B-TREE"), "{statement}: {step}");
            }
        }
    }

    /// Every table of facts is walked; the others hold what is, not what was.
    #[test]
    fn every_table_that_grows_is_pruned() {
        let conn = Connection::open_in_memory().expect("a database in memory");
        conn.execute_batch(crate::schema::BASELINE).expect("the schema is valid");
        let mut tables = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").expect("prepared");
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).expect("read");
        let kept: Vec<String> = tables
            .map(|name| name.expect("a name"))
            .filter(|name| !name.starts_with("sqlite_") && WALKS.iter().all(|walk| walk.table != name))
            .collect();
        let present = [
            "storage_sequences",
            "plugin_state",
            "pipeline_join_branches",
            "circuit_breakers",
            "schedule_entries",
            "ledger_meta",
        ];
        assert_eq!(kept, present);
    }
}
