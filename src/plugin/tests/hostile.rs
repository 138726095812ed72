//! Plugins that misbehave: each costs its own job, and nothing of it is left.

mod support;

use std::sync::mpsc;
use std::time::Duration;

use ductile_domain::outcome::{AttemptStatus, Cause};
use ductile_plugin::End;
use ductile_plugin::leftovers::{self, find_by_boot_ids, start_time};

use support::{Bench, until};

const SHORT: Duration = Duration::from_millis(300);

/// DIS-06, DIS-07, D-07: a plugin that hangs is ended with its child at the deadline, as timed out.
#[test]
fn a_hanging_plugin_times_out_and_its_child_goes_with_it() {
    let bench = Bench::with_deadline(SHORT);
    let (outcome, _) = bench.judged(&Bench::fault("hang"), "poll", None);
    assert_eq!((outcome.status, outcome.cause), (AttemptStatus::TimedOut, Some(Cause::Timeout)));
    assert!(outcome.error.as_deref().is_some_and(|e| e.contains("plugins.hang.timeouts.poll")), "{outcome:?}");
    assert!(outcome.timing.dur_ns >= 300_000_000, "{:?}", outcome.timing);
}

/// DIS-06: SIGKILL follows SIGTERM after the grace, for the whole group.
#[test]
fn a_plugin_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut bench = Bench::with_deadline(Duration::from_secs(1));
    bench.limits.term_grace = SHORT;
    let exited = bench.exited(&Bench::fault("ignore_term"), "poll", None);
    assert_eq!(exited.end, End::TimedOut);
    assert_eq!(exited.stderr, b"ready\n", "the trap was not set when the signal came");
    assert!(exited.timing.dur_ns >= 1_300_000_000, "{:?}", exited.timing);
}

/// D-07: a grandchild that keeps stdout open does not hold the job.
#[test]
fn an_orphan_that_holds_the_pipe_is_killed_and_the_answer_kept() {
    let bench = Bench::new();
    let (outcome, warnings) = bench.judged(&Bench::fault("orphan_child"), "poll", None);
    assert_eq!(outcome.status, AttemptStatus::Succeeded, "{outcome:?}");
    assert!(warnings.iter().any(|w| w.contains("held its output open")), "{warnings:?}");
}

/// D-07: the group is ended although nothing of it is seen any more.
#[test]
fn an_orphan_that_holds_no_pipe_is_killed_too() {
    let bench = Bench::new();
    let (outcome, warnings) = bench.judged(&Bench::fault("quiet_orphan"), "poll", None);
    assert_eq!((outcome.status, warnings.len()), (AttemptStatus::Succeeded, 0), "{outcome:?} {warnings:?}");
}

#[test]
fn a_child_that_escaped_into_its_own_session_is_found_and_killed() {
    let bench = Bench::new();
    let (outcome, warnings) = bench.judged(&Bench::fault("setsid_escape"), "poll", None);
    assert_eq!(outcome.status, AttemptStatus::Succeeded, "{outcome:?}");
    assert!(warnings.iter().any(|w| w.contains("held its output open")), "{warnings:?}");
}

/// DIS-08, D-05: more than the cap of stdout ends the group; the prefix is kept.
#[test]
fn a_flood_of_stdout_fails_the_attempt_and_keeps_the_prefix() {
    let bench = Bench::new();
    let (outcome, _) = bench.judged(&Bench::fault("flood_stdout"), "poll", None);
    assert_eq!((outcome.status, outcome.cause), (AttemptStatus::Failed, Some(Cause::OutputTooLarge)));
    assert!(outcome.error.as_deref().is_some_and(|e| e.contains("10 MiB")), "{:?}", outcome.error);
    assert_eq!(outcome.result.map(|r| r.len()), Some(10 * 1024 * 1024));
}

#[test]
fn an_answer_of_exactly_the_cap_is_accepted() {
    let mut bench = Bench::new();
    bench.limits.stdout = br#"{"status":"ok","result":"left a child behind"}"#.len();
    let plugin = Bench::fault("orphan_child");
    assert_eq!(bench.exited(&plugin, "poll", None).end, End::Exited(0));
    bench.limits.stdout -= 1;
    assert_eq!(bench.exited(&plugin, "poll", None).end, End::OutputTooLarge);
}

/// DIS-09: at most 64 KiB of stderr are kept, the rest is drained, one warning is given.
#[test]
fn a_flood_of_stderr_is_cut_and_the_job_succeeds() {
    let bench = Bench::new();
    let (outcome, warnings) = bench.judged(&Bench::fault("flood_stderr"), "poll", None);
    assert_eq!(outcome.status, AttemptStatus::Succeeded, "{:?}", outcome.error);
    assert_eq!(outcome.stderr.map(|s| s.len()), Some(64 * 1024));
    assert_eq!(warnings.iter().filter(|w| w.contains("stderr was cut")).count(), 1, "{warnings:?}");
}

