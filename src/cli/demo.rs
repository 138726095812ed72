//! `ductile system demo`: a gateway in a directory of its own, real jobs, real kills, and what is left of them.
//!
//! Everything that is shown was asked from the gateway or read from its database a moment before.

mod gateway;

use std::time::{Duration, Instant};

use ductile_domain::ids::JobId;
use ductile_domain::tree::TreeNode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::SystemDemo;
use crate::client::{Client, encode};
use crate::demo::gateway::DemoGateway;
use crate::error::Error;
use crate::instance::Instance;
use crate::job;
use crate::offline::Offline;
use crate::report::{Report, Style};
use crate::system::tree::fetch;
use crate::table::Table;
use crate::tree_view::{self, span};

/// Nothing in the demo takes that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the demo; Ctrl-C ends it and everything that it started.
///
/// # Errors
/// The first step that did not go as promised.
pub(crate) async fn run(args: &SystemDemo, report: &mut Report) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("listen to signals"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("listen to signals"))?;
    tokio::select! {
        result = steps(args, report) => result,
        _ = interrupt.recv() => Err(Error::Failed("interrupted; the demo's gateway is ended".into())),
        _ = terminate.recv() => Err(Error::Failed("terminated; the demo's gateway is ended".into())),
    }
}

async fn steps(args: &SystemDemo, report: &mut Report) -> Result<(), Error> {
    let begin = Instant::now();
    let mut gateway = DemoGateway::prepare()?;
    report.styled("Ductile, in six steps. Every line below is real output.", Style::Bold);
    report.line(format!("Directory: {}", gateway.dir().display()));

    let took = start(&mut gateway, report).await?;
    let mut facts = json!({"started_in_ms": millis(took)});
    let client = gateway.client();
    run_jobs(&gateway, &client, report).await?;
    facts["plugin_killed"] = kill_a_plugin(&gateway, &client, report).await?;
    facts["actor_restarted"] = restart_an_actor(&client, report).await?;
    facts["gateway_killed"] = kill_the_gateway(&mut gateway, &client, report).await?;
    finish(args, gateway, &client, begin.elapsed(), facts, report).await
}

fn heading(n: u8, text: &str, report: &mut Report) {
    report.line("");
    report.styled(&format!("{n}. {text}"), Style::Bold);
}

fn command(text: &str, report: &mut Report) {
    report.styled(&format!("   $ {text}"), Style::Cyan);
}

async fn start(gateway: &mut DemoGateway, report: &mut Report) -> Result<Duration, Error> {
    heading(1, "Start a gateway", report);
    command(&format!("ductile system start --config {}", gateway.dir().display()), report);
    let took = gateway.start().await?;
    report.line(format!("   ready after {}, process {}", span(took), gateway.pid()));
    Ok(took)
}

async fn run_jobs(gateway: &DemoGateway, client: &Client, report: &mut Report) -> Result<(), Error> {
    heading(2, "Run plugins: any executable that reads and writes JSON", report);
    command("ductile plugin run echo -f message='hello, world'", report);
    show_job(client, "echo", json!({"message": "hello, world"}), report).await?;
    if gateway.has_python() {
        command("ductile plugin run py-greet -f name=operator", report);
        show_job(client, "py-greet", json!({"name": "operator"}), report).await?;
    } else {
        report.line("   (python3 is missing here, so the plugins written in Python are left out)");
    }
    Ok(())
}

async fn show_job(client: &Client, plugin: &str, payload: Value, report: &mut Report) -> Result<(), Error> {
    let id = submit(client, plugin, payload).await?;
    let job = ended(client, id, report).await?;
    report.line(format!("   job {id}: {}", job["status"].as_str().unwrap_or("?")));
    report.line(format!("   {}", serde_json::to_string(&job["result"]).unwrap_or_default()));
    expect(&job, "succeeded", 1)
}

/// A job's process dies; the job is tried again, and a job beside it notices nothing.
async fn kill_a_plugin(gateway: &DemoGateway, client: &Client, report: &mut Report) -> Result<Value, Error> {
    heading(3, "Kill a plugin in the middle of its job", report);
    let id = submit(client, "nap", json!({})).await?;
    let pid = process_of(id).await?;
    command(&format!("kill -9 {pid}    # the process of job {id}"), report);
    kill(pid)?;
    let beside = submit(client, "echo", json!({"message": "unharmed"})).await?;
    let beside = ended(client, beside, report).await?;
    report.line(format!(
        "   a job beside it: {}, {}",
        beside["status"].as_str().unwrap_or("?"),
        beside["result"]["result"].as_str().unwrap_or("?")
    ));
    expect(&beside, "succeeded", 1)?;
    let job = ended(client, id, report).await?;
    command(&format!("ductile job inspect {id}"), report);
    show_transitions(gateway, id, report).await?;
    expect(&job, "succeeded", 2)?;
    Ok(json!({"job_id": id, "status": job["status"], "attempt": job["attempt"]}))
}

