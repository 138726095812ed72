//! What spawning costs the gateway: no descriptor, no thread, no copy of its page tables.
//!
//! One test at a time looks at the whole process, so this is a binary of its own and its tests run one after another.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use ductile_plugin::End;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Bench, until};

static ALONE: Mutex<()> = Mutex::new(());

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("this is Linux").count()
}

/// No fault leaves a descriptor or a thread behind, and threads never exceed the cap.
#[test]
fn no_fault_leaks_descriptors_or_threads() {
    let _alone = ALONE.lock().expect("no other test failed");
    let before = descriptors();
    {
        let mut bench = Bench::with_deadline(Duration::from_secs(2));
        bench.limits.term_grace = Duration::from_millis(50);
        let mut runs = Vec::new();
        for fault in std::fs::read_dir(support::root().join("tests/plugins")).expect("the faults are there") {
            let fault = fault.expect("readable").path();
            if fault.join("manifest.yaml").is_file() {
                let plugin = support::plugin(&fault);
                runs.push(bench.start(&plugin, "poll", Some("{\"seconds\":0.01}")));
                runs.push(bench.start(&plugin, "handle", None));
            }
        }
        assert!(runs.len() >= 30, "only {} runs", runs.len());
        assert!(bench.runner.threads() <= 4 && bench.runner.running() <= 4);
        for run in runs {
            drop(run.wait());
        }
        bench.expect_nothing_left();
    }
    until("all descriptors are closed again", || descriptors() == before);
}

/// A gateway without descriptors gives the attempt back; with them the next one runs.
#[test]
fn a_spawn_without_descriptors_is_our_own_failure() {
    let _alone = ALONE.lock().expect("no other test failed");
    let bench = Bench::new();
    let plugin = support::plugin(&support::root().join("plugins/echo"));
    let invocation = bench.invocation(&plugin, &support::job(&plugin, "poll", None));
    let before = getrlimit(Resource::Nofile);
    // Three numbers stay free: the thread's eventfd and one pipe; the second pipe fails.
    let open: Vec<u64> = std::fs::read_dir("/proc/self/fd")
        .and_then(|list| list.collect::<Result<Vec<_>, _>>())
        .expect("this is Linux")
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| std::fs::exists(format!("/proc/self/fd/{fd}")).unwrap_or(false))
        .collect();
    let limit = (0..).filter(|fd| !open.contains(fd)).nth(2).expect("numbers don't end") + 1;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).expect("lowering is allowed");
    let exited = bench.runner.start(invocation, |_, _| {}).wait();
    setrlimit(Resource::Nofile, before).expect("the old limit is allowed");
    assert!(matches!(&exited.end, End::SpawnFailed { ours: true, .. }), "{exited:?}");
    assert_eq!(bench.exited(&plugin, "poll", None).end, End::Exited(0));
}

/// The spawn must be `clone3(CLONE_VM|CLONE_VFORK)`: with a fork each job would copy the gateway's page tables.
#[test]
fn the_spawn_never_forks() {
    let _alone = ALONE.lock().expect("no other test failed");
    for spawn in ["one_spawn_for_the_trace", "one_bounded_spawn_for_the_trace"] {
        let Some(text) = traced(spawn, "clone,clone3,fork,vfork") else { return };
        let spawns: Vec<&str> = text.lines().filter(|l| !l.contains("CLONE_THREAD") && l.contains(" = ")).collect();
        let shell_forks = spawns.iter().filter(|l| l.contains("SIGCHLD") && !l.contains("CLONE_VFORK")).count();
        assert!(spawns.iter().any(|l| l.contains("CLONE_VM") && l.contains("CLONE_VFORK")), "{text}");
        assert_eq!(shell_forks, 0, "{text}");
    }
}

