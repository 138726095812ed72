//! `ductile job replay`: the recorded work once more, as a job of its own.

use ductile_domain::ids::JobId;
use serde_json::json;

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
    let body = payload.map(|payload| json!({ "payload": payload }));
    let client = connect(global, report)?;
    let path = format!("/job/{id}/replay");
    if args.dry.dry_run {
        let with = body.as_ref().map_or_else(|| "its recorded payload".to_owned(), |body| body["payload"].to_string());
        report.line(format!("would enqueue job {id} again with {with}"));
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
