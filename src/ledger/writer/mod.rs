//! The one writer: a handle whose calls wait for a commit, and the thread behind it that groups what waits into one
//! transaction. Dropping a call's future never disturbs a transaction: the thread owns the connection.

mod batch;
mod breaker;
mod cancel;
mod checkpoint;
mod claim;
mod context;
mod enqueue;
mod entry;
mod errand;
mod finish;
mod floor;
mod hook;
mod in_force;
mod init;
mod join;
mod memory;
mod prune;
mod quarantine;
mod store;
mod thread;
mod tick;
mod transaction;
mod vacuum;

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ductile_domain::ids::JobId;
use ductile_domain::job::{ClaimRequest, ClaimedJob, Fence, NewJob};
use ductile_domain::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use in_force::InForce;

use crate::error::{StartError, WriteError};
use crate::open::OpenOptions;
use crate::ops::{
    Cancelled, Claims, Enqueued, Finish, Finished, Orphan, Prune, Pruned, Recorded, Recovered, Snapshot, Submission,
    Submitted, Vacuumed,
};
use crate::schedules::{Arrangement, BreakerEvent, Due, Ticked};

/// The crash points of the writer, in the order of a batch; they exist with the feature `failpoints` only.
#[must_use]
pub const fn failpoints() -> &'static [&'static str] {
    &[
        "ledger_before_begin",
        "ledger_after_begin",
        "ledger_before_commit",
        "ledger_after_commit",
        "ledger_before_answer",
    ]
}

/// Sets the crash points that the variable `FAILPOINTS` names, for the life of the process. Without the feature
/// `failpoints` there are none, and this does nothing.
pub fn arm_failpoints() {
    if fail::has_failpoints() && std::env::var_os("FAILPOINTS").is_some() {
        std::mem::forget(fail::FailScenario::setup());
    }
}

/// Where the answer of an errand goes.
type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// What is done with the answer of an operation, on the writer's thread: it must neither block nor wait. Dropped uncalled
/// when the writer dies.
type Then<T> = Box<dyn FnOnce(Result<T, WriteError>) + Send>;

/// An operation that shares its transaction with others.
enum Op {
    Finish(Arc<Finish>, Then<Finished>),
    GiveBack { fence: Fence, reason: String, due: Option<Timestamp>, then: Then<Finished> },
    Cancel { job: JobId, why: String, requested_by: String, then: Then<Cancelled>, _permit: OwnedSemaphorePermit },
    Submit { submission: Submission, generation: u64, then: Then<Submitted>, _permit: OwnedSemaphorePermit },
}

/// An operation that has the connection for itself.
enum Errand {
    Orphans(Reply<Vec<Orphan>>),
    Recover(Reply<Vec<Recovered>>),
    Snapshot(Box<Snapshot>, Reply<Recorded>),
    Prune(Prune, Reply<Pruned>),
    Vacuum(Reply<Vacuumed>),
    Sample(Reply<bool>),
    Checkpoint(Reply<()>),
    Arrange(Vec<Arrangement>, Reply<Vec<Result<(), WriteError>>>),
    Tick { dues: Vec<Due>, generation: u64, reply: Reply<Vec<Ticked>> },
    Pause { plugin: String, schedule: Option<String>, on: bool, reply: Reply<Vec<String>> },
    ResetBreaker { plugin: String, reply: Reply<Vec<BreakerEvent>> },
    Mark { name: &'static str, value: Option<String>, reply: Reply<()> },
}

impl Op {
    /// The claim that it ends.
    fn ends(&self) -> Option<Fence> {
        match self {
            Self::Finish(finish, _) => Some(finish.fence),
            Self::GiveBack { fence, .. } => Some(*fence),
            Self::Cancel { .. } | Self::Submit { .. } => None,
        }
    }

    /// It changes what a grant would read, so that none is made before its commit.
    fn holds_grants(&self) -> bool {
        match self {
            Self::Cancel { .. } => true,
            // the next attempt of the plugin must find the state that this one left
            Self::Finish(finish, _) => finish.plan.state.is_some(),
            Self::GiveBack { .. } | Self::Submit { .. } => false,
        }
    }

