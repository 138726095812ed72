//! Bad input gets a clear error, and nothing is lost or half done.

use crate::gateway::Gateway;

/// API-42, API-43: what can't be accepted is refused with the one error shape, and no row appears.
#[test]
fn bad_requests_enqueue_nothing() {
    let gateway = Gateway::new().plugin("echo").api("  enabled: false\n  max_body_size: 64KB\n").start();
    let huge = format!("{{\"payload\":{{\"x\":\"{}\"}}}}", "y".repeat(70_000));
    let cases = [
        ("POST", "/plugin/echo/poll", "{not json", 400),
        ("POST", "/plugin/echo/poll", "[1]", 400),
        ("POST", "/plugin/echo/poll", r#"{"payload":3}"#, 400),
        ("POST", "/plugin/echo/poll", huge.as_str(), 413),
        ("POST", "/plugin/ecko/poll", "{}", 404),
        ("POST", "/plugin/echo/dance", "{}", 404),
        ("GET", "/job/01890f3e-7c5a-7000-8000-000000000000", "", 404),
        ("GET", "/job/..%2f..%2fetc%2fpasswd", "", 400),
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/jobs", "", 405),
        ("GET", "/jobs?status=foo", "", 400),
    ];
    for (method, path, body, status) in cases {
        let response = gateway.request(method, path, Some(body));
        assert_eq!(response.status, status, "{method} {path}: {}", response.body);
        let error = response.json();
        for key in ["error", "code", "hint"] {
            assert!(error[key].as_str().is_some_and(|t| !t.is_empty()), "{method} {path}: {key} in {error}");
        }
    }
    assert_eq!(gateway.sql_one("SELECT count(*) FROM job_queue"), "0");
    let near = gateway.request("POST", "/plugin/ech/poll", Some("{}"));
    assert!(near.body.contains("echo"), "did you mean: {}", near.body);
}

fn refused(gateway: &mut Gateway, code: i32, words: &[&str]) {
    gateway.spawn();
    let exit = gateway.wait_exit();
    let logs = gateway.logs();
    assert_eq!(exit, code, "{logs}");
    for word in words {
        assert!(logs.contains(word), "{word:?} in {logs}");
    }
    assert!(!logs.contains("panicked"), "{logs}");
}

/// A configuration that can't be read names file and line and exits 78.
#[test]
fn a_bad_configuration_names_file_and_line() {
    let mut gateway = Gateway::new().prepare();
    std::fs::write(gateway.path("config.yaml"), "service:\n  max_workers: many\nplugin_roots: [./nowhere]\n")
        .expect("written");
    refused(&mut gateway, 78, &["config.yaml:2", "max_workers"]);
    std::fs::write(gateway.path("config.yaml"), "service: [\n").expect("written");
    let mut again = gateway;
    refused(&mut again, 78, &["config.yaml"]);
}

/// A plugin directory that is missing leaves that plugin out, says so, and does not stop the rest.
#[test]
fn a_missing_plugin_directory_is_named() {
    let gateway = Gateway::new().plugin("echo").plugin("absent").start();
    assert!(gateway.logs().contains("absent"), "{}", gateway.logs());
    let response = gateway.request("POST", "/plugin/absent/poll", Some("{}"));
    assert_eq!(response.status, 404, "{}", response.body);
}

/// A port in use is named with the next step.
#[test]
fn a_port_in_use_is_named() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("bound");
    let mut gateway = Gateway::new().api(&format!("  enabled: true\n  listen: {address}\n")).prepare();
    refused(&mut gateway, 1, &[&address.to_string(), "api.listen"]);
}

/// OPS-31: files that are no ledger of ours, or a newer one, are refused by name and left as they are.
#[test]
fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
    let mut gateway = Gateway::new().prepare();
    std::fs::write(gateway.path("ductile.db"), "this is not a database, it is a letter").expect("written");
    refused(&mut gateway, 78, &["ductile.db"]);
    assert_eq!(
        std::fs::read_to_string(gateway.path("ductile.db")).expect("there"),
        "this is not a database, it is a letter"
    );
}

/// A ledger written by a newer gateway is refused, and says which versions meet.
#[test]
fn a_newer_ledger_is_refused() {
    let mut gateway = Gateway::new().start();
    assert_eq!(gateway.stop(), 0);
    gateway.sql("PRAGMA user_version = 99");
    refused(&mut gateway, 78, &["99"]);
}

/// A ledger that lost an index is refused by the index's name.
#[test]
fn a_ledger_without_its_index_is_refused() {
    let mut gateway = Gateway::new().start();
    assert_eq!(gateway.stop(), 0);
    gateway.sql("DROP INDEX job_queue_status_created_at_idx");
    refused(&mut gateway, 78, &["job_queue_status_created_at_idx"]);
}

/// A ledger that another process has locked is a state, not a crash: work is refused with a time, and accepted later.
#[test]
fn a_locked_ledger_refuses_work_until_it_is_free() {
    let gateway = Gateway::new().plugin("echo").start();
    let path = gateway.path("ductile.db");
    let (locked, is_locked) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        use sqlx::{ConnectOptions, Connection};
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(path)
                .busy_timeout(std::time::Duration::from_secs(5));
            let mut connection = options.connect().await.expect("opens");
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("locked");
            locked.send(()).expect("told");
            released.recv().expect("released");
            sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("unlocked");
            connection.close().await.expect("closed");
        });
    });
    is_locked.recv().expect("locked");
    let response = gateway.request("POST", "/plugin/echo/poll", Some("{}"));
    assert_eq!(response.status, 503, "{}", response.body);
    assert!(response.head.to_ascii_lowercase().contains("retry-after"), "{}", response.head);
    release.send(()).expect("told");
    holder.join().expect("ended");
    let id = gateway.until_some("work is accepted again", |g| {
        let response = g.request("POST", "/plugin/echo/poll", Some("{}"));
        (response.status == 202).then(|| response.json()["job_id"].as_str().expect("an id").to_owned())
    });
    assert_eq!(gateway.finished(&id)["status"], "succeeded");
}
