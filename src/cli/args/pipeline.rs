//! Arguments of `ductile pipeline ...`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{DryRun, duration};

/// `ductile pipeline ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Pipeline {
    /// The pipelines, what starts them, and when they last did something
    #[command(after_help = "Example:\n  ductile pipeline list --json | jq -r '.pipelines[].name'")]
    List,
    /// One pipeline: its steps as they were written; with -v what they were compiled to
    #[command(after_help = "Examples:\n  ductile pipeline show nightly\n  ductile pipeline show nightly -v")]
    Show(PipelineShow),
    /// A diagram of one pipeline; no gateway is needed
    #[command(
        after_help = "Examples:\n  ductile pipeline visualize nightly\n  ductile pipeline visualize nightly --format dot | dot -Tsvg > nightly.svg"
    )]
    Visualize(PipelineVisualize),
    /// What a payload would make of one pipeline: decisions, jobs, requests; nothing is enqueued, nothing is run
    #[command(
        after_help = "Examples:\n  ductile pipeline dry-run nightly\n  ductile pipeline dry-run nightly --payload '{\"kind\":\"full\"}'\n  ductile pipeline dry-run nightly --payload @event.json --json\n\nNo gateway is needed: the configuration on disk is compiled."
    )]
    DryRun(PipelineDryRun),
    /// Start one pipeline by hand
    #[command(
        after_help = "Examples:\n  ductile pipeline run nightly\n  ductile pipeline run nightly -f kind=full --wait\n  ductile pipeline run nightly --payload @event.json --wait --timeout 5m\n  ductile pipeline run nightly --async\n\nWithout --wait and --async the pipeline's execution_mode decides. Exit 1 when it was waited for and a job failed."
    )]
    Run(PipelineRun),
}

/// `ductile pipeline show`
#[derive(Debug, Args)]
pub(crate) struct PipelineShow {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pub name: String,
}

/// `ductile pipeline visualize`
#[derive(Debug, Args)]
pub(crate) struct PipelineVisualize {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pub name: String,
    /// Language of the diagram
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value_t = Diagram::Mermaid)]
    pub format: Diagram,
}

/// Languages of diagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Diagram {
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// The payload that a pipeline is started with.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Input {
    /// Payload object: JSON, @FILE, or - for stdin
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: Option<String>,
    /// One field of the payload as text; `KEY:=JSON` for any JSON
    #[arg(long = "field", short = 'f', value_name = "KEY=VALUE")]
    pub fields: Vec<String>,
}

/// `ductile pipeline dry-run`
#[derive(Debug, Args)]
pub(crate) struct PipelineDryRun {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pub name: String,
    /// What it would be started with
    #[command(flatten)]
    pub input: Input,
}

/// `ductile pipeline run`
#[derive(Debug, Args)]
pub(crate) struct PipelineRun {
    /// Name of the pipeline
    #[arg(value_name = "PIPELINE")]
    pub name: String,
    /// What it is started with
    #[command(flatten)]
    pub input: Input,
    /// Print the id of the first job and don't wait, whatever the pipeline's execution_mode
    #[arg(long = "async", conflicts_with = "wait")]
    pub detached: bool,
    /// Wait until all that followed has ended, whatever the pipeline's execution_mode
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 30s or 2m; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    pub timeout: Option<Duration>,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}
