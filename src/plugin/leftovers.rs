//! Finds and ends processes that outlived their attempt: of a gateway that was killed, or escaped from their group.
//!
//! A pid alone names nobody: every signal is preceded by a check of the start time or of the environment, and the
//! process is held by a pidfd between the check and the signal.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use ductile_domain::ids::{BootId, JobId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// Names the gateway's start in the environment of each plugin.
pub const BOOT_ID: &str = "DUCTILE_BOOT_ID";
/// Names the job in the environment of each plugin.
pub const JOB_ID: &str = "DUCTILE_JOB_ID";

/// Environments are read up to this size; our variables are among the first megabytes of any sane one.
const LARGEST_ENVIRON: u64 = 4 * 1024 * 1024;

/// A process that should not be there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its process id.
    pub pid: u32,
    /// Its start time, field 22 of `/proc/<pid>/stat`.
    pub pid_start: u64,
    /// Its process group.
    pub pgid: u32,
    /// The start of the gateway that spawned it or its ancestor.
    pub boot: BootId,
    /// The job it ran for, when its environment names one.
    pub job: Option<JobId>,
}

/// The start time of a process in clock ticks since the machine's start; `None` when there is no such process.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 4)?.parse().ok()
}

/// Field `n` (from 1, at least 3) of `/proc/<pid>/stat`. The name in field 2 may hold anything, also `)` and blanks.
fn stat_field(pid: u32, n: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(n.checked_sub(3)?).map(str::to_owned)
}

/// Kills the process group that `pid` leads, if `pid` is still the process that started then; false when it is not.
#[must_use]
pub fn kill_group_if_same(pid: u32, pid_start: u64) -> bool {
    let Some(held) = Held::take(pid, pid_start) else { return false };
    held.signal(Signal::KILL);
    true
}

/// Every process of this user whose environment names one of these starts of the gateway, but ourselves.
///
/// Takes about 20 µs per process of the machine.
#[must_use]
pub fn find_by_boot_ids(boots: &[BootId]) -> Vec<Leftover> {
    let boots: Vec<(BootId, Vec<u8>)> = boots.iter().map(|b| (*b, format!("{BOOT_ID}={b}").into_bytes())).collect();
    if boots.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for pid in all_processes() {
        let Some(environ) = environ(pid) else { continue };
        let variables = || environ.split(|b| *b == 0);
        let Some((boot, _)) = boots.iter().find(|(_, named)| variables().any(|v| v == named.as_slice())) else {
            continue;
        };
        let job = variables().find_map(|v| {
            let id = v.strip_prefix(JOB_ID.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(id).ok()?.parse().ok()
        });
        let Some(pid_start) = start_time(pid) else { continue };
        let Some(pgid) = stat_field(pid, 5).and_then(|f| f.parse().ok()) else { continue };
        found.push(Leftover { pid, pid_start, pgid, boot: *boot, job });
    }
    found
}

/// Ends processes and the groups they lead: SIGTERM, up to `grace`, SIGKILL, and then waits up to a second more.
///
/// Returns those that are still there: not ours to kill, or stuck in the kernel.
#[must_use]
pub fn end_groups(leftovers: &[Leftover], grace: Duration) -> Vec<Leftover> {
    let held: Vec<(&Leftover, Held)> =
        leftovers.iter().filter_map(|l| Held::take(l.pid, l.pid_start).map(|h| (l, h))).collect();
    held.iter().for_each(|(_, h)| h.signal(Signal::TERM));
    wait_all(&held, grace);
    // A member that ignores SIGTERM may outlive a leader that did not.
    held.iter().for_each(|(_, h)| h.signal(Signal::KILL));
    wait_all(&held, Duration::from_secs(1));
    held.into_iter().filter(|(_, h)| !h.has_ended(Duration::ZERO)).map(|(l, _)| l.clone()).collect()
}

fn wait_all(held: &[(&Leftover, Held)], limit: Duration) {
    let deadline = Instant::now() + limit;
    for (_, process) in held {
        process.has_ended(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Kills every process whose environment has all of these variables; they must name a job, lest they match others.
pub(crate) fn end_processes_with(own: &[(OsString, OsString)]) {
    if !own.iter().any(|(k, _)| k == JOB_ID) {
        return;
    }
    let wanted: BTreeSet<Vec<u8>> = own.iter().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect();
    for pid in all_processes() {
        let Some(pid_start) = start_time(pid) else { continue };
        let Some(environ) = environ(pid) else { continue };
        let present = environ.split(|b| *b == 0).filter(|v| wanted.contains(*v)).count();
        if present >= wanted.len()
            && let Some(held) = Held::take(pid, pid_start)
        {
            held.signal(Signal::KILL);
        }
    }
}

/// A process that was checked to be the one that was meant, held so that its pid can't be mistaken.
struct Held {
    pid: Pid,
    pid_start: u64,
    pidfd: OwnedFd,
    leads_group: bool,
}

impl Held {
    fn take(pid: u32, pid_start: u64) -> Option<Self> {
        let id = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(id, PidfdFlags::empty()).ok()?;
        if id == rustix::process::getpid() || start_time(pid)? != pid_start {
            return None;
        }
        let group = rustix::process::getpgid(Some(id)).ok()?;
        Some(Self { pid: id, pid_start, pidfd, leads_group: group == id && group != rustix::process::getpgrp() })
    }

    /// Signals the process, and its group while it is there to vouch for the group's id.
    fn signal(&self, signal: Signal) {
        if self.leads_group && self.is_there() {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// True while the process exists, if only as a zombie: as long its pid and its group's id are nobody else's.
    fn is_there(&self) -> bool {
        start_time(self.pid.as_raw_nonzero().get().unsigned_abs()) == Some(self.pid_start)
    }

    /// Waits for the process's end.
    fn has_ended(&self, limit: Duration) -> bool {
        let timeout =
            Timespec { tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..))
    }
}

fn all_processes() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

/// The environment with which a process was started; `None` when it is gone or another user's.
fn environ(pid: u32) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/environ")).ok()?.take(LARGEST_ENVIRON).read_to_end(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}
