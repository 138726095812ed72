//! A ledger in memory: jobs one after the other, joins counted as the real one counts them.

use std::collections::{BTreeMap, VecDeque};

use ductile_domain::generation::Generation;
use ductile_domain::ids::{ContextId, JobId, JoinId};
use ductile_domain::job::{ClaimedJob, Fence, NewJob, Seat};
use ductile_domain::outcome::{AttemptStatus, Cause, EmittedEvent, Outcome};
use ductile_domain::pipeline::{Control, Origin, Prepared, Start, prepare};
use ductile_domain::plan::{Arrival, Dropped, NewContext, NewJoin, plan};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{now, raw, success, value};

/// A job that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) id: JobId,
    pub(crate) parent: Option<JobId>,
    pub(crate) plugin: String,
    /// The node's key, empty outside of pipelines.
    pub(crate) node: String,
    pub(crate) has_failed: bool,
    pub(crate) error: Option<String>,
    /// The payload of its request, or what a step of the gateway's own handed on.
    pub(crate) payload: Value,
    /// The stored context.
    pub(crate) context: Value,
}

struct Join {
    open: i64,
    outer: Option<Seat>,
    job: Option<NewJob>,
    branches: Vec<Value>,
}

/// What a plugin does: the events that it emits, or the error that it fails with.
pub(crate) type Behaviour<'b> = dyn Fn(&str, &Value) -> Result<Vec<EmittedEvent>, String> + 'b;

pub(crate) struct Run<'a> {
    generation: &'a Generation,
    queue: VecDeque<NewJob>,
    contexts: BTreeMap<ContextId, Box<RawValue>>,
    joins: BTreeMap<JoinId, Join>,
    next: u128,
    pub(crate) ran: Vec<Ran>,
    pub(crate) dropped: Vec<Dropped>,
}

/// Jobs that a run may have before it counts as endless.
const LIMIT: usize = 20_000;

impl<'a> Run<'a> {
    pub(crate) fn new(generation: &'a Generation) -> Self {
        let (queue, contexts, joins) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Self { generation, queue, contexts, joins, next: 0, ran: Vec::new(), dropped: Vec::new() }
    }

    /// Starts a pipeline as the API does and runs everything that follows.
    pub(crate) fn of(generation: &'a Generation, pipeline: &str, payload: &str, behaviour: &Behaviour<'_>) -> Self {
        let mut run = Self::new(generation);
        let pipeline = generation.pipelines.get(pipeline).expect("a sound pipeline").clone();
        let mut next = 1 << 90;
        let mut fresh = move || {
            next += 1;
            Uuid::from_u128(next)
        };
        let start = generation.pipelines.start(&pipeline, &raw(payload), &origin(), &mut fresh).expect("it starts");
        run.take(start);
        run.settle(None);
        run.finish(behaviour);
        run
    }

    pub(crate) fn take(&mut self, start: Start) {
        self.add(start.contexts, start.joins, start.jobs, start.arrivals);
    }

    fn add(&mut self, contexts: Vec<NewContext>, joins: Vec<NewJoin>, jobs: Vec<NewJob>, arrivals: Vec<Arrival>) {
        for context in contexts {
            assert!(
                context.parent.is_none_or(|parent| self.contexts.contains_key(&parent)),
                "a context without parent"
            );
            assert!(self.contexts.insert(context.id, context.accumulated).is_none(), "a context id was used twice");
        }
        for join in joins {
            if let Some(outer) = join.outer {
                self.joins.get_mut(&outer.join).expect("an outer join").open += 1;
            }
            let branch = |(i, step): (usize, &std::sync::Arc<str>)| json!({"branch": i, "step": &**step, "status": "succeeded", "payload": null});
            let branches = join.branches.iter().enumerate().map(branch).collect();
            self.joins.insert(join.id, Join { open: 0, outer: join.outer, job: Some(join.job), branches });
        }
        for job in jobs {
            assert!(job.context.is_some_and(|id| self.contexts.contains_key(&id)), "a job without its context");
            if let Some(seat) = job.seat {
                self.joins.get_mut(&seat.join).expect("the join of a seat").open += 1;
            }
            self.queue.push_back(job);
        }
        for arrival in arrivals {
            let join = self.joins.get_mut(&arrival.seat.join).expect("the join of an arrival");
            join.branches[arrival.seat.branch as usize]["payload"] =
                arrival.payload.as_deref().map_or(Value::Null, value);
        }
    }

    /// Fires the joins that nothing is left for.
    fn settle(&mut self, ended: Option<JobId>) {
        while let Some(join) = self.joins.values_mut().find(|join| join.open == 0 && join.job.is_some()) {
            let job = join.job.take().expect("just seen");
            let payload = json!({ "branches": join.branches }).to_string();
            // It takes over the place that its join had in the outer one.
            let job = NewJob { payload: Some(raw(&payload)), parent: ended, seat: join.outer, ..job };
            self.queue.push_back(job);
        }
    }

