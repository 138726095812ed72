//! The dispatcher: turns free slots into claims and claims into attempts.
//!
//! Woken by work and by ends of attempts. While all slots are held, one claim stands in the ledger, to be decided in the
//! transaction of the next end: the commit that frees a slot takes it. Its counts are hints for how much to ask for; the ledger rechecks every cap
//! from rows in the transaction of the claim. It never waits for a job.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimRequest, Fence};
use ductile_ledger::{Claimed, Claims, Refusal, Refused, WriteError};
use ductile_otp::{Cx, Exit, Message, Restart, Server, Shutdown, Slot, StartInfo, Timer};
use serde_json::{Value, json};

use crate::job::{Job, JobArgs};
use crate::shared::{CALL_DEADLINE, LEDGER_DEADLINE, SLOW_POLL, Shared};
use crate::{ledger, queue};

/// What an attempt's actor gets beyond the plugin's own grace when it is told to stop.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// State: who runs, as far as it was told.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// Attempts that hold a slot, by job.
    live: HashMap<JobId, Arc<str>>,
    /// Slots asked for in claims that are under way, but for the standing one.
    claiming: HashMap<Arc<str>, usize>,
    /// A claim stands in the ledger.
    is_standing: bool,
    /// Plugins with candidates that wait in the queue for the end of a twin.
    with_twins: HashSet<Arc<str>>,
    /// Plugins whose cap refused a claim although a slot seemed free: not asked for until one of their jobs ends.
    full: HashSet<Arc<str>>,
    /// The cap over all plugins did: nothing is asked for until a job ends.
    is_full: bool,
    /// Ends of attempts so far: a refusal that an end has overtaken is no reason to wait for another.
    ends: u64,
    poll: Option<Timer>,
}

/// A claim under way.
pub(crate) struct Asked {
    candidates: Vec<Candidate>,
    generation: Arc<Generation>,
    /// [`Dispatcher::ends`] when it was sent.
    ends: u64,
    at_next_end: bool,
}

/// A claim that is owed an answer. Dropped without one it answers that there is none: the claim may have been committed
/// then; the reaper finds rows without an attempt and gives them back.
struct Asking {
    me: Slot<Msg>,
    asked: Option<Asked>,
}

impl Asking {
    fn answered(mut self, result: Result<Claims, String>) {
        self.tell(result);
    }

    /// Lost when the mailbox is full: the next poll counts again.
    fn tell(&mut self, result: Result<Claims, String>) {
        if let Some(asked) = self.asked.take() {
            let _ = self.me.try_cast(Msg::Claimed { asked, result });
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.tell(Err("the ledger did not answer".to_owned()));
    }
}

pub(crate) enum Msg {
    /// The queue has candidates.
    WorkAvailable,
    /// A claim was answered.
    Claimed { asked: Asked, result: Result<Claims, String> },
    /// This attempt's end is committed, whatever way it came.
    Ended { job: JobId, plugin: Arc<str> },
    /// The operator paused or resumed, or the generation changed.
    Recheck,
    /// Behind every wake-up: count again from rows.
    Poll,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::WorkAvailable => "WorkAvailable",
            Self::Claimed { .. } => "Claimed",
            Self::Ended { .. } => "Ended",
            Self::Recheck => "Recheck",
            Self::Poll => "Poll",
        }
    }
}

impl Server for Dispatcher {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self {
            shared,
            live: HashMap::new(),
            claiming: HashMap::new(),
            is_standing: false,
            with_twins: HashSet::new(),
            full: HashSet::new(),
            is_full: false,
            ends: 0,
            poll: None,
        })
    }

    async fn continue_(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.clear_up().await;
        self.poll(cx).await;
        Ok(())
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::WorkAvailable => self.dispatch(cx).await,
            Msg::Recheck => self.recheck(cx).await,
            Msg::Claimed { asked, result } => self.start_claimed(cx, asked, result).await,
            Msg::Ended { job, plugin } => self.ended(cx, job, &plugin).await,
            Msg::Poll => self.poll(cx).await,
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({
            "running": self.live.len(),
            "claiming": self.claiming.values().sum::<usize>(),
            "paused": self.shared.flags.is_paused(),
            "draining": self.shared.flags.is_draining(),
        })
    }
}

impl Dispatcher {
    /// Nobody claims but this actor, and it has claimed nothing yet: a row without an attempt was claimed by the
    /// predecessor, which died before it started one. What this does not find or can't give back, the reaper does.
    async fn clear_up(&self) {
        let Shared { addresses, readers, jobs, crashes, processes, .. } = &*self.shared;
        // A claim of the predecessor that still stands would be granted to nobody.
        self.withdraw();
        let _ = addresses.queue.try_cast(queue::Msg::Abandoned);
        let Ok(rows) = readers.running().await else { return };
        let attempts: HashSet<String> = jobs.which().into_iter().collect();
        for row in rows {
            let Ok(job) = row.job_id.parse() else { continue };
            let fence = Fence { job, claim_no: row.claim_no };
            if attempts.contains(&format!("job:{job}")) || processes.contains(job) || crashes.contains(fence) {
                continue;
            }
            let give_back = |reply| {
                let reason = "the dispatcher ended before it started the attempt".to_owned();
                ledger::Msg::GiveBack { fence, reason, due: None, reply }
            };
            if let Err(error) = addresses.ledger.call(give_back, CALL_DEADLINE).await {
                tracing::warn!(component = "dispatcher", %error, "could not give back what was claimed and not started; the reaper will");
                return;
            }
        }
    }

