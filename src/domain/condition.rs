//! The `if` of a pipeline or a step: a checked tree of predicates over payload, context and configuration.
//!
//! Evaluating never fails. A predicate whose path or types do not fit is false and says why: there is no coercion. A
//! missing path is absent for `exists` and `null` for the others. A `context.*` predicate is false as long as there is
//! no context at all, whatever its operator; `not` around it is therefore true.

mod parse;

use std::fmt;

use regex::Regex;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::number;
use crate::path::{Fault, Path, Root, Roots, Scope};
use crate::raw::{Kind, Raw};
use crate::same::same;

/// Deepest tree that is accepted; a single predicate is 1 deep.
pub const MAX_DEPTH: usize = 10;
/// Most predicates in one tree.
pub const MAX_PREDICATES: usize = 64;

/// A condition that was checked when it was loaded.
#[derive(Debug, Clone)]
pub struct Condition {
    tree: Tree,
}

#[derive(Debug, Clone)]
enum Tree {
    Predicate(Predicate),
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Not(Box<Tree>),
}

#[derive(Debug, Clone)]
struct Predicate {
    path: Path,
    operator: Operator,
    operand: Operand,
    /// What the author wrote, to be shown.
    value: Option<Value>,
}

/// What a value is compared with.
#[derive(Debug, Clone)]
enum Operand {
    /// `exists` needs none.
    None,
    Value(Box<RawValue>),
    List(Vec<Box<RawValue>>),
    /// A JSON number.
    Number(Box<str>),
    /// Lower case.
    Text(Box<str>),
    Pattern(Regex),
}

/// What a predicate asks of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The path leads somewhere, be it to `null`.
    Exists,
    /// The same value.
    Eq,
    /// Another value.
    Neq,
    /// The same as one of a list.
    In,
    /// Greater, numbers only.
    Gt,
    /// Greater or equal, numbers only.
    Gte,
    /// Less, numbers only.
    Lt,
    /// Less or equal, numbers only.
    Lte,
    /// Has the text inside, without regard to case.
    Contains,
    /// Begins with the text, without regard to case.
    StartsWith,
    /// Ends with the text, without regard to case.
    EndsWith,
    /// The whole text matches the pattern.
    Regex,
}

impl Operator {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Exists,
        Self::Eq,
        Self::Neq,
        Self::In,
        Self::Gt,
        Self::Gte,
        Self::Lt,
        Self::Lte,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Regex,
    ];

    /// The word in a configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::In => "in",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Contains => "contains",
            Self::StartsWith => "startswith",
            Self::EndsWith => "endswith",
            Self::Regex => "regex",
        }
    }
}

/// What a condition said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// True when the condition holds.
    pub holds: bool,
    /// Which predicate decided, such as `all[1]: payload.count gt is false (payload.count is a text)`. Names places
    /// and kinds, never values: they may be secret.
    pub reason: String,
}

impl Condition {
    /// Reads `{path, op, value?}`, `{all: [...]}`, `{any: [...]}` or `{not: ...}`.
    ///
    /// # Errors
    /// Every fault of the tree, in its order.
    pub fn parse(value: &Value, roots: Roots) -> Result<Self, Vec<Fault>> {
        parse::tree(value, roots).map(|tree| Self { tree })
    }

    /// Decides. Deterministic, and bounded by the sizes of tree and scope.
    #[must_use]
    pub fn evaluate(&self, scope: &Scope<'_>) -> Verdict {
        let has_context = scope.has_context();
        let (holds, mut at, reason) = self.tree.evaluate(scope, has_context);
        // Places were collected from the inside.
        at.reverse();
        let place = at.concat();
        let place = place.strip_prefix('.').unwrap_or(&place);
        let reason = if place.is_empty() { reason } else { format!("{place}: {reason}") };
        Verdict { holds, reason }
    }

    /// The paths that it reads, in its order.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        let mut paths = Vec::new();
        self.tree.collect_paths(&mut paths);
        paths
    }

    /// True when it reads below `root`.
    #[must_use]
    pub fn reads(&self, root: Root) -> bool {
        self.paths().iter().any(|path| path.root() == root)
    }

    /// The condition as it is written in a configuration, values included.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.tree.to_json()
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

/// What a tree says, the places that lead to what decided (innermost first), and why.
type Finding = (bool, Vec<String>, String);

