//! What a door enqueues to start a pipeline by hand.

use std::fmt;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::baggage::BaggageFault;
use crate::ids::{EventId, Fresh};
use crate::job::NewJob;
use crate::pipeline::hop::{Caller, Event, Hop, Unmade};
use crate::pipeline::{Control, Pipeline, Pipelines};
use crate::plan::{Arrival, NewContext, NewJoin};
use crate::time::Timestamp;

/// Who starts a pipeline, and how.
#[derive(Debug, Clone)]
pub struct Origin<'a> {
    /// Kind of trigger, see [`NewJob::submitted_by`]; also the event's `source` and `origin_plugin`.
    pub submitted_by: &'static str,
    /// Who asked.
    pub requested_by: Option<&'a str>,
    /// Key under which duplicates are found.
    pub dedupe_key: Option<&'a str>,
    /// Window in which a succeeded job with the same key suppresses a new one.
    pub dedupe_window: Duration,
    /// Also suppress while a job with the same key is queued or running.
    pub dedupe_in_flight: bool,
    /// Row of the configuration snapshot in force.
    pub snapshot: Option<i64>,
    /// When it was asked for.
    pub now: Timestamp,
}

/// Jobs that start something, with all that they refer to.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Rows that the jobs refer to.
    pub contexts: Vec<NewContext>,
    /// Joins that begin to wait for some of the jobs.
    pub joins: Vec<NewJoin>,
    /// The jobs in authored order.
    pub jobs: Vec<NewJob>,
    /// Branches that reached their join at once.
    pub arrivals: Vec<Arrival>,
    /// For the log: pipelines that could not be started, each with the reason.
    pub faults: Vec<String>,
    /// What its payloads and contexts come to, roughly.
    pub bytes: usize,
}

impl Start {
    /// Adds what another start makes.
    pub(crate) fn append(&mut self, other: Self) {
        self.contexts.extend(other.contexts);
        self.joins.extend(other.joins);
        self.jobs.extend(other.jobs);
        self.arrivals.extend(other.arrivals);
        self.faults.extend(other.faults);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Why a pipeline can't be started with this payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFault {
    /// A claim of baggage fails, or more would follow than fits into memory; the text says which.
    Baggage(String),
    /// The baggage would be larger than it may be.
    TooLarge {
        /// Bytes that it would have.
        actual: usize,
        /// Bytes that it may have.
        limit: usize,
    },
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Baggage(text) => f.write_str(text),
            Self::TooLarge { actual, limit } => {
                write!(f, "the baggage would have {actual} bytes; it may have {limit}")
            }
        }
    }
}

impl std::error::Error for StartFault {}

impl Pipelines {
    /// What a door enqueues to start `pipeline` with `payload`, an object. Its condition and `from_plugin` are not
    /// asked: whoever names a pipeline means it.
    ///
    /// # Errors
    /// When a step that it begins with claims baggage that the payload does not have, or that is too large, or when too much would follow.
    pub fn start(
        &self,
        pipeline: &Pipeline,
        payload: &RawValue,
        origin: &Origin<'_>,
        fresh: Fresh<'_>,
    ) -> Result<Start, StartFault> {
        let event = Event {
            id: EventId::from(fresh()),
            kind: pipeline.trigger.event_type(),
            source: origin.submitted_by,
            dedupe_key: None,
            payload,
            at: origin.now,
        };
        let caller = Caller {
            submitted_by: origin.submitted_by,
            requested_by: origin.requested_by,
            dedupe_key: origin.dedupe_key,
            dedupe_window: origin.dedupe_window,
            dedupe_in_flight: origin.dedupe_in_flight,
            parent: None,
            snapshot: origin.snapshot,
            is_routed: true,
        };
        let baggage = event.first_baggage(fresh);
        let control = Control {
            root: Some(pipeline.name.clone()),
            instance: Some(fresh()),
            depth: 1,
            max_depth: pipeline.max_depth,
            ..Control::default()
        };
        let hop = Hop { caller: &caller, event: &event, parent: None, baggage: &baggage, control };
        let mut start = Start::default();
        match hop.enter(pipeline, &pipeline.entries, None, &mut start, fresh) {
            Ok(()) => Ok(start),
            Err(Unmade::Claim { fault: BaggageFault::TooLarge { bytes_actual, bytes_limit }, .. }) => {
                Err(StartFault::TooLarge { actual: bytes_actual, limit: bytes_limit })
            }
            Err(unmade) => Err(StartFault::Baggage(unmade.to_string())),
        }
    }
}
