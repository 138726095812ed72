//! Pipelines from the command line: started, waited for, drawn, explained job by job, run again from a step.

use std::fs;

use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::Gateway;

/// Says something, and emits an event with what it got.
const SAY: &str = "read -r request\nprintf '{\"status\":\"ok\",\"result\":\"said\",\"events\":[{\"type\":\"said\",\"payload\":{\"n\":3}}]}'\n";

const PIPELINES: &str = "\
pipelines:
  - name: publish
    on: article.written
    steps:
      - id: check
        uses: say
        if: {path: payload.n, op: gt, value: 1}
        baggage: {article.n: payload.n}
      - id: spread
        split:
          - id: web
            uses: say
          - id: mail
            uses: say
            baggage: {mail.n: payload.n}
      - id: close
        uses: say
        join: all
  - name: lenient
    on: article.copied
    steps:
      - split:
          - uses: say
          - uses: fail
      - id: close
        uses: say
        join: any_succeeded
  - name: slow
    on: article.long
    execution_mode: synchronous
    timeout: 100ms
    steps:
      - uses: nap
  - name: broken
    on: article.lost
    execution_mode: synchronous
    steps:
      - id: fetch
        uses: fail
";

/// A gateway with the pipelines, not started.
fn prepared(pipelines: &str) -> Gateway {
    let fail = "printf '{\"status\":\"error\",\"error\":\"no such article\",\"retry\":false}'\n";
    let gateway = Gateway::new().script("say", SAY).script("fail", fail).script("nap", "sleep 30").prepare();
    let config = gateway.path("config.yaml");
    let whole = fs::read_to_string(&config).expect("a configuration") + pipelines;
    fs::write(&config, whole).expect("written");
    gateway
}

fn by_step<'a>(tree: &'a Value, step: &str) -> &'a Value {
    let jobs = tree.as_array().expect("a list");
    jobs.iter().find(|job| job["step_id"] == step).unwrap_or_else(|| panic!("no job of step {step} in {tree}"))
}

/// CLI-27, CLI-03, CLI-35, QUE-35: a run from its start to a replay of one step, with and without the gateway.
#[test]
fn a_run_is_started_waited_for_explained_and_repeated() {
    let mut gateway = prepared(PIPELINES);
    gateway.start();
    let (code, _, stderr) = said(&gateway.cli(&["pipeline", "dry-run", "publish", "-f", "n:=2", "--json"]));
    assert_eq!((code, gateway.sql_one("SELECT count(*) FROM job_queue")), (0, "0".to_owned()), "{stderr}");

    let run = gateway.cli_json(&["pipeline", "run", "publish", "-f", "n:=2", "--wait", "--timeout", "30s", "--json"]);
    assert_eq!(run["status"], "succeeded", "{run}");
    let tree = &run["tree"];
    assert_eq!(tree.as_array().map(Vec::len), Some(6), "{tree}");
    assert_eq!(run["result"], by_step(tree, "close")["result"]);

    let root = run["job_id"].as_str().expect("an id");
    let (code, drawn, _) = said(&gateway.cli(&["job", "tree", root]));
    assert_eq!(code, 0);
    for line in ["publish/check__switch  <if>", "publish/close__join", "<join>  2 of 2", "publish/mail"] {
        assert!(drawn.contains(line), "{line}:\n{drawn}");
    }

    let close = by_step(tree, "close")["job_id"].as_str().expect("an id");
    let (_, text, _) = said(&gateway.cli(&["job", "inspect", close, "-v"]));
    for line in ["pipeline       publish", "step           close", "+ article.n = 2", "publish/check__switch"] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    let join = by_step(tree, "close__join")["job_id"].as_str().expect("an id");
    let (_, text, _) = said(&gateway.cli(&["job", "inspect", join]));
    assert!(text.contains("join           fired as job") && text.contains("mail"), "{text}");
    let switch = by_step(tree, "check__switch")["job_id"].as_str().expect("an id");
    let (_, text, _) = said(&gateway.cli(&["job", "inspect", switch]));
    assert!(text.contains("decision       true: its step runs"), "{text}");

    let again = gateway.cli_json(&["job", "replay", root, "--from-step", "mail", "--wait", "--json"]);
    assert_eq!(again["status"], "succeeded", "{again}");
    let (code, _, stderr) = said(&gateway.cli(&["job", "replay", root, "--from-step", "mai"]));
    assert!(code == 1 && stderr.contains("did you mean") && stderr.contains("publish/close"), "{code} {stderr}");

    let list = gateway.cli_json(&["pipeline", "list", "--json"]);
    assert_eq!(list["pipelines"][2]["name"], "publish", "{list}");
    assert_eq!(list["pipelines"][2]["last_activity"]["status"], "succeeded", "{list}");

    let keys = ["job_id", "context", "lineage", "hops", "join"];
    let live: Vec<Value> =
        [close, join, switch].iter().map(|id| gateway.cli_json(&["job", "inspect", id, "--json"])).collect();
    assert!(live.iter().any(|job| job["join"].is_object()) && live[0]["hops"][0]["decision"] == "ductile.switch.true");
    let steps: Vec<&Value> = live[0]["hops"].as_array().expect("hops").iter().map(|hop| &hop["step_id"]).collect();
    assert!(
        steps.iter().all(|step| step.is_string()),
        "also of branches, which are not in the baggage's line: {steps:?}"
    );
    assert_eq!(gateway.stop(), 0);
    for live in &live {
        let offline = gateway.cli_json(&["job", "inspect", live["job_id"].as_str().expect("an id"), "--json"]);
        for key in keys {
            assert_eq!(offline[key], live[key], "{key}");
        }
    }
}

