//! Collects every problem of one load and names the file of each.

use std::path::PathBuf;

use ductile_domain::problem::Problem;

use crate::node::Origin;

/// Category of problems of single schedules.
pub(crate) const SCHEDULE: &str = "schedule";

/// The files that were read and what was found wrong in them.
#[derive(Default)]
pub(crate) struct Findings {
    /// In the order in which they were read; [`Origin::file`] is an index into it.
    pub(crate) files: Vec<PathBuf>,
    /// In the order in which they were found.
    pub(crate) problems: Vec<Problem>,
    /// False once a file was missing or unreadable: rules about what is absent would then report what is not wrong.
    pub(crate) is_complete: bool,
}

impl Findings {
    pub(crate) fn new() -> Self {
        Self { is_complete: true, ..Self::default() }
    }

    /// Adds a problem at the place where the value was written.
    pub(crate) fn add(&mut self, problem: Problem, origin: Origin) {
        let mut problem = problem;
        if let Some(file) = self.files.get(origin.file) {
            problem = problem.in_file(file);
        }
        if origin.line > 0 {
            problem = problem.at(origin.line, origin.column.max(1));
        }
        self.problems.push(problem);
    }

    /// True when something refuses the configuration. What is wrong with a single schedule keeps that one from firing.
    pub(crate) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.is_error() && problem.category != SCHEDULE)
    }

    /// The problems in the order of files and lines.
    pub(crate) fn into_sorted(self) -> Vec<Problem> {
        let Self { files, mut problems, .. } = self;
        let rank = |p: &Problem| p.file.as_ref().and_then(|f| files.iter().position(|g| g == f)).unwrap_or(usize::MAX);
        problems.sort_by_key(|p| (rank(p), p.line, p.column));
        problems
    }
}
