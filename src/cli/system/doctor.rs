//! `ductile system doctor`: what would keep a gateway from starting, and what ails the one that runs.

mod runtime;
mod startup;

use serde::Serialize;
use serde_json::json;

use crate::args::{Global, SystemDoctor};
use crate::client::{Client, Target};
use crate::error::Error;
use crate::exit_code;
use crate::instance::Instance;
use crate::report::{Report, Style};
use crate::table::Table;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    id: &'static str,
    status: Level,
    detail: String,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn ok(id: &'static str, detail: impl Into<String>) -> Self {
        Self { id, status: Level::Ok, detail: detail.into(), hint: None }
    }

    fn warn(id: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { id, status: Level::Warn, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn fail(id: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { id, status: Level::Fail, detail: detail.into(), hint: Some(hint.into()) }
    }
}

/// Looks at everything and prints it.
///
/// # Errors
/// At least one finding is a failure; warnings are not.
pub(super) async fn run(args: &SystemDoctor, global: &Global, report: &mut Report) -> Result<(), Error> {
    let mut findings = Vec::new();
    let (client, config_hash) = match &global.api_url {
        Some(url) => (Some(Client::new(Target::parse(url)?, global.api_key.clone())), None),
        None => {
            let looked = startup::look(global).await;
            findings.extend(looked.findings);
            // A configuration that is broken on disk may still be in force beside its socket.
            let client = Instance::locate(global, report).ok().map(|instance| instance.client());
            (client, looked.config_hash)
        }
    };
    if let Some(client) = client {
        findings.extend(runtime::look(&client, config_hash.as_deref(), args.health).await);
    }
    let worst = findings.iter().map(|finding| finding.status).max().unwrap_or(Level::Ok);
    if report.is_json() {
        report.document(&json!({"status": worst, "checks": findings}));
    } else {
        print(&findings, report);
    }
    if worst == Level::Fail { Err(Error::Told { code: exit_code::FAILED }) } else { Ok(()) }
}

fn print(findings: &[Finding], report: &mut Report) {
    let mut table = Table::new(&["CHECK", "STATUS", "DETAIL"]);
    for finding in findings {
        let (word, style) = match finding.status {
            Level::Ok => ("ok", Style::Green),
            Level::Warn => ("warn", Style::Yellow),
            Level::Fail => ("FAIL", Style::Red),
        };
        let detail = match &finding.hint {
            Some(hint) => format!("{}; {hint}", finding.detail),
            None => finding.detail.clone(),
        };
        table.row([(finding.id.to_owned(), Style::Plain), (word.to_owned(), style), (detail, Style::Plain)]);
    }
    report.table(&table);
    let count = |level| findings.iter().filter(|finding| finding.status == level).count();
    report.line(format!(
        "{} ok, {} warning(s), {} failure(s)",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    ));
}
