//! Arguments of `ductile plugin ...`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{DryRun, duration};

/// `ductile plugin ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// The plugins that are loaded
    #[command(after_help = "Example:\n  ductile plugin list --json | jq -r '.plugins[].name'")]
    List,
    /// One plugin: its commands and what they take
    #[command(after_help = "Example:\n  ductile plugin show echo")]
    Show(PluginShow),
    /// Run one command through the queue, wait, and print the result
    Run(PluginRun),
}

/// `ductile plugin show`
#[derive(Debug, Args)]
pub(crate) struct PluginShow {
    /// Plugin or alias
    pub plugin: String,
}

/// `ductile plugin run`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ductile plugin run echo -f message=hello\n  ductile plugin run echo handle --payload '{\"message\":\"hi\"}'\n  ductile plugin run stress --payload @payload.json --timeout 2m\n  jq -n '{n:1}' | ductile plugin run echo --payload -\n\nExit 1 when the job fails; its attempts and log stay: `ductile job inspect JOB`."
)]
pub(crate) struct PluginRun {
    /// Plugin or alias
    pub plugin: String,
    /// Command; without it `poll` if declared, else `handle`
    #[arg(value_name = "COMMAND")]
    pub action: Option<String>,
    /// Payload object: JSON, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: Option<String>,
    /// One field of the payload; numbers and booleans as the plugin's schema says, `KEY:=JSON` for any JSON
    #[arg(long = "field", short = 'f', value_name = "KEY=VALUE")]
    pub fields: Vec<String>,
    /// How long to wait, such as 30s or 2m; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Enqueue and print the job id, without waiting
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}
