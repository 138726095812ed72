//! Reads a condition and finds everything that is wrong with it at once.

use regex::{Regex, RegexBuilder};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use super::{MAX_DEPTH, MAX_PREDICATES, Operand, Operator, Predicate, Tree, lower};
use crate::path::{Fault, Path, Roots};
use crate::problem::did_you_mean;
use crate::raw::Kind;

/// Bytes that a compiled pattern may take: a few thousand states, far more than a sensible one has.
const MAX_PATTERN_SIZE: usize = 1 << 20;
/// Bytes of the pattern itself.
const MAX_PATTERN_BYTES: usize = 4096;

const SHAPES: &str = "write {path, op, value}, {all: [...]}, {any: [...]} or {not: ...}";
const KEYS: [&str; 6] = ["path", "op", "value", "all", "any", "not"];

pub(super) fn tree(value: &Value, roots: Roots) -> Result<Tree, Vec<Fault>> {
    let mut parser = Parser { roots, faults: Vec::new(), predicates: 0 };
    let tree = parser.tree(value, "", 1);
    if parser.predicates > MAX_PREDICATES {
        let message = format!("{} predicates; at most {MAX_PREDICATES} are allowed", parser.predicates);
        parser.faults.push(Fault::new("", message));
    }
    match tree {
        Some(tree) if parser.faults.is_empty() => Ok(tree),
        _ => Err(parser.faults),
    }
}

struct Parser {
    roots: Roots,
    faults: Vec<Fault>,
    predicates: usize,
}

impl Parser {
    fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// `None` stands for a tree that left a fault.
    fn tree(&mut self, value: &Value, at: &str, depth: usize) -> Option<Tree> {
        if depth > MAX_DEPTH {
            self.fault(Fault::new(at, format!("nested deeper than {MAX_DEPTH}")));
            return None;
        }
        let Some(map) = value.as_object() else {
            let is = Kind::of(value).with_article();
            self.fault(Fault::new(at, format!("a condition is an object, not {is}")).hint(Some(SHAPES.to_owned())));
            return None;
        };
        let has_unknown = self.unknown_keys(map, at);
        let is_predicate = ["path", "op", "value"].iter().any(|key| map.contains_key(*key));
        let groups: Vec<&str> = ["all", "any", "not"].into_iter().filter(|key| map.contains_key(*key)).collect();
        match (is_predicate, groups.as_slice()) {
            (true, []) => self.predicate(map, at),
            (false, [group]) => {
                let child = map.get(*group)?;
                self.group(group, child, &join(at, group), depth)
            }
            (false, []) if has_unknown => None,
            (false, []) => {
                self.fault(Fault::new(at, "an empty condition").hint(Some(SHAPES.to_owned())));
                None
            }
            _ => {
                let found: Vec<String> =
                    KEYS.iter().filter(|k| map.contains_key(**k)).map(|k| format!("{k:?}")).collect();
                let message = format!("a condition is one of predicate, all, any, not; this has {}", found.join(", "));
                self.fault(Fault::new(at, message).hint(Some(SHAPES.to_owned())));
                None
            }
        }
    }

