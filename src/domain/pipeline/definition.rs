//! A pipeline as its author wrote it, read and checked by itself: nothing that it calls is put in place yet.

mod fields;
mod step;

pub(super) use fields::warn_of_event_type;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::condition::Condition;
use crate::ids::is_name;
use crate::path::{Root, Roots};
use crate::pipeline::findings::{Findings, Place};
use crate::pipeline::known::{Callee, Known};
use crate::pipeline::{Execution, JoinMode, Relay, Request, Signal, Trigger};

/// Steps may be grouped this deep, calls included.
pub(super) const MAX_NESTING: usize = 32;

/// How long a synchronous caller waits when the pipeline doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

const KEYS: &[&str] =
    &["name", "on", "on-hook", "from_plugin", "if", "max_depth", "execution_mode", "timeout", "steps"];

/// A pipeline with a name of its own.
pub(super) struct Definition {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    pub(super) trigger: Trigger,
    pub(super) source_plugin: Option<Arc<str>>,
    pub(super) condition: Option<Arc<Condition>>,
    pub(super) execution: Execution,
    pub(super) timeout: Duration,
    pub(super) max_depth: Option<u32>,
    pub(super) steps: Vec<Step>,
    /// False: it has an error and can't be used.
    pub(super) is_sound: bool,
}

/// One entry of `steps` or `split`.
pub(super) struct Step {
    /// The id, or the name that it gets without one.
    pub(super) name: Arc<str>,
    /// Path of the field.
    pub(super) path: String,
    pub(super) condition: Option<Arc<Condition>>,
    pub(super) join: Option<JoinMode>,
    pub(super) act: Act,
}

/// What a step does.
pub(super) enum Act {
    Uses(Callee, Arc<Request>),
    Call(Arc<str>),
    Sequence(Vec<Step>),
    Split(Vec<Step>),
    Relay(Arc<Relay>),
}

impl Definition {
    /// The calls in it, each with the step that makes it.
    pub(super) fn calls(&self) -> Vec<(&Step, &Arc<str>)> {
        let mut calls = Vec::new();
        let mut rest: Vec<&Step> = self.steps.iter().rev().collect();
        while let Some(step) = rest.pop() {
            match &step.act {
                Act::Call(name) => calls.push((step, name)),
                Act::Sequence(steps) | Act::Split(steps) => rest.extend(steps.iter().rev()),
                Act::Uses(..) | Act::Relay(_) => {}
            }
        }
        calls
    }

    /// The place of one of its steps.
    pub(super) fn place_of(&self, step: &Step) -> Place {
        step_place(&self.place.subject, &step.name, step.path.clone())
    }
}

fn step_place(pipeline: &str, step: &str, path: String) -> Place {
    Place { path, subject: format!("{pipeline}, step {step:?}") }
}

/// Reads one entry of `pipelines`. `taken` holds the names of those before. `None` when it can't even be called by name.
pub(super) fn read(
    index: usize,
    value: &Value,
    taken: &mut HashSet<Arc<str>>,
    known: Known<'_>,
    findings: &mut Findings,
) -> Option<Definition> {
    let errors = findings.errors;
    let nameless = Place { path: format!("pipelines[{index}]"), subject: format!("pipeline {}", index + 1) };
    let Some(map) = value.as_object() else {
        let hint = "write name, on and steps".to_owned();
        findings.error(&nameless, "a pipeline is a mapping", hint);
        return None;
    };
    let name = name(map, &nameless, taken, findings);
    let place = match &name {
        Some(name) => Place { path: format!("pipelines.{name}"), subject: format!("pipeline {name:?}") },
        None => nameless,
    };
    findings.unknown_keys(&place, map.keys(), KEYS);
    let mut reader =
        Reader { known, findings, pipeline: place.subject.clone(), ids: HashSet::new(), leaves: 0, groups: 0 };
    let trigger = reader.trigger(map, &place);
    let source_plugin = reader.source_plugin(map, &place, trigger.as_ref());
    let condition = reader.condition(map.get("if"), &place.at("if"), Roots::Data);
    if let (Some(Trigger::Hook(_)), Some(condition)) = (&trigger, &condition)
        && condition.reads(Root::Context)
    {
        let hint = "a hook has no context; test payload.* instead".to_owned();
        reader.findings.warning(&place.at("if"), "context.* never holds in the condition of a hook", hint);
    }
    let execution = reader.execution(map, &place);
    let timeout = reader.timeout(map, &place);
    let max_depth = reader.max_depth(map, &place);
    let steps_place = place.at("steps");
    let steps = match map.get("steps") {
        Some(steps) => reader.sequence(steps, &steps_place, 1),
        None => {
            let hint = "add `steps:` with at least one `uses: <plugin>`".to_owned();
            reader.findings.error(&steps_place, "there are no steps", hint);
            Vec::new()
        }
    };
    let is_sound = findings.errors == errors;
    Some(Definition {
        name: name?,
        place,
        // What is unsound is never compiled, so its trigger starts nothing.
        trigger: trigger.unwrap_or(Trigger::Hook(Signal::Completed)),
        source_plugin,
        condition,
        execution: execution.unwrap_or(Execution::Asynchronous),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        max_depth,
        steps,
        is_sound,
    })
}

/// The pipeline's name, when it has one that nobody had before.
fn name(
    map: &Map<String, Value>,
    place: &Place,
    taken: &mut HashSet<Arc<str>>,
    findings: &mut Findings,
) -> Option<Arc<str>> {
    let at = place.at("name");
    let Some(name) = map.get("name").filter(|name| !name.is_null()) else {
        findings.error(&at, "it has no name", "add `name: <name>`".to_owned());
        return None;
    };
    let Some(name) = name.as_str() else {
        findings.error(&at, "the name is no text", None);
        return None;
    };
    if !is_name(name) {
        let hint = "use letters, digits, `_`, `-` and `.`, beginning with a letter or a digit".to_owned();
        findings.error(&at, &format!("{name:?} can't be a name"), hint);
        return None;
    }
    let name: Arc<str> = name.into();
    if !taken.insert(name.clone()) {
        let hint = "give each pipeline a name of its own".to_owned();
        findings.error(&at, &format!("an earlier pipeline is named {name:?} already"), hint);
        return None;
    }
    Some(name)
}

/// Reads the parts of one pipeline.
struct Reader<'a, 'f> {
    known: Known<'a>,
    findings: &'f mut Findings,
    /// The subject of its findings.
    pipeline: String,
    /// Names of steps so far.
    ids: HashSet<Arc<str>>,
    /// Steps without an id so far.
    leaves: usize,
    /// Groups without an id so far.
    groups: usize,
}
