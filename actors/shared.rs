//! What outlives every actor: addresses, the generation in force, the ring of events, the flags of a stop.
//!
//! Nothing here decides anything. A crash of any actor leaves it intact, so that the next incarnation finds it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ductile_api::events::EventRing;
use ductile_api::gateway::SyncPlaces;
use ductile_api::server::Connections;
use ductile_domain::config::Durability;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::Fence;
use ductile_domain::version::Build;
use ductile_ledger::{Clock, CommitFeed, OpenOptions, Readers, Recorded, Snapshot, WriteError, Writer};
use ductile_otp::{DynSupervisor, Slot, Tree};
use ductile_plugin::Runner;
use tokio::sync::watch;

use crate::assembly::{self, Prints};
use crate::boot::OnReload;
use crate::environments::Environments;
use crate::families::Families;
use crate::generations::Generations;
use crate::hints::Hints;
use crate::http::Listeners;
use crate::notify::Notifier;
use crate::space::{self, Guard};
use crate::waiters::Waiters;
use crate::wall::Wall;
use crate::{breaker, config, dispatcher, http, ledger, maintenance, queue, reaper, router, scheduler};

/// How long an actor waits for the ledger's answer before it asks again or gives up.
pub(crate) const LEDGER_DEADLINE: Duration = Duration::from_secs(10);

/// How long one actor waits for another that only looks at memory.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// Behind every wake-up: a lost message costs at most this.
pub(crate) const SLOW_POLL: Duration = Duration::from_secs(5);

/// The addresses of the permanent actors. They survive restarts; a call in the gap waits.
pub(crate) struct Addresses {
    pub(crate) config: Slot<config::Msg>,
    pub(crate) ledger: Slot<ledger::Msg>,
    pub(crate) space: Slot<space::Msg>,
    pub(crate) maintenance: Slot<maintenance::Msg>,
    pub(crate) router: Slot<router::Msg>,
    pub(crate) breaker: Slot<breaker::Msg>,
    pub(crate) reaper: Slot<reaper::Msg>,
    pub(crate) queue: Slot<queue::Msg>,
    pub(crate) dispatcher: Slot<dispatcher::Msg>,
    pub(crate) scheduler: Slot<scheduler::Msg>,
    pub(crate) http: Slot<http::Msg>,
}

impl Addresses {
    /// Capacity and rank of each mailbox. Calls go from higher to lower ranks only, so that no cycle can wait on itself.
    pub(crate) fn new() -> Self {
        Self {
            config: Slot::new(8, 1),
            ledger: Slot::new(1024, 2),
            space: Slot::new(4, 1),
            maintenance: Slot::new(16, 3),
            router: Slot::new(256, 3),
            breaker: Slot::new(256, 3),
            reaper: Slot::new(1024, 5),
            queue: Slot::new(1024, 5),
            dispatcher: Slot::new(1024, 6),
            scheduler: Slot::new(16, 8),
            http: Slot::new(16, 9),
        }
    }
}

/// The state that every actor and every door shares.
pub struct Shared {
    /// This start of the gateway.
    pub boot: BootId,
    /// Which build it is of.
    pub build: Build,
    /// When it started.
    pub started: Instant,
    /// The live events.
    pub ring: EventRing,
    /// The supervision tree as a table.
    pub tree: Tree,
    /// Read access to the ledger.
    pub readers: Readers,
    /// Stamps rows, and tells what is due.
    pub clock: Clock,
    /// What was seen of the clock.
    pub(crate) wall: Wall,
    /// What others tell the scheduler.
    pub(crate) hints: Hints,
    pub(crate) addresses: Addresses,
    /// The supervisor of the attempts.
    pub(crate) jobs: DynSupervisor,
    /// The threads that own plugin processes.
    pub(crate) runner: Runner,
    /// What was just committed and may be dispatched.
    pub(crate) feed: CommitFeed,
    pub(crate) waiters: Waiters,
    pub(crate) families: Families,
    /// Calls that wait for a pipeline.
    pub(crate) sync_places: SyncPlaces,
    /// Attempts that died without a report, until the reaper has written it.
    pub(crate) crashes: Crashes,
    /// Attempts whose processes live.
    pub(crate) processes: Processes,
    pub(crate) environments: Environments,
    /// The start before this one, whose processes may have been left.
    pub(crate) former_boot: Option<BootId>,
    /// The former gateway closed the ledger.
    pub(crate) was_clean: bool,
    pub(crate) ledger_options: OpenOptions,
    /// The writer as it was opened before the tree; the first incarnation of the ledger actor takes it.
    pub(crate) opened: Mutex<Option<Writer>>,
    /// The writer of the last incarnation, whose end the next one awaits.
    pub(crate) writer: Mutex<Option<Writer>>,
    pub(crate) listeners: Listeners,
    /// Open connections, which outlive the accept loops.
    pub(crate) connections: Connections,
    pub(crate) generation: watch::Sender<Arc<Generation>>,
    pub(crate) generations: Generations,
    /// Held by the reload that is under way: what the plugins in force are made of.
    pub(crate) reloads: tokio::sync::Mutex<Prints>,
    /// The service manager, if there is one.
    pub(crate) notifier: Notifier,
    pub(crate) on_reload: OnReload,
    pub(crate) flags: Flags,
    /// The space that is free beside the ledger.
    pub(crate) space: Guard,
    /// Names who asked for a graceful stop, once someone has.
    pub(crate) stop: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Shared {
    /// The configuration in force.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.generation.borrow().clone()
    }

