//! The command line: `ductile <noun> <action> [flags]`, and the flat aliases.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// The gateway itself: start, stop, status, tree, pause, resume, demo
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    System(System),
    /// Jobs: list, inspect, logs, cancel, wait
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Job(Job),
    /// Plugins: list, show, run
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Plugin(Plugin),
    /// Configuration: check, show
    #[command(subcommand, arg_required_else_help = true, disable_help_subcommand = true)]
    Config(Config),
    /// Print version, commit and build time
    #[command(after_help = "Example:\n  ductile version --json")]
    Version,
    /// Alias of `plugin run`
    Run(PluginRun),
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
    /// The supervision tree: every actor, its state and its restarts
    #[command(
        after_help = "Examples:\n  ductile system tree\n  ductile system tree --watch       live; q quits\n  ductile system tree --json | jq '.root.children[].path'"
    )]
    Tree(SystemTree),
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

/// `ductile system demo`
#[derive(Debug, Args)]
pub(crate) struct SystemDemo {
    /// Leave the gateway running and its directory in place
    #[arg(long)]
    pub keep: bool,
}

/// `ductile job ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Pending and active jobs
    #[command(
        after_help = "Examples:\n  ductile job list\n  ductile job list --all --plugin echo\n  ductile job list --status dead --limit 10"
    )]
    List(JobList),
    /// One job: its row, attempts, transitions and log
    #[command(after_help = "Example:\n  ductile job inspect 01890f3e-7c5a-7000-8000-000000000000 --json")]
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

/// `ductile config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check files, plugins and policy; exit 78 on errors
    #[command(
        after_help = "Examples:\n  ductile config check\n  ductile config check --config ./config --strict --json"
    )]
    Check(ConfigCheck),
    /// The configuration after includes, merges and defaults; secrets are replaced
    #[command(
        after_help = "Examples:\n  ductile config show\n  ductile config show plugin:echo\n  ductile config show 'plugin:*' --json"
    )]
    Show(ConfigShow),
}

/// `ductile config check`
#[derive(Debug, Args)]
pub(crate) struct ConfigCheck {
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
}

/// `ductile config show`
#[derive(Debug, Args)]
pub(crate) struct ConfigShow {
    /// `plugin:NAME`, `plugin:*`, or a path such as `service.max_workers`
    pub entity: Option<String>,
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
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("ductile").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// CLI-01, CLI-02, CLI-04: nouns, actions and universal flags are understood wherever they stand.
    #[test]
    fn documented_lines_are_understood() {
        for line in [
            "system start --config /tmp/c",
            "--config /tmp/c system start",
            "system start --config-dir /tmp/c",
            "system stop --timeout 500ms --dry-run",
            "system status --json",
            "system status --output json",
            "system tree --watch --json",
            "system tree --text",
            "system pause --dry-run",
            "system resume",
            "system restart root/policy_sup/router --dry-run",
            "system demo --keep",
            "system migrate --dry-run",
            "job list --all",
            "job list --status queued --plugin echo --limit 5",
            "job inspect 01890f3e-7c5a-7000-8000-000000000000 --json -v",
            "job logs --plugin p --command c --status failed --submitted-by cli --from a --to b --query q --limit 200 --include-result --json",
            "job cancel x --reason no",
            "job wait x --timeout 2",
            "plugin list --api-url http://127.0.0.1:8080 --api-key k --json",
            "plugin run echo",
            "plugin run echo health",
            "plugin run echo handle --payload - -f a=b -f c:=1 --timeout 1h",
            "plugin show echo",
            "config check --strict --json",
            "config show plugin:echo",
            "version",
            "--version",
            "run echo poll",
            "status",
            "plugins",
            "logs echo --limit 3",
            "queue --all",
            "inspect x",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line:?}: {error}");
            }
        }
    }

    /// CLI-06: what is not understood is a usage error.
    #[test]
    fn nonsense_exits_with_two() {
        for line in [
            "frobnicate",
            "system frobnicate",
            "system",
            "job list --frobnicate",
            "job logs --limit 0",
            "job wait x --timeout soon",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains("--help") || error.to_string().contains("Usage:"), "{line}: {error}");
        }
    }

    /// CLI-06: `--help` works on every level and shows examples.
    #[test]
    fn help_works_on_every_level() {
        fn walk(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Usage:"), "{path}");
            let is_alias = command.get_about().is_some_and(|a| a.to_string().starts_with("Alias of"));
            if command.get_subcommands().next().is_none() && !is_alias {
                assert!(help.contains("Example"), "{path} shows no example:\n{help}");
            }
            let names: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            for name in names {
                walk(command.find_subcommand_mut(&name).expect("listed"), &format!("{path} {name}"));
            }
        }
        let mut root = Cli::command();
        root.build();
        walk(&mut root, "ductile");
    }

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "1000h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
