//! `ductile system breaker` and `ductile system reset`: what keeps failing schedules from firing.

use serde_json::{Value, json};

use crate::args::{Global, SystemBreaker, SystemReset};
use crate::client::{encode, query};
use crate::compiled::Compiled;
use crate::error::Error;
use crate::instance::{Instance, connect};
use crate::job::to_second;
use crate::offline::Offline;
use crate::report::{Report, Style};
use crate::schedule::of_status;
use crate::table::Table;

/// BRK-10: states and history.
///
/// # Errors
/// There is no such plugin, or nothing can be read.
pub(super) async fn list(args: &SystemBreaker, global: &Global, report: &mut Report) -> Result<(), Error> {
    let path = format!("/system/breakers{}", query(&[("plugin", args.plugin.as_deref())]));
    let answer = match connect(global, report)?.get(&path).await {
        Err(error) if error.is_unreachable() && global.api_url.is_none() => {
            let offline = Offline::instead(&Instance::locate(global, report)?, &error, report)?;
            offline.breakers(&Compiled::load(global, report)?.generation, args.plugin.as_deref()).await?
        }
        answer => answer?,
    };
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let rows = |key: &str| answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows("breakers").is_empty() {
        report.line("no breakers: only commands that a schedule runs have one");
        return Ok(());
    }
    report.table(&states(rows("breakers")));
    if !rows("transitions").is_empty() {
        report.line("");
        report.table(&transitions(rows("transitions")));
    }
    Ok(())
}

fn states(breakers: &[Value]) -> Table {
    let mut table =
        Table::new(&["PLUGIN", "COMMAND", "STATE", "FAILURES", "OPENED (UTC)", "TRIES AGAIN (UTC)", "LAST JOB"]);
    for breaker in breakers {
        let text = |key: &str| breaker[key].as_str().unwrap_or("-").to_owned();
        let time = |key: &str| breaker[key].as_str().map_or_else(|| "-".to_owned(), to_second);
        table.row([
            (text("plugin"), Style::Bold),
            (text("command"), Style::Plain),
            (text("state"), of_status(&text("state"))),
            (format!("{} of {}", breaker["failure_count"], breaker["threshold"]), Style::Plain),
            (time("opened_at"), Style::Plain),
            (time("retry_at"), Style::Plain),
            (text("last_job_id"), Style::Dim),
        ]);
    }
    table
}

fn transitions(transitions: &[Value]) -> Table {
    let mut table = Table::new(&["AT (UTC)", "PLUGIN", "COMMAND", "CHANGE", "REASON", "FAILURES", "JOB"]);
    for row in transitions {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        table.row([
            (to_second(&text("created_at")), Style::Dim),
            (text("plugin"), Style::Plain),
            (text("command"), Style::Plain),
            (format!("{} -> {}", text("from_state"), text("to_state")), of_status(&text("to_state"))),
            (text("reason"), Style::Plain),
            (row["failure_count"].to_string(), Style::Plain),
            (text("job_id"), Style::Dim),
        ]);
    }
    table
}

/// CLI-11, BRK-09: closes every breaker of a plugin.
///
/// # Errors
/// There is no such plugin, or nobody answers.
pub(super) async fn reset(args: &SystemReset, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let path = format!("/system/reset/{}", encode(&args.plugin));
    if args.dry.dry_run {
        report.line(format!("would ask {} for POST {path}", client.target()));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": path}));
        }
        return Ok(());
    }
    let answer = client.post(&path, None).await?;
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    report.line(match answer["closed"].as_u64().unwrap_or(0) {
        0 => format!("no breaker of {} was open; failures are counted anew", args.plugin),
        closed => format!("{closed} breaker(s) of {} closed; its schedules fire again", args.plugin),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BRK-10: the state and the history of a breaker.
    #[test]
    fn a_breaker_is_a_line_and_so_is_each_of_its_changes() {
        let breakers = [json!({
            "plugin": "p", "command": "poll", "state": "open", "failure_count": 3, "threshold": 3,
            "opened_at": "2026-01-01T00:00:00.000Z", "retry_at": "2026-01-01T00:30:00.000Z", "last_job_id": "j",
        })];
        assert_eq!(
            states(&breakers).lines(None, false)[1],
            "p       poll     open   3 of 3    2026-01-01 00:00:00  2026-01-01 00:30:00  j"
        );
        let changes = [json!({
            "plugin": "p", "command": "poll", "from_state": "closed", "to_state": "open", "failure_count": 3,
            "reason": "failure_threshold", "job_id": "j", "created_at": "2026-01-01T00:00:00.000Z",
        })];
        assert_eq!(
            transitions(&changes).lines(None, false)[1],
            "2026-01-01 00:00:00  p       poll     closed -> open  failure_threshold  3         j"
        );
    }
}
