//! Crashes at every point of a batch: a child process is aborted, and the file is looked at afterwards.
//!
//! `cargo test -p ductile-ledger --features failpoints --test crash`
#![cfg(feature = "failpoints")]

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::{ClaimRequest, ClaimedJob, NewJob};
use ductile_domain::plan::Plan;
use ductile_domain::retry::Ending;
use ductile_ledger::{CommitFeed, Finish, OpenOptions, Writer, failpoints, open};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
use support::{UNBALANCED, arrival, context, finish, join, new_job, seat, seated, succeeded};
use uuid::Uuid;

/// What an operator's database must never have.
const WITHOUT_CONTEXT: &str = "SELECT count(*) FROM job_queue q WHERE q.event_context_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM event_context c WHERE c.id = q.event_context_id)";

const DIRECTORY: &str = "LEDGER_CRASH_DIRECTORY";

/// The child's part: works until its crash point ends the process. Prints what it was told, each line at once.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let scenario = fail::FailScenario::setup();
    // a crash point panics; a panic of a task is not the crash that is meant
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let boot = BootId::from(Uuid::now_v7());
        let feed = CommitFeed::default();
        let mut options = OpenOptions::new(Path::new(&directory).join("ductile.db"), boot);
        options.feed = feed.clone();
        let ledger = open(options).await.expect("the ledger opens");
        for _ in 0..1000 {
            let round = (0..4).map(|n| work(ledger.writer.clone(), feed.clone(), boot, n));
            let tasks: Vec<_> = round.map(tokio::spawn).collect();
            for task in tasks {
                task.await.expect("no panic");
            }
        }
    });
    scenario.teardown();
}

async fn work(writer: Writer, feed: CommitFeed, boot: BootId, n: u32) {
    if n < 3 {
        let job = new_job("echo");
        let id = job.id;
        writer.enqueue(vec![job], 1).await.expect("enqueued");
        tell("accepted", id);
        return;
    }
    let candidates = feed.drain().candidates.into_iter().map(|c| (c, 100)).collect();
    let request = ClaimRequest { boot, candidates, max_running: 100, snapshot: None };
    for claimed in writer.claim(request).await.expect("claimed").claimed {
        let fence = claimed.job.fence;
        let end = finish(fence, succeeded(chrono::Utc::now()), Ending::Succeeded);
        writer.finish(Finish { plan: what_follows(&claimed.job), ..end }).await.expect("finished");
        tell("done", fence.job);
    }
}

/// A job from outside begins a split with a join in one of its branches; what sits in one goes to its join.
fn what_follows(job: &ClaimedJob) -> Plan {
    let mut plan = Plan::default();
    if let Some(seat) = job.seat {
        plan.arrivals.push(arrival(seat, "1"));
    } else if &*job.plugin == "echo" {
        let outer = join(None, 2);
        let inner = join(Some(seat(&outer, 1)), 2);
        let seats = [seat(&outer, 0), seat(&inner, 0), seat(&inner, 1)];
        for at in seats {
            let step = context(None, "a step");
            let child = NewJob { context: Some(step.id), parent: Some(job.fence.job), ..seated("echo", at) };
            plan.contexts.push(step);
            plan.children.push(child);
        }
        plan.joins = vec![outer, inner];
    }
    plan
}

