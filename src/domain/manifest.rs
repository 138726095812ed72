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
    /// The author's word that running it again with the same input changes nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// The author's word that it may be tried again after it failed midway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_safe: Option<bool>,
    /// JSON Schema of the payload; the compact form is already expanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// JSON Schema of the response; the compact form is already expanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Names of payload values that it reads and emits. A declaration for people and agents: nothing is checked by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
}

impl Command {
    /// A command of that name and nothing declared beside its type.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: CommandType) -> Self {
        Self {
            name: name.into(),
            kind,
            description: None,
            idempotent: None,
            retry_safe: None,
            input_schema: None,
            output_schema: None,
            values: None,
        }
    }
}

/// `values:` of a command; names are `payload.<key>`, `payload.<key>.<subkey>` or `payload.*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Values {
    /// What it reads.
    pub consume: Vec<String>,
    /// What it emits.
    pub emit: Vec<Emits>,
}

/// What one type of event carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emits {
    /// Type of the event.
    pub event: String,
    /// Names of its payload's values.
    pub values: Vec<String>,
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
    /// Keys that the operator's `config` may have; for people, nothing is checked by them.
    pub optional_config: Vec<String>,
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
