//! Reads `manifest.yaml` and checks it: a manifest, or every problem at once with its line.
//!
//! Fields that the gateway does not know are tolerated with a warning, so that plugins written for a later one load here.

mod commands;
mod fields;

use std::io::Read;
use std::path::Path;

use ductile_domain::ids::is_name;
use ductile_domain::manifest::{Command, FactRule, Manifest, PROTOCOL};
use ductile_domain::problem::{Problem, did_you_mean};
use serde_json::{Value, json};

use fields::{Fields, Findings, kind, placed};

/// The category of a manifest's problems in the doctor's report.
pub(crate) const CATEGORY: &str = "plugin_refs";

/// The largest manifest, in bytes: far above what people write, far below what hurts.
const LARGEST: u64 = 1024 * 1024;

/// Sub-spans kept when the manifest says nothing.
const DEFAULT_SUBS: u64 = 32;
/// The most that a manifest may ask for.
const MOST_SUBS: u64 = 256;

const FIELDS: &[&str] = &[
    "manifest_spec",
    "manifest_version",
    "name",
    "version",
    "protocol",
    "entrypoint",
    "description",
    "concurrency_safe",
    "commands",
    "fact_outputs",
    "config_keys",
    "stopwatch",
];

/// Reads and checks the manifest at `path`.
///
/// The problems beside a manifest are warnings.
///
/// # Errors
/// Every problem found, at least one of which keeps the plugin from being loaded.
pub fn read(path: &Path) -> Result<(Manifest, Vec<Problem>), Vec<Problem>> {
    match text(path) {
        Ok(text) => check(&text, path),
        Err(error) => {
            Err(vec![Problem::error(CATEGORY, format!("failed to read the manifest: {error}")).in_file(path)])
        }
    }
}

/// The file's text. Only a plain file is opened, for reading a pipe would wait for ever.
fn text(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// Checks the text of a manifest; `path` is named in problems.
///
/// # Errors
/// Every problem found, at least one of which keeps the plugin from being loaded.
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
    let mut findings = Findings::new(&document, path);
    let hint = "begin with `manifest_spec: ductile.plugin`";
    let Some(map) = document.value.as_object() else {
        findings.error("", "the manifest is no map of fields", hint);
        return Err(findings.problems);
    };
    let manifest = manifest(&Fields { map, at: String::new() }, &mut findings);
    if findings.is_refused { Err(findings.problems) } else { Ok((manifest, findings.problems)) }
}

fn manifest<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> Manifest {
    root.close(FIELDS, findings);
    if root.required("manifest_spec", findings).is_some_and(|v| v != "ductile.plugin") {
        findings.error("manifest_spec", "must be `ductile.plugin`", "write `manifest_spec: ductile.plugin`");
    }
    if root.required("manifest_version", findings).is_some_and(|v| *v != json!(1)) {
        findings.error("manifest_version", "must be the integer 1", "write `manifest_version: 1`");
    }
    if let Some(found) = root.required("protocol", findings).filter(|v| **v != json!(PROTOCOL)) {
        let found = format!("protocol {found} is not supported");
        findings.error("protocol", &found, "this gateway speaks `protocol: 2`");
    }
    let name = name(root, findings);
    let version = version(root, findings);
    let entrypoint = entrypoint(root, findings);
    let description = root.text("description", findings).map(str::to_owned);
    let concurrency_safe = root.boolean("concurrency_safe", findings).unwrap_or(true);
    let commands = commands::read(root, findings);
    let fact_outputs = fact_outputs(root, &commands, findings);
    let (required_config, optional_config) = config_keys(root, findings);
    Manifest {
        name,
        version,
        protocol: PROTOCOL,
        entrypoint,
        description,
        commands,
        required_config,
        optional_config,
        concurrency_safe,
        max_subs: max_subs(root, findings),
        fact_outputs,
    }
}

fn name<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> String {
    let name = root.required_text("name", findings).unwrap_or_default();
    if !name.is_empty() && (!is_name(name) || name.starts_with("core.")) {
        let hint = "use letters, digits, `_`, `-` and `.`, beginning with a letter or digit; `core.` is reserved";
        findings.error("name", &format!("{name:?} is no plugin name"), hint);
    }
    name.to_owned()
}

/// Free text, but `version: 1.0` without quotes is a number; it is taken as it reads.
fn version<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> String {
    match root.required("version", findings) {
        Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => {
            findings.error("version", "must be text", "write `version: 0.1.0`");
            String::new()
        }
        None => String::new(),
    }
}

fn entrypoint<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> String {
    let entrypoint = root.required_text("entrypoint", findings).unwrap_or_default();
    let path = Path::new(entrypoint);
    if path.is_absolute() {
        let hint = "write it relative to the plugin's directory, such as `run.py`";
        findings.error("entrypoint", "is absolute", hint);
    } else if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        let hint = "keep the executable in that directory";
        findings.error("entrypoint", "leaves the plugin's directory by `..`", hint);
    } else if entrypoint.contains('\0') {
        findings.error("entrypoint", "holds a NUL byte", "name a file");
    }
    entrypoint.to_owned()
}

