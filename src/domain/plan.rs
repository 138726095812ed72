//! What must follow an attempt, as pure data that the ledger commits with it.

mod routing;

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::generation::Generation;
use crate::ids::{ContextId, Fresh, JoinId};
use crate::job::{ClaimedJob, NewJob, Seat};
use crate::outcome::Outcome;
use crate::time::Timestamp;

/// What the plugin's snapshot does to its compatibility view.
#[derive(Debug, Clone)]
pub enum StateChange {
    /// Replace the view wholesale.
    Mirror(Box<RawValue>),
    /// Merge the top-level keys into the view.
    Merge(Box<RawValue>),
}

/// An append-only fact to be recorded.
#[derive(Debug, Clone)]
pub struct NewFact {
    /// The rule's type, such as `file_watch.snapshot`.
    pub fact_type: String,
    /// The snapshot, a JSON object.
    pub fact: Box<RawValue>,
}

/// A row of `event_context`, inserted before the jobs that refer to it.
#[derive(Debug, Clone)]
pub struct NewContext {
    /// Its id.
    pub id: ContextId,
    /// The context that it accretes to.
    pub parent: Option<ContextId>,
    /// Pipeline in which the step was written; `None` for a plain route.
    pub pipeline: Option<Arc<str>>,
    /// Step that it was made for.
    pub step: Option<Arc<str>>,
    /// The accumulated baggage with the control keys under `ductile`, a JSON object.
    pub accumulated: Box<RawValue>,
}

/// A join that begins to wait: one for each time that a split with a join is entered.
#[derive(Debug, Clone)]
pub struct NewJoin {
    /// Its id, which the seats of the branches' jobs name.
    pub id: JoinId,
    /// The join that waits for this one.
    pub outer: Option<Seat>,
    /// The branches' first steps by name, in authored order.
    pub branches: Vec<Arc<str>>,
    /// The `core.join` job that follows the last of them; its parent, its event and its payload are set when it fires.
    pub job: NewJob,
}

/// A branch has reached its join.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Which join, which branch.
    pub seat: Seat,
    /// The payload that the branch's last event brought.
    pub payload: Option<Box<RawValue>>,
}

/// An event that ended its chain because the chain is as deep as it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Type of the event.
    pub event: String,
    /// The pipeline that it would have entered or gone on in.
    pub pipeline: Option<Arc<str>>,
    /// Depth that the next hop would have had.
    pub depth: u32,
    /// The cap.
    pub max_depth: u32,
}

/// Everything that one attempt's end causes. An empty plan is the usual case.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Number of the generation under which it was made.
    pub generation: u64,
    /// Rows that the children refer to.
    pub contexts: Vec<NewContext>,
    /// Joins that begin to wait for some of the children.
    pub joins: Vec<NewJoin>,
    /// Jobs to enqueue before the parent becomes terminal.
    pub children: Vec<NewJob>,
    /// What the job brings to the join that waits for it.
    pub arrivals: Vec<Arrival>,
    /// Facts to append.
    pub facts: Vec<NewFact>,
    /// Change of the compatibility view.
    pub state: Option<StateChange>,
    /// Events that matched nothing, for the log.
    pub unmatched: Vec<String>,
    /// Events that went no further.
    pub dropped: Vec<Dropped>,
    /// Why nothing can follow although the plugin succeeded: the attempt fails with this text.
    pub fault: Option<String>,
}

impl Plan {
    /// True when nothing follows but records: no job, and no row that another job would read.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.children.is_empty()
            && self.contexts.is_empty()
            && self.joins.is_empty()
            && self.arrivals.is_empty()
            && self.state.is_none()
    }
}

/// Plans what follows a successful attempt under `generation`.
///
/// `job` is the claim as it is stored, `now` the time of the new events, `fresh` the source of new ids. An attempt that
/// failed, or whose events can't be carried on ([`Plan::fault`]), is followed by nothing; its facts and its state stay.
/// State follows the manifest: with a matching `fact_outputs` rule the snapshot is recorded and mirrored, without one it is
/// merged; `health` and `init` change nothing.
#[must_use]
pub fn plan(generation: &Generation, job: &ClaimedJob, outcome: &Outcome, now: Timestamp, fresh: Fresh<'_>) -> Plan {
    let mut plan = Plan { generation: generation.no, ..Plan::default() };
    if outcome.status != crate::outcome::AttemptStatus::Succeeded {
        return plan;
    }
    routing::route(generation, job, outcome, now, fresh, &mut plan);
    record(generation, job, outcome, &mut plan);
    plan
}

/// What the plugin's snapshot becomes.
fn record(generation: &Generation, job: &ClaimedJob, outcome: &Outcome, plan: &mut Plan) {
    if matches!(&*job.command, "health" | "init") {
        return;
    }
    let Some(updates) = &outcome.state_updates else { return };
    let rules = generation.catalog.get(&job.plugin).map(|p| p.manifest.fact_outputs.as_slice()).unwrap_or_default();
    let mut rules = rules.iter().filter(|r| r.command == *job.command).peekable();
    if rules.peek().is_none() {
        plan.state = Some(StateChange::Merge(updates.clone()));
        return;
    }
    for rule in rules {
        plan.facts.push(NewFact { fact_type: rule.fact_type.clone(), fact: updates.clone() });
    }
    plan.state = Some(StateChange::Mirror(updates.clone()));
}
