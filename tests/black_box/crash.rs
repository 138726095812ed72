//! `kill -9` at random times and at every edge of a commit: nothing accepted is lost, nothing ended changes, no plugin
//! process is left.

use std::collections::HashMap;
use std::time::Duration;

use crate::gateway::{Gateway, plugin_processes, sql};

const WORK: &str = "sleep 0.$(( $$ % 3 + 1 ))\nprintf '{\"status\":\"ok\",\"result\":\"worked\"}'";

/// Terminal rows by id, with everything that must not change any more.
fn terminal(gateway: &Gateway) -> HashMap<String, Vec<String>> {
    let rows = sql(
        &gateway.path("ductile.db"),
        "SELECT id, status, attempt, coalesce(completed_at, ''), coalesce(last_error, ''), claim_no FROM job_queue \
         WHERE status IN ('succeeded', 'failed', 'dead', 'skipped')",
    );
    rows.into_iter().map(|row| (row[0].clone(), row)).collect()
}

/// Boot ids named by the environment of this test's plugin processes.
fn boots_of_processes(gateway: &Gateway) -> Vec<String> {
    let mut boots: Vec<String> = plugin_processes(gateway.dir.path())
        .into_iter()
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/environ")).ok())
        .filter_map(|environ| {
            environ
                .split(|b| *b == 0)
                .find_map(|v| v.strip_prefix(b"DUCTILE_BOOT_ID=").map(|b| String::from_utf8_lossy(b).into_owned()))
        })
        .collect();
    boots.sort();
    boots.dedup();
    boots
}

fn all_ended(gateway: &Gateway, ids: &[String]) {
    gateway.until_some("every accepted job has ended", |g| {
        (g.sql_one("SELECT count(*) FROM job_queue WHERE status IN ('queued', 'running')") == "0").then_some(())
    });
    let known: HashMap<String, Vec<String>> = terminal(gateway);
    for id in ids {
        assert!(known.contains_key(id), "the accepted job {id} is lost");
    }
    gateway.until_some("no process is left", |g| plugin_processes(g.dir.path()).is_empty().then_some(()));
    // Each attempt that counted has one record, and no claim was finished twice.
    let twice = gateway.sql("SELECT job_id FROM job_transitions WHERE to_status IN ('succeeded', 'dead') GROUP BY job_id HAVING count(*) > 1");
    assert!(twice.is_empty(), "ended twice: {twice:?}");
    assert_eq!(gateway.sql_one("PRAGMA integrity_check"), "ok");
}

/// SUP-10, OPS-03, QUE-10, promise 2 and 5: killed at random times with 20 running and 200 queued jobs.
#[test]
fn a_job_survives_kill_nine() {
    let builder = Gateway::new()
        .script_with("labour", WORK, "    env_passthrough: [DUCTILE_TEST_DIR]\n    max_attempts: 20\n")
        .service("  max_workers: 20\n");
    let dir = builder.path().display().to_string();
    let mut gateway = builder.env("DUCTILE_TEST_DIR", dir).start();
    let ids: Vec<String> = (0..220).map(|_| gateway.enqueue("labour", "poll", "{}")).collect();
    let mut seed = u64::from(std::process::id());
    for _ in 0..6 {
        gateway.until_some("as many run as may", |g| {
            let count = |status: &str| {
                g.sql_one(&format!("SELECT count(*) FROM job_queue WHERE status IN ({status})"))
                    .parse::<u32>()
                    .expect("a number")
            };
            (count("'running'") >= count("'queued', 'running'").min(18)).then_some(())
        });
        // A small linear congruence: another time at each round, the same for the same process id.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(seed >> 56));
        gateway.kill_nine();
        let before = terminal(&gateway);
        gateway.start();
        let boot = gateway.get("/system/tree")["boot_id"].as_str().expect("a boot id").to_owned();
        let foreign: Vec<String> = boots_of_processes(&gateway).into_iter().filter(|b| *b != boot).collect();
        assert!(foreign.is_empty(), "processes of a former boot live: {foreign:?}");
        assert_eq!(
            gateway
                .sql_one(&format!("SELECT count(*) FROM job_queue WHERE status = 'running' AND boot_id <> '{boot}'")),
            "0"
        );
        let after = terminal(&gateway);
        for (id, row) in before {
            assert_eq!(after.get(&id), Some(&row), "a terminal row changed");
        }
    }
    all_ended(&gateway, &ids);
    assert!(gateway.logs().contains("recovered a job"), "OPS-03: each recovery is logged");
}

/// `kill -9` at every edge of a commit: what was acknowledged is there, what was not is whole or absent.
#[test]
fn a_kill_at_every_commit_edge_loses_nothing() {
    let points = ductile_ledger::failpoints();
    assert!(points.len() >= 4, "{points:?}");
    for point in points {
        // The point is passed some times before the writer stops there for good, so that work is under way.
        for passes in [3, 17] {
            kill_at(point, passes);
        }
    }
}

fn kill_at(point: &str, passes: u32) {
    let builder = Gateway::new()
        .script_with("labour", "printf '{\"status\":\"ok\",\"result\":\"worked\"}'", "    max_attempts: 9\n")
        .service("  max_workers: 4\n")
        .env("FAILPOINTS", format!("{point}={passes}*off->pause"));
    let mut gateway = builder.prepare();
    gateway.spawn();
    let mut accepted = Vec::new();
    let deadline = std::time::Instant::now() + crate::gateway::PATIENCE;
    loop {
        match gateway.request_within(Duration::from_millis(700), "POST", "/plugin/labour/poll", Some("{}")) {
            Ok(response) if response.status == 202 => {
                accepted.push(response.json()["job_id"].as_str().expect("an id").to_owned());
                assert!(accepted.len() < 5000, "{point} was never reached:\n{}", gateway.logs());
            }
            Ok(response) => panic!("{point}: {}", response.body),
            // Nobody listens yet, or the writer had stopped before it could answer.
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock || gateway.logs().contains("ductile running") =>
            {
                break;
            }
            Err(_) => {
                assert!(!gateway.has_ended(), "{point}: {}", gateway.logs());
                if passes < 10 && std::time::Instant::now() > deadline - Duration::from_secs(28) {
                    break; // it stopped in a commit of its start
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    gateway.kill_nine();
    gateway.forget_env("FAILPOINTS");
    let before = if gateway.path("ductile.db").exists() { terminal(&gateway) } else { HashMap::new() };
    gateway.start();
    all_ended(&gateway, &accepted);
    let after = terminal(&gateway);
    for (id, row) in before {
        assert_eq!(after.get(&id), Some(&row), "{point}: a terminal row changed");
    }
}
