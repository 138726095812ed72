//! Control groups (version 2): one per attempt of a plugin with limits, so that all its processes are bounded together,
//! end together and are counted together, wherever they flee to.
//!
//! Nothing is made before the first such attempt. Then the gateway makes a cgroup of its own below the one that it was
//! started in. To have controllers there it must leave that one, because the kernel allows processes in leaves only; it
//! does so when nobody else is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ductile_domain::outcome::Usage;
use rustix::fs::Access;
use rustix::process::Pid;

use crate::leftovers::{parent, start_time};
use crate::limits::Bounds;
use crate::rlimits::ByCgroup;

/// Names of our cgroups begin so; the pid namespace, the pid and the start time of the gateway follow.
const PREFIX: &str = "ductile-";
/// The leaf that the gateway itself moves to.
const GATEWAY: &str = "gateway";
/// How long an attempt's end waits for its cgroup to become empty after everything in it was killed.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same for those of a gateway that died.
const LONG_PATIENCE: Duration = Duration::from_secs(2);

/// How well an attempt can be bounded and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A cgroup per attempt bounds memory or processes of all its processes together.
    Cgroup,
    /// A cgroup per attempt ends all its processes; each process is bounded by itself.
    CgroupKillOnly,
    /// No cgroup: each process is bounded by itself, and who leaves the process group is found by its environment.
    Rlimits,
}

impl Level {
    /// The word that `system status` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::CgroupKillOnly => "cgroup_kill_only",
            Self::Rlimits => "rlimits",
        }
    }
}

/// The cgroups that this gateway may make.
#[derive(Debug)]
pub struct Cgroups {
    /// The cgroup that the gateway was started in, if one can be made below it.
    own: Option<PathBuf>,
    level: Level,
    /// Why it is no better level.
    why: Option<String>,
    home: OnceLock<Result<Home, String>>,
    next: AtomicU64,
    /// Cgroups that were busy when they should have been removed.
    busy: Mutex<Vec<PathBuf>>,
}

/// Where the cgroups of attempts are made.
#[derive(Debug, Clone)]
struct Home {
    dir: PathBuf,
    controllers: ByCgroup,
    why: Option<String>,
}

impl Cgroups {
    /// Finds out what is possible here, and leaves nothing behind.
    #[must_use]
    pub fn look() -> Self {
        let (own, level, why) = match own_cgroup().and_then(|own| tried(&own).map(|()| own)) {
            Err(why) => (None, Level::Rlimits, Some(why)),
            Ok(own) => match obstacle(&own) {
                None => (Some(own), Level::Cgroup, None),
                Some(why) => (Some(own), Level::CgroupKillOnly, Some(why)),
            },
        };
        Self { own, level, why, home: OnceLock::new(), next: AtomicU64::new(0), busy: Mutex::default() }
    }

    /// The cgroup that the gateway was started in, if one can be made below it.
    #[must_use]
    pub fn own(&self) -> Option<&Path> {
        self.own.as_deref()
    }

    /// What holds for attempts that begin now.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.home.get() {
            None => self.level,
            Some(Err(_)) => Level::Rlimits,
            Some(Ok(home)) if home.controllers.memory || home.controllers.processes => Level::Cgroup,
            Some(Ok(_)) => Level::CgroupKillOnly,
        }
    }

    /// Why it is not a better one.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self.home.get() {
            None => self.why.as_deref(),
            Some(Err(why)) => Some(why),
            Some(Ok(home)) => home.why.as_deref().or(self.why.as_deref()),
        }
    }

    /// Ends what gateways that are dead left in their cgroups, and removes these; answers how many.
    pub fn sweep(&self) -> usize {
        let Some(own) = &self.own else { return 0 };
        let is_dead = |name: &str| name.strip_prefix(PREFIX).is_some_and(is_of_a_dead_gateway);
        let dirs = children_of(own).filter(|dir| dir.file_name().and_then(|n| n.to_str()).is_some_and(is_dead));
        dirs.filter(|dir| remove_all(dir)).count()
    }

    /// A cgroup for one attempt. `None` when none can be made: its processes are bounded one by one then.
    pub(crate) fn open(self: &Arc<Self>, job: &str, bounds: &Bounds) -> Option<Cgroup> {
        let own = self.own.as_deref()?;
        let home = self.home.get_or_init(|| settle(own, self.level)).as_ref().ok()?;
        let dir = home.dir.join(format!("{job}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        make(home, dir, bounds, self).ok()
    }

    /// Removes an empty cgroup now or with one of the next attempts.
    fn remove(&self, dir: PathBuf) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|dir| !is_removed(dir));
        drop(busy);
        if !is_removed_within(&dir, PATIENCE) {
            self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(dir);
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Some(Ok(home)) = self.home.get() {
            for dir in self.busy.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                is_removed(&dir);
            }
            // A gateway that moved into it leaves it to the next start.
            is_removed(&home.dir);
        }
    }
}

