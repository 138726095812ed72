//! `ductile job ...`: what is owed, what was done, and how it went.

mod inspect;
mod lineage;
mod replay;
mod reproduce;
mod tree;

use std::time::{Duration, Instant};

use ductile_domain::ids::JobId;
use ductile_domain::time;
use serde_json::{Map, Value, json};

use crate::args::{Global, Job, JobCancel, JobList, JobLogs, JobWait};
use crate::client::{Client, encode};
use crate::error::Error;
use crate::instance::connect;
use crate::records::Records;
use crate::report::{Report, Style};
use crate::table::Table;
use crate::tree_view::span;
pub(crate) use tree::draw;

/// One question to the gateway lasts so long, so that retries are told as they happen.
const STEP: Duration = Duration::from_secs(2);
/// A gateway that goes away in the middle of a wait may take so long to come back.
const AWAY: Duration = Duration::from_secs(30);

/// Runs one action.
///
/// # Errors
/// What the action says.
pub(crate) async fn run(action: Job, global: &Global, report: &mut Report) -> Result<(), Error> {
    match action {
        Job::List(args) => list(&args, global, report).await,
        Job::Inspect(args) => inspect::run(&args, global, report).await,
        Job::Logs(args) => logs(&args, global, report).await,
        Job::Cancel(args) => cancel(&args, global, report).await,
        Job::Replay(args) => replay::run(&args, global, report).await,
        Job::Reproduce(args) => reproduce::run(&args, global, report).await,
        Job::Tree(args) => tree::run(&args, global, report).await,
        Job::Wait(args) => wait_for(&args, global, report).await,
    }
}

fn job_id(text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|e| Error::Usage(format!("{text:?}: {e}")))
}

async fn list(args: &JobList, global: &Global, report: &mut Report) -> Result<(), Error> {
    let statuses: Vec<Option<&str>> = match (&args.status, args.all) {
        (Some(status), _) => vec![Some(status)],
        (None, true) => vec![None],
        (None, false) => vec![Some("running"), Some("queued")],
    };
    let mut records = Records::new(global, report)?;
    let mut jobs = Vec::new();
    let mut total = 0;
    for status in statuses {
        let page = records.jobs(status, args.plugin.as_deref(), args.limit, report).await?;
        total += page["total"].as_u64().unwrap_or(0);
        jobs.extend(page["jobs"].as_array().cloned().unwrap_or_default());
    }
    jobs.truncate(args.limit as usize);
    if report.is_json() {
        report.document(&json!({"jobs": jobs, "total": total}));
        return Ok(());
    }
    if jobs.is_empty() {
        let pending = !args.all && args.status.is_none();
        report.line(if pending { "nothing is queued or running (--all shows ended jobs)" } else { "no such jobs" });
        return Ok(());
    }
    let mut table = Table::new(&["JOB", "PLUGIN", "COMMAND", "STATUS", "ATTEMPT", "CREATED", "DETAIL"]);
    for job in &jobs {
        let status = text(job, "status");
        table.row([
            (text(job, "job_id"), Style::Plain),
            (text(job, "plugin"), Style::Plain),
            (text(job, "command"), Style::Plain),
            (status.clone(), Style::of_state(&status)),
            (attempt_of(job), Style::Plain),
            (to_second(&text(job, "created_at")), Style::Dim),
            (detail(job), Style::Plain),
        ]);
    }
    report.table(&table);
    say_more(jobs.len(), total, report);
    Ok(())
}

async fn logs(args: &JobLogs, global: &Global, report: &mut Report) -> Result<(), Error> {
    let page = Records::new(global, report)?.logs(args, report).await?;
    let logs = page["logs"].as_array().cloned().unwrap_or_default();
    let total = page["total"].as_u64().unwrap_or(0);
    if report.is_json() {
        let logs: Vec<Value> = logs.into_iter().map(capitalized).collect();
        report.document(&json!({"logs": logs, "total": total}));
        return Ok(());
    }
    if logs.is_empty() {
        report.line("no such attempts");
        return Ok(());
    }
    let mut table = Table::new(&["COMPLETED", "JOB", "PLUGIN", "COMMAND", "ATTEMPT", "STATUS", "TOOK", "ERROR"]);
    for log in &logs {
        let status = text(log, "status");
        table.row([
            (to_second(&text(log, "completed_at")), Style::Dim),
            (text(log, "job_id"), Style::Plain),
            (text(log, "plugin"), Style::Plain),
            (text(log, "command"), Style::Plain),
            (text(log, "attempt"), Style::Plain),
            (status.clone(), Style::of_state(&status)),
            (took(log).unwrap_or_default(), Style::Plain),
            (text(log, "last_error"), Style::Plain),
        ]);
    }
    report.table(&table);
    if args.filter.include_result {
        for log in &logs {
            report.styled(&format!("{} attempt {}:", text(log, "job_id"), text(log, "attempt")), Style::Bold);
            indented(&pretty(&log["result"]), usize::MAX, report);
        }
    }
    say_more(logs.len(), total, report);
    Ok(())
}

