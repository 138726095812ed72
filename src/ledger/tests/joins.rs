//! Joins: what they count, when they fire, and what their job is told.

mod support;

use std::time::Duration;

use ductile_domain::ids::JobId;
use ductile_domain::job::{JobStatus, NewJob, Seat};
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::plan::{NewJoin, Plan};
use ductile_domain::retry::Ending;
use ductile_ledger::{Cancelled, Enqueued, Finish, Finished, Snapshot, Submission, Verdict, WriteError};
use serde_json::{Value, json};
use sqlx::Row as _;
use support::{Bed, Call, arrival, failed, finish, join, new_job, retry_in, seat, seated, succeeded};

/// A split with one job in each branch.
fn split(outer: Option<Seat>, branches: u32) -> (NewJoin, Vec<NewJob>) {
    let join = join(outer, branches as usize);
    let jobs = (0..branches).map(|n| seated("echo", seat(&join, n))).collect();
    (join, jobs)
}

fn ids(jobs: &[NewJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

async fn payload(bed: &Bed, job: JobId) -> Value {
    let row = bed.ledger.readers.job(job).await.expect("read").expect("there");
    serde_json::from_str(row.payload.expect("a payload").get()).expect("JSON")
}

/// Ends a job of a branch that has reached its join.
async fn arrive(bed: &Bed, job: JobId, brings: &str) -> Finished {
    let job = bed.take(job).await;
    let mut done = bed.succeeded(job.fence);
    done.plan.arrivals.push(arrival(job.seat.expect("seated"), brings));
    bed.ledger.writer.finish(done).await.expect("finished")
}

/// PIP-11, PIP-12, DIS-20: the last of the branches to end brings the join's job with it, and a failure is told, not hidden.
#[tokio::test]
async fn a_join_fires_when_its_last_branch_has_ended() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 3);
    let children = ids(&jobs);
    let follower = join.job.id;
    let answer = bed.planned(Plan { joins: vec![join.clone()], children: jobs, ..Plan::default() }).await;
    assert!(answer.born.is_empty() && answer.children.len() == 3);

    // in another order than the authored one
    assert!(arrive(&bed, children[2], r#"{"n": 1.10}"#).await.born.is_empty());
    let broken = bed.take(children[0]).await;
    assert_eq!(broken.seat, Some(seat(&join, 0)));
    let end = finish(broken.fence, failed(Cause::ExitConfig, bed.hands.now()), Ending::Failed);
    assert!(bed.ledger.writer.finish(end).await.expect("finished").born.is_empty(), "one branch is left");
    bed.assert_joins_are_balanced().await;
    let _ = bed.feed.drain();
    let last = arrive(&bed, children[1], "[2]").await;

    assert_eq!(last.born.iter().map(|b| (b.job, &*b.plugin)).collect::<Vec<_>>(), [(follower, "core.join")]);
    assert_eq!(bed.feed.drain().candidates.iter().map(|c| c.job).collect::<Vec<_>>(), [follower], "the queue is told");
    let expected = json!({"branches": [
        {"branch": 0, "step": "step_0", "status": "failed", "payload": null, "error": "it went wrong: exit_78",
            "job_id": children[0].to_string()},
        {"branch": 1, "step": "step_1", "status": "succeeded", "payload": [2], "job_id": children[1].to_string()},
        {"branch": 2, "step": "step_2", "status": "succeeded", "payload": {"n": 1.10}, "job_id": children[2].to_string()},
    ]});
    assert_eq!(payload(&bed, follower).await, expected);
    let row = bed.ledger.readers.job(follower).await.expect("read").expect("there");
    assert!(
        row.payload.as_ref().is_some_and(|p| p.get().contains("1.10")),
        "numbers are handed on as they were written"
    );
    assert_eq!(row.parent_job_id, Some(children[1].to_string()), "what ended last");
    assert_eq!((row.submitted_by.as_str(), row.max_attempts, row.status.as_str()), ("route", 1, "queued"));
    let order =
        "SELECT (SELECT id FROM job_transitions WHERE job_id = (SELECT id FROM job_queue WHERE plugin = 'core.join'))
        = (SELECT max(id) FROM job_transitions)";
    assert_eq!(bed.number(order).await, 1);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// Steps that hand on what they got double it with every join, so a join says when it is too much.
#[tokio::test]
async fn what_has_no_room_in_a_join_fails_its_branch() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 3);
    let (children, follower, id) = (ids(&jobs), join.job.id, join.id);
    bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    let large = format!("\"{}\"", "x".repeat(20 << 20));
    arrive(&bed, children[0], &large).await;
    arrive(&bed, children[1], &large).await;
    arrive(&bed, children[2], "{\"n\":1}").await;
    let told = payload(&bed, follower).await;
    let [first, second, third] = &told["branches"].as_array().expect("a list")[..] else { panic!("three branches") };
    assert_eq!((&first["status"], first["payload"].as_str().map(str::len)), (&json!("succeeded"), Some(20 << 20)));
    assert_eq!((&second["status"], &second["payload"]), (&json!("failed"), &Value::Null));
    let error = second["error"].as_str().expect("a text");
    assert!(error.contains("20971522 bytes is left out") && error.contains("33554432 bytes"), "{error}");
    assert_eq!((&third["status"], &third["payload"]), (&json!("succeeded"), &json!({"n": 1})));
    let row = bed.ledger.readers.join_of(follower).await.expect("read").expect("there");
    assert_eq!(row.id, id.to_string());
    assert_eq!((row.branches[1].status.as_str(), row.branches[1].error.as_deref()), ("failed", Some(error)));
    bed.ledger.close().await;
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Succeed,
    Skip,
    Fail,
    Die,
    CancelQueued,
    CancelThenGiveBack,
    CancelThenRetry,
    Bury,
    Crash,
}

/// p4: whatever way the last seated job ends, the join fires in that transaction; only `failed` and `dead` fail a branch.
#[tokio::test]
async fn a_join_hears_of_every_way_to_end() {
    use Way::{Bury, CancelQueued, CancelThenGiveBack, CancelThenRetry, Crash, Die, Fail, Skip, Succeed};
    for way in [Succeed, Skip, Fail, Die, CancelQueued, CancelThenGiveBack, CancelThenRetry, Bury, Crash] {
        let mut bed = Bed::new().await;
        let (join, mut jobs) = split(None, 1);
        jobs[0].max_attempts = 1;
        jobs[0].plugin = "soon gone".into();
        let (job, follower) = (jobs[0].id, join.job.id);
        bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
        let writer = bed.ledger.writer.clone();
        let now = bed.hands.now();
        let ended = async |outcome: Outcome, ending| {
            let claimed = bed.take(job).await;
            writer.finish(finish(claimed.fence, outcome, ending)).await.expect("finished").born
        };
        let born = match way {
            Succeed => ended(succeeded(now), Ending::Succeeded).await,
            Skip => ended(Outcome { status: AttemptStatus::Skipped, ..succeeded(now) }, Ending::Skipped).await,
            Fail => ended(failed(Cause::Preflight, now), Ending::Failed).await,
            Die => ended(failed(Cause::ExitCode, now), Ending::Dead).await,
            CancelQueued => match writer.cancel(job, "x".into(), "x".into()).await.expect("answered") {
                Cancelled::Dead(buried) => buried.born,
                other => panic!("{other:?}"),
            },
            CancelThenGiveBack | CancelThenRetry => {
                let claimed = bed.take(job).await;
                let flagged = writer.cancel(job, "x".into(), "x".into()).await.expect("answered");
                assert_eq!(flagged, Cancelled::Flagged);
                let answer = if matches!(way, CancelThenGiveBack) {
                    writer.give_back(claimed.fence, "a stop".into(), None).await
                } else {
                    writer.finish(finish(claimed.fence, failed(Cause::Signal, now), retry_in(now, 9))).await
                };
                answer.expect("answered").born
            }
            Bury => {
                let recorded = writer.record_snapshot(Snapshot::default()).await.expect("recorded");
                assert_eq!(recorded.ready.iter().map(|c| c.job).collect::<Vec<_>>(), [follower]);
                recorded.buried.into_iter().flat_map(|b| b.born).collect()
            }
            Crash => {
                bed.take(job).await;
                bed = bed.reopen().await;
                let recovered = bed.ledger.writer.recover().await.expect("recovered");
                recovered.into_iter().flat_map(|r| r.finished.born).collect()
            }
        };
        assert_eq!(born.iter().map(|b| b.job).collect::<Vec<_>>(), [follower], "{way:?}");
        let expected = if matches!(way, Succeed | Skip) { "succeeded" } else { "failed" };
        let branch = payload(&bed, follower).await["branches"][0].clone();
        assert_eq!(branch["status"], expected, "{way:?}");
        assert_eq!(branch.get("error").is_some(), expected == "failed", "{way:?}: {branch}");
        bed.assert_joins_are_balanced().await;
        bed.ledger.close().await;
    }
}

/// An attempt that is tried again, or given back, has not ended; a repeated or fenced end counts once.
#[tokio::test]
async fn only_the_end_of_a_job_counts_and_only_once() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 2);
    let children = ids(&jobs);
    bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    let writer = &bed.ledger.writer;
    let first = bed.take(children[0]).await;
    let now = bed.hands.now();
    writer
        .finish(finish(first.fence, failed(Cause::ExitCode, now), Ending::Retry { due: now }))
        .await
        .expect("finished");
    let second = bed.take(children[0]).await;
    assert_eq!((second.attempt, second.seat), (2, first.seat));
    writer.give_back(second.fence, "a stop".into(), None).await.expect("given back");
    bed.assert_joins_are_balanced().await;
    assert_eq!(bed.number("SELECT open FROM pipeline_joins").await, 2);
    let third = bed.take(children[0]).await;
    let end = bed.succeeded(third.fence);
    writer.finish(end.clone()).await.expect("finished");
    for (fence, verdict) in [(third.fence, Verdict::AlreadyApplied), (first.fence, Verdict::Fenced)] {
        let answer = writer.finish(Finish { fence, ..end.clone() }).await.expect("answered");
        assert_eq!((answer.verdict, answer.born.len()), (verdict, 0));
    }
    assert_eq!(bed.number("SELECT open FROM pipeline_joins").await, 1);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// A branch of several jobs is left by the last of them; each child that inherits the seat keeps it open.
