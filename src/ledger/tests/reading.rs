//! What readers find: families, lists page by page, recorded inputs, figures.

mod support;

use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::ids::{EventId, JobId};
use ductile_domain::job::{Fence, NewJob};
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome, Timing};
use ductile_domain::plan::{NewFact, Plan};
use ductile_domain::retry::Ending;
use ductile_ledger::{Deletable, Enqueued, FactFilter, Finish, JobFilter, LogFilter, Prune, RESULT_BUDGET};
use serde_json::value::RawValue;
use sqlx::Row as _;
use support::{Bed, failed, finish, new_job, retry_in, succeeded};
use uuid::Uuid;

fn child(parent: JobId, plugin: &str) -> NewJob {
    NewJob {
        parent: Some(parent),
        source_event: Some(EventId::from(Uuid::now_v7())),
        submitted_by: "route",
        ..new_job(plugin)
    }
}

/// Ends the running job with children; answers them.
async fn ended_with(bed: &Bed, fence: Fence, outcome: Outcome, plan: Plan) -> Vec<JobId> {
    let ending = if outcome.status == AttemptStatus::Succeeded { Ending::Succeeded } else { Ending::Dead };
    let finish = Finish { plan, ..finish(fence, outcome, ending) };
    let finished = bed.ledger.writer.finish(finish).await.expect("finished");
    let id = |child: Enqueued| match child {
        Enqueued::Accepted { job, .. } | Enqueued::Duplicate { job, .. } => job,
    };
    finished.children.into_iter().map(id).collect()
}

/// Claims a queued job.
async fn claimed(bed: &Bed, job: JobId) -> Fence {
    let found = bed.ledger.readers.job(job).await.expect("readable").expect("exists");
    let candidate = ductile_domain::job::Candidate { row: found.row, job, plugin: found.plugin.into(), due: None };
    bed.claim(vec![candidate]).await.claimed.remove(0).job.fence
}

