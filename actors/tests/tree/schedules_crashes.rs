//! The scheduler and the ledger die at random moments while ticks are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ductile_api::gateway::Gateway as _;

use crate::moved::{Moved, NOON, plugin};

const SCHEDULES: usize = 10;
const ROUNDS: usize = 100;

/// SCH-15, SCH-18: whenever it dies, each tick ends once and has one job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ticks_end_once_while_the_scheduler_dies() {
    let entries: Vec<_> = (0..SCHEDULES)
        .map(|n| format!("{{id: s{n}, every: {}s, command: sync, if_running: queue}}", 60 + 7 * n))
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let moved = Moved::start(NOON, &plugin("mine", &entries, "")).await;
    // what runs would only take time
    moved.gateway.handle().set_dispatch(false, "a test".to_owned()).await.expect("paused");
    let (over, deaths) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let killer = {
        let (ctl, over, deaths) = (moved.gateway.ctl(), over.clone(), deaths.clone());
        tokio::spawn(async move {
            let mut turn = 0_u64;
            while !over.load(Ordering::Acquire) {
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let path = if turn >> 61 == 0 { "root/storage_sup/ledger" } else { "root/flow_sup/scheduler" };
                deaths.fetch_add(usize::from(ctl.kill(path)), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_micros(500 + (turn >> 50))).await;
            }
        })
    };
    for _ in 0..ROUNDS {
        moved.hand.pass(Duration::from_secs(100));
        // long enough for something to be under way, and never for everything
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Release);
    killer.await.expect("no panic");
    moved.settled().await;
    let now = ductile_domain::time::format(moved.hand.now());
    assert_eq!(moved.count(&format!("schedule_ticks WHERE status = 'expected' AND due_at <= '{now}'")).await, 0);
    for n in 0..SCHEDULES {
        let passed = ROUNDS * 100 / (60 + 7 * n);
        let told =
            format!("SELECT sum(instants) FROM schedule_ticks WHERE schedule_id = 's{n}' AND status <> 'expected'");
        assert_eq!(moved.gateway.sql_one(&told).await, passed.to_string(), "each instant of s{n} ended");
    }
    let fired = moved.count("schedule_ticks WHERE status = 'fired'").await;
    let named = moved.gateway.sql_one("SELECT count(DISTINCT job_id) FROM schedule_ticks WHERE status = 'fired'").await;
    assert_eq!((moved.jobs().await, named), (fired, fired.to_string()), "each tick that fired has its job");
    assert!(fired > 300 && deaths.load(Ordering::Relaxed) > 100, "{fired} ticks, {deaths:?} deaths");
    assert_eq!(moved.gateway.shared().tree.rank_violations(), 0, "an actor called upwards");
    moved.stop().await;
}
