//! Which build of the gateway this is, so that errors can be matched with deploys.

use serde::Serialize;

/// What the build script of the binary found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Version of the package.
    pub version: &'static str,
    /// Commit of the sources, or `unknown`.
    pub commit: &'static str,
    /// RFC 3339.
    #[serde(rename = "build_time")]
    pub built_at: &'static str,
}
