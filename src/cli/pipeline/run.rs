//! `ductile pipeline run`: starts a pipeline and, when asked to, waits until all that followed has ended.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ductile_domain::ids::JobId;
use ductile_domain::time;
use serde_json::{Value, json};

use super::{input, preview};
use crate::args::{Global, PipelineRun};
use crate::client::{Client, encode, query};
use crate::error::Error;
use crate::instance::connect;
use crate::job;
use crate::report::{Report, Style};
use crate::tree_view::span;

/// Synchronous pipelines are answered within the gateway's own limit, which is never longer.
const LONGEST_ANSWER: Duration = Duration::from_secs(3_600);

/// What the gateway shows of a tree; of a larger one nobody can say here whether it has ended.
const LARGEST_TREE: usize = 1_000;

/// Starts it and prints its job, or its end.
///
/// # Errors
/// There is no such pipeline, its input does not fit, nobody answers, or it was waited for and a job failed.
pub(super) async fn run(args: &PipelineRun, global: &Global, report: &mut Report) -> Result<(), Error> {
    let payload = input(&args.input)?;
    if args.dry.dry_run {
        return preview::show(&args.name, payload, global, report);
    }
    let body = payload.map_or_else(|| json!({}), |payload| json!({ "payload": payload }));
    let client = connect(global, report)?;
    let detached = args.detached || args.wait;
    let path = format!("/pipeline/{}{}", encode(&args.name), query(&[("async", detached.then_some("true"))]));
    let began = Instant::now();
    let answer = client.post_waiting(&path, &body, if detached { Duration::ZERO } else { LONGEST_ANSWER }).await?;
    if args.wait {
        let roots = roots(&answer)?;
        report.detail(format!("pipeline {} started with {}", args.name, words(&roots)));
        let jobs = whole(&client, &roots, args.timeout, began, report).await?;
        let made_up_for = made_up_for(&client, &jobs).await?;
        return conclude(&args.name, &ended(&jobs, &made_up_for), report);
    }
    if answer["tree"].is_array() {
        return conclude(&args.name, &answer, report);
    }
    if report.is_json() {
        report.document(&answer);
    } else {
        let roots = roots(&answer)?;
        roots.iter().for_each(|id| report.line(id.to_string()));
    }
    if answer["timeout_exceeded"] == true {
        return Err(late(&roots(&answer)?, began.elapsed()));
    }
    Ok(())
}

/// The jobs that the pipeline began with.
fn roots(answer: &Value) -> Result<Vec<JobId>, Error> {
    let listed = answer["job_ids"].as_array().filter(|ids| !ids.is_empty());
    let ids = match listed {
        Some(ids) => ids.iter().map(|id| id.as_str()?.parse().ok()).collect::<Option<Vec<JobId>>>(),
        None => answer["job_id"].as_str().and_then(|id| id.parse().ok()).map(|id| vec![id]),
    };
    ids.ok_or_else(|| Error::Answer(format!("no job id in {answer}")))
}

