//! What a plugin declares about itself in `manifest.yaml`, already checked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The protocol version that this gateway speaks.
pub const PROTOCOL: u32 = 2;

/// Whether a command changes anything outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandType {
    /// No external effect; a `plugin:ro` token suffices.
    Read,
    /// Changes something outside; the default.
    Write,
}

/// One thing that a plugin offers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Command {
    /// Name, such as `poll`.
    pub name: String,
    /// Read or write.
    #[serde(rename = "type")]
    pub kind: CommandType,
    /// For people and agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of the payload; the compact form is already expanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
}

/// Which snapshots become facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactRule {
    /// Command whose `state_updates` is recorded.
    pub command: String,
    /// Type of the fact.
    pub fact_type: String,
}

/// A checked manifest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Name of the plugin.
    pub name: String,
    /// The author's version.
    pub version: String,
    /// Protocol it speaks, always [`PROTOCOL`].
    pub protocol: u32,
    /// Entrypoint relative to the plugin's directory.
    pub entrypoint: String,
    /// For people and agents.
    pub description: Option<String>,
    /// At least one.
    pub commands: Vec<Command>,
    /// Keys that the operator's `config` must have.
    pub required_config: Vec<String>,
    /// False: runs serially unless the operator raises `parallelism`.
    pub concurrency_safe: bool,
    /// Sub-spans kept per attempt, 1 to 256.
    pub max_subs: usize,
    /// Rules for durable facts.
    pub fact_outputs: Vec<FactRule>,
}

impl Manifest {
    /// The command of that name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|c| c.name == name)
    }
}
