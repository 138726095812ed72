//! The document without its secrets, for snapshots and views.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::node::{Content, Filled, Node, join};

/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "[REDACTED]";

/// A shorter value is no secret worth finding, and replacing it would garble ordinary words.
const SHORTEST_SECRET: usize = 8;

const SUSPICIOUS: [&str; 7] = ["secret", "key", "token", "passw", "credential", "webhook_url", "authorization"];

/// Names that only refer to a secret, or say how one is used.
const HARMLESS: [&str; 4] = ["secret_ref", "key_id", "require_key_id", "dedupe_key"];

/// The document with secrets replaced: what stands under a suspicious key, every place where such a value stands again,
/// and what came from the environment (but not its repetitions: `${HOME}` is the beginning of every other path).
pub(crate) fn document(root: &BTreeMap<String, Node>) -> Value {
    let mut secrets = Vec::new();
    for (key, node) in root {
        collect(node, key, key, false, &mut secrets);
    }
    secrets.retain(|s: &String| s.len() >= SHORTEST_SECRET);
    secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
    secrets.dedup();
    Value::Object(root.iter().map(|(k, n)| (k.clone(), shown(n, k, k, false, &secrets))).collect())
}

/// True for a key under which a secret is to be expected.
fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !HARMLESS.contains(&key.as_str()) && SUSPICIOUS.iter().any(|word| key.contains(word))
}

/// True where the key is a freely chosen name, or where the shape beneath is known and holds more than secrets.
fn is_structure(path: &str, key: &str) -> bool {
    let parent = path.strip_suffix(key).and_then(|p| p.strip_suffix('.')).unwrap_or_default();
    let is_command = parent.starts_with("plugins.") && parent.ends_with(".timeouts");
    matches!(path, "tokens" | "api.auth.tokens") || parent == "plugins" || is_command
}

/// True for what only says where a value is found: a claim of baggage, or a lone `{payload.token}` of a `with`.
fn is_reference(path: &str, node: &Node) -> bool {
    let is_path = |text: &str| ["payload.", "context."].iter().any(|root| text.starts_with(root));
    let Content::Text(text) = &node.content else { return false };
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    path.starts_with("pipelines[")
        && match inner {
            Some(inner) => is_path(inner) && !inner.contains(['{', '}']),
            None => path.contains(".baggage.") && is_path(text),
        }
}

fn collect(node: &Node, path: &str, key: &str, secret: bool, secrets: &mut Vec<String>) {
    let secret = (secret || is_secret_key(key) && !is_structure(path, key)) && !is_reference(path, node);
    match &node.content {
        Content::Map(map) => {
            for (key, child) in map {
                collect(child, &join(path, key), key, secret, secrets);
            }
        }
        Content::List(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(item, &format!("{path}[{i}]"), "", secret || is_bare(item, key), secrets);
            }
        }
        Content::Text(text) if secret => secrets.push(text.clone()),
        _ => {}
    }
}

/// A registry of tokens holds maps; who wrote the bare token there meant a secret all the same.
fn is_bare(item: &Node, key: &str) -> bool {
    item.map().is_none() && is_secret_key(key)
}

fn shown(node: &Node, path: &str, key: &str, secret: bool, secrets: &[String]) -> Value {
    let secret = (secret || is_secret_key(key) && !is_structure(path, key)) && !is_reference(path, node);
    match &node.content {
        Content::Map(map) => {
            let entries = map.iter().map(|(k, n)| (k.clone(), shown(n, &join(path, k), k, secret, secrets)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Content::List(items) => {
            let items = items.iter().enumerate();
            items.map(|(i, n)| shown(n, &format!("{path}[{i}]"), "", secret || is_bare(n, key), secrets)).collect()
        }
        Content::Null | Content::Bool(_) => node.to_json(),
        Content::Number(_) if secret => Value::from(REDACTED),
        Content::Number(_) => node.to_json(),
        Content::Text(_) if secret || node.filled == Filled::FromEnvironment => Value::from(REDACTED),
        Content::Text(text) => Value::from(secrets.iter().fold(text.clone(), |t, s| t.replace(s.as_str(), REDACTED))),
    }
}
