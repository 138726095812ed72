//! `ductile schedule explain`: why a schedule did or did not run, and when it will.

use serde_json::Value;

use super::{Files, meant, of_several, of_status};
use crate::args::{Global, ScheduleExplain};
use crate::client::encode;
use crate::error::Error;
use crate::instance::connect;
use crate::job;
use crate::report::{Report, Style};
use crate::table::{Table, one_line};

/// Asks the gateway, or reads configuration and database when none answers.
///
/// # Errors
/// There is no such schedule, or nothing can be read.
pub(super) async fn run(args: &ScheduleExplain, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let id = meant(&client, &args.plugin, args.id.as_deref()).await;
    let answer = match id {
        Ok(id) => client.get(&format!("/scheduler/{}/{}", encode(&args.plugin), encode(&id))).await,
        Err(error) => Err(error),
    };
    let told = match answer {
        Err(error) if error.is_unreachable() && global.api_url.is_none() => {
            let files = Files::instead(&error, global, report)?;
            let schedules = files.compiled.generation.scheduled();
            let ids: Vec<&str> = schedules.filter(|s| *s.plugin == *args.plugin).map(|s| &*s.id).collect();
            let id = args.id.clone().map_or_else(|| of_several(&args.plugin, &ids), Ok)?;
            files.offline.explanation(&files.compiled.generation, &args.plugin, &id).await?
        }
        answer => answer?,
    };
    if report.is_json() {
        report.document(&told);
    } else {
        print(&told, report);
    }
    Ok(())
}

fn print(told: &Value, report: &mut Report) {
    let text = |key: &str| told[key].as_str().unwrap_or_default();
    report.field_styled("schedule", &format!("{} {}", text("plugin"), text("schedule_id")), Style::Bold);
    report.field_styled("status", text("status"), of_status(text("status")));
    report.line(format!("{:<13}  {}", "verdict", one_line(text("verdict"))));
    report.field("command", text("command"));
    if told["rule"].is_string() {
        report.field("rule", &format!("{} ({})", text("rule"), text("timezone")));
    }
    for (name, key) in [
        ("only between", "only_between"),
        ("not on", "not_on"),
        ("jitter", "jitter"),
        ("catch up", "catch_up"),
        ("if running", "if_running"),
    ] {
        if told[key].is_string() {
            report.field(name, text(key));
        }
    }
    if let Some(most) = told["max_outstanding_polls"].as_u64() {
        report.field("guard", &format!("at most {most} poll(s) queued or running"));
    }
    let breaker = &told["breaker"];
    report.field_styled("breaker", &breaker_text(breaker), of_status(breaker["state"].as_str().unwrap_or_default()));
    if told["last_success_at"].is_string() {
        let at = job::to_second(text("last_success_at"));
        report.field("last success", &format!("{at} UTC, job {}", text("last_success_job_id")));
    }
    for (title, key, lines) in
        [("LAST TICKS", "past", past as fn(&[Value]) -> Table), ("NEXT TICKS", "next", next as fn(&[Value]) -> Table)]
    {
        let ticks = told[key].as_array().map(Vec::as_slice).unwrap_or_default();
        report.line("");
        report.styled(title, Style::Dim);
        if ticks.is_empty() {
            report.line("none");
        } else {
            report.table(&lines(ticks));
        }
    }
}

/// `open after 3 failures of 3; tries again at ...`.
pub(crate) fn breaker_text(breaker: &Value) -> String {
    let state = breaker["state"].as_str().unwrap_or("?");
    let failures = format!("{} of {} failures in a row", breaker["failure_count"], breaker["threshold"]);
    let retry = breaker["retry_at"].as_str().map(|at| format!("; may try again at {} UTC", job::to_second(at)));
    format!("{state}, {failures}{}", retry.unwrap_or_default())
}

fn past(ticks: &[Value]) -> Table {
    let mut table = Table::new(&["DUE", "UTC", "END", "JOB", "WHY"]);
    for tick in ticks {
        let text = |key: &str| tick[key].as_str().unwrap_or_default();
        let several = tick["instants"]
            .as_u64()
            .map(|n| format!("{n} instants until {} UTC", job::to_second(text("last_instant"))));
        let why = [several.as_deref().unwrap_or_default(), text("why"), text("note")];
        table.row([
            (local(text("local")), Style::Plain),
            (job::to_second(text("due_at")), Style::Dim),
            (end(tick), of_status(text("status"))),
            (tick["job_id"].as_str().unwrap_or("-").to_owned(), Style::Plain),
            (joined(&why), Style::Plain),
        ]);
    }
    table
}

fn next(ticks: &[Value]) -> Table {
    let mut table = Table::new(&["DUE", "UTC", "OUTLOOK", "WHY"]);
    for tick in ticks {
        let text = |key: &str| tick[key].as_str().unwrap_or_default();
        table.row([
            (local(text("local")), Style::Plain),
            (job::to_second(text("due_at")), Style::Dim),
            (joined_by(": ", &[text("outlook"), text("reason")]), of_status(text("outlook"))),
            (joined(&[text("why"), text("note")]), Style::Plain),
        ]);
    }
    table
}

/// `skipped: guard`.
fn end(tick: &Value) -> String {
    let text = |key: &str| tick[key].as_str().unwrap_or_default();
    joined_by(": ", &[text("status"), text("reason")])
}

fn joined(parts: &[&str]) -> String {
    joined_by("; ", parts)
}

fn joined_by(separator: &str, parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(separator)
}

/// `2026-10-04T03:00:00.000+11:00` as `2026-10-04 03:00:00 +11:00`.
fn local(at: &str) -> String {
    match (at.get(..19), at.get(23..)) {
        (Some(time), Some(offset)) => format!("{} {offset}", time.replace('T', " ")),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_tick_is_a_line_with_its_reason() {
        let ticks = [
            json!({
                "due_at": "2026-10-03T16:00:00.000Z", "local": "2026-10-04T03:00:00.000+11:00", "status": "fired",
                "job_id": "01890f3e", "note": "02:30 does not exist on that day",
            }),
            json!({
                "due_at": "2026-10-02T16:30:00.000Z", "local": "2026-10-03T02:30:00.000+10:00", "status": "missed",
                "reason": "gateway_down", "why": "the gateway was down", "instants": 3,
                "last_instant": "2026-10-02T16:45:00.000Z",
            }),
        ];
        let expected = [
            "DUE                         UTC                  END                   JOB       WHY",
            "2026-10-04 03:00:00 +11:00  2026-10-03 16:00:00  fired                 01890f3e  02:30 does not exist on that day",
            "2026-10-03 02:30:00 +10:00  2026-10-02 16:30:00  missed: gateway_down  -         3 instants until 2026-10-02 16:45:00 UTC; the gateway was down",
        ];
        assert_eq!(past(&ticks).lines(None, false), expected);
        let coming = [json!({
            "due_at": "2026-10-03T16:00:00.000Z", "local": "2026-10-04T03:00:00.000+11:00", "outlook": "skip",
            "reason": "not_on", "why": "it is due on a day of `not_on`",
        })];
        assert_eq!(
            next(&coming).lines(None, false)[1],
            "2026-10-04 03:00:00 +11:00  2026-10-03 16:00:00  skip: not_on  it is due on a day of `not_on`"
        );
    }

    #[test]
    fn a_breaker_says_when_it_tries_again() {
        let open = json!({"state": "open", "failure_count": 3, "threshold": 3, "retry_at": "2026-01-01T00:30:00.000Z"});
        assert_eq!(breaker_text(&open), "open, 3 of 3 failures in a row; may try again at 2026-01-01 00:30:00 UTC");
    }
}
