//! An address that survives restarts, and the bound of the mailbox behind it.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use ractor::{ActorRef, MessagingErr};
use serde_json::Value;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::{Message, Reply, call_rank};

/// Address and bounded mailbox of one actor, made before it starts and the same through all its incarnations.
pub struct Slot<M>(pub(crate) Arc<Inner<M>>);

pub(crate) struct Inner<M> {
    cap: usize,
    rank: u8,
    live: RwLock<Live<M>>,
    permits: Arc<Semaphore>,
    /// Told at every change of `live`.
    changed: Notify,
    /// A wake-up is on its way.
    woken: AtomicBool,
    path: OnceLock<Arc<str>>,
}

enum Live<M> {
    Waiting,
    Up(u64, ActorRef<Envelope<M>>),
    Gone,
}

/// What travels to the actor's process.
pub(crate) enum Envelope<M> {
    /// Counted against the bound; a cast holds its permit here, a call in its reply.
    Counted {
        msg: M,
        _permit: Option<OwnedSemaphorePermit>,
        ticket: Option<Arc<Ticket>>,
    },
    /// At most one per slot.
    Wake(M),
    /// Of this layer itself: bounded by its cause.
    Free(M),
    /// Dropped unseen when its timer was.
    Timer(M, Arc<AtomicBool>),
    Inspect(oneshot::Sender<Value>),
    #[cfg(feature = "test-hooks")]
    Stall(Duration),
}

/// Where a call's message stands, so that one that was never begun is known to be so.
pub(crate) struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    /// The actor begins; false when the caller has gone.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller gives up; false when the actor has begun.
    fn abandon(&self) -> bool {
        self.0.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

struct AbandonOnDrop(Arc<Ticket>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// Not up within the deadline, gone, or stopped before the message was begun: it had no effect.
    Down,
    /// No room in the mailbox within the deadline: it had no effect.
    Overloaded,
    /// No answer within the deadline: whether it had an effect is unknown.
    Timeout,
    /// The actor ended, or dropped the question: whether it had an effect is unknown.
    Crashed,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CastError {
    /// Not up.
    Down,
    /// No room in the mailbox.
    Overloaded,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "failed to call: the actor is down",
            Self::Overloaded => "failed to call: the actor's mailbox is full",
            Self::Timeout => "failed to get an answer in time",
            Self::Crashed => "failed to get an answer: the actor ended",
        })
    }
}

impl fmt::Display for CastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "failed to cast: the actor is down",
            Self::Overloaded => "failed to cast: the actor's mailbox is full",
        })
    }
}

impl std::error::Error for CallError {}
impl std::error::Error for CastError {}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("path", &self.0.path.get()).field("cap", &self.0.cap).finish_non_exhaustive()
    }
}

impl<M: Message> Slot<M> {
    /// A mailbox for at most `cap` messages; `rank` orders who may call whom (only towards a lower one).
    #[must_use]
    pub fn new(cap: usize, rank: u8) -> Self {
        Self(Arc::new(Inner {
            cap,
            rank,
            live: RwLock::new(Live::Waiting),
            permits: Arc::new(Semaphore::new(cap)),
            changed: Notify::new(),
            woken: AtomicBool::new(false),
            path: OnceLock::new(),
        }))
    }

    /// Asks and waits for the answer. Waits through a restart, within its deadline. Dropping the future before the actor began takes
    /// the question back.
    ///
    /// # Errors
    /// See [`CallError`]; `Down` and `Overloaded` mean that it had no effect.
    pub async fn call<R>(&self, make: impl FnOnce(Reply<R>) -> M, deadline: Duration) -> Result<R, CallError> {
        call_rank::check(self.path(), self.0.rank);
        let until = after(deadline);
        let permit = self.admit(until).await?;
        let ticket = Arc::new(Ticket(AtomicU8::new(QUEUED)));
        let guard = AbandonOnDrop(Arc::clone(&ticket));
        let (to, mut answer) = oneshot::channel();
        let msg = make(Reply::new(to, permit));
        let incarnation = self.deliver(Envelope::Counted { msg, _permit: None, ticket: Some(ticket) }, until).await?;
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if self.0.incarnation() != Some(incarnation) && guard.0.abandon() {
                return Err(CallError::Down);
            }
            tokio::select! {
                biased;
                answer = &mut answer => {
                    // A mailbox that dies takes the questions with it that were never begun.
                    return answer.map_err(|_| if guard.0.abandon() { CallError::Down } else { CallError::Crashed });
                }
                () = changed => {}
                () = tokio::time::sleep_until(until) => return Err(CallError::Timeout),
            }
        }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// `Down` or `Overloaded`, at once; the message is dropped.
    pub fn try_cast(&self, msg: M) -> Result<(), CastError> {
        if self.0.incarnation().is_none() {
            return Err(CastError::Down);
        }
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().map_err(|_| CastError::Overloaded)?;
        match self.0.push(Envelope::Counted { msg, _permit: Some(permit), ticket: None }) {
            Ok(_) => Ok(()),
            Err(_) => Err(CastError::Down),
        }
    }

    /// Sends, waiting for the actor to be up and for room.
    ///
    /// # Errors
    /// `Down` or `Overloaded` after the deadline; the message is dropped.
    pub async fn cast(&self, msg: M, deadline: Duration) -> Result<(), CallError> {
        let until = after(deadline);
        let permit = self.admit(until).await?;
        self.deliver(Envelope::Counted { msg, _permit: Some(permit), ticket: None }, until).await.map(|_| ())
    }

