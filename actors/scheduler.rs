//! The scheduler: has each tick ended when it is due, by a job or with the reason why there is none.
//!
//! Woken by the next due time, at least each `service.tick_interval`, by jumps of the clock, by reloads, by pauses, and by
//! ends of jobs that ticks wait for. It does one thing at a time, beside its handler, and each look decides anew what that
//! is. The rows are the truth: whatever it has begun when it dies, the next incarnation finds done or does again.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::generation::Generation;
use ductile_domain::schedule::TickReason;
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Due, Entry, Ticked};
use ductile_otp::{Cx, Exit, Message, Server, StartInfo, Task, Timer};
use serde_json::{Value, json};

use crate::agenda::{Agenda, Name};
use crate::announce::schedules::Tick;
use crate::firing::{Circumstances, Verdict, verdict};
use crate::resuming::{self, Item, Looked};
use crate::shared::{LEDGER_DEADLINE, SLOW_POLL, Shared};
use crate::{announce, jumps, ledger, wall};

/// Schedules that are looked at anew in one step.
const CHUNK: usize = 200;

/// Ticks of one transaction.
const BATCH: usize = 50;

/// What waits for a job or for space is looked at again after that time at the latest.
const AGAIN: TimeDelta = TimeDelta::seconds(1);

/// The same for what is paused and has one chance only.
const AGAIN_IF_PAUSED: TimeDelta = TimeDelta::seconds(30);

/// Rows that the ledger refused are written again after that time.
const AGAIN_IF_REFUSED: Duration = Duration::from_secs(5);

/// The longest pause after something failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// State: a copy of what the rows expect, and what is under way.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    agenda: Agenda,
    /// Under which the agenda was made, with the count of changes that it has seen; `None` before the first.
    of: Option<(Arc<Generation>, u64)>,
    /// What is still to be looked at anew; `None` when all was.
    round: Option<Round>,
    /// Schedules whose rows are not as they were thought to be.
    doubtful: BTreeSet<Name>,
    /// Those whose rows the ledger refused, and when they become doubtful: nothing else waits for them.
    refused: BTreeSet<Name>,
    refused_until: tokio::time::Instant,
    work: Option<Work>,
    /// Nothing is begun before.
    pause: Option<(tokio::time::Instant, Duration)>,
    /// A batch of ticks was the last thing that was begun.
    has_fired: bool,
    timer: Option<Timer>,
    seen: Timestamp,
    counts: Counts,
    _jumps: Task,
}

/// All schedules, looked at anew from the last to the first.
enum Round {
    /// The rows are to be read.
    Unread,
    Items(Vec<Item>),
}

/// The one thing that is under way.
struct Work {
    result: Arc<Mutex<Option<Done>>>,
    _task: Task,
}

enum Done {
    Read(Result<Vec<Entry>, String>),
    Looked(Result<Looked, String>),
    Found(Vec<Name>, Result<Vec<Item>, String>),
    Ticked(Vec<(Name, Due)>, Result<Vec<Ticked>, String>),
}

#[derive(Default)]
struct Counts {
    fired: u64,
    skipped: u64,
    failed: u64,
}

pub(crate) enum Msg {
    /// Something may be due, or has changed, or the work under way is done.
    Look,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Look => "Look",
        }
    }
}

impl Server for Scheduler {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let me = cx.slot().clone();
        let jumps = cx.spawn(jumps::watch(shared.clock.clone(), move || me.wake(|| Msg::Look)));
        let seen = shared.clock.now();
        Ok(Self {
            shared,
            agenda: Agenda::default(),
            of: None,
            round: None,
            doubtful: BTreeSet::new(),
            refused: BTreeSet::new(),
            refused_until: tokio::time::Instant::now(),
            work: None,
            pause: None,
            has_fired: false,
            timer: None,
            seen,
            counts: Counts::default(),
            _jumps: jumps,
        })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.look(cx);
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Look => self.look(cx),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({
            "schedules": self.agenda.len(), "waiting": self.agenda.waiting(), "doubtful": self.doubtful.len(),
            "refused": self.refused.len(),
            "looked_at": time::format(self.seen), "is_settled": self.is_settled(),
            "ticks": { "fired": self.counts.fired, "skipped": self.counts.skipped, "failed": self.counts.failed },
        })
    }
}

impl Scheduler {
    /// Nothing was to be done at the last look.
    fn is_settled(&self) -> bool {
        self.of.is_some()
            && self.work.is_none()
            && self.round.is_none()
            && self.doubtful.is_empty()
            && self.refused.is_empty()
            && self.pause.is_none()
    }

