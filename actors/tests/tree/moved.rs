//! A gateway on a clock that stands still until it is moved, and what its schedules have done.

use std::fs;
use std::time::Duration;

use ductile_api::events::Pulled;
use ductile_api::gateway::Gateway as _;
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Clock, Hand};
use serde_json::Value;

use crate::gateway::Gateway;

/// Noon of a Sunday.
pub(crate) const NOON: &str = "2026-03-01T12:00:00Z";

pub(crate) struct Moved {
    pub(crate) gateway: Gateway,
    pub(crate) hand: Hand,
    clock: Clock,
}

pub(crate) fn at(text: &str) -> Timestamp {
    time::parse(text).expect("a time")
}

/// An entry under `plugins:` that runs the script `work`.
pub(crate) fn plugin(name: &str, schedules: &[&str], more: &str) -> String {
    let mut entry = format!("  {name}:\n    enabled: true\n    uses: work\n    parallelism: 8\n{more}");
    if !schedules.is_empty() {
        entry.push_str("    schedules:\n");
        for schedule in schedules {
            entry.push_str(&format!("      - {schedule}\n"));
        }
    }
    entry
}

impl Moved {
    /// `plugins` holds entries as [`plugin`] makes them, and sections.
    pub(crate) async fn start(now: &str, plugins: &str) -> Self {
        let (clock, hand) = Clock::by_hand(at(now));
        let moved = Self { gateway: Gateway::start_by(clock.clone(), plugins).await, hand, clock };
        moved.settled().await;
        moved
    }

    /// Down until `until`.
    pub(crate) async fn restarted(self, until: &str) -> Self {
        let Self { gateway, hand, clock } = self;
        // the clock does not move before everything stands still
        let gateway = gateway.restarted_at(clock.clone(), || hand.set(at(until))).await;
        let moved = Self { gateway, hand, clock };
        moved.settled().await;
        moved
    }

    /// Lets time pass until then, and everything happen that is due.
    pub(crate) async fn until(&self, text: &str) {
        let time = at(text).signed_duration_since(self.hand.now());
        self.pass(time.to_std().expect("later")).await;
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.hand.pass(time);
        self.settled().await;
    }

    /// Sets the clock.
    pub(crate) async fn set(&self, text: &str) {
        self.hand.set(at(text));
        self.settled().await;
    }

    /// The scheduler has looked at the clock and has nothing to do.
    pub(crate) async fn settled(&self) {
        let now = time::format(self.hand.now());
        self.gateway
            .until("the scheduler has nothing to do", async || {
                let tree = &self.gateway.shared().tree;
                let view = tree.inspect("root/flow_sup/scheduler", Duration::from_secs(1)).await.ok()?;
                (view["is_settled"] == true && view["looked_at"] == now).then_some(())
            })
            .await;
    }

    /// No job is queued or runs.
    pub(crate) async fn idle(&self) {
        self.gateway
            .until("all jobs have ended", async || {
                let counts = self.gateway.shared().readers.counts().await.ok()?;
                (counts.queued + counts.running == 0).then_some(())
            })
            .await;
        self.settled().await;
    }

    /// `schedule instant status reason` of each tick, by schedule and instant; of the instants only time of day.
    pub(crate) async fn ticks(&self) -> Vec<String> {
        self.lines("SELECT schedule_id, substr(instant, 12, 8), status, coalesce(reason, '') FROM schedule_ticks ORDER BY plugin, schedule_id, instant").await
    }

    /// The same of those that have ended.
    pub(crate) async fn ended(&self) -> Vec<String> {
        self.ticks().await.into_iter().filter(|tick| !tick.contains(" expected")).collect()
    }

    /// `schedule status next` of each entry.
    pub(crate) async fn entries(&self) -> Vec<String> {
        self.lines("SELECT schedule_id, status, coalesce(substr(next_run_at, 12, 8), 'never') FROM schedule_entries ORDER BY plugin, schedule_id").await
    }

    /// Rows as lines.
    pub(crate) async fn lines(&self, query: &str) -> Vec<String> {
        self.gateway.sql(query).await.into_iter().map(|row| row.join(" ").trim_end().to_owned()).collect()
    }

    pub(crate) async fn count(&self, what: &str) -> usize {
        self.gateway.sql_one(&format!("SELECT count(*) FROM {what}")).await.parse().expect("a number")
    }

    /// Jobs that the scheduler enqueued.
    pub(crate) async fn jobs(&self) -> usize {
        self.count("job_queue WHERE submitted_by = 'scheduler'").await
    }

    /// The events since the start of which the type begins so, as JSON without their times.
    pub(crate) fn events(&self, kinds: &[&str]) -> Vec<Value> {
        let mut watcher = self.gateway.handle().events().subscribe(Some(0));
        let mut seen = Vec::new();
        while let Some(Pulled::Events(events)) = watcher.try_pull() {
            seen.extend(events.iter().map(|event| event.event.to_json()));
        }
        seen.retain(|event| kinds.iter().any(|kind| event["type"].as_str().is_some_and(|t| t.starts_with(kind))));
        seen
    }

    /// Replaces a part of the configuration on disk.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let path = self.gateway.path("config.yaml");
        let text = fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).expect("written");
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
    }
}
