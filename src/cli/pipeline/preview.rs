//! `ductile pipeline dry-run`: what a payload would make of a pipeline, from the configuration on disk.

use ductile_domain::pipeline::{StartFault, dry_run};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};

use super::steps::condition;
use crate::args::Global;
use crate::compiled::Compiled;
use crate::error::Error;
use crate::report::{Report, Style};
use crate::table::one_line;

/// Prints it; nothing is enqueued and nothing is run.
///
/// # Errors
/// There is no such pipeline, it has problems, its first steps can't claim what they need from the payload, or a request
/// that is known already can't be put together.
pub(super) fn show(
    name: &str,
    payload: Option<Map<String, Value>>,
    global: &Global,
    report: &mut Report,
) -> Result<(), Error> {
    let compiled = Compiled::load(global, report)?;
    let pipeline = compiled.pipeline(name)?;
    let payload = to_raw_value(&payload.unwrap_or_default()).map_err(|e| Error::Usage(format!("the payload: {e}")))?;
    let mut preview = dry_run(&compiled.generation, pipeline, &payload).map_err(|fault| unfit(name, &fault))?;
    compiled.redact(&mut preview);
    preview["dry_run"] = true.into();
    if report.is_json() {
        report.document(&preview);
    } else {
        for (text, style) in lines(&preview) {
            report.styled(&text, style);
        }
    }
    match faults(&preview) {
        faults if faults.is_empty() => Ok(()),
        faults => Err(Error::Failed(format!("pipeline {name} would fail with this payload: {}", faults.join("; ")))),
    }
}

fn unfit(name: &str, fault: &StartFault) -> Error {
    Error::Failed(format!("pipeline {name} would not start with this payload: {fault}"))
}

/// Why it would fail, as far as that is known.
fn faults(preview: &Value) -> Vec<String> {
    let told = preview["faults"].as_array().into_iter().flatten().filter_map(|fault| fault.as_str().map(str::to_owned));
    let steps = preview["steps"].as_array().into_iter().flatten();
    let refused = steps.filter(|step| step["state"] == "refused").map(|step| {
        let text = |key: &str| step[key].as_str().unwrap_or_default();
        format!("step {}: {}", text("node"), text("error"))
    });
    told.chain(refused).collect()
}

/// What is known of it, in lines.
fn lines(preview: &Value) -> Vec<(String, Style)> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (name, mode) = (text(preview, "pipeline"), text(preview, "execution_mode"));
    let mut lines = vec![(format!("{name} ({mode}); nothing is enqueued"), Style::Bold)];
    let trigger = text(preview, "trigger");
    lines.push(match preview["if"].as_object() {
        None => (format!("an event {trigger} starts it"), Style::Plain),
        Some(_) if preview["starts"] == true => (
            format!("an event {trigger} with this payload starts it: {}", text(&preview["if"], "reason")),
            Style::Plain,
        ),
        Some(_) => (
            format!(
                "an event {trigger} with this payload does not start it: {}; by hand it would be:",
                text(&preview["if"], "reason")
            ),
            Style::Yellow,
        ),
    });
    for step in preview["steps"].as_array().into_iter().flatten() {
        lines.extend(step_lines(step, preview["faults"].as_array().is_some_and(|faults| !faults.is_empty())));
    }
    lines.into_iter().map(|(line, style)| (one_line(&line), style)).collect()
}

