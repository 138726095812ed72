//! What one job costs in the writer: enqueue, claim and finish at several batch sizes, wall time and CPU time per job.
//!
//! `cargo run --release -p ductile-ledger --example writer_cost [directory [batch [history]]]`: `history` terminal jobs
//! and a tenth of it in queued jobs of another plugin lie in the file beforehand.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ductile_domain::config::Durability;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::{Candidate, ClaimRequest, Fence, NewJob};
use ductile_domain::outcome::{AttemptStatus, Outcome, Timing, Usage};
use ductile_domain::plan::Plan;
use ductile_domain::retry::Ending;
use ductile_ledger::{CommitFeed, Finish, OpenOptions, Writer, open};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use uuid::Uuid;

const JOBS: usize = 4096;

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for (name, durability) in [("normal", Durability::Normal), ("accepted", Durability::Accepted)] {
        println!("durability {name}: microseconds per job, wall (CPU)");
        println!(
            "{:>6} {:>16} {:>16} {:>16} {:>16} {:>16}",
            "batch", "enqueue", "claim", "finish", "sum", "all in one"
        );
        for batch in std::env::args().nth(2).map_or(vec![1, 8, 32, 128], |n| vec![n.parse().expect("a number")]) {
            let dir = tempfile::tempdir_in(&base).expect("a directory");
            runtime.block_on(measure(dir.path().join("ductile.db"), durability, batch));
        }
    }
}

async fn measure(path: PathBuf, durability: Durability, batch: usize) {
    let boot = BootId::from(Uuid::now_v7());
    let feed = CommitFeed::default();
    let mut options = OpenOptions::new(path, boot);
    options.durability = durability;
    options.feed = feed.clone();
    let ledger = open(options).await.expect("the ledger opens");
    if let Some(history) = std::env::args().nth(3) {
        fill(ledger.readers.path(), history.parse().expect("a number")).await;
    }
    let writer = ledger.writer.clone();
    let jobs = if batch == 1 { JOBS / 2 } else { JOBS };
    let rounds = jobs / batch;
    let mut spent = [Spent::default(); 4];
    let mut candidates = Vec::with_capacity(jobs);
    let start = Mark::now();
    for _ in 0..rounds {
        enqueue(&writer, batch).await;
        candidates.extend(feed.drain().candidates);
    }
    spent[0].add(start, Mark::now());
    // in rounds, so that no more rows run than a gateway would have workers
    for round in candidates.chunks(batch.max(64)) {
        let start = Mark::now();
        let mut fences = Vec::with_capacity(round.len());
        for chunk in round.chunks(batch) {
            fences.extend(claim(&writer, boot, chunk.to_vec()).await);
        }
        let claimed = Mark::now();
        for chunk in fences.chunks(batch) {
            end(&writer, chunk.to_vec()).await;
        }
        spent[1].add(start, claimed);
        spent[2].add(claimed, Mark::now());
    }
    // the shape under load: finishes of one round, enqueues and claims of the next share their transactions
    let mut running = Vec::new();
    let start = Mark::now();
    for _ in 0..=rounds {
        let candidates = feed.drain().candidates;
        let next = tokio::spawn({
            let writer = writer.clone();
            async move { claim(&writer, boot, candidates).await }
        });
        let enqueues = tokio::spawn({
            let writer = writer.clone();
            async move { enqueue(&writer, batch).await }
        });
        end(&writer, running).await;
        enqueues.await.expect("no panic");
        running = next.await.expect("no panic");
    }
    spent[3].add(start, Mark::now());
    let of = |s: Spent| format!("{:.1} ({:.1})", s.wall.as_secs_f64() * 1e6 / jobs as f64, s.cpu * 1e6 / jobs as f64);
    let sum =
        Spent { wall: spent[0].wall + spent[1].wall + spent[2].wall, cpu: spent[0].cpu + spent[1].cpu + spent[2].cpu };
    println!(
        "{batch:>6} {:>16} {:>16} {:>16} {:>16} {:>16}",
        of(spent[0]),
        of(spent[1]),
        of(spent[2]),
        of(sum),
        of(spent[3])
    );
    ledger.close().await;
}