/// The cgroup of one attempt. Dropped, it ends what is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
    procs: File,
    bounds: ByCgroup,
    owner: Arc<Cgroups>,
}

/// What is known of a cgroup when it is closed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) usage: Usage,
    /// How often the kernel ended a process of it for want of memory.
    pub(crate) oom_kills: u64,
}

impl Cgroup {
    /// What it bounds itself.
    pub(crate) fn bounds(&self) -> ByCgroup {
        self.bounds
    }

    /// Moves a process into it; what that starts from then on is in it too. A process that has ended needs no place.
    pub(crate) fn admit(&mut self, pid: Pid) -> io::Result<()> {
        let admitted = self.procs.write_all(pid.as_raw_nonzero().to_string().as_bytes());
        admitted.or_else(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::SRCH) => Ok(()),
            _ => Err(error),
        })
    }

    /// Ends every process in it.
    pub(crate) fn kill(&self) {
        // can only fail when the cgroup is gone
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
    }

    /// What it has used so far.
    pub(crate) fn figures(&self) -> Figures {
        let cpu = self.keyed("cpu.stat", "usage_usec").map(Duration::from_micros);
        let peak_memory = self.text("memory.peak").and_then(|text| text.trim().parse().ok());
        let oom_kills = self.keyed("memory.events", "oom_kill").unwrap_or(0);
        Figures { usage: Usage { cpu, peak_memory }, oom_kills }
    }

    fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.text(file)?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    fn text(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(file)).ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        self.owner.remove(std::mem::take(&mut self.dir));
    }
}

/// The directory of the cgroup that this process is in.
fn own_cgroup() -> Result<PathBuf, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    find_own(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
}

/// Joins what `/proc/self/cgroup` and `/proc/self/mountinfo` say.
fn find_own(cgroup: &str, mounts: &str) -> Result<PathBuf, String> {
    let Some(path) = cgroup.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Err("this machine has no cgroup v2".to_owned());
    };
    if path.starts_with("/..") {
        return Err("the gateway's cgroup lies outside of what it can see".to_owned());
    }
    for mount in mounts.lines() {
        let Some((place, kind)) = mount.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(at)) = (place.next(), place.next()) else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let below = if root == "/" { Some(path) } else { path.strip_prefix(root) };
        if let Some(below) = below.filter(|below| below.is_empty() || below.starts_with('/')) {
            return Ok(Path::new(&unescaped(at)).join(below.trim_start_matches('/')));
        }
    }
    Err("cgroup v2 is not mounted".to_owned())
}

/// Blanks in paths are written as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Makes a cgroup and removes it again.
fn tried(own: &Path) -> Result<(), String> {
    // who moves a process must be allowed to take it away from where it is
    rustix::fs::access(own.join("cgroup.procs"), Access::WRITE_OK)
        .map_err(|error| format!("{} is not ours to change: {error}", own.display()))?;
    let dir = own.join(name_of_home().ok_or("/proc is not there")?);
    fs::create_dir(&dir).map_err(|error| format!("no cgroup can be made in {}: {error}", own.display()))?;
    let has_kill = dir.join("cgroup.kill").exists();
    is_removed(&dir);
    if has_kill { Ok(()) } else { Err("this kernel has no cgroup.kill".to_owned()) }
}

