//! Rules that the database itself keeps, its shape, and the operators' queries.

mod support;

use ductile_domain::job::{ClaimRequest, JobStatus, LEGAL_TRANSITIONS};
use ductile_domain::outcome::Cause;
use ductile_domain::plan::{NewFact, StateChange};
use ductile_domain::retry::Ending;
use ductile_ledger::{Enqueued, FactFilter, Finished, Refusal, Snapshot, Verdict, WriteError};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use std::time::Duration;
use support::{Bed, Call, failed, finish, keyed, new_job, retry_in};

fn object(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

async fn run(conn: &mut SqliteConnection, sql: String) -> Result<(), String> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.map(drop).map_err(|e| e.to_string())
}

/// QUE-06, promise 3: the trigger allows exactly the pairs of `domain::job::LEGAL_TRANSITIONS`.
#[tokio::test]
async fn the_trigger_and_the_domain_allow_the_same_transitions() {
    let bed = Bed::new().await;
    let mut conn = bed.sql().await;
    let path_to = |status: JobStatus| match status {
        JobStatus::Queued => vec![],
        JobStatus::Running => vec!["running"],
        other => vec!["running", other.as_str()],
    };
    for to in JobStatus::ALL {
        let insert = format!(
            "INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at)
             VALUES ('born-{to}', 'p', 'c', '{to}', 'api', '2026-01-01T00:00:00.000Z')"
        );
        assert_eq!(run(&mut conn, insert).await.is_ok(), LEGAL_TRANSITIONS.contains(&(None, to)), "born as {to}");
        for from in JobStatus::ALL {
            let id = format!("{from}-{to}");
            let mut script = format!(
                "INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at)
                 VALUES ('{id}', 'p', 'c', 'queued', 'api', '2026-01-01T00:00:00.000Z');"
            );
            for step in path_to(from) {
                script += &format!("UPDATE job_queue SET status = '{step}' WHERE id = '{id}';");
            }
            run(&mut conn, script).await.expect("the way there is legal");
            let changed = run(&mut conn, format!("UPDATE job_queue SET status = '{to}' WHERE id = '{id}'")).await;
            let is_legal = from == to || LEGAL_TRANSITIONS.contains(&(Some(from), to));
            assert_eq!(changed.is_ok(), is_legal, "{from} -> {to}: {changed:?}");
        }
    }
    bed.ledger.close().await;
}

/// QUE-30, FCT-03, DBS-10, DBS-11, DBS-14: fact tables refuse every UPDATE.
#[tokio::test]
async fn fact_tables_refuse_updates() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let mut done = bed.succeeded(job.fence);
    done.plan.facts.push(NewFact { fact_type: "echo.snapshot".into(), fact: object("{}") });
    bed.ledger.writer.finish(done).await.expect("finished");
    bed.ledger.writer.record_snapshot(snapshot(1, &["echo"])).await.expect("recorded");
    let mut conn = bed.sql().await;
    run(
        &mut conn,
        "INSERT INTO event_context (id, accumulated_json, created_at) VALUES ('x', '{}', 'now');
         INSERT INTO circuit_breaker_transitions (plugin, command, to_state, reason, created_at)
         VALUES ('p', 'poll', 'open', 'failure_threshold', 'now')"
            .into(),
    )
    .await
    .expect("inserted");
    for table in [
        "plugin_facts",
        "job_transitions",
        "job_attempts",
        "config_snapshots",
        "event_context",
        "job_log",
        "circuit_breaker_transitions",
    ] {
        let error = run(&mut conn, format!("UPDATE {table} SET rowid = rowid")).await.expect_err(table);
        assert!(error.contains("append-only"), "{table}: {error}");
    }
    bed.ledger.close().await;
}

fn snapshot(generation: u64, plugins: &[&str]) -> Snapshot {
    Snapshot {
        generation,
        plugins: plugins.iter().map(|p| (*p).to_owned()).collect(),
        config_hash: "abc".into(),
        reason: "start".into(),
        ..Snapshot::default()
    }
}