/// CLI-05, API-11: a pipeline that failed is an exit code, with the step and the cause.
#[test]
fn a_failed_pipeline_says_where_and_why() {
    let mut gateway = prepared(PIPELINES);
    gateway.start();
    for way in [&[][..], &["--wait"]] {
        let (code, stdout, stderr) = said(&gateway.cli(&[&["pipeline", "run", "broken"], way].concat()));
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(stdout.contains("pipeline broken failed"), "{stdout}");
        assert!(stderr.contains("at step fetch: ") && stderr.contains("no such article"), "{stderr}");
    }
    let run = gateway.cli_json(&["pipeline", "run", "lenient", "--wait", "--json"]);
    assert_eq!(run["status"], "succeeded", "its join makes up for the branch that failed: {run}");
    let accepted = gateway.cli_json(&["pipeline", "run", "broken", "--async", "--json"]);
    assert_eq!((&accepted["plugin"], &accepted["command"]), (&json!("pipeline"), &json!("broken")));
    let (code, _, stderr) = said(&gateway.cli(&["pipeline", "run", "brocken"]));
    assert!(code == 1 && stderr.contains("broken"), "{code} {stderr}");
}

/// API-10: who waits gets the job and the next step when the time is over; the work goes on.
#[test]
fn a_pipeline_that_outlasts_its_time_goes_on() {
    let mut gateway = prepared(PIPELINES);
    gateway.start();
    for way in [&[][..], &["--wait", "--timeout", "100ms"]] {
        let (code, _, stderr) = said(&gateway.cli(&[&["pipeline", "run", "slow"], way].concat()));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("has not ended after") && stderr.contains("ductile job tree "), "{stderr}");
    }
    let going_on = "SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')";
    assert_eq!(gateway.sql_one(going_on), "2");
}

/// CLI-18, PIP-05: what is wrong is told with file, line and a hint, by the check and by the start, all at once.
#[test]
fn a_wrong_pipeline_is_told_with_its_line() {
    let mut gateway = prepared(
        "pipelines:\n  - name: a\n    on: x\n    steps:\n      - uses: sa\n      - uses: say\n        call: b\n",
    );
    let config = gateway.path("config.yaml");
    let text = fs::read_to_string(&config).expect("a configuration");
    let line = text.lines().position(|line| line.contains("uses: sa")).expect("written") + 1;
    let (code, stdout, _) = said(&gateway.cli(&["config", "check"]));
    assert_eq!(code, 78, "{stdout}");
    for part in [format!("{}:{line}:", config.display()), "did you mean".into(), "it has uses and call".into()] {
        assert!(stdout.contains(&part), "{part}:\n{stdout}");
    }
    gateway.spawn();
    assert_eq!(gateway.wait_exit(), 78);
    assert!(gateway.logs().contains(&format!("{}:{line}:", config.display())), "{}", gateway.logs());
}

/// RTR-07: with `--no-route` nothing follows.
#[test]
fn a_run_without_routes_starts_nothing() {
    let mut gateway = prepared("pipelines:\n  - name: hear\n    on: said\n    steps:\n      - uses: fail\n");
    gateway.start();
    for (more, jobs) in [(&["--no-route"][..], 1), (&[], 2)] {
        let run = gateway.cli_json(&[&["plugin", "run", "say", "poll", "--json"], more].concat());
        let tree = gateway.cli_json(&["job", "tree", run["job_id"].as_str().expect("an id"), "--json"]);
        assert_eq!(tree.as_array().map(Vec::len), Some(jobs), "{tree}");
    }
}
