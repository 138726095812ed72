//! Preflight: what an attempt is given, or does without a process.

use serde_json::value::RawValue;

use crate::generation::Generation;
use crate::job::ClaimedJob;
use crate::outcome::EmittedEvent;

/// What preflight comes to.
#[derive(Debug)]
pub enum Prepared {
    /// A plugin is to be run.
    Request {
        /// Replaces the stored payload, in the same form, where there is one.
        payload: Option<Box<RawValue>>,
        /// Replaces the stored context in the request (not for the plan, which needs the stored one).
        context: Option<Box<RawValue>>,
    },
    /// It is done without a process.
    Done {
        /// What it emits.
        events: Vec<EmittedEvent>,
        /// What was decided, for people.
        reason: String,
    },
}

/// Prepares an attempt under its generation. Cheap for a job without context.
///
/// # Errors
/// A text for `last_error`: the job fails with [`crate::outcome::Cause::Preflight`] and nothing is spawned.
pub fn prepare(_generation: &Generation, _job: &ClaimedJob) -> Result<Prepared, String> {
    Ok(Prepared::Request { payload: None, context: None })
}
