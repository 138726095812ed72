//! The pipelines of the fake gateway, and others in their place.

use std::sync::Arc;

use ductile_domain::pipeline::Pipelines;
use serde_json::{Value, json};

use crate::harness::{Fake, generation};

impl Fake {
    /// Puts a generation with these pipelines and no route in force, as a reload would.
    pub(crate) fn rewire(&self, pipelines: Value) {
        let mut next = generation(&[], &["*"]);
        next.config.pipelines = pipelines.as_array().expect("a list").clone();
        next.config.routes.clear();
        next.config.source.sanitized = json!({ "pipelines": pipelines });
        let (compiled, problems) = Pipelines::compile(&next.config, &next.catalog);
        assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}");
        next.pipelines = Arc::new(compiled);
        *self.generation.lock().expect("not poisoned") = Arc::new(next);
    }
}

/// Pipelines and a route, as they are compiled and as the sanitized document shows them.
pub(crate) fn wiring() -> (Value, Value) {
    let wiring = |secret: &str, template: &str| {
        json!({
            "pipelines": [
                {"name": "greet", "on": "mail.seen", "from_plugin": "echo", "execution_mode": "sync", "timeout": "200ms",
                    "if": {"path": "payload.kind", "op": "eq", "value": "mail"},
                    "steps": [
                        {"id": "look", "uses": "echo", "baggage": {"mail.id": "payload.id"}},
                        {"id": "say", "uses": "parrot.poll", "if": {"path": "payload.loud", "op": "eq", "value": true}},
                    ]},
                {"name": "fan", "on": "mail.seen", "execution_mode": "synchronous",
                    "steps": [{"split": [{"id": "left", "uses": "parrot"}, {"id": "right", "uses": "parrot.poll"}]}]},
                {"name": "both", "on": "mail.sorted", "execution_mode": "synchronous",
                    "steps": [
                        {"id": "begin", "uses": "echo"},
                        {"split": [{"id": "left", "uses": "parrot"}, {"id": "right", "uses": "parrot.poll"}]},
                        {"id": "end", "uses": "parrot", "join": "any_succeeded"},
                    ]},
                {"name": "told", "on-hook": "job.failed",
                    "if": {"path": "payload.error", "op": "neq", "value": secret},
                    "steps": [{"uses": "parrot", "payload": {"url": secret}, "with": {"text": template}}]},
            ],
            "routes": [{"from": "echo", "event_type": "mail.read", "to": "parrot"}],
        })
    };
    // No answer may show what came from the environment.
    (wiring("canary-wired-81c0", "at canary-wired-72f9: {payload.error}"), wiring("[REDACTED]", "[REDACTED]"))
}
