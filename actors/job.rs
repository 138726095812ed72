//! One attempt of one job: owns the claim, holds the handle of the process, and reports the end exactly once.
//!
//! Never restarted: another attempt is another claim and another actor. Woken by the process's end, by a cancellation
//! and by its supervisor's stop. If it dies by itself, dropping the handle ends the process and the reaper writes the
//! record.

use std::sync::Arc;

use chrono::Utc;
use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::plan::{self, Plan};
use ductile_ledger::{Finish, Verdict, WriteError};
use ductile_otp::{Cx, Exit, Message, Server, Slot, StartInfo};
use ductile_plugin::{End, Exited, Handle, Invocation, Limits};
use ductile_plugin::{environment, protocol};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::announce::Announced;
use crate::generations::Place;
use crate::shared::{CALL_DEADLINE, Shared};
use crate::{announce, dispatcher, ending, ledger, router};

/// What an attempt is made of.
#[derive(Clone)]
pub(crate) struct JobArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) generation: Arc<Generation>,
    pub(crate) job: Arc<ClaimedJob>,
    /// A stored value of the job that can't be read.
    pub(crate) unreadable: Option<&'static str>,
}

/// State: the claim, and where in its life it is.
pub(crate) struct Job {
    args: JobArgs,
    /// Counts it under its generation.
    _place: Place,
    phase: Phase,
    cancelled: Option<String>,
    /// The claim's end is recorded, or left to the reaper's sweep.
    is_settled: bool,
}

enum Phase {
    /// Preflight is being decided.
    Claimed,
    /// The process is owned by a thread.
    Running(Process),
    /// The outcome is on its way to the ledger, or there.
    Reported,
}

pub(crate) enum Msg {
    /// The process was reaped, and something has to be asked before its end can be recorded.
    Exited(Box<Exited>),
    /// Its end is recorded.
    Recorded,
    /// Its end could not be recorded at once.
    Unrecorded(Arc<Finish>),
    /// It was lost to a panic of our own.
    Lost,
    /// Someone cancelled the job; the text is recorded.
    Cancel(String),
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exited(_) => "Exited",
            Self::Recorded => "Recorded",
            Self::Unrecorded(_) => "Unrecorded",
            Self::Lost => "Lost",
            Self::Cancel(_) => "Cancel",
        }
    }
}

impl Server for Job {
    type Msg = Msg;
    type Args = JobArgs;

    async fn init(args: JobArgs, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let place = args.shared.generations.enter(&args.generation);
        Ok(Self { args, _place: place, phase: Phase::Claimed, cancelled: None, is_settled: false })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        match self.preflight() {
            Ok(plugin) => {
                self.spawn(cx, &plugin);
                Ok(())
            }
            Err(outcome) => {
                let reason = outcome.error.as_deref().unwrap_or_default();
                announce::preflight(&self.args.shared, &self.args.job, "fail", reason);
                self.report(*outcome).await
            }
        }
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Exited(exited) => self.exited(*exited).await,
            Msg::Recorded => self.recorded(),
            Msg::Lost => Err(Exit::Error("the end of the process was lost to a panic".to_owned())),
            Msg::Unrecorded(finish) => self.report(finish.outcome.clone()).await,
            Msg::Cancel(why) => {
                self.cancel(why);
                Ok(())
            }
        }
    }

    async fn terminate(&mut self, _: &Cx<Self>, why: &Exit) {
        self.stop(why).await;
    }

    fn inspect(&self) -> Value {
        let phase = match self.phase {
            Phase::Claimed => "claimed",
            Phase::Running(_) => "running",
            Phase::Reported => "reporting",
        };
        let job = &self.args.job;
        json!({
            "job_id": job.fence.job, "plugin": &*job.plugin, "command": &*job.command, "attempt": job.attempt,
            "phase": phase, "generation": self.args.generation.no, "cancelled": self.cancelled,
        })
    }
}

impl Job {
    /// Decides before any spawn whether the attempt may run.
    fn preflight(&self) -> Result<Arc<Plugin>, Box<Outcome>> {
        let JobArgs { generation, job, unreadable, .. } = &self.args;
        if let Some(column) = unreadable {
            let text = format!("preflight: the stored {column} is no JSON and can't be handed to the plugin");
            return Err(Box::new(Outcome::without_process(Cause::Preflight, text, Utc::now())));
        }
        let gone = |text: String| Box::new(Outcome::without_process(Cause::PluginGone, text, Utc::now()));
        let plugin = generation.catalog.get(&job.plugin).filter(|p| p.is_runnable).ok_or_else(|| {
            gone(format!("cancelled: plugin {:?} is removed or disabled in the configuration", job.plugin))
        })?;
        if plugin.command(&job.command).is_none() {
            return Err(gone(format!("cancelled: plugin {:?} has no command {:?} any more", job.plugin, job.command)));
        }
        Ok(plugin.clone())
    }

