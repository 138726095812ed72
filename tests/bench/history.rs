//! Ledgers with a past: made by the gateway, filled by SQL.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::gateway::{self, Setup};
use crate::plugins::Built;

/// A ledger with so many ended jobs, each with its log, attempt, transitions and stopwatch.
pub(crate) fn with_rows(binary: &Path, built: &Built, rows: usize) -> PathBuf {
    fill(
        binary,
        built,
        "history.db",
        &format!(
            "INSERT INTO job_queue (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, created_at)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             SELECT printf('00000000-0000-7000-8000-%012d', i), 'old-' || (i % 10), 'poll', '{{}}', 'queued', 1, 4, 'api', {now} FROM n;
             -- a row may only live as a job does
             UPDATE job_queue SET status = 'running', started_at = created_at, claim_no = 1;
             UPDATE job_queue SET status = 'succeeded', completed_at = created_at, finished_claim_no = 1;
             INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, started_at, completed_at)
             SELECT id || '-1', id, plugin, command, 'succeeded', '{{\"status\":\"ok\"}}', 1, 'api', created_at, started_at, completed_at FROM job_queue;
             INSERT INTO job_attempts (job_id, attempt, created_at, status) SELECT id, 1, created_at, 'succeeded' FROM job_queue;
             INSERT INTO job_transitions (job_id, from_status, to_status, created_at) SELECT id, NULL, 'queued', created_at FROM job_queue;
             INSERT INTO job_transitions (job_id, from_status, to_status, created_at) SELECT id, 'queued', 'running', created_at FROM job_queue;
             INSERT INTO job_transitions (job_id, from_status, to_status, created_at) SELECT id, 'running', 'succeeded', created_at FROM job_queue",
            now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        ),
    )
}

/// A ledger with so many queued jobs of the plugin that may run one at a time.
pub(crate) fn with_queued(binary: &Path, built: &Built, rows: usize) -> PathBuf {
    fill(
        binary,
        built,
        "line.db",
        &format!(
            "INSERT INTO job_queue (id, plugin, command, payload, status, attempt, max_attempts, submitted_by, created_at)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             SELECT printf('00000000-0000-7000-8000-%012d', i), 'capped', 'poll', '{{}}', 'queued', 1, 4, 'api', strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM n",
        ),
    )
}

fn fill(binary: &Path, built: &Built, name: &str, statements: &str) -> PathBuf {
    let dir = built.dir.join("ledgers");
    let setup = Setup { state_dir: Some(dir.clone()), ..Default::default() };
    drop(gateway::start(binary, built, 1, setup));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(dir.join("ductile.db"));
        let mut connection = options.connect().await.expect("the ledger opens");
        let text = format!("BEGIN; {statements}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.expect("the rows are written");
        connection.close().await.expect("closed");
    });
    let ledger = built.dir.join(name);
    std::fs::rename(dir.join("ductile.db"), &ledger).expect("kept");
    std::fs::remove_dir_all(dir).expect("removed");
    ledger
}
