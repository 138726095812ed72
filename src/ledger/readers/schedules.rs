//! Schedules, their ticks and breakers, as operators and the scheduler read them.

use std::collections::HashSet;

use ductile_domain::schedule::{EntryStatus, Expected};
use ductile_domain::time::{self, Timestamp};
use serde::Serialize;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use super::queue::unsigned;
use super::{Readers, reading};
use crate::error::Error;
use crate::schedules::{Entry, taken_back};

/// Which ticks a list shows; empty fields match everything.
#[derive(Debug, Clone, Default)]
pub struct TickFilter {
    /// Plugin or alias.
    pub plugin: Option<String>,
    /// Schedule of that name, of any plugin unless one is named.
    pub schedule: Option<String>,
    /// A word of `schedule_ticks.status`.
    pub status: Option<String>,
    /// Only those with a lower `id`: the next page of a list.
    pub before_id: Option<i64>,
    /// Rows of a page.
    pub limit: u32,
}

/// A row of `schedule_ticks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TickRow {
    /// Row; ascends with the time at which the tick was first expected.
    pub id: i64,
    /// Plugin or alias.
    pub plugin: String,
    /// Its schedule.
    pub schedule_id: String,
    /// Tells its timing apart.
    pub fingerprint: String,
    /// The nominal instant, RFC 3339.
    pub instant: String,
    /// When it is or was due, RFC 3339.
    pub due_at: String,
    /// `expected`, `fired`, `caught_up`, `skipped` or `missed`.
    pub status: String,
    /// Why it ended so, or what it waits for.
    pub reason: Option<String>,
    /// The job that it enqueued, or that stood for it.
    pub job_id: Option<String>,
    /// How many instants share the row.
    pub instants: u64,
    /// The last of them when they are several, RFC 3339.
    pub last_instant: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; null while it is expected.
    pub ended_at: Option<String>,
}

/// An active schedule whose tick is overdue, or that has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SilentRow {
    /// Plugin or alias.
    pub plugin: String,
    /// The schedule.
    pub schedule_id: String,
    /// The expected instant, RFC 3339; null when none is expected.
    pub instant: Option<String>,
    /// When it was due, RFC 3339.
    pub due_at: Option<String>,
}

/// A row of `circuit_breakers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerRow {
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures in a row.
    pub failure_count: u64,
    /// When it opened last, RFC 3339.
    pub opened_at: Option<String>,
    /// When a job failed last, RFC 3339.
    pub last_failure_at: Option<String>,
    /// The job that was counted last.
    pub last_job_id: Option<String>,
    /// RFC 3339.
    pub updated_at: String,
}

/// A row of `circuit_breaker_transitions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerTransitionRow {
    /// Row.
    pub id: i64,
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// From.
    pub from_state: Option<String>,
    /// To.
    pub to_state: String,
    /// Failures in a row, after it.
    pub failure_count: u64,
    /// `failure_threshold`, `success`, `cooldown_elapsed` or `manual_reset`.
    pub reason: String,
    /// The job that caused it, or that is the probe.
    pub job_id: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}

/// One row for each expected tick, and at least one for each entry. `+column` keeps the planner on the index of expected
/// ticks: that of identities would walk over the history.
const ENTRIES: &str = concat!(
    "SELECT e.plugin, e.schedule_id, e.command, e.status, e.reason, e.fingerprint, e.anchor_at, e.armed_by,
        e.last_fired_at, e.last_success_at, e.last_success_job_id, e.next_run_at,
        (SELECT coalesce(t.last_instant, t.instant) FROM schedule_ticks t WHERE t.plugin = e.plugin
            AND t.schedule_id = e.schedule_id AND t.fingerprint = e.fingerprint AND t.status <> 'expected'
            AND NOT ",
    taken_back!("t"),
    " ORDER BY t.instant DESC LIMIT 1),
        x.instant, x.due_at
     FROM schedule_entries e LEFT JOIN schedule_ticks x ON x.plugin = e.plugin AND x.schedule_id = e.schedule_id
        AND x.status = 'expected' AND +x.fingerprint = e.fingerprint"
);

/// Of each instant in `?4`, all of them to come, the newest row that begins at or before it; a row may stand for several
/// instants. What a clock that was ahead has missed is to come as well.
const ENDED: &str = concat!(
    "SELECT wanted.value FROM json_each(?4) wanted JOIN schedule_ticks t ON t.id = (SELECT n.id FROM schedule_ticks n
        WHERE n.plugin = ?1 AND n.schedule_id = ?2 AND n.fingerprint = ?3 AND n.instant <= wanted.value
        ORDER BY n.instant DESC LIMIT 1)
     WHERE t.status NOT IN ('expected', 'missed') AND NOT ",
    taken_back!("t"),
    " AND coalesce(t.last_instant, t.instant) >= wanted.value"
);

