//! Contexts: which rows are written, who gets them back, and what is read from them.

mod support;

use std::time::Duration;

use ductile_domain::ids::{ContextId, EventId};
use ductile_domain::job::{ClaimRequest, NewJob};
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::plan::{NewContext, NewFact, Plan, StateChange};
use ductile_domain::retry::Ending;
use ductile_ledger::{Deletable, Enqueued, Finish, Init, Prune, Refusal, Snapshot, Submission, Verdict, WriteError};
use sqlx::Row as _;
use support::{Bed, Call, context, finish, join, new_job, raw, seat, seated, succeeded};
use uuid::Uuid;

fn of_step(plugin: &str, context: &NewContext) -> NewJob {
    NewJob { context: Some(context.id), submitted_by: "route", ..new_job(plugin) }
}

/// PIP-32, DBS-06, DIS-20: a hop's row is committed with its job, after those that it accretes to, and handed to its attempt.
#[tokio::test]
async fn a_child_finds_the_context_that_was_made_for_it() {
    let bed = Bed::new().await;
    let first = context(None, "a");
    let (second, third) = (context(Some(first.id), "b"), context(Some(first.id), "c"));
    let mut child = NewJob { is_routed: false, ..of_step("echo", &second) };
    let waiting = join(None, 1);
    child.seat = Some(seat(&waiting, 0));
    let id = child.id;
    // neither in their order nor each of use
    let contexts = vec![third, second.clone(), first.clone()];
    bed.planned(Plan { contexts, joins: vec![waiting.clone()], children: vec![child], ..Plan::default() }).await;
    let order: Vec<String> = sqlx::query("SELECT step_id FROM event_context ORDER BY rowid")
        .fetch_all(&mut bed.sql().await)
        .await
        .expect("read")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(order, ["a", "b"], "what no job names is not written");
    let job = bed.take(id).await;
    assert_eq!(job.context.as_ref().map(|c| c.get()), Some(second.accumulated.get()));
    assert_eq!((job.context_id, job.seat, job.is_routed), (Some(second.id), Some(seat(&waiting, 0)), false));
    bed.ledger.writer.finish(bed.succeeded(job.fence)).await.expect("finished");
    let span = "SELECT count(*) FROM job_stopwatch WHERE pipeline = 'p' AND step_id = 'b'
        AND pipeline_instance_id = 'an-instance'";
    assert_eq!(bed.number(span).await, 1, "where the time of a step went can be asked by pipeline");
    assert_eq!(
        bed.number("SELECT count(*) FROM job_stopwatch WHERE pipeline IS NULL").await,
        1,
        "a plain job has none"
    );

    let plain = bed.running("echo").await;
    assert_eq!((plain.context_id, plain.seat, plain.is_routed), (None, None, true));
    bed.ledger.close().await;
}

/// The row of a child for which another job stands is not left behind; one that a join's job needs is.
#[tokio::test]
async fn only_accepted_jobs_and_joins_have_their_contexts_written() {
    let bed = Bed::new().await;
    let event = EventId::from(Uuid::now_v7());
    let parent = bed.running("echo").await;
    let (first, second, of_join) = (context(None, "a"), context(None, "b"), context(None, "join"));
    let child = |context: &NewContext| NewJob {
        parent: Some(parent.fence.job),
        source_event: Some(event),
        ..of_step("echo", context)
    };
    let mut waiting = join(None, 1);
    waiting.job.context = Some(of_join.id);
    let mut done = bed.succeeded(parent.fence);
    done.plan.children = vec![child(&first), child(&second)];
    done.plan.contexts = vec![first.clone(), second.clone(), of_join.clone()];
    done.plan.joins = vec![waiting];
    let answer = bed.ledger.writer.finish(done).await.expect("finished");
    assert!(matches!(answer.children[1], Enqueued::Duplicate { .. }));
    for (context, is_there) in [(&first, true), (&second, false), (&of_join, true)] {
        let row = bed.ledger.readers.context(context.id).await.expect("read");
        assert_eq!(row.is_some(), is_there, "{:?}", context.step);
    }

    let step = context(None, "entry");
    let again = NewJob { dedupe_key: Some("k".into()), dedupe_in_flight: true, ..of_step("echo", &step) };
    let twin = NewJob { id: Uuid::now_v7().into(), context: None, ..again.clone() };
    bed.enqueue(twin).await;
    let known = Submission { jobs: vec![again], contexts: vec![step], ..Submission::default() };
    let answer = bed.ledger.writer.submit(known, 1).await.expect("submitted");
    assert!(matches!(answer.jobs[0], Enqueued::Duplicate { .. }));
    assert_eq!(bed.number("SELECT count(*) FROM event_context").await, 2);
    bed.ledger.close().await;
}

