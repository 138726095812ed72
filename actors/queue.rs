//! The queue: an index of what may run, in FIFO order per plugin. The index is a hint, the rows are the truth.
//!
//! Woken by commits (through the feed), by the dispatcher's questions, by due retries and by a slow poll. It never
//! claims: the ledger decides in the transaction of the claim.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_domain::job::Candidate;
use ductile_domain::time::Timestamp;
use ductile_ledger::{Drained, Refusal};
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo, Timer};
use serde_json::{Value, json};

use crate::dispatcher;
use crate::shared::{SLOW_POLL, Shared};

/// Candidates kept in memory per plugin; the rest stays in the table until the line runs short.
const LINE_CAP: usize = 1024;
/// Retries kept in memory with their times.
const DUE_CAP: usize = 8192;
/// Below this a line that is not complete is read on.
const LINE_LOW: usize = 128;

/// State: one line per plugin, what waits for its time, what is being claimed.
pub(crate) struct Queue {
    shared: Arc<Shared>,
    lines: HashMap<Arc<str>, Line>,
    due: BTreeMap<(Timestamp, i64), Candidate>,
    /// What was handed to the dispatcher and is not settled, and since when: a dispatcher that crashed never settles.
    taken: HashMap<i64, Taken>,
    timer: Option<Timer>,
    poll: Option<Timer>,
}

/// A candidate in the dispatcher's hands.
struct Taken {
    since: Instant,
    candidate: Candidate,
    /// It became ready again before it was settled.
    announced: Option<Candidate>,
}

/// The candidates of one plugin.
#[derive(Default)]
struct Line {
    ready: BTreeMap<i64, Candidate>,
    /// Refused for a running twin; back in line when a job of the plugin ends.
    parked: BTreeMap<i64, Candidate>,
    /// The table may hold queued rows behind `read_to`.
    more: bool,
    /// Last row that was read from the table, or that a full line let go.
    read_to: i64,
}

impl Line {
    /// Takes a candidate, unless the table will yield it later anyway.
    fn put(&mut self, candidate: Candidate) {
        if self.more && candidate.row > self.read_to {
            return;
        }
        self.ready.insert(candidate.row, candidate);
        if self.ready.len() > LINE_CAP {
            self.ready.pop_last();
            self.more = true;
            self.read_to = self.ready.last_key_value().map_or(0, |(row, _)| *row);
        }
    }
}

/// How many more jobs of a plugin may run, and its cap.
pub(crate) type Room = Box<dyn Fn(&str) -> (usize, u32) + Send + Sync>;

pub(crate) enum Msg {
    /// Something was committed: look into the feed.
    ReadyChanged,
    /// Hand out at most `free` candidates; `room` says how many more each plugin may run, `cap` its cap.
    Take { free: usize, room: Room, reply: Reply<Vec<(Candidate, u32)>> },
    /// A claim was settled: these rows were handed out, and of them these come back.
    Settled { taken: Vec<i64>, back: Vec<(Candidate, Refusal)> },
    /// The dispatcher is new: what its predecessor took and did not settle is in line again.
    Abandoned,
    /// A job of this plugin ended: what was parked may be tried again.
    Freed(Arc<str>),
    /// A retry may have become due.
    Due,
    /// Behind every wake-up.
    Poll,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::ReadyChanged => "ReadyChanged",
            Self::Take { .. } => "Take",
            Self::Settled { .. } => "Settled",
            Self::Abandoned => "Abandoned",
            Self::Freed(_) => "Freed",
            Self::Due => "Due",
            Self::Poll => "Poll",
        }
    }
}

impl Server for Queue {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared, lines: HashMap::new(), due: BTreeMap::new(), taken: HashMap::new(), timer: None, poll: None })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.poll(cx).await;
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::ReadyChanged => self.absorb_feed(cx).await,
            Msg::Take { free, room, reply } => self.take(free, &room, reply).await,
            Msg::Settled { taken, back } => self.settle(cx, &taken, back),
            Msg::Abandoned => self.take_back(Duration::ZERO),
            Msg::Freed(plugin) => self.unpark(&plugin),
            Msg::Due => self.release_due(cx),
            Msg::Poll => self.poll(cx).await,
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|(plugin, l)| json!({ "plugin": &**plugin, "ready": l.ready.len(), "parked": l.parked.len(), "more": l.more }))
            .collect();
        json!({ "lines": lines, "waiting": self.due.len(), "being_claimed": self.taken.len() })
    }
}

