//! What the gateway costs above a bare loop that spawns, feeds and reads the same plugin: ratios from one run.
//!
//! `just bench`, or `cargo build --release && cargo run --release -p ductile-bench`. Nothing here is a test: a slow
//! machine prints other absolute figures and the same ratios.

mod bare;
mod client;
mod gateway;
mod history;
mod no_ledger;
mod plugins;
mod report;
mod schedules;

use std::path::PathBuf;

use plugins::Kind;
use report::{Line, Report};

/// Numbers of workers that both sides try; the best of each counts.
const WORKERS: [usize; 3] = [1, 2, 4];

/// What the command line asks for.
struct Options {
    ductile: PathBuf,
    /// Jobs of the static plugin per measurement; the slower plugins run a share of it.
    jobs: usize,
    /// Leave out what takes minutes.
    quick: bool,
    /// One part alone: `drains`, `doors`, `loads` or `schedules`.
    only: Option<String>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut options = Options { ductile: plugins::beside_this_binary("ductile"), jobs: 5000, quick: false, only: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--serve-without-ledger" => return no_ledger::serve(&args.next().unwrap_or_default()),
            "--ductile" => options.ductile = args.next().unwrap_or_default().into(),
            "--jobs" => options.jobs = args.next().and_then(|n| n.parse().ok()).unwrap_or(options.jobs),
            "--quick" => options.quick = true,
            "--only" => options.only = args.next(),
            other => {
                eprintln!(
                    "unknown argument {other:?}; known: --ductile PATH, --jobs N, --quick, --only drains|doors|loads|schedules"
                );
                std::process::exit(2);
            }
        }
    }
    if !options.ductile.is_file() {
        eprintln!(
            "{} is missing: run `cargo build --release` first, or name it with --ductile",
            options.ductile.display()
        );
        std::process::exit(2);
    }
    let dir = tempfile::Builder::new().prefix("ductile-bench-").tempdir().expect("a temporary directory");
    let built = plugins::build(dir.path());
    let mut report = Report::new(&options.ductile, dir.path());
    let wants = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if wants("drains") {
        drains(&options, &built, &mut report);
    }
    if wants("doors") {
        doors(&options, &built, &mut report);
    }
    if wants("loads") && !options.quick {
        loads(&options, &built, &mut report);
    }
    // Not among the parts of a quick run unless it is asked for: it idles for minutes.
    if wants("schedules") && (!options.quick || options.only.is_some()) {
        schedules::measure(&options.ductile, &built, &schedules::Amounts::new(options.quick), &mut report);
    }
    report.print();
}

fn share(kind: Kind, jobs: usize) -> usize {
    match kind {
        Kind::Static => jobs,
        Kind::Shell => jobs * 3 / 5,
        Kind::Python => jobs / 10,
    }
}

/// Draining a queue, and the same while it fills over HTTP.
fn drains(options: &Options, built: &plugins::Built, report: &mut Report) {
    for (kind, must, aim) in [(Kind::Static, 0.50, 0.75), (Kind::Shell, 0.75, 0.90), (Kind::Python, 0.95, 0.98)] {
        let jobs = share(kind, options.jobs);
        let bare = best(|workers| bare::rate(&built.entrypoint(kind), workers, jobs));
        let (rate, cost) = best_of(|workers| {
            let gateway = gateway::start(&options.ductile, built, workers, gateway::Setup::default());
            gateway.drain(kind, jobs)
        });
        report.add(Line::ratio(format!("draining {jobs} queued jobs: {kind}"), rate, bare, "jobs/s", must, aim));
        report.add_cost(format!("draining, {kind}"), cost, 1e6 / bare);
        if kind == Kind::Python {
            continue;
        }
        let (must, aim) = if kind == Kind::Static { (0.35, 0.55) } else { (0.55, 0.75) };
        let (rate, cost) = best_of(|workers| {
            let gateway = gateway::start(&options.ductile, built, workers, gateway::Setup::default());
            gateway.drain_while_arriving(kind, jobs)
        });
        report.add(Line::ratio(format!("the same arriving over HTTP: {kind}"), rate, bare, "jobs/s", must, aim));
        report.add_cost(format!("arriving over HTTP, {kind}"), cost, 1e6 / bare);
    }
}

