//! `GET /events`: resuming, gaps, resets, filters, and clients that do not read.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use ductile_api::Patience;
use ductile_api::events::{EventRing, RING_BYTES};
use ductile_domain::ids::BootId;
use ductile_ledger::{Deletable, Prune};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::{ADMIN, DEADLINE, Door, Fake, job, job_event, other_event, request};

/// One frame: its `id`, `event` and `data`.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// Cuts a stream of text into frames and comments.
#[derive(Default)]
pub(crate) struct Frames {
    text: String,
}

impl Frames {
    pub(crate) fn add(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The next whole frame, or comment with the kind `:`.
    pub(crate) fn next(&mut self) -> Option<Seen> {
        let end = self.text.find("\n\n")?;
        let frame: String = self.text.drain(..end + 2).collect();
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let kind = field("event: ").unwrap_or_else(|| ":".to_owned());
        let data = field("data: ").map_or(Value::Null, |text| serde_json::from_str(&text).expect("data is JSON"));
        Some(Seen { id: field("id: "), kind, data })
    }
}

struct Watcher {
    body: BodyDataStream,
    frames: Frames,
}

impl Watcher {
    /// The next frame that is no comment.
    async fn next(&mut self) -> Seen {
        loop {
            let seen = self.any().await;
            if seen.kind != ":" {
                return seen;
            }
        }
    }

