//! The way that led to a job: its hops from the root, the pipeline and the step, the join, and what each hop added to the
//! baggage.

use serde_json::{Map, Value};

use super::{indented, pretty, text, tree};
use crate::report::{Report, Style};
use crate::table::{Table, one_line};

/// Prints the hops and the baggage; with `-v` what each hop has added to it.
pub(super) fn show(job: &Value, report: &mut Report) {
    join(job, report);
    let hops = job["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hops.len() > 1 {
        report.line("");
        report.table(&table(hops));
    }
    let contexts = job["lineage"].as_array().map(Vec::as_slice).unwrap_or_default();
    if report.is_verbose() && !contexts.is_empty() {
        report.styled("baggage, hop by hop:", Style::Dim);
        merges(contexts).into_iter().for_each(|line| report.line(line));
    } else if job["context"]["baggage"].as_object().is_some_and(|baggage| !baggage.is_empty()) {
        report.styled("baggage:", Style::Dim);
        indented(&pretty(&job["context"]["baggage"]), usize::MAX, report);
    }
}

/// Prints where the job stands: pipeline, step, instance, depth, what it decided and which join waits for it; nothing
/// outside pipelines and routes.
pub(super) fn place(job: &Value, report: &mut Report) {
    let context = &job["context"];
    let control = &context["control"];
    let (pipeline, root) = (text(context, "pipeline"), text(control, "root"));
    let called = if root.is_empty() || root == pipeline { String::new() } else { format!(" (called in {root})") };
    let depth = match (control["route_depth"].as_u64(), control["route_max_depth"].as_u64()) {
        (Some(depth), Some(most)) if most > 0 => format!("{depth} of at most {most}"),
        (Some(depth), _) => depth.to_string(),
        _ => String::new(),
    };
    for (name, value) in [
        ("pipeline", format!("{pipeline}{called}")),
        ("step", text(context, "step_id")),
        ("instance", text(control, "pipeline_instance_id")),
        ("depth", depth),
    ] {
        if !value.is_empty() {
            report.field(name, &one_line(&value));
        }
    }
    if job["plugin"] == "core.switch" {
        report.field("decision", &one_line(&decision(job)));
    }
    if job["join"].is_object() {
        report.field("join", &join_state(&job["join"]));
    }
}

/// What a decision node has decided, and why when it says so.
fn decision(job: &Value) -> String {
    let decided = match tree::work(job).1.as_str() {
        "true" => "true: its step runs",
        "false" => "false: its step is passed over",
        _ => "not made",
    };
    match job["result"]["result"].as_str().filter(|why| !why.is_empty()) {
        Some(why) => format!("{decided} ({why})"),
        None => decided.to_owned(),
    }
}

/// What the branches have brought to the join that waits for the job, or that it followed.
fn join(job: &Value, report: &mut Report) {
    let Some(branches) = job["join"]["branches"].as_array() else { return };
    report.line("");
    let mut table = Table::new(&["BRANCH", "STEP", "STATUS", "JOB", "ERROR"]);
    for branch in branches {
        let status = text(branch, "status");
        table.row([
            (text(branch, "branch"), Style::Plain),
            (text(branch, "step"), Style::Bold),
            (status.clone(), Style::of_state(&status)),
            (text(branch, "job_id"), Style::Plain),
            (text(branch, "error"), Style::Plain),
        ]);
    }
    report.table(&table);
}

fn join_state(join: &Value) -> String {
    match text(join, "fired_job_id") {
        fired if !fired.is_empty() => format!("fired as job {fired}"),
        _ => format!("waits for {} job(s) and joins in its branches", join["open"]),
    }
}

/// One line for each hop, the root first.
fn table(hops: &[Value]) -> Table {
    let mut table = Table::new(&["HOP", "JOB", "STEP", "PLUGIN", "COMMAND", "STATUS"]);
    for (i, hop) in hops.iter().enumerate() {
        let status = text(hop, "status");
        let (plugin, command) = tree::work(hop);
        table.row([
            (i.to_string(), Style::Dim),
            (text(hop, "job_id"), Style::Plain),
            (tree::step(hop), Style::Bold),
            (plugin, Style::Plain),
            (command, Style::Plain),
            (status.clone(), Style::of_state(&status)),
        ]);
    }
    table
}

