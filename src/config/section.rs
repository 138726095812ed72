//! Reads one map of the document key by key: types, units, limits, and what nobody asked for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use ductile_domain::problem::{Problem, did_you_mean};

use crate::findings::Findings;
use crate::node::{Content, Filled, Node, join};
use crate::units;

static NOTHING: BTreeMap<String, Node> = BTreeMap::new();

/// One map being read.
pub(crate) struct Section<'a> {
    pub(crate) path: String,
    category: &'static str,
    map: &'a BTreeMap<String, Node>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The map under `path`; absent and null are empty, anything else is a problem.
    pub(crate) fn open(
        node: Option<&'a Node>,
        path: impl Into<String>,
        category: &'static str,
        findings: &mut Findings,
    ) -> Self {
        let path = path.into();
        let map = match node.map(|n| (n, &n.content)) {
            None | Some((_, Content::Null)) => &NOTHING,
            Some((_, Content::Map(map))) => map,
            Some((node, _)) => {
                let problem = Problem::error(category, format!("expected a map, found {}", node.kind()));
                findings.add(problem.at_path(&path), node.origin);
                &NOTHING
            }
        };
        Self { path, category, map, known: Vec::new() }
    }

    /// The value of a key; a null counts as absent, and so does what names an undefined variable.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let node = self.map.get(key)?;
        if matches!(node.content, Content::Null) || node.filled == Filled::Undefined { None } else { Some(node) }
    }

    /// True when the key is absent because its variable is not defined, which was reported already.
    pub(crate) fn is_undefined(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|node| node.filled == Filled::Undefined)
    }

    /// The map under a key.
    pub(crate) fn section(&mut self, key: &'static str, findings: &mut Findings) -> Self {
        Section::open(self.get(key), join(&self.path, key), self.category, findings)
    }

    /// An error about a key that was read.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem::error(self.category, message).at_path(join(&self.path, key))
    }

    /// A warning about a key that was read.
    pub(crate) fn warning(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem::warning(self.category, message).at_path(join(&self.path, key))
    }

    fn expected(&self, key: &str, node: &Node, what: &str, hint: &str, findings: &mut Findings) {
        let problem = self.error(key, format!("expected {what}, found {}", node.shown()));
        findings.add(if hint.is_empty() { problem } else { problem.hint(hint) }, node.origin);
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str, findings: &mut Findings) -> Option<(&'a str, &'a Node)> {
        let node = self.get(key)?;
        match node.text() {
            Some(text) => Some((text, node)),
            None => {
                self.expected(key, node, "a text", "put it in quotes", findings);
                None
            }
        }
    }

    /// One of few words.
    pub(crate) fn word(&mut self, key: &'static str, words: &[&str], findings: &mut Findings) -> Option<&'a str> {
        let (text, node) = self.text(key, findings)?;
        if words.contains(&text) {
            return Some(text);
        }
        let hint = match did_you_mean(&text.to_ascii_lowercase(), words.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => String::new(),
        };
        self.expected(key, node, &format!("one of {}", words.join(", ")), &hint, findings);
        None
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str, findings: &mut Findings) -> Option<bool> {
        let node = self.get(key)?;
        match (&node.content, node.filled) {
            (Content::Bool(value), _) => return Some(*value),
            (Content::Text(text), Filled::FromDefault | Filled::FromEnvironment) => {
                if let Ok(value) = text.trim().parse() {
                    return Some(value);
                }
            }
            _ => {}
        }
        self.expected(key, node, "true or false", "", findings);
        None
    }

    /// A whole number within limits.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<u32> {
        let node = self.get(key)?;
        let value = match (&node.content, node.filled) {
            (Content::Number(value), _) => value.as_i64(),
            (Content::Text(text), Filled::FromDefault | Filled::FromEnvironment) => text.trim().parse().ok(),
            _ => None,
        };
        let value = value.and_then(|v| u32::try_from(v).ok()).filter(|v| limits.contains(v));
        if value.is_none() {
            let what = format!("a whole number from {} to {}", limits.start(), limits.end());
            self.expected(key, node, &what, "", findings);
        }
        value
    }

    /// A duration within limits.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<Duration>,
        findings: &mut Findings,
    ) -> Option<Duration> {
        let node = self.get(key)?;
        duration(node, &join(&self.path, key), self.category, limits, findings)
    }

    /// A size in bytes within limits.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<u64>,
        findings: &mut Findings,
    ) -> Option<u64> {
        let node = self.get(key)?;
        let read = match &node.content {
            Content::Text(text) => units::size(text),
            Content::Number(number) => match number.as_i64() {
                Some(bytes) => u64::try_from(bytes).map_err(|_| units::Unreadable::Negative),
                None => Err(units::Unreadable::NotANumber),
            },
            _ => {
                self.expected(key, node, "a size such as 1MB", "", findings);
                return None;
            }
        };
        let text = match read {
            Ok(bytes) if limits.contains(&bytes) => return Some(bytes),
            Ok(_) => {
                format!("the size must be {} to {} bytes, found {}", limits.start(), limits.end(), node.shown())
            }
            Err(why) => format!("{} {why}", node.shown()),
        };
        findings.add(self.error(key, text).hint("write a size such as 64KB, 1MB or 4096"), node.origin);
        None
    }

    /// A text that `parse` understands. Its complaint may quote the text, so it is for the eyes of who wrote it there.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, node) = self.text(key, findings)?;
        let why = match parse(text.trim()) {
            Ok(value) => return Some(value),
            Err(_) if node.filled == Filled::FromEnvironment => format!("{} does not fit here", node.shown()),
            Err(why) => why,
        };
        findings.add(self.error(key, why), node.origin);
        None
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str, findings: &mut Findings) -> Vec<(&'a str, &'a Node)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        let Content::List(items) = &node.content else {
            self.expected(key, node, "a list", "begin each entry with `- `", findings);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item.text() {
                Some(_) if item.filled == Filled::Undefined => {}
                Some(text) => texts.push((text, item)),
                None => self.expected(&format!("{key}[{i}]"), item, "a text", "put it in quotes", findings),
            }
        }
        texts
    }

    /// A list of maps; answers each with its path.
    pub(crate) fn items(&mut self, key: &'static str, findings: &mut Findings) -> Vec<(&'a Node, String)> {
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.content {
            Content::List(items) => {
                items.iter().enumerate().map(|(i, n)| (n, format!("{}[{i}]", join(&self.path, key)))).collect()
            }
            _ => {
                let problem = self.error(key, format!("expected a list, found {}", node.kind()));
                findings.add(problem.hint("begin each entry with `- `"), node.origin);
                Vec::new()
            }
        }
    }

    /// All entries, whatever their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Node)> + use<'a> {
        self.map.iter()
    }

    /// Warns of a key that is part of the configuration but that this build does not act on.
    pub(crate) fn later(&mut self, keys: &[&'static str], findings: &mut Findings) {
        for key in keys {
            if let Some(node) = self.get(key) {
                let problem = Problem::warning("unused", format!("this build does not act on `{key}` yet"));
                findings.add(problem.at_path(join(&self.path, key)), node.origin);
            }
        }
    }

    /// Warns of every key that was not read.
    pub(crate) fn close(self, findings: &mut Findings) {
        for (key, node) in self.map {
            if self.known.contains(&key.as_str()) || key.starts_with("x-") {
                continue;
            }
            let at = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
            let problem = Problem::warning("unused", format!("unknown key {key:?}{at} is ignored"));
            let problem = problem.at_path(join(&self.path, key));
            let problem = match did_you_mean(key, self.known.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem,
            };
            findings.add(problem, node.origin);
        }
    }
}

/// A duration within limits, at a path that is not a fixed key.
pub(crate) fn duration(
    node: &Node,
    path: &str,
    category: &'static str,
    limits: RangeInclusive<Duration>,
    findings: &mut Findings,
) -> Option<Duration> {
    let shown = node.shown();
    let mut hint = "write a duration such as 500ms, 30s, 5m, 1h30m, 30d".to_owned();
    let text = match &node.content {
        Content::Text(text) => match units::duration(text) {
            Ok(value) if limits.contains(&value) => return Some(value),
            Ok(_) => outside(&shown, &limits),
            Err(why) => format!("{shown} {why}"),
        },
        Content::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
            format!("{shown} is negative")
        }
        Content::Number(number) => {
            hint = format!("write `{number}s` for seconds");
            format!("{shown} has no unit")
        }
        _ => format!("expected a duration, found {shown}"),
    };
    findings.add(Problem::error(category, text).at_path(path).hint(hint), node.origin);
    None
}

fn outside(shown: &str, limits: &RangeInclusive<Duration>) -> String {
    let (low, high) = (units::written(*limits.start()), units::written(*limits.end()));
    format!("the duration must be from {low} to {high}, found {shown}")
}