/// DBS-17, FCT-12: every operator query of the database page runs as printed.
#[tokio::test]
async fn the_operators_queries_run_as_printed() {
    let bed = Bed::new().await;
    let job = bed.running("my-plugin").await;
    bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    let queries = [
        "SELECT status, COUNT(*) FROM job_queue GROUP BY status",
        "SELECT plugin, command, state, failure_count, opened_at FROM circuit_breakers WHERE state != 'closed'",
        "SELECT created_at, plugin, command, from_state, to_state, reason, failure_count, job_id
         FROM circuit_breaker_transitions WHERE plugin = 'my-plugin' AND command = 'poll'
         ORDER BY created_at DESC LIMIT 20",
        "SELECT id, plugin, command, started_at FROM job_queue
         WHERE status = 'running' AND started_at < datetime('now', '-1 hour')",
        "SELECT plugin, command, (strftime('%s', completed_at) - strftime('%s', started_at)) as duration_sec
         FROM job_log WHERE status = 'succeeded' AND completed_at > datetime('now', '-1 day')
         ORDER BY duration_sec DESC LIMIT 10",
        "SELECT completed_at, last_error, stderr FROM job_log WHERE plugin = 'my-plugin' AND status = 'failed'
         ORDER BY completed_at DESC LIMIT 1",
        "SELECT seq, created_at, fact_type, job_id, command, fact_json FROM plugin_facts
         WHERE plugin_name = 'file_watch'
         ORDER BY CASE WHEN seq IS NULL THEN 1 ELSE 0 END ASC, seq DESC, created_at DESC LIMIT 20",
        "SELECT state FROM plugin_state WHERE plugin_name = 'my-plugin'",
        "SELECT plugin, schedule_id, next_run_at, last_success_at FROM schedule_entries WHERE status = 'active'
         ORDER BY next_run_at ASC",
        "DELETE FROM job_log WHERE completed_at < datetime('now', '-7 days')",
        "PRAGMA journal_mode",
        "PRAGMA synchronous",
    ];
    let mut conn = bed.sql().await;
    for query in queries {
        sqlx::query(query).fetch_all(&mut conn).await.unwrap_or_else(|e| panic!("{query}: {e}"));
    }
    let row = sqlx::query(queries[0]).fetch_one(&mut conn).await.expect("read");
    assert_eq!((row.get::<String, _>(0).as_str(), row.get::<i64, _>(1)), ("succeeded", 1));
    bed.ledger.close().await;
}

/// DBS-18: the page on the database names every table with exactly its columns, and its questions can be asked.
#[tokio::test]
async fn the_page_on_the_database_says_what_the_schema_says() {
    let bed = Bed::new().await;
    let page = include_str!("../../../docs/database.md");
    let mut told: Vec<String> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split(" | ");
        let table = cells.next().expect("a table").trim().trim_matches('`');
        // an explanation stands in brackets
        let mut columns = cells.nth(1).expect("columns").to_owned();
        while let (Some(from), Some(to)) = (columns.find('('), columns.find(')')) {
            columns.replace_range(from..=to, "");
        }
        let names = columns.split('`').skip(1).step_by(2);
        told.extend(names.map(|column| format!("{table}.{column}")));
    }
    let mut conn = bed.sql().await;
    let rows = sqlx::query(
        "SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
    );
    let rows = rows.fetch_all(&mut conn).await.expect("read");
    let mut found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    told.sort_unstable();
    found.sort_unstable();
    assert_eq!(told, found);
    let questions = page.split("```sql").nth(1).and_then(|rest| rest.split("```").next()).expect("questions");
    for question in questions.split_inclusive(';').filter(|question| question.contains("SELECT")) {
        let asked = sqlx::query(sqlx::AssertSqlSafe(question.to_owned())).fetch_all(&mut conn).await;
        asked.unwrap_or_else(|e| panic!("{question}: {e}"));
    }
    bed.ledger.close().await;
}

