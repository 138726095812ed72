//! The ledger actor: the only way to the writer. It forwards operations and says what was committed; the writer groups
//! them into transactions.
//!
//! Woken by operations. It never waits for a commit in its handler, so that whatever arrives during one shares the
//! next. A crash costs the callers one repetition: every operation is fenced or carries its own identity.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ductile_domain::ids::JobId;
use ductile_domain::job::{ClaimRequest, Fence};
use ductile_domain::time::Timestamp;
use ductile_ledger::{
    Arrangement, BreakerEvent, Cancelled, Due, Finish, Finished, Orphan, Prune, Pruned, Recovered, Submission,
    Submitted, Ticked, Vacuumed, WriteError, Writer,
};
use ductile_otp::{Cx, Exit, Message, Phase, Reply, Server, StartInfo};
use serde_json::{Value, json};

use crate::announce::schedules::Tick;
use crate::announce::{self, Announced};
use crate::asking::Asking;
use crate::shared::{LEDGER_DEADLINE, Shared};

/// State: the writer of this incarnation.
pub(crate) struct LedgerActor {
    shared: Arc<Shared>,
    writer: Writer,
}

type Answer<T> = Reply<Result<T, WriteError>>;

pub(crate) enum Msg {
    /// Accept work from outside: answered when it is on disk.
    Submit { submission: Submission, generation: u64, reply: Answer<Submitted> },
    /// Take jobs for attempts: now, or whenever a slot becomes free.
    Claim { request: ClaimRequest, stands: bool, asking: Arc<Asking> },
    /// Answer the claims that wait for an end.
    WithdrawClaims,
    /// Write what was granted.
    Flush(Reply<()>),
    /// End an attempt with everything that follows.
    Finish { finish: Arc<Finish>, job: Announced, reply: Answer<Finished> },
    /// Put an attempt back uncounted.
    GiveBack { fence: Fence, reason: String, due: Option<Timestamp>, job: Announced, reply: Answer<Finished> },
    /// Cancel a job.
    Cancel { job: JobId, why: String, requested_by: String, reply: Answer<Cancelled> },
    /// The process of a claim lives; recorded with the next commit.
    RecordSpawn { fence: Fence, pid: i32, pid_start: i64 },
    /// Attempts of boots that are gone.
    Orphans(Answer<Vec<Orphan>>),
    /// End the attempts of boots that are gone.
    Recover(Answer<Vec<Recovered>>),
    /// Remember across restarts whether dispatch is paused.
    SetPaused { paused: bool, reply: Answer<()> },
    /// Write what is expected of schedules.
    Arrange(Vec<Arrangement>, Answer<Vec<Result<(), WriteError>>>),
    /// End ticks that are due.
    Tick { dues: Vec<Due>, generation: u64, reply: Answer<Vec<Ticked>> },
    /// Pause or resume schedules of a plugin.
    PauseSchedules { plugin: String, schedule: Option<String>, paused: bool, reply: Answer<Vec<String>> },
    /// Close the breakers of a plugin.
    ResetBreaker { plugin: String, reply: Answer<Vec<BreakerEvent>> },
    /// Delete one bounded step of what is past its retention.
    Prune(Prune, Answer<Pruned>),
    /// Gives free pages back to the file system, one step.
    Vacuum(Answer<Vacuumed>),
    /// Notes how large the file is, if it is time.
    SampleStorage(Answer<bool>),
    /// Copy the write-ahead log back into the file.
    Checkpoint(Answer<()>),
    /// The writer is gone, although nobody closed it.
    WriterEnded,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Submit { .. } => "Submit",
            Self::Claim { .. } => "Claim",
            Self::WithdrawClaims => "WithdrawClaims",
            Self::Flush(_) => "Flush",
            Self::Finish { .. } => "Finish",
            Self::GiveBack { .. } => "GiveBack",
            Self::Cancel { .. } => "Cancel",
            Self::RecordSpawn { .. } => "RecordSpawn",
            Self::Orphans(_) => "Orphans",
            Self::Recover(_) => "Recover",
            Self::SetPaused { .. } => "SetPaused",
            Self::Arrange(..) => "Arrange",
            Self::Tick { .. } => "Tick",
            Self::PauseSchedules { .. } => "PauseSchedules",
            Self::ResetBreaker { .. } => "ResetBreaker",
            Self::Prune(..) => "Prune",
            Self::Vacuum(_) => "Vacuum",
            Self::SampleStorage(_) => "SampleStorage",
            Self::Checkpoint(_) => "Checkpoint",
            Self::WriterEnded => "WriterEnded",
        }
    }
}

