//! Reads `manifest.yaml` and checks it: a manifest, or every problem at once with its line.
//!
//! Fields that the gateway does not know are tolerated, so that plugins written for a later one load here.

use std::path::Path;

use ductile_domain::ids::is_name;
use ductile_domain::manifest::{Command, CommandType, FactRule, Manifest, PROTOCOL};
use ductile_domain::problem::{Problem, did_you_mean};
use ductile_yaml::Document;
use serde_json::{Map, Value, json};

use crate::schema;

/// The category of a manifest's problems in the doctor's report.
pub(crate) const CATEGORY: &str = "plugin_refs";

/// Sub-spans kept when the manifest says nothing.
const DEFAULT_SUBS: u64 = 32;
/// The most that a manifest may ask for.
const MOST_SUBS: u64 = 256;

/// Reads and checks the manifest at `path`.
///
/// The problems beside a manifest are warnings.
///
/// # Errors
/// Every problem found; at least one of them is an error.
pub fn read(path: &Path) -> Result<(Manifest, Vec<Problem>), Vec<Problem>> {
    match std::fs::read_to_string(path) {
        Ok(text) => check(&text, path),
        Err(error) => {
            Err(vec![Problem::error(CATEGORY, format!("failed to read the manifest: {error}")).in_file(path)])
        }
    }
}

/// Checks the text of a manifest; `path` is named in problems.
///
/// # Errors
/// Every problem found; at least one of them is an error.
pub fn check(text: &str, path: &Path) -> Result<(Manifest, Vec<Problem>), Vec<Problem>> {
    let document = match ductile_yaml::load_value(text) {
        Ok(document) => document,
        Err(error) => {
            let mut problem = Problem::error(CATEGORY, error.message).in_file(path);
            if let (Some(line), Some(column)) = (error.line, error.column) {
                problem = placed(problem, (line, column));
            }
            return Err(vec![problem]);
        }
    };
    let mut check = Check { document: &document, path, problems: Vec::new(), has_error: false };
    let manifest = check.manifest();
    match manifest {
        Some(manifest) if !check.has_error => Ok((manifest, check.problems)),
        _ => Err(check.problems),
    }
}

fn placed(problem: Problem, (line, column): (u64, u64)) -> Problem {
    problem.at(usize::try_from(line).unwrap_or(usize::MAX), usize::try_from(column).unwrap_or(usize::MAX))
}

struct Check<'a> {
    document: &'a Document,
    path: &'a Path,
    problems: Vec<Problem>,
    has_error: bool,
}

impl<'a> Check<'a> {
    fn manifest(&mut self) -> Option<Manifest> {
        let document = self.document;
        let Some(root) = document.value.as_object() else {
            self.error("", "the manifest is no map of fields", "begin with `manifest_spec: ductile.plugin`");
            return None;
        };
        if self.required(root, "manifest_spec").is_some_and(|v| v != "ductile.plugin") {
            self.error("manifest_spec", "must be `ductile.plugin`", "write `manifest_spec: ductile.plugin`");
        }
        if self.required(root, "manifest_version").is_some_and(|v| *v != json!(1)) {
            self.error("manifest_version", "must be the integer 1", "write `manifest_version: 1`");
        }
        if let Some(found) = self.required(root, "protocol").filter(|v| **v != json!(PROTOCOL)) {
            let found = format!("protocol {found} is not supported");
            self.error("protocol", &found, "this gateway speaks `protocol: 2`");
        }
        let name = self.text(root, "name").unwrap_or_default();
        if !name.is_empty() && (!is_name(name) || name.starts_with("core.")) {
            let hint = "use letters, digits, `_`, `-` and `.`, beginning with a letter or digit; `core.` is reserved";
            self.error("name", &format!("{name:?} is no plugin name"), hint);
        }
        let version = self.version(root);
        let entrypoint = self.text(root, "entrypoint").unwrap_or_default();
        self.entrypoint(entrypoint);
        let commands = self.commands(root);
        Some(Manifest {
            name: name.to_owned(),
            version,
            protocol: PROTOCOL,
            entrypoint: entrypoint.to_owned(),
            description: root.get("description").and_then(Value::as_str).map(str::to_owned),
            fact_outputs: self.fact_outputs(root, &commands),
            commands,
            required_config: self.required_config(root),
            concurrency_safe: self.concurrency_safe(root),
            max_subs: self.max_subs(root),
        })
    }

    fn problem(&mut self, problem: Problem, at: &str) {
        let mut problem = problem.in_file(self.path);
        // A missing field is reported where its parent stands.
        let known =
            std::iter::successors(Some(at), |p| p.rfind(['.', '[']).map(|i| &p[..i]).or((!p.is_empty()).then_some("")));
        if let Some((line, column)) = known.into_iter().find_map(|p| self.document.position(p)) {
            problem = placed(problem, (line, column));
        }
        self.problems.push(if at.is_empty() { problem } else { problem.at_path(at) });
    }

