//! Sleeps: shorter than its deadline, longer, and without listening to SIGTERM's default in a child of its own.
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

fn main() {
    let mut request = String::new();
    std::io::stdin().read_to_string(&mut request).expect("a request");
    if request.contains("\"command\":\"hang\"") {
        println!("{{\"status\":\"ok\",\"result\":\"too early\"}}");
        std::thread::sleep(Duration::from_secs(600));
    } else if request.contains("\"command\":\"stubborn\"") {
        let child = Command::new("sh").args(["-c", "trap '' TERM; sleep 600 & wait; sleep 600"]).stdin(Stdio::null()).spawn();
        std::thread::sleep(Duration::from_secs(600));
        drop(child);
    }
    std::thread::sleep(Duration::from_millis(50));
    println!("{{\"status\":\"ok\",\"result\":\"slept\"}}");
}
