//! The task that owns the connection: gathers what waits, commits it, answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::config::Durability;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::time::Timestamp;
use fail::fail_point;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answer::{self, Answers};
use super::batch::{self, Batch, Sections};
use super::pause::Pause;
use super::{Errand, Op, Order, Spawn, Spawns, Wish};
use crate::error::WriteError;
use crate::feed::CommitFeed;
use crate::open::{Clock, OpenOptions, close};
use crate::ops::{Finished, Verdict};

/// How long the end of a short attempt waits for the ends of other young ones.
const COMPANY: Duration = Duration::from_micros(600);

/// An attempt that has run for longer is not short, and not expected to end at any moment.
const YOUNG: Duration = Duration::from_micros(1500);

/// How long a recorded spawn waits for a batch to ride along with.
const SPAWN_DELAY: Duration = Duration::from_millis(20);

/// The generation that the last snapshot put in force.
pub(super) struct InForce {
    pub(super) generation: u64,
    pub(super) plugins: HashSet<String>,
}

/// The writer's own state.
pub(super) struct Task {
    pub(super) conn: SqliteConnection,
    pub(super) boot: BootId,
    pub(super) feed: CommitFeed,
    pub(super) in_force: Option<InForce>,
    clock: Clock,
    durability: Durability,
    /// What `PRAGMA synchronous` is now: true for FULL. Setting it costs a hand-over, so only changes are sent.
    is_synced: bool,
    spawns: Arc<Spawns>,
    /// Attempts that run, and since when: who may be waited for, and whether a slot is free. Rows decide all else.
    in_flight: HashMap<JobId, std::time::Instant>,
    /// Claims that wait for the end of an attempt.
    standing: Vec<Op>,
    pause: Option<Pause>,
}

/// Why the loop woke.
enum Woken {
    Order(Option<Order>),
    Wish(Option<Wish>),
    SpawnsWait,
    SpawnsDue,
}

