//! Orders that arrive while messages are under way: claims that stand, cancellations, pauses, and what they cost.

use std::time::Duration;

use ductile_api::events::Pulled;
use ductile_api::gateway::{Cancelled, Gateway as _};
use ductile_domain::ids::JobId;
use serde_json::Value;

use crate::gateway::{Gateway, PATIENCE, patient_numbers};

const DISPATCHER: &str = "root/exec_sup/dispatcher";
const QUEUE: &str = "root/exec_sup/queue";

/// Long enough for what must happen meanwhile, and waited for by nobody's clock.
const STALL: Duration = Duration::from_secs(1);

impl Gateway {
    /// What an actor says of itself, once it has handled what came before.
    async fn view(&self, path: &str) -> Value {
        self.shared().tree.inspect(path, PATIENCE).await.expect("it answers")
    }

    async fn until_standing(&self, at_least: u64) {
        self.until("claims stand", async || {
            (self.view(DISPATCHER).await["standing"].as_u64()? >= at_least).then_some(())
        })
        .await;
    }

    async fn starts_of(&self, job: JobId) -> String {
        let starts = format!("SELECT count(*) FROM job_transitions WHERE job_id = '{job}' AND to_status = 'running'");
        self.sql_one(&starts).await
    }
}

/// QUE-18: claims of a plugin at its cap stand in nobody's way: others get each slot that becomes free, without waiting
/// for a poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_stand_leave_free_slots_to_other_plugins() {
    let gateway = Gateway::start_with(3, 2, "", patient_numbers()).await;
    for _ in 0..2 {
        let job = gateway.enqueue("work", "hang").await;
        gateway.process_of(job).await;
    }
    let gate = gateway.enqueue("other", "gate").await;
    gateway.process_of(gate).await;
    for _ in 0..6 {
        gateway.enqueue("work", "hang").await;
    }
    gateway.until_standing(3).await;
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(gateway.enqueue("other", "ok").await);
    }
    gateway.open_gate().await;
    // Some five seconds for each few of them, if they had to wait for polls.
    gateway
        .until("the others have ended", async || {
            let open = "SELECT count(*) FROM job_queue WHERE plugin = 'other' AND status IN ('queued', 'running')";
            (gateway.sql_one(open).await == "0").then_some(())
        })
        .await;
    gateway.stop().await;
}

/// OPS-08: a pause or a drain whose wake-up is swallowed by another's takes back the claims that stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_takes_back_the_claims_that_stand() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let gate = gateway.enqueue("work", "gate").await;
    gateway.process_of(gate).await;
    gateway.enqueue("work", "ok").await;
    gateway.until_standing(1).await;
    assert!(gateway.ctl().stall(DISPATCHER, STALL));
    gateway.enqueue("work", "ok").await;
    gateway
        .until("the queue has woken the dispatcher", async || {
            let view = gateway.view(QUEUE).await;
            view["lines"].as_array()?.iter().any(|line| line["ready"] == 1).then_some(())
        })
        .await;
    gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
    gateway.until("nothing stands", async || (gateway.view(DISPATCHER).await["standing"] == 0).then_some(())).await;
    gateway.open_gate().await;
    assert_eq!(gateway.finished(gate).await, "succeeded");
    let starts = "SELECT count(*) FROM job_transitions WHERE to_status = 'running'";
    assert_eq!(gateway.sql_one(starts).await, "1", "something was started after the pause");
    gateway.stop().await;
}

/// QUE-10: a cancellation that finds no actor yet, between the grant and the start, reaches it nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_cancelled_before_its_actor_lives_is_ended() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let gate = gateway.enqueue("work", "gate").await;
    gateway.process_of(gate).await;
    let job = gateway.enqueue("work", "hang").await;
    gateway.until_standing(1).await;
    assert!(gateway.ctl().stall(DISPATCHER, STALL));
    gateway.open_gate().await;
    gateway.until("the next is granted", async || (gateway.starts_of(job).await == "1").then_some(())).await;
    let cancelled = gateway.handle().cancel(job, "enough".into(), "a test".into()).await;
    assert_eq!(cancelled, Ok(Cancelled::Stopping));
    assert_eq!(gateway.finished(job).await, "dead");
    let error = gateway.sql_one(&format!("SELECT last_error FROM job_queue WHERE id = '{job}'")).await;
    assert_eq!(error, "cancelled: enough");
    gateway.stop().await;
}

/// The row of an attempt that was taken over may be written before its process is begun: it gets its actor nevertheless,
/// so that a cancellation reaches it. A long request takes long to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_row_is_faster_than_its_process_has_an_actor() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let long = format!("hang\",\"much\":\"{}", "x".repeat(500_000));
    for _ in 0..6 {
        gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
        for _ in 0..4 {
            gateway.enqueue("work", "ok").await;
        }
        let job = gateway.enqueue("work", &long).await;
        // the claim must not be over with it
        let last = gateway.enqueue("work", "ok").await;
        gateway.handle().set_dispatch(true, "a test".into()).await.expect("resumed");
        gateway.until("it is started", async || (gateway.starts_of(job).await == "1").then_some(())).await;
        let cancelled = gateway.handle().cancel(job, "enough".into(), "a test".into()).await;
        assert_eq!(cancelled, Ok(Cancelled::Stopping));
        assert_eq!(gateway.finished(job).await, "dead");
        assert_eq!(gateway.finished(last).await, "succeeded");
    }
    gateway.stop().await;
}