/// DIS-12, PRO-12, D-04: stdout that is not exactly one object is a protocol error that says what to do.
#[test]
fn output_that_is_not_one_object_is_a_protocol_error() {
    let bench = Bench::new();
    for (fault, says) in [
        ("garbage", "does not begin with a JSON object"),
        ("two_objects", "goes on behind the JSON object"),
        ("non_utf8", "not UTF-8"),
    ] {
        let (outcome, _) = bench.judged(&Bench::fault(fault), "poll", None);
        assert_eq!((outcome.status, outcome.cause), (AttemptStatus::Failed, Some(Cause::Protocol)), "{fault}");
        let error = outcome.error.expect("a failure has an error");
        assert!(error.starts_with("protocol error: ") && error.contains(says), "{fault}: {error}");
        assert!(outcome.result.is_some(), "{fault}: stdout was not kept");
        assert_eq!(outcome.stderr.is_some(), fault == "garbage", "{fault}");
    }
}

/// DIS-01: a request that nobody reads, however large, costs nothing.
#[test]
fn a_large_request_that_is_not_read_does_not_hold_the_job() {
    let bench = Bench::new();
    let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(1024 * 1024));
    for fault in ["never_reads_stdin", "exits_before_reading"] {
        for payload in [None, Some(payload.as_str())] {
            let (outcome, warnings) = bench.judged(&Bench::fault(fault), "poll", payload);
            assert_eq!(outcome.status, AttemptStatus::Succeeded, "{fault}: {:?}", outcome.error);
            assert!(warnings.is_empty(), "{fault}: {warnings:?}");
        }
    }
}

#[test]
fn a_large_request_arrives_whole() {
    let bench = Bench::new();
    let plugin = Bench::fault("slow");
    for size in [10, 4_000, 60_000, 70_000, 3_000_000] {
        let mut invocation = bench.invocation(&plugin, &support::job(&plugin, "poll", None));
        invocation.program = std::path::Path::new("/usr/bin/wc").into();
        invocation.stdin = vec![b'x'; size];
        let exited = bench.runner.start(invocation, |_, _| {}).wait();
        let counted = String::from_utf8_lossy(&exited.stdout).split_whitespace().nth(2).map(str::to_owned);
        assert_eq!(counted, Some(size.to_string()), "{exited:?}");
    }
}

/// D-02, DIS-13, PRO-13: the exit code is stronger than the answer.
#[test]
fn a_bad_exit_fails_whatever_was_printed() {
    let bench = Bench::new();
    for (fault, cause, error) in [
        ("exit_78", Cause::ExitConfig, "exit code 78 (EX_CONFIG: not retried): config.api_key is missing"),
        ("exit_1_ok_json", Cause::ExitCode, "exit code 1"),
        ("killed_by_signal", Cause::Signal, "killed by signal 9 (SIGKILL)"),
    ] {
        let (outcome, _) = bench.judged(&Bench::fault(fault), "poll", None);
        assert_eq!((outcome.status, outcome.cause), (AttemptStatus::Failed, Some(cause)), "{fault}");
        assert_eq!(outcome.error.as_deref(), Some(error), "{fault}");
    }
}

/// A program that can't be executed is the plugin's fault, and the text says what to do.
#[test]
fn a_program_that_cannot_be_executed_fails_with_a_hint() {
    let bench = Bench::new();
    for (fault, hint) in
        [("not_executable", "chmod +x"), ("bad_shebang", "#!/bin/sh"), ("missing_interpreter", "interpreter")]
    {
        let (outcome, _) = bench.judged(&Bench::fault(fault), "poll", None);
        assert_eq!(outcome.cause, Some(Cause::SpawnFailed), "{fault}");
        let error = outcome.error.expect("a failure has an error");
        assert!(error.contains(hint) && error.contains(fault), "{fault}: {error}");
    }
    let mut gone = Bench::fault("slow");
    gone.entrypoint = gone.dir.join("not-there");
    let exited = bench.exited(&gone, "poll", None);
    assert!(matches!(&exited.end, End::SpawnFailed { ours: false, .. }), "{exited:?}");
}

#[test]
fn a_plugin_that_closes_its_output_is_still_watched() {
    let bench = Bench::with_deadline(SHORT);
    let exited = bench.exited(&Bench::fault("closes_output"), "poll", None);
    assert_eq!(exited.end, End::TimedOut);
}

