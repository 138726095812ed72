//! The client against a tiny server on a real socket.

use std::path::PathBuf;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Serves one canned answer per connection and hands back what was asked.
async fn serve(socket: PathBuf, answers: Vec<&'static str>) -> tokio::task::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).expect("bind");
    tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut head = Vec::new();
            while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.expect("read") == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let text = String::from_utf8(head).expect("text");
            let length: usize = text
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()))
                .map_or(0, |n| n.parse().expect("number"));
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.expect("body");
            asked.push(text + &String::from_utf8(body).expect("text"));
            stream.write_all(answer.as_bytes()).await.expect("write");
        }
        asked
    })
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("ductile.sock");
    (dir, path)
}

#[tokio::test]
async fn a_post_carries_its_body_and_no_token_over_the_socket() {
    let (_dir, path) = socket();
    let answer = "HTTP/1.1 202 Accepted\r\ncontent-length: 14\r\n\r\n{\"job_id\":\"x\"}";
    let server = serve(path.clone(), vec![answer]).await;
    let client = Client::new(Target::Socket(path), Some("canary".into()));
    let body = serde_json::json!({"payload": {"a": 1}});
    let reply = client.post("/plugin/echo/poll", Some(&body)).await.expect("accepted");
    assert_eq!(reply["job_id"], "x");
    let asked = server.await.expect("served").remove(0);
    assert!(asked.starts_with("POST /plugin/echo/poll HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with("{\"payload\":{\"a\":1}}"), "{asked}");
    assert!(!asked.contains("canary"), "{asked}");
}

/// CLI-05: who may not ask exits with 77, a refusal with 1; code and hint are shown.
#[tokio::test]
async fn refusals_keep_their_code_and_hint() {
    let (_dir, path) = socket();
    let answers = vec![
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"error\":\"no, sir\"} ",
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"error\":\"no job\",\"code\":\"unknown_job\",\"hint\":\"list the jobs\"}",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\noops\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\noops\n",
    ];
    let server = serve(path.clone(), answers).await;
    let client = Client::new(Target::Socket(path), None);
    let forbidden = client.get("/a").await.expect_err("refused");
    assert_eq!((forbidden.exit_code(), forbidden.to_string()), (77, "not permitted: no, sir".into()));
    let unknown = client.get("/b").await.expect_err("refused");
    assert_eq!((unknown.exit_code(), unknown.to_string()), (1, "no job [404 unknown_job]\n  list the jobs".into()));
    let other = client.get("/c").await.expect_err("refused");
    assert_eq!(other.to_string(), "oops [502]");
    let garbage = client.get("/d").await.expect_err("no JSON");
    assert_eq!(garbage.exit_code(), 70);
    server.await.expect("served");
}

#[test]
fn a_refusal_lists_the_steps_that_there_are() {
    let steps = json!([{"job_id": "j", "pipeline": "p", "step_id": "s", "status": "failed"}, "other"]);
    let answer = json!({"hint": "name another", "context": {"steps": steps}});
    assert_eq!(hint(&answer).as_deref(), Some("name another\n  j p/s: failed"));
    assert_eq!(hint(&json!({"context": {"steps": steps}})), None);
}

/// CLI-37: the text names the socket, the lock and the command that starts a gateway.
#[tokio::test]
async fn nobody_there_exits_with_sixty_nine_and_says_what_to_do() {
    let (_dir, path) = socket();
    let error = Client::new(Target::Socket(path.clone()), None).get("/healthz").await.expect_err("nobody");
    assert_eq!(error.exit_code(), 69);
    let text = error.to_string();
    for part in [&*path.to_string_lossy(), "ductile.lock is free", "ductile system start"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let (_dir, path) = socket();
    let server = serve(path.clone(), vec!["HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}"]).await;
    let error = Client::new(Target::Socket(path), None).get("/").await.expect_err("cut");
    assert_eq!(error.exit_code(), 69, "{error}");
    server.await.expect("served");
}

#[tokio::test]
async fn live_events_are_resumed_after_the_last_seen() {
    let (_dir, path) = socket();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hi\n\nid: b-8\nevent: actor.crashed\ndata: {\"path\":\"root\"}\n\n";
    let server = serve(path.clone(), vec![answer]).await;
    let mut events =
        Client::new(Target::Socket(path), None).events("?type=actor.*", Some("b-7")).await.expect("stream");
    let frame = events.next().await.expect("frame");
    assert_eq!((&*frame.kind, &*frame.id, &frame.data["path"]), ("actor.crashed", "b-8", &Value::from("root")));
    assert_eq!(events.next().await, None);
    let asked = server.await.expect("served").remove(0);
    assert!(asked.contains("GET /events?type=actor.*") && asked.contains("last-event-id: b-7"), "{asked}");
}

#[test]
fn addresses_are_read_strictly() {
    let ok = |url: &str| Target::parse(url).expect(url);
    assert_eq!(ok("http://127.0.0.1:8080/"), Target::Tcp("127.0.0.1:8080".into()));
    assert_eq!(ok("localhost"), Target::Tcp("localhost:80".into()));
    assert_eq!(ok("unix:/run/d.sock"), Target::Socket("/run/d.sock".into()));
    for bad in ["https://x", "http://", "http://a/b", "http://user@host"] {
        assert_eq!(Target::parse(bad).expect_err(bad).exit_code(), 2, "{bad}");
    }
}

#[test]
fn values_are_encoded_for_urls() {
    assert_eq!(encode("root/a:b é"), "root%2Fa%3Ab%20%C3%A9");
    assert_eq!(query(&[("a", Some("x y")), ("b", None), ("c", Some("1"))]), "?a=x%20y&c=1");
    assert_eq!(query(&[("a", None)]), "");
}
