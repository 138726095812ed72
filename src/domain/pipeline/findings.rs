//! Collects what is wrong with pipelines and routes, each finding with its place, its pipeline and its step.

use std::fmt::Write as _;

use crate::path::Fault;
use crate::problem::{Problem, did_you_mean};

/// Where a finding belongs: the path of a field, and the names that its text begins with.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Path such as `pipelines.backup.steps[2]`.
    pub(super) path: String,
    /// What it belongs to, such as `pipeline "backup", step "fetch"`.
    pub(super) subject: String,
}

impl Place {
    /// A part of it.
    pub(super) fn at(&self, part: &str) -> Self {
        let mut path = String::with_capacity(self.path.len() + part.len() + 1);
        path.push_str(&self.path);
        if !part.is_empty() {
            if !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        Self { path, subject: self.subject.clone() }
    }
}

/// All findings so far.
#[derive(Debug)]
pub(super) struct Findings {
    category: &'static str,
    /// The findings in the order in which they were made.
    pub(super) problems: Vec<Problem>,
    /// How many of them are errors.
    pub(super) errors: usize,
}

impl Findings {
    pub(super) fn new(category: &'static str) -> Self {
        Self { category, problems: Vec::new(), errors: 0 }
    }

    /// Something that leaves the pipeline or the route out.
    pub(super) fn error(&mut self, place: &Place, message: &str, hint: impl Into<Option<String>>) {
        self.errors += 1;
        self.add(Problem::error(self.category, text(place, message)), place, hint.into());
    }

    /// Something worth knowing.
    pub(super) fn warning(&mut self, place: &Place, message: &str, hint: impl Into<Option<String>>) {
        self.add(Problem::warning(self.category, text(place, message)), place, hint.into());
    }

    /// A fault that a part of the language found below `place`.
    pub(super) fn fault(&mut self, place: &Place, fault: &Fault) {
        self.error(&place.at(&fault.at), &fault.message, fault.hint.clone());
    }

    fn add(&mut self, mut problem: Problem, place: &Place, hint: Option<String>) {
        problem.path = Some(place.path.clone());
        problem.hint = hint;
        self.problems.push(problem);
    }

    /// An error for each key that nobody knows.
    pub(super) fn unknown_keys<'k>(
        &mut self,
        place: &Place,
        keys: impl Iterator<Item = &'k String>,
        known: &[&'static str],
    ) {
        for key in keys.filter(|key| !known.contains(&key.as_str())) {
            let hint = match did_you_mean(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys are {}", known.join(", ")),
            };
            self.error(&place.at(key), &format!("unknown key {key:?}"), hint);
        }
    }
}

fn text(place: &Place, message: &str) -> String {
    let mut text = String::with_capacity(place.subject.len() + message.len() + 2);
    let _ = write!(text, "{}: {message}", place.subject);
    text
}