    fn error(&mut self, at: &str, message: &str, hint: &str) {
        self.has_error = true;
        self.problem(Problem::error(CATEGORY, message).hint(hint), at);
    }

    fn warn(&mut self, at: &str, message: &str, hint: &str) {
        self.problem(Problem::warning(CATEGORY, message).hint(hint), at);
    }

    fn required(&mut self, root: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
        let value = root.get(key).filter(|v| !v.is_null());
        if value.is_none() {
            let near = did_you_mean(key, root.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{key}` where you wrote `{near}`?"),
                None => format!("add `{key}:`"),
            };
            self.error(key, "is required", &hint);
        }
        value
    }

    fn text(&mut self, root: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
        let value = self.required(root, key)?;
        let text = value.as_str().filter(|t| !t.trim().is_empty());
        if text.is_none() {
            self.error(key, "must be text", "quote the value");
        }
        text
    }

    /// Free text, but `version: 1.0` without quotes is a number; it is taken as it reads.
    fn version(&mut self, root: &'a Map<String, Value>) -> String {
        match self.required(root, "version") {
            Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => {
                self.error("version", "must be text", "write `version: 0.1.0`");
                String::new()
            }
            None => String::new(),
        }
    }

    fn entrypoint(&mut self, entrypoint: &str) {
        let path = Path::new(entrypoint);
        if path.is_absolute() {
            self.error("entrypoint", "is absolute", "write it relative to the plugin's directory, such as `run.py`");
        } else if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            self.error("entrypoint", "leaves the plugin's directory by `..`", "keep the executable in that directory");
        } else if entrypoint.contains('\0') {
            self.error("entrypoint", "holds a NUL byte", "name a file");
        }
    }

    fn commands(&mut self, root: &'a Map<String, Value>) -> Vec<Command> {
        let hint = "write `commands:` and under it `- name: poll`";
        let entries: Vec<(String, Option<&str>, &'a Value)> = match self.required(root, "commands") {
            None => return Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(i, v)| (format!("commands[{i}]"), None, v)).collect()
            }
            Some(Value::Object(map)) => {
                map.iter().map(|(k, v)| (format!("commands.{k}"), Some(k.as_str()), v)).collect()
            }
            Some(_) => {
                self.error("commands", "must be a list or a map", hint);
                return Vec::new();
            }
        };
        if entries.is_empty() {
            self.error("commands", "must declare at least one command", hint);
        }
        let mut commands: Vec<Command> = Vec::with_capacity(entries.len());
        for (at, key, value) in entries {
            let Some(command) = self.command(&at, key, value) else { continue };
            if commands.iter().any(|c| c.name == command.name) {
                let message = format!("the command {:?} is declared twice", command.name);
                self.error(&at, &message, "remove one of the two");
                continue;
            }
            commands.push(command);
        }
        commands
    }

    fn command(&mut self, at: &str, key: Option<&'a str>, value: &'a Value) -> Option<Command> {
        let empty = &Value::Null;
        let is_bare = key.is_some() && value.is_null();
        if !is_bare && !value.is_object() {
            self.error(at, "must be a map of fields", "write `name:` and `type:`");
            return None;
        }
        let field = |name: &str| value.get(name).unwrap_or(empty);
        let Some(name) = key.or_else(|| field("name").as_str()) else {
            self.error(&format!("{at}.name"), "is required", "name the command, such as `poll`");
            return None;
        };
        if !is_name(name) {
            let message = format!("{name:?} is no command name");
            self.error(&format!("{at}.name"), &message, "use letters, digits, `_`, `-` and `.`");
        }
        let kind = match field("type") {
            Value::Null => {
                self.warn(
                    at,
                    &format!("command {name:?} has no type; `write` is assumed"),
                    "add `type: read` or `type: write`",
                );
                CommandType::Write
            }
            Value::String(word) if word == "read" => CommandType::Read,
            Value::String(word) if word == "write" => CommandType::Write,
            other => {
                let message = format!("{other} is no type of a command");
                self.error(&format!("{at}.type"), &message, "use `read` or `write`");
                CommandType::Write
            }
        };
        let input_schema = match schema::expand(field("input_schema")) {
            Ok(expanded) => expanded,
            Err(message) => {
                let hint = "give a JSON Schema object or a map such as `url: string`";
                self.error(&format!("{at}.input_schema"), &message, hint);
                None
            }
        };
        self.values(at, field("values"));
        Some(Command {
            name: name.to_owned(),
            kind,
            description: field("description").as_str().map(str::to_owned),
            input_schema,
        })
    }

    /// `values.consume` and `values.emit[].values` hold payload names and nothing else.
    fn values(&mut self, at: &str, values: &'a Value) {
        let mut lists = vec![(format!("{at}.values.consume"), values.get("consume"))];
        if let Some(emits) = values.get("emit").and_then(Value::as_array) {
            for (i, emit) in emits.iter().enumerate() {
                if emit.get("event").and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.error(&format!("{at}.values.emit[{i}].event"), "is required", "name the event's type");
                }
                lists.push((format!("{at}.values.emit[{i}].values"), emit.get("values")));
            }
        }
        for (at, list) in lists {
            let names = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for (i, name) in names.iter().enumerate() {
                if !name.as_str().is_some_and(is_payload_name) {
                    let hint = "use `payload.<key>`, `payload.<key>.<subkey>` or `payload.*`";
                    self.error(&format!("{at}[{i}]"), &format!("{name} names no payload value"), hint);
                }
            }
        }
    }

    fn fact_outputs(&mut self, root: &'a Map<String, Value>, commands: &[Command]) -> Vec<FactRule> {
        let rules = match root.get("fact_outputs") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(rules)) => rules,
            Some(_) => {
                self.error("fact_outputs", "must be a list of rules", "begin each rule with `- when:`");
                return Vec::new();
            }
        };
        let mut out = Vec::with_capacity(rules.len());
        for (i, rule) in rules.iter().enumerate() {
            let at = format!("fact_outputs[{i}]");
            let command = rule.pointer("/when/command").and_then(Value::as_str);
            match command {
                None => self.error(&format!("{at}.when.command"), "is required", "name the command that observes"),
                Some(name) if !commands.iter().any(|c| c.name == name) => {
                    let near = did_you_mean(name, commands.iter().map(|c| c.name.as_str()));
                    let hint =
                        near.map_or("declare it under `commands`".to_owned(), |n| format!("did you mean `{n}`?"));
                    self.error(&format!("{at}.when.command"), &format!("the command {name:?} is not declared"), &hint);
                }
                Some(_) => {}
            }
            if rule.get("from").and_then(Value::as_str) != Some("state_updates") {
                self.error(&format!("{at}.from"), "must be `state_updates`", "write `from: state_updates`");
            }
            let fact_type = rule.get("fact_type").and_then(Value::as_str).filter(|t| !t.trim().is_empty());
            if fact_type.is_none() {
                self.error(&format!("{at}.fact_type"), "is required", "name it `<plugin>.snapshot` or the like");
            }
            if rule.get("compatibility_view").is_some_and(|v| v != "mirror_object") {
                let hint = "write `compatibility_view: mirror_object` or leave it out";
                self.error(&format!("{at}.compatibility_view"), "must be `mirror_object`", hint);
            }
            if let (Some(command), Some(fact_type)) = (command, fact_type) {
                out.push(FactRule { command: command.to_owned(), fact_type: fact_type.to_owned() });
            }
        }
        out
    }

    fn required_config(&mut self, root: &'a Map<String, Value>) -> Vec<String> {
        let Some(list) = root.get("config_keys").and_then(|k| k.get("required")).filter(|v| !v.is_null()) else {
            return Vec::new();
        };
        let keys: Option<Vec<String>> =
            list.as_array().and_then(|l| l.iter().map(|k| k.as_str().map(str::to_owned)).collect());
        keys.unwrap_or_else(|| {
            self.error("config_keys.required", "must be a list of names", "write `required: [key, other_key]`");
            Vec::new()
        })
    }

    fn concurrency_safe(&mut self, root: &'a Map<String, Value>) -> bool {
        match root.get("concurrency_safe") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(safe)) => *safe,
            Some(_) => {
                self.error("concurrency_safe", "must be true or false", "write `concurrency_safe: false` in doubt");
                false
            }
        }
    }

    fn max_subs(&mut self, root: &'a Map<String, Value>) -> usize {
        let wanted = match root.get("stopwatch").and_then(|s| s.get("max_subs")) {
            None | Some(Value::Null) => 0,
            Some(value) => value.as_u64().unwrap_or(u64::MAX),
        };
        if wanted > MOST_SUBS {
            self.error("stopwatch.max_subs", "must be 1 to 256", "aggregate the spans, or leave it out for 32");
        }
        usize::try_from(if wanted == 0 { DEFAULT_SUBS } else { wanted.min(MOST_SUBS) }).unwrap_or(32)
    }
}

/// `payload.<key>`, `payload.<key>.<subkey>` or `payload.*`.
fn is_payload_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("payload.") else { return false };
    let is_key = |k: &str| !k.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    rest == "*" || (rest.split('.').count() <= 2 && rest.split('.').all(is_key))
}
