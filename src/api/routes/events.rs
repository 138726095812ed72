//! `GET /events`: live events as server-sent events. Each client pulls at its own pace and is told what it missed.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use ductile_domain::event::{Fields, LiveEvent};
use ductile_domain::ids::JobId;
use ductile_domain::time;
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::call::{Answer, App, Call, bad_parameter, closed, quoted};
use crate::error::{ApiError, Code};
use crate::events::{Lagged, Numbered, Pulled, Subscription};
use crate::gateway::Gateway;
use crate::routes::actors::Tree;
use crate::routes::filters::job_id;
use crate::views::{self, Replayed};

/// Rows that a replay reads at a time.
const REPLAY_PAGE: u32 = 256;
/// Fields that hold what plugins and callers said.
const PAYLOAD_FIELDS: &[&str] = &["payload", "result", "last_error", "error", "stderr", "reason"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    r#type: Option<String>,
    job_id: Option<String>,
    plugin: Option<String>,
    since: Option<String>,
}

/// Where a stream begins.
enum Start {
    /// With what comes next.
    Now,
    /// Behind the event of this boot that the client saw last.
    After(u64),
    /// The client knows another boot: with the whole tree.
    Reset,
    /// Behind a row of `job_transitions`, and then with the ring.
    Since(i64),
}