    fn look(&mut self, cx: &Cx<Self>) {
        let now = wall::look(&self.shared);
        self.seen = now;
        if let Some(work) = &self.work {
            let done = work.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(done) = done else { return self.sleep(cx, SLOW_POLL) };
            self.work = None;
            self.absorb(done, now);
        }
        if self.shared.flags.is_draining() {
            self.timer = None;
            return;
        }
        self.agenda.jobs_ended(&self.shared.hints.ended(), now);
        self.begin_round_if_changed();
        if let Some((until, _)) = self.pause {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if !left.is_zero() {
                return self.sleep(cx, left);
            }
        }
        if !self.begin_something(cx, now) {
            self.pause = None;
            self.sleep_until_due(cx, now);
        }
    }

    /// Another generation is in force, or rows mean something else than they did.
    fn begin_round_if_changed(&mut self) {
        let (generation, changes) = (self.shared.generation(), self.shared.hints.changes());
        let is_same = self.of.as_ref().is_some_and(|(of, seen)| of.no == generation.no && *seen == changes);
        if !is_same {
            self.agenda.clear();
            self.doubtful.clear();
            self.refused.clear();
            self.round = Some(Round::Unread);
            self.of = Some((generation, changes));
        }
    }

    /// What is due goes first, and every other time.
    fn begin_something(&mut self, cx: &Cx<Self>, now: Timestamp) -> bool {
        let goes_first = !self.has_fired;
        self.has_fired = false;
        (goes_first && self.fire(cx, now)) || self.look_anew(cx) || self.fire(cx, now) || self.look_anew(cx)
    }

    /// Has the ledger end what is due.
    fn fire(&mut self, cx: &Cx<Self>, now: Timestamp) -> bool {
        let Some((generation, _)) = self.of.clone() else { return false };
        let due = self.agenda.take_due(now, BATCH);
        if due.is_empty() {
            return false;
        }
        self.shared.space.look_before_intake(&self.shared);
        let is_intake_stopped = self.shared.flags.intake_stopped().is_some();
        let circumstances = Circumstances { generation: &generation, now, is_intake_stopped };
        let mut asked = Vec::with_capacity(due.len());
        for (name, tick) in due {
            let Some(watched) = self.agenda.get(&name) else { continue };
            match verdict(watched, tick, &circumstances) {
                Verdict::Ask(due) => asked.push((name, *due)),
                Verdict::Hold => self.agenda.alarm(now + AGAIN, &name, tick.instant),
                Verdict::LookAnew => {
                    self.doubtful.insert(name);
                }
            }
        }
        if asked.is_empty() {
            return false;
        }
        self.has_fired = true;
        let shared = self.shared.clone();
        self.begin(cx, async move {
            let dues = asked.iter().map(|(_, due)| due.clone()).collect();
            let make = |reply| ledger::Msg::Tick { dues, generation: generation.no, reply };
            let answer = match shared.addresses.ledger.call(make, LEDGER_DEADLINE).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            Done::Ticked(asked, answer)
        });
        true
    }

    /// Brings the next rows in line.
    fn look_anew(&mut self, cx: &Cx<Self>) -> bool {
        let shared = self.shared.clone();
        match &mut self.round {
            Some(Round::Unread) => {
                self.begin(cx, async move {
                    let entries = shared.readers.entries().await;
                    Done::Read(entries.map_err(|error| error.to_string()))
                });
                return true;
            }
            Some(Round::Items(items)) if !items.is_empty() => {
                let chunk = items.split_off(items.len().saturating_sub(CHUNK));
                self.begin(cx, anew(shared, chunk));
                return true;
            }
            Some(Round::Items(_)) => self.round = None,
            None => {}
        }
        if !self.refused.is_empty() && tokio::time::Instant::now() >= self.refused_until {
            self.doubtful.append(&mut self.refused);
        }
        // what was refused is still to be looked at for the first time
        if self.doubtful.is_empty() && self.refused.is_empty() {
            self.shared.hints.set_under_way();
        }
        let Some((generation, _)) = self.of.clone().filter(|_| !self.doubtful.is_empty()) else { return false };
        let names: Vec<Name> = std::mem::take(&mut self.doubtful).into_iter().collect();
        self.begin(cx, async move {
            let mut items = Vec::with_capacity(names.len());
            for name in &names {
                let entry = match shared.readers.entry(&name.0, &name.1).await {
                    Ok(entry) => entry,
                    Err(error) => return Done::Found(names, Err(error.to_string())),
                };
                let schedule = generation.schedule(&name.0, &name.1).cloned();
                if schedule.is_some() || entry.is_some() {
                    items.push(Item { schedule, entry });
                }
            }
            Done::Found(names, Ok(items))
        });
        true
    }

    fn begin(&mut self, cx: &Cx<Self>, work: impl Future<Output = Done> + Send + 'static) {
        let result = Arc::new(Mutex::new(None));
        let (to, me) = (result.clone(), cx.slot().clone());
        let task = cx.spawn(async move {
            let done = work.await;
            *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
            me.wake(|| Msg::Look);
        });
        self.work = Some(Work { result, _task: task });
        self.sleep(cx, SLOW_POLL);
    }