    /// Wakes the actor: at most one wake-up waits per slot, whatever it says. Takes no place in the mailbox, never waits; lost when the
    /// actor is down, so whoever is woken also polls.
    pub fn wake(&self, make: impl FnOnce() -> M) {
        if self.0.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.0.push(Envelope::Wake(make())).is_err() {
            self.0.woken.store(false, Ordering::Release);
        }
    }

    /// Whether a message sent now would be taken.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.incarnation().is_some()
    }

    /// Messages that wait, are in hand, or wait for their reply.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.cap.saturating_sub(self.0.permits.available_permits())
    }

    /// Whether nothing waits or is in hand.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most messages that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.cap
    }

    pub(crate) fn rank(&self) -> u8 {
        self.0.rank
    }

    fn path(&self) -> &str {
        self.0.path.get().map_or("an actor that was never started", |path| &**path)
    }

    /// Delivers a message of this layer: no permit, since its number is bounded by its cause. False when down.
    pub(crate) fn send_free(&self, msg: M) -> bool {
        self.0.push(Envelope::Free(msg)).is_ok()
    }

    /// Points the address at a new incarnation.
    pub(crate) fn open(&self, path: &Arc<str>, incarnation: u64, to: ActorRef<Envelope<M>>) {
        let _ = self.0.path.set(Arc::clone(path));
        // What was on its way to the former incarnation died with it.
        self.0.woken.store(false, Ordering::Release);
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = Live::Up(incarnation, to);
        self.0.changed.notify_waiters();
    }

    /// The wake-up is in hand: the next one may set out.
    pub(crate) fn clear_wake(&self) {
        self.0.woken.store(false, Ordering::Release);
    }

    async fn admit(&self, until: Instant) -> Result<OwnedSemaphorePermit, CallError> {
        self.wait_up(until).await?;
        if let Ok(permit) = Arc::clone(&self.0.permits).try_acquire_owned() {
            return Ok(permit);
        }
        match timeout_at(until, Arc::clone(&self.0.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(CallError::Overloaded),
        }
    }

    async fn deliver(&self, mut envelope: Envelope<M>, until: Instant) -> Result<u64, CallError> {
        loop {
            match self.0.push(envelope) {
                Ok(incarnation) => return Ok(incarnation),
                Err(back) => envelope = back,
            }
            self.wait_up(until).await?;
        }
    }

    async fn wait_up(&self, until: Instant) -> Result<(), CallError> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            match &*self.0.live.read().unwrap_or_else(PoisonError::into_inner) {
                Live::Up(..) => return Ok(()),
                Live::Gone => return Err(CallError::Down),
                Live::Waiting => {}
            }
            // A change between the look and this line is not missed: `notified()` counts from its creation.
            changed.as_mut().enable();
            timeout_at(until, changed).await.map_err(|_| CallError::Down)?;
        }
    }
}

impl<M: Message> Inner<M> {
    fn incarnation(&self) -> Option<u64> {
        match &*self.live.read().unwrap_or_else(PoisonError::into_inner) {
            Live::Up(incarnation, _) => Some(*incarnation),
            Live::Waiting | Live::Gone => None,
        }
    }

    fn push(&self, envelope: Envelope<M>) -> Result<u64, Envelope<M>> {
        let (incarnation, sent) = match &*self.live.read().unwrap_or_else(PoisonError::into_inner) {
            Live::Up(incarnation, to) => (*incarnation, to.send_message(envelope)),
            Live::Waiting | Live::Gone => return Err(envelope),
        };
        match sent {
            Ok(()) => Ok(incarnation),
            Err(MessagingErr::SendErr(back)) => {
                // It is ending and has not said so yet.
                self.close(incarnation);
                Err(back)
            }
            Err(_) => unreachable!("an address holds a process of its own message type"),
        }
    }
}

/// The mailbox of an actor of any type.
pub(crate) trait AnyMailbox: Send + Sync {
    /// Length and capacity.
    fn fill(&self) -> (usize, usize);
    /// Takes no more messages for that incarnation.
    fn close(&self, incarnation: u64);
    /// Will never be up again, unless it is started again.
    fn gone(&self);
    /// Asks for the server's view of itself; false when down.
    fn inspect(&self, to: oneshot::Sender<Value>) -> bool;
    #[cfg(feature = "test-hooks")]
    fn stall(&self, time: Duration) -> bool;
}

impl<M: Message> AnyMailbox for Inner<M> {
    fn fill(&self) -> (usize, usize) {
        (self.cap.saturating_sub(self.permits.available_permits()), self.cap)
    }

    fn close(&self, incarnation: u64) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*live, Live::Up(current, _) if *current == incarnation) {
            *live = Live::Waiting;
            drop(live);
            self.changed.notify_waiters();
        }
    }

    fn gone(&self) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Live::Gone;
        self.changed.notify_waiters();
    }

    fn inspect(&self, to: oneshot::Sender<Value>) -> bool {
        self.push(Envelope::Inspect(to)).is_ok()
    }

    #[cfg(feature = "test-hooks")]
    fn stall(&self, time: Duration) -> bool {
        self.push(Envelope::Stall(time)).is_ok()
    }
}

/// The instant after that time, or one far away.
fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 86_400);
    Instant::now() + time.min(FAR)
}
