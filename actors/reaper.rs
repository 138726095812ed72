//! The reaper: no row stays `running` without a live attempt, and no process outlives its gateway.
//!
//! Recovery runs in its start, before anything claims: left-over processes of former boots are ended first, their jobs
//! are recovered then. Afterwards it is woken by attempts that died without a report, and by a sweep.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::ids::BootId;
use ductile_domain::job::Fence;
use ductile_domain::outcome::{Cause, Outcome};
use ductile_domain::plan::Plan;
use ductile_domain::retry;
use ductile_ledger::{Finish, Orphan, Recovered, RunningRow, WriteError};
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo, Timer};
use ductile_plugin::leftovers;
use serde_json::{Value, json};

use crate::announce::Announced;
use crate::shared::{LEDGER_DEADLINE, SLOW_POLL, Shared};
use crate::{announce, dispatcher, job, ledger};

/// How long a left-over process may take after SIGTERM.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

/// State: what was found, and whom the last sweep suspected.
pub(crate) struct Reaper {
    shared: Arc<Shared>,
    recovered: usize,
    ended_processes: usize,
    crashed_attempts: u64,
    suspects: HashSet<Fence>,
    timer: Option<Timer>,
}

pub(crate) enum Msg {
    /// Attempts ended without a report: look at the list of them.
    Crashed,
    /// Behind every crash report: look at the rows.
    Sweep,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Crashed => "Crashed",
            Self::Sweep => "Sweep",
        }
    }
}

impl Server for Reaper {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let mut reaper = Self {
            shared,
            recovered: 0,
            ended_processes: 0,
            crashed_attempts: 0,
            suspects: HashSet::new(),
            timer: None,
        };
        reaper.recover().await?;
        reaper.timer = Some(cx.send_after(SLOW_POLL, Msg::Sweep));
        Ok(reaper)
    }

    /// Who crashed while nobody was there to be woken.
    async fn continue_(&mut self, _: &Cx<Self>) -> Result<(), Exit> {
        self.record_crashes().await;
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Crashed => self.record_crashes().await,
            Msg::Sweep => self.sweep(cx).await,
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({
            "recovered": self.recovered, "ended_processes": self.ended_processes,
            "crashed_attempts": self.crashed_attempts, "suspects": self.suspects.len(),
            "unrecorded_crashes": self.shared.crashes.len(), "processes": self.shared.processes.len(),
        })
    }
}

