//! What pruning takes and what it leaves, that a step is short whatever lies in the tables, and that the file shrinks.

mod support;

use std::time::Duration;

use ductile_domain::config::{Retention, Service};
use ductile_domain::job::NewJob;
use ductile_domain::plan::Plan;
use ductile_domain::time;
use ductile_ledger::{Deletable, OpenOptions, Prune, Pruned, Snapshot, open};
use sqlx::{Connection as _, Row as _};
use support::{Bed, context, new_job};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Steps until a round is over; answers what all of them took.
async fn round(bed: &Bed, prune: &Prune) -> (u64, Pruned) {
    let mut all: Option<Pruned> = None;
    for steps in 1..100_000 {
        let step = bed.ledger.writer.prune(prune.clone()).await.expect("pruned");
        let has_more = step.has_more;
        match &mut all {
            Some(all) => all.deleted.iter_mut().zip(step.deleted).for_each(|(sum, (_, n))| sum.1 += n),
            None => all = Some(step),
        }
        if !has_more {
            return (steps, all.expect("one step"));
        }
    }
    panic!("a round that does not end");
}

fn everything_older_than(age: Duration) -> Prune {
    Prune { retention: Deletable::ALL.into_iter().map(|kind| (kind, age)).collect(), limit: u32::MAX }
}

async fn sql(bed: &Bed, text: &'static str) {
    sqlx::raw_sql(text).execute(&mut bed.sql().await).await.expect("the statement runs");
}

/// One row or more in every table that is pruned, all of now.
async fn fill(bed: &Bed) {
    let step = context(None, "a");
    let job = NewJob { context: Some(step.id), is_routed: false, ..new_job("echo") };
    let id = job.id;
    bed.planned(Plan { contexts: vec![step], children: vec![job], ..Plan::default() }).await;
    bed.ledger.writer.finish(bed.succeeded(bed.take(id).await.fence)).await.expect("finished");
    bed.ledger
        .writer
        .record_snapshot(Snapshot { plugins: vec!["echo".into()], ..Snapshot::default() })
        .await
        .expect("recorded");
    assert!(bed.ledger.writer.sample_storage().await.expect("sampled"));
    let now = time::format(bed.hands.now());
    for statement in [
        "INSERT INTO circuit_breaker_transitions (plugin, command, to_state, reason, created_at)
            VALUES ('echo', 'poll', 'open', 'threshold', ?1)",
        "INSERT INTO plugin_facts (seq, plugin_name, fact_type, fact_json, created_at)
            VALUES ((SELECT coalesce(max(seq), 0) + 1 FROM plugin_facts), 'echo', 'seen', '{}', ?1)",
        "INSERT INTO schedule_ticks (plugin, schedule_id, fingerprint, instant, due_at, status, created_at, ended_at)
            VALUES ('echo', 's', 'f', ?1, ?1, 'fired', ?1, ?1)",
        "INSERT INTO job_quarantine (job_id, plugin, command, reason, bundle, created_at)
            VALUES (?1, 'echo', 'poll', 'killed', '{}', ?1)",
        "INSERT INTO pipeline_joins (id, open, job, created_at, fired_at) VALUES ('join' || ?1, 0, '{}', ?1, ?1)",
        "INSERT INTO pipeline_join_branches (join_id, branch, step, status) VALUES ('join' || ?1, 0, 'a', 'succeeded')",
    ] {
        sqlx::query(statement).bind(&now).execute(&mut bed.sql().await).await.expect(statement);
    }
}

const TABLES: [&str; 14] = [
    "job_queue",
    "job_log",
    "job_stopwatch",
    "job_transitions",
    "job_attempts",
    "circuit_breaker_transitions",
    "plugin_facts",
    "event_context",
    "pipeline_joins",
    "pipeline_join_branches",
    "schedule_ticks",
    "job_quarantine",
    "storage_samples",
    "config_snapshots",
];

async fn counts(bed: &Bed) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    let mut conn = bed.sql().await;
    for table in TABLES {
        let count = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        counts.push((table, count.fetch_one(&mut conn).await.expect("counted").get(0)));
    }
    counts
}