/// DBS-16: times are RFC 3339 in UTC with milliseconds, and JSON is JSON.
#[tokio::test]
async fn times_and_json_have_one_form() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let mut done = bed.succeeded(job.fence);
    done.plan.state = Some(StateChange::Merge(object(r#"{"a":1}"#)));
    bed.ledger.writer.finish(done).await.expect("finished");
    let job = bed.running("echo").await;
    let outcome = failed(Cause::Timeout, bed.hands.now());
    let retry = finish(job.fence, outcome, retry_in(bed.hands.now(), 9));
    bed.ledger.writer.finish(retry).await.expect("finished");
    let form = "____-__-__T__:__:__.___Z";
    for (table, column) in [
        ("job_queue", "created_at"),
        ("job_queue", "started_at"),
        ("job_queue", "completed_at"),
        ("job_queue", "next_retry_at"),
        ("job_transitions", "created_at"),
        ("job_attempts", "created_at"),
        ("job_attempts", "completed_at"),
        ("job_log", "completed_at"),
        ("job_log", "started_at"),
        ("job_stopwatch", "recorded_at"),
        ("plugin_state", "updated_at"),
    ] {
        let sql = format!("SELECT count({column}), count(*) FILTER (WHERE {column} NOT LIKE '{form}') FROM {table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut bed.sql().await).await.expect("read");
        assert!(row.get::<i64, _>(0) > 0, "{table}.{column} has no value to look at");
        assert_eq!(row.get::<i64, _>(1), 0, "{table}.{column}");
    }
    assert_eq!(bed.number("SELECT count(*) FROM job_queue WHERE NOT json_valid(payload)").await, 0);
    assert_eq!(bed.number("SELECT count(*) FROM plugin_state WHERE json_valid(state)").await, 1);
    bed.ledger.close().await;
}

/// QUE-18, DBS-15: the hot reads use the partial indexes, whatever else lies in the table.
#[tokio::test]
async fn the_hot_reads_use_the_partial_indexes() {
    let bed = Bed::new().await;
    let mut conn = bed.sql().await;
    for (sql, index) in [
        (
            "SELECT rowid, id, next_retry_at FROM job_queue
             WHERE status = 'queued' AND plugin = 'p' AND rowid > 5 ORDER BY rowid LIMIT 9",
            "job_queue_queued_idx (plugin=? AND rowid>?)",
        ),
        ("SELECT count(*) FROM job_queue q WHERE q.status = 'running'", "(status=?)"),
        (
            "SELECT 1 FROM job_queue r WHERE r.dedupe_key = 'k' AND r.status = 'running' AND +r.plugin = 'p'
             AND +r.command = 'c'",
            "job_queue_dedupe_status_completed_idx (dedupe_key=? AND status=?)",
        ),
        (
            "SELECT rowid FROM job_queue WHERE next_retry_at IS NOT NULL AND next_retry_at <= 'x' AND +status = 'queued'
             ORDER BY next_retry_at, rowid LIMIT 9",
            "job_queue_retry_idx",
        ),
        ("SELECT min(next_retry_at) FROM job_queue WHERE next_retry_at IS NOT NULL", "job_queue_retry_idx"),
        (
            "SELECT rowid FROM job_queue
             WHERE status IN ('succeeded', 'dead') AND created_at < 'x' AND completed_at < 'x' LIMIT 9",
            "job_queue_status_created_at_idx (status=? AND created_at<?)",
        ),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut conn).await.expect("explained");
        let plan: Vec<String> = rows.iter().map(|r| r.get("detail")).collect();
        assert!(plan.iter().any(|line| line.contains(index)), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|line| line.contains("TEMP B-TREE")), "{sql}: {plan:?}");
    }
    bed.ledger.close().await;
}

/// FCT-01, FCT-02, FCT-04, FCT-05, FCT-06, FCT-11: facts get ascending numbers, state is mirrored or merged.
#[tokio::test]
async fn facts_and_state_are_committed_with_the_finish() {
    let bed = Bed::new().await;
    for (change, expected) in [
        (StateChange::Merge(object(r#"{"a":1}"#)), r#"{"a":1}"#),
        (StateChange::Merge(object(r#"{"b":{"x":1}}"#)), r#"{"a":1,"b":{"x":1}}"#),
        (StateChange::Merge(object(r#"{"b":{"y":2}}"#)), r#"{"a":1,"b":{"y":2}}"#),
        (StateChange::Mirror(object(r#"{ "c": 1.10 }"#)), r#"{ "c": 1.10 }"#),
    ] {
        let job = bed.running("echo").await;
        let mut done = bed.succeeded(job.fence);
        done.plan.state = Some(change);
        for fact_type in ["one", "two"] {
            done.plan.facts.push(NewFact { fact_type: fact_type.into(), fact: object("{}") });
        }
        bed.ledger.writer.finish(done.clone()).await.expect("finished");
        assert_eq!(bed.ledger.writer.finish(done).await.expect("answered").verdict, Verdict::AlreadyApplied);
        let state = bed.ledger.readers.plugin_state("echo").await.expect("read").expect("there");
        assert_eq!(state.get(), expected);
        let next = bed.running("echo").await;
        assert_eq!(next.state.as_ref().map(|s| s.get()), Some(expected), "the next request sees it");
        bed.ledger.writer.give_back(next.fence, "test".into(), None).await.expect("given back");
    }
    let facts =
        bed.ledger.readers.facts("echo", &FactFilter { limit: 100, ..FactFilter::default() }).await.expect("read");
    let numbers: Vec<_> = facts.iter().map(|f| f.seq).collect();
    assert_eq!(numbers, (1..=8).rev().map(Some).collect::<Vec<_>>());
    assert_eq!(facts[0].fact_type, "two");
    assert_eq!(bed.number("SELECT value FROM storage_sequences WHERE name = 'plugin_facts'").await, 8);
    bed.ledger.close().await;
}

/// FCT-06: merges that share a transaction see each other, and a fenced one is not seen.
#[tokio::test]
async fn merges_in_one_batch_see_each_other() {
    let bed = Bed::new().await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(bed.running("echo").await);
    }
    let stale = jobs[1].fence;
    bed.ledger.writer.give_back(stale, "test".into(), None).await.expect("given back");
    let calls = jobs.iter().enumerate().map(|(n, job)| {
        let mut done = bed.succeeded(job.fence);
        done.plan.state = Some(StateChange::Merge(object(&format!(r#"{{"k{n}":{n},"last":{n}}}"#))));
        Box::pin(bed.ledger.writer.finish(done)) as Call<'_, Result<Finished, WriteError>>
    });
    let answers = bed.together(calls.collect()).await;
    let verdicts: Vec<_> = answers.into_iter().map(|a| a.expect("answered").verdict).collect();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Fenced, Verdict::Applied, Verdict::Applied]);
    let state = bed.ledger.readers.plugin_state("echo").await.expect("read").expect("there");
    assert_eq!(state.get(), r#"{"k0":0,"k2":2,"k3":3,"last":3}"#);
    bed.ledger.close().await;
}

/// FCT-10: a merge that would exceed 1 MiB fails alone and leaves the old state.
#[tokio::test]
async fn a_state_that_would_grow_too_large_is_refused() {
    let bed = Bed::new().await;
    for (n, is_fine) in [(1, true), (2, false)] {
        let job = bed.running("echo").await;
        let mut done = bed.succeeded(job.fence);
        let text = "x".repeat(600_000);
        done.plan.state = Some(StateChange::Merge(object(&format!(r#"{{"k{n}":"{text}"}}"#))));
        let answer = bed.ledger.writer.finish(done).await;
        assert_eq!(answer.is_ok(), is_fine, "{n}");
        if let Err(error) = answer {
            assert!(matches!(error, WriteError::StateTooLarge { limit: 1_048_576, .. }), "{error:?}");
        }
    }
    let state = bed.ledger.readers.plugin_state("echo").await.expect("read").expect("there");
    assert!(state.get().starts_with(r#"{"k1":"#) && state.get().len() < 700_000);
    assert_eq!(bed.ledger.readers.running().await.expect("read").len(), 1, "the attempt waits for another outcome");
    bed.ledger.close().await;
}

/// QUE-33: children are committed with their parent's end; the same routed event and target is enqueued once.
#[tokio::test]
async fn children_are_enqueued_with_their_parents_end() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let event = uuid::Uuid::now_v7().into();
    let child = |target: &str| {
        let mut child = new_job("next");
        child.parent = Some(job.fence.job);
        child.source_event = Some(event);
        child.target_key = target.to_owned();
        child.submitted_by = "route";
        child
    };
    let mut done = bed.succeeded(job.fence);
    done.plan.children = vec![child(""), child(""), child("branch-2")];
    let first = done.plan.children[0].id;
    let answer = bed.ledger.writer.finish(done.clone()).await.expect("finished");
    assert!(matches!(answer.children[0], Enqueued::Accepted { job, .. } if job == first));
    assert_eq!(answer.children[1], Enqueued::Duplicate { job: first, status: JobStatus::Queued });
    assert!(matches!(answer.children[2], Enqueued::Accepted { .. }));
    let again = bed.ledger.writer.finish(done).await.expect("answered");
    assert_eq!((again.verdict, again.children.len()), (Verdict::AlreadyApplied, 0));
    assert_eq!(bed.ledger.readers.candidates("next", 0, 9).await.expect("read").len(), 2);
    bed.ledger.close().await;
}

/// QUE-11, QUE-12, QUE-13, QUE-14: what a dedupe key suppresses.
#[tokio::test]
async fn a_key_suppresses_what_succeeded_lately_and_on_request_what_is_in_flight() {
    let bed = Bed::new().await;
    let first = keyed("echo", "k");
    let Enqueued::Accepted { job, row, .. } = bed.enqueue(first).await else { panic!("nothing suppresses it") };
    assert!(matches!(bed.enqueue(keyed("echo", "k")).await, Enqueued::Accepted { .. }));
    let mut strict = keyed("echo", "k");
    strict.dedupe_in_flight = true;
    assert_eq!(bed.enqueue(strict.clone()).await, Enqueued::Duplicate { job, status: JobStatus::Queued });
    assert!(matches!(bed.enqueue(keyed("other", "k")).await, Enqueued::Accepted { .. }), "QUE-16: another target");

    let candidate = ductile_domain::job::Candidate { row, job, plugin: "echo".into(), due: None };
    let claimed = bed.claim(vec![candidate]).await.claimed.remove(0).job;
    bed.ledger.writer.finish(bed.succeeded(claimed.fence)).await.expect("finished");
    let answer = bed.enqueue(keyed("echo", "k")).await;
    assert_eq!(answer, Enqueued::Duplicate { job, status: JobStatus::Succeeded });
    bed.hands.advance(Duration::from_secs(3601));
    assert!(matches!(bed.enqueue(keyed("echo", "k")).await, Enqueued::Accepted { .. }), "the window has passed");
    bed.ledger.close().await;
}

/// OPS-05: what begins after a generation came into force begins under it: older claims, standing ones too, are withdrawn.
#[tokio::test]
async fn a_claim_of_a_former_generation_is_granted_nothing() {
    let bed = Bed::new().await;
    let first = bed.ledger.writer.record_snapshot(snapshot(1, &["echo"])).await.expect("recorded").id;
    let candidate = bed.queued("echo").await;
    let under = |snapshot| ClaimRequest { snapshot: Some(snapshot), ..bed.request(vec![candidate.clone()]) };
    let second = bed.ledger.writer.record_snapshot(snapshot(2, &["echo"])).await.expect("recorded").id;
    let claims = bed.ledger.writer.claim(under(first)).await.expect("answered");
    assert!(claims.claimed.is_empty(), "{claims:?}");
    assert_eq!(claims.refused.iter().map(|r| r.why).collect::<Vec<_>>(), [Refusal::Withdrawn]);
    assert_eq!(bed.ledger.writer.claim(under(second)).await.expect("answered").claimed.len(), 1);
    bed.ledger.close().await;
}

/// core.md: a removed plugin's queued jobs die with the commit of the generation, and old plans are made again.
#[tokio::test]
async fn a_new_generation_buries_the_jobs_of_removed_plugins() {
    let bed = Bed::new().await;
    bed.ledger.writer.record_snapshot(snapshot(1, &["echo", "gone"])).await.expect("recorded");
    let buried = bed.queued("gone").await.job;
    let stays = bed.queued("echo").await.job;
    let running = bed.running("gone").await;
    let parent = bed.running("echo").await;
    let recorded = bed.ledger.writer.record_snapshot(snapshot(2, &["echo"])).await.expect("recorded");
    assert_eq!(recorded.id, 2);
    assert_eq!(
        recorded.buried.iter().map(|b| (b.transition.job, b.transition.to, &*b.plugin)).collect::<Vec<_>>(),
        [(buried, "dead", "gone")]
    );
    let row = bed.ledger.readers.job(buried).await.expect("read").expect("there");
    assert!(row.last_error.is_some_and(|e| e.starts_with("cancelled:")));
    assert_eq!(bed.ledger.readers.job(stays).await.expect("read").expect("there").status, "queued");

    let error = bed.ledger.writer.enqueue(vec![new_job("gone")], 1).await.expect_err("the plugin is gone");
    assert!(matches!(error, WriteError::PluginGone { .. }), "{error:?}");
    let mut done = bed.succeeded(parent.fence);
    done.plan.generation = 1;
    done.plan.children = vec![new_job("gone")];
    assert_eq!(bed.ledger.writer.finish(done.clone()).await.expect("answered").verdict, Verdict::Replan);
    assert_eq!(bed.ledger.readers.running().await.expect("read").len(), 2, "nothing was changed");
    done.plan.children = vec![new_job("echo")];
    assert_eq!(bed.ledger.writer.finish(done).await.expect("answered").verdict, Verdict::Applied);
    let end = finish(running.fence, failed(Cause::PluginGone, bed.hands.now()), Ending::Dead);
    assert_eq!(bed.ledger.writer.finish(end).await.expect("answered").verdict, Verdict::Applied);
    bed.ledger.close().await;
}