impl Reaper {
    /// Ends what former boots left behind, then gives their jobs another attempt or ends them.
    async fn recover(&mut self) -> Result<(), Exit> {
        let orphans = self.ask(ledger::Msg::Orphans).await?;
        // After a clean stop nothing can be left: its processes ended before it did.
        if !self.shared.was_clean || !orphans.is_empty() {
            self.end_leftovers(&orphans).await;
        }
        if orphans.is_empty() {
            return Ok(());
        }
        let recovered = self.ask(ledger::Msg::Recover).await?;
        self.recovered += recovered.len();
        for Recovered { orphan, finished } in &recovered {
            let status = finished.status.map_or("gone", |s| s.as_str());
            tracing::warn!(
                component = "reaper", job_id = %orphan.fence.job, plugin = %orphan.plugin, attempt = orphan.attempt, status,
                "recovered a job that was running when the gateway stopped"
            );
            announce::finished(&self.shared, &Announced::of_orphan(orphan), finished);
        }
        Ok(())
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<Result<T, WriteError>>) -> ledger::Msg) -> Result<T, Exit> {
        if !ledger::is_reachable(&self.shared).await {
            return Err(Exit::Error("could not recover jobs: the ledger's supervisor is down".to_owned()));
        }
        match self.shared.addresses.ledger.call(make, LEDGER_DEADLINE).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Exit::Error(format!("could not recover jobs: {error}"))),
            Err(error) => Err(Exit::Error(format!("could not recover jobs: {error}"))),
        }
    }

    /// The pid of a process is written after its spawn, so the rows alone may miss one: its environment names the boot.
    async fn end_leftovers(&mut self, orphans: &[Orphan]) {
        let me = self.shared.boot;
        let boots: Vec<BootId> = orphans.iter().filter_map(|o| o.boot).chain(self.shared.former_boot).collect();
        let recorded: Vec<(u32, u64)> = orphans
            .iter()
            .filter_map(|o| Some((u32::try_from(o.pid?).ok()?, u64::try_from(o.pid_start?).ok()?)))
            .collect();
        let search = tokio::task::spawn_blocking(move || {
            let boots: Vec<BootId> = boots.into_iter().filter(|b| *b != me).collect();
            let found = leftovers::find_by_boot_ids(&boots);
            let ended = leftovers::end_groups(&found, LEFTOVER_GRACE);
            // A plugin that replaced its environment is found by its recorded pid alone.
            let also = recorded.into_iter().filter(|(pid, start)| leftovers::kill_group_if_same(*pid, *start)).count();
            (ended, also)
        });
        match search.await {
            Ok((ended, also)) => {
                for process in &ended {
                    let job = process.job.map(|j| j.to_string());
                    tracing::warn!(
                        component = "reaper",
                        pid = process.pid,
                        job_id = job,
                        "ended a plugin process that a former gateway had left"
                    );
                }
                self.ended_processes += ended.len() + also;
            }
            Err(error) => tracing::error!(component = "reaper", %error, "the search for left-over processes failed"),
        }
    }

    /// Writes the records of attempts whose actors died without one. Fenced, so a late report wins or loses whole.
    async fn record_crashes(&mut self) {
        // The end of a process that is still being ended wakes this actor again.
        let mut crashes = self.shared.crashes.known();
        crashes.retain(|claim, _| !self.shared.processes.contains(claim.job));
        if crashes.is_empty() {
            return;
        }
        let Some(rows) = self.running().await else { return };
        for row in &rows {
            if let Some(reason) = crashes.get(&row.fence) {
                self.end_crashed(row, reason).await;
            }
        }
        for claim in crashes.into_keys() {
            self.shared.crashes.remove(claim);
            let plugin = rows.iter().find(|r| r.fence == claim).map_or_else(|| "".into(), |r| r.plugin.clone());
            let _ = self.shared.addresses.dispatcher.try_cast(dispatcher::Msg::Ended { job: claim.job, plugin });
        }
    }

    async fn end_crashed(&mut self, row: &Row, reason: &str) {
        self.crashed_attempts += 1;
        let generation = self.shared.generation();
        let outcome = Outcome::without_process(Cause::Crashed, format!("crashed: {reason}"), self.shared.clock.now());
        let policy = generation.catalog.get(&row.plugin).map(|p| p.retry).unwrap_or_default();
        let ending = retry::decide(&outcome, row.attempt, row.max_attempts, &policy, 0.0);
        let plan = Plan { generation: generation.no, ..Plan::default() };
        let finish = Arc::new(Finish { fence: row.fence, outcome, ending, plan, is_awaited: false });
        if let Err(error) = ledger::finish(&self.shared, &finish, &row.announced()).await {
            tracing::error!(component = "reaper", job_id = %row.fence.job, %error, "the ledger refuses the record of a crash; the sweep tries again");
        }
    }

    /// A row without an actor in two sweeps has none: between claim and start, and between report and end, one is due.
    /// Nobody saw its attempt die either, so none was started (the answer to the claim was lost): it is given back.
    async fn sweep(&mut self, cx: &Cx<Self>) {
        self.timer = Some(cx.send_after(SLOW_POLL, Msg::Sweep));
        self.record_crashes().await;
        let Some(rows) = self.running().await else { return };
        let live: HashSet<String> = self.shared.jobs.which().into_iter().collect();
        let mut suspects = HashSet::new();
        for row in rows {
            let id = row.fence.job;
            let actor = format!("job:{id}");
            if live.contains(&actor) {
                // The hint of a cancellation that was asked for before the actor lived reached nobody.
                if let Some(why) = row.cancelled
                    && let Some(attempt) = self.shared.jobs.get::<job::Msg>(&actor)
                {
                    let _ = attempt.try_cast(job::Msg::Cancel(why));
                }
                continue;
            }
            if self.shared.processes.contains(id) {
                continue;
            }
            if self.suspects.contains(&row.fence) {
                let reason = "no attempt was started for the claim".to_owned();
                ledger::give_back(&self.shared, row.fence, reason, None, &row.announced()).await;
                let _ =
                    self.shared.addresses.dispatcher.try_cast(dispatcher::Msg::Ended { job: id, plugin: row.plugin });
            } else {
                suspects.insert(row.fence);
            }
        }
        self.suspects = suspects;
    }

    /// Rows in `running`, all of this boot: recovery ended the others before anything claimed.
    /// What was granted is written first, so that every attempt has its row.
    async fn running(&self) -> Option<Vec<Row>> {
        if self.shared.addresses.ledger.call(ledger::Msg::Flush, LEDGER_DEADLINE).await.is_err() {
            return None;
        }
        match self.shared.readers.running().await {
            Ok(rows) => Some(rows.into_iter().filter_map(Row::of).collect()),
            Err(error) => {
                tracing::warn!(component = "reaper", %error, "could not read the running jobs; trying again at the next sweep");
                None
            }
        }
    }
}

/// A claim as its row tells it.
struct Row {
    fence: Fence,
    plugin: Arc<str>,
    command: Arc<str>,
    attempt: u32,
    max_attempts: u32,
    /// Why its end is asked for, if it is.
    cancelled: Option<String>,
}

impl Row {
    fn of(row: RunningRow) -> Option<Self> {
        Some(Self {
            fence: Fence { job: row.job_id.parse().ok()?, claim_no: row.claim_no },
            plugin: row.plugin.into(),
            command: row.command.into(),
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            cancelled: row.is_cancel_requested.then(|| row.cancel_reason.unwrap_or_default()),
        })
    }

    fn announced(&self) -> Announced {
        Announced::of_row(self.fence.job, &self.plugin, &self.command, self.attempt)
    }
}