/// OPS-13, QUE-31: each table loses what is older than its own setting and keeps the rest, newest rows included that
/// others need.
#[tokio::test]
async fn each_table_is_pruned_by_its_own_setting() {
    let bed = Bed::new().await;
    fill(&bed).await;
    let first = counts(&bed).await;
    assert!(first.iter().all(|(_, n)| *n > 0), "{first:?}");
    let days = |n| n * DAY;
    // all differ, none is the default, and each comes a day after the one before
    let service = Service {
        job_queue_retention: days(1),
        job_log_retention: days(2),
        retention: Retention {
            job_transitions: days(4),
            job_attempts: days(5),
            breaker_transitions: days(6),
            facts: days(7),
            schedule_ticks: days(8),
            quarantine: days(9),
            snapshots: days(10),
        },
        ..Service::default()
    };
    let due = |table: &str| match table {
        "job_queue" => 1,
        "job_log" | "job_stopwatch" => 2,
        "event_context" | "pipeline_joins" | "pipeline_join_branches" => 3,
        "job_transitions" => 4,
        "job_attempts" => 5,
        "circuit_breaker_transitions" => 6,
        "plugin_facts" => 7,
        "schedule_ticks" => 8,
        "job_quarantine" => 9,
        "config_snapshots" => 10,
        "storage_samples" => 400,
        other => panic!("{other}"),
    };
    bed.hands.advance(HOUR);
    // what is newest and replaces the others
    fill(&bed).await;
    let both = counts(&bed).await;
    bed.hands.advance(DAY - HOUR / 2);
    for day in 1..=12_i64 {
        round(&bed, &Prune::by_settings(&service)).await;
        for (((table, n), (_, before)), (_, all)) in counts(&bed).await.into_iter().zip(&first).zip(&both) {
            let gone = if day > due(table) {
                *all
            } else if day == due(table) {
                *before
            } else {
                0
            };
            let kept = match table {
                // never the newest
                "job_transitions" | "plugin_facts" | "config_snapshots" if day > due(table) => 1,
                _ => all - gone,
            };
            // the one in force from the beginning was replaced an hour later
            if table == "config_snapshots" && day == due(table) {
                assert_eq!(n, *all, "its age counts from when it was replaced");
                continue;
            }
            assert_eq!(n, kept, "{table} on day {day}");
        }
        bed.hands.advance(DAY);
    }
    bed.ledger.close().await;
}

