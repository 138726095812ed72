//! JSON texts as they arrived, walked without building a tree: numbers, key order and spelling survive.
//!
//! Nothing here recurses, so no nesting is too deep. A name that stands twice in an object means its last value, as
//! everywhere else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

/// A value inside a valid JSON text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl Kind {
    /// The kind with its article, for messages: `a text`.
    #[must_use]
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }

    /// The kind of a value in a tree.
    #[must_use]
    pub const fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get().trim_ascii())
    }
}

impl<'a> Raw<'a> {
    /// `null`.
    pub const NULL: Raw<'static> = Raw("null");
    /// An object without members.
    pub const EMPTY: Raw<'static> = Raw("{}");

    /// The text as it was written.
    #[must_use]
    pub const fn get(self) -> &'a str {
        self.0
    }

    /// A copy that stands alone.
    #[must_use]
    pub fn to_raw_value(self) -> Box<RawValue> {
        raw_value(self.0.to_owned())
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::List,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// The characters of a text; `None` for anything else. Half of a surrogate pair reads as U+FFFD.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.spelling().map(decode)
    }

    /// What stands between the quotes of a text, escapes and all.
    #[must_use]
    pub fn spelling(self) -> Option<&'a str> {
        self.0.strip_prefix('"')?.strip_suffix('"')
    }

    /// The members of an object in their order, with names decoded; empty for anything else.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Raw<'a>)> {
        let mut walk = Walk::new(self, Kind::Object);
        std::iter::from_fn(move || {
            let key = walk.next_value()?;
            let value = walk.next_value()?;
            Some((key.text()?, value))
        })
    }

    /// The members of an object, each name once with its last value, in the order of first appearance.
    #[must_use]
    pub fn unique_members(self) -> Vec<(Cow<'a, str>, Raw<'a>)> {
        let mut members: Vec<(Cow<'a, str>, Raw<'a>)> = Vec::new();
        let mut places: BTreeMap<Cow<'a, str>, usize> = BTreeMap::new();
        for (key, value) in self.members() {
            if let Some((_, old)) = places.get(&key).and_then(|at| members.get_mut(*at)) {
                *old = value;
            } else {
                places.insert(key.clone(), members.len());
                members.push((key, value));
            }
        }
        members
    }

    /// The elements of a list; empty for anything else.
    pub fn elements(self) -> impl Iterator<Item = Raw<'a>> {
        let mut walk = Walk::new(self, Kind::List);
        std::iter::from_fn(move || walk.next_value())
    }

    /// The value of one name of an object, or of one index of a list.
    #[must_use]
    pub fn child(self, segment: &str) -> Option<Raw<'a>> {
        match self.kind() {
            Kind::Object => self.members().filter(|(key, _)| key == segment).last().map(|(_, value)| value),
            Kind::List => self.elements().nth(index(segment)?),
            _ => None,
        }
    }

    /// How many brackets stand around the innermost value; 0 for a scalar.
    #[must_use]
    pub fn nesting(self) -> usize {
        let (mut depth, mut deepest, mut at) = (0usize, 0, 0);
        let bytes = self.0.as_bytes();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = end_of_text(bytes, at) - 1,
                b'{' | b'[' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        deepest
    }

    /// The text without the spaces between its values.
    #[must_use]
    pub fn compact(self) -> String {
        let bytes = self.0.as_bytes();
        let mut out = String::with_capacity(self.0.len());
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let end = if *byte == b'"' { end_of_text(bytes, at) } else { at + 1 };
            if !byte.is_ascii_whitespace() {
                out.push_str(self.0.get(at..end).unwrap_or_default());
            }
            at = end;
        }
        out
    }
}

/// The index of a list that a segment of a path names; `01` and `-1` name none.
#[must_use]
pub fn index(segment: &str) -> Option<usize> {
    let is_canonical = segment == "0" || !segment.starts_with(['0', '+']);
    if is_canonical { segment.parse().ok() } else { None }
}

