//! Schedules at the command line: what is wrong with one is said, what is in force is shown, and with no gateway the
//! files answer.

use std::fs;

use serde_json::{Value, json};

use crate::cli::said;
use crate::gateway::Gateway;

/// Two that fire never within a test, and one that can't be read.
const ENTRIES: &str = "    schedules:
      - {id: yearly, cron: '30 2 29 2 *', timezone: Australia/Sydney, payload: {note: hush-hush-words}}
      - {id: slow, every: 30d}
      - {id: wrong, every: 5m, cron: '@daily'}
";

fn schedule<'a>(listed: &'a Value, id: &str) -> &'a Value {
    let jobs = listed["jobs"].as_array().expect("a list");
    jobs.iter().find(|job| job["schedule_id"] == id).unwrap_or_else(|| panic!("{id} is not in {listed}"))
}

/// SCH-03, SCH-04, SCH-25, CLI-17, CLI-20: `config check` refuses the entry with its line, the gateway starts with the
/// others, strict mode refuses the start.
#[test]
fn a_wrong_entry_fails_the_check_and_keeps_no_other_from_its_ticks() {
    let mut gateway = Gateway::new().plugin_with("echo", ENTRIES).prepare();
    let (code, document, _) = said(&gateway.cli(&["config", "check", "--json"]));
    assert_eq!(code, 78, "{document}");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let wrong = &document["errors"][0];
    assert_eq!((&wrong["category"], &wrong["field"]), (&json!("schedule"), &json!("plugins.echo.schedules[2]")));
    let text = fs::read_to_string(gateway.path("config.yaml")).expect("the configuration");
    let line = text.lines().position(|line| line.contains("id: wrong")).expect("the entry") + 1;
    assert_eq!(wrong["line"], json!(line), "{wrong}");
    let shown = gateway.cli_json(&["config", "show", "plugin:echo", "--json"]);
    assert_eq!(
        shown["schedules"][1],
        json!({"id": "slow", "every": "30d", "command": "poll", "catch_up": "skip", "if_running": "skip",
            "timezone": shown["schedules"][1]["timezone"]})
    );

    gateway.start();
    let listed = gateway.until_some("the schedules are arranged", |gateway| {
        let listed = gateway.get("/scheduler/jobs");
        schedule(&listed, "slow")["next_run_at"].is_string().then_some(listed)
    });
    assert_eq!(schedule(&listed, "wrong")["status"], "paused_invalid");
    assert_eq!(
        gateway.sql_one("SELECT status || ': ' || reason FROM schedule_entries WHERE schedule_id = 'wrong'"),
        "paused_invalid: `every` and `cron` are set, and only one can be"
    );
    let (_, doctor, _) = said(&gateway.cli(&["system", "doctor", "--json"]));
    let doctor: Value = serde_json::from_str(&doctor).expect("JSON");
    let finding = doctor["checks"].as_array().expect("a list").iter().find(|check| check["id"] == "schedules");
    assert_eq!(finding.expect("it looks at schedules")["detail"], "can't be read: echo wrong");
    assert_eq!(gateway.stop(), 0);

    fs::write(gateway.path("config.yaml"), text.replace("service:\n", "service:\n  strict_mode: true\n"))
        .expect("the configuration");
    gateway.spawn();
    assert_eq!(gateway.wait_exit(), 78, "{}", gateway.logs());
}

/// CLI-37: what is in force is shown by the gateway, and by the files when none runs.
#[test]
fn schedules_are_shown_and_explained_with_and_without_a_gateway() {
    let mut gateway = Gateway::new().plugin_with("echo", ENTRIES).start();
    gateway.until_some("the schedules are arranged", |gateway| {
        schedule(&gateway.get("/scheduler/jobs"), "yearly")["next_run_at"].is_string().then_some(())
    });
    let ask = |gateway: &Gateway| {
        let mut explained = gateway.cli_json(&["schedule", "explain", "echo", "yearly", "--json"]);
        explained["now"] = Value::Null;
        let list = gateway.cli_json(&["schedule", "list", "--json"]);
        let breakers = gateway.cli_json(&["system", "breaker", "echo", "--json"]);
        (explained, list, breakers)
    };
    let online = ask(&gateway);
    assert_eq!(online.0["next"].as_array().map(Vec::len), Some(10), "{}", online.0);
    assert!(online.0["next"][0]["local"].as_str().is_some_and(|at| at.contains("-02-29T02:30:00.000+11:00")));
    assert_eq!((&online.2["breakers"][0]["state"], &online.2["transitions"]), (&json!("closed"), &json!([])));
    assert!(!online.0.to_string().contains("hush-hush-words"), "payloads are shown to nobody: {}", online.0);
    for (words, part) in [
        (&["schedule", "explain", "echo", "yearly"][..], "it has had no tick yet; the next tick is due at"),
        (&["schedule", "list"], "cron 30 2 29 2 * (Australia/Sydney)"),
        (&["system", "breaker"], "closed"),
    ] {
        let (code, text, stderr) = said(&gateway.cli(words));
        assert!(code == 0 && text.contains(part), "{words:?}: {text}{stderr}");
    }
    for words in [
        &["schedule", "explain", "echo", "yaerly"][..],
        &["schedule", "pause", "ecko"],
        &["schedule", "run", "echo", "nothing"],
        &["system", "reset", "ecko"],
        &["system", "breaker", "ecko"],
    ] {
        let (code, _, stderr) = said(&gateway.cli(words));
        assert_eq!(code, 1, "{words:?}: {stderr}");
        assert!(words[2] == "echo" || stderr.contains("did you mean \"echo\""), "{words:?}: {stderr}");
    }
    assert_eq!(said(&gateway.cli(&["schedule", "explain", "echo"])).0, 2, "it has several");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(ask(&gateway), online);
    let (code, _, stderr) = said(&gateway.cli(&["schedule", "run", "echo", "slow"]));
    assert_eq!(code, 69, "{stderr}");
}
