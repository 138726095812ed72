//! The gateway as its doors see it: questions and orders turned into messages and short reads.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ductile_api::events::EventRing;
use ductile_api::gateway::{
    Cancelled, Gateway, GenerationUse, Health, LimitsLevel, PipelineStart, Refusal, Reloaded, Submission, Submitted,
    SyncPlace,
};
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::schedule::Schedule;
use ductile_domain::time::{self, Timestamp};
use ductile_domain::tree as shown;
use ductile_domain::version::Build;
use ductile_ledger::{Cancelled as Cancellation, Counts, Readers, WriteError};
use ductile_otp::{CallError, InspectError, Kind, Node, RestartError};
use serde_json::Value;

use crate::shared::{CALL_DEADLINE, LEDGER_DEADLINE, SLOW_POLL, Shared};
use crate::{breaker, config, dispatcher, families, job, ledger};

/// How long a caller waits for a reload, with the ones before it.
const RELOAD_DEADLINE: Duration = Duration::from_secs(60);

/// Addresses and shared state behind the doors; holds no actor, so it survives all of them.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What the gateway shares with its actors.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) async fn ask_ledger<T>(
        &self,
        make: impl FnOnce(ductile_otp::Reply<Result<T, WriteError>>) -> ledger::Msg,
    ) -> Result<T, Refusal> {
        match self.shared.addresses.ledger.call(make, LEDGER_DEADLINE).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refuse_write(&error)),
            Err(error) => Err(refuse_call(&error, "the ledger")),
        }
    }
}

fn refuse_write(error: &WriteError) -> Refusal {
    if let WriteError::PluginGone { plugin } = error {
        return Refusal::PluginGone(plugin.clone());
    }
    if error.is_transient() || matches!(error, WriteError::Closed) {
        Refusal::Unavailable { reason: error.to_string(), retry_after: Duration::from_secs(5) }
    } else {
        Refusal::Internal(error.to_string())
    }
}

fn refuse_call(error: &CallError, whom: &str) -> Refusal {
    Refusal::Unavailable { reason: format!("{whom} did not answer: {error}"), retry_after: Duration::from_secs(1) }
}

impl Gateway for Handle {
    async fn submit(&self, submission: Submission) -> Result<Submitted, Refusal> {
        self.enqueue(submission).await
    }

    async fn start_pipeline(&self, start: PipelineStart) -> Result<Vec<Submitted>, Refusal> {
        self.enqueue_pipeline(start).await
    }

    async fn wait_for_family(&self, job: JobId, timeout: Duration) -> bool {
        families::wait(&self.shared, job, timeout).await
    }

    fn sync_place(&self) -> Option<SyncPlace> {
        self.shared.sync_places.take(self.shared.generation().config.api.max_concurrent_sync)
    }

    async fn cancel(&self, job: JobId, why: String, requested_by: String) -> Result<Cancelled, Refusal> {
        let recorded = why.clone();
        let result = self.ask_ledger(|reply| ledger::Msg::Cancel { job, why: recorded, requested_by, reply }).await?;
        Ok(match result {
            Cancellation::Dead { .. } => Cancelled::Dead,
            Cancellation::Flagged => {
                // The flag in the row is the truth; this only makes it quick.
                if let Some(slot) = self.shared.jobs.get::<job::Msg>(&format!("job:{job}")) {
                    let _ = slot.try_cast(job::Msg::Cancel(why));
                }
                Cancelled::Stopping
            }
            Cancellation::AlreadyTerminal(status) => Cancelled::AlreadyTerminal(status),
            Cancellation::Unknown => Cancelled::Unknown,
        })
    }

