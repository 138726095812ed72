//! The dispatcher: turns free slots into claims and claims into attempts.
//!
//! Woken by work and by ends of attempts. While all slots are held, claims stand in the ledger, whose writer grants one
//! at each end of an attempt. The counts here are hints for how much to ask for; the writer decides about slots and caps.
//! It never waits for a job.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::builtin;
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimRequest, Fence};
use ductile_ledger::{Claims, Refusal, Refused};
use ductile_otp::{Cx, Exit, Message, Restart, Server, Shutdown, StartError, StartInfo, Timer};
use serde_json::{Value, json};

use crate::announce::Announced;
use crate::asking::Asking;
use crate::attempt::RETRY_DELAY;
use crate::job::{Job, JobArgs};
use crate::shared::{CALL_DEADLINE, LEDGER_DEADLINE, SLOW_POLL, Shared};
use crate::{ledger, queue};

/// What an attempt's actor gets beyond the plugin's own grace when it is told to stop.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// How many candidates stand at least, if there are as many.
const STANDING: usize = 32;

/// State: who runs, as far as it was told.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// Attempts that hold a slot, by job.
    live: HashMap<JobId, Arc<str>>,
    /// Claims that are not decided in full, by their numbers.
    asked: HashMap<u64, Asked>,
    /// Number of the last claim.
    last_claim: u64,
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
struct Asked {
    /// Those that are not decided.
    candidates: Vec<Candidate>,
    /// [`Dispatcher::ends`] when it was sent.
    ends: u64,
    /// They wait for slots.
    stands: bool,
}

pub(crate) enum Msg {
    /// The queue has candidates.
    WorkAvailable,
    /// A part of a claim was decided.
    Decided { claim: u64, claims: Claims, begun: Vec<JobArgs> },
    /// Nothing more of it will be.
    Over { claim: u64 },
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
            Self::Decided { .. } => "Decided",
            Self::Over { .. } => "Over",
            Self::Ended { .. } => "Ended",
            Self::Recheck => "Recheck",
            Self::Poll => "Poll",
        }
    }
}

impl Server for Dispatcher {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, start: StartInfo) -> Result<Self, Exit> {
        Ok(Self {
            shared,
            live: HashMap::new(),
            asked: HashMap::new(),
            // what is still said about a predecessor's claim must not be taken for an answer to one of these
            last_claim: start.incarnation << 32,
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
            Msg::Decided { claim, claims, begun } => self.decided(cx, claim, claims, begun).await,
            Msg::Over { claim } => self.over(cx, claim).await,
            Msg::Ended { job, plugin } => self.ended(cx, job, &plugin).await,
            Msg::Poll => self.poll(cx).await,
        }
        Ok(())
    }

    /// With a stop of the gateway nobody comes after this actor: what stands would be granted to nobody when the attempts
    /// are given back, and be taken for crashed at the next start.
    async fn terminate(&mut self, _: &Cx<Self>, _: &Exit) {
        self.withdraw();
    }

