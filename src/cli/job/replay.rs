//! `ductile job replay`: the recorded work once more, as a job of its own.

use ductile_domain::ids::JobId;
use serde_json::{Map, Value, json};

use super::{conclude, job_id, text, wait};
use crate::args::{Global, JobReplay};
use crate::error::Error;
use crate::instance::connect;
use crate::plugin::read_payload;
use crate::report::Report;

/// Enqueues the replay and prints its id, or waits for its end.
///
/// # Errors
/// There is no such job, nobody answers, or the replay was waited for and failed.
pub(super) async fn run(args: &JobReplay, global: &Global, report: &mut Report) -> Result<(), Error> {
    let id = job_id(&args.job)?;
    let payload = args.payload.as_deref().map(read_payload).transpose()?;
    let body = body(args.from_step.as_deref(), payload);
    let client = connect(global, report)?;
    let path = format!("/job/{id}/replay");
    if args.dry.dry_run {
        let asked = |key: &str| body.as_ref().map(|body| &body[key]).filter(|value| !value.is_null());
        let with = asked("payload").map_or_else(|| "its recorded payload".to_owned(), Value::to_string);
        let of = asked("from_step").map_or_else(String::new, |step| format!("step {step} of the run of "));
        report.line(format!("would enqueue {of}job {id} again with {with}"));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": path, "body": body}));
        }
        return Ok(());
    }
    let accepted = client.post(&path, body.as_ref()).await?;
    let new: JobId = accepted["job_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Error::Answer(format!("no job id in {accepted}")))?;
    // With --from-step it is the job of that step, which the gateway has found.
    let id = accepted["replay_of"].as_str().map_or_else(|| id.to_string(), str::to_owned);
    if args.wait {
        report.note(format!("job {new} replays {id}"));
        let job = wait(&client, new, args.timeout, report).await?;
        return conclude(&job, report);
    }
    if report.is_json() {
        report.document(&accepted);
    } else {
        report.line(format!(
            "job {new} replays {id} ({} {}); `ductile job wait {new}` waits for its end",
            text(&accepted, "plugin"),
            text(&accepted, "command")
        ));
    }
    Ok(())
}

/// What differs from the recorded job; `None` when nothing does.
fn body(from_step: Option<&str>, payload: Option<Map<String, Value>>) -> Option<Value> {
    let step = from_step.map(|step| ("from_step".to_owned(), json!(step)));
    let payload = payload.map(|payload| ("payload".to_owned(), Value::Object(payload)));
    let fields: Map<String, Value> = step.into_iter().chain(payload).collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        assert_eq!(body(None, None), None);
        assert_eq!(body(Some("deliver"), None), Some(json!({"from_step": "deliver"})));
        assert_eq!(body(None, Some(Map::new())), Some(json!({"payload": {}})));
        let both = body(Some("deliver"), Some(Map::new()));
        assert_eq!(both, Some(json!({"from_step": "deliver", "payload": {}})));
    }
}
