//! The merged document: a tree whose every value remembers the file and line that it was written in.

use std::collections::BTreeMap;

use ductile_yaml::Document;
use serde_json::{Number, Value};

/// Where a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Index into the list of files.
    pub(crate) file: usize,
    /// From 1; 0 when unknown.
    pub(crate) line: usize,
    /// From 1; 0 when unknown.
    pub(crate) column: usize,
}

/// How a text came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// As it stands in the file.
    AsWritten,
    /// Interpolated, with defaults from the file only.
    FromDefault,
    /// Interpolated with at least one value of the environment; must never be shown.
    FromEnvironment,
    /// Names a variable that is not defined; counts as absent.
    Undefined,
}

/// One value.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) origin: Origin,
    pub(crate) filled: Filled,
}

/// What a value is.
#[derive(Clone)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    /// The tree of one file; `file` is its index in the list of files.
    pub(crate) fn read(document: Document, file: usize) -> Self {
        let mut document = document;
        let value = std::mem::take(&mut document.value);
        let root = Origin { file, line: 1, column: 1 };
        build(value, "", root, &document)
    }

    /// What the user may see of the value in a message.
    pub(crate) fn shown(&self) -> String {
        if self.filled == Filled::FromEnvironment {
            return "the value from the environment".to_owned();
        }
        match &self.content {
            Content::Null => "null".to_owned(),
            Content::Bool(value) => value.to_string(),
            Content::Number(value) => value.to_string(),
            Content::Text(value) => format!("{value:?}"),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
        }
    }

    /// What it is, without its value, which may be a secret that stands in the wrong place.
    pub(crate) fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// The entries of a map.
    pub(crate) fn map(&self) -> Option<&BTreeMap<String, Self>> {
        match &self.content {
            Content::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The text of a text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The plain value without origins.
    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::from(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::from(value.as_str()),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
        }
    }

    /// Calls `visit` for this value and all beneath it, with their paths.
    pub(crate) fn walk(&self, path: &str, visit: &mut impl FnMut(&str, &Self)) {
        visit(path, self);
        match &self.content {
            Content::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.walk(&format!("{path}[{i}]"), visit);
                }
            }
            Content::Map(map) => {
                for (key, child) in map {
                    child.walk(&join(path, key), visit);
                }
            }
            _ => {}
        }
    }
}

/// `path.key`, as in [`Document::position`].
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn build(value: Value, path: &str, parent: Origin, document: &Document) -> Node {
    let origin = match document.position(path) {
        Some((line, column)) => Origin {
            file: parent.file,
            line: usize::try_from(line).unwrap_or(0),
            column: usize::try_from(column).unwrap_or(0),
        },
        None => parent,
    };
    let content = match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(value),
        Value::Number(value) => Content::Number(value),
        Value::String(value) => Content::Text(value),
        Value::Array(items) => {
            let items = items.into_iter().enumerate();
            Content::List(items.map(|(i, v)| build(v, &format!("{path}[{i}]"), origin, document)).collect())
        }
        Value::Object(map) => {
            let entries = map.into_iter();
            Content::Map(
                entries
                    .map(|(key, v)| {
                        let node = build(v, &join(path, &key), origin, document);
                        (key, node)
                    })
                    .collect(),
            )
        }
    };
    Node { content, origin, filled: Filled::AsWritten }
}