/// A candidate that is not due is forgotten until it is, and not asked for again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_is_not_due_is_not_asked_for_in_a_circle() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    gateway.handle().set_dispatch(false, "a test".into()).await.expect("paused");
    let job = gateway.enqueue("work", "ok").await;
    let later = ductile_domain::time::format(chrono::Utc::now() + chrono::TimeDelta::seconds(3600));
    gateway.sql(&format!("UPDATE job_queue SET next_retry_at = '{later}' WHERE id = '{job}'")).await;
    gateway.handle().set_dispatch(true, "a test".into()).await.expect("resumed");
    gateway
        .until("it is in nobody's hand", async || {
            let view = gateway.view(QUEUE).await;
            let is_ready = view["lines"].as_array()?.iter().any(|line| line["ready"] != 0);
            (!is_ready && view["being_claimed"] == 0).then_some(())
        })
        .await;
    gateway.stop().await;
}

/// SUP-10: what is said about a dead dispatcher's claims is not taken for an answer to its successor's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_a_dead_dispatcher_is_not_taken_for_one_of_its_successor() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let gate = gateway.enqueue("work", "gate").await;
    gateway.process_of(gate).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(gateway.enqueue("work", "ok").await);
    }
    for _ in 0..3 {
        gateway.kill(DISPATCHER).await;
        gateway.until_standing(2).await;
    }
    gateway.open_gate().await;
    for job in jobs {
        assert_eq!(gateway.finished(job).await, "succeeded");
        assert_eq!(gateway.starts_of(job).await, "1");
    }
    gateway.stop().await;
}

/// SUP-08: a claim of a job whose attempt still lives comes back with a delay, and not as often as it can be granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_attempt_lives_is_not_claimed_in_a_circle() {
    let gateway = Gateway::start(2, patient_numbers()).await;
    let job = gateway.enqueue("work", "gate").await;
    gateway.process_of(job).await;
    // as after a start of the attempt that could never be written
    gateway.sql(&format!("UPDATE job_queue SET status = 'queued', boot_id = NULL WHERE id = '{job}'")).await;
    let gaps = format!(
        "SELECT CAST(1000 * (unixepoch(created_at, 'subsec') - lag(unixepoch(created_at, 'subsec')) OVER (ORDER BY id)) AS TEXT)
         FROM job_transitions WHERE job_id = '{job}' AND reason LIKE 'given back: attempt not started%' LIMIT 3"
    );
    let gaps = gateway
        .until("it was given back thrice", async || {
            let gaps = gateway.sql(&gaps).await;
            (gaps.len() == 3).then_some(gaps)
        })
        .await;
    for gap in &gaps[1..] {
        assert!(gap[0].parse::<f64>().is_ok_and(|gap| gap >= 990.0), "claimed again at once: {gaps:?}");
    }
    gateway.open_gate().await;
    gateway.stop().await;
}

/// A claim that is given back is told with its transition, and so is the death of a job that waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_back_and_what_dies_in_the_queue_is_told() {
    let gateway = Gateway::start(1, patient_numbers()).await;
    let mut events = gateway.shared().ring.subscribe(None);
    let job = gateway.enqueue("work", "gate").await;
    let pid = gateway.process_of(job).await;
    gateway.kill("root/exec_sup/job_sup").await;
    gateway.until("it is made again", async || (gateway.process_of(job).await != pid).then_some(())).await;
    let waiting = gateway.enqueue("work", "ok").await;
    assert_eq!(gateway.handle().cancel(waiting, "no need".into(), "a test".into()).await, Ok(Cancelled::Dead));
    gateway.open_gate().await;
    assert_eq!(gateway.finished(job).await, "succeeded");
    let durable = gateway.sql("SELECT id, job_id, to_status FROM job_transitions ORDER BY id").await;
    let mut told = Vec::new();
    gateway
        .until("every transition is told", async || {
            while let Some(Pulled::Events(events)) = events.try_pull() {
                told.extend(events.iter().map(|e| e.event.to_json()).filter(|e| !e["transition_id"].is_null()));
            }
            (told.len() >= durable.len()).then_some(())
        })
        .await;
    for (row, event) in durable.iter().zip(&told) {
        assert_eq!([event["transition_id"].to_string(), event["job_id"].as_str().unwrap_or_default().into()], row[..2]);
    }
    assert!(told.iter().any(|e| e["type"] == "job.given_back" && e["job_id"] == job.to_string()), "{told:?}");
    assert!(told.iter().any(|e| e["type"] == "job.dead" && e["job_id"] == waiting.to_string()), "{told:?}");
    gateway.stop().await;
}

/// OPS-08: a stop that the dispatcher hears before the drain leaves no row `running`: what stood is granted to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_takes_back_the_claims_that_stand() {
    let mut gateway = Gateway::start(1, patient_numbers()).await;
    let job = gateway.enqueue("work", "hang").await;
    gateway.process_of(job).await;
    let next = gateway.enqueue("work", "hang").await;
    gateway.until_standing(1).await;
    // longer than the drain
    assert!(gateway.ctl().stall(DISPATCHER, 2 * STALL));
    gateway.take_running().stop("the test is over").await;
    let rows = gateway.sql("SELECT status, attempt FROM job_queue ORDER BY rowid").await;
    assert_eq!(rows, [["queued", "1"], ["queued", "1"]]);
    assert_eq!(gateway.starts_of(next).await, "0");
}
