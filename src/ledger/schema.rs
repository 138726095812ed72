//! Creates the schema in an empty file and compares an existing file with it.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

/// Marks a SQLite file as a ledger of this gateway (`PRAGMA application_id`, "DUCT").
pub const APPLICATION_ID: i64 = 0x4455_4354;

/// The schema version that this gateway writes (`PRAGMA user_version`).
pub const VERSION: i64 = 2;

/// The embedded baseline.
pub(crate) const BASELINE: &str = include_str!("schema.sql");

/// Creates everything in one transaction; a crash in between leaves an empty file.
pub(crate) async fn create(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("PRAGMA page_size = 2048; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL")
        .execute(&mut *conn)
        .await?;
    let script = format!(
        "BEGIN IMMEDIATE;\n{BASELINE}\nPRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {VERSION};\nCOMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *conn).await?;
    Ok(())
}

/// One thing of the schema, such as `column job_queue.pid`, with what must be equal about it.
type Parts = BTreeMap<String, String>;

/// Every part of the embedded schema that `conn` lacks or has otherwise; additions are tolerated.
pub(crate) async fn differences(conn: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let found = parts(conn).await?;
    let mut model = SqliteConnectOptions::new().in_memory(true).connect().await?;
    sqlx::raw_sql(BASELINE).execute(&mut model).await?;
    let wanted = parts(&mut model).await?;
    Ok(wanted
        .iter()
        .filter_map(|(part, shape)| match found.get(part) {
            None => Some(format!("{part} is missing")),
            Some(other) if other != shape => Some(format!("{part} differs")),
            Some(_) => None,
        })
        .collect())
}

async fn parts(conn: &mut SqliteConnection) -> Result<Parts, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT 'table ' || name AS part, '' AS shape FROM sqlite_master
            WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
         UNION ALL
         SELECT 'column ' || m.name || '.' || c.name, c.type || ' ' || c.pk FROM sqlite_master m, pragma_table_info(m.name) c
            WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'
         UNION ALL
         SELECT type || ' ' || name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), squeeze(row.get(1)))).collect())
}

/// Spaces carry no meaning in a definition.
fn squeeze(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}
