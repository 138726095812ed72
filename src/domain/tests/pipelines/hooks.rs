//! What the end of a job starts.

use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_domain::outcome::AttemptStatus;
use ductile_domain::pipeline::{Ended, Start};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{counter, now, sound, value};

fn ended(plugin: &'static str, status: JobStatus, last_attempt: AttemptStatus) -> Ended<'static> {
    Ended {
        job: JobId::from(Uuid::from_u128(77)),
        plugin,
        command: "poll",
        parent: None,
        submitted_by: "scheduler",
        status,
        last_attempt: Some(last_attempt),
        attempt: 2,
        duration_ms: 15,
        error: None,
        context: None,
        snapshot: Some(3),
        now: now(),
    }
}

fn all_signals() -> Generation {
    let pipeline = |signal: &str| json!({"name": signal, "on-hook": signal, "steps": [{"id": "x", "uses": "a"}]});
    sound(json!(["job.completed", "job.failed", "job.timed_out", "job.dead"].map(pipeline)))
}

fn fire(generation: &Generation, ended: &Ended<'_>) -> Start {
    generation.pipelines.hook_jobs(ended, &mut counter())
}

fn fired(generation: &Generation, ended: &Ended<'_>) -> Vec<String> {
    fire(generation, ended).jobs.iter().map(|job| job.target_key.trim_end_matches("/x").to_owned()).collect()
}

/// PIP-44, C-49 and the decision about hook signals.
#[test]
fn each_end_has_its_signals() {
    let generation = all_signals();
    for (status, last, signals) in [
        (JobStatus::Succeeded, AttemptStatus::Succeeded, vec!["job.completed"]),
        (JobStatus::Skipped, AttemptStatus::Skipped, vec!["job.completed"]),
        (JobStatus::Failed, AttemptStatus::Failed, vec!["job.failed", "job.completed"]),
        (JobStatus::Dead, AttemptStatus::Failed, vec!["job.failed", "job.dead", "job.completed"]),
        (JobStatus::Dead, AttemptStatus::TimedOut, vec!["job.timed_out", "job.dead", "job.completed"]),
    ] {
        assert_eq!(fired(&generation, &ended("root", status, last)), signals, "{status} {last:?}");
    }
    let never_ran = Ended { last_attempt: None, attempt: 0, ..ended("root", JobStatus::Dead, AttemptStatus::Failed) };
    assert_eq!(fired(&generation, &never_ran), ["job.dead", "job.completed"]);
}

/// PIP-45, C-50 and the decision about chains: only plugins that opted in, only jobs that nothing caused.
#[test]
fn only_ends_that_are_wanted_fire() {
    let generation = all_signals();
    let end = |plugin| ended(plugin, JobStatus::Succeeded, AttemptStatus::Succeeded);
    assert!(fired(&generation, &end("a")).is_empty() && !generation.pipelines.has_hooks("a"));
    assert!(generation.pipelines.has_hooks("root") && generation.pipelines.has_hooks("chain"));
    let parent = Some(JobId::from(Uuid::from_u128(1)));
    assert!(fired(&generation, &Ended { parent, submitted_by: "route", ..end("root") }).is_empty());
    assert!(fired(&generation, &Ended { parent, submitted_by: "hook", ..end("root") }).is_empty());
    // The first job of a chain has depth 1; hook_max_depth is 2 here.
    let begun = fire(&generation, &end("chain"));
    let context = &begun.contexts[0].accumulated;
    assert_eq!(value(context)["ductile"]["hook_depth"], 1);
    let chained = Ended { parent, submitted_by: "hook", context: Some(context), ..end("chain") };
    let second = fire(&generation, &chained);
    assert_eq!(second.jobs.len(), 1);
    let context = &second.contexts[0].accumulated;
    assert_eq!(value(context)["ductile"]["hook_depth"], 2);
    assert!(fired(&generation, &Ended { context: Some(context), ..chained }).is_empty(), "long enough");
    assert!(!sound(json!([])).pipelines.has_hooks("root"), "nothing to start");
}

/// PIP-46, PIP-47, PIP-48: a fresh start with the lifecycle envelope.
#[test]
fn a_hook_job_is_told_what_happened_and_starts_afresh() {
    let generation = sound(json!([
        {"name": "p", "on-hook": "job.dead", "steps": [{"call": "q"}]},
        {"name": "q", "on": "e", "steps": [{"id": "tell", "uses": "a"}, {"uses": "b"}]},
    ]));
    let end = Ended { error: Some("connection reset"), ..ended("root", JobStatus::Dead, AttemptStatus::Failed) };
    let start = fire(&generation, &end);
    let ([job], [context]) = (start.jobs.as_slice(), start.contexts.as_slice()) else { panic!("{start:?}") };
    assert_eq!((&*job.plugin, job.submitted_by, job.parent, job.seat), ("a", "hook", Some(end.job), None));
    assert!(context.parent.is_none() && job.context == Some(context.id));
    let envelope = value(job.payload.as_ref().expect("an envelope"));
    assert_eq!((&envelope["type"], &envelope["source"]), (&json!("job.dead"), &json!("root")));
    let text = "Job failed [root]: connection reset";
    assert_eq!(
        envelope["payload"],
        json!({
            "job_id": end.job.to_string(), "plugin": "root", "command": "poll", "status": "dead", "attempt": 2,
            "duration_ms": 15, "message": text, "text": text, "error": "connection reset",
        })
    );
    let fine = fire(&all_signals(), &ended("root", JobStatus::Succeeded, AttemptStatus::Succeeded));
    let payload = value(fine.jobs[0].payload.as_ref().expect("an envelope"))["payload"].clone();
    assert_eq!(payload["status"], "succeeded");
    assert!(payload.get("error").is_none() && payload.get("message").is_none());
}

/// PIP-23, PIP-25: the plugin first, then the condition; there is no context.
#[test]
fn hooks_are_scoped_by_plugin_and_condition() {
    let hook = |name: &str, fields: Value| {
        let mut hook = json!({"name": name, "on-hook": "job.completed", "steps": [{"id": "x", "uses": "a"}]});
        hook.as_object_mut().expect("an object").extend(fields.as_object().cloned().expect("an object"));
        hook
    };
    let generation = sound(json!([
        hook("any", json!({})),
        hook("of_root", json!({"from_plugin": "root"})),
        hook("bad_news", json!({"if": {"path": "payload.status", "op": "neq", "value": "succeeded"}})),
        hook("with_context", json!({"if": {"path": "context.origin_plugin", "op": "exists"}})),
        hook("claims", json!({"steps": [{"id": "x", "uses": "a", "baggage": {"e": "payload.error"}}]})),
    ]));
    let end = |plugin, status, last| ended(plugin, status, last);
    let fine = end("chain", JobStatus::Succeeded, AttemptStatus::Succeeded);
    assert_eq!(fired(&generation, &fine), ["any"]);
    let start = fire(&generation, &fine);
    assert!(start.faults.len() == 1 && start.faults[0].contains("payload.error"), "{:?}", start.faults);
    assert_eq!(
        fired(&generation, &end("root", JobStatus::Failed, AttemptStatus::Failed)),
        ["any", "of_root", "bad_news", "claims"]
    );
}

/// QUE-10, PIP-45: switching a plugin off buries its queued jobs, and whoever asked to hear of their ends does.
#[test]
fn the_end_of_a_job_of_a_plugin_that_is_switched_off_fires_its_hooks() {
    let generation = all_signals();
    let buried = Ended { last_attempt: None, attempt: 0, ..ended("off", JobStatus::Dead, AttemptStatus::Failed) };
    assert!(generation.pipelines.has_hooks("off"));
    assert_eq!(fired(&generation, &buried), ["job.dead", "job.completed"]);
}
