//! One fault at a time, aimed: what dies, what lives on, and what is recorded.

use std::time::Duration;

use ductile_api::events::Pulled;
use ductile_api::gateway::{Cancelled, Gateway as _, Refusal};
use ductile_domain::ids::JobId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::gateway::{Gateway, PATIENCE, patient_numbers, submit};

const DISPATCHER: &str = "root/exec_sup/dispatcher";
const QUEUE: &str = "root/exec_sup/queue";
const REAPER: &str = "root/exec_sup/reaper";
const JOB_SUP: &str = "root/exec_sup/job_sup";
const LEDGER: &str = "root/storage_sup/ledger";
const HTTP: &str = "root/api_sup/http";

fn attempt(job: JobId) -> String {
    format!("{JOB_SUP}/job:{job}")
}

/// Two slow polls, and time for a slow machine.
const TWO_POLLS: Duration = Duration::from_secs(20);

/// SUP-04: a panic is told with path, message and place; the actor is back and nobody else was restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_restarts_one_actor_and_is_told() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let others =
        [QUEUE, REAPER, JOB_SUP, LEDGER, HTTP, "root/flow_sup/scheduler", "root/drain_sup/drainer", "root/exec_sup"];
    let before = others.map(|path| gateway.incarnation(path));
    let first = gateway.incarnation(DISPATCHER);
    let mut events = gateway.shared().ring.subscribe(None);
    assert!(gateway.ctl().panic_next(DISPATCHER, Some("WorkAvailable")));
    let job = gateway.enqueue("work", "ok").await;
    let crash = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = events.next().await.expect("few events");
            if event.event.kind == "actor.crashed" {
                return event.event.to_json();
            }
        }
    });
    let crash = crash.await.expect("the crash is told");
    assert_eq!(crash["path"], DISPATCHER, "{crash}");
    assert_eq!(crash["message"], "WorkAvailable", "{crash}");
    assert_eq!(crash["incarnation"], first, "{crash}");
    let location = crash["location"].as_str().expect("a place");
    assert!(location.contains(".rs:"), "{crash}");
    gateway.up_again(DISPATCHER, first).await;
    assert_eq!(gateway.shared().tree.node(DISPATCHER).expect("it is there").restarts, 1);
    assert_eq!(gateway.finished(job).await, "succeeded");
    assert_eq!(others.map(|path| gateway.incarnation(path)), before, "somebody else was restarted");
    gateway.stop().await;
}

/// SUP-01, SUP-04, SUP-06: each actor and each supervisor below the root may die; work goes on, also work from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_work_goes_on() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    let mut all = Vec::new();
    crate::gateway::paths(&gateway.shared().tree.snapshot().expect("a tree"), &mut all);
    for path in all.iter().filter(|path| *path != "root") {
        let earlier = gateway.enqueue("work", "slow").await;
        gateway.kill(path).await;
        let later = gateway.enqueue("other", "ok").await;
        assert_eq!(gateway.finished(earlier).await, "succeeded", "before the end of {path}");
        assert_eq!(gateway.finished(later).await, "succeeded", "after the end of {path}");
        let health = gateway.handle().health().await;
        assert_eq!(health.status, "ok", "after the end of {path}: a bystander drained a live gateway? {health:?}");
    }
    assert_eq!(gateway.shared().tree.rank_violations(), 0);
    gateway.stop().await;
}

/// SUP-07, SUP-10: attempts outlive the dispatcher, and its successor counts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_dispatcher_adopts_what_runs() {
    let gateway = Gateway::start(3, patient_numbers()).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(gateway.enqueue("work", "second").await);
    }
    let mut pids = Vec::new();
    for job in &jobs {
        pids.push(gateway.process_of(*job).await);
    }
    gateway.kill(DISPATCHER).await;
    let more = gateway.enqueue("other", "ok").await;
    let running = gateway.shared().readers.running().await.expect("read");
    let actors = gateway.shared().tree.node(JOB_SUP).expect("it is there").children.len();
    assert!(running.len() <= 3 && actors <= 3, "{running:?}");
    for (job, pid) in jobs.iter().zip(pids) {
        assert_eq!(gateway.finished(*job).await, "succeeded");
        assert_eq!(gateway.process_of(*job).await, pid, "the attempt was made again");
        let attempts = format!("SELECT count(*) FROM job_transitions WHERE job_id = '{job}' AND to_status = 'running'");
        assert_eq!(gateway.sql_one(&attempts).await, "1");
    }
    assert_eq!(gateway.finished(more).await, "succeeded");
    gateway.stop().await;
}

