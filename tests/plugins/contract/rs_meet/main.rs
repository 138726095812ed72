//! Two that must run at the same time: each leaves a file and waits for the other's. And one that must run alone.
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn field(request: &str, name: &str) -> String {
    let key = format!("\"{name}\":\"");
    let start = request.find(&key).expect("configured") + key.len();
    request[start..].split('"').next().expect("a text").to_owned()
}

fn main() {
    let mut request = String::new();
    std::io::stdin().read_to_string(&mut request).expect("a request");
    let dir = PathBuf::from(field(&request, "dir"));
    if request.contains("\"command\":\"alone\"") {
        let lock = dir.join(format!("{}.lock", field(&request, "own")));
        if fs::OpenOptions::new().write(true).create_new(true).open(&lock).is_err() {
            println!("{{\"status\":\"error\",\"error\":\"not alone\",\"retry\":false}}");
            return;
        }
        std::thread::sleep(Duration::from_millis(60));
        fs::remove_file(&lock).expect("our own lock");
        println!("{{\"status\":\"ok\",\"result\":\"alone\"}}");
        return;
    }
    fs::write(dir.join(field(&request, "own")), "here").expect("a file");
    let other = dir.join(field(&request, "other"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !other.exists() {
        if Instant::now() > deadline {
            println!("{{\"status\":\"error\",\"error\":\"nobody came\",\"retry\":false}}");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{{\"status\":\"ok\",\"result\":\"met\"}}");
}
