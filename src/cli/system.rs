//! `ductile system ...`: the gateway itself.

mod breakers;
mod doctor;
mod migrate;
mod reload;
mod selfcheck;
mod start;
mod status;
mod stop;
mod storage;
pub(crate) mod tree;

use ductile_domain::version::Build;
use serde_json::{Value, json};

use crate::args::{DryRun, Global, System, SystemRestart};
use crate::client::{Client, encode};
use crate::error::Error;
use crate::instance::connect;
use crate::report::Report;
use crate::{block_on, exit_code};

/// Runs one action; answers the exit code.
///
/// # Errors
/// What the action says.
pub(crate) fn run(action: System, global: &Global, build: Build, report: &mut Report) -> Result<i32, Error> {
    match action {
        System::Start => return start::run(global, build),
        System::Stop(args) => block_on(stop::run(&args, global, report))?,
        System::Status => block_on(status::run(global, report))?,
        System::Storage => block_on(storage::run(global, report))?,
        System::Selfcheck => block_on(selfcheck::run(global, report))?,
        System::Doctor(args) => block_on(doctor::run(&args, global, report))?,
        System::Tree(args) => block_on(tree::run(&args, connect(global, report)?, report))?,
        System::Pause(dry) => block_on(set_dispatch(false, dry, global, report))?,
        System::Resume(dry) => block_on(set_dispatch(true, dry, global, report))?,
        System::Reload(args) => block_on(reload::run(&args, global, report))?,
        System::Restart(args) => block_on(restart(&args, global, report))?,
        System::Breaker(args) => block_on(breakers::list(&args, global, report))?,
        System::Reset(args) => block_on(breakers::reset(&args, global, report))?,
        System::Demo(args) => block_on(crate::demo::run(&args, report))?,
        System::Migrate(dry) => block_on(migrate::run(dry, global, report))?,
    }
    Ok(exit_code::OK)
}

async fn set_dispatch(on: bool, dry: DryRun, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let (path, done) = if on {
        ("/system/resume", "jobs are taken from the queue again")
    } else {
        ("/system/pause", "no more jobs are taken from the queue; running ones go on (`ductile system resume` ends it)")
    };
    post(&client, path, done, dry, report).await
}

async fn restart(args: &SystemRestart, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let path = format!("/system/actors/{}/restart", encode(&args.path));
    let done = format!("{} was restarted", args.path);
    post(&client, &path, &done, args.dry, report).await
}

async fn post(client: &Client, path: &str, done: &str, dry: DryRun, report: &mut Report) -> Result<(), Error> {
    if dry.dry_run {
        report.line(format!("would ask {} for POST {path}", client.target()));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": path}));
        }
        return Ok(());
    }
    let answer = client.post(path, None).await?;
    if report.is_json() {
        report.document(if answer == Value::Null { &Value::Bool(true) } else { &answer });
    } else {
        report.line(done);
    }
    Ok(())
}