/// SUP-07: a claim whose dispatcher died before it had an actor belongs to nobody: its process is ended, and it is given
/// back, uncounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_without_a_dispatcher_is_given_back() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    assert!(gateway.ctl().panic_next(DISPATCHER, Some("Decided")));
    let job = gateway.enqueue("work", "second").await;
    assert_eq!(gateway.finished(job).await, "succeeded");
    let reasons =
        format!("SELECT group_concat(reason) FROM job_transitions WHERE job_id = '{job}' AND to_status = 'queued'");
    let reasons = gateway.sql_one(&reasons).await;
    assert!(reasons.contains("no actor was started for the attempt"), "{reasons}");
    assert_eq!(gateway.sql_one(&format!("SELECT attempt FROM job_queue WHERE id = '{job}'")).await, "1");
    gateway.stop().await;
}

/// SUP-08, SUP-10: with the attempt's actor goes its process; the attempt counts as crashed and is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_attempt_leaves_no_process_and_is_tried_again() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let job = gateway.enqueue("work", "hang").await;
    let pid = gateway.process_of(job).await;
    assert!(gateway.ctl().kill(&attempt(job)));
    gateway
        .until("the second attempt runs beside nobody", async || {
            (gateway.process_of(job).await != pid && gateway.plugin_processes().len() == 1).then_some(())
        })
        .await;
    assert!(!gateway.plugin_processes().contains(&pid));
    assert_eq!(gateway.overlaps(), "");
    let rows = gateway.sql(&format!("SELECT attempt, status, cause FROM job_attempts WHERE job_id = '{job}'")).await;
    assert_eq!(rows, [["1", "failed", "crashed"]]);
    let cancelled = gateway.handle().cancel(job, "enough".into(), "a test".into()).await;
    assert_eq!(cancelled, Ok(Cancelled::Stopping));
    assert_eq!(gateway.finished(job).await, "dead");
    assert_eq!(gateway.plugin_processes(), Vec::<u32>::new());
    gateway.stop().await;
}

/// SUP-07, SUP-10: a crash that nobody saw, since the reaper died with it, is recorded as what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaper_that_dies_forgets_no_crash() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(gateway.enqueue("work", "hang").await);
    }
    for job in &jobs {
        gateway.process_of(*job).await;
    }
    assert!(gateway.ctl().panic_next(REAPER, Some("Crashed")));
    for job in &jobs {
        assert!(gateway.ctl().kill(&attempt(*job)));
    }
    assert!(gateway.ctl().kill(REAPER));
    for job in &jobs {
        gateway
            .until("the crash is recorded", async || {
                let causes = format!("SELECT group_concat(cause) FROM job_attempts WHERE job_id = '{job}'");
                (gateway.sql_one(&causes).await == "crashed").then_some(())
            })
            .await;
    }
    gateway.stop().await;
}

/// SUP-08, SUP-10: the end of the attempts' supervisor is our own stop of them: given back, uncounted, made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_attempts_supervisor_costs_no_attempt() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let job = gateway.enqueue("work", "gate").await;
    let pid = gateway.process_of(job).await;
    gateway.kill(JOB_SUP).await;
    gateway.until("it is made again", async || (gateway.process_of(job).await != pid).then_some(())).await;
    gateway.open_gate().await;
    assert_eq!(gateway.finished(job).await, "succeeded");
    assert_eq!(gateway.overlaps(), "");
    // Claims that met no supervisor to start them may lie in between; none of them counts.
    let row = gateway.sql(&format!("SELECT attempt, claim_no > 1 FROM job_queue WHERE id = '{job}'")).await;
    assert_eq!(row, [["1", "1"]]);
    gateway.stop().await;
}

