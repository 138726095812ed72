//! Brings the rows of schedules in line with the generation in force: reads what is there, asks the domain what becomes of
//! it, writes only what differs, and says what was decided.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::TimeDelta;
use ductile_domain::generation::Generation;
use ductile_domain::schedule::{
    EntryStatus, Expected, Known, Moment, Passed, Resumed, Schedule, TickReason, TickStatus, Timing, floor_candidates,
    own_rows, resume,
};
use ductile_domain::time::Timestamp;
use ductile_ledger::{Arrangement, Ended, Entry};

use crate::agenda::{Name, Watched};
use crate::shared::{LEDGER_DEADLINE, Shared};
use crate::{announce, ledger, wall};

/// Rows of ticks that one transaction writes at most, beyond those of one schedule.
const ROWS: usize = 1_000;

/// Instants that one question about ended ticks names.
const ASKED: usize = 200;

/// A schedule that is, one that the rows know, or both.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) schedule: Option<Arc<Schedule>>,
    pub(crate) entry: Option<Entry>,
}

/// All that a generation wants and all that the rows know, in the order of their names.
pub(crate) fn items(generation: &Generation, entries: Vec<Entry>) -> Vec<Item> {
    let mut known: HashMap<Name, Entry> =
        entries.into_iter().map(|entry| ((Arc::from(&*entry.plugin), Arc::from(&*entry.schedule)), entry)).collect();
    let mut items: Vec<Item> = generation
        .scheduled()
        .cloned()
        .map(|schedule| {
            let entry = known.remove(&(schedule.plugin.clone(), schedule.id.clone()));
            Item { schedule: Some(schedule), entry }
        })
        .collect();
    items.extend(known.into_values().map(|entry| Item { schedule: None, entry: Some(entry) }));
    items
}

/// What came of a look.
pub(crate) struct Looked {
    /// What is to be watched of each.
    pub(crate) watched: Vec<(Name, Option<Watched>)>,
    /// Those of which the ledger refused the rows alone, and said why in the log.
    pub(crate) refused: HashSet<Name>,
}

/// Looks at some schedules anew.
///
/// # Errors
/// Why nothing, or only a part, was written; it may be repeated.
pub(crate) async fn look_anew(shared: &Arc<Shared>, items: Vec<Item>) -> Result<Looked, String> {
    let now = wall::look(shared);
    let generation = shared.generation();
    let own_rows = own_rows(generation.scheduled().count());
    let mut moments = Vec::with_capacity(items.len());
    for item in &items {
        let floor = floor(shared, item, now).await?;
        moments.push(Moment {
            now,
            started: shared.wall.started(),
            boot: shared.boot,
            is_start: !shared.hints.is_under_way(),
            jump: shared.wall.jump(),
            floor,
            own_rows,
        });
    }
    let decide = move || items.into_iter().zip(moments).map(|(item, at)| decide(item, &at)).collect::<Vec<_>>();
    // a year of minutes may have passed
    let decided = tokio::task::spawn_blocking(decide).await.map_err(|error| error.to_string())?;
    let refused = write(shared, &decided).await?;
    let written = decided.into_iter().filter(|decided| !refused.contains(&decided.name));
    Ok(Looked { watched: written.map(|decided| (decided.name, decided.watched)).collect(), refused })
}

/// Behind which the next tick is sought: a clock that went back shows times whose ticks have ended.
async fn floor(shared: &Shared, item: &Item, now: Timestamp) -> Result<Timestamp, String> {
    let Item { schedule: Some(schedule), entry: Some(entry) } = item else { return Ok(now) };
    let Ok(timing) = &schedule.timing else { return Ok(now) };
    let known = known(entry);
    let mut floor = now;
    if known.fingerprint != Some(&*timing.fingerprint) {
        return Ok(now);
    }
    loop {
        let candidates = floor_candidates(timing, &known, floor, ASKED);
        let Some(last) = candidates.last().copied() else { return Ok(floor) };
        let asked = shared.readers.ended_ticks(&entry.plugin, &entry.schedule, &timing.fingerprint, &candidates);
        let ended = asked.await.map_err(|error| error.to_string())?;
        match candidates.iter().find(|instant| !ended.contains(instant)) {
            Some(free) => return Ok(*free - TimeDelta::milliseconds(1)),
            None => floor = last,
        }
    }
}

fn known(entry: &Entry) -> Known<'_> {
    Known {
        status: entry.status,
        reason: entry.reason.as_deref(),
        fingerprint: entry.fingerprint.as_deref(),
        anchor: entry.anchor,
        armed_by: entry.armed_by,
        last_instant: entry.last_instant,
        expected: &entry.expected,
    }
}

/// What becomes of one schedule.
struct Decided {
    name: Name,
    /// What differs from the rows.
    arrangement: Option<Arrangement>,
    /// Ticks that it ends without saying so one by one.
    taken_back: Vec<Expected>,
    passed: Vec<Passed>,
    /// Said to the operator.
    surprise: Option<String>,
    watched: Option<Watched>,
}

