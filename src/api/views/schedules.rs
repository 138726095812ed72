//! Schedules as doors and the command line show them: what the generation says, joined with what the ledger's rows say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::SecondsFormat;
use chrono_tz::Tz;
use ductile_domain::breaker::{BreakerPolicy, Circuit};
use ductile_domain::generation::Generation;
use ductile_domain::schedule::{EntryStatus, Expected, Rule, Schedule, Span, TickReason, Timing};
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{BreakerRow, BreakerTransitionRow, Entry, Error, Readers, TickFilter, TickRow};
use serde::Serialize;

/// Ticks of each kind in an explanation.
const TOLD: usize = 10;
/// Of the newest rows so many are looked through for ticks that have ended: those that catch up stand among them.
const LOOKED_AT: u32 = 200;

/// One schedule of a list.
#[derive(Debug, Serialize)]
pub struct ScheduleView {
    /// Plugin or alias.
    pub plugin: String,
    /// Its schedule.
    pub schedule_id: String,
    /// What the schedule runs.
    pub command: String,
    /// `every`, `cron`, `at`, `after`; `invalid` when it can't be read.
    pub mode: &'static str,
    /// The rule as it was written; absent when it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `active`, `paused_invalid`, `paused_manual` or `exhausted`.
    pub status: &'static str,
    /// Why, where the status needs a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// IANA name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<&'static str>,
    /// When its next tick is due, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<String>,
    /// When a tick last asked for a job, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fired_at: Option<String>,
    /// When a job of it last succeeded, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<String>,
    /// That job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_job_id: Option<String>,
}

impl ScheduleView {
    fn of(schedule: &Schedule, entry: Option<&Entry>) -> Self {
        let timing = schedule.timing.as_ref();
        let (status, reason) = standing(schedule, entry);
        let moment = |at: Option<Timestamp>| at.map(time::format);
        Self {
            plugin: schedule.plugin.to_string(),
            schedule_id: schedule.id.to_string(),
            command: schedule.command.to_string(),
            mode: timing.map_or("invalid", |timing| timing.rule.mode()),
            rule: timing.ok().map(|timing| timing.rule.to_string()),
            status: status.as_str(),
            reason,
            timezone: timing.ok().map(|timing| timing.zone.name()),
            next_run_at: moment(entry.and_then(|entry| entry.next_run_at)),
            last_fired_at: moment(entry.and_then(|entry| entry.last_fired_at)),
            last_success_at: moment(entry.and_then(|entry| entry.last_success_at)),
            last_success_job_id: entry.and_then(|entry| entry.last_success_job_id.clone()),
        }
    }
}

/// The row's word; that of the configuration where there is no row yet.
fn standing(schedule: &Schedule, entry: Option<&Entry>) -> (EntryStatus, Option<String>) {
    match (entry, &schedule.timing) {
        (Some(entry), _) => (entry.status, entry.reason.clone()),
        (None, Ok(_)) => (EntryStatus::Active, None),
        (None, Err(why)) => (EntryStatus::PausedInvalid, Some(why.clone())),
    }
}

/// The schedules of a generation, by plugin and id.
///
/// # Errors
/// When the read failed.
pub async fn schedules(
    readers: &Readers,
    generation: &Generation,
    plugin: Option<&str>,
) -> Result<Vec<ScheduleView>, Error> {
    let entries = readers.entries().await?;
    let rows: HashMap<(&str, &str), &Entry> = entries.iter().map(|e| ((&*e.plugin, &*e.schedule), e)).collect();
    let mut wanted: Vec<_> =
        generation.scheduled().filter(|schedule| plugin.is_none_or(|plugin| *schedule.plugin == *plugin)).collect();
    wanted.sort_by(|one, other| (&one.plugin, &one.id).cmp(&(&other.plugin, &other.id)));
    let view =
        |schedule: &Arc<Schedule>| ScheduleView::of(schedule, rows.get(&(&*schedule.plugin, &*schedule.id)).copied());
    Ok(wanted.into_iter().map(view).collect())
}

