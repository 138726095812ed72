//! The command line: `ductile <noun> <action> [flags]`, and the flat aliases.

mod api;
mod config;
mod job;
mod pipeline;
mod plugin;
mod schedule;
mod system;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use api::Api;
pub(crate) use config::{Config, ConfigCheck, ConfigGet, ConfigInit, ConfigShow};
pub(crate) use job::{
    FlatLogs, Job, JobCancel, JobInspect, JobList, JobLogs, JobReplay, JobReproduce, JobTree, JobWait, LogFilter,
};
pub(crate) use pipeline::{Diagram, Input, Pipeline, PipelineRun, PipelineShow, PipelineVisualize};
pub(crate) use plugin::{Plugin, PluginCheck, PluginFacts, PluginRun, PluginShow, PluginStopwatch, PluginTest};
pub(crate) use schedule::{Schedule, ScheduleExplain, ScheduleList, ScheduleRun, ScheduleSwitch};
pub(crate) use system::{
    System, SystemBreaker, SystemDemo, SystemDoctor, SystemReload, SystemReset, SystemRestart, SystemStop, SystemTree,
};

/// An automation gateway that AI agents operate and people audit.
#[derive(Debug, Parser)]
#[command(
    name = "ductile",
    disable_version_flag = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  ductile system demo                       see it work, in a directory of its own
  ductile system start --config ./config    run the gateway in the foreground
  ductile plugin run echo -f message=hello  run one job and print its result
  ductile system tree --watch               what is alive, live
  ductile job logs --status failed          what went wrong

Exit codes: 0 ok, 1 failed, 2 usage, 69 gateway not reachable, 70 internal, 75 stop timed out,
77 not permitted, 78 configuration or integrity."
)]
pub(crate) struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// Print version, commit and build time
    #[arg(long, short = 'V')]
    pub version: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// Configuration: config.yaml or its directory [env: DUCTILE_CONFIG_DIR] [default: ~/.config/ductile]
    #[arg(long, alias = "config-dir", global = true, value_name = "PATH", help_heading = "Universal flags")]
    pub config: Option<PathBuf>,
    /// One JSON document on stdout; messages go to stderr
    #[arg(long, global = true, help_heading = "Universal flags")]
    pub json: bool,
    /// Form of the output; `json` is the same as --json
    #[arg(long, short = 'o', global = true, value_name = "FORM", help_heading = "Universal flags")]
    pub output: Option<Output>,
    /// Say on stderr which paths and addresses are used
    #[arg(long, short, global = true, help_heading = "Universal flags")]
    pub verbose: bool,
    /// Talk to a gateway over TCP (http://host:port) or another socket (unix:PATH) instead of the control socket
    #[arg(long, global = true, value_name = "URL", help_heading = "Universal flags")]
    pub api_url: Option<String>,
    /// Bearer token for --api-url
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "DUCTILE_API_KEY",
        hide_env_values = true,
        help_heading = "Universal flags"
    )]
    pub api_key: Option<String>,
}

impl Global {
    /// True when a document is wanted.
    #[must_use]
    pub(crate) fn wants_json(&self) -> bool {
        self.json || self.output == Some(Output::Json)
    }
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--dry-run`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DryRun {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Nouns and flat aliases.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The gateway itself: start, stop, reload, status, doctor, selfcheck, tree, pause, resume, breaker, reset, demo
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    System(System),
    /// Jobs: list, inspect, tree, logs, replay, cancel, wait
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Job(Job),
    /// Plugins: list, show, run, check, test, facts, stopwatch
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Plugin(Plugin),
    /// Schedules: list, explain, pause, resume, run
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Schedule(Schedule),
    /// Pipelines: list, show, visualize, dry-run, run
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Pipeline(Pipeline),
    /// Configuration: init, check, show, get
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Config(Config),
    /// One request to the gateway's API, its answer as it is
    Api(Api),
    /// Print version, commit and build time
    #[command(after_help = "Example:\n  ductile version --json")]
    Version,
    /// Alias of `plugin run`
    Run(PluginRun),
    /// Alias of `config init`
    Init(ConfigInit),
    /// Alias of `system status`
    Status,
    /// Alias of `plugin list`
    Plugins,
    /// Alias of `job logs [--plugin PLUGIN]`
    Logs(FlatLogs),
    /// Alias of `job list`
    Queue(JobList),
    /// Alias of `job inspect`
    Inspect(JobInspect),
}

/// Reads `500ms`, `30s`, `5m`, `1h`; a bare number means seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let expected = || format!("{text:?} is no duration: write 500ms, 30s, 5m or 1h");
    let number: u64 = number.parse().map_err(|_| expected())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let millis = number.checked_mul(millis).filter(|ms| *ms <= 30 * 24 * 3_600_000).ok_or("longer than 30 days")?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