    fn absorb(&mut self, done: Done, now: Timestamp) {
        let failure = match done {
            Done::Read(Ok(entries)) => {
                if let (Some((generation, _)), Some(Round::Unread)) = (&self.of, &self.round) {
                    let mut items = resuming::items(generation, entries);
                    items.reverse();
                    self.round = Some(Round::Items(items));
                }
                None
            }
            Done::Read(Err(error)) => Some(error),
            Done::Looked(Ok(Looked { watched, refused })) => {
                if !refused.is_empty() {
                    self.refused.extend(refused);
                    self.refused_until = tokio::time::Instant::now() + AGAIN_IF_REFUSED;
                }
                for (name, watched) in watched {
                    match watched {
                        Some(watched) => self.agenda.put(name, watched),
                        None => self.agenda.forget(&name),
                    }
                }
                None
            }
            Done::Looked(Err(error)) => {
                // it may be written later all the same: what is decided next must not be older than that
                self.round = Some(Round::Unread);
                Some(error)
            }
            Done::Found(_, Ok(items)) => {
                self.again(items);
                None
            }
            Done::Found(names, Err(error)) => {
                self.doubtful.extend(names);
                Some(error)
            }
            Done::Ticked(asked, Ok(ticked)) => {
                for ((name, due), ticked) in asked.into_iter().zip(ticked) {
                    self.ticked(&name, &due, ticked, now);
                }
                None
            }
            Done::Ticked(asked, Err(error)) => {
                for (name, due) in asked {
                    self.agenda.alarm(due.due, &name, due.instant);
                }
                Some(error)
            }
        };
        match failure {
            None => self.pause = None,
            Some(error) => self.pause_after(&error),
        }
    }

    /// They are looked at with the round that is under way, or with one of their own.
    fn again(&mut self, more: Vec<Item>) {
        match &mut self.round {
            // it looks at all of them
            Some(Round::Unread) => {}
            Some(Round::Items(items)) => items.extend(more),
            None => self.round = Some(Round::Items(more)),
        }
    }

    fn pause_after(&mut self, error: &str) {
        let before = self.pause.map_or(Duration::from_millis(25), |(_, pause)| pause);
        let pause = (before * 2).min(LONGEST_PAUSE);
        self.pause = Some((tokio::time::Instant::now() + pause, pause));
        tracing::warn!(component = "scheduler", error, "could not read or write the rows of schedules; trying again");
    }

    fn ticked(&mut self, name: &Name, due: &Due, ticked: Ticked, now: Timestamp) {
        match ticked {
            Ticked::Fired { .. } => {
                self.counts.fired += 1;
                self.agenda.ended(name, due.instant, due.next);
            }
            Ticked::Skipped { .. } => {
                self.counts.skipped += 1;
                self.agenda.ended(name, due.instant, due.next);
            }
            Ticked::Waits { reason } => {
                // an operator's resumption is told, and found should the word be lost
                let is_paused = reason == TickReason::Paused;
                let again = if is_paused { AGAIN_IF_PAUSED } else { AGAIN };
                let is_new = self.agenda.waits(name, due.instant, reason, now + again);
                if !is_paused {
                    self.shared.hints.wait_for_jobs(true);
                }
                if is_new {
                    announce::schedules::waits(&self.shared, &Tick::of(due), reason);
                }
            }
            Ticked::AlreadyEnded => {
                self.doubtful.insert(name.clone());
            }
            Ticked::Failed(error) => {
                self.counts.failed += 1;
                let (plugin, schedule_id) = name;
                tracing::error!(component = "scheduler", %plugin, %schedule_id, %error, "a tick could not be written; trying again");
                self.agenda.alarm(now + AGAIN, name, due.instant);
            }
        }
        if self.agenda.waiting() == 0 {
            self.shared.hints.wait_for_jobs(false);
        }
    }

    fn sleep_until_due(&mut self, cx: &Cx<Self>, now: Timestamp) {
        let most = self.shared.generation().config.service.tick_interval;
        let most = match self.refused.is_empty() {
            true => most,
            false => {
                let left = self.refused_until.saturating_duration_since(tokio::time::Instant::now());
                most.min(left + Duration::from_millis(1))
            }
        };
        let due = self.agenda.next().map(|at| at.signed_duration_since(now).to_std().unwrap_or(Duration::ZERO));
        // Timers count in milliseconds, and one that rings too early would ring again at once.
        self.sleep(cx, due.map_or(most, |due| (due + Duration::from_millis(1)).min(most)));
    }

    fn sleep(&mut self, cx: &Cx<Self>, time: Duration) {
        self.timer = Some(cx.send_after(time, Msg::Look));
    }
}

/// Looks at a chunk of schedules anew.
async fn anew(shared: Arc<Shared>, items: Vec<Item>) -> Done {
    Done::Looked(resuming::look_anew(&shared, items).await)
}
