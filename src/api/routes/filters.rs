//! The parameters that lists share: what is malformed is refused by its name, never guessed.

use std::str::FromStr;

use chrono::TimeDelta;
use ductile_domain::ids::JobId;
use ductile_domain::time::{self, Timestamp};

use crate::call::{bad_parameter, quoted};
use crate::error::ApiError;
use crate::views::{PageQuery, StatusWord};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;
/// SQLite walks over what an offset skips.
const MAX_OFFSET: u32 = 100_000;

/// API-18: the stored words and three aliases.
pub(super) fn status(text: &str) -> Result<StatusWord, ApiError> {
    StatusWord::from_str(text).map_err(|_| {
        bad_parameter(
            "status",
            format!("unknown status {}", quoted(text)),
            "use queued, running, succeeded, failed, timed_out, dead or skipped; pending, ok and error are understood",
        )
    })
}

pub(super) fn page(limit: Option<&str>, offset: Option<&str>, before: Option<String>) -> Result<PageQuery, ApiError> {
    let offset = match offset.map(|text| (text, number(text))) {
        None => 0,
        Some((_, Some(offset))) if offset <= MAX_OFFSET => offset,
        Some((text, _)) => {
            return Err(bad_parameter(
                "offset",
                format!("`offset` is not a number up to {MAX_OFFSET}: {}", quoted(text)),
                "use `before` with `next` of the page before to go further",
            ));
        }
    };
    if offset > 0 && before.is_some() {
        let message = "`offset` and `before` are two ways to say where a page begins";
        return Err(bad_parameter("offset", message, "use one of them"));
    }
    Ok(PageQuery { limit: self::limit(limit)?, offset, before })
}

/// API-22: what is too much is clamped; what is no number is refused.
pub(super) fn limit(text: Option<&str>) -> Result<u32, ApiError> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    match number(text) {
        Some(limit) if limit > 0 => Ok(limit.min(MAX_LIMIT)),
        _ => Err(bad_parameter(
            "limit",
            format!("`limit` is not a number from 1: {}", quoted(text)),
            format!("use 1 to {MAX_LIMIT}; more is shortened to that"),
        )),
    }
}

/// Digits only; what is larger than any number is the largest.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

pub(super) fn flag(name: &str, text: Option<&str>) -> Result<bool, ApiError> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(bad_parameter(
            name,
            format!("`{name}` is neither true nor false: {}", quoted(other)),
            "use true or false",
        )),
    }
}

pub(super) fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    text.map(|text| {
        time::parse(text).ok_or_else(|| {
            bad_parameter(
                name,
                format!("`{name}` is not an RFC 3339 time: {}", quoted(text)),
                "write it like 2026-02-21T10:00:00Z, with `+` in an offset as %2B",
            )
        })
    })
    .transpose()
}

pub(super) fn job_id(name: &str, text: Option<&str>) -> Result<Option<JobId>, ApiError> {
    text.map(|text| {
        JobId::from_str(text).map_err(|error| {
            bad_parameter(name, format!("`{name}` is {error}: {}", quoted(text)), "GET /jobs lists the jobs")
        })
    })
    .transpose()
}

/// A row's number, such as the `seq` of a fact.
pub(super) fn sequence(name: &str, text: Option<&str>) -> Result<Option<i64>, ApiError> {
    text.map(|text| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| is_number).ok_or_else(|| {
            bad_parameter(name, format!("`{name}` is not a number: {}", quoted(text)), "use a number of the list")
        })
    })
    .transpose()
}

/// `90s`, `30m`, `24h`, `7d`: how far a look back goes, at most a year.
pub(super) fn window(text: &str) -> Result<TimeDelta, ApiError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = count.parse::<i64>().ok().and_then(|count| count.checked_mul(scale));
    let window = seconds.filter(|s| (1..=366 * 86_400).contains(s)).and_then(TimeDelta::try_seconds);
    window.ok_or_else(|| {
        bad_parameter(
            "window",
            format!("`window` is no time to look back: {}", quoted(text)),
            "write it like 90s, 30m, 24h or 7d; at most 366d",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API-22: a limit above 200 is clamped.
    #[test]
    fn a_limit_is_clamped_but_never_guessed() {
        for (text, expected) in [(None, 50), (Some("1"), 1), (Some("500"), 200), (Some("99999999999"), 200)] {
            assert_eq!(limit(text).expect("a number"), expected);
        }
        for bad in ["0", "-1", "", "x", "1e3", "+5"] {
            assert!(limit(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_window_has_a_unit_and_an_end() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800), ("366d", 31_622_400)] {
            assert_eq!(window(text).expect(text), TimeDelta::seconds(seconds));
        }
        for bad in ["", "24", "h", "0h", "-1h", "1.5h", "367d", "1w", "99999999999999999999d", "9999999999999d"] {
            assert!(window(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_page_begins_in_one_way() {
        let place = || Some("x".to_owned());
        assert_eq!(page(None, Some("7"), None).expect("an offset").offset, 7);
        assert!(page(None, Some("0"), place()).expect("no offset").before.is_some());
        assert!(page(None, Some("1"), place()).is_err());
        for bad in ["", "-1", "x", "100001", "99999999999"] {
            assert!(page(None, Some(bad), None).is_err(), "{bad:?}");
        }
    }
}
