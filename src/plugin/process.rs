//! One attempt's process from spawn to reap, owned by the calling thread.
//!
//! The spawn takes std's `posix_spawn` path, whose cost does not grow with the gateway's memory: an absolute program,
//! `process_group(0)`, no `pre_exec`, no uid or gid. A test watches it. Between the end of the leader and its reaping
//! the whole group is killed; while the leader is a zombie its group id can't be given to anybody else.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ductile_domain::outcome::{Timing, Usage};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, Signal};

use crate::capture::Capture;
use crate::cgroup::{Cgroup, Cgroups};
use crate::group::{self, Ended, Group};
use crate::leftovers;
use crate::limits::{Bounds, Limits};
use crate::runner::Control;

/// A process that lives longer than this is made known by its pid and start time; shorter ones don't pay for it.
const ALIVE_AFTER: Duration = Duration::from_millis(5);

/// How often the leader is looked at when no pidfd could be had.
const BLIND_LOOK: Duration = Duration::from_millis(20);

/// An empty pipe always holds this much, whatever the user's pipe quota has left.
const ALWAYS_FITS: usize = 4096;

/// What to run, once.
#[derive(Debug)]
pub struct Invocation {
    /// Absolute path of the executable.
    pub program: Arc<Path>,
    /// Working directory; `None` means the gateway's own.
    pub dir: Option<PathBuf>,
    /// The allow-listed environment, computed once per plugin and generation.
    pub env: Arc<[(OsString, OsString)]>,
    /// Variables of this attempt; together they name it among all processes of the machine.
    pub extra_env: Vec<(OsString, OsString)>,
    /// The request; stdin is closed behind it.
    pub stdin: Vec<u8>,
    /// Time from the spawn to SIGTERM.
    pub deadline: Duration,
    /// Bounds of output and end.
    pub limits: Limits,
    /// What the kernel is to bound; `None` costs nothing.
    pub bounds: Option<Bounds>,
}

/// How the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that the gateway did not send.
    Signaled(i32),
    /// The deadline passed and the group was ended.
    TimedOut,
    /// The run was cancelled and the group was ended, or never started.
    Cancelled,
    /// More stdout than the limit; the group was ended.
    OutputTooLarge,
    /// There was no process.
    SpawnFailed {
        /// True when the gateway lacked something (processes, memory, descriptors): the attempt is given back.
        ours: bool,
        /// What the operating system said, with the program's path.
        error: String,
    },
}

/// A process that has been reaped, or was never spawned.
#[derive(Debug)]
pub struct Exited {
    /// How it ended.
    pub end: End,
    /// Head of stdout, at most `limits.stdout` bytes.
    pub stdout: Vec<u8>,
    /// Head of stderr, at most `limits.stderr` bytes.
    pub stderr: Vec<u8>,
    /// True when more stderr came than was kept.
    pub stderr_truncated: bool,
    /// True when descendants held stdout or stderr open after the process had ended; they were killed.
    pub leaked: bool,
    /// Where the time went; `runtime_post_ns` is filled in by the judge.
    pub timing: Timing,
    /// What it used.
    pub usage: Usage,
    /// What it was allowed.
    pub bounds: Option<Bounds>,
    /// The kernel ended a process of it for want of memory.
    pub is_out_of_memory: bool,
}

