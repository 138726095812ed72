//! The wall clock as the gateway reads it: the system's, or one that a test moves by hand.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use ductile_domain::time::Timestamp;
use tokio::sync::watch;

/// Tells the time at which rows are stamped, and with which whatever is due is compared.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    hand: Option<(Hand, watch::Receiver<u64>)>,
}

/// Moves a clock of [`Clock::by_hand`].
#[derive(Debug, Clone)]
pub struct Hand {
    shown: Arc<Mutex<Shown>>,
    moved: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    wall: Timestamp,
    /// What a clock that can't be set would show.
    passed: Duration,
}

impl Clock {
    /// A clock of one's own, for tests. Nobody is told when it jumps.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { now: Arc::new(now), hand: None }
    }

    /// A clock that stands still except when its hand is moved, for tests.
    #[must_use]
    pub fn by_hand(at: Timestamp) -> (Self, Hand) {
        let (moved, watched) = watch::channel(0);
        let shown = Shown { wall: at, passed: Duration::ZERO };
        let hand = Hand { shown: Arc::new(Mutex::new(shown)), moved: Arc::new(moved) };
        let read = hand.clone();
        (Self { now: Arc::new(move || read.now()), hand: Some((hand.clone(), watched)) }, hand)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// The time, and how much has passed by a clock that nobody can set: where the two differ, the wall clock jumped. That
    /// one stands still while the machine sleeps.
    #[must_use]
    pub fn reading(&self) -> (Timestamp, Duration) {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.hand {
            Some((hand, _)) => {
                let shown = *hand.lock();
                (shown.wall, shown.passed)
            }
            None => (self.now(), BEGIN.elapsed()),
        }
    }

    /// Resolves with each move of the hand that this handle has not seen; never for other clocks.
    pub async fn moved(&mut self) {
        if let Some((_, moved)) = &mut self.hand
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
        self.lock().wall
    }

    /// Sets the clock, forward or back, as an operator would or as it is found after a sleep: it jumps.
    pub fn set(&self, at: Timestamp) {
        self.lock().wall = at;
        self.moved.send_modify(|moves| *moves += 1);
    }

    /// Lets that time pass.
    pub fn pass(&self, time: Duration) {
        {
            let mut shown = self.lock();
            shown.passed += time;
            shown.wall += TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        }
        self.moved.send_modify(|moves| *moves += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
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