/// What is needed stays, however old: jobs that have not ended, contexts of theirs and above them, the newest fact of each
/// type, configurations that jobs refer to, the newest end of a schedule that stands, ticks to come.
#[tokio::test]
async fn what_is_needed_is_never_pruned() {
    let bed = Bed::new().await;
    let in_force = |n: u64| Snapshot { generation: n, plugins: vec!["echo".into()], ..Snapshot::default() };
    let mut snapshots = Vec::new();
    for n in 1..=4 {
        snapshots.push(bed.ledger.writer.record_snapshot(in_force(n)).await.expect("recorded").id);
    }
    let (top, mut below, unused) = (context(None, "a"), context(None, "b"), context(None, "c"));
    below.parent = Some(top.id);
    let kept = [top.id, below.id].map(|id| id.to_string());
    let waits = NewJob { context: Some(below.id), snapshot: Some(snapshots[1]), ..new_job("echo") };
    let ends = NewJob { context: Some(unused.id), ..new_job("echo") };
    let (waiting, ending) = (waits.id, ends.id);
    let plan = Plan { contexts: vec![top, below, unused], children: vec![waits, ends], ..Plan::default() };
    let job = bed.running("echo").await;
    let finish = ductile_ledger::Finish { plan: Plan { generation: 4, ..plan }, ..bed.succeeded(job.fence) };
    bed.ledger.writer.finish(finish).await.expect("finished");
    bed.ledger.writer.finish(bed.succeeded(bed.take(ending).await.fence)).await.expect("finished");
    let running = bed.running("echo").await.fence.job;
    sql(
        &bed,
        "INSERT INTO plugin_facts (seq, plugin_name, fact_type, fact_json, created_at) VALUES
            (1, 'echo', 'seen', '1', '2026-01-01T00:00:00.000Z'), (2, 'echo', 'seen', '2', '2026-01-01T00:00:00.000Z'),
            (3, 'echo', 'told', '3', '2026-01-01T00:00:00.000Z');
         INSERT INTO schedule_entries (plugin, schedule_id, command, status, fingerprint)
            VALUES ('echo', 's', 'poll', 'active', 'new');
         INSERT INTO schedule_ticks
                (plugin, schedule_id, fingerprint, instant, due_at, status, created_at, ended_at) VALUES
            ('echo', 's', 'old', '2026-01-01T00:00:00.000Z', '', 'fired', '', '2026-01-01T00:00:00.000Z'),
            ('echo', 's', 'new', '2026-01-01T00:01:00.000Z', '', 'fired', '', '2026-01-01T00:01:00.000Z'),
            ('echo', 's', 'new', '2026-01-01T00:02:00.000Z', '', 'fired', '', '2026-01-01T00:02:00.000Z'),
            ('echo', 's', 'new', '2026-01-01T00:03:00.000Z', '', 'expected', '', NULL),
            ('echo', 'gone', 'new', '2026-01-01T00:01:00.000Z', '', 'fired', '', '2026-01-01T00:01:00.000Z');
         -- taken back, so that it is not the newest that has ended
         INSERT INTO schedule_ticks
                (plugin, schedule_id, fingerprint, instant, due_at, status, reason, created_at, ended_at) VALUES
            ('echo', 's', 'new', '2026-01-01T00:04:00.000Z', '2026-01-01T00:04:00.000Z', 'skipped', 'clock_went_back',
                '', '2026-01-01T00:02:30.000Z')",
    )
    .await;
    bed.hands.advance(1000 * DAY);
    round(&bed, &everything_older_than(DAY)).await;

    let mut conn = bed.sql().await;
    let mut texts = async |query: &'static str| -> Vec<String> {
        let rows = sqlx::query(query).fetch_all(&mut conn).await.expect("read");
        rows.iter().map(|row| row.get(0)).collect()
    };
    let jobs = texts("SELECT id FROM job_queue ORDER BY rowid").await;
    assert_eq!(jobs, [waiting.to_string(), running.to_string()]);
    assert_eq!(texts("SELECT id FROM event_context ORDER BY rowid").await, kept);
    assert_eq!(texts("SELECT fact_json FROM plugin_facts ORDER BY id").await, ["2", "3"]);
    let ids = texts("SELECT CAST(id AS TEXT) FROM config_snapshots ORDER BY id").await;
    assert_eq!(ids, [snapshots[1], snapshots[3]].map(|id| id.to_string()));
    let ticks = texts("SELECT fingerprint || substr(instant, 15, 2) FROM schedule_ticks ORDER BY id").await;
    assert_eq!(ticks, ["new02", "new03"]);
    assert_eq!(texts("SELECT CAST(count(*) AS TEXT) FROM job_transitions").await, ["1"], "the newest number stays");
    assert!(texts("SELECT id FROM job_log").await.is_empty());
    bed.ledger.close().await;
}

/// A clock that once showed another year must not keep everything behind it for years.
#[tokio::test]
async fn rows_from_the_future_hold_up_nothing() {
    let bed = Bed::new().await;
    for n in 0..300 {
        let at = if n < 200 { "2031-05-05T00:00:00.000Z" } else { "2026-01-01T00:00:00.000Z" };
        let insert = "INSERT INTO job_attempts (job_id, attempt, created_at, status) VALUES (?1, 1, ?2, 'succeeded')";
        sqlx::query(insert).bind(format!("job {n}")).bind(at).execute(&mut bed.sql().await).await.expect("inserted");
    }
    bed.hands.advance(10 * DAY);
    let (_, pruned) = round(&bed, &everything_older_than(DAY)).await;
    assert!(pruned.deleted.contains(&(Deletable::Attempts, 100)), "{pruned:?}");
    assert_eq!(bed.number("SELECT count(*) FROM job_attempts").await, 200);
    bed.ledger.close().await;
}

/// Steps end by themselves, whatever the limit, and go on where they stood; what is walked over in vain is walked once.
#[tokio::test]
async fn a_round_is_many_steps_and_misses_nothing() {
    let bed = Bed::new().await;
    let mut conn = bed.sql().await;
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
        INSERT INTO job_transitions (job_id, to_status, created_at) SELECT 'job ' || i, 'queued', '2026-01-01T00:00:00.000Z' FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO event_context (id, parent_id, accumulated_json, created_at)
            SELECT 'c' || i, CASE WHEN i > 1 THEN 'c' || (i - 1) END, '{}', '2026-01-01T00:00:00.000Z' FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO plugin_facts (seq, plugin_name, fact_type, fact_json, created_at)
            SELECT i, 'echo', 'type ' || (i % 2500), '{}', '2026-01-01T00:00:00.000Z' FROM n";
    sqlx::raw_sql(fill).execute(&mut conn).await.expect("filled");
    bed.hands.advance(10 * DAY);
    let (steps, pruned) = round(&bed, &everything_older_than(DAY)).await;
    assert!(steps > 1, "55,000 rows are not one step");
    for (kind, rows) in [(Deletable::Transitions, 29_999), (Deletable::Contexts, 20_000), (Deletable::Facts, 2_500)] {
        assert!(pruned.deleted.contains(&(kind, rows)), "{pruned:?}");
    }
    bed.ledger.close().await;
}

