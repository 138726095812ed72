//! What a tick that is due asks of the ledger, or why it is not asked yet.

use std::time::Duration;

use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::NewJob;
use ductile_domain::schedule::{CatchUp, Expected, GRACE, Rule, TickReason, is_young};
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::Due;
use uuid::Uuid;

use crate::agenda::Watched;

/// What is done about a tick whose time has come.
pub(crate) enum Verdict {
    /// The ledger is asked.
    Ask(Box<Due>),
    /// Its rows are to be looked at anew first: others have passed with it, or it is to wait for its window.
    LookAnew,
    /// Nothing yet: there is no space, and it has only this one chance.
    Hold,
}

/// The circumstances of all ticks of one look.
pub(crate) struct Circumstances<'a> {
    pub(crate) generation: &'a Generation,
    pub(crate) now: Timestamp,
    /// Nothing is taken in for want of space.
    pub(crate) is_intake_stopped: bool,
}

/// Decides about one tick.
pub(crate) fn verdict(watched: &Watched, tick: Expected, circumstances: &Circumstances<'_>) -> Verdict {
    let Watched { schedule, timing, anchor, expected, late } = watched;
    let Circumstances { generation, now, is_intake_stopped } = *circumstances;
    let is_forward = expected.last() == Some(&tick);
    let fires_once = matches!(timing.rule, Rule::At(_) | Rule::After(_));
    let can_catch_up = schedule.catch_up != CatchUp::Skip && matches!(timing.rule, Rule::Every(_));
    let is_catch_up = !is_forward && can_catch_up && *late != Some(tick.instant);
    if is_intake_stopped && (fires_once || is_catch_up) {
        return Verdict::Hold;
    }
    let next = if is_forward { timing.next(*anchor, tick.instant) } else { None };
    // another has passed meanwhile
    if next.is_some_and(|next| next.due <= now && !is_young(timing, *anchor, next, now)) {
        return Verdict::LookAnew;
    }
    let is_late = now.signed_duration_since(tick.due) > GRACE;
    let closed_now = if is_late { timing.closed(now) } else { None };
    if fires_once && closed_now.is_some() && timing.opens(now).is_some() {
        return Verdict::LookAnew;
    }
    let closed = timing.closed(tick.due).or(closed_now);
    let (plugin, command) = (&schedule.plugin, &schedule.command);
    let runnable = generation.catalog.get(plugin).filter(|p| p.is_runnable && p.command(command).is_some());
    let skip = match &runnable {
        None => Some(TickReason::PluginGone),
        Some(_) => closed.or(is_intake_stopped.then_some(TickReason::NoSpace)),
    };
    let entry = generation.config.plugins.get(&**plugin);
    let guard = (&**command == "poll").then(|| entry.map_or(1, |entry| entry.max_outstanding_polls));
    let scope = if is_catch_up { "catchup" } else { "schedule" };
    let job = NewJob {
        payload: schedule.payload.clone(),
        max_attempts: runnable.map_or(1, |plugin| plugin.retry.max_attempts),
        requested_by: Some(schedule.id.to_string()),
        dedupe_key: Some(format!("{scope}:{plugin}:{}:{}", schedule.id, time::format(tick.instant))),
        dedupe_window: window(watched, tick, generation.config.service.dedupe_ttl),
        dedupe_in_flight: true,
        snapshot: generation.snapshot,
        ..NewJob::new(JobId::from(Uuid::now_v7()), plugin.clone(), command.clone(), "scheduler")
    };
    Verdict::Ask(Box::new(Due {
        plugin: plugin.clone(),
        schedule: schedule.id.clone(),
        fingerprint: timing.fingerprint.clone(),
        instant: tick.instant,
        due: tick.due,
        is_catch_up,
        is_late,
        skip,
        job,
        if_running: schedule.if_running,
        guard,
        next,
        is_last: is_forward && next.is_none(),
        passed: Vec::new(),
    }))
}

/// SCH-18: narrower than the cadence.
fn window(watched: &Watched, tick: Expected, most: Duration) -> Duration {
    watched.timing.cadence(tick.instant).map_or(most, |cadence| (cadence / 2).min(most))
}
