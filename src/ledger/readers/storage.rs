//! What the file is made of: bytes and rows per table, how old each is, how it grows, and what is free beside it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use ductile_domain::config::Service;
use ductile_domain::time::{self, Timestamp};
use serde::Serialize;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::Sqlite;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Readers, reading};
use crate::error::Error;

/// Steps of SQLite's machine between two looks at the clock; a page of the file costs some 20.
const LOOK_EVERY: i32 = 1_000;

/// Ages at which the file's former sizes are compared with the present one.
const SPANS: [i64; 3] = [1, 7, 30];

/// The file and what lies in it.
#[derive(Debug, Clone, Serialize)]
pub struct Storage {
    /// Path of the database.
    pub path: String,
    /// Bytes of the database.
    pub file_bytes: u64,
    /// Bytes of the write-ahead log beside it.
    pub wal_bytes: u64,
    /// Bytes of pages that hold nothing now and are used again before the file grows.
    pub free_bytes: u64,
    /// Its tables, the largest first.
    pub tables: Vec<TableSize>,
    /// False when the time did not suffice for every table: then those have no numbers.
    pub is_complete: bool,
    /// How its content grew, over the spans for which there are samples.
    pub growth: Vec<Growth>,
    /// Bytes that are free on its file system; `None` when the system does not tell.
    pub disk_free_bytes: Option<u64>,
}

/// One table with its indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSize {
    /// Its name.
    pub table: String,
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes of the table and of its indexes.
    pub bytes: Option<u64>,
    /// Of these, those of the indexes.
    pub index_bytes: Option<u64>,
    /// The time by which its oldest row is pruned, RFC 3339.
    pub oldest: Option<String>,
    /// Age from which on its rows are pruned; `None` for tables that hold what is, not what was.
    pub retention_seconds: Option<u64>,
}

/// How the content of the file grew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Growth {
    /// When the sample was taken that the present is compared with, RFC 3339.
    pub since: String,
    /// How long that was ago.
    pub seconds: u64,
    /// Bytes in use now, less those in use then, for each day between.
    pub bytes_per_day: i64,
}

/// Bytes that are free for ordinary users on the file system of `directory`.
///
/// # Errors
/// The system does not tell.
pub fn free_space(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The directory that holds a file.
pub(crate) fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Readers {
    /// Looks through the whole file, for at most about `patience`; what is not seen by then has no numbers.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn storage(&self, service: &Service, now: Timestamp, patience: Duration) -> Result<Storage, Error> {
        let naming = reading("the sizes of tables");
        let mut conn = self.lists.acquire().await.map_err(&naming)?;
        let (path, directory) = (self.path.display().to_string(), directory_of(&self.path).to_owned());
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let wal_bytes = std::fs::metadata(log).map_or(0, |m| m.len());
        let looked = look_through(&mut conn, service, now, patience).await;
        // whoever gets the connection next has time
        conn.lock_handle().await.map_err(&naming)?.remove_progress_handler();
        let mut storage = looked.map_err(&naming)?;
        (storage.path, storage.wal_bytes, storage.disk_free_bytes) = (path, wal_bytes, free_space(&directory).ok());
        Ok(storage)
    }
}

async fn look_through(
    conn: &mut PoolConnection<Sqlite>,
    service: &Service,
    now: Timestamp,
    patience: Duration,
) -> Result<Storage, sqlx::Error> {
    let page = pragma(conn, "PRAGMA page_size").await?;
    let file_bytes = pragma(conn, "PRAGMA page_count").await? * page;
    let free_bytes = pragma(conn, "PRAGMA freelist_count").await? * page;
    let growth = growth(conn, now, file_bytes.cast_signed() - free_bytes.cast_signed()).await?;
    let trees = sqlx::query(
        "SELECT s.tbl_name, s.name, s.type = 'index', l.wr FROM sqlite_schema s
         JOIN pragma_table_list l ON l.schema = 'main' AND l.name = s.tbl_name
         WHERE s.rootpage > 0 ORDER BY s.tbl_name, s.type DESC",
    )
    .fetch_all(&mut **conn)
    .await?;
    let until = Instant::now() + patience;
    let mut tables: Vec<TableSize> = Vec::new();
    let mut is_complete = true;
    for tree in trees {
        let (table, name, is_index, is_clustered) =
            (tree.get::<String, _>(0), tree.get::<String, _>(1), tree.get::<bool, _>(2), tree.get::<bool, _>(3));
        // what a large one does not get is left for the others
        let share = (Instant::now() + patience / 4).min(until);
        let seen = tree_size(conn, &name, is_clustered && !is_index, share).await?;
        is_complete &= seen.is_some();
        if tables.last().is_none_or(|last| last.table != table) {
            let retention_seconds = service.retention_of(&table).map(|age| age.as_secs());
            tables.push(TableSize {
                oldest: oldest(conn, &table).await?,
                table,
                rows: None,
                bytes: Some(0),
                index_bytes: Some(0),
                retention_seconds,
            });
        }
        let entry = tables.last_mut().expect("one was pushed");
        let add = |sum: Option<u64>| Some(sum? + seen?.1);
        entry.bytes = add(entry.bytes);
        if is_index {
            entry.index_bytes = add(entry.index_bytes);
        } else {
            entry.rows = seen.map(|(rows, _)| rows);
        }
    }
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes.unwrap_or(u64::MAX)));
    let (path, wal_bytes, disk_free_bytes) = (String::new(), 0, None);
    Ok(Storage { path, file_bytes, wal_bytes, free_bytes, tables, is_complete, growth, disk_free_bytes })
}

