//! What many schedules cost: a gateway that holds them and does nothing, its start, its memory, and what a tick costs among few and
//! among many of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use ductile_actors::{BootOptions, Numbers, OnReload, Running, boot};
use ductile_api::gateway::Gateway as _;
use ductile_domain::config::Config;
use ductile_domain::schedule::{Rule, Schedule, Timing};
use ductile_domain::version::Build;
use ductile_ledger::Clock;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

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
    /// For how long ticks are timed among each.
    pub(crate) fire: Duration,
}

impl Amounts {
    pub(crate) fn new(is_quick: bool) -> Self {
        if is_quick {
            return Self {
                schedules: 500,
                idle: Duration::from_secs(5),
                among: [10, 100, 1000],
                fire: Duration::from_secs(3),
            };
        }
        Self {
            schedules: 10_000,
            idle: Duration::from_secs(60),
            among: [10, 1000, 100_000],
            fire: Duration::from_secs(15),
        }
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
    report.add(Line::below("memory per schedule", kib, "KiB", 10.0, 4.0));
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

/// Ten schedules fire about ninety times a second by the real clock, among few and among many others that are not due.
fn ticks(amounts: &Amounts, report: &mut Report) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let costs = amounts.among.map(|count| runtime.block_on(tick(count, amounts.fire)));
    for (count, cost) in amounts.among.into_iter().zip(&costs).skip(1) {
        let what = format!("CPU of a tick among {count} schedules, times one among {}", amounts.among[0]);
        report.add(Line::below(&what, cost.cpu_us / costs[0].cpu_us, "", 2.0, 1.3));
    }
    for (count, cost) in amounts.among.into_iter().zip(&costs) {
        report.note(&format!(
            "a tick among {count} schedules: {:.0} µs of CPU with its job's row, {:.1} ms late (median of {})",
            cost.cpu_us, cost.late_ms, cost.ticks
        ));
    }
}

/// What a tick costs.
struct Tick {
    cpu_us: f64,
    late_ms: f64,
    ticks: usize,
}

async fn tick(count: usize, time: Duration) -> Tick {
    let world = World::start(count).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, from) = (own_cpu_us(), world.ended().await.len());
    tokio::time::sleep(time).await;
    let spent = own_cpu_us() - before;
    let mut late = world.ended().await.split_off(from);
    world.running.stop("measured").await;
    late.sort_by(f64::total_cmp);
    let ticks = late.len().max(1);
    Tick { cpu_us: spent / ticks as f64, late_ms: late.get(ticks / 2).copied().unwrap_or(f64::NAN), ticks }
}

/// CPU µs of all threads of this process so far.
fn own_cpu_us() -> f64 {
    let threads = fs::read_dir("/proc/self/task").expect("its threads").flatten();
    let spent = threads.filter_map(|thread| {
        let time = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        time.split(' ').next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
}

/// A gateway in this process that enqueues and runs nothing.
struct World {
    running: Running,
    sql: SqlitePool,
    _dir: tempfile::TempDir,
}

/// Primes, so that ticks come one by one.
const FAST_MS: [u64; 10] = [97, 101, 103, 107, 109, 113, 127, 131, 137, 139];

/// Makes so many of the one schedule, ten of them fast.
fn multiply(config: &mut Config, count: usize) {
    let entry = config.plugins.values_mut().next().expect("the plugin");
    let first = Schedule::clone(&entry.schedules[0]);
    let bound = first.timing.clone().expect("valid");
    let nth = |n: usize| {
        let far = Duration::from_secs(30 * 86_400 + n as u64);
        let rule = Rule::Every(FAST_MS.get(n).map_or(far, |ms| Duration::from_millis(*ms)));
        let timing = Timing::new(rule, Duration::ZERO, bound.zone, bound.window, bound.not_on);
        Arc::new(Schedule { id: format!("s{n}").into(), timing, ..first.clone() })
    };
    entry.schedules = (0..count).map(nth).collect();
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
        let config = format!(
            "plugin_roots: [{}]\nservice: {{timezone: UTC}}\napi: {{enabled: false}}\nstate: {{path: ./ductile.db}}\nplugins:\n  \
             clock:\n    enabled: true\n    schedules: [{{id: first, command: collect, every: 1h, if_running: queue}}]\n",
            dir.path().join("plugins").display()
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config).expect("the configuration");
        let mut loaded = ductile_config::load(&path, &|name| std::env::var(name).ok())
            .unwrap_or_else(|problems| panic!("the configuration loads: {problems:?}"));
        multiply(&mut loaded.config, count);
        let options = BootOptions {
            config: loaded.config,
            build: Build { version: "0.0.0", commit: "unknown", built_at: "unknown" },
            warnings: loaded.warnings,
            provenance: loaded.provenance,
            numbers: Numbers::default(),
            on_reload: OnReload::default(),
            clock: Clock::default(),
        };
        let running = boot(options).await.expect("the gateway starts");
        running.handle().set_dispatch(false, "the benchmark".to_owned()).await.expect("paused");
        let sql = rows_of(&dir.path().join("ductile.db"));
        let world = Self { running, sql, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(300);
        let entries = "SELECT count(*) FROM schedule_entries";
        while sqlx::query_scalar::<_, i64>(entries).fetch_one(&world.sql).await.expect("the query runs") < count as i64
        {
            assert!(Instant::now() < deadline, "the scheduler did not read its schedules");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world
    }

    /// How late each tick was that has fired, ms, in order.
    async fn ended(&self) -> Vec<f64> {
        let query = "SELECT (julianday(ended_at) - julianday(due_at)) * 86400000 FROM schedule_ticks WHERE status = 'fired' ORDER BY id";
        sqlx::query_scalar(query).fetch_all(&self.sql).await.expect("the query runs")
    }
}
