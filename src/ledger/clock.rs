//! The wall clock as the gateway reads it: the system's, or one that a test moves by hand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ductile_domain::time::Timestamp;
use tokio::sync::watch;

/// Tells the time at which rows are stamped, and with which whatever is due is compared.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    moved: Option<watch::Receiver<u64>>,
}

/// Moves a clock of [`Clock::by_hand`], forward or back.
#[derive(Debug, Clone)]
pub struct Hand {
    /// Microseconds since 1970.
    at: Arc<AtomicI64>,
    moved: Arc<watch::Sender<u64>>,
}

impl Clock {
    /// A clock of one's own, for tests. Nobody is told when it jumps.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), moved: None }
    }

    /// A clock that stands still except when its hand is moved, for tests. Microseconds; what is finer is cut off.
    #[must_use]
    pub fn by_hand(at: Timestamp) -> (Self, Hand) {
        let (moved, watched) = watch::channel(0);
        let hand = Hand { at: Arc::new(AtomicI64::new(at.timestamp_micros())), moved: Arc::new(moved) };
        let read = hand.clone();
        (Self { now: Arc::new(move || read.now()), moved: Some(watched) }, hand)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Resolves with each move of the hand that this handle has not seen; never for other clocks.
    pub async fn moved(&mut self) {
        if let Some(moved) = &mut self.moved
            && moved.changed().await.is_ok()
        {
            return;
        }
        // without its hand it stands still for ever
        std::future::pending().await
    }
}

impl Hand {
    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_timestamp_micros(self.at.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Moves it there, and tells those who wait for it.
    pub fn set(&self, at: Timestamp) {
        self.at.store(at.timestamp_micros(), Ordering::Release);
        self.moved.send_modify(|moves| *moves += 1);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(chrono::Utc::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