/// A plugin without limits is spawned without a system call on their behalf; one with limits is bounded.
#[test]
fn who_has_no_limits_pays_nothing_for_them() {
    let _alone = ALONE.lock().expect("no other test failed");
    let calls = |spawn| {
        let text = traced(spawn, "prlimit64,mkdir,mkdirat,rmdir,unlinkat,openat")?;
        // the C library asks for its own limits, as pid 0
        let ours = |l: &&str| match l.split_once("prlimit64(") {
            Some((_, of)) => !of.starts_with("0,"),
            None => l.contains("cgroup") || l.contains("/children"),
        };
        Some(text.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>())
    };
    let (Some(free), Some(bounded)) = (calls("one_spawn_for_the_trace"), calls("one_bounded_spawn_for_the_trace"))
    else {
        return;
    };
    assert!(free.is_empty(), "{free:#?}");
    assert!(bounded.iter().any(|l| l.contains("RLIMIT_NOFILE")), "{bounded:#?}");
}

/// The system calls of one of the tests below; `None` and a word about it when they can't be traced.
fn traced(test: &str, calls: &str) -> Option<String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let trace = directory.path().join("trace");
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-e", &format!("trace={calls}"), "-e", "signal=none", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("a running test has a file"))
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .output();
    let is_usable = traced.as_ref().is_ok_and(|t| t.status.success());
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    if !is_usable || text.is_empty() {
        println!("skipped: strace is not there or may not trace: {traced:?}");
        return None;
    }
    Some(text)
}

#[test]
#[ignore = "traced by the_spawn_never_forks"]
fn one_spawn_for_the_trace() {
    let bench = Bench::new();
    assert_eq!(bench.exited(&support::plugin(&support::root().join("plugins/echo")), "poll", None).end, End::Exited(0));
}

#[test]
#[ignore = "traced by the_spawn_never_forks"]
fn one_bounded_spawn_for_the_trace() {
    let bench = Bench::new();
    let mut plugin = support::plugin(&support::root().join("plugins/echo"));
    plugin.limits.open_files = Some(64);
    assert_eq!(bench.exited(&plugin, "poll", None).end, End::Exited(0));
}

/// What is started where a run ends needs no other thread to wake.
#[test]
fn what_the_end_of_a_run_starts_is_run_by_its_thread() {
    let _alone = ALONE.lock().expect("no other test failed");
    let bench = Bench::with(2, Duration::from_secs(60));
    let plugin = support::plugin(&support::root().join("plugins/echo"));
    let invocation = || bench.invocation(&plugin, &support::job(&plugin, "poll", None));
    let (tell, told) = std::sync::mpsc::channel();
    let (next, runner) = (invocation(), bench.runner.clone());
    let (first, second) = (tell.clone(), tell);
    let handle = bench.runner.start_then(
        invocation(),
        |_, _| {},
        move |exited| {
            let on_exit = move |exited: ductile_plugin::Exited| {
                drop(second.send((std::thread::current().id(), exited.end, None)));
            };
            let next = runner.start_then(next, |_, _| {}, on_exit);
            assert_eq!(runner.running(), 1, "it counts already");
            drop(first.send((std::thread::current().id(), exited.end, Some(next))));
        },
    );
    let (thread, end, next) = told.recv().expect("ended");
    assert_eq!((end, next.is_some()), (End::Exited(0), true));
    let (same, end, _) = told.recv().expect("ended");
    assert_eq!((same, end), (thread, End::Exited(0)));
    until("nothing runs", || bench.runner.running() == 0);
    assert_eq!(bench.runner.threads(), 1);
    drop((handle, next));
    bench.expect_nothing_left();
}

/// A reload changes how many may run while others run and wait.
#[test]
fn the_number_of_processes_at_a_time_changes_while_they_run() {
    let _alone = ALONE.lock().expect("no other test failed");
    let bench = Bench::with(1, Duration::from_secs(60));
    let plugin = Bench::fault("hang");
    let runs: Vec<_> = (0..3).map(|_| bench.start(&plugin, "poll", None)).collect();
    until("the first runs", || bench.runner.running() == 1);
    bench.runner.set_max_threads(3);
    until("those that waited run", || bench.runner.running() == 3);
    bench.runner.set_max_threads(1);
    assert_eq!(bench.runner.running(), 3, "what runs is left alone");
    for run in runs {
        run.cancel();
        drop(run.wait());
    }
    until("the surplus has ended", || bench.runner.threads() == 1);
    assert_eq!(bench.exited(&support::plugin(&support::root().join("plugins/echo")), "poll", None).end, End::Exited(0));
}
