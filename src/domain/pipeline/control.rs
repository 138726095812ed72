//! What the gateway keeps for itself beside the baggage, under `ductile` in `accumulated_json`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

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
        #[derive(Deserialize)]
        struct Accumulated {
            ductile: Option<Control>,
        }
        serde_json::from_str::<Accumulated>(accumulated.get()).ok()?.ductile
    }
}
