//! `ductile plugin ...`: what can be run, and running it.

mod check;
mod record;
mod trial;

use std::io::Read;

use ductile_domain::ids::JobId;
use serde_json::{Map, Value, json};

use crate::args::{Global, Plugin, PluginRun, PluginShow};
use crate::client::{Client, encode};
use crate::error::Error;
use crate::instance::connect;
use crate::job;
use crate::report::{Report, Style};
use crate::table::Table;
pub(crate) use check::interpreter;
pub(crate) use record::millis;

/// Runs one action.
///
/// # Errors
/// What the action says.
pub(crate) async fn run(action: Plugin, global: &Global, report: &mut Report) -> Result<(), Error> {
    match action {
        Plugin::List => list(&connect(global, report)?, report).await,
        Plugin::Show(args) => show(&args, &connect(global, report)?, report).await,
        Plugin::Run(args) => run_one(&args, &connect(global, report)?, report).await,
        Plugin::Check(args) => check::run(&args, global, report),
        Plugin::Test(args) => trial::run(&args, global, report).await,
        Plugin::Facts(args) => record::facts(&args, &connect(global, report)?, report).await,
        Plugin::Stopwatch(args) => record::stopwatch(&args, &connect(global, report)?, report).await,
    }
}

async fn list(client: &Client, report: &mut Report) -> Result<(), Error> {
    let answer = client.get("/plugins").await?;
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let mut table = Table::new(&["PLUGIN", "VERSION", "STATE", "COMMANDS", "DESCRIPTION"]);
    for plugin in answer["plugins"].as_array().into_iter().flatten() {
        let text = |key: &str| plugin[key].as_str().unwrap_or_default().to_owned();
        let commands: Vec<&str> =
            plugin["commands"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (state, style) = match (&plugin["runnable"], &plugin["healthy"]) {
            (Value::Bool(false), _) => ("off", Style::Yellow),
            (_, Value::Bool(false)) => ("unhealthy", Style::Red),
            _ => ("ready", Style::Green),
        };
        table.row([
            (text("name"), Style::Bold),
            (text("version"), Style::Plain),
            (state.into(), style),
            (commands.join(" "), Style::Plain),
            (text("description"), Style::Dim),
        ]);
    }
    if table.is_empty() {
        report.line("no plugins; `plugin_roots` in config.yaml says where they are looked for");
    } else {
        report.table(&table);
    }
    Ok(())
}

async fn show(args: &PluginShow, client: &Client, report: &mut Report) -> Result<(), Error> {
    let plugin = client.get(&format!("/plugin/{}", encode(&args.plugin))).await?;
    if report.is_json() {
        report.document(&plugin);
        return Ok(());
    }
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    report.field_styled("plugin", &text(&plugin, "name"), Style::Bold);
    report.field("version", &text(&plugin, "version"));
    if plugin["uses"].is_string() {
        report.field("alias of", &text(&plugin, "uses"));
    }
    report.field("about", &text(&plugin, "description"));
    if plugin["healthy"] == false {
        let reason = crate::table::one_line(&text(&plugin, "unhealthy_reason"));
        report.field_styled("unhealthy", &format!("its init failed: {reason}"), Style::Red);
    }
    for command in plugin["commands"].as_array().into_iter().flatten() {
        report.line("");
        report.line(format!("{} ({})  {}", text(command, "name"), text(command, "type"), text(command, "description")));
        for (name, schema) in command["input_schema"]["properties"].as_object().into_iter().flatten() {
            let kind = schema["type"].as_str().unwrap_or("any");
            report.line(format!("  {name:<16} {kind:<8} {}", text(schema, "description")));
        }
    }
    Ok(())
}

async fn run_one(args: &PluginRun, client: &Client, report: &mut Report) -> Result<(), Error> {
    let payload = args.payload.as_deref().map(read_payload).transpose()?;
    let plugin = client.get(&format!("/plugin/{}", encode(&args.plugin))).await?;
    let command = match &args.action {
        Some(command) => command.clone(),
        None => default_command(&plugin)?,
    };
    let schema = plugin["commands"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["name"] == command.as_str())
        .map(|c| c["input_schema"].clone())
        .unwrap_or_default();
    let payload = with_fields(payload, &args.fields, &schema)?;
    let body = payload.map_or_else(|| json!({}), |payload| json!({ "payload": payload }));
    let unrouted = if args.no_route { "?route=false" } else { "" };
    let path = format!("/plugin/{}/{}{unrouted}", encode(&args.plugin), encode(&command));
    if args.dry.dry_run {
        report.line(format!("would ask {} for POST {path} with {body}", client.target()));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "method": "POST", "path": path, "body": body}));
        }
        return Ok(());
    }
    let accepted = client.post(&path, Some(&body)).await?;
    let id: JobId = accepted["job_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Error::Answer(format!("no job id in {accepted}")))?;
    if accepted["duplicate"] == true {
        report.note(format!("note: job {id} was asked for before; this is its outcome"));
    }
    if args.no_wait {
        if report.is_json() {
            report.document(&accepted);
        } else {
            report.line(id.to_string());
        }
        return Ok(());
    }
    report.detail(format!("job {id} accepted; waiting"));
    let job = job::wait(client, id, args.timeout, report).await?;
    job::conclude(&job, report)
}

