//! Joins the files into one document: maps merge at every depth, a later scalar wins, few lists append.

use std::collections::BTreeMap;

use ductile_domain::problem::Problem;

use crate::findings::Findings;
use crate::node::{Content, Node, join};

/// The only lists that grow from file to file; any other is replaced by the later file.
const APPENDED: [&str; 7] =
    ["pipelines", "routes", "instances", "tokens", "webhooks.endpoints", "remote_ingress.peers", "api.auth.tokens"];

/// Brings the two shapes that one file may choose into the one that merging and typing know.
pub(crate) fn normalize(root: &mut BTreeMap<String, Node>, findings: &mut Findings) {
    if let Some(node) = root.get_mut("webhooks")
        && matches!(node.content, Content::List(_))
    {
        let list = node.clone();
        node.content = Content::Map(BTreeMap::from([("endpoints".to_owned(), list)]));
    }
    if let Some(database) = root.remove("database") {
        match root.remove("state") {
            None => {
                root.insert("state".to_owned(), database);
            }
            Some(state) => {
                let problem = Problem::warning("unused", "`database` is another name of `state`; `state` wins")
                    .at_path("database")
                    .hint("keep one of the two");
                findings.add(problem, database.origin);
                root.insert("state".to_owned(), merge(database, state, "state"));
            }
        }
    }
}

/// `later` over `earlier`.
pub(crate) fn merge(earlier: Node, later: Node, path: &str) -> Node {
    match (earlier.content, later.content) {
        (Content::Map(mut map), Content::Map(newer)) => {
            for (key, node) in newer {
                let merged = match map.remove(&key) {
                    Some(old) => merge(old, node, &join(path, &key)),
                    None => node,
                };
                map.insert(key, merged);
            }
            Node { content: Content::Map(map), origin: earlier.origin, filled: earlier.filled }
        }
        (Content::List(mut list), Content::List(newer)) if APPENDED.contains(&path) => {
            list.extend(newer);
            Node { content: Content::List(list), origin: earlier.origin, filled: earlier.filled }
        }
        // A key whose block was commented out stands for nothing, not for the removal of the earlier block.
        (content @ (Content::Map(_) | Content::List(_)), Content::Null) => {
            Node { content, origin: earlier.origin, filled: earlier.filled }
        }
        (_, content) => Node { content, origin: later.origin, filled: later.filled },
    }
}
