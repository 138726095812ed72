//! Durations as people write them in a pipeline, in the words of the rest of the configuration.

use std::time::Duration;

const UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest that is accepted: ten years.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Reads `500ms`, `30s`, `5m`, `1h30m`: each unit once, the largest first.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let (mut total, mut next) = (0_u64, 0);
    while !rest.is_empty() {
        let (amount, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, behind) = behind.split_at(behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len()));
        let at = UNITS.iter().position(|(name, _)| *name == unit).filter(|at| *at >= next)?;
        next = at + 1;
        total = total.checked_add(amount.parse::<u64>().ok()?.checked_mul(UNITS[at].1)?)?;
        rest = behind;
    }
    Some(Duration::from_millis(total)).filter(|total| next > 0 && *total <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_read_as_elsewhere_in_the_configuration() {
        for (text, ms) in
            [("500ms", 500), (" 30s ", 30_000), ("3m", 180_000), ("1h30m", 5_400_000), ("1w", 604_800_000)]
        {
            assert_eq!(parse(text).map(|d| d.as_millis()), Some(ms), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "1s1m", "1s 1ms", "1y", "1m1m", "99999999999999999999s", "600w"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