/// Latency, durable enqueues, memory and start.
fn doors(options: &Options, built: &plugins::Built, report: &mut Report) {
    let gateway = gateway::start(&options.ductile, built, 2, gateway::Setup::default());
    std::thread::sleep(std::time::Duration::from_millis(300));
    report.add(Line::below("idle memory", gateway.resident_mib(), "MiB", 25.0, 12.0));
    report.add(Line::below("trigger to readable result, idle, static, p50", gateway.latency_ms(300), "ms", 3.0, 1.5));
    drop(gateway);
    let ready = best_low(5, || gateway::start(&options.ductile, built, 2, gateway::Setup::default()).ready_ms);
    report.add(Line::below("start to ready", ready, "ms", 100.0, 25.0));

    let without = no_ledger::start(built);
    let bare = client::enqueue_rate(&without.address, Kind::Static, options.jobs * 4);
    drop(without);
    let paused = gateway::start(&options.ductile, built, 2, gateway::Setup { paused: true, ..Default::default() });
    let durable = client::enqueue_rate(&paused.address, Kind::Static, options.jobs * 4);
    report.add(Line::ratio("durable enqueues over HTTP, 16 clients".into(), durable, bare, "1/s", 0.10, 0.25));
    drop(paused);
    match gateway::tmpfs() {
        Some(tmpfs) => {
            let setup = gateway::Setup { paused: true, state_dir: Some(tmpfs.clone()), ..Default::default() };
            let paused = gateway::start(&options.ductile, built, 2, setup);
            let durable = client::enqueue_rate(&paused.address, Kind::Static, options.jobs * 4);
            report.add(Line::ratio("the same with the ledger on tmpfs".into(), durable, bare, "1/s", 0.10, 0.25));
            drop(paused);
            let _ = std::fs::remove_dir_all(tmpfs);
        }
        None => report.note("no tmpfs at /dev/shm: the durable rows are given on the disk only"),
    }
}

/// What a long history and a long line of another plugin cost.
fn loads(options: &Options, built: &plugins::Built, report: &mut Report) {
    let (plain, _) = best_of(|workers| {
        gateway::start(&options.ductile, built, workers, gateway::Setup::default()).drain(Kind::Static, options.jobs)
    });
    let history = history::with_rows(&options.ductile, built, 1_000_000);
    let (aged, _) = best_of(|workers| {
        let setup = gateway::Setup { ledger: Some(history.clone()), ..Default::default() };
        gateway::start(&options.ductile, built, workers, setup).drain(Kind::Static, options.jobs)
    });
    report.add(Line::ratio(
        "draining with 1,000,000 jobs of history, against none".into(),
        aged,
        plain,
        "jobs/s",
        0.90,
        0.97,
    ));
    let line = history::with_queued(&options.ductile, built, 100_000);
    let (behind, _) = best_of(|workers| {
        // One worker more, since the capped plugin holds one for the whole measurement.
        let setup = gateway::Setup { ledger: Some(line.clone()), ..Default::default() };
        gateway::start(&options.ductile, built, workers + 1, setup).drain(Kind::Static, options.jobs)
    });
    report.add(Line::ratio(
        "draining behind 100,000 jobs of a capped plugin".into(),
        behind,
        plain,
        "jobs/s",
        0.90,
        0.97,
    ));
}

fn best(mut measure: impl FnMut(usize) -> f64) -> f64 {
    WORKERS.into_iter().map(&mut measure).fold(0.0, f64::max)
}

fn best_low(times: usize, mut measure: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

fn best_of<T>(mut measure: impl FnMut(usize) -> (f64, T)) -> (f64, T) {
    let mut all: Vec<_> = WORKERS.into_iter().map(&mut measure).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.pop().expect("there is at least one number of workers")
}
