//! Random operations against a pure model: after every step the rows and the model agree.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, Fence, JobStatus};
use ductile_domain::outcome::Cause;
use ductile_domain::retry::{Ending, QUARANTINE_AFTER};
use ductile_ledger::{Cancelled, Deletable, Enqueued, Prune, Verdict};
use proptest::prelude::*;
use sqlx::Row as _;
use support::{Bed, failed, finish, keyed, new_job, retry_in, succeeded};

#[derive(Debug, Clone)]
enum Step {
    Enqueue { plugin: u8, key: Option<u8>, in_flight: bool },
    Claim { most: u8, cap: u8, max_running: u8 },
    Finish { which: u8, how: How },
    RepeatFinish { which: u8 },
    GiveBack { which: u8, delayed: bool },
    Cancel { which: u8 },
    Wait { seconds: u8 },
    Prune,
    Reopen { is_clean: bool },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeed,
    Skip,
    Fail,
    Die,
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => Just(How::Succeed),
        1 => Just(How::Skip),
        1 => Just(How::Fail),
        1 => Just(How::Die),
        3 => Just(How::Retry)
    ];
    prop_oneof![
        6 => (0..3u8, proptest::option::of(0..2u8), any::<bool>())
            .prop_map(|(plugin, key, in_flight)| Step::Enqueue { plugin, key, in_flight }),
        6 => (1..5u8, 1..4u8, 1..6u8).prop_map(|(most, cap, max_running)| Step::Claim { most, cap, max_running }),
        5 => (any::<u8>(), how).prop_map(|(which, how)| Step::Finish { which, how }),
        1 => any::<u8>().prop_map(|which| Step::RepeatFinish { which }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, delayed)| Step::GiveBack { which, delayed }),
        2 => any::<u8>().prop_map(|which| Step::Cancel { which }),
        2 => (1..40u8).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Prune),
        1 => any::<bool>().prop_map(|is_clean| Step::Reopen { is_clean }),
    ]
}

/// What the model knows of a job.
#[derive(Debug, Clone)]
struct Known {
    row: i64,
    plugin: String,
    key: Option<String>,
    status: JobStatus,
    attempt: u32,
    claim_no: i64,
    /// Seconds of the model's clock.
    due: Option<i64>,
    completed: Option<i64>,
    is_cancelled: bool,
    /// Sign and number as in the schema: the last claim that ended.
    ended_claim: i64,
    transitions: usize,
    attempts: usize,
    /// Attempts that a crash of the gateway ended; the third quarantines the job.
    crashes: u32,
}

struct World {
    bed: Bed,
    jobs: BTreeMap<JobId, Known>,
    seconds: i64,
}

const MAX_ATTEMPTS: u32 = 4;

