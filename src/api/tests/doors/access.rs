//! Who gets in: every route of the table with every kind of scope, over real connections.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use ductile_api::server::{Connections, serve_tcp};
use ductile_api::{Access, RouteInfo, router, routes};
use ductile_domain::scope::WORDS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{ADMIN, DEADLINE, Door, Fake, job, request};

/// The path with real names in the place of its parameters.
pub(crate) fn concrete(path: &str) -> String {
    path.replace("{plugin}", "echo")
        .replace("{command}", "poll")
        .replace("{pipeline}", "told")
        .replace("{schedule}", "default")
        .replace("{id}", &job(1).to_string())
        .replace("{path}", "root%2Fexec_sup%2Fqueue")
}

/// The words that open a route, by what the route asks: the specification, written down once more. Routes name the
/// plugin `echo` and commands that only read.
fn opened_by(access: Access) -> &'static [&'static str] {
    match access {
        Access::Public => &[],
        // The schedule runs `poll`.
        Access::Invoke | Access::RunSchedule => {
            &["plugin:ro", "plugin:rw", "plugin:invoke:ro", "echo:ro", "echo:rw", "echo:allow:poll", "echo:allow:facts"]
        }
        Access::Plugin => &[
            "plugin:ro",
            "plugin:rw",
            "plugin:catalog:ro",
            "echo:ro",
            "echo:rw",
            "echo:allow:poll",
            "echo:allow:facts",
            "echo:allow:handle",
            "echo:deny:poll",
        ],
        Access::RunPipeline => &["plugin:rw"],
        Access::Wiring => &["plugin:ro", "plugin:rw", "plugin:catalog:ro"],
        Access::Facts => &["plugin:ro", "plugin:rw", "echo:ro", "echo:rw"],
        Access::Jobs => &["jobs:ro", "jobs:rw", "jobs:status:ro"],
        Access::JobTree => &["jobs:ro", "jobs:rw", "jobs:tree:ro"],
        Access::JobLogs => &["jobs:ro", "jobs:rw", "jobs:logs:ro"],
        Access::JobsWrite => &["jobs:rw"],
        Access::Events => &["events:ro", "events:rw", "events:meta:ro"],
        Access::Admin => &[],
    }
}

/// Scopes of plugins, beside the fixed words.
const PLUGIN_SCOPES: &[&str] = &[
    "echo:ro",
    "echo:rw",
    "echo:allow:poll",
    "echo:allow:facts",
    "echo:allow:handle",
    "echo:deny:poll",
    "alone:rw",
    "parrot:rw",
];

fn is_opened(route: &RouteInfo, word: &str) -> bool {
    let is_for_another = match word {
        "echo:allow:poll" => route.access == Access::Invoke && !route.path.contains("{command}"),
        "echo:allow:facts" => {
            route.access == Access::Invoke && route.path.contains("{command}") || route.access == Access::RunSchedule
        }
        _ => false,
    };
    word == "*" || route.access == Access::Public || (opened_by(route.access).contains(&word) && !is_for_another)
}

/// A gateway behind a real TCP door.
struct Served {
    fake: Arc<Fake>,
    address: SocketAddr,
}

async fn served(tokens: &[&[&str]]) -> Served {
    let fake = Arc::new(Fake::new(tokens).await);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("an address");
    let router = router(fake.clone());
    tokio::spawn(async move {
        serve_tcp(listener, router, &Connections::default(), pending()).await.expect("serves");
    });
    Served { fake, address }
}

impl Served {
    /// Status and text of an answer; of a stream its head only.
    async fn ask(&self, route: &RouteInfo, authorization: Option<&str>) -> (u16, String) {
        let header = authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        let request = format!(
            "{} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}content-length: 0\r\n\r\n",
            route.method,
            concrete(route.path)
        );
        let answer = async {
            let mut stream = TcpStream::connect(self.address).await.expect("connects");
            stream.write_all(request.as_bytes()).await.expect("writes");
            let mut bytes = Vec::new();
            let mut buffer = [0; 4_096];
            loop {
                let count = stream.read(&mut buffer).await.expect("readable");
                bytes.extend_from_slice(&buffer[..count]);
                let is_stream = bytes.starts_with(b"HTTP/1.1 200") && route.access == Access::Events;
                if count == 0 || is_stream && bytes.windows(4).any(|w| w == b"\r\n\r\n") {
                    return String::from_utf8(bytes).expect("UTF-8");
                }
            }
        };
        let text = timeout(DEADLINE, answer).await.expect("an answer in time");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, text)
    }
}