    fn may_dispatch(&self) -> bool {
        !self.shared.flags.is_paused() && !self.shared.flags.is_draining()
    }

    /// What stands was asked for under other orders: it comes back, and whatever may be asked for now is.
    async fn recheck(&mut self, cx: &Cx<Self>) {
        if self.is_standing {
            self.withdraw();
        }
        self.dispatch(cx).await;
    }

    /// Lost when the ledger is down; its claims are then as well.
    fn withdraw(&self) {
        let _ = self.shared.addresses.ledger.try_cast(ledger::Msg::WithdrawClaims);
    }

    async fn dispatch(&mut self, cx: &Cx<Self>) {
        if !self.may_dispatch() {
            return;
        }
        let generation = self.shared.generation();
        let max = generation.config.service.max_workers as usize;
        let held = self.live.len() + self.claiming.values().sum::<usize>();
        let free = max.saturating_sub(held);
        if free > 0 && !self.is_full {
            let room = self.room(&generation, self.held());
            self.take_and_claim(cx, &generation, free, room, false).await;
        } else if free == 0 && !self.is_standing {
            // As many of each plugin as its cap: its own jobs may be the ones that end.
            let room = self.room(&generation, HashMap::new());
            self.take_and_claim(cx, &generation, max, room, true).await;
        }
    }

    async fn take_and_claim(
        &mut self,
        cx: &Cx<Self>,
        generation: &Arc<Generation>,
        free: usize,
        room: queue::Room,
        at_next_end: bool,
    ) {
        let taken =
            self.shared.addresses.queue.call(|reply| queue::Msg::Take { free, room, reply }, CALL_DEADLINE).await;
        // A queue that is restarting wakes this actor when it is up again.
        let Ok(taken) = taken else { return };
        if !taken.is_empty() {
            self.claim(cx, generation.clone(), taken, at_next_end);
        }
    }

    /// How many slots each plugin holds or has asked for, as far as this actor knows.
    fn held(&self) -> HashMap<Arc<str>, usize> {
        let mut held = self.claiming.clone();
        for plugin in self.live.values() {
            *held.entry(plugin.clone()).or_default() += 1;
        }
        held
    }

    /// How many more jobs each plugin may run beside those that are held.
    fn room(&self, generation: &Arc<Generation>, held: HashMap<Arc<str>, usize>) -> queue::Room {
        let (generation, full) = (generation.clone(), self.full.clone());
        Box::new(move |plugin| {
            if full.contains(plugin) {
                return (0, 0);
            }
            // A plugin that is gone is claimed too: its attempt ends the job with a reason that people can read.
            let cap = generation.catalog.get(plugin).map_or(1, |p| p.parallelism);
            ((cap as usize).saturating_sub(held.get(plugin).copied().unwrap_or(0)), cap)
        })
    }

    fn claim(
        &mut self,
        cx: &Cx<Self>,
        generation: Arc<Generation>,
        candidates: Vec<(Candidate, u32)>,
        at_next_end: bool,
    ) {
        if at_next_end {
            self.is_standing = true;
        } else {
            for (candidate, _) in &candidates {
                *self.claiming.entry(candidate.plugin.clone()).or_default() += 1;
            }
        }
        let asked = Asked {
            candidates: candidates.iter().map(|(c, _)| c.clone()).collect(),
            generation: generation.clone(),
            ends: self.ends,
            at_next_end,
        };
        let request = ClaimRequest {
            boot: self.shared.boot,
            candidates,
            max_running: generation.config.service.max_workers,
            snapshot: generation.snapshot,
        };
        let asking = Asking { me: cx.slot().clone(), asked: Some(asked) };
        let then =
            Box::new(move |result: Result<Claims, WriteError>| asking.answered(result.map_err(|e| e.to_string())));
        let ledger = self.shared.addresses.ledger.clone();
        let claim = ledger::Msg::Claim { request, at_next_end, then };
        if ledger.is_up() {
            // Refused when its mailbox is full: then the claim is answered by being dropped.
            let _ = ledger.try_cast(claim);
        } else {
            drop(cx.spawn(async move {
                let _ = ledger.cast(claim, LEDGER_DEADLINE).await;
            }));
        }
    }

