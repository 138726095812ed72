//! The threads that run plugins: one thread owns one process from spawn to reap; idle threads are used again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::EventfdFlags;
use tokio::sync::oneshot;

use crate::cgroup::Cgroups;
use crate::process::{self, End, Exited, Invocation, nanos, wall_ns};

/// Enough for `std::process::Command` and the poll loop in a debug build.
const STACK: usize = 256 * 1024;

type OnAlive = Box<dyn FnOnce(u32, u64) + Send>;
type OnExit = Box<dyn FnOnce(Exited) + Send>;

/// Runs plugins. Clones share the threads; with the last clone they end once their runs have.
#[derive(Clone)]
pub struct Runner {
    owner: Arc<Owner>,
}

/// Closes the pool when the last [`Runner`] is dropped; the threads themselves hold only the pool.
struct Owner {
    pool: Arc<Pool>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pool.close();
    }
}

struct Pool {
    state: Mutex<State>,
    /// Work arrived, or the pool closed.
    work: Condvar,
    /// A thread ended.
    ended: Condvar,
    /// Where invocations with bounds get a cgroup, if anywhere.
    cgroups: Option<Arc<Cgroups>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    /// Threads that wait for work.
    idle: usize,
    /// All threads.
    threads: usize,
    /// How many there may be; more end as soon as they are idle.
    max_threads: usize,
    /// Runs that a thread has taken and not ended.
    running: usize,
    is_closed: bool,
}

struct Task {
    invocation: Invocation,
    control: Arc<Control>,
    on_alive: OnAlive,
    on_exit: OnExit,
    entered: Instant,
    entered_wall_ns: i64,
}

/// How a run is told to stop.
#[derive(Default)]
pub(crate) struct Control {
    cancelled: AtomicBool,
    /// The eventfd of the thread that has the run, as long as it has it.
    wake: Mutex<Option<Arc<OwnedFd>>>,
}

impl Control {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(wake) = &*lock(&self.wake) {
            // The counter can't overflow in practice; if it were full, a wake-up would be pending anyway.
            let _ = rustix::io::write(&**wake, &1_u64.to_ne_bytes());
        }
    }
}

thread_local! {
    /// The pool whose run this thread is ending, and the run that its end has ordered.
    static ENDING: RefCell<Option<(*const Pool, Option<Task>)>> = const { RefCell::new(None) };
}

