//! A file system that is full or read-only is a state that the gateway names, not a crash.
//!
//! The tests mount a file system of their own over the gateway's directory; where that is not allowed they say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::Gateway;

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

/// Promise 9: with a full disk work is refused with a time to come back, nothing that was accepted is lost, and work
/// goes on when there is room.
#[test]
fn a_full_disk_refuses_work_until_there_is_room() {
    let builder = Gateway::new().plugin("echo");
    let Some(mount) = Mount::over(builder.path(), "size=24m,mode=700") else { return };
    let mut gateway = builder.start();
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
