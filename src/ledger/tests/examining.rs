//! What an examination says of sound, damaged, foreign and stale files, and that it leaves them as they were.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ductile_ledger::Examiner;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use support::Bed;

const DAY: Duration = Duration::from_secs(86_400);
const TICK: Duration = Duration::from_secs(60);

/// A ledger with one job that ended at its clock's time, open for `open` afterwards, then closed.
async fn closed(open: Duration) -> (tempfile::TempDir, PathBuf) {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    bed.hands.advance(open);
    let path = bed.path();
    bed.ledger.close().await;
    (bed.dir, path)
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("listed").map(|e| e.expect("an entry").path());
    entries.map(|path| (path.clone(), fs::read(&path).expect("read"))).collect()
}

async fn sql(path: &Path, text: &'static str) {
    let mut conn: SqliteConnection = SqliteConnectOptions::new().filename(path).connect().await.expect("SQLite opens");
    sqlx::raw_sql(text).execute(&mut conn).await.expect("the statement runs");
    conn.close().await.expect("closed");
}

/// OPS-14, OPS-16: a sound file passes and is the same afterwards, byte for byte, with nothing new beside it.
#[tokio::test]
async fn an_examination_changes_nothing() {
    let (dir, path) = closed(Duration::from_secs(3600)).await;
    let before = files(dir.path());
    let mut examiner = Examiner::open(&path).await.expect("opened");
    assert!(examiner.damage().await.expect("checked").is_empty());
    examiner.check_schema().await.expect("ours");
    assert_eq!(examiner.stale_jobs(DAY, TICK).await.expect("read"), None);
    examiner.close().await.expect("closed");
    assert_eq!(files(dir.path()), before);
}

/// OPS-16: damage is found, be it by the check or by an error of its own.
#[tokio::test]
async fn a_damaged_file_does_not_pass() {
    let (_dir, path) = closed(Duration::ZERO).await;
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xa5);
    fs::write(&path, bytes).expect("written");
    let passed = match Examiner::open(&path).await {
        Ok(mut examiner) => examiner.damage().await.is_ok_and(|found| found.is_empty()),
        Err(_) => false,
    };
    assert!(!passed);
}

/// OPS-17: what is missing is named.
#[tokio::test]
async fn a_missing_index_is_named() {
    let (_dir, path) = closed(Duration::ZERO).await;
    sql(&path, "DROP INDEX job_queue_status_created_at_idx").await;
    let mut examiner = Examiner::open(&path).await.expect("opened");
    let error = examiner.check_schema().await.expect_err("it lacks one").to_string();
    assert!(error.contains("job_queue_status_created_at_idx is missing"), "{error}");
}

/// OPS-18, D-21: only what was too old when somebody could have pruned it is stale.
#[tokio::test]
async fn ended_jobs_are_stale_by_the_last_prune_or_stop() {
    // closed after three days without a prune, so that the job was two days too old then
    let (_dir, path) = closed(3 * DAY).await;
    let mut examiner = Examiner::open(&path).await.expect("opened");
    let stale = examiner.stale_jobs(DAY, TICK).await.expect("read").expect("stale");
    assert_eq!((stale.count, &*stale.oldest), (1, "2026-01-01T00:00:00.000Z"));
    assert_eq!(stale.at, "2026-01-04T00:00:00.000Z");
    assert_eq!(examiner.stale_jobs(4 * DAY, TICK).await.expect("read"), None);
    examiner.close().await.expect("closed");

    // closed in time; whenever one looks, the gateway could not have done more
    let (_dir, path) = closed(DAY).await;
    let mut examiner = Examiner::open(&path).await.expect("opened");
    assert_eq!(examiner.stale_jobs(DAY, TICK).await.expect("read"), None, "within the grace of one tick");
    assert!(examiner.stale_jobs(DAY / 2, TICK).await.expect("read").is_some());
    examiner.close().await.expect("closed");

    // pruned in time, started long after and stopped before its first tick: it had no chance
    sql(
        &path,
        "INSERT INTO ledger_meta (name, value) VALUES ('last_prune_at', '2026-01-01T12:00:00.000Z')
            ON CONFLICT (name) DO UPDATE SET value = excluded.value;
         UPDATE ledger_meta SET value = '2026-01-09T00:00:00.000Z' WHERE name = 'last_start_at';
         UPDATE ledger_meta SET value = '2026-01-09T00:00:05.000Z' WHERE name = 'last_stop_at';",
    )
    .await;
    let mut examiner = Examiner::open(&path).await.expect("opened");
    assert_eq!(examiner.stale_jobs(DAY, TICK).await.expect("read"), None);
    examiner.close().await.expect("closed");

    // stopped while a round was under way, which is no fault; but one whose steps had failed for an hour is
    for (step, is_stale) in [("2026-01-09T09:59:59.000Z", false), ("2026-01-09T08:59:59.000Z", true)] {
        let mut conn: SqliteConnection = SqliteConnectOptions::new().filename(&path).connect().await.expect("opens");
        for (name, value) in [("last_stop_at", "2026-01-09T10:00:00.000Z"), ("last_prune_step_at", step)] {
            let set = "INSERT INTO ledger_meta (name, value) VALUES (?1, ?2)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            sqlx::query(set).bind(name).bind(value).execute(&mut conn).await.expect("set");
        }
        conn.close().await.expect("closed");
        let mut examiner = Examiner::open(&path).await.expect("opened");
        assert_eq!(examiner.stale_jobs(DAY, TICK).await.expect("read").is_some(), is_stale);
        examiner.close().await.expect("closed");
    }
}