/// C-94: `poll` if declared, else `handle`.
fn default_command(plugin: &Value) -> Result<String, Error> {
    let names: Vec<&str> =
        plugin["commands"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    ["poll", "handle"].into_iter().find(|c| names.contains(c)).map(str::to_owned).ok_or_else(|| {
        Error::Usage(format!("the plugin has neither poll nor handle: name one of its commands: {}", names.join(", ")))
    })
}

/// The payload of `--payload`: JSON itself, `@FILE`, or `-` for stdin.
///
/// # Errors
/// It can't be read, or is no JSON object.
pub(crate) fn read_payload(argument: &str) -> Result<Map<String, Value>, Error> {
    read_object(argument, "the payload")
}

/// The same for any other argument; `what` names it.
///
/// # Errors
/// It can't be read, or is no JSON object.
pub(crate) fn read_object(argument: &str, what: &str) -> Result<Map<String, Value>, Error> {
    match serde_json::from_str(&read_argument(argument, what)?) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::Usage(format!("{what} is JSON, but no object: write {{\"key\": \"value\"}}"))),
        Err(e) => Err(Error::Usage(format!("{what} is no JSON: {e}"))),
    }
}

/// An argument that is text itself, `@FILE`, or `-` for stdin; `what` names it.
///
/// # Errors
/// It can't be read.
pub(crate) fn read_argument(argument: &str, what: &str) -> Result<String, Error> {
    if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Error::io(format!("read {what} from stdin")))?;
        return Ok(text);
    }
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|source| Error::ReadFile { path: path.into(), source }),
        None => Ok(argument.to_owned()),
    }
}

/// Lays the `-f` fields over the payload; `None` when there is neither.
///
/// # Errors
/// A field is none, or no value of the type that `schema` wants.
pub(crate) fn with_fields(
    payload: Option<Map<String, Value>>,
    fields: &[String],
    schema: &Value,
) -> Result<Option<Map<String, Value>>, Error> {
    if fields.is_empty() {
        return Ok(payload);
    }
    let mut payload = payload.unwrap_or_default();
    for field in fields {
        let (key, value) = read_field(field, schema)?;
        payload.insert(key, value);
    }
    Ok(Some(payload))
}

/// `KEY=VALUE` is text, unless the plugin's schema wants something else; `KEY:=JSON` is any JSON.
///
/// # Errors
/// It is neither.
pub(crate) fn read_field(field: &str, schema: &Value) -> Result<(String, Value), Error> {
    let Some((key, value)) = field.split_once('=').filter(|(key, _)| !key.trim_end_matches(':').is_empty()) else {
        return Err(Error::Usage(format!("-f {field}: write KEY=VALUE, or KEY:=JSON")));
    };
    let json = |key: &str, wanted: &str| {
        serde_json::from_str(value).map_err(|e| Error::Usage(format!("-f {key}: {value:?} is no {wanted}: {e}")))
    };
    if let Some(key) = key.strip_suffix(':') {
        return Ok((key.to_owned(), json(key, "JSON")?));
    }
    let value = match schema["properties"][key]["type"].as_str() {
        Some(wanted @ ("integer" | "number" | "boolean" | "object" | "array" | "null")) => json(key, wanted)?,
        _ => Value::from(value),
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_the_schema_and_lie_over_the_payload() {
        let schema =
            json!({"properties": {"n": {"type": "integer"}, "b": {"type": "boolean"}, "s": {"type": "string"}}});
        let fields = ["n=3", "b=true", "s=3", "other=3", "any:={\"x\":[1]}", "eq=a=b"].map(String::from);
        let payload = read_payload("{\"n\":1,\"kept\":null}").expect("an object");
        let payload = with_fields(Some(payload), &fields, &schema).expect("good").expect("some");
        let expected = json!({"n": 3, "kept": null, "b": true, "s": "3", "other": "3", "any": {"x": [1]}, "eq": "a=b"});
        assert_eq!(Value::Object(payload), expected);
        assert_eq!(with_fields(None, &[], &schema).expect("good"), None);
        for bad in ["n=x", "novalue", "=x", ":=1", "k:={"] {
            assert_eq!(read_field(bad, &schema).expect_err(bad).exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_payload_must_be_an_object() {
        for bad in ["[]", "3", "{", ""] {
            assert_eq!(read_payload(bad).expect_err(bad).exit_code(), 2, "{bad}");
        }
        assert_eq!(read_payload("@/nowhere/at/all").expect_err("no file").exit_code(), 1);
    }

    /// CLI-31, C-94: poll comes first, then handle.
    #[test]
    fn the_default_command_is_poll_then_handle() {
        let plugin = |names: &[&str]| json!({"commands": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
        assert_eq!(default_command(&plugin(&["handle", "poll"])).expect("poll"), "poll");
        assert_eq!(default_command(&plugin(&["health", "handle"])).expect("handle"), "handle");
        assert_eq!(default_command(&plugin(&["health"])).expect_err("neither").exit_code(), 2);
    }
}