/// A tick that has ended.
#[derive(Debug, Serialize)]
pub struct PastTick {
    /// The nominal instant, RFC 3339.
    pub instant: String,
    /// When it was due, RFC 3339.
    pub due_at: String,
    /// The same in the schedule's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// `fired`, `caught_up`, `skipped` or `missed`.
    pub status: String,
    /// The word of the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// What a time change did to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The job that it enqueued, that stood for it, or that it gave way to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// How many instants share the row, when they are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instants: Option<u64>,
    /// The last of them, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_instant: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

impl PastTick {
    fn of(row: TickRow, timing: Option<&Timing>) -> Self {
        let reason = row.reason.as_deref().and_then(TickReason::parse);
        let (instant, due) = (time::parse(&row.instant), time::parse(&row.due_at));
        let is_of_this = timing.is_some_and(|timing| *timing.fingerprint == *row.fingerprint);
        Self {
            local: timing.zip(due).map(|(timing, due)| local(timing.zone, due)),
            note: timing.filter(|_| is_of_this).zip(instant).and_then(|(timing, instant)| timing.note(instant)),
            why: reason.map(TickReason::sentence),
            instants: (row.instants > 1).then_some(row.instants),
            instant: row.instant,
            due_at: row.due_at,
            status: row.status,
            reason: row.reason,
            job_id: row.job_id,
            last_instant: row.last_instant,
            ended_at: row.ended_at,
        }
    }
}

/// A tick that is to come.
#[derive(Debug, Clone, Serialize)]
pub struct NextTick {
    /// The nominal instant, RFC 3339.
    pub instant: String,
    /// When it is due, RFC 3339.
    pub due_at: String,
    /// The same in the schedule's zone.
    pub local: String,
    /// What it will do when nothing else changes: `fire`, `skip` or `wait`.
    pub outlook: &'static str,
    /// Why it will not simply fire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// What a time change does to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// True when the ledger has a row for it already.
    pub is_recorded: bool,
}

/// The breaker that a schedule asks.
#[derive(Debug, Serialize)]
pub struct BreakerView {
    /// Plugin or alias.
    pub plugin: String,
    /// Command.
    pub command: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures in a row.
    pub failure_count: u64,
    /// So many open it.
    pub threshold: u32,
    /// When it opened last, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<String>,
    /// While it is open: when the next tick may try again, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// When a job failed last, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at: Option<String>,
    /// The job that was counted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_job_id: Option<String>,
    /// When its row was written last, RFC 3339; absent while no job was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

impl BreakerView {
    fn of(row: BreakerRow, policy: BreakerPolicy) -> Self {
        let opened = row.opened_at.as_deref().and_then(time::parse);
        let retry = opened.zip(chrono::TimeDelta::from_std(policy.reset_after).ok());
        let retry_at =
            retry.filter(|_| row.state == Circuit::Open.as_str()).and_then(|(at, d)| at.checked_add_signed(d));
        Self {
            plugin: row.plugin,
            command: row.command,
            state: row.state,
            failure_count: row.failure_count,
            threshold: policy.threshold,
            opened_at: row.opened_at,
            retry_at: retry_at.map(time::format),
            last_failure_at: row.last_failure_at,
            last_job_id: row.last_job_id,
            updated_at: Some(row.updated_at),
        }
    }

