//! Arguments of `ductile config ...`.

use clap::{Args, Subcommand};

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
