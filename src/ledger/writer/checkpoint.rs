//! Copies the write-ahead log back into the file beside the writer, which would otherwise stand still for it: some 40 ms
//! for every 16 MiB of log.
//!
//! A thread with a connection of its own copies what is committed, several times, since more is written meanwhile. Only
//! the last few pages are left to the writer: when it has copied those, its next transaction begins the log anew.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

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
    copier: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Checkpoints {
    /// Starts the thread. Without one the writer copies by itself.
    pub(super) fn start(conn: &Connection, file: &Path, busy_timeout: Duration) -> Self {
        conn.wal_hook(Some(|_, frames| {
            FRAMES.set(u32::try_from(frames).unwrap_or(0));
            Ok(())
        }));
        let state = Arc::new(AtomicU8::new(IDLE));
        let (nudge, nudges) = mpsc::sync_channel(1);
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
                    if nudge.try_send(()).is_err() {
                        self.state.store(COPIED, Ordering::Release);
                    }
                }
                None => report(copy(conn)),
            },
            _ => {}
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

fn copy_when_told(file: &Path, busy_timeout: Duration, nudges: &Receiver<()>, state: &AtomicU8) {
    let mut conn = None;
    while nudges.recv().is_ok() {
        let open = match conn.take() {
            Some(open) => Ok(open),
            None => connect(file, busy_timeout),
        };
        conn = match open.and_then(|open| follow(&open).map(|()| open)) {
            Ok(open) => Some(open),
            Err(error) => {
                report::<()>(Err(error));
                None
            }
        };
        state.store(COPIED, Ordering::Release);
    }
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