    /// One that has counted nothing.
    fn unused(plugin: &str, command: &str, policy: BreakerPolicy) -> Self {
        Self {
            plugin: plugin.to_owned(),
            command: command.to_owned(),
            state: Circuit::Closed.as_str().to_owned(),
            failure_count: 0,
            threshold: policy.threshold,
            opened_at: None,
            retry_at: None,
            last_failure_at: None,
            last_job_id: None,
            updated_at: None,
        }
    }
}

/// Everything about one schedule that says when it ran, when it did not and why, and when it will.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// As in the list.
    #[serde(flatten)]
    pub schedule: ScheduleView,
    /// The shortest answer.
    pub verdict: String,
    /// By which all this was said, RFC 3339.
    pub now: String,
    /// Local times of day outside of which it does not fire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_between: Option<String>,
    /// Days of the week on which it does not fire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_on: Option<String>,
    /// Width of the interval around the instant from which the due time is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// What becomes of ticks that passed while the gateway was down; of `every` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<&'static str>,
    /// What becomes of a tick while a scheduled job of the same plugin and command is queued or running.
    pub if_running: &'static str,
    /// Most polls that may be queued or running for it to fire; of `poll` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_outstanding_polls: Option<u32>,
    /// The breaker that it asks.
    pub breaker: BreakerView,
    /// The last ticks, the newest first.
    pub past: Vec<PastTick>,
    /// The next ticks in order.
    pub next: Vec<NextTick>,
    /// The next tick that fires, where the next will be skipped and it isn't paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_fire: Option<NextTick>,
}

/// Explains a schedule of a generation.
///
/// # Errors
/// When a read failed.
pub async fn explain(
    readers: &Readers,
    generation: &Generation,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<Explanation, Error> {
    let (plugin, id, command) = (&*schedule.plugin, &*schedule.id, &*schedule.command);
    let settings = generation.config.plugins.get(plugin);
    let policy = policy(generation, plugin);
    let entry = readers.entry(plugin, id).await?;
    let filter = TickFilter {
        plugin: Some(plugin.to_owned()),
        schedule: Some(id.to_owned()),
        limit: LOOKED_AT,
        ..TickFilter::default()
    };
    let (expected, ended): (Vec<_>, Vec<_>) =
        readers.ticks(&filter).await?.into_iter().partition(|row| row.ended_at.is_none());
    let waits: BTreeMap<Timestamp, TickReason> = expected
        .iter()
        .filter_map(|row| Some((time::parse(&row.instant)?, TickReason::parse(row.reason.as_deref()?)?)))
        .collect();
    let row = readers.breakers(Some(plugin)).await?.into_iter().find(|row| row.command == command);
    let breaker = row.map_or_else(|| BreakerView::unused(plugin, command, policy), |row| BreakerView::of(row, policy));
    let timing = schedule.timing.as_ref().ok();
    let view = ScheduleView::of(schedule, entry.as_ref());
    let outlook = Outlook {
        status: standing(schedule, entry.as_ref()).0,
        closed_until: breaker.retry_at.as_deref().and_then(time::parse),
        waits,
        now,
    };
    let next = timing.map(|timing| outlook.next(timing, entry.as_ref())).unwrap_or_default();
    let next_fire = timing.and_then(|timing| outlook.next_fire(timing, entry.as_ref(), &next));
    let past: Vec<_> = ended.into_iter().take(TOLD).map(|row| PastTick::of(row, timing)).collect();
    Ok(Explanation {
        verdict: verdict(&view, past.first(), next.first(), next_fire.as_ref()),
        now: time::format(now),
        only_between: timing.and_then(|timing| timing.window).map(|window| window.to_string()),
        not_on: timing.filter(|timing| !timing.not_on.is_empty()).map(|timing| timing.not_on.to_string()),
        jitter: timing.filter(|timing| !timing.jitter.is_zero()).map(|timing| Span(timing.jitter).to_string()),
        catch_up: timing.filter(|t| matches!(t.rule, Rule::Every(_))).map(|_| schedule.catch_up.as_str()),
        if_running: schedule.if_running.as_str(),
        max_outstanding_polls: settings.filter(|_| command == "poll").map(|settings| settings.max_outstanding_polls),
        breaker,
        past,
        next,
        next_fire,
        schedule: view,
    })
}

/// What is known ahead about ticks.
struct Outlook {
    status: EntryStatus,
    /// The breaker lets nothing pass before.
    closed_until: Option<Timestamp>,
    /// What recorded ticks wait for.
    waits: BTreeMap<Timestamp, TickReason>,
    now: Timestamp,
}

impl Outlook {
    /// The recorded ticks, and those that the rule yields behind them.
    fn next(&self, timing: &Timing, entry: Option<&Entry>) -> Vec<NextTick> {
        if matches!(self.status, EntryStatus::PausedInvalid | EntryStatus::Exhausted) {
            return Vec::new();
        }
        let entry = of_timing(entry, timing);
        let recorded = entry.map(|entry| entry.expected.as_slice()).unwrap_or_default();
        let mut next: Vec<NextTick> = recorded.iter().map(|tick| self.tick(timing, *tick, true)).collect();
        let is_once = matches!(timing.rule, Rule::At(_) | Rule::After(_));
        let anchor = entry.and_then(|entry| entry.anchor).unwrap_or(self.now);
        let after = recorded.last().map_or(self.now, |last| last.instant.max(self.now));
        if !(is_once && entry.is_some()) {
            let more = TOLD.saturating_sub(next.len().min(TOLD));
            let behind = timing.upcoming(anchor, after, more);
            next.extend(behind.into_iter().map(|tick| self.tick(timing, tick.expected, false)));
        }
        next.truncate(TOLD);
        next
    }

    /// The first of `next` that fires, or the first behind them.
    fn next_fire(&self, timing: &Timing, entry: Option<&Entry>, next: &[NextTick]) -> Option<NextTick> {
        let is_asked = next.first().is_some_and(|first| first.outlook == "skip") && self.status == EntryStatus::Active;
        if !is_asked {
            return None;
        }
        if let Some(found) = next.iter().find(|tick| tick.outlook == "fire") {
            return Some(found.clone());
        }
        let anchor = of_timing(entry, timing).and_then(|entry| entry.anchor).unwrap_or(self.now);
        let last = next.last().and_then(|tick| time::parse(&tick.instant))?;
        let after = self.closed_until.map_or(last, |until| last.max(until));
        timing.next_open(anchor, after).map(|tick| self.tick(timing, tick, false))
    }

    fn tick(&self, timing: &Timing, tick: Expected, is_recorded: bool) -> NextTick {
        let is_once = matches!(timing.rule, Rule::At(_) | Rule::After(_));
        let is_paused = self.status == EntryStatus::PausedManual;
        let is_broken = self.closed_until.is_some_and(|until| tick.due < until);
        let (outlook, reason) = match (self.waits.get(&tick.instant).copied(), timing.closed(tick.due)) {
            (Some(reason), _) if is_recorded && tick.due <= self.now => ("wait", Some(reason)),
            _ if is_paused => (if is_once { "wait" } else { "skip" }, Some(TickReason::Paused)),
            (_, Some(reason)) => (if is_once { "wait" } else { "skip" }, Some(reason)),
            _ if is_broken => (if is_once { "wait" } else { "skip" }, Some(TickReason::BreakerOpen)),
            _ => ("fire", None),
        };
        NextTick {
            instant: time::format(tick.instant),
            due_at: time::format(tick.due),
            local: local(timing.zone, tick.due),
            outlook,
            reason: reason.map(TickReason::as_str),
            why: reason.map(TickReason::sentence),
            note: timing.note(tick.instant),
            is_recorded,
        }
    }
}

/// Rows of another timing are about to be replaced.
fn of_timing<'a>(entry: Option<&'a Entry>, timing: &Timing) -> Option<&'a Entry> {
    entry.filter(|entry| entry.fingerprint.as_deref() == Some(&*timing.fingerprint))
}

