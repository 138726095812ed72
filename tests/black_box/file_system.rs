//! Space: a file system that is full or read-only is a state that the gateway names, not a crash; old rows go by themselves;
//! what takes the space is shown.
//!
//! The tests mount a file system of their own over the gateway's directory; where that is not allowed they say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::gateway::{Builder, Gateway};
use crate::pipelines::kept_events;

/// A tmpfs over a directory, unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    fn over(dir: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        eprintln!("skipped: this process may not mount a tmpfs");
        None
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").arg("-o").arg(format!("remount,{options}")).arg(&self.0).status();
        assert!(status.is_ok_and(|s| s.success()), "remounted with {options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // lazily: a failed test may still hold files
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Starts with that much as `state.min_free_space`.
fn guarded(builder: Builder, least: &str) -> Gateway {
    let mut gateway = builder.prepare();
    let path = gateway.path("config.yaml");
    let config = fs::read_to_string(&path).expect("the configuration");
    let config = config.replacen("state:\n", &format!("state:\n  min_free_space: {least}\n"), 1);
    fs::write(path, config).expect("the configuration");
    gateway.start();
    gateway
}

/// Promise 9: with a full disk work is refused with a time to come back, nothing that was accepted is lost, and work
/// goes on when there is room.
#[test]
fn a_full_disk_refuses_work_until_there_is_room() {
    let builder = Gateway::new().plugin("echo");
    let Some(mount) = Mount::over(builder.path(), "size=24m,mode=700") else { return };
    // the guard would say so before the disk is full
    let mut gateway = guarded(builder, "0");
    let first = gateway.enqueue("echo", "poll", r#"{"payload":{"message":"before"}}"#);
    assert_eq!(gateway.finished(&first)["status"], "succeeded");
    std::fs::write(gateway.path("ballast"), vec![0_u8; 64 << 20]).expect_err("the disk is full");
    let body = format!(r#"{{"payload":{{"message":"{}"}}}}"#, "x".repeat(20_000));
    let mut accepted = Vec::new();
    let refused = gateway.until_some("work is refused", |g| {
        let response = g.request("POST", "/plugin/echo/poll", Some(&body));
        if response.status == 202 {
            return None;
        }
        Some(response)
    });
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after"), "{}", refused.head);
    assert!(refused.body.contains("no space"), "{}", refused.body);
    assert_eq!(gateway.request("GET", "/healthz", None).status, 200, "it lives");
    mount.remount("size=96m");
    gateway.until("work is accepted again", |g| {
        let response = g.request("POST", "/plugin/echo/poll", Some(&body));
        if response.status != 202 {
            return None;
        }
        accepted.push(response.json()["job_id"].as_str().expect("an id").to_owned());
        Some(())
    });
    gateway.until("every job that was accepted ends", |g| {
        (g.sql_one("SELECT count(*) FROM job_queue WHERE status <> 'succeeded'") == "0").then_some(())
    });
    assert_eq!(gateway.finished(&accepted[0])["status"], "succeeded");
    assert_eq!(gateway.stop(), 0);
}

/// Promise 9: before the disk is full, intake stops with a reason and a time to come back, also for a gateway that starts
/// so; what runs ends, what makes no work goes on, and intake resumes by itself.
#[test]
fn too_little_space_stops_intake_until_there_is_more() {
    let waits = "read -r go < \"$DUCTILE_TEST_DIR/gate\"\nprintf '{\"status\":\"ok\"}'\n";
    let pipeline = "pipelines:\n  - name: greet\n    on: somebody.came\n    steps:\n      - uses: echo.poll\n";
    let builder = Gateway::new()
        .plugin("echo")
        .script_with("waits", waits, "    env_passthrough: [DUCTILE_TEST_DIR]\n")
        .wiring(pipeline);
    let dir = builder.path().to_owned();
    // the plugin's files lie in the directory that the mount covers
    let plugins = tempfile::tempdir().expect("a directory");
    let aside = plugins.path().join("plugins");
    fs::rename(dir.join("plugins"), &aside).expect("put aside");
    let Some(_mount) = Mount::over(&dir, "size=96m,mode=700") else { return };
    let copied = Command::new("cp").arg("-a").arg(&aside).arg(&dir).status();
    assert!(copied.is_ok_and(|status| status.success()), "copied");
    let mut gateway = guarded(builder.env("DUCTILE_TEST_DIR", dir.display().to_string()), "32MB");
    nix::unistd::mkfifo(&gateway.path("gate"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let done = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&done);
    let running = gateway.enqueue("waits", "poll", "{}");
    gateway.until("it runs", |g| (g.job(&running)["status"] == "running").then_some(()));

    let ballast = gateway.path("ballast");
    fs::write(&ballast, vec![1_u8; 70 << 20]).expect("there is room for it");
    let refused = gateway.until_some("work is refused", |g| {
        let response = g.request("POST", "/plugin/echo/poll", Some("{}"));
        (response.status != 202).then_some(response)
    });
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"unavailable".into()), "{}", refused.body);
    assert!(refused.head.to_ascii_lowercase().contains("retry-after: 30"), "{}", refused.head);
    for word in ["min_free_space (32.0 MB)", "are free on the file system of", "resumes by itself at 35.2 MB"] {
        assert!(refused.body.contains(word), "{word}: {}", refused.body);
    }
    let replay = format!("/job/{done}/replay");
    for path in ["/pipeline/greet", &replay] {
        assert_eq!(gateway.request("POST", path, Some("{}")).status, 503, "{path}");
    }
    // what makes no work goes on, and what runs ends
    for path in ["/system/pause", "/system/resume"] {
        assert_eq!(gateway.request("POST", path, None).status, 200, "{path}");
    }
    assert_eq!(gateway.get("/healthz")["status"], "degraded");
    let output = gateway.cli(&["system", "status"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("no new work is taken in"), "{told}");
    let storage = gateway.cli_json(&["system", "storage", "--json"]);
    assert!(storage["intake_stopped"].as_str().is_some_and(|why| why.contains("min_free_space")), "{storage}");
    assert!(storage["disk_free_bytes"].as_u64() < storage["min_free_bytes"].as_u64(), "{storage}");
    fs::write(gateway.path("gate"), "go\n").expect("let go");
    assert_eq!(gateway.finished(&running)["status"], "succeeded");
    let cancelled = gateway.request("POST", &format!("/job/{done}/cancel"), Some("{}"));
    assert_eq!(cancelled.json()["code"], "already_terminal", "it was looked at, not refused");

    // a gateway that starts so begins stopped
    assert_eq!(gateway.stop(), 0);
    gateway.start();
    assert_eq!(gateway.request("POST", "/plugin/echo/poll", Some("{}")).status, 503);
    let stopped = kept_events(&gateway, "intake.stopped", 1);
    assert!(stopped[0]["free_bytes"].as_u64() < stopped[0]["min_free_bytes"].as_u64(), "{stopped:?}");
    fs::remove_file(&ballast).expect("removed");
    // nobody brings work meanwhile
    gateway.until("intake resumes by itself", |g| g.get("/system/storage")["intake_stopped"].is_null().then_some(()));
    assert_eq!(gateway.get("/healthz")["status"], "ok");
    assert_eq!(kept_events(&gateway, "intake.resumed", 1).len(), 1);
    gateway.finished(&gateway.enqueue("echo", "poll", "{}"));
    assert_eq!(gateway.stop(), 0);
}

/// `system storage` reads at once what the gateway answers, and the file when none runs.
#[test]
fn the_storage_of_a_ledger_is_shown_with_and_without_a_gateway() {
    let mut gateway = Gateway::new().plugin("echo").start();
    for _ in 0..3 {
        gateway.finished(&gateway.enqueue("echo", "poll", "{}"));
    }
    let rows = |storage: &Value, table: &str| {
        let tables = storage["tables"].as_array().expect("a list");
        tables.iter().find(|t| t["table"] == table).map_or(Value::Null, |t| t["rows"].clone())
    };
    gateway.until("the first sample is taken", |g| {
        (g.sql_one("SELECT count(*) FROM storage_samples") != "0").then_some(())
    });
    let live = gateway.cli_json(&["system", "storage", "--json"]);
    assert_eq!((rows(&live, "job_log"), rows(&live, "job_transitions")), (3.into(), 9.into()), "{live}");
    assert_eq!((&live["is_complete"], &live["min_free_bytes"]), (&true.into(), &(64 << 20).into()));
    let sum: u64 = live["tables"].as_array().expect("a list").iter().filter_map(|t| t["bytes"].as_u64()).sum();
    let used = live["file_bytes"].as_u64().expect("a size") - live["free_bytes"].as_u64().expect("a size");
    assert!(sum <= used && used - sum <= 64 << 10, "{sum} of {used}: what is left are the schema and maps");
    let text = gateway.cli(&["system", "storage"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for word in ["TABLE", "job_log", "30d", "intake stops below 64.0 MB", "the write-ahead log has"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(gateway.stop(), 0);
    let offline = gateway.cli_json(&["system", "storage", "--json"]);
    assert_eq!(rows(&offline, "job_log"), 3, "{offline}");
}

/// QUE-31, OPS-13: an ended job leaves the queue's table at the first tick behind its retention, and its log stays for
/// its own; what has not ended stays.
#[test]
fn ended_jobs_leave_the_queue_and_then_the_log() {
    let mut gateway = Gateway::new()
        .plugin("echo")
        .script("waits", "exec sleep 300")
        .service(
            "  max_workers: 2\n  dedupe_ttl: 1s\n  job_queue_retention: 2s\n  job_log_retention: 8s\n  job_transitions_retention: 8s\n",
        )
        .start();
    let waits = gateway.enqueue("waits", "poll", "{}");
    let job = gateway.enqueue("echo", "poll", "{}");
    gateway.finished(&job);
    let count = |g: &Gateway, table: &str| {
        let key = if table == "job_queue" { "id" } else { "job_id" };
        g.sql_one(&format!("SELECT count(*) FROM {table} WHERE {key} = '{job}'"))
    };
    gateway.until("the queue's row is gone", |g| (count(g, "job_queue") == "0").then_some(()));
    let shown = gateway.job(&job);
    assert_eq!((&shown["pruned"], &shown["status"]), (&true.into(), &"succeeded".into()), "the log tells of it still");
    gateway.until("the log's rows are gone", |g| (count(g, "job_log") == "0").then_some(()));
    // the newest of all stays, so that their numbers go on from it
    gateway.until("the transitions are gone", |g| (count(g, "job_transitions") == "1").then_some(()));
    assert_eq!(gateway.request("GET", &format!("/job/{job}"), None).status, 404);
    assert_eq!(gateway.job(&waits)["status"], "running");
    assert_eq!(gateway.request("POST", &format!("/job/{waits}/cancel"), Some("{}")).status, 202);
    gateway.finished(&waits);
    assert_eq!(gateway.stop(), 0);
}

/// A read-only file system is named at the start, with the next step.
#[test]
fn a_read_only_file_system_is_named() {
    let builder = Gateway::new().plugin("echo");
    let Some(mount) = Mount::over(builder.path(), "size=24m,mode=700") else { return };
    let mut gateway = builder.start();
    assert_eq!(gateway.stop(), 0);
    mount.remount("ro");
    let output = Command::new(env!("CARGO_BIN_EXE_ductile"))
        .args(["system", "start", "--config"])
        .arg(gateway.path("config.yaml"))
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("ead-only"), "{}: {text}", output.status);
    assert!(!text.contains("panicked"), "{text}");
}

/// A control socket on which something else listens is named, and left to it.
#[test]
fn a_control_socket_in_use_is_named() {
    let mut gateway = Gateway::new().plugin("echo").prepare();
    let path = gateway.path("ductile.sock");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    gateway.spawn();
    assert_ne!(gateway.wait_exit(), 0);
    let logs = gateway.logs();
    assert!(logs.contains("ductile.sock") && !logs.contains("panicked"), "{logs}");
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "the other still listens");
    drop(other);
}
