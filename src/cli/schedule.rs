//! `ductile schedule ...`: what is due and when, why something did not run, and an operator's hand on it.

mod explain;

use ductile_domain::ids::JobId;
use serde_json::{Value, json};

use crate::args::{Global, Schedule, ScheduleList, ScheduleRun, ScheduleSwitch};
use crate::client::{Client, encode, query};
use crate::compiled::Compiled;
use crate::error::Error;
use crate::instance::{Instance, connect};
use crate::job;
use crate::offline::Offline;
use crate::report::{Report, Style};
use crate::table::Table;
pub(crate) use explain::breaker_text;

/// Runs one action.
///
/// # Errors
/// What the action says.
pub(crate) async fn run(action: Schedule, global: &Global, report: &mut Report) -> Result<(), Error> {
    match action {
        Schedule::List(args) => list(&args, global, report).await,
        Schedule::Explain(args) => explain::run(&args, global, report).await,
        Schedule::Pause(args) => switch(&args, true, global, report).await,
        Schedule::Resume(args) => switch(&args, false, global, report).await,
        Schedule::Run(args) => run_now(&args, global, report).await,
    }
}

/// The configuration on disk and the database, because no gateway answers.
struct Files {
    compiled: Compiled,
    offline: Offline,
}

impl Files {
    /// Why the gateway does not answer is the trouble when there is no database either.
    fn instead(why: &Error, global: &Global, report: &Report) -> Result<Self, Error> {
        let offline = Offline::instead(&Instance::locate(global, report)?, why, report)?;
        Ok(Self { compiled: Compiled::load(global, report)?, offline })
    }
}

async fn list(args: &ScheduleList, global: &Global, report: &mut Report) -> Result<(), Error> {
    let path = format!("/scheduler/jobs{}", query(&[("plugin", args.plugin.as_deref())]));
    let answer = match connect(global, report)?.get(&path).await {
        Err(error) if error.is_unreachable() && global.api_url.is_none() => {
            let Files { compiled, offline } = Files::instead(&error, global, report)?;
            offline.schedules(&compiled.generation, args.plugin.as_deref()).await?
        }
        answer => answer?,
    };
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    if jobs.is_empty() {
        report.line("no schedules; `schedules:` in the entry of a plugin makes some");
    } else {
        report.table(&table(jobs));
    }
    Ok(())
}

fn table(jobs: &[Value]) -> Table {
    let mut table =
        Table::new(&["PLUGIN", "SCHEDULE", "COMMAND", "RULE", "STATUS", "NEXT (UTC)", "LAST (UTC)", "REASON"]);
    for job in jobs {
        let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
        let time = |key: &str| job[key].as_str().map_or_else(|| "-".to_owned(), job::to_second);
        let rule = match (&*text("mode"), &*text("timezone")) {
            ("cron", zone) => format!("{} ({zone})", text("rule")),
            ("invalid", _) => "-".to_owned(),
            _ => text("rule"),
        };
        table.row([
            (text("plugin"), Style::Bold),
            (text("schedule_id"), Style::Bold),
            (text("command"), Style::Plain),
            (rule, Style::Plain),
            (text("status"), of_status(&text("status"))),
            (time("next_run_at"), Style::Plain),
            (time("last_fired_at"), Style::Dim),
            (text("reason"), Style::Dim),
        ]);
    }
    table
}

/// The style of a schedule's status, a tick's, or a breaker's state.
pub(crate) fn of_status(word: &str) -> Style {
    match word {
        "active" | "fired" | "caught_up" | "closed" | "fire" => Style::Green,
        "paused_manual" | "skipped" | "half_open" | "skip" | "wait" | "expected" => Style::Yellow,
        "paused_invalid" | "missed" | "open" => Style::Red,
        _ => Style::Plain,
    }
}

/// The schedule that is meant: the one that was named, else the plugin's only one, else `default`.
async fn meant(client: &Client, plugin: &str, id: Option<&str>) -> Result<String, Error> {
    if let Some(id) = id {
        return Ok(id.to_owned());
    }
    let answer = client.get(&format!("/scheduler/jobs{}", query(&[("plugin", Some(plugin))]))).await?;
    let jobs = answer["jobs"].as_array().into_iter().flatten();
    of_several(plugin, &jobs.filter_map(|job| job["schedule_id"].as_str()).collect::<Vec<_>>())
}

fn of_several(plugin: &str, ids: &[&str]) -> Result<String, Error> {
    match ids {
        [] => Err(Error::Failed(format!("plugin {plugin:?} has no schedule; `ductile schedule list` lists all"))),
        [only] => Ok((*only).to_owned()),
        _ if ids.contains(&"default") => Ok("default".to_owned()),
        _ => Err(Error::Usage(format!("plugin {plugin:?} has several schedules: name one of {}", ids.join(", ")))),
    }
}