/// SUP-06, SUP-10: the storage's supervisor dies under attempts that run, report and wait: nobody stands in its way, and
/// every job ends once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_comes_back_under_load() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    let mut events = gateway.shared().ring.subscribe(None);
    let mut jobs = Vec::new();
    for _ in 0..4 {
        for _ in 0..5 {
            jobs.push(gateway.enqueue("work", "slow").await);
            jobs.push(gateway.enqueue("other", "ok").await);
        }
        gateway.kill("root/storage_sup").await;
    }
    for job in jobs {
        assert_eq!(gateway.finished(job).await, "succeeded");
    }
    assert_eq!(gateway.overlaps(), "");
    // Whoever stands in the way of a restart waits out its limit and is killed.
    while let Some(pulled) = events.try_pull() {
        let Pulled::Events(events) = pulled else { panic!("too many events to judge") };
        for event in events.iter().filter(|e| e.event.kind == "actor.killed") {
            assert_eq!(event.event.to_json()["path"], "root/storage_sup");
        }
    }
    gateway.stop().await;
}

/// SUP-06, QUE-17: whoever was told that a job is accepted finds it, whatever happened to the ledger's actor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_job_exists_though_the_ledger_died() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let mut accepted = Vec::new();
    let mut refused = 0;
    for round in 0..60 {
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let handle = gateway.handle().clone();
                tokio::spawn(async move { submit(&handle, "work", "ok", None).await })
            })
            .collect();
        for _ in 0..round % 6 {
            tokio::task::yield_now().await;
        }
        gateway.ctl().kill(LEDGER);
        for answer in asked {
            match answer.await.expect("no panic") {
                Ok(job) => accepted.push(job),
                Err(Refusal::Unavailable { .. }) => refused += 1,
                Err(other) => panic!("refused otherwise: {other:?}"),
            }
        }
    }
    assert!(!accepted.is_empty(), "{refused} refused");
    for job in accepted {
        assert_eq!(gateway.finished(job).await, "succeeded");
    }
    gateway.stop().await;
}

/// SUP-06: five hundred queued jobs don't need the queue that knew them, nor the feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_queue_finds_all_that_waits() {
    let gateway = Gateway::start(8, patient_numbers()).await;
    gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
    let all: Vec<_> = (0..500)
        .map(|_| {
            let handle = gateway.handle().clone();
            tokio::spawn(async move { submit(&handle, "work", "ok", None).await.expect("accepted") })
        })
        .collect();
    for job in all {
        job.await.expect("no panic");
    }
    gateway.kill(QUEUE).await;
    gateway.handle().set_dispatch(true, "a test".into()).await.expect("resumed");
    gateway
        .until("all have ended", async || {
            let counts = gateway.shared().readers.counts().await.ok()?;
            (counts.queued + counts.running == 0).then_some(())
        })
        .await;
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_queue WHERE status = 'succeeded'").await, "500");
    gateway.stop().await;
}

/// SUP-06: a candidate that a dead dispatcher took comes back although its line is so long that it is never read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_dispatcher_took_does_not_wait_for_the_end_of_a_long_line() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let blocker = gateway.enqueue("work", "gate").await;
    gateway.process_of(blocker).await;
    let first = gateway.enqueue("work", "ok").await;
    for _ in 0..300 {
        gateway.enqueue("work", "slow").await;
    }
    // With the blocker's process ended its slot is asked for, but the ledger does not answer: the candidate is taken
    // and never settled.
    assert!(gateway.ctl().stall(LEDGER, Duration::from_secs(2)));
    gateway.open_gate().await;
    gateway
        .until("a candidate is taken", async || {
            let view = gateway.shared().tree.inspect(QUEUE, Duration::from_secs(5)).await.ok()?;
            (view["being_claimed"].as_u64() > Some(0)).then_some(())
        })
        .await;
    gateway.kill(DISPATCHER).await;
    gateway
        .until_within(TWO_POLLS, "the first is claimed although hundreds wait", async || {
            let status = gateway.shared().readers.status(first).await.ok()??;
            let waiting = gateway.shared().readers.counts().await.ok()?.queued;
            assert!(waiting > 128, "the line ran short while the first waits");
            status.is_terminal().then_some(())
        })
        .await;
    gateway.stop().await;
}

/// SUP-08: a process that ignores SIGTERM keeps the row of its dead attempt until it is gone: nothing runs beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_attempt_waits_for_the_end_of_a_stubborn_process() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let job = gateway.enqueue("work", "stubborn").await;
    let pid = gateway.process_of(job).await;
    // The shell has noted its pid before it becomes deaf.
    gateway
        .until("the process is deaf", async || {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (comm.trim() == "sleep").then_some(())
        })
        .await;
    assert!(gateway.ctl().kill(&attempt(job)));
    gateway.until("the next attempt runs", async || (gateway.process_of(job).await != pid).then_some(())).await;
    assert_eq!(gateway.overlaps(), "");
    assert!(!gateway.plugin_processes().contains(&pid));
    // Its end takes the grace of a deaf process again, and longer than the drain.
    gateway.stop().await;
}

