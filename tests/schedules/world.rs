//! The real gateway in this process, on a clock that stands still until it is moved.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ductile_actors::{BootOptions, Handle, Numbers, OnReload, Running, boot};
use ductile_api::gateway::Gateway as _;
use ductile_domain::time::{format, parse};
use ductile_domain::version::Build;
use ductile_ledger::{Clock, Hand};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use crate::reference::Dues;
use crate::script::{How, Segment, Spec, Time};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Their jobs are ended as soon as they are there, by cancelling them.
pub(crate) const ENDED: [&str; 2] = ["polite", "rude"];

/// Each plugin, its command, the policy of its schedules, and more keys of its entry. No job is run: dispatch is paused.
const PLUGINS: [(&str, &str, &str, &str); 5] = [
    ("all", "collect", "if_running: queue", ""),
    ("polite", "collect", "if_running: skip", ""),
    ("rude", "collect", "if_running: cancel", ""),
    ("held", "collect", "if_running: skip", ""),
    ("guarded", "poll", "if_running: queue", "    max_outstanding_polls: 3\n"),
];

pub(crate) struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    hand: Hand,
    running: Option<(Running, Handle)>,
    sql: SqlitePool,
    /// How often the clock was moved to the next tick.
    pub(crate) steps: usize,
}

