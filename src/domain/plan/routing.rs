//! What the events of a success start: the next steps of their pipeline, other pipelines, plain routes.

use serde_json::value::RawValue;

use crate::builtin;
use crate::generation::Generation;
use crate::ids::{EventId, Fresh};
use crate::job::ClaimedJob;
use crate::outcome::{EmittedEvent, Outcome};
use crate::path::Scope;
use crate::pipeline::hop::{Caller, Event, Hop, Unmade, result_of};
use crate::pipeline::prepare::{handed_on, input_of, node_of};
use crate::pipeline::{Action, Control, Node, Pipeline, Start, Target, control};
use crate::plan::{Dropped, Plan};
use crate::time::Timestamp;

/// Most hops of a chain of plain routes.
const ROUTE_CAP: u32 = 20;

/// Adds to `plan` what follows from the outcome's events. A job outside of every pipeline whose events nobody hears costs
/// one look-up each.
pub(super) fn route(
    generation: &Generation,
    job: &ClaimedJob,
    outcome: &Outcome,
    now: Timestamp,
    fresh: Fresh<'_>,
    plan: &mut Plan,
) {
    let is_unheard = |event: &EmittedEvent| !job.is_routed || generation.pipelines.is_unheard(&event.kind);
    let control = job.context.as_deref().map(|accumulated| Control::of(accumulated).unwrap_or_default());
    if control.as_ref().is_none_or(|control| control.node.is_none()) && outcome.events.iter().all(is_unheard) {
        plan.unmatched.extend(outcome.events.iter().map(|event| event.kind.clone()));
        return;
    }
    let control = control.unwrap_or_default();
    let node = match node_of(&generation.pipelines, &control, job) {
        Ok(node) => node,
        Err(text) => {
            plan.fault = Some(text);
            return;
        }
    };
    let ended = Ended {
        generation,
        job,
        node,
        root: control.root.as_deref().and_then(|root| generation.pipelines.get(root)).map(|root| &**root),
        baggage: job.context.as_deref().map(control::baggage_of),
        input: input_of(&generation.pipelines, job, node),
        result: result_of(outcome.result.as_deref()),
        control,
        now,
    };
    let mut grown = Start::default();
    if let Err(fault) = ended.follow(&outcome.events, &mut grown, plan, fresh) {
        plan.fault = Some(fault);
        plan.unmatched.clear();
        return;
    }
    plan.contexts = grown.contexts;
    plan.joins = grown.joins;
    plan.children = grown.jobs;
    plan.arrivals = grown.arrivals;
}

/// A job that has succeeded, with what its events carry on.
struct Ended<'a> {
    generation: &'a Generation,
    job: &'a ClaimedJob,
    node: Option<&'a Node>,
    root: Option<&'a Pipeline>,
    control: Control,
    /// `None` when the chain begins with this job's events.
    baggage: Option<Box<RawValue>>,
    input: Option<Box<RawValue>>,
    result: Option<&'a RawValue>,
    now: Timestamp,
}