/// SUP-06: a wake-up that dies with the one it was for costs two slow polls at most, never the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_wake_up_costs_time_and_no_work() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let mut jobs = Vec::new();
    for round in 0..40 {
        jobs.push(gateway.enqueue("work", "ok").await);
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        gateway.ctl().kill(if round % 2 == 0 { QUEUE } else { DISPATCHER });
    }
    for job in jobs {
        gateway
            .until_within(TWO_POLLS, "the job has ended", async || {
                gateway.shared().readers.status(job).await.ok()??.is_terminal().then_some(())
            })
            .await;
    }
    gateway.stop().await;
}

/// A connection that is kept open.
struct Client(UnixStream);

impl Client {
    async fn new(gateway: &Gateway) -> Self {
        Self(UnixStream::connect(gateway.path("ductile.sock")).await.expect("the control socket answers"))
    }

    async fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: ductile\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.expect("sent");
    }

    /// The answer to a request with a body of known length.
    async fn get(&mut self, path: &str) -> Value {
        self.ask(path).await;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                if let Ok(value) = serde_json::from_str(body) {
                    return value;
                }
            }
            let n = tokio::time::timeout(PATIENCE, self.0.read_buf(&mut answer)).await.expect("in time").expect("open");
            assert!(n > 0, "closed after {text:?}");
        }
    }
}

/// SUP-04, SUP-11: a restart of the doors costs no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_connection_survives_the_http_actor() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let mut client = Client::new(&gateway).await;
    assert_eq!(client.get("/healthz").await["status"], "ok");
    for path in [HTTP, "root/api_sup"] {
        gateway.kill(path).await;
        assert_eq!(client.get("/healthz").await["status"], "ok", "on the old connection");
        assert_eq!(Client::new(&gateway).await.get("/healthz").await["status"], "ok", "on a new one");
    }
    gateway.stop().await;
}

/// SUP-13, SUP-14: under load, with watchers that never read and actors that stand still for a while, nothing takes
/// longer than its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_exceeds_its_deadline_under_load() {
    let gateway = Gateway::start(4, patient_numbers()).await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        let mut watcher = Client::new(&gateway).await;
        watcher.ask("/events").await;
        watchers.push(watcher);
    }
    let askers: Vec<_> = (0..8)
        .map(|n| {
            let handle = gateway.handle().clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let limit = Duration::from_secs(12);
                    let submitted = tokio::time::timeout(limit, submit(&handle, "work", "ok", None)).await;
                    let job = submitted.expect("within the deadline").expect("accepted");
                    if n % 2 == 0 {
                        tokio::time::timeout(limit, handle.wait(job, Duration::from_secs(1)))
                            .await
                            .expect("a wait ends");
                    }
                    tokio::time::timeout(limit, handle.health()).await.expect("health answers");
                }
            })
        })
        .collect();
    for path in [QUEUE, LEDGER, "root/policy_sup/breaker", DISPATCHER, REAPER] {
        gateway.ctl().stall(path, Duration::from_millis(300));
    }
    for asker in askers {
        asker.await.expect("every request was answered in time");
    }
    assert_eq!(gateway.shared().tree.rank_violations(), 0);
    drop(watchers);
    gateway.stop().await;
}

/// SUP-13: a ledger that stands still is a refusal within the deadline, and nothing is lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_stands_still_refuses_and_recovers() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let running = gateway.enqueue("work", "slow").await;
    gateway.process_of(running).await;
    assert!(gateway.ctl().stall(LEDGER, Duration::from_secs(11)));
    let refused = tokio::time::timeout(Duration::from_secs(25), gateway.submit("work", "ok", None)).await;
    let refused = refused.expect("an answer within the deadline");
    assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "{refused:?}");
    assert_eq!(gateway.finished(running).await, "succeeded");
    let later = gateway.enqueue("work", "ok").await;
    assert_eq!(gateway.finished(later).await, "succeeded");
    gateway.stop().await;
}
