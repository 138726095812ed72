//! Live events of schedules and breakers: said after the commit that made them true.

use std::sync::Arc;

use ductile_domain::event::LiveEvent;
use ductile_domain::schedule::{Expected, Passed, TickReason, TickStatus};
use ductile_domain::time;
use ductile_ledger::{BreakerEvent, Due, Ticked};
use serde_json::{Map, Value};

use super::Announced;
use crate::job;
use crate::shared::Shared;

/// A tick as its events name it.
#[derive(Debug, Clone)]
pub(crate) struct Tick {
    plugin: Arc<str>,
    schedule: Arc<str>,
    at: Expected,
    job: Announced,
}

impl Tick {
    pub(crate) fn of(due: &Due) -> Self {
        let Due { plugin, schedule, instant, due: at, job, .. } = due;
        let at = Expected { instant: *instant, due: *at };
        Self { plugin: plugin.clone(), schedule: schedule.clone(), at, job: Announced::of(job) }
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = named(&self.plugin, &self.schedule);
        fields.insert("instant".into(), time::format(self.at.instant).into());
        fields.insert("due_at".into(), time::format(self.at.due).into());
        fields
    }
}

/// A tick ended, or waits.
pub(crate) fn ticked(shared: &Shared, tick: &Tick, ticked: &Ticked) {
    let mut fields = tick.fields();
    match ticked {
        Ticked::Fired { status, reason, job, transition, cancelled, flagged, breaker } => {
            superseded(shared, tick, cancelled, flagged);
            let enqueued = Announced { job: *job, ..tick.job.clone() };
            enqueued.say(shared, "job.enqueued", Some(*transition), Vec::new());
            if let Some(event) = breaker {
                self::breaker(shared, event);
            }
            fields.insert("job_id".into(), job.to_string().into());
            give_reason(&mut fields, *reason);
            let kind = if *status == TickStatus::CaughtUp { "scheduler.caught_up" } else { "scheduler.fired" };
            say(shared, kind, fields);
        }
        Ticked::Skipped { reason, job, cancelled, flagged } => {
            superseded(shared, tick, cancelled, flagged);
            if let Some(job) = job {
                fields.insert("job_id".into(), job.to_string().into());
            }
            give_reason(&mut fields, Some(*reason));
            say(shared, "scheduler.skipped", fields);
        }
        // said by who knows whether it is new
        Ticked::Waits { .. } | Ticked::AlreadyEnded | Ticked::Failed(_) => {}
    }
}

/// A tick begins to wait, or for something else.
pub(crate) fn waits(shared: &Shared, tick: &Tick, reason: TickReason) {
    let mut fields = tick.fields();
    give_reason(&mut fields, Some(reason));
    say(shared, "scheduler.waits", fields);
}

/// Jobs made way for a tick.
fn superseded(shared: &Shared, tick: &Tick, dead: &[ductile_ledger::Buried], flagged: &[ductile_domain::ids::JobId]) {
    for buried in dead {
        super::dead(shared, buried);
    }
    for id in flagged {
        // The flag in the row is the truth; this only makes it quick.
        if let Some(slot) = shared.jobs.get::<job::Msg>(&format!("job:{id}")) {
            let _ = slot.try_cast(job::Msg::Cancel(format!("superseded by schedule {}", tick.schedule)));
        }
    }
}

/// Ticks of a schedule ended without being fired: one event for all that share status and reason.
pub(crate) fn passed(shared: &Shared, plugin: &str, schedule: &str, passed: &[Passed]) {
    let mut rest = passed;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|p| (p.status, p.reason) == (first.status, first.reason)).count();
        let (group, others) = rest.split_at(same);
        rest = others;
        let instants: u64 = group.iter().map(|p| p.last.map_or(1, |(_, n)| u64::from(n))).sum();
        let mut fields = named(plugin, schedule);
        fields.insert("instant".into(), time::format(first.instant).into());
        fields.insert("due_at".into(), time::format(first.due).into());
        if let Some(last) = group.last().filter(|_| instants > 1) {
            fields.insert("instants".into(), instants.into());
            let last = last.last.map_or(last.instant, |(instant, _)| instant);
            fields.insert("last_instant".into(), time::format(last).into());
        }
        give_reason(&mut fields, Some(first.reason));
        say(shared, kind(first.status), fields);
    }
}

/// Ticks that were expected ended with their schedule.
pub(crate) fn taken_back(
    shared: &Shared,
    plugin: &str,
    schedule: &str,
    ticks: &[Expected],
    (status, reason): (TickStatus, TickReason),
) {
    let ended: Vec<_> = ticks
        .iter()
        .map(|Expected { instant, due }| Passed { instant: *instant, due: *due, last: None, status, reason })
        .collect();
    passed(shared, plugin, schedule, &ended);
}

/// A breaker changed its state.
pub(crate) fn breaker(shared: &Shared, event: &BreakerEvent) {
    let BreakerEvent { plugin, command, change, failure_count, job, at } = event;
    let (from, to, reason) = (change.from.as_str(), change.to.as_str(), change.reason.as_str());
    let kind = match change.to {
        ductile_domain::breaker::Circuit::Open => "breaker.opened",
        ductile_domain::breaker::Circuit::HalfOpen => "breaker.half_open",
        ductile_domain::breaker::Circuit::Closed => "breaker.closed",
    };
    if kind == "breaker.opened" {
        tracing::warn!(component = "breaker", %plugin, %command, failure_count, reason, "opened: its schedules fire no more for a while");
    } else {
        tracing::info!(component = "breaker", %plugin, %command, from, reason, "{kind}");
    }
    let fields = Map::from_iter([
        ("plugin".to_owned(), Value::from(&**plugin)),
        ("command".to_owned(), Value::from(&**command)),
        ("from".to_owned(), from.into()),
        ("to".to_owned(), to.into()),
        ("reason".to_owned(), reason.into()),
        ("failure_count".to_owned(), (*failure_count).into()),
        ("job_id".to_owned(), job.map_or(Value::Null, |job| job.to_string().into())),
    ]);
    shared.ring.emit(LiveEvent::other(kind, *at, fields));
}

const fn kind(status: TickStatus) -> &'static str {
    match status {
        TickStatus::Expected => "scheduler.waits",
        TickStatus::Fired => "scheduler.fired",
        TickStatus::CaughtUp => "scheduler.caught_up",
        TickStatus::Skipped => "scheduler.skipped",
        TickStatus::Missed => "scheduler.missed",
    }
}

fn named(plugin: &str, schedule: &str) -> Map<String, Value> {
    Map::from_iter([("plugin".to_owned(), plugin.into()), ("schedule_id".to_owned(), schedule.into())])
}

fn give_reason(fields: &mut Map<String, Value>, reason: Option<TickReason>) {
    fields.insert("reason".into(), reason.map(TickReason::as_str).into());
}

pub(crate) fn say(shared: &Shared, kind: &'static str, fields: Map<String, Value>) {
    shared.ring.emit(LiveEvent::other(kind, shared.clock.now(), fields));
}