impl Ended<'_> {
    fn follow(
        &self,
        events: &[EmittedEvent],
        grown: &mut Start,
        plan: &mut Plan,
        fresh: Fresh<'_>,
    ) -> Result<(), String> {
        for event in events {
            let is_followed = self.follow_one(event, false, grown, plan, fresh)?;
            if !is_followed {
                plan.unmatched.push(event.kind.clone());
            }
        }
        if events.is_empty() {
            let kind = builtin::STEP_SUCCEEDED.to_owned();
            let synthetic = EmittedEvent { kind, payload: self.input.clone(), dedupe_key: None };
            self.follow_one(&synthetic, true, grown, plan, fresh)?;
        }
        Ok(())
    }

    /// True when the event reached something, be it the end of its chain.
    fn follow_one(
        &self,
        emitted: &EmittedEvent,
        is_synthetic: bool,
        grown: &mut Start,
        plan: &mut Plan,
        fresh: Fresh<'_>,
    ) -> Result<bool, String> {
        let successors = self.successors(&emitted.kind);
        // Events of the gateway's own stay in their pipeline.
        let is_public = self.job.is_routed && !emitted.kind.starts_with(builtin::EVENT_PREFIX);
        if successors.is_empty() && (!is_public || self.generation.pipelines.is_unheard(&emitted.kind)) {
            return Ok(false);
        }
        let plugin = &*self.job.plugin;
        let payload = match (builtin::is_builtin(plugin), &emitted.payload) {
            (true, Some(payload)) => payload.clone(),
            (_, payload) => {
                let (input, control) = (self.input.as_deref(), Some(&self.control));
                handed_on(payload.as_deref(), input, self.result, plugin, control, is_synthetic)
            }
        };
        let event = Event {
            id: EventId::from(fresh()),
            kind: &emitted.kind,
            source: plugin,
            dedupe_key: emitted.dedupe_key.as_deref(),
            payload: &payload,
            at: self.now,
        };
        let is_followed = self.go_on(successors, &event, grown, plan, fresh)?;
        if !is_public {
            return Ok(is_followed);
        }
        Ok(self.start_others(&event, grown, plan, fresh)? || is_followed)
    }

    fn successors(&self, kind: &str) -> &[Target] {
        match self.node.map(|node| (&node.action, &node.next)) {
            Some((Action::Switch { on_false, .. }, _)) if kind == builtin::SWITCH_FALSE => on_false,
            Some((_, next)) => next,
            None => &[],
        }
    }

    /// The next steps of the same run.
    fn go_on(
        &self,
        successors: &[Target],
        event: &Event<'_>,
        grown: &mut Start,
        plan: &mut Plan,
        fresh: Fresh<'_>,
    ) -> Result<bool, String> {
        let (Some(root), false) = (self.root, successors.is_empty()) else { return Ok(false) };
        // To arrive is no hop.
        let is_hop = successors.iter().any(|target| *target != Target::Arrive);
        let cap = if is_hop { root.max_depth } else { 0 };
        let Some(control) = self.hop_to(self.depth(), cap, Some(root), event, plan) else { return Ok(true) };
        let control = Control { root: self.control.root.clone(), instance: self.control.instance, ..control };
        let enter = |hop: &Hop<'_>, fresh: Fresh<'_>| hop.enter(root, successors, self.job.seat, grown, fresh);
        self.with_hop(event, control, enter, fresh).map_err(|unmade| unmade.on_the_way())?;
        Ok(true)
    }

    /// Every pipeline that such an event starts, and every route that it takes.
    fn start_others(
        &self,
        event: &Event<'_>,
        grown: &mut Start,
        plan: &mut Plan,
        fresh: Fresh<'_>,
    ) -> Result<bool, String> {
        let mut is_followed = false;
        let pipelines = &self.generation.pipelines;
        let mut shown = None;
        for pipeline in pipelines.on_event(event.kind) {
            if pipeline.source_plugin.as_deref().is_some_and(|from| from != event.source) {
                continue;
            }
            if let Some(condition) = &pipeline.condition {
                let context: &Option<Box<RawValue>> =
                    shown.get_or_insert_with(|| self.job.context.as_deref().map(control::shown));
                let scope = Scope { payload: Some(event.payload), context: context.as_deref(), config: None };
                if !condition.evaluate(&scope).holds {
                    continue;
                }
            }
            is_followed = true;
            let Some(control) = self.hop_to(self.depth(), pipeline.max_depth, Some(pipeline), event, plan) else {
                continue;
            };
            let control = Control { root: Some(pipeline.name.clone()), instance: Some(fresh()), ..control };
            let enter = |hop: &Hop<'_>, fresh: Fresh<'_>| hop.enter(pipeline, &pipeline.entries, None, grown, fresh);
            self.with_hop(event, control, enter, fresh).map_err(|unmade| unmade.at_entry())?;
        }
        for route in pipelines.routes_on(event.kind).filter(|route| &*route.from == event.source) {
            is_followed = true;
            let Some(control) = self.hop_to(self.depth(), ROUTE_CAP, None, event, plan) else { continue };
            let enter = |hop: &Hop<'_>, fresh: Fresh<'_>| hop.enter_route(&route.to, route.max_attempts, grown, fresh);
            self.with_hop(event, control, enter, fresh).map_err(|unmade| unmade.at_entry())?;
        }
        Ok(is_followed)
    }

    /// The depth that a next hop has.
    fn depth(&self) -> u32 {
        self.control.depth.saturating_add(1)
    }

    /// The control values of a hop; `None` when it would be too deep, which the plan then says.
    fn hop_to(
        &self,
        depth: u32,
        cap: u32,
        pipeline: Option<&Pipeline>,
        event: &Event<'_>,
        plan: &mut Plan,
    ) -> Option<Control> {
        if cap > 0 && depth > cap {
            let pipeline = pipeline.map(|pipeline| pipeline.name.clone());
            plan.dropped.push(Dropped { event: event.kind.to_owned(), pipeline, depth, max_depth: cap });
            return None;
        }
        Some(Control { depth, max_depth: cap, hook_depth: self.control.hook_depth, ..Control::default() })
    }

    fn with_hop(
        &self,
        event: &Event<'_>,
        control: Control,
        enter: impl FnOnce(&Hop<'_>, Fresh<'_>) -> Result<(), Unmade>,
        fresh: Fresh<'_>,
    ) -> Result<(), Unmade> {
        let caller = Caller {
            submitted_by: "route",
            requested_by: None,
            dedupe_key: None,
            dedupe_window: self.generation.config.service.dedupe_ttl,
            dedupe_in_flight: false,
            parent: Some(self.job.fence.job),
            snapshot: self.generation.snapshot,
            is_routed: self.job.is_routed,
        };
        let first;
        let baggage = match &self.baggage {
            Some(baggage) => baggage,
            None => {
                first = event.first_baggage(fresh);
                &first
            }
        };
        let hop = Hop { caller: &caller, event, parent: self.job.context_id, baggage, control };
        enter(&hop, fresh)
    }
}