    pub(crate) fn finish(&mut self, behaviour: &Behaviour<'_>) {
        while let Some(job) = self.queue.pop_front() {
            assert!(self.ran.len() < LIMIT, "it does not end");
            self.run(job, behaviour);
        }
        assert!(self.joins.values().all(|join| join.job.is_none()), "a join waits for ever");
    }

    fn run(&mut self, job: NewJob, behaviour: &Behaviour<'_>) {
        let context = job.context.and_then(|id| self.contexts.get(&id)).cloned();
        let control = context.as_deref().and_then(Control::of).unwrap_or_default();
        let claimed = claimed(&job, context.clone());
        let mut ran = Ran {
            id: job.id,
            parent: job.parent,
            plugin: job.plugin.to_string(),
            node: control.node.as_deref().unwrap_or_default().to_owned(),
            has_failed: false,
            error: None,
            payload: Value::Null,
            context: context.as_deref().map(value).unwrap_or_default(),
        };
        let failure = |error: String| Outcome::without_process(Cause::Preflight, error, now());
        let outcome = match prepare(self.generation, &claimed) {
            Err(error) => failure(error),
            Ok(Prepared::Done { events, .. }) => {
                ran.payload = events[0].payload.as_deref().map(value).unwrap_or_default();
                success(events)
            }
            Ok(Prepared::Request { payload, .. }) => {
                let request = payload.as_deref().map(value).unwrap_or_default();
                ran.payload = if &*job.command == "handle" { request["payload"].clone() } else { request };
                behaviour(&ran.node, &ran.payload).map_or_else(failure, success)
            }
        };
        self.next += 1 << 32;
        let mut next = self.next;
        let mut fresh = move || {
            next += 1;
            Uuid::from_u128(next)
        };
        let plan = plan(self.generation, &claimed, &outcome, now(), &mut fresh);
        ran.error = outcome.error.clone().or(plan.fault.clone());
        ran.has_failed = outcome.status != AttemptStatus::Succeeded || plan.fault.is_some();
        if ran.has_failed {
            assert!(plan.children.is_empty() && plan.joins.is_empty() && plan.arrivals.is_empty());
        }
        assert!(plan.contexts.iter().all(|context| context.parent == job.context), "a row accretes to its emitter's");
        self.dropped.extend(plan.dropped);
        self.add(plan.contexts, plan.joins, plan.children, plan.arrivals);
        if let Some(seat) = job.seat {
            let join = self.joins.get_mut(&seat.join).expect("the join of a seat");
            join.open -= 1;
            if ran.has_failed {
                let branch = &mut join.branches[seat.branch as usize];
                branch["status"] = "failed".into();
                branch["error"] = ran.error.clone().unwrap_or_default().into();
            }
        }
        self.settle(Some(job.id));
        self.ran.push(ran);
    }

    /// The nodes of the jobs that ran a plugin, in their order.
    pub(crate) fn steps(&self) -> Vec<&str> {
        self.ran.iter().filter(|ran| !ran.plugin.starts_with("core.")).map(|ran| ran.node.as_str()).collect()
    }

    pub(crate) fn at(&self, node: &str) -> &Ran {
        let mut found = self.ran.iter().filter(|ran| ran.node == node);
        let first = found.next().unwrap_or_else(|| panic!("{node} did not run: {:?}", self.steps()));
        assert!(found.next().is_none(), "{node} ran more than once");
        first
    }
}

pub(crate) fn origin() -> Origin<'static> {
    Origin {
        submitted_by: "api",
        requested_by: Some("someone"),
        dedupe_key: None,
        dedupe_window: crate::world::DEDUPE,
        dedupe_in_flight: false,
        snapshot: Some(3),
        now: now(),
    }
}

pub(crate) fn claimed(job: &NewJob, context: Option<Box<RawValue>>) -> ClaimedJob {
    ClaimedJob {
        fence: Fence { job: job.id, claim_no: 1 },
        row: 1,
        plugin: job.plugin.clone(),
        command: job.command.clone(),
        payload: job.payload.clone(),
        attempt: 1,
        max_attempts: job.max_attempts,
        submitted_by: job.submitted_by.into(),
        dedupe_key: job.dedupe_key.clone(),
        created_at: now(),
        started_at: now(),
        state: None,
        context,
        context_id: job.context,
        seat: job.seat,
        is_routed: job.is_routed,
        memory_tier: 0,
        parent: job.parent,
    }
}

/// Every plugin emits one event that nobody but its own pipeline hears.
pub(crate) fn quiet(_: &str, _: &Value) -> Result<Vec<EmittedEvent>, String> {
    Ok(vec![crate::world::event("quiet", "{}")])
}

/// No plugin emits anything.
pub(crate) fn silent(_: &str, _: &Value) -> Result<Vec<EmittedEvent>, String> {
    Ok(Vec::new())
}
