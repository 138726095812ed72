//! The harness: a gateway in this process, with its own directory, ended with the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ductile_actors::{BootOptions, Handle, Numbers, OnReload, Running, Shared, boot};
use ductile_api::gateway::{Gateway as _, Refusal, Submission, Submitted};
use ductile_domain::ids::JobId;
use ductile_domain::version::Build;
use ductile_ledger::Clock;
use ductile_otp::{Backoff, Ctl, Intensity, Node, Phase};
use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

const BUILD: Build = Build { version: "0.0.0", commit: "unknown", built_at: "unknown" };

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the request says under `do` decides what the plugin does. Never forks: `exec` and builtins only. It notes its
/// pid per job, and an overlap when the attempt before it still lives.
const WORK: &str = r#"read -r request
mine="@DIR@/pids/$DUCTILE_JOB_ID"
before=
[ -e "$mine" ] && read -r before < "$mine"
[ -n "$before" ] && kill -0 "$before" 2>/dev/null && echo "$DUCTILE_JOB_ID $before $$" >> "@DIR@/overlaps"
echo $$ > "$mine"
case $request in
  *'"do":"error"'*) printf '{"status":"error","error":"asked to","retry":true}' ;;
  *'"do":"config"'*) exit 78 ;;
  *'"do":"slow"'*) printf '{"status":"ok"}'; exec sleep 0.05 ;;
  *'"do":"second"'*) printf '{"status":"ok"}'; exec sleep 1 ;;
  *'"do":"hang"'*) exec sleep 300 ;;
  *'"do":"stubborn"'*) trap '' TERM; exec sleep 300 ;;
  *'"do":"gate"'*) read -r go < "@DIR@/gate"; printf '{"status":"ok"}' ;;
  *) printf '{"status":"ok"}' ;;
esac
"#;

/// A step of a pipeline: keeps its request, and does what that says under `do`. It emits `step.done` when that says nothing.
const STEP: &str = r#"read -r request
printf '%s' "$request" > "@DIR@/requests/$DUCTILE_JOB_ID"
case $request in
  *'"do":"fail"'*) printf '{"status":"error","error":"asked to","retry":false}' ;;
  *'"do":"quiet"'*) printf '{"status":"ok","result":"said nothing"}' ;;
  *'"do":"two"'*) printf '{"status":"ok","events":[{"type":"step.done","payload":{"n":1}},{"type":"step.done","payload":{"n":2}}]}' ;;
  *'"do":"again"'*) printf '{"status":"ok","events":[{"type":"once.more","payload":{"do":"again"}}]}' ;;
  *'"do":"gate"'*) read -r go < "@DIR@/gate"; printf '{"status":"ok","events":[{"type":"step.done","payload":{"n":7.10}}]}' ;;
  *'"do":"slow"'*) printf '{"status":"ok","events":[{"type":"step.done","payload":{"n":7.10}}]}'; exec sleep 0.02 ;;
  *) printf '{"status":"ok","result":"done","events":[{"type":"step.done","payload":{"n":7.10}}]}' ;;
esac
"#;

/// A gateway that runs in this process.
pub(crate) struct Gateway {
    dir: tempfile::TempDir,
    running: Option<Running>,
    handle: Handle,
    sql: SqlitePool,
}

/// Numbers under which nobody ever gives up.
pub(crate) fn patient_numbers() -> Numbers {
    let often = Intensity::new(1_000_000, Duration::from_secs(60));
    Numbers { workers: often, execution: often, doors: often, root: often, backoff: Backoff::none() }
}

impl Gateway {
    /// Two plugins of the same script, `work` and `other`, each with `parallelism` and `max_workers` as given.
    pub(crate) async fn start(max_workers: u32, numbers: Numbers) -> Self {
        Self::start_with(max_workers, max_workers, "", numbers).await
    }

    /// `api` holds lines under `api:`, indented by two.
    pub(crate) async fn start_with(max_workers: u32, parallelism: u32, api: &str, numbers: Numbers) -> Self {
        Self::start_configured(max_workers, parallelism, api, "", numbers).await
    }

    /// `more` holds lines at the end of the configuration: entries under `plugins:`, indented by two, and sections.
    pub(crate) async fn start_configured(
        max_workers: u32,
        parallelism: u32,
        api: &str,
        more: &str,
        numbers: Numbers,
    ) -> Self {
        let dir = Self::prepare(max_workers, parallelism, api, more);
        Self::run(dir, numbers, Clock::default()).await
    }

    /// Eight workers, by that clock.
    pub(crate) async fn start_by(clock: Clock, more: &str) -> Self {
        Self::run(Self::prepare(8, 8, "", more), patient_numbers(), clock).await
    }

