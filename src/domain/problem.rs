//! A finding for the user: what is wrong, where, and what to do next.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Refuses the configuration, or leaves the named part out.
    Error,
    /// Worth knowing; refuses only in strict mode.
    Warning,
}

/// One finding. Lists of them are complete: all problems at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// `service`, `plugin_refs`, `api`, `token_scopes`, `unused`, `env_vars`, `yaml`, `manifest`, ...
    pub category: &'static str,
    /// What is wrong.
    pub message: String,
    /// The file, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Path of the field, such as `plugins.echo.parallelism`.
    #[serde(rename = "field", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem that refuses.
    #[must_use]
    pub fn error(category: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, category, message.into())
    }

    /// A problem that warns.
    #[must_use]
    pub fn warning(category: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, category, message.into())
    }

    fn new(severity: Severity, category: &'static str, message: String) -> Self {
        Self { severity, category, message, file: None, line: None, column: None, path: None, hint: None }
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names line and column, both from 1.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    /// Names the field.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True for errors.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// `ERROR [category] file:line:column field: message (hint)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Error => "ERROR",
            Severity::Warning => "WARN ",
        })?;
        write!(f, " [{}] ", self.category)?;
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
            f.write_str(" ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// The known word that is nearest to `word`, if one is near enough to be a slip.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known.into_iter().map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let p = Problem::error("service", "must be at least 1")
            .in_file("/c/config.yaml")
            .at(3, 5)
            .at_path("service.max_workers")
            .hint("remove the key");
        assert_eq!(
            p.to_string(),
            "ERROR [service] /c/config.yaml:3:5 service.max_workers: must be at least 1 (remove the key)"
        );
    }

    #[test]
    fn only_slips_are_suggested() {
        assert_eq!(did_you_mean("ecoh", ["echo", "stress"]), None);
        assert_eq!(did_you_mean("ech", ["echo", "stress"]), Some("echo"));
        assert_eq!(did_you_mean("stres", ["echo", "stress"]), Some("stress"));
        assert_eq!(did_you_mean("zzz", ["echo"]), None);
    }
}
