//! What the gateway keeps for itself beside the baggage, under `ductile` in `accumulated_json`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::raw::{Object, Raw, raw_value};

/// The key of the control object in `accumulated_json`.
pub const KEY: &str = "ductile";

/// Where in which pipeline a job stands, and how far its chain has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// The pipeline in which the step was written; `None` for the job of a plain route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Arc<str>>,
    /// The step's name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_id: Option<Arc<str>>,
    /// The pipeline that was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Arc<str>>,
    /// The node's key in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
    /// Names this run of the pipeline.
    #[serde(rename = "pipeline_instance_id", skip_serializing_if = "Option::is_none")]
    pub instance: Option<Uuid>,
    /// Hops of the chain so far, from 1.
    #[serde(rename = "route_depth")]
    pub depth: u32,
    /// Most hops that the chain may have; 0 means that there is no limit.
    #[serde(rename = "route_max_depth")]
    pub max_depth: u32,
    /// Hooks of the chain so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_depth: Option<u32>,
}

impl Control {
    /// Reads it from an `accumulated_json`; `None` when there is none, or none that can be read.
    #[must_use]
    pub fn of(accumulated: &RawValue) -> Option<Self> {
        Raw::from(accumulated).child(KEY).and_then(|control| serde_json::from_str(control.get()).ok())
    }

    /// The `accumulated_json` of this control object and that baggage.
    #[must_use]
    pub fn with_baggage(&self, baggage: &RawValue) -> Box<RawValue> {
        let control = serde_json::to_string(self).expect("plain values serialize into memory");
        let baggage = baggage.get().trim_ascii();
        let inside = baggage.strip_prefix('{').and_then(|b| b.strip_suffix('}')).map_or("", str::trim_ascii);
        let comma = if inside.is_empty() { "" } else { "," };
        raw_value(format!("{{{inside}{comma}\"{KEY}\":{control}}}"))
    }
}

/// The baggage of an `accumulated_json`, without the control object.
#[must_use]
pub fn baggage_of(accumulated: &RawValue) -> Box<RawValue> {
    let Some(mut object) = Object::read(accumulated.into()) else { return Raw::EMPTY.to_raw_value() };
    object.remove(KEY);
    object.to_raw_value()
}

/// The context as plugins and conditions see it: the baggage, and the control object's values by names of their own.
#[must_use]
pub fn shown(accumulated: &RawValue) -> Box<RawValue> {
    let Some(mut object) = Object::read(accumulated.into()) else { return Raw::EMPTY.to_raw_value() };
    let control = Control::of(accumulated);
    object.remove(KEY);
    let Some(control) = control else { return object.to_raw_value() };
    let texts = [
        ("ductile_pipeline", control.pipeline.as_deref().map(Value::from)),
        ("ductile_step_id", control.step_id.as_deref().map(Value::from)),
        ("ductile_pipeline_instance_id", control.instance.map(|id| Value::from(id.to_string()))),
        ("ductile_route_depth", Some(Value::from(control.depth))),
        ("ductile_route_max_depth", Some(Value::from(control.max_depth))),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            object.set_value(name, &value);
        }
    }
    object.to_raw_value()
}
