//! A live process group: bounded when it begins, killed as a whole and reaped when it ends.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::{ffi::OsString, fs};

use ductile_domain::outcome::Usage;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use wait4::{ResUse, Wait4 as _};

use crate::cgroup::{Cgroup, Cgroups, Figures};
use crate::leftovers::JOB_ID;
use crate::limits::Bounds;
use crate::rlimits::{self, ByCgroup};

/// How often a thread yields to a process that has closed its output.
const YIELDS: u32 = 8;

/// How often those that a process started before it was bounded are looked for.
const GENERATIONS: u32 = 4;

/// A live process group; dropping it kills the group and reaps the leader.
pub(crate) struct Group {
    leader: Option<Child>,
    pid: Pid,
    cgroup: Option<Cgroup>,
    ended: Option<Ended>,
}

/// A group that is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) usage: Usage,
    /// The kernel ended a process of it for want of memory.
    pub(crate) is_out_of_memory: bool,
}

impl Group {
    /// The group that a process leads.
    pub(crate) fn of(leader: Child) -> Self {
        Self { pid: Pid::from_child(&leader), leader: Some(leader), cgroup: None, ended: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Bounds the leader, and what it has started since its spawn: that is a matter of some microseconds, but this
    /// thread may have lost its processor meanwhile.
    pub(crate) fn bound(&mut self, bounds: &Bounds, cgroup: Option<Cgroup>) -> io::Result<()> {
        self.cgroup = cgroup;
        let mut found = vec![self.pid];
        for _ in 0..GENERATIONS {
            let mut next = Vec::new();
            for &pid in &found {
                if let Some(cgroup) = &mut self.cgroup {
                    cgroup.admit(pid)?;
                }
                match rlimits::set(pid, bounds, self.cgroup.as_ref().map_or_else(ByCgroup::default, Cgroup::bounds)) {
                    // a child may have ended meanwhile
                    Err(_) if pid != self.pid => {}
                    set => set?,
                }
                next.extend(rlimits::children(pid));
            }
            if next.is_empty() {
                return Ok(());
            }
            found = next;
        }
        Ok(())
    }

    /// Signals every member; SIGKILL reaches those who have left the group too, when there is a cgroup.
    pub(crate) fn signal(&self, signal: Signal) {
        // ESRCH can't be: the leader is not reaped. EPERM: a set-uid member; nothing to be done.
        let _ = rustix::process::kill_process_group(self.pid, signal);
        if signal == Signal::KILL
            && let Some(cgroup) = &self.cgroup
        {
            cgroup.kill();
        }
    }

    /// True when the leader has ended; it stays a zombie, so the group's id stays ours.
    pub(crate) fn has_leader_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(rustix::process::waitid(WaitId::Pid(self.pid), options), Ok(Some(_)))
    }

    /// The same for a leader whose pipes have just closed: an exiting process closes its files a moment before it is
    /// a zombie, and to yield a few times is cheaper than to watch it through a pidfd.
    pub(crate) fn ends_now(&self) -> bool {
        for _ in 0..YIELDS {
            if self.has_leader_ended() {
                return true;
            }
            std::thread::yield_now();
        }
        self.has_leader_ended()
    }

    /// Kills what is left of the group, then reaps the leader.
    pub(crate) fn end(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        self.signal(Signal::KILL);
        let leader = self.leader.take().ok_or_else(|| io::Error::other("it was reaped before"))?;
        let ResUse { status, rusage } = leader.wait4()?;
        let figures = self.cgroup.take().map(|cgroup| cgroup.figures()).unwrap_or_default();
        let Figures { usage: Usage { cpu, peak_memory }, oom_kills } = figures;
        let is_notable = status.code().is_none_or(|code| code != 0);
        let usage = Usage {
            cpu: Some(cpu.unwrap_or(rusage.utime + rusage.stime)),
            peak_memory: peak_memory.or_else(|| if is_notable { own_peak(rusage.maxrss) } else { None }),
        };
        Ok(*self.ended.insert(Ended { status, usage, is_out_of_memory: oom_kills > 0 }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The peak of a process that was spawned by us. The kernel counts ours as its own, because it shares our memory until
/// its program begins: only more than that is told.
fn own_peak(maxrss: u64) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let ours = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    ours.filter(|ours: &u64| maxrss > ours.saturating_mul(1024)).map(|_| maxrss)
}

/// A cgroup for the attempt that the variables name.
pub(crate) fn cgroup_for(
    cgroups: Option<&Arc<Cgroups>>,
    bounds: &Bounds,
    of_attempt: &[(OsString, OsString)],
) -> Option<Cgroup> {
    let job = of_attempt.iter().find(|(name, _)| name == JOB_ID).and_then(|(_, job)| job.to_str());
    cgroups?.open(job.unwrap_or("attempt"), bounds)
}
