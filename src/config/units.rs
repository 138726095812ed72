//! Durations and sizes as people write them: strict, with limits, and back again.

use std::fmt;
use std::time::Duration;

/// The longest duration that is accepted: ten years.
pub(crate) const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

const UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZES: [(&str, u64); 8] = [
    ("b", 1),
    ("", 1),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
];

/// Why a text is no duration or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Empty,
    Negative,
    MissingUnit,
    UnknownUnit,
    Order,
    NotANumber,
    TooLarge,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty",
            Self::Negative => "is negative",
            Self::MissingUnit => "has no unit",
            Self::UnknownUnit => "has an unknown unit",
            Self::Order => "must name each unit once, the largest first",
            Self::NotANumber => "begins with no whole number",
            Self::TooLarge => "is too large",
        })
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h30m`, `24h`, `30d`, `1w`.
pub(crate) fn duration(text: &str) -> Result<Duration, Unreadable> {
    let mut rest = refuse_sign(text)?;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (amount, after) = number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(Unreadable::MissingUnit);
        }
        let at = UNITS.iter().position(|(name, _)| *name == unit).ok_or(Unreadable::UnknownUnit)?;
        if at < next_unit {
            return Err(Unreadable::Order);
        }
        next_unit = at + 1;
        total = amount.checked_mul(UNITS[at].1).and_then(|ms| total.checked_add(ms)).ok_or(Unreadable::TooLarge)?;
        rest = after;
    }
    let total = Duration::from_millis(total);
    if total > LONGEST { Err(Unreadable::TooLarge) } else { Ok(total) }
}

/// Reads `1MB`, `64KB`, `10 MiB`, `4096`; all units are powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, Unreadable> {
    let (amount, unit) = number(refuse_sign(text)?)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or(Unreadable::UnknownUnit)?;
    amount.checked_mul(*factor).filter(|bytes| *bytes <= 1 << 40).ok_or(Unreadable::TooLarge)
}

/// A text that [`duration`] reads as `value`; below a millisecond is lost.
pub(crate) fn written(value: Duration) -> String {
    let total = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    // One unit reads best, the way the documentation writes it: 60s, 24h, 30d, and no weeks.
    let fits = |(name, ms): &&(&str, u64)| {
        let least = if matches!(*name, "d" | "m") { 2 * ms } else { *ms };
        total >= least && total.is_multiple_of(*ms)
    };
    let unit = UNITS.iter().skip(1).find(fits).unwrap_or(&("s", 1_000));
    format!("{}{}", total / unit.1, unit.0)
}

fn refuse_sign(text: &str) -> Result<&str, Unreadable> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    if text.starts_with('-') { Err(Unreadable::Negative) } else { Ok(text) }
}

fn number(text: &str) -> Result<(u64, &str), Unreadable> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || rest.starts_with('.') {
        return Err(Unreadable::NotANumber);
    }
    Ok((digits.parse().map_err(|_| Unreadable::TooLarge)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-26: the units that are accepted, and those that are not.
    #[test]
    fn durations_are_read_strictly() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("1w", 604_800_000),
            ("0s", 0),
            (" 1m ", 60_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, why) in [
            ("", Unreadable::Empty),
            ("-5s", Unreadable::Negative),
            ("60", Unreadable::MissingUnit),
            ("1h30", Unreadable::MissingUnit),
            ("5 m", Unreadable::MissingUnit),
            ("5y", Unreadable::UnknownUnit),
            ("5M", Unreadable::UnknownUnit),
            ("1m1h", Unreadable::Order),
            ("1m1m", Unreadable::Order),
            ("s", Unreadable::NotANumber),
            ("1.5h", Unreadable::NotANumber),
            ("99999999999999999999s", Unreadable::TooLarge),
            ("18446744073709551615w", Unreadable::TooLarge),
            ("3651d", Unreadable::TooLarge),
        ] {
            assert_eq!(duration(text), Err(why), "{text}");
        }
    }

    /// CFG-26: sizes are powers of 1024.
    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("1MB", 1 << 20), ("1 MB", 1 << 20), ("64KB", 64 << 10), ("10MiB", 10 << 20), ("4096", 4096), ("7b", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("1TB"), Err(Unreadable::UnknownUnit));
        assert_eq!(size("-1"), Err(Unreadable::Negative));
        assert_eq!(size("1.5MB"), Err(Unreadable::NotANumber));
        assert_eq!(size("99999999999GB"), Err(Unreadable::TooLarge));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (ms, text) in [
            (500, "500ms"),
            (60_000, "60s"),
            (120_000, "2m"),
            (5_400_000, "90m"),
            (86_400_000, "24h"),
            (604_800_000, "7d"),
            (0, "0s"),
            (61_001, "61001ms"),
        ] {
            assert_eq!(written(Duration::from_millis(ms)), text);
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
    }
}
