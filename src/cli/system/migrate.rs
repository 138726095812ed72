//! `ductile system migrate`: the only way to a newer schema.

use serde_json::json;

use crate::args::{DryRun, Global};
use crate::error::Error;
use crate::instance::{Instance, Lock};
use crate::report::Report;

/// Migrates the database of the configuration, while no gateway runs.
///
/// # Errors
/// A gateway runs, or the database can't be migrated; it is left as it was.
pub(crate) async fn run(dry: DryRun, global: &Global, report: &mut Report) -> Result<(), Error> {
    let instance = Instance::locate(global, report)?;
    if dry.dry_run {
        report.line(format!(
            "would migrate {} to schema {}, after a backup beside it",
            instance.state.display(),
            ductile_ledger::VERSION
        ));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "state_path": instance.state, "to": ductile_ledger::VERSION}));
        }
        return Ok(());
    }
    let _lock = Lock::hold(&instance.lock())?;
    let done = ductile_ledger::migrate(&instance.state).await.map_err(Error::ledger)?;
    if report.is_json() {
        report
            .document(&json!({"state_path": instance.state, "from": done.from, "to": done.to, "backup": done.backup}));
    } else if done.from == done.to {
        report.line(format!("{} has schema {} already", instance.state.display(), done.to));
    } else {
        report.line(format!("{}: schema {} -> {}", instance.state.display(), done.from, done.to));
        if let Some(backup) = &done.backup {
            report.line(format!("the former one is kept in {}", backup.display()));
        }
    }
    Ok(())
}
