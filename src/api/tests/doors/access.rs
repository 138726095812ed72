//! Who gets in: every route of the table, without a token, with a wrong one, and with each scope.

use axum::body::Body;
use axum::http::StatusCode;
use ductile_api::{Access, routes};

use crate::harness::{ADMIN, Door, request};

fn concrete(path: &str) -> String {
    path.replace("{plugin}", "echo")
        .replace("{command}", "poll")
        .replace("{id}", "01890f3e-7c5a-7000-8000-000000000001")
        .replace("{path}", "root%2Fexec_sup%2Fqueue")
}

/// AUT-01: the public list, written down once more so that a new entry is a decision.
#[test]
fn the_public_list_is_short_and_known() {
    let public: Vec<_> = routes().iter().filter(|r| r.access == Access::Public).map(|r| (r.method, r.path)).collect();
    assert_eq!(public, [("GET", "/"), ("GET", "/healthz"), ("GET", "/health"), ("GET", "/plugins")]);
}

#[test]
fn only_post_changes_anything_and_only_reading_needs_stand_on_get() {
    for route in routes() {
        assert!(matches!(route.method, "GET" | "POST"), "{route:?}");
        let writes = matches!(route.access, Access::Invoke | Access::JobsWrite);
        assert!(!writes || route.method == "POST", "{route:?}");
    }
}

/// AUT-01, AUT-02, API-42: all other routes answer 401 without a token that is known.
#[tokio::test]
async fn every_route_is_public_or_asks_for_a_token() {
    let door = Door::new().await;
    let long = "x".repeat(5_000);
    for route in routes() {
        for token in [None, Some("wrong"), Some(""), Some(&ADMIN[1..]), Some(long.as_str())] {
            let reply = door.open(request(route.method, &concrete(route.path), token, Body::empty())).await;
            if route.access == Access::Public {
                assert_eq!(reply.status(), StatusCode::OK, "{route:?} with {token:?}");
                continue;
            }
            assert_eq!(reply.headers().get("www-authenticate").map(|v| v.as_bytes()), Some(&b"Bearer"[..]));
            let reply = door.ask(request(route.method, &concrete(route.path), token, Body::empty())).await;
            reply.refused(401, "unauthorized");
        }
    }
    assert!(door.fake.asked().is_empty() && door.fake.submitted().is_empty(), "a refused request changed something");
}

/// AUT-08: without any token configured only the public list is served.
#[tokio::test]
async fn a_door_without_tokens_serves_the_public_list_only() {
    let mut fake = crate::harness::Fake::new(&[]).await;
    std::sync::Arc::get_mut(&mut fake.generation).expect("not shared yet").config.api.tokens.clear();
    let door = Door::of(fake);
    for route in routes() {
        let reply = door.open(request(route.method, &concrete(route.path), Some(ADMIN), Body::empty())).await;
        assert_eq!(reply.status() == StatusCode::UNAUTHORIZED, route.access != Access::Public, "{route:?}");
    }
}

/// What each scope opens, beside the public list.
const OPENS: &[(&str, &[&str])] = &[
    ("plugin:ro", &["GET /plugin/{plugin}", "POST /plugin/{plugin}/{command}"]),
    ("plugin:rw", &["GET /plugin/{plugin}", "POST /plugin/{plugin}/{command}"]),
    ("plugin:catalog:ro", &["GET /plugin/{plugin}"]),
    ("plugin:invoke:ro", &["POST /plugin/{plugin}/{command}"]),
    ("echo:ro", &["GET /plugin/{plugin}", "POST /plugin/{plugin}/{command}"]),
    ("echo:allow:poll", &["GET /plugin/{plugin}", "POST /plugin/{plugin}/{command}"]),
    ("echo:allow:handle", &["GET /plugin/{plugin}"]),
    ("alone:rw", &[]),
    ("jobs:ro", &["GET /job/{id}", "GET /jobs", "GET /job-logs"]),
    ("jobs:rw", &["GET /job/{id}", "GET /jobs", "GET /job-logs", "POST /job/{id}/cancel"]),
    ("jobs:status:ro", &["GET /job/{id}", "GET /jobs"]),
    ("jobs:logs:ro", &["GET /job-logs"]),
    ("jobs:result:ro", &[]),
    ("events:ro", &["GET /events"]),
    ("events:rw", &["GET /events"]),
    ("events:meta:ro", &["GET /events"]),
];

/// API-05, API-23, AUT-02, AUT-03: each scope opens its routes and no others, and a refusal names what is missing.
#[tokio::test]
async fn every_scope_opens_its_own_routes_only() {
    let words: Vec<[&str; 1]> = OPENS.iter().map(|(word, _)| [*word]).collect();
    let tokens: Vec<&[&str]> = words.iter().map(|w| &w[..]).collect();
    let door = Door::with_tokens(&tokens).await;
    for (word, opens) in OPENS.iter().copied().chain([(ADMIN, &[][..])]) {
        for route in routes() {
            let name = format!("{} {}", route.method, route.path);
            let is_open = route.access == Access::Public || word == ADMIN || opens.contains(&name.as_str());
            let asked = || request(route.method, &concrete(route.path), Some(word), Body::empty());
            let status = door.open(asked()).await.status();
            assert_eq!(status != StatusCode::FORBIDDEN, is_open, "{name} with {word}: {status}");
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{name} with {word}");
            if !is_open {
                let body = door.ask(asked()).await.refused(403, "forbidden");
                assert!(body["context"]["scopes"].as_array().is_some_and(|s| s.iter().any(|w| w == "*")), "{body}");
            }
        }
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
