//! Claims that stand, ends, cancellations and a file that is locked now and then, in random order: every job ends, none
//! runs beside itself, and no cap is ever exceeded, by processes as by rows.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ductile_domain::job::{Candidate, ClaimedJob};
use ductile_domain::outcome::Cause;
use ductile_domain::plan::StateChange;
use ductile_domain::retry::Ending;
use ductile_ledger::{Claims, Refusal, Verdict, WriteError};
use rand_like::Dice;
use serde_json::value::RawValue;
use sqlx::Row as _;
use support::{Bed, failed, finish, new_job, succeeded};

const MAX_RUNNING: u32 = 4;
const JOBS: usize = 240;

/// Numbers that look random and are the same for a seed.
mod rand_like {
    pub(super) struct Dice(pub(super) u64);

    impl Dice {
        pub(super) fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }
}

fn cap(plugin: &str) -> u32 {
    match plugin {
        "one" => 1,
        "two" => 2,
        _ => 9,
    }
}

/// `STANDING_SEED` repeats a run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_stand_keep_all_promises_in_any_order() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed = std::env::var("STANDING_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(u64::from(now.subsec_nanos()));
    eprintln!("STANDING_SEED={seed}");
    let mut dice = Dice(seed);
    let bed = Bed::new().await;
    let mut ids = Vec::new();
    for n in 0..JOBS {
        let mut job = new_job(["one", "two", "many", "many"][n % 4]);
        job.dedupe_key = (n % 8 == 3).then(|| "twin".to_owned());
        ids.push(job.id);
        bed.enqueue(job).await;
    }
    let (decided, mut parts) = tokio::sync::mpsc::unbounded_channel::<Claims>();
    let live = Arc::new(Mutex::new(HashMap::new()));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::new(tokio::sync::Notify::new());
    let mut pending: BTreeMap<i64, Candidate> = BTreeMap::new();
    let mut out: HashSet<i64> = HashSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut lock: Option<(sqlx::sqlite::SqliteConnection, Instant)> = None;
    loop {
        assert!(wrong.lock().expect("no panic").is_empty(), "{wrong:?}: seed {seed}");
        for candidate in bed.feed.drain().candidates {
            pending.insert(candidate.row, candidate);
        }
        while let Ok(claims) = parts.try_recv() {
            for claimed in claims.claimed {
                out.remove(&claimed.job.row);
                begin(&live, &claimed.job);
                let (writer, at, live) = (bed.ledger.writer.clone(), bed.hands.now(), live.clone());
                let (roll, steps) = (dice.roll(10), dice.roll(30));
                let (ended, wrong) = (ended.clone(), wrong.clone());
                tokio::spawn(async move {
                    let job = claimed.job;
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                    live.lock().expect("no panic").remove(&job.fence.job);
                    loop {
                        let answer = match roll {
                            0 => writer.give_back(job.fence, "a stop".into(), None).await,
                            1 | 2 => {
                                let end = failed(Cause::Signal, at);
                                writer.finish(finish(job.fence, end, Ending::Retry { due: at })).await
                            }
                            3 | 4 => {
                                let mut end = finish(job.fence, succeeded(at), Ending::Succeeded);
                                let state = RawValue::from_string(format!("{{\"n\":{roll}}}")).expect("JSON");
                                end.plan.state = Some(StateChange::Merge(state));
                                writer.finish(end).await
                            }
                            _ => writer.finish(finish(job.fence, succeeded(at), Ending::Succeeded)).await,
                        };
                        match answer {
                            Ok(finished) => {
                                // nobody else ends it, and what was granted is written before
                                if !matches!(finished.verdict, Verdict::Applied | Verdict::AlreadyApplied) {
                                    wrong.lock().expect("no panic").push(format!("{:?}: {finished:?}", job.fence));
                                }
                                break;
                            }
                            Err(WriteError::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
                            Err(error) => {
                                wrong.lock().expect("no panic").push(format!("{error:?}"));
                                break;
                            }
                        }
                    }
                    ended.notify_one();
                });
            }
            for refused in claims.refused {
                out.remove(&refused.row);
                if !matches!(refused.why, Refusal::Gone | Refusal::NotDue) {
                    let plugin = ["one", "two", "many", "many"][(usize::try_from(refused.row).expect("small") - 1) % 4];
                    let back = Candidate { row: refused.row, job: refused.job, plugin: plugin.into(), due: None };
                    pending.insert(refused.row, back);
                }
            }
        }
        if lock.as_ref().is_some_and(|(_, until)| Instant::now() >= *until) {
            let (mut lock, _) = lock.take().expect("just seen");
            sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.expect("released");
        }
        match dice.roll(40) {
            0 => bed.ledger.writer.withdraw_claims(),
            1 if lock.is_none() && dice.roll(4) == 0 => {
                let mut held = bed.sql().await;
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut held).await.expect("a lock");
                // the longer one outlasts the writer's patience
                let time = [20, 260][usize::from(dice.roll(3) == 0)];
                lock = Some((held, Instant::now() + Duration::from_millis(time)));
            }
            2 | 3 => {
                let (writer, job) = (bed.ledger.writer.clone(), ids[dice.roll(JOBS as u64) as usize]);
                tokio::spawn(async move { writer.cancel(job, "no need".into(), "a test".into()).await });
            }
            _ => {
                let most = 1 + dice.roll(8) as usize;
                let candidates: Vec<_> = pending.values().take(most).map(|c| (c.clone(), cap(&c.plugin))).collect();
                for (candidate, _) in &candidates {
                    pending.remove(&candidate.row);
                    out.insert(candidate.row);
                }
                if !candidates.is_empty() {
                    let mut request = bed.request(Vec::new());
                    (request.candidates, request.max_running) = (candidates, MAX_RUNNING);
                    let decided = decided.clone();
                    let tell = move |claims| drop(decided.send(claims));
                    bed.ledger.writer.claim_then(request, dice.roll(4) > 0, tell, Arc::new(|_, _| ()));
                }
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(2), ended.notified()).await;
        if lock.is_none() && pending.is_empty() {
            let counts = bed.ledger.readers.counts().await.expect("read");
            if counts.queued + counts.running == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{counts:?} are left, {} are out: seed {seed}", out.len());
        }
    }
    check_history(&bed, seed).await;
    bed.ledger.close().await;
}