async fn cancel(args: &JobCancel, global: &Global, report: &mut Report) -> Result<(), Error> {
    let id = job_id(&args.job)?;
    let client = connect(global, report)?;
    if args.dry.dry_run {
        let job = client.get(&format!("/job/{id}")).await?;
        report.line(format!("would cancel job {id}, which is {} now", text(&job, "status")));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "job_id": id, "status": job["status"]}));
        }
        return Ok(());
    }
    let answer = client.post(&format!("/job/{id}/cancel?why={}", encode(&args.reason)), None).await?;
    if report.is_json() {
        report.document(&answer);
    } else if answer["status"] == "dead" {
        report.line(format!("job {id} is dead: cancelled before it ran again"));
    } else {
        report.line(format!("job {id} is being stopped; `ductile job wait {id}` waits for its end"));
    }
    Ok(())
}

async fn wait_for(args: &JobWait, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let job = wait(&client, job_id(&args.job)?, args.timeout, report).await?;
    conclude(&job, report)
}

/// Waits until the job has ended, and tells of retries on stderr. A gateway that goes away meanwhile is waited for.
///
/// # Errors
/// The time is over, nobody answered to begin with, or the gateway stayed away.
pub(crate) async fn wait(
    client: &Client,
    id: JobId,
    timeout: Option<Duration>,
    report: &Report,
) -> Result<Value, Error> {
    let begin = Instant::now();
    let mut last_seen = None;
    let mut told = String::new();
    loop {
        let left = timeout.map_or(STEP, |timeout| timeout.saturating_sub(begin.elapsed()).min(STEP));
        match client.get_waiting(&format!("/job/{id}?wait={}ms", left.as_millis()), left).await {
            Ok(job) => {
                if is_over(&job) {
                    return Ok(job);
                }
                last_seen = Some(Instant::now());
                if let Some(news) = retry_news(&job).filter(|news| *news != told) {
                    report.note(&news);
                    told = news;
                }
            }
            Err(error) if error.is_unreachable() && last_seen.is_some_and(|seen| seen.elapsed() < AWAY) => {
                let news = "the gateway is away; waiting for it to come back";
                if told != news {
                    report.note(news);
                    news.clone_into(&mut told);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
        if let Some(timeout) = timeout.filter(|timeout| begin.elapsed() >= *timeout) {
            return Err(Error::Failed(format!(
                "job {id} has not ended after {}; it goes on: `ductile job wait {id}`",
                span(timeout)
            )));
        }
    }
}

/// True for a job that will cause nothing more.
pub(crate) fn is_over(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("succeeded" | "skipped" | "failed" | "dead"))
}

fn retry_news(job: &Value) -> Option<String> {
    let due = job["next_retry_at"].as_str().filter(|_| job["status"] == "queued")?;
    Some(format!(
        "attempt {} failed: {}; the next may start at {}",
        attempt_of(job),
        text(job, "last_error"),
        to_second(due)
    ))
}

/// Prints an ended job; anything but success is an error that names the next step.
///
/// # Errors
/// The job did not succeed.
pub(crate) fn conclude(job: &Value, report: &mut Report) -> Result<(), Error> {
    let id = text(job, "job_id");
    let status = text(job, "status");
    if report.is_json() {
        report.document(job);
    } else {
        let took = took(job).map(|t| format!(" in {t}")).unwrap_or_default();
        let line = format!("job {id} {status}{took} (attempt {})", attempt_of(job));
        report.styled(&line, Style::of_state(&status));
        if let Some(result) = job["result"].get("result").filter(|r| !r.is_null()) {
            report.line(result.as_str().map_or_else(|| pretty(result), str::to_owned));
        }
        for log in job["result"]["logs"].as_array().into_iter().flatten() {
            report.line(format!("  {:<5} {}", text(log, "level"), crate::table::one_line(&text(log, "message"))));
        }
    }
    match status.as_str() {
        "succeeded" | "skipped" => Ok(()),
        _ => Err(Error::Failed(format!(
            "job {id} is {status}: {}\n  next: ductile job inspect {id}",
            job["last_error"].as_str().unwrap_or("no reason was recorded")
        ))),
    }
}

fn indented(text: &str, most: usize, report: &mut Report) {
    for line in text.lines().take(most) {
        report.line(format!("  {}", crate::table::one_line(line)));
    }
    let more = text.lines().count().saturating_sub(most);
    if more > 0 {
        report.line(format!("  … {more} more lines (--json shows all)"));
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn say_more(shown: usize, total: u64, report: &mut Report) {
    if total > shown as u64 {
        report.styled(&format!("{shown} of {total}; --limit shows more"), Style::Dim);
    }
}

/// A field as text; empty when it is absent or null.
fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn attempt_of(job: &Value) -> String {
    match (job["attempt"].as_u64(), job["max_attempts"].as_u64()) {
        (Some(attempt), Some(most)) => format!("{attempt} of {most}"),
        (Some(attempt), None) => attempt.to_string(),
        _ => String::new(),
    }
}

fn detail(job: &Value) -> String {
    let error = text(job, "last_error");
    match text(job, "next_retry_at") {
        due if !due.is_empty() && text(job, "status") == "queued" => format!("next try {}: {error}", to_second(&due)),
        _ => error,
    }
}

/// `2026-01-01T00:00:00.123Z` as `2026-01-01 00:00:00`, for tables.
pub(crate) fn to_second(at: &str) -> String {
    at.get(..19).map_or_else(|| at.to_owned(), |at| at.replace('T', " "))
}

fn took(row: &Value) -> Option<String> {
    let at = |key: &str| time::parse(row[key].as_str()?);
    Some(span((at("completed_at")? - at("started_at")?).to_std().ok()?))
}

/// C-84: the command line writes `JobID` where the API writes `job_id`.
fn capitalized(row: Value) -> Value {
    let Value::Object(fields) = row else { return row };
    let rename = |key: String| {
        key.split('_')
            .map(|word| match word {
                "id" => "ID".to_owned(),
                word => word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect(),
            })
            .collect::<String>()
    };
    Value::Object(fields.into_iter().map(|(key, value)| (rename(key), value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-28: field names of `job logs --json`.
    #[test]
    fn log_fields_are_capitalized() {
        let row = json!({"job_id": 1, "log_id": 2, "submitted_by": "cli", "last_error": null, "stderr": "", "result": {"a_b": 1}});
        let expected = json!({"JobID": 1, "LogID": 2, "SubmittedBy": "cli", "LastError": null, "Stderr": "", "Result": {"a_b": 1}});
        assert_eq!(capitalized(row), expected);
    }

    /// CLI-31: exit 1 on failure, with the last error and the next step.
    #[test]
    fn only_success_is_success() {
        let mut report = Report::new(true, false);
        for (status, ok) in [("succeeded", true), ("skipped", true), ("failed", false), ("dead", false)] {
            let job = json!({"job_id": "j", "status": status, "last_error": "exit_code: 3", "attempt": 1});
            let result = conclude(&job, &mut report);
            assert_eq!(result.is_ok(), ok, "{status}");
            if let Err(error) = result {
                assert_eq!(error.exit_code(), 1);
                assert_eq!(
                    error.to_string(),
                    format!("job j is {status}: exit_code: 3\n  next: ductile job inspect j")
                );
            }
        }
    }

    #[test]
    fn a_retry_that_waits_is_told() {
        let job = json!({"status": "queued", "attempt": 1, "max_attempts": 4, "last_error": "boom", "next_retry_at": "2026-01-01T00:00:30.000Z"});
        assert_eq!(
            retry_news(&job).as_deref(),
            Some("attempt 1 of 4 failed: boom; the next may start at 2026-01-01 00:00:30")
        );
        assert_eq!(retry_news(&json!({"status": "running", "attempt": 1})), None);
    }

    #[test]
    fn a_job_id_is_checked_before_anyone_is_asked() {
        assert_eq!(job_id("../x").expect_err("no id").exit_code(), 2);
    }
}