    /// Hands the request to a thread that owns the process from here on.
    fn spawn(&mut self, cx: &Cx<Self>, plugin: &Plugin) {
        let JobArgs { shared, generation, job, .. } = &self.args;
        let deadline = plugin.deadline(&job.command);
        let stdin = protocol::request(job, plugin, Utc::now() + deadline);
        let invocation = Invocation {
            program: plugin.entrypoint.as_path().into(),
            dir: None,
            env: shared.environments.of(generation, plugin),
            extra_env: environment::of_attempt(shared.boot, job.fence.job, job.attempt),
            stdin,
            deadline,
            limits: Limits::default(),
        };
        let (fence, ledger) = (job.fence, shared.addresses.ledger.clone());
        let on_alive = move |pid, pid_start| {
            let (Ok(pid), Ok(pid_start)) = (i32::try_from(pid), i64::try_from(pid_start)) else { return };
            // Lost when the ledger's mailbox is full: recovery then finds the process by its environment.
            let _ = ledger.try_cast(ledger::Msg::RecordSpawn { fence, pid, pid_start });
        };
        let process = Process::start(&self.args, cx.slot().clone(), invocation, on_alive);
        announce::preflight(shared, job, "run", "");
        self.phase = Phase::Running(process);
    }

    fn cancel(&mut self, why: String) {
        self.cancelled.get_or_insert(why);
        if let Phase::Running(process) = &mut self.phase {
            process.cancel();
        }
    }

    async fn exited(&mut self, exited: Exited) -> Result<(), Exit> {
        if let End::SpawnFailed { ours: true, error } = &exited.end {
            return self.give_back_for_lack_of_resources(error.clone()).await;
        }
        let was_cancelled = matches!(exited.end, End::Cancelled);
        let Some(mut outcome) = ending::judged(&self.args, exited) else {
            return Err(Exit::Error("the plugin vanished from an immutable generation".to_owned()));
        };
        if was_cancelled && let Some(why) = &self.cancelled {
            outcome.error = Some(format!("cancelled: {why}"));
        }
        self.report(outcome).await
    }

    fn recorded(&mut self) -> Result<(), Exit> {
        self.phase = Phase::Reported;
        self.tell_ended();
        Err(Exit::Normal)
    }

    /// Our own lack of processes, memory or descriptors says nothing about the plugin: the attempt does not count.
    async fn give_back_for_lack_of_resources(&mut self, error: String) -> Result<(), Exit> {
        let JobArgs { shared, job, .. } = &self.args;
        tracing::error!(
            component = "job", plugin = %job.plugin, job_id = %job.fence.job, %error,
            "could not start a process; the attempt is given back"
        );
        shared
            .flags
            .degrade("spawn", format!("could not start a process: {error}; attempts are given back and tried again"));
        let due = Utc::now() + chrono::Duration::seconds(1);
        let announced = Announced::of_attempt(job);
        ledger::give_back(shared, job.fence, format!("spawn: {error}"), Some(due), &announced).await;
        self.phase = Phase::Reported;
        self.tell_ended();
        Err(Exit::Normal)
    }

    /// Plans what follows, and commits the end with everything that it causes.
    async fn report(&mut self, outcome: Outcome) -> Result<(), Exit> {
        self.phase = Phase::Reported;
        let mut outcome = Arc::new(outcome);
        loop {
            let finish = self.finish_with(&outcome).await;
            let JobArgs { shared, job, .. } = &self.args;
            let announced = Announced::of_attempt(job);
            match ledger::finish(shared, &finish, &announced).await {
                Ok(finished) if finished.verdict == Verdict::Replan => {}
                Ok(_) => break,
                Err(WriteError::Closed) => {
                    self.outlive(finish, announced);
                    return Err(Exit::Normal);
                }
                Err(error) => {
                    tracing::error!(component = "job", plugin = %job.plugin, job_id = %job.fence.job, %error, "the ledger refuses the outcome");
                    outcome = Arc::new(refused_by_the_ledger(&outcome, &error));
                }
            }
        }
        self.tell_ended();
        Err(Exit::Normal)
    }