impl World {
    fn by_status(&self, status: JobStatus) -> Vec<JobId> {
        let mut found: Vec<_> =
            self.jobs.iter().filter(|(_, k)| k.status == status).map(|(id, k)| (k.row, *id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn fence(&self, job: JobId) -> Fence {
        Fence { job, claim_no: self.jobs[&job].claim_no }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Enqueue { plugin, key, in_flight } => self.enqueue(*plugin, *key, *in_flight).await,
            Step::Claim { most, cap, max_running } => {
                self.claim(usize::from(*most), u32::from(*cap), u32::from(*max_running)).await;
            }
            Step::Finish { which, how } => {
                let running = self.by_status(JobStatus::Running);
                if !running.is_empty() {
                    self.finish(running[usize::from(*which) % running.len()], *how).await;
                }
            }
            Step::RepeatFinish { which } => {
                let claimed: Vec<_> = self
                    .jobs
                    .iter()
                    .filter(|(_, k)| k.claim_no > 0 && k.status != JobStatus::Running)
                    .map(|(id, _)| *id)
                    .collect();
                if !claimed.is_empty() {
                    let job = claimed[usize::from(*which) % claimed.len()];
                    let answer = self.bed.ledger.writer.finish(self.bed.succeeded(self.fence(job))).await;
                    let known = &self.jobs[&job];
                    let expected =
                        if known.ended_claim == known.claim_no { Verdict::AlreadyApplied } else { Verdict::Fenced };
                    assert_eq!(answer.expect("answered").verdict, expected);
                }
            }
            Step::GiveBack { which, delayed } => self.give_back(*which, *delayed).await,
            Step::Cancel { which } => self.cancel(*which).await,
            Step::Wait { seconds } => {
                self.seconds += i64::from(*seconds);
                self.bed.hands.advance(Duration::from_secs(u64::from(*seconds)));
            }
            Step::Prune => self.prune().await,
            Step::Reopen { is_clean } => self.reopen(*is_clean).await,
        }
    }

    async fn enqueue(&mut self, plugin: u8, key: Option<u8>, in_flight: bool) {
        let plugin = format!("p{plugin}");
        let key = key.map(|k| format!("k{k}"));
        let mut job = key.as_deref().map_or_else(|| new_job(&plugin), |k| keyed(&plugin, k));
        job.dedupe_in_flight = in_flight;
        job.dedupe_window = Duration::from_secs(30);
        let id = job.id;
        let twins = |k: &&Known| k.plugin == plugin && k.key == key;
        let suppressed = key.is_some()
            && (self.jobs.values().filter(twins).any(|k| {
                (in_flight && !k.status.is_terminal())
                    || (k.status == JobStatus::Succeeded && k.completed.is_some_and(|at| at > self.seconds - 30))
            }));
        match self.bed.enqueue(job).await {
            Enqueued::Accepted { row, .. } => {
                assert!(!suppressed, "a twin exists");
                assert!(self.jobs.values().all(|known| row > known.row), "it stands behind all that are left");
                let known = Known {
                    row,
                    plugin,
                    key,
                    status: JobStatus::Queued,
                    attempt: 1,
                    claim_no: 0,
                    due: None,
                    completed: None,
                    is_cancelled: false,
                    ended_claim: 0,
                    transitions: 1,
                    attempts: 0,
                    crashes: 0,
                };
                self.jobs.insert(id, known);
            }
            Enqueued::Duplicate { job, status } => {
                assert!(suppressed, "no twin exists");
                assert_eq!(self.jobs[&job].status, status);
            }
        }
    }

    async fn claim(&mut self, most: usize, cap: u32, max_running: u32) {
        let queued = self.by_status(JobStatus::Queued);
        let candidates: Vec<Candidate> = queued
            .iter()
            .take(most)
            .map(|id| {
                let known = &self.jobs[id];
                Candidate { row: known.row, job: *id, plugin: known.plugin.as_str().into(), due: None }
            })
            .collect();
        let mut expected = Vec::new();
        let running: Vec<Known> = self.jobs.values().filter(|k| k.status == JobStatus::Running).cloned().collect();
        let mut taken: Vec<Known> = Vec::new();
        // as in the ledger: due time and twins first, then the caps over what is left
        let mut eligible: Vec<(JobId, Known)> = Vec::new();
        for candidate in &candidates {
            let known = self.jobs[&candidate.job].clone();
            let is_twin = |k: &Known| known.key.is_some() && k.plugin == known.plugin && k.key == known.key;
            if known.due.is_some_and(|due| due > self.seconds)
                || running.iter().any(is_twin)
                || eligible.iter().any(|(_, k)| is_twin(k))
            {
                continue;
            }
            eligible.push((candidate.job, known));
        }
        for (id, known) in eligible {
            let of_plugin = running.iter().chain(&taken).filter(|k| k.plugin == known.plugin).count();
            if of_plugin < cap as usize && running.len() + taken.len() < max_running as usize {
                expected.push(id);
                taken.push(known);
            }
        }
        let mut request = self.bed.request(candidates);
        request.candidates.iter_mut().for_each(|c| c.1 = cap);
        request.max_running = max_running;
        let claims = self.bed.ledger.writer.claim(request).await.expect("answered");
        let got: Vec<_> = claims.claimed.iter().map(|c| c.job.fence.job).collect();
        assert_eq!(got, expected, "{:?}", claims.refused);
        for claimed in claims.claimed {
            let known = self.jobs.get_mut(&claimed.job.fence.job).expect("known");
            known.claim_no += 1;
            known.status = JobStatus::Running;
            known.due = None;
            known.transitions += 1;
            assert_eq!((claimed.job.fence.claim_no, claimed.job.attempt), (known.claim_no, known.attempt));
        }
    }

    async fn finish(&mut self, job: JobId, how: How) {
        let now = self.bed.hands.now();
        let known = self.jobs.get_mut(&job).expect("known");
        let how = if matches!(how, How::Retry) && known.attempt >= MAX_ATTEMPTS { How::Die } else { how };
        let (outcome, ending) = match how {
            How::Succeed => (succeeded(now), Ending::Succeeded),
            How::Skip => {
                let outcome = ductile_domain::outcome::Outcome {
                    status: ductile_domain::outcome::AttemptStatus::Skipped,
                    ..succeeded(now)
                };
                (outcome, Ending::Skipped)
            }
            How::Fail => (failed(Cause::ExitConfig, now), Ending::Failed),
            How::Die => (failed(Cause::ExitCode, now), Ending::Dead),
            How::Retry => (failed(Cause::ExitCode, now), retry_in(now, 20)),
        };
        let fence = Fence { job, claim_no: known.claim_no };
        let answer = self.bed.ledger.writer.finish(finish(fence, outcome, ending)).await.expect("answered");
        assert_eq!(answer.verdict, Verdict::Applied);
        known.attempts += 1;
        known.ended_claim = known.claim_no;
        known.transitions += 1;
        match how {
            How::Succeed => known.status = JobStatus::Succeeded,
            How::Skip => known.status = JobStatus::Skipped,
            How::Fail => known.status = JobStatus::Failed,
            How::Die => known.status = JobStatus::Dead,
            How::Retry if known.is_cancelled => known.status = JobStatus::Dead,
            How::Retry => {
                known.status = JobStatus::Queued;
                known.attempt += 1;
                known.due = Some(self.seconds + 20);
            }
        }
        if matches!(how, How::Die | How::Retry) {
            known.transitions += 1;
        }
        if known.status.is_terminal() {
            known.completed = Some(self.seconds);
        }
        assert_eq!(answer.status, Some(known.status));
    }

    async fn give_back(&mut self, which: u8, delayed: bool) {
        let running = self.by_status(JobStatus::Running);
        let Some(job) = running.get(usize::from(which) % running.len().max(1)).copied() else { return };
        let due = delayed.then(|| self.bed.hands.now() + chrono::TimeDelta::seconds(5));
        let fence = self.fence(job);
        let answer = self.bed.ledger.writer.give_back(fence, "test".into(), due).await.expect("answered");
        let known = self.jobs.get_mut(&job).expect("known");
        known.transitions += 1;
        known.ended_claim = -known.claim_no;
        if known.is_cancelled {
            known.status = JobStatus::Dead;
            known.completed = Some(self.seconds);
        } else {
            known.status = JobStatus::Queued;
            known.due = delayed.then_some(self.seconds + 5);
        }
        assert_eq!((answer.verdict, answer.status), (Verdict::Applied, Some(known.status)));
    }

    async fn cancel(&mut self, which: u8) {
        if self.jobs.is_empty() {
            return;
        }
        let at = usize::from(which) % self.jobs.len();
        let job = *self.jobs.keys().nth(at).expect("in range");
        let answer = self.bed.ledger.writer.cancel(job, "test".into(), "me".into()).await.expect("answered");
        let known = self.jobs.get_mut(&job).expect("known");
        match known.status {
            JobStatus::Queued => {
                assert!(matches!(answer, Cancelled::Dead { .. }));
                known.status = JobStatus::Dead;
                known.completed = Some(self.seconds);
                known.due = None;
                known.transitions += 1;
            }
            JobStatus::Running => {
                assert_eq!(answer, Cancelled::Flagged);
                known.is_cancelled = true;
            }
            status => assert_eq!(answer, Cancelled::AlreadyTerminal(status)),
        }
    }

    async fn prune(&mut self) {
        let prune = Prune { retention: vec![(Deletable::Jobs, Duration::from_secs(60))], limit: 1000 };
        self.bed.ledger.writer.prune(prune).await.expect("pruned");
        let seconds = self.seconds;
        self.jobs.retain(|_, k| k.completed.is_none_or(|at| at >= seconds - 60));
    }

    async fn reopen(&mut self, is_clean: bool) {
        let dir = std::mem::replace(&mut self.bed.dir, tempfile::tempdir().expect("a directory"));
        let hands = self.bed.hands.clone();
        if is_clean {
            self.bed.ledger.readers.close().await;
            self.bed.ledger.writer.close().await;
        } else {
            // a copy of the files beside the open ledger is what a kill leaves behind
            self.bed.ledger.readers.close().await;
            self.bed.ledger.writer.flush().await;
        }
        let copy = tempfile::tempdir().expect("a directory");
        for name in ["ductile.db", "ductile.db-wal"] {
            let from = dir.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).expect("copied");
            }
        }
        self.bed.ledger.writer.close().await;
        self.bed = Bed::in_dir(copy, hands).await;
        assert_eq!(self.bed.ledger.was_clean, is_clean);
        let orphans = self.bed.ledger.writer.orphans().await.expect("read");
        let recovered = self.bed.ledger.writer.recover().await.expect("recovered");
        let running = self.by_status(JobStatus::Running);
        assert_eq!(orphans.iter().map(|o| o.fence.job).collect::<Vec<_>>(), running);
        assert_eq!(recovered.len(), running.len());
        for job in running {
            let seconds = self.seconds;
            let known = self.jobs.get_mut(&job).expect("known");
            known.attempts += 1;
            known.crashes += 1;
            known.transitions += 2;
            known.ended_claim = known.claim_no;
            if known.attempt >= MAX_ATTEMPTS || known.is_cancelled || known.crashes >= QUARANTINE_AFTER {
                known.status = JobStatus::Dead;
                known.completed = Some(seconds);
            } else {
                known.status = JobStatus::Queued;
                known.attempt += 1;
                known.due = Some(seconds);
            }
        }
    }

