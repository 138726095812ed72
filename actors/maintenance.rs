//! Maintenance of the ledger: prunes what is past its retention, copies the write-ahead log back, checks the file after
//! an unclean stop.
//!
//! Woken by the scheduler's tick. It works in bounded steps through the ledger actor, so that nobody waits long behind it.

use std::sync::Arc;
use std::time::Duration;

use ductile_ledger::{Deletable, Prune};
use ductile_otp::{Cx, Exit, Message, Server, StartInfo, Timer};
use serde_json::{Value, json};

use crate::ledger;
use crate::shared::{LEDGER_DEADLINE, Shared};

/// Pause between two steps of pruning, for everybody else.
const BREATH: Duration = Duration::from_millis(50);

/// Rows of a kind that one step deletes at most: a few milliseconds of the writer's time.
const STEP: u32 = 500;

/// State: what was done, for inspection.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    pruned: u64,
    check: Option<String>,
    again: Option<Timer>,
}

pub(crate) enum Msg {
    /// A tick has passed.
    Prune,
    /// Go on with what one step did not finish.
    PruneMore,
    /// The check of the file has ended; the text is its finding.
    Checked(Result<(), String>),
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Prune => "Prune",
            Self::PruneMore => "PruneMore",
            Self::Checked(_) => "Checked",
        }
    }
}

impl Server for Maintenance {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared, pruned: 0, check: None, again: None })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        if !self.shared.was_clean {
            self.check_file(cx);
        }
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Prune | Msg::PruneMore => self.prune(cx).await,
            Msg::Checked(finding) => self.note(finding),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({ "pruned_rows": self.pruned, "quick_check": self.check })
    }
}

impl Maintenance {
    /// Runs beside everything else: a large file takes its time, and readiness does not wait for it.
    fn check_file(&mut self, cx: &Cx<Self>) {
        let (shared, me) = (self.shared.clone(), cx.slot().clone());
        self.check = Some("running".to_owned());
        drop(cx.spawn(async move {
            let finding = match shared.readers.quick_check().await {
                Ok(findings) if findings.is_empty() => Ok(()),
                Ok(findings) => Err(findings.join("; ")),
                Err(error) => Err(error.to_string()),
            };
            let _ = me.try_cast(Msg::Checked(finding));
        }));
    }

    fn note(&mut self, finding: Result<(), String>) {
        match finding {
            Ok(()) => {
                tracing::info!(component = "maintenance", "quick_check after an unclean stop: ok");
                self.check = Some("ok".to_owned());
            }
            Err(error) => {
                tracing::error!(component = "maintenance", %error, "quick_check after an unclean stop found damage; restore a backup");
                self.shared.flags.degrade("quick_check", format!("the ledger file is damaged: {error}"));
                self.check = Some(error);
            }
        }
    }

    async fn prune(&mut self, cx: &Cx<Self>) {
        let generation = self.shared.generation();
        let service = &generation.config.service;
        // A context is older than the end of its job, and what the log has can be replayed with it.
        let context_retention = service.job_log_retention.saturating_add(service.job_queue_retention);
        let step = Prune {
            retention: vec![
                (Deletable::Jobs, service.job_queue_retention),
                (Deletable::Log, service.job_log_retention),
                (Deletable::Contexts, context_retention),
            ],
            limit: STEP,
        };
        let answer = self.shared.addresses.ledger.call(|reply| ledger::Msg::Prune(step, reply), LEDGER_DEADLINE).await;
        match answer {
            Ok(Ok(pruned)) => {
                let rows: u64 = pruned.deleted.iter().map(|(_, n)| n).sum();
                self.pruned += rows;
                // A context goes after those that accrete to it: what it stood under may go with the next step.
                let uncovered = pruned.deleted.iter().any(|(kind, n)| *kind == Deletable::Contexts && *n > 0);
                if pruned.has_more || uncovered {
                    self.again = Some(cx.send_after(BREATH, Msg::PruneMore));
                } else if rows > 0 {
                    self.checkpoint().await;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(component = "maintenance", %error, "could not prune; trying again at the next tick")
            }
            Err(error) => {
                tracing::warn!(component = "maintenance", %error, "could not prune; trying again at the next tick")
            }
        }
    }

    async fn checkpoint(&self) {
        let answer = self.shared.addresses.ledger.call(ledger::Msg::Checkpoint, LEDGER_DEADLINE).await;
        if let Ok(Err(error)) = answer {
            tracing::warn!(component = "maintenance", %error, "could not checkpoint");
        }
    }
}
