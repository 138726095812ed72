//! The fields of a pipeline beside its steps.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Reader;
use crate::builtin;
use crate::condition::Condition;
use crate::path::Roots;
use crate::pipeline::findings::Place;
use crate::pipeline::{Execution, Signal, Trigger, duration};
use crate::problem::did_you_mean;

impl Reader<'_, '_> {
    /// `on` or `on-hook`, exactly one of them.
    pub(super) fn trigger(&mut self, map: &Map<String, Value>, place: &Place) -> Option<Trigger> {
        match (map.get("on"), map.get("on-hook")) {
            (Some(_), Some(_)) => {
                let hint = "keep `on` for an event, or `on-hook` for the end of a job".to_owned();
                self.findings.error(&place.at("on-hook"), "`on` and `on-hook` exclude each other", hint);
                None
            }
            (None, None) => {
                let hint = "add `on: <event type>`, or `on-hook: job.completed`".to_owned();
                self.findings.error(&place.at("on"), "nothing starts it: it has neither `on` nor `on-hook`", hint);
                None
            }
            (Some(on), None) => self.on(on, &place.at("on")),
            (None, Some(hook)) => self.on_hook(hook, &place.at("on-hook")),
        }
    }

    fn on(&mut self, on: &Value, place: &Place) -> Option<Trigger> {
        let Some(event) = on.as_str().filter(|event| !event.trim().is_empty()) else {
            let hint = "write one type of event, such as `on: file.changed`".to_owned();
            self.findings.error(place, "`on` needs a type of event", hint);
            return None;
        };
        if let Ok(signal) = event.parse() {
            let hint = format!("write `on-hook: {event}`");
            self.findings.warning(place, &format!("`on: {event}` is a signal of a job's end"), hint);
            return Some(Trigger::Hook(signal));
        }
        self.event_type(event, place);
        Some(Trigger::On(event.into()))
    }

    /// Warns of types of events that never come.
    fn event_type(&mut self, event: &str, place: &Place) {
        warn_of_event_type(self.findings, event, place);
    }

    fn on_hook(&mut self, hook: &Value, place: &Place) -> Option<Trigger> {
        let signals = || Signal::ALL.into_iter().map(Signal::as_str);
        let Some(text) = hook.as_str() else {
            let all = signals().collect::<Vec<_>>().join(", ");
            self.findings.error(place, "`on-hook` needs one signal", format!("write one of {all}"));
            return None;
        };
        if let Ok(signal) = text.parse() {
            return Some(Trigger::Hook(signal));
        }
        let hint = match did_you_mean(text, signals()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", signals().collect::<Vec<_>>().join(", ")),
        };
        self.findings.error(place, &format!("{text:?} is no signal"), hint);
        None
    }

    /// `from_plugin`, which must be a plugin that can emit.
    pub(super) fn source_plugin(
        &mut self,
        map: &Map<String, Value>,
        place: &Place,
        trigger: Option<&Trigger>,
    ) -> Option<Arc<str>> {
        let place = place.at("from_plugin");
        let value = map.get("from_plugin")?;
        let Some(name) = value.as_str() else {
            let hint = "write one name, or a pipeline for each plugin".to_owned();
            self.findings.error(&place, "`from_plugin` needs the name of one plugin", hint);
            return None;
        };
        let entry = self.known.config.plugins.get(name);
        match self.known.runnable(name) {
            Ok(plugin) => {
                let is_silent = entry.is_some_and(|e| e.notify_on_complete == crate::config::NotifyOnComplete::Never);
                if matches!(trigger, Some(Trigger::Hook(_))) && is_silent {
                    let hint = format!("set plugins.{name}.notify_on_complete: true");
                    self.findings.warning(&place, &format!("the ends of {name:?} fire no hooks"), hint);
                }
                Some(plugin.name.clone())
            }
            // Nothing is wrong with waiting for a plugin that is switched off for a while.
            Err(unusable) if entry.is_some_and(|e| !e.enabled) => {
                self.findings.warning(&place, &unusable.message, unusable.hint);
                Some(name.into())
            }
            Err(unusable) => {
                self.findings.error(&place, &unusable.message, unusable.hint);
                None
            }
        }
    }

    /// An `if` of the pipeline or of a step.
    pub(super) fn condition(&mut self, value: Option<&Value>, place: &Place, roots: Roots) -> Option<Arc<Condition>> {
        match Condition::parse(value?, roots) {
            Ok(condition) => Some(Arc::new(condition)),
            Err(faults) => {
                for fault in &faults {
                    self.findings.fault(place, fault);
                }
                None
            }
        }
    }

    /// `execution_mode`; `None` when it is absent or wrong.
    pub(super) fn execution(&mut self, map: &Map<String, Value>, place: &Place) -> Option<Execution> {
        const WORDS: [(&str, Execution); 4] = [
            ("async", Execution::Asynchronous),
            ("asynchronous", Execution::Asynchronous),
            ("sync", Execution::Synchronous),
            ("synchronous", Execution::Synchronous),
        ];
        let place = place.at("execution_mode");
        let value = map.get("execution_mode")?;
        let word = value.as_str().unwrap_or_default();
        let found = WORDS.iter().find(|(known, _)| *known == word);
        if found.is_none() {
            let hint = match did_you_mean(word, WORDS.iter().map(|(known, _)| *known)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write async or synchronous".to_owned(),
            };
            self.findings.error(&place, "`execution_mode` is async (the default) or synchronous", hint);
        }
        found.map(|(_, execution)| *execution)
    }

    /// `timeout`; `None` when it is absent or wrong.
    pub(super) fn timeout(&mut self, map: &Map<String, Value>, place: &Place) -> Option<Duration> {
        let value = map.get("timeout")?;
        let timeout = value.as_str().and_then(duration::parse).filter(|timeout| !timeout.is_zero());
        if timeout.is_none() {
            let hint = "write a number with a unit, such as 30s or 5m".to_owned();
            self.findings.error(&place.at("timeout"), "`timeout` is no duration", hint);
        }
        timeout
    }

    /// `max_depth`; `None` when it is absent or wrong.
    pub(super) fn max_depth(&mut self, map: &Map<String, Value>, place: &Place) -> Option<u32> {
        let value = map.get("max_depth")?;
        let depth = value.as_u64().and_then(|depth| u32::try_from(depth).ok());
        if depth.is_none() {
            let hint = "write the most hops that a chain may have, 0 for no limit".to_owned();
            self.findings.error(&place.at("max_depth"), "`max_depth` is a whole number from 0", hint);
        }
        depth
    }
}

/// Warns of types of events that never come: the gateway's own, and patterns.
pub(in crate::pipeline) fn warn_of_event_type(
    findings: &mut crate::pipeline::findings::Findings,
    event: &str,
    place: &Place,
) {
    if event.starts_with("job.") || event.starts_with(builtin::EVENT_PREFIX) {
        let hint = match did_you_mean(event, Signal::ALL.into_iter().map(Signal::as_str)) {
            Some(near) => format!("did you mean `on-hook: {near}`?"),
            None => "no plugin can emit it: `job.` and `ductile.` are the gateway's own".to_owned(),
        };
        findings.warning(place, &format!("an event of type {event:?} never comes"), hint);
    } else if event.contains('*') {
        let hint = "write one pipeline or route for each type".to_owned();
        findings.warning(place, &format!("{event:?} is matched letter by letter, not as a pattern"), hint);
    }
}
