//! What many schedules cost: a gateway that holds them and does nothing, its start, its memory, and what a tick costs among few and
//! among many of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use ductile_actors::{BootOptions, Handle, Numbers, OnReload, Running, boot};
use ductile_api::gateway::Gateway as _;
use ductile_domain::time::parse;
use ductile_domain::version::Build;
use ductile_ledger::{Clock, Hand};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use crate::gateway::{self, Gateway, Setup};
use crate::plugins::Built;
use crate::report::{Line, Report};

/// How much is measured.
pub(crate) struct Amounts {
    /// Schedules of the gateway that idles.
    pub(crate) schedules: usize,
    /// How long it idles.
    pub(crate) idle: Duration,
    /// Numbers of schedules among which a tick is timed, from few to many.
    pub(crate) among: [usize; 3],
    /// Ticks that are timed among each.
    pub(crate) ticks: usize,
}

impl Amounts {
    pub(crate) fn new(is_quick: bool) -> Self {
        if is_quick {
            return Self { schedules: 500, idle: Duration::from_secs(5), among: [10, 100, 1000], ticks: 100 };
        }
        Self { schedules: 10_000, idle: Duration::from_secs(60), among: [10, 1000, 100_000], ticks: 1000 }
    }
}

pub(crate) fn measure(binary: &Path, built: &Built, amounts: &Amounts, report: &mut Report) {
    idle(binary, built, amounts, report);
    ticks(amounts, report);
}

/// Schedules of which none is due for days: half of them intervals with jitter, half of them times in four zones.
fn far_off(count: usize) -> String {
    let zones = ["Australia/Sydney", "America/New_York", "Europe/London", "Australia/Lord_Howe"];
    let entries = (0..count).map(|n| {
        if n % 2 == 0 {
            return format!("{{id: s{n}, every: monthly, jitter: 12h}}");
        }
        let month = (Utc::now() + TimeDelta::days(60 + i64::try_from(n % 200).expect("small"))).format("%-m");
        format!(
            "{{id: s{n}, cron: '{} {} {} {month} *', timezone: {}}}",
            n % 60,
            n / 60 % 24,
            1 + n % 28,
            zones[n / 2 % 4]
        )
    });
    entries.collect::<Vec<_>>().join(", ")
}

fn idle(binary: &Path, built: &Built, amounts: &Amounts, report: &mut Report) {
    let plain = gateway::start(binary, built, 2, Setup::default());
    std::thread::sleep(Duration::from_secs(2));
    let without = plain.busy(amounts.idle);
    let memory_without = plain.resident_mib();
    drop(plain);

    let state_dir = built.dir.join("scheduled");
    let setup =
        || Setup { schedules: far_off(amounts.schedules), state_dir: Some(state_dir.clone()), ..Default::default() };
    let began = Instant::now();
    let first = gateway::start(binary, built, 2, setup());
    let first_ready = first.ready_ms;
    await_expected(&state_dir, amounts.schedules);
    let first_expected = began.elapsed();
    drop(first);
    let scheduled = gateway::start(binary, built, 2, setup());
    report.add(Line::below(
        &format!("start to ready with {} schedules", amounts.schedules),
        scheduled.ready_ms,
        "ms",
        1000.0,
        250.0,
    ));
    report.note(&format!(
        "the first start with them: ready after {first_ready:.0} ms, every next tick in the ledger after {:.1} s",
        first_expected.as_secs_f64()
    ));
    std::thread::sleep(Duration::from_secs(2));
    let with = scheduled.busy(amounts.idle);
    let what = format!("{} schedules, idle for {} s: of one core", amounts.schedules, amounts.idle.as_secs());
    report.add(Line::below(&what, with * 100.0, "%", 1.0, 0.3));
    report.note(&format!("without a schedule: {:.2} % of one core", without * 100.0));
    let memory = scheduled.resident_mib();
    let kib = (memory - memory_without) * 1024.0 / amounts.schedules as f64;
    report.add(Line::below("memory per schedule", kib, "KiB", 8.0, 3.0));
    report.note(&format!("memory with them: {memory:.1} MiB, without: {memory_without:.1} MiB"));
}

fn await_expected(state_dir: &Path, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let sql = rows_of(&state_dir.join("ductile.db"));
        let deadline = Instant::now() + Duration::from_secs(120);
        let query = "SELECT count(*) FROM schedule_ticks WHERE status = 'expected'";
        while sqlx::query_scalar::<_, i64>(query).fetch_one(&sql).await.expect("the query runs") < count as i64 {
            assert!(Instant::now() < deadline, "the ticks were not written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sql.close().await;
    });
}

fn rows_of(ledger: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(ledger).busy_timeout(Duration::from_secs(10));
    SqlitePoolOptions::new().max_connections(1).connect_lazy_with(options)
}