/// A panic while a lock was held leaves counters that are still true.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// A runner of at most `max_threads` (at least 1) processes at a time. Starts nothing yet.
    #[must_use]
    pub fn new(max_threads: usize) -> Self {
        Self::with(max_threads, None)
    }

    /// The same, with a cgroup for each invocation that has bounds.
    #[must_use]
    pub fn with_cgroups(max_threads: usize, cgroups: Arc<Cgroups>) -> Self {
        Self::with(max_threads, Some(cgroups))
    }

    /// Where its invocations get their cgroups.
    #[must_use]
    pub fn cgroups(&self) -> Option<&Cgroups> {
        self.owner.pool.cgroups.as_deref()
    }

    fn with(max_threads: usize, cgroups: Option<Arc<Cgroups>>) -> Self {
        let pool = Pool {
            state: Mutex::new(State { max_threads: max_threads.max(1), ..State::default() }),
            work: Condvar::new(),
            ended: Condvar::new(),
            cgroups,
        };
        Self { owner: Arc::new(Owner { pool: Arc::new(pool) }) }
    }

    /// Hands an invocation to a thread, or lets it wait while all are busy.
    ///
    /// `on_alive` is called with pid and start time (field 22 of `/proc/<pid>/stat`) when the process is still alive
    /// about 5 ms after its spawn; it runs on the process's thread and must not block.
    #[must_use = "dropping the run cancels it"]
    pub fn start(&self, invocation: Invocation, on_alive: impl FnOnce(u32, u64) + Send + 'static) -> Run {
        let (done, result) = oneshot::channel();
        // nobody waits any more: then nobody needs the answer
        let handle = self.start_then(invocation, on_alive, move |exited| drop(done.send(exited)));
        Run { handle, result }
    }

    /// The same for those who can't wait: `on_exit` is called with the result on the process's thread, when the process
    /// is gone and reaped, and must not block. It is called once, also for an invocation that never got a process. What
    /// it starts itself is run by the same thread.
    #[must_use = "dropping the handle cancels the run"]
    pub fn start_then(
        &self,
        invocation: Invocation,
        on_alive: impl FnOnce(u32, u64) + Send + 'static,
        on_exit: impl FnOnce(Exited) + Send + 'static,
    ) -> Handle {
        let control = Arc::new(Control::default());
        let task = Task {
            invocation,
            control: control.clone(),
            on_alive: Box::new(on_alive),
            on_exit: Box::new(on_exit),
            entered: Instant::now(),
            entered_wall_ns: wall_ns(),
        };
        self.owner.pool.take_in(task);
        Handle { control }
    }

    /// From now on at most so many (at least 1) processes at a time. Those that run are left alone: with fewer threads
    /// allowed, the surplus ends with its runs.
    pub fn set_max_threads(&self, max_threads: usize) {
        let pool = &self.owner.pool;
        lock(&pool.state).max_threads = max_threads.max(1);
        // Idle threads that are too many end.
        pool.work.notify_all();
        loop {
            let state = lock(&pool.state);
            let has_room = state.threads < state.max_threads && !state.is_closed;
            if !has_room || state.waiting.len() <= state.threads - state.running {
                return;
            }
            pool.add_thread(state);
        }
    }

    /// Processes that are being run now.
    #[must_use]
    pub fn running(&self) -> usize {
        lock(&self.owner.pool.state).running
    }

    /// Threads that exist now, idle ones included.
    #[must_use]
    pub fn threads(&self) -> usize {
        lock(&self.owner.pool.state).threads
    }

    /// Takes nothing more, answers what still waits as cancelled, and blocks until every thread has ended.
    ///
    /// Processes that run are waited for: cancel or drop their runs before.
    pub fn shutdown(&self) {
        let pool = &self.owner.pool;
        pool.close();
        let mut state = lock(&pool.state);
        while state.threads > 0 {
            state = pool.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("running", &self.running()).field("threads", &self.threads()).finish()
    }
}

impl Pool {
    fn take_in(self: &Arc<Self>, task: Task) {
        let mut state = lock(&self.state);
        if state.is_closed {
            drop(state);
            return task.answer(Exited::without_process(End::Cancelled));
        }
        let is_first = state.waiting.is_empty() && state.threads <= state.max_threads;
        let Some(task) = (if is_first { self.keep(task) } else { Some(task) }) else {
            state.running += 1;
            return;
        };
        state.waiting.push_back(task);
        if state.idle >= state.waiting.len() {
            drop(state);
            self.work.notify_one();
            return;
        }
        if state.threads < state.max_threads {
            self.add_thread(state);
        }
    }

    /// What the end of a run orders is done by the thread that ended it, if that has nothing to do yet.
    fn keep(&self, task: Task) -> Option<Task> {
        ENDING.with_borrow_mut(|ending| match ending {
            Some((pool, next @ None)) if std::ptr::eq(*pool, self) => {
                *next = Some(task);
                None
            }
            _ => Some(task),
        })
    }

    /// One thread more, for what waits.
    fn add_thread(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        state.threads += 1;
        drop(state);
        let pool = self.clone();
        let thread = std::thread::Builder::new().name("plugin".into()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || pool.work()) {
            let mut state = lock(&self.state);
            state.threads -= 1;
            // Another thread may have taken this very task meanwhile; the newest that waits is answered for it.
            let unserved = state.waiting.pop_back();
            drop(state);
            if let Some(task) = unserved {
                let error = format!("failed to start a thread for the plugin: {error}");
                task.answer(Exited::without_process(End::SpawnFailed { ours: true, error }));
            }
        }
    }

    fn close(&self) {
        let unserved = {
            let mut state = lock(&self.state);
            state.is_closed = true;
            std::mem::take(&mut state.waiting)
        };
        self.work.notify_all();
        for task in unserved {
            task.answer(Exited::without_process(End::Cancelled));
        }
    }

    /// A thread's life.
    fn work(&self) {
        let mut wake = None;
        while let Some(task) = self.next() {
            let mut ordered = Some(task);
            while let Some(task) = ordered.take() {
                let before_answer = || {
                    lock(&self.state).running -= 1;
                    ENDING.set(Some((std::ptr::from_ref(self), None)));
                };
                task.perform(self.cgroups.as_ref(), &mut wake, before_answer);
                ordered = ENDING.take().and_then(|(_, next)| next);
                if lock(&self.state).is_closed
                    && let Some(task) = ordered.take()
                {
                    lock(&self.state).running -= 1;
                    task.answer(Exited::without_process(End::Cancelled));
                }
            }
        }
        self.ended.notify_all();
    }

