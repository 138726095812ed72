//! A ledger in a temporary directory and values to put into it.
#![expect(dead_code, reason = "each test binary uses its part")]

pub(crate) mod schedules;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::ids::{BootId, ContextId, JobId, JoinId};
use ductile_domain::job::{Candidate, ClaimRequest, ClaimedJob, Fence, NewJob, Seat};
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome, Timing, Usage};
use ductile_domain::plan::{Arrival, NewContext, NewJoin, Plan};
use ductile_domain::retry::Ending;
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Claims, Clock, CommitFeed, Enqueued, Finish, Finished, Ledger, OpenOptions, open};
use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Row as _};
use uuid::Uuid;

/// A clock that moves only when told.
#[derive(Clone)]
pub(crate) struct Hands(Arc<AtomicI64>);

impl Hands {
    pub(crate) fn new() -> Self {
        let start = time::parse("2026-01-01T00:00:00Z").expect("valid").timestamp_millis();
        Self(Arc::new(AtomicI64::new(start)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_timestamp_millis(self.0.load(Ordering::SeqCst)).expect("in range")
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).expect("small"), Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || hands.now())
    }
}

/// An open ledger with what the test needs around it.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    pub(crate) feed: CommitFeed,
    pub(crate) boot: BootId,
    pub(crate) hands: Hands,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self::in_dir(dir, Hands::new()).await
    }

    pub(crate) async fn in_dir(dir: tempfile::TempDir, hands: Hands) -> Self {
        let boot = BootId::from(Uuid::now_v7());
        let feed = CommitFeed::default();
        let mut options = OpenOptions::new(dir.path().join("ductile.db"), boot);
        options.feed = feed.clone();
        options.clock = hands.clock();
        options.busy_timeout = Duration::from_millis(200);
        let ledger = open(options).await.expect("the ledger opens");
        Self { dir, ledger, feed, boot, hands }
    }

    /// Closes and opens again, as another boot.
    pub(crate) async fn reopen(self) -> Self {
        self.ledger.close().await;
        Self::in_dir(self.dir, self.hands).await
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("ductile.db")
    }

    /// An own connection, as an operator's `sqlite3` has one.
    pub(crate) async fn sql(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.expect("a second connection")
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query(sql).fetch_one(&mut self.sql().await).await.expect("the query runs").get(0)
    }

    /// Every join is as its jobs are.
    pub(crate) async fn assert_joins_are_balanced(&self) {
        assert_eq!(self.number(UNBALANCED).await, 0, "joins whose count is not that of the rows");
    }

    /// Ends a plain job with a plan, and answers what was said.
    pub(crate) async fn planned(&self, plan: Plan) -> Finished {
        let job = self.running("echo").await;
        self.ledger.writer.finish(Finish { plan, ..self.succeeded(job.fence) }).await.expect("finished")
    }

    /// Claims one job, whatever its plugin, by its row in the table.
    pub(crate) async fn take(&self, job: JobId) -> Arc<ClaimedJob> {
        let row = self.ledger.readers.job(job).await.expect("read").expect("there");
        let candidate = Candidate { row: row.row, job, plugin: row.plugin.as_str().into(), due: None };
        self.claim(vec![candidate]).await.claimed.remove(0).job
    }

    pub(crate) async fn enqueue(&self, job: NewJob) -> Enqueued {
        self.ledger.writer.enqueue(vec![job], 1).await.expect("enqueued").remove(0)
    }

    /// Enqueues a plain job of `plugin` and answers its candidate.
    pub(crate) async fn queued(&self, plugin: &str) -> Candidate {
        let job = new_job(plugin);
        let id = job.id;
        match self.enqueue(job).await {
            Enqueued::Accepted { row, .. } => Candidate { row, job: id, plugin: plugin.into(), due: None },
            Enqueued::Duplicate { .. } => panic!("a plain job has no twin"),
        }
    }

    pub(crate) async fn claim(&self, candidates: Vec<Candidate>) -> Claims {
        self.ledger.writer.claim(self.request(candidates)).await.expect("claimed")
    }

    pub(crate) fn request(&self, candidates: Vec<Candidate>) -> ClaimRequest {
        ClaimRequest {
            boot: self.boot,
            candidates: candidates.into_iter().map(|c| (c, 100)).collect(),
            max_running: 100,
            snapshot: None,
        }
    }

    /// Enqueues and claims a plain job of `plugin`.
    pub(crate) async fn running(&self, plugin: &str) -> Arc<ClaimedJob> {
        let candidate = self.queued(plugin).await;
        self.claim(vec![candidate]).await.claimed.remove(0).job
    }

    pub(crate) fn succeeded(&self, fence: Fence) -> Finish {
        finish(fence, succeeded(self.hands.now()), Ending::Succeeded)
    }
}

