//! `ductile system reload`: the configuration on disk in force, or the reasons why it is not.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::args::{Global, SystemReload};
use crate::client::{Client, Target};
use crate::error::Error;
use crate::instance::{Instance, Lock, advice};
use crate::offline::Offline;
use crate::report::{Report, Style};

/// A reload that a signal began is given so long to reach the record.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(15);
/// How often the record is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Asks for the reload and reports what it changed.
///
/// # Errors
/// No gateway runs, or it refuses the configuration; it goes on with the former one then.
pub(super) async fn run(args: &SystemReload, global: &Global, report: &mut Report) -> Result<(), Error> {
    if let Some(url) = &global.api_url {
        if args.signal {
            return Err(Error::Usage("--signal reaches a gateway on this machine only, not --api-url".into()));
        }
        let client = Client::new(Target::parse(url)?, global.api_key.clone());
        return ask(args, &client, report).await;
    }
    let instance = Instance::locate(global, report)?;
    if args.signal {
        return signal(args, &instance, report).await;
    }
    if args.dry.dry_run {
        return preview(&instance, report);
    }
    match ask(args, &instance.client(), report).await {
        Err(error) if error.is_unreachable() => Err(missing(&instance, error)),
        answer => answer,
    }
}

/// CLI-09: that nothing runs is known from the lock, and is a failure; a gateway that is there and silent is unreachable.
fn missing(instance: &Instance, error: Error) -> Error {
    match Lock::look(&instance.lock()) {
        Lock::Free => Error::Failed(format!("nothing to reload: {}", advice(&instance.socket()).join("\n  "))),
        _ => error,
    }
}

/// What the gateway would say of the files, as far as it can be known without it.
fn preview(instance: &Instance, report: &mut Report) -> Result<(), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let (problems, is_strict) = crate::config::problems(ductile_config::load(&instance.config, &env));
    let is_valid = !problems.iter().any(|p| p.is_error() || is_strict);
    report.line(format!("would ask {} for POST /system/reload", instance.client().target()));
    report.line(if is_valid { "the configuration on disk is valid" } else { "it would be refused:" });
    problems.iter().for_each(|problem| report.line(problem.to_string()));
    if report.is_json() {
        report.document(&json!({
            "dry_run": true, "method": "POST", "path": "/system/reload", "valid": is_valid, "problems": problems,
        }));
    }
    if is_valid { Ok(()) } else { Err(Error::Told { code: crate::exit_code::CONFIG }) }
}

async fn ask(args: &SystemReload, client: &Client, report: &mut Report) -> Result<(), Error> {
    if args.dry.dry_run {
        report.line(format!("would ask {} for POST /system/reload", client.target()));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": "/system/reload"}));
        }
        return Ok(());
    }
    let answer = client.post("/system/reload", None).await?;
    show(&answer, report);
    Ok(())
}

fn show(answer: &Value, report: &mut Report) {
    if report.is_json() {
        report.document(answer);
        return;
    }
    let message = answer["message"].as_str().unwrap_or("Configuration reloaded.");
    report.styled(message, Style::Green);
    report.field("generation", &format!("{} (snapshot {})", answer["generation"], answer["config_snapshot_id"]));
    let names = |key: &str| {
        let names: Vec<&str> = answer[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        names.join(" ")
    };
    let mut is_same = true;
    for key in ["added", "changed", "removed"] {
        let names = names(key);
        if !names.is_empty() {
            is_same = false;
            report.field(key, &names);
        }
    }
    if is_same {
        report.field("changes", "none");
    }
    let later = names("restart_required");
    if !later.is_empty() {
        report.field_styled(
            "restart",
            &format!("needed for {later}: stop the gateway and start it again"),
            Style::Yellow,
        );
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        report.line(crate::error::problem_line(warning));
    }
}

/// Sends SIGHUP to the process that holds the lock, and waits until the new generation is recorded.
async fn signal(args: &SystemReload, instance: &Instance, report: &mut Report) -> Result<(), Error> {
    let lock = instance.lock();
    let pid = match Lock::look(&lock) {
        Lock::Held(Some(pid)) => pid,
        Lock::Held(None) => {
            return Err(Error::Failed(format!("the lock {} is held, but names no process", lock.display())));
        }
        Lock::Free | Lock::Unknown => {
            return Err(Error::Failed(format!("nothing to reload: {}", advice(&instance.socket()).join("\n  "))));
        }
    };
    if args.dry.dry_run {
        report.line(format!("would send SIGHUP to process {pid}"));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "signal": "SIGHUP", "pid": pid}));
        }
        return Ok(());
    }
    let record = Offline::open(instance)?;
    let before = record.newest_snapshot().await?;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| Error::Failed(format!("{pid} in {} is no pid", lock.display())))?;
    kill_process(process, Signal::HUP).map_err(|e| Error::io(format!("send SIGHUP to process {pid}"))(e.into()))?;
    let deadline = Instant::now() + SIGNAL_PATIENCE;
    loop {
        let now = record.newest_snapshot().await?;
        if now != before {
            report
                .line(format!("process {pid} has put a configuration in force: snapshot {}", now.unwrap_or_default()));
            if report.is_json() {
                report.document(&json!({"status": "ok", "pid": pid, "config_snapshot_id": now}));
            }
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Failed(format!(
                "process {pid} has recorded no new configuration within {} s; its log says why, and `ductile config check` lists problems",
                SIGNAL_PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
