//! Maintenance of the ledger: prunes what is past its retention, gives free pages back, notes how large the file is,
//! checks it after an unclean stop; and looks for silent schedules.
//!
//! Woken by its own timer. It works in bounded steps through the ledger actor, so that nobody waits long behind it.

use std::sync::Arc;
use std::time::Duration;

use ductile_ledger::{Prune, WriteError};
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo, Task, Timer};
use serde_json::{Value, json};

use crate::shared::{LEDGER_DEADLINE, Shared};
use crate::silence::{self, Silence};
use crate::{ledger, reload};

/// Pause between two steps, for everybody else.
const BREATH: Duration = Duration::from_millis(50);

/// State: what was done, for inspection.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    rows: u64,
    pages: u64,
    steps: u64,
    /// The round that is under way, or was.
    round: Option<Task>,
    silence: Silence,
    check: Option<String>,
    timer: Option<Timer>,
}

pub(crate) enum Msg {
    /// `service.tick_interval` has passed.
    Tick,
    /// A reload may have changed the interval.
    Retime,
    /// A round has ended; the text is why it could not.
    Tidied(Result<Done, String>),
    /// It was looked for silent schedules.
    Listened(silence::Found),
    /// The check of the file has ended; the text is its finding.
    Checked(Result<(), String>),
}

/// What a round has done.
#[derive(Default)]
pub(crate) struct Done {
    rows: u64,
    pages: u64,
    steps: u64,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Tick => "Tick",
            Self::Retime => "Retime",
            Self::Tidied(_) => "Tidied",
            Self::Listened(_) => "Listened",
            Self::Checked(_) => "Checked",
        }
    }
}

impl Server for Maintenance {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let mut maintenance = Self {
            shared,
            rows: 0,
            pages: 0,
            steps: 0,
            round: None,
            silence: Silence::default(),
            check: None,
            timer: None,
        };
        maintenance.arm(cx);
        Ok(maintenance)
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        if !self.shared.was_clean {
            self.check_file(cx);
        }
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Tick => self.tick(cx),
            Msg::Retime => self.arm(cx),
            Msg::Tidied(done) => self.tidied(done),
            Msg::Listened(found) => self.silence.tell(&self.shared, found),
            Msg::Checked(finding) => self.note(finding),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({
            "pruned_rows": self.rows, "freed_pages": self.pages, "steps": self.steps, "tidying": self.is_tidying(),
            "silent_schedules": self.silence.len(), "quick_check": self.check
        })
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

    fn tick(&mut self, cx: &Cx<Self>) {
        self.arm(cx);
        let (shared, me) = (self.shared.clone(), cx.slot().clone());
        drop(cx.spawn(async move {
            let _ = me.try_cast(Msg::Listened(silence::look(shared).await));
        }));
        // a task of its own, not of this actor: what is committed must be put in force even when the actor dies meanwhile
        let shared = self.shared.clone();
        drop(tokio::spawn(async move { reload::settle(&shared).await }));
        // one that takes longer than a tick goes on
        if !self.is_tidying() {
            let (shared, me) = (self.shared.clone(), cx.slot().clone());
            self.round = Some(cx.spawn(async move {
                let done = tidy(&shared).await;
                let _ = me.try_cast(Msg::Tidied(done));
            }));
        }
    }

    fn is_tidying(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !round.is_finished())
    }

    fn tidied(&mut self, done: Result<Done, String>) {
        match done {
            Ok(done) => {
                self.rows += done.rows;
                self.pages += done.pages;
                self.steps += done.steps;
            }
            Err(error) => {
                tracing::warn!(
                    component = "maintenance",
                    error,
                    "could not tidy the ledger up; trying again at the next tick"
                );
            }
        }
    }

    fn arm(&mut self, cx: &Cx<Self>) {
        let interval = self.shared.generation().config.service.tick_interval;
        self.timer = Some(cx.send_after(interval, Msg::Tick));
    }
}

/// One round of pruning, and what follows from it. Each step is an operation of its own, with a pause behind it for
/// everybody else.
async fn tidy(shared: &Shared) -> Result<Done, String> {
    let mut done = Done::default();
    loop {
        // a reload may have changed what it needs
        let step = Prune::by_settings(&shared.generation().config.service);
        let pruned = ask(shared, |reply| ledger::Msg::Prune(step, reply)).await?;
        done.rows += pruned.deleted.iter().map(|(_, rows)| rows).sum::<u64>();
        done.steps += 1;
        if !pruned.has_more {
            break;
        }
        tokio::time::sleep(BREATH).await;
    }
    loop {
        let vacuumed = ask(shared, ledger::Msg::Vacuum).await?;
        done.pages += vacuumed.pages;
        if !vacuumed.has_more {
            break;
        }
        done.steps += 1;
        tokio::time::sleep(BREATH).await;
    }
    if done.pages > 0 {
        // the file shrinks when the log is copied
        ask(shared, ledger::Msg::Checkpoint).await?;
    }
    ask(shared, ledger::Msg::SampleStorage).await?;
    Ok(done)
}

async fn ask<T>(shared: &Shared, make: impl FnOnce(Reply<Result<T, WriteError>>) -> ledger::Msg) -> Result<T, String> {
    match shared.addresses.ledger.call(make, LEDGER_DEADLINE).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
