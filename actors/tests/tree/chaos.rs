//! Random faults under load, and what must be true during and after them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use ductile_api::gateway::Gateway as _;
use ductile_domain::ids::JobId;
use ductile_domain::job::{JobStatus, LEGAL_TRANSITIONS};
use ductile_domain::time;

use crate::gateway::{Gateway, PATIENCE, paths, patient_numbers, submit};
use crate::moved::plugin;

const JOBS: usize = 2_000;
const WORKERS: u32 = 8;
const DOORS: usize = 4;
/// How long faults are injected; the rest of the jobs runs in peace.
const STORM: Duration = Duration::from_secs(8);

/// Small, seeded and good enough to pick victims.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("small")
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Another one in each run, unless `CHAOS_SEED` is set.
pub(crate) fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    number("CHAOS_SEED").unwrap_or(u64::from(now.subsec_nanos()))
}

/// SUP-01, SUP-02, SUP-04, SUP-06, SUP-07, SUP-08, SUP-10, QUE-17: whatever dies at whatever moment, every accepted job
/// ends once, never beside itself, and leaves nothing behind.
///
/// `CHAOS_SEED` repeats a run, `CHAOS_ROUNDS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_accepted_job_is_lost_while_actors_die_at_random() {
    for seed in (seed()..).take(usize::try_from(number("CHAOS_ROUNDS").unwrap_or(1)).expect("small")) {
        // Printed by the test runner when the test fails.
        eprintln!("CHAOS_SEED={seed}");
        storm(seed).await;
    }
}

async fn storm(seed: u64) {
    let began = Instant::now();
    let ticking = plugin("ticking", &["{id: t, every: 50ms, command: sync, if_running: queue}"], "");
    let gateway = Gateway::start_configured(WORKERS, WORKERS, "", &ticking, patient_numbers()).await;
    let over = Arc::new(AtomicBool::new(false));

    let doors: Vec<_> = (0..DOORS).map(|door| tokio::spawn(keep_asking(gateway.handle().clone(), door))).collect();
    let faults = Arc::new(AtomicUsize::new(0));
    let breaker = tokio::spawn(break_things(gateway.handle().clone(), seed, over.clone(), faults.clone()));
    let watcher = tokio::spawn(watch(gateway.handle().clone(), over.clone()));

    let until = began + STORM;
    let readers = &gateway.shared().readers;
    tokio::time::sleep_until(until.into()).await;
    over.store(true, Ordering::Release);
    breaker.await.expect("the breaker works");
    let stormed = began.elapsed();
    let left = readers.counts().await.expect("read");
    let sampled = watcher.await.expect("the watcher saw nothing wrong");
    let (mut accepted, mut refused) = (Vec::with_capacity(JOBS), 0);
    for door in doors {
        let (jobs, refusals) = door.await.expect("the doors work");
        accepted.extend(jobs);
        refused += refusals;
    }

    let rest =
        async || gateway.handle().pause_schedules("ticking".to_owned(), None, true, "a test".to_owned()).await.ok();
    gateway.until("the schedule is paused", rest).await;
    gateway
        .until_within(PATIENCE, "every job has ended", async || {
            let counts = gateway.shared().readers.counts().await.ok()?;
            (counts.queued + counts.running == 0).then_some(())
        })
        .await;
    println!(
        "storm {stormed:?}, {} faults, {refused} refusals, left {left:?}, calm after {:?}",
        faults.load(Ordering::Relaxed),
        began.elapsed()
    );
    check_ends(&gateway, &accepted).await;
    check_history(&gateway).await;
    check_samples(&gateway, &sampled).await;
    check_ticks(&gateway).await;
    check_nothing_is_left(&gateway).await;
    gateway.stop().await;
}

