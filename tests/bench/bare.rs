//! The limit: spawn, feed, read, reap, and nothing else.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A request as the gateway sends it: `sh` reads it byte by byte, so its length counts.
const REQUEST: &str = r#"{"protocol":2,"job_id":"01890f3e-7c5a-7000-8000-000000000000","command":"poll","config":{},"state":{},"context":{"ductile_plugin":"tiny"},"deadline_at":"2026-01-01T00:00:00.000Z"}"#;

/// Jobs a second with so many plain threads.
pub(crate) fn rate(program: &Path, workers: usize, jobs: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < jobs {
                    one(program);
                }
            });
        }
    });
    jobs as f64 / began.elapsed().as_secs_f64()
}

fn one(program: &Path) {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the plugin starts");
    child.stdin.take().expect("piped").write_all(REQUEST.as_bytes()).expect("fed");
    let mut answer = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut answer).expect("read");
    let status = child.wait().expect("reaped");
    assert!(status.success() && answer.starts_with(b"{"), "the plugin answered {answer:?}");
}