impl Task {
    pub(super) async fn new(
        mut conn: SqliteConnection,
        options: &OpenOptions,
        spawns: Arc<Spawns>,
    ) -> Result<Self, sqlx::Error> {
        for sql in batch::TEMP_SCHEMA {
            sqlx::raw_sql(sql).execute(&mut conn).await?;
        }
        let running = sqlx::query("SELECT id FROM job_queue WHERE status = 'running'").fetch_all(&mut conn).await?;
        let since = std::time::Instant::now();
        let in_flight = running.iter().filter_map(|r| Some((r.get::<String, _>(0).parse().ok()?, since))).collect();
        Ok(Self {
            conn,
            boot: options.boot,
            feed: options.feed.clone(),
            in_force: None,
            clock: options.clock.clone(),
            durability: options.durability,
            is_synced: true,
            spawns,
            in_flight,
            standing: Vec::new(),
            pause: Pause::new().ok(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        // stored with milliseconds, so nothing finer may leave through an answer
        let now = self.clock.now();
        chrono::DurationRound::duration_trunc(now, chrono::TimeDelta::milliseconds(1)).unwrap_or(now)
    }

    /// Lives until it is closed or the last handle is gone.
    pub(super) async fn run(
        mut self,
        mut mailbox: mpsc::UnboundedReceiver<Wish>,
        mut lane: mpsc::UnboundedReceiver<Order>,
    ) {
        let spawns = self.spawns.clone();
        let mut spawns_due: Option<Instant> = None;
        let mut closing = None;
        loop {
            let woken = tokio::select! {
                biased;
                order = lane.recv() => Woken::Order(order),
                wish = mailbox.recv() => Woken::Wish(wish),
                () = spawns.wake.notified(), if spawns_due.is_none() => Woken::SpawnsWait,
                () = sleep_until(spawns_due.unwrap_or_else(Instant::now)), if spawns_due.is_some() => Woken::SpawnsDue,
            };
            match woken {
                Woken::Wish(Some(wish)) => self.work(Some(wish), &mut mailbox).await,
                Woken::Order(Some(Order::Flush(reply))) => {
                    self.work(None, &mut mailbox).await;
                    let _ = reply.send(());
                }
                Woken::Order(Some(Order::WithdrawClaims)) => {
                    // what was asked before the order is under it
                    self.work(None, &mut mailbox).await;
                    self.standing.drain(..).for_each(answer::withdraw);
                    continue;
                }
                Woken::Order(Some(Order::Close(reply))) => {
                    closing = Some(reply);
                    break;
                }
                Woken::Order(None) | Woken::Wish(None) => break,
                Woken::SpawnsWait => {
                    spawns_due = Some(Instant::now() + SPAWN_DELAY);
                    continue;
                }
                Woken::SpawnsDue => self.work(None, &mut mailbox).await,
            }
            // every piece of work takes the waiting spawns along
            spawns_due = None;
        }
        // what was accepted is still done; what comes later is told that the writer is closed
        mailbox.close();
        self.work(None, &mut mailbox).await;
        let now = self.now();
        if let Err(error) = close(self.conn, now).await {
            tracing::warn!(component = "ledger", %error, "failed to close the ledger cleanly");
        }
        drop(mailbox);
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// Does `first` and everything that waits behind it, in as few transactions as their conflicts allow.
    async fn work(&mut self, first: Option<Wish>, mailbox: &mut mpsc::UnboundedReceiver<Wish>) {
        let mut next = first;
        loop {
            let mut batch = Batch::default();
            let mut errand = None;
            while let Some(wish) = next.take().or_else(|| mailbox.try_recv().ok()) {
                match wish {
                    Wish::Op(op) => {
                        if let Some(op) = self.hold_or_admit(op, &mut batch) {
                            next = Some(Wish::Op(op));
                            break;
                        }
                    }
                    Wish::Errand(wish) => {
                        errand = Some(wish);
                        break;
                    }
                }
            }
            if errand.is_none() && next.is_none() {
                next = self.await_company(&mut batch, mailbox).await;
            }
            if let Some(Wish::Errand(wish)) = next.take_if(|wish| matches!(wish, Wish::Errand(_))) {
                errand = Some(wish);
            }
            let spawns = self.spawns.take();
            if !batch.ops.is_empty() || !spawns.is_empty() {
                self.commit(batch, spawns).await;
            }
            match errand {
                Some(errand) => self.run_errand(errand).await,
                None if next.is_none() => return,
                None => {}
            }
        }
    }

    /// Lets a standing claim wait while no slot is free, and admits everything else.
    fn hold_or_admit(&mut self, op: Op, batch: &mut Batch) -> Option<Op> {
        match op {
            Op::StandingClaim(request, reply) if self.in_flight.len() >= request.max_running as usize => {
                self.standing.push(Op::StandingClaim(request, reply));
                None
            }
            op => batch.admit(op),
        }
    }

    /// While other young attempts run, the end of a short one waits a little for more of its kind: a commit costs nearly
    /// the same for one as for four. Longer ones come one by one, and their slots are worth more. Never when idle, and never with an answer that leaves the gateway. What could not
    /// be admitted is handed back.
    async fn await_company(&mut self, batch: &mut Batch, mailbox: &mut mpsc::UnboundedReceiver<Wish>) -> Option<Wish> {
        let is_young = |since: &std::time::Instant| since.elapsed() < YOUNG;
        let expected = self.in_flight.values().filter(|since| is_young(since)).count();
        let is_short = batch.ended().any(|job| self.in_flight.get(&job).is_some_and(is_young));
        if !is_short || batch.is_awaited() || batch.ends() >= expected {
            return None;
        }
        // Out of its place for the time of the wait: admitting changes the task.
        let pause = self.pause.take()?;
        pause.begin(COMPANY);
        let left = loop {
            let wish = tokio::select! {
                biased;
                wish = mailbox.recv() => wish,
                () = pause.over() => None,
            };
            match wish {
                None => break None,
                Some(Wish::Errand(errand)) => break Some(Wish::Errand(errand)),
                Some(Wish::Op(op)) => {
                    if let Some(op) = self.hold_or_admit(op, batch) {
                        break Some(Wish::Op(op));
                    }
                }
            }
            if batch.is_awaited() || batch.ends() >= expected {
                break None;
            }
        };
        self.pause = Some(pause);
        left
    }

    /// Claims that waited for an end share the transaction of this one. Who went away is not served.
    fn admit_standing(&mut self, batch: &mut Batch) {
        if batch.ends() == 0 {
            return;
        }
        for op in std::mem::take(&mut self.standing) {
            if matches!(&op, Op::StandingClaim(_, reply) if reply.is_closed()) {
                continue;
            }
            self.standing.extend(batch.admit(op));
        }
    }

    fn count(&mut self, answers: &Answers, ops: &[Op]) {
        for job in answers.ended(ops) {
            self.in_flight.remove(&job);
        }
        let now = std::time::Instant::now();
        self.in_flight.extend(answers.began().map(|job| (job, now)));
    }

    /// Commits a batch and answers it; when it fails as a whole, each operation gets its own try.
    pub(super) async fn commit(&mut self, mut batch: Batch, mut spawns: Vec<Spawn>) {
        self.admit_standing(&mut batch);
        let is_awaited = batch.is_awaited();
        let mut ops = self.sort_out(batch.ops);
        spawns.retain(|s| !ops.iter().any(|op| matches!(op, Op::Finish(f, _) if f.fence == s.fence)));
        let error = match self.try_commit(&mut ops, &spawns, is_awaited).await {
            Ok(answers) => {
                self.count(&answers, &ops);
                self.feed.push(answers.ready.clone());
                fail_point!("ledger_before_answer");
                answers.give(ops);
                return;
            }
            Err(error) => error,
        };
        if error.is_of_the_file() || ops.len() < 2 {
            for op in ops {
                answer::refuse(op, error.clone());
            }
            return;
        }
        tracing::warn!(component = "ledger", %error, operations = ops.len(), "a batch failed, trying its operations alone");
        for op in ops {
            let mut alone = vec![op];
            match self.try_commit(&mut alone, &[], is_awaited).await {
                Ok(answers) => {
                    self.count(&answers, &alone);
                    self.feed.push(answers.ready.clone());
                    answers.give(alone);
                }
                Err(error) => alone.into_iter().for_each(|op| answer::refuse(op, error.clone())),
            }
        }
    }

    /// Answers the operations whose plan the generation in force can't carry, keeps the others.
    fn sort_out(&self, ops: Vec<Op>) -> Vec<Op> {
        let Some(in_force) = &self.in_force else { return ops };
        let mut kept = Vec::with_capacity(ops.len());
        for op in ops {
            let (generation, jobs) = match &op {
                Op::Finish(finish, _) => (finish.plan.generation, finish.plan.children.as_slice()),
                Op::Enqueue { jobs, generation, .. } => (*generation, jobs.as_slice()),
                Op::GiveBack { .. } | Op::Cancel { .. } | Op::Claim(..) | Op::StandingClaim(..) => {
                    kept.push(op);
                    continue;
                }
            };
            let gone = if generation == in_force.generation {
                None
            } else {
                jobs.iter().map(|j| &*j.plugin).find(|p| !in_force.plugins.contains(*p)).map(str::to_owned)
            };
            match (gone, op) {
                (None, op) => kept.push(op),
                (Some(_), Op::Finish(_, reply)) => {
                    let answer = Finished {
                        verdict: Verdict::Replan,
                        status: None,
                        due: None,
                        transitions: Vec::new(),
                        children: Vec::new(),
                    };
                    let _ = reply.send(Ok(answer));
                }
                (Some(plugin), op) => answer::refuse(op, WriteError::PluginGone { plugin }),
            }
        }
        kept
    }

    /// One transaction. Operations that turn out to be impossible before it are answered and taken out of `ops`.
    async fn try_commit(
        &mut self,
        ops: &mut Vec<Op>,
        spawns: &[Spawn],
        is_awaited: bool,
    ) -> Result<Answers, WriteError> {
        let (mut merged, refused) = batch::merge_states(&mut self.conn, ops).await?;
        if !refused.is_empty() {
            for (no, error) in refused.into_iter().rev() {
                answer::refuse(ops.remove(no), error);
            }
            merged = batch::merge_states(&mut self.conn, ops).await?.0;
        }
        self.set_synchronous(is_awaited).await?;
        let now = self.now();
        let text = self.run_batch(Sections::write(ops, spawns, &merged, now), now).await?;
        Answers::read(&text, ops, now).map_err(|error| WriteError::Damaged(format!("unreadable answer: {}", error.0)))
    }

    /// Runs the statement of a batch. It is one implicit transaction; with crash points it is an explicit one, so that
    /// there is something to crash between.
    async fn run_batch(&mut self, sections: Sections, now: Timestamp) -> Result<String, WriteError> {
        fail_point!("ledger_before_begin");
        if fail::has_failpoints() {
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.conn).await?;
            fail_point!("ledger_after_begin");
        }
        let mut query = sqlx::query(batch::RUN);
        for value in sections.bind(now) {
            query = query.bind(value);
        }
        // two statements: the first is the transaction and its failure is an error, the second tells what it did; and
        // with a limit of one row that row is the last that crosses between the threads
        let result = query.fetch_optional(&mut self.conn).await;
        if fail::has_failpoints() {
            fail_point!("ledger_before_commit");
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            sqlx::raw_sql(end).execute(&mut self.conn).await?;
        }
        fail_point!("ledger_after_commit");
        let row = result?.ok_or_else(|| WriteError::Damaged("a batch returned no row".to_owned()))?;
        row.try_get(0).map_err(WriteError::from)
    }

    /// `synchronous` can't change inside a transaction, and the pragma acts when it is prepared: it is sent alone.
    pub(super) async fn set_synchronous(&mut self, is_awaited: bool) -> Result<(), WriteError> {
        let wanted = match self.durability {
            Durability::Accepted => is_awaited,
            Durability::Full => true,
            Durability::Normal => false,
        };
        if wanted != self.is_synced {
            let sql = if wanted { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            sqlx::raw_sql(sql).execute(&mut self.conn).await?;
            self.is_synced = wanted;
        }
        Ok(())
    }

    async fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Orphans(reply) => {
                let _ = reply.send(self.orphans().await);
            }
            Errand::Recover(reply) => {
                let _ = reply.send(self.recover().await);
            }
            Errand::Snapshot(snapshot, reply) => {
                let _ = reply.send(self.record_snapshot(*snapshot).await);
            }
            Errand::Prune(prune, reply) => {
                let _ = reply.send(self.prune(&prune).await);
            }
            Errand::Checkpoint(reply) => {
                let _ = reply.send(self.checkpoint().await);
            }
            Errand::Mark { name, value, reply } => {
                let _ = reply.send(self.mark(name, value).await);
            }
        }
    }
}