    /// Puts a generation in force in the ledger. Past the ledger actor, whose crash would leave it unknown whether it was.
    ///
    /// # Errors
    /// When nothing was committed.
    pub(crate) async fn record_snapshot(&self, snapshot: Snapshot) -> Result<Recorded, WriteError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writer.ok_or(WriteError::Closed)?.record_snapshot(snapshot).await
    }

    /// Everything that is committed is on disk when this returns, unless the operator wants no syncs.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn sync_ledger(&self) -> std::io::Result<()> {
        if self.ledger_options.durability == Durability::Normal {
            return Ok(());
        }
        let mut log = self.ledger_options.path.clone().into_os_string();
        log.push("-wal");
        let sync = move || match std::fs::File::open(log) {
            Ok(log) => log.sync_data(),
            // What was copied back and removed was synced before.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        tokio::task::spawn_blocking(sync).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

/// Switches that must survive the actors they concern.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    shutting_down: AtomicBool,
    hurry: AtomicBool,
    draining: AtomicBool,
    paused: AtomicBool,
    /// Why no new work is taken in.
    intake: Mutex<Option<String>>,
    trouble: Mutex<Vec<(&'static str, String)>>,
}

impl Flags {
    /// True from the moment a stop of the whole gateway was asked for.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    /// True after a second signal: running jobs are not waited for.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Acquire)
    }

    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
    }

    /// True while the drain runs: doors refuse new work, the dispatcher takes none.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True while the operator has paused dispatch.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Why no new work is taken in at the moment, if it is not: too little space is free.
    pub(crate) fn intake_stopped(&self) -> Option<String> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_intake_stopped(&self, reason: Option<String>) {
        *self.intake.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Makes a trouble visible in `system status` until it is cleared.
    pub(crate) fn degrade(&self, key: &'static str, reason: String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = reason,
            None => trouble.push((key, reason)),
        }
    }

    pub(crate) fn clear(&self, key: &'static str) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).retain(|(k, _)| *k != key);
    }

    /// Says which plugins of a generation are enabled and not there, or takes it back.
    pub(crate) fn tell_lacking(&self, generation: &Generation) {
        match assembly::lacking(generation) {
            Some(reason) => self.degrade("plugins", reason),
            None => self.clear("plugins"),
        }
    }

    /// The troubles of the moment.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, r)| r.clone()).collect()
    }
}

/// Claims whose actors ended without a report, and how, until that is written. A list and not a message: no full mailbox
/// and no crash of the reaper can lose it. By claim and not by job, so that a late entry never ends the next attempt.
#[derive(Debug, Default)]
pub(crate) struct Crashes(Mutex<HashMap<Fence, Option<String>>>);

impl Crashes {
    /// The actor of that claim is gone; how is told next.
    pub(crate) fn add(&self, claim: Fence) {
        self.lock().insert(claim, None);
    }

    /// How the actor of that job ended.
    pub(crate) fn explain(&self, job: JobId, how: &str) {
        for (_, told) in self.lock().iter_mut().filter(|(claim, told)| claim.job == job && told.is_none()) {
            *told = Some(how.to_owned());
        }
    }

    /// The actor of that job was stopped and could not give its claim back: that counts as no attempt.
    pub(crate) fn excuse(&self, job: JobId) {
        self.lock().retain(|claim, told| claim.job != job || told.is_some());
    }

    /// What is explained.
    pub(crate) fn known(&self) -> HashMap<Fence, String> {
        self.lock().iter().filter_map(|(claim, told)| Some((*claim, told.clone()?))).collect()
    }

    pub(crate) fn remove(&self, claim: Fence) {
        self.lock().remove(&claim);
    }

    pub(crate) fn contains(&self, claim: Fence) -> bool {
        self.lock().contains_key(&claim)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fence, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attempts whose processes live, also those whose actors have died.
#[derive(Debug, Default)]
pub(crate) struct Processes(Mutex<HashSet<JobId>>);

impl Processes {
    pub(crate) fn insert(&self, job: JobId) {
        self.lock().insert(job);
    }

    pub(crate) fn remove(&self, job: JobId) {
        self.lock().remove(&job);
    }

    pub(crate) fn contains(&self, job: JobId) -> bool {
        self.lock().contains(&job)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
