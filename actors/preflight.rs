//! Preflight: what an attempt does is decided before anything is spawned. The gateway's own steps are done with that.

use std::sync::Arc;
use std::time::Instant;

use ductile_domain::builtin;
use ductile_domain::catalog::Plugin;
use ductile_domain::job::ClaimedJob;
use ductile_domain::outcome::{AttemptStatus, Cause, EmittedEvent, Outcome, Timing, Usage};
use ductile_domain::pipeline::{Prepared, prepare};
use serde_json::{Value, json};

use crate::job::JobArgs;

/// What preflight comes to.
pub(crate) enum Decision {
    /// A process is asked this.
    Spawn {
        plugin: Arc<Plugin>,
        /// The claim as the request shows it: with the payload and the baggage that the step asks for.
        asked: Arc<ClaimedJob>,
    },
    /// It is done without a process.
    Done(Box<Outcome>),
    /// It can't run.
    Refused(Box<Outcome>),
}

/// Decides under the attempt's generation.
pub(crate) fn decide(args: &JobArgs) -> Decision {
    let begun = Instant::now();
    let JobArgs { generation, job, unreadable, .. } = args;
    if let Some(column) = unreadable {
        let text = format!("preflight: the stored {column} is no JSON and can't be handed to the plugin");
        return refused(args, Cause::Preflight, text);
    }
    let plugin = if builtin::is_builtin(&job.plugin) {
        None
    } else {
        match runnable(args) {
            Ok(plugin) => Some(plugin),
            Err(text) => return refused(args, Cause::PluginGone, text),
        }
    };
    match (prepare(generation, job), plugin) {
        (Err(text), _) => refused(args, Cause::Preflight, text),
        (Ok(Prepared::Done { events, reason }), _) => Decision::Done(Box::new(done(args, events, &reason, begun))),
        (Ok(Prepared::Request { payload: None, context: None }), Some(plugin)) => {
            Decision::Spawn { plugin, asked: job.clone() }
        }
        (Ok(Prepared::Request { payload, context }), Some(plugin)) => {
            let mut asked = ClaimedJob::clone(job);
            asked.payload = payload.or(asked.payload);
            asked.context = context.or(asked.context);
            Decision::Spawn { plugin, asked: Arc::new(asked) }
        }
        (Ok(Prepared::Request { .. }), None) => {
            refused(args, Cause::Preflight, format!("preflight: {:?} runs inside a pipeline only", job.plugin))
        }
    }
}

/// The job's plugin, with its command.
fn runnable(args: &JobArgs) -> Result<Arc<Plugin>, String> {
    let JobArgs { generation, job, .. } = args;
    let plugin = generation.catalog.get(&job.plugin).filter(|p| p.is_runnable);
    let plugin = plugin
        .ok_or_else(|| format!("cancelled: plugin {:?} is removed or disabled in the configuration", job.plugin))?;
    match plugin.command(&job.command) {
        Some(_) => Ok(plugin.clone()),
        None => Err(format!("cancelled: plugin {:?} has no command {:?} any more", job.plugin, job.command)),
    }
}

fn refused(args: &JobArgs, cause: Cause, text: String) -> Decision {
    Decision::Refused(Box::new(Outcome::without_process(cause, text, args.shared.clock.now())))
}

/// The success of a step of the gateway's own, told as a plugin would tell it.
fn done(args: &JobArgs, events: Vec<EmittedEvent>, reason: &str, begun: Instant) -> Outcome {
    let types: Vec<Value> = events.iter().map(|event| json!({ "type": event.kind })).collect();
    let ended_at = args.shared.clock.now();
    let exit_wall_ns = ended_at.timestamp_nanos_opt().unwrap_or_default();
    let dur_ns = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
    Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: Some(json!({ "status": "ok", "result": reason, "events": types }).to_string()),
        stderr: None,
        exit_code: None,
        signal: None,
        events,
        state_updates: None,
        timing: Timing {
            enter_wall_ns: exit_wall_ns.saturating_sub(dur_ns),
            exit_wall_ns,
            dur_ns,
            runtime_pre_ns: 0,
            runtime_post_ns: 0,
        },
        usage: Usage::default(),
        subs: None,
        ended_at,
    }
}
