//! crontab(5) expressions: five fields or a nickname.

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// As the operator wrote it, without a zone.
    pub text: String,
}
