//! Where a condition, a template or a claim finds a value: `payload.a.b.0`, and in what it looks.

use std::fmt;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::raw::{Kind, Raw, index};

/// Most segments that a path may have behind its root.
pub const MAX_SEGMENTS: usize = 32;
/// Most bytes that a path may have.
pub const MAX_BYTES: usize = 512;

/// What a path starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// The payload of the event at hand.
    Payload,
    /// What was claimed for all later hops.
    Context,
    /// The configuration of the step's plugin.
    Config,
}

impl Root {
    /// The word in a path.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Context => "context",
            Self::Config => "config",
        }
    }
}

/// Which roots a place allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// `payload` and `context`: conditions of pipelines, `with`, `baggage`.
    Data,
    /// Those and `config`: conditions of steps.
    Step,
}

impl Roots {
    /// The roots in the order in which messages name them.
    #[must_use]
    pub const fn list(self) -> &'static [Root] {
        match self {
            Self::Data => &[Root::Payload, Root::Context],
            Self::Step => &[Root::Payload, Root::Context, Root::Config],
        }
    }

    fn words(self) -> String {
        self.list().iter().map(|root| format!("{}.*", root.word())).collect::<Vec<_>>().join(", ")
    }
}

/// What paths are looked up in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The event's payload.
    pub payload: Option<&'a RawValue>,
    /// The accumulated baggage; `None` when the event came from outside every pipeline.
    pub context: Option<&'a RawValue>,
    /// Configuration of the step's plugin.
    pub config: Option<&'a RawValue>,
}

impl<'a> Scope<'a> {
    /// The value that a root stands for.
    #[must_use]
    pub fn root(&self, root: Root) -> Option<Raw<'a>> {
        match root {
            Root::Payload => self.payload,
            Root::Context => self.context,
            Root::Config => self.config,
        }
        .map(Raw::from)
    }

    /// True when there is a context with anything in it.
    #[must_use]
    pub fn has_context(&self) -> bool {
        self.root(Root::Context).is_some_and(|context| match context.kind() {
            Kind::Object => context.members().next().is_some(),
            kind => kind != Kind::Null,
        })
    }
}

/// A dotted path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    root: Root,
    segments: Box<[Box<str>]>,
}

/// Text that is no path, and what to write instead when that can be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPath {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for InvalidPath {}

impl Path {
    /// Reads `payload.a.b.0`; a root alone stands for all of it. Segments are letters, digits, `_` and `-`.
    ///
    /// # Errors
    /// An unknown root or one that `roots` lacks, a segment that is empty or has other characters, too many of them.
    pub fn parse(text: &str, roots: Roots) -> Result<Self, InvalidPath> {
        let refuse = |message: String, hint: Option<String>| Err(InvalidPath { message, hint });
        if text.len() > MAX_BYTES {
            return refuse(format!("a path of {} bytes; at most {MAX_BYTES} are allowed", text.len()), None);
        }
        let mut parts = text.split('.');
        let word = parts.next().unwrap_or_default();
        let Some(root) = roots.list().iter().copied().find(|root| root.word() == word) else {
            if word == Root::Config.word() {
                let hint = "config.* is known in the `if` of a step only".to_owned();
                return refuse(format!("the root of path {text:?} is not allowed here"), Some(hint));
            }
            let hint = crate::problem::did_you_mean(word, roots.list().iter().map(|root| root.word()))
                .map(|near| format!("did you mean {near:?}?"));
            return refuse(format!("path {text:?} must begin with one of {}", roots.words()), hint);
        };
        let segments: Box<[Box<str>]> = parts.map(Box::from).collect();
        if segments.len() > MAX_SEGMENTS {
            return refuse(format!("path {text:?} has more than {MAX_SEGMENTS} segments"), None);
        }
        if segments.iter().any(|segment| segment.is_empty()) {
            return refuse(format!("path {text:?} has an empty segment"), None);
        }
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        if let Some(wrong) = segments.iter().flat_map(|segment| segment.chars()).find(|c| !is_part(*c)) {
            let message = format!("path {text:?} has {wrong:?}; segments are letters, digits, _ and -");
            let hint = matches!(wrong, '[' | ']').then(|| "write list indexes as segments: payload.items.0".to_owned());
            return refuse(message, hint);
        }
        Ok(Self { root, segments })
    }

