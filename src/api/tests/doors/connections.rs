//! Connections over real TCP: clients that are slow, silent, greedy or still there when the door closes.

use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ductile_api::server::{Connections, Limits, serve_tcp};
use ductile_api::{Patience, router_with};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::harness::{ADMIN, BODY_LIMIT, DEADLINE, Fake};
use crate::live_events::Frames;
use ductile_api::events::RING_BYTES;
use ductile_domain::event::LiveEvent;

struct Served {
    fake: Arc<Fake>,
    connections: Connections,
    address: SocketAddr,
    listener: TcpListener,
    patience: Patience,
    accepting: JoinHandle<()>,
}

impl Served {
    async fn new(limits: Limits, patience: Patience) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        let fake = Arc::new(Fake::new(&[]).await);
        let connections = Connections::new(limits);
        let accepting = accept(&listener, &fake, &connections, patience);
        Self { fake, connections, address, listener, patience, accepting }
    }

    async fn usual() -> Self {
        Self::new(Limits::default(), Patience::default()).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    async fn open_connections(&self, wanted: usize) {
        let settled = async {
            while self.connections.open() != wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, settled).await.unwrap_or_else(|_| panic!("{} open", self.connections.open()));
    }
}

fn accept(listener: &TcpListener, fake: &Arc<Fake>, connections: &Connections, patience: Patience) -> JoinHandle<()> {
    let listener = listener.try_clone().expect("clones");
    let router = router_with(fake.clone(), patience);
    let connections = connections.clone();
    tokio::spawn(async move {
        serve_tcp(listener, router, &connections, pending()).await.expect("serves");
    })
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n{more}\r\n")
}

