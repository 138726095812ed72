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
    let jobs = jobs.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table = Table::new(&["JOB", "PLUGIN", "COMMAND", "STATUS", "TOOK", "ERROR"]);
    for (lead, job) in drawn(jobs) {
        let status = text(job, "status");
        table.row([
            (format!("{lead}{}", text(job, "job_id")), Style::Plain),
            (text(job, "plugin"), Style::Plain),
            (text(job, "command"), Style::Plain),
            (status.clone(), Style::of_state(&status)),
            (took(job).unwrap_or_default(), Style::Plain),
            (text(job, "last_error"), Style::Plain),
        ]);
    }
    report.table(&table);
    Ok(())
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
}
