//! An untyped document that knows where each of its values was written.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::{YamlError, options, refuse_oversize};

/// A document read without knowing its shape.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The document; an empty one is `null`.
    pub value: Value,
    positions: BTreeMap<String, (u64, u64)>,
}

impl Document {
    /// Line and column, from 1, of what `path` names, such as `plugins.echo.parallelism` or
    /// `pipelines.backup.steps[2].uses`.
    ///
    /// A scalar's own position; of a map or list under a key the position of that key, since the value begins on a
    /// later line. The empty path names the whole document. A value that came through an alias has the alias's
    /// position; one that a merge brought in has the position where it was written.
    #[must_use]
    pub fn position(&self, path: &str) -> Option<(u64, u64)> {
        self.positions.get(path).copied()
    }
}

/// Reads one document of any shape.
///
/// Keys become text. Numbers are what JSON can hold exactly; others are errors that ask for quotes.
///
/// # Errors
/// The first fault with its position.
pub fn load_value(text: &str) -> Result<Document, YamlError> {
    refuse_oversize(text)?;
    let read = serde_saphyr::from_str_with_options::<Option<Spanned<Node>>>(text, options());
    let Some(root) = read.map_err(YamlError::from)? else { return Ok(Document::default()) };
    let mut positions = BTreeMap::new();
    let at = root.referenced;
    let value = flatten(root.value, String::new(), at, &mut positions);
    Ok(Document { value, positions })
}

/// A value before its positions were taken out of it.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

fn flatten(node: Node, path: String, at: Location, positions: &mut BTreeMap<String, (u64, u64)>) -> Value {
    let value = match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let items = items.into_iter().enumerate();
            Value::Array(
                items.map(|(i, n)| flatten(n.value, format!("{path}[{i}]"), n.referenced, positions)).collect(),
            )
        }
        Node::Map(entries) => {
            let mut map = Map::new();
            for (key, child) in entries {
                let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                let at = match child.value {
                    Node::Scalar(_) => child.referenced,
                    Node::List(_) | Node::Map(_) => key.referenced,
                };
                let value = flatten(child.value, path, at, positions);
                map.insert(key.value, value);
            }
            Value::Object(map)
        }
    };
    positions.insert(path, (at.line(), at.column()));
    value
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Err(E::custom(format_args!("the number {value} is too large; quote it to keep it as text")))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Err(E::custom(format_args!("the number {value} is too large; quote it to keep it as text")))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        match Number::from_f64(value) {
            // Beyond 2^53 a float without a fraction is an integer that lost its last digits.
            Some(number) if value.abs() < 9_007_199_254_740_992.0 => Ok(Node::Scalar(number.into())),
            _ => Err(E::custom("this number can't be held exactly; quote it to keep it as text")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_path_has_its_line_and_column() {
        let text = "plugins:\n  echo:\n    parallelism: 99\n    config: {a: 1}\npipelines:\n  backup:\n    steps:\n      - id: a\n      - id: b\n      - id: c\n        uses: echo\n";
        let document = load_value(text).expect("valid");
        assert_eq!(document.position("plugins.echo.parallelism"), Some((3, 18)));
        assert_eq!(document.position("plugins.echo"), Some((2, 3)));
        assert_eq!(document.position("plugins.echo.config.a"), Some((4, 17)));
        assert_eq!(document.position("pipelines.backup.steps[2].uses"), Some((11, 15)));
        assert_eq!(document.position("pipelines.backup.steps[2]"), Some((10, 9)));
        assert_eq!(document.position(""), Some((1, 1)));
        assert_eq!(document.position("plugins.nothing"), None);
        assert_eq!(document.value["pipelines"]["backup"]["steps"][2]["uses"], "echo");
    }

    #[test]
    fn scalars_keep_what_was_written() {
        let text = "a: 0755\nb: 010\nc: 1_000\nd: on\ne: yes\nf: true\ng: ~\nh: 1.5\ni: '5'\nj: -3\nk: 2026-01-01\nl: 12:30\nm: 1e3\n";
        let value = load_value(text).expect("valid").value;
        let expected = json!({"a": "0755", "b": "010", "c": "1_000", "d": "on", "e": "yes", "f": true, "g": null,
            "h": 1.5, "i": "5", "j": -3, "k": "2026-01-01", "l": "12:30", "m": 1000.0});
        assert_eq!(value, expected);
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_errors_with_a_position() {
        for text in
            ["x:\n  n: 123456789012345678901234567890\n", "x:\n  n: 1e400\n", "x:\n  n: .inf\n", "x:\n  n: .nan\n"]
        {
            let error = load_value(text).expect_err(text);
            assert_eq!(error.line, Some(2), "{text}: {error:?}");
        }
    }

    #[test]
    fn merged_and_aliased_values_have_positions_too() {
        let text = "base: &b\n  retries: 3\nuse:\n  <<: *b\n  name: x\nagain: *b\n";
        let document = load_value(text).expect("valid");
        assert_eq!(document.value["use"], json!({"retries": 3, "name": "x"}));
        assert_eq!(document.value["again"], json!({"retries": 3}));
        assert!(document.position("use.retries").is_some());
        assert_eq!(document.position("again"), Some((6, 1)));
        assert!(document.position("again.retries").is_some());
    }

    #[test]
    fn keys_are_text_and_an_empty_document_is_null() {
        assert_eq!(load_value("1: a\ntrue: b\n").expect("valid").value, json!({"1": "a", "true": "b"}));
        assert_eq!(load_value("").expect("valid").value, Value::Null);
        assert_eq!(load_value("# only a comment\n").expect("valid").value, Value::Null);
    }

    #[test]
    fn unknown_tags_are_refused() {
        assert!(load_value("a: !env SECRET\n").is_err());
        assert_eq!(load_value("a: !!str 5\n").expect("valid").value, json!({"a": "5"}));
    }

    #[test]
    fn a_reference_to_a_variable_stays_as_written() {
        assert_eq!(load_value("a: ${HOME}\nb: \"$$x\"\n").expect("valid").value, json!({"a": "${HOME}", "b": "$$x"}));
    }
}
