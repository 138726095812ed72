//! How an actor ended, and which endings count as a crash.

use std::fmt;

/// Why an incarnation of an actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It had nothing left to do.
    Normal,
    /// It was asked to stop, for this reason.
    Shutdown(String),
    /// It was ended at its next await, without a chance to clean up.
    Killed,
    /// It returned this error.
    Error(String),
    /// It panicked.
    Panic {
        /// What the panic said.
        message: String,
        /// `file:line`, empty when unknown.
        location: String,
    },
}

impl Exit {
    /// `normal`, `shutdown`, `killed`, `error` or `panic`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown(_) => "shutdown",
            Self::Killed => "killed",
            Self::Error(_) => "error",
            Self::Panic { .. } => "panic",
        }
    }

    /// A transient child is started again after such an end.
    #[must_use]
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown(_))
    }

    /// What was said about it, at most 4 KiB.
    #[must_use]
    pub fn reason(&self) -> String {
        let text = match self {
            Self::Normal => "normal",
            Self::Killed => "killed",
            Self::Shutdown(text) | Self::Error(text) | Self::Panic { message: text, .. } => text,
        };
        capped(text)
    }
}

/// At most 4 KiB of a text, cut at a character's boundary.
pub(crate) fn capped(text: &str) -> String {
    const MOST: usize = 4096;
    text[..text.floor_char_boundary(MOST)].to_owned()
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Killed => f.write_str("killed"),
            Self::Shutdown(text) => write!(f, "shutdown: {text}"),
            Self::Error(text) => write!(f, "error: {text}"),
            Self::Panic { message, location } if location.is_empty() => write!(f, "panic: {message}"),
            Self::Panic { message, location } => write!(f, "panic at {location}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killed_is_abnormal_and_shutdown_is_not() {
        assert!(Exit::Killed.is_abnormal());
        assert!(Exit::Error(String::new()).is_abnormal());
        assert!(!Exit::Normal.is_abnormal());
        assert!(!Exit::Shutdown("stop".into()).is_abnormal());
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let long = "ä".repeat(4096);
        assert_eq!(Exit::Error(long).reason().len(), 4096);
    }
}