/// What a plugin said at length is no more in a step than its time allows; a join's branches go one by one.
#[tokio::test]
async fn huge_rows_are_pruned_a_few_at_a_time() {
    let bed = Bed::new().await;
    let mut conn = bed.sql().await;
    let fill = "INSERT INTO pipeline_joins (id, open, job, created_at, fired_at)
            VALUES ('j', 0, '{}', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z');
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
        INSERT INTO pipeline_join_branches (join_id, branch, step, status, payload)
            SELECT 'j', i, 'a', 'succeeded', hex(zeroblob(2000000)) FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4)
        INSERT INTO job_log (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at)
            SELECT i, i, 'echo', 'poll', 'succeeded', hex(zeroblob(5000000)), 1, 'api', '2026-01-01T00:00:00.000Z',
                '2026-01-01T00:00:00.000Z' FROM n";
    sqlx::raw_sql(fill).execute(&mut conn).await.expect("filled");
    conn.close().await.expect("closed");
    bed.hands.advance(10 * DAY);
    let begun = std::time::Instant::now();
    let (steps, pruned) = round(&bed, &everything_older_than(DAY)).await;
    println!("{steps} steps of {:?} on average for 80 MB", begun.elapsed() / u32::try_from(steps).expect("few"));
    assert!(pruned.deleted.contains(&(Deletable::Log, 4)) && pruned.deleted.contains(&(Deletable::Contexts, 1)));
    assert_eq!(bed.number("SELECT count(*) FROM pipeline_join_branches").await, 0);

    // all of it is free now: it goes back in steps, and the file shrinks
    let before = std::fs::metadata(bed.path()).expect("there").len();
    let begun = std::time::Instant::now();
    let (mut steps, mut pages) = (1, 0);
    loop {
        let vacuumed = bed.ledger.writer.vacuum().await.expect("vacuumed");
        pages += vacuumed.pages;
        if !vacuumed.has_more {
            break;
        }
        steps += 1;
    }
    println!("{steps} steps of {:?} on average for {pages} pages", begun.elapsed() / steps);
    bed.ledger.writer.checkpoint().await.expect("copied");
    let after = std::fs::metadata(bed.path()).expect("there").len();
    assert!(before > 50_000_000 && after < 3_000_000, "{before} {after}");
    let log = bed.dir.path().join("ductile.db-wal");
    assert_eq!(std::fs::metadata(log).expect("there").len(), 0);
    assert_eq!(bed.ledger.writer.vacuum().await.expect("vacuumed").pages, 0, "a reserve stays free");
    bed.ledger.close().await;
}

/// A reader that needs the log holds up neither the writer nor whoever wants the log emptied.
#[tokio::test]
async fn the_log_is_emptied_when_no_reader_needs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = OpenOptions::new(dir.path().join("ductile.db"), uuid::Uuid::nil().into());
    // as long as a statement would wait for the reader
    options.busy_timeout = Duration::from_secs(600);
    let ledger = open(options).await.expect("the ledger opens");
    ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("enqueued");
    let mut reader = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("ductile.db"));
    reader = reader.read_only(true);
    let mut reader = sqlx::sqlite::SqliteConnection::connect_with(&reader).await.expect("connected");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM job_queue").execute(&mut reader).await.expect("a snapshot");
    ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("enqueued");
    let log = dir.path().join("ductile.db-wal");
    let held_up = async {
        ledger.writer.checkpoint().await.expect("copied as far as it goes");
        ledger.writer.enqueue(vec![new_job("echo")], 1).await.expect("enqueued");
    };
    tokio::time::timeout(Duration::from_secs(60), held_up).await.expect("nobody waits for the reader");
    assert!(std::fs::metadata(&log).expect("there").len() > 0, "the reader needs it");
    sqlx::raw_sql("ROLLBACK").execute(&mut reader).await.expect("ended");
    ledger.writer.checkpoint().await.expect("copied");
    assert_eq!(std::fs::metadata(&log).expect("there").len(), 0);
    ledger.close().await;
}