/// Why cgroups below this one can't bound memory; `None` when they can.
fn obstacle(own: &Path) -> Option<String> {
    if !words(&own.join("cgroup.controllers")).iter().any(|c| c == "memory") {
        return Some(format!(
            "the controller of memory is not delegated to {}; a systemd service needs `Delegate=yes`",
            own.display()
        ));
    }
    if is_root(own) {
        return None;
    }
    let strangers = strangers(own);
    (strangers > 0).then(|| {
        format!("{strangers} process(es) that are not the gateway's share {}; start it as a service", own.display())
    })
}

/// The root of all may hold processes and cgroups with controllers at once; it has no type.
fn is_root(own: &Path) -> bool {
    !own.join("cgroup.type").exists()
}

fn words(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
}

/// Processes that are neither the gateway nor started by it.
fn strangers(own: &Path) -> usize {
    words(&own.join("cgroup.procs")).iter().filter(|pid| !pid.parse().is_ok_and(is_ours)).count()
}

/// True for this process and all that descends from it.
fn is_ours(pid: u32) -> bool {
    let me = std::process::id();
    let mut at = pid;
    for _ in 0..64 {
        if at == me {
            return true;
        }
        match parent(at) {
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

/// `<pid namespace>-<pid>-<start>`: names one gateway among all of this machine, dead ones too.
fn identity(pid: u32) -> Option<String> {
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
    Some(format!("{namespace}-{pid}-{}", start_time(pid)?))
}

fn name_of_home() -> Option<String> {
    Some(format!("{PREFIX}{}", identity(std::process::id())?))
}

/// Whoever is of another pid namespace may be alive without our seeing it.
fn is_of_a_dead_gateway(identity: &str) -> bool {
    let mut parts = identity.split('-');
    let (Some(namespace), Some(Ok(pid)), Some(_), None) =
        (parts.next(), parts.next().map(str::parse), parts.next(), parts.next())
    else {
        return false;
    };
    let is_here = fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino().to_string() == namespace);
    is_here && self::identity(pid).as_deref() != Some(identity)
}

/// Makes the gateway's own cgroup, with the controllers that are to be had.
fn settle(own: &Path, level: Level) -> Result<Home, String> {
    let dir = own.join(name_of_home().ok_or("/proc is not there")?);
    let made = fs::create_dir(&dir).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) });
    made.map_err(|error| format!("failed to make {}: {error}", dir.display()))?;
    if level != Level::Cgroup {
        return Ok(Home { dir, controllers: ByCgroup::default(), why: None });
    }
    let controllers = delegate(own, &dir).inspect_err(|_| {
        // back to where we were; what failed half-way is of no use
        let _ = move_ours(&dir.join(GATEWAY), own);
        is_removed(&dir.join(GATEWAY));
    });
    Ok(match controllers {
        Ok(controllers) => Home { dir, controllers, why: None },
        Err(error) => {
            let why = format!("controllers could not be had below {}: {error}", own.display());
            Home { dir, controllers: ByCgroup::default(), why: Some(why) }
        }
    })
}

fn delegate(own: &Path, home: &Path) -> io::Result<ByCgroup> {
    if !is_root(own) {
        let leaf = home.join(GATEWAY);
        fs::create_dir(&leaf)?;
        move_ours(own, &leaf)?;
    }
    let enable = |dir: &Path, controller: &str| {
        let is_there = words(&dir.join("cgroup.controllers")).iter().any(|c| c == controller);
        let is_on = || words(&dir.join("cgroup.subtree_control")).iter().any(|c| c == controller);
        match is_there {
            false => Ok(false),
            true if is_on() => Ok(true),
            true => fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).map(|()| true),
        }
    };
    let memory = enable(own, "memory")? && enable(home, "memory")?;
    // a machine may lack it, or hold it elsewhere
    let processes = enable(own, "pids").unwrap_or(false) && enable(home, "pids").unwrap_or(false);
    Ok(ByCgroup { memory, processes })
}