/// API-38.
pub(super) async fn stream<G: Gateway>(call: Call<G>) -> Answer {
    let query: EventsQuery = call.query()?;
    let filter = Filter {
        kinds: kinds(query.r#type.as_deref())?,
        job: job_id("job_id", query.job_id.as_deref())?,
        plugin: query.plugin,
    };
    let start = start(&call, query.since.as_deref())?;
    let permit = call.app.watchers.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(
            Code::TooManyClients,
            format!("all {} places for live events are taken", call.app.patience.watchers),
            "end a stream that nobody reads, or try again later",
        )
        .retry_after(Duration::from_secs(5))
    })?;
    let after = if let Start::After(seq) = start { Some(seq) } else { None };
    // One piece in the channel and one being made is all that a client that does not read costs here.
    let (pieces, body) = mpsc::channel(1);
    let feed = Feed {
        place: call.app.gateway.events().subscribe(after),
        sees_payloads: call.caller.sees_event_payloads(),
        closing: call.closing(),
        app: call.app,
        filter,
        pieces,
        replayed: None,
        newest_sent: 0,
        _permit: permit,
    };
    tokio::spawn(feed.run(start));
    let mut response = Response::new(Body::new(Pieces(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would turn live into late.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A client that comes back is served from where it was; `since` is for one that comes for the first time.
fn start<G: Gateway>(call: &Call<G>, since: Option<&str>) -> Result<Start, ApiError> {
    let since = since
        .map(|text| {
            text.parse::<i64>().ok().filter(|id| *id >= 0).ok_or_else(|| {
                bad_parameter(
                    "since",
                    format!("`since` is not the id of a transition: {}", quoted(text)),
                    "use a `transition_id` of an event, or 0 for all that the ledger keeps",
                )
            })
        })
        .transpose()?;
    let last = call.headers().get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let boot = call.app.gateway.events().boot().to_string();
    let seq = last.and_then(|id| id.strip_prefix(&*boot)?.strip_prefix('-')?.parse().ok());
    Ok(match (last, seq, since) {
        (_, Some(seq), _) => Start::After(seq),
        (_, None, Some(since)) => Start::Since(since),
        (Some(_), None, None) => Start::Reset,
        (None, None, None) => Start::Now,
    })
}

/// Which events a client wants.
#[derive(Debug)]
struct Filter {
    /// Exact types, or prefixes that end in `*`; empty means all.
    kinds: Vec<String>,
    job: Option<JobId>,
    plugin: Option<String>,
}

fn kinds(text: Option<&str>) -> Result<Vec<String>, ApiError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let kinds: Vec<_> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    let is_kind = |kind: &String| {
        let stem = kind.strip_suffix('*').unwrap_or(kind);
        !kind.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if kinds.len() > 32 || !kinds.iter().all(is_kind) {
        return Err(bad_parameter(
            "type",
            format!("`type` is no list of event types: {}", quoted(text)),
            "write it like job.completed,job.failed or job.*",
        ));
    }
    Ok(kinds)
}

impl Filter {
    fn wants(&self, event: &LiveEvent) -> bool {
        self.wants_kind(&event.kind)
            && match &event.fields {
                Fields::Job(job) => self.wants_job(job.job, &job.plugin),
                Fields::Other(fields) => {
                    let has = |key: &str, wanted: &str| fields.get(key).and_then(Value::as_str) == Some(wanted);
                    self.job.is_none_or(|job| has("job_id", &job.to_string()))
                        && self.plugin.as_ref().is_none_or(|plugin| has("plugin", plugin))
                }
            }
    }

    fn wants_kind(&self, kind: &str) -> bool {
        self.kinds.is_empty()
            || self.kinds.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(stem) => kind.starts_with(stem),
                None => kind == wanted,
            })
    }

    fn wants_row(&self, row: &Replayed) -> bool {
        self.wants_kind(row.kind())
            && self.job.is_none_or(|job| row.job_id() == job.to_string())
            && self.plugin.as_deref().is_none_or(|plugin| row.plugin() == Some(plugin))
    }

    fn wants_job(&self, job: JobId, plugin: &str) -> bool {
        self.job.is_none_or(|wanted| wanted == job) && self.plugin.as_ref().is_none_or(|wanted| *wanted == *plugin)
    }
}

/// The client is gone, or the door has closed.
struct Over;

/// One client's stream.
struct Feed<G> {
    app: Arc<App<G>>,
    filter: Filter,
    sees_payloads: bool,
    place: Subscription,
    pieces: mpsc::Sender<Bytes>,
    closing: Option<watch::Receiver<bool>>,
    /// The newest transition that came from the ledger; the ring's events up to it were sent.
    replayed: Option<i64>,
    /// The newest transition that was sent, from wherever; a replay after a gap goes on behind it.
    newest_sent: i64,
    _permit: OwnedSemaphorePermit,
}

impl<G: Gateway> Feed<G> {
    async fn run(mut self, start: Start) {
        let door = closed(self.closing.clone());
        tokio::select! {
            Over = self.follow(start) => return,
            () = door => {}
        }
        let bye = json!({ "type": "bye", "at": now() });
        // A client that does not read is cut off later; it loses only the good-bye.
        let _ = self.pieces.try_send(frame(None, "bye", &bye.to_string()).into());
    }

    async fn follow(&mut self, start: Start) -> Over {
        match self.lead_in(start).await {
            Ok(()) => {}
            Err(over) => return over,
        }
        loop {
            let Err(over) = self.step().await else { continue };
            return over;
        }
    }

    async fn lead_in(&mut self, start: Start) -> Result<(), Over> {
        // The first piece makes the head of the answer leave at once.
        self.send(": ductile\nretry: 1000\n\n".to_owned()).await?;
        match start {
            Start::Now | Start::After(_) => Ok(()),
            Start::Reset => self.reset().await,
            Start::Since(id) => self.replay_from(id).await,
        }
    }

    async fn step(&mut self) -> Result<(), Over> {
        let quiet = sleep_until(Instant::now() + self.app.patience.keep_alive);
        let pieces = self.pieces.clone();
        let pulled = tokio::select! {
            pulled = self.place.pull() => Some(pulled),
            () = quiet => None,
            () = pieces.closed() => return Err(Over),
        };
        match pulled {
            None => self.send(": keep-alive\n\n".to_owned()).await,
            Some(Pulled::Events(events)) => {
                let text = self.render(&events);
                if text.is_empty() { Ok(()) } else { self.send(text).await }
            }
            Some(Pulled::Lagged(lagged)) => self.gap(lagged).await,
        }
    }

    /// Says what was missed; a client that began with the ledger gets its job events from there.
    async fn gap(&mut self, lagged: Lagged) -> Result<(), Over> {
        let data = json!({ "type": "gap", "at": now(), "missed": lagged.missed, "oldest": lagged.oldest });
        self.send(frame(None, "gap", &data.to_string())).await?;
        match self.replayed {
            Some(_) => self.replay(self.newest_sent).await,
            None => Ok(()),
        }
    }

    async fn reset(&mut self) -> Result<(), Over> {
        let gateway = &self.app.gateway;
        let tree = serde_json::to_value(Tree::now(&**gateway)).unwrap_or_default();
        let mut data = Map::new();
        data.insert("type".into(), "reset".into());
        data.insert("at".into(), now().into());
        if let Value::Object(tree) = tree {
            data.extend(tree);
        }
        let id = format!("{}-{}", gateway.events().boot(), self.place.position() - 1);
        self.send(frame(Some(&id), "reset", &Value::Object(data).to_string())).await
    }

    /// Begins behind the row that the client names, and says so when that cannot be without a gap: rows are pruned, and
    /// a ledger may be a restored copy. 0 asks for all there is.
    async fn replay_from(&mut self, since: i64) -> Result<(), Over> {
        let bounds = match views::transition_bounds(self.app.gateway.readers()).await {
            Ok(bounds) => bounds,
            // The replay meets the same trouble and tells of it.
            Err(_) => return self.replay(since).await,
        };
        let (oldest, newest) = bounds.unwrap_or((1, 0));
        let (missed, begin) = if since > newest { (json!(null), newest) } else { (json!(oldest - 1 - since), since) };
        if since > newest || since > 0 && since + 1 < oldest {
            let data = json!({
                "type": "gap", "at": now(), "since": since, "missed": missed, "oldest_transition": oldest,
                "newest_transition": newest,
            });
            self.send(frame(None, "gap", &data.to_string())).await?;
        }
        self.replay(begin).await
    }

    /// Sends the transitions after `id` from the ledger. The place in the ring was taken before, so what is committed
    /// meanwhile comes twice at most, and [`Self::is_replayed`] drops the second.
    async fn replay(&mut self, mut id: i64) -> Result<(), Over> {
        self.replayed = Some(id);
        loop {
            let page = match views::transitions_since(self.app.gateway.readers(), id, self.filter.job, REPLAY_PAGE)
                .await
            {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(?error, "replaying job events failed");
                    let data =
                        json!({ "type": "gap", "at": now(), "since": id, "reason": "the ledger can't be read now" });
                    return self.send(frame(None, "gap", &data.to_string())).await;
                }
            };
            let mut text = String::new();
            for row in &page {
                id = row.id();
                if self.filter.wants_row(row) {
                    let mut data = row.to_json();
                    if !self.sees_payloads {
                        conceal(&mut data);
                    }
                    text.push_str(&frame(None, row.kind(), &data.to_string()));
                }
            }
            self.replayed = Some(id);
            self.newest_sent = self.newest_sent.max(id);
            if !text.is_empty() {
                self.send(text).await?;
            }
            if page.len() < REPLAY_PAGE as usize {
                return Ok(());
            }
        }
    }

    fn is_replayed(&self, event: &LiveEvent) -> bool {
        let Fields::Job(job) = &event.fields else { return false };
        matches!((job.transition, self.replayed), (Some(id), Some(replayed)) if id <= replayed)
    }

    fn render(&mut self, events: &[Arc<Numbered>]) -> String {
        let boot = self.app.gateway.events().boot();
        let mut text = String::new();
        for numbered in events {
            let event = &numbered.event;
            if self.is_replayed(event) {
                continue;
            }
            if let Fields::Job(job) = &event.fields {
                self.newest_sent = self.newest_sent.max(job.transition.unwrap_or_default());
            }
            if !self.filter.wants(event) {
                continue;
            }
            let kind = one_line(&event.kind);
            write!(text, "id: {boot}-{}\nevent: {kind}\ndata: ", numbered.seq).expect("a String takes all text");
            if self.sees_payloads {
                text.push_str(numbered.json());
            } else {
                let mut data = event.to_json();
                conceal(&mut data);
                text.push_str(&data.to_string());
            }
            text.push_str("\n\n");
        }
        text
    }

    async fn send(&self, text: String) -> Result<(), Over> {
        self.pieces.send(text.into()).await.map_err(|_| Over)
    }
}