    /// Answers an operation that was not committed.
    fn refuse(self, error: WriteError) {
        thread::guarded(|| match self {
            Self::Finish(_, then) | Self::GiveBack { then, .. } => then(Err(error)),
            Self::Cancel { then, .. } => then(Err(error)),
            Self::Submit { then, .. } => then(Err(error)),
        });
    }
}

/// A claim as it waits for slots.
struct Claim {
    request: ClaimRequest,
    /// Candidates without a slot wait for one.
    stands: bool,
    ask: Arc<Ask>,
}

/// Whoever asked for a claim.
struct Ask {
    /// Called with what was decided, several times when it stands.
    decided: Box<dyn Fn(Claims) + Send + Sync>,
    started: Started,
}

/// Where the start of an attempt is told when it is committed, with its transition.
type Started = Arc<dyn Fn(&ClaimedJob, i64) + Send + Sync>;

/// A spawn to be noted with the next batch.
struct Spawn {
    fence: Fence,
    pid: i32,
    pid_start: i64,
}

/// What waits in the writer's mailbox, which has no bound: whatever is in it is done in the order in which it came.
enum Wish {
    Op(Op),
    Claim(Claim),
    Errand(Errand),
    Spawn(Spawn),
    WithdrawClaims,
    /// Something was taken from the floor.
    Look,
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// The handle to the one writer. Clones share it.
#[derive(Clone)]
pub struct Writer {
    wishes: mpsc::Sender<Wish>,
    floor: Arc<floor::Floor>,
    /// Bounds what doors may have waiting; the gateway's own operations are bounded by its workers.
    permits: Arc<Semaphore>,
    /// Its other end lives as long as the connection.
    ended: watch::Receiver<()>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("free_permits", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Opens the connection and starts the thread that owns it.
    pub(crate) fn start(options: &OpenOptions) -> Result<Self, StartError> {
        let store = store::Store::open(options).map_err(StartError::Open)?;
        let (wishes, mailbox) = mpsc::channel();
        let floor = Arc::new(floor::Floor::new(options.clock.clone()));
        let thread =
            thread::Thread::new(store, options.feed.clone(), mailbox, floor.clone()).map_err(StartError::Open)?;
        let (lives, ended) = watch::channel(());
        let run = move || {
            let _lives = lives;
            thread.run();
        };
        std::thread::Builder::new().name("ledger-writer".to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Self { wishes, floor, permits: Arc::new(Semaphore::new(options.capacity)), ended })
    }

    async fn ask<T>(&self, errand: impl FnOnce(Reply<T>) -> Errand) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.wishes.send(Wish::Errand(errand(reply))).map_err(|_| WriteError::Closed)?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Hands over an operation; a writer that has ended answers at once.
    fn operate(&self, op: Op) {
        if let Err(mpsc::SendError(Wish::Op(op))) = self.wishes.send(Wish::Op(op)) {
            op.refuse(WriteError::Closed);
        }
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, WriteError> {
        self.permits.clone().try_acquire_owned().map_err(|_| WriteError::Overloaded)
    }

    /// Enqueues the jobs of one request, all or none; the commit is on disk before the answer (unless durability is
    /// `normal`).
    ///
    /// # Errors
    /// [`WriteError::Overloaded`] at once when too much waits; [`WriteError::PluginGone`] when `generation` is not
    /// the one in force and a plugin is not part of the one that is.
    pub async fn enqueue(&self, jobs: Vec<NewJob>, generation: u64) -> Result<Vec<Enqueued>, WriteError> {
        answered(|then| self.enqueue_then(jobs, generation, then)).await
    }

    /// The same for those who can't wait, see [`Writer::submit_then`].
    pub fn enqueue_then(
        &self,
        jobs: Vec<NewJob>,
        generation: u64,
        then: impl FnOnce(Result<Vec<Enqueued>, WriteError>) + Send + 'static,
    ) {
        self.submit_then(jobs.into(), generation, move |answer| then(answer.map(|submitted| submitted.jobs)));
    }

    /// Commits what a door brings in, all or nothing, as [`Writer::enqueue`] does; with jobs that belong to pipelines.
    ///
    /// # Errors
    /// Those of [`Writer::enqueue`].
    pub async fn submit(&self, submission: Submission, generation: u64) -> Result<Submitted, WriteError> {
        answered(|then| self.submit_then(submission, generation, then)).await
    }

    /// The same for those who can't wait: `then` is called with the answer on the writer's thread, where it must not
    /// block, or dropped when the writer dies.
    pub fn submit_then(
        &self,
        submission: Submission,
        generation: u64,
        then: impl FnOnce(Result<Submitted, WriteError>) + Send + 'static,
    ) {
        match self.permit() {
            Ok(_permit) => self.operate(Op::Submit { submission, generation, then: Box::new(then), _permit }),
            Err(error) => then(Err(error)),
        }
    }

    /// Takes candidates for one attempt each, as far as status, due time, caps and running twins allow; written when it
    /// returns.
    ///
    /// # Errors
    /// When the writer is closed.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Claims, WriteError> {
        let (tell, told) = oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let decided = move |claims| {
            let tell = tell.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(tell.map(|tell| tell.send(claims)));
        };
        self.claim_then(request, false, decided, Arc::new(|_, _| ()));
        let claims = told.await.map_err(|_| WriteError::Closed)?;
        self.flush().await;
        Ok(claims)
    }

    /// The same for those who can't wait: `decided` is called with what is granted and refused, on the writer's thread or
    /// on that of whoever brings an end, where it must not block, before it is written; the row follows within
    /// milliseconds, and before anything else about the attempt. `started` is told of the row and its transition.
    ///
    /// A claim that `stands` is decided whenever a slot becomes free, and `decided` called each time with a part, until
    /// every candidate is decided or [`Writer::withdraw_claims`] refuses the rest. `decided` is dropped when there is
    /// nothing more to decide, or the writer has ended.
    pub fn claim_then(
        &self,
        request: ClaimRequest,
        stands: bool,
        decided: impl Fn(Claims) + Send + Sync + 'static,
        started: Started,
    ) {
        let ask = Arc::new(Ask { decided: Box::new(decided), started });
        // a writer that has ended drops it
        let _ = self.wishes.send(Wish::Claim(Claim { request, stands, ask }));
    }

    /// Answers every claim that waits for an end: its candidates are refused as withdrawn.
    pub fn withdraw_claims(&self) {
        // a writer that has ended has no claims
        let _ = self.wishes.send(Wish::WithdrawClaims);
    }

    /// Ends an attempt: the only way by which one ends. May be repeated after a lost answer.
    ///
    /// # Errors
    /// When nothing was committed; [`WriteError::StateTooLarge`] asks for another outcome.
    pub async fn finish(&self, finish: Finish) -> Result<Finished, WriteError> {
        answered(|then| self.finish_then(Arc::new(finish), then)).await
    }

    /// The same for those who can't wait, see [`Writer::submit_then`]. The slot that becomes free may be granted before
    /// this returns, to a claim that stands, whose `decided` is called then.
    pub fn finish_then(&self, finish: Arc<Finish>, then: impl FnOnce(Result<Finished, WriteError>) + Send + 'static) {
        match self.floor.take(&finish, Box::new(then)) {
            Ok(taken) => {
                if taken.is_unseen {
                    // a writer that has ended has told everybody
                    let _ = self.wishes.send(Wish::Look);
                }
                thread::guarded(|| (taken.ask.decided)(taken.claims));
            }
            Err(then) => self.operate(Op::Finish(finish, then)),
        }
    }

    /// Gives a claim back without counting its attempt: only a transition is written. `due` delays the next claim.
    /// A job whose cancellation was asked for becomes `dead` instead.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn give_back(
        &self,
        fence: Fence,
        reason: String,
        due: Option<Timestamp>,
    ) -> Result<Finished, WriteError> {
        answered(|then| self.give_back_then(fence, reason, due, then)).await
    }