impl Exited {
    pub(crate) fn without_process(end: End) -> Self {
        let now = wall_ns();
        let timing = Timing { enter_wall_ns: now, exit_wall_ns: now, ..Timing::default() };
        Self {
            end,
            stdout: Vec::new(),
            stderr: Vec::new(),
            stderr_truncated: false,
            leaked: false,
            timing,
            usage: Usage::default(),
            bounds: None,
            is_out_of_memory: false,
        }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn wall_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A duration in nanoseconds, at most 292 years.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Spawns, feeds, reads and reaps one process; returns when it and its group are gone.
pub(crate) fn run(
    mut invocation: Invocation,
    cgroups: Option<&Arc<Cgroups>>,
    control: &Control,
    wake: &OwnedFd,
    on_alive: Box<dyn FnOnce(u32, u64) + Send>,
) -> Exited {
    let bounds = invocation.bounds;
    // made before the process, so that this only has to be moved
    let cgroup = bounds.and_then(|bounds| group::cgroup_for(cgroups, &bounds, &invocation.extra_env));
    let spawned = match Spawned::spawn(&mut invocation, cgroup) {
        Ok(spawned) => spawned,
        Err(error) => return Exited::without_process(spawn_failure(&invocation.program, &error)),
    };
    Supervision {
        deadline: spawned.at.checked_add(invocation.deadline),
        alive_at: Some(spawned.at + ALIVE_AFTER),
        on_alive: Some(on_alive),
        stdout: Capture::new(spawned.stdout, invocation.limits.stdout),
        stderr: Capture::new(spawned.stderr, invocation.limits.stderr),
        stdin: spawned.stdin,
        group: spawned.group,
        pidfd: None,
        stage: Stage::Running,
        decided: None,
        leaked: false,
        is_blind: false,
        limits: invocation.limits,
        bounds,
        own_env: invocation.extra_env,
        control,
        wake,
    }
    .until_gone()
    .into_exited(spawned.at)
}

/// The part of a request that did not fit into the pipe before the spawn.
struct Feed {
    pipe: OwnedFd,
    request: Vec<u8>,
    written: usize,
}

impl Feed {
    /// What is left of it after a first write.
    fn begun(mut self) -> Option<Self> {
        (!self.write()).then_some(self)
    }

    /// Writes what the pipe takes; true when there is nothing more to do. A reader that went away is no error: what
    /// it answers decides.
    fn write(&mut self) -> bool {
        loop {
            match rustix::io::write(&self.pipe, &self.request[self.written..]) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
            if self.written == self.request.len() {
                return true;
            }
        }
    }
}

/// Puts the request into a new pipe as far as it goes, unless it is to be held back: the read end for the child, and
/// what is left to write.
fn feed(request: Vec<u8>, is_held_back: bool) -> io::Result<(OwnedFd, Option<Feed>)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if is_held_back {
        rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK | OFlags::WRONLY)?;
        return Ok((reader, Some(Feed { pipe: writer, request, written: 0 })));
    }
    if request.len() <= ALWAYS_FITS {
        let mut written = 0;
        while written < request.len() {
            written += rustix::io::retry_on_intr(|| rustix::io::write(&writer, &request[written..]))?;
        }
        return Ok((reader, None));
    }
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK | OFlags::WRONLY)?;
    let mut written = 0;
    while written < request.len() {
        match rustix::io::retry_on_intr(|| rustix::io::write(&writer, &request[written..])) {
            Ok(n) => written += n,
            Err(Errno::AGAIN) => {
                return Ok((reader, Some(Feed { pipe: writer, request, written })));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((reader, None))
}

/// A process right after its spawn.
struct Spawned {
    group: Group,
    stdin: Option<Feed>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    at: Instant,
}

impl Spawned {
    /// A plugin with bounds gets its request when they stand: whatever reads before it works is bounded from the first.
    fn spawn(invocation: &mut Invocation, cgroup: Option<Cgroup>) -> io::Result<Self> {
        let (stdin, mut feed) = feed(std::mem::take(&mut invocation.stdin), invocation.bounds.is_some())?;
        let (stdout, child_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, child_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let mut command = Command::new(&*invocation.program);
        command
            .env_clear()
            .envs(invocation.env.iter().map(|(k, v)| (k, v)))
            .envs(invocation.extra_env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(child_stdout))
            .stderr(Stdio::from(child_stderr))
            .process_group(0);
        if let Some(dir) = &invocation.dir {
            command.current_dir(dir);
        }
        let at = Instant::now();
        let mut group = Group::of(command.spawn()?);
        // Dropping the command closes our copies of the child's ends; only then does a pipe end with its writers.
        drop(command);
        if let Some(bounds) = &invocation.bounds {
            let bound = group.bound(bounds, cgroup);
            bound.map_err(|error| io::Error::other(format!("its limits can't be set: {error}")))?;
            feed = feed.and_then(Feed::begun);
        }
        Ok(Self { group, stdin: feed, stdout, stderr, at })
    }
}

fn spawn_failure(program: &Path, error: &io::Error) -> End {
    let errno = Errno::from_io_error(error);
    let ours = matches!(errno, Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE));
    let hint = match errno {
        Some(Errno::NOENT) if program.exists() => "; the interpreter that its first line names does not exist",
        Some(Errno::NOEXEC) => "; begin it with a line such as `#!/bin/sh`, or build it for this machine",
        Some(Errno::ACCESS) => "; make it executable with `chmod +x`",
        Some(Errno::TXTBSY) => "; somebody has it open for writing",
        _ => "",
    };
    End::SpawnFailed { ours, error: format!("failed to start {}: {error}{hint}", program.display()) }
}

/// Where the end of a process stands.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It may run until the deadline.
    Running,
    /// SIGTERM was sent; SIGKILL follows then.
    Terminating { kill_at: Instant },
    /// SIGKILL was sent.
    Killed,
    /// The leader is a zombie and somebody holds a pipe open; the group is killed then.
    Draining { until: Instant },
    /// The group is dead too and a pipe is still open: its holder left the group. It is not waited for.
    Escaped { until: Instant },
}

/// The poll loop's state.
struct Supervision<'a> {
    group: Group,
    pidfd: Option<OwnedFd>,
    stdin: Option<Feed>,
    stdout: Capture,
    stderr: Capture,
    deadline: Option<Instant>,
    alive_at: Option<Instant>,
    on_alive: Option<Box<dyn FnOnce(u32, u64) + Send>>,
    stage: Stage,
    decided: Option<End>,
    leaked: bool,
    /// The leader has to be looked at now and then: the descriptors were exhausted when a pidfd was wanted.
    is_blind: bool,
    limits: Limits,
    bounds: Option<Bounds>,
    own_env: Vec<(OsString, OsString)>,
    control: &'a Control,
    wake: &'a OwnedFd,
}

