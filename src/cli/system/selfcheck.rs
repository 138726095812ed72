//! `ductile system selfcheck`: six invariants of one instance, looked at without changing anything.

use std::path::Path;

use ductile_config::Loaded;
use ductile_ledger::Examiner;
use serde::Serialize;
use serde_json::json;

use crate::args::Global;
use crate::error::Error;
use crate::exit_code;
use crate::instance::Lock;
use crate::report::{Report, Style};
use crate::table::Table;

/// What operators look for when the gateway runs: its write-ahead log is in use, so its file is left alone.
const HELD: &str = "skipped: active gateway holds PID lock — quiesce before selfcheck";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Fail,
    Skipped,
}

/// One of the six.
#[derive(Debug, Serialize)]
struct Check {
    id: &'static str,
    status: Verdict,
    detail: String,
}

impl Check {
    fn new(id: &'static str, status: Verdict, detail: impl Into<String>) -> Self {
        Self { id, status, detail: detail.into() }
    }

    fn of(id: &'static str, result: Result<String, String>) -> Self {
        match result {
            Ok(detail) => Self::new(id, Verdict::Ok, detail),
            Err(detail) => Self::new(id, Verdict::Fail, detail),
        }
    }
}

/// Runs the checks and prints them.
///
/// # Errors
/// At least one failed; what was skipped does not count.
pub(super) async fn run(global: &Global, report: &mut Report) -> Result<(), Error> {
    let checks = all(global).await;
    if report.is_json() {
        report.document(&json!(checks));
    } else {
        let mut table = Table::new(&["CHECK", "STATUS", "DETAIL"]);
        for check in &checks {
            let (word, style) = match check.status {
                Verdict::Ok => ("ok", Style::Green),
                Verdict::Fail => ("FAIL", Style::Red),
                Verdict::Skipped => ("skipped", Style::Yellow),
            };
            table.row([
                (check.id.to_owned(), Style::Plain),
                (word.to_owned(), style),
                (check.detail.clone(), Style::Plain),
            ]);
        }
        report.table(&table);
    }
    let failed = checks.iter().any(|check| check.status == Verdict::Fail);
    if failed { Err(Error::Told { code: exit_code::FAILED }) } else { Ok(()) }
}

async fn all(global: &Global) -> Vec<Check> {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(global.config.as_deref(), &env);
    let mut checks = vec![Check::of("config_discovery", discovered(&path))];
    let loaded = ductile_config::load(&path, &env);
    checks.push(Check::of("config_load", loaded.as_ref().map(read).map_err(|problems| first_of(problems))));
    let Ok(Loaded { config, .. }) = loaded else {
        let unknown = "skipped: without the configuration it is not known which lock and database are meant";
        checks.extend(LATER.map(|id| Check::new(id, Verdict::Skipped, unknown)));
        return checks;
    };
    let state = &config.state.path;
    let lock_file = state.with_file_name("ductile.lock");
    let lock = Lock::look(&lock_file);
    checks.push(Check::of("pid_lock", held_by(lock)));
    if matches!(lock, Lock::Held(_)) {
        checks.extend(OF_THE_FILE.map(|id| Check::new(id, Verdict::Skipped, HELD)));
    } else if !state.exists() {
        let none = format!("skipped: there is no {} yet; the first start makes it", state.display());
        checks.extend(OF_THE_FILE.map(|id| Check::new(id, Verdict::Skipped, none.clone())));
    } else {
        let service = &config.service;
        let results = match Examiner::open(state).await {
            Ok(mut examiner) => {
                let integrity = integrity(&mut examiner).await;
                let schema = examiner.check_schema().await.map_err(in_words);
                let schema = schema.map(|()| format!("schema {}", ductile_ledger::VERSION));
                let fresh = freshness(&mut examiner, service.job_queue_retention, service.tick_interval).await;
                // Nothing was written, so that closing can't lose anything.
                let _ = examiner.close().await;
                [integrity, schema, fresh]
            }
            Err(error) => {
                let text = in_words(error);
                [Err(text.clone()), Err(text.clone()), Err(text)]
            }
        };
        // A gateway that has started meanwhile may have written below the eyes of the checks.
        if matches!(Lock::look(&lock_file), Lock::Held(_)) {
            checks.extend(OF_THE_FILE.map(|id| Check::new(id, Verdict::Skipped, HELD)));
        } else {
            checks.extend(OF_THE_FILE.into_iter().zip(results).map(|(id, result)| Check::of(id, result)));
        }
    }
    checks
}

const OF_THE_FILE: [&str; 3] = ["db_integrity", "db_schema", "queue_terminal_freshness"];
const LATER: [&str; 4] = ["pid_lock", "db_integrity", "db_schema", "queue_terminal_freshness"];

fn discovered(path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(file) if file.is_file() => Ok(path.display().to_string()),
        Ok(_) => Err(format!("{} is no file", path.display())),
        Err(error) => Err(format!("{}: {error}; name another with --config", path.display())),
    }
}

fn read(loaded: &Loaded) -> String {
    let files = loaded.config.source.files.len();
    match loaded.warnings.len() {
        0 => format!("{files} file(s)"),
        warnings => format!("{files} file(s), {warnings} warning(s): see `ductile config check`"),
    }
}

fn first_of(problems: &[ductile_domain::problem::Problem]) -> String {
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let first = problems.iter().find(|p| p.is_error()).map(ToString::to_string).unwrap_or_default();
    format!("{errors} error(s), see `ductile config check`; the first: {first}")
}

/// C-101: a free lock is as good as one that its process holds.
///
/// # Errors
/// What its file says is not true.
pub(super) fn held_by(lock: Lock) -> Result<String, String> {
    match lock {
        Lock::Free => Ok("free: no gateway runs".to_owned()),
        Lock::Held(Some(pid)) if Path::new(&format!("/proc/{pid}")).exists() => {
            Ok(format!("held by running gateway, pid {pid}"))
        }
        Lock::Held(Some(pid)) => Err(format!("held, but there is no process {pid}, which its file names")),
        Lock::Held(None) => Err("held, but its file names no process".to_owned()),
        Lock::Unknown => Err("the lock file can't be read".to_owned()),
    }
}

async fn integrity(examiner: &mut Examiner) -> Result<String, String> {
    let found = examiner.damage().await.map_err(in_words)?;
    if found.is_empty() { Ok("PRAGMA integrity_check: ok".to_owned()) } else { Err(found.join("; ")) }
}

async fn freshness(
    examiner: &mut Examiner,
    retention: std::time::Duration,
    tick: std::time::Duration,
) -> Result<String, String> {
    match examiner.stale_jobs(retention, tick).await.map_err(in_words)? {
        None => Ok("no ended job is older than job_queue_retention was at the last prune or stop".to_owned()),
        Some(stale) => Err(format!(
            "{} ended job(s) were past job_queue_retention at {}, the oldest since {}; the next start prunes them, or find out why it does not",
            stale.count, stale.at, stale.oldest
        )),
    }
}

fn in_words(error: ductile_ledger::Error) -> String {
    Error::ledger(error).to_string()
}
