//! Feeds mutated inputs to the parts that read what people write, until time is up or a promise is broken.
//!
//! `ductile-fuzz <target> [--seconds N] [--seed N] [--out DIR]` exits 0 when all held, 1 with the input written out when
//! a target panicked or broke a property, 2 on a wrong call. The same seed gives the same inputs in the same order.
//! `ductile-fuzz <target> --replay FILE` runs one input. `--trace` writes each input before it is run, for a fault that
//! ends the process, such as an overflow of the stack.

mod corpus;
mod mutate;
mod random;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use corpus::Corpus;
use random::Random;
use targets::Target;

struct Call {
    target: &'static Target,
    time: Duration,
    seed: u64,
    out: PathBuf,
    replay: Option<PathBuf>,
    is_traced: bool,
}

fn call() -> Result<Call, String> {
    let mut args = std::env::args().skip(1);
    let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    let usage = format!(
        "usage: ductile-fuzz <{}> [--seconds N] [--seed N] [--out DIR] [--trace] [--replay FILE]",
        names.join("|")
    );
    let name = args.next().ok_or_else(|| usage.clone())?;
    let target = targets::ALL.iter().find(|target| target.name == name).ok_or_else(|| usage.clone())?;
    let mut call = Call {
        target,
        time: Duration::from_secs(60),
        seed: 1,
        out: std::env::temp_dir(),
        replay: None,
        is_traced: false,
    };
    while let Some(flag) = args.next() {
        if flag == "--trace" {
            call.is_traced = true;
            continue;
        }
        let value = args.next().ok_or_else(|| usage.clone())?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} needs a number, not {value:?}"));
        match flag.as_str() {
            "--seconds" => call.time = Duration::from_secs(number()?),
            "--seed" => call.seed = number()?,
            "--out" => call.out = PathBuf::from(&value),
            "--replay" => call.replay = Some(PathBuf::from(&value)),
            _ => return Err(usage),
        }
    }
    Ok(call)
}

fn main() -> ExitCode {
    let call = match call() {
        Ok(call) => call,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let found = match &call.replay {
        Some(file) => replay(call.target, file),
        None => search(&call),
    };
    match found {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn replay(target: &Target, file: &Path) -> Result<(), String> {
    let input = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    (target.run)(&String::from_utf8_lossy(&input)).map(|reached| println!("held; reached {reached:016x}"))
}

fn search(call: &Call) -> Result<(), String> {
    // The loop reports panics; the place in the code is part of the message.
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let (target, begin) = (call.target, Instant::now());
    let mut random = Random::new(call.seed);
    let mut corpus = Corpus::new(target.seeds);
    let (mut runs, mut reported, mut slowest) = (0u64, begin, Duration::ZERO);
    let trace = call.out.join(format!("{}-{}.trace", target.name, call.seed));
    for seed in target.seeds {
        let reached = attempt(call, seed)?;
        corpus.note(reached);
        runs += 1;
    }
    while begin.elapsed() < call.time {
        let input = mutate::mutate(&corpus, target.words, &mut random);
        if call.is_traced {
            std::fs::write(&trace, &input).map_err(|error| format!("{}: {error}", trace.display()))?;
        }
        let started = Instant::now();
        let reached = attempt(call, &input)?;
        slowest = slowest.max(started.elapsed());
        runs += 1;
        corpus.keep(input, reached, &mut random);
        if reported.elapsed() > Duration::from_secs(60) {
            reported = Instant::now();
            println!("{}: {runs} runs, {} kept, {:?}", target.name, corpus.len(), begin.elapsed());
        }
    }
    println!(
        "{}: {runs} runs in {:.0} s (seed {}), {} behaviours, slowest {slowest:?}, nothing found",
        target.name,
        begin.elapsed().as_secs_f64(),
        call.seed,
        corpus.behaviours()
    );
    Ok(())
}

/// Runs one input; a finding is written out and named.
fn attempt(call: &Call, input: &str) -> Result<u64, String> {
    let finding = match catch_unwind(AssertUnwindSafe(|| (call.target.run)(input))) {
        Ok(Ok(reached)) => return Ok(reached),
        Ok(Err(broken)) => broken,
        Err(_) => "panicked".to_owned(),
    };
    let file = call.out.join(format!("{}-{}.finding", call.target.name, call.seed));
    std::fs::write(&file, input).map_err(|error| format!("{}: {error}", file.display()))?;
    Err(format!("{}: {finding}\nthe input is in {}", call.target.name, file.display()))
}
