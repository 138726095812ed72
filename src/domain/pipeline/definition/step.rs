//! Steps: sequences, splits, and the five things that a step may do.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Act, MAX_NESTING, Reader, Step, step_place};
use crate::baggage::Baggage;
use crate::ids::is_name;
use crate::path::{Fault, Path, Root, Roots};
use crate::pipeline::findings::Place;
use crate::pipeline::{JoinMode, Relay, Request};
use crate::problem::did_you_mean;
use crate::raw::{Kind, raw_value};
use crate::template::With;

const ACTIONS: [&str; 5] = ["uses", "call", "steps", "split", "relay"];
const KEYS: &[&str] = &["id", "uses", "call", "steps", "split", "relay", "if", "with", "baggage", "payload", "join"];
const RELAY_KEYS: &[&str] = &["to", "event", "dedupe_key", "with", "baggage"];
/// Endings of the names of the gateway's own nodes.
const RESERVED_ENDINGS: [&str; 2] = ["__switch", "__join"];

impl Reader<'_, '_> {
    /// The steps of a `steps:`, the pipeline's own or a group's.
    pub(super) fn sequence(&mut self, value: &Value, place: &Place, depth: usize) -> Vec<Step> {
        let Some(list) = self.list(value, place, depth) else { return Vec::new() };
        let mut steps: Vec<Step> = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|i| list[i].as_object());
            let follows_split = before.is_some_and(|map| map.contains_key("split"));
            let place = place.at(&format!("[{index}]"));
            let Some(step) = self.step(value, place, follows_split, depth) else { continue };
            if let (None, Some(before)) = (step.join, steps.last())
                && branches(before) > 1
            {
                let place = step_place(&self.pipeline, &step.name, step.path.clone());
                let hint = if matches!(before.act, Act::Split(_)) {
                    "add `join: all` to the step to run it once, when all branches have ended".to_owned()
                } else {
                    "end the group with a step that has `join: all` to go on once".to_owned()
                };
                let message = "it follows a split without a join and runs once per branch";
                self.findings.warning(&place, message, hint);
            }
            steps.push(step);
        }
        steps
    }

    fn split(&mut self, value: &Value, place: &Place, depth: usize) -> Vec<Step> {
        let Some(list) = self.list(value, place, depth) else { return Vec::new() };
        let branch = |(index, value)| self.step(value, place.at(&format!("[{index}]")), false, depth);
        list.iter().enumerate().filter_map(branch).collect()
    }

    fn list<'v>(&mut self, value: &'v Value, place: &Place, depth: usize) -> Option<&'v Vec<Value>> {
        if depth > MAX_NESTING {
            let hint = "move the inner steps into a pipeline of their own and `call` it".to_owned();
            self.findings.error(place, &format!("steps are nested deeper than {MAX_NESTING} levels"), hint);
            return None;
        }
        let list = value.as_array().filter(|list| !list.is_empty());
        if list.is_none() {
            let hint = "write at least one step, such as `- uses: <plugin>`".to_owned();
            self.findings.error(place, "it needs a list of steps", hint);
        }
        list
    }

    fn step(&mut self, value: &Value, place: Place, follows_split: bool, depth: usize) -> Option<Step> {
        let Some(map) = value.as_object() else {
            let hint = "write `uses: <plugin>`".to_owned();
            let place = Place { path: place.path, subject: self.pipeline.clone() };
            self.findings.error(&place, "a step is a mapping", hint);
            return None;
        };
        let actions: Vec<&str> = ACTIONS.into_iter().filter(|action| map.contains_key(*action)).collect();
        let is_group = matches!(actions.as_slice(), ["steps" | "split"]);
        let name = self.step_name(map, &place, is_group);
        let place = step_place(&self.pipeline, &name, place.path);
        self.findings.unknown_keys(&place, map.keys(), KEYS);
        let [action] = actions.as_slice() else {
            let message = match actions.as_slice() {
                [] => "it does nothing".to_owned(),
                several => format!("it has {}", several.join(" and ")),
            };
            let near = map.keys().find_map(|key| did_you_mean(key, ACTIONS));
            let hint = match near {
                Some(near) if actions.is_empty() => format!("did you mean `{near}`?"),
                _ => "write exactly one of uses, call, steps, split and relay".to_owned(),
            };
            self.findings.error(&place, &message, hint);
            return None;
        };
        if *action != "uses" {
            for key in ["with", "baggage", "payload"].into_iter().filter(|key| map.contains_key(*key)) {
                let hint = match *action {
                    "relay" => format!("write `{key}` inside of `relay`"),
                    _ => "move it to the step with `uses` that needs it".to_owned(),
                };
                self.findings.error(&place.at(key), &format!("`{key}` belongs to a step with `uses`"), hint);
            }
        }
        let condition = self.condition(map.get("if"), &place.at("if"), Roots::Step);
        if *action != "uses" && condition.as_ref().is_some_and(|c| c.reads(Root::Config)) {
            let hint = "config.* means the configuration of the plugin that the step uses".to_owned();
            self.findings.error(&place.at("if"), &format!("config.* means nothing beside `{action}`"), hint);
        }
        let join = self.join(map.get("join"), &place, follows_split);
        let value = &map[*action];
        let here = place.at(action);
        let act = match *action {
            "uses" => self.uses(value, map, &place)?,
            "call" => self.call(value, &here)?,
            "steps" => Act::Sequence(self.sequence(value, &here, depth + 1)),
            "split" => Act::Split(self.split(value, &here, depth + 1)),
            _ => self.relay(value, &here)?,
        };
        Some(Step { name, path: place.path, condition, join, act })
    }

    /// The step's id, or the name that it gets without one.
    fn step_name(&mut self, map: &Map<String, Value>, place: &Place, is_group: bool) -> Arc<str> {
        let place = Place { path: format!("{}.id", place.path), subject: self.pipeline.clone() };
        let id = map.get("id").filter(|id| !id.is_null());
        if let Some(id) = id {
            let text = id.as_str().unwrap_or_default();
            if !is_name(text) {
                let hint = "use letters, digits, `_`, `-` and `.`, beginning with a letter or a digit".to_owned();
                self.findings.error(&place, "the step's id is no name", hint);
            } else if RESERVED_ENDINGS.iter().any(|ending| text.ends_with(ending)) {
                let hint = "choose another ending".to_owned();
                self.findings.error(&place, &format!("{text:?} is a name that the gateway gives"), hint);
            } else {
                return self.take(text.into(), &place);
            }
        }
        let counter = if is_group { &mut self.groups } else { &mut self.leaves };
        *counter += 1;
        let name = format!("{}_{counter}", if is_group { "group" } else { "step" });
        // A wrong id has been told; its stand-in must not collide with anything.
        if id.is_some() { name.into() } else { self.take(name.into(), &place) }
    }

    fn take(&mut self, name: Arc<str>, place: &Place) -> Arc<str> {
        if !self.ids.insert(name.clone()) {
            let hint = "give each step an id of its own".to_owned();
            self.findings.error(place, &format!("another step is named {name:?}"), hint);
        }
        name
    }

    fn join(&mut self, value: Option<&Value>, place: &Place, follows_split: bool) -> Option<JoinMode> {
        let value = value?;
        let place = place.at("join");
        let mode = match value.as_str() {
            Some("all") => Some(JoinMode::All),
            Some("any_succeeded") => Some(JoinMode::AnySucceeded),
            _ => {
                let hint = match did_you_mean(value.as_str().unwrap_or_default(), ["all", "any_succeeded"]) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write all or any_succeeded".to_owned(),
                };
                self.findings.error(&place, "`join` is all or any_succeeded", hint);
                None
            }
        };
        if !follows_split {
            let hint = "put it on the step that comes directly after the split, in the same list".to_owned();
            self.findings.error(&place, "there is no split directly before it to join", hint);
            return None;
        }
        mode
    }

    fn uses(&mut self, value: &Value, map: &Map<String, Value>, place: &Place) -> Option<Act> {
        let callee = match value.as_str() {
            None => {
                let hint = "write `uses: <plugin>` or `uses: <plugin>.<command>`".to_owned();
                self.findings.error(&place.at("uses"), "`uses` needs the name of a plugin", hint);
                None
            }
            Some(text) => self
                .known
                .callee(text)
                .map_err(|u| {
                    self.findings.error(&place.at("uses"), &u.message, u.hint);
                })
                .ok(),
        };
        let payload = self.mapping(map, "payload", place).map(literals).unwrap_or_default();
        let with = self.mapping(map, "with", place).map(With::parse).unwrap_or_default();
        for fault in with.faults() {
            let place = place.at("with").at(&fault.at);
            let message = format!("{}; the jobs of this step will fail", fault.message);
            self.findings.warning(&place, &message, fault.hint.clone());
        }
        let baggage = match map.get("baggage").map(Baggage::parse) {
            Some(Err(faults)) => {
                for fault in &faults {
                    self.findings.fault(&place.at("baggage"), fault);
                }
                Baggage::default()
            }
            Some(Ok(baggage)) => baggage,
            None => Baggage::default(),
        };
        Some(Act::Uses(callee?, Arc::new(Request { payload, with, baggage })))
    }

    fn call(&mut self, value: &Value, place: &Place) -> Option<Act> {
        let name = value.as_str();
        if name.is_none() {
            let hint = "write `call: <pipeline>`".to_owned();
            self.findings.error(place, "`call` needs the name of a pipeline", hint);
        }
        name.map(|name| Act::Call(name.into()))
    }

    fn relay(&mut self, value: &Value, place: &Place) -> Option<Act> {
        let Some(map) = value.as_object() else {
            let hint = "write `relay: {to: <instance>, event: <type>}`".to_owned();
            self.findings.error(place, "`relay` is a mapping", hint);
            return None;
        };
        self.findings.unknown_keys(place, map.keys(), RELAY_KEYS);
        let to = self.required(map, "to", "the name of an instance", place);
        if let Some(to) = to
            && !self.known.config.instances.iter().any(|known| known == to)
        {
            let instances = || self.known.config.instances.iter().map(String::as_str);
            let hint = match did_you_mean(to, instances()) {
                Some(near) => format!("did you mean {near:?}?"),
                None if instances().next().is_none() => "add it under `instances:`".to_owned(),
                None => format!("known instances are {}", instances().collect::<Vec<_>>().join(", ")),
            };
            self.findings.error(&place.at("to"), &format!("no instance is named {to:?}"), hint);
        }
        let event = self.required(map, "event", "a type of event", place);
        let dedupe_key = map.get("dedupe_key").and_then(|value| self.source(value, &place.at("dedupe_key")));
        let with = self.projection(map, "with", place);
        let baggage = self.projection(map, "baggage", place).unwrap_or_default();
        let relay = Relay { to: to?.into(), event: event?.into(), dedupe_key, with, baggage };
        Some(Act::Relay(Arc::new(relay)))
    }

    fn required<'v>(&mut self, map: &'v Map<String, Value>, key: &str, what: &str, place: &Place) -> Option<&'v str> {
        let text = map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text.is_none() {
            self.findings.error(&place.at(key), &format!("`{key}` needs {what}"), format!("add `{key}:`"));
        }
        text
    }

    /// A map of names to paths.
    fn projection(&mut self, map: &Map<String, Value>, key: &str, place: &Place) -> Option<Vec<(Box<str>, Path)>> {
        let entries = self.mapping(map, key, place)?;
        let place = place.at(key);
        let one = |(name, value): (&String, &Value)| Some((name.as_str().into(), self.source(value, &place.at(name))?));
        Some(entries.iter().filter_map(one).collect())
    }

    fn source(&mut self, value: &Value, place: &Place) -> Option<Path> {
        let parsed = match value.as_str() {
            Some(text) => Path::parse(text, Roots::Data).map_err(|invalid| Fault {
                at: String::new(),
                message: invalid.message,
                hint: invalid.hint,
            }),
            None => Err(Fault {
                at: String::new(),
                message: format!("a path such as payload.id is needed, not {}", Kind::of(value).with_article()),
                hint: None,
            }),
        };
        parsed.map_err(|fault| self.findings.fault(place, &fault)).ok()
    }

    fn mapping<'v>(&mut self, map: &'v Map<String, Value>, key: &str, place: &Place) -> Option<&'v Map<String, Value>> {
        let value = map.get(key)?;
        let found = value.as_object();
        if found.is_none() {
            let message = format!("`{key}` is a mapping, not {}", Kind::of(value).with_article());
            self.findings.error(&place.at(key), &message, None);
        }
        found
    }
}

/// Literal defaults, written as JSON once.
fn literals(map: &Map<String, Value>) -> Vec<(Box<str>, Box<serde_json::value::RawValue>)> {
    map.iter().map(|(key, value)| (key.as_str().into(), raw_value(value.to_string()))).collect()
}

/// In how many branches a chain leaves a step, as far as its own text says; calls are not looked into.
fn branches(step: &Step) -> usize {
    match &step.act {
        Act::Split(steps) => steps.iter().map(branches).sum(),
        Act::Sequence(steps) => {
            let mut after: usize = 1;
            for step in steps {
                let before = if step.join.is_some() { 1 } else { after };
                after = before.saturating_mul(branches(step));
            }
            after
        }
        Act::Uses(..) | Act::Call(_) | Act::Relay(_) => 1,
    }
}
