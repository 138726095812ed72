//! `ductile pipeline list`: the pipelines in force, or those on disk when no gateway answers.

use ductile_domain::pipeline::{Pipeline, Trigger};
use serde_json::{Value, json};

use crate::args::Global;
use crate::compiled::Compiled;
use crate::error::Error;
use crate::instance::connect;
use crate::report::{Report, Style};
use crate::table::{Table, one_line};

/// Prints one line for each.
///
/// # Errors
/// A bad address, or the configuration can't be loaded.
pub(super) async fn run(global: &Global, report: &mut Report) -> Result<(), Error> {
    let answer = match connect(global, report)?.get("/pipelines").await {
        Err(error) if error.is_unreachable() && global.api_url.is_none() => {
            report.note("note: no gateway answers; reading the configuration on disk");
            offline(&Compiled::load(global, report)?, report)
        }
        answer => answer?,
    };
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let pipelines = answer["pipelines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let routes = answer["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if pipelines.is_empty() && routes.is_empty() {
        report.line("no pipelines; `pipelines:` in a configuration file makes some");
        return Ok(());
    }
    if !pipelines.is_empty() {
        report.table(&table(pipelines));
    }
    for route in routes {
        let text = |key: &str| route[key].as_str().unwrap_or_default();
        report.line(one_line(&format!("route: {} of {} to {}", text("event_type"), text("from"), text("to"))));
    }
    Ok(())
}

fn table(pipelines: &[Value]) -> Table {
    let mut table = Table::new(&["PIPELINE", "TRIGGER", "FROM", "MODE", "STEPS", "LAST ACTIVITY"]);
    for pipeline in pipelines {
        let text = |key: &str| pipeline[key].as_str().unwrap_or_default().to_owned();
        let (last, style) = last_activity(&pipeline["last_activity"]);
        table.row([
            (text("name"), Style::Bold),
            (trigger(pipeline), Style::Plain),
            (text("from_plugin"), Style::Plain),
            (text("execution_mode"), Style::Plain),
            (steps(pipeline).to_string(), Style::Plain),
            (last, style),
        ]);
    }
    table
}

/// `on TYPE` or `on-hook SIGNAL`.
pub(super) fn trigger(pipeline: &Value) -> String {
    let word = if pipeline["on_hook"] == true { "on-hook" } else { "on" };
    format!("{word} {}", pipeline["trigger"].as_str().unwrap_or_default())
}

/// How many steps were written, groups aside.
fn steps(pipeline: &Value) -> u64 {
    fn written(steps: &Value) -> u64 {
        let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
        let groups = |step: &Value| step.get("steps").or(step.get("split")).map(written);
        steps.iter().map(|step| groups(step).unwrap_or(1)).sum()
    }
    pipeline["steps"].as_u64().unwrap_or_else(|| written(&pipeline["steps"]))
}

pub(super) fn last_activity(last: &Value) -> (String, Style) {
    let text = |key: &str| last[key].as_str().unwrap_or_default();
    match last {
        Value::String(at) => (crate::job::to_second(at), Style::Dim),
        Value::Object(_) => {
            let at = crate::job::to_second(text("at"));
            (format!("{} {at}", text("status")).trim().to_owned(), Style::of_state(text("status")))
        }
        _ => ("-".to_owned(), Style::Dim),
    }
}

/// The gateway's answer as far as the files tell.
fn offline(compiled: &Compiled, report: &Report) -> Value {
    let wrong = compiled.of_pipelines.iter().filter(|problem| problem.is_error()).count();
    if wrong > 0 {
        report
            .note(format!("note: {wrong} error(s) keep pipelines from being shown; `ductile config check` lists them"));
    }
    let pipelines = &compiled.generation.pipelines;
    let listed: Vec<Value> =
        pipelines.iter().map(|pipeline| view(pipeline, compiled.written(&pipeline.name))).collect();
    let routes: Vec<Value> = pipelines
        .routes()
        .iter()
        .map(|route| json!({"from": route.from, "event_type": route.event_type, "to": route.to}))
        .collect();
    json!({"pipelines": listed, "routes": routes})
}

/// One pipeline in the gateway's shape.
pub(super) fn view(pipeline: &Pipeline, written: &Value) -> Value {
    let mut view = json!({
        "name": pipeline.name,
        "trigger": pipeline.trigger.event_type(),
        "on_hook": matches!(pipeline.trigger, Trigger::Hook(_)),
        "execution_mode": pipeline.execution.as_str(),
        "timeout_secs": pipeline.timeout.as_secs_f64(),
        "max_depth": pipeline.max_depth,
        "steps": written["steps"],
    });
    if pipeline.timeout.subsec_nanos() == 0 {
        view["timeout_secs"] = json!(pipeline.timeout.as_secs());
    }
    for (key, value) in [("if", &written["if"]), ("from_plugin", &json!(pipeline.source_plugin))] {
        if !value.is_null() {
            view[key] = value.clone();
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_starts_a_pipeline_and_when_it_last_did_something() {
        let pipelines = [
            json!({
                "name": "nightly", "trigger": "tick.night", "on_hook": false, "from_plugin": "clock",
                "execution_mode": "asynchronous", "steps": [{"uses": "a"}, {"split": [{"uses": "b"}, {"steps": [{"call": "c"}]}]}],
                "last_activity": {"at": "2026-01-01T00:00:00.123Z", "status": "failed"},
            }),
            json!({"name": "alarm", "trigger": "job.failed", "on_hook": true, "execution_mode": "synchronous", "steps": 2}),
        ];
        let expected = [
            "PIPELINE  TRIGGER             FROM   MODE          STEPS  LAST ACTIVITY",
            "nightly   on tick.night       clock  asynchronous  3      failed 2026-01-01 00:00:00",
            "alarm     on-hook job.failed         synchronous   2      -",
        ];
        assert_eq!(table(&pipelines).lines(None, false), expected);
    }
}