/// D-13: a cancelled run is ended with its group.
#[test]
fn cancelling_and_dropping_end_the_process_group() {
    let bench = Bench::new();
    let plugin = Bench::fault("hang");
    let run = bench.start(&plugin, "poll", None);
    until("the plugin and its child run", || find_by_boot_ids(&[bench.boot]).len() == 2);
    run.cancel();
    assert_eq!(run.wait().end, End::Cancelled);
    bench.expect_nothing_left();

    let run = bench.start(&plugin, "poll", None);
    until("the plugin and its child run", || find_by_boot_ids(&[bench.boot]).len() == 2);
    drop(run);
    until("the process was ended on its thread", || bench.runner.running() == 0);
    bench.expect_nothing_left();
}

#[test]
fn a_run_that_is_cancelled_before_a_thread_took_it_starts_no_process() {
    let bench = Bench::with(1, support::AMPLE);
    let plugin = Bench::fault("hang");
    let first = bench.start(&plugin, "poll", None);
    until("the first plugin runs", || find_by_boot_ids(&[bench.boot]).len() == 2);
    let second = bench.start(&plugin, "poll", None);
    assert_eq!(bench.runner.running(), 1);
    second.cancel();
    first.cancel();
    assert_eq!(first.wait().end, End::Cancelled);
    let second = second.wait();
    assert_eq!((second.end, second.timing.dur_ns), (End::Cancelled, 0));
}

/// A process that lives is made known by pid and start time; a short one is not.
#[test]
fn a_long_process_is_announced_with_its_start_time() {
    let bench = Bench::new();
    let plugin = Bench::fault("hang");
    let (sender, alive) = mpsc::channel();
    let invocation = bench.invocation(&plugin, &support::job(&plugin, "poll", None));
    let run = bench.runner.start(invocation, move |pid, start| sender.send((pid, start)).expect("the test waits"));
    let (pid, start) = alive.recv_timeout(Duration::from_secs(30)).expect("the process lives and is announced");
    assert_eq!(start_time(pid), Some(start));
    assert!(!leftovers::kill_group_if_same(pid, start + 1), "another process of that pid was taken for it");
    assert!(leftovers::kill_group_if_same(pid, start));
    assert_eq!(run.wait().end, End::Signaled(9));
    bench.expect_nothing_left();
}

/// Promise 5: what a killed gateway left behind is found by its boot id and ended.
#[test]
fn processes_of_another_start_are_found_and_ended() {
    let bench = Bench::new();
    let run = bench.start(&Bench::fault("ignore_term"), "poll", None);
    let mut found = Vec::new();
    until("the plugin and its child run", || {
        found = find_by_boot_ids(&[bench.boot]);
        found.len() == 2
    });
    assert!(found.iter().all(|l| l.job.is_some() && l.boot == bench.boot && l.pgid == found[0].pgid), "{found:?}");
    assert!(find_by_boot_ids(&[]).is_empty());
    assert_eq!(leftovers::end_groups(&found, Duration::from_millis(50)), []);
    assert_eq!(run.wait().end, End::Signaled(9));
}

/// DIS-02, DIS-14: a fresh process with exactly the allow-listed environment and the attempt's variables.
#[test]
fn the_environment_is_the_allow_list_and_the_attempt() {
    let bench = Bench::new();
    let plugin = Bench::fault("slow");
    let mut invocation = bench.invocation(&plugin, &support::job(&plugin, "poll", None));
    invocation.program = std::path::Path::new("/usr/bin/env").into();
    invocation.env = environment(&[("HOME", "/h"), ("CANARY", "secret"), ("LC_TIME", "C"), ("PATH", "/bin")]);
    let exited = bench.runner.start(invocation, |_, _| {}).wait();
    let text = String::from_utf8_lossy(&exited.stdout);
    let mut names: Vec<&str> = text.lines().filter_map(|l| l.split('=').next()).collect();
    names.sort_unstable();
    let expected =
        ["DUCTILE_ATTEMPT", "DUCTILE_BOOT_ID", "DUCTILE_IDEMPOTENCY_KEY", "DUCTILE_JOB_ID", "HOME", "LC_TIME", "PATH"];
    assert_eq!(names, expected);
}

fn environment(pairs: &[(&str, &str)]) -> std::sync::Arc<[(std::ffi::OsString, std::ffi::OsString)]> {
    ductile_plugin::environment::allowed(pairs.iter().map(|(k, v)| (k.into(), v.into())), [])
}

#[test]
fn a_future_gives_the_same_result_as_a_wait() {
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut run = bench.start(&Bench::fault("slow"), "poll", Some(r#"{"seconds":0.01}"#));
    assert_eq!(runtime.block_on(run.done()).end, End::Exited(0));
}
