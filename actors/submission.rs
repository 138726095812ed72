//! What doors bring in: one job of a plugin, or the first jobs of a pipeline.

use std::time::Duration;

use ductile_api::gateway::{PipelineStart, Refusal, Submission, Submitted};
use ductile_domain::builtin;
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::NewJob;
use ductile_domain::pipeline::{Origin, Start, StartFault};
use ductile_domain::time::Timestamp;
use ductile_ledger::{Enqueued, Submission as Batch};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::handle::Handle;
use crate::ledger;

/// How often a start is planned anew because a reload took away what it needs.
const REPLANS: usize = 3;

impl Handle {
    /// Enqueues one job.
    pub(crate) async fn enqueue(&self, submission: Submission) -> Result<Submitted, Refusal> {
        self.refuse_intake()?;
        let generation = self.shared().generation();
        let max_attempts = match generation.catalog.get(&submission.plugin) {
            Some(plugin) => plugin.retry.max_attempts,
            None if builtin::is_builtin(&submission.plugin) => builtin::MAX_ATTEMPTS,
            None => 1,
        };
        let job = NewJob {
            payload: submission.payload,
            max_attempts,
            requested_by: Some(submission.requested_by),
            dedupe_key: submission.dedupe_key,
            dedupe_window: generation.config.service.dedupe_ttl,
            dedupe_in_flight: submission.dedupe_in_flight,
            context: submission.context,
            is_routed: submission.is_routed,
            snapshot: generation.snapshot,
            replay_of: submission.replay_of,
            ..NewJob::new(JobId::from(Uuid::now_v7()), submission.plugin, submission.command, submission.submitted_by)
        };
        // An answer that is lost after the commit is not repeated here: only the caller knows whether it may be.
        let accepted = self.commit(vec![job].into(), &generation).await?;
        let nothing = || Refusal::Internal("the ledger answered an enqueue of one job with none".to_owned());
        accepted.into_iter().next().ok_or_else(nothing)
    }

    /// Enqueues what a pipeline begins with.
    pub(crate) async fn enqueue_pipeline(&self, start: PipelineStart) -> Result<Vec<Submitted>, Refusal> {
        self.refuse_intake()?;
        let mut replans = 0;
        loop {
            let generation = self.shared().generation();
            let Start { contexts, joins, jobs, arrivals, .. } = plan(&generation, &start, self.shared().clock.now())?;
            if start.is_single && jobs.len() != 1 {
                return Err(Refusal::SeveralEntries { entries: jobs.len() });
            }
            let batch = Batch { jobs, contexts, joins, arrivals };
            match self.commit(batch, &generation).await {
                Err(Refusal::PluginGone(_)) if replans < REPLANS => replans += 1,
                Ok(accepted) if accepted.is_empty() => {
                    return Err(Refusal::Internal(format!("pipeline {:?} began with no job", start.pipeline)));
                }
                result => return result,
            }
        }
    }

    /// The jobs that were asked for, and those of joins that had nothing to wait for.
    async fn commit(&self, batch: Batch, generation: &Generation) -> Result<Vec<Submitted>, Refusal> {
        let make = |reply| ledger::Msg::Submit { submission: batch, generation: generation.no, reply };
        let submitted = self.ask_ledger(make).await?;
        let asked = submitted.jobs.into_iter().map(|job| match job {
            Enqueued::Accepted { job, .. } => Submitted::Accepted(job),
            Enqueued::Duplicate { job, status } => Submitted::Duplicate(job, status),
        });
        Ok(asked.chain(submitted.born.into_iter().map(|born| Submitted::Accepted(born.job))).collect())
    }

    /// While the gateway stops, or while too little space is free on the ledger's file system.
    fn refuse_intake(&self) -> Result<(), Refusal> {
        let shared = self.shared();
        if shared.flags.is_draining() {
            let reason = "the gateway is stopping and takes no new work".to_owned();
            return Err(Refusal::Unavailable { reason, retry_after: Duration::from_secs(10) });
        }
        shared.space.look_before_intake(shared);
        match shared.flags.intake_stopped() {
            Some(reason) => Err(Refusal::Unavailable { reason, retry_after: Duration::from_secs(30) }),
            None => Ok(()),
        }
    }
}

fn plan(generation: &Generation, start: &PipelineStart, now: Timestamp) -> Result<Start, Refusal> {
    let unknown = || Refusal::UnknownPipeline(start.pipeline.to_string());
    let pipeline = generation.pipelines.get(&start.pipeline).ok_or_else(unknown)?;
    let origin = Origin {
        submitted_by: start.submitted_by,
        requested_by: Some(&start.requested_by),
        dedupe_key: start.dedupe_key.as_deref(),
        dedupe_window: generation.config.service.dedupe_ttl,
        dedupe_in_flight: start.dedupe_key.is_some(),
        snapshot: generation.snapshot,
        now,
    };
    let nothing;
    let payload = match start.payload.as_deref() {
        Some(payload) => payload,
        None => {
            nothing = RawValue::from_string("{}".to_owned()).expect("an empty object is JSON");
            &*nothing
        }
    };
    let planned = generation.pipelines.start(pipeline, payload, &origin, &mut Uuid::now_v7);
    planned.map_err(|fault| {
        tracing::error!(
            component = "router", pipeline = &*start.pipeline, error = %fault,
            "failed to create event context for pipeline entry"
        );
        match fault {
            StartFault::Baggage(text) => Refusal::Baggage(text),
            StartFault::TooLarge { actual, limit } => {
                Refusal::ContextTooLarge { bytes_actual: actual as u64, bytes_limit: limit as u64 }
            }
        }
    })
}
