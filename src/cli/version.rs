//! `ductile version`: which build this is.

use serde_json::json;

use crate::report::Report;

/// What the build script of the binary found out.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// Version of the package.
    pub version: &'static str,
    /// Commit of the sources, or `unknown`.
    pub commit: &'static str,
    /// RFC 3339.
    pub built_at: &'static str,
}

/// Prints the three values.
pub(crate) fn show(build: Build, report: &mut Report) {
    if report.is_json() {
        report.document(&json!({"version": build.version, "commit": build.commit, "build_time": build.built_at}));
    } else {
        report.line(format!("ductile {}", build.version));
        report.line(format!("commit: {}", build.commit));
        report.line(format!("built: {}", build.built_at));
    }
}