fn local(zone: Tz, at: Timestamp) -> String {
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Millis, false)
}

/// What an operator who asks why it did not run wants to read first.
fn verdict(
    view: &ScheduleView,
    last: Option<&PastTick>,
    next: Option<&NextTick>,
    next_fire: Option<&NextTick>,
) -> String {
    let (plugin, id) = (&view.plugin, &view.schedule_id);
    let why = view.reason.as_deref().unwrap_or("no reason is recorded");
    let next = match next {
        Some(next) if next.outlook == "fire" => format!("the next tick is due at {}", next.local),
        Some(next) => {
            let will = if next.outlook == "skip" { "will be skipped" } else { "waits" };
            let until = match next_fire {
                Some(fires) => format!("; the next one that fires is due at {}", fires.local),
                None if next.outlook == "skip" && view.status == "active" => "; none that fires was found".to_owned(),
                None => String::new(),
            };
            format!("the next tick, due at {}, {will}: {}{until}", next.local, next.why.unwrap_or_default())
        }
        None => "no tick is to come".to_owned(),
    };
    let last = last.map(|tick| {
        let what = match &*tick.status {
            "fired" => "fired",
            "caught_up" => "was caught up",
            "skipped" => "was skipped",
            _ => "was missed",
        };
        let at = tick.local.as_deref().unwrap_or(&tick.due_at);
        let why = tick.why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("the last tick, due at {at}, {what}{why}")
    });
    match (view.status, last) {
        ("paused_invalid", _) => format!("it can't be read as a schedule and never fires: {why}"),
        ("paused_manual", _) => {
            format!("an operator has paused it; `ductile schedule resume {plugin} {id}` ends that; {next}")
        }
        ("exhausted", last) => {
            let why = view.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            // it may have been skipped, because its plugin was gone
            let last = last.map(|last| format!("; {last}")).unwrap_or_default();
            format!("it fires once, and will not again{why}{last}")
        }
        (_, None) => format!("it has had no tick yet; {next}"),
        (_, Some(last)) => format!("{last}; {next}"),
    }
}

