//! The tables that the benchmark prints.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// One measure against its marks.
pub(crate) struct Line {
    what: String,
    value: String,
    against: String,
    result: f64,
    unit: &'static str,
    must: f64,
    aim: f64,
    is_ratio: bool,
}

impl Line {
    /// Ours against the bare loop's: more is better.
    pub(crate) fn ratio(what: String, ours: f64, bare: f64, unit: &'static str, must: f64, aim: f64) -> Self {
        let (value, against) = (format!("{ours:.0} {unit}"), format!("{bare:.0} {unit}"));
        Self { what, value, against, result: ours / bare, unit: "", must, aim, is_ratio: true }
    }

    /// An amount: less is better.
    pub(crate) fn below(what: &str, value: f64, unit: &'static str, must: f64, aim: f64) -> Self {
        Self {
            what: what.to_owned(),
            value: String::new(),
            against: String::new(),
            result: value,
            unit,
            must,
            aim,
            is_ratio: false,
        }
    }

    fn verdict(&self) -> &'static str {
        let reaches = |mark: f64| if self.is_ratio { self.result >= mark } else { self.result <= mark };
        match (reaches(self.must), reaches(self.aim)) {
            (_, true) => "aim reached",
            (true, false) => "must reached",
            (false, false) => "MISSED",
        }
    }
}

/// CPU µs per job by where it went.
pub(crate) struct Cost(BTreeMap<String, f64>);

impl Cost {
    pub(crate) fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, jobs: usize) -> Self {
        let spent =
            |(name, us): (&String, &f64)| (name.clone(), (us - before.get(name).copied().unwrap_or(0.0)) / jobs as f64);
        Self(after.iter().map(spent).collect())
    }
}

/// Collects lines and prints them at the end.
pub(crate) struct Report {
    lines: Vec<Line>,
    costs: Vec<(String, Cost, f64)>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(binary: &Path, dir: &Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        println!("{}; {cores} cores; a sync of the disk takes {:.0} µs (median of 50)", binary.display(), sync_us(dir));
        Self { lines: Vec::new(), costs: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, line: Line) {
        eprintln!("  {}: {:.2}{} ({})", line.what, line.result, line.unit, line.verdict());
        self.lines.push(line);
    }

    pub(crate) fn add_cost(&mut self, what: String, cost: Cost, bare_wall_us: f64) {
        self.costs.push((what, cost, bare_wall_us));
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    pub(crate) fn print(&self) {
        println!("\n{:<58} {:>14} {:>14} {:>9} {:>7} {:>7}", "measure", "gateway", "bare", "result", "must", "aim");
        for l in &self.lines {
            let (unit, sign) = (l.unit, if l.is_ratio { ">=" } else { "<=" });
            let result = format!("{:.2} {unit}", l.result);
            println!(
                "{:<58} {:>14} {:>14} {:>9} {sign}{:>5} {sign}{:>5}  {}",
                l.what,
                l.value,
                l.against,
                result.trim(),
                l.must,
                l.aim,
                l.verdict()
            );
        }
        println!("\nwhere the gateway's CPU goes, µs per job, by kind of thread");
        for (what, Cost(cost), bare) in &self.costs {
            let parts: Vec<String> = cost.iter().map(|(name, us)| format!("{name} {us:.0}")).collect();
            println!("  {what}: {} (bare loop: {bare:.0} µs of wall time per job)", parts.join(", "));
        }
        for note in &self.notes {
            println!("note: {note}");
        }
    }
}

fn sync_us(dir: &Path) -> f64 {
    let mut file = fs::File::create(dir.join("sync")).expect("a file");
    let mut times: Vec<f64> = (0..50)
        .map(|_| {
            file.write_all(&[0; 4096]).expect("written");
            let began = Instant::now();
            file.sync_data().expect("synced");
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[25]
}
