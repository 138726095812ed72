//! Rows of one schedule that the ledger refuses: the others go on.

use std::time::Duration;

use ductile_api::gateway::Gateway as _;

use crate::moved::{Moved, NOON, plugin};

/// SCH-04: what can't be written of one schedule holds up none beside it, and is written as soon as it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_cannot_be_written_holds_up_no_other() {
    let entry = |id: &str, every: &str| {
        format!("{{id: {id}, every: {every}, command: sync, if_running: queue, payload: {{do: ok}}}}")
    };
    let schedules = ["a", "bad", "c"].map(|id| entry(id, "20m"));
    let schedules: Vec<&str> = schedules.iter().map(String::as_str).collect();
    let moved = Moved::start(NOON, &plugin("mine", &schedules, "")).await;
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON schedule_ticks WHEN NEW.schedule_id = 'bad'
        BEGIN SELECT RAISE(ABORT, 'refused'); END";
    moved.gateway.sql(refuse).await;
    for id in ["a", "bad", "c"] {
        moved.edit(&entry(id, "20m"), &entry(id, "10m"));
    }
    moved.gateway.handle().reload("a test".to_owned()).await.expect("reloaded");
    let next = async |wanted: &[&str]| (moved.entries().await == wanted).then_some(());
    let others = ["a active 12:10:00", "bad active 12:20:00", "c active 12:10:00"];
    moved.gateway.until("the others have their new ticks", async || next(&others).await).await;
    moved.hand.pass(Duration::from_secs(600));
    let fired =
        async || (moved.ended().await.iter().filter(|tick| tick.ends_with(" fired")).count() == 2).then_some(());
    moved.gateway.until("the others fire", fired).await;
    let view = moved.gateway.shared().tree.inspect("root/flow_sup/scheduler", Duration::from_secs(5)).await;
    assert_eq!(view.expect("an answer")["refused"], 1);
    moved.gateway.sql("DROP TRIGGER refuse").await;
    moved.settled().await;
    assert_eq!(moved.entries().await, ["a active 12:20:00", "bad active 12:20:00", "c active 12:20:00"]);
    let replaced = "SELECT reason FROM schedule_ticks WHERE schedule_id = 'bad' ORDER BY id";
    assert_eq!(moved.lines(replaced).await, ["replaced", "-"]);
    moved.stop().await;
}
