//! `commands:` of a manifest, a list or a map.

use ductile_domain::ids::is_name;
use ductile_domain::manifest::{Command, CommandType, Emits, Values};
use serde_json::{Map, Value};

use super::fields::{Fields, Findings, kind};
use crate::protocol::RESERVED_PREFIXES;
use crate::schema;

const FIELDS: &[&str] =
    &["name", "type", "description", "idempotent", "retry_safe", "input_schema", "output_schema", "values"];

pub(super) fn read<'a>(root: &Fields<'a>, findings: &mut Findings<'a>) -> Vec<Command> {
    let hint = "write `commands:` and under it `- name: poll`";
    let Some(written) = root.required("commands", findings) else { return Vec::new() };
    let entries: Vec<(String, Option<&str>, &'a Value)> = match written {
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (format!("commands[{i}]"), None, v)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (format!("commands.{k}"), Some(k.as_str()), v)).collect(),
        other => {
            findings.error("commands", &format!("must be a list or a map, found {}", kind(other)), hint);
            return Vec::new();
        }
    };
    if entries.is_empty() {
        findings.error("commands", "must declare at least one command", hint);
    }
    let mut commands: Vec<Command> = Vec::with_capacity(entries.len());
    for (at, key, value) in entries {
        let Some(command) = command(at.clone(), key, value, findings) else { continue };
        if commands.iter().any(|c| c.name == command.name) {
            findings.error(&at, &format!("the command {:?} is declared twice", command.name), "remove one of the two");
            continue;
        }
        commands.push(command);
    }
    commands
}

fn command<'a>(at: String, key: Option<&'a str>, value: &'a Value, findings: &mut Findings<'a>) -> Option<Command> {
    static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let fields = match (value, key) {
        (Value::Object(map), _) => Fields { map, at },
        // `health:` with nothing behind it.
        (Value::Null, Some(_)) => Fields { map: &NOTHING, at },
        _ => {
            findings.error(
                &at,
                &format!("must be a map of fields, found {}", kind(value)),
                "write `name:` and `type:`",
            );
            return None;
        }
    };
    fields.close(FIELDS, findings);
    let name = name(&fields, key, findings)?;
    Some(Command {
        description: fields.text("description", findings).map(str::to_owned),
        kind: command_type(&fields, name, findings),
        idempotent: fields.boolean("idempotent", findings),
        retry_safe: fields.boolean("retry_safe", findings),
        input_schema: schema(&fields, "input_schema", findings),
        output_schema: schema(&fields, "output_schema", findings),
        values: values(&fields, findings),
        name: name.to_owned(),
    })
}

fn name<'a>(fields: &Fields<'a>, key: Option<&'a str>, findings: &mut Findings<'a>) -> Option<&'a str> {
    let written = match key {
        None => fields.required_text("name", findings)?,
        Some(key) => {
            if let Some(other) = fields.text("name", findings).filter(|n| *n != key) {
                let message = format!("says {other:?}, but the command is declared as {key:?}");
                findings.error(&fields.path("name"), &message, "remove `name`; the key is the command's name");
            }
            key
        }
    };
    if !is_name(written) {
        let at = if key.is_some() { fields.at.clone() } else { fields.path("name") };
        findings.error(&at, &format!("{written:?} is no command name"), "use letters, digits, `_`, `-` and `.`");
    }
    Some(written)
}

fn command_type<'a>(fields: &Fields<'a>, name: &str, findings: &mut Findings<'a>) -> CommandType {
    match fields.get("type") {
        None => {
            let message = format!("command {name:?} has no type; `write` is assumed");
            findings.warn(&fields.at, &message, "add `type: read` or `type: write`");
            CommandType::Write
        }
        Some(Value::String(word)) if word == "read" => CommandType::Read,
        Some(Value::String(word)) if word == "write" => CommandType::Write,
        Some(other) => {
            findings.error(&fields.path("type"), &format!("{other} is no type of a command"), "use `read` or `write`");
            CommandType::Write
        }
    }
}

fn schema<'a>(fields: &Fields<'a>, key: &str, findings: &mut Findings<'a>) -> Option<Value> {
    schema::expand(fields.get(key).unwrap_or(&Value::Null)).unwrap_or_else(|message| {
        findings.error(&fields.path(key), &message, "give a JSON Schema object or a map such as `url: string`");
        None
    })
}

/// `values.consume` and `values.emit[].values` hold payload names and nothing else.
fn values<'a>(fields: &Fields<'a>, findings: &mut Findings<'a>) -> Option<Values> {
    let hint = "write `values:` and under it `consume:` and `emit:`";
    let values = findings.map(fields.get("values"), &fields.path("values"), hint)?;
    values.close(&["consume", "emit"], findings);
    let mut emit = Vec::new();
    let at = values.path("emit");
    let hint = "write `- event: my_plugin.done` and under it `values:`";
    for (i, item) in findings.list(values.get("emit"), &at, hint).iter().enumerate() {
        let at = format!("{at}[{i}]");
        if item.is_null() {
            findings.error(&at, "is empty", hint);
            continue;
        }
        let Some(item) = findings.map(Some(item), &at, hint) else { continue };
        item.close(&["event", "values"], findings);
        let Some(event) = item.required_text("event", findings) else { continue };
        if let Some(prefix) = RESERVED_PREFIXES.iter().find(|p| event.starts_with(**p)) {
            let message = format!("{event:?} is never accepted: types beginning with {prefix:?} are the gateway's own");
            findings.error(&item.path("event"), &message, "name it `<plugin>.<action>`");
        }
        emit.push(Emits { event: event.to_owned(), values: payload_names(&item, "values", findings) });
    }
    Some(Values { consume: payload_names(&values, "consume", findings), emit })
}

fn payload_names<'a>(fields: &Fields<'a>, key: &str, findings: &mut Findings<'a>) -> Vec<String> {
    let at = fields.path(key);
    let hint = "use `payload.<key>`, `payload.<key>.<subkey>` or `payload.*`";
    let mut names = Vec::new();
    for (i, name) in findings.list(fields.get(key), &at, hint).iter().enumerate() {
        match name.as_str().filter(|n| is_payload_name(n)) {
            Some(name) => names.push(name.to_owned()),
            None => findings.error(&format!("{at}[{i}]"), &format!("{name} names no payload value"), hint),
        }
    }
    names
}

/// `payload.<key>`, `payload.<key>.<subkey>` or `payload.*`.
fn is_payload_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("payload.") else { return false };
    let is_key = |k: &str| !k.is_empty() && k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    rest == "*" || (rest.split('.').count() <= 2 && rest.split('.').all(is_key))
}
