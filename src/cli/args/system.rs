//! Arguments of `ductile system ...`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{DryRun, duration};

/// `ductile system ...`
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Run the gateway in the foreground until SIGINT or SIGTERM
    #[command(
        after_help = "Examples:\n  ductile system start\n  ductile system start --config ./config/config.yaml\n\nThe first signal drains running jobs, the second shortens the wait to zero, the third exits."
    )]
    Start,
    /// Stop the running gateway and wait until it is gone
    #[command(after_help = "Example:\n  ductile system stop --timeout 2m")]
    Stop(SystemStop),
    /// Health, process, database and counts; works on the database file when no gateway runs
    #[command(after_help = "Examples:\n  ductile system status\n  ductile system status --json | jq .status")]
    Status,
    /// Sizes of the database and its tables, growth, retention, and the space that is free beside it
    #[command(
        after_help = "Examples:\n  ductile system storage\n  ductile system storage --json | jq '.tables[] | {table, bytes}'\n\nReads the database file when no gateway runs."
    )]
    Storage,
    /// Six checks of configuration, lock and database that change nothing; exit 1 when one fails
    #[command(
        after_help = "Examples:\n  ductile system selfcheck\n  ductile system selfcheck --json | jq -r '.[] | select(.status == \"fail\") | .id'\n\nWhile a gateway runs its database is left alone and the last three checks are skipped."
    )]
    Selfcheck,
    /// What would keep a gateway from starting, and what ails the one that runs; exit 1 when something fails
    #[command(
        after_help = "Examples:\n  ductile system doctor\n  ductile system doctor --health      with the health command of every plugin\n  ductile system doctor --json | jq '.checks[] | select(.status != \"ok\")'"
    )]
    Doctor(SystemDoctor),
    /// The supervision tree: every actor, its state and its restarts
    #[command(
        after_help = "Examples:\n  ductile system tree\n  ductile system tree --watch       live; q quits\n  ductile system tree --json | jq '.root.children[].path'"
    )]
    Tree(SystemTree),
    /// Put the configuration on disk in force without a restart; exit 78 when it is refused
    #[command(
        after_help = "Examples:\n  ductile config check && ductile system reload\n  ductile system reload --signal     by SIGHUP, when the control socket does not answer\n\nA refused configuration changes nothing. Attempts that run finish under the one they began with."
    )]
    Reload(SystemReload),
    /// Take no more jobs from the queue; running ones go on
    #[command(after_help = "Example:\n  ductile system pause && ductile job list")]
    Pause(DryRun),
    /// Take jobs from the queue again
    #[command(after_help = "Example:\n  ductile system resume")]
    Resume(DryRun),
    /// Restart one actor; its supervisor starts it again
    #[command(
        after_help = "Example:\n  ductile system restart root/policy_sup/router\n\nPaths are those of `ductile system tree --json`."
    )]
    Restart(SystemRestart),
    /// The circuit breakers of scheduled commands: their states and what they did
    #[command(
        after_help = "Examples:\n  ductile system breaker\n  ductile system breaker echo --json | jq '.breakers[] | select(.state != \"closed\")'"
    )]
    Breaker(SystemBreaker),
    /// Close the circuit breakers of a plugin, so that its schedules fire again
    #[command(after_help = "Example:\n  ductile system reset echo")]
    Reset(SystemReset),
    /// Start a gateway in a fresh directory, run jobs, break things, and show that nothing was lost
    #[command(
        after_help = "Examples:\n  ductile system demo\n  ductile system demo --keep     leave the gateway running"
    )]
    Demo(SystemDemo),
    /// Bring the database to the schema of this version, after a backup beside it
    #[command(after_help = "Example:\n  ductile system migrate --dry-run")]
    Migrate(DryRun),
}

/// `ductile system stop`
#[derive(Debug, Args)]
pub(crate) struct SystemStop {
    /// How long to wait, such as 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
    pub timeout: Duration,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile system tree`
#[derive(Debug, Args)]
pub(crate) struct SystemTree {
    /// Stay and show every change; q or Ctrl-C quits
    #[arg(long, short)]
    pub watch: bool,
    /// Plain text, also with --watch on a terminal: a new tree at each change
    #[arg(long, conflicts_with_all = ["json", "output"])]
    pub text: bool,
}

/// `ductile system doctor`
#[derive(Debug, Args)]
pub(crate) struct SystemDoctor {
    /// Run the health command of every plugin that declares one, as jobs
    #[arg(long)]
    pub health: bool,
}

/// `ductile system reload`
#[derive(Debug, Args)]
pub(crate) struct SystemReload {
    /// Send SIGHUP to the process of the lock file instead of asking over the control socket
    #[arg(long)]
    pub signal: bool,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile system restart`
#[derive(Debug, Args)]
pub(crate) struct SystemRestart {
    /// Path of the actor, such as root/policy_sup/router
    #[arg(value_name = "ACTOR")]
    pub path: String,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile system breaker`
#[derive(Debug, Args)]
pub(crate) struct SystemBreaker {
    /// Plugin or alias; without it all
    #[arg(value_name = "PLUGIN")]
    pub plugin: Option<String>,
}

/// `ductile system reset`
#[derive(Debug, Args)]
pub(crate) struct SystemReset {
    /// Plugin or alias
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile system demo`
#[derive(Debug, Args)]
pub(crate) struct SystemDemo {
    /// Leave the gateway running and its directory in place
    #[arg(long)]
    pub keep: bool,
}
