//! The harness: a gateway of its own per test, in a temporary directory, ended with the test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// What a test says about its gateway before it starts.
pub(crate) struct Builder {
    dir: tempfile::TempDir,
    plugins: Vec<(String, String)>,
    service: String,
    api: String,
    wiring: String,
    env: Vec<(String, String)>,
}

/// A gateway that runs, or ran.
pub(crate) struct Gateway {
    pub(crate) dir: tempfile::TempDir,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Builder {
    /// Adds a plugin of the repository's `plugins/` with extra keys of its entry.
    pub(crate) fn plugin_with(mut self, name: &str, keys: &str) -> Self {
        self.plugins.push((name.to_owned(), keys.to_owned()));
        self
    }

    pub(crate) fn plugin(self, name: &str) -> Self {
        self.plugin_with(name, "")
    }

    /// Adds a plugin whose entrypoint is this `sh` script; it declares `poll`, `handle` and `health`.
    pub(crate) fn script(self, name: &str, script: &str) -> Self {
        self.script_with(name, script, "")
    }

    pub(crate) fn script_with(self, name: &str, script: &str, keys: &str) -> Self {
        let dir = self.dir.path().join("plugins").join(name);
        fs::create_dir_all(&dir).expect("the plugin's directory");
        let manifest = format!(
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: 1.0.0\nprotocol: 2\n\
             entrypoint: run.sh\ncommands:\n  - {{name: poll, type: read}}\n  - {{name: handle, type: write}}\n  - {{name: health, type: read}}\n"
        );
        fs::write(dir.join("manifest.yaml"), manifest).expect("the manifest");
        fs::write(dir.join("run.sh"), format!("#!/bin/sh\n{script}")).expect("the script");
        fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("an executable");
        self.plugin_with(name, keys)
    }

    /// Lines under `service:`, indented by two.
    pub(crate) fn service(mut self, lines: &str) -> Self {
        self.service.push_str(lines);
        self
    }

    /// Lines under `api:`, indented by two; the default switches the TCP door off.
    pub(crate) fn api(mut self, lines: &str) -> Self {
        self.api = lines.to_owned();
        self
    }

    /// What follows the plugins in the configuration: `pipelines:`, `routes:` and what they need, as written there.
    pub(crate) fn wiring(mut self, text: &str) -> Self {
        self.wiring.push_str(text);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The directory that the gateway will have.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the configuration and starts nothing.
    pub(crate) fn prepare(self) -> Gateway {
        let mut config = String::from("plugin_roots:\n");
        for root in [self.dir.path().join("plugins"), Path::new(REPOSITORY).join("plugins")] {
            if root.is_dir() {
                config.push_str(&format!("  - {}\n", root.display()));
            }
        }
        config.push_str(&format!("service:\n  tick_interval: 1s\n{}api:\n{}", self.service, self.api));
        config.push_str("state:\n  path: ./ductile.db\n");
        config.push_str("plugins:\n");
        for (name, keys) in &self.plugins {
            config.push_str(&format!("  {name}:\n    enabled: true\n{keys}"));
        }
        if self.plugins.is_empty() {
            config.push_str("  {}\n");
        }
        config.push_str(&self.wiring);
        fs::write(self.dir.path().join("config.yaml"), config).expect("the configuration");
        Gateway { dir: self.dir, env: self.env, child: None }
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) fn start(self) -> Gateway {
        let mut gateway = self.prepare();
        gateway.start();
        gateway
    }
}

impl Gateway {
    #[expect(clippy::new_ret_no_self, reason = "reads as the sentence that codebase.md asks for")]
    pub(crate) fn new() -> Builder {
        Builder {
            dir: tempfile::Builder::new().prefix("ductile-test-").tempdir().expect("a temporary directory"),
            plugins: Vec::new(),
            service: String::new(),
            api: "  enabled: false\n".to_owned(),
            wiring: String::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ductile"));
        command.env("DUCTILE_CONFIG_DIR", self.dir.path()).envs(self.env.iter().cloned());
        command
    }

    fn log(&self) -> Stdio {
        let file =
            fs::OpenOptions::new().create(true).append(true).open(self.path("gateway.log")).expect("the log file");
        file.into()
    }

    /// Starts the process without waiting for it to be ready.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "the gateway runs already");
        let child = self
            .command()
            .args(["system", "start"])
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log())
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    pub(crate) fn start(&mut self) {
        self.spawn();
        self.until("the gateway is ready", |g| {
            if let Some(status) = g.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the gateway ended with {status}:\n{}", g.logs());
            }
            g.try_request("GET", "/healthz", None).is_some_and(|r| r.status == 200).then_some(())
        });
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("the gateway runs").id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("the gateway gets a signal");
    }

    /// Ends the process as a power cut would, and reaps it.
    pub(crate) fn kill_nine(&mut self) {
        let mut child = self.child.take().expect("the gateway runs");
        child.kill().expect("SIGKILL");
        child.wait().expect("reaped");
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|c| c.try_wait().expect("a child of ours").is_some())
    }

    /// Starts from now on without that variable.
    pub(crate) fn forget_env(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// Starts from now on with that variable.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.forget_env(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Waits for the process's own end and answers its exit code.
    pub(crate) fn wait_exit(&mut self) -> i32 {
        let mut child = self.child.take().expect("the gateway was started");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return status.code().unwrap_or(-1);
            }
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the gateway did not end:\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait_exit()
    }