impl Gateway {
    /// The share of one core that the gateway takes over so long.
    fn busy(&self, time: Duration) -> f64 {
        let spent = || self.cpu().iter().filter(|(name, _)| *name != "(plugins)").map(|(_, us)| us).sum::<f64>();
        let (began, before) = (Instant::now(), spent());
        std::thread::sleep(time);
        (spent() - before) / (began.elapsed().as_secs_f64() * 1e6)
    }
}

/// One tick after the other, of the real scheduler on a clock moved by hand, each from its due time to its row's end.
fn ticks(amounts: &Amounts, report: &mut Report) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let costs = amounts.among.map(|count| runtime.block_on(tick_us(count, amounts.ticks)));
    for (count, cost) in amounts.among.into_iter().zip(costs).skip(1) {
        let what = format!("a tick among {count} schedules, times one among {}", amounts.among[0]);
        report.add(Line::below(&what, cost / costs[0], "", 2.0, 1.3));
    }
    let shown: Vec<String> = amounts.among.iter().zip(costs).map(|(n, us)| format!("{us:.0} µs among {n}")).collect();
    report.note(&format!("a tick from its due time to its row's end, median: {}", shown.join(", ")));
}

/// Median µs of a tick among so many schedules, one due each second.
async fn tick_us(count: usize, ticks: usize) -> f64 {
    let mut world = World::start(count).await;
    let mut times = Vec::with_capacity(ticks);
    let mut due = world.settled().await;
    for _ in 0..ticks {
        let began = Instant::now();
        world.hand.set(due);
        due = world.settled().await;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    world.stop().await;
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct World {
    running: Option<(Running, Handle)>,
    hand: Hand,
    sql: SqlitePool,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(count: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("ductile-bench-").tempdir().expect("a temporary directory");
        let home = dir.path().join("plugins/clock");
        fs::create_dir_all(&home).expect("the plugin's directory");
        let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: clock\nversion: 1.0.0\nprotocol: 2\nentrypoint: run\n\
                        commands:\n  - {name: collect, type: write}\n";
        fs::write(home.join("manifest.yaml"), manifest).expect("the manifest");
        fs::write(home.join("run"), "#!/bin/sh\nexit 1\n").expect("the entrypoint");
        fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o755)).expect("an executable");
        // Each interval is another, so that ticks come one by one.
        let begin = parse("2026-01-01T00:00:00Z").expect("a time");
        let entry =
            |n: usize| format!("      - {{id: s{n}, command: collect, every: {}s, if_running: queue}}\n", 3600 + n);
        let mut config = format!(
            "plugin_roots: [{}]\nservice: {{tick_interval: 1d, timezone: UTC}}\napi: {{enabled: false}}\n\
             state: {{path: ./ductile.db, durability: normal}}\nplugins:\n  clock:\n    enabled: true\n    schedules:\n",
            dir.path().join("plugins").display()
        );
        (0..count).for_each(|n| config.push_str(&entry(n)));
        let path = dir.path().join("config.yaml");
        fs::write(&path, config).expect("the configuration");
        let loaded = ductile_config::load(&path, &|name| std::env::var(name).ok())
            .unwrap_or_else(|problems| panic!("the configuration loads: {problems:?}"));
        let (clock, hand) = Clock::by_hand(begin);
        let options = BootOptions {
            config: loaded.config,
            build: Build { version: "0.0.0", commit: "unknown", built_at: "unknown" },
            warnings: loaded.warnings,
            provenance: loaded.provenance,
            numbers: Numbers::default(),
            on_reload: OnReload::default(),
            clock,
        };
        let running = boot(options).await.expect("the gateway starts");
        let handle = running.handle();
        handle.set_dispatch(false, "the benchmark".to_owned()).await.expect("paused");
        let sql = rows_of(&dir.path().join("ductile.db"));
        let world = Self { running: Some((running, handle)), hand, sql, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(300);
        while world.one("SELECT CAST(count(*) AS TEXT) FROM schedule_entries").await != count.to_string() {
            assert!(Instant::now() < deadline, "the scheduler did not read its schedules");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world
    }

    async fn one(&self, query: &str) -> String {
        sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&self.sql).await.expect("the query runs").get(0)
    }

    /// When the next tick is due, once none is due now.
    async fn settled(&self) -> DateTime<Utc> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let due = parse(&self.one("SELECT min(due_at) FROM schedule_ticks WHERE status = 'expected'").await)
                .expect("a time");
            if due > self.hand.now() {
                return due;
            }
            assert!(Instant::now() < deadline, "a tick did not fire");
            tokio::task::yield_now().await;
        }
    }

    async fn stop(&mut self) {
        let (running, _) = self.running.take().expect("it runs");
        running.stop("measured").await;
    }
}
