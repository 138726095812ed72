//! Reading one map of a manifest: typed fields, and a problem at its line for each that can't be read.

use std::path::Path;

use ductile_domain::problem::{Problem, did_you_mean};
use ductile_yaml::Document;
use serde_json::{Map, Value};

use super::CATEGORY;

/// Words by which authors ask for a long life; the protocol has one process per command and nothing else.
const LONG_LIVED: [&str; 7] = ["daemon", "long_poll", "long_running", "mode", "stream", "streaming", "websocket"];

/// What was found so far in one manifest.
pub(super) struct Findings<'a> {
    document: &'a Document,
    path: &'a Path,
    /// In the order in which they were found.
    pub(super) problems: Vec<Problem>,
    /// The plugin can't be loaded.
    pub(super) is_refused: bool,
}

impl<'a> Findings<'a> {
    pub(super) fn new(document: &'a Document, path: &'a Path) -> Self {
        Self { document, path, problems: Vec::new(), is_refused: false }
    }

    fn add(&mut self, problem: Problem, at: &str) {
        let mut problem = problem.in_file(self.path);
        // A missing field is reported where its parent stands.
        let known =
            std::iter::successors(Some(at), |p| p.rfind(['.', '[']).map(|i| &p[..i]).or((!p.is_empty()).then_some("")));
        if let Some((line, column)) = known.into_iter().find_map(|p| self.document.position(p)) {
            problem = placed(problem, (line, column));
        }
        self.problems.push(if at.is_empty() { problem } else { problem.at_path(at) });
    }

    pub(super) fn error(&mut self, at: &str, message: &str, hint: &str) {
        self.is_refused = true;
        self.add(Problem::error(CATEGORY, message).hint(hint), at);
    }

    pub(super) fn warn(&mut self, at: &str, message: &str, hint: &str) {
        self.add(Problem::warning(CATEGORY, message).hint(hint), at);
    }

    /// A warning that nevertheless keeps the plugin from being loaded.
    pub(super) fn refuse_with_warning(&mut self, at: &str, message: &str, hint: &str) {
        self.is_refused = true;
        self.warn(at, message, hint);
    }

    /// The map at `at`, or `None` when it is absent or, with an error, no map.
    pub(super) fn map(&mut self, value: Option<&'a Value>, at: &str, hint: &str) -> Option<Fields<'a>> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(Fields { map, at: at.to_owned() }),
            Some(other) => {
                self.error(at, &format!("must be a map, found {}", kind(other)), hint);
                None
            }
        }
    }

    /// The items of a list; none when it is absent or, with an error, no list.
    pub(super) fn list(&mut self, value: Option<&'a Value>, at: &str, hint: &str) -> &'a [Value] {
        match value {
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.error(at, &format!("must be a list, found {}", kind(other)), hint);
                &[]
            }
        }
    }
}

pub(super) fn placed(problem: Problem, (line, column): (u64, u64)) -> Problem {
    problem.at(usize::try_from(line).unwrap_or(usize::MAX), usize::try_from(column).unwrap_or(usize::MAX))
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// One map and where it stands.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) at: String,
}

impl<'a> Fields<'a> {
    /// The path of a field.
    pub(super) fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn required(&self, key: &str, findings: &mut Findings<'a>) -> Option<&'a Value> {
        let value = self.get(key);
        if value.is_none() {
            let near = did_you_mean(key, self.map.keys().map(String::as_str).filter(|k| *k != key));
            let hint = match near {
                Some(near) => format!("did you mean `{key}` where you wrote `{near}`?"),
                None => format!("add `{key}:`"),
            };
            findings.error(&self.path(key), "is required", &hint);
        }
        value
    }

    /// A required text that says something.
    pub(super) fn required_text(&self, key: &str, findings: &mut Findings<'a>) -> Option<&'a str> {
        let value = self.required(key, findings)?;
        let text = value.as_str().filter(|t| !t.trim().is_empty());
        if text.is_none() {
            findings.error(&self.path(key), "must be text", "quote the value");
        }
        text
    }

    pub(super) fn text(&self, key: &str, findings: &mut Findings<'a>) -> Option<&'a str> {
        let value = self.get(key)?;
        if !value.is_string() {
            findings.error(&self.path(key), &format!("must be text, found {}", kind(value)), "quote the value");
        }
        value.as_str()
    }

    pub(super) fn boolean(&self, key: &str, findings: &mut Findings<'a>) -> Option<bool> {
        let value = self.get(key)?;
        if !value.is_boolean() {
            let message = format!("must be true or false, found {}", kind(value));
            findings.error(&self.path(key), &message, "write `true` or `false`, without quotes");
        }
        value.as_bool()
    }

    /// A list of names without repetition.
    pub(super) fn names(&self, key: &str, findings: &mut Findings<'a>) -> Vec<String> {
        let at = self.path(key);
        let mut names: Vec<String> = Vec::new();
        for (i, item) in findings.list(self.get(key), &at, "write `[one, other]`").iter().enumerate() {
            let at = format!("{at}[{i}]");
            match item.as_str().filter(|t| !t.trim().is_empty()) {
                None => findings.error(&at, &format!("must be a name, found {}", kind(item)), "quote the value"),
                Some(name) if names.iter().any(|n| n == name) => {
                    findings.warn(&at, &format!("{name:?} is listed twice"), "remove one of the two");
                }
                Some(name) => names.push(name.to_owned()),
            }
        }
        names
    }

    /// Reports what nobody reads. Such fields load, for a later gateway may know them; `x-` fields are the author's.
    pub(super) fn close(&self, known: &[&str], findings: &mut Findings<'a>) {
        for key in self.map.keys().filter(|k| !known.contains(&k.as_str()) && !k.starts_with("x-")) {
            let at = self.path(key);
            if LONG_LIVED.contains(&key.as_str()) {
                let message = format!("`{key}` is not offered: each command is one process that answers once and ends");
                let hint = "remove it; whatever listens or streams lives outside and posts to a webhook or to the API";
                findings.error(&at, &message, hint);
                continue;
            }
            let hint = match did_you_mean(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "it has no effect here; remove it, or begin it with `x-` if it is yours".to_owned(),
            };
            findings.warn(&at, &format!("unknown field `{key}` is ignored"), &hint);
        }
    }
}
