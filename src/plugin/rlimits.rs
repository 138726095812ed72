//! Sets the kernel's limits of a process that was just spawned, from outside: a `pre_exec` would make every spawn a fork.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::limits::Bounds;

/// Bounds a process. `by_cgroup` is left out: its cgroup bounds that, and exactly.
///
/// Memory is bounded as `RLIMIT_DATA`, which counts what is writable and private. `RLIMIT_AS` counts what is only
/// reserved too, and runtimes reserve many gigabytes that they never use.
pub(crate) fn set(pid: Pid, bounds: &Bounds, by_cgroup: ByCgroup) -> io::Result<()> {
    let memory = bounds.memory.filter(|_| !by_cgroup.memory);
    let processes = bounds.processes.filter(|_| !by_cgroup.processes);
    let wanted = [(Resource::Data, memory), (Resource::Nofile, bounds.open_files), (Resource::Nproc, processes)];
    for (resource, limit) in wanted {
        if let Some(limit) = limit {
            lower(pid, resource, limit, limit)?;
        }
    }
    if let Some(time) = bounds.cpu_time {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        // at the first SIGXCPU is sent, at the second SIGKILL
        lower(pid, Resource::Cpu, seconds.max(1), seconds.max(1) + 1)?;
    }
    Ok(())
}

/// What the cgroup of an attempt bounds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByCgroup {
    pub(crate) memory: bool,
    pub(crate) processes: bool,
}

/// Nobody but root may have more than we have ourselves.
fn lower(pid: Pid, resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let ours = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(soft.min(ours)), maximum: Some(hard.min(ours)) };
    prlimit(Some(pid), resource, limit)?;
    Ok(())
}

/// The processes that this one has started so far. The kernel may not tell.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}
