//! Circuit breakers: schedules whose jobs keep failing rest, and are tried again.

use ductile_api::gateway::Gateway as _;

use crate::moved::{Moved, NOON, plugin};

const STATE: &str = "SELECT state, failure_count FROM circuit_breakers";
const HISTORY: &str = "SELECT from_state, to_state, reason FROM circuit_breaker_transitions ORDER BY id";

async fn start() -> Moved {
    let more = "    retry:\n      max_attempts: 1\n    circuit_breaker:\n      threshold: 2\n      reset_after: 25m\n";
    Moved::start(NOON, &plugin("sick", &["{id: s, every: 10m, payload: {do: config}}"], more)).await
}

async fn tick(moved: &Moved, time: &str) {
    moved.until(&format!("2026-03-01T{time}:00Z")).await;
    moved.idle().await;
}

/// BRK-01 to BRK-04, BRK-07, BRK-08: it opens after failures in a row, over a restart too; then one probe decides. Who is
/// not the scheduler is not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_fails_rests_until_a_probe_succeeds() {
    let moved = start().await;
    tick(&moved, "12:10").await;
    assert_eq!(moved.lines(STATE).await, ["closed 1"]);
    tick(&moved, "12:20").await;
    assert_eq!(moved.lines(STATE).await, ["open 2"]);
    assert_eq!(moved.gateway.handle().health().await.plugins_circuit_open, 1);
    tick(&moved, "12:30").await;
    let mine = moved.gateway.enqueue("sick", "ok").await;
    assert_eq!(moved.gateway.finished(mine).await, "succeeded");
    assert_eq!(moved.lines(STATE).await, ["open 2"], "a call from outside is neither blocked nor counted");
    let moved = moved.restarted("2026-03-01T12:35:00Z").await;
    assert_eq!(moved.gateway.handle().health().await.plugins_circuit_open, 1);
    tick(&moved, "12:40").await;
    // 25 minutes have passed: the probe fails, and it opens again
    tick(&moved, "12:50").await;
    assert_eq!(moved.lines(STATE).await, ["open 3"]);
    moved.edit("payload: {do: config}", "payload: {do: ok}");
    moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    moved.settled().await;
    tick(&moved, "13:00").await;
    tick(&moved, "13:10").await;
    tick(&moved, "13:20").await;
    assert_eq!(moved.lines(STATE).await, ["closed 0"]);
    assert_eq!(moved.gateway.handle().health().await.plugins_circuit_open, 0);
    assert_eq!(
        moved.ended().await,
        [
            "s 12:10:00 fired",
            "s 12:20:00 fired",
            "s 12:30:00 skipped breaker_open",
            "s 12:40:00 skipped breaker_open",
            "s 12:50:00 fired",
            "s 13:00:00 skipped breaker_open",
            "s 13:10:00 skipped breaker_open",
            "s 13:20:00 fired",
        ]
    );
    assert_eq!(
        moved.lines(HISTORY).await,
        [
            "closed open failure_threshold",
            "open half_open cooldown_elapsed",
            "half_open open failure_threshold",
            "open half_open cooldown_elapsed",
            "half_open closed success",
        ]
    );
    moved.stop().await;
}

/// BRK-09.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_resets_a_breaker() {
    let moved = start().await;
    tick(&moved, "12:10").await;
    tick(&moved, "12:20").await;
    let handle = moved.gateway.handle();
    assert_eq!(handle.reset_breaker("sick".to_owned(), "a test".to_owned()).await, Ok(1));
    assert_eq!(handle.reset_breaker("sick".to_owned(), "a test".to_owned()).await, Ok(0));
    assert_eq!(moved.lines(STATE).await, ["closed 0"]);
    assert_eq!(moved.lines(HISTORY).await[1], "open closed manual_reset");
    tick(&moved, "12:30").await;
    assert_eq!(moved.ended().await[2], "s 12:30:00 fired");
    moved.stop().await;
}

/// BRK-11: a plugin that is taken out leaves no open breaker behind for ever; when it is back, so is its breaker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_counts_no_breaker_of_a_plugin_that_is_disabled() {
    let moved = start().await;
    tick(&moved, "12:10").await;
    tick(&moved, "12:20").await;
    let (on, off) = ("  sick:\n    enabled: true", "  sick:\n    enabled: false");
    for (from, to, open) in [(on, off, 0), (off, on, 1)] {
        moved.edit(from, to);
        moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
        moved.settled().await;
        assert_eq!(moved.gateway.handle().health().await.plugins_circuit_open, open);
        assert_eq!(moved.lines(STATE).await, ["open 2"]);
    }
    moved.stop().await;
}
