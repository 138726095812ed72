//! When two JSON values are the same: by value, never by spelling.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::number;
use crate::raw::{Kind, Raw};

/// Values nested deeper than this are the same only when they are spelled alike.
pub const MAX_NESTING: usize = 128;

/// True when both are the same value: numbers by their exact value, objects without regard to order. A text is never a
/// number.
#[must_use]
pub fn same(a: Raw<'_>, b: Raw<'_>) -> bool {
    at_depth(a, b, 0)
}

fn at_depth(a: Raw<'_>, b: Raw<'_>, depth: usize) -> bool {
    if a.get() == b.get() {
        return true;
    }
    if a.kind() != b.kind() || depth >= MAX_NESTING {
        return false;
    }
    match a.kind() {
        Kind::Null => true,
        Kind::Boolean => false,
        Kind::Number => number::compare(a.get(), b.get()) == Ordering::Equal,
        Kind::Text => same_text(a, b),
        Kind::List => {
            let (mut left, mut right) = (a.elements(), b.elements());
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return true,
                    (Some(left), Some(right)) if at_depth(left, right, depth + 1) => {}
                    _ => return false,
                }
            }
        }
        Kind::Object => {
            let left: BTreeMap<Cow<'_, str>, Raw<'_>> = a.members().collect();
            let right: BTreeMap<Cow<'_, str>, Raw<'_>> = b.members().collect();
            left.len() == right.len()
                && left
                    .iter()
                    .zip(&right)
                    .all(|((key, left), (other, right))| key == other && at_depth(*left, *right, depth + 1))
        }
    }
}

/// Half a surrogate pair decodes to the same character as any other half: such texts are compared as they are spelled.
fn same_text(a: Raw<'_>, b: Raw<'_>) -> bool {
    match (a.text(), b.text()) {
        (Some(left), Some(right)) => left == right && !left.contains(char::REPLACEMENT_CHARACTER),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("valid JSON")
    }

    /// PIP-17: no coercion, exact numbers.
    #[test]
    fn values_are_the_same_whatever_their_spelling() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        let spaced = |n: usize| format!("{} 1{}", "[".repeat(n), "]".repeat(n));
        for (a, b, expected) in [
            ("1", "1.0", true),
            ("12345678901234567890123", "12345678901234567890124", false),
            ("1", "\"1\"", false),
            ("true", "false", false),
            ("null", "null", true),
            ("null", "false", false),
            (r#""a""#, r#""\u0061""#, true),
            (r#""a""#, r#""A""#, false),
            (r#""\ud800""#, r#""\ud801""#, false),
            (r#""\ud800""#, r#""\ud800""#, true),
            ("[1, 2]", "[1,2.0]", true),
            ("[1,2]", "[2,1]", false),
            ("[1]", "[1,1]", false),
            ("[]", "{}", false),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b":[2.0], "a":1 }"#, true),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#, false),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#, true),
            (&deep(100), &spaced(100), true),
            (&deep(100_000), &spaced(100_000), false),
            (&deep(100_000), &deep(100_000), true),
        ] {
            let (left, right) = (raw(a), raw(b));
            assert_eq!(same(Raw::from(&*left), Raw::from(&*right)), expected, "{a:.40} and {b:.40}");
            assert_eq!(same(Raw::from(&*right), Raw::from(&*left)), expected, "{b:.40} and {a:.40}");
        }
    }
}