    fn inspect(&self) -> Value {
        json!({
            "running": self.live.len(),
            "claiming": self.under_way(false),
            "standing": self.under_way(true),
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
        // A claim of the predecessor that still stands would be granted to nobody; what was granted to it stands in
        // rows after this.
        self.withdraw();
        let _ = addresses.ledger.call(ledger::Msg::Flush, CALL_DEADLINE).await;
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
                let job = Announced::of_row(job, &row.plugin.into(), &row.command.into(), row.attempt);
                ledger::Msg::GiveBack { fence, reason, due: None, job, reply }
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
        if self.under_way(true) > 0 {
            self.withdraw();
        }
        self.dispatch(cx).await;
    }

    /// Lost when the ledger is down; its claims are then as well.
    fn withdraw(&self) {
        let _ = self.shared.addresses.ledger.try_cast(ledger::Msg::WithdrawClaims);
    }

    /// Candidates that are not decided: those that stand, or the others.
    fn under_way(&self, stands: bool) -> usize {
        self.asked.values().filter(|a| a.stands == stands).map(|a| a.candidates.len()).sum()
    }

    /// Slots that nobody holds or has asked for, of all there are.
    fn free(&self, generation: &Generation) -> (usize, usize) {
        let max = generation.config.service.max_workers as usize;
        (max.saturating_sub(self.live.len() + self.under_way(false)), max)
    }

    async fn dispatch(&mut self, cx: &Cx<Self>) {
        if !self.may_dispatch() {
            // here and not only on the order, whose wake-up may have been swallowed by another
            if self.under_way(true) > 0 {
                self.withdraw();
            }
            return;
        }
        let generation = self.shared.generation();
        let (free, max) = self.free(&generation);
        let standing = self.under_way(true);
        if free > 0 && !self.is_full {
            let room = self.room(&generation, self.held(), 1);
            self.take_and_claim(cx, &generation, free, room, false).await;
        } else if free == 0 && standing < (max * 2).max(STANDING / 2) {
            // More than end before this actor hears of it; of each plugin in proportion to its cap, so that one at its
            // cap leaves places to the others.
            let most = (max * 4).max(STANDING);
            let room = self.room(&generation, self.standing(), most.div_ceil(max));
            self.take_and_claim(cx, &generation, most - standing, room, true).await;
        }
    }

    async fn take_and_claim(
        &mut self,
        cx: &Cx<Self>,
        generation: &Arc<Generation>,
        free: usize,
        room: queue::Room,
        stands: bool,
    ) {
        let taken =
            self.shared.addresses.queue.call(|reply| queue::Msg::Take { free, room, reply }, CALL_DEADLINE).await;
        // A queue that is restarting wakes this actor when it is up again.
        let Ok(taken) = taken else { return };
        if !taken.is_empty() {
            self.claim(cx, generation.clone(), taken, stands);
        }
    }

    /// Candidates of each plugin that stand.
    fn standing(&self) -> HashMap<Arc<str>, usize> {
        let mut standing = HashMap::new();
        for candidate in self.asked.values().filter(|a| a.stands).flat_map(|a| &a.candidates) {
            *standing.entry(candidate.plugin.clone()).or_default() += 1;
        }
        standing
    }

    /// How many slots each plugin holds or has asked for, as far as this actor knows.
    fn held(&self) -> HashMap<Arc<str>, usize> {
        let mut held = HashMap::new();
        let asked = self.asked.values().flat_map(|a| &a.candidates).map(|c| &c.plugin);
        for plugin in self.live.values().chain(asked) {
            *held.entry(plugin.clone()).or_default() += 1;
        }
        held
    }

    /// How many more jobs of each plugin may be asked for: `times` its cap, without those in `held`.
    fn room(&self, generation: &Arc<Generation>, held: HashMap<Arc<str>, usize>, times: usize) -> queue::Room {
        let (generation, full) = (generation.clone(), self.full.clone());
        Box::new(move |plugin| {
            if full.contains(plugin) {
                return (0, 0);
            }
            if builtin::is_builtin(plugin) {
                return (usize::MAX, u32::MAX);
            }
            let found = generation.catalog.get(plugin);
            // What the operator wants and what can't be loaded just now waits until it can.
            if found.is_none() && generation.config.wants(plugin) {
                return (0, 0);
            }
            // A plugin that is gone is claimed too: its attempt ends the job with a reason that people can read.
            let cap = found.map_or(1, |p| p.parallelism);
            ((cap as usize * times).saturating_sub(held.get(plugin).copied().unwrap_or(0)), cap)
        })
    }

    fn claim(&mut self, cx: &Cx<Self>, generation: Arc<Generation>, candidates: Vec<(Candidate, u32)>, stands: bool) {
        self.last_claim += 1;
        let (claim, ends) = (self.last_claim, self.ends);
        let asked = candidates.iter().map(|(c, _)| c.clone()).collect();
        self.asked.insert(claim, Asked { candidates: asked, ends, stands });
        let request = ClaimRequest {
            boot: self.shared.boot,
            candidates,
            max_running: generation.config.service.max_workers,
            snapshot: generation.snapshot,
        };
        let asking = Asking::new(cx.slot().clone(), self.shared.clone(), generation, claim);
        let ledger = self.shared.addresses.ledger.clone();
        let claim = ledger::Msg::Claim { request, stands, asking };
        if ledger.is_up() {
            // Refused when its mailbox is full: then the claim is over by being dropped.
            let _ = ledger.try_cast(claim);
        } else {
            drop(cx.spawn(async move {
                let _ = ledger.cast(claim, LEDGER_DEADLINE).await;
            }));
        }
    }

    async fn decided(&mut self, cx: &Cx<Self>, claim: u64, claims: Claims, begun: Vec<JobArgs>) {
        let Some(asked) = self.asked.get_mut(&claim) else { return };
        let is_current = asked.ends == self.ends;
        let is_decided = |row: i64| {
            claims.claimed.iter().any(|c| c.job.row == row) || claims.refused.iter().any(|refused| refused.row == row)
        };
        let decided: Vec<_> = asked.candidates.extract_if(.., |c| is_decided(c.row)).collect();
        for args in begun {
            self.start(args).await;
        }
        self.settle(decided, &claims.refused, is_current);
        self.dispatch(cx).await;
    }

    /// What was not decided comes back to the queue.
    async fn over(&mut self, cx: &Cx<Self>, claim: u64) {
        let Some(asked) = self.asked.remove(&claim) else { return };
        if asked.candidates.is_empty() {
            return;
        }
        tracing::warn!(
            component = "dispatcher",
            "the ledger did not decide a claim; trying again at the next end or poll"
        );
        self.is_full = true;
        let left = asked.candidates.iter();
        let refused: Vec<_> = left.map(|c| Refused { row: c.row, job: c.job, why: Refusal::Withdrawn }).collect();
        self.settle(asked.candidates, &refused, false);
        self.dispatch(cx).await;
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

    async fn start(&mut self, args: JobArgs) {
        let (job, begun) = (args.job.clone(), args.begun.clone());
        let id = job.fence.job;
        self.live.insert(id, job.plugin.clone());
        let shutdown = Shutdown::After(ductile_plugin::Limits::default().term_grace + STOP_MARGIN);
        // A process without an actor is in the way as an actor is.
        let started = if begun.is_empty() && self.shared.processes.contains(id) {
            Err(StartError::NameTaken(format!("job:{id}")))
        } else {
            self.shared.jobs.start_child::<Job>(format!("job:{id}"), args, Restart::Temporary, shutdown).await
        };
        if let Err(error) = started {
            self.live.remove(&id);
            let reason = format!("attempt not started: {error}");
            tracing::warn!(component = "dispatcher", job_id = %id, reason, "given back");
            // What was begun is given back when its process is gone.
            if begun.take().is_some() {
                return;
            }
            // An attempt of the job that lives on is in the way for a while.
            let is_taken = matches!(error, StartError::NameTaken(_));
            let due = is_taken.then(|| self.shared.clock.now() + RETRY_DELAY);
            ledger::give_back(&self.shared, job.fence, reason, due, &Announced::of_attempt(&job)).await;
        }
    }

    async fn ended(&mut self, cx: &Cx<Self>, job: JobId, plugin: &Arc<str>) {
        self.ends += 1;
        let was_live = self.live.remove(&job).is_some();
        if self.with_twins.remove(plugin) {
            let _ = self.shared.addresses.queue.try_cast(queue::Msg::Freed(plugin.clone()));
        }
        let was_full = self.full.remove(plugin) | std::mem::take(&mut self.is_full);
        // What stands was granted the slot when the end arrived in the ledger, which was told before the end. A slot that
        // is free nevertheless is none for what stands: its plugins are at their caps.
        let is_wanted = self.under_way(true) == 0 || self.free(&self.shared.generation()).0 > 0;
        if (was_live || was_full) && is_wanted {
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
        if self.under_way(true) > 0 && self.live.len() < self.shared.generation().config.service.max_workers as usize {
            self.withdraw();
        }
        self.dispatch(cx).await;
    }
}