async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the text has been seen.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains(wanted) {
        let count = timeout(DEADLINE, stream.read(&mut buffer)).await.expect("in time").expect("readable");
        assert!(count > 0, "ended before {wanted:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[tokio::test]
async fn half_a_request_head_is_not_waited_for() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let served = Served::new(limits, Patience::default()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.expect("writes");
    let text = to_the_end(&mut stream).await;
    assert!(!text.starts_with("HTTP/1.1 200"), "{text}");
    served.open_connections(0).await;
}

#[tokio::test]
async fn an_oversized_head_is_refused() {
    let served = Served::new(Limits { buffer: 8_192, ..Limits::default() }, Patience::default()).await;
    let mut stream = served.connect().await;
    let large = head("GET", "/healthz", &format!("x-large: {}\r\n", "x".repeat(20_000)));
    // The gateway may hang up before all is written.
    let _ = stream.write_all(large.as_bytes()).await;
    let text = to_the_end(&mut stream).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    served.open_connections(0).await;
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let patience = Patience { body: Duration::from_millis(100), ..Patience::default() };
    let served = Served::new(Limits::default(), patience).await;
    let mut stream = served.connect().await;
    stream.write_all(head("POST", "/plugin/echo/poll", "content-length: 10\r\n").as_bytes()).await.expect("writes");
    stream.write_all(b"{\"pa").await.expect("writes");
    let text = until(&mut stream, "body_timeout").await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");

    let mut stream = served.connect().await;
    stream
        .write_all(head("POST", "/plugin/echo/poll", "transfer-encoding: chunked\r\n").as_bytes())
        .await
        .expect("writes");
    let chunk = format!("{:x}\r\n{}\r\n", BODY_LIMIT + 1, "x".repeat(BODY_LIMIT + 1));
    stream.write_all(chunk.as_bytes()).await.expect("writes");
    let text = until(&mut stream, "body_too_large").await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    assert!(served.fake.submitted().is_empty());
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let served = Served::new(Limits { connections: 1, ..Limits::default() }, Patience::default()).await;
    let first = served.connect().await;
    served.open_connections(1).await;
    let mut second = served.connect().await;
    second.write_all(head("GET", "/healthz", "connection: close\r\n").as_bytes()).await.expect("writes");
    let mut buffer = [0; 64];
    assert!(timeout(Duration::from_millis(50), second.read(&mut buffer)).await.is_err(), "answered beyond the limit");
    drop(first);
    assert!(to_the_end(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_restart_of_the_accept_loop_cuts_nobody_off() {
    let served = Served::usual().await;
    let mut old = served.connect().await;
    old.write_all(head("GET", "/healthz", "").as_bytes()).await.expect("writes");
    until(&mut old, "\"version\"").await;
    served.accepting.abort();
    let mut new = served.connect().await;
    new.write_all(head("GET", "/healthz", "connection: close\r\n").as_bytes()).await.expect("writes");
    old.write_all(head("GET", "/healthz", "").as_bytes()).await.expect("writes");
    until(&mut old, "\"version\"").await;
    let again = accept(&served.listener, &served.fake, &served.connections, served.patience);
    assert!(to_the_end(&mut new).await.starts_with("HTTP/1.1 200"), "the backlog kept the client");
    again.abort();
}

#[tokio::test]
async fn a_door_that_closes_says_bye_and_answers_those_who_wait() {
    let served = Served::usual().await;
    let job = crate::harness::job(1);
    served.fake.enqueue(job, "poll").await;
    let mut events = served.connect().await;
    events.write_all(head("GET", "/events", "").as_bytes()).await.expect("writes");
    until(&mut events, "retry:").await;
    let mut waiting = served.connect().await;
    waiting.write_all(head("GET", &format!("/job/{job}?wait=60s"), "").as_bytes()).await.expect("writes");
    let asked = async {
        while served.fake.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, asked).await.expect("the wait begins");
    let cut = timeout(DEADLINE, served.connections.drain(DEADLINE)).await.expect("ends in time");
    assert_eq!(cut, 0, "nobody had to be cut off");
    assert!(to_the_end(&mut events).await.contains("event: bye"));
    assert!(to_the_end(&mut waiting).await.contains("\"queued\""));
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_cut() {
    let served = Served::usual().await;
    let mut silent = served.connect().await;
    silent.write_all(b"GET /hea").await.expect("writes");
    served.open_connections(1).await;
    let cut = timeout(DEADLINE, served.connections.drain(Duration::from_millis(20))).await.expect("ends in time");
    assert_eq!((cut, served.connections.open()), (1, 0));
    to_the_end(&mut silent).await;
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4_096
}

/// A reader that sleeps through 100 MB of events costs no more than the ring, and is told what it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_left_behind_with_a_gap_and_bounded_memory() {
    const EVENTS: u64 = 50_000;
    let served = Served::usual().await;
    let mut slow = served.connect().await;
    slow.write_all(head("GET", "/events", "").as_bytes()).await.expect("writes");
    let mut text = until(&mut slow, "retry: 1000\n\n").await;
    let before = resident_bytes();
    let (done, emitted) = oneshot::channel();
    let ring = served.fake.ring.clone();
    std::thread::spawn(move || {
        for number in 0..EVENTS {
            let reason = Value::from("x".repeat(2_000));
            let fields = Map::from_iter([("reason".to_owned(), reason), ("number".to_owned(), number.into())]);
            ring.emit(LiveEvent::other("actor.crashed", chrono::DateTime::UNIX_EPOCH, fields));
        }
        done.send(()).expect("awaited");
    });
    timeout(DEADLINE, emitted).await.expect("emitting waits for nobody").expect("emitted");
    let grown = resident_bytes().saturating_sub(before);
    assert!(served.fake.ring.bytes() <= RING_BYTES);
    assert!(grown < 40 * 1024 * 1024, "{grown} bytes for one slow reader");

    // The chunk sizes of the transfer stand between the pieces; frames are found all the same.
    let (mut seen, mut missed, mut gaps, mut last) = (0, 0, 0, 0);
    let mut frames = Frames::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        while let Some(newline) = text.find('\n') {
            let line: String = text.drain(..=newline).collect();
            if line.starts_with("id: ") || line.starts_with("event: ") || line.starts_with("data: ") || line == "\n" {
                frames.add(&line);
            }
        }
        while let Some(frame) = frames.next() {
            match frame.kind.as_str() {
                "gap" => {
                    gaps += 1;
                    missed += frame.data["missed"].as_u64().expect("a number");
                }
                "actor.crashed" => {
                    seen += 1;
                    let id = frame.id.expect("an id");
                    last = id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
                }
                _ => {}
            }
        }
        if last == EVENTS {
            break;
        }
        let count = timeout(DEADLINE, slow.read(&mut buffer)).await.expect("in time").expect("readable");
        assert!(count > 0, "the stream ended");
        text.push_str(std::str::from_utf8(&buffer[..count]).expect("ASCII"));
    }
    assert_eq!(seen + missed, EVENTS, "nothing is skipped silently");
    assert!(gaps > 0 && missed > EVENTS / 2, "{gaps} gaps, {missed} missed");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_dropped_in_the_end() {
    let limits = Limits { write: Duration::from_millis(100), ..Limits::default() };
    let served = Served::new(limits, Patience::default()).await;
    let mut stuck = served.connect().await;
    stuck.write_all(head("GET", "/events", "").as_bytes()).await.expect("writes");
    until(&mut stuck, "retry:").await;
    let flood = async {
        while served.connections.open() > 0 {
            for _ in 0..200 {
                let fields = Map::from_iter([("reason".to_owned(), Value::from("x".repeat(4_000)))]);
                served.fake.ring.emit(LiveEvent::other("actor.crashed", chrono::DateTime::UNIX_EPOCH, fields));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, flood).await.expect("the connection is given up");
}
