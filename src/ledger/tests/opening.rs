//! What opening says about every kind of file, and that a refused file is left as it was.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ductile_domain::ids::BootId;
use ductile_ledger::{Error, Ledger, OpenOptions, VERSION, WriteError, migrate, open};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use support::{Bed, new_job};
use uuid::Uuid;

async fn try_open(path: &Path) -> Result<Ledger, Error> {
    let mut options = OpenOptions::new(path, BootId::from(Uuid::now_v7()));
    options.busy_timeout = Duration::from_millis(50);
    open(options).await
}

async fn refusal(path: &Path) -> (Error, String) {
    match try_open(path).await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => {
            let text = error.to_string();
            (error, text)
        }
    }
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.expect("SQLite opens")
}

async fn run(conn: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(conn).await.expect("the statement runs");
}

/// OPS-32, DBS-01: an absent or empty file becomes a ledger that only its owner reads.
#[tokio::test]
async fn an_absent_or_empty_file_becomes_a_ledger() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["absent.db", "empty.db"] {
        let path = dir.path().join(name);
        if name == "empty.db" {
            fs::write(&path, "").expect("written");
        }
        let ledger = try_open(&path).await.expect("opened");
        assert!(ledger.was_clean);
        let mut conn = raw(&path).await;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await.expect("read");
        let vacuum: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut conn).await.expect("read");
        assert_eq!((mode.as_str(), vacuum), ("wal", 2));
        conn.close().await.expect("closed");
        if name == "absent.db" {
            for file in fs::read_dir(dir.path()).expect("listed").flatten() {
                let mode = file.metadata().expect("there").permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", file.path().display());
            }
        }
        ledger.close().await;
        assert!(!dir.path().join(format!("{name}-wal")).exists(), "a clean close leaves one file");
    }
}

#[tokio::test]
async fn only_a_close_marks_the_file_as_clean() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    let ledger = try_open(&path).await.expect("opened");
    let copy = dir.path().join("copy.db");
    ledger.readers.back_up(&copy).await.expect("copied");
    assert!(!try_open(&copy).await.expect("opened").was_clean, "the copy was made while in use");
    ledger.close().await;
    assert!(try_open(&path).await.expect("opened").was_clean);
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let (error, text) = refusal(Path::new("/nonexistent/place/ductile.db")).await;
    assert!(matches!(error, Error::DirectoryMissing { .. }), "{error:?}");
    assert!(text.contains("/nonexistent/place") && text.contains("create it"), "{text}");
}

#[tokio::test]
async fn garbage_and_damage_are_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("garbage.db");
    fs::write(&path, "this is a letter to my mother").expect("written");
    let (error, text) = refusal(&path).await;
    assert!(matches!(error, Error::NotADatabase { .. }), "{error:?}");
    assert!(text.contains("not a SQLite database"), "{text}");
    assert_eq!(fs::read(&path).expect("read"), b"this is a letter to my mother");

    let path = dir.path().join("damaged.db");
    try_open(&path).await.expect("opened").close().await;
    let mut bytes = fs::read(&path).expect("read");
    bytes[100..4096].fill(0x5a);
    fs::write(&path, &bytes).expect("written");
    let (error, text) = refusal(&path).await;
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(text.contains("restore a backup"), "{text}");
    assert_eq!(fs::read(&path).expect("read"), bytes);
}

/// core.md: a database of the Go implementation is refused by name; so is anybody else's.
#[tokio::test]
async fn a_foreign_database_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("go.db");
    let mut conn = raw(&path).await;
    run(&mut conn, "CREATE TABLE job_queue (id TEXT); CREATE TABLE job_log (id TEXT); CREATE TABLE x (y)").await;
    conn.close().await.expect("closed");
    let before = fs::read(&path).expect("read");
    let (error, text) = refusal(&path).await;
    assert!(matches!(error, Error::ForeignDatabase { .. }) && text.contains("Go implementation"), "{text}");
    assert_eq!(fs::read(&path).expect("read"), before, "nothing was added silently");

    let path = dir.path().join("other.db");
    let mut conn = raw(&path).await;
    run(&mut conn, "CREATE TABLE recipes (name TEXT)").await;
    conn.close().await.expect("closed");
    assert!(refusal(&path).await.1.contains("another application (tables: recipes)"));
}

/// OPS-30, OPS-31: other versions are named with the next step.
#[tokio::test]
async fn newer_and_older_versions_are_refused_with_the_next_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    try_open(&path).await.expect("opened").close().await;
    let mut conn = raw(&path).await;
    run(&mut conn, "PRAGMA user_version = 99").await;
    let (error, text) = refusal(&path).await;
    assert!(matches!(error, Error::NewerVersion { found: 99, .. }) && text.contains("newer gateway"), "{text}");
    assert!(matches!(migrate(&path).await, Err(Error::NewerVersion { .. })));
    run(&mut conn, "PRAGMA user_version = 0").await;
    let (error, text) = refusal(&path).await;
    assert!(matches!(error, Error::OlderVersion { found: 0, .. }), "{error:?}");
    assert!(text.contains("ductile system migrate"), "{text}");
}