/// An object whose members can be replaced, in their order.
#[derive(Debug, Clone, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    places: BTreeMap<Cow<'a, str>, usize>,
}

impl<'a> Object<'a> {
    /// The members of a JSON object; `None` when the value is none.
    #[must_use]
    pub fn read(value: Raw<'a>) -> Option<Self> {
        if value.kind() != Kind::Object {
            return None;
        }
        let mut object = Self::default();
        for (key, value) in value.members() {
            object.put(key, Cow::Borrowed(value.0));
        }
        Some(object)
    }

    fn put(&mut self, key: Cow<'a, str>, value: Cow<'a, str>) {
        if let Some((_, old)) = self.places.get(&key).and_then(|at| self.members.get_mut(*at)) {
            *old = value;
        } else {
            self.places.insert(key.clone(), self.members.len());
            self.members.push((key, value));
        }
    }

    /// Adds a member or replaces its value in place.
    pub fn set(&mut self, key: impl Into<Cow<'a, str>>, value: &RawValue) {
        self.put(key.into(), Cow::Owned(value.get().to_owned()));
    }

    /// Like [`Object::set`], for a value that lives as long as the object's own.
    pub fn set_raw(&mut self, key: impl Into<Cow<'a, str>>, value: Raw<'a>) {
        self.put(key.into(), Cow::Borrowed(value.0));
    }

    /// Like [`Object::set`], for a value of the gateway's own making.
    pub fn set_value(&mut self, key: impl Into<Cow<'a, str>>, value: &Value) {
        self.put(key.into(), Cow::Owned(value.to_string()));
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Raw<'_>> {
        let at = *self.places.get(key)?;
        self.members.get(at).map(|(_, value)| Raw(value))
    }

    /// True when the object has the name.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) {
        let Some(at) = self.places.remove(key) else { return };
        self.members.remove(at);
        for place in self.places.values_mut().filter(|place| **place > at) {
            *place -= 1;
        }
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Raw<'_>)> {
        self.members.iter().map(|(key, value)| (&**key, Raw(value)))
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True without members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The object as JSON without spaces between members; the values are as they were written.
    #[must_use]
    pub fn to_raw_value(&self) -> Box<RawValue> {
        let size = self.members.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>();
        let mut out = String::with_capacity(size + 2);
        out.push('{');
        for (at, (key, value)) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&quoted(key));
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        raw_value(out)
    }
}

/// A text as JSON writes it, with its quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Takes text that is JSON by construction.
pub(crate) fn raw_value(json: String) -> Box<RawValue> {
    RawValue::from_string(json).expect("composed of valid JSON values")
}

/// Steps over the values that stand directly inside an object or a list.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(value: Raw<'a>, kind: Kind) -> Self {
        let at = if value.kind() == kind { 1 } else { value.0.len() };
        Self { text: value.0, at }
    }

    fn next_value(&mut self) -> Option<Raw<'a>> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(|b| b.is_ascii_whitespace() || matches!(b, b',' | b':')) {
            self.at += 1;
        }
        if matches!(bytes.get(self.at)?, b'}' | b']') {
            self.at = bytes.len();
            return None;
        }
        let end = end_of_value(bytes, self.at);
        let value = self.text.get(self.at..end)?;
        self.at = end;
        Some(Raw(value))
    }
}

