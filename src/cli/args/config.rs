//! Arguments of `ductile config ...`.

use clap::{Args, Subcommand};

use super::DryRun;

/// `ductile config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check files, plugins, pipelines and policy; exit 78 on errors
    #[command(
        after_help = "Examples:\n  ductile config check\n  ductile config check --config ./config --strict --json"
    )]
    Check(ConfigCheck),
    /// The configuration after includes, merges and defaults; secrets are replaced
    #[command(
        after_help = "Examples:\n  ductile config show\n  ductile config show plugin:echo\n  ductile config show 'plugin:*' --json\n  ductile config show pipeline:nightly"
    )]
    Show(ConfigShow),
    /// One value, bare: `plugins.echo.enabled` or `plugin:echo.enabled`
    #[command(
        after_help = "Examples:\n  ductile config get plugins.echo.enabled\n  ductile config get plugin:echo.retry --json\n  ductile config get service.max_workers"
    )]
    Get(ConfigGet),
    /// Write a small configuration that starts, with one admin token, into an empty directory
    #[command(
        after_help = "Examples:\n  ductile config init\n  ductile config init --config ./my-gateway\n\nThe token's secret is printed once and kept in the directory's .env file, which only its owner can read."
    )]
    Init(ConfigInit),
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
    /// `plugin:NAME`, `pipeline:NAME`, `*` for all of a kind, or a path such as `service.max_workers`
    pub entity: Option<String>,
}

/// `ductile config get`
#[derive(Debug, Args)]
pub(crate) struct ConfigGet {
    /// A path such as `plugins.echo.enabled`, or `plugin:NAME.KEY`, `pipeline:NAME.KEY`
    pub path: String,
}

/// `ductile config init`
#[derive(Debug, Args)]
pub(crate) struct ConfigInit {
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}
