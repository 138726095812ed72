//! The ring of live events: owns the last few thousand, wakes those who watch, never waits for any of them.
//!
//! Whoever watches keeps a cursor and pulls; one that falls behind the oldest event is told how many it missed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ductile_domain::event::{Fields, LiveEvent};
use ductile_domain::ids::BootId;
use serde_json::Value;
use tokio::sync::watch;

/// Events that the ring keeps.
pub const RING_EVENTS: usize = 8_192;
/// Estimated bytes that the ring keeps.
pub const RING_BYTES: usize = 8 * 1024 * 1024;
/// Most events of one pull.
pub const BATCH: usize = 64;

/// An event with its place in this boot's sequence.
#[derive(Debug)]
pub struct Numbered {
    /// From 1, without holes.
    pub seq: u64,
    /// What happened.
    pub event: LiveEvent,
    weight: usize,
    rendered: OnceLock<Box<str>>,
}

impl Numbered {
    /// The event as one line of JSON; rendered once, by the first who asks.
    #[must_use]
    pub fn json(&self) -> &str {
        self.rendered.get_or_init(|| self.event.to_json().to_string().into_boxed_str())
    }
}

/// The live events of this boot. Clones share one ring.
#[derive(Clone)]
pub struct EventRing {
    shared: Arc<Shared>,
}

struct Shared {
    boot: BootId,
    max_events: usize,
    max_bytes: usize,
    ring: Mutex<Ring>,
    /// Sequence number of the newest event, for wake-ups only.
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Numbered>>,
    bytes: usize,
    newest: u64,
}

impl fmt::Debug for EventRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRing").field("boot", &self.shared.boot).field("newest", &self.newest()).finish()
    }
}

impl EventRing {
    /// An empty ring of the usual size.
    #[must_use]
    pub fn new(boot: BootId) -> Self {
        Self::with_capacity(boot, RING_EVENTS, RING_BYTES)
    }

    /// An empty ring that keeps at most so many events and about so many bytes, and always the newest event.
    #[must_use]
    pub fn with_capacity(boot: BootId, max_events: usize, max_bytes: usize) -> Self {
        let shared = Shared {
            boot,
            max_events: max_events.max(1),
            max_bytes,
            ring: Mutex::default(),
            head: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The boot whose events these are.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.shared.boot
    }

    /// Appends an event and wakes the watchers. Never waits for a watcher, never fails, renders nothing.
    pub fn emit(&self, event: LiveEvent) {
        let weight = weight(&event);
        let newest = {
            let mut ring = self.ring();
            ring.newest += 1;
            let seq = ring.newest;
            ring.bytes += weight;
            ring.events.push_back(Arc::new(Numbered { seq, event, weight, rendered: OnceLock::new() }));
            while ring.events.len() > self.shared.max_events
                || (ring.bytes > self.shared.max_bytes && ring.events.len() > 1)
            {
                let Some(oldest) = ring.events.pop_front() else { break };
                ring.bytes -= oldest.weight;
            }
            seq
        };
        // Two emitters may arrive here in the other order; the head must not go back, or a watcher would sleep.
        self.shared.head.send_if_modified(|head| {
            let is_newer = newest > *head;
            *head = newest.max(*head);
            is_newer
        });
    }

    /// Sequence number of the newest event, 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.ring().newest
    }

    /// Estimated bytes in the ring.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ring().bytes
    }

    /// Watches from after the event numbered `after`, or from now on.
    #[must_use]
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        let head = self.shared.head.subscribe();
        let newest = self.newest();
        Subscription { ring: self.clone(), next: after.unwrap_or(newest).min(newest) + 1, head }
    }

    // A poisoned ring is whole: every change of it is complete before anything can panic.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pull brought.
#[derive(Debug)]
pub enum Pulled {
    /// At most [`BATCH`] events in their order.
    Events(Vec<Arc<Numbered>>),
    /// The ring has dropped events that this watcher had not seen; the next pull begins with the oldest.
    Lagged(Lagged),
}

/// How far a watcher had fallen behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    /// Events that it will not see.
    pub missed: u64,
    /// Sequence number with which it goes on.
    pub oldest: u64,
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fallen behind by {} events; the oldest kept is {}", self.missed, self.oldest)
    }
}

impl std::error::Error for Lagged {}

/// One watcher's place in the ring.
#[derive(Debug)]
pub struct Subscription {
    ring: EventRing,
    next: u64,
    head: watch::Receiver<u64>,
}

impl Subscription {
    /// Sequence number of the event that comes next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// What is there now, `None` when everything was seen.
    pub fn try_pull(&mut self) -> Option<Pulled> {
        self.take(BATCH)
    }

    /// Waits until there is something and takes it. Dropping the future loses nothing.
    pub async fn pull(&mut self) -> Pulled {
        loop {
            // The mark comes before the look, so that an event between the two wakes us.
            self.head.mark_unchanged();
            if let Some(pulled) = self.take(BATCH) {
                return pulled;
            }
            // The sender lives in the ring that we hold, so this never fails.
            let _ = self.head.changed().await;
        }
    }

    /// The next single event.
    ///
    /// # Errors
    /// When events were missed; the call after it goes on with the oldest.
    pub async fn next(&mut self) -> Result<Arc<Numbered>, Lagged> {
        loop {
            self.head.mark_unchanged();
            match self.take(1) {
                Some(Pulled::Events(events)) => {
                    if let Some(event) = events.into_iter().next() {
                        return Ok(event);
                    }
                }
                Some(Pulled::Lagged(lagged)) => return Err(lagged),
                None => {
                    let _ = self.head.changed().await;
                }
            }
        }
    }

