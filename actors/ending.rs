//! The end of a process, on the thread that owned it: judged, planned and handed to the writer there, so that no actor has
//! to wake before a slot is free. Whatever has to be asked, waited for or tried again goes to the attempt's actor.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};

use ductile_domain::builtin;
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::plan::{self, Plan};
use ductile_domain::retry::{self, RetryPolicy};
use ductile_ledger::{Finish, Finished, Verdict, WriteError};
use ductile_plugin::outcome::judge;
use ductile_plugin::{End, Exited};

use crate::announce::{self, Announced};
use crate::attempt::Meeting;
use crate::job::{JobArgs, Msg};

/// Records the end if nothing stands in the way; the actor is told in any case.
pub(crate) fn at_once(args: JobArgs, actor: Arc<Meeting>, exited: Exited) {
    // The actor knows why it was cancelled, and what our own lack of resources asks for.
    let is_plain = !matches!(exited.end, End::Cancelled | End::SpawnFailed { ours: true, .. });
    if !is_plain || args.generation.catalog.get(&args.job.plugin).is_none() {
        return actor.tell(&args, Msg::Exited(Box::new(exited)));
    }
    let judging = || judged(&args, exited).map(|outcome| finish(&args, outcome));
    // A panic costs this attempt, as one of its actor would.
    let Ok(Some(finish)) = std::panic::catch_unwind(AssertUnwindSafe(judging)) else {
        return actor.tell(&args, Msg::Lost);
    };
    let writer = args.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let owed = Owed { args, actor, finish: Some(finish.clone()) };
    if let Some(writer) = writer {
        writer.finish_then(finish, move |result| owed.answered(&result));
    }
}

/// What the attempt came to; `None` when its plugin is not in the generation.
pub(crate) fn judged(args: &JobArgs, exited: Exited) -> Option<Outcome> {
    let JobArgs { shared, generation, job, .. } = args;
    let plugin = generation.catalog.get(&job.plugin)?;
    shared.flags.clear("spawn");
    let (outcome, warnings) = judge(exited, plugin, &job.command, shared.clock.now());
    for warning in warnings {
        tracing::warn!(component = "job", plugin = %job.plugin, job_id = %job.fence.job, "{warning}");
    }
    if let Some(stderr) = outcome.stderr.as_deref().filter(|s| !s.is_empty()) {
        tracing::warn!(component = "plugin", plugin = %job.plugin, job_id = %job.fence.job, stderr, "plugin wrote to stderr");
    }
    Some(outcome)
}

/// The end with everything that follows from it under the attempt's own generation.
pub(crate) fn finish(args: &JobArgs, outcome: Outcome) -> Arc<Finish> {
    let plan = plan::plan(&args.generation, &args.job, &outcome, args.shared.clock.now(), &mut uuid::Uuid::now_v7);
    finish_with(args, outcome, plan)
}

/// The end with what was planned. What stops a plan shows in the outcome.
pub(crate) fn finish_with(args: &JobArgs, mut outcome: Outcome, plan: Plan) -> Arc<Finish> {
    let JobArgs { generation, job, .. } = args;
    for kind in &plan.unmatched {
        tracing::debug!(component = "router", plugin = %job.plugin, job_id = %job.fence.job, event = kind, "event matched nothing");
    }
    if let Some(fault) = &plan.fault {
        outcome.status = AttemptStatus::Failed;
        outcome.cause = Some(Cause::Routing);
        outcome.error = Some(fault.clone());
    } else if let Some(dropped) = plan.dropped.first() {
        outcome.error = Some(announce::why_dropped(dropped));
    }
    let plugin = generation.catalog.get(&job.plugin);
    let policy = plugin.map_or_else(RetryPolicy::default, |p| p.retry);
    let ending = retry::decide(&outcome, job.attempt, job.max_attempts, &policy, announce::fraction(job.fence));
    let tiers = plugin.map_or(0, |p| p.limits.tiers.len());
    let ending = retry::with_more_memory(ending, &outcome, job.memory_tier, tiers);
    Arc::new(Finish { fence: job.fence, outcome, ending, plan, is_awaited: false })
}

/// Takes out what is not in force, and says so: what a plan made under one generation may hold when yet another came.
pub(crate) fn leave_out_gone(plan: &mut Plan, is_in_force: impl Fn(&str) -> bool) -> Option<String> {
    let is_gone = |plugin: &str| !builtin::is_builtin(plugin) && !is_in_force(plugin);
    let gone: Vec<_> = plan.children.extract_if(.., |child| is_gone(&child.plugin)).collect();
    let first = &gone.first()?.plugin;
    let jobs = if gone.len() == 1 { "1 job".to_owned() } else { format!("{} jobs", gone.len()) };
    Some(format!("{jobs} could not follow: plugin {first:?} is removed or disabled in the configuration"))
}

/// An end that the actor must hear of. Dropped without an answer of the writer it is the actor's to record.
struct Owed {
    args: JobArgs,
    actor: Arc<Meeting>,
    finish: Option<Arc<Finish>>,
}

impl Owed {
    fn answered(mut self, result: &Result<Finished, WriteError>) {
        match result {
            Ok(finished) if finished.verdict != Verdict::Replan => {
                let Some(finish) = self.finish.take() else { return };
                announce::ended(&self.args.shared, &finish, &Announced::of_attempt(&self.args.job), finished);
                self.actor.tell(&self.args, Msg::Recorded);
            }
            _ => {}
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(finish) = self.finish.take() {
            self.actor.tell(&self.args, Msg::Unrecorded(finish));
        }
    }
}

#[cfg(test)]
mod tests {

    use ductile_domain::ids::JobId;
    use ductile_domain::job::NewJob;

    use super::*;

    fn child(plugin: &str) -> NewJob {
        NewJob::new(JobId::from(uuid::Uuid::now_v7()), plugin, "handle", "route")
    }

    #[test]
    fn only_what_is_gone_is_left_out() {
        let children = ["there", "gone", builtin::SWITCH].map(child).to_vec();
        let mut plan = Plan { children, ..Plan::default() };
        let text = leave_out_gone(&mut plan, |plugin| plugin == "there").expect("something is gone");
        assert!(text.starts_with("1 job could not follow: plugin \"gone\""), "{text}");
        let left: Vec<_> = plan.children.iter().map(|child| &*child.plugin).collect();
        assert_eq!(left, ["there", builtin::SWITCH]);
        assert_eq!(leave_out_gone(&mut plan, |_| true), None);
    }
}
