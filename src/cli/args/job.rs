//! Arguments of `ductile job ...`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{DryRun, duration};

/// `ductile job ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Pending and active jobs
    #[command(
        after_help = "Examples:\n  ductile job list\n  ductile job list --all --plugin echo\n  ductile job list --status dead --limit 10"
    )]
    List(JobList),
    /// One job: its row, attempts, transitions and log, and the way that led to it
    #[command(
        after_help = "Examples:\n  ductile job inspect 01890f3e-7c5a-7000-8000-000000000000 --json\n  ductile job inspect 01890f3e-7c5a-7000-8000-000000000000 -v     with what each hop added to the baggage"
    )]
    Inspect(JobInspect),
    /// Ended attempts, newest first
    #[command(
        after_help = "Examples:\n  ductile job logs --plugin echo --limit 5\n  ductile job logs --status failed --from 2026-01-01T00:00:00Z --json\n  ductile job logs --query 'token expired' --include-result"
    )]
    Logs(JobLogs),
    /// Cancel a job: a queued one is dead at once, a running one is stopped
    #[command(
        after_help = "Example:\n  ductile job cancel 01890f3e-7c5a-7000-8000-000000000000 --reason 'wrong payload'"
    )]
    Cancel(JobCancel),
    /// Run a job again: a new job with the recorded payload, or with another
    #[command(
        after_help = "Examples:\n  ductile job replay 01890f3e-7c5a-7000-8000-000000000000\n  ductile job replay 01890f3e-7c5a-7000-8000-000000000000 --payload '{\"message\":\"hi\"}' --wait\n  ductile job replay 01890f3e-7c5a-7000-8000-000000000000 --from-step deliver\n\nThe old job stays as it is; the new one has its own id and its own idempotency key. With --from-step it is the job of\nthat step that is run again, of the pipeline that the named job belongs to; what follows the step follows again."
    )]
    Replay(JobReplay),
    /// Run the request of a quarantined job again, here and alone; exit 1 unless it ends well
    #[command(
        after_help = "Example:\n  ductile job reproduce 01890f3e-7c5a-7000-8000-000000000000 -v\n\nThe plugin of the present configuration gets the recorded payload, state and context, and the limits of the last attempt, in the\nforeground and outside of the queue. Nothing is recorded and nothing follows; the job stays as it is."
    )]
    Reproduce(JobReproduce),
    /// A job and everything that followed from it
    #[command(after_help = "Example:\n  ductile job tree 01890f3e-7c5a-7000-8000-000000000000")]
    Tree(JobTree),
    /// Wait until a job has ended; exit 1 unless it succeeded
    #[command(after_help = "Example:\n  ductile job wait 01890f3e-7c5a-7000-8000-000000000000 --timeout 5m")]
    Wait(JobWait),
}

/// `ductile job list`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JobList {
    /// Jobs in that state: queued, running, succeeded, failed, dead, skipped (pending, ok, error are understood)
    #[arg(long, conflicts_with = "all")]
    pub status: Option<String>,
    /// Jobs of that plugin
    #[arg(long)]
    pub plugin: Option<String>,
    /// At most so many rows
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Ended jobs too
    #[arg(long)]
    pub all: bool,
}

/// `ductile job inspect`
#[derive(Debug, Args)]
pub(crate) struct JobInspect {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub job: String,
}

/// `ductile job logs`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JobLogs {
    /// Attempts of that job
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// Attempts of that plugin
    #[arg(long)]
    pub plugin: Option<String>,
    /// Attempts of the rest of the filter
    #[command(flatten)]
    pub filter: LogFilter,
}

/// What `job logs` and its flat alias filter by, beside the plugin.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LogFilter {
    /// Attempts of that command
    #[arg(long)]
    pub command: Option<String>,
    /// Attempts that ended so
    #[arg(long)]
    pub status: Option<String>,
    /// Attempts of jobs submitted by: api, cli, scheduler, webhook, ...
    #[arg(long)]
    pub submitted_by: Option<String>,
    /// Completed at or after (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Completed before (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Text in last_error, stderr or result
    #[arg(long, value_name = "TEXT")]
    pub query: Option<String>,
    /// At most so many rows
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// With what the plugins answered
    #[arg(long)]
    pub include_result: bool,
}

/// `ductile logs`
#[derive(Debug, Args)]
pub(crate) struct FlatLogs {
    /// Attempts of that plugin
    #[arg(value_name = "PLUGIN")]
    pub name: Option<String>,
    /// The filter of `job logs`
    #[command(flatten)]
    pub logs: JobLogs,
}

/// `ductile job cancel`
#[derive(Debug, Args)]
pub(crate) struct JobCancel {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "by operator")]
    pub reason: String,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile job replay`
#[derive(Debug, Args)]
pub(crate) struct JobReplay {
    /// Id of the job to run again
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Run that step of its pipeline again instead, as `STEP` or `PIPELINE/STEP`
    #[arg(long, value_name = "STEP")]
    pub from_step: Option<String>,
    /// Another payload object than the recorded one: JSON, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: Option<String>,
    /// Wait for its end; exit 1 unless it succeeded
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 30s or 2m; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}

/// `ductile job reproduce`
#[derive(Debug, Args)]
pub(crate) struct JobReproduce {
    /// Id of the quarantined job
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Another limit of its time than the plugin's, such as 30s or 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `ductile job tree`
#[derive(Debug, Args)]
pub(crate) struct JobTree {
    /// Id of the job at the root
    #[arg(value_name = "JOB")]
    pub job: String,
}

/// `ductile job wait`
#[derive(Debug, Args)]
pub(crate) struct JobWait {
    /// Id of the job
    #[arg(value_name = "JOB")]
    pub job: String,
    /// How long to wait, such as 30s or 2m; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}