    /// The next event that `wanted` accepts; the ones before it are skipped, missed ones too.
    pub async fn until(&mut self, mut wanted: impl FnMut(&LiveEvent) -> bool) -> Arc<Numbered> {
        loop {
            if let Ok(event) = self.next().await
                && wanted(&event.event)
            {
                return event;
            }
        }
    }

    fn take(&mut self, most: usize) -> Option<Pulled> {
        let ring = self.ring.ring();
        let oldest = ring.events.front()?.seq;
        if self.next < oldest {
            let missed = oldest - self.next;
            self.next = oldest;
            return Some(Pulled::Lagged(Lagged { missed, oldest }));
        }
        let skip = usize::try_from(self.next - oldest).ok()?;
        if skip >= ring.events.len() {
            return None;
        }
        let events: Vec<_> = ring.events.range(skip..).take(most).cloned().collect();
        self.next += events.len() as u64;
        Some(Pulled::Events(events))
    }
}

/// A cheap estimate of what an event holds, its rendered form included.
fn weight(event: &LiveEvent) -> usize {
    const FIXED: usize = 384;
    let fields = match &event.fields {
        Fields::Job(job) => 2 * job.more.iter().map(|(k, v)| k.len() + value_weight(v)).sum::<usize>(),
        Fields::Other(map) => 2 * map.iter().map(|(k, v)| k.len() + value_weight(v)).sum::<usize>(),
    };
    FIXED + fields
}

fn value_weight(value: &Value) -> usize {
    const NODE: usize = 40;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_weight).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + value_weight(v)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Map;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    fn ring(events: usize, bytes: usize) -> EventRing {
        EventRing::with_capacity(BootId::from(Uuid::nil()), events, bytes)
    }

    fn event(kind: &'static str) -> LiveEvent {
        LiveEvent::other(kind, chrono::DateTime::UNIX_EPOCH, Map::new())
    }

    fn seqs(pulled: Option<Pulled>) -> Vec<u64> {
        match pulled {
            Some(Pulled::Events(events)) => events.iter().map(|e| e.seq).collect(),
            other => panic!("expected events, got {other:?}"),
        }
    }

    #[test]
    fn a_watcher_sees_what_comes_after_it_in_order_and_in_batches() {
        let ring = ring(1_000, RING_BYTES);
        ring.emit(event("before"));
        let mut from_now = ring.subscribe(None);
        assert!(from_now.try_pull().is_none());
        for _ in 0..100 {
            ring.emit(event("x"));
        }
        assert_eq!(seqs(from_now.try_pull()), (2..=65).collect::<Vec<_>>());
        assert_eq!(seqs(from_now.try_pull()), (66..=101).collect::<Vec<_>>());
        assert!(from_now.try_pull().is_none());
        assert_eq!(seqs(ring.subscribe(Some(99)).try_pull()), [100, 101]);
        assert!(ring.subscribe(Some(5_000)).try_pull().is_none(), "a number from the future means now");
    }

    #[test]
    fn a_watcher_that_fell_behind_is_told_how_many_it_missed_and_goes_on() {
        let ring = ring(10, RING_BYTES);
        let mut slow = ring.subscribe(None);
        for _ in 0..25 {
            ring.emit(event("x"));
        }
        let Some(Pulled::Lagged(lagged)) = slow.try_pull() else { panic!("expected to have lagged") };
        assert_eq!(lagged, Lagged { missed: 15, oldest: 16 });
        assert_eq!(seqs(slow.try_pull()), (16..=25).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_are_bounded_and_the_newest_event_always_stays() {
        let ring = ring(1_000, 10_000);
        for _ in 0..50 {
            let fields = Map::from_iter([("reason".to_owned(), Value::from("x".repeat(4_000)))]);
            ring.emit(LiveEvent::other("actor.crashed", chrono::DateTime::UNIX_EPOCH, fields));
            assert!(ring.bytes() <= 10_000, "{}", ring.bytes());
        }
        let fields = Map::from_iter([("reason".to_owned(), Value::from("x".repeat(40_000)))]);
        ring.emit(LiveEvent::other("actor.crashed", chrono::DateTime::UNIX_EPOCH, fields));
        assert_eq!(seqs(ring.subscribe(Some(50)).try_pull()), [51]);
    }

    #[test]
    fn a_panic_while_the_ring_is_locked_does_not_silence_it() {
        let ring = ring(10, RING_BYTES);
        let poisoner = ring.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = poisoner.ring();
            panic!("while holding the ring");
        })
        .join();
        assert!(panicked.is_err());
        let mut watcher = ring.subscribe(None);
        ring.emit(event("x"));
        assert_eq!(seqs(watcher.try_pull()), [1]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_emitters_on_many_threads() {
        let ring = ring(100_000, usize::MAX);
        let mut watcher = ring.subscribe(None);
        let emitters: Vec<_> = (0..4)
            .map(|_| {
                let ring = ring.clone();
                std::thread::spawn(move || (0..2_000).for_each(|_| ring.emit(event("x"))))
            })
            .collect();
        let seen = timeout(Duration::from_secs(10), async {
            let mut seen = 0;
            while seen < 8_000 {
                match watcher.pull().await {
                    Pulled::Events(events) => seen += events.len(),
                    Pulled::Lagged(lagged) => panic!("{lagged}"),
                }
            }
            seen
        })
        .await
        .expect("every event wakes the watcher");
        assert_eq!(seen, 8_000);
        for emitter in emitters {
            emitter.join().expect("emitters do not panic");
        }
    }

    #[tokio::test]
    async fn until_skips_to_the_wanted_event() {
        let ring = ring(10, RING_BYTES);
        let mut watcher = ring.subscribe(None);
        for kind in ["a", "b", "c"] {
            ring.emit(event(kind));
        }
        assert_eq!(watcher.until(|e| e.kind == "c").await.seq, 3);
    }
}