/// Rows and bytes of one tree of pages; `None` when the time did not suffice.
async fn tree_size(
    conn: &mut PoolConnection<Sqlite>,
    name: &str,
    is_clustered: bool,
    until: Instant,
) -> Result<Option<(u64, u64)>, sqlx::Error> {
    conn.lock_handle().await?.set_progress_handler(LOOK_EVERY, move || Instant::now() < until);
    // one row per page, so that the clock is looked at between pages
    let seen = sqlx::query(
        "SELECT coalesce(sum(ncell) FILTER (WHERE pagetype = 'leaf' OR ?2 AND pagetype = 'internal'), 0),
            coalesce(sum(pgsize), 0) FROM dbstat WHERE name = ?1",
    )
    .bind(name)
    .bind(is_clustered)
    .fetch_one(&mut **conn)
    .await;
    conn.lock_handle().await?.remove_progress_handler();
    match seen {
        Ok(row) => Ok(Some((row.get::<i64, _>(0).unsigned_abs(), row.get::<i64, _>(1).unsigned_abs()))),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(INTERRUPTED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `SQLITE_INTERRUPT`.
const INTERRUPTED: &str = "9";

/// By the time that pruning looks at; each is found by an index.
async fn oldest(conn: &mut PoolConnection<Sqlite>, table: &str) -> Result<Option<String>, sqlx::Error> {
    let sql = match table {
        "job_queue" => {
            "SELECT min(at) FROM (SELECT min(created_at) AS at FROM job_queue WHERE status = 'succeeded'
                UNION ALL SELECT min(created_at) FROM job_queue WHERE status = 'skipped'
                UNION ALL SELECT min(created_at) FROM job_queue WHERE status = 'failed'
                UNION ALL SELECT min(created_at) FROM job_queue WHERE status = 'dead'
                UNION ALL SELECT min(created_at) FROM job_queue WHERE status = 'queued'
                UNION ALL SELECT min(created_at) FROM job_queue WHERE status = 'running')"
        }
        "job_log" => "SELECT min(completed_at) FROM job_log",
        "event_context" => "SELECT min(created_at) FROM event_context",
        "pipeline_joins" => "SELECT min(fired_at) FROM pipeline_joins WHERE fired_at IS NOT NULL",
        "schedule_ticks" => "SELECT min(ended_at) FROM schedule_ticks WHERE ended_at IS NOT NULL",
        "storage_samples" => "SELECT min(at) FROM storage_samples",
        "job_stopwatch" => "SELECT recorded_at FROM job_stopwatch ORDER BY id LIMIT 1",
        "job_transitions" => "SELECT created_at FROM job_transitions ORDER BY id LIMIT 1",
        "job_attempts" => "SELECT created_at FROM job_attempts ORDER BY id LIMIT 1",
        "circuit_breaker_transitions" => "SELECT created_at FROM circuit_breaker_transitions ORDER BY id LIMIT 1",
        "plugin_facts" => "SELECT created_at FROM plugin_facts ORDER BY id LIMIT 1",
        "job_quarantine" => "SELECT created_at FROM job_quarantine ORDER BY rowid LIMIT 1",
        "config_snapshots" => "SELECT loaded_at FROM config_snapshots ORDER BY id LIMIT 1",
        _ => return Ok(None),
    };
    Ok(sqlx::query(sql).fetch_optional(&mut **conn).await?.and_then(|row| row.get(0)))
}

/// Against the newest sample that is as old as each span; while there is none, against the oldest that there is.
async fn growth(conn: &mut PoolConnection<Sqlite>, now: Timestamp, used_now: i64) -> Result<Vec<Growth>, sqlx::Error> {
    let mut growth: Vec<Growth> = Vec::new();
    for days in SPANS {
        let row = sqlx::query(
            "SELECT at, file_bytes - free_bytes FROM storage_samples WHERE at = coalesce(
                (SELECT max(at) FROM storage_samples WHERE at <= ?1), (SELECT min(at) FROM storage_samples))",
        )
        .bind(time::format(now - TimeDelta::days(days)))
        .fetch_optional(&mut **conn)
        .await?;
        let Some((since, used)) = row.map(|row| (row.get::<String, _>(0), row.get::<i64, _>(1))) else { continue };
        let seconds = time::parse(&since).map_or(0, |at| (now - at).num_seconds());
        // a sample of a moment ago says nothing of a day
        if seconds < MOMENT || growth.iter().any(|known| known.since == since) {
            continue;
        }
        let per_day = i128::from(used_now - used) * 86_400 / i128::from(seconds);
        let bytes_per_day = i64::try_from(per_day).unwrap_or(i64::MAX);
        growth.push(Growth { since, seconds: seconds.unsigned_abs(), bytes_per_day });
    }
    Ok(growth)
}

/// Seconds below which growth is not told.
const MOMENT: i64 = 600;

async fn pragma(conn: &mut PoolConnection<Sqlite>, sql: &'static str) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut **conn).await?.get::<i64, _>(0).unsigned_abs())
}