    /// The ledger's supervisor is down, and with it this actor is about to be stopped. The outcome is not lost for that:
    /// a task holds it until the ledger is back, and the row is spoken for as long.
    fn outlive(&mut self, finish: Arc<Finish>, announced: Announced) {
        let JobArgs { shared, job, .. } = &self.args;
        let (shared, plugin, id) = (shared.clone(), job.plugin.clone(), job.fence.job);
        shared.processes.insert(id);
        self.is_settled = true;
        tokio::spawn(async move {
            while !shared.flags.is_shutting_down() {
                match ledger::finish(&shared, &finish, &announced).await {
                    Err(WriteError::Closed) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(component = "job", job_id = %id, %error, "the ledger refuses the outcome; the attempt is given back");
                        break;
                    }
                }
            }
            shared.processes.remove(id);
            let _ = shared.addresses.dispatcher.try_cast(dispatcher::Msg::Ended { job: id, plugin });
        });
    }

    async fn finish_with(&self, outcome: &Arc<Outcome>) -> Arc<Finish> {
        let plan = self.plan(outcome).await;
        for kind in &plan.unmatched {
            let job = &self.args.job;
            tracing::debug!(component = "router", plugin = %job.plugin, job_id = %job.fence.job, event = kind, "event matched nothing");
        }
        ending::finish(&self.args, Outcome::clone(outcome), plan)
    }

    /// Asks the router when there is something to route; state alone needs no question.
    async fn plan(&self, outcome: &Arc<Outcome>) -> Plan {
        let JobArgs { shared, generation, job, .. } = &self.args;
        if !ending::needs_router(outcome) {
            return plan::plan(generation, job, outcome, Utc::now(), &mut uuid::Uuid::now_v7);
        }
        loop {
            let answer = shared
                .addresses
                .router
                .call(
                    |reply| router::Msg::Plan {
                        generation: generation.clone(),
                        job: job.clone(),
                        outcome: outcome.clone(),
                        reply,
                    },
                    CALL_DEADLINE,
                )
                .await;
            match answer {
                Ok(plan) => return plan,
                // The plan is pure: asking again is free of effects, and the job must not end without it.
                Err(error) => {
                    tracing::warn!(component = "job", job_id = %job.fence.job, %error, "the router did not answer; asking again")
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// After the commit: whoever was refused for this job's sake may be tried again.
    fn tell_ended(&mut self) {
        self.is_settled = true;
        let JobArgs { shared, job, .. } = &self.args;
        let ended = dispatcher::Msg::Ended { job: job.fence.job, plugin: job.plugin.clone() };
        let _ = shared.addresses.dispatcher.try_cast(ended);
    }

    /// Our own stop: the process ends first, then the attempt is given back, uncounted.
    async fn stop(&mut self, why: &Exit) {
        if self.is_settled {
            return;
        }
        if let Phase::Running(process) = &mut self.phase {
            process.cancel();
            process.ended().await;
        }
        let JobArgs { shared, job, .. } = &self.args;
        // A cancellation that the stop has overtaken stands in the row: giving back honours it.
        let announced = Announced::of_attempt(job);
        let reason = format!("interrupted: {why}");
        self.is_settled = ledger::give_back(shared, job.fence, reason, None, &announced).await;
        self.phase = Phase::Reported;
    }
}

/// However the actor ends: a claim without a report is known to the reaper before the actor's name is free again.
impl Drop for Job {
    fn drop(&mut self) {
        if !self.is_settled {
            self.args.shared.crashes.add(self.args.job.fence);
        }
    }
}

/// The end that can be recorded when the one that happened can't: what the plugin sent is left out, the reason stays.
fn refused_by_the_ledger(outcome: &Outcome, error: &WriteError) -> Outcome {
    let text = format!("the ledger refused the outcome: {error}");
    Outcome { timing: outcome.timing, ..Outcome::without_process(Cause::Protocol, text, outcome.ended_at) }
}

/// The actor's hold on its process. Dropping it cancels: the process is ended even when the actor died.
struct Process {
    handle: Option<Handle>,
    ended: oneshot::Receiver<()>,
}

impl Process {
    /// Starts the process. Until it is gone, whether the actor lives or not, the reaper leaves the row alone, so that no
    /// second attempt runs beside the first.
    fn start(
        args: &JobArgs,
        actor: Slot<Msg>,
        invocation: Invocation,
        on_alive: impl FnOnce(u32, u64) + Send + 'static,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let job = args.job.fence.job;
        args.shared.processes.insert(job);
        let args = args.clone();
        let runner = args.shared.runner.clone();
        let on_exit = move |exited| {
            args.shared.processes.remove(job);
            // The stop of an actor waits for this; a dead one left its row to the reaper.
            let _ = end.send(());
            ending::at_once(args, actor, exited);
        };
        Self { handle: Some(runner.start_then(invocation, on_alive, on_exit)), ended }
    }

    fn cancel(&mut self) {
        self.handle = None;
    }

    async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }
}