    /// The same for those who can't wait, see [`Writer::submit_then`].
    pub fn give_back_then(
        &self,
        fence: Fence,
        reason: String,
        due: Option<Timestamp>,
        then: impl FnOnce(Result<Finished, WriteError>) + Send + 'static,
    ) {
        self.operate(Op::GiveBack { fence, reason, due, then: Box::new(then) });
    }

    /// Cancels a job: a queued one is `dead` at once, a running one is marked so that it is not tried again.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn cancel(&self, job: JobId, why: String, requested_by: String) -> Result<Cancelled, WriteError> {
        answered(|then| self.cancel_then(job, why, requested_by, then)).await
    }

    /// The same for those who can't wait, see [`Writer::submit_then`].
    pub fn cancel_then(
        &self,
        job: JobId,
        why: String,
        requested_by: String,
        then: impl FnOnce(Result<Cancelled, WriteError>) + Send + 'static,
    ) {
        match self.permit() {
            Ok(_permit) => self.operate(Op::Cancel { job, why, requested_by, then: Box::new(then), _permit }),
            Err(error) => then(Err(error)),
        }
    }

    /// Notes the process of an attempt; rides along with the next batch, or follows within some 20 ms. Nothing is
    /// written when the attempt's end comes first.
    pub fn record_spawn(&self, fence: Fence, pid: i32, pid_start: i64) {
        // a writer that has ended records nothing; recovery finds the process by its environment
        let _ = self.wishes.send(Wish::Spawn(Spawn { fence, pid, pid_start }));
    }

    /// The rows that are `running` under another boot, so that their processes can be ended before [`Self::recover`].
    ///
    /// # Errors
    /// When they could not be read.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, WriteError> {
        self.ask(Errand::Orphans).await
    }

    /// Finishes every orphan as crashed: due at once with its next attempt, or `dead`.
    ///
    /// # Errors
    /// When a batch was not committed; calling again goes on.
    pub async fn recover(&self) -> Result<Vec<Recovered>, WriteError> {
        self.ask(Errand::Recover).await
    }

    /// Records a configuration and puts its generation in force: queued jobs of plugins that are not part of it become
    /// `dead` in the same transaction.
    ///
    /// # Errors
    /// When nothing was committed; the former generation stays in force.
    pub async fn record_snapshot(&self, snapshot: Snapshot) -> Result<Recorded, WriteError> {
        self.ask(|reply| Errand::Snapshot(Box::new(snapshot), reply)).await
    }

