//! Templates: parse and render; what comes out is JSON, and braces survive when they are doubled.

use ductile_domain::path::Scope;
use ductile_domain::template::{Template, With};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Target, check, reached};
use crate::mutate::SEPARATOR;

pub(super) const TARGET: Target = Target { name: "template", seeds: SEEDS, words: WORDS, run };

const SEEDS: &[&str] = &[
    "{payload.a}\n---\n{\"a\":12345678901234567890123}\n---\n{}",
    "Build: {payload.s} {context.web.url}\n---\n{\"s\":\"a\\\"b\\ud800\"}\n---\n{\"web\":{\"url\":\"https:\\/\\/x\"}}",
    "{{literal}} {payload.l} {payload.l.1.k}\n---\n{\"l\":[1.10, {\"k\" : null}]}",
    "{payload}{payload.t}\n---\n{\"t\":true}",
];

const WORDS: &[&str] = &[
    "{",
    "}",
    "{{",
    "}}",
    "{payload.a}",
    "{context.web}",
    "{payload}",
    "payload.",
    "config.x",
    ".0",
    "\\u0000",
    "\\ud800",
];

fn run(input: &str) -> Result<u64, String> {
    let mut parts = input.split(SEPARATOR);
    let text = parts.next().unwrap_or_default();
    let mut raw = || parts.next().and_then(|part| RawValue::from_string(part.to_owned()).ok());
    let (payload, context) = (raw(), raw());
    let scope = Scope { payload: payload.as_deref(), context: context.as_deref(), config: None };

    let doubled = text.replace('{', "{{").replace('}', "}}");
    let itself = Template::parse(&doubled).map_err(|error| format!("doubled braces are refused: {error}"))?;
    let itself = itself.render(&scope).map_err(|error| format!("a literal has no value: {error}"))?;
    check(serde_json::from_str::<Value>(itself.get()).is_ok_and(|value| value == text), || {
        format!("a literal is not itself: {itself}")
    })?;
    let with = json!({"a": text, "b": [{"c": text}]});
    let with = With::parse(with.as_object().ok_or("an object")?);
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(malformed) => {
            check(with.faults().len() == 2 && with.render(&scope).is_err(), || "both places are named".to_owned())?;
            return Ok(reached(kind(&malformed.message)));
        }
    };
    let rendered = template.render(&scope);
    let all = with.render(&scope);
    check(all.is_ok() == rendered.is_ok(), || "with renders what its templates render".to_owned())?;
    match (rendered, all) {
        (Ok(value), Ok(all)) => {
            check(all.iter().any(|(key, one)| *key == "a" && one.get() == value.get()), || "with differs".to_owned())?;
            let nested = format!("[{{\"c\":{}}}]", value.get());
            check(all.iter().any(|(key, one)| *key == "b" && one.get() == nested), || {
                "nested with differs".to_owned()
            })?;
            let kinds = (value.get().as_bytes().first().copied(), template.paths().count(), text.contains("{{"));
            Ok(reached(("ok", kinds, value.get().len().ilog2())))
        }
        (Err(error), _) => Ok(reached(kind(&error.to_string()))),
        (Ok(_), Err(_)) => Ok(1),
    }
}

/// Which of the ways to be wrong a message tells of; the rest of it is the input's.
fn kind(message: &str) -> Option<&'static str> {
    ["without its partner", "must begin", "not allowed", "empty segment", "segments are", "is missing", "larger"]
        .into_iter()
        .find(|part| message.contains(part))
}