async fn switch(args: &ScheduleSwitch, paused: bool, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let id = args.id.as_ref().map(|id| format!("/{}", encode(id))).unwrap_or_default();
    let verb = if paused { "pause" } else { "resume" };
    let path = format!("/scheduler/{}{id}/{verb}", encode(&args.plugin));
    if args.dry.dry_run {
        return would_post(&client, &path, report);
    }
    let answer = client.post(&path, None).await?;
    if report.is_json() {
        report.document(&answer);
        return Ok(());
    }
    let changed = answer["changed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    report.line(switched(&args.plugin, paused, &changed.collect::<Vec<_>>()));
    Ok(())
}

fn switched(plugin: &str, paused: bool, changed: &[&str]) -> String {
    let ids = changed.join(", ");
    match (paused, changed.is_empty()) {
        (true, false) => format!("paused {ids} of {plugin}; `ductile schedule resume {plugin}` ends that"),
        (true, true) => format!("nothing was changed: no active schedule of {plugin} was left to pause"),
        (false, false) => format!("resumed {ids} of {plugin}"),
        (false, true) => format!("nothing was changed: no operator has paused what was named of {plugin}"),
    }
}

async fn run_now(args: &ScheduleRun, global: &Global, report: &mut Report) -> Result<(), Error> {
    let client = connect(global, report)?;
    let id = meant(&client, &args.plugin, args.id.as_deref()).await?;
    let path = format!("/scheduler/{}/{}/run", encode(&args.plugin), encode(&id));
    if args.dry.dry_run {
        return would_post(&client, &path, report);
    }
    let accepted = client.post(&path, None).await?;
    let job: JobId = accepted["job_id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| Error::Answer(format!("no job id in {accepted}")))?;
    if args.wait {
        report.detail(format!("job {job} accepted; waiting"));
        let ended = job::wait(&client, job, args.timeout, report).await?;
        return job::conclude(&ended, report);
    }
    if report.is_json() {
        report.document(&accepted);
    } else {
        report.line(job.to_string());
    }
    Ok(())
}

fn would_post(client: &Client, path: &str, report: &mut Report) -> Result<(), Error> {
    report.line(format!("would ask {} for POST {path}", client.target()));
    if report.is_json() {
        report.document(&json!({"dry_run": true, "method": "POST", "path": path}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_a_schedule_is_due_and_what_keeps_it_from_firing() {
        let jobs = [
            json!({
                "plugin": "echo", "schedule_id": "default", "command": "poll", "mode": "every", "rule": "every 5m",
                "status": "active", "timezone": "UTC", "next_run_at": "2026-01-01T00:05:00.123Z",
                "last_fired_at": "2026-01-01T00:00:00.000Z",
            }),
            json!({
                "plugin": "echo", "schedule_id": "nightly", "command": "poll", "mode": "cron",
                "rule": "cron 30 2 * * *", "status": "paused_manual", "timezone": "Australia/Sydney",
            }),
            json!({
                "plugin": "p", "schedule_id": "#2", "command": "poll", "mode": "invalid", "status": "paused_invalid",
                "reason": "nothing says when it is due",
            }),
        ];
        let lines = table(&jobs).lines(None, false);
        let words =
            |line: &str| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("|");
        assert_eq!(words(&lines[1]), "echo|default|poll|every 5m|active|2026-01-01 00:05:00|2026-01-01 00:00:00");
        assert_eq!(words(&lines[2]), "echo|nightly|poll|cron 30 2 * * * (Australia/Sydney)|paused_manual|-|-");
        assert_eq!(words(&lines[3]), "p|#2|poll|-|paused_invalid|-|-|nothing says when it is due");
    }

    #[test]
    fn a_schedule_needs_no_name_where_only_one_can_be_meant() {
        assert_eq!(of_several("p", &["a"]).expect("the only one"), "a");
        assert_eq!(of_several("p", &["a", "default"]).expect("the usual one"), "default");
        assert_eq!(of_several("p", &["a", "b"]).expect_err("which?").exit_code(), 2);
        assert_eq!(of_several("p", &[]).expect_err("none").exit_code(), 1);
    }

    #[test]
    fn what_was_switched_is_said() {
        assert_eq!(switched("p", true, &["a", "b"]), "paused a, b of p; `ductile schedule resume p` ends that");
        assert!(switched("p", false, &[]).starts_with("nothing was changed"));
    }
}
