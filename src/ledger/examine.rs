//! Examines a ledger's file that no gateway has open: sound, of this schema, fresh. Nothing is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::time::{self, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::error::Error;
use crate::open;

/// Steps of a round of pruning follow each other at once; the next one was not this long in coming unless it failed.
const UNDER_WAY: TimeDelta = TimeDelta::minutes(1);

/// An open file.
#[derive(Debug)]
pub struct Examiner {
    conn: SqliteConnection,
    path: PathBuf,
}

/// Ended jobs that should not be there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleJobs {
    /// How many.
    pub count: u64,
    /// When the first of them ended, RFC 3339.
    pub oldest: String,
    /// When the file was pruned or closed last, RFC 3339: what was older than the retention then is stale.
    pub at: String,
}

impl Examiner {
    /// Opens the file for reading; without a write-ahead log beside it not even that one is made.
    ///
    /// # Errors
    /// It can't be opened.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Without a log the file is all there is, and SQLite need not make the shared memory to coordinate by.
        let is_whole = std::fs::metadata(&log).map_or(true, |m| m.len() == 0);
        let conn = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(is_whole)
            .pragma("query_only", "ON")
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging()
            .connect()
            .await
            .map_err(|source| Error::opening(path, source))?;
        Ok(Self { conn, path: path.to_owned() })
    }

    /// SQLite's full check: empty when the file is sound. Takes time in proportion to the file.
    ///
    /// # Errors
    /// The check could not run; a file that is damaged badly enough says so in this way.
    pub async fn damage(&mut self) -> Result<Vec<String>, Error> {
        let rows = sqlx::query("PRAGMA integrity_check(10)")
            .fetch_all(&mut self.conn)
            .await
            .map_err(|source| Error::opening(&self.path, source))?;
        Ok(rows.iter().map(|row| row.get(0)).filter(|finding: &String| finding != "ok").collect())
    }

    /// Whose file it is, of which version, and every part of this gateway's schema that it lacks or has otherwise.
    ///
    /// # Errors
    /// It belongs to something else, has another version or another schema, or can't be read.
    pub async fn check_schema(&mut self) -> Result<(), Error> {
        open::check(&mut self.conn, &self.path).await
    }

    /// Ended jobs whose age exceeded `retention` when the file was pruned last, or closed after having been open for a
    /// whole `tick`, less one `tick` of grace. A file that nobody has had open for long is not held against its gateway,
    /// nor what a round of pruning that the stop came into had not come to.
    ///
    /// # Errors
    /// The read failed.
    pub async fn stale_jobs(&mut self, retention: Duration, tick: Duration) -> Result<Option<StaleJobs>, Error> {
        let pruned = self.mark("last_prune_at").await?;
        let step = self.mark("last_prune_step_at").await?;
        let started = self.mark("last_start_at").await?;
        let stopped = self.mark("last_stop_at").await?;
        let tick = TimeDelta::from_std(tick).unwrap_or(TimeDelta::MAX);
        let had_time = |stop: &Timestamp| started.is_none_or(|start| *stop - start >= tick) || pruned.is_none();
        // the stop came into a round of pruning, which had not come to all of them
        let was_pruning = |stop: &Timestamp| step > pruned && step.is_some_and(|step| *stop - step < UNDER_WAY);
        let at = pruned.max(stopped.filter(|stop| had_time(stop) && !was_pruning(stop)));
        let Some(at) = at else { return Ok(None) };
        let age = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
        let Some(cutoff) = at.checked_sub_signed(age).and_then(|at| at.checked_sub_signed(tick)) else {
            return Ok(None);
        };
        let row = sqlx::query(
            "SELECT count(*), min(completed_at) FROM job_queue
             WHERE status IN ('succeeded', 'failed', 'dead', 'skipped') AND completed_at < ?1",
        )
        .bind(time::format(cutoff))
        .fetch_one(&mut self.conn)
        .await
        .map_err(|source| Error::Read { what: "ended jobs", source })?;
        let count = u64::try_from(row.get::<i64, _>(0)).unwrap_or(0);
        let stale = StaleJobs { count, oldest: row.try_get(1).unwrap_or_default(), at: time::format(at) };
        Ok((count > 0).then_some(stale))
    }

    async fn mark(&mut self, name: &str) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query("SELECT value FROM ledger_meta WHERE name = ?1")
            .bind(name)
            .fetch_optional(&mut self.conn)
            .await
            .map_err(|source| Error::Read { what: "a mark", source })?;
        Ok(row.and_then(|row| time::parse(row.get(0))))
    }

    /// Closes the file.
    ///
    /// # Errors
    /// SQLite complains.
    pub async fn close(self) -> Result<(), Error> {
        let Self { conn, path } = self;
        conn.close().await.map_err(|source| Error::opening(&path, source))
    }
}
