//! Why a command could not do what it was asked, and the exit code that says so.

use std::fmt;
use std::path::PathBuf;

use ductile_domain::problem::Problem;
use serde_json::{Value, json};

use crate::exit_code;

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) enum Error {
    /// The arguments contradict each other or say nothing that can be done.
    Usage(String),
    /// Nobody answered.
    Unreachable {
        /// Socket or address that was tried.
        tried: String,
        /// What the system said.
        reason: String,
        /// What is known about the lock, the next step: one line each.
        advice: Vec<String>,
    },
    /// The socket or the gateway refused the caller.
    NotPermitted {
        /// Why.
        reason: String,
        /// The next step.
        hint: Option<String>,
    },
    /// The configuration can't be used; every problem is listed.
    Config(Vec<Problem>),
    /// The gateway refused a configuration and goes on with the former one.
    Rejected {
        /// Text for people.
        message: String,
        /// Problems as the API writes them.
        problems: Vec<Value>,
    },
    /// The gateway answered, and the answer was no.
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code of the error, such as `unknown_plugin`.
        code: Option<String>,
        /// Text for people.
        message: String,
        /// The next step.
        hint: Option<String>,
    },
    /// The gateway answered with something that is not its protocol.
    Answer(String),
    /// The database file could not be read.
    Ledger(String),
    /// What was asked for ended badly; the text says how and what to do.
    Failed(String),
    /// It ended badly, and the output has said so already.
    Told {
        /// The exit code.
        code: i32,
    },
    /// The gateway did not stop in time.
    StopTimedOut(String),
    /// A file or the terminal failed.
    Io {
        /// What was done, completing "failed to ...".
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that should be there could not be read.
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code that stands for this error.
    #[must_use]
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) => exit_code::USAGE,
            Self::Unreachable { .. } => exit_code::UNREACHABLE,
            Self::NotPermitted { .. } => exit_code::NOT_PERMITTED,
            Self::Config(_) | Self::Rejected { .. } => exit_code::CONFIG,
            Self::StopTimedOut(_) => exit_code::STOP_TIMED_OUT,
            Self::Answer(_) => exit_code::INTERNAL,
            Self::Told { code } => *code,
            Self::Refused { .. } | Self::Ledger(_) | Self::Failed(_) | Self::Io { .. } | Self::ReadFile { .. } => {
                exit_code::FAILED
            }
        }
    }

    /// The document of JSON mode.
    #[must_use]
    pub(crate) fn document(&self) -> Value {
        let mut document = json!({"error": self.to_string(), "exit_code": self.exit_code()});
        match self {
            Self::Config(problems) => document["problems"] = json!(problems),
            Self::Rejected { message, problems } => {
                document["error"] = json!(message);
                document["problems"] = json!(problems);
            }
            Self::Refused { code, hint, .. } => {
                document["code"] = json!(code);
                document["hint"] = json!(hint);
            }
            _ => {}
        }
        document
    }

    /// A closure for `map_err` that names what was done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The ledger's words, with what SQLite said.
    #[must_use]
    pub(crate) fn ledger(error: ductile_ledger::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::Ledger(format!("{error}{cause}"))
    }

    /// True when nobody answered, so that the database file may be read instead.
    #[must_use]
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) | Self::StopTimedOut(text) | Self::Ledger(text) => f.write_str(text),
            Self::Unreachable { tried, reason, advice } => {
                write!(f, "no gateway answers at {tried}: {reason}")?;
                advice.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::NotPermitted { reason, hint } => {
                write!(f, "not permitted: {reason}")?;
                write_hint(f, hint.as_deref())
            }
            Self::Config(problems) => {
                let errors = problems.iter().filter(|p| p.is_error()).count();
                write!(f, "Configuration invalid ({errors} error(s), {} warning(s))", problems.len() - errors)?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
            Self::Rejected { message, problems } => {
                f.write_str(message)?;
                problems.iter().try_for_each(|problem| write!(f, "\n{}", problem_line(problem)))
            }
            Self::Refused { status, code, message, hint } => {
                match code {
                    Some(code) => write!(f, "{message} [{status} {code}]")?,
                    None => write!(f, "{message} [{status}]")?,
                }
                write_hint(f, hint.as_deref())
            }
            Self::Told { code } => write!(f, "exit code {code}"),
            Self::Answer(text) => write!(f, "the gateway's answer makes no sense: {text}"),
            Self::Io { what, source } => write!(f, "failed to {what}: {source}"),
            Self::ReadFile { path, source } => write!(f, "failed to read {}: {source}", path.display()),
        }
    }
}

/// A problem that came as JSON, in the words of [`Problem`]'s own text.
#[must_use]
pub(crate) fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default();
    let mut line = format!("{} [{}] ", if text("severity") == "warning" { "WARN " } else { "ERROR" }, text("category"));
    if !text("file").is_empty() {
        line.push_str(text("file"));
        for key in ["line", "column"] {
            if let Some(number) = problem[key].as_u64() {
                line.push_str(&format!(":{number}"));
            }
        }
        line.push(' ');
    }
    if !text("field").is_empty() {
        line.push_str(&format!("{}: ", text("field")));
    }
    line.push_str(text("message"));
    if !text("hint").is_empty() {
        line.push_str(&format!(" ({})", text("hint")));
    }
    crate::table::one_line(&line)
}

fn write_hint(f: &mut fmt::Formatter<'_>, hint: Option<&str>) -> fmt::Result {
    match hint {
        Some(hint) => write!(f, "\n  {hint}"),
        None => Ok(()),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::ReadFile { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-05: every kind of error has its documented code.
    #[test]
    fn every_error_has_its_exit_code() {
        let io = || std::io::Error::other("x");
        let table = [
            (Error::Usage("x".into()), 2),
            (Error::Unreachable { tried: "x".into(), reason: "x".into(), advice: Vec::new() }, 69),
            (Error::NotPermitted { reason: "x".into(), hint: None }, 77),
            (Error::Config(Vec::new()), 78),
            (Error::Rejected { message: "x".into(), problems: Vec::new() }, 78),
            (Error::Refused { status: 404, code: None, message: "x".into(), hint: None }, 1),
            (Error::Answer("x".into()), 70),
            (Error::Told { code: 78 }, 78),
            (Error::Ledger("x".into()), 1),
            (Error::Failed("x".into()), 1),
            (Error::StopTimedOut("x".into()), 75),
            (Error::Io { what: "x".into(), source: io() }, 1),
            (Error::ReadFile { path: "x".into(), source: io() }, 1),
        ];
        for (error, code) in table {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }

    /// CLI-09: a problem reads the same whether it was found here or by the gateway.
    #[test]
    fn problems_of_the_gateway_read_like_our_own() {
        let problems = [
            Problem::error("service", "must be at least 1")
                .in_file("/c/config.yaml")
                .at(3, 5)
                .at_path("service.max_workers")
                .hint("remove the key"),
            Problem::warning("unused", "unknown key"),
        ];
        for problem in problems {
            assert_eq!(problem_line(&serde_json::to_value(&problem).expect("JSON")), problem.to_string());
        }
    }

    #[test]
    fn all_problems_of_a_configuration_are_printed() {
        let error = Error::Config(vec![
            Problem::error("service", "must be at least 1").at_path("service.max_workers"),
            Problem::warning("unused", "unknown key"),
        ]);
        assert_eq!(
            error.to_string(),
            "Configuration invalid (1 error(s), 1 warning(s))\nERROR [service] service.max_workers: must be at least 1\nWARN  [unused] unknown key"
        );
    }
}