/// QUE-35: a replay names the row that stands in the table, which is neither needed in the call nor written again.
#[tokio::test]
async fn a_replay_runs_on_the_recorded_context() {
    let bed = Bed::new().await;
    let step = context(None, "a");
    let first = NewJob { is_routed: false, ..of_step("echo", &step) };
    let id = first.id;
    bed.planned(Plan { contexts: vec![step.clone()], children: vec![first], ..Plan::default() }).await;
    let job = bed.take(id).await;
    let end = finish(job.fence, support::failed(Cause::ExitCode, bed.hands.now()), Ending::Dead);
    bed.ledger.writer.finish(end).await.expect("finished");
    let recorded = bed.ledger.readers.recorded(id).await.expect("read").expect("there");
    assert_eq!((recorded.has_its_context, recorded.is_routed), (true, false));
    assert_eq!(recorded.event_context_id, Some(step.id.to_string()));

    let replay = NewJob { replay_of: Some(id), submitted_by: "api", ..of_step("echo", &step) };
    let replayed = replay.id;
    bed.enqueue(replay).await;
    let again = bed.take(replayed).await;
    assert_eq!(again.context.as_ref().map(|c| c.get()), Some(step.accumulated.get()));
    assert_eq!(bed.number("SELECT count(*) FROM event_context").await, 1);
    let reason = "SELECT count(*) FROM job_transitions WHERE reason LIKE 'enqueued by api: replay of %'";
    assert_eq!(bed.number(reason).await, 1);
    bed.ledger.close().await;
}

/// A door's submission is committed as a whole or not at all, and is asked for the generation like any other.
#[tokio::test]
async fn a_submission_is_all_or_nothing() {
    let bed = Bed::new().await;
    let step = context(None, "a");
    let waiting = join(None, 1);
    let whole = |jobs: Vec<NewJob>| Submission {
        jobs,
        contexts: vec![step.clone()],
        joins: vec![waiting.clone()],
        ..Submission::default()
    };
    let entry = NewJob { seat: Some(seat(&waiting, 0)), ..of_step("echo", &step) };
    let writer = &bed.ledger.writer;
    let torn = writer.submit(whole(vec![entry.clone(), entry.clone()]), 1).await;
    assert!(matches!(torn, Err(WriteError::Refused(_))), "one id twice");
    for table in ["job_queue", "event_context", "pipeline_joins", "job_transitions"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut bed.sql().await).await.expect("read");
        assert_eq!(row.get::<i64, _>(0), 0, "{table}");
    }
    let snapshot = |generation, plugins: &[&str]| Snapshot {
        generation,
        plugins: plugins.iter().map(|p| (*p).to_owned()).collect(),
        ..Snapshot::default()
    };
    writer.record_snapshot(snapshot(2, &["other"])).await.expect("recorded");
    let refused = writer.submit(whole(vec![entry.clone()]), 1).await;
    assert!(matches!(refused, Err(WriteError::PluginGone { .. })), "{refused:?}");
    writer.record_snapshot(snapshot(3, &["echo"])).await.expect("recorded");
    let answer = writer.submit(whole(vec![entry]), 1).await.expect("submitted");
    assert!(matches!(answer.jobs[0], Enqueued::Accepted { .. }));
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// A plan whose context has an id that is taken fails alone; the others of its transaction do not.
#[tokio::test]
async fn a_context_that_can_not_be_written_fails_its_plan_alone() {
    let bed = Bed::new().await;
    let step = context(None, "a");
    bed.planned(Plan { contexts: vec![step.clone()], children: vec![of_step("echo", &step)], ..Plan::default() }).await;
    let mut claimed = Vec::new();
    for _ in 0..3 {
        claimed.push(bed.running("echo").await);
    }
    let calls = claimed.iter().enumerate().map(|(n, job)| {
        let mut own = context(None, "b");
        if n == 1 {
            own.id = step.id;
        }
        let mut done = bed.succeeded(job.fence);
        done.plan.children = vec![of_step("echo", &own)];
        done.plan.contexts = vec![own];
        Box::pin(bed.ledger.writer.finish(done)) as Call<'_, Result<_, WriteError>>
    });
    let answers = bed.together(calls.collect()).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(bed.number("SELECT count(*) FROM event_context").await, 3);
    assert_eq!(bed.ledger.readers.running().await.expect("read").len(), 1, "it waits for another outcome");
    bed.ledger.close().await;
}