/// API-16: the job first, then level by level; a child shows its own family only.
#[tokio::test]
async fn a_family_is_read_from_its_root_level_by_level() {
    let bed = Bed::new().await;
    let stranger = bed.running("other").await;
    let root = bed.running("root").await;
    let id = root.fence.job;
    let plan = Plan { children: vec![child(id, "a"), child(id, "b")], ..Plan::default() };
    let children = ended_with(&bed, root.fence, succeeded(bed.hands.now()), plan).await;
    let a = claimed(&bed, children[0]).await;
    let plan = Plan { children: vec![child(children[0], "c")], ..Plan::default() };
    let grandchildren = ended_with(&bed, a, succeeded(bed.hands.now()), plan).await;

    let readers = &bed.ledger.readers;
    let family = readers.family(id).await.expect("readable").expect("exists");
    assert!(!family.is_truncated);
    let ids: Vec<_> = family.jobs.iter().map(|j| j.job_id.clone()).collect();
    assert_eq!(ids, [id, children[0], children[1], grandchildren[0]].map(|id| id.to_string()));
    let parents: Vec<_> = family.jobs.iter().map(|j| j.parent_job_id.clone()).collect();
    assert_eq!(parents, [None, Some(id), Some(id), Some(children[0])].map(|p| p.map(|p| p.to_string())));
    let statuses: Vec<_> = family.jobs.iter().map(|j| j.status.as_str()).collect();
    assert_eq!(statuses, ["succeeded", "succeeded", "queued", "queued"]);
    assert_eq!(family.jobs[1].result.as_deref(), Some(r#"{"status":"ok"}"#));
    assert_eq!((&family.jobs[2].result, family.jobs[2].result_bytes), (&None, None));

    let branch = readers.family(children[0]).await.expect("readable").expect("exists");
    assert_eq!(branch.jobs.len(), 2);
    assert_eq!(branch.jobs[0].parent_job_id, Some(id.to_string()));
    assert!(readers.family(JobId::from(Uuid::nil())).await.expect("readable").is_none());
    assert_eq!(readers.family(stranger.fence.job).await.expect("readable").expect("exists").jobs.len(), 1);
}

#[tokio::test]
async fn a_large_family_is_cut_and_its_results_stay_within_their_budget() {
    let bed = Bed::new().await;
    let root = bed.running("root").await;
    let id = root.fence.job;
    let plan = Plan { children: (0..5).map(|_| child(id, "a")).collect(), ..Plan::default() };
    ended_with(&bed, root.fence, succeeded(bed.hands.now()), plan).await;
    let readers = &bed.ledger.readers;
    let whole = readers.family_within(id, 6, RESULT_BUDGET).await.expect("readable").expect("exists");
    assert_eq!((whole.jobs.len(), whole.is_truncated), (6, false));
    let cut = readers.family_within(id, 5, RESULT_BUDGET).await.expect("readable").expect("exists");
    assert_eq!((cut.jobs.len(), cut.is_truncated), (5, true));
    let small = readers.family_within(id, 6, 14).await.expect("readable").expect("exists");
    assert_eq!((&small.jobs[0].result, small.jobs[0].result_bytes), (&None, Some(15)));
    let enough = readers.family_within(id, 6, 15).await.expect("readable").expect("exists");
    assert!(enough.jobs[0].result.is_some());
}

/// TEL-08: (max exit - min enter) - sum of dur over the family's records.
#[tokio::test]
async fn the_gateways_share_of_a_familys_time_is_the_rest() {
    let bed = Bed::new().await;
    let timed = |enter, exit, dur| Outcome {
        timing: Timing { enter_wall_ns: enter, exit_wall_ns: exit, dur_ns: dur, ..Timing::default() },
        ..succeeded(bed.hands.now())
    };
    let root = bed.running("root").await;
    let id = root.fence.job;
    assert!(bed.ledger.readers.family_timing(id).await.expect("readable").is_none());
    let plan = Plan { children: vec![child(id, "a")], ..Plan::default() };
    let children = ended_with(&bed, root.fence, timed(1_000, 1_500, 400), plan).await;
    let step = claimed(&bed, children[0]).await;
    ended_with(&bed, step, timed(1_700, 2_600, 800), Plan::default()).await;
    let timing = bed.ledger.readers.family_timing(id).await.expect("readable").expect("two records");
    assert_eq!((timing.attempts, timing.wall_ns, timing.dur_ns, timing.gateway_ns), (2, 1_600, 1_200, 400));
    let by_sql = bed.number("SELECT max(exit_wall_ns) - min(enter_wall_ns) - sum(dur_ns) FROM job_stopwatch").await;
    assert_eq!(timing.gateway_ns, by_sql);
}

/// API-19, API-20, API-21: words, each in any of three fields, in either case; `%` and `_` mean themselves.
#[tokio::test]
async fn the_log_is_searched_by_words() {
    let bed = Bed::new().await;
    let outcome = |error: &str, stderr: &str, result: &str| Outcome {
        error: Some(error.into()),
        stderr: Some(stderr.into()),
        result: Some(result.into()),
        ..failed(Cause::PluginError, bed.hands.now())
    };
    for (error, stderr, result) in [
        ("Token expired", "trace 17", "{}"),
        ("refused", "the TOKEN is 50% old", r#"{"a_b":"expired"}"#),
        ("refused", "5000 old", r#"{"axb":1,"back\\slash":1}"#),
    ] {
        let job = bed.running("echo").await;
        ended_with(&bed, job.fence, outcome(error, stderr, result), Plan::default()).await;
    }
    for (query, total) in [
        ("token", 2),
        ("TOKEN expired", 2),
        ("expired trace", 1),
        ("50%", 1),
        ("a_b", 1),
        (r"back\\", 1),
        ("   ", 3),
        ("nowhere", 0),
        ("token nowhere", 0),
    ] {
        let filter = LogFilter { query: Some(query.into()), limit: 10, ..LogFilter::default() };
        assert_eq!(bed.ledger.readers.job_log(&filter).await.expect("readable").total, total, "{query:?}");
    }
}

/// API-18: the words that no attempt has are those of its job; `timed_out` finds jobs by their last attempt.
#[tokio::test]
async fn jobs_and_attempts_are_found_by_each_others_statuses() {
    let bed = Bed::new().await;
    let now = || bed.hands.now();
    let timed_out = || Outcome { status: AttemptStatus::TimedOut, ..failed(Cause::Timeout, now()) };
    // one is dead after two timeouts, one waits after a timeout, one recovered after a timeout
    let dead = bed.running("dead").await;
    bed.ledger.writer.finish(finish(dead.fence, timed_out(), retry_in(now(), 0))).await.expect("finished");
    let dead = claimed(&bed, dead.fence.job).await;
    bed.ledger.writer.finish(finish(dead, timed_out(), Ending::Dead)).await.expect("finished");
    let waits = bed.running("waits").await;
    bed.ledger.writer.finish(finish(waits.fence, timed_out(), retry_in(now(), 60))).await.expect("finished");
    let well = bed.running("well").await;
    bed.ledger.writer.finish(finish(well.fence, timed_out(), retry_in(now(), 0))).await.expect("finished");
    let well = claimed(&bed, well.fence.job).await;
    bed.ledger.writer.finish(bed.succeeded(well)).await.expect("finished");

    let readers = &bed.ledger.readers;
    for (status, expected) in [
        ("timed_out", &["dead"][..]),
        ("dead", &["dead"]),
        ("queued", &["waits"]),
        ("succeeded", &["well"]),
        ("failed", &[]),
    ] {
        let filter = JobFilter { statuses: vec![status.into()], limit: 10, ..JobFilter::default() };
        let page = readers.jobs(&filter).await.expect("readable");
        let plugins: Vec<_> = page.rows.iter().map(|j| j.plugin.as_str()).collect();
        assert_eq!((plugins.as_slice(), page.total), (expected, expected.len() as u64), "jobs {status}");
    }
    for (status, total) in
        [("timed_out", 4), ("succeeded", 1), ("dead", 2), ("queued", 1), ("running", 0), ("failed", 0)]
    {
        let filter = LogFilter { status: Some(status.into()), limit: 10, ..LogFilter::default() };
        assert_eq!(readers.job_log(&filter).await.expect("readable").total, total, "attempts {status}");
    }
}

#[tokio::test]
async fn lists_are_read_page_by_page_while_they_grow() {
    let bed = Bed::new().await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        let job = bed.running("echo").await;
        ended_with(&bed, job.fence, succeeded(bed.hands.now()), Plan::default()).await;
        jobs.push(job.fence.job.to_string());
    }
    jobs.reverse();
    let readers = &bed.ledger.readers;
    let first = readers.jobs(&JobFilter { limit: 2, ..JobFilter::default() }).await.expect("readable").rows;
    let log = readers.job_log(&LogFilter { limit: 2, ..LogFilter::default() }).await.expect("readable").rows;
    bed.running("echo").await;
    let before = Some(first[1].id.parse().expect("an id"));
    let second = readers.jobs(&JobFilter { before, limit: 10, ..JobFilter::default() }).await.expect("readable");
    assert_eq!(second.rows.iter().map(|j| j.id.clone()).collect::<Vec<_>>(), jobs[2..]);
    assert_eq!(second.total, 6, "the total is of all pages");
    let before = Some(log[1].id.clone());
    let second = readers.job_log(&LogFilter { before, limit: 10, ..LogFilter::default() }).await.expect("readable");
    assert_eq!(second.rows.iter().map(|l| l.job_id.clone()).collect::<Vec<_>>(), jobs[2..]);
    assert_eq!(second.total, 5);
}

/// QUE-35: the recorded input of a job outlives its row, and a replay is named in the history of the new job.
#[tokio::test]
async fn a_recorded_input_outlives_its_row() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let id = job.fence.job;
    let retry = finish(job.fence, failed(Cause::ExitCode, bed.hands.now()), retry_in(bed.hands.now(), 0));
    bed.ledger.writer.finish(retry).await.expect("finished");
    let job = claimed(&bed, id).await;
    ended_with(&bed, job, succeeded(bed.hands.now()), Plan::default()).await;
    let readers = &bed.ledger.readers;
    let fresh = readers.recorded(id).await.expect("readable").expect("exists");
    assert_eq!(fresh.status.as_deref(), Some("succeeded"));
    assert_eq!(fresh.payload, new_job("echo").payload.map(|p| p.get().to_owned()));

    bed.hands.advance(Duration::from_secs(3600));
    let prune = Prune { retention: vec![(Deletable::Jobs, Duration::from_secs(1))], limit: 10 };
    bed.ledger.writer.prune(prune).await.expect("pruned");
    assert_eq!(bed.number("SELECT count(*) FROM job_queue").await, 0, "the row is gone");
    let shown = readers.job(id).await.expect("readable").expect("the log has it");
    assert_eq!((shown.status.as_str(), shown.attempt, shown.is_pruned), ("succeeded", 2, true));
    assert_eq!((shown.result.as_deref(), shown.stderr.as_deref()), (Some(r#"{"status":"ok"}"#), Some("to stderr\n")));
    assert!(shown.completed_at.is_some() && shown.payload.is_some());
    bed.enqueue(child(id, "later")).await;
    let family = readers.family(id).await.expect("readable").expect("the root is in the log");
    assert_eq!(family.jobs.iter().map(|j| j.plugin.as_str()).collect::<Vec<_>>(), ["echo", "later"]);
    let pruned = readers.recorded(id).await.expect("readable").expect("the log has it");
    assert_eq!((pruned.status.as_deref(), &pruned.payload), (None, &fresh.payload));
    assert_eq!((pruned.plugin.as_str(), pruned.command.as_str(), pruned.has_its_context), ("echo", "poll", true));
    assert!(readers.recorded(JobId::from(Uuid::nil())).await.expect("readable").is_none());

    let replay = NewJob { replay_of: Some(id), ..new_job("echo") };
    let again = replay.id;
    bed.enqueue(replay).await;
    let first = readers.transitions(again).await.expect("readable").remove(0);
    assert_eq!(first.reason, Some(format!("enqueued by api: replay of {id}")));
}

/// API-40: the durations are those of the plugin's records, of one command and time when that is asked.
#[tokio::test]
async fn durations_are_those_of_the_records() {
    let bed = Bed::new().await;
    for (plugin, command, dur) in
        [("echo", "poll", 30), ("echo", "poll", 10), ("echo", "handle", 99), ("other", "poll", 7)]
    {
        let job = NewJob { command: command.into(), ..new_job(plugin) };
        let id = job.id;
        bed.enqueue(job).await;
        let fence = claimed(&bed, id).await;
        let timing = Timing { enter_wall_ns: 1, exit_wall_ns: 1 + dur, dur_ns: dur, ..Timing::default() };
        ended_with(&bed, fence, Outcome { timing, ..succeeded(bed.hands.now()) }, Plan::default()).await;
        bed.hands.advance(Duration::from_secs(60));
    }
    let readers = &bed.ledger.readers;
    assert_eq!(readers.durations("echo", None, None).await.expect("readable"), [99, 10, 30]);
    assert_eq!(readers.durations("echo", Some("poll"), None).await.expect("readable"), [10, 30]);
    let since = bed.hands.now() - TimeDelta::seconds(180);
    assert_eq!(readers.durations("echo", None, Some(since)).await.expect("readable"), [99, 10]);
    assert!(readers.durations("nobody", None, None).await.expect("readable").is_empty());
}

/// API-34, API-35: the figures are those of an operator's SQL.
#[tokio::test]
async fn figures_are_those_of_the_rows() {
    let bed = Bed::new().await;
    let old = bed.running("old").await;
    ended_with(&bed, old.fence, succeeded(bed.hands.now()), Plan::default()).await;
    bed.hands.advance(Duration::from_secs(90_000));
    for outcome in [succeeded(bed.hands.now()), succeeded(bed.hands.now()), failed(Cause::Signal, bed.hands.now())] {
        let job = bed.running("new").await;
        ended_with(&bed, job.fence, outcome, Plan::default()).await;
    }
    let waits = bed.running("waits").await;
    let retry = finish(waits.fence, failed(Cause::Signal, bed.hands.now()), retry_in(bed.hands.now(), 60));
    bed.ledger.writer.finish(retry).await.expect("finished");
    let created = bed.hands.now();
    bed.queued("waits").await;
    let readers = &bed.ledger.readers;
    let since = bed.hands.now() - TimeDelta::hours(24);
    let ended = readers.ended_since(since).await.expect("readable");
    assert_eq!(ended.iter().map(|c| (c.status.as_str(), c.count)).collect::<Vec<_>>(), [("dead", 1), ("succeeded", 2)]);
    let waiting = readers.waiting(bed.hands.now()).await.expect("readable");
    assert_eq!(waiting.awaiting_retry, 1);
    assert_eq!(waiting.oldest_queued_at, Some(ductile_domain::time::format(created)));
    bed.hands.advance(Duration::from_secs(61));
    assert_eq!(readers.waiting(bed.hands.now()).await.expect("readable").awaiting_retry, 0, "it waits for a worker");
}

/// FCT-13: facts by type, page by page.
#[tokio::test]
async fn facts_are_read_by_type_and_page_by_page() {
    let bed = Bed::new().await;
    let fact = |fact_type: &str, n: u32| NewFact {
        fact_type: fact_type.into(),
        fact: RawValue::from_string(format!("{{\"n\":{n}}}")).expect("JSON"),
    };
    for n in 0..3 {
        let job = bed.running("echo").await;
        let plan = Plan { facts: vec![fact("echo.seen", n), fact("echo.other", n)], ..Plan::default() };
        ended_with(&bed, job.fence, succeeded(bed.hands.now()), plan).await;
    }
    let read = async |fact_type: Option<&str>, before, limit| {
        let filter = FactFilter { fact_type: fact_type.map(str::to_owned), before, limit };
        let rows = bed.ledger.readers.facts("echo", &filter).await.expect("readable");
        rows.into_iter().map(|f| f.seq.expect("numbered")).collect::<Vec<_>>()
    };
    assert_eq!(read(None, None, 4).await, [6, 5, 4, 3]);
    assert_eq!(read(None, Some(3), 4).await, [2, 1]);
    assert_eq!(read(Some("echo.seen"), None, 9).await, [5, 3, 1]);
    assert_eq!(read(Some("echo.seen"), Some(5), 1).await, [3]);
    assert!(read(Some("nothing"), None, 9).await.is_empty());
}

#[tokio::test]
async fn transitions_are_replayed_of_one_job_or_of_all() {
    let bed = Bed::new().await;
    assert_eq!(bed.ledger.readers.transition_bounds().await.expect("readable"), None);
    let first = bed.running("echo").await;
    let second = bed.running("echo").await;
    let readers = &bed.ledger.readers;
    assert_eq!(readers.transition_bounds().await.expect("readable"), Some((1, 4)));
    let all = readers.transitions_since(1, None, 10).await.expect("readable");
    assert_eq!(all.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 3, 4]);
    let mine = readers.transitions_since(0, Some(second.fence.job), 10).await.expect("readable");
    assert!(mine.len() == 2 && mine.iter().all(|t| t.job_id == second.fence.job.to_string()), "{mine:?}");
    assert!(mine.iter().all(|t| t.job_id != first.fence.job.to_string()));
}

/// The lists of a long history must not be sorted whole for a page, nor read whole for one job.
#[tokio::test]
async fn the_heavy_reads_use_their_indexes() {
    let bed = Bed::new().await;
    let mut conn = bed.sql().await;
    for (sql, index) in [
        ("SELECT rowid FROM job_log l ORDER BY l.completed_at DESC, l.rowid DESC LIMIT 50", "job_log_completed_idx"),
        (
            "SELECT t.id FROM job_transitions t WHERE t.id > 5 AND t.job_id = 'x' ORDER BY t.id LIMIT 9",
            "job_transitions_job_idx",
        ),
        ("SELECT id FROM job_queue q WHERE q.parent_job_id = 'x'", "job_queue_parent_idx"),
    ] {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let rows = plan.fetch_all(&mut conn).await.expect("explained");
        let text: Vec<String> = rows.iter().map(|r| r.get(3)).collect();
        let text = text.join("; ");
        assert!(text.contains(index) && !text.contains("TEMP B-TREE"), "{sql}: {text}");
    }
}