/// Moves the gateway and what it has started from one cgroup to another.
fn move_ours(from: &Path, to: &Path) -> io::Result<()> {
    let to = to.join("cgroup.procs");
    fs::write(&to, std::process::id().to_string())?;
    for pid in words(&from.join("cgroup.procs")) {
        if pid.parse().is_ok_and(is_ours) {
            // it may have ended meanwhile
            let _ = fs::write(&to, pid);
        }
    }
    Ok(())
}

fn make(home: &Home, dir: PathBuf, bounds: &Bounds, owner: &Arc<Cgroups>) -> io::Result<Cgroup> {
    fs::create_dir(&dir)?;
    let opened = OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
    let procs = opened.inspect_err(|_| {
        is_removed(&dir);
    })?;
    // from here on its drop removes it
    let mut cgroup = Cgroup { dir, procs, bounds: ByCgroup::default(), owner: owner.clone() };
    if let Some(memory) = bounds.memory.filter(|_| home.controllers.memory) {
        fs::write(cgroup.dir.join("memory.max"), memory.to_string())?;
        // what is swapped out is not bounded otherwise; a machine without swap has no such file
        let _ = fs::write(cgroup.dir.join("memory.swap.max"), "0");
        fs::write(cgroup.dir.join("memory.oom.group"), "1")?;
        cgroup.bounds.memory = true;
    }
    if let Some(processes) = bounds.processes.filter(|_| home.controllers.processes) {
        fs::write(cgroup.dir.join("pids.max"), processes.to_string())?;
        cgroup.bounds.processes = true;
    }
    Ok(cgroup)
}

fn children_of(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Ends everything in a cgroup and below it, and removes it; false when it stays.
fn remove_all(dir: &Path) -> bool {
    // reaches those below too
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    is_removed_within(dir, LONG_PATIENCE)
}

fn is_removed_within(dir: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if is_removed(dir) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes a cgroup that is empty, and those that whoever ran in it has made below; true when it is gone.
fn is_removed(dir: &Path) -> bool {
    if is_removed_alone(dir) {
        return true;
    }
    // parents before children, without recursion: a plugin decides how deep it nests, and this thread's stack is small
    let mut below: Vec<PathBuf> = children_of(dir).collect();
    let mut looked_at = 0;
    while let Some(dir) = below.get(looked_at) {
        let more: Vec<_> = children_of(dir).collect();
        below.extend(more);
        looked_at += 1;
    }
    !below.is_empty() && below.iter().rev().all(|dir| is_removed_alone(dir)) && is_removed_alone(dir)
}

fn is_removed_alone(dir: &Path) -> bool {
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_whatever_is_mounted_how() {
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n";
        let bound = "41 31 0:38 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let service = "0::/system.slice/ductile.service\n";
        for (cgroup, mounts, expected) in [
            (service, unified, Some("/sys/fs/cgroup/system.slice/ductile.service")),
            ("9:name=systemd:/x\n0::/\n", hybrid, Some("/sys/fs/cgroup/uni fied/")),
            ("0::/docker/abc\n", bound, Some("/sys/fs/cgroup/")),
            ("0::/docker/abc/x\n", bound, Some("/sys/fs/cgroup/x")),
            ("0::/docker/abcd\n", bound, None),
            ("0::/../sibling\n", unified, None),
            ("9:name=systemd:/x\n", hybrid, None),
            (service, "", None),
        ] {
            assert_eq!(find_own(cgroup, mounts).ok().as_deref(), expected.map(Path::new), "{cgroup}{mounts}");
        }
    }

    #[test]
    fn a_gateway_that_lives_and_one_that_can_not_be_seen_are_left_alone() {
        let me = identity(std::process::id()).expect("this is Linux");
        let mut parts: Vec<String> = me.split('-').map(str::to_owned).collect();
        assert!(!is_of_a_dead_gateway(&me));
        parts[2] = "1".to_owned();
        assert!(is_of_a_dead_gateway(&parts.join("-")), "another process has its pid now");
        parts[0] = "1".to_owned();
        assert!(!is_of_a_dead_gateway(&parts.join("-")), "it is of another pid namespace");
        for odd in ["", "gateway", "1-2", "a-b-c-d", "1-x-3"] {
            assert!(!is_of_a_dead_gateway(odd), "{odd}");
        }
    }
}
