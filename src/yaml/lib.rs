//! The one loader of YAML: strict, bounded, without snippets, and with the position of every value.
//!
//! Policies, fixed here for configuration and manifests alike: duplicate keys are errors, `<<` is merged, only `true`
//! and `false` are booleans, unknown tags are refused, `0755` and `1_000` stay text in untyped documents, numbers that
//! JSON can't hold are errors, and a document that expands past its budget is refused.

mod document;

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy, Options};

pub use document::{Document, load_value};

/// The largest document that is read, in bytes.
pub const LARGEST_DOCUMENT: usize = 4 * 1024 * 1024;

/// Text that is not the YAML that was expected. Never shows lines of the document, for they may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// What is wrong, without the position.
    pub message: String,
    /// Line from 1, when known.
    pub line: Option<u64>,
    /// Column from 1, when known.
    pub column: Option<u64>,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{line}:{column}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for YamlError {}

impl From<serde_saphyr::Error> for YamlError {
    fn from(error: serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let mut message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let at = error.location();
        if let Some(at) = at {
            let suffix = format!(" at line {}, column {}", at.line(), at.column());
            if let Some(short) = message.strip_suffix(&suffix) {
                message = short.to_owned();
            }
        }
        Self { message, line: at.map(|l| l.line()), column: at.map(|l| l.column()) }
    }
}

/// Reads one document into a typed value.
///
/// # Errors
/// The first fault with its position: syntax, a duplicate key, a wrong type, a breached budget.
pub fn load<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    refuse_oversize(text)?;
    serde_saphyr::from_str_with_options(text, options()).map_err(YamlError::from)
}

fn refuse_oversize(text: &str) -> Result<(), YamlError> {
    if text.len() <= LARGEST_DOCUMENT {
        return Ok(());
    }
    let message = format!("the document has {} bytes; at most {LARGEST_DOCUMENT} are read", text.len());
    Err(YamlError { message, line: None, column: None })
}

/// The policies of the module's documentation in the terms of the parser.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_aliases: 2_000,
            max_anchors: 2_000,
            max_recorded_anchor_events: 200_000,
            max_recorded_anchor_bytes: 16 * 1024 * 1024,
            max_depth: 48,
            flow_nesting_limit: 48,
            max_documents: 1,
            max_total_scalar_bytes: 16 * 1024 * 1024,
            max_merge_keys: 2_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Plugin {
        name: String,
        #[serde(default)]
        parallelism: Option<u32>,
    }

    #[test]
    fn a_typed_document_is_read_and_merge_keys_are_expanded() {
        let text = "base: &b {name: echo, parallelism: 2}\nother:\n  <<: *b\n  name: two\n";
        let all: BTreeMap<String, Plugin> = load(text).expect("valid");
        assert_eq!(all["other"], Plugin { name: "two".into(), parallelism: Some(2) });
    }

    #[test]
    fn an_error_names_line_and_column_once() {
        let error = load::<Plugin>("name: echo\nparallelism: many\n").expect_err("not a number");
        assert_eq!((error.line, error.column), (Some(2), Some(14)), "{error:?}");
        assert!(!error.message.contains("line"), "{}", error.message);
        let error = load::<Plugin>("name: echo\nnmae: x\n").expect_err("unknown key");
        assert_eq!(error.line, Some(2), "{error:?}");
    }

    #[test]
    fn an_error_shows_no_other_line_of_the_document() {
        let error = load::<Plugin>("name: s3cret-canary\nparallelism: [\n").expect_err("unclosed");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn duplicate_keys_are_errors_everywhere() {
        for text in ["a: 1\na: 2\n", "x: {b: 1, b: 2}\n", "- {c: 1, c: 2}\n"] {
            assert!(load::<serde_json::Value>(text).is_err(), "{text}");
            assert!(load_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let prev = i - 1;
            text.push_str(&format!(
                "l{i}: &l{i} [*l{prev}, *l{prev}, *l{prev}, *l{prev}, *l{prev}, *l{prev}, *l{prev}, *l{prev}]\n"
            ));
        }
        assert!(load::<serde_json::Value>(&text).is_err());
        assert!(load_value(&text).is_err());
        assert!(load_value(&"[".repeat(200_000)).is_err());
        assert!(load_value(&format!("a: &a {}\nb: [{}]\n", "x".repeat(50_000), "*a, ".repeat(1_900))).is_err());
        assert!(load_value(&" ".repeat(LARGEST_DOCUMENT + 1)).is_err());
    }

    #[test]
    fn only_one_document_is_read() {
        assert!(load_value("a: 1\n---\nb: 2\n").is_err());
        assert!(load_value("---\na: 1\n").is_ok());
    }
}