    /// Waits for work; `None` when the thread is not needed any more, and not counted any more.
    fn next(&self) -> Option<Task> {
        let mut state = lock(&self.state);
        loop {
            if let Some(task) = state.waiting.pop_front() {
                state.running += 1;
                return Some(task);
            }
            if state.is_closed || state.threads > state.max_threads {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Task {
    /// Runs the process on this thread. `before_answer` is called when the process is gone and nobody knows yet, so
    /// that whoever gets the answer finds the count of processes true.
    fn perform(self, cgroups: Option<&Arc<Cgroups>>, wake: &mut Option<Arc<OwnedFd>>, before_answer: impl FnOnce()) {
        let Self { invocation, control, on_alive, on_exit, entered, entered_wall_ns } = self;
        let mut pre = None;
        let mut exited = match thread_wake(wake) {
            Err(error) => Exited::without_process(End::SpawnFailed {
                ours: true,
                error: format!("failed to create an eventfd: {error}"),
            }),
            Ok(fd) => {
                *lock(&control.wake) = Some(fd.clone());
                if control.is_cancelled() {
                    Exited::without_process(End::Cancelled)
                } else {
                    pre = Some(entered.elapsed());
                    let run = || process::run(invocation, cgroups, &control, &fd, on_alive);
                    // The process is ended and reaped by its guard when this unwinds.
                    std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
                        let error = "the thread of the plugin panicked".to_owned();
                        Exited::without_process(End::SpawnFailed { ours: false, error })
                    })
                }
            }
        };
        // what asks for an end from here on must not wake the thread in its next run
        *lock(&control.wake) = None;
        exited.timing.enter_wall_ns = entered_wall_ns;
        exited.timing.runtime_pre_ns = pre.map_or(0, nanos);
        before_answer();
        // A panic of whoever is told must not cost the pool a thread.
        // The panic hook has reported it.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| on_exit(exited)));
    }

    fn answer(self, exited: Exited) {
        (self.on_exit)(exited);
    }
}

/// The thread's eventfd, created with its first run.
fn thread_wake(wake: &mut Option<Arc<OwnedFd>>) -> rustix::io::Result<Arc<OwnedFd>> {
    if let Some(fd) = wake {
        return Ok(fd.clone());
    }
    let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    Ok(wake.insert(Arc::new(fd)).clone())
}

/// A hold on one run. Dropping it cancels: SIGTERM to the group, grace, SIGKILL, all on the process's own thread.
#[must_use = "dropping the handle cancels the run"]
pub struct Handle {
    control: Arc<Control>,
}

impl Handle {
    /// Asks for the end; the result still arrives, with [`End::Cancelled`] unless the process was faster.
    pub fn cancel(&self) {
        self.control.cancel();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // of no consequence once the run has ended
        self.control.cancel();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("is_cancelled", &self.control.is_cancelled()).finish()
    }
}

/// One run in progress, with its result. Dropping it cancels, as dropping its [`Handle`] does.
#[must_use = "dropping the run cancels it"]
pub struct Run {
    handle: Handle,
    result: oneshot::Receiver<Exited>,
}

impl Run {
    /// Asks for the end; the result still arrives, with [`End::Cancelled`] unless the process was faster.
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Waits until the process is gone. Cancel safe; the result is given once.
    ///
    /// # Panics
    /// When it is called again after it gave the result.
    pub async fn done(&mut self) -> Exited {
        let exited = (&mut self.result).await;
        answered(exited.ok())
    }

    /// The same for plain threads; must not be called on an async runtime's thread.
    #[must_use]
    pub fn wait(self) -> Exited {
        answered(self.result.blocking_recv().ok())
    }
}

fn answered(exited: Option<Exited>) -> Exited {
    exited.unwrap_or_else(|| {
        let error = "the thread of the plugin ended without an answer".to_owned();
        Exited::without_process(End::SpawnFailed { ours: false, error })
    })
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("handle", &self.handle).finish_non_exhaustive()
    }
}