impl Server for LedgerActor {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let opened = shared.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = match opened {
            Some(writer) => writer,
            None => reopen(&shared).await?,
        };
        *shared.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer.clone());
        let (watched, me) = (writer.clone(), cx.slot().clone());
        drop(cx.spawn(async move {
            watched.ended().await;
            me.wake(|| Msg::WriterEnded);
        }));
        Ok(Self { shared, writer })
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        // What is done after a commit is done on the writer's thread: one hand-over less for each operation.
        match msg {
            Msg::Submit { submission, generation, reply } => {
                let announced: Vec<_> = submission.jobs.iter().map(Announced::of).collect();
                writer.submit_then(submission, generation, move |result| {
                    if let Ok(submitted) = &result {
                        announce::enqueued(&shared, &announced, &submitted.jobs);
                        announce::born(&shared, None, &submitted.born);
                    }
                    reply.send(result);
                });
            }
            Msg::Claim { request, stands, asking } => {
                let started = asking.clone();
                let started = Arc::new(move |job: &_, transition| started.started(job, transition));
                writer.claim_then(request, stands, move |claims| asking.decided(claims), started);
            }
            Msg::WithdrawClaims => writer.withdraw_claims(),
            Msg::Finish { finish, job, reply } => writer.finish_then(finish.clone(), move |result| {
                if let Ok(finished) = &result {
                    announce::ended(&shared, &finish, &job, finished);
                }
                reply.send(result);
            }),
            Msg::GiveBack { fence, reason, due, job, reply } => {
                writer.give_back_then(fence, reason, due, move |result| {
                    if let Ok(finished) = &result {
                        announce::finished(&shared, &job, finished);
                    }
                    reply.send(result);
                });
            }
            Msg::Cancel { job, why, requested_by, reply } => {
                writer.cancel_then(job, why, requested_by, move |result| {
                    if let Ok(Cancelled::Dead(buried)) = &result {
                        announce::dead(&shared, buried);
                    }
                    reply.send(result);
                });
            }
            Msg::RecordSpawn { fence, pid, pid_start } => writer.record_spawn(fence, pid, pid_start),
            Msg::WriterEnded => return Err(Exit::Error("the ledger's writer ended".to_owned())),
            // The rare ones are dropped here on purpose: each answers its caller itself and ends with this actor.
            Msg::Flush(reply) => drop(cx.spawn(async move {
                writer.flush().await;
                reply.send(());
            })),
            Msg::Orphans(reply) => drop(cx.spawn(async move { reply.send(writer.orphans().await) })),
            Msg::Recover(reply) => drop(cx.spawn(async move { reply.send(writer.recover().await) })),
            Msg::SetPaused { paused, reply } => {
                drop(
                    cx.spawn(
                        async move { reply.send(writer.set_mark("paused", paused.then(|| "1".to_owned())).await) },
                    ),
                );
            }
            Msg::Arrange(arrangements, reply) => {
                drop(cx.spawn(async move { reply.send(writer.arrange(arrangements).await) }));
            }
            Msg::Tick { dues, generation, reply } => drop(cx.spawn(async move {
                let told: Vec<_> = dues.iter().map(Tick::of).collect();
                let ticked = writer.tick(dues, generation).await;
                for (tick, ticked) in told.iter().zip(ticked.iter().flatten()) {
                    announce::schedules::ticked(&shared, tick, ticked);
                }
                reply.send(ticked);
            })),
            Msg::PauseSchedules { plugin, schedule, paused, reply } => {
                drop(cx.spawn(async move { reply.send(writer.pause_schedules(plugin, schedule, paused).await) }));
            }
            Msg::ResetBreaker { plugin, reply } => drop(cx.spawn(async move {
                let reset = writer.reset_breaker(plugin).await;
                for event in reset.iter().flatten() {
                    announce::schedules::breaker(&shared, event);
                }
                reply.send(reset);
            })),
            Msg::Prune(prune, reply) => drop(cx.spawn(async move { reply.send(writer.prune(prune).await) })),
            Msg::Vacuum(reply) => drop(cx.spawn(async move { reply.send(writer.vacuum().await) })),
            Msg::SampleStorage(reply) => drop(cx.spawn(async move { reply.send(writer.sample_storage().await) })),
            Msg::Checkpoint(reply) => drop(cx.spawn(async move { reply.send(writer.checkpoint().await) })),
        }
        Ok(())
    }

    /// What waits is committed first. With the gateway's stop the readers end before the writer, so that the last
    /// connection can copy the write-ahead log back and remove it.
    async fn terminate(&mut self, _: &Cx<Self>, _: &Exit) {
        if self.shared.flags.is_shutting_down() {
            self.shared.readers.close().await;
        }
        self.writer.close().await;
    }

    fn inspect(&self) -> Value {
        json!({ "path": self.shared.ledger_options.path })
    }
}