    /// Deletes what is older than its retention, one step of some 20 ms. A round of steps is over when one answers that
    /// there is no more.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn prune(&self, prune: Prune) -> Result<Pruned, WriteError> {
        self.ask(|reply| Errand::Prune(prune, reply)).await
    }

    /// Gives free pages back to the file system, one step of some 10 ms; the file shrinks with the next checkpoint. An
    /// eighth of the file stays free to be used again, and at least 1 MiB.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn vacuum(&self) -> Result<Vacuumed, WriteError> {
        self.ask(Errand::Vacuum).await
    }

    /// Notes how large the file is, unless that was done within the last hour; answers whether it was noted.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn sample_storage(&self) -> Result<bool, WriteError> {
        self.ask(Errand::Sample).await
    }

    /// Copies the write-ahead log into the database and empties it as far as readers allow, beside the writer, which goes
    /// on meanwhile.
    ///
    /// # Errors
    /// When SQLite could not.
    pub async fn checkpoint(&self) -> Result<(), WriteError> {
        self.ask(Errand::Checkpoint).await
    }

    /// Sets or removes a mark of the file, such as `paused`; on disk before the answer (unless durability is `normal`).
    ///
    /// # Errors
    /// When the mark could not be committed.
    pub async fn set_mark(&self, name: &'static str, value: Option<String>) -> Result<(), WriteError> {
        self.ask(|reply| Errand::Mark { name, value, reply }).await
    }

    /// Writes what is expected of schedules and what has ended without being fired: to be called with at most 200 schedules
    /// and some 1,000 ticks at a time, since nothing else is written meanwhile. Answers for each whether it is committed:
    /// all are written together, and one by one when that fails. It may be repeated after a lost answer.
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn arrange(&self, arrangements: Vec<Arrangement>) -> Result<Vec<Result<(), WriteError>>, WriteError> {
        self.ask(|reply| Errand::Arrange(arrangements, reply)).await
    }

    /// Ends ticks that are due, in their order, each with its job or with the reason why there is none; each finds what
    /// those before it did. On disk before the answer (unless durability is `normal`). It may be repeated after a lost
    /// answer: what has ended stays as it is. Nothing else is written meanwhile: at most some 100 at a time.
    ///
    /// # Errors
    /// When nothing was committed; [`WriteError::Outdated`] when `generation` is not the one in force. What concerns one
    /// tick alone is answered as [`Ticked::Failed`].
    pub async fn tick(&self, dues: Vec<Due>, generation: u64) -> Result<Vec<Ticked>, WriteError> {
        self.ask(|reply| Errand::Tick { dues, generation, reply }).await
    }

    /// Pauses the active schedules of a plugin, or the one named, or resumes those that were paused so. Answers the
    /// schedules that changed; on disk before the answer (unless durability is `normal`).
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn pause_schedules(
        &self,
        plugin: String,
        schedule: Option<String>,
        on: bool,
    ) -> Result<Vec<String>, WriteError> {
        self.ask(|reply| Errand::Pause { plugin, schedule, on, reply }).await
    }

    /// Closes the breakers of all commands of a plugin and forgets their failures. Answers those that were not closed;
    /// on disk before the answer (unless durability is `normal`).
    ///
    /// # Errors
    /// When nothing was committed.
    pub async fn reset_breaker(&self, plugin: String) -> Result<Vec<BreakerEvent>, WriteError> {
        self.ask(|reply| Errand::ResetBreaker { plugin, reply }).await
    }

    /// Commits everything that waits now, spawns included; no full mailbox can hold it up.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.wishes.send(Wish::Flush(reply)).is_ok() {
            // an error means that the writer has ended: nothing waits any more
            let _ = answer.await;
        }
    }

    /// Commits everything that waits, marks the stop as clean and closes the connection. Later calls answer
    /// [`WriteError::Closed`].
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.wishes.send(Wish::Close(reply)).is_ok() {
            // an error means that the writer has ended already
            let _ = answer.await;
        }
        self.ended().await;
    }

    /// Resolves when the connection is closed: by [`Self::close`], or after the last handle was dropped.
    pub async fn ended(&self) {
        // an error says that the other end is gone, which is what is waited for
        while self.ended.clone().changed().await.is_ok() {}
    }
}

/// Waits for the answer to an operation; dropping the wait disturbs nothing.
async fn answered<T: Send + 'static>(
    ask: impl FnOnce(Box<dyn FnOnce(Result<T, WriteError>) + Send>),
) -> Result<T, WriteError> {
    let (tell, told) = oneshot::channel();
    // a caller that went away is no concern
    ask(Box::new(move |answer| drop(tell.send(answer))));
    told.await.unwrap_or(Err(WriteError::Closed))
}