fn words(ids: &[JobId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// All jobs that followed from `roots`, once none of them can cause another. What a job causes is recorded with its end,
/// so a tree without an open job grows no more; a join is caused by whichever tree ends last, so all are looked at again.
async fn whole(
    client: &Client,
    roots: &[JobId],
    timeout: Option<Duration>,
    began: Instant,
    report: &Report,
) -> Result<Vec<Value>, Error> {
    loop {
        let mut jobs = Vec::new();
        for root in roots {
            let mut tree = client.get(&format!("/job/{root}/tree")).await?;
            let tree = tree.as_array_mut().map(std::mem::take).unwrap_or_default();
            if tree.len() >= LARGEST_TREE {
                return Err(Error::Failed(format!(
                    "more than {LARGEST_TREE} jobs followed, which is too many to wait for; they go on: `ductile job list`"
                )));
            }
            jobs.extend(unhooked(tree));
        }
        let Some(open) = jobs.iter().find(|job| !job::is_over(job)) else { return Ok(jobs) };
        let id: JobId = open["job_id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| Error::Answer(format!("no job id in {open}")))?;
        let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        if let Err(error) = job::wait(client, id, left, report).await {
            let is_late = timeout.is_some_and(|timeout| began.elapsed() >= timeout);
            return Err(if is_late { late(roots, began.elapsed()) } else { error });
        }
    }
}

/// A tree without what hooks started: that tells of the pipeline and is no part of it. Parents stand before children.
fn unhooked(tree: Vec<Value>) -> Vec<Value> {
    let mut left_out = HashSet::new();
    tree.into_iter()
        .filter(|job| {
            let is_below = job["parent_job_id"].as_str().is_some_and(|parent| left_out.contains(parent));
            let is_hooked = job["submitted_by"] == "hook" && !job["parent_job_id"].is_null();
            if is_below || is_hooked {
                left_out.extend(job["job_id"].as_str().map(str::to_owned));
            }
            !is_below && !is_hooked
        })
        .collect()
}

fn late(roots: &[JobId], waited: Duration) -> Error {
    Error::Failed(format!(
        "the pipeline has not ended after {}; it goes on: `ductile job tree {}`",
        span(waited),
        roots.first().map(ToString::to_string).unwrap_or_default()
    ))
}

/// The jobs that failed in branches of a join that is content with the others.
async fn made_up_for(client: &Client, jobs: &[Value]) -> Result<HashSet<String>, Error> {
    let mut found = HashSet::new();
    if !jobs.iter().any(has_failed) {
        return Ok(found);
    }
    for join in jobs.iter().filter(|job| job["plugin"] == "core.join" && job["status"] == "succeeded") {
        let id = join["job_id"].as_str().unwrap_or_default();
        let whole = client.get(&format!("/job/{id}?include=payload")).await?;
        let branches = whole["payload"]["branches"].as_array().into_iter().flatten();
        found.extend(branches.filter_map(|branch| branch["job_id"].as_str().map(str::to_owned)));
    }
    Ok(found)
}

fn has_failed(job: &Value) -> bool {
    matches!(job["status"].as_str(), Some("failed" | "dead"))
}

/// The document that the gateway answers a synchronous call with, from the jobs.
fn ended(jobs: &[Value], made_up_for: &HashSet<String>) -> Value {
    let at = |job: &Value, key: &str| job[key].as_str().and_then(time::parse);
    let last = jobs.iter().max_by_key(|job| at(job, "completed_at"));
    let bad =
        jobs.iter().filter(|job| has_failed(job) && !job["job_id"].as_str().is_some_and(|id| made_up_for.contains(id)));
    let decisive = bad.min_by_key(|job| at(job, "completed_at")).or(last);
    let begin = jobs.iter().filter_map(|job| at(job, "created_at")).min();
    let end = last.and_then(|job| at(job, "completed_at"));
    let took = begin.zip(end).and_then(|(begin, end)| (end - begin).to_std().ok()).unwrap_or_default();
    json!({
        "job_id": jobs.first().map(|job| job["job_id"].clone()),
        "status": decisive.map(|job| job["status"].clone()),
        "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "result": decisive.map(|job| job["result"].clone()),
        "tree": jobs,
    })
}

/// Prints how it ended; anything but success is an error that names the next step.
fn conclude(name: &str, ended: &Value, report: &mut Report) -> Result<(), Error> {
    let status = ended["status"].as_str().unwrap_or("unknown").to_owned();
    let jobs = ended["tree"].as_array().map(Vec::as_slice).unwrap_or_default();
    if report.is_json() {
        report.document(ended);
    } else {
        let took = span(Duration::from_millis(ended["duration_ms"].as_u64().unwrap_or_default()));
        let line = format!("pipeline {name} {status} in {took} ({} job(s))", jobs.len());
        report.styled(&line, Style::of_state(&status));
        job::draw(jobs, report);
        if let Some(result) = ended["result"].get("result").filter(|result| !result.is_null()) {
            report.line(result.as_str().map_or_else(|| result.to_string(), str::to_owned));
        }
    }
    if matches!(&*status, "succeeded" | "skipped") {
        return Ok(());
    }
    let bad = jobs.iter().find(|job| job["status"] == *status && job["job_id"].is_string());
    let id = bad.unwrap_or(ended)["job_id"].as_str().unwrap_or_default();
    let step = bad.and_then(|job| job["step_id"].as_str()).map(|step| format!(" at step {step}")).unwrap_or_default();
    let why = bad.and_then(|job| job["last_error"].as_str()).map(|why| format!(": {why}")).unwrap_or_default();
    Err(Error::Failed(format!("pipeline {name} is {status}{step}{why}\n  next: ductile job inspect {id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str, status: &str, second: u32) -> Value {
        json!({
            "job_id": id, "status": status, "created_at": "2026-01-01T00:00:00.000Z",
            "completed_at": format!("2026-01-01T00:00:{second:02}.000Z"), "result": {"result": id}, "step_id": "pay",
            "last_error": (status != "succeeded").then_some("no money"),
        })
    }

    /// API-07, API-11: the result is that of the job that ended last, unless one failed: then that one decides.
    #[test]
    fn the_last_job_speaks_for_the_pipeline_unless_one_failed() {
        let good =
            ended(&[job("a", "succeeded", 1), job("c", "succeeded", 9), job("b", "skipped", 3)], &HashSet::new());
        assert_eq!((&good["status"], &good["result"]["result"]), (&json!("succeeded"), &json!("c")));
        assert_eq!(good["duration_ms"], 9_000);
        let bad = ended(&[job("a", "succeeded", 1), job("b", "dead", 3), job("c", "failed", 5)], &HashSet::new());
        assert_eq!(
            (&bad["status"], &bad["result"]["result"], &bad["job_id"]),
            (&json!("dead"), &json!("b"), &json!("a"))
        );
        let made_up_for = HashSet::from(["b".to_owned()]);
        let joined = ended(&[job("a", "succeeded", 1), job("b", "failed", 3), job("j", "succeeded", 9)], &made_up_for);
        assert_eq!(joined["status"], "succeeded");
    }

    #[test]
    fn what_hooks_start_is_not_waited_for() {
        let job =
            |id: &str, parent: Value, by: &str| json!({"job_id": id, "parent_job_id": parent, "submitted_by": by});
        let tree = vec![
            job("a", json!(null), "hook"),
            job("b", json!("a"), "route"),
            job("h", json!("a"), "hook"),
            job("i", json!("h"), "route"),
        ];
        let kept: Vec<Value> = unhooked(tree).into_iter().map(|job| job["job_id"].clone()).collect();
        assert_eq!(kept, ["a", "b"]);
    }

    #[test]
    fn a_failed_pipeline_names_step_cause_and_next_step() {
        let (mut report, none) = (Report::new(true, false), HashSet::new());
        assert!(conclude("p", &ended(&[job("a", "succeeded", 1)], &none), &mut report).is_ok());
        let error = conclude("p", &ended(&[job("a", "succeeded", 1), job("b", "failed", 2)], &none), &mut report);
        let error = error.expect_err("it failed");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.to_string(), "pipeline p is failed at step pay: no money\n  next: ductile job inspect b");
    }

    #[test]
    fn what_goes_on_is_told_with_the_command_that_shows_it() {
        let id: JobId = "01890f3e-7c5a-7000-8000-000000000001".parse().expect("an id");
        let error = late(&[id], Duration::from_secs(90));
        let expected = format!("the pipeline has not ended after 1m30s; it goes on: `ductile job tree {id}`");
        assert_eq!((error.exit_code(), error.to_string()), (1, expected));
    }

    #[test]
    fn all_first_jobs_are_known() {
        let id = "01890f3e-7c5a-7000-8000-000000000001";
        let one: JobId = id.parse().expect("an id");
        assert_eq!(roots(&json!({"job_id": id})).expect("one"), [one]);
        assert_eq!(roots(&json!({"job_id": id, "job_ids": [id, id]})).expect("two"), [one, one]);
        for bad in [json!({}), json!({"job_id": "x"}), json!({"job_ids": ["x"]})] {
            assert_eq!(roots(&bad).expect_err("no id").exit_code(), 70, "{bad}");
        }
    }
}
