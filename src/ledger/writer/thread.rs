//! The thread that owns the connection: gathers what comes, grants slots, commits, answers.
//!
//! A slot that an end frees is granted at once, before the end is written, so that no process waits for a commit; the
//! grant and the end share the next transaction, in this order. What came first waits at most [`COMPANY`] for more,
//! never when nothing else runs, and never with an answer that leaves the gateway.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fail::fail_point;
use tokio::sync::oneshot;

use super::batch::{Batch, Item};
use super::claim::{self, Grant, Slots};
use super::floor::{self, Floor, Inner, Ready};
use super::store::Store;
use super::transaction::{Answer, Done};
use super::{Ask, Claim, Errand, Op, Spawn, Wish};
use crate::error::WriteError;
use crate::feed::CommitFeed;
use crate::ops::{Claims, Refusal, Refused};

/// How long a commit waits for more to share it while attempts run. Nobody waits for it meanwhile but those who look.
const COMPANY: Duration = Duration::from_millis(2);

/// How many attempts are read ahead: more than end within [`COMPANY`].
const READ_AHEAD: usize = 16;

/// How long a recorded spawn waits for a batch to ride along with.
const SPAWN_DELAY: Duration = Duration::from_millis(20);

/// How long after a failure of the file the writer tries again by itself.
const PATIENCE: Duration = Duration::from_millis(200);

/// The writer's own state.
pub(super) struct Thread {
    store: Store,
    feed: CommitFeed,
    mailbox: Receiver<Wish>,
    batch: Batch,
    /// Spawns that wait for a batch, and until when.
    spawns: Vec<Spawn>,
    spawns_due: Option<Instant>,
    floor: floor::Hold,
    /// Something was committed a moment ago, so that more is likely to be taken without a word until then.
    watched: Option<Instant>,
    /// There may be something to be read ahead.
    is_hungry: bool,
    /// Changes when somebody else has written into the file.
    version: i64,
    /// That was looked at since the last commit.
    has_looked: bool,
    /// Claims that wait for a slot, or for the commit of something that they must see.
    claims: Vec<Claim>,
    /// When and why the last commit failed: nothing is granted before one succeeds.
    failed: Option<(Instant, WriteError)>,
}

impl Thread {
    pub(super) fn new(
        store: Store,
        feed: CommitFeed,
        mailbox: Receiver<Wish>,
        floor: Arc<Floor>,
    ) -> Result<Self, rusqlite::Error> {
        let (slots, version) = (Slots::read(&store.conn)?, store.version()?);
        floor.lock().slots = slots;
        Ok(Self {
            store,
            feed,
            mailbox,
            batch: Batch::default(),
            spawns: Vec::new(),
            spawns_due: None,
            floor: floor::Hold(floor),
            watched: None,
            is_hungry: true,
            version,
            has_looked: false,
            claims: Vec::new(),
            failed: None,
        })
    }