/// An actor goes down and comes back while a job runs.
async fn restart_an_actor(client: &Client, report: &mut Report) -> Result<Value, Error> {
    heading(4, "Take an actor down while a job runs", report);
    let id = submit(client, "nap", json!({})).await?;
    process_of(id).await?;
    let before = fetch(client).await?;
    let Some(path) = path_of(&before.root, "router") else {
        return Err(Error::Failed("the tree has no router".into()));
    };
    let was = before.root.find(&path).map_or(0, |node| node.incarnation);
    show_nodes(&before.root, &path, "before", report);
    command(&format!("ductile system restart {path}"), report);
    client.post(&format!("/system/actors/{}/restart", encode(&path)), None).await?;
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let tree = fetch(client).await?;
        if tree.root.find(&path).is_some_and(|node| node.incarnation > was && node.phase == "up") {
            break tree;
        }
        not_after(deadline, "the actor did not come back")?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    show_nodes(&after.root, &path, "after", report);
    let job = ended(client, id, report).await?;
    report.line(format!(
        "   the job that ran meanwhile: {} at attempt {}",
        job["status"].as_str().unwrap_or("?"),
        job["attempt"]
    ));
    expect(&job, "succeeded", 1)?;
    Ok(json!({"path": path, "incarnation_before": was, "job_status": job["status"]}))
}

/// The gateway itself is killed, and started again.
async fn kill_the_gateway(gateway: &mut DemoGateway, client: &Client, report: &mut Report) -> Result<Value, Error> {
    heading(5, "Kill the gateway itself in the middle of a job", report);
    let id = submit(client, "nap", json!({})).await?;
    let orphan = process_of(id).await?;
    recorded(client, id).await?;
    command(&format!("kill -9 {}    # the gateway", gateway.pid()), report);
    gateway.kill()?;
    let file = Offline::open(&gateway.instance())?;
    let left = file.job(id).await?;
    report.line(format!(
        "   the database says: job {id} {} at attempt {}",
        left["status"].as_str().unwrap_or("?"),
        left["attempt"]
    ));
    command(&format!("ductile system start --config {}", gateway.dir().display()), report);
    let took = gateway.start().await?;
    report.line(format!(
        "   ready after {}, process {}; the orphan process {orphan} {}",
        span(took),
        gateway.pid(),
        fate(orphan)
    ));
    let job = ended(client, id, report).await?;
    command(&format!("ductile job inspect {id}"), report);
    show_transitions(gateway, id, report).await?;
    expect(&job, "succeeded", 2)?;
    Ok(json!({"job_id": id, "status": job["status"], "attempt": job["attempt"], "restarted_in_ms": millis(took)}))
}

async fn finish(
    args: &SystemDemo,
    mut gateway: DemoGateway,
    client: &Client,
    took: Duration,
    mut facts: Value,
    report: &mut Report,
) -> Result<(), Error> {
    let config = gateway.dir().display().to_string();
    if args.keep {
        heading(6, "The gateway goes on", report);
        let tree = fetch(client).await?;
        for line in tree_view::draw(
            &tree.root,
            chrono::Utc::now(),
            &tree_view::View { width: report.width(), colour: report.has_colour(), ..tree_view::View::default() },
        ) {
            report.line(line);
        }
        report.line("");
        report.line("Look around, in this terminal or another:");
        command(&format!("ductile system tree --watch --config {config}"), report);
        command(&format!("ductile job logs --config {config}"), report);
        command(&format!("ductile plugin run echo -f message=hi --config {config}"), report);
        command(
            &format!("curl --unix-socket {} http://localhost/system/status", gateway.instance().socket().display()),
            report,
        );
        command(&format!("ductile system stop --config {config} && rm -r {config}"), report);
        gateway.leave_running();
    } else {
        heading(6, "Stop it", report);
        let stopped = gateway.stop(client).await?;
        report.line(format!("   stopped after {}; its directory is removed", span(stopped)));
        report.line("");
        report.line(format!("Done in {}. Next:", span(took + stopped)));
        command("ductile system demo --keep                # the same, and leave the gateway running", report);
        command("ductile system start --config ./config    # a gateway of your own", report);
        command("ductile --help", report);
    }
    facts["took_ms"] = millis(took).into();
    facts["kept"] = if args.keep { config.into() } else { Value::Null };
    if report.is_json() {
        report.document(&facts);
    }
    Ok(())
}