/// OPS-17, OPS-31, FCT-15, DBS-18: each missing part is named.
#[tokio::test]
async fn missing_tables_columns_indexes_and_triggers_are_named() {
    let cases = [
        ("DROP INDEX plugin_facts_seq_idx", "index plugin_facts_seq_idx is missing"),
        ("DROP TABLE storage_sequences", "table storage_sequences is missing"),
        ("ALTER TABLE job_attempts DROP COLUMN cause", "column job_attempts.cause is missing"),
        ("DROP TRIGGER job_queue_legal_transition", "trigger job_queue_legal_transition is missing"),
        (
            "DROP INDEX job_log_completed_idx; CREATE INDEX job_log_completed_idx ON job_log (plugin)",
            "index job_log_completed_idx differs",
        ),
    ];
    for (sql, finding) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ductile.db");
        try_open(&path).await.expect("opened").close().await;
        let mut conn = raw(&path).await;
        run(&mut conn, sql).await;
        conn.close().await.expect("closed");
        let (error, text) = refusal(&path).await;
        assert!(matches!(error, Error::SchemaDiffers { .. }), "{error:?}");
        assert!(text.contains(finding), "{text}");
    }
}

#[tokio::test]
async fn an_operators_own_index_is_no_difference() {
    let bed = Bed::new().await;
    run(&mut bed.sql().await, "CREATE INDEX mine ON job_log (command); CREATE TABLE notes (text)").await;
    bed.reopen().await.ledger.close().await;
}

/// OPS-30: a second migration changes nothing.
#[tokio::test]
async fn a_migration_of_a_current_database_is_no_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    for _ in 0..2 {
        let report = migrate(&path).await.expect("migrated");
        assert_eq!((report.from, report.to, report.backup), (VERSION, VERSION, None));
    }
    try_open(&path).await.expect("opened").close().await;
}

/// OPS-19: a copy made beside a writer passes the check and opens.
#[tokio::test]
async fn a_backup_under_load_opens_and_has_what_was_acknowledged() {
    let bed = Bed::new().await;
    let writer = bed.ledger.writer.clone();
    let load = tokio::spawn(async move {
        for _ in 0..50 {
            writer.enqueue(vec![new_job("echo")], 1).await.expect("enqueued");
        }
    });
    bed.queued("first").await;
    let copy = bed.dir.path().join("copy.db");
    bed.ledger.readers.back_up(&copy).await.expect("copied");
    load.await.expect("no panic");
    assert_eq!(fs::metadata(&copy).expect("there").permissions().mode() & 0o777, 0o600);
    let restored = try_open(&copy).await.expect("the copy opens");
    assert_eq!(restored.readers.candidates("first", 0, 10).await.expect("read").len(), 1);
    assert!(bed.ledger.readers.back_up(&copy).await.is_err(), "an existing file is not overwritten");
    restored.close().await;
    bed.ledger.close().await;
}

#[tokio::test]
async fn a_held_write_lock_is_a_state_and_not_a_crash() {
    let bed = Bed::new().await;
    let mut other = bed.sql().await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let error = bed.ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect_err("the lock is held");
    assert!(matches!(error, WriteError::Busy) && error.is_transient(), "{error:?}");
    let (opening, text) = refusal(&bed.path()).await;
    assert!(matches!(opening, Error::Busy { .. }) && text.contains("another process"), "{text}");
    run(&mut other, "ROLLBACK").await;
    bed.queued("echo").await;
    assert_eq!(bed.number("SELECT count(*) FROM job_queue").await, 1);
    bed.ledger.close().await;
}

/// A tmpfs that is unmounted on drop; `None` when this process may not mount.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: this process may not mount a tmpfs");
        None
    }

    fn remount(&self, options: &str) -> bool {
        let option = format!("remount,{options}");
        Command::new("mount").args(["-o", &option]).arg(self.0.path()).status().is_ok_and(|s| s.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // lazily: a failed test may still hold the file
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_read_only_file_system_is_named() {
    let Some(mount) = Mount::new("size=16m") else { return };
    let path = mount.0.path().join("ductile.db");
    try_open(&path).await.expect("opened").close().await;
    assert!(mount.remount("ro"), "remounted");
    for path in [path, mount.0.path().join("new.db")] {
        let (error, text) = refusal(&path).await;
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
        assert!(text.contains("read-only") && text.contains("make it writable"), "{text}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_what_was_committed() {
    let Some(mount) = Mount::new("size=1m") else { return };
    let path = mount.0.path().join("ductile.db");
    let ledger = try_open(&path).await.expect("opened");
    let mut accepted = 0;
    let error = loop {
        match ledger.writer.enqueue((0..20).map(|_| new_job("echo")).collect(), 1).await {
            Ok(answers) => accepted += answers.len(),
            Err(error) => break error,
        }
        assert!(accepted < 100_000, "the disk never filled");
    };
    assert!(matches!(error, WriteError::Full), "{error:?}");
    assert_eq!(ledger.readers.counts().await.expect("reads go on").queued, accepted as u64);
    assert!(mount.remount("size=16m"), "grown");
    ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("space is back");
    assert_eq!(ledger.readers.counts().await.expect("read").queued, accepted as u64 + 1);
    assert_eq!(ledger.readers.quick_check().await.expect("it ran"), Vec::<String>::new());
    ledger.close().await;

    let Some(tiny) = Mount::new("size=8k") else { return };
    let (error, text) = refusal(&tiny.0.path().join("ductile.db")).await;
    assert!(matches!(error, Error::DiskFull { .. }) && text.contains("no space"), "{text}: {error:?}");
}
