//! `ductile plugin facts` and `plugin stopwatch`: what a plugin left behind, and how long it takes.

use serde_json::Value;

use crate::args::{PluginFacts, PluginStopwatch};
use crate::client::{Client, encode, query};
use crate::error::Error;
use crate::report::{Report, Style};
use crate::table::Table;

/// FCT-13: the plugin's facts, the newest first.
///
/// # Errors
/// There is no such plugin, or nobody answers.
pub(super) async fn facts(args: &PluginFacts, client: &Client, report: &mut Report) -> Result<(), Error> {
    let most = args.limit.to_string();
    let before = args.before_seq.map(|seq| seq.to_string());
    let asked = query(&[("type", args.kind.as_deref()), ("limit", Some(&most)), ("before_seq", before.as_deref())]);
    let answer = client.get(&format!("/plugin/{}/facts{asked}", encode(&args.plugin))).await?;
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let mut table = Table::new(&["SEQ", "TYPE", "CREATED", "JOB", "FACT"]);
    for fact in answer["facts"].as_array().into_iter().flatten() {
        let text = |key: &str| match &fact[key] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row([
            (text("seq"), Style::Plain),
            (text("fact_type"), Style::Plain),
            (text("created_at"), Style::Dim),
            (text("job_id"), Style::Dim),
            (text("fact"), Style::Plain),
        ]);
    }
    if table.is_empty() {
        report.line("no facts; a rule under `fact_outputs` in its manifest makes a snapshot one");
    } else {
        report.table(&table);
    }
    Ok(())
}

/// API-40: how long the plugin takes.
///
/// # Errors
/// There is no such plugin, or nobody answers.
pub(super) async fn stopwatch(args: &PluginStopwatch, client: &Client, report: &mut Report) -> Result<(), Error> {
    let asked = query(&[("command", args.command.as_deref()), ("window", args.window.as_deref())]);
    let answer = client.get(&format!("/stopwatch/{}{asked}", encode(&args.plugin))).await?;
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let name = |key: &str| answer[key].as_str().map(|text| format!(" {text}")).unwrap_or_default();
    report.styled(&format!("{}{}", args.plugin, name("command")), Style::Bold);
    let limited = if answer["limited"] == true { ", the newest ones" } else { "" };
    report.field("attempts", &format!("{}{limited}", answer["count"]));
    for key in ["min", "p50", "p95", "p99", "max"] {
        if let Some(nanos) = answer[key].as_u64() {
            report.field(key, &millis(nanos));
        }
    }
    Ok(())
}

/// Nanoseconds as milliseconds with as many places as matter.
#[must_use]
pub(crate) fn millis(nanos: u64) -> String {
    let thousandths = nanos / 1000;
    match thousandths {
        0..10_000 => format!("{}.{:03} ms", thousandths / 1000, thousandths % 1000),
        _ => format!("{}.{} ms", thousandths / 1000, thousandths % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_more_places() {
        let shown = [0, 1_234_567, 9_999_999, 10_000_000, 61_234_567_890].map(millis);
        assert_eq!(shown, ["0.000 ms", "1.234 ms", "9.999 ms", "10.0 ms", "61234.5 ms"]);
    }
}
