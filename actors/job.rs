//! One attempt of one job: owns the claim, holds the handle of the process, and reports the end exactly once.
//!
//! Never restarted: another attempt is another claim and another actor. Woken by the process's end, by a cancellation
//! and by its supervisor's stop. If it dies by itself, dropping the handle ends the process and the reaper writes the
//! record.

use std::sync::Arc;
use std::time::Duration;

use ductile_domain::catalog::Plugin;
use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_domain::outcome::{Cause, Outcome};
use ductile_ledger::{Finish, Verdict, WriteError};
use ductile_otp::{Cx, Exit, Message, Server, StartInfo};
use ductile_plugin::{End, Exited};
use serde_json::{Value, json};

use crate::announce::Announced;
use crate::attempt::{Begun, Process, RETRY_DELAY};
use crate::generations::Place;
use crate::preflight::{self, Decision};
use crate::shared::{CALL_DEADLINE, Shared};
use crate::{announce, dispatcher, ending, ledger, router};

/// How often an end is planned again because of reloads before it is recorded without what they took away.
const REPLANS: u32 = 3;

/// What an attempt is made of.
#[derive(Clone)]
pub(crate) struct JobArgs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) generation: Arc<Generation>,
    pub(crate) job: Arc<ClaimedJob>,
    /// A stored value of the job that can't be read.
    pub(crate) unreadable: Option<&'static str>,
    /// Its process, when that was begun before the actor.
    pub(crate) begun: Begun,
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
        let begun = args.begun.take();
        let phase = begun.map_or(Phase::Claimed, Phase::Running);
        Ok(Self { args, _place: place, phase, cancelled: None, is_settled: false })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        if let Phase::Running(process) = &self.phase {
            return match process.meet(cx.slot()) {
                Some(msg) => self.handle(cx, msg).await,
                None => Ok(()),
            };
        }
        let JobArgs { shared, job, .. } = &self.args;
        match preflight::decide(&self.args) {
            Decision::Spawn { plugin, asked } => {
                self.spawn(cx, &plugin, &asked);
                Ok(())
            }
            Decision::Done(outcome) => {
                announce::preflight(shared, job, "run", "");
                self.report(*outcome).await
            }
            Decision::Refused(outcome) => {
                announce::preflight(shared, job, "fail", outcome.error.as_deref().unwrap_or_default());
                self.report(*outcome).await
            }
        }
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Exited(exited) => self.exited(*exited).await,
            Msg::Recorded => self.recorded(),
            Msg::Lost => Err(Exit::Error("the end of the process was lost to a panic".to_owned())),
            Msg::Unrecorded(finish) => self.record(finish).await,
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
    /// Hands the request to a thread that owns the process from here on.
    fn spawn(&mut self, cx: &Cx<Self>, plugin: &Plugin, asked: &ClaimedJob) {
        let process = Process::begin(&self.args, plugin, asked);
        // nobody has told it anything yet, or it is told by the mailbox
        if let Some(msg) = process.meet(cx.slot()) {
            cx.slot().wake(|| msg);
        }
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
        let due = shared.clock.now() + RETRY_DELAY;
        let announced = Announced::of_attempt(job);
        ledger::give_back(shared, job.fence, format!("spawn: {error}"), Some(due), &announced).await;
        self.phase = Phase::Reported;
        self.tell_ended();
        Err(Exit::Normal)
    }

    /// Plans what follows, and commits the end with everything that it causes.
    async fn report(&mut self, outcome: Outcome) -> Result<(), Exit> {
        let finish = ending::finish(&self.args, outcome);
        self.record(finish).await
    }

    async fn record(&mut self, mut finish: Arc<Finish>) -> Result<(), Exit> {
        self.phase = Phase::Reported;
        let mut replans = 0;
        let mut patience = Duration::ZERO;
        loop {
            let JobArgs { shared, job, .. } = &self.args;
            let announced = Announced::of_attempt(job);
            match ledger::finish(shared, &finish, &announced).await {
                Ok(finished) if finished.verdict == Verdict::Replan => {
                    replans += 1;
                    finish = replan(&self.args, &finish, replans).await;
                }
                Ok(_) => break,
                Err(WriteError::Closed) => {
                    self.outlive(finish, announced);
                    return Err(Exit::Normal);
                }
                Err(error) => {
                    tracing::error!(component = "job", plugin = %job.plugin, job_id = %job.fence.job, %error, "the ledger refuses the outcome");
                    // What is refused twice is not what the plugin sent: only time or a person can mend it.
                    tokio::time::sleep(patience).await;
                    patience = (patience * 2).clamp(Duration::from_millis(100), Duration::from_secs(5));
                    finish = ending::finish(&self.args, refused_by_the_ledger(&finish.outcome, &error));
                }
            }
        }
        self.tell_ended();
        Err(Exit::Normal)
    }

    /// The ledger's supervisor is down, and with it this actor is about to be stopped. The outcome is not lost for that:
    /// a task holds it until the ledger is back, and the row is spoken for as long.
    fn outlive(&mut self, mut finish: Arc<Finish>, announced: Announced) {
        let args = self.args.clone();
        let (shared, plugin, id) = (args.shared.clone(), args.job.plugin.clone(), args.job.fence.job);
        shared.processes.insert(id);
        self.is_settled = true;
        tokio::spawn(async move {
            let mut replans = 0;
            while !shared.flags.is_shutting_down() {
                match ledger::finish(&shared, &finish, &announced).await {
                    Ok(finished) if finished.verdict == Verdict::Replan => {
                        replans += 1;
                        finish = replan(&args, &finish, replans).await;
                    }
                    Err(WriteError::Closed) => tokio::time::sleep(Duration::from_millis(20)).await,
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

/// A reload has taken away what the plan needs: the router plans again under what is in force now. When that is not
/// enough either, the rest follows without it.
async fn replan(args: &JobArgs, finish: &Arc<Finish>, times: u32) -> Arc<Finish> {
    let JobArgs { shared, job, .. } = args;
    loop {
        let generation = shared.generation();
        let make = |reply| router::Msg::Plan {
            generation: generation.clone(),
            job: job.clone(),
            finish: finish.clone(),
            reply,
        };
        match shared.addresses.router.call(make, CALL_DEADLINE).await {
            Ok(mut plan) => {
                let mut outcome = finish.outcome.clone();
                outcome.error = None;
                if times >= REPLANS {
                    let gone = ending::leave_out_gone(&mut plan, |plugin| generation.config.wants(plugin));
                    // a join must not take a branch that lost its way for one that arrived
                    match gone {
                        Some(text) if job.seat.is_some() => plan.fault = Some(text),
                        gone => outcome.error = gone,
                    }
                }
                return ending::finish_with(args, outcome, plan);
            }
            // The plan is pure: asking again is free of effects, and the job must not end without it.
            Err(error) => {
                tracing::warn!(component = "job", job_id = %job.fence.job, %error, "the router did not answer; asking again");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The end that can be recorded when the one that happened can't: what the plugin sent is left out, the reason stays.
fn refused_by_the_ledger(outcome: &Outcome, error: &WriteError) -> Outcome {
    let text = format!("the ledger refused the outcome: {error}");
    Outcome { timing: outcome.timing, ..Outcome::without_process(Cause::Protocol, text, outcome.ended_at) }
}