/// Where a value that begins at `at` ends.
fn end_of_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_text(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            _ => {
                while bytes.get(at).is_some_and(|b| !b.is_ascii_whitespace() && !matches!(b, b',' | b'}' | b']')) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Where a text that begins with the quote at `at` ends, behind its last quote.
fn end_of_text(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The characters that a spelling stands for.
fn decode(spelling: &str) -> Cow<'_, str> {
    let Some(first) = spelling.find('\\') else { return Cow::Borrowed(spelling) };
    let mut out = String::with_capacity(spelling.len());
    let (head, mut rest) = spelling.split_at(first);
    out.push_str(head);
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else { break };
        rest = &rest[letter.len_utf8()..];
        match letter {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'u' => {
                let (character, left) = unicode(rest);
                out.push(character);
                rest = left;
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Reads the four digits behind `\u`, and those of the low surrogate that completes them.
fn unicode(rest: &str) -> (char, &str) {
    let Some((high, left)) = four_digits(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    if let Some((low, behind)) = left.strip_prefix("\\u").and_then(four_digits)
        && let (0xD800..0xDC00, 0xDC00..0xE000) = (high, low)
        && let Some(character) = char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    {
        return (character, behind);
    }
    (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), left)
}

fn four_digits(rest: &str) -> Option<(u32, &str)> {
    let (digits, left) = rest.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("valid JSON")
    }

    #[test]
    fn members_and_elements_are_found_as_they_were_written() {
        let value = raw(r#" { "a" : 1.10 , "b":[ 1 ,[2,{"x":"]}"}], "t" ], "c":{"d":null}, "a\u0062" : true } "#);
        let value = Raw::from(&*value);
        assert_eq!(value.child("a").map(Raw::get), Some("1.10"));
        assert_eq!(value.child("ab").map(Raw::get), Some("true"));
        assert_eq!(value.child("c").and_then(|c| c.child("d")).map(Raw::get), Some("null"));
        let list = value.child("b").expect("present");
        assert_eq!(list.elements().map(Raw::get).collect::<Vec<_>>(), ["1", r#"[2,{"x":"]}"}]"#, r#""t""#]);
        assert_eq!(list.child("2").map(Raw::get), Some(r#""t""#));
        for none in ["3", "-1", "01", "+1", "a", "", "99999999999999999999"] {
            assert_eq!(list.child(none), None, "{none:?}");
        }
        assert_eq!(value.nesting(), 4);
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        let value = raw(r#"{"a":1,"b":2,"a":3}"#);
        assert_eq!(Raw::from(&*value).child("a").map(Raw::get), Some("3"));
        let object = Object::read(Raw::from(&*value)).expect("an object");
        assert_eq!(object.to_raw_value().get(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn an_object_keeps_order_and_spelling_when_members_change() {
        let value = raw(r#"{"z":12345678901234567890123,"k":1.10,"a":"\u00e9"}"#);
        let mut object = Object::read(Raw::from(&*value)).expect("an object");
        object.set("k", &raw("2"));
        object.set_value("new \"name\"", &Value::from("x"));
        object.remove("z");
        assert!(object.has("a") && !object.has("z") && object.len() == 3);
        assert_eq!(object.get("a").and_then(Raw::text).as_deref(), Some("é"));
        assert_eq!(object.to_raw_value().get(), r#"{"k":2,"a":"\u00e9","new \"name\"":"x"}"#);
        assert!(Object::read(Raw::NULL).is_none());
    }

    #[test]
    fn texts_are_decoded_even_where_half_a_pair_is_missing() {
        for (spelling, text) in [
            (r#""a\"\\\/\n\t\r\b\f""#, "a\"\\/\n\t\r\u{8}\u{c}"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83dx""#, "\u{FFFD}x"),
            (r#""\udc80\u0041""#, "\u{FFFD}A"),
            (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}😀"),
            (r#""plain""#, "plain"),
        ] {
            let value = raw(spelling);
            assert_eq!(Raw::from(&*value).text().as_deref(), Some(text), "{spelling}");
        }
        assert_eq!(Raw::NULL.text(), None);
    }

    #[test]
    fn compact_texts_keep_spaces_inside_texts_only() {
        let value = raw("{ \"a b\" : [ 1.10 , \" x \" ] ,\n\"c\":\tnull }");
        assert_eq!(Raw::from(&*value).compact(), r#"{"a b":[1.10," x "],"c":null}"#);
    }

    #[test]
    fn a_million_brackets_are_walked_without_a_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let value = raw(&deep);
        let value = Raw::from(&*value);
        assert_eq!(value.nesting(), 1_000_001);
        assert_eq!(value.child("a").map(|a| a.get().len()), Some(2_000_000));
        assert_eq!(value.compact().len(), deep.len());
    }
}
