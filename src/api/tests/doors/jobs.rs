//! Jobs and their logs, read from a real ledger.

use axum::http::StatusCode;
use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimRequest, Fence, NewJob};
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome, Timing};
use ductile_domain::plan::{NewFact, Plan};
use ductile_domain::retry::Ending;
use ductile_domain::time;
use ductile_ledger::{Enqueued, Finish};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use ductile_api::gateway::Gateway;

use crate::harness::{Door, Fake, job, request};

/// A job of `echo` that a door made.
pub(crate) fn new_job(id: JobId, command: &str) -> NewJob {
    NewJob { max_attempts: 2, requested_by: Some("tester".to_owned()), ..NewJob::new(id, "echo", command, "api") }
}

impl Fake {
    /// Enqueues a job of `echo`, as the gateway would; answers the id of its transition.
    pub(crate) async fn enqueue(&self, id: JobId, command: &str) -> i64 {
        self.enqueue_with(id, command, |_| ()).await
    }

    /// The same with more about the job.
    pub(crate) async fn enqueue_with(&self, id: JobId, command: &str, change: impl FnOnce(&mut NewJob)) -> i64 {
        let mut new = new_job(id, command);
        change(&mut new);
        let enqueued = self.ledger.writer.enqueue(vec![new], self.generation().no).await.expect("enqueued");
        match enqueued.as_slice() {
            [Enqueued::Accepted { transition, .. }] => *transition,
            other => panic!("expected one accepted job, got {other:?}"),
        }
    }

    async fn claim(&self, id: JobId) -> Fence {
        let row = self.ledger.readers.job(id).await.expect("readable").expect("exists").row;
        let candidate = Candidate { row, job: id, plugin: "echo".into(), due: None };
        let request =
            ClaimRequest { boot: self.ring.boot(), candidates: vec![(candidate, 4)], max_running: 4, snapshot: None };
        let mut claims = self.ledger.writer.claim(request).await.expect("claimed");
        claims.claimed.remove(0).job.fence
    }

    /// Kills a job's attempt; the row is due again at once.
    pub(crate) async fn crash(&self, id: JobId) {
        let fence = self.claim(id).await;
        let at = self.now();
        let mut outcome = Outcome::without_process(Cause::Signal, "killed by signal 11 (SIGSEGV)".to_owned(), at);
        outcome.stderr = Some("a needle in stderr".to_owned());
        let plan = Plan { generation: self.generation().no, ..Plan::default() };
        let finish = Finish { fence, outcome, ending: Ending::Retry { due: at }, plan, is_awaited: true };
        self.ledger.writer.finish(finish).await.expect("finished");
    }