    async fn wait(&self, job: JobId, timeout: Duration) {
        let waiter = self.shared.waiters.register(job);
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let mut ended = pin!(waiter.ended());
            ended.as_mut().enable();
            match self.shared.readers.status(job).await {
                Ok(Some(status)) if !status.is_terminal() => {}
                _ => return,
            }
            let poll = (tokio::time::Instant::now() + SLOW_POLL).min(deadline);
            let _ = tokio::time::timeout_at(poll, ended).await;
            if tokio::time::Instant::now() >= deadline {
                return;
            }
        }
    }

    async fn set_dispatch(&self, on: bool, requested_by: String) -> Result<(), Refusal> {
        self.ask_ledger(|reply| ledger::Msg::SetPaused { paused: !on, reply }).await?;
        tracing::info!(component = "dispatcher", requested_by, dispatching = on, "dispatch was switched");
        self.shared.flags.set_paused(!on);
        self.shared.addresses.dispatcher.wake(|| dispatcher::Msg::Recheck);
        Ok(())
    }

    async fn run_schedule(
        &self,
        plugin: String,
        schedule: String,
        submitted_by: &'static str,
        requested_by: String,
    ) -> Result<Submitted, Refusal> {
        let generation = self.shared.generation();
        let Some(found) = generation.schedule(&plugin, &schedule).cloned() else {
            return Err(Refusal::UnknownSchedule { plugin, schedule: Some(schedule) });
        };
        if let Err(reason) = &found.timing {
            return Err(Refusal::InvalidSchedule { plugin, schedule, reason: reason.clone() });
        }
        let runnable = generation.catalog.get(&plugin).filter(|p| p.is_runnable && p.command(&found.command).is_some());
        if runnable.is_none() {
            return Err(Refusal::PluginGone(plugin));
        }
        self.enqueue(Submission {
            plugin: found.plugin.clone(),
            command: found.command.clone(),
            payload: found.payload.clone(),
            submitted_by,
            requested_by,
            dedupe_key: None,
            dedupe_in_flight: false,
            context: None,
            replay_of: None,
            is_routed: true,
        })
        .await
    }

    async fn pause_schedules(
        &self,
        plugin: String,
        schedule: Option<String>,
        paused: bool,
        requested_by: String,
    ) -> Result<Vec<String>, Refusal> {
        let generation = self.shared.generation();
        let is_meant = |s: &Schedule| *s.plugin == *plugin && schedule.as_deref().is_none_or(|id| *s.id == *id);
        // those of a plugin that can't be loaded are paused too, for when it is there again
        if !generation.scheduled().any(|s| is_meant(s)) {
            return Err(Refusal::UnknownSchedule { plugin, schedule });
        }
        let named = plugin.clone();
        let make = |reply| ledger::Msg::PauseSchedules { plugin, schedule, paused, reply };
        let changed = self.ask_ledger(make).await;
        // whatever the answer: one that was lost may have been a yes
        self.shared.hints.changed(&self.shared);
        let changed = changed?;
        let ids = changed.join(" ");
        tracing::info!(
            component = "scheduler",
            requested_by,
            plugin = named,
            schedules = ids,
            paused,
            "schedules were paused or resumed"
        );
        Ok(changed)
    }

    async fn reset_breaker(&self, plugin: String, requested_by: String) -> Result<usize, Refusal> {
        tracing::info!(component = "breaker", requested_by, plugin, "reset");
        Ok(self.ask_ledger(|reply| ledger::Msg::ResetBreaker { plugin, reply }).await?.len())
    }

    async fn restart_actor(&self, path: &str) -> Result<(), Refusal> {
        // Not awaited: the restarted actor may be the one that carries this very answer.
        match self.shared.tree.restarts().restart(path) {
            Ok(_) => Ok(()),
            Err(RestartError::Unknown | RestartError::NotRestartable) => Err(Refusal::UnknownActor(path.to_owned())),
            Err(error) => {
                Err(Refusal::Unavailable { reason: format!("{path}: {error}"), retry_after: Duration::from_secs(1) })
            }
        }
    }

    async fn inspect_actor(&self, path: &str) -> Result<Option<Value>, Refusal> {
        match self.shared.tree.inspect(path, Duration::from_millis(500)).await {
            Ok(view) => Ok(Some(view)),
            Err(InspectError::Unknown) => Err(Refusal::UnknownActor(path.to_owned())),
            Err(InspectError::Down | InspectError::Unresponsive) => Ok(None),
        }
    }

    async fn reload(&self, requested_by: String) -> Result<Reloaded, Refusal> {
        let make = |reply| config::Msg::Reload { requested_by, reply };
        match self.shared.addresses.config.call(make, RELOAD_DEADLINE).await {
            Ok(result) => result,
            Err(error) => Err(refuse_call(&error, "the reload")),
        }
    }

    fn stop(&self, requested_by: String) {
        self.shared.stop.send_replace(Some(requested_by));
    }

    fn tree(&self) -> shown::TreeNode {
        self.shared.tree.snapshot().as_ref().map_or_else(unborn, show)
    }

    fn generation(&self) -> Arc<Generation> {
        self.shared.generation()
    }

    fn generations(&self) -> Vec<GenerationUse> {
        self.shared.generations.uses()
    }

    fn intake_stopped(&self) -> Option<String> {
        self.shared.flags.intake_stopped()
    }

    async fn health(&self) -> Health {
        let shared = &self.shared;
        let mut reasons = shared.flags.troubles();
        let counts = shared.readers.counts().await.unwrap_or_else(|error| {
            reasons.push(error.to_string());
            Counts::default()
        });
        let open = shared.addresses.breaker.call(breaker::Msg::CountOpen, CALL_DEADLINE).await;
        Health {
            status: if shared.flags.is_draining() {
                "draining"
            } else if reasons.is_empty() {
                "ok"
            } else {
                "degraded"
            }
            .to_owned(),
            reasons,
            uptime_seconds: shared.started.elapsed().as_secs(),
            queue_depth: counts.queued,
            running: counts.running,
            plugins_loaded: shared.generation().catalog.iter().filter(|p| p.is_runnable).count(),
            plugins_circuit_open: open.unwrap_or(0),
            paused: shared.flags.is_paused(),
            limits: shared.runner.cgroups().map_or_else(LimitsLevel::default, |cgroups| LimitsLevel {
                level: cgroups.level().as_str(),
                reason: cgroups.why().map(str::to_owned),
            }),
        }
    }

    fn events(&self) -> &EventRing {
        &self.shared.ring
    }

    fn readers(&self) -> &Readers {
        &self.shared.readers
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn boot_id(&self) -> BootId {
        self.shared.boot
    }

    fn build(&self) -> Build {
        self.shared.build
    }
}