impl Supervision<'_> {
    fn until_gone(mut self) -> Self {
        loop {
            let leader_ended = self.poll_once();
            if self.stdout.is_exceeded() && self.decided.is_none() {
                self.terminate(End::OutputTooLarge);
                self.stdout.close();
            }
            let pipes_open = self.stdout.is_open() || self.stderr.is_open();
            let leader_ended = leader_ended
                || (!pipes_open && self.group.ends_now())
                || (self.is_blind && self.group.has_leader_ended());
            if leader_ended && !pipes_open {
                return self;
            }
            if matches!(self.stage, Stage::Running) && self.control.is_cancelled() {
                self.terminate(End::Cancelled);
            }
            if !leader_ended && !pipes_open {
                self.watch_leader();
            }
            if leader_ended && !matches!(self.stage, Stage::Draining { .. } | Stage::Escaped { .. }) {
                self.stage = Stage::Draining { until: Instant::now() + self.limits.pipe_grace };
            }
            if self.pass_time() {
                return self;
            }
        }
    }

    /// Waits for the next thing to happen and takes what the pipes hold; true when the leader was seen to have ended.
    fn poll_once(&mut self) -> bool {
        let timeout = self.next_instant().map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(self.wake, PollFlags::IN));
        let mut places = [None; 4];
        let leader_watched = !matches!(self.stage, Stage::Draining { .. } | Stage::Escaped { .. });
        let wanted = [
            (self.stdout.pipe().map(AsFd::as_fd), PollFlags::IN),
            (self.stderr.pipe().map(AsFd::as_fd), PollFlags::IN),
            (self.stdin.as_ref().map(|f| f.pipe.as_fd()), PollFlags::OUT),
            (self.pidfd.as_ref().filter(|_| leader_watched).map(AsFd::as_fd), PollFlags::IN),
        ];
        for (place, (fd, flags)) in places.iter_mut().zip(wanted) {
            if let Some(fd) = fd {
                *place = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        // EINTR and timeouts leave every revents empty.
        if rustix::event::poll(&mut fds, timeout.as_ref()).is_err() {
            fds.iter_mut().for_each(PollFd::clear_revents);
        }
        let happened = places.map(|p| p.map_or(PollFlags::empty(), |i| fds[i].revents()));
        let woken = !fds[0].revents().is_empty();
        drop(fds);
        if woken {
            let mut counter = [0_u8; 8];
            let _ = rustix::io::read(self.wake, &mut counter[..]);
        }
        let [stdout, stderr, stdin, pidfd] = happened;
        if !stdout.is_empty() {
            self.stdout.take(stdout);
        }
        if !stderr.is_empty() {
            self.stderr.take(stderr);
        }
        if !stdin.is_empty() && self.stdin.as_mut().is_some_and(Feed::write) {
            self.stdin = None;
        }
        !pidfd.is_empty()
    }

    /// The earliest instant at which something is due.
    fn next_instant(&self) -> Option<Instant> {
        let due = match self.stage {
            Stage::Running => self.deadline,
            Stage::Terminating { kill_at } => Some(kill_at),
            Stage::Killed => None,
            Stage::Draining { until } | Stage::Escaped { until } => Some(until),
        };
        let look_again = self.is_blind.then(|| Instant::now() + BLIND_LOOK);
        [due, self.alive_at, look_again].into_iter().flatten().min()
    }

    /// Does what is due by now; true when nothing is waited for any more.
    fn pass_time(&mut self) -> bool {
        let now = Instant::now();
        if self.alive_at.is_some_and(|at| at <= now) {
            self.announce();
        }
        match self.stage {
            Stage::Running if self.deadline.is_some_and(|at| at <= now) => self.terminate(End::TimedOut),
            Stage::Terminating { kill_at } if kill_at <= now => {
                self.group.signal(Signal::KILL);
                self.stage = Stage::Killed;
            }
            Stage::Draining { until } if until <= now => {
                self.leaked = true;
                self.group.signal(Signal::KILL);
                self.stage = Stage::Escaped { until: now + self.limits.pipe_grace };
            }
            Stage::Escaped { until } if until <= now => {
                leftovers::end_processes_with(&self.own_env);
                return true;
            }
            _ => {}
        }
        false
    }

    fn terminate(&mut self, why: End) {
        self.decided = Some(why);
        self.stdin = None;
        self.group.signal(Signal::TERM);
        self.watch_leader();
        self.stage = Stage::Terminating { kill_at: Instant::now() + self.limits.term_grace };
    }

    /// Tells who is running, and watches the leader itself from now on.
    fn announce(&mut self) {
        self.alive_at = None;
        self.watch_leader();
        let Some(on_alive) = self.on_alive.take() else { return };
        if self.group.has_leader_ended() {
            return;
        }
        let pid = self.group.pid().as_raw_nonzero().get().unsigned_abs();
        if let Some(start) = leftovers::start_time(pid) {
            on_alive(pid, start);
        }
    }

    fn watch_leader(&mut self) {
        if self.pidfd.is_none() {
            self.pidfd = rustix::process::pidfd_open(self.group.pid(), PidfdFlags::empty()).ok();
            self.is_blind = self.pidfd.is_none();
        }
    }

    fn into_exited(mut self, spawned_at: Instant) -> Exited {
        let ended = self.group.end();
        let timing = Timing { exit_wall_ns: wall_ns(), dur_ns: nanos(spawned_at.elapsed()), ..Timing::default() };
        let (usage, is_out_of_memory) =
            ended.as_ref().map_or_else(|_| Default::default(), |e| (e.usage, e.is_out_of_memory));
        let end = self.decided.unwrap_or_else(|| match ended {
            Ok(Ended { status, .. }) => match (status.code(), status.signal()) {
                (Some(code), _) => End::Exited(code),
                (None, Some(signal)) => End::Signaled(signal),
                (None, None) => End::Exited(-1),
            },
            Err(error) => End::SpawnFailed { ours: false, error: format!("failed to reap the process: {error}") },
        });
        Exited {
            end,
            stderr_truncated: self.stderr.is_exceeded(),
            stdout: self.stdout.into_kept(),
            stderr: self.stderr.into_kept(),
            leaked: self.leaked,
            timing,
            usage,
            bounds: self.bounds,
            is_out_of_memory,
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // A poll that returns a moment early would turn once more; round up to the next microsecond.
    let duration = duration + Duration::from_micros(1);
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
