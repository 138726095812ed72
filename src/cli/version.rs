//! `ductile version`: which build this is.

use ductile_domain::version::Build;
use serde_json::json;

use crate::report::Report;

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