const TICKS: &str = "SELECT id, plugin, schedule_id, fingerprint, instant, due_at, status, reason, job_id, instants,
    last_instant, created_at, ended_at FROM schedule_ticks WHERE 1";

impl Readers {
    /// Every schedule that the ledger knows, by plugin and id.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn entries(&self) -> Result<Vec<Entry>, Error> {
        self.entries_where(None).await
    }

    /// One of them.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn entry(&self, plugin: &str, schedule: &str) -> Result<Option<Entry>, Error> {
        Ok(self.entries_where(Some((plugin, schedule))).await?.pop())
    }

    async fn entries_where(&self, only: Option<(&str, &str)>) -> Result<Vec<Entry>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(ENTRIES);
        if let Some((plugin, schedule)) = only {
            query.push(" WHERE e.plugin = ").push_bind(plugin.to_owned());
            query.push(" AND e.schedule_id = ").push_bind(schedule.to_owned());
        }
        query.push(" ORDER BY e.plugin, e.schedule_id, x.instant");
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("the schedules"))?;
        let mut entries: Vec<Entry> = Vec::new();
        for row in &rows {
            let expected = moment(row, 13).zip(moment(row, 14)).map(|(instant, due)| Expected { instant, due });
            let (plugin, schedule): (String, String) = (row.get(0), row.get(1));
            match entries.last_mut() {
                Some(last) if last.plugin == plugin && last.schedule == schedule => last.expected.extend(expected),
                _ => entries.push(entry(row, plugin, schedule, expected)),
            }
        }
        Ok(entries)
    }

    /// The ticks that match, the newest rows first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn ticks(&self, filter: &TickFilter) -> Result<Vec<TickRow>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(TICKS);
        let texts = [("plugin", &filter.plugin), ("schedule_id", &filter.schedule), ("status", &filter.status)];
        for (column, value) in texts {
            if let Some(value) = value {
                query.push(" AND ").push(column).push(" = ").push_bind(value.clone());
            }
        }
        if let Some(before) = filter.before_id {
            query.push(" AND id < ").push_bind(before);
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(filter.limit));
        let rows = query.build().fetch_all(&self.lists).await.map_err(reading("the ticks"))?;
        Ok(rows.iter().map(tick).collect())
    }

    /// Those of `instants`, all of them after now, whose ticks have ended, so that they can't be expected again.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn ended_ticks(
        &self,
        plugin: &str,
        schedule: &str,
        fingerprint: &str,
        instants: &[Timestamp],
    ) -> Result<HashSet<Timestamp>, Error> {
        let texts: Vec<String> = instants.iter().map(|at| time::format(*at)).collect();
        let texts = serde_json::to_string(&texts).expect("strings serialize into memory");
        let rows = sqlx::query(ENDED)
            .bind(plugin)
            .bind(schedule)
            .bind(fingerprint)
            .bind(texts)
            .fetch_all(&self.pool)
            .await
            .map_err(reading("the ticks"))?;
        Ok(rows.iter().filter_map(|row| time::parse(row.get(0))).collect())
    }

    /// The active schedules of which the last expected tick was due before `before`, and those without one. Ticks that
    /// catch up stand before that one, and may wait as long as they must, as the only tick of a schedule may.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn silent(&self, before: Timestamp) -> Result<Vec<SilentRow>, Error> {
        let rows = sqlx::query(
            "SELECT e.plugin, e.schedule_id, t.instant, t.due_at FROM schedule_entries e
             LEFT JOIN schedule_ticks t ON t.id = (SELECT x.id FROM schedule_ticks x WHERE x.plugin = e.plugin
                AND x.schedule_id = e.schedule_id AND x.status = 'expected' ORDER BY x.instant DESC LIMIT 1)
             WHERE e.status = 'active' AND (t.due_at IS NULL OR t.due_at < ?1)
                AND coalesce(t.reason, '') NOT IN ('running', 'guard', 'breaker_open') ORDER BY e.plugin, e.schedule_id",
        )
        .bind(time::format(before))
        .fetch_all(&self.lists)
        .await
        .map_err(reading("the silent schedules"))?;
        let silent =
            |r: &SqliteRow| SilentRow { plugin: r.get(0), schedule_id: r.get(1), instant: r.get(2), due_at: r.get(3) };
        Ok(rows.iter().map(silent).collect())
    }

    /// The breakers of a plugin, or all, by plugin and command. One that never counted a job has no row and is closed.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn breakers(&self, plugin: Option<&str>) -> Result<Vec<BreakerRow>, Error> {
        let rows = sqlx::query(
            "SELECT plugin, command, state, failure_count, opened_at, last_failure_at, last_job_id, updated_at
             FROM circuit_breakers WHERE ?1 IS NULL OR plugin = ?1 ORDER BY plugin, command",
        )
        .bind(plugin)
        .fetch_all(&self.pool)
        .await
        .map_err(reading("the breakers"))?;
        Ok(rows
            .iter()
            .map(|r| BreakerRow {
                plugin: r.get(0),
                command: r.get(1),
                state: r.get(2),
                failure_count: unsigned(r.get(3)),
                opened_at: r.get(4),
                last_failure_at: r.get(5),
                last_job_id: r.get(6),
                updated_at: r.get(7),
            })
            .collect())
    }

    /// What the breakers of a plugin, or all, did last, the newest first.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn breaker_transitions(
        &self,
        plugin: Option<&str>,
        limit: u32,
    ) -> Result<Vec<BreakerTransitionRow>, Error> {
        let rows = sqlx::query(
            "SELECT id, plugin, command, from_state, to_state, failure_count, reason, job_id, created_at
             FROM circuit_breaker_transitions WHERE ?1 IS NULL OR plugin = ?1 ORDER BY id DESC LIMIT ?2",
        )
        .bind(plugin)
        .bind(limit)
        .fetch_all(&self.lists)
        .await
        .map_err(reading("the transitions of breakers"))?;
        Ok(rows
            .iter()
            .map(|r| BreakerTransitionRow {
                id: r.get(0),
                plugin: r.get(1),
                command: r.get(2),
                from_state: r.get(3),
                to_state: r.get(4),
                failure_count: unsigned(r.get(5)),
                reason: r.get(6),
                job_id: r.get(7),
                created_at: r.get(8),
            })
            .collect())
    }
}