/// Waits for the end of the former connection, which commits what it had taken, and opens another.
async fn reopen(shared: &Shared) -> Result<Writer, Exit> {
    // Left where it is: an incarnation that dies while it waits must not hide it from the next.
    let former = shared.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(former) = former {
        former.close().await;
    }
    let ledger = ductile_ledger::open(shared.ledger_options.clone()).await.map_err(|e| Exit::Error(e.to_string()))?;
    ledger.readers.close().await;
    Ok(ledger.writer)
}

/// Waits longer with every refusal, up to a second.
struct Patience(Duration);

impl Patience {
    fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(1));
    }
}

/// Waits until the ledger takes questions. False when its supervisor is down: then the actors that stand behind it are
/// stopped before it comes back, so that waiting on would only hold up both.
pub(crate) async fn is_reachable(shared: &Shared) -> bool {
    while !shared.addresses.ledger.is_up() {
        if shared.tree.node("root/storage_sup").is_none_or(|storage| storage.phase != Phase::Up) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Asks until there is an answer that more asking can't change, or `Closed` when nobody is there to answer. Only for
/// operations that are fenced: a repetition after a lost answer changes nothing.
async fn insist<T>(shared: &Shared, job: JobId, make: impl Fn(Answer<T>) -> Msg) -> Result<T, WriteError> {
    let mut patience = Patience::new();
    loop {
        if !is_reachable(shared).await {
            return Err(WriteError::Closed);
        }
        let error = match shared.addresses.ledger.call(&make, LEDGER_DEADLINE).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if !error.is_transient() && !matches!(error, WriteError::Closed) => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(component = "job", job_id = %job, error, "could not record the end of an attempt; trying again");
        patience.wait().await;
    }
}

/// Commits the end of an attempt.
///
/// # Errors
/// When the ledger refuses this very end for good: the attempt must end otherwise. `Closed` when the ledger's supervisor
/// is down.
pub(crate) async fn finish(shared: &Shared, finish: &Arc<Finish>, job: &Announced) -> Result<Finished, WriteError> {
    let make = |reply| Msg::Finish { finish: finish.clone(), job: job.clone(), reply };
    insist(shared, finish.fence.job, make).await
}

/// Gives an attempt back. Answers whether it was: otherwise the row is left to the reaper's sweep.
pub(crate) async fn give_back(
    shared: &Shared,
    fence: Fence,
    reason: String,
    due: Option<Timestamp>,
    job: &Announced,
) -> bool {
    let make = |reply| Msg::GiveBack { fence, reason: reason.clone(), due, job: job.clone(), reply };
    let answer = insist(shared, fence.job, make).await;
    if let Err(error) = &answer {
        tracing::error!(component = "job", job_id = %fence.job, %error, "the ledger does not take an attempt back; the reaper's sweep will");
    }
    answer.is_ok()
}
