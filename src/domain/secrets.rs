//! What may not be shown of compiled pipelines and routes: texts that the sanitized configuration replaces.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::Config;

/// What stands in the place of a secret, here as in the sanitized document.
const REDACTED: &str = "[REDACTED]";

/// A shorter text is replaced where it stands alone only: as a part of others it would garble ordinary words.
const SHORTEST_PART: usize = 8;

/// The texts of pipelines and routes that came from the environment or stand under a suspicious key. Its `Debug` only
/// counts them.
#[derive(Default)]
pub struct Secrets {
    texts: Vec<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("texts", &self.texts.len()).finish()
    }
}

impl Secrets {
    /// Compares what was compiled with what may be shown of it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut texts = Vec::new();
        for (key, compiled) in [("pipelines", &config.pipelines), ("routes", &config.routes)] {
            let shown = config.source.sanitized.get(key).and_then(Value::as_array);
            for (at, entry) in compiled.iter().enumerate() {
                collect(entry, shown.and_then(|shown| shown.get(at)), &mut texts);
            }
        }
        // A rendered template shows what stands between its references, and never the template.
        let rendered: Vec<String> = texts.iter().flat_map(|text| between_references(text)).collect();
        texts.extend(rendered.into_iter().filter(|part| part.trim().len() >= SHORTEST_PART));
        texts.retain(|text| !text.is_empty());
        texts.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        Self { texts }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// True when one of them stands in the value where [`Secrets::redact`] would replace it.
    #[must_use]
    pub fn are_in(&self, value: &RawValue) -> bool {
        // What can't be read can't be looked through either.
        let Ok(value) = serde_json::from_str::<Value>(value.get()) else { return true };
        let mut shown = value.clone();
        self.redact(&mut shown);
        shown != value
    }

    /// The value without them; names of fields are the author's and stay.
    pub fn redact(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if self.texts.iter().any(|secret| secret == text) {
                    *text = REDACTED.to_owned();
                }
                for secret in self.texts.iter().filter(|secret| secret.len() >= SHORTEST_PART) {
                    if text.contains(secret.as_str()) {
                        *text = text.replace(secret.as_str(), REDACTED);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.redact(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// The literal parts of a text that is a template: `at x: ` of `at x: {payload.y}`. Doubled braces are single ones.
fn between_references(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_doubled = matches!(c, '{' | '}') && chars.next_if_eq(&c).is_some();
        if c == '{' && !is_doubled {
            chars.by_ref().find(|c| *c == '}');
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// Collects the texts of `compiled` that are not the same in `shown`. What has no counterpart there is a secret.
fn collect(compiled: &Value, shown: Option<&Value>, texts: &mut Vec<String>) {
    match compiled {
        Value::String(text) if shown.and_then(Value::as_str) != Some(text) => texts.push(text.clone()),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, shown.and_then(|shown| shown.get(at)), texts);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                collect(field, shown.and_then(|shown| shown.get(key)), texts);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_known_by_what_stands_between_its_references() {
        assert_eq!(between_references("at x: {payload.y}, {{z}}{context.a}!"), ["at x: ", ", {z}", "!"]);
        assert_eq!(between_references("plain"), ["plain"]);
        assert_eq!(between_references("{open"), ["", ""]);
    }

    #[test]
    fn what_differs_from_the_sanitized_document_is_taken_out_wherever_it_stands() {
        let mut texts = Vec::new();
        let compiled =
            json!([{"name": "p", "steps": [{"uses": "say", "with": {"a": "hush-hush", "b": "pin", "c": "open"}}]}]);
        let shown = json!([{"name": "p", "steps": [{"uses": "say", "with": {"a": "[REDACTED]", "c": "open"}}]}]);
        collect(&compiled, Some(&shown), &mut texts);
        let secrets = Secrets { texts };
        let mut value = json!({"hush-hush": ["so hush-hush it is", "pin", "a pin", "open", 3]});
        secrets.redact(&mut value);
        assert_eq!(value, json!({"hush-hush": ["so [REDACTED] it is", "[REDACTED]", "a pin", "open", 3]}));
        assert!(!format!("{secrets:?}").contains("hush"));
    }
}