impl Queue {
    async fn absorb_feed(&mut self, cx: &Cx<Self>) {
        let Drained { candidates, overflowed } = self.shared.feed.drain();
        for candidate in candidates {
            match self.taken.get_mut(&candidate.row) {
                Some(taken) => taken.announced = Some(candidate),
                None => self.put(candidate),
            }
        }
        if overflowed {
            self.reload().await;
        }
        self.arm_due(cx);
        self.wake_dispatcher();
    }

    fn put(&mut self, candidate: Candidate) {
        if self.taken.contains_key(&candidate.row) {
            return;
        }
        match candidate.due {
            // Beyond the cap the table is asked when the time has come.
            Some(due) if due > self.shared.clock.now() => {
                if self.due.len() < DUE_CAP {
                    self.due.insert((due, candidate.row), candidate);
                }
            }
            _ => self.line(&candidate.plugin.clone()).put(candidate),
        }
    }

    fn line(&mut self, plugin: &Arc<str>) -> &mut Line {
        self.lines.entry(plugin.clone()).or_default()
    }

    /// FIFO over all plugins that have room: always the smallest row among the heads of the lines.
    async fn take(&mut self, free: usize, room: &Room, reply: Reply<Vec<(Candidate, u32)>>) {
        let mut rooms: HashMap<Arc<str>, (usize, u32)> = HashMap::new();
        let mut heads: BTreeSet<(i64, Arc<str>)> = BTreeSet::new();
        for (plugin, line) in &self.lines {
            if let Some((row, _)) = line.ready.first_key_value() {
                let (left, cap) = room(plugin);
                if left > 0 {
                    rooms.insert(plugin.clone(), (left, cap));
                    heads.insert((*row, plugin.clone()));
                }
            }
        }
        let mut picked = Vec::with_capacity(free);
        while picked.len() < free {
            let Some((row, plugin)) = heads.pop_first() else { break };
            let Some(line) = self.lines.get_mut(&plugin) else { continue };
            let Some(candidate) = line.ready.remove(&row) else { continue };
            let Some((left, cap)) = rooms.get_mut(&plugin) else { continue };
            *left -= 1;
            let taken = Taken { since: Instant::now(), candidate: candidate.clone(), announced: None };
            self.taken.insert(row, taken);
            picked.push((candidate, *cap));
            if *left > 0
                && let Some((next, _)) = line.ready.first_key_value()
            {
                heads.insert((*next, plugin));
            }
        }
        let short: Vec<Arc<str>> = picked
            .iter()
            .map(|(c, _)| &c.plugin)
            .filter(|p| self.lines.get(*p).is_some_and(|l| l.more && l.ready.len() < LINE_LOW))
            .cloned()
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        reply.send(picked);
        for plugin in short {
            self.read_on(&plugin).await;
        }
    }

    fn settle(&mut self, cx: &Cx<Self>, taken: &[i64], back: Vec<(Candidate, Refusal)>) {
        for row in taken {
            if let Some(again) = self.taken.remove(row).and_then(|taken| taken.announced) {
                self.put(again);
            }
        }
        for (candidate, why) in back {
            match why {
                // What waits for its time was announced with it, and is read from the table when the time is near. In the
                // line it would be asked for again at once.
                Refusal::Gone | Refusal::NotDue => {}
                Refusal::GlobalCap | Refusal::PluginCap | Refusal::Withdrawn => self.put(candidate),
                Refusal::TwinRunning => {
                    self.line(&candidate.plugin.clone()).parked.insert(candidate.row, candidate);
                }
            }
        }
        self.arm_due(cx);
    }

