//! Copies the write-ahead log back into the file beside the writer, which would otherwise stand still for it: some 40 ms
//! for every 16 MiB of log.
//!
//! A thread with a connection of its own copies what is committed, several times, since more is written meanwhile. Only
//! the last few pages are left to the writer: when it has copied those, its next transaction begins the log anew.
//!
//! The same thread empties the log when that is asked for. It waits for no reader: while one needs the log, it stays.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Reply;

/// Frames (pages) of the log from which on it is copied: 16 MiB.
const LIMIT: u32 = 8_000;

/// Frames of the log that are few enough for the writer.
const FEW: i64 = 200;

/// Rounds in which the thread runs after the writer.
const ROUNDS: usize = 4;

const IDLE: u8 = 0;
const COPYING: u8 = 1;
const COPIED: u8 = 2;

thread_local! {
    /// Frames of the log after this thread's last commit.
    static FRAMES: Cell<u32> = const { Cell::new(0) };
}

/// The writer's side.
pub(super) struct Checkpoints {
    /// Frames from which on the log is copied: more than [`LIMIT`] while a reader keeps it from beginning anew.
    due: u32,
    state: Arc<AtomicU8>,
    copier: Option<(SyncSender<Order>, JoinHandle<()>)>,
}

enum Order {
    /// The log is long.
    Copy,
    /// Copy it and empty it.
    Empty(Reply<()>),
}

impl Checkpoints {
    /// Starts the thread. Without one the writer copies by itself.
    pub(super) fn start(conn: &Connection, file: &Path, busy_timeout: Duration) -> Self {
        conn.wal_hook(Some(|_, frames| {
            FRAMES.set(u32::try_from(frames).unwrap_or(0));
            Ok(())
        }));
        let state = Arc::new(AtomicU8::new(IDLE));
        let (nudge, nudges) = mpsc::sync_channel(2);
        let (file, shared) = (file.to_owned(), state.clone());
        let thread = std::thread::Builder::new()
            .name("ledger-copier".to_owned())
            .spawn(move || copy_when_told(&file, busy_timeout, &nudges, &shared));
        if let Err(error) = &thread {
            tracing::warn!(component = "ledger", %error, "no thread copies the write-ahead log; the writer does");
        }
        Self { due: LIMIT, state, copier: thread.ok().map(|thread| (nudge, thread)) }
    }

    /// To be called after each commit.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        let frames = FRAMES.get();
        if frames < LIMIT {
            self.due = LIMIT;
        }
        match self.state.load(Ordering::Acquire) {
            COPIED => {
                self.state.store(IDLE, Ordering::Release);
                self.due = frames + LIMIT / 4;
                report(copy(conn));
            }
            IDLE if frames > self.due => match &self.copier {
                Some((nudge, _)) => {
                    // before the nudge: the thread must not be done first
                    self.state.store(COPYING, Ordering::Release);
                    if nudge.try_send(Order::Copy).is_err() {
                        self.state.store(COPIED, Ordering::Release);
                    }
                }
                None => report(copy(conn)),
            },
            _ => {}
        }
    }

    /// Copies the log and empties it, beside the writer and as far as readers allow; answers when that is done.
    pub(super) fn empty(&self, conn: &Connection, reply: Reply<()>) {
        match &self.copier {
            // with two orders before it, the log is about to be copied anyway
            Some((nudge, _)) => drop(nudge.try_send(Order::Empty(reply)).map_err(|refused| match refused {
                TrySendError::Full(order) | TrySendError::Disconnected(order) => order.answer(Ok(())),
            })),
            None => Order::Empty(reply).answer(copy(conn).map(drop)),
        }
    }

    /// Ends the thread, so that the writer's connection is the last to close.
    pub(super) fn end(self) {
        if let Some((nudge, thread)) = self.copier {
            drop(nudge);
            // it does not panic; if it did, there would be nothing left to wait for
            let _ = thread.join();
        }
    }
}

impl Order {
    fn answer(self, done: Result<(), rusqlite::Error>) {
        match self {
            Self::Copy => report(done),
            // whoever asked may be gone
            Self::Empty(reply) => drop(reply.send(done.map_err(Into::into))),
        }
    }
}

fn copy_when_told(file: &Path, busy_timeout: Duration, orders: &Receiver<Order>, state: &AtomicU8) {
    let mut conn = None;
    while let Ok(order) = orders.recv() {
        let open = match conn.take() {
            Some(open) => Ok(open),
            None => connect(file, busy_timeout),
        };
        let is_copy = matches!(order, Order::Copy);
        let done = open.and_then(|open| {
            follow(&open)?;
            if !is_copy {
                empty(&open, busy_timeout)?;
            }
            Ok(open)
        });
        let (open, done) = match done {
            Ok(open) => (Some(open), Ok(())),
            Err(error) => (None, Err(error)),
        };
        conn = open;
        order.answer(done);
        if is_copy {
            state.store(COPIED, Ordering::Release);
        }
    }
}

/// Cuts the log off when nobody needs it. It holds the writer's lock, so it must not wait for a reader; what is left to be
/// copied was written a moment ago.
fn empty(conn: &Connection, busy_timeout: Duration) -> Result<(), rusqlite::Error> {
    conn.busy_timeout(Duration::ZERO)?;
    // answers a row also when it could not: then the log goes on from where it is
    let done = conn.prepare_cached("PRAGMA wal_checkpoint(TRUNCATE)")?.query_row([], |_| Ok(()));
    conn.busy_timeout(busy_timeout)?;
    done
}

fn connect(file: &Path, busy_timeout: Duration) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(busy_timeout)?;
    Ok(conn)
}

/// Copies until little is left that was written meanwhile.
fn follow(conn: &Connection) -> Result<(), rusqlite::Error> {
    let mut before = 0;
    for _ in 0..ROUNDS {
        let frames = copy(conn)?;
        if frames - before < FEW {
            break;
        }
        before = frames;
    }
    Ok(())
}

/// Copies what no reader still needs; answers how many frames the log has.
fn copy(conn: &Connection) -> Result<i64, rusqlite::Error> {
    conn.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |row| row.get(1))
}

fn report<T>(result: Result<T, rusqlite::Error>) {
    if let Err(error) = result {
        tracing::warn!(component = "ledger", %error, "could not copy the write-ahead log back; it grows until that works");
    }
}
