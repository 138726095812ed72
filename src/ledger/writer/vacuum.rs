//! The file's size: gives free pages back to the file system in steps that are bounded by time, and notes from time to
//! time how large the file is.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use ductile_domain::time;
use rusqlite::{Connection, params};

use super::store::Store;
use crate::error::WriteError;
use crate::ops::Vacuumed;

/// How long a step goes on moving pages. Its last piece and the commit come on top.
const STEP: Duration = Duration::from_millis(10);

/// Pages that are given back between two looks at the clock.
const PIECE: i64 = 8;

/// Free pages that stay in every file, to be used again: 1 MiB.
const LEAST_KEPT: i64 = 256;

/// Of how many pages one may be free: giving pages back and taking them again would cost twice.
const ONE_FREE_OF: i64 = 8;

/// How far apart two samples are.
const SAMPLE_EVERY: TimeDelta = TimeDelta::hours(1);

impl Store {
    /// Gives back what is free beyond what is kept to be used again, for one step. The file shrinks with the next copy of
    /// the write-ahead log.
    pub(super) fn vacuum(&mut self) -> Result<Vacuumed, WriteError> {
        if surplus(&self.conn)? <= 0 {
            return Ok(Vacuumed::default());
        }
        self.set_synchronous(false)?;
        let until = Instant::now() + STEP;
        let vacuumed = self.transaction(|conn, _| give_back(conn, until))?;
        self.checkpoints.after_commit(&self.conn);
        Ok(vacuumed)
    }

    /// Notes how large the file is, unless that was done within the last hour.
    pub(super) fn sample(&mut self) -> Result<bool, WriteError> {
        let log = std::fs::metadata(&self.log).map_or(0, |m| i64::try_from(m.len()).unwrap_or(i64::MAX));
        self.set_synchronous(false)?;
        let is_new = self.transaction(|conn, now| {
            let page = number(conn, "PRAGMA page_size")?;
            let (pages, free) = (number(conn, "PRAGMA page_count")?, number(conn, "PRAGMA freelist_count")?);
            // a sample from a future that the clock once showed must not keep others away
            conn.execute(
                SAMPLE,
                params![time::format(now), pages * page, log, free * page, time::format(now - SAMPLE_EVERY)],
            )
        })?;
        self.checkpoints.after_commit(&self.conn);
        Ok(is_new > 0)
    }
}

const SAMPLE: &str = "INSERT INTO storage_samples (at, file_bytes, wal_bytes, free_bytes) SELECT ?1, ?2, ?3, ?4
    WHERE NOT EXISTS (SELECT 1 FROM storage_samples WHERE at > ?5 AND at <= ?1)";

fn give_back(conn: &Connection, until: Instant) -> Result<Vacuumed, rusqlite::Error> {
    let mut pages = 0;
    loop {
        let surplus = surplus(conn)?;
        if surplus <= 0 {
            return Ok(Vacuumed { pages, has_more: false });
        }
        if Instant::now() >= until {
            return Ok(Vacuumed { pages, has_more: true });
        }
        let free = number(conn, "PRAGMA freelist_count")?;
        let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({})", surplus.min(PIECE)))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        let given = free - number(conn, "PRAGMA freelist_count")?;
        // a file that was made otherwise gives nothing back
        if given <= 0 {
            return Ok(Vacuumed { pages, has_more: false });
        }
        pages += given.unsigned_abs();
    }
}

fn surplus(conn: &Connection) -> Result<i64, rusqlite::Error> {
    let kept = (number(conn, "PRAGMA page_count")? / ONE_FREE_OF).max(LEAST_KEPT);
    Ok(number(conn, "PRAGMA freelist_count")? - kept)
}

fn number(conn: &Connection, pragma: &str) -> Result<i64, rusqlite::Error> {
    conn.query_row(pragma, [], |row| row.get(0))
}