/// Breakers and what they did last.
#[derive(Debug, Serialize)]
pub struct Breakers {
    /// By plugin and command.
    pub breakers: Vec<BreakerView>,
    /// What they did, the newest first.
    pub transitions: Vec<BreakerTransitionRow>,
}

/// The breakers that have counted jobs, and those of the generation's schedules; of one plugin, or all. One whose plugin is
/// not in force holds up nothing and is left out, as in the count of health; what it did is not.
///
/// # Errors
/// When a read failed.
pub async fn breakers(
    readers: &Readers,
    generation: &Generation,
    plugin: Option<&str>,
    limit: u32,
) -> Result<Breakers, Error> {
    let schedules = generation.schedules.iter();
    let asked = schedules.filter(|schedule| plugin.is_none_or(|plugin| *schedule.plugin == *plugin));
    let unused = asked.map(|s| BreakerView::unused(&s.plugin, &s.command, policy(generation, &s.plugin)));
    let rows = readers.breakers(plugin).await?.into_iter().filter(|row| generation.config.wants(&row.plugin));
    let counted = rows.map(|row| {
        let policy = policy(generation, &row.plugin);
        BreakerView::of(row, policy)
    });
    // Of two of one command the one that has counted.
    let all = unused.chain(counted).map(|breaker| ((breaker.plugin.clone(), breaker.command.clone()), breaker));
    let breakers = all.collect::<BTreeMap<_, _>>().into_values().collect();
    Ok(Breakers { breakers, transitions: readers.breaker_transitions(plugin, limit).await? })
}

/// The breakers of plugins in force that are not closed.
///
/// # Errors
/// When the read failed.
pub async fn open_breakers(readers: &Readers, generation: &Generation) -> Result<Vec<BreakerView>, Error> {
    let is_shown = |row: &BreakerRow| row.state != Circuit::Closed.as_str() && generation.config.wants(&row.plugin);
    let rows = readers.breakers(None).await?.into_iter().filter(is_shown);
    let view = |row: BreakerRow| {
        let policy = policy(generation, &row.plugin);
        BreakerView::of(row, policy)
    };
    Ok(rows.map(view).collect())
}

fn policy(generation: &Generation, plugin: &str) -> BreakerPolicy {
    generation.config.plugins.get(plugin).map(|settings| settings.circuit_breaker).unwrap_or_default()
}
