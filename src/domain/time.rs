//! The one form in which times are written: RFC 3339, UTC, `Z`, milliseconds.

use chrono::{DateTime, SecondsFormat, Utc};

/// An instant in UTC.
pub type Timestamp = DateTime<Utc>;

/// Writes `at` as RFC 3339 in UTC with `Z` and milliseconds; the text sorts as the instants do.
#[must_use]
pub fn format(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads what [`format()`] wrote, or any other RFC 3339 text with an offset.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_round_trip_to_the_millisecond() {
        let at = parse("2026-02-08T10:00:00.123Z").expect("valid");
        assert_eq!(format(at), "2026-02-08T10:00:00.123Z");
        assert_eq!(parse("2026-02-08T12:00:00.123+02:00"), Some(at));
        assert_eq!(parse("yesterday"), None);
    }
}