    fn prepare(max_workers: u32, parallelism: u32, api: &str, more: &str) -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("ductile-tree-").tempdir().expect("a temporary directory");
        for name in ["pids", "requests"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        nix::unistd::mkfifo(&dir.path().join("gate"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for name in ["work", "other"] {
            plugin(dir.path(), name, WORK);
        }
        plugin(dir.path(), "step", STEP);
        let api = if api.is_empty() { "  enabled: false\n" } else { api };
        let mut config = format!(
            "plugin_roots:\n  - {}\nservice:\n  tick_interval: 1s\n  max_workers: {max_workers}\n  drain_timeout: 1s\napi:\n{api}state:\n  \
             path: ./ductile.db\nplugins:\n",
            dir.path().join("plugins").display()
        );
        for name in ["work", "other"] {
            config.push_str(&format!(
                "  {name}:\n    enabled: true\n    parallelism: {parallelism}\n    retry:\n      max_attempts: 3\n      backoff_base: 20ms\n"
            ));
        }
        config.push_str(more);
        fs::write(dir.path().join("config.yaml"), config).expect("the configuration");
        dir
    }

    /// Starts what stands in the directory.
    async fn run(dir: tempfile::TempDir, numbers: Numbers, clock: Clock) -> Self {
        let path = dir.path().join("config.yaml");
        let loaded = ductile_config::load(&path, &|name| std::env::var(name).ok())
            .unwrap_or_else(|problems| panic!("the configuration loads: {problems:?}"));
        let options = BootOptions {
            config: loaded.config,
            build: BUILD,
            warnings: loaded.warnings,
            provenance: loaded.provenance,
            numbers,
            on_reload: OnReload::default(),
            clock,
        };
        let running = boot(options).await.expect("the gateway starts");
        let handle = running.handle();
        let options =
            SqliteConnectOptions::new().filename(dir.path().join("ductile.db")).busy_timeout(Duration::from_secs(5));
        let sql = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.expect("the ledger opens");
        Self { dir, running: Some(running), handle, sql }
    }

    /// Stops, and starts again in the same directory by that clock.
    pub(crate) async fn restarted_at(self, clock: Clock, meanwhile: impl FnOnce()) -> Self {
        let Self { dir, running, handle, sql } = self;
        sql.close().await;
        running.expect("the gateway runs").stop("it starts again").await;
        drop(handle);
        meanwhile();
        Self::run(dir, patient_numbers(), clock).await
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The gateway itself, for a test that ends it in its own way.
    pub(crate) fn take_running(&mut self) -> Running {
        self.running.take().expect("the gateway runs")
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    pub(crate) fn ctl(&self) -> Ctl {
        self.shared().tree.ctl()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One request as a door makes it.
    pub(crate) async fn submit(&self, plugin: &str, what: &str, dedupe_key: Option<&str>) -> Result<JobId, Refusal> {
        submit(&self.handle, plugin, what, dedupe_key).await
    }

    /// The same, repeated until it is accepted.
    pub(crate) async fn enqueue(&self, plugin: &str, what: &str) -> JobId {
        self.until("a job is accepted", async || self.submit(plugin, what, None).await.ok()).await
    }

    /// Waits for the job's end and answers its status.
    pub(crate) async fn finished(&self, job: JobId) -> String {
        self.until("the job has ended", async || {
            self.handle.wait(job, Duration::from_secs(1)).await;
            let status = self.shared().readers.status(job).await.ok()??;
            status.is_terminal().then(|| status.as_str().to_owned())
        })
        .await
    }

    /// Waits until a process of the job has begun, and answers its pid.
    pub(crate) async fn process_of(&self, job: JobId) -> u32 {
        let file = self.path("pids").join(job.to_string());
        self.until("the job's process runs", async || fs::read_to_string(&file).ok()?.trim().parse().ok()).await
    }

    /// First column of the first row, as text; `-` for NULL and for no row.
    pub(crate) async fn sql_one(&self, query: &str) -> String {
        self.sql(query).await.into_iter().next().and_then(|r| r.into_iter().next()).unwrap_or_else(|| "-".to_owned())
    }

    /// Lets the one plugin pass that waits at the gate.
    pub(crate) async fn open_gate(&self) {
        let gate = self.path("gate");
        // Opening a pipe for writing waits for its reader.
        tokio::task::spawn_blocking(move || fs::write(gate, "go\n")).await.expect("no panic").expect("the gate opens");
    }

    /// Rows of a query on the ledger's file, as text.
    pub(crate) async fn sql(&self, query: &str) -> Vec<Vec<String>> {
        let rows = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_all(&self.sql).await.expect("the query runs");
        rows.iter()
            .map(|row| {
                (0..row.len())
                    .map(|at| match row.try_get::<Option<String>, _>(at) {
                        Ok(text) => text.unwrap_or_else(|| "-".to_owned()),
                        Err(_) => row.get::<i64, _>(at).to_string(),
                    })
                    .collect()
            })
            .collect()
    }

    /// Waits for something that must happen.
    pub(crate) async fn until<T>(&self, what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
        self.until_within(PATIENCE, what, probe).await
    }

    pub(crate) async fn until_within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}; {}", self.account().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills an actor and waits until its next incarnation is up.
    pub(crate) async fn kill(&self, path: &str) {
        let before = self.shared().tree.node(path).expect("an actor").incarnation;
        assert!(self.ctl().kill(path), "{path} is not up");
        self.up_again(path, before).await;
    }

    pub(crate) async fn up_again(&self, path: &str, before: u64) {
        let is_new = |node: &Node| node.phase == Phase::Up && node.incarnation > before;
        let node = self.ctl().await_node(path, is_new, PATIENCE).await;
        assert!(node.is_ok(), "{path} did not come back: {node:?}");
    }

    pub(crate) fn incarnation(&self, path: &str) -> u64 {
        self.shared().tree.node(path).expect("an actor").incarnation
    }

    /// What stands where, for a test that failed.
    pub(crate) async fn account(&self) -> String {
        let rows = self.sql("SELECT status, count(*) FROM job_queue GROUP BY 1").await;
        let running = self.sql("SELECT id, plugin, claim_no, attempt, coalesce(next_retry_at, '') FROM job_queue WHERE status IN ('running', 'queued') LIMIT 10").await;
        let mut views = String::new();
        for path in ["root/exec_sup/reaper", "root/exec_sup/queue", "root/exec_sup/dispatcher", "root/api_sup/http"] {
            let view = self.shared().tree.inspect(path, Duration::from_secs(1)).await;
            views.push_str(&format!("\n{path}: {view:?}"));
        }
        format!(
            "rows {rows:?}, open {running:?}, processes {:?}{views}\n{}",
            self.plugin_processes(),
            self.handle.tree()
        )
    }

    /// Plugin processes of this gateway: their environment names its boot.
    pub(crate) fn plugin_processes(&self) -> Vec<u32> {
        let needle = format!("DUCTILE_BOOT_ID={}", self.shared().boot);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if let Ok(environ) = fs::read(entry.path().join("environ"))
                && environ.split(|b| *b == 0).any(|v| v == needle.as_bytes())
            {
                found.push(pid);
            }
        }
        found
    }

    /// Lines that plugins wrote when two attempts of a job overlapped.
    pub(crate) fn overlaps(&self) -> String {
        fs::read_to_string(self.path("overlaps")).unwrap_or_default()
    }

    /// Everything stops; answers the root's exit.
    pub(crate) async fn stop(mut self) -> ductile_otp::Exit {
        self.sql.close().await;
        let running = self.running.take().expect("the gateway runs");
        running.stop("the test is over").await
    }
}

/// One request as a door makes it.
pub(crate) async fn submit(
    handle: &Handle,
    plugin: &str,
    what: &str,
    dedupe_key: Option<&str>,
) -> Result<JobId, Refusal> {
    let payload = RawValue::from_string(format!("{{\"do\":\"{what}\"}}")).expect("JSON");
    let submission = Submission {
        plugin: plugin.into(),
        command: "poll".into(),
        payload: Some(payload),
        submitted_by: "api",
        requested_by: "a test".to_owned(),
        dedupe_key: dedupe_key.map(str::to_owned),
        dedupe_in_flight: false,
        context: None,
        replay_of: None,
        is_routed: true,
    };
    match handle.submit(submission).await? {
        Submitted::Accepted(job) | Submitted::Duplicate(job, _) => Ok(job),
    }
}

fn plugin(dir: &Path, name: &str, script: &str) {
    let home = dir.join("plugins").join(name);
    fs::create_dir_all(&home).expect("the plugin's directory");
    let manifest = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: 1.0.0\nprotocol: 2\nentrypoint: run.sh\n\
         concurrency_safe: true\ncommands:\n  - {{name: poll, type: read}}\n  - {{name: handle, type: write}}\n  - {{name: sync, type: write}}\n"
    );
    fs::write(home.join("manifest.yaml"), manifest).expect("the manifest");
    let script = script.replace("@DIR@", &dir.display().to_string());
    fs::write(home.join("run.sh"), format!("#!/bin/sh\n{script}")).expect("the script");
    fs::set_permissions(home.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("an executable");
}

/// Every path of a tree, the root first.
pub(crate) fn paths(node: &ductile_otp::Node, into: &mut Vec<String>) {
    into.push(node.path.to_string());
    for child in &node.children {
        paths(child, into);
    }
}