/// A process begins: none of its job lives, and caps hold.
fn begin(live: &Mutex<HashMap<ductile_domain::ids::JobId, Arc<str>>>, job: &ClaimedJob) {
    let mut live = live.lock().expect("no panic");
    assert!(live.insert(job.fence.job, job.plugin.clone()).is_none(), "{:?} runs beside itself", job.fence);
    assert!(live.len() <= MAX_RUNNING as usize, "{live:?}");
    let same = live.values().filter(|plugin| **plugin == job.plugin).count();
    assert!(same <= cap(&job.plugin) as usize, "{live:?}");
}

/// Caps and twins by the rows' history.
async fn check_history(bed: &Bed, seed: u64) {
    let rows = sqlx::query(
        "SELECT t.job_id, q.plugin, t.from_status, t.to_status, q.dedupe_key IS NOT NULL
         FROM job_transitions t JOIN job_queue q ON q.id = t.job_id ORDER BY t.id",
    );
    let mut running: HashMap<String, (String, bool)> = HashMap::new();
    for row in rows.fetch_all(&mut bed.sql().await).await.expect("read") {
        let (job, from): (String, Option<String>) = (row.get(0), row.get(2));
        if from.as_deref() == Some("running") {
            assert!(running.remove(&job).is_some(), "{job} ended twice: seed {seed}");
        }
        if row.get::<String, _>(3) == "running" {
            assert!(running.insert(job.clone(), (row.get(1), row.get(4))).is_none(), "{job} twice: seed {seed}");
        }
        assert!(running.len() <= MAX_RUNNING as usize, "{running:?}: seed {seed}");
        assert!(running.values().filter(|(_, is_twin)| *is_twin).count() <= 1, "{running:?}: seed {seed}");
        for plugin in ["one", "two"] {
            let same = running.values().filter(|(other, _)| other == plugin).count();
            assert!(same <= cap(plugin) as usize, "{running:?}: seed {seed}");
        }
    }
    assert!(running.is_empty(), "{running:?}: seed {seed}");
}
