//! Reads of the file as a whole: its health, its marks, a copy.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};

use super::{Readers, reading};
use crate::error::Error;
use crate::migrate::integrity;
use crate::open::connect;

impl Readers {
    /// SQLite's quick check: empty when nothing was found. Takes time in proportion to the file.
    ///
    /// # Errors
    /// When the check could not run.
    pub async fn quick_check(&self) -> Result<Vec<String>, Error> {
        let rows = sqlx::query("PRAGMA quick_check(10)")
            .fetch_all(&self.lists)
            .await
            .map_err(|source| Error::opening(&self.path, source))?;
        Ok(rows.iter().map(|r| r.get(0)).filter(|finding: &String| finding != "ok").collect())
    }

    /// A mark of the file itself: `clean_shutdown`, `last_start_at`, `last_stop_at`, `last_prune_at`, `boot_id`.
    ///
    /// # Errors
    /// When the read failed.
    pub async fn mark(&self, name: &str) -> Result<Option<String>, Error> {
        let row = sqlx::query("SELECT value FROM ledger_meta WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(reading("a mark"))?;
        Ok(row.map(|r| r.get(0)))
    }

    /// Writes a consistent copy to a new file with mode 0600, then opens and checks it. Safe beside the writer.
    ///
    /// # Errors
    /// When the copy could not be made or did not pass its check; it is removed then.
    pub async fn back_up(&self, copy: &Path) -> Result<(), Error> {
        // an own connection: `VACUUM INTO` is refused by `query_only`
        let mut conn = connect(&self.path, Duration::from_secs(5)).await?;
        let result = copy_into(&mut conn, copy).await;
        // the copy stands or not, whatever the closing says
        let _ = conn.close().await;
        result
    }
}

/// Copies the database into a new file and checks the copy.
pub(crate) async fn copy_into(conn: &mut SqliteConnection, copy: &Path) -> Result<(), Error> {
    // made first, so that it has its final mode before it holds anything; an existing file is refused
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(copy)
        .map_err(|source| Error::TouchFile { path: copy.to_owned(), source })?;
    let result = fill_and_check(conn, copy).await;
    if result.is_err() {
        // the error in hand says more than a failing removal would
        let _ = fs::remove_file(copy);
    }
    result
}

async fn fill_and_check(conn: &mut SqliteConnection, copy: &Path) -> Result<(), Error> {
    sqlx::query("VACUUM INTO ?1")
        .bind(copy.to_string_lossy().into_owned())
        .execute(conn)
        .await
        .map_err(|source| Error::opening(copy, source))?;
    fs::File::open(copy)
        .and_then(|f| f.sync_all())
        .map_err(|source| Error::TouchFile { path: copy.to_owned(), source })?;
    let mut check = connect(copy, Duration::from_secs(5)).await?;
    let result = integrity(&mut check, copy).await;
    check.close().await.map_err(|source| Error::opening(copy, source))?;
    result
}