impl Tree {
    fn evaluate(&self, scope: &Scope<'_>, has_context: bool) -> Finding {
        match self {
            Self::Predicate(predicate) => {
                let (holds, why) = predicate.evaluate(scope, has_context);
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                (holds, Vec::new(), format!("{} {} is {holds}{why}", predicate.path, predicate.operator.word()))
            }
            Self::All(children) => first(children, false, scope, has_context).map_or_else(
                || (true, vec![".all".to_owned()], "every one holds".to_owned()),
                |found| placed(found, "all"),
            ),
            Self::Any(children) => first(children, true, scope, has_context).map_or_else(
                || (false, vec![".any".to_owned()], "not one holds".to_owned()),
                |found| placed(found, "any"),
            ),
            Self::Not(child) => {
                let (holds, mut at, reason) = child.evaluate(scope, has_context);
                at.push(".not".to_owned());
                (!holds, at, reason)
            }
        }
    }

    fn collect_paths<'a>(&'a self, paths: &mut Vec<&'a Path>) {
        match self {
            Self::Predicate(predicate) => paths.push(&predicate.path),
            Self::All(children) | Self::Any(children) => {
                children.iter().for_each(|child| child.collect_paths(paths));
            }
            Self::Not(child) => child.collect_paths(paths),
        }
    }

    fn to_json(&self) -> Value {
        let one = |key: &str, value| Value::Object(Map::from_iter([(key.to_owned(), value)]));
        let list = |children: &[Self]| Value::Array(children.iter().map(Self::to_json).collect());
        match self {
            Self::Predicate(predicate) => {
                let mut map = Map::new();
                map.insert("path".to_owned(), Value::from(predicate.path.to_string()));
                map.insert("op".to_owned(), Value::from(predicate.operator.word()));
                if let Some(value) = &predicate.value {
                    map.insert("value".to_owned(), value.clone());
                }
                Value::Object(map)
            }
            Self::All(children) => one("all", list(children)),
            Self::Any(children) => one("any", list(children)),
            Self::Not(child) => one("not", child.to_json()),
        }
    }
}

/// The first child that says `wanted`, with its index.
fn first(children: &[Tree], wanted: bool, scope: &Scope<'_>, has_context: bool) -> Option<(usize, Finding)> {
    children
        .iter()
        .enumerate()
        .map(|(at, child)| (at, child.evaluate(scope, has_context)))
        .find(|(_, (holds, ..))| *holds == wanted)
}

fn placed((index, (holds, mut at, reason)): (usize, Finding), group: &str) -> Finding {
    at.push(format!(".{group}[{index}]"));
    (holds, at, reason)
}

impl Predicate {
    /// What it says, and why when the types or an absence decided.
    fn evaluate(&self, scope: &Scope<'_>, has_context: bool) -> (bool, Option<String>) {
        if self.path.root() == Root::Context && !has_context {
            return (false, Some("there is no context".to_owned()));
        }
        let found = self.path.find(scope);
        let absence = || found.is_none().then(|| format!("{} is absent", self.path));
        let value = found.unwrap_or(Raw::NULL);
        let mismatch = |needed: &str| {
            let is = absence().unwrap_or_else(|| format!("{} is {}", self.path, value.kind().with_article()));
            (false, Some(format!("{is}, not {needed}")))
        };
        match (&self.operand, value.kind()) {
            (Operand::None, _) => (found.is_some(), None),
            (Operand::Value(operand), _) => {
                let is_same = same(value, Raw::from(&**operand));
                (is_same == (self.operator == Operator::Eq), absence())
            }
            (Operand::List(list), _) => (list.iter().any(|one| same(value, Raw::from(&**one))), absence()),
            (Operand::Number(operand), Kind::Number) => {
                let order = number::compare(value.get(), operand);
                let holds = match self.operator {
                    Operator::Gt => order.is_gt(),
                    Operator::Gte => order.is_ge(),
                    Operator::Lt => order.is_lt(),
                    _ => order.is_le(),
                };
                (holds, None)
            }
            (Operand::Number(_), _) => mismatch("a number"),
            (Operand::Text(operand), Kind::Text) => {
                let text = lower(&value.text().unwrap_or_default());
                let holds = match self.operator {
                    Operator::StartsWith => text.starts_with(&**operand),
                    Operator::EndsWith => text.ends_with(&**operand),
                    _ => text.contains(&**operand),
                };
                (holds, None)
            }
            (Operand::Pattern(pattern), Kind::Text) => (pattern.is_match(&value.text().unwrap_or_default()), None),
            (Operand::Text(_) | Operand::Pattern(_), _) => mismatch("a text"),
        }
    }
}

/// Each character in lower case by itself, so that a part of a text stays a part of it.
fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
