//! `ductile job inspect`: everything that is recorded of one job.

use serde_json::Value;

use super::{attempt_of, indented, job_id, lineage, pretty, text, took};
use crate::args::{Global, JobInspect};
use crate::error::Error;
use crate::plugin::millis;
use crate::records::Records;
use crate::report::{Report, Style};
use crate::table::{Table, size};

/// Prints the job with its history, or one document with all of it.
///
/// # Errors
/// There is no such job, or neither gateway nor file could be read.
pub(super) async fn run(args: &JobInspect, global: &Global, report: &mut Report) -> Result<(), Error> {
    let id = job_id(&args.job)?;
    let mut job = Records::new(global, report)?.whole_job(id, report).await?;
    let mut artifacts = Vec::new();
    collect_paths(&job["payload"], &mut artifacts);
    collect_paths(&job["result"]["events"], &mut artifacts);
    job["artifacts"] = Value::from(artifacts);
    if report.is_json() {
        report.document(&job);
        return Ok(());
    }
    show(&job, report);
    lineage::show(&job, report);
    attempts(&job, report);
    transitions(&job, report);
    children(&job, report);
    Ok(())
}

fn rows<'a>(job: &'a Value, key: &str) -> &'a [Value] {
    job[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// C-120: what looks like an absolute path; no directory is read.
fn collect_paths(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let is_path = text.strip_prefix('/').is_some_and(|rest| {
                !rest.is_empty()
                    && !rest.starts_with('/')
                    && !text.contains(['\n', '\0', '<', '>'])
                    && text.len() < 4096
            });
            if is_path && !found.contains(text) {
                found.push(text.clone());
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_paths(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect_paths(value, found)),
        _ => {}
    }
}

fn show(job: &Value, report: &mut Report) {
    let status = text(job, "status");
    report.field_styled("job", &text(job, "job_id"), Style::Bold);
    report.field("plugin", &format!("{} {}", text(job, "plugin"), text(job, "command")));
    report.field_styled("status", &status, Style::of_state(&status));
    report.field("attempt", &attempt_of(job));
    let by = match text(job, "requested_by") {
        by if by.is_empty() => text(job, "submitted_by"),
        by => format!("{} ({by})", text(job, "submitted_by")),
    };
    report.field("submitted by", &by);
    for (name, key) in [
        ("created", "created_at"),
        ("started", "started_at"),
        ("completed", "completed_at"),
        ("next retry", "next_retry_at"),
        ("parent", "parent_job_id"),
        ("event", "source_event_id"),
        ("context", "event_context_id"),
        ("snapshot", "started_config_snapshot_id"),
        ("dedupe key", "dedupe_key"),
        ("last error", "last_error"),
    ] {
        let value = text(job, key);
        if !value.is_empty() {
            report.field(name, &crate::table::one_line(&value));
        }
    }
    lineage::place(job, report);
    for path in rows(job, "artifacts").iter().filter_map(Value::as_str) {
        report.field("artifact", &crate::table::one_line(path));
    }
    if let Some(timing) = job["timing"].as_object() {
        let part = |key: &str| timing.get(key).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), millis);
        let whole = format!("{} in all, {} in plugins, {} else", part("wall_ns"), part("dur_ns"), part("gateway_ns"));
        report.field("time", &whole);
    }
    for key in ["payload", "result"] {
        if !job[key].is_null() {
            report.styled(&format!("{key}:"), Style::Dim);
            indented(&pretty(&job[key]), usize::MAX, report);
        }
    }
}

fn attempts(job: &Value, report: &mut Report) {
    let logs = rows(job, "logs");
    if logs.is_empty() {
        return;
    }
    report.line("");
    let mut table = Table::new(&["ATTEMPT", "STATUS", "CAUSE", "STARTED", "TOOK", "PLUGIN", "CPU", "MEMORY", "ERROR"]);
    for log in logs.iter().rev() {
        let status = text(log, "status");
        let same = |key: &str| rows(job, key).iter().find(|row| row["attempt"] == log["attempt"]);
        let spent = same("stopwatch").and_then(|row| row["dur_ns"].as_u64()).map(millis);
        let used = |key: &str| same("attempts").and_then(|row| row[key].as_u64());
        table.row([
            (text(log, "attempt"), Style::Plain),
            (status.clone(), Style::of_state(&status)),
            (same("attempts").map(|row| text(row, "cause")).unwrap_or_default(), Style::Plain),
            (text(log, "started_at"), Style::Dim),
            (took(log).unwrap_or_default(), Style::Plain),
            (spent.unwrap_or_default(), Style::Plain),
            (used("cpu_ms").map(|ms| format!("{ms} ms")).unwrap_or_default(), Style::Plain),
            (used("peak_memory").map(size).unwrap_or_default(), Style::Plain),
            (text(log, "last_error"), Style::Plain),
        ]);
    }
    report.table(&table);
    if let Some(stderr) = logs.first().map(|log| text(log, "stderr")).filter(|t| !t.trim().is_empty()) {
        report.styled("stderr of the last attempt:", Style::Dim);
        indented(&stderr, 20, report);
    }
}

fn transitions(job: &Value, report: &mut Report) {
    let transitions = rows(job, "transitions");
    if transitions.is_empty() {
        return;
    }
    report.line("");
    let mut table = Table::new(&["AT", "FROM", "TO", "REASON"]);
    for row in transitions {
        let to = text(row, "to_status");
        table.row([
            (text(row, "created_at"), Style::Dim),
            (text(row, "from_status"), Style::Plain),
            (to.clone(), Style::of_state(&to)),
            (text(row, "reason"), Style::Plain),
        ]);
    }
    report.table(&table);
}

fn children(job: &Value, report: &mut Report) {
    let children = rows(job, "children");
    if children.is_empty() {
        return;
    }
    report.line("");
    let mut table = Table::new(&["CHILD", "PLUGIN", "COMMAND", "STATUS"]);
    for child in children {
        let status = text(child, "status");
        table.row([
            (text(child, "job_id"), Style::Plain),
            (text(child, "plugin"), Style::Plain),
            (text(child, "command"), Style::Plain),
            (status.clone(), Style::of_state(&status)),
        ]);
    }
    report.table(&table);
    report.styled(&format!("all that followed: ductile job tree {}", text(job, "job_id")), Style::Dim);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// CLI-27, C-120: artifacts are values that look like absolute paths, each once.
    #[test]
    fn artifacts_are_absolute_paths_in_payloads() {
        let payload = json!({
            "path": "/srv/a b.txt", "again": "/srv/a b.txt", "list": [{"deep": "/tmp/x"}, 3],
            "url": "https://host/path", "relative": "a/b", "root": "/", "network": "//host/share", "text": "/a\nb",
        });
        let mut found = Vec::new();
        collect_paths(&payload, &mut found);
        found.sort();
        assert_eq!(found, ["/srv/a b.txt", "/tmp/x"]);
    }
}
