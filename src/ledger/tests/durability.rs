//! Which commits are on disk before their answer: a child works under `strace`, its system calls are read.

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use ductile_domain::config::Durability;
use ductile_domain::ids::BootId;
use ductile_domain::outcome::Cause;
use ductile_domain::retry::Ending;
use ductile_ledger::{CommitFeed, OpenOptions, open};
use support::schedules::{arrangement, due};
use support::{failed, finish, new_job, succeeded};
use uuid::Uuid;

const DIRECTORY: &str = "LEDGER_SYNC_DIRECTORY";
const DURABILITY: &str = "LEDGER_SYNC_DURABILITY";

/// The child's part: says on stdout what it is about to do, and when it was answered.
#[test]
fn worker() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let durability = match std::env::var(DURABILITY).as_deref() {
        Ok("full") => Durability::Full,
        Ok("normal") => Durability::Normal,
        _ => Durability::Accepted,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let boot = BootId::from(Uuid::now_v7());
        let feed = CommitFeed::default();
        let mut options = OpenOptions::new(Path::new(&directory).join("ductile.db"), boot);
        (options.durability, options.feed) = (durability, feed.clone());
        let ledger = open(options).await.expect("the ledger opens");
        for awaited in [false, true] {
            say("enqueue");
            ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("enqueued");
            say("claim");
            let candidates = feed.drain().candidates.into_iter().map(|c| (c, 9)).collect();
            let request = ductile_domain::job::ClaimRequest { boot, candidates, max_running: 9, snapshot: None };
            let fence = ledger.writer.claim(request).await.expect("claimed").claimed[0].job.fence;
            say(if awaited { "awaited-finish" } else { "finish" });
            let mut end = finish(fence, succeeded(chrono::Utc::now()), Ending::Succeeded);
            end.is_awaited = awaited;
            ledger.writer.finish(end).await.expect("finished");
        }
        say("arrange");
        let at = chrono::Utc::now();
        ledger
            .writer
            .arrange(vec![arrangement("default", &[at])])
            .await
            .expect("answered")
            .remove(0)
            .expect("arranged");
        say("tick");
        ledger.writer.tick(vec![due("default", at)], 1).await.expect("answered");
        say("claim");
        let candidates = feed.drain().candidates.into_iter().map(|c| (c, 9)).collect();
        let request = ductile_domain::job::ClaimRequest { boot, candidates, max_running: 9, snapshot: None };
        let fence = ledger.writer.claim(request).await.expect("claimed").claimed[0].job.fence;
        say("finish");
        let end = finish(fence, failed(Cause::ExitConfig, at), Ending::Failed);
        ledger.writer.finish(end).await.expect("finished");
        say("pause");
        ledger.writer.pause_schedules("echo".into(), None, true).await.expect("paused");
        say("reset");
        ledger.writer.reset_breaker("echo".into()).await.expect("reset");
        say("cancel-of-nothing");
        ledger.writer.cancel(Uuid::now_v7().into(), "x".into(), "x".into()).await.expect("answered");
        say("over");
        // what closing syncs is not looked at
        std::process::exit(0);
    });
}

fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nSTEP:{word}").and_then(|()| out.flush()).expect("the parent listens");
}

/// DBS-01 and promise 1: `accepted` syncs what is answered to the outside, `full` everything, `normal` nothing.
#[test]
fn a_sync_precedes_exactly_the_answers_that_need_one() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: there is no strace");
        return;
    }
    for (durability, synced) in [
        ("accepted", &["enqueue", "awaited-finish", "enqueue", "tick", "pause", "reset"][..]),
        (
            "full",
            &[
                "enqueue",
                "claim",
                "finish",
                "enqueue",
                "claim",
                "awaited-finish",
                "arrange",
                "tick",
                "claim",
                "finish",
                "pause",
                "reset",
            ],
        ),
        ("normal", &[]),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let trace = dir.path().join("trace");
        let status = Command::new("strace")
            .args(["-f", "-e", "trace=write,fsync,fdatasync", "-s", "64", "-o"])
            .arg(&trace)
            .arg(std::env::current_exe().expect("this binary"))
            .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, dir.path())
            .env(DURABILITY, durability)
            .output()
            .expect("strace runs");
        let text = std::fs::read_to_string(&trace).expect("a trace");
        if !text.contains("STEP:over") {
            eprintln!("skipped: strace may not trace here: {}", String::from_utf8_lossy(&status.stderr));
            return;
        }
        let mut found: Vec<(String, bool)> = Vec::new();
        for line in text.lines() {
            if let Some((_, step)) = line.split_once("STEP:") {
                let word: String = step.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                found.push((word, false));
            } else if line.contains("sync(")
                && let Some(last) = found.last_mut()
            {
                last.1 = true;
            }
        }
        let mut got: Vec<_> = found.iter().filter(|(_, s)| *s).map(|(w, _)| w.as_str()).collect();
        let mut wanted = synced.to_vec();
        got.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(got, wanted, "{durability}: {found:?}");
    }
}

/// Promise 9: the write-ahead log begins anew under a load that never pauses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_does_not_grow_under_load() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ductile.db");
    let mut options = OpenOptions::new(path.clone(), BootId::from(Uuid::now_v7()));
    options.durability = Durability::Normal;
    let ledger = open(options).await.expect("the ledger opens");
    let payload = format!("\"{}\"", "x".repeat(100_000));
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
    let mut longest = 0;
    for _ in 0..1_500 {
        let mut job = new_job("echo");
        job.payload = Some(serde_json::value::RawValue::from_string(payload.clone()).expect("JSON"));
        ledger.writer.enqueue(vec![job], 1).await.expect("enqueued");
        longest = longest.max(size("ductile.db-wal"));
    }
    assert!(size("ductile.db") > 64 * MIB, "it is copied while the load goes on");
    assert!(longest < 100 * MIB, "{longest} bytes");
    assert_eq!(ledger.readers.counts().await.expect("read").queued, 1_500);
    ledger.close().await;
    assert_eq!(size("ductile.db-wal"), 0);
}
