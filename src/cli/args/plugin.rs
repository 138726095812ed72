//! Arguments of `ductile plugin ...`.

use std::path::PathBuf;
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
    /// What the gateway would say of a plugin's directory; nothing is run, no gateway is needed
    #[command(
        after_help = "Examples:\n  ductile plugin check plugins/echo\n  ductile plugin check plugins/echo --config ./config     also whether that configuration would load and run it\n\nExit 1 when it would not be loaded."
    )]
    Check(PluginCheck),
    /// Run a plugin's commands here as the gateway would, and show what it would have made of them
    Test(PluginTest),
    /// What a plugin recorded, the newest first
    #[command(after_help = "Example:\n  ductile plugin facts file_watch --type file_watch.snapshot --limit 5")]
    Facts(PluginFacts),
    /// How long a plugin's attempts take
    #[command(after_help = "Example:\n  ductile plugin stopwatch echo --command poll")]
    Stopwatch(PluginStopwatch),
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
    /// What it emits starts no pipeline and follows no route
    #[arg(long)]
    pub no_route: bool,
    /// Enqueue and print the job id, without waiting
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile plugin check`
#[derive(Debug, Args)]
pub(crate) struct PluginCheck {
    /// Directory with the manifest
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `ductile plugin test`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ductile plugin test plugins/echo\n  ductile plugin test plugins/echo --command poll --payload '{\"message\":\"hi\"}'\n  ductile plugin test my-plugin --plugin-config '{\"api_key\":\"x\"}' --json\n  ductile plugin test my-plugin --config ./config     with its entry in that configuration\n\nThe commands run in this order: health, init, poll, handle, then the plugin's own; what one leaves as state, the\nnext one gets. Nothing is recorded, but the plugin itself really runs. Exit 1 when an attempt would have failed."
)]
pub(crate) struct PluginTest {
    /// Directory with the manifest
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Only that command; may be given more than once
    #[arg(long = "command", short = 'c', value_name = "COMMAND")]
    pub commands: Vec<String>,
    /// Payload object: JSON, @FILE, or - for stdin; health and init get it only when they are named by --command
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: Option<String>,
    /// The plugin's config: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub plugin_config: Option<String>,
    /// The state to begin with: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub state: Option<String>,
    /// Type of the event that `handle` gets
    #[arg(long, value_name = "TYPE", default_value = "api.trigger")]
    pub event_type: String,
    /// Another deadline than the command's own, such as 30s or 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `ductile plugin facts`
#[derive(Debug, Args)]
pub(crate) struct PluginFacts {
    /// Plugin or alias
    pub plugin: String,
    /// Facts of that type
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Facts older than that one, by its SEQ
    #[arg(long, value_name = "SEQ")]
    pub before_seq: Option<i64>,
}

/// `ductile plugin stopwatch`
#[derive(Debug, Args)]
pub(crate) struct PluginStopwatch {
    /// Plugin or alias
    pub plugin: String,
    /// Attempts of that command
    #[arg(long)]
    pub command: Option<String>,
    /// Attempts of the last such span, such as 1h or 24h
    #[arg(long, value_name = "DURATION")]
    pub window: Option<String>,
}
