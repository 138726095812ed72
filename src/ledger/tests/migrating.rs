//! A database of the first version, brought to the present one with what is in it.

mod support;

use std::path::Path;

use ductile_domain::ids::BootId;
use ductile_domain::job::JobStatus;
use ductile_ledger::{APPLICATION_ID, Error, OpenOptions, VERSION, migrate, open};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use support::schedules::{arrangement, due, fired};
use support::{Bed, Hands};
use uuid::Uuid;

/// The schema as gateways of the first version wrote it.
const VERSION_1: &str = include_str!("fixtures/version_1.sql");

const CONTENT: &str = "
    INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at)
        VALUES ('01890f3e-7c5a-7000-8000-000000000001', 'echo', 'poll', 'queued', 'api', '2026-01-01T00:00:00.000Z');
    INSERT INTO job_attempts (job_id, attempt, created_at, status)
        VALUES ('01890f3e-7c5a-7000-8000-000000000002', 1, '2026-01-01T00:00:00.000Z', 'succeeded');
    INSERT INTO schedule_entries (plugin, schedule_id, command, status)
        VALUES ('echo', 'default', 'poll', 'active');
    INSERT INTO circuit_breakers (plugin, command, state, failure_count, updated_at)
        VALUES ('echo', 'poll', 'closed', 2, '2026-01-01T00:00:00.000Z');";

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.expect("SQLite opens")
}

async fn write_version_1(path: &Path) {
    let mut conn = raw(path).await;
    let script = format!(
        "PRAGMA page_size = 2048; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         BEGIN; {VERSION_1} {CONTENT} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; COMMIT"
    );
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await.expect("written");
    conn.close().await.expect("closed");
}

/// Everything that SQLite knows of a schema: columns in their order with type, default and key, and the text of the rest.
async fn shape(path: &Path) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT 'column ' || m.name || '.' || c.cid || ' ' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' '
                || coalesce(c.dflt_value, '-') || ' ' || c.pk
            FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'
         UNION ALL
         SELECT type || ' ' || name || ' ' || sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL
         UNION ALL
         SELECT 'table ' || name FROM sqlite_master WHERE type = 'table'",
    )
    .fetch_all(&mut raw(path).await)
    .await
    .expect("read");
    let mut parts: Vec<String> =
        rows.iter().map(|row| row.get::<String, _>(0).split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    parts.sort();
    parts
}

/// OPS-30: the present version works on what the first one left; the copy beside it is as it was.
#[tokio::test]
async fn a_database_of_the_first_version_is_migrated() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    write_version_1(&path).await;
    let refused = open(OpenOptions::new(&path, BootId::from(Uuid::now_v7()))).await.map(drop).expect_err("too old");
    assert!(matches!(refused, Error::OlderVersion { found: 1, known: VERSION, .. }), "{refused:?}");
    let before = shape(&path).await;

    let report = migrate(&path).await.expect("migrated");
    assert_eq!((report.from, report.to), (1, VERSION));
    let copy = report.backup.expect("a copy");
    assert_eq!(shape(&copy).await, before);
    let again = migrate(&path).await.expect("nothing to do");
    assert_eq!((again.from, again.to, again.backup), (VERSION, VERSION, None));

    let fresh = dir.path().join("fresh.db");
    migrate(&fresh).await.expect("created");
    assert_eq!(shape(&path).await, shape(&fresh).await, "a migrated file is like a new one");

    let bed = Bed::in_dir(dir, Hands::new()).await;
    let job = "01890f3e-7c5a-7000-8000-000000000001".parse().expect("a UUID");
    assert_eq!(bed.ledger.readers.status(job).await.expect("read"), Some(JobStatus::Queued));
    assert_eq!(
        bed.ledger
            .readers
            .attempts("01890f3e-7c5a-7000-8000-000000000002".parse().expect("a UUID"))
            .await
            .expect("read")
            .len(),
        1
    );
    assert_eq!(bed.ledger.readers.breakers(None).await.expect("read")[0].failure_count, 2);
    let entry = bed.ledger.readers.entry("echo", "default").await.expect("read").expect("there");
    assert_eq!((entry.fingerprint, entry.expected.len()), (None, 0));
    let silent = bed.ledger.readers.silent(bed.minute(0)).await.expect("read");
    assert_eq!(silent.len(), 1, "nothing is expected of it yet");
    bed.arrange(arrangement("default", &[bed.minute(0)])).await;
    fired(&bed.tick(due("default", bed.minute(0))).await);
    bed.ledger.close().await;
}

/// A migration that fails leaves the file as it was.
#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    write_version_1(&path).await;
    let mut conn = raw(&path).await;
    // in the way of a table that the migration creates
    sqlx::raw_sql("CREATE TABLE schedule_ticks (x)").execute(&mut conn).await.expect("created");
    conn.close().await.expect("closed");
    let before = shape(&path).await;
    let refused = migrate(&path).await.expect_err("the name is taken");
    assert!(matches!(refused, Error::Migrate { version: 2, .. }), "{refused:?}");
    assert_eq!(shape(&path).await, before);
}