    /// Runs a job's attempt in no time.
    pub(crate) async fn run(&self, id: JobId, failure: Option<&str>) {
        self.run_saying(id, failure, r#"{"status": "ok", "result": "hello", "events": []}"#).await;
    }

    /// The same with what a good attempt says.
    pub(crate) async fn run_saying(&self, id: JobId, failure: Option<&str>, said: &str) {
        let fence = self.claim(id).await;
        let at = time::parse("2026-02-21T10:00:02Z").expect("a time");
        let mut outcome = Outcome::without_process(Cause::PluginError, failure.unwrap_or_default().to_owned(), at);
        outcome.stderr = Some("a needle in stderr".to_owned());
        outcome.result = Some(r#"{"status":"error","error":"x"}"#.to_owned());
        let mut ending = Ending::Failed;
        if failure.is_none() {
            outcome.status = AttemptStatus::Succeeded;
            outcome.cause = None;
            outcome.error = None;
            outcome.result = Some(said.to_owned());
            ending = Ending::Succeeded;
        }
        // Job n takes n milliseconds, and a good one leaves a fact.
        let dur_ns = i64::try_from(id.uuid().as_u128()).expect("a small number") * 1_000_000;
        outcome.timing = Timing { enter_wall_ns: 1, exit_wall_ns: 1 + dur_ns, dur_ns, ..Timing::default() };
        let mut plan = Plan { generation: self.generation().no, ..Plan::default() };
        if failure.is_none() {
            let fact = RawValue::from_string(r#"{"seen":true}"#.to_owned()).expect("JSON");
            plan.facts.push(NewFact { fact_type: "echo.seen".to_owned(), fact });
        }
        let finish = Finish { fence, outcome, ending, plan, is_awaited: true };
        self.ledger.writer.finish(finish).await.expect("finished");
    }
}

/// API-14, API-15: the fields of a queued and of a finished job.
#[tokio::test]
async fn a_job_is_shown_from_its_enqueue_to_its_result() {
    let door = Door::new().await;
    let path = format!("/job/{}", job(1));
    door.get(&path).await.refused(404, "unknown_job");
    door.fake.enqueue(job(1), "poll").await;
    let queued = door.get(&path).await.json();
    assert_eq!(
        (&queued["status"], &queued["attempt"], &queued["max_attempts"]),
        (&json!("queued"), &json!(1), &json!(2))
    );
    assert_eq!((&queued["submitted_by"], &queued["requested_by"]), (&json!("api"), &json!("tester")));
    for absent in ["result", "last_error", "completed_at", "stderr"] {
        assert!(queued.get(absent).is_none(), "{absent} in {queued}");
    }
    door.fake.run(job(1), None).await;
    let done = door.get(&path).await.json();
    assert_eq!(
        (&done["status"], &done["plugin"], &done["command"]),
        (&json!("succeeded"), &json!("echo"), &json!("poll"))
    );
    assert_eq!(done["result"], json!({"status": "ok", "result": "hello", "events": []}));
    for present in ["created_at", "started_at", "completed_at"] {
        assert!(done[present].as_str().is_some_and(|at| time::parse(at).is_some()), "{present} in {done}");
    }
    for bad in ["/job/17", "/job/..%2F..%2Fetc", "/job/01890F3E"] {
        door.get(bad).await.refused(400, "invalid_path");
    }
}

#[tokio::test]
async fn without_the_right_to_results_three_fields_are_absent() {
    let door = Door::with_tokens(&[
        &["jobs:status:ro", "jobs:logs:ro"],
        &["jobs:status:ro", "jobs:logs:ro", "jobs:result:ro"],
    ])
    .await;
    door.fake.enqueue(job(1), "poll").await;
    door.fake.run(job(1), Some("token expired")).await;
    for (token, sees) in [("jobs:status:ro jobs:logs:ro", false), ("jobs:status:ro jobs:logs:ro jobs:result:ro", true)]
    {
        let ask = |path: String| door.ask(request("GET", &path, Some(token), axum::body::Body::empty()));
        let one = ask(format!("/job/{}", job(1))).await.json();
        let listed = ask("/jobs".to_owned()).await.json()["jobs"][0].clone();
        let log = ask("/job-logs?include_result=true".to_owned()).await.json()["logs"][0].clone();
        assert_eq!(one["status"], "failed");
        for key in ["result", "last_error", "stderr"] {
            assert_eq!(one.get(key).is_some(), sees, "{key} in {one}");
            assert_eq!(log.get(key).is_some(), sees, "{key} in {log}");
        }
        assert_eq!(listed.get("last_error").is_some(), sees, "{listed}");
        let search = ask("/job-logs?query=needle".to_owned()).await;
        assert_eq!(search.status == StatusCode::FORBIDDEN, !sees, "searching tells what is concealed");
    }
}

/// API-17, API-18: newest first, filters, aliases, and the total beyond the page.
#[tokio::test]
async fn jobs_are_listed_and_filtered() {
    let door = Door::new().await;
    for number in 1..=5 {
        door.fake.enqueue(job(number), if number % 2 == 0 { "handle" } else { "poll" }).await;
    }
    door.fake.run(job(1), None).await;
    door.fake.run(job(2), Some("broken")).await;
    let ids = |body: &Value| -> Vec<String> {
        body["jobs"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|j| j["job_id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let numbered = |numbers: &[u128]| numbers.iter().map(|n| job(*n).to_string()).collect::<Vec<_>>();
    for (query, expected, total) in [
        ("", &[5, 4, 3, 2, 1][..], 5),
        ("?limit=2", &[5, 4], 5),
        ("?command=handle", &[4, 2], 2),
        ("?plugin=echo&command=poll&status=queued", &[5, 3], 2),
        ("?status=pending", &[5, 4, 3], 3),
        ("?status=ok", &[1], 1),
        ("?status=error", &[2], 1),
        ("?status=dead", &[], 0),
        ("?status=timed_out", &[], 0),
        ("?plugin=other", &[], 0),
    ] {
        let body = door.get(&format!("/jobs{query}")).await.json();
        assert_eq!((ids(&body), &body["total"]), (numbered(expected), &json!(total)), "{query}");
    }
    for bad in ["?status=foo", "?limit=many", "?limit=0", "?staus=ok", "?status=ok&status=ok"] {
        door.get(&format!("/jobs{bad}")).await.refused(400, "invalid_parameter");
    }
}

/// API-19, API-20, API-21: the log's filters and fields.
#[tokio::test]
async fn ended_attempts_are_listed_and_searched() {
    let door = Door::new().await;
    for (number, failure) in [(1, None), (2, Some("token expired"))] {
        door.fake.enqueue(job(number), "poll").await;
        door.fake.run(job(number), failure).await;
    }
    let log = door.get("/job-logs").await.json();
    assert_eq!(log["total"], 2);
    let newest = &log["logs"][0];
    assert_eq!((&newest["job_id"], &newest["log_id"]), (&json!(job(2)), &json!(format!("{}-1", job(2)))));
    assert_eq!((&newest["last_error"], &newest["stderr"]), (&json!("token expired"), &json!("a needle in stderr")));
    assert!(newest.get("result").is_none(), "{newest}");
    let with = door.get("/job-logs?include_result=true").await.json();
    assert_eq!(with["logs"][1]["result"]["result"], "hello");
    for (query, total) in [
        (format!("job_id={}", job(1)), 1),
        ("plugin=echo".to_owned(), 2),
        ("command=handle".to_owned(), 0),
        ("status=failed".to_owned(), 1),
        ("status=ok&submitted_by=api".to_owned(), 1),
        ("submitted_by=scheduler".to_owned(), 0),
        ("query=expired".to_owned(), 1),
        ("query=needle".to_owned(), 2),
        ("query=nowhere".to_owned(), 0),
        ("from=2026-02-21T10:00:02Z&to=2026-02-21T10:00:03Z".to_owned(), 2),
        ("to=2026-02-21T11:00:02%2B01:00".to_owned(), 0),
        ("limit=500".to_owned(), 2),
    ] {
        assert_eq!(door.get(&format!("/job-logs?{query}")).await.json()["total"], total, "{query}");
    }
    for bad in ["from=yesterday", "job_id=17", "include_result=maybe", "status=foo", "form=x"] {
        door.get(&format!("/job-logs?{bad}")).await.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_waiting_question_is_answered_when_the_job_ends() {
    let door = Door::new().await;
    door.fake.enqueue(job(1), "poll").await;
    let path = format!("/job/{}?wait=5m", job(1));
    let (reply, ()) = tokio::join!(door.get(&path), async {
        while door.fake.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        door.fake.run(job(1), None).await;
        door.fake.ended.send_replace(true);
    });
    assert_eq!(reply.json()["status"], "succeeded");
    assert_eq!(door.fake.asked(), [format!("wait {} 60s", job(1))], "more than a minute is shortened");
    door.get(&path).await;
    assert_eq!(door.fake.asked().len(), 1, "a job that has ended is not waited for");
    door.get(&format!("/job/{}?wait=soon", job(1))).await.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn a_call_that_waits_answers_200_with_the_job_or_202_when_time_is_up() {
    let door = Door::new().await;
    door.fake.enqueue(job(1), "poll").await;
    let late = door.post("/plugin/echo/poll?wait=1ms", "").await;
    assert_eq!(late.status, StatusCode::ACCEPTED);
    assert_eq!((&late.json()["status"], &late.json()["timeout_exceeded"]), (&json!("queued"), &json!(true)));
    door.fake.run(job(1), None).await;
    door.fake.ended.send_replace(true);
    let done = door.post("/plugin/echo/poll?wait=30s", "").await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!((&done.json()["status"], &done.json()["result"]["result"]), (&json!("succeeded"), &json!("hello")));
}