    async fn any(&mut self) -> Seen {
        loop {
            if let Some(seen) = self.frames.next() {
                return seen;
            }
            let piece = timeout(DEADLINE, next_piece(&mut self.body)).await.expect("a piece in time");
            self.frames.add(&piece.expect("the stream goes on"));
        }
    }
}

async fn next_piece(body: &mut BodyDataStream) -> Option<String> {
    use http_body_util::BodyExt;
    let frame = body.frame().await?.expect("streams do not fail");
    Some(String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8"))
}

fn watch(query: &str) -> Request<Body> {
    request("GET", &format!("/events{query}"), Some(ADMIN), Body::empty())
}

fn resume(query: &str, last: &str) -> Request<Body> {
    let mut request = watch(query);
    request.headers_mut().insert("last-event-id", last.parse().expect("a value"));
    request
}

async fn opened(door: &Door, request: Request<Body>) -> Watcher {
    let response = door.open(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut watcher = Watcher { body: response.into_body().into_data_stream(), frames: Frames::default() };
    assert_eq!(watcher.any().await.kind, ":", "a stream greets, so that it is known to stand");
    watcher
}

fn id(door: &Door, seq: u64) -> String {
    format!("{}-{seq}", door.fake.ring.boot())
}

/// API-38: `id: <boot>-<seq>`, `event: <type>`, one JSON object with the event's fields side by side.
#[tokio::test]
async fn events_are_shown_as_they_happen() {
    let door = Door::new().await;
    door.fake.ring.emit(other_event("before"));
    let mut watcher = opened(&door, watch("")).await;
    door.fake.ring.emit(job_event("job.started", job(1), Some(12)));
    let seen = watcher.next().await;
    assert_eq!((seen.id, seen.kind.as_str()), (Some(id(&door, 2)), "job.started"));
    assert_eq!((&seen.data["type"], &seen.data["transition_id"]), (&"job.started".into(), &12.into()));
    assert_eq!((&seen.data["job_id"], &seen.data["plugin"]), (&job(1).to_string().into(), &"echo".into()));
    assert!(seen.data["at"].is_string());
}

#[tokio::test]
async fn a_client_of_this_boot_resumes_where_it_was() {
    let door = Door::new().await;
    (0..5).for_each(|_| door.fake.ring.emit(other_event("x")));
    let mut watcher = opened(&door, resume("", &id(&door, 3))).await;
    assert_eq!(watcher.next().await.id, Some(id(&door, 4)));
    assert_eq!(watcher.next().await.id, Some(id(&door, 5)));
}

#[tokio::test]
async fn a_client_of_another_boot_gets_the_whole_tree() {
    let door = Door::new().await;
    (0..5).for_each(|_| door.fake.ring.emit(other_event("x")));
    for stranger in ["00000000-0000-0000-0000-00000000dead-77", "nonsense", ""] {
        let mut watcher = opened(&door, resume("", stranger)).await;
        let seen = watcher.next().await;
        assert_eq!((seen.kind.as_str(), seen.id), ("reset", Some(id(&door, 5))));
        assert_eq!(seen.data["root"]["children"][0]["path"], "root/exec_sup");
        assert_eq!(seen.data["boot_id"], door.fake.ring.boot().to_string());
    }
    let mut watcher = opened(&door, resume("", "nonsense")).await;
    let reset = watcher.next().await;
    door.fake.ring.emit(other_event("y"));
    assert_eq!(watcher.next().await.id, Some(id(&door, 6)));
    let mut again = opened(&door, resume("", &reset.id.expect("an id"))).await;
    assert_eq!(again.next().await.id, Some(id(&door, 6)), "the id of a reset is a place to resume from");
}

#[tokio::test]
async fn a_client_that_fell_behind_is_told_what_it_missed() {
    let mut fake = Fake::new(&[]).await;
    fake.ring = EventRing::with_capacity(BootId::from(Uuid::from_u128(0xb007)), 100, RING_BYTES);
    let door = Door::of(fake);
    (0..250).for_each(|_| door.fake.ring.emit(other_event("x")));
    let mut watcher = opened(&door, resume("", &id(&door, 20))).await;
    let gap = watcher.next().await;
    assert_eq!((gap.kind.as_str(), &gap.data["missed"], &gap.data["oldest"]), ("gap", &130.into(), &151.into()));
    for seq in 151..=250 {
        assert_eq!(watcher.next().await.id, Some(id(&door, seq)));
    }
}

#[tokio::test]
async fn filters_choose_by_type_job_and_plugin() {
    let door = Door::new().await;
    let mut finished = opened(&door, watch("?type=job.completed,actor.*")).await;
    let mut mine = opened(&door, watch(&format!("?job_id={}&plugin=echo", job(2)))).await;
    let mut none = opened(&door, watch("?plugin=other")).await;
    door.fake.ring.emit(job_event("job.started", job(1), None));
    door.fake.ring.emit(other_event("actor.crashed"));
    door.fake.ring.emit(job_event("job.started", job(2), None));
    door.fake.ring.emit(job_event("job.completed", job(1), None));
    assert_eq!(finished.next().await.kind, "actor.crashed");
    assert_eq!(finished.next().await.id, Some(id(&door, 4)));
    assert_eq!(mine.next().await.id, Some(id(&door, 3)));
    assert!(timeout(Duration::from_millis(20), none.next()).await.is_err());
    for bad in ["?type=", "?type=a%20b", "?job_id=17", "?since=-1", "?since=x", "?typ=job.*"] {
        door.ask(watch(bad)).await.refused(400, "invalid_parameter");
    }
}

/// The durable events: from the ledger first, then live, each once.
#[tokio::test]
async fn since_replays_the_ledger_and_goes_on_live_without_repeating() {
    let door = Door::new().await;
    let first = door.fake.enqueue(job(1), "poll").await;
    door.fake.run(job(1), None).await;
    let second = door.fake.enqueue(job(2), "poll").await;
    let mut watcher = opened(&door, watch(&format!("?since={}", first - 1))).await;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let seen = watcher.next().await;
        assert!(seen.id.is_none(), "a row has no place in the ring");
        assert_eq!(seen.data["plugin"], "echo");
        kinds.push((seen.kind, seen.data["job_id"].as_str().expect("an id").to_owned()));
    }
    let (one, two) = (job(1).to_string(), job(2).to_string());
    let expected = [("job.enqueued", &one), ("job.started", &one), ("job.completed", &one), ("job.enqueued", &two)];
    assert_eq!(kinds, expected.map(|(kind, id)| (kind.to_owned(), id.clone())));
    // What the replay has shown is announced late: it is not shown again.
    door.fake.ring.emit(job_event("job.enqueued", job(2), Some(second)));
    door.fake.ring.emit(other_event("actor.started"));
    door.fake.ring.emit(job_event("job.started", job(2), Some(second + 1)));
    assert_eq!(watcher.next().await.kind, "actor.started");
    assert_eq!(watcher.next().await.kind, "job.started");
    let mut filtered = opened(&door, watch(&format!("?since=0&type=job.completed&job_id={one}"))).await;
    let seen = filtered.next().await;
    assert_eq!((seen.kind.as_str(), &seen.data["to_status"]), ("job.completed", &"succeeded".into()));
}

/// Rows that are pruned are named as missed, and a place that this ledger has not reached swallows nothing.
#[tokio::test]
async fn since_tells_what_the_ledger_no_longer_has_or_never_had() {
    let door = Door::new().await;
    let first = door.fake.enqueue(job(1), "poll").await;
    let mut future = opened(&door, watch("?since=5000")).await;
    let gap = future.next().await;
    assert_eq!((gap.kind.as_str(), &gap.data["newest_transition"]), ("gap", &first.into()));
    door.fake.ring.emit(job_event("job.started", job(1), Some(first + 1)));
    assert_eq!(future.next().await.data["transition_id"], first + 1, "the next event is not taken for an old one");

    for number in 2..=5 {
        door.fake.enqueue(job(number), "poll").await;
    }
    door.fake.an_hour_passes();
    door.fake.enqueue(job(6), "poll").await;
    let prune = Prune { retention: vec![(Deletable::Transitions, Duration::from_secs(60))], limit: 100 };
    door.fake.ledger.writer.prune(prune).await.expect("pruned");
    let mut late = opened(&door, watch("?since=2")).await;
    let gap = late.next().await;
    assert_eq!((gap.kind.as_str(), &gap.data["missed"], &gap.data["oldest_transition"]), ("gap", &3.into(), &6.into()));
    assert_eq!(late.next().await.data["transition_id"], 6);
    let mut all = opened(&door, watch("?since=0")).await;
    assert_eq!(all.next().await.data["transition_id"], 6, "0 asks for what there is, and misses nothing");
    let mut exact = opened(&door, watch("?since=5")).await;
    assert_eq!(exact.next().await.data["transition_id"], 6, "nothing is missing behind 5");
}

#[tokio::test]
async fn without_the_right_to_payloads_the_fact_is_shown_and_not_what_was_said() {
    let door = Door::with_tokens(&[&["events:meta:ro"]]).await;
    let mut all = opened(&door, watch("")).await;
    let narrow = request("GET", "/events", Some("events:meta:ro"), Body::empty());
    let mut narrow = opened(&door, narrow).await;
    door.fake.ring.emit(job_event("job.failed", job(1), None));
    assert_eq!(all.next().await.data["last_error"], "said by the plugin");
    let seen = narrow.next().await.data;
    assert!(seen.get("last_error").is_none() && seen["job_id"].is_string(), "{seen}");
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_by_comments() {
    let patience = Patience { keep_alive: Duration::from_millis(10), ..Patience::default() };
    let door = Door::patient(Fake::new(&[]).await, patience);
    let mut watcher = opened(&door, watch("")).await;
    assert_eq!(watcher.any().await.kind, ":");
    assert_eq!(watcher.any().await.kind, ":");
}

#[tokio::test]
async fn places_for_watchers_are_counted_and_given_back() {
    let door = Door::patient(Fake::new(&[]).await, Patience { watchers: 2, ..Patience::default() });
    let first = opened(&door, watch("")).await;
    let _second = opened(&door, watch("")).await;
    door.ask(watch("")).await.refused(503, "too_many_clients");
    drop(first);
    let free = async {
        while door.open(watch("")).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.expect("a place becomes free when its client leaves");
}