    pub(crate) fn logs(&self) -> String {
        fs::read_to_string(self.path("gateway.log")).unwrap_or_default()
    }

    /// Runs the binary as a user would, and waits for it.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.command().args(args).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// The same, which must succeed and print JSON.
    pub(crate) fn cli_json(&self, args: &[&str]) -> Value {
        let output = self.cli(args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}): {text}"))
    }

    /// A request over the control socket; `None` when nobody answers.
    pub(crate) fn try_request(&self, method: &str, path: &str, body: Option<&str>) -> Option<Response> {
        self.request_within(Duration::from_secs(70), method, path, body).ok()
    }

    /// A request whose answer must come within `patience`; `WouldBlock` when it does not.
    pub(crate) fn request_within(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> std::io::Result<Response> {
        let mut stream = UnixStream::connect(self.path("ductile.sock"))?;
        stream.set_read_timeout(Some(patience))?;
        let body = body.unwrap_or("");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // A refusal may come before the whole body was taken.
        let sent = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        match Response::parse(&answer) {
            Some(response) => Ok(response),
            None => sent.and(read).and(Err(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        self.try_request(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}:\n{}", self.logs()))
    }

    /// Live events from a transition on, until there are enough.
    pub(crate) fn events_since(&self, transition: i64, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        use std::io::BufRead;
        let mut stream = UnixStream::connect(self.path("ductile.sock")).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let request = format!("GET /events?since={transition} HTTP/1.1\r\nHost: ductile\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        for line in std::io::BufReader::new(stream).lines() {
            let line = line.expect("an event in time");
            // Comments keep the connection alive for ever.
            assert!(Instant::now() < deadline, "waited in vain for an event: {seen:?}");
            if let Some(data) = line.strip_prefix("data:") {
                seen.push(serde_json::from_str(data).expect("JSON"));
                if enough(&seen) {
                    break;
                }
            }
        }
        seen
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let response = self.request("GET", path, None);
        assert_eq!(response.status, 200, "GET {path}: {}", response.body);
        response.json()
    }

    /// Enqueues a job and answers its id.
    pub(crate) fn enqueue(&self, plugin: &str, command: &str, payload: &str) -> String {
        let response =
            self.request("POST", &format!("/plugin/{plugin}/{command}"), Some(&format!("{{\"payload\":{payload}}}")));
        assert_eq!(response.status, 202, "{}", response.body);
        response.json()["job_id"].as_str().expect("a job id").to_owned()
    }

    pub(crate) fn job(&self, id: &str) -> Value {
        self.get(&format!("/job/{id}"))
    }

    /// Waits for the job's end.
    pub(crate) fn finished(&self, id: &str) -> Value {
        self.until_some("the job has ended", |g| {
            let job = g.get(&format!("/job/{id}?wait=10s"));
            matches!(job["status"].as_str(), Some("succeeded" | "failed" | "dead" | "skipped")).then_some(job)
        })
    }

    /// Rows of a query on the ledger's file, as text; NULL is `-`.
    pub(crate) fn sql(&self, query: &str) -> Vec<Vec<String>> {
        sql(&self.path("ductile.db"), query)
    }

    pub(crate) fn sql_one(&self, query: &str) -> String {
        self.sql(query).into_iter().next().and_then(|r| r.into_iter().next()).unwrap_or_else(|| "-".to_owned())
    }

    pub(crate) fn until(&mut self, what: &str, mut probe: impl FnMut(&mut Self) -> Option<()>) {
        let deadline = Instant::now() + PATIENCE;
        while probe(self).is_none() {
            assert!(Instant::now() < deadline, "waited in vain until {what}:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn until_some<T>(&self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Whatever a killed gateway left is this test's to end.
        for pid in plugin_processes(self.dir.path()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- gateway log\n{}", self.logs());
        }
    }
}

/// Plugin processes of this test: they carry its directory by `env_passthrough`, and a boot id from the gateway.
pub(crate) fn plugin_processes(dir: &Path) -> Vec<i32> {
    let needle = format!("DUCTILE_TEST_DIR={}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Ok(environ) = fs::read(entry.path().join("environ"))
            && environ.split(|b| *b == 0).any(|v| v == needle.as_bytes())
            && environ.split(|b| *b == 0).any(|v| v.starts_with(b"DUCTILE_BOOT_ID="))
        {
            found.push(pid);
        }
    }
    found
}

/// Rows of a query on a SQLite file.
pub(crate) fn sql(path: &Path, query: &str) -> Vec<Vec<String>> {
    use sqlx::{Column, ConnectOptions, Row, TypeInfo, ValueRef};
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
        let mut connection = options.connect().await.expect("the ledger opens");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_all(&mut connection)
            .await
            .expect("the query runs");
        rows.iter()
            .map(|row| {
                row.columns()
                    .iter()
                    .map(|c| {
                        let value = row.try_get_raw(c.ordinal()).expect("a column");
                        match value.type_info().name() {
                            // A column's type says nothing of a row that has none.
                            _ if value.is_null() => "-".to_owned(),
                            "INTEGER" => row.get::<i64, _>(c.ordinal()).to_string(),
                            "REAL" => row.get::<f64, _>(c.ordinal()).to_string(),
                            _ => row.get::<String, _>(c.ordinal()),
                        }
                    })
                    .collect()
            })
            .collect()
    })
}

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Some(Self { status, head: head.to_owned(), body })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.body))
    }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}
