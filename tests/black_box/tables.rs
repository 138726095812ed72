//! The ledger as operators' SQL sees it: tables, columns and keys that must not be missing or renamed.

use crate::gateway::Gateway;

/// Table, its columns in any order, and the columns of its primary key.
const TABLES: &[(&str, &str, &str)] = &[
    // DBS-02
    (
        "job_queue",
        "id plugin command payload status attempt max_attempts submitted_by dedupe_key created_at started_at completed_at \
         next_retry_at last_error parent_job_id source_event_id event_context_id enqueued_config_snapshot_id \
         started_config_snapshot_id",
        "id",
    ),
    // DBS-03
    (
        "job_log",
        "id job_id plugin command status result attempt submitted_by created_at started_at completed_at last_error stderr \
         parent_job_id source_event_id event_context_id enqueued_config_snapshot_id started_config_snapshot_id",
        "id",
    ),
    // DBS-04
    ("plugin_facts", "id seq plugin_name fact_type job_id command fact_json created_at", "id"),
    // DBS-05
    ("plugin_state", "plugin_name state updated_at", "plugin_name"),
    // DBS-06
    ("event_context", "id parent_id pipeline_name step_id accumulated_json created_at", "id"),
    // DBS-07
    (
        "circuit_breakers",
        "plugin command state failure_count opened_at last_failure_at last_job_id updated_at",
        "plugin command",
    ),
    // DBS-08
    (
        "circuit_breaker_transitions",
        "id plugin command from_state to_state failure_count reason job_id created_at",
        "id",
    ),
    // DBS-09
    (
        "schedule_entries",
        "plugin schedule_id command status reason last_fired_at last_success_job_id last_success_at next_run_at updated_at",
        "plugin schedule_id",
    ),
    // DBS-10
    ("job_transitions", "id job_id from_status to_status reason created_at", "id"),
    ("job_attempts", "id job_id attempt created_at status exit_code error started_at completed_at", "id"),
    // DBS-11
    (
        "config_snapshots",
        "id config_hash source_hash source_path source reason loaded_at ductile_version binary_path snapshot_format semantics \
         plugin_fingerprints sanitized_config secret_fingerprints",
        "id",
    ),
    // DBS-12
    ("storage_sequences", "name value", "name"),
    // DBS-13
    (
        "job_stopwatch",
        "id job_id plugin pipeline step_id pipeline_instance_id attempt enter_wall_ns exit_wall_ns dur_ns runtime_pre_ns \
         runtime_post_ns status subs_json recorded_at",
        "id",
    ),
];

/// DBS-02, DBS-03, DBS-04, DBS-05, DBS-06, DBS-07, DBS-08, DBS-09, DBS-10, DBS-11, DBS-12, DBS-13, OPS-32: a fresh file
/// has every promised table with every promised column and key.
#[test]
fn a_fresh_ledger_has_the_promised_tables() {
    let gateway = Gateway::new().plugin("echo").start();
    for (table, columns, key) in TABLES {
        let info = gateway.sql(&format!("SELECT name, pk FROM pragma_table_info('{table}')"));
        for column in columns.split_whitespace() {
            assert!(info.iter().any(|c| c[0] == column), "{table}.{column} is missing: {info:?}");
        }
        let mut keys: Vec<_> = info.iter().filter(|c| c[1] != "0").map(|c| c[0].as_str()).collect();
        keys.sort_unstable();
        let mut promised: Vec<_> = key.split_whitespace().collect();
        promised.sort_unstable();
        assert_eq!(keys, promised, "the primary key of {table}");
    }
    // QUE-08: no priority, anywhere.
    assert_eq!(gateway.sql_one("SELECT count(*) FROM pragma_table_info('job_queue') WHERE name LIKE '%priorit%'"), "0");
}