fn conceal(data: &mut Value) {
    if let Value::Object(fields) = data {
        fields.retain(|key, _| !PAYLOAD_FIELDS.contains(&key.as_str()));
    }
}

fn frame(id: Option<&str>, kind: &str, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {}\ndata: {data}\n\n", one_line(kind))
}

/// A type with a line break in it would forge frames.
fn one_line(kind: &str) -> &str {
    kind.split(['\r', '\n', '\0']).next().unwrap_or_default()
}

fn now() -> String {
    time::format(chrono::Utc::now())
}

/// The pieces of a stream as a body.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use ductile_domain::event::JobFields;

    use super::*;

    #[test]
    fn types_match_exactly_or_by_their_beginning() {
        let filter = |text: &str| Filter { kinds: kinds(Some(text)).expect(text), job: None, plugin: None };
        assert!(filter("job.*").wants_kind("job.failed"));
        assert!(!filter("job.*").wants_kind("actor.started"));
        assert!(filter("actor.crashed, job.failed").wants_kind("job.failed"));
        assert!(!filter("job.fail").wants_kind("job.failed"));
        assert!(filter("*").wants_kind("anything"));
        for bad in ["", "a,,b", "job.*.x", "a b", "job.\nx"] {
            assert!(kinds(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_job_filter_drops_what_speaks_of_no_job() {
        let job = JobId::from(uuid::Uuid::from_u128(7));
        let filter = Filter { kinds: Vec::new(), job: Some(job), plugin: Some("echo".into()) };
        let fields = |job, plugin: &str| JobFields {
            job,
            plugin: plugin.into(),
            command: "poll".into(),
            transition: None,
            attempt: None,
            more: Vec::new(),
        };
        let event = |fields| LiveEvent { kind: "job.x".into(), at: chrono::DateTime::UNIX_EPOCH, fields };
        assert!(filter.wants(&event(Fields::Job(Box::new(fields(job, "echo"))))));
        assert!(!filter.wants(&event(Fields::Job(Box::new(fields(job, "other"))))));
        assert!(!filter.wants(&event(Fields::Job(Box::new(fields(JobId::from(uuid::Uuid::nil()), "echo"))))));
        assert!(!filter.wants(&event(Fields::Other(Map::new()))));
    }

    #[test]
    fn a_type_cannot_forge_a_frame() {
        assert_eq!(frame(None, "x\nevent: y", "{}"), "event: x\ndata: {}\n\n");
    }
}