/// `is_broken`: the walk has ended early, and what it has not met is no decision's doing.
fn step_lines(step: &Value, is_broken: bool) -> Vec<(String, Style)> {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let work = match text("plugin") {
        "core.switch" => "<if>".to_owned(),
        "core.join" => "<join>".to_owned(),
        plugin => format!("{plugin}.{}", text("command")),
    };
    let head = |state: String, style| (format!("  {}  {work}: {state}", text("node")), style);
    let mut lines = Vec::new();
    match (text("state"), &step["if"]) {
        ("decided", _) => {
            let holds = if step["holds"] == true { "true" } else { "false" };
            let why = if text("reason").is_empty() { String::new() } else { format!(" ({})", text("reason")) };
            lines.push(head(format!("{holds}{why}"), Style::Yellow));
        }
        ("requested", _) => lines.push(head("runs".into(), Style::Green)),
        ("refused", _) => lines.push(head(format!("FAILS: {}", text("error")), Style::Red)),
        ("bypassed", _) if is_broken => lines.push(head("not reached".into(), Style::Dim)),
        ("bypassed", _) => lines.push(head("passed over".into(), Style::Dim)),
        (later, Value::Null) => lines.push(head(later.to_owned(), Style::Plain)),
        (later, tree) => lines.push(head(format!("{later} by {}", condition(tree)), Style::Plain)),
    }
    match text("state") {
        "requested" => lines.extend(fields(step, "payload", "=").chain(fields(step, "context", "="))),
        "bypassed" => {}
        _ => lines.extend(fields(step, "baggage", "from")),
    }
    lines
}

/// A line for each field of an object; texts that say where a value comes from stand bare.
fn fields<'a>(step: &'a Value, key: &'a str, sign: &'a str) -> impl Iterator<Item = (String, Style)> + 'a {
    step[key].as_object().into_iter().flatten().filter(|(name, _)| !is_control(name)).map(move |(name, value)| {
        let value = if sign == "from" { text_of(value) } else { value.to_string() };
        (format!("      {key} {name} {sign} {value}"), Style::Plain)
    })
}

/// What the gateway itself puts into every context, and from there into payloads, says nothing about the pipeline.
fn is_control(name: &str) -> bool {
    name.starts_with("ductile_") || name.starts_with("origin_") || name == "trace_id"
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// CLI-35: decisions, requests, and what only a run can tell.
    #[test]
    fn a_preview_says_what_is_known_and_what_is_not() {
        let preview = json!({
            "pipeline": "greet", "trigger": "somebody.came", "execution_mode": "asynchronous", "starts": false,
            "if": {"holds": false, "reason": "payload.n is 1"}, "faults": [],
            "steps": [
                {"node": "a__switch", "plugin": "core.switch", "command": "handle", "state": "decided", "holds": true, "reason": "payload.x is 2"},
                {
                    "node": "a", "plugin": "say", "command": "poll", "state": "requested", "payload": {"n": 1, "trace_id": "t"},
                    "context": {"ductile_plugin": "say", "trace_id": "t", "web": {"url": "u"}}, "baggage": {"web.url": "u"},
                },
                {
                    "node": "b__switch", "plugin": "core.switch", "command": "handle", "state": "decided at run time",
                    "if": {"path": "payload.n", "op": "gt", "value": 1},
                },
                {"node": "b", "plugin": "say", "command": "handle", "state": "decided at run time", "baggage": {"k": "payload.v"}},
                {"node": "c", "plugin": "say", "command": "handle", "state": "bypassed", "baggage": {"k": "payload.v"}},
                {"node": "step_1__join", "plugin": "core.join", "command": "handle", "state": "decided at run time"},
                {"node": "d", "plugin": "say", "command": "handle", "state": "refused", "error": "no payload.url"},
            ],
        });
        let expected = "\
greet (asynchronous); nothing is enqueued
an event somebody.came with this payload does not start it: payload.n is 1; by hand it would be:
  a__switch  <if>: true (payload.x is 2)
  a  say.poll: runs
      payload n = 1
      context web = {\"url\":\"u\"}
  b__switch  <if>: decided at run time by payload.n gt 1
  b  say.handle: decided at run time
      baggage k from payload.v
  c  say.handle: passed over
  step_1__join  <join>: decided at run time
  d  say.handle: FAILS: no payload.url";
        let drawn: Vec<String> = lines(&preview).into_iter().map(|(line, _)| line).collect();
        assert_eq!(drawn.join("\n"), expected, "\n{}", drawn.join("\n"));
        assert_eq!(faults(&preview), ["step d: no payload.url"]);
        assert_eq!(step_lines(&preview["steps"][4], true)[0].0, "  c  say.handle: not reached");
        assert!(faults(&json!({"faults": ["too deep"]})).contains(&"too deep".to_owned()));
    }
}