    /// Lives until it is closed or the last handle is gone. What was accepted before is done; what comes later is told
    /// that the writer is closed.
    pub(super) fn run(mut self) {
        let closing = loop {
            // once for each batch is enough, and always after a rest
            self.has_looked &= !self.batch.items.is_empty();
            self.look();
            self.read_ahead();
            let wish = match self.due() {
                None => self.mailbox.recv().map_err(RecvTimeoutError::from),
                Some(due) => self.mailbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match wish {
                Ok(wish) => {
                    if let Some(reply) = self.take_in(wish) {
                        break Some(reply);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.commit(),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            self.grant();
        };
        self.floor.0.lock().close();
        self.commit();
        drop(self.mailbox);
        if let Err(error) = self.store.close() {
            tracing::warn!(component = "ledger", %error, "failed to close the ledger cleanly");
        }
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// When the next commit is due, if something waits for one.
    fn due(&self) -> Option<Instant> {
        let batch = match &self.failed {
            // claims wait for a commit too, when nothing else does
            Some((at, _)) => (self.batch.since.is_some() || !self.claims.is_empty()).then_some(*at + PATIENCE),
            None => self.batch.since.map(|since| since + COMPANY),
        };
        [batch, self.spawns_due, self.watched].into_iter().flatten().min()
    }

    /// Takes in what was taken from the floor since the last look.
    fn look(&mut self) {
        let taken = {
            let mut floor = self.floor.0.lock();
            let taken = floor.taken();
            let is_soon = !taken.is_empty() || self.batch.since.is_some() || self.watched.is_some();
            floor.is_watched = is_soon && self.failed.is_none();
            taken
        };
        self.take_over(taken);
    }

    /// The same, and nothing is taken any more before more is read ahead.
    fn retract(&mut self) {
        let taken = {
            let mut floor = self.floor.0.lock();
            floor.clear();
            floor.taken()
        };
        self.is_hungry = true;
        self.take_over(taken);
    }

    fn take_over(&mut self, taken: Vec<Item>) {
        for item in taken {
            if let Item::Grant(grant, _) = &item {
                let row = grant.claimed.job.row;
                self.claims.retain_mut(|claim| {
                    claim.request.candidates.retain(|(candidate, _)| candidate.row != row);
                    !claim.request.candidates.is_empty()
                });
                self.is_hungry = true;
            }
            self.batch.put(item);
        }
    }

    /// Reads the next attempts of claims that stand, for those who bring ends.
    fn read_ahead(&mut self) {
        if !std::mem::take(&mut self.is_hungry)
            || self.claims.is_empty()
            || self.batch.holds_grants
            || self.failed.is_some()
        {
            return;
        }
        self.look_for_others();
        let now = self.store.now();
        let floor = self.floor.0.clone();
        let mut floor = floor.lock();
        // what is taken already must not be read as a candidate
        self.take_over(floor.taken());
        let mut ready = floor.ready();
        for claim in self.claims.iter().filter(|claim| claim.stands) {
            let Claim { request, ask, .. } = claim;
            if self.store.is_outdated(request.snapshot) {
                continue;
            }
            for (candidate, cap) in &request.candidates {
                if ready >= READ_AHEAD {
                    return;
                }
                if floor.has(candidate.row) || self.batch.touches(candidate.job) {
                    continue;
                }
                // a plugin at its cap must not take all places with what only its own ends make room for
                let is_enough = floor.ready_of(&candidate.plugin) >= *cap as usize * 4;
                if is_enough && floor.slots.is_at_cap(&candidate.plugin, *cap) {
                    continue;
                }
                // what can't be read is told when there is a slot for it
                if let Ok(Some(claimed)) = claim::read_ahead(&self.store.conn, candidate, now) {
                    let grant = Grant { claimed, boot: request.boot, snapshot: request.snapshot };
                    floor.put(Ready { grant, cap: *cap, max_running: request.max_running, ask: ask.clone() });
                    ready += 1;
                }
            }
        }
    }

    /// Takes in `first` and everything that waits behind it, and commits when something must not wait. Answers whom to
    /// tell of the end, if the writer is to be closed.
    fn take_in(&mut self, first: Wish) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        while let Some(wish) = next.take().or_else(|| self.mailbox.try_recv().ok()) {
            // what was taken before the wish was sent comes before it
            self.look();
            match wish {
                Wish::Op(op) => self.admit(op),
                Wish::Claim(claim) => {
                    self.claims.push(claim);
                    self.is_hungry = true;
                    self.grant();
                }
                // that is done for every wish
                Wish::Look => {}
                Wish::Spawn(spawn) => {
                    self.spawns.push(spawn);
                    self.spawns_due.get_or_insert_with(|| Instant::now() + SPAWN_DELAY);
                }
                Wish::Errand(errand) => {
                    self.retract();
                    self.commit();
                    self.run_errand(errand);
                }
                // what was asked before the order is under it
                Wish::WithdrawClaims => {
                    self.retract();
                    self.grant();
                    self.claims.drain(..).for_each(withdraw);
                }
                Wish::Flush(reply) => {
                    self.commit();
                    let _ = reply.send(());
                }
                Wish::Close(reply) => return Some(reply),
            }
            if self.batch.is_full() || self.is_overdue() {
                self.commit();
            }
        }
        // With one attempt at most, nothing else would come to share the commit; what holds up grants is not waited with.
        let is_idle = self.failed.is_none() && self.floor.0.lock().slots.len() <= 1;
        if self.batch.is_awaited || self.batch.holds_grants || is_idle {
            self.commit();
        }
        None
    }

    /// The first piece has waited long enough, however much still comes.
    fn is_overdue(&self) -> bool {
        self.failed.is_none() && self.batch.since.is_some_and(|since| since.elapsed() >= COMPANY)
    }

    fn admit(&mut self, op: Op) {
        let Some(op) = self.store.in_order(op) else { return };
        if op.holds_grants() {
            self.retract();
        }
        let fence = op.ends();
        if let Some(repeated) = fence.and_then(|fence| self.batch.replaced(fence)) {
            repeated.refuse(WriteError::Busy);
        }
        self.batch.put(Item::Op(op));
        if let Some(fence) = fence {
            self.floor.0.lock().slots.free(fence);
            self.grant();
        }
    }

    /// Decides what can be decided of the claims that wait.
    fn grant(&mut self) {
        if self.claims.is_empty() || self.batch.holds_grants || self.failed.is_some() {
            return;
        }
        self.look_for_others();
        let floor = self.floor.0.clone();
        let mut floor = floor.lock();
        // what is taken already must not be granted again
        self.take_over(floor.taken());
        let mut waiting = std::mem::take(&mut self.claims);
        let mut decided = Vec::new();
        waiting.retain_mut(|claim| self.decide(claim, &mut floor, &mut decided));
        drop(floor);
        self.claims = waiting;
        for (ask, claims) in decided {
            guarded(|| (ask.decided)(claims));
        }
    }

    /// Answers whether there is something left to decide.
    fn decide(&mut self, claim: &mut Claim, floor: &mut Inner, decided: &mut Vec<(Arc<Ask>, Claims)>) -> bool {
        let now = self.store.now();
        let (boot, snapshot) = (claim.request.boot, claim.request.snapshot);
        let max_running = claim.request.max_running;
        let is_outdated = self.store.is_outdated(snapshot);
        let mut claims = Claims::default();
        let mut granted = Vec::new();
        claim.request.candidates.retain(|(candidate, cap)| {
            // its row is looked at when there is a slot for it
            let slots = &floor.slots;
            let is_full = slots.len() >= max_running as usize || slots.is_at_cap(&candidate.plugin, *cap);
            if !is_outdated && claim.stands && is_full {
                return true;
            }
            floor.remove(candidate.row);
            let answer = if is_outdated {
                Err(Refusal::Withdrawn)
            } else if self.batch.touches(candidate.job) {
                // it is announced again when what waits about it is committed
                Err(Refusal::Gone)
            } else {
                match floor.slots.grant(&self.store.conn, candidate, *cap, max_running, now) {
                    Ok(answer) => answer,
                    // Asked for again at once, it would stand before all others for ever; the queue's poll finds it.
                    Err(error) => {
                        tracing::error!(component = "ledger", job_id = %candidate.job, %error, "could not read a candidate");
                        Err(Refusal::Gone)
                    }
                }
            };
            match answer {
                Ok(claimed) => {
                    granted.push(claimed.clone());
                    claims.claimed.push(claimed);
                }
                Err(Refusal::PluginCap | Refusal::GlobalCap) if claim.stands => return true,
                Err(why) => claims.refused.push(Refused { row: candidate.row, job: candidate.job, why }),
            }
            false
        });
        for claimed in granted {
            self.batch.put(Item::Grant(Grant { claimed, boot, snapshot }, claim.ask.started.clone()));
        }
        let is_left = !claim.request.candidates.is_empty();
        if !claims.is_empty() || !is_left {
            decided.push((claim.ask.clone(), claims));
        }
        is_left
    }

    /// Commits the batch with the spawns that wait, and answers it; when it fails as a whole, each piece gets its own
    /// try.
    fn commit(&mut self) {
        self.look();
        self.has_looked = false;
        self.watched = None;
        self.is_hungry = true;
        self.spawns_due = None;
        let spawns = std::mem::take(&mut self.spawns);
        let Batch { items, is_awaited, .. } = std::mem::take(&mut self.batch);
        if items.is_empty() && spawns.is_empty() {
            return self.probe();
        }
        let error = match self.store.commit(&items, &spawns, is_awaited) {
            Ok(done) => {
                self.failed = None;
                self.watched = Some(Instant::now() + COMPANY);
                let is_as_expected = done.answers.iter().all(Answer::is_as_expected);
                self.answer(done, items);
                if !is_as_expected {
                    self.recount();
                }
                return;
            }
            Err(error) => error,
        };
        if error.is_of_the_file() {
            self.keep(items, error);
            self.spawns_due = (!spawns.is_empty()).then(|| Instant::now() + PATIENCE);
            self.spawns = spawns;
            return;
        }
        if items.len() > 1 {
            tracing::warn!(component = "ledger", %error, pieces = items.len(), "a batch failed, trying its pieces alone");
        }
        // spawns that fail alone have no other try
        if !items.is_empty() && !spawns.is_empty() {
            (self.spawns, self.spawns_due) = (spawns, Some(Instant::now()));
        }
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            match self.store.commit(std::slice::from_ref(&item), &[], is_awaited) {
                Ok(done) => self.answer(done, vec![item]),
                Err(error) if error.is_of_the_file() => {
                    self.keep(std::iter::once(item).chain(items), error);
                    break;
                }
                Err(error) => match item {
                    Item::Op(op) => op.refuse(error),
                    Item::Grant(grant, _) => {
                        tracing::error!(component = "ledger", job_id = %grant.claimed.job.fence.job, %error, "could not write a claim");
                    }
                },
            }
        }
        self.recount();
    }

    /// After a failure of the file: the doors are told, what is ours is tried again, in its order.
    fn keep(&mut self, items: impl IntoIterator<Item = Item>, error: WriteError) {
        self.retract();
        // what was taken meanwhile comes behind what it did not know of
        let later = std::mem::take(&mut self.batch);
        self.batch = Batch::keep_ours(items.into_iter().chain(later.items), &error);
        self.failed = Some((Instant::now(), error));
    }

    /// With nothing to be written, claims that wait would never learn that the file can be written again.
    fn probe(&mut self) {
        if self.failed.is_none() || self.claims.is_empty() {
            return;
        }
        self.failed = self.store.probe().err().map(|error| (Instant::now(), error));
    }

    fn answer(&mut self, done: Done, items: Vec<Item>) {
        fail_point!("ledger_before_answer");
        self.feed.push(done.ready);
        for (item, answer) in items.into_iter().zip(done.answers) {
            guarded(|| answer.give(item));
        }
    }

    /// Slots are those of the rows, so whoever else writes rows is seen.
    fn look_for_others(&mut self) {
        if std::mem::replace(&mut self.has_looked, true) {
            return;
        }
        match self.store.version() {
            Ok(version) if version == self.version => {}
            Ok(version) => {
                self.version = version;
                self.recount();
            }
            Err(error) => tracing::warn!(component = "ledger", %error, "could not look for changes by others"),
        }
    }

    /// Counts slots from rows, and from what waits to be written.
    fn recount(&mut self) {
        self.retract();
        match Slots::read(&self.store.conn) {
            Ok(mut slots) => {
                for item in &self.batch.items {
                    match item {
                        Item::Grant(grant, _) => slots.hold(&grant.claimed.job),
                        Item::Op(op) => drop(op.ends().map(|fence| slots.free(fence))),
                    }
                }
                self.floor.0.lock().slots = slots;
            }
            Err(error) => tracing::warn!(component = "ledger", %error, "could not count the running jobs"),
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Orphans(reply) => drop(reply.send(self.store.orphans())),
            Errand::Recover(reply) => {
                let recovered = self.store.recover();
                self.recount();
                if let Ok((_, ready)) = &recovered {
                    self.feed.push(ready.clone());
                }
                let _ = reply.send(recovered.map(|(recovered, _)| recovered));
            }
            Errand::Snapshot(snapshot, reply) => drop(reply.send(match &self.failed {
                // it would bury what was granted already
                Some((_, error)) if !self.batch.items.is_empty() => Err(error.clone()),
                _ => self.store.record_snapshot(*snapshot),
            })),
            Errand::Prune(prune, reply) => drop(reply.send(self.store.prune(&prune))),
            Errand::Vacuum(reply) => drop(reply.send(self.store.vacuum())),
            Errand::Sample(reply) => drop(reply.send(self.store.sample())),
            Errand::Checkpoint(reply) => self.store.checkpoints.empty(&self.store.conn, reply),
            Errand::Arrange(arrangements, reply) => drop(reply.send(self.store.arrange(&arrangements))),
            Errand::Tick { dues, generation, reply } => {
                let mut ready = Vec::new();
                let ticked = match &self.failed {
                    // it would cancel as queued what was granted already
                    Some((_, error)) if !self.batch.items.is_empty() => Err(error.clone()),
                    _ => self.store.tick(&dues, generation, &mut ready),
                };
                fail_point!("ledger_before_answer");
                self.feed.push(ready);
                let _ = reply.send(ticked);
            }
            Errand::Pause { plugin, schedule, on, reply } => {
                drop(reply.send(self.store.pause_schedules(&plugin, schedule.as_deref(), on)));
            }
            Errand::ResetBreaker { plugin, reply } => drop(reply.send(self.store.reset_breaker(&plugin))),
            Errand::Mark { name, value, reply } => drop(reply.send(self.store.mark(name, value))),
        }
    }
}

/// Refuses what is left of a claim.
fn withdraw(claim: Claim) {
    let left = claim.request.candidates.iter();
    let refused = left.map(|(c, _)| Refused { row: c.row, job: c.job, why: Refusal::Withdrawn }).collect();
    guarded(|| (claim.ask.decided)(Claims { refused, ..Claims::default() }));
}

/// A panic of whoever asked costs the answer, not the writer.
pub(super) fn guarded(answer: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(answer)).is_err() {
        tracing::error!(component = "ledger", "an answer could not be given: its receiver panicked");
    }
}
