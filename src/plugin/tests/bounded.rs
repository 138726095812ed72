//! Limits hold, who exceeds them is told so, and an attempt's cgroup ends whoever fled from its group.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::config::ResourceLimits;
use ductile_domain::outcome::{AttemptStatus, Cause};
use ductile_plugin::leftovers::{find_by_boot_ids, start_time};
use ductile_plugin::{Bounds, Cgroups, End, Level, Runner};
use support::{Bench, until};

const MIB: u64 = 1 << 20;

fn with_cgroups() -> (Bench, Arc<Cgroups>) {
    let cgroups = Arc::new(Cgroups::look());
    let mut bench = Bench::new();
    bench.runner = Runner::with_cgroups(4, cgroups.clone());
    (bench, cgroups)
}

/// The limits that a process of such a plugin finds, a line each.
fn limits_seen(limits: ResourceLimits) -> String {
    let bench = Bench::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut plugin = Bench::fault("slow");
    plugin.entrypoint = dir.path().join("run.sh");
    fs::write(
        &plugin.entrypoint,
        "#!/bin/sh\nread -r request\ncat /proc/$$/limits >&2\nprintf '{\"status\":\"ok\",\"result\":\"\"}'\n",
    )
    .expect("written");
    fs::set_permissions(&plugin.entrypoint, fs::Permissions::from_mode(0o755)).expect("an executable");
    plugin.limits = limits;
    let exited = bench.exited(&plugin, "poll", None);
    assert_eq!(exited.end, End::Exited(0), "{exited:?}");
    assert!(exited.usage.cpu.is_some_and(|cpu| cpu > Duration::ZERO), "{exited:?}");
    String::from_utf8(exited.stderr).expect("text")
}

fn limit<'a>(seen: &'a str, name: &str) -> (&'a str, &'a str) {
    let line = seen.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {seen}"));
    let mut words = line[name.len()..].split_whitespace();
    (words.next().expect("soft"), words.next().expect("hard"))
}

#[test]
fn every_limit_is_set_on_the_process_that_reads_its_request() {
    let limits = ResourceLimits {
        memory: Some(256 * MIB),
        cpu_time: Some(Duration::from_millis(7_500)),
        open_files: Some(64),
        processes: Some(500),
        tiers: Vec::new(),
    };
    let seen = limits_seen(limits);
    assert_eq!(limit(&seen, "Max data size"), ("268435456", "268435456"));
    assert_eq!(limit(&seen, "Max cpu time"), ("8", "9"));
    assert_eq!(limit(&seen, "Max open files"), ("64", "64"));
    assert_eq!(limit(&seen, "Max processes"), ("500", "500"));
    let own = fs::read_to_string("/proc/self/limits").expect("this is Linux");
    let free = limits_seen(ResourceLimits::default());
    for name in ["Max data size", "Max cpu time", "Max open files", "Max processes", "Max address space"] {
        assert_eq!(limit(&free, name), limit(&own, name), "{name}");
        let is_left_alone = name == "Max address space";
        assert_eq!(limit(&seen, name) == limit(&own, name), is_left_alone, "{name}");
    }
}