fn moment(row: &SqliteRow, column: usize) -> Option<Timestamp> {
    row.get::<Option<&str>, _>(column).and_then(time::parse)
}

fn entry(row: &SqliteRow, plugin: String, schedule: String, expected: Option<Expected>) -> Entry {
    Entry {
        plugin,
        schedule,
        command: row.get(2),
        // a word of somebody else's: the schedule must be arranged anew before it fires
        status: EntryStatus::parse(row.get(3)).unwrap_or(EntryStatus::PausedInvalid),
        reason: row.get(4),
        fingerprint: row.get(5),
        anchor: moment(row, 6),
        armed_by: row.get::<Option<&str>, _>(7).and_then(|id| id.parse().ok()),
        last_fired_at: moment(row, 8),
        last_success_at: moment(row, 9),
        last_success_job_id: row.get(10),
        next_run_at: moment(row, 11),
        last_instant: moment(row, 12),
        expected: expected.into_iter().collect(),
    }
}

fn tick(row: &SqliteRow) -> TickRow {
    TickRow {
        id: row.get(0),
        plugin: row.get(1),
        schedule_id: row.get(2),
        fingerprint: row.get(3),
        instant: row.get(4),
        due_at: row.get(5),
        status: row.get(6),
        reason: row.get(7),
        job_id: row.get(8),
        instants: unsigned(row.get(9)),
        last_instant: row.get(10),
        created_at: row.get(11),
        ended_at: row.get(12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start reads every schedule; it must not read every tick.
    #[test]
    fn no_read_of_the_entries_walks_over_the_history() {
        let conn = rusqlite::Connection::open_in_memory().expect("a database in memory");
        conn.execute_batch(crate::schema::BASELINE).expect("the schema is valid");
        for (sql, index) in [(ENTRIES, "schedule_ticks_expected_idx"), (ENDED, "schedule_ticks_identity_idx")] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("valid");
            let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>("detail"));
            let steps: Vec<String> = steps.expect("explained").collect::<Result<_, _>>().expect("text");
            assert!(steps.iter().any(|step| step.contains(index)), "{steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN t") || step.starts_with("SCAN x")), "{steps:?}");
            let walks = steps.iter().filter(|step| step.starts_with("SEARCH x") && !step.contains(index));
            assert_eq!(walks.count(), 0, "{steps:?}");
        }
    }
}