    /// The rows say what the model says.
    async fn compare(&self) {
        let mut conn = self.bed.sql().await;
        let rows = sqlx::query(
            "SELECT q.id, q.status, q.attempt, q.claim_no, q.next_retry_at IS NOT NULL, q.completed_at IS NOT NULL,
                q.started_at IS NOT NULL, q.boot_id IS NOT NULL,
                (SELECT count(*) FROM job_transitions t WHERE t.job_id = q.id),
                (SELECT count(*) FROM job_attempts a WHERE a.job_id = q.id),
                (SELECT count(*) FROM job_log l WHERE l.job_id = q.id),
                (SELECT t.to_status FROM job_transitions t WHERE t.job_id = q.id ORDER BY t.id DESC LIMIT 1)
             FROM job_queue q",
        )
        .fetch_all(&mut conn)
        .await
        .expect("read");
        assert_eq!(rows.len(), self.jobs.len());
        for row in rows {
            let id: JobId = row.get::<String, _>(0).parse().expect("a UUID");
            let known = &self.jobs[&id];
            let status: String = row.get(1);
            assert_eq!(status, known.status.as_str(), "{id}");
            assert_eq!((row.get::<u32, _>(2), row.get::<i64, _>(3)), (known.attempt, known.claim_no), "{id}");
            assert_eq!(row.get::<bool, _>(4), known.due.is_some(), "{id}: next_retry_at");
            assert_eq!(row.get::<bool, _>(5), known.status.is_terminal(), "{id}: completed_at");
            if known.status == JobStatus::Queued {
                assert!(!row.get::<bool, _>(6) && !row.get::<bool, _>(7), "{id}: nothing of a running row stays");
            }
            assert_eq!(row.get::<i64, _>(8) as usize, known.transitions, "{id}: transitions");
            assert_eq!(row.get::<i64, _>(9) as usize, known.attempts, "{id}: attempts");
            assert_eq!(row.get::<i64, _>(10) as usize, known.attempts, "{id}: log");
            assert_eq!(row.get::<String, _>(11), status, "{id}: the last transition leads to the status");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// QUE-06, QUE-10, QUE-11, QUE-13, QUE-14, QUE-15, QUE-17, QUE-18, QUE-19, QUE-25, QUE-30, QUE-31, OPS-03
    #[test]
    fn rows_and_model_agree_after_every_step(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World { bed: Bed::new().await, jobs: BTreeMap::new(), seconds: 0 };
            for step in &steps {
                world.run(step).await;
                world.compare().await;
            }
            world.bed.ledger.close().await;
        });
    }
}