/// CLI-03: what each context, given the nearest first, has added to the one that it accretes to.
fn merges(contexts: &[Value]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut before = Map::new();
    for context in contexts.iter().rev() {
        let step = match tree::step(context) {
            step if step.is_empty() => "a route".to_owned(),
            step => step,
        };
        let Some(after) = context["baggage"].as_object() else {
            lines.push(one_line(&format!("  {step}: {} bytes, not shown", text(context, "omitted_bytes"))));
            continue;
        };
        let mut added = Vec::new();
        differences("", &before, after, &mut added);
        lines.push(one_line(&match (added.is_empty(), before.is_empty()) {
            (true, true) => format!("  {step}: nothing"),
            (true, false) => format!("  {step}: what it inherited"),
            (false, true) => format!("  {step}:"),
            (false, false) => format!("  {step}: what it inherited, and"),
        }));
        lines.extend(added.into_iter().map(|line| one_line(&format!("    + {line}"))));
        before.clone_from(after);
    }
    lines
}

/// `path = value` of every value that `after` has and `before` has not. Baggage only grows.
fn differences(at: &str, before: &Map<String, Value>, after: &Map<String, Value>, found: &mut Vec<String>) {
    for (key, value) in after {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (value, before.get(key)) {
            (_, Some(same)) if same == value => {}
            (Value::Object(now), Some(Value::Object(then))) => differences(&path, then, now, found),
            (Value::Object(now), None) if !now.is_empty() => differences(&path, &Map::new(), now, found),
            _ => found.push(format!("{path} = {value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// CLI-27: lineage from the root, decisions named as such.
    #[test]
    fn the_way_to_a_job_is_a_line_for_each_hop() {
        let hops = [
            json!({"job_id": "a", "plugin": "web", "command": "poll", "status": "succeeded"}),
            json!({
                "job_id": "b", "plugin": "core.switch", "command": "handle", "status": "succeeded", "pipeline": "p",
                "step_id": "mail__switch", "decision": "ductile.switch.true",
            }),
            json!({"job_id": "c", "plugin": "mail", "command": "handle", "status": "failed", "pipeline": "p", "step_id": "mail"}),
        ];
        let expected = [
            "HOP  JOB  STEP            PLUGIN  COMMAND  STATUS",
            "0    a                    web     poll     succeeded",
            "1    b    p/mail__switch  <if>    true     succeeded",
            "2    c    p/mail          mail    handle   failed",
        ];
        assert_eq!(table(&hops).lines(None, false), expected);
    }

    /// CLI-03: each hop says what it added to what it inherited.
    #[test]
    fn merges_name_what_each_hop_added() {
        let context = |step: &str, baggage: Value| json!({"pipeline": "p", "step_id": step, "baggage": baggage});
        let contexts = [
            json!({"pipeline": "p", "step_id": "huge", "omitted_bytes": 17}),
            context("mail", json!({"web": {"url": "u", "n": [1]}, "origin_plugin": "web", "x": {}})),
            context("sum", json!({"web": {"url": "u", "n": [1]}, "origin_plugin": "web", "x": {}})),
            context("sum__switch", json!({"web": {"url": "u"}, "origin_plugin": "web"})),
            json!({"baggage": {}}),
        ];
        let expected = [
            "  a route: nothing",
            "  p/sum__switch:",
            "    + origin_plugin = \"web\"",
            "    + web.url = \"u\"",
            "  p/sum: what it inherited, and",
            "    + web.n = [1]",
            "    + x = {}",
            "  p/mail: what it inherited",
            "  p/huge: 17 bytes, not shown",
        ];
        assert_eq!(merges(&contexts), expected);
    }

    #[test]
    fn decisions_and_joins_say_how_far_they_are() {
        let switch =
            |kind: &str| json!({"plugin": "core.switch", "result": {"events": [{"type": kind}], "result": "n gt 1"}});
        assert_eq!(decision(&switch("ductile.switch.true")), "true: its step runs (n gt 1)");
        assert_eq!(decision(&switch("ductile.switch.false")), "false: its step is passed over (n gt 1)");
        assert_eq!(decision(&json!({"plugin": "core.switch"})), "not made");
        assert_eq!(join_state(&json!({"open": 2})), "waits for 2 job(s) and joins in its branches");
        assert_eq!(join_state(&json!({"open": 0, "fired_job_id": "j"})), "fired as job j");
    }
}
