//! How two JSON numbers compare: by the decimal digits that were written, never by what a float makes of them.

use std::cmp::Ordering;

/// Exponents beyond this are taken as this: no digits that fit in memory reach it.
const MAX_EXPONENT: i64 = 1 << 60;

/// A number as sign, digits without zeros at their ends, and the place of the first digit.
#[derive(Debug, PartialEq, Eq)]
struct Decimal<'a> {
    is_negative: bool,
    /// The digits before and behind the point, trimmed together.
    whole: &'a [u8],
    fraction: &'a [u8],
    /// The value is `0.<digits> * 10^place`.
    place: i64,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a str) -> Self {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_zero = |byte: &&u8| **byte == b'0';
        let (mut whole, mut fraction) = (whole.as_bytes(), fraction.as_bytes());
        whole = &whole[whole.iter().take_while(is_zero).count()..];
        fraction = &fraction[..fraction.len() - fraction.iter().rev().take_while(is_zero).count()];
        let mut place = exponent_of(exponent).saturating_add(i64::try_from(whole.len()).unwrap_or(MAX_EXPONENT));
        if whole.is_empty() {
            let zeros = fraction.iter().take_while(is_zero).count();
            fraction = &fraction[zeros..];
            place = place.saturating_sub(i64::try_from(zeros).unwrap_or(MAX_EXPONENT));
        }
        if fraction.is_empty() {
            whole = &whole[..whole.len() - whole.iter().rev().take_while(is_zero).count()];
        }
        if whole.is_empty() && fraction.is_empty() {
            return Self { is_negative: false, whole, fraction, place: 0 };
        }
        Self { is_negative, whole, fraction, place }
    }

    fn sign(&self) -> i8 {
        match (self.whole.is_empty() && self.fraction.is_empty(), self.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.whole.iter().chain(self.fraction)
    }
}

fn exponent_of(text: &str) -> i64 {
    let (is_negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    // Only a number of too many digits fails to parse.
    let size = digits.parse::<i64>().unwrap_or(MAX_EXPONENT).min(MAX_EXPONENT);
    if is_negative { -size } else { size }
}

/// Compares two numbers as JSON writes them, exactly: `1` is `1.0` is `10e-1`.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Decimal::read(a), Decimal::read(b));
    let by_sign = a.sign().cmp(&b.sign());
    if by_sign != Ordering::Equal || a.sign() == 0 {
        return by_sign;
    }
    let by_size = a.place.cmp(&b.place).then_with(|| a.digits().cmp(b.digits()));
    if a.is_negative { by_size.reverse() } else { by_size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_their_value_and_not_by_their_spelling() {
        let ascending: &[&[&str]] = &[
            &["-1e99999999999999999999"],
            &["-12345678901234567890124"],
            &["-12345678901234567890123", "-1.2345678901234567890123e22"],
            &["-2", "-2.0", "-0.2e1", "-20E-1"],
            &["-1.10", "-1.1"],
            &["-1e-400"],
            &["0", "-0", "0.0", "-0e5", "0.000e-999999999999999999999"],
            &["1e-400"],
            &["0.01", "1e-2", "0.1e-1", "0.010"],
            &["0.1", "1e-1", "0.10"],
            &["0.1000000000000000055511151231257827"],
            &["1", "1.0", "10e-1", "0.0001e4", "1e+0"],
            &["9.99"],
            &["10", "1e1", "1E01"],
            &["9007199254740992"],
            &["9007199254740993", "9007199254740993.000"],
            &["12345678901234567890123"],
            &["12345678901234567890124"],
            &["1e400"],
            &["1e99999999999999999999"],
        ];
        for (i, lower) in ascending.iter().enumerate() {
            for (j, higher) in ascending.iter().enumerate() {
                for a in *lower {
                    for b in *higher {
                        assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
                    }
                }
            }
        }
    }
}
