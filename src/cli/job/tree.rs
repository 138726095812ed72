//! `ductile job tree`: a job and everything that followed from it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{job_id, text, took};
use crate::args::{Global, JobTree};
use crate::error::Error;
use crate::records::Records;
use crate::report::{Report, Style};
use crate::table::Table;

/// Prints the tree, or the array of the API.
///
/// # Errors
/// There is no such job, or neither gateway nor file could be read.
pub(super) async fn run(args: &JobTree, global: &Global, report: &mut Report) -> Result<(), Error> {
    let id = job_id(&args.job)?;
    let jobs = Records::new(global, report)?.tree(id, report).await?;
    if report.is_json() {
        report.document(&jobs);
        return Ok(());
    }
    draw(jobs.as_array().map(Vec::as_slice).unwrap_or_default(), report);
    Ok(())
}

/// A line for each job below the one that caused it.
pub(crate) fn draw(jobs: &[Value], report: &mut Report) {
    let mut table = Table::new(&["JOB", "STEP", "PLUGIN", "COMMAND", "STATUS", "TOOK", "ERROR"]);
    for (lead, job) in drawn(jobs) {
        let status = text(job, "status");
        let (plugin, command) = work(job);
        table.row([
            (format!("{lead}{}", text(job, "job_id")), Style::Plain),
            (step(job), Style::Bold),
            (plugin, Style::Plain),
            (command, Style::Plain),
            (status.clone(), Style::of_state(&status)),
            (took(job).unwrap_or_default(), Style::Plain),
            (text(job, "last_error"), Style::Plain),
        ]);
    }
    report.table(&table);
}

/// `pipeline/step`; empty outside pipelines.
pub(super) fn step(job: &Value) -> String {
    match (text(job, "pipeline"), text(job, "step_id")) {
        (pipeline, step) if pipeline.is_empty() || step.is_empty() => format!("{pipeline}{step}"),
        (pipeline, step) => format!("{pipeline}/{step}"),
    }
}

/// Plugin and command; for the gateway's own nodes what they are and what they decided.
pub(super) fn work(job: &Value) -> (String, String) {
    let events = || job["result"]["events"].as_array().into_iter().flatten();
    let said = |kind: &str| job["decision"] == kind || events().any(|event| event["type"] == kind);
    match job["plugin"].as_str() {
        Some("core.switch") if said("ductile.switch.true") => ("<if>".into(), "true".into()),
        Some("core.switch") if said("ductile.switch.false") => ("<if>".into(), "false".into()),
        Some("core.switch") => ("<if>".into(), String::new()),
        // Its result is a sentence that begins with how many succeeded.
        Some("core.join") => {
            let said = job["result"]["result"].as_str().and_then(|text| text.split_once(" branches"));
            ("<join>".into(), said.map(|(count, _)| count.to_owned()).unwrap_or_default())
        }
        _ => (text(job, "plugin"), text(job, "command")),
    }
}

/// Each job with the branches that lead to it, parents before their children.
fn drawn(jobs: &[Value]) -> Vec<(String, &Value)> {
    let mut children: HashMap<&str, Vec<&Value>> = HashMap::new();
    for job in jobs.iter().skip(1) {
        children.entry(job["parent_job_id"].as_str().unwrap_or_default()).or_default().push(job);
    }
    let mut lines = Vec::with_capacity(jobs.len());
    let mut waiting: Vec<(String, String, &Value)> =
        jobs.first().map(|root| (String::new(), String::new(), root)).into_iter().collect();
    // A damaged file may hold a circle; each job is drawn once.
    let mut seen = HashSet::new();
    while let Some((lead, below, job)) = waiting.pop() {
        let id = job["job_id"].as_str().unwrap_or_default();
        if !seen.insert(id) {
            continue;
        }
        lines.push((lead, job));
        let own = children.get(id).map(Vec::as_slice).unwrap_or_default();
        for (i, child) in own.iter().enumerate().rev() {
            let is_last = i + 1 == own.len();
            let (branch, rail) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            waiting.push((format!("{below}{branch}"), format!("{below}{rail}"), child));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn children_hang_below_their_parents_in_their_order() {
        let job = |id: &str, parent: Value| json!({"job_id": id, "parent_job_id": parent});
        let jobs = [
            job("a", json!(null)),
            job("b", json!("a")),
            job("c", json!("a")),
            job("d", json!("b")),
            job("e", json!("b")),
            job("a", json!("e")),
        ];
        let lines: Vec<String> =
            drawn(&jobs).into_iter().map(|(lead, job)| format!("{lead}{}", text(job, "job_id"))).collect();
        assert_eq!(lines, ["a", "├─ b", "│  ├─ d", "│  └─ e", "└─ c"]);
        assert!(drawn(&[]).is_empty());
    }

    /// DIS-21: the gateway's own nodes say what they decided.
    #[test]
    fn decisions_and_joins_are_no_plugins_in_the_tree() {
        let decided = |word: &str| json!({"plugin": "core.switch", "result": {"events": [{"type": word}]}});
        assert_eq!(work(&decided("ductile.switch.true")), ("<if>".into(), "true".into()));
        assert_eq!(work(&decided("ductile.switch.false")), ("<if>".into(), "false".into()));
        assert_eq!(work(&json!({"plugin": "core.switch"})), ("<if>".into(), String::new()));
        let join = json!({"plugin": "core.join", "result": {"result": "1 of 2 branches succeeded"}});
        assert_eq!(work(&join), ("<join>".into(), "1 of 2".into()));
        assert_eq!(work(&json!({"plugin": "echo", "command": "poll"})), ("echo".into(), "poll".into()));
        assert_eq!(step(&json!({"pipeline": "p", "step_id": "s"})), "p/s");
        assert_eq!(step(&json!({})), "");
    }
}
