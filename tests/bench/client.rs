//! A plain keep-alive client on blocking threads, so that it costs little beside what it measures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::plugins::Kind;

/// The token of the benchmark's gateways.
pub(crate) const TOKEN: &str = "bench-token";

/// Clients that enqueue at the same time.
const CLIENTS: usize = 16;

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a TCP option");
        Self { stream: BufReader::new(stream), line: String::new() }
    }

    /// Status and body.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).expect("sent");
        self.next_line();
        let status = self.line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        let mut length = 0;
        loop {
            self.next_line();
            if self.line == "\r\n" {
                break;
            }
            if let Some((name, value)) = self.line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        (status, body)
    }

    fn next_line(&mut self) {
        self.line.clear();
        self.stream.read_line(&mut self.line).expect("a line");
        assert!(!self.line.is_empty(), "the gateway closed the connection");
    }

    /// Enqueues one job; its id.
    pub(crate) fn enqueue(&mut self, kind: Kind) -> String {
        let (status, body) = self.send("POST", &format!("/plugin/{}/poll", kind.name()), "{}");
        assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        answer["job_id"].as_str().expect("an id").to_owned()
    }
}

/// Enqueues so many jobs from all clients.
pub(crate) fn enqueue_all(address: &str, kind: Kind, jobs: usize) {
    let next = AtomicUsize::new(0);
    let path = format!("/plugin/{}/poll", kind.name());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while next.fetch_add(1, Ordering::Relaxed) < jobs {
                    let (status, body) = client.send("POST", &path, "{}");
                    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
                }
            });
        }
    });
}

/// Acknowledged enqueues a second.
pub(crate) fn enqueue_rate(address: &str, kind: Kind, jobs: usize) -> f64 {
    let began = Instant::now();
    enqueue_all(address, kind, jobs);
    jobs as f64 / began.elapsed().as_secs_f64()
}