/// Each instant of the schedule has ended once, and each that fired has one job.
async fn check_ticks(gateway: &Gateway) {
    let counts = "SELECT count(*), count(DISTINCT job_id) FROM schedule_ticks WHERE status = 'fired'";
    let jobs = "SELECT count(*), count(DISTINCT id) FROM job_queue WHERE submitted_by = 'scheduler'";
    assert_eq!(gateway.sql(counts).await, gateway.sql(jobs).await, "ticks that fired, and their jobs");
    let rows = gateway
        .sql("SELECT instant, coalesce(last_instant, instant), instants, (SELECT anchor_at FROM schedule_entries) FROM schedule_ticks ORDER BY 1")
        .await;
    let at = |text: &str| time::parse(text).expect("a time");
    let mut due = at(&rows[0][3]);
    for row in &rows {
        due += TimeDelta::milliseconds(50);
        assert_eq!(at(&row[0]), due, "an instant is missing, or there twice");
        due += TimeDelta::milliseconds(50 * (row[2].parse::<i64>().expect("a number") - 1));
        assert_eq!(at(&row[1]), due, "a run of instants has a hole");
    }
    assert!(rows.len() > 20, "{} ticks in the storm", rows.len());
}

/// What a door was told: the jobs that were accepted, and the number of refusals.
async fn keep_asking(handle: ductile_actors::Handle, door: usize) -> (Vec<(JobId, &'static str)>, usize) {
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for n in (door..JOBS).step_by(DOORS) {
        let what = ["ok", "ok", "ok", "slow", "error", "config", "ok", "ok", "ok", "ok"][n / DOORS % 10];
        let plugin = if n % 3 == 0 { "other" } else { "work" };
        let id = loop {
            match submit(&handle, plugin, what, None).await {
                Ok(id) => break id,
                Err(_) => refused += 1,
            }
        };
        accepted.push((id, what));
    }
    (accepted, refused)
}

/// Kills, panics and stalls whatever there is; the root alone is spared, since with it the gateway ends.
pub(crate) async fn break_things(
    handle: ductile_actors::Handle,
    seed: u64,
    over: Arc<AtomicBool>,
    faults: Arc<AtomicUsize>,
) {
    let mut dice = Dice(seed);
    let tree = &handle.shared().tree;
    let ctl = tree.ctl();
    // Panics wait for a message, so those of idle actors would pile up and hit for ever.
    let mut armed: HashMap<String, Instant> = HashMap::new();
    while !over.load(Ordering::Acquire) {
        let mut all = Vec::new();
        if let Some(root) = tree.snapshot() {
            root.children.iter().for_each(|child| paths(child, &mut all));
        }
        // With a supervisor go all below it, and at the root's level all that started later: few are enough.
        let spares_supervisors = dice.roll(12) > 0;
        all.retain(|path| !(spares_supervisors && path.ends_with("_sup")));
        let victim = &all[dice.roll(all.len())];
        let done = match dice.roll(10) {
            0..5 => ctl.kill(victim),
            5..8 => {
                let is_armed = armed.get(victim).is_some_and(|at| at.elapsed() < Duration::from_secs(1));
                !is_armed
                    && armed.insert(victim.clone(), Instant::now()).is_none_or(|_| true)
                    && ctl.panic_next(victim, None)
            }
            _ => ctl.stall(victim, Duration::from_millis(dice.roll(50) as u64)),
        };
        faults.fetch_add(usize::from(done), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(3 + dice.roll(6) as u64)).await;
    }
    ctl.calm();
}

type Sample = HashMap<String, Vec<String>>;

/// Looks at the rows while everything breaks: the cap holds at any moment, and terminal rows are remembered.
async fn watch(handle: ductile_actors::Handle, over: Arc<AtomicBool>) -> Sample {
    let mut seen = Sample::new();
    let readers = &handle.shared().readers;
    while !over.load(Ordering::Acquire) {
        let running = readers.running().await.expect("the rows can be read");
        assert!(running.len() <= WORKERS as usize, "{} rows run, the cap is {WORKERS}: {running:?}", running.len());
        let ended = JobStatus::ALL.into_iter().filter(|s| s.is_terminal()).map(|s| s.as_str().to_owned());
        let filter = ductile_ledger::JobFilter { statuses: ended.collect(), limit: 5_000, ..Default::default() };
        for job in readers.jobs(&filter).await.expect("the rows can be read").rows {
            let row = vec![job.status, job.attempt.to_string(), job.completed_at.unwrap_or_default()];
            let before = seen.entry(job.id).or_insert_with(|| row.clone());
            assert_eq!(*before, row, "a terminal row changed");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}

async fn check_ends(gateway: &Gateway, accepted: &[(JobId, &str)]) {
    let rows: HashMap<String, (String, String)> = gateway
        .sql("SELECT id, status, attempt FROM job_queue")
        .await
        .into_iter()
        .map(|r| (r[0].clone(), (r[1].clone(), r[2].clone())))
        .collect();
    for (id, what) in accepted {
        let (status, attempt) = rows.get(&id.to_string()).unwrap_or_else(|| panic!("{id} was accepted and is lost"));
        let legal: &[&str] = match *what {
            // Faults cost attempts, and three crashes end a job.
            "error" => &["dead"],
            "config" => &["failed", "dead"],
            _ => &["succeeded", "dead"],
        };
        assert!(legal.contains(&status.as_str()), "{id} ({what}) ended {status} after {attempt} attempts");
    }
}

/// Rows of the history fit together: legal chains, one log row per attempt that counted, one end per job.
async fn check_history(gateway: &Gateway) {
    let rows =
        gateway.sql("SELECT job_id, coalesce(from_status, ''), to_status FROM job_transitions ORDER BY id").await;
    let mut at: HashMap<&str, &str> = HashMap::new();
    for row in &rows {
        let (job, from, to) = (row[0].as_str(), row[1].as_str(), row[2].as_str());
        let before = at.insert(job, to).unwrap_or("");
        assert_eq!(before, from, "{job} goes from {from} to {to}, but was {before}");
        // An attempt's own end lies between `running` and what becomes of the row.
        let is_legal = match (from, to) {
            ("running", "failed" | "timed_out") | ("failed" | "timed_out", "queued" | "dead") => true,
            _ => {
                let from = from.parse::<JobStatus>().ok();
                let to = to.parse::<JobStatus>().expect("a status");
                LEGAL_TRANSITIONS.contains(&(from, to))
            }
        };
        assert!(is_legal, "{job} went from {from} to {to}");
    }
    let twice = gateway.sql("SELECT job_id, attempt, count(*) FROM job_log GROUP BY 1, 2 HAVING count(*) > 1").await;
    assert!(twice.is_empty(), "attempts with two log rows: {twice:?}");
    let uneven = gateway
        .sql(
            "SELECT q.id, q.status, q.attempt, (SELECT count(*) FROM job_log l WHERE l.job_id = q.id) AS logs,
                (SELECT count(*) FROM job_attempts a WHERE a.job_id = q.id) AS attempts
             FROM job_queue q WHERE logs <> q.attempt OR attempts <> q.attempt",
        )
        .await;
    assert!(uneven.is_empty(), "attempts, their records and their logs differ: {uneven:?}");
    let many = gateway
        .sql("SELECT job_id FROM job_transitions WHERE to_status IN ('succeeded', 'skipped', 'dead') GROUP BY 1 HAVING count(*) > 1")
        .await;
    assert!(many.is_empty(), "jobs that ended twice: {many:?}");
}

async fn check_samples(gateway: &Gateway, sampled: &Sample) {
    let rows = gateway.sql("SELECT id, status, attempt, coalesce(completed_at, '') FROM job_queue").await;
    let last: HashMap<&str, &[String]> = rows.iter().map(|r| (r[0].as_str(), &r[1..])).collect();
    assert!(!sampled.is_empty(), "nothing ended in the storm");
    for (id, before) in sampled {
        assert_eq!(last.get(id.as_str()), Some(&before.as_slice()), "the terminal row of {id} changed");
    }
}

/// Processes, overlaps, children, lists, ranks.
async fn check_nothing_is_left(gateway: &Gateway) {
    assert_eq!(gateway.overlaps(), "", "attempts of a job overlapped");
    gateway
        .until("nothing is left", async || {
            let tree = &gateway.shared().tree;
            let jobs = tree.node("root/exec_sup/job_sup")?.children.len();
            let reaper = tree.inspect("root/exec_sup/reaper", Duration::from_secs(1)).await.ok()?;
            let http = tree.inspect("root/api_sup/http", Duration::from_secs(1)).await.ok()?;
            let left = [&reaper["unrecorded_crashes"], &reaper["processes"], &http["waiting_callers"]];
            (jobs == 0 && left.iter().all(|n| **n == 0) && gateway.plugin_processes().is_empty()).then_some(())
        })
        .await;
    assert_eq!(gateway.shared().tree.rank_violations(), 0, "an actor called upwards");
    let up: HashSet<_> = gateway.shared().tree.snapshot().map(|root| root.phase.as_str()).into_iter().collect();
    assert_eq!(up, HashSet::from(["up"]));
}
