//! `ductile pipeline show`: one pipeline as written, and with `-v` what it was compiled to.

use std::time::Duration;

use ductile_domain::pipeline::routes_view;
use serde_json::Value;

use super::{list, steps};
use crate::args::{Global, PipelineShow};
use crate::client::encode;
use crate::compiled::Compiled;
use crate::error::Error;
use crate::instance::connect;
use crate::report::{Report, Style};
use crate::table::one_line;
use crate::tree_view::span;

/// Asks the gateway, or reads the configuration on disk when none answers.
///
/// # Errors
/// There is no such pipeline, or the configuration can't be loaded.
pub(super) async fn run(args: &PipelineShow, global: &Global, report: &mut Report) -> Result<(), Error> {
    let pipeline = match connect(global, report)?.get(&format!("/pipeline/{}", encode(&args.name))).await {
        Err(error) if error.is_unreachable() && global.api_url.is_none() => {
            report.note("note: no gateway answers; reading the configuration on disk");
            offline(&Compiled::load(global, report)?, &args.name)?
        }
        answer => answer?,
    };
    if report.is_json() {
        report.document(&pipeline);
        return Ok(());
    }
    head(&pipeline, report);
    for line in steps::lines(&pipeline["steps"]) {
        report.tree_line(&line.lead, &line.text, line.style);
    }
    if report.is_verbose() {
        report.line("");
        for line in routes(&pipeline["compiled_routes"]) {
            report.line(line);
        }
    }
    Ok(())
}

fn offline(compiled: &Compiled, name: &str) -> Result<Value, Error> {
    let pipeline = compiled.pipeline(name)?;
    let mut view = list::view(pipeline, compiled.written(name));
    view["compiled_routes"] = routes_view(pipeline);
    compiled.redact(&mut view["compiled_routes"]);
    Ok(view)
}

fn head(pipeline: &Value, report: &mut Report) {
    let text = |key: &str| pipeline[key].as_str().unwrap_or_default().to_owned();
    report.field_styled("pipeline", &text("name"), Style::Bold);
    report.field("trigger", &list::trigger(pipeline));
    if pipeline["from_plugin"].is_string() {
        report.field("from", &text("from_plugin"));
    }
    if !pipeline["if"].is_null() {
        report.field("if", &one_line(&steps::condition(&pipeline["if"])));
    }
    let timeout = pipeline["timeout_secs"].as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    let mode = match (text("execution_mode"), timeout) {
        (mode, Some(timeout)) if mode == "synchronous" => format!("{mode}, waited for at most {}", span(timeout)),
        (mode, _) => mode,
    };
    report.field("mode", &mode);
    match pipeline["max_depth"].as_u64() {
        Some(0) => report.field("max depth", "none"),
        Some(depth) => report.field("max depth", &depth.to_string()),
        None => {}
    }
    let last = list::last_activity(&pipeline["last_activity"]);
    if pipeline["last_activity"].is_object() || pipeline["last_activity"].is_string() {
        report.field_styled("last activity", &last.0, last.1);
    }
}

/// A line for each compiled route: its id, where it comes from, where it leads.
fn routes(routes: &Value) -> Vec<String> {
    let routes = routes.as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<&str> = routes.iter().map(|route| route["id"].as_str().unwrap_or_default()).collect();
    let width = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0);
    routes.iter().zip(&ids).map(|(route, id)| one_line(&format!("{id:<width$}  {}", route_text(route)))).collect()
}

fn route_text(route: &Value) -> String {
    let (source, destination) = (&route["source"], &route["destination"]);
    let mut parts = Vec::new();
    // A trigger is the type of its event; the edges of a pipeline name it only where they are bound to one.
    let heard = ["trigger", "hook_signal", "event_type"].into_iter().find(|key| source[*key].is_string());
    for (key, word) in heard.into_iter().map(|key| (key, "on")).chain([("source_plugin", "from")]) {
        if let Some(value) = source[key].as_str() {
            parts.push(format!("{word} {value}"));
        }
    }
    if !source["if"].is_null() {
        parts.push(format!("if {}", steps::condition(&source["if"])));
    }
    if let Some(depth) = source["depth_lt"].as_u64().filter(|depth| *depth > 0) {
        parts.push(format!("depth < {depth}"));
    }
    let work: Vec<&str> = ["plugin", "command"].into_iter().filter_map(|key| destination[key].as_str()).collect();
    let leads =
        if work.is_empty() { destination["kind"].as_str().unwrap_or("nothing").to_owned() } else { work.join(".") };
    parts.push(format!("-> {leads}"));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// PIP-50: trigger, source plugin, condition and depth guard of each compiled route.
    #[test]
    fn a_compiled_route_is_one_line() {
        let compiled = json!([
            {
                "id": "entry:a__switch",
                "source": {"trigger": "x.y", "event_type": "x.y", "source_plugin": "p", "if": {"path": "payload.n", "op": "gt", "value": 1}, "depth_lt": 20},
                "destination": {"kind": "uses", "step_id": "a__switch", "plugin": "core.switch", "command": "handle"},
            },
            {
                "id": "edge:a__switch->a",
                "source": {"pipeline": "q", "step_id": "a__switch", "event_type": "ductile.switch.true"},
                "destination": {"kind": "uses", "step_id": "a", "plugin": "echo", "command": "poll"},
            },
            {"id": "terminal:a", "source": {"pipeline": "q", "step_id": "a"}, "destination": {"kind": "terminal"}},
        ]);
        let expected = [
            "entry:a__switch    on x.y from p if payload.n gt 1 depth < 20 -> core.switch.handle",
            "edge:a__switch->a  on ductile.switch.true -> echo.poll",
            "terminal:a         -> terminal",
        ];
        assert_eq!(routes(&compiled), expected);
    }
}
