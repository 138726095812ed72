//! Measures what the runner adds to a bare loop of std's `Command`, in jobs per second and in one run.
//!
//! `cargo run --release -p ductile-plugin --example process_cost -- [seconds per round] [rounds]`; needs `cc`.

use std::error::Error;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ductile_plugin::{Bounds, Cgroups, End, Invocation, Limits, Runner, environment};

/// Reads the request to its end, answers once. Static and without a C library's start-up, so that the cost is ours.
const TINY: &str = r#"
static long call(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
static char buffer[65536];
void _start(void) {
    static const char answer[] = "{\"status\":\"ok\",\"result\":\"done\"}";
    while (call(0, 0, (long)buffer, sizeof buffer) > 0) {}
    call(1, 1, (long)answer, sizeof answer - 1);
    call(60, 0, 0, 0);
    __builtin_unreachable();
}
"#;

const REQUEST: &[u8] = br#"{"protocol":2,"job_id":"01890f3e-7c5a-7000-8000-000000000001","command":"poll","config":{},"state":{},"context":{"ductile_plugin":"tiny"},"payload":{"message":"hello"},"deadline_at":"2026-01-01T00:00:00.000Z"}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |a| a.parse())?;
    let rounds: u32 = arguments.next().map_or(Ok(3), |a| a.parse())?;
    let directory = tempfile::tempdir()?;
    let program = build(directory.path())?;
    let env = environment::allowed(std::env::vars_os(), []);
    println!("variables passed: {}", env.len() + 4);
    for threads in [1, 2, 4] {
        let (mut bare_best, mut runner_best) = (0.0_f64, 0.0_f64);
        for _ in 0..rounds {
            let limit = Duration::from_secs_f64(seconds);
            bare_best = bare_best.max(rate(threads, limit, || bare(&program, &env)));
            let runner = Runner::new(threads);
            runner_best = runner_best.max(rate(threads, limit, || through(&runner, &program, &env, None)));
            runner.shutdown();
        }
        println!(
            "workers {threads}: bare {bare_best:.0} jobs/s, runner {runner_best:.0} jobs/s, ratio {:.2}",
            runner_best / bare_best
        );
    }
    limits(&program, &env, Duration::from_secs_f64(seconds), rounds);
    Ok(())
}

/// What limits add to a spawn, one at a time on one thread.
fn limits(program: &Path, env: &Arc<[(OsString, OsString)]>, limit: Duration, rounds: u32) {
    let one = Bounds { open_files: Some(64), ..Bounds::default() };
    let all = Bounds {
        memory: Some(1 << 30),
        cpu_time: Some(Duration::from_secs(10)),
        open_files: Some(64),
        processes: Some(10_000),
    };
    let cgroups = Arc::new(Cgroups::look());
    println!("limits are held by {} ({})", cgroups.level().as_str(), cgroups.why().unwrap_or("nothing better"));
    // What bounds each process, and whether cgroups are at hand.
    let ways = [
        ("no limits", None, true),
        ("one limit, no cgroup", Some(one), false),
        ("four limits, no cgroup", Some(all), false),
        ("four limits and a cgroup", Some(all), true),
    ];
    let mut best = [0.0_f64; 4];
    for _ in 0..rounds {
        for ((_, bounds, has_cgroups), best) in ways.iter().zip(&mut best) {
            let runner = if *has_cgroups { Runner::with_cgroups(1, cgroups.clone()) } else { Runner::new(1) };
            *best = best.max(rate(1, limit, || through(&runner, program, env, *bounds)));
            runner.shutdown();
        }
    }
    for ((name, ..), rate) in ways.iter().zip(best) {
        println!("{name}: {:.0} µs a job, {:+.0} µs", 1e6 / rate, 1e6 / rate - 1e6 / best[0]);
    }
}

fn build(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = directory.join("tiny.c");
    let program = directory.join("tiny");
    std::fs::write(&source, TINY)?;
    let built = Command::new("cc")
        .args(["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o"])
        .args([&program, &source])
        .status()?;
    if built.success() { Ok(program) } else { Err("cc could not build the tiny plugin".into()) }
}

/// Jobs per second of `job` on so many threads.
fn rate(threads: usize, limit: Duration, job: impl Fn() + Sync) -> f64 {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    job();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(limit);
        stop.store(true, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// Spawn, feed, read, reap with std alone: group and stderr pipe as the runner has them, no limits, no deadline.
fn bare(program: &Path, env: &[(OsString, OsString)]) {
    let mut child = Command::new(program)
        .env_clear()
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the tiny plugin starts");
    child.stdin.take().expect("piped").write_all(REQUEST).expect("the pipe takes a small request");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    child.stdout.take().expect("piped").read_to_end(&mut out).expect("readable");
    child.stderr.take().expect("piped").read_to_end(&mut err).expect("readable");
    assert!(child.wait().expect("a child can be waited for").success() && !out.is_empty());
}

fn through(runner: &Runner, program: &Path, env: &Arc<[(OsString, OsString)]>, bounds: Option<Bounds>) {
    let invocation = Invocation {
        program: program.into(),
        dir: None,
        env: env.clone(),
        extra_env: vec![
            ("DUCTILE_BOOT_ID".into(), "01890f3e-7c5a-7000-8000-000000000001".into()),
            ("DUCTILE_JOB_ID".into(), "01890f3e-7c5a-7000-8000-000000000001".into()),
            ("DUCTILE_ATTEMPT".into(), "1".into()),
            ("DUCTILE_IDEMPOTENCY_KEY".into(), "01890f3e-7c5a-7000-8000-000000000001".into()),
        ],
        stdin: REQUEST.to_vec(),
        deadline: Duration::from_secs(60),
        limits: Limits::default(),
        bounds,
    };
    let exited = runner.start(invocation, |_, _| {}).wait();
    assert!(exited.end == End::Exited(0) && !exited.stdout.is_empty(), "{exited:?}");
}