#[tokio::test]
async fn a_branch_lasts_as_long_as_its_last_job() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 1);
    let (at, first, follower) = (seat(&join, 0), jobs[0].id, join.job.id);
    bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    let claimed = bed.take(first).await;
    let mut done = bed.succeeded(claimed.fence);
    done.plan.children = vec![seated("echo", at), seated("echo", at)];
    let children = ids(&done.plan.children);
    bed.ledger.writer.finish(done).await.expect("finished");
    assert_eq!(bed.number("SELECT open FROM pipeline_joins").await, 2);
    assert!(arrive(&bed, children[1], "1").await.born.is_empty());
    assert_eq!(arrive(&bed, children[0], "2").await.born[0].job, follower);
    let branch = &payload(&bed, follower).await["branches"][0];
    assert_eq!(
        (&branch["payload"], &branch["job_id"]),
        (&json!(2), &json!(children[0].to_string())),
        "the last to arrive"
    );
    bed.ledger.close().await;
}

/// A join inside of a branch: what follows it takes over its place in the outer count.
#[tokio::test]
async fn an_outer_join_waits_for_what_follows_an_inner_one() {
    let bed = Bed::new().await;
    let (outer, mut jobs) = split(None, 2);
    let (inner, inside) = split(Some(seat(&outer, 0)), 2);
    jobs.remove(0);
    let beside = jobs[0].id;
    let within = ids(&inside);
    jobs.extend(inside);
    let (outer_job, inner_job) = (outer.job.id, inner.job.id);
    let at = seat(&outer, 0);
    // in the order in which they must not be settled
    bed.planned(Plan { joins: vec![outer, inner], children: jobs, ..Plan::default() }).await;
    bed.assert_joins_are_balanced().await;
    assert!(arrive(&bed, beside, "0").await.born.is_empty());
    assert!(arrive(&bed, within[0], "0").await.born.is_empty());
    assert_eq!(arrive(&bed, within[1], "1").await.born.iter().map(|b| b.job).collect::<Vec<_>>(), [inner_job]);
    bed.assert_joins_are_balanced().await;
    let joined = bed.take(inner_job).await;
    assert_eq!(joined.seat, Some(at), "its place in the branch");
    let end = finish(joined.fence, failed(Cause::Preflight, bed.hands.now()), Ending::Failed);
    let answer = bed.ledger.writer.finish(end).await.expect("finished");
    assert_eq!(answer.born.iter().map(|b| b.job).collect::<Vec<_>>(), [outer_job]);
    let said = payload(&bed, outer_job).await;
    assert_eq!(
        (&said["branches"][0]["status"], &said["branches"][1]["status"]),
        (&json!("failed"), &json!("succeeded"))
    );
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// Branches that are reached at once, also of a join inside of a join, hold nothing up.
#[tokio::test]
async fn a_join_that_waits_for_nothing_fires_with_what_began_it() {
    let bed = Bed::new().await;
    let outer = join(None, 1);
    let inner = join(Some(seat(&outer, 0)), 2);
    let (outer_job, inner_job) = (outer.job.id, inner.job.id);
    let arrivals = vec![arrival(seat(&inner, 0), "0"), arrival(seat(&inner, 1), "1")];
    let answer = bed.planned(Plan { joins: vec![outer, inner], arrivals, ..Plan::default() }).await;
    assert_eq!(answer.born.iter().map(|b| b.job).collect::<Vec<_>>(), [inner_job]);
    let said = payload(&bed, inner_job).await;
    assert_eq!((&said["branches"][0]["payload"], &said["branches"][1]["payload"]), (&json!(0), &json!(1)));
    bed.assert_joins_are_balanced().await;
    assert_eq!(arrive(&bed, inner_job, "2").await.born[0].job, outer_job);

    // a job that ends in the same moment as it begins a join which fires at once hands its seat on
    let (outer, jobs) = split(None, 1);
    let (job, at, outer_job) = (jobs[0].id, seat(&outer, 0), outer.job.id);
    bed.planned(Plan { joins: vec![outer], children: jobs, ..Plan::default() }).await;
    let claimed = bed.take(job).await;
    let inner = join(Some(at), 0);
    let inner_job = inner.job.id;
    let mut done = bed.succeeded(claimed.fence);
    done.plan.joins = vec![inner];
    let answer = bed.ledger.writer.finish(done).await.expect("finished");
    assert_eq!(answer.born.iter().map(|b| b.job).collect::<Vec<_>>(), [inner_job]);
    bed.assert_joins_are_balanced().await;
    assert_eq!(arrive(&bed, inner_job, "2").await.born[0].job, outer_job);
    bed.ledger.close().await;
}

/// A child for which another job stands takes no seat: its branch does not wait for it.
#[tokio::test]
async fn a_duplicate_takes_no_seat() {
    let bed = Bed::new().await;
    let twin = NewJob { dedupe_key: Some("k".into()), dedupe_in_flight: true, ..new_job("echo") };
    let twin_id = twin.id;
    bed.enqueue(twin).await;
    let (join, mut jobs) = split(None, 2);
    for job in &mut jobs {
        (job.dedupe_key, job.dedupe_in_flight) = (Some("k".into()), true);
    }
    let follower = join.job.id;
    let answer = bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    let expected = Enqueued::Duplicate { job: twin_id, status: JobStatus::Queued };
    assert_eq!(answer.children, [expected.clone(), expected]);
    assert_eq!(answer.born[0].job, follower);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// A door brings in joins beside jobs; when all of its jobs are known already, nothing begins anew.
#[tokio::test]
async fn a_submission_that_is_known_begins_no_join() {
    let bed = Bed::new().await;
    let submission = || {
        let (join, mut jobs) = split(None, 2);
        jobs.iter_mut().zip(["a", "b"]).for_each(|(job, key)| {
            (job.dedupe_key, job.dedupe_in_flight, job.submitted_by) = (Some(key.to_owned()), true, "api");
        });
        Submission { jobs, joins: vec![join], ..Submission::default() }
    };
    let writer = &bed.ledger.writer;
    let first = writer.submit(submission(), 1).await.expect("submitted");
    assert!(first.jobs.iter().all(|job| matches!(job, Enqueued::Accepted { .. })) && first.born.is_empty());
    let again = writer.submit(submission(), 1).await.expect("submitted");
    assert!(again.jobs.iter().all(|job| matches!(job, Enqueued::Duplicate { .. })), "{again:?}");
    assert_eq!(bed.number("SELECT count(*) FROM pipeline_joins").await, 1);
    bed.assert_joins_are_balanced().await;

    let join = join(None, 1);
    let (follower, arrivals) = (join.job.id, vec![arrival(seat(&join, 0), r#"{"x":1}"#)]);
    let at_once = Submission { joins: vec![join], arrivals, ..Submission::default() };
    let answer = writer.submit(at_once, 1).await.expect("submitted");
    assert_eq!(answer.born[0].job, follower);
    let row = bed.ledger.readers.job(follower).await.expect("read").expect("there");
    assert_eq!(row.parent_job_id, None);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// What comes too late changes neither what a join said nor how often.
#[tokio::test]
async fn a_join_that_has_fired_stays_as_it_is() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 1);
    let (at, job, follower) = (seat(&join, 0), jobs[0].id, join.job.id);
    bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    arrive(&bed, job, "1").await;
    let late = seated("echo", at);
    let late_id = late.id;
    let answer = bed.planned(Plan { children: vec![late], arrivals: vec![arrival(at, "2")], ..Plan::default() }).await;
    assert!(answer.born.is_empty());
    let claimed = bed.take(late_id).await;
    let end = finish(claimed.fence, failed(Cause::ExitCode, bed.hands.now()), Ending::Dead);
    assert!(bed.ledger.writer.finish(end).await.expect("finished").born.is_empty());
    assert_eq!(payload(&bed, follower).await["branches"][0]["payload"], 1);
    let said = "SELECT count(*) FROM pipeline_join_branches WHERE status = 'succeeded' AND payload = '1'";
    assert_eq!(bed.number(said).await, 1);
    let mut conn = bed.sql().await;
    let again = sqlx::query("UPDATE pipeline_joins SET fired_at = NULL, open = 1").execute(&mut conn).await;
    assert!(again.is_err_and(|e| e.to_string().contains("fires once")));
    bed.ledger.close().await;
}

/// core.md, Writer: a plan that violates a rule of the table fails alone, and leaves nothing of itself.
#[tokio::test]
async fn a_plan_that_can_not_be_committed_fails_alone() {
    let bed = Bed::new().await;
    let (open, jobs) = split(None, 4);
    let children = ids(&jobs);
    bed.planned(Plan { joins: vec![open.clone()], children: jobs, ..Plan::default() }).await;
    let mut claimed = Vec::new();
    for child in &children {
        claimed.push(bed.take(*child).await);
    }
    let writer = &bed.ledger.writer;
    let calls = claimed.iter().enumerate().map(|(n, job)| {
        let mut done = bed.succeeded(job.fence);
        done.plan.arrivals.push(arrival(job.seat.expect("seated"), "1"));
        if n == 1 {
            // an id that is taken
            done.plan.joins = vec![join(job.seat, 1), open.clone()];
        }
        Box::pin(writer.finish(done)) as Call<'_, Result<Finished, WriteError>>
    });
    let answers = bed.together(calls.collect()).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_ok(), n != 1, "{n}: {answer:?}");
    }
    assert!(matches!(answers[1], Err(WriteError::Refused(_))));
    bed.assert_joins_are_balanced().await;
    assert_eq!(bed.number("SELECT count(*) FROM pipeline_joins").await, 1);
    let end = finish(claimed[1].fence, failed(Cause::Routing, bed.hands.now()), Ending::Failed);
    assert_eq!(writer.finish(end).await.expect("finished").born.len(), 1, "it ends otherwise, and the join fires");
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// Ends of all branches that share one transaction: the last of them fires the join, within it.
#[tokio::test]
async fn branches_that_end_together_fire_their_join_once() {
    let bed = Bed::new().await;
    let (join, jobs) = split(None, 5);
    let children = ids(&jobs);
    bed.planned(Plan { joins: vec![join], children: jobs, ..Plan::default() }).await;
    let mut claimed = Vec::new();
    for child in &children {
        claimed.push(bed.take(*child).await);
    }
    let calls = claimed.iter().map(|job| {
        let mut done = bed.succeeded(job.fence);
        done.plan.arrivals.push(arrival(job.seat.expect("seated"), "1"));
        Box::pin(bed.ledger.writer.finish(done)) as Call<'_, Result<Finished, WriteError>>
    });
    let answers = bed.together(calls.collect()).await;
    let born: Vec<_> = answers.iter().map(|a| a.as_ref().expect("finished").born.len()).collect();
    assert_eq!(born, [0, 0, 0, 0, 1]);
    bed.assert_joins_are_balanced().await;
    bed.ledger.close().await;
}

/// Retention: a join goes when it has fired and is old, with its branches; one that waits stays, however old.
#[tokio::test]
async fn joins_that_have_fired_are_pruned_and_those_that_wait_are_not() {
    use ductile_ledger::{Deletable, Prune};
    let bed = Bed::new().await;
    let step = support::context(None, "a");
    let (mut waits, jobs) = split(None, 2);
    waits.job.context = Some(step.id);
    bed.planned(Plan { contexts: vec![step.clone()], joins: vec![waits], children: jobs, ..Plan::default() }).await;
    let fired = join(None, 2);
    bed.planned(Plan { joins: vec![fired], ..Plan::default() }).await;
    bed.hands.advance(Duration::from_secs(100));
    let prune = Prune { retention: vec![(Deletable::Contexts, Duration::from_secs(60))], limit: 100 };
    let pruned = bed.ledger.writer.prune(prune).await.expect("pruned");
    assert_eq!(pruned.deleted, [(Deletable::Contexts, 1)]);
    assert_eq!(bed.number("SELECT count(*) FROM pipeline_joins WHERE fired_at IS NULL").await, 1);
    assert_eq!(bed.number("SELECT count(*) FROM pipeline_join_branches").await, 2, "gone with their join");
    let kept = bed.ledger.readers.context(step.id).await.expect("read");
    assert!(kept.is_some(), "the job that follows the waiting join will need it");
    bed.ledger.close().await;
}

/// A stored job that can't be read must not keep an outer join waiting for ever.
#[tokio::test]
async fn a_join_whose_job_is_unreadable_lets_the_outer_one_go_on() {
    let bed = Bed::new().await;
    let outer = join(None, 1);
    let (inner, jobs) = split(Some(seat(&outer, 0)), 1);
    let (job, outer_job) = (jobs[0].id, outer.job.id);
    let inner_id = inner.id.to_string();
    bed.planned(Plan { joins: vec![outer, inner], children: jobs, ..Plan::default() }).await;
    let spoil = sqlx::query("UPDATE pipeline_joins SET job = '{' WHERE id = ?1").bind(inner_id);
    spoil.execute(&mut bed.sql().await).await.expect("spoiled");
    let answer = arrive(&bed, job, "1").await;
    assert_eq!(answer.born.iter().map(|b| b.job).collect::<Vec<_>>(), [outer_job]);
    assert_eq!(payload(&bed, outer_job).await["branches"][0]["status"], "failed");
    let rows = sqlx::query("SELECT fired_at IS NOT NULL, open FROM pipeline_joins");
    for row in rows.fetch_all(&mut bed.sql().await).await.expect("read") {
        assert_eq!((row.get::<bool, _>(0), row.get::<i64, _>(1)), (true, 0));
    }
    bed.ledger.close().await;
}