pub(crate) fn new_job(plugin: &str) -> NewJob {
    NewJob {
        payload: Some(RawValue::from_string(r#"{"n":1.10,"text":"é\u0000\""}"#.into()).expect("JSON")),
        max_attempts: 4,
        requested_by: Some("admin".into()),
        ..NewJob::new(JobId::from(Uuid::now_v7()), plugin, "poll", "api")
    }
}

pub(crate) fn keyed(plugin: &str, key: &str) -> NewJob {
    NewJob { dedupe_key: Some(key.into()), dedupe_window: Duration::from_secs(3600), ..new_job(plugin) }
}

/// JSON as it is stored.
pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

/// A job of the branch that `seat` names.
pub(crate) fn seated(plugin: &str, seat: Seat) -> NewJob {
    NewJob { seat: Some(seat), submitted_by: "route", ..new_job(plugin) }
}

/// A row of `event_context` for a step of pipeline `p`.
pub(crate) fn context(parent: Option<ContextId>, step: &str) -> NewContext {
    let control = r#"{"a":{"b":1.10},"ductile":{"pipeline":"p","pipeline_instance_id":"an-instance","route_depth":1}}"#;
    NewContext {
        id: ContextId::from(Uuid::now_v7()),
        parent,
        pipeline: Some("p".into()),
        step: Some(step.into()),
        accumulated: raw(control),
    }
}

/// A join of that many branches, with its job.
pub(crate) fn join(outer: Option<Seat>, branches: usize) -> NewJoin {
    NewJoin {
        id: JoinId::from(Uuid::now_v7()),
        outer,
        branches: (0..branches).map(|n| format!("step_{n}").into()).collect(),
        job: NewJob {
            command: "handle".into(),
            payload: None,
            submitted_by: "route",
            target_key: "p/step__join".into(),
            max_attempts: 1,
            ..new_job("core.join")
        },
    }
}

pub(crate) const fn seat(join: &NewJoin, branch: u32) -> Seat {
    Seat { join: join.id, branch }
}

/// What brings nothing but itself to its join.
pub(crate) fn arrival(seat: Seat, payload: &str) -> Arrival {
    Arrival { seat, payload: Some(raw(payload)) }
}

/// What is open of each join is what its rows say, and it has fired when that is nothing, once.
pub(crate) const UNBALANCED: &str = "SELECT count(*) FROM (
    SELECT j.open, j.fired_at, j.fired_job_id,
        (SELECT count(*) FROM job_queue q WHERE q.join_id = j.id AND q.status IN ('queued', 'running'))
            + (SELECT count(*) FROM pipeline_joins n WHERE n.outer_id = j.id AND n.fired_at IS NULL) AS counted,
        (SELECT count(*) FROM job_queue q WHERE q.plugin = 'core.join' AND q.source_event_id = j.id) AS followers
    FROM pipeline_joins j)
    WHERE open <> counted OR (open = 0) <> (fired_at IS NOT NULL) OR (fired_at IS NOT NULL) <> (followers = 1)
        OR (fired_job_id IS NULL) <> (fired_at IS NULL)";

pub(crate) fn succeeded(at: Timestamp) -> Outcome {
    Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: Some(r#"{"status":"ok"}"#.into()),
        stderr: Some("to stderr\n".into()),
        exit_code: Some(0),
        signal: None,
        events: Vec::new(),
        state_updates: None,
        timing: Timing { enter_wall_ns: 1, exit_wall_ns: 3, dur_ns: 2, runtime_pre_ns: 1, runtime_post_ns: 1 },
        usage: Usage::default(),
        subs: None,
        ended_at: at,
    }
}

pub(crate) fn failed(cause: Cause, at: Timestamp) -> Outcome {
    Outcome::without_process(cause, format!("it went wrong: {cause}"), at)
}

pub(crate) fn finish(fence: Fence, outcome: Outcome, ending: Ending) -> Finish {
    Finish { fence, outcome, ending, plan: Plan::default(), is_awaited: false }
}

pub(crate) fn retry_in(at: Timestamp, seconds: i64) -> Ending {
    Ending::Retry { due: at + TimeDelta::seconds(seconds) }
}

/// A call to the writer.
pub(crate) type Call<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

impl Bed {
    /// Makes all calls share one transaction: the writer is held up by a lock until they all wait for it.
    pub(crate) async fn together<T>(&self, calls: Vec<Call<'_, T>>) -> Vec<T> {
        let mut lock = self.sql().await;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut lock).await.expect("a lock");
        let hold_up = Box::pin(async {
            self.ledger.writer.set_mark("together", None).await.expect("marked");
            None
        }) as Call<'_, Option<T>>;
        let mut all = vec![hold_up];
        all.extend(calls.into_iter().map(|call| Box::pin(async { Some(call.await) }) as Call<'_, Option<T>>));
        let mut release = Some(lock);
        let mut answers: Vec<Option<Option<T>>> = all.iter().map(|_| None).collect();
        loop {
            std::future::poll_fn(|cx| {
                let mut is_done = true;
                for (call, answer) in all.iter_mut().zip(&mut answers) {
                    if answer.is_none() {
                        match call.as_mut().poll(cx) {
                            std::task::Poll::Ready(value) => *answer = Some(value),
                            std::task::Poll::Pending => is_done = false,
                        }
                    }
                }
                if is_done || release.is_some() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            match release.take() {
                Some(mut lock) => drop(sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.expect("released")),
                None => return answers.into_iter().flatten().flatten().collect(),
            }
        }
    }
}
