//! Crashes at every edge of a tick: a child process is aborted, and the file is looked at afterwards.
//!
//! `cargo test -p ductile-ledger --features failpoints --test crash_ticks`
#![cfg(feature = "failpoints")]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use chrono::TimeDelta;
use ductile_domain::ids::BootId;
use ductile_domain::schedule::IfRunning;
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Due, OpenOptions, Ticked, failpoints, open};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use support::schedules::{arrangement, due, expected, fired, queueing};
use uuid::Uuid;

const DIRECTORY: &str = "LEDGER_CRASH_DIRECTORY";

fn minute(n: i64) -> Timestamp {
    time::parse("2026-01-01T00:00:00Z").expect("valid") + TimeDelta::minutes(n)
}

/// Two schedules of which one takes the other's place: each call ends two ticks and buries up to two jobs.
fn both(n: i64) -> Vec<Due> {
    let next = Some(expected(minute(n + 1)));
    let second = Due { if_running: IfRunning::Cancel, next, ..due("second", minute(n)) };
    vec![Due { next, ..queueing("first", minute(n)) }, second]
}

/// The child's part: ticks until its crash point ends the process. Prints the jobs it was told of.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let scenario = fail::FailScenario::setup();
    // a crash point panics; a panic of a task is not the crash that is meant
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let boot = BootId::from(Uuid::now_v7());
        let ledger = open(OpenOptions::new(Path::new(&directory).join("ductile.db"), boot)).await.expect("opens");
        let entries = ["first", "second"].map(|name| arrangement(name, &[minute(0)])).to_vec();
        ledger.writer.arrange(entries).await.expect("answered").into_iter().for_each(|done| done.expect("arranged"));
        for n in 0..1000 {
            for ticked in ledger.writer.tick(both(n), 1).await.expect("answered") {
                let mut out = std::io::stdout().lock();
                writeln!(out, "\nfired {}", fired(&ticked)).and_then(|()| out.flush()).expect("the parent listens");
            }
        }
    });
    scenario.teardown();
}

/// guarantees 4: the tick, its job, what it cancelled and the tick after it are there together, or none of them; the same
/// call goes on from there.
#[test]
fn a_crash_leaves_a_tick_with_its_job_or_neither() {
    for point in failpoints() {
        for after in [0, 1, 2, 9] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let output = Command::new(std::env::current_exe().expect("this binary"))
                .args(["--exact", "victim", "--nocapture"])
                .env(DIRECTORY, dir.path())
                .env("FAILPOINTS", format!("{point}={after}*off->panic"))
                .stderr(Stdio::null())
                .output()
                .expect("the child runs");
            assert!(!output.status.success(), "{point} was not reached");
            let text = String::from_utf8_lossy(&output.stdout);
            let told: BTreeSet<String> =
                text.lines().filter_map(|line| line.strip_prefix("fired ")).map(|id| id.trim().to_owned()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(check(dir.path(), &told, &format!("{point} after {after}")));
        }
    }
}

async fn check(dir: &Path, told: &BTreeSet<String>, point: &str) {
    let path = dir.join("ductile.db");
    let ledger = open(OpenOptions::new(&path, BootId::from(Uuid::now_v7()))).await.expect("the ledger opens again");
    assert_eq!(ledger.readers.quick_check().await.expect("it ran"), Vec::<String>::new());
    let mut conn = SqliteConnectOptions::new().filename(&path).connect().await.expect("open");
    let rows = sqlx::query(
        "SELECT t.job_id, q.status FROM schedule_ticks t LEFT JOIN job_queue q ON q.id = t.job_id WHERE t.status = 'fired'",
    );
    let rows = rows.fetch_all(&mut conn).await.expect("read");
    let fired_jobs: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(fired_jobs.len(), rows.len(), "{point}: one job each");
    assert!(told.is_subset(&fired_jobs), "{point}: what was told is there");
    assert!(fired_jobs.len() - told.len() <= 2, "{point}: at most one answer was lost");
    let mut number =
        async |sql: &'static str| -> i64 { sqlx::query(sql).fetch_one(&mut conn).await.expect("read").get(0) };
    assert_eq!(
        number("SELECT count(*) FROM job_queue").await,
        fired_jobs.len() as i64,
        "{point}: a job without a tick"
    );
    let done = fired_jobs.len() as i64 / 2;
    assert_eq!(fired_jobs.len() % 2, 0, "{point}: both or neither");
    let queued = number("SELECT count(*) FROM job_queue WHERE status = 'queued'").await;
    assert_eq!(queued, i64::from(done > 0), "{point}: what a tick supersedes dies with it");
    let mut entries = ledger.readers.entries().await.expect("read");
    if entries.is_empty() {
        assert_eq!(done, 0, "{point}");
        let again = ["first", "second"].map(|name| arrangement(name, &[minute(0)])).to_vec();
        ledger.writer.arrange(again).await.expect("answered").into_iter().for_each(|done| done.expect("arranged"));
        entries = ledger.readers.entries().await.expect("read");
    }
    for entry in entries {
        assert_eq!(entry.expected, [expected(minute(done))], "{point}: the next one is expected");
        assert_eq!(entry.next_run_at, Some(minute(done)), "{point}");
    }
    if done > 0 {
        for ticked in ledger.writer.tick(both(done - 1), 1).await.expect("answered") {
            assert!(matches!(ticked, Ticked::AlreadyEnded), "{point}: {ticked:?}");
        }
    }
    for ticked in ledger.writer.tick(both(done), 1).await.expect("answered") {
        fired(&ticked);
    }
    ledger.close().await;
}