/// FCT-01, FCT-02, DBS-12: facts get ascending numbers from their sequence, in the transaction of their job.
#[test]
fn facts_are_numbered_in_the_order_of_their_jobs() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: py-greet needs python3, which is not installed");
        return;
    }
    let gateway = Gateway::new().plugin("py-greet").service("  max_workers: 1\n").start();
    let ids: Vec<_> = (0..3).map(|_| gateway.enqueue("py-greet", "poll", r#"{"name":"Ada"}"#)).collect();
    for id in &ids {
        assert_eq!(gateway.finished(id)["status"], "succeeded");
    }
    let facts = gateway.sql("SELECT job_id, json_valid(fact_json) FROM plugin_facts ORDER BY seq");
    assert_eq!(facts, ids.iter().map(|id| vec![id.clone(), "1".to_owned()]).collect::<Vec<_>>());
    let last = gateway.sql_one("SELECT value FROM storage_sequences WHERE name = 'plugin_facts'");
    assert_eq!(gateway.sql_one("SELECT max(seq) FROM plugin_facts"), last);
    let mirrored = gateway.sql_one(
        "SELECT f.fact_json = s.state FROM plugin_facts f JOIN plugin_state s USING (plugin_name) ORDER BY seq DESC LIMIT 1",
    );
    assert_eq!(mirrored, "1", "FCT-04");
}

/// TEL-01, TEL-02, TEL-03, TEL-07: every attempt leaves one record with plausible times, whatever its end; the plugin
/// is told nothing of it.
#[test]
fn every_attempt_leaves_a_stopwatch_record() {
    let gateway = Gateway::new()
        .script("good", "sleep 0.2; grep -c dur_ns >&2; printf '{\"status\":\"ok\",\"result\":\"x\"}'")
        .script_with("bad", "exit 1", "    retry: {max_attempts: 2, backoff_base: 10ms}\n")
        .script_with("late", "exec sleep 30", "    timeout: 200ms\n    max_attempts: 1\n")
        .start();
    for plugin in ["good", "bad", "late"] {
        let id = gateway.enqueue(plugin, "poll", "{}");
        gateway.finished(&id);
    }
    let records = gateway.sql("SELECT plugin, attempt, status FROM job_stopwatch ORDER BY plugin, attempt");
    let expected = [["bad", "1", "err"], ["bad", "2", "err"], ["good", "1", "ok"], ["late", "1", "timeout"]];
    assert_eq!(records, expected.map(|r| r.map(str::to_owned).to_vec()));
    let plausible = gateway.sql_one(
        "SELECT min(dur_ns > 0 AND exit_wall_ns - enter_wall_ns >= dur_ns - 50000000 AND runtime_pre_ns >= 0 AND runtime_post_ns >= 0) \
         FROM job_stopwatch",
    );
    assert_eq!(plausible, "1", "{:?}", gateway.sql("SELECT * FROM job_stopwatch"));
    assert_eq!(gateway.sql_one("SELECT dur_ns >= 200000000 FROM job_stopwatch WHERE plugin = 'good'"), "1");
    assert_eq!(gateway.sql_one("SELECT trim(stderr, char(10)) FROM job_log WHERE plugin = 'good'"), "0", "TEL-07");
}

/// DBS-06: when the records of a run are past their retention, so are its contexts and its joins, from the last hop back to
/// the first.
#[test]
fn contexts_and_joins_go_with_the_records_that_they_explain() {
    let mut gateway = Gateway::new()
        .script("step", "printf '{\"status\":\"ok\",\"result\":\"done\"}'")
        .service("  dedupe_ttl: 1s\n  job_queue_retention: 1s\n  job_log_retention: 1s\n")
        .wiring(
            "pipelines:\n  - name: brief\n    on: brief.start\n    execution_mode: synchronous\n    steps:\n      - uses: step\n      \
             - split: [{uses: step}, {uses: step}]\n      - uses: step\n        join: all\n",
        )
        .start();
    let run = gateway.request("POST", "/pipeline/brief", None);
    assert_eq!((run.status, &run.json()["status"]), (200, &"succeeded".into()), "{}", run.body);
    let left = "SELECT (SELECT count(*) FROM job_queue) + (SELECT count(*) FROM job_log) + (SELECT count(*) FROM event_context) \
                + (SELECT count(*) FROM pipeline_joins) + (SELECT count(*) FROM pipeline_join_branches)";
    gateway.until("nothing is left", |g| (g.sql_one(left) == "0").then_some(()));
}
