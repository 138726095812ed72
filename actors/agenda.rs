//! What the scheduler expects, in memory: a copy of rows, ordered by when something is to be done about them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use ductile_domain::schedule::{Expected, Schedule, TickReason, Timing};
use ductile_domain::time::Timestamp;

/// Plugin and schedule.
pub(crate) type Name = (Arc<str>, Arc<str>);

/// A schedule of which ticks are expected.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) schedule: Arc<Schedule>,
    /// Of the schedule.
    pub(crate) timing: Arc<Timing>,
    /// Where the grid of an interval begins.
    pub(crate) anchor: Timestamp,
    /// In order; the last is the forward one.
    pub(crate) expected: Vec<Expected>,
    /// Instant of one before it that fires late and makes good for nothing.
    pub(crate) late: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    at: Timestamp,
    name: Name,
    instant: Timestamp,
}

/// All watched schedules, and when to look at which.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    watched: HashMap<Name, Watched>,
    /// May name ticks that have ended meanwhile.
    alarms: BinaryHeap<Reverse<Alarm>>,
    /// What ticks wait for, by plugin.
    waiting: HashMap<Arc<str>, HashMap<Name, TickReason>>,
}

impl Agenda {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.watched.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.values().map(HashMap::len).sum()
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Watched> {
        self.watched.get(name)
    }

    pub(crate) fn put(&mut self, name: Name, watched: Watched) {
        self.forget(&name);
        for expected in [watched.expected.first(), watched.expected.last()].into_iter().flatten() {
            self.alarm(expected.due, &name, expected.instant);
        }
        self.watched.insert(name, watched);
    }

    /// Nothing is expected of it.
    pub(crate) fn forget(&mut self, name: &Name) {
        self.watched.remove(name);
        self.waits_no_more(name);
    }

    /// When to look next.
    pub(crate) fn next(&mut self) -> Option<Timestamp> {
        while let Some(Reverse(alarm)) = self.alarms.peek() {
            if self.find(alarm).is_some() {
                return Some(alarm.at);
            }
            self.alarms.pop();
        }
        None
    }

    /// What is to be looked at by now, at most so many, each once. It gets no alarm again unless somebody sets one.
    pub(crate) fn take_due(&mut self, now: Timestamp, most: usize) -> Vec<(Name, Expected)> {
        let (mut taken, mut seen) = (Vec::new(), HashSet::new());
        while taken.len() < most
            && let Some(Reverse(alarm)) = self.alarms.peek()
            && alarm.at <= now
        {
            let Some(Reverse(alarm)) = self.alarms.pop() else { break };
            if let Some(expected) = self.find(&alarm)
                && seen.insert((alarm.name.clone(), alarm.instant))
            {
                taken.push((alarm.name, expected));
            }
        }
        taken
    }

    /// To be looked at then.
    pub(crate) fn alarm(&mut self, at: Timestamp, name: &Name, instant: Timestamp) {
        self.alarms.push(Reverse(Alarm { at, name: name.clone(), instant }));
    }

    /// A tick ended, and `next` is expected after it.
    pub(crate) fn ended(&mut self, name: &Name, instant: Timestamp, next: Option<Expected>) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        let was_first = watched.expected.first().is_some_and(|first| first.instant == instant);
        watched.expected.retain(|expected| expected.instant != instant);
        watched.expected.extend(next);
        let first = watched.expected.first().copied();
        let Some(first) = first else { return self.forget(name) };
        if was_first {
            self.waits_no_more(name);
            self.alarm(first.due, name, first.instant);
        }
        if let Some(next) = next.filter(|next| *next != first || !was_first) {
            self.alarm(next.due, name, next.instant);
        }
    }

    /// A tick waits for ends of jobs, and is looked at again by then. Answers whether it is new that it waits for that.
    pub(crate) fn waits(&mut self, name: &Name, instant: Timestamp, reason: TickReason, at: Timestamp) -> bool {
        self.alarm(at, name, instant);
        self.waiting.entry(name.0.clone()).or_default().insert(name.clone(), reason) != Some(reason)
    }

    /// A job of these plugins ended: what waited for it is looked at now.
    pub(crate) fn jobs_ended(&mut self, plugins: &HashSet<Arc<str>>, now: Timestamp) {
        for plugin in plugins {
            let names: Vec<Name> =
                self.waiting.get(plugin).into_iter().flat_map(|names| names.keys().cloned()).collect();
            for name in names {
                let first = self.watched.get(&name).and_then(|watched| watched.expected.first().copied());
                if let Some(first) = first {
                    self.alarm(now, &name, first.instant);
                }
            }
        }
    }

    fn waits_no_more(&mut self, name: &Name) {
        if let Some(names) = self.waiting.get_mut(&name.0) {
            names.remove(name);
            if names.is_empty() {
                self.waiting.remove(&name.0);
            }
        }
    }

    fn find(&self, alarm: &Alarm) -> Option<Expected> {
        let watched = self.watched.get(&alarm.name)?;
        watched.expected.iter().find(|expected| expected.instant == alarm.instant).copied()
    }
}
