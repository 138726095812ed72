//! Arguments of `ductile api`.

use clap::Args;

use super::DryRun;

/// `ductile api`
#[derive(Debug, Default, Args)]
#[command(
    after_help = "Examples:\n  ductile api /jobs\n  ductile api /healthz\n  ductile api /plugin/echo/poll -f message=hello\n  ductile api /plugin/echo/poll -b '{\"payload\":{\"message\":\"hi\"},\"dedupe_key\":\"a\"}'\n  ductile api /jobs -X GET -f status=dead -f limit=5\n  ductile api /system/reload -X POST\n  ductile api '/events?since=0'\n\nThe body is printed as it is. Exit 0 for a 2xx status, 77 for 401 and 403, 1 for any other."
)]
pub(crate) struct Api {
    /// Path with its query, such as /jobs?limit=5
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Method; without it POST when there is a body, else GET
    #[arg(long = "method", short = 'X', value_name = "METHOD")]
    pub method: Option<String>,
    /// One field of the payload, `KEY:=JSON` for any JSON; of the query with -X GET
    #[arg(long = "field", short = 'f', value_name = "KEY=VALUE")]
    pub fields: Vec<String>,
    /// A header
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The whole body: text, @FILE, or - for stdin
    #[arg(long = "body", short = 'b', value_name = "BODY|@FILE|-")]
    pub body: Option<String>,
    /// Say what would be done, and change nothing
    #[command(flatten)]
    pub dry: DryRun,
}