/// AUT-01, AUT-02, AUT-03, AUT-06, API-05, API-23, API-42: every route with every kind of scope, without a token, with
/// wrong ones, and with one of a former generation. A refusal names what is missing and changes nothing.
#[tokio::test]
async fn every_route_is_public_or_asks_for_a_token() {
    let words: Vec<&str> = WORDS.iter().chain(PLUGIN_SCOPES).copied().collect();
    let singles: Vec<[&str; 1]> = words.iter().map(|word| [*word]).collect();
    let mut tokens: Vec<&[&str]> = singles.iter().map(|word| &word[..]).collect();
    tokens.push(&["plugin:rw", "echo:deny:poll", "echo:deny:facts"]);
    let served = served(&tokens).await;
    for route in routes() {
        let name = format!("{} {}", route.method, route.path);
        for word in &words {
            let (status, text) = served.ask(route, Some(&format!("Bearer {word}"))).await;
            assert_ne!(status, 401, "{name} with {word}");
            assert_eq!(status != 403, is_opened(route, word), "{name} with {word}: {text}");
            if status == 403 {
                assert!(text.contains("\"code\":\"forbidden\"") && text.contains("\"*\"]"), "{name}: {text}");
            }
        }
        let (status, _) = served.ask(route, Some("Bearer plugin:rw echo:deny:poll echo:deny:facts")).await;
        // The pipeline that is asked for runs neither command.
        let opens = [Access::Public, Access::Plugin, Access::Facts, Access::RunPipeline, Access::Wiring]
            .contains(&route.access);
        assert_eq!(status != 403, opens, "{name} with a denial: {status}");
    }
    served.fake.forget();
    let former = format!("Bearer {ADMIN}");
    served.fake.put_in_force(&tokens, &[]);
    let long = format!("Bearer {}", "x".repeat(5_000));
    for route in routes() {
        let name = format!("{} {}", route.method, route.path);
        for wrong in
            [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic *"), Some("*"), Some(&*former), Some(&*long)]
        {
            let (status, text) = served.ask(route, wrong).await;
            if route.access == Access::Public {
                assert_eq!(status, 200, "{name} with {wrong:?}: {text}");
                continue;
            }
            assert_eq!(status, 401, "{name} with {wrong:?}: {text}");
            assert!(text.contains("\"code\":\"unauthorized\"") && text.contains("www-authenticate: Bearer"), "{text}");
        }
    }
    assert_eq!(
        (served.fake.asked(), served.fake.submitted().len()),
        (vec![], 0),
        "a refused request changed something"
    );
}

/// AUT-01: the public list, written down once more so that a new entry is a decision.
#[test]
fn the_public_list_is_short_and_known() {
    let public: Vec<_> = routes().iter().filter(|r| r.access == Access::Public).map(|r| (r.method, r.path)).collect();
    let known = [
        "/",
        "/healthz",
        "/health",
        "/plugins",
        "/skills",
        "/openapi.json",
        "/.well-known/ai-plugin.json",
        "/plugin/{plugin}/openapi.json",
    ];
    assert_eq!(public, known.map(|path| ("GET", path)));
}

#[test]
fn only_post_changes_anything_and_only_reading_needs_stand_on_get() {
    for route in routes() {
        assert!(matches!(route.method, "GET" | "POST"), "{route:?}");
        let writes = matches!(route.access, Access::Invoke | Access::RunSchedule | Access::JobsWrite);
        assert!(!writes || route.method == "POST", "{route:?}");
    }
}

/// AUT-08: without any token configured only the public list is served.
#[tokio::test]
async fn a_door_without_tokens_serves_the_public_list_only() {
    let fake = Fake::new(&[]).await;
    fake.put_in_force(&[], &[]);
    let door = Door::of(fake);
    for route in routes() {
        let reply = door.open(request(route.method, &concrete(route.path), Some(ADMIN), Body::empty())).await;
        assert_eq!(reply.status() == StatusCode::UNAUTHORIZED, route.access != Access::Public, "{route:?}");
    }
}

/// API-05: a write command needs more than a read command, and deny wins.
#[tokio::test]
async fn a_write_command_needs_the_right_to_write() {
    let door = Door::with_tokens(&[&["plugin:ro"], &["plugin:rw", "echo:deny:handle"]]).await;
    let ask = |token, path| door.ask(request("POST", path, Some(token), Body::empty()));
    ask("plugin:ro", "/plugin/echo/handle").await.refused(403, "forbidden");
    ask("plugin:rw echo:deny:handle", "/plugin/echo/handle").await.refused(403, "forbidden");
    assert!(door.fake.submitted().is_empty());
    assert_eq!(ask("plugin:rw echo:deny:handle", "/plugin/parrot/handle").await.status, StatusCode::ACCEPTED);
    assert_eq!(ask("plugin:ro", "/plugin/echo/poll").await.status, StatusCode::ACCEPTED);
}

/// AUT-09: what was sent as a token comes back in no answer.
#[tokio::test]
async fn no_answer_repeats_a_token() {
    let door = Door::new().await;
    for route in routes().iter().filter(|r| r.access != Access::Events) {
        for secret in [ADMIN, "canary-wrong-77"] {
            let reply = door.ask(request(route.method, &concrete(route.path), Some(secret), Body::empty())).await;
            assert!(!reply.text.contains("canary"), "{route:?}: {}", reply.text);
            assert!(!format!("{:?}", reply.headers).contains("canary"), "{route:?}: {:?}", reply.headers);
        }
    }
}

/// API-42: paths and methods that nobody serves are refused in the one shape too.
#[tokio::test]
async fn what_is_not_served_is_refused_in_the_one_shape() {
    let door = Door::new().await;
    let body = door.get("/helthz").await.refused(404, "no_such_route");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("/healthz")), "{body}");
    for path in ["/jobs/", "//", "/plugin/echo/poll/more", "/../etc/passwd", "/%2e%2e/jobs"] {
        door.get(path).await.refused(404, "no_such_route");
    }
    for (method, path) in
        [("DELETE", "/jobs"), ("PUT", "/plugin/echo/poll"), ("POST", "/healthz"), ("GET", "/system/stop")]
    {
        let reply = door.ask(request(method, path, Some(ADMIN), Body::empty())).await;
        reply.refused(405, "method_not_allowed");
        assert!(reply.headers.contains_key("allow"), "{method} {path}");
    }
    door.get("/job/%ff").await.refused(400, "invalid_path");
}
