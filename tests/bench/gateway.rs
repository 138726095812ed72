//! A real gateway under measurement: the release binary with a configuration of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Client};
use crate::plugins::{Built, Kind};
use crate::report::Cost;

/// How the gateway is prepared.
#[derive(Default)]
pub(crate) struct Setup {
    /// Accept work and run none.
    pub(crate) paused: bool,
    /// A ledger to begin with; copied.
    pub(crate) ledger: Option<PathBuf>,
    /// Directory of the ledger instead of the disk's.
    pub(crate) state_dir: Option<PathBuf>,
    /// Schedules of the static plugin: the items of a flow list.
    pub(crate) schedules: String,
}

/// It runs until it is dropped.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: String,
    /// From the spawn to the first answer.
    pub(crate) ready_ms: f64,
    home: tempfile::TempDir,
}

pub(crate) fn start(binary: &Path, built: &Built, workers: usize, setup: Setup) -> Gateway {
    let home = tempfile::Builder::new().prefix("gateway-").tempdir_in(&built.dir).expect("a directory");
    let state_dir = setup.state_dir.clone().unwrap_or_else(|| home.path().to_owned());
    fs::create_dir_all(&state_dir).expect("the ledger's directory");
    let state = state_dir.join("ductile.db");
    if let Some(ledger) = &setup.ledger {
        fs::copy(ledger, &state).expect("the prepared ledger");
    }
    let address = free_address();
    fs::write(home.path().join("config.yaml"), config(built, workers, &address, &state, &setup.schedules))
        .expect("the configuration");
    let log = fs::File::create(home.path().join("log")).expect("the log");
    let began = Instant::now();
    let child = Command::new(binary)
        .args(["system", "start", "--config"])
        .arg(home.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log"))
        .stderr(log)
        .spawn()
        .expect("the gateway starts");
    let mut gateway = Gateway { child, address, ready_ms: 0.0, home };
    gateway.await_ready();
    gateway.ready_ms = began.elapsed().as_secs_f64() * 1e3;
    if setup.paused {
        Client::connect(&gateway.address).send("POST", "/system/pause", "");
    }
    gateway
}

fn config(built: &Built, workers: usize, address: &str, state: &Path, schedules: &str) -> String {
    format!(
        "plugin_roots: [{root}]\nservice: {{max_workers: {workers}, log_level: warn}}\nstate: {{path: {state}}}\n\
         api:\n  enabled: true\n  listen: {address}\n  auth:\n    tokens:\n      - {{token: {token}, scopes: ['*']}}\n\
         plugins:\n  tiny: {{enabled: true, schedules: [{schedules}]}}\n  shell: {{enabled: true}}\n  python: {{enabled: true}}\n  capped: {{enabled: true, parallelism: 1, timeout: 1h}}\n",
        root = built.root().display(),
        state = state.display(),
        token = client::TOKEN,
    )
}

pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

/// A directory on tmpfs, if there is one.
pub(crate) fn tmpfs() -> Option<PathBuf> {
    let dir = Path::new("/dev/shm").join(format!("ductile-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).ok().map(|()| dir)
}

impl Gateway {
    fn await_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if std::net::TcpStream::connect(&self.address).is_ok() {
                let (status, _) = Client::connect(&self.address).send("GET", "/healthz", "");
                if status == 200 {
                    return;
                }
            }
            let ended = self.child.try_wait().expect("a child of ours");
            let log = || fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the gateway did not start:\n{}", log());
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Jobs a second from the resume of a paused gateway to the end of the last of its jobs, and what it cost.
    pub(crate) fn drain(&self, kind: Kind, jobs: usize) -> (f64, Cost) {
        let mut control = Client::connect(&self.address);
        control.send("POST", "/system/pause", "");
        client::enqueue_all(&self.address, kind, jobs);
        let before = self.cpu();
        let began = Instant::now();
        control.send("POST", "/system/resume", "");
        let ended = self.await_done(&mut control, kind, jobs);
        (jobs as f64 / (ended - began).as_secs_f64(), Cost::between(&before, &self.cpu(), jobs))
    }

    /// The same with the jobs arriving from 16 clients meanwhile.
    pub(crate) fn drain_while_arriving(&self, kind: Kind, jobs: usize) -> (f64, Cost) {
        let mut control = Client::connect(&self.address);
        let before = self.cpu();
        let began = Instant::now();
        client::enqueue_all(&self.address, kind, jobs);
        let ended = self.await_done(&mut control, kind, jobs);
        (jobs as f64 / (ended - began).as_secs_f64(), Cost::between(&before, &self.cpu(), jobs))
    }

    /// Waits for the end of the newest job first, which costs nothing, and looks for stragglers then.
    fn await_done(&self, control: &mut Client, kind: Kind, jobs: usize) -> Instant {
        let list = |control: &mut Client, status: &str| -> serde_json::Value {
            let (_, body) = control.send("GET", &format!("/jobs?status={status}&plugin={}&limit=1", kind.name()), "");
            serde_json::from_slice(&body).expect("JSON")
        };
        let deadline = Instant::now() + Duration::from_secs(300);
        for status in ["queued", "running"] {
            loop {
                let waiting = list(control, status);
                let Some(id) = waiting["jobs"][0]["job_id"].as_str() else { break };
                assert!(Instant::now() < deadline, "the jobs did not end: {waiting}");
                control.send("GET", &format!("/job/{id}?wait=30s"), "");
            }
        }
        let seen = Instant::now();
        let done = list(control, "succeeded");
        assert_eq!(done["total"].as_u64(), Some(jobs as u64), "not every job succeeded: {done}");
        seen
    }

    /// Median of trigger to readable result, one after the other.
    pub(crate) fn latency_ms(&self, samples: usize) -> f64 {
        let mut client = Client::connect(&self.address);
        let mut times: Vec<f64> = (0..samples)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(2));
                let began = Instant::now();
                let id = client.enqueue(Kind::Static);
                let (status, body) = client.send("GET", &format!("/job/{id}?wait=5s"), "");
                assert!(
                    status == 200 && body.windows(9).any(|w| w == b"succeeded"),
                    "{}",
                    String::from_utf8_lossy(&body)
                );
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
    }

    /// CPU µs by kind of thread, and of the plugins that were reaped.
    pub(crate) fn cpu(&self) -> BTreeMap<String, f64> {
        let mut by_thread = BTreeMap::new();
        let process = format!("/proc/{}", self.child.id());
        for task in fs::read_dir(format!("{process}/task")).expect("its threads").flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            // Nanoseconds on the CPU, run by run: finer than the ticks of `stat`.
            let time = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ns: f64 = time.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
            *by_thread.entry(name).or_insert(0.0) += ns / 1e3;
        }
        let stat = fs::read_to_string(format!("{process}/stat")).expect("its times");
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: f64 = fields[13].parse::<f64>().unwrap_or(0.0) + fields[14].parse::<f64>().unwrap_or(0.0);
        by_thread.insert("(plugins)".to_owned(), ticks * 1e4);
        by_thread
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        std::thread::sleep(Duration::from_millis(20));
        // A second signal ends the wait for a plugin that sleeps.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().is_ok_and(|s| s.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