fn tell(word: &str, job: JobId) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{word} {job}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Promises 1 and 3: what was acknowledged is there, nothing is half there, what was terminal stays so; FCT-05.
#[test]
fn a_crash_at_any_point_of_a_batch_loses_nothing_that_was_acknowledged() {
    for point in failpoints() {
        for after in [0, 1, 7, 24] {
            let dir = tempfile::tempdir().expect("a directory");
            let output = Command::new(std::env::current_exe().expect("this binary"))
                .args(["--exact", "victim", "--nocapture"])
                .env(DIRECTORY, dir.path())
                .env("FAILPOINTS", format!("{point}={after}*off->panic"))
                .stderr(Stdio::null())
                .output()
                .expect("the child runs");
            assert!(!output.status.success(), "{point} was not reached");
            let text = String::from_utf8_lossy(&output.stdout);
            let told = |word: &str| -> BTreeSet<String> {
                text.lines().filter_map(|l| l.strip_prefix(word)).map(|id| id.trim().to_owned()).collect()
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(check(dir.path(), &told("accepted "), &told("done "), point));
        }
    }
}

async fn check(dir: &Path, accepted: &BTreeSet<String>, done: &BTreeSet<String>, point: &str) {
    let boot = BootId::from(Uuid::now_v7());
    let ledger = open(OpenOptions::new(dir.join("ductile.db"), boot)).await.expect("the ledger opens again");
    assert!(!ledger.was_clean);
    assert_eq!(ledger.readers.quick_check().await.expect("it ran"), Vec::<String>::new());
    let mut conn = SqliteConnectOptions::new().filename(dir.join("ductile.db")).connect().await.expect("open");
    let rows = sqlx::query(
        "SELECT q.id, q.status,
            (SELECT t.to_status FROM job_transitions t WHERE t.job_id = q.id ORDER BY t.id DESC LIMIT 1),
            (SELECT count(*) FROM job_attempts a WHERE a.job_id = q.id),
            (SELECT count(*) FROM job_log l WHERE l.job_id = q.id),
            (SELECT count(*) FROM job_stopwatch s WHERE s.job_id = q.id)
         FROM job_queue q",
    )
    .fetch_all(&mut conn)
    .await
    .expect("read");
    let mut found = BTreeSet::new();
    for row in rows {
        let (id, status): (String, String) = (row.get(0), row.get(1));
        assert_eq!(status, row.get::<String, _>(2), "{point}: the last transition is the status");
        let is_done = i64::from(status == "succeeded");
        for column in 3..6 {
            assert_eq!(row.get::<i64, _>(column), is_done, "{point}: {id} is {status}");
        }
        assert!(is_done == 1 || !done.contains(&id), "{point}: {id} had ended");
        found.insert(id);
    }
    assert!(accepted.is_subset(&found), "{point}: accepted jobs are missing");
    ledger.writer.recover().await.expect("recovered");
    let running = ledger.readers.running().await.expect("read");
    assert!(running.is_empty(), "{point}: nothing runs after recovery");
    let number = async |sql| -> i64 {
        let mut conn = SqliteConnectOptions::new().filename(dir.join("ductile.db")).connect().await.expect("open");
        sqlx::query(sql).fetch_one(&mut conn).await.expect("read").get(0)
    };
    assert_eq!(number(UNBALANCED).await, 0, "{point}: joins that count otherwise than their rows");
    assert_eq!(number(WITHOUT_CONTEXT).await, 0, "{point}: jobs whose context is missing");
    // neither twice nor never: what is left is done, and then every join has fired
    loop {
        let mut left = Vec::new();
        for plugin in ["echo", "core.join"] {
            left.extend(ledger.readers.candidates(plugin, 0, 500).await.expect("read"));
        }
        if left.is_empty() {
            break;
        }
        let candidates = left.into_iter().map(|c| (c, 1000)).collect();
        let request = ClaimRequest { boot, candidates, max_running: 1000, snapshot: None };
        for claimed in ledger.writer.claim(request).await.expect("claimed").claimed {
            let end = finish(claimed.job.fence, succeeded(chrono::Utc::now()), Ending::Succeeded);
            let end = Finish { plan: what_follows(&claimed.job), ..end };
            ledger.writer.finish(end).await.expect("finished");
        }
    }
    assert_eq!(number(UNBALANCED).await, 0, "{point}: joins that count otherwise than their rows");
    assert_eq!(number("SELECT count(*) FROM pipeline_joins WHERE fired_at IS NULL").await, 0, "{point}");
    ledger.close().await;
}
