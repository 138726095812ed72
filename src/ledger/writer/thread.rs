//! The thread that owns the connection: gathers what waits, commits it, answers.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ductile_domain::ids::JobId;
use fail::fail_point;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::store::Store;
use super::transaction::{Answer, Done};
use super::{Errand, Op, Spawn, Wish};
use crate::feed::CommitFeed;
use crate::ops::Verdict;

/// How long the end of a short attempt waits for the ends of other young ones.
const COMPANY: Duration = Duration::from_micros(600);

/// An attempt that has run for longer is not short, and not expected to end at any moment.
const YOUNG: Duration = Duration::from_millis(5);

/// Attempts that may still run when the others' ends are committed: what they do meanwhile costs nobody a wait.
const SPARE: usize = 2;

/// How long a recorded spawn waits for a batch to ride along with.
const SPAWN_DELAY: Duration = Duration::from_millis(20);

/// The writer's own state.
pub(super) struct Thread {
    store: Store,
    feed: CommitFeed,
    mailbox: Receiver<Wish>,
    /// Spawns that wait for a batch, and until when.
    spawns: Vec<Spawn>,
    spawns_due: Option<Instant>,
    /// Attempts that run, and since when: who may be waited for, and whether a slot is free. Rows decide all else.
    in_flight: HashMap<JobId, Instant>,
    /// Claims that wait for the end of an attempt.
    standing: Vec<Op>,
}

/// A panic of whoever asked costs the answer, not the writer.
fn give(op: Op, answer: Answer) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| answer.give(op))).is_err() {
        tracing::error!(component = "ledger", "an answer could not be given: its receiver panicked");
    }
}

impl Thread {
    pub(super) fn new(store: Store, feed: CommitFeed, mailbox: Receiver<Wish>) -> Result<Self, rusqlite::Error> {
        let now = Instant::now();
        let in_flight = store.running()?.into_iter().map(|job| (job, now)).collect();
        Ok(Self { store, feed, mailbox, spawns: Vec::new(), spawns_due: None, in_flight, standing: Vec::new() })
    }

    /// Lives until it is closed or the last handle is gone. What was accepted before is done; what comes later is told
    /// that the writer is closed.
    pub(super) fn run(mut self) {
        let closing = loop {
            let wish = match self.spawns_due {
                None => self.mailbox.recv().map_err(RecvTimeoutError::from),
                Some(due) => self.mailbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let closing = match wish {
                Ok(Wish::Spawn(spawn)) => {
                    self.note(spawn);
                    None
                }
                Ok(wish) => self.work(Some(wish)),
                Err(RecvTimeoutError::Timeout) => self.work(None),
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit(Batch::default());
                    break None;
                }
            };
            if closing.is_some() {
                break closing;
            }
        };
        drop(self.mailbox);
        if let Err(error) = self.store.close() {
            tracing::warn!(component = "ledger", %error, "failed to close the ledger cleanly");
        }
        if let Some(reply) = closing {
            let _: Result<(), ()> = oneshot::Sender::send(reply, ());
        }
    }

    fn note(&mut self, spawn: Spawn) {
        self.spawns.push(spawn);
        self.spawns_due.get_or_insert_with(|| Instant::now() + SPAWN_DELAY);
    }

    /// Does `first` and everything that waits behind it, in as few transactions as their conflicts allow. Answers whom
    /// to tell of the end, if the writer is to be closed.
    fn work(&mut self, first: Option<Wish>) -> Option<oneshot::Sender<()>> {
        let mut next = first;
        loop {
            let mut batch = Batch::default();
            let mut left = None;
            while let Some(wish) = next.take().or_else(|| self.mailbox.try_recv().ok()) {
                left = self.gather(wish, &mut batch);
                if left.is_some() {
                    break;
                }
            }
            if left.is_none() {
                left = self.await_company(&mut batch);
            }
            self.commit(batch);
            match left {
                None => return None,
                op @ Some(Wish::Op(_) | Wish::Spawn(_)) => next = op,
                Some(Wish::Errand(errand)) => self.run_errand(errand),
                // what was asked before the order is under it
                Some(Wish::WithdrawClaims) => self.standing.drain(..).for_each(Op::withdraw),
                Some(Wish::Flush(reply)) => drop(reply.send(())),
                Some(Wish::Close(reply)) => return Some(reply),
            }
        }
    }

