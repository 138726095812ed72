//! The process of one attempt: its beginning, and the hold that an actor has on it.
//!
//! A process is begun where its claim was granted, before its actor lives: what the process's thread has to say waits for
//! the actor then. A process whose actor never comes is ended, and its claim given back.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{TimeDelta, Utc};
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_ledger::Claimed;
use ductile_otp::Slot;
use ductile_plugin::{Bounds, Handle, Invocation, Limits};
use ductile_plugin::{environment, protocol};
use tokio::sync::oneshot;

use crate::job::{JobArgs, Msg};
use crate::preflight::{self, Decision};
use crate::shared::Shared;
use crate::{announce, ending, ledger, reaper};

/// When a job may be claimed again whose attempt could not be started, or got no actor.
pub(crate) const RETRY_DELAY: TimeDelta = TimeDelta::seconds(1);

/// Begins the process of a claim at once. What needs none, or is refused by preflight, is left to the actor.
pub(crate) fn begin(shared: &Arc<Shared>, generation: &Arc<Generation>, claimed: &Claimed) -> JobArgs {
    let Claimed { job, unreadable } = claimed;
    let args = JobArgs {
        shared: shared.clone(),
        generation: generation.clone(),
        job: job.clone(),
        unreadable: *unreadable,
        begun: Begun::default(),
    };
    // A former attempt that lives on is in the way; the dispatcher finds it and gives the claim back. The first claim has
    // one too when a grant was lost with its writer.
    let is_free = !shared.processes.contains(job.fence.job)
        && (job.fence.claim_no <= 1 || shared.jobs.get::<Msg>(&format!("job:{}", job.fence.job)).is_none());
    if is_free && let Decision::Spawn { plugin, asked } = preflight::decide(&args) {
        args.begun.put(Process::begin(&args, &plugin, &asked));
    }
    args
}

/// A process that waits for its actor. Dropped with it inside, the process is ended and the claim given back.
#[derive(Clone, Default)]
pub(crate) struct Begun(Arc<Mutex<Option<Process>>>);

impl Begun {
    fn put(&self, process: Process) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub(crate) fn take(&self) -> Option<Process> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where the word of a process's thread meets the attempt's actor.
pub(crate) struct Meeting(Mutex<Side>);

enum Side {
    /// The actor is not there yet; what was said waits for it.
    Early(Option<Msg>),
    /// The actor listens.
    Met(Slot<Msg>),
    /// No actor will come.
    Abandoned,
}

impl Meeting {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Side::Early(None))))
    }

    /// From now on the actor is told; answers what was said before.
    fn meet(&self, actor: &Slot<Msg>) -> Option<Msg> {
        match std::mem::replace(&mut *self.lock(), Side::Met(actor.clone())) {
            Side::Early(said) => said,
            Side::Met(_) | Side::Abandoned => None,
        }
    }

    /// No actor comes any more, if none has.
    fn abandon(&self) -> Option<Msg> {
        let mut side = self.lock();
        match &mut *side {
            Side::Early(said) => {
                let said = said.take();
                *side = Side::Abandoned;
                said
            }
            Side::Met(_) | Side::Abandoned => None,
        }
    }

    /// Tells the actor. Nothing else wakes it, so that this takes no place in its mailbox and can't be refused.
    pub(crate) fn tell(&self, args: &JobArgs, msg: Msg) {
        let mut side = self.lock();
        match &mut *side {
            Side::Early(said) => *said = Some(msg),
            Side::Met(actor) => {
                actor.wake(|| msg);
                if !actor.is_up() {
                    args.shared.addresses.reaper.wake(|| reaper::Msg::Crashed);
                }
            }
            Side::Abandoned => {
                drop(side);
                give_back(args, &msg);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Side> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody hears what the thread says of an attempt that got no actor: unless its end is recorded, it counts as never begun.
fn give_back(args: &JobArgs, said: &Msg) {
    if matches!(said, Msg::Recorded) {
        return;
    }
    let JobArgs { shared, job, .. } = args;
    let writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(writer) = writer else { return };
    let (announced, announcing) = (announce::Announced::of_attempt(job), shared.clone());
    let reason = "no actor was started for the attempt".to_owned();
    // what a writer that has ended refuses is the reaper's to find
    writer.give_back_then(job.fence, reason, Some(shared.clock.now() + RETRY_DELAY), move |result| {
        if let Ok(finished) = &result {
            announce::finished(&announcing, &announced, finished);
        }
    });
}

/// The hold on a process. Dropping it cancels: the process is ended even when the actor died.
pub(crate) struct Process {
    handle: Option<Handle>,
    ended: oneshot::Receiver<()>,
    meeting: Arc<Meeting>,
    args: JobArgs,
}

impl Process {
    /// Hands the request to a thread that owns the process from here on. Until it is gone, whether the actor lives or not,
    /// the reaper leaves the row alone, so that no second attempt runs beside the first.
    pub(crate) fn begin(args: &JobArgs, plugin: &Plugin, asked: &ClaimedJob) -> Self {
        // what the thread holds must not hold the process
        let args = JobArgs { begun: Begun::default(), ..args.clone() };
        let JobArgs { shared, generation, job, .. } = &args;
        let deadline = plugin.deadline(&job.command);
        let stdin = protocol::request(asked, plugin, Utc::now() + deadline);
        let invocation = Invocation {
            program: plugin.entrypoint.as_path().into(),
            dir: None,
            env: shared.environments.of(generation, plugin),
            extra_env: environment::of_attempt(shared.boot, job.fence.job, job.attempt),
            stdin,
            deadline,
            limits: Limits::default(),
            bounds: Bounds::of(&plugin.limits, job.memory_tier),
        };
        let (fence, ledger) = (job.fence, shared.addresses.ledger.clone());
        let on_alive = move |pid, pid_start| {
            let (Ok(pid), Ok(pid_start)) = (i32::try_from(pid), i64::try_from(pid_start)) else { return };
            // Lost when the ledger's mailbox is full: recovery then finds the process by its environment.
            let _ = ledger.try_cast(ledger::Msg::RecordSpawn { fence, pid, pid_start });
        };
        let (end, ended) = oneshot::channel();
        let meeting = Meeting::new();
        shared.processes.insert(fence.job);
        let runner = shared.runner.clone();
        announce::preflight(shared, job, "run", "");
        let on_exit = {
            let (args, meeting) = (args.clone(), meeting.clone());
            move |exited| {
                args.shared.processes.remove(fence.job);
                // The stop of an actor waits for this; a dead one left its row to the reaper.
                let _ = end.send(());
                ending::at_once(args, meeting, exited);
            }
        };
        let handle = Some(runner.start_then(invocation, on_alive, on_exit));
        Self { handle, ended, meeting, args }
    }

    /// The actor takes hold; answers what it has missed.
    pub(crate) fn meet(&self, actor: &Slot<Msg>) -> Option<Msg> {
        self.meeting.meet(actor)
    }

    pub(crate) fn cancel(&mut self) {
        self.handle = None;
    }

    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(said) = self.meeting.abandon() {
            give_back(&self.args, &said);
        }
    }
}