/// OPC-26: what is refused memory, what is killed for it, and what only tells of such a kill ran out of memory.
#[test]
fn an_attempt_without_memory_is_told_apart() {
    let bench = Bench::new();
    let mut greedy = Bench::fault("eats_memory");
    let enough = bench.judged(&greedy, "poll", Some("{\"mib\":150}")).0;
    assert_eq!(enough.status, AttemptStatus::Succeeded, "{enough:?}");
    greedy.limits.memory = Some(64 * MIB);
    let (refused, _) = bench.judged(&greedy, "poll", Some("{\"mib\":150}"));
    assert_eq!(refused.cause, Some(Cause::OutOfMemory), "{refused:?}");
    let error = refused.error.expect("a text");
    for part in ["out of memory: exit code 1: MemoryError", "its limit is 64 MiB", "plugins.eats_memory.limits.memory"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let (told, _) = bench.judged(&Bench::fault("exit_137"), "poll", None);
    assert_eq!(told.cause, Some(Cause::OutOfMemory));
    assert_eq!(told.error.as_deref(), Some("out of memory: exit code 137: Killed"));
    let mut killed = Bench::fault("killed_by_signal");
    assert_eq!(bench.judged(&killed, "poll", None).0.cause, Some(Cause::Signal));
    killed.limits.memory = Some(512 * MIB);
    let (killed, _) = bench.judged(&killed, "poll", None);
    assert_eq!((killed.cause, killed.signal), (Some(Cause::OutOfMemory), Some(9)), "{killed:?}");
    let (bad_pointer, _) = bench.judged(&Bench::fault("segfault"), "poll", None);
    assert_eq!(bad_pointer.cause, Some(Cause::Signal));
    assert_eq!(bad_pointer.error.as_deref(), Some("killed by signal 11 (SIGSEGV)"));
}

#[test]
fn an_attempt_that_used_up_its_processor_time_is_told_so() {
    let bench = Bench::new();
    let mut plugin = Bench::fault("burns_cpu");
    plugin.limits.cpu_time = Some(Duration::from_secs(1));
    // a kill beside a limit of memory would be taken for one for memory
    plugin.limits.memory = Some(512 * MIB);
    for (payload, signal) in [("{\"burn\":true}", 24), ("{\"burn\":true,\"ignore\":true}", 9)] {
        let (outcome, _) = bench.judged(&plugin, "poll", Some(payload));
        assert_eq!((outcome.cause, outcome.signal), (Some(Cause::Signal), Some(signal)), "{outcome:?}");
        let error = outcome.error.expect("a text");
        assert!(error.contains("used up its 1 s of processor time") && error.contains("limits.cpu_time"), "{error}");
        assert!(outcome.usage.cpu.is_some_and(|cpu| cpu > Duration::from_millis(900)), "{:?}", outcome.usage);
    }
}

/// Limits that can't be had end the attempt: it never runs without them.
#[test]
fn the_process_has_its_limits_before_it_has_its_request() {
    let bench = Bench::new();
    let plugin = Bench::fault("slow");
    for size in [0, 10, 4_000, 70_000, 3_000_000] {
        let mut invocation = bench.invocation(&plugin, &support::job(&plugin, "poll", None));
        invocation.bounds = Some(Bounds { open_files: Some(32), ..Bounds::default() });
        invocation.program = std::path::Path::new("/usr/bin/wc").into();
        invocation.stdin = vec![b'x'; size];
        let exited = bench.runner.start(invocation, |_, _| {}).wait();
        let counted = String::from_utf8_lossy(&exited.stdout).split_whitespace().nth(2).map(str::to_owned);
        assert_eq!(counted, Some(size.to_string()), "{exited:?}");
    }
}

/// A grandchild in a session of its own that holds no pipe: only the cgroup knows it.
#[test]
fn the_cgroup_ends_whoever_fled_from_the_process_group() {
    let (bench, cgroups) = with_cgroups();
    if cgroups.level() == Level::Rlimits {
        println!("skipped: no cgroup can be made here: {:?}", cgroups.why());
        return;
    }
    let mut plugin = Bench::fault("quiet_daemon");
    plugin.limits.open_files = Some(64);
    let exited = bench.start(&plugin, "poll", Some("{\"daemon\":true}")).wait();
    assert_eq!(exited.end, End::Exited(0), "{exited:?}");
    assert!(find_by_boot_ids(&[bench.boot]).is_empty(), "it is gone when the attempt has ended");
    assert!(exited.usage.cpu.is_some_and(|cpu| cpu > Duration::ZERO), "{exited:?}");
    let home = homes(&cgroups);
    assert_eq!(home.len(), 1, "{home:?}");
    assert_eq!(directories(&home[0]).iter().filter(|d| !d.ends_with("gateway")).count(), 0, "the attempt's is removed");
    // one that holds a pipe too ends without the search for it
    let escaped = bench.exited(&limited("setsid_escape"), "poll", None);
    assert!(escaped.leaked && escaped.end == End::Exited(0), "{escaped:?}");
}

fn limited(fault: &str) -> ductile_domain::catalog::Plugin {
    let mut plugin = Bench::fault(fault);
    plugin.limits.open_files = Some(64);
    plugin
}

fn directories(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").filter_map(Result::ok);
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn homes(cgroups: &Cgroups) -> Vec<PathBuf> {
    let me = format!("-{}-{}", std::process::id(), start_time(std::process::id()).expect("alive"));
    let all = directories(cgroups.own().expect("a cgroup of our own"));
    all.into_iter().filter(|dir| dir.to_str().is_some_and(|d| d.ends_with(&me))).collect()
}

/// OPC-26, OPC-27: where the controller is delegated, the kernel ends all processes of an attempt at its limit.
#[test]
fn memory_is_bounded_over_all_processes_of_an_attempt() {
    let (bench, cgroups) = with_cgroups();
    if cgroups.level() != Level::Cgroup {
        println!("skipped: memory can't be bounded by a cgroup here: {:?}", cgroups.why());
        return;
    }
    let mut plugin = Bench::fault("eats_memory");
    plugin.limits.memory = Some(64 * MIB);
    let (outcome, _) = bench.judged(&plugin, "poll", Some("{\"mib\":150}"));
    assert_eq!((outcome.cause, outcome.signal), (Some(Cause::OutOfMemory), Some(9)), "{outcome:?}");
    assert!(outcome.usage.peak_memory.is_some_and(|peak| peak > 32 * MIB && peak <= 65 * MIB), "{:?}", outcome.usage);
    assert_eq!(bench.judged(&plugin, "poll", Some("{\"mib\":8}")).0.status, AttemptStatus::Succeeded);
}

/// What a gateway that was killed left in its cgroups is ended by the next start, and only that.
#[test]
fn the_cgroups_of_a_dead_gateway_are_swept() {
    let cgroups = Cgroups::look();
    let Some(own) = cgroups.own() else {
        println!("skipped: no cgroup can be made here: {:?}", cgroups.why());
        return;
    };
    let namespace = fs::metadata("/proc/self/ns/pid").expect("this is Linux").ino();
    let dead = own.join(format!("ductile-{namespace}-{}-1", std::process::id()));
    let foreign = own.join(format!("ductile-1-{}-1", std::process::id()));
    fs::create_dir_all(dead.join("job-0")).expect("made");
    fs::create_dir(&foreign).expect("made");
    let mut left = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().expect("sleep runs");
    fs::write(dead.join("job-0/cgroup.procs"), left.id().to_string()).expect("moved");
    let swept = cgroups.sweep();
    let is_foreign_there = foreign.exists();
    fs::remove_dir(&foreign).expect("removed");
    assert!(swept >= 1 && !dead.exists(), "{swept}");
    assert!(is_foreign_there, "another pid namespace's may be alive");
    let status = left.wait().expect("it was ours");
    assert!(!status.success(), "it was killed: {status}");
}

/// Cgroups of attempts that end at the same time, by whatever end, are all removed.
#[test]
fn no_cgroup_is_left_behind() {
    let (mut bench, cgroups) = with_cgroups();
    if cgroups.level() == Level::Rlimits {
        println!("skipped: no cgroup can be made here: {:?}", cgroups.why());
        return;
    }
    bench.limits.term_grace = Duration::from_millis(50);
    let faults = ["slow", "hang", "ignore_term", "segfault", "setsid_escape", "not_executable"];
    let runs: Vec<_> = (0..24).map(|i| bench.start(&limited(faults[i % faults.len()]), "poll", None)).collect();
    for run in runs {
        run.cancel();
        drop(run.wait());
    }
    bench.expect_nothing_left();
    let home = homes(&cgroups);
    until("every attempt's cgroup is removed", || {
        home.iter().flat_map(|h| directories(h)).all(|d| d.ends_with("gateway"))
    });
}

/// A plugin that is allowed to may run a container of its own, with cgroups in its cgroup.
#[test]
fn cgroups_that_a_plugin_nests_go_with_its_own() {
    let (bench, cgroups) = with_cgroups();
    let Some(own) = cgroups.own() else {
        println!("skipped: no cgroup can be made here: {:?}", cgroups.why());
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut plugin = limited("slow");
    plugin.entrypoint = dir.path().join("run.sh");
    let script = format!(
        "#!/bin/sh\nread -r request\nmine=$(find '{}' -name \"$DUCTILE_JOB_ID-*\")\n[ -n \"$mine\" ] || exit 2\nmkdir -p \"$mine/inner/deeper\" \"$mine/other\" || exit 3\n\
         setsid sleep 60 </dev/null >/dev/null 2>&1 &\necho $! >\"$mine/inner/deeper/cgroup.procs\" || exit 4\n\
         printf '{{\"status\":\"ok\",\"result\":\"\"}}'\n",
        own.display()
    );
    fs::write(&plugin.entrypoint, script).expect("written");
    fs::set_permissions(&plugin.entrypoint, fs::Permissions::from_mode(0o755)).expect("an executable");
    for _ in 0..2 {
        let exited = bench.exited(&plugin, "poll", None);
        assert_eq!(exited.end, End::Exited(0), "{exited:?}");
    }
    bench.expect_nothing_left();
    let home = homes(&cgroups);
    let left = || home.iter().flat_map(|h| directories(h)).filter(|d| !d.ends_with("gateway")).collect::<Vec<_>>();
    assert_eq!(left(), Vec::<PathBuf>::new());
}