    /// What it starts from.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// The names and indexes behind the root.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|segment| &**segment)
    }

    /// True for a root alone.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// The value as it was written; `None` when the path leads nowhere.
    #[must_use]
    pub fn find<'a>(&self, scope: &Scope<'a>) -> Option<Raw<'a>> {
        self.find_in(scope.root(self.root)?)
    }

    /// The value below `root`, as it was written.
    #[must_use]
    pub fn find_in<'a>(&self, root: Raw<'a>) -> Option<Raw<'a>> {
        self.segments.iter().try_fold(root, |value, segment| value.child(segment))
    }

    /// The value below `root` in a tree.
    #[must_use]
    pub fn lookup<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.segments.iter().try_fold(root, |value, segment| match value {
            Value::Object(map) => map.get(&**segment),
            Value::Array(list) => list.get(index(segment)?),
            _ => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.word())?;
        self.segments.iter().try_for_each(|segment| write!(f, ".{segment}"))
    }
}

/// A finding in a part of the pipeline language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the part, such as `all[1].op`; empty for the part as a whole.
    pub at: String,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    pub(crate) fn of_path(at: impl Into<String>, invalid: InvalidPath) -> Self {
        Self { at: at.into(), message: invalid.message, hint: invalid.hint }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("valid JSON")
    }

    #[test]
    fn a_path_finds_what_it_names_in_texts_and_in_trees() {
        let text = r#"{"a":{"b":[10,{"c-d":1.10}],"0":"zero"},"größe":2}"#;
        let payload = raw(text);
        let tree: Value = serde_json::from_str(text).expect("valid JSON");
        let scope = Scope { payload: Some(&payload), ..Scope::default() };
        for (path, expected) in [
            ("payload.a.b.0", Some("10")),
            ("payload.a.b.1.c-d", Some("1.10")),
            ("payload.a.0", Some("\"zero\"")),
            ("payload.größe", Some("2")),
            ("payload", Some(text)),
            ("payload.a.b.2", None),
            ("payload.a.b.c", None),
            ("payload.a.b.0.x", None),
            ("payload.x", None),
            ("context.a", None),
        ] {
            let parsed = Path::parse(path, Roots::Data).expect("a path");
            assert_eq!(parsed.to_string(), path);
            assert_eq!(parsed.find(&scope).map(Raw::get), expected, "{path}");
            if parsed.root() == Root::Payload {
                assert_eq!(parsed.lookup(&tree).is_some(), expected.is_some(), "{path}");
            }
        }
    }

    /// PIP-19: `config.*` belongs to steps; other roots to nobody.
    #[test]
    fn only_the_allowed_roots_and_characters_are_paths() {
        assert!(Path::parse("config.x", Roots::Step).is_ok());
        for (bad, part) in [
            ("config.x", "not allowed here"),
            ("env.x", "must begin with one of payload.*, context.*"),
            ("paylod.x", "must begin"),
            ("", "must begin"),
            ("payload.", "empty segment"),
            ("payload..x", "empty segment"),
            (".payload", "must begin"),
            ("payload.a b", "segments are"),
            ("payload.items[0]", "segments are"),
            ("payload.{x}", "segments are"),
            ("payload.a/b", "segments are"),
        ] {
            let error = Path::parse(bad, Roots::Data).expect_err(bad);
            assert!(error.message.contains(part), "{bad}: {error}");
        }
        let near = Path::parse("paylod.x", Roots::Data).expect_err("misspelled");
        assert_eq!(near.hint.as_deref(), Some("did you mean \"payload\"?"));
        assert!(Path::parse(&format!("payload{}", ".a".repeat(MAX_SEGMENTS + 1)), Roots::Data).is_err());
        assert!(Path::parse(&format!("payload.{}", "a".repeat(MAX_BYTES)), Roots::Data).is_err());
    }

    /// PIP-22: nothing claimed is the same as no context.
    #[test]
    fn an_empty_context_is_none() {
        for (context, expected) in [("{}", false), ("{ }", false), ("null", false), (r#"{"a":1}"#, true)] {
            let context = raw(context);
            assert_eq!(Scope { context: Some(&context), ..Scope::default() }.has_context(), expected);
        }
        assert!(!Scope::default().has_context());
    }
}
