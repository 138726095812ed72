//! The values of `with`: literals, and texts in which `{payload.x}` and `{context.y}` stand for what they name.
//!
//! Values are copied as they were written: a number keeps every digit. `{{` and `}}` stand for braces.

use std::fmt;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::path::{Fault, Path, Roots, Scope};
use crate::raw::{Kind, quoted, raw_value};

/// Bytes that all values of one `with` may have when they are rendered.
pub const MAX_RENDERED: usize = 16 << 20;
/// Lists and objects may be nested this deep in one value of `with`.
pub const MAX_DEPTH: usize = 32;

/// A text with references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// As JSON writes it between quotes.
    Literal(String),
    Reference(Path),
}

/// Text that is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Malformed {}

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderError {
    /// A path leads nowhere.
    Missing {
        /// The path.
        path: String,
    },
    /// The text is no template.
    Malformed(Malformed),
    /// The values together are larger than [`MAX_RENDERED`].
    TooLarge,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "path {path:?} is missing"),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::TooLarge => write!(f, "the values are larger than {MAX_RENDERED} bytes"),
        }
    }
}

impl std::error::Error for RenderError {}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// A brace without its partner, or a reference that is no path.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
                continue;
            }
            let end = if brace == "{" { rest.find('}') } else { None };
            let Some(end) = end else {
                let hint = Some(format!("a brace itself is written twice: {brace}{brace}"));
                return Err(Malformed { message: format!("{brace:?} without its partner in {text:?}"), hint });
            };
            let path = Path::parse(rest[..end].trim(), Roots::Data).map_err(|invalid| Malformed {
                message: format!("in {text:?}: {}", invalid.message),
                hint: invalid.hint.or_else(|| Some("a brace itself is written twice: {{".to_owned())),
            })?;
            rest = &rest[end + 1..];
            if !literal.is_empty() {
                parts.push(Part::Literal(spelled(&std::mem::take(&mut literal))));
            }
            parts.push(Part::Reference(path));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(spelled(&literal)));
        }
        Ok(Self { parts })
    }

    /// The paths that it names, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match part {
            Part::Reference(path) => Some(path),
            Part::Literal(_) => None,
        })
    }

    /// The value in `scope`: a reference alone keeps its type, anything else is a text.
    ///
    /// # Errors
    /// A path that leads nowhere, or more than [`MAX_RENDERED`] bytes.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Box<RawValue>, RenderError> {
        self.render_within(scope, MAX_RENDERED)
    }

    fn render_within(&self, scope: &Scope<'_>, limit: usize) -> Result<Box<RawValue>, RenderError> {
        let find = |path: &Path| path.find(scope).ok_or_else(|| RenderError::Missing { path: path.to_string() });
        if let [Part::Reference(path)] = self.parts.as_slice() {
            let value = find(path)?;
            return if value.get().len() > limit { Err(RenderError::TooLarge) } else { Ok(value.to_raw_value()) };
        }
        let mut out = String::from("\"");
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Reference(path) => {
                    let value = find(path)?;
                    match value.kind() {
                        // A text is copied with its escapes, so even half a surrogate pair survives.
                        Kind::Text => out.push_str(value.spelling().unwrap_or_default()),
                        Kind::List | Kind::Object => out.push_str(&spelled(&value.compact())),
                        Kind::Null | Kind::Boolean | Kind::Number => out.push_str(value.get()),
                    }
                }
            }
            if out.len() > limit {
                return Err(RenderError::TooLarge);
            }
        }
        out.push('"');
        Ok(raw_value(out))
    }
}

/// A text as JSON writes it between quotes.
fn spelled(text: &str) -> String {
    let quoted = quoted(text);
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// An entry of `with` that has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithError {
    /// Its key.
    pub key: String,
    /// Why it has none.
    pub error: RenderError,
}

impl fmt::Display for WithError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with {:?}: {}", self.key, self.error)
    }
}

impl std::error::Error for WithError {}