    async fn start_claimed(&mut self, cx: &Cx<Self>, asked: Asked, result: Result<Claims, String>) {
        if asked.at_next_end {
            self.is_standing = false;
        } else {
            self.forget_claiming(&asked.candidates);
        }
        let claims = match result {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(component = "dispatcher", %error, "could not claim; trying again at the next end or poll");
                self.is_full = true;
                Claims::default()
            }
        };
        self.settle(asked.candidates, &claims.refused, asked.ends == self.ends);
        for claimed in claims.claimed {
            self.start(claimed, &asked.generation).await;
        }
        self.dispatch(cx).await;
    }

    fn forget_claiming(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if let Some(n) = self.claiming.get_mut(&candidate.plugin) {
                *n -= 1;
                if *n == 0 {
                    self.claiming.remove(&candidate.plugin);
                }
            }
        }
    }

    /// Tells the queue which rows are its again. `is_current`: no attempt has ended since the claim was sent, so that
    /// what refused it still stands in the way.
    fn settle(&mut self, asked: Vec<Candidate>, refused: &[Refused], is_current: bool) {
        let taken: Vec<i64> = asked.iter().map(|c| c.row).collect();
        let mut back = Vec::new();
        let mut freed = HashSet::new();
        for refusal in refused {
            let Some(candidate) = asked.iter().find(|c| c.row == refusal.row) else { continue };
            match refusal.why {
                Refusal::GlobalCap => self.is_full |= is_current,
                Refusal::PluginCap if is_current => drop(self.full.insert(candidate.plugin.clone())),
                Refusal::TwinRunning if is_current => drop(self.with_twins.insert(candidate.plugin.clone())),
                Refusal::TwinRunning => drop(freed.insert(candidate.plugin.clone())),
                Refusal::PluginCap | Refusal::Gone | Refusal::NotDue | Refusal::Withdrawn => {}
            }
            back.push((candidate.clone(), refusal.why));
        }
        // Lost when the mailbox is full: the queue forgets what it handed out after a while and reads the rows again.
        let queue = &self.shared.addresses.queue;
        let _ = queue.try_cast(queue::Msg::Settled { taken, back });
        for plugin in freed {
            let _ = queue.try_cast(queue::Msg::Freed(plugin));
        }
    }

    async fn start(&mut self, claimed: Claimed, generation: &Arc<Generation>) {
        let Claimed { job, unreadable, .. } = claimed;
        let fence = job.fence;
        let id = fence.job;
        self.live.insert(id, job.plugin.clone());
        let args =
            JobArgs { shared: self.shared.clone(), generation: generation.clone(), job: Arc::new(job), unreadable };
        let shutdown = Shutdown::After(ductile_plugin::Limits::default().term_grace + STOP_MARGIN);
        let started =
            self.shared.jobs.start_child::<Job>(format!("job:{id}"), args, Restart::Temporary, shutdown).await;
        if let Err(error) = started {
            self.live.remove(&id);
            let reason = format!("attempt not started: {error}");
            tracing::warn!(component = "dispatcher", job_id = %id, reason, "given back");
            ledger::give_back(&self.shared, fence, reason, None).await;
        }
    }

    async fn ended(&mut self, cx: &Cx<Self>, job: JobId, plugin: &Arc<str>) {
        self.ends += 1;
        let was_live = self.live.remove(&job).is_some();
        if self.with_twins.remove(plugin) {
            let _ = self.shared.addresses.queue.try_cast(queue::Msg::Freed(plugin.clone()));
        }
        let was_full = self.full.remove(plugin) | std::mem::take(&mut self.is_full);
        // A standing claim was decided by the commit of this end: its answer is on the way and wakes again.
        if (was_live || was_full) && !self.is_standing {
            self.dispatch(cx).await;
        }
    }

    /// Counts again from rows and live actors: whoever has neither holds no slot.
    async fn poll(&mut self, cx: &Cx<Self>) {
        self.poll = Some(cx.send_after(SLOW_POLL, Msg::Poll));
        self.ends += 1;
        self.is_full = false;
        self.full.clear();
        match self.shared.readers.running().await {
            Ok(rows) => {
                let mut counted: HashMap<JobId, Arc<str>> =
                    rows.into_iter().filter_map(|row| Some((row.job_id.parse().ok()?, row.plugin.into()))).collect();
                // An attempt that was started after the read has its actor but was not seen in its row.
                for name in self.shared.jobs.which() {
                    if let Some(id) = name.strip_prefix("job:").and_then(|id| id.parse().ok())
                        && let Some(plugin) = self.live.remove(&id)
                    {
                        counted.entry(id).or_insert(plugin);
                    }
                }
                self.live = counted;
            }
            Err(error) => tracing::warn!(component = "dispatcher", %error, "could not count the running jobs"),
        }
        // Whatever held it back in the ledger, a claim must not stand while a slot is free.
        if self.is_standing && self.live.len() < self.shared.generation().config.service.max_workers as usize {
            self.withdraw();
        }
        self.dispatch(cx).await;
    }
}