async fn submit(client: &Client, plugin: &str, payload: Value) -> Result<JobId, Error> {
    let accepted = client.post(&format!("/plugin/{plugin}/poll"), Some(&json!({ "payload": payload }))).await?;
    let id = accepted["job_id"].as_str().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Error::Answer(format!("no job id in {accepted}")))
}

async fn ended(client: &Client, id: JobId, report: &Report) -> Result<Value, Error> {
    job::wait(client, id, Some(PATIENCE), report).await
}

/// The demo says what it promises, and fails when the gateway did something else.
fn expect(job: &Value, status: &str, attempt: u64) -> Result<(), Error> {
    if job["status"] == status && job["attempt"].as_u64() == Some(attempt) {
        return Ok(());
    }
    Err(Error::Failed(format!("expected {status} at attempt {attempt}, but the job is: {job}")))
}

fn not_after(deadline: Instant, what: &str) -> Result<(), Error> {
    if Instant::now() < deadline { Ok(()) } else { Err(Error::Failed(format!("{what} within {}", span(PATIENCE)))) }
}

/// The process that runs the job, once there is one.
async fn process_of(id: JobId) -> Result<u32, Error> {
    let wanted = format!("DUCTILE_JOB_ID={id}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(Error::io("list processes"))?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes()) {
                found.push(pid);
            }
        }
        // The script is older than what it started.
        if let Some(pid) = found.into_iter().min() {
            return Ok(pid);
        }
        not_after(deadline, "no process was found for the job")?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Until the ledger says that the job runs, some milliseconds after its process began.
async fn recorded(client: &Client, id: JobId) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    while client.get(&format!("/job/{id}")).await?["status"] != "running" {
        not_after(deadline, "the job was not recorded as running")?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn kill(pid: u32) -> Result<(), Error> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let target = target.ok_or_else(|| Error::Failed(format!("{pid} is no process")))?;
    kill_process(target, Signal::KILL).map_err(|e| Error::Io { what: format!("kill process {pid}"), source: e.into() })
}

/// A dead process that its new parent has not looked at yet is a zombie: it runs no more.
fn fate(pid: u32) -> &'static str {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with(['Z', 'X'])) {
        Some(false) => "is still there",
        Some(true) | None => "was ended",
    }
}

fn path_of(root: &TreeNode, name: &str) -> Option<String> {
    let mut path = None;
    tree_view::walk(root, &mut |node| {
        if node.name == name {
            path.get_or_insert_with(|| node.path.clone());
        }
    });
    path
}

/// What became of a job, from its first row to its last.
async fn show_transitions(gateway: &DemoGateway, id: JobId, report: &mut Report) -> Result<(), Error> {
    let transitions = Offline::open(&gateway.instance())?.whole_job(id).await?["transitions"].take();
    let mut table = Table::new(&["   AT", "FROM", "TO", "REASON"]);
    for row in transitions.as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        table.row([
            (format!("   {}", text("created_at").get(11..23).unwrap_or_default()), Style::Dim),
            (text("from_status"), Style::Plain),
            (text("to_status"), Style::of_state(&text("to_status"))),
            (text("reason"), Style::Plain),
        ]);
    }
    report.table(&table);
    Ok(())
}

/// The line of a node and those of its siblings.
fn show_nodes(root: &TreeNode, path: &str, when: &str, report: &mut Report) {
    let Some(parent) = path.rsplit_once('/').and_then(|(parent, _)| root.find(parent)) else { return };
    let mut table = Table::new(&["   ", "ACTOR", "PHASE", "INCARNATION", "RESTARTS"]);
    for node in std::iter::once(parent).chain(&parent.children) {
        let style = if node.path == path { Style::Bold } else { Style::Plain };
        table.row([
            (format!("   {when}"), Style::Dim),
            (node.path.clone(), style),
            (node.phase.clone(), Style::of_state(&node.phase)),
            (node.incarnation.to_string(), style),
            (node.restarts.to_string(), style),
        ]);
    }
    report.table(&table);
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The instance of a directory that the demo made.
fn instance_in(dir: &std::path::Path) -> Instance {
    Instance { config: dir.join("config.yaml"), state: dir.join("ductile.db") }
}