/// The `with` of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct With {
    entries: Vec<(Box<str>, Shape)>,
    faults: Vec<Fault>,
}

#[derive(Debug, Clone)]
enum Shape {
    Literal(Box<RawValue>),
    Template(Template),
    List(Vec<Shape>),
    Object(Vec<(Box<str>, Shape)>),
    Malformed(Malformed),
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a.get() == b.get(),
            (Self::Template(a), Self::Template(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::Malformed(a), Self::Malformed(b)) => a == b,
            _ => false,
        }
    }
}

impl With {
    /// Reads the values. Texts are templates at any depth; everything else is itself. A malformed template stays in
    /// place and fails the job that meets it; [`With::faults`] lists all of them for a check.
    #[must_use]
    pub fn parse(map: &Map<String, Value>) -> Self {
        let mut faults = Vec::new();
        let entries = map.iter().map(|(key, value)| (key.as_str().into(), shape(value, key, 1, &mut faults))).collect();
        Self { entries, faults }
    }

    /// What is wrong with the templates.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// True when nothing is remapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys that it sets.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| &**key)
    }

    /// All values by their keys, from one snapshot: they don't see each other.
    ///
    /// # Errors
    /// The first entry that has no value.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Vec<(&str, Box<RawValue>)>, WithError> {
        let mut left = MAX_RENDERED;
        let mut values = Vec::with_capacity(self.entries.len());
        for (key, shape) in &self.entries {
            let fail = |error| WithError { key: key.to_string(), error };
            let value = shape.render(scope, &mut left).map_err(fail)?;
            values.push((&**key, value));
        }
        Ok(values)
    }
}

fn shape(value: &Value, at: &str, depth: usize, faults: &mut Vec<Fault>) -> Shape {
    let is_branch = value.is_array() || value.is_object();
    let malformed = match value {
        _ if is_branch && depth > MAX_DEPTH => {
            Malformed { message: format!("nested deeper than {MAX_DEPTH}"), hint: None }
        }
        Value::String(text) => match Template::parse(text) {
            Ok(template) => return Shape::Template(template),
            Err(malformed) => malformed,
        },
        Value::Array(list) => {
            let children = list.iter().enumerate();
            return Shape::List(children.map(|(i, v)| shape(v, &format!("{at}[{i}]"), depth + 1, faults)).collect());
        }
        Value::Object(map) => {
            let child = |(key, v): (&String, &Value)| {
                (key.as_str().into(), shape(v, &format!("{at}.{key}"), depth + 1, faults))
            };
            return Shape::Object(map.iter().map(child).collect());
        }
        scalar => return Shape::Literal(to_raw_value(scalar).expect("a JSON tree can be written")),
    };
    faults.push(Fault::new(at, malformed.message.clone()).hint(malformed.hint.clone()));
    Shape::Malformed(malformed)
}

impl Shape {
    /// Renders within `left` bytes and takes off what it used.
    fn render(&self, scope: &Scope<'_>, left: &mut usize) -> Result<Box<RawValue>, RenderError> {
        let value = match self {
            Self::Malformed(malformed) => return Err(RenderError::Malformed(malformed.clone())),
            Self::Literal(value) => value.clone(),
            Self::Template(template) => template.render_within(scope, *left)?,
            // Its children were counted.
            Self::List(children) => {
                let parts: Vec<_> = children.iter().map(|child| child.render(scope, left)).collect::<Result<_, _>>()?;
                let parts: Vec<&str> = parts.iter().map(|part| part.get()).collect();
                return Ok(raw_value(format!("[{}]", parts.join(","))));
            }
            Self::Object(children) => {
                let parts: Vec<String> = children
                    .iter()
                    .map(|(key, child)| Ok(format!("{}:{}", quoted(key), child.render(scope, left)?)))
                    .collect::<Result<_, _>>()?;
                return Ok(raw_value(format!("{{{}}}", parts.join(","))));
            }
        };
        *left = left.checked_sub(value.get().len()).ok_or(RenderError::TooLarge)?;
        Ok(value)
    }
}