impl World {
    /// Configured, and not started.
    pub(crate) fn new(specs: &[Spec], at: Time) -> Self {
        let dir = tempfile::Builder::new().prefix("ductile-year-").tempdir().expect("a temporary directory");
        let root = dir.path().join("plugins");
        let mut config = format!(
            "plugin_roots: [{}]\nservice:\n  tick_interval: 1d\n  timezone: UTC\n  drain_timeout: 1s\n  job_queue_retention: 1000d\n  \
             schedule_ticks_retention: 1000d\napi:\n  enabled: false\nstate:\n  path: ./ductile.db\n  durability: normal\nplugins:\n",
            root.display()
        );
        for (plugin, command, policy, keys) in PLUGINS {
            let home = root.join(plugin);
            fs::create_dir_all(&home).expect("the plugin's directory");
            let manifest = format!(
                "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {plugin}\nversion: 1.0.0\nprotocol: 2\nentrypoint: run\n\
                 commands:\n  - {{name: {command}, type: write}}\n"
            );
            fs::write(home.join("manifest.yaml"), manifest).expect("the manifest");
            fs::write(home.join("run"), "#!/bin/sh\nexit 1\n").expect("the entrypoint");
            fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o755)).expect("an executable");
            config.push_str(&format!("  {plugin}:\n    enabled: true\n{keys}    schedules:\n"));
            let mine: Vec<&Spec> = specs.iter().filter(|spec| spec.plugin == plugin).collect();
            for spec in &mine {
                config.push_str(&spec.yaml(&format!("command: {command}\n        {policy}")));
            }
            if mine.is_empty() {
                config.truncate(config.len() - "    schedules:\n".len());
            }
        }
        fs::write(dir.path().join("config.yaml"), config).expect("the configuration");
        let (clock, hand) = Clock::by_hand(at);
        let options = SqliteConnectOptions::new().filename(dir.path().join("ductile.db")).busy_timeout(PATIENCE);
        let sql = SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options);
        Self { dir, clock, hand, running: None, sql, steps: 0 }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    async fn start(&mut self) {
        let loaded = ductile_config::load(&self.config(), &|name| std::env::var(name).ok())
            .unwrap_or_else(|problems| panic!("the configuration loads: {problems:?}"));
        let errors: Vec<_> = loaded.warnings.iter().filter(|problem| problem.is_error()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let options = BootOptions {
            config: loaded.config,
            build: Build { version: "0.0.0", commit: "unknown", built_at: "unknown" },
            warnings: loaded.warnings,
            provenance: loaded.provenance,
            numbers: Numbers::default(),
            on_reload: OnReload::default(),
            clock: self.clock.clone(),
        };
        let armed = self.armed().await;
        let running = boot(options).await.expect("the gateway starts");
        let handle = running.handle();
        handle.set_dispatch(false, "a test".to_owned()).await.expect("paused");
        self.running = Some((running, handle));
        // Each simulation has a delay, which every start arms anew.
        let deadline = Instant::now() + PATIENCE;
        while self.armed().await == armed {
            assert!(Instant::now() < deadline, "the scheduler armed nothing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Which start armed the delays last.
    async fn armed(&self) -> Option<String> {
        if !self.dir.path().join("ductile.db").exists() {
            return None;
        }
        self.one("SELECT max(armed_by) FROM schedule_entries").await
    }

    pub(crate) async fn stop(&mut self) {
        let (running, _) = self.running.take().expect("the gateway runs");
        let exit = running.stop("the test stops it").await;
        assert!(!exit.is_abnormal(), "{exit}");
    }

    async fn one(&self, query: &str) -> Option<String> {
        let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&self.sql).await.expect("the query runs");
        row.get(0)
    }

    /// Lets all of it happen.
    pub(crate) async fn play(&mut self, segments: &[Segment]) {
        for segment in segments {
            match segment.how {
                How::Start | How::Down => {
                    if self.running.is_some() {
                        self.stop().await;
                    }
                    self.hand.set(segment.from);
                    self.start().await;
                }
                How::Forward => self.hand.set(segment.from),
                How::Back => {
                    self.hand.set(segment.from);
                    self.until_the_scheduler_went_back(segment.from).await;
                }
            }
            self.pass(segment.to).await;
        }
    }

    /// A beacon is in each simulation, with at most four hours between its instants: it is expected within them, wherever the clock went.
    async fn until_the_scheduler_went_back(&self, now: Time) {
        let query = "SELECT max(due_at) FROM schedule_ticks WHERE status = 'expected' AND schedule_id = 'beacon'";
        let within = format(now + Duration::from_secs(4 * 3600));
        let deadline = Instant::now() + PATIENCE;
        while self.one(query).await.is_none_or(|due| due > within) {
            assert!(Instant::now() < deadline, "the scheduler did not see that the clock went back to {now}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Moves the clock from tick to tick until then, and waits at each until nothing is due any more.
    async fn pass(&mut self, until: Time) {
        loop {
            let due = self.nothing_is_due().await;
            if due > until {
                break;
            }
            self.steps += 1;
            self.hand.set(due);
        }
        self.hand.set(until);
    }

    /// When the next tick is due, once all that was due has been.
    async fn nothing_is_due(&self) -> Time {
        let ended = ENDED.map(|plugin| format!("'{plugin}'")).join(", ");
        let query = format!(
            "SELECT (SELECT min(due_at) FROM schedule_ticks WHERE status = 'expected'),
                    (SELECT group_concat(id) FROM job_queue WHERE plugin IN ({ended}) AND command = 'collect' AND status = 'queued')"
        );
        let began = Instant::now();
        loop {
            let row = sqlx::query(AssertSqlSafe(query.clone())).fetch_one(&self.sql).await.expect("the query runs");
            let (due, jobs): (Option<String>, Option<String>) = (row.get(0), row.get(1));
            let due = due.as_deref().and_then(parse).expect("a tick is expected");
            for job in jobs.iter().flat_map(|jobs| jobs.split(',')) {
                let (_, handle) = self.running.as_ref().expect("the gateway runs");
                let job = job.parse().expect("an id");
                handle.cancel(job, "its time is over".to_owned(), "a test".to_owned()).await.expect("cancelled");
            }
            if due > self.hand.now() && jobs.is_none() {
                return due;
            }
            let waited = began.elapsed();
            assert!(waited < PATIENCE, "nothing fires what is due at {due}; it is {}", self.hand.now());
            // Most ticks take less than the runtime's timer could wait.
            if waited > Duration::from_millis(3) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// All that the ledger says of ticks, as lines in order.
    pub(crate) async fn rows(&self) -> Vec<String> {
        let query = "SELECT schedule_id, instant, status, coalesce(reason, '-'), CAST(instants AS TEXT), coalesce(last_instant, '-'), due_at
                     FROM schedule_ticks";
        let rows = sqlx::query(query).fetch_all(&self.sql).await.expect("the query runs");
        let mut lines: Vec<String> =
            rows.iter().map(|row| (0..7).map(|at| row.get::<String, _>(at)).collect::<Vec<_>>().join("\t")).collect();
        lines.sort_unstable();
        lines
    }

    /// What was drawn for the ticks of schedules with jitter.
    pub(crate) fn dues(specs: &[Spec], rows: &[String]) -> Dues {
        let mut dues: Dues =
            specs.iter().filter(|spec| spec.has_jitter()).map(|spec| (spec.id.clone(), BTreeMap::new())).collect();
        for row in rows {
            let columns: Vec<&str> = row.split('\t').collect();
            if let Some(mine) = dues.get_mut(columns[0]) {
                mine.insert(columns[1].to_owned(), columns[6].to_owned());
            }
        }
        dues
    }

    /// Each tick that fired has one job, each job of the scheduler one tick, and each end a time.
    pub(crate) async fn jobs_match(&self) {
        let wrong = "SELECT count(*) FROM (
            SELECT q.id FROM job_queue q LEFT JOIN schedule_ticks t ON t.job_id = q.id AND t.status IN ('fired', 'caught_up')
            WHERE q.submitted_by = 'scheduler' GROUP BY q.id HAVING count(t.id) <> 1
            UNION ALL SELECT t.id FROM schedule_ticks t LEFT JOIN job_queue q ON q.id = t.job_id AND q.submitted_by = 'scheduler'
            WHERE t.status IN ('fired', 'caught_up') AND q.id IS NULL
            UNION ALL SELECT id FROM schedule_ticks WHERE (status = 'expected') <> (ended_at IS NULL))";
        let counted: i64 = sqlx::query_scalar(wrong).fetch_one(&self.sql).await.expect("the query runs");
        assert_eq!(counted, 0, "jobs without a tick, or ticks without their job");
    }
}