fn decide(Item { schedule, entry }: Item, at: &Moment) -> Decided {
    let Some(schedule) = schedule else { return removed(entry) };
    let name = (schedule.plugin.clone(), schedule.id.clone());
    let resumed = resume(&schedule, entry.as_ref().map(known), at);
    let expected = entry.as_ref().map_or(&[][..], |entry| &entry.expected);
    let is_named = |instant| {
        resumed.expect.iter().any(|e| e.instant == instant) || resumed.ended.iter().any(|e| e.instant == instant)
    };
    let timing = schedule.timing.as_ref().ok();
    let fingerprint = timing.map(|timing| timing.fingerprint.clone());
    let is_changed = entry.as_ref().is_some_and(|entry| entry.fingerprint.as_deref() != fingerprint.as_deref());
    let taken_back = expected.iter().filter(|e| is_changed || !is_named(e.instant)).copied().collect();
    let kept = entry.as_ref().and_then(|entry| entry.fingerprint.as_deref()).map(Arc::from);
    let arrangement = Arrangement {
        plugin: name.0.clone(),
        schedule: name.1.clone(),
        command: schedule.command.clone(),
        status: resumed.status,
        reason: resumed.reason.clone(),
        // what can't be read keeps the timing that it had
        fingerprint: fingerprint.or(kept),
        anchor: resumed.anchor,
        armed_by: resumed.armed_by,
        others_end: resumed.others_end,
        ended: resumed.ended.iter().map(ended).collect(),
        expect: resumed.expect.clone(),
        is_removed: false,
    };
    let watched = timing.and_then(|timing| watch(&schedule, timing, &resumed, expected, at));
    Decided {
        surprise: resumed.is_surprising.then(|| resumed.reason.clone()).flatten(),
        passed: resumed.ended,
        arrangement: Some(arrangement).filter(|a| !entry.as_ref().is_some_and(|entry| says(entry, a))),
        taken_back,
        watched,
        name,
    }
}

fn removed(entry: Option<Entry>) -> Decided {
    let entry = entry.expect("an item has a schedule, an entry, or both");
    let name: Name = (entry.plugin.into(), entry.schedule.into());
    let arrangement = Arrangement {
        plugin: name.0.clone(),
        schedule: name.1.clone(),
        command: entry.command.into(),
        status: entry.status,
        reason: None,
        fingerprint: None,
        anchor: None,
        armed_by: None,
        others_end: (TickStatus::Skipped, TickReason::Removed),
        ended: Vec::new(),
        expect: Vec::new(),
        is_removed: true,
    };
    Decided {
        name,
        arrangement: Some(arrangement),
        taken_back: entry.expected,
        passed: Vec::new(),
        surprise: None,
        watched: None,
    }
}

fn watch(
    schedule: &Arc<Schedule>,
    timing: &Timing,
    resumed: &Resumed,
    before: &[Expected],
    at: &Moment,
) -> Option<Watched> {
    let forward = resumed.expect.last()?;
    // what was the forward tick and has another behind it now fires late
    let is_late =
        |was: &&Expected| was.instant < forward.instant && was.due >= at.started && resumed.expect.contains(*was);
    let late = before.last().filter(is_late);
    Some(Watched {
        schedule: schedule.clone(),
        timing: Arc::new(timing.clone()),
        anchor: resumed.anchor.unwrap_or(at.now),
        expected: resumed.expect.clone(),
        late: late.map(|was| was.instant),
    })
}

fn ended(passed: &Passed) -> Ended {
    let Passed { instant, due, last, status, reason } = *passed;
    Ended { instant, due, last, status, reason }
}

/// Whether the rows say it already.
fn says(entry: &Entry, to: &Arrangement) -> bool {
    // an operator's pause stands above both
    let is_paused = entry.status == EntryStatus::PausedManual
        && matches!(to.status, EntryStatus::Active | EntryStatus::PausedInvalid);
    (entry.status == to.status || is_paused)
        && entry.command == *to.command
        && entry.reason == to.reason
        && entry.fingerprint.as_deref() == to.fingerprint.as_deref()
        && entry.anchor == to.anchor
        && entry.armed_by == to.armed_by
        && entry.expected == to.expect
        && to.ended.is_empty()
}

/// Writes what differs, in transactions of a bounded size, and says what was written. Answers what was refused alone.
async fn write(shared: &Shared, decided: &[Decided]) -> Result<HashSet<Name>, String> {
    let mut refused = HashSet::new();
    let mut rest: &[Decided] = decided;
    while !rest.is_empty() {
        let mut rows = 0;
        let fits = |decided: &&Decided| {
            let before = rows;
            rows += decided.arrangement.as_ref().map_or(0, |a| a.ended.len() + a.expect.len());
            before == 0 || rows <= ROWS
        };
        let (batch, others) = rest.split_at(rest.iter().take_while(fits).count());
        rest = others;
        let differing: Vec<_> = batch.iter().filter(|decided| decided.arrangement.is_some()).collect();
        let arrangements: Vec<_> = differing.iter().filter_map(|decided| decided.arrangement.clone()).collect();
        if arrangements.is_empty() {
            continue;
        }
        let answer =
            shared.addresses.ledger.call(|reply| ledger::Msg::Arrange(arrangements, reply), LEDGER_DEADLINE).await;
        let answers = answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        for (decided, answer) in differing.into_iter().zip(answers) {
            if let Err(error) = answer {
                let (plugin, schedule_id) = &decided.name;
                tracing::error!(component = "scheduler", %plugin, %schedule_id, %error, "the rows of a schedule could not be written; trying again");
                refused.insert(decided.name.clone());
            } else {
                say(shared, decided);
            }
        }
    }
    Ok(refused)
}

fn say(shared: &Shared, decided: &Decided) {
    let Decided { name: (plugin, schedule), arrangement: Some(arrangement), taken_back, passed, surprise, .. } =
        decided
    else {
        return;
    };
    announce::schedules::taken_back(shared, plugin, schedule, taken_back, arrangement.others_end);
    announce::schedules::passed(shared, plugin, schedule, passed);
    if let Some(reason) = surprise {
        tracing::warn!(component = "scheduler", %plugin, schedule_id = %schedule, reason, "it will not fire");
    }
}