    fn unknown_keys(&mut self, map: &Map<String, Value>, at: &str) -> bool {
        let before = self.faults.len();
        for key in map.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let near = did_you_mean(key, KEYS).map(|near| format!("did you mean {near:?}?"));
            self.fault(Fault::new(join(at, key), "unknown key").hint(near.or_else(|| Some(SHAPES.to_owned()))));
        }
        self.faults.len() > before
    }

    fn group(&mut self, group: &str, value: &Value, at: &str, depth: usize) -> Option<Tree> {
        if group == "not" {
            return self.tree(value, at, depth + 1).map(|child| Tree::Not(Box::new(child)));
        }
        let Some(list) = value.as_array() else {
            let is = Kind::of(value).with_article();
            self.fault(Fault::new(at, format!("needs a list of conditions, not {is}")));
            return None;
        };
        if list.is_empty() {
            self.fault(Fault::new(at, "needs at least one condition"));
            return None;
        }
        // Every child is read, so that every fault is found.
        let children: Vec<Option<Tree>> =
            list.iter().enumerate().map(|(i, child)| self.tree(child, &format!("{at}[{i}]"), depth + 1)).collect();
        let children: Vec<Tree> = children.into_iter().collect::<Option<_>>()?;
        Some(if group == "all" { Tree::All(children) } else { Tree::Any(children) })
    }

    fn predicate(&mut self, map: &Map<String, Value>, at: &str) -> Option<Tree> {
        self.predicates += 1;
        let path = self.path(map.get("path"), &join(at, "path"));
        let operator = self.operator(map.get("op"), &join(at, "op"));
        let value = map.get("value");
        let operand = operator.and_then(|operator| self.operand(operator, value, &join(at, "value")));
        Some(Tree::Predicate(Predicate { path: path?, operator: operator?, operand: operand?, value: value.cloned() }))
    }

    fn path(&mut self, value: Option<&Value>, at: &str) -> Option<Path> {
        let text = self.text(value, at, "a path such as payload.status")?;
        match Path::parse(text, self.roots) {
            Ok(path) if path.is_root() => {
                let message = format!("path {text:?} names no key");
                self.fault(Fault::new(at, message).hint(Some(format!("write {text}.<key>"))));
                None
            }
            Ok(path) => Some(path),
            Err(invalid) => {
                self.fault(Fault::of_path(at, invalid));
                None
            }
        }
    }

    fn operator(&mut self, value: Option<&Value>, at: &str) -> Option<Operator> {
        let words = Operator::ALL.map(Operator::word);
        let text = self.text(value, at, "an operator such as eq")?;
        let found = Operator::ALL.into_iter().find(|operator| operator.word() == text);
        if found.is_none() {
            let near = did_you_mean(&text.to_ascii_lowercase(), words).map(|near| format!("did you mean {near:?}?"));
            let hint = near.unwrap_or_else(|| format!("operators are {}", words.join(", ")));
            self.fault(Fault::new(at, format!("unknown operator {text:?}")).hint(Some(hint)));
        }
        found
    }

    fn text<'v>(&mut self, value: Option<&'v Value>, at: &str, needed: &str) -> Option<&'v str> {
        let fault = match value {
            Some(Value::String(text)) => return Some(text),
            Some(other) => format!("needs {needed}, not {}", Kind::of(other).with_article()),
            None => format!("is missing: a predicate needs {needed}"),
        };
        self.fault(Fault::new(at, fault));
        None
    }

    /// The operand that the operator needs, checked.
    fn operand(&mut self, operator: Operator, value: Option<&Value>, at: &str) -> Option<Operand> {
        let raw = |value: &Value| to_raw_value(value).expect("a JSON tree can be written");
        let needed = match (operator, value) {
            (Operator::Exists, None) => return Some(Operand::None),
            (Operator::Exists, Some(_)) => {
                let hint = "leave value out, or write not: {...} for a path that must be absent".to_owned();
                self.fault(Fault::new(at, "exists takes no value").hint(Some(hint)));
                return None;
            }
            (_, None) => {
                self.fault(Fault::new(at, format!("is missing: {operator} needs a value")));
                return None;
            }
            (Operator::Eq | Operator::Neq, Some(value)) => return Some(Operand::Value(raw(value))),
            (Operator::In, Some(Value::Array(list))) => return Some(Operand::List(list.iter().map(raw).collect())),
            (Operator::In, Some(_)) => "a list",
            (Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte, Some(Value::Number(number))) => {
                return Some(Operand::Number(number.to_string().into()));
            }
            (Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte, Some(_)) => "a number",
            (Operator::Regex, Some(Value::String(pattern))) => return self.pattern(pattern, at),
            (Operator::Regex, Some(_)) => "a pattern",
            (_, Some(Value::String(text))) => return Some(Operand::Text(lower(text).into())),
            (_, Some(_)) => "a text",
        };
        let is = value.map_or("nothing", |value| Kind::of(value).with_article());
        self.fault(Fault::new(at, format!("{operator} needs {needed}, not {is}")));
        None
    }

    fn pattern(&mut self, pattern: &str, at: &str) -> Option<Operand> {
        // Beyond the limit the tree is refused anyhow: spare the work.
        if self.predicates > MAX_PREDICATES {
            return None;
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            let message = format!("a pattern of {} bytes; at most {MAX_PATTERN_BYTES} are allowed", pattern.len());
            self.fault(Fault::new(at, message));
            return None;
        }
        match whole_text(pattern) {
            Ok(compiled) => Some(Operand::Pattern(compiled)),
            Err(error) => {
                let message = format!("bad pattern: {}", one_line(&error));
                let hint = "the syntax is RE2's: no look-around, no back-references".to_owned();
                self.fault(Fault::new(at, message).hint(Some(hint)));
                None
            }
        }
    }
}

/// Compiles a pattern that must match from the first to the last character.
fn whole_text(pattern: &str) -> Result<Regex, regex::Error> {
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_PATTERN_SIZE).build();
    // Alone first: brackets that don't match must not close our group.
    compile(pattern)?;
    // A pattern with `(?x)` may end in a comment, which would swallow our bracket; only then the first form fails.
    compile(&format!(r"\A(?:{pattern})\z")).or_else(|_| compile(&format!("\\A(?:{pattern}\n)\\z")))
}

/// The last line of a compile error says what is wrong; the lines above draw it.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}
