//! What must follow an attempt, as pure data that the ledger commits with it.

use crate::generation::Generation;
use crate::job::ClaimedJob;
use crate::job::NewJob;
use crate::outcome::{EmittedEvent, Outcome};

/// What the plugin's snapshot does to its compatibility view.
#[derive(Debug, Clone)]
pub enum StateChange {
    /// Replace the view wholesale.
    Mirror(Box<serde_json::value::RawValue>),
    /// Merge the top-level keys into the view.
    Merge(Box<serde_json::value::RawValue>),
}

/// An append-only fact to be recorded.
#[derive(Debug, Clone)]
pub struct NewFact {
    /// The rule's type, such as `file_watch.snapshot`.
    pub fact_type: String,
    /// The snapshot, a JSON object.
    pub fact: Box<serde_json::value::RawValue>,
}

/// Everything that one attempt's end causes. An empty plan is the usual case.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Number of the generation under which it was made.
    pub generation: u64,
    /// Jobs to enqueue before the parent becomes terminal.
    pub children: Vec<NewJob>,
    /// Facts to append.
    pub facts: Vec<NewFact>,
    /// Change of the compatibility view.
    pub state: Option<StateChange>,
    /// Events that matched nothing, for the log.
    pub unmatched: Vec<String>,
}

/// Plans what follows a successful attempt under `generation`.
///
/// Routes and pipelines are not compiled yet: every event is unmatched. State follows the manifest: with a matching
/// `fact_outputs` rule the snapshot is recorded and mirrored, without one it is merged; `health` and `init` change
/// nothing.
#[must_use]
pub fn plan(generation: &Generation, job: &ClaimedJob, outcome: &Outcome) -> Plan {
    let mut plan = Plan { generation: generation.no, ..Plan::default() };
    if outcome.status != crate::outcome::AttemptStatus::Succeeded {
        return plan;
    }
    plan.unmatched = outcome.events.iter().map(|e: &EmittedEvent| e.kind.clone()).collect();
    if matches!(&*job.command, "health" | "init") {
        return plan;
    }
    let Some(updates) = &outcome.state_updates else { return plan };
    let rules = generation.catalog.get(&job.plugin).map(|p| p.manifest.fact_outputs.as_slice()).unwrap_or_default();
    let mut rules = rules.iter().filter(|r| r.command == *job.command).peekable();
    if rules.peek().is_none() {
        plan.state = Some(StateChange::Merge(updates.clone()));
        return plan;
    }
    for rule in rules {
        plan.facts.push(NewFact { fact_type: rule.fact_type.clone(), fact: updates.clone() });
    }
    plan.state = Some(StateChange::Mirror(updates.clone()));
    plan
}
