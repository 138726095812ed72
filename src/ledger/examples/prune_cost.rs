//! What a step of pruning and one of vacuuming cost the writer, for small rows and for the largest, and how fast a backlog
//! goes.
//!
//! `cargo run --release -p ductile-ledger --example prune_cost [directory]`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ductile_domain::ids::BootId;
use ductile_ledger::{Deletable, OpenOptions, Prune, open};
use sqlx::Connection as _;
use uuid::Uuid;

const OLD: &str = "2020-01-01T00:00:00.000Z";

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    println!("{:<44} {:>8} {:>6} {:>9} {:>9} {:>12}", "", "rows", "steps", "median", "worst", "rows/s");
    let small = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, completed_at, payload)
            SELECT 'j' || i, 'echo', 'poll', 'queued', 'api', '{OLD}', '{OLD}', hex(zeroblob(500)) FROM n;
         UPDATE job_queue SET status = 'running'; UPDATE job_queue SET status = 'succeeded';
         INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at)
            SELECT id, id, plugin, command, status, hex(zeroblob(1000)), 1, 'api', '{OLD}', '{OLD}' FROM job_queue;
         INSERT INTO job_transitions (job_id, to_status, created_at) SELECT id, status, '{OLD}' FROM job_queue"
    );
    let large = |bytes: u32, rows: u32| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at,
                    completed_at, payload)
                SELECT i, i, 'echo', 'poll', 'succeeded', hex(zeroblob({bytes} / 2)), 1, 'api', '{OLD}', '{OLD}',
                    hex(zeroblob({bytes} / 2)) FROM n"
        )
    };
    runtime.block_on(measure(&base, "300,000 rows of three tables", &small));
    runtime.block_on(measure(&base, "1,000 results and payloads of 256 KiB each", &large(256 << 10, 1_000)));
    runtime.block_on(measure(&base, "30 results and payloads of 10 MiB each", &large(10 << 20, 30)));
}

async fn measure(base: &Path, what: &str, fill: &str) {
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let path = dir.path().join("ductile.db");
    let ledger = open(OpenOptions::new(&path, BootId::from(Uuid::now_v7()))).await.expect("the ledger opens");
    let mut sql = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.expect("a connection");
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill.to_owned())).execute(&mut sql).await.expect("filled");
    sql.close().await.expect("closed");
    ledger.writer.checkpoint().await.expect("copied");

    let age = Duration::from_secs(86_400);
    let prune = Prune { retention: Deletable::ALL.into_iter().map(|kind| (kind, age)).collect(), limit: u32::MAX };
    let (mut times, mut rows) = (Vec::new(), 0);
    loop {
        let begun = Instant::now();
        let step = ledger.writer.prune(prune.clone()).await.expect("pruned");
        times.push(begun.elapsed());
        rows += step.deleted.iter().map(|(_, n)| n).sum::<u64>();
        if !step.has_more {
            break;
        }
    }
    print(what, rows, times);
    let (mut times, mut pages) = (Vec::new(), 0);
    loop {
        let begun = Instant::now();
        let step = ledger.writer.vacuum().await.expect("vacuumed");
        times.push(begun.elapsed());
        pages += step.pages;
        if !step.has_more {
            break;
        }
    }
    print("    its pages given back", pages, times);
    let begun = Instant::now();
    for _ in 0..20 {
        ledger.writer.prune(prune.clone()).await.expect("pruned");
    }
    print("    nothing to prune", 0, vec![begun.elapsed() / 20]);
    ledger.close().await;
}

fn print(what: &str, rows: u64, mut times: Vec<Duration>) {
    times.sort();
    let all: Duration = times.iter().sum();
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!(
        "{what:<44} {rows:>8} {:>6} {:>9} {:>9} {:>12.0}",
        times.len(),
        ms(times[times.len() / 2]),
        ms(*times.last().expect("a step")),
        rows as f64 / all.as_secs_f64()
    );
}