/// The generic layer's node as the doors show it.
fn show(node: &Node) -> shown::TreeNode {
    let text = |at: SystemTime| time::format(at.into());
    let kind = if node.kind == Kind::Worker { "worker" } else { "supervisor" };
    let strategy = if node.kind == Kind::Dynamic { Some("dynamic") } else { node.strategy.map(|s| s.as_str()) };
    shown::TreeNode {
        path: node.path.to_string(),
        name: node.name.clone(),
        kind: kind.to_owned(),
        strategy: strategy.map(str::to_owned),
        restart: node.restart.as_str().to_owned(),
        phase: node.phase.as_str().to_owned(),
        incarnation: node.incarnation,
        restarts: node.restarts,
        started_at: node.started_at.map(text).unwrap_or_default(),
        last_exit: node.last_exit.as_ref().map(|e| shown::LastExit {
            class: e.class.to_owned(),
            reason: e.reason.clone(),
            at: text(e.at),
        }),
        mailbox: node.mailbox.map(|m| shown::Mailbox { len: m.len, cap: m.cap }),
        handling: node.handling.map(|h| shown::Handling {
            message: h.kind.to_owned(),
            for_ms: u64::try_from(h.time.as_millis()).unwrap_or(u64::MAX),
        }),
        children: node.children.iter().map(show).collect(),
    }
}

/// A root that has not been started yet.
fn unborn() -> shown::TreeNode {
    shown::TreeNode {
        path: "root".to_owned(),
        name: "root".to_owned(),
        kind: "supervisor".to_owned(),
        strategy: None,
        restart: "permanent".to_owned(),
        phase: "starting".to_owned(),
        incarnation: 0,
        restarts: 0,
        started_at: String::new(),
        last_exit: None,
        mailbox: None,
        handling: None,
        children: Vec::new(),
    }
}