/// DIS-22, PIP-34: what the plugin did stays recorded when what must follow can't be planned.
#[tokio::test]
async fn a_fault_of_routing_keeps_what_the_plugin_said() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    let text = "baggage path \"a.b\" is immutable";
    let outcome = Outcome {
        status: AttemptStatus::Failed,
        cause: Some(Cause::Routing),
        error: Some(text.into()),
        ..succeeded(bed.hands.now())
    };
    let mut end = finish(job.fence, outcome, Ending::Failed);
    end.plan.facts.push(NewFact { fact_type: "echo.snapshot".into(), fact: raw("{}") });
    end.plan.state = Some(StateChange::Merge(raw(r#"{"a":1}"#)));
    let answer = bed.ledger.writer.finish(end).await.expect("finished");
    assert_eq!(answer.transitions[0].reason.as_deref(), Some("routing: baggage path \"a.b\" is immutable"));
    let row = bed.ledger.readers.job(job.fence.job).await.expect("read").expect("there");
    assert_eq!((row.status.as_str(), row.last_error.as_deref()), ("failed", Some(text)));
    assert_eq!(row.result.as_deref(), Some(r#"{"status":"ok"}"#));
    assert_eq!(bed.number("SELECT count(*) FROM plugin_facts").await, 1);
    assert_eq!(bed.number("SELECT count(*) FROM job_attempts WHERE cause = 'routing'").await, 1);
    assert!(bed.ledger.readers.plugin_state("echo").await.expect("read").is_some());
    bed.ledger.close().await;
}

/// PIP-40: an event that went no further is told in `last_error` of a job that succeeded, and is no failed `init`.
#[tokio::test]
async fn a_success_may_have_something_to_say() {
    let bed = Bed::new().await;
    let init = Init { print: "1".into(), job: NewJob { command: "init".into(), ..new_job("echo") } };
    let snapshot = Snapshot { inits: vec![init.clone()], plugins: vec!["echo".into()], ..Snapshot::default() };
    bed.ledger.writer.record_snapshot(snapshot).await.expect("recorded");
    let plain = new_job("echo");
    bed.enqueue(plain.clone()).await;
    for id in [plain.id, init.job.id] {
        let mut done = bed.succeeded(bed.take(id).await.fence);
        done.outcome.error = Some("event x dropped: the chain is 20 hops deep".into());
        bed.ledger.writer.finish(done).await.expect("finished");
        let row = bed.ledger.readers.job(id).await.expect("read").expect("there");
        assert_eq!(row.status, "succeeded");
        assert!(row.last_error.is_some_and(|e| e.starts_with("event x dropped")));
    }
    assert!(bed.ledger.readers.failed_inits().await.expect("read").is_empty());
    bed.ledger.close().await;
}

/// The gateway's own steps are in force under every configuration, and have no cap of their own.
#[tokio::test]
async fn the_gateways_own_steps_are_always_in_force() {
    let bed = Bed::new().await;
    let writer = &bed.ledger.writer;
    let snapshot = |generation| Snapshot { generation, plugins: vec!["echo".into()], ..Snapshot::default() };
    writer.record_snapshot(snapshot(1)).await.expect("recorded");
    let queued = bed.queued("core.switch").await;
    let queued_too = bed.queued("core.join").await;
    let lookalike = bed.queued("core.other").await;
    let parent = bed.running("echo").await;
    let recorded = writer.record_snapshot(snapshot(2)).await.expect("recorded");
    let buried: Vec<_> = recorded.buried.iter().map(|b| b.transition.job).collect();
    assert_eq!(buried, [lookalike.job], "a name that only looks like theirs is no more than a plugin's");
    writer.enqueue(vec![new_job("core.switch")], 1).await.expect("enqueued under a former generation");
    let mut done = bed.succeeded(parent.fence);
    (done.plan.generation, done.plan.children) = (1, vec![new_job("core.join")]);
    assert_eq!(writer.finish(done).await.expect("finished").verdict, Verdict::Applied);

    let third = bed.queued("core.switch").await;
    let candidates = [queued, third, queued_too].map(|c| (c, 1)).to_vec();
    let request = ClaimRequest { candidates, max_running: 2, ..bed.request(Vec::new()) };
    let claims = writer.claim(request).await.expect("answered");
    assert_eq!(claims.claimed.len(), 2, "{:?}", claims.refused);
    assert_eq!(claims.refused.iter().map(|r| r.why).collect::<Vec<_>>(), [Refusal::GlobalCap]);
    bed.ledger.close().await;
}

/// A writer that is started anew in the same gateway goes on under the generation in force.
#[tokio::test]
async fn the_next_writer_knows_the_generation_in_force() {
    use ductile_domain::ids::BootId;
    use ductile_ledger::{OpenOptions, open};
    let dir = tempfile::tempdir().expect("a directory");
    let options = OpenOptions::new(dir.path().join("ductile.db"), BootId::from(Uuid::now_v7()));
    let ledger = open(options.clone()).await.expect("opened");
    let snapshot = Snapshot { generation: 7, plugins: vec!["echo".into()], ..Snapshot::default() };
    ledger.writer.record_snapshot(snapshot).await.expect("recorded");
    ledger.close().await;
    let ledger = open(options).await.expect("opened again");
    let refused = ledger.writer.enqueue(vec![new_job("gone")], 6).await;
    assert!(matches!(refused, Err(WriteError::PluginGone { .. })), "{refused:?}");
    ledger.writer.enqueue(vec![new_job("echo")], 6).await.expect("enqueued");
    ledger.close().await;
}

/// DBS-06: contexts go with their age once no job and no younger context needs them.
#[tokio::test]
async fn contexts_are_kept_as_long_as_something_refers_to_them() {
    let bed = Bed::new().await;
    let first = context(None, "a");
    let second = context(Some(first.id), "b");
    let job = of_step("echo", &second);
    let id = job.id;
    bed.planned(Plan { contexts: vec![first, second], children: vec![job], ..Plan::default() }).await;
    bed.ledger.writer.finish(bed.succeeded(bed.take(id).await.fence)).await.expect("finished");
    bed.hands.advance(Duration::from_secs(100));
    let kinds = |kinds: &[Deletable]| Prune {
        retention: kinds.iter().map(|kind| (*kind, Duration::from_secs(60))).collect(),
        limit: 100,
    };
    bed.ledger.writer.prune(kinds(&[Deletable::Contexts])).await.expect("pruned");
    assert_eq!(bed.number("SELECT count(*) FROM event_context").await, 2);
    bed.ledger.writer.prune(kinds(&[Deletable::Jobs, Deletable::Contexts])).await.expect("pruned");
    assert_eq!(bed.number("SELECT count(*) FROM event_context").await, 0, "from the youngest up");
    bed.ledger.close().await;
}

/// QUE-35: the way that baggage came is read from the nearest row up.
#[tokio::test]
async fn a_lineage_is_read_from_the_job_up() {
    let bed = Bed::new().await;
    let mut rows: Vec<NewContext> = Vec::new();
    for n in 0..40 {
        let mut row = context(rows.last().map(|row| row.id), &format!("s{n}"));
        if n % 2 == 0 {
            row.accumulated = raw(&format!(r#"{{"text":"{}"}}"#, "x".repeat(1_000_000)));
        }
        rows.push(row);
    }
    let last = rows.last().expect("some").id;
    let job = of_step("echo", rows.last().expect("some"));
    let id = job.id;
    bed.planned(Plan { contexts: rows, children: vec![job], ..Plan::default() }).await;
    let line = bed.ledger.readers.lineage(last).await.expect("read");
    let steps: Vec<_> = line.iter().filter_map(|row| row.step_id.clone()).collect();
    assert_eq!(steps, (0..40).rev().map(|n| format!("s{n}")).collect::<Vec<_>>());
    assert!(line[0].accumulated.is_some() && line[0].pipeline.as_deref() == Some("p"));
    assert!(
        line[39].accumulated.is_none() && line[38].accumulated_bytes > 90,
        "what is beyond the budget is counted only"
    );
    let unknown = ContextId::from(Uuid::now_v7());
    assert!(bed.ledger.readers.lineage(unknown).await.expect("read").is_empty());
    assert!(bed.ledger.readers.context(unknown).await.expect("read").is_none());
    let family = bed.ledger.readers.family(id).await.expect("read").expect("there");
    assert_eq!((family.jobs[0].pipeline.as_deref(), family.jobs[0].step_id.as_deref()), (Some("p"), Some("s39")));
    bed.ledger.close().await;
}

/// A run is over when nothing of it is left, and its last job is the one that ended last; hooks don't belong to it.
#[tokio::test]
async fn the_progress_of_a_run_is_counted_over_its_tree() {
    let bed = Bed::new().await;
    let root = bed.running("echo").await;
    let roots = [root.fence.job];
    let child = |parent| NewJob { parent: Some(parent), submitted_by: "route", ..new_job("echo") };
    let hook = NewJob { submitted_by: "hook", ..child(root.fence.job) };
    let waiting = join(None, 2);
    let children: Vec<_> = (0..2).map(|n| NewJob { seat: Some(seat(&waiting, n)), ..child(root.fence.job) }).collect();
    let (first, second, follower) = (children[0].id, children[1].id, waiting.job.id);
    let mut done = bed.succeeded(root.fence);
    done.plan = Plan { joins: vec![waiting], children: [children, vec![hook]].concat(), ..Plan::default() };
    bed.ledger.writer.finish(done).await.expect("finished");
    let readers = &bed.ledger.readers;
    let progress = readers.progress(&roots).await.expect("read");
    assert_eq!((progress.queued, progress.succeeded, progress.jobs()), (2, 1, 3));
    assert!(!progress.is_over());
    assert_eq!(progress.last, Some(root.fence.job.to_string()));
    assert_eq!(readers.join_of(first).await.expect("read").map(|j| (j.open, j.fired_at)), Some((2, None)));
    for job in [second, first] {
        bed.hands.advance(Duration::from_millis(3));
        bed.ledger.writer.finish(bed.succeeded(bed.take(job).await.fence)).await.expect("finished");
    }
    let progress = readers.progress(&roots).await.expect("read");
    assert_eq!(
        (progress.queued, progress.jobs(), progress.last),
        (1, 4, Some(first.to_string())),
        "the join's job counts"
    );
    let joined = bed.take(follower).await;
    let end = finish(joined.fence, support::failed(Cause::Preflight, bed.hands.now()), Ending::Failed);
    bed.ledger.writer.finish(end).await.expect("finished");
    let progress = readers.progress(&roots).await.expect("read");
    assert!(progress.is_over());
    assert_eq!((progress.failed, progress.succeeded), (1, 3));
    assert_eq!(progress.last, Some(follower.to_string()), "in the same moment as another, but younger");
    assert!(readers.open_in_family(root.fence.job).await.expect("read").is_empty());
    let state = readers.join_of(follower).await.expect("read").expect("what it followed");
    assert_eq!((state.open, state.fired_job_id, state.branches.len()), (0, Some(follower.to_string()), 2));
    assert_eq!(readers.progress(&[]).await.expect("read").jobs(), 0);
    bed.ledger.close().await;
}

/// A tree of a thousand jobs, joins and decisions among them, is read as one.
#[tokio::test]
async fn a_tree_of_a_thousand_jobs_is_read_whole() {
    let bed = Bed::new().await;
    let root = bed.running("echo").await;
    let mut parent = root.fence;
    for n in 0..9 {
        let plugin = if n % 2 == 0 { "core.switch" } else { "echo" };
        let children: Vec<_> =
            (0..111).map(|_| NewJob { parent: Some(parent.job), submitted_by: "route", ..new_job(plugin) }).collect();
        let next = children[0].id;
        let mut done = bed.succeeded(parent);
        done.plan.children = children;
        bed.ledger.writer.finish(done).await.expect("finished");
        parent = bed.take(next).await.fence;
    }
    let family = bed.ledger.readers.family(root.fence.job).await.expect("read").expect("there");
    assert_eq!((family.jobs.len(), family.is_truncated), (1000, false));
    let progress = bed.ledger.readers.progress(&[root.fence.job]).await.expect("read");
    assert_eq!((progress.running, progress.succeeded, progress.queued), (1, 9, 990));
    assert_eq!(bed.ledger.readers.open_in_family(root.fence.job).await.expect("read").len(), 991);
    bed.ledger.close().await;
}

/// Each pipeline tells of its newest job.
#[tokio::test]
async fn each_pipeline_tells_of_its_newest_job() {
    let bed = Bed::new().await;
    assert!(bed.ledger.readers.pipeline_activity().await.expect("read").is_empty());
    let mut last = Vec::new();
    for (n, pipeline) in ["b", "a", "b", "b", "a"].into_iter().enumerate() {
        bed.hands.advance(Duration::from_millis(5));
        let row = NewContext { pipeline: Some(pipeline.into()), ..context(None, "s") };
        let job = of_step("echo", &row);
        last.push((pipeline, job.id.to_string()));
        let plan = Plan { contexts: vec![row], children: vec![job], ..Plan::default() };
        bed.planned(plan).await;
        assert_eq!(last.len(), n + 1);
    }
    let found = bed.ledger.readers.pipeline_activity().await.expect("read");
    let found: Vec<_> = found.iter().map(|a| (a.pipeline.as_str(), a.last_job_id.clone())).collect();
    assert_eq!(found, [last[4].clone(), last[3].clone()]);
    bed.ledger.close().await;
}

/// A seated job of a door has its join too; what is fenced off writes no row at all.
#[tokio::test]
async fn a_fenced_end_leaves_no_context() {
    let bed = Bed::new().await;
    let job = bed.running("echo").await;
    bed.ledger.writer.give_back(job.fence, "a stop".into(), None).await.expect("given back");
    let step = context(None, "a");
    let waiting = join(None, 1);
    let child = NewJob { context: Some(step.id), ..seated("echo", seat(&waiting, 0)) };
    let plan = Plan { contexts: vec![step], joins: vec![waiting], children: vec![child], ..Plan::default() };
    let answer = bed.ledger.writer.finish(Finish { plan, ..bed.succeeded(job.fence) }).await.expect("answered");
    assert_eq!((answer.verdict, answer.children.len()), (Verdict::Fenced, 0));
    let left = "SELECT (SELECT count(*) FROM event_context) + (SELECT count(*) FROM pipeline_joins)
        + (SELECT count(*) FROM job_queue) - 1";
    assert_eq!(bed.number(left).await, 0);
    bed.ledger.close().await;
}
