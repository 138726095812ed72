//! Fills the merged document with the settings that nobody wrote, for `config show`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::{Content, Filled, Node, Origin};
use crate::units;

/// A value that stands in no file.
pub(crate) struct Shown;

impl Shown {
    pub(crate) fn text(value: &str) -> Content {
        Content::Text(value.to_owned())
    }

    pub(crate) fn duration(value: Duration) -> Content {
        Content::Text(units::written(value))
    }

    pub(crate) fn number(value: u64) -> Content {
        Content::Number(value.into())
    }

    pub(crate) fn boolean(value: bool) -> Content {
        Content::Bool(value)
    }
}

const NOWHERE: Origin = Origin { file: usize::MAX, line: 0, column: 0 };

fn default(content: Content) -> Node {
    Node { content, origin: NOWHERE, filled: Filled::AsWritten }
}

/// The map under a key, made when it is absent or of another shape.
pub(crate) fn map<'a>(keys: &'a mut BTreeMap<String, Node>, key: &str) -> &'a mut BTreeMap<String, Node> {
    let node = keys.entry(key.to_owned()).or_insert_with(|| default(Content::Map(BTreeMap::new())));
    if !matches!(node.content, Content::Map(_)) {
        *node = default(Content::Map(BTreeMap::new()));
    }
    match &mut node.content {
        Content::Map(map) => map,
        _ => unreachable!("made a map just above"),
    }
}

/// Sets a key that is absent or null; what was written stays as written.
pub(crate) fn fill(keys: &mut BTreeMap<String, Node>, key: &str, content: Content) {
    let is_absent = keys.get(key).is_none_or(|node| matches!(node.content, Content::Null));
    if is_absent {
        keys.insert(key.to_owned(), default(content));
    }
}