/// Puts jobs of the past and a long queue into the file, behind the writer's back.
async fn fill(path: &std::path::Path, history: i64) {
    use sqlx::ConnectOptions as _;
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("a connection");
    let trigger: String = sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE name = 'job_queue_born_queued'")
        .fetch_one(&mut conn)
        .await
        .expect("the trigger is there");
    let script = format!(
        "BEGIN IMMEDIATE; DROP TRIGGER job_queue_born_queued;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {history})
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, completed_at)
         SELECT printf('00000000-0000-7000-8000-%012d', n), 'echo', 'poll', 'succeeded', 'api',
            '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z' FROM n;
         INSERT INTO job_transitions (job_id, to_status, created_at) SELECT id, 'queued', created_at FROM job_queue;
         INSERT INTO job_attempts (job_id, attempt, created_at, status) SELECT id, 1, created_at, status FROM job_queue;
         INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at)
         SELECT id || '-1', id, plugin, command, status, 1, submitted_by, created_at, completed_at FROM job_queue;
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {history} / 10)
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at)
         SELECT printf('00000000-0000-7000-8001-%012d', n), 'capped', 'poll', 'queued', 'api',
            '2026-01-01T00:00:00.000Z' FROM n;
         {trigger}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut conn).await.expect("filled");
}

async fn claim(writer: &Writer, boot: BootId, candidates: Vec<Candidate>) -> Vec<Fence> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let candidates = candidates.into_iter().map(|c| (c, 100_000)).collect();
    let request = ClaimRequest { boot, candidates, max_running: 100_000, snapshot: None };
    writer.claim(request).await.expect("claimed").claimed.into_iter().map(|c| c.job.fence).collect()
}

async fn enqueue(writer: &Writer, batch: usize) {
    for_all((0..batch).map(|_| {
        let writer = writer.clone();
        async move { drop(writer.enqueue(vec![job()], 1).await.expect("enqueued")) }
    }))
    .await;
}

async fn end(writer: &Writer, fences: Vec<Fence>) {
    for_all(fences.into_iter().map(|fence| {
        let writer = writer.clone();
        async move { drop(writer.finish(finish(fence)).await.expect("finished")) }
    }))
    .await;
}

async fn for_all<F: Future<Output = ()> + Send + 'static>(futures: impl Iterator<Item = F>) {
    let mut set: JoinSet<()> = futures.collect();
    while let Some(done) = set.join_next().await {
        done.expect("no panic");
    }
}

fn job() -> NewJob {
    NewJob {
        payload: Some(RawValue::from_string(r#"{"message":"hello"}"#.into()).expect("JSON")),
        max_attempts: 4,
        requested_by: Some("bench".into()),
        ..NewJob::new(JobId::from(Uuid::now_v7()), "echo", "poll", "api")
    }
}

fn finish(fence: Fence) -> Finish {
    let outcome = Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: Some(r#"{"status":"ok","result":"hello"}"#.into()),
        stderr: None,
        exit_code: Some(0),
        signal: None,
        events: Vec::new(),
        state_updates: None,
        timing: Timing { enter_wall_ns: 1, exit_wall_ns: 3, dur_ns: 2, runtime_pre_ns: 1, runtime_post_ns: 1 },
        usage: Usage::default(),
        subs: None,
        ended_at: chrono::Utc::now(),
    };
    Finish { fence, outcome, ending: Ending::Succeeded, plan: Plan::default(), is_awaited: false }
}

#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: f64,
}

impl Mark {
    fn now() -> Self {
        Self { at: Instant::now(), cpu: cpu_seconds() }
    }
}

#[derive(Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    cpu: f64,
}

impl Spent {
    fn add(&mut self, from: Mark, to: Mark) {
        self.wall += to.at - from.at;
        self.cpu += to.cpu - from.cpu;
    }
}

/// CPU time of all threads, in the kernel's ticks of nanoseconds.
fn cpu_seconds() -> f64 {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    nanoseconds as f64 / 1e9
}
