//! Arguments of `ductile schedule ...`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{DryRun, duration};

/// `ductile schedule ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Schedule {
    /// The schedules, when each is due next, and when it last fired
    #[command(
        after_help = "Examples:\n  ductile schedule list\n  ductile schedule list --plugin echo --json | jq -r '.jobs[].next_run_at'"
    )]
    List(ScheduleList),
    /// Why a schedule did or did not run: its last ten and next ten ticks, with the reasons
    #[command(
        after_help = "Examples:\n  ductile schedule explain echo\n  ductile schedule explain echo nightly --json | jq -r .verdict\n\nWithout an id it is the plugin's only schedule, or the one that is called `default`."
    )]
    Explain(ScheduleExplain),
    /// Skip the ticks of one schedule, or of all of a plugin, until they are resumed
    #[command(
        after_help = "Examples:\n  ductile schedule pause echo nightly\n  ductile schedule pause echo\n\nIt holds over reloads and restarts. Ticks of `at` and `after` wait instead of being skipped."
    )]
    Pause(ScheduleSwitch),
    /// Let paused schedules fire again
    #[command(after_help = "Example:\n  ductile schedule resume echo nightly")]
    Resume(ScheduleSwitch),
    /// Enqueue a schedule's command with its payload now, beside its ticks
    #[command(
        after_help = "Examples:\n  ductile schedule run echo nightly\n  ductile schedule run echo nightly --wait --timeout 5m\n\nIt is no tick: neither windows, guard nor breaker are asked, and none of them counts it."
    )]
    Run(ScheduleRun),
}

/// `ductile schedule list`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ScheduleList {
    /// Schedules of that plugin
    #[arg(long)]
    pub plugin: Option<String>,
}

/// `ductile schedule explain`
#[derive(Debug, Args)]
pub(crate) struct ScheduleExplain {
    /// Plugin or alias
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// Its schedule
    #[arg(value_name = "SCHEDULE")]
    pub id: Option<String>,
}

/// `ductile schedule pause` and `ductile schedule resume`
#[derive(Debug, Args)]
pub(crate) struct ScheduleSwitch {
    /// Plugin or alias
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// Its schedule; without it all of the plugin
    #[arg(value_name = "SCHEDULE")]
    pub id: Option<String>,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile schedule run`
#[derive(Debug, Args)]
pub(crate) struct ScheduleRun {
    /// Plugin or alias
    #[arg(value_name = "PLUGIN")]
    pub plugin: String,
    /// Its schedule; not needed when it has one only, or one that is called `default`
    #[arg(value_name = "SCHEDULE")]
    pub id: Option<String>,
    /// Wait until the job has ended, and print its result
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 30s or 2m; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}