fn fact_outputs<'a>(root: &Fields<'a>, commands: &[Command], findings: &mut Findings<'a>) -> Vec<FactRule> {
    let hint = "begin each rule with `- when:`";
    let mut out: Vec<FactRule> = Vec::new();
    for (i, rule) in findings.list(root.get("fact_outputs"), "fact_outputs", hint).iter().enumerate() {
        let at = format!("fact_outputs[{i}]");
        if rule.is_null() {
            findings.error(&at, "is empty", hint);
            continue;
        }
        let Some(rule) = findings.map(Some(rule), &at, hint) else { continue };
        rule.close(&["when", "from", "fact_type", "compatibility_view"], findings);
        let command = observer(&rule, commands, findings);
        if rule.get("from").and_then(Value::as_str) != Some("state_updates") {
            findings.error(&rule.path("from"), "must be `state_updates`", "write `from: state_updates`");
        }
        let fact_type = rule.get("fact_type").and_then(Value::as_str).filter(|t| !t.trim().is_empty());
        if fact_type.is_none() {
            findings.error(&rule.path("fact_type"), "is required", "name it `<plugin>.snapshot` or the like");
        }
        if rule.get("compatibility_view").is_some_and(|v| v != "mirror_object") {
            let hint = "write `compatibility_view: mirror_object` or leave it out";
            findings.error(&rule.path("compatibility_view"), "must be `mirror_object`", hint);
        }
        let (Some(command), Some(fact_type)) = (command, fact_type) else { continue };
        let new = FactRule { command: command.to_owned(), fact_type: fact_type.to_owned() };
        if out.contains(&new) {
            let message = format!("{fact_type:?} from {command:?} is declared twice");
            findings.error(&at, &message, "remove one of the two, or each snapshot is recorded twice");
            continue;
        }
        out.push(new);
    }
    out
}

/// The command of a rule's `when`.
fn observer<'a>(rule: &Fields<'a>, commands: &[Command], findings: &mut Findings<'a>) -> Option<&'a str> {
    let when = findings.map(rule.get("when"), &rule.path("when"), "write `when: {command: poll}`");
    let at = format!("{}.when.command", rule.at);
    let written = when.as_ref().and_then(|w| w.get("command")).and_then(Value::as_str);
    if let Some(when) = when {
        when.close(&["command"], findings);
    }
    match written {
        None => findings.error(&at, "is required", "name the command that observes"),
        Some(name) if !commands.iter().any(|c| c.name == name) => {
            let near = did_you_mean(name, commands.iter().map(|c| c.name.as_str()));
            let hint = near.map_or("declare it under `commands`".to_owned(), |n| format!("did you mean `{n}`?"));
            findings.error(&at, &format!("the command {name:?} is not declared"), &hint);
        }
        Some(name @ ("health" | "init")) => {
            let message = format!("{name} keeps no state, so this rule never records anything");
            findings.warn(&at, &message, "name a command that observes, such as `poll`, or remove the rule");
        }
        Some(_) => {}
    }
    written
}

fn config_keys<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> (Vec<String>, Vec<String>) {
    let hint = "write `config_keys:` and under it `required: [key]` and `optional: [key]`";
    let Some(keys) = findings.map(root.get("config_keys"), "config_keys", hint) else { return Default::default() };
    keys.close(&["required", "optional"], findings);
    let (required, optional) = (keys.names("required", findings), keys.names("optional", findings));
    if let Some(both) = optional.iter().find(|k| required.contains(k)) {
        let message = format!("{both:?} is listed as required and as optional; it is required");
        findings.warn(&keys.path("optional"), &message, "remove it from one of the two");
    }
    (required, optional)
}

fn max_subs<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> usize {
    let stopwatch = findings.map(root.get("stopwatch"), "stopwatch", "write `stopwatch: {max_subs: 64}`");
    let mut wanted = 0;
    if let Some(stopwatch) = stopwatch {
        stopwatch.close(&["max_subs"], findings);
        match stopwatch.get("max_subs") {
            None => {}
            Some(value) => match value.as_u64() {
                Some(number) if number <= MOST_SUBS => wanted = number,
                Some(_) => {
                    let hint = "aggregate the spans, or leave it out for 32";
                    findings.refuse_with_warning(
                        "stopwatch.max_subs",
                        "must be 1 to 256; the plugin is not loaded",
                        hint,
                    );
                }
                None => {
                    let message = format!("must be a whole number from 1 to 256, found {}", kind(value));
                    findings.error("stopwatch.max_subs", &message, "leave it out for 32");
                }
            },
        }
    }
    usize::try_from(if wanted == 0 { DEFAULT_SUBS } else { wanted }).expect("at most 256")
}
