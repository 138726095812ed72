//! The numbered list of schema changes, and the one way to apply them: `system migrate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row};

use crate::error::Error;
use crate::open::{connect, identify, is_empty, prepare_file};
use crate::schema;

/// What brings a database to `version`. Version 1 is the baseline itself, so the list begins with 2.
struct Step {
    version: i64,
    sql: &'static str,
}

const STEPS: &[Step] = &[Step { version: 2, sql: include_str!("migrations/2.sql") }];

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Version found.
    pub from: i64,
    /// Version now.
    pub to: i64,
    /// The verified copy made before the first change; `None` when nothing was to do.
    pub backup: Option<PathBuf>,
}

/// Brings the database to the newest version, after a verified copy beside it. Doing it again changes nothing.
///
/// The caller holds the instance's lock file: no gateway runs meanwhile.
///
/// # Errors
/// Names what is wrong with the file; it is unchanged then, but for the copy beside it.
pub async fn migrate(path: &Path) -> Result<MigrationReport, Error> {
    apply(path, STEPS).await
}

async fn apply(path: &Path, steps: &[Step]) -> Result<MigrationReport, Error> {
    let known = steps.last().map_or(schema::VERSION, |s| s.version);
    let is_new = prepare_file(path)?;
    let mut conn = connect(path, Duration::from_secs(5)).await?;
    let naming = |source| Error::opening(path, source);
    if is_new || is_empty(&mut conn).await.map_err(naming)? {
        schema::create(&mut conn).await.map_err(naming)?;
    }
    let from = identify(&mut conn, path).await?;
    if from > known {
        return Err(Error::NewerVersion { path: path.to_owned(), found: from, known });
    }
    let mut report = MigrationReport { from, to: known, backup: None };
    if from < known {
        report.backup = Some(back_up(&mut conn, path, from).await?);
        for step in steps.iter().filter(|s| s.version > from) {
            let script = format!("BEGIN IMMEDIATE;\n{}\n;PRAGMA user_version = {};\nCOMMIT", step.sql, step.version);
            if let Err(source) = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await {
                // the failed statement may have ended the transaction already
                let _ = sqlx::raw_sql("ROLLBACK").execute(&mut conn).await;
                return Err(Error::Migrate { version: step.version, source });
            }
        }
    }
    conn.close().await.map_err(naming)?;
    Ok(report)
}

/// Copies the database with `VACUUM INTO` and checks the copy.
async fn back_up(conn: &mut SqliteConnection, path: &Path, version: i64) -> Result<PathBuf, Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".before-migration-v{version}"));
    let mut copy = path.with_file_name(&name);
    let mut n = 1;
    while copy.exists() {
        n += 1;
        let mut numbered = name.clone();
        numbered.push(format!("-{n}"));
        copy = path.with_file_name(numbered);
    }
    crate::readers::copy_into(conn, &copy).await?;
    Ok(copy)
}

/// Runs SQLite's full check; `Ok` means that it found nothing.
pub(crate) async fn integrity(conn: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let rows = sqlx::query("PRAGMA integrity_check(10)")
        .fetch_all(conn)
        .await
        .map_err(|source| Error::opening(path, source))?;
    let findings: Vec<String> = rows.iter().map(|r| r.get(0)).filter(|f: &String| f != "ok").collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Corrupt { path: path.to_owned(), detail: findings.join("; ") })
}
