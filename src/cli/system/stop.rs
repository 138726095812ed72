//! `ductile system stop`: asks, waits until the lock is free, and says how long it took.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::args::{Global, SystemStop};
use crate::client::{Client, Target};
use crate::error::Error;
use crate::instance::{Instance, Lock};
use crate::report::Report;
use crate::tree_view::span;

/// Stops the gateway and waits until it is gone.
///
/// # Errors
/// Nobody answered, or the gateway is still there after the timeout.
pub(crate) async fn run(args: &SystemStop, global: &Global, report: &mut Report) -> Result<(), Error> {
    let (client, lock) = match &global.api_url {
        Some(url) => (Client::new(Target::parse(url)?, global.api_key.clone()), None),
        None => {
            let instance = Instance::locate(global, report)?;
            (Client::new(Target::Socket(instance.socket()), None), Some(instance.lock()))
        }
    };
    if args.dry.dry_run {
        report.line(format!("would ask {} to stop, and wait up to {}", client.target(), span(args.timeout)));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": "/system/stop"}));
        }
        return Ok(());
    }
    let begin = Instant::now();
    if let Err(error) = client.post("/system/stop", None).await {
        signal_holder(&error, lock.as_deref(), report).ok_or(error)?;
    }
    loop {
        let gone = match &lock {
            Some(lock) => Lock::look(lock) == Lock::Free,
            None => client.get("/healthz").await.is_err_and(|e| e.is_unreachable()),
        };
        if gone {
            break;
        }
        if begin.elapsed() >= args.timeout {
            return Err(Error::StopTimedOut(format!(
                "the gateway is still there after {}; it waits for running jobs (see `ductile job list`), and goes on stopping",
                span(args.timeout)
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begin.elapsed();
    if report.is_json() {
        report.document(&json!({"stopped": true, "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX)}));
    } else {
        report.line(format!("stopped after {}", span(took)));
    }
    Ok(())
}

/// A gateway whose control socket is silent still obeys SIGTERM.
fn signal_holder(error: &Error, lock: Option<&std::path::Path>, report: &Report) -> Option<()> {
    let Lock::Held(Some(pid)) = Lock::look(lock?) else { return None };
    if !error.is_unreachable() {
        return None;
    }
    kill_process(Pid::from_raw(i32::try_from(pid).ok()?)?, Signal::TERM).ok()?;
    report.note(format!("note: the socket is silent; sent SIGTERM to process {pid}, which holds the lock"));
    Some(())
}