    /// Whatever was taken that long ago is in line again: a long line is not read again at its front.
    fn take_back(&mut self, age: Duration) {
        let lost: Vec<_> = self.taken.extract_if(|_, taken| taken.since.elapsed() >= age).collect();
        for (_, taken) in lost {
            self.put(taken.announced.unwrap_or(taken.candidate));
        }
    }

    fn unpark(&mut self, plugin: &Arc<str>) {
        let Some(line) = self.lines.get_mut(plugin) else { return };
        let parked = std::mem::take(&mut line.parked);
        if !parked.is_empty() {
            line.ready.extend(parked);
            self.wake_dispatcher();
        }
    }

    fn release_due(&mut self, cx: &Cx<Self>) {
        let later = self.due.split_off(&(self.shared.clock.now(), i64::MAX));
        for (_, mut candidate) in std::mem::replace(&mut self.due, later) {
            candidate.due = None;
            self.put(candidate);
        }
        self.arm_due(cx);
        self.wake_dispatcher();
    }

    fn arm_due(&mut self, cx: &Cx<Self>) {
        self.timer = self.due.first_key_value().map(|((due, _), _)| {
            let wait = (*due - self.shared.clock.now()).to_std().unwrap_or(Duration::ZERO);
            // A millisecond more: the stored time is cut to milliseconds and must have passed.
            cx.send_after(wait.min(SLOW_POLL) + Duration::from_millis(1), Msg::Due)
        });
    }

    async fn poll(&mut self, cx: &Cx<Self>) {
        self.take_back(SLOW_POLL);
        self.reload().await;
        for line in self.lines.values_mut() {
            let parked = std::mem::take(&mut line.parked);
            line.ready.extend(parked);
        }
        self.arm_due(cx);
        self.poll = Some(cx.send_after(SLOW_POLL, Msg::Poll));
        self.wake_dispatcher();
    }

    /// Reads the head of every plugin's line from the table, and what falls due soon.
    async fn reload(&mut self) {
        let readers = self.shared.readers.clone();
        let soon = self.shared.clock.now() + 2 * SLOW_POLL;
        let read = async {
            Ok::<_, ductile_ledger::Error>((readers.queued_plugins().await?, readers.due(soon, LINE_CAP as u32).await?))
        };
        let (plugins, due) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(component = "queue", %error, "could not read the queue; trying again at the next poll");
                return;
            }
        };
        for candidate in due {
            self.put(candidate);
        }
        let plugins: HashSet<Arc<str>> = plugins.into_iter().map(|p| p.plugin.into()).collect();
        self.lines.retain(|plugin, line| !line.ready.is_empty() || !line.parked.is_empty() || plugins.contains(plugin));
        for plugin in plugins {
            let line = self.line(&plugin);
            // A line that is long enough is only stale at its end, which is read when it runs short.
            if line.ready.len() < LINE_LOW {
                line.read_to = 0;
                self.read_on(&plugin).await;
            } else if !line.more {
                line.more = true;
                line.read_to = line.ready.last_key_value().map_or(0, |(row, _)| *row);
            }
        }
    }

    /// Reads on behind `read_to` until the line is long enough or the table has no more.
    async fn read_on(&mut self, plugin: &Arc<str>) {
        loop {
            let after = self.line(plugin).read_to;
            let limit = LINE_CAP - LINE_LOW;
            let read = match self.shared.readers.candidates(plugin, after, limit as u32).await {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(component = "queue", %plugin, %error, "could not read candidates; trying again at the next poll");
                    self.line(plugin).more = true;
                    return;
                }
            };
            let line = self.line(plugin);
            line.more = read.len() == limit;
            line.read_to = read.last().map_or(after, |c| c.row);
            for candidate in read {
                if !self.line(plugin).parked.contains_key(&candidate.row) {
                    self.put(candidate);
                }
            }
            let line = self.line(plugin);
            if !line.more || line.ready.len() >= LINE_LOW {
                return;
            }
        }
    }

    fn wake_dispatcher(&self) {
        if self.lines.values().any(|l| !l.ready.is_empty()) {
            self.shared.addresses.dispatcher.wake(|| dispatcher::Msg::WorkAvailable);
        }
    }
}