    /// Takes a wish into the batch, or hands back what must come after it.
    fn gather(&mut self, wish: Wish, batch: &mut Batch) -> Option<Wish> {
        match wish {
            // a claim waits while no slot is free
            Wish::Op(Op::StandingClaim(request, then)) if self.in_flight.len() >= request.max_running as usize => {
                self.standing.push(Op::StandingClaim(request, then));
                None
            }
            Wish::Op(op) => batch.admit(op).map(Wish::Op),
            Wish::Spawn(spawn) => {
                self.note(spawn);
                None
            }
            wish => Some(wish),
        }
    }

    /// While other young attempts run, the end of a short one waits a little for more of its kind: a commit costs nearly
    /// nearly the same for one as for two, and the processors are busy meanwhile. Longer ones come one by one, and their
    /// slots are worth more. Never when idle, and never with an answer that leaves the gateway. What could not be
    /// admitted is handed back.
    fn await_company(&mut self, batch: &mut Batch) -> Option<Wish> {
        let is_young = |since: &Instant| since.elapsed() < YOUNG;
        let is_short = batch.ended().any(|job| self.in_flight.get(&job).is_some_and(is_young));
        if !is_short {
            return None;
        }
        let expected = self.in_flight.values().filter(|since| is_young(since)).count().saturating_sub(SPARE);
        let until = Instant::now() + COMPANY;
        while !batch.is_awaited() && batch.ends() < expected {
            let wish = self.mailbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            if let Some(left) = self.gather(wish, batch) {
                return Some(left);
            }
        }
        None
    }

    /// Claims that waited for an end share the transaction of this one.
    fn admit_standing(&mut self, batch: &mut Batch) {
        if batch.ends() == 0 {
            return;
        }
        for op in std::mem::take(&mut self.standing) {
            self.standing.extend(batch.admit(op));
        }
    }

    /// Commits a batch with the spawns that wait, and answers it; when it fails as a whole, each operation gets its own
    /// try.
    fn commit(&mut self, mut batch: Batch) {
        self.spawns_due = None;
        let mut spawns = std::mem::take(&mut self.spawns);
        if batch.ops.is_empty() && spawns.is_empty() {
            return;
        }
        self.admit_standing(&mut batch);
        let is_awaited = batch.is_awaited();
        let ops = self.store.sort_out(batch.ops);
        spawns.retain(|s| !ops.iter().any(|op| matches!(op, Op::Finish(f, _) if f.fence == s.fence)));
        let error = match self.store.commit(&ops, &spawns, is_awaited) {
            Ok(done) => return self.answer(done, ops),
            Err(error) => error,
        };
        if error.is_of_the_file() || ops.len() < 2 {
            ops.into_iter().for_each(|op| op.refuse(error.clone()));
            return;
        }
        tracing::warn!(component = "ledger", %error, operations = ops.len(), "a batch failed, trying its operations alone");
        for op in ops {
            match self.store.commit(std::slice::from_ref(&op), &[], is_awaited) {
                Ok(done) => self.answer(done, vec![op]),
                Err(error) => op.refuse(error),
            }
        }
    }

    fn answer(&mut self, done: Done, ops: Vec<Op>) {
        for (op, answer) in ops.iter().zip(&done.answers) {
            if let (Some(job), Answer::Finished(Ok(finished))) = (op.ends(), answer)
                && finished.verdict == Verdict::Applied
            {
                self.in_flight.remove(&job);
            }
        }
        let now = Instant::now();
        self.in_flight.extend(done.began().map(|job| (job, now)));
        fail_point!("ledger_before_answer");
        let answered: Vec<_> = ops.into_iter().zip(done.answers).collect();
        // whoever got a slot goes first: a process waits for it
        let (claims, others): (Vec<_>, Vec<_>) =
            answered.into_iter().partition(|(_, answer)| matches!(answer, Answer::Claims(_)));
        claims.into_iter().for_each(|(op, answer)| give(op, answer));
        self.feed.push(done.ready);
        others.into_iter().for_each(|(op, answer)| give(op, answer));
    }

    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Orphans(reply) => drop(reply.send(self.store.orphans())),
            Errand::Recover(reply) => {
                let recovered = self.store.recover();
                if let Ok((recovered, ready)) = &recovered {
                    for orphan in recovered {
                        self.in_flight.remove(&orphan.orphan.fence.job);
                    }
                    self.feed.push(ready.clone());
                }
                let _ = reply.send(recovered.map(|(recovered, _)| recovered));
            }
            Errand::Snapshot(snapshot, reply) => drop(reply.send(self.store.record_snapshot(*snapshot))),
            Errand::Prune(prune, reply) => drop(reply.send(self.store.prune(&prune))),
            Errand::Checkpoint(reply) => drop(reply.send(self.store.checkpoint())),
            Errand::Mark { name, value, reply } => drop(reply.send(self.store.mark(name, value))),
        }
    }
}
