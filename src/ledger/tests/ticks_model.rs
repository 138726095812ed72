//! Random ticks, ends, cancellations, arrangements and crashes against a pure model: after every step the rows and the
//! model agree.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use ductile_domain::breaker::{Admission, Breaker, BreakerPolicy};
use ductile_domain::ids::JobId;
use ductile_domain::job::JobStatus;
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::retry::Ending;
use ductile_domain::schedule::{EntryStatus, IfRunning, TickReason, TickStatus};
use ductile_domain::time;
use ductile_ledger::{Arrangement, Cancelled, Due, Enqueued, Ticked};
use proptest::prelude::*;
use sqlx::Row as _;
use support::schedules::{arrangement, due, expected};
use support::{Bed, failed, finish, new_job, succeeded};

const POLICY: BreakerPolicy = BreakerPolicy { threshold: 2, reset_after: Duration::from_secs(120) };

const SCHEDULES: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
struct Call {
    schedule: usize,
    if_running: IfRunning,
    guard: Option<u32>,
    is_catch_up: bool,
    /// So many ticks back: what has ended before.
    back: i64,
}

#[derive(Debug, Clone)]
enum Step {
    Tick(Vec<Call>),
    /// The answer to the last call was lost.
    Repeat,
    Api,
    Claim {
        which: u8,
    },
    Finish {
        which: u8,
        how: How,
    },
    Cancel {
        which: u8,
    },
    /// Ends what is expected, which begins again some ticks later.
    Arrange {
        schedule: usize,
        ahead: i64,
    },
    Pause {
        schedule: usize,
        on: bool,
    },
    Reset,
    Wait {
        seconds: u8,
    },
    Reopen {
        is_clean: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Succeed,
    Skip,
    Fail,
    Die,
}

fn call() -> impl Strategy<Value = Call> {
    let policy = prop_oneof![
        3 => Just(IfRunning::Skip),
        3 => Just(IfRunning::Queue),
        2 => Just(IfRunning::Cancel)
    ];
    let back = prop_oneof![5 => Just(0), 1 => 1..3i64];
    (0..2usize, policy, proptest::option::of(1..4u32), prop::bool::weighted(0.2), back).prop_map(
        |(schedule, if_running, guard, is_catch_up, back)| Call { schedule, if_running, guard, is_catch_up, back },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![2 => Just(How::Succeed), 1 => Just(How::Skip), 3 => Just(How::Fail), 2 => Just(How::Die)];
    prop_oneof![
        9 => prop::collection::vec(call(), 1..4).prop_map(Step::Tick),
        1 => Just(Step::Repeat),
        1 => Just(Step::Api),
        5 => any::<u8>().prop_map(|which| Step::Claim { which }),
        5 => (any::<u8>(), how).prop_map(|(which, how)| Step::Finish { which, how }),
        2 => any::<u8>().prop_map(|which| Step::Cancel { which }),
        1 => (0..2usize, 0..3i64).prop_map(|(schedule, ahead)| Step::Arrange { schedule, ahead }),
        1 => (0..2usize, any::<bool>()).prop_map(|(schedule, on)| Step::Pause { schedule, on }),
        1 => Just(Step::Reset),
        3 => (1..90u8).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<bool>().prop_map(|is_clean| Step::Reopen { is_clean }),
    ]
}

/// What the model knows of a job.
#[derive(Debug, Clone)]
struct Known {
    row: i64,
    is_scheduled: bool,
    status: JobStatus,
    is_cancelled: bool,
    claim_no: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tick {
    status: TickStatus,
    reason: Option<TickReason>,
    job: Option<JobId>,
    /// It ended before it was due, by a change.
    is_taken_back: bool,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    is_paused: bool,
    /// By minute.
    ticks: BTreeMap<i64, Tick>,
    last_success: Option<JobId>,
}

const EXPECTED: Tick = Tick { status: TickStatus::Expected, reason: None, job: None, is_taken_back: false };

impl Entry {
    fn next(&self) -> i64 {
        let waiting = self.ticks.iter().rev().find(|(_, tick)| tick.status == TickStatus::Expected);
        *waiting.expect("one is always expected").0
    }

    fn expect(&mut self, minute: i64) {
        let tick = self.ticks.entry(minute).or_insert(EXPECTED);
        if tick.is_taken_back {
            *tick = EXPECTED;
        }
    }

    fn end(&mut self, minute: i64, status: TickStatus, reason: Option<TickReason>, job: Option<JobId>) {
        let before = self.ticks.insert(minute, Tick { status, reason, job, is_taken_back: false });
        assert!(before.is_none_or(|tick| tick.status == TickStatus::Expected), "a tick ends once");
    }
}

/// What the model says about a call.
#[derive(Debug, PartialEq, Eq)]
enum Foreseen {
    Fires { cancels: Vec<JobId> },
    Skips(TickReason),
    Waits(TickReason),
    Ended,
}

struct World {
    bed: Bed,
    jobs: BTreeMap<JobId, Known>,
    entries: [Entry; 2],
    breaker: Breaker,
    last: Vec<Due>,
}

impl World {
    async fn new() -> Self {
        let bed = Bed::new().await;
        bed.generation(1, POLICY).await;
        let mut entries = [Entry::default(), Entry::default()];
        for (schedule, entry) in SCHEDULES.iter().zip(&mut entries) {
            bed.arrange(arrangement(schedule, &[bed.minute(0)])).await;
            entry.expect(0);
        }
        Self { bed, jobs: BTreeMap::new(), entries, breaker: Breaker::default(), last: Vec::new() }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Tick(calls) => self.tick(calls).await,
            Step::Repeat => {
                let before = self.jobs.len();
                for ticked in self.bed.ledger.writer.tick(self.last.clone(), 1).await.expect("answered") {
                    // what waits waits on, or has its turn with the next call
                    assert!(matches!(ticked, Ticked::AlreadyEnded), "{ticked:?}");
                }
                assert_eq!(self.bed.number("SELECT count(*) FROM job_queue").await, before as i64);
            }
            Step::Api => {
                let job = new_job("echo");
                let id = job.id;
                let Enqueued::Accepted { row, .. } = self.bed.enqueue(job).await else { panic!("it has no key") };
                self.remember(id, row, false);
            }
            Step::Claim { which } => {
                if let Some(job) = self.pick(JobStatus::Queued, *which) {
                    let claimed = self.bed.take(job).await;
                    let known = self.jobs.get_mut(&job).expect("known");
                    (known.status, known.claim_no) = (JobStatus::Running, claimed.fence.claim_no);
                }
            }
            Step::Finish { which, how } => {
                if let Some(job) = self.pick(JobStatus::Running, *which) {
                    self.finish(job, *how).await;
                }
            }
            Step::Cancel { which } => {
                let open = [JobStatus::Queued, JobStatus::Running][usize::from(*which) % 2];
                if let Some(job) = self.pick(open, *which / 2) {
                    let answer = self.bed.ledger.writer.cancel(job, "x".into(), "me".into()).await.expect("answered");
                    assert_eq!(matches!(answer, Cancelled::Dead(_)), open == JobStatus::Queued);
                    self.cancelled(job);
                }
            }
            Step::Arrange { schedule, ahead } => self.arrange(*schedule, *ahead).await,
            Step::Pause { schedule, on } => {
                let name = Some(SCHEDULES[*schedule].to_owned());
                let changed = self.bed.ledger.writer.pause_schedules("echo".into(), name, *on).await.expect("answered");
                let entry = &mut self.entries[*schedule];
                assert_eq!(changed.len(), usize::from(entry.is_paused != *on));
                entry.is_paused = *on;
            }
            Step::Reset => {
                let events = self.bed.ledger.writer.reset_breaker("echo".into()).await.expect("answered");
                let change = self.breaker.reset();
                assert_eq!(events.first().map(|event| event.change), change);
            }
            Step::Wait { seconds } => self.bed.hands.advance(Duration::from_secs(u64::from(*seconds))),
            Step::Reopen { is_clean } => self.reopen(*is_clean).await,
        }
    }

    fn remember(&mut self, job: JobId, row: i64, is_scheduled: bool) {
        let known = Known { row, is_scheduled, status: JobStatus::Queued, is_cancelled: false, claim_no: 0 };
        self.jobs.insert(job, known);
    }

    fn pick(&self, status: JobStatus, which: u8) -> Option<JobId> {
        let of: Vec<JobId> = self.jobs.iter().filter(|(_, k)| k.status == status).map(|(id, _)| *id).collect();
        of.get(usize::from(which) % of.len().max(1)).copied()
    }

    fn cancelled(&mut self, job: JobId) {
        let known = self.jobs.get_mut(&job).expect("known");
        known.is_cancelled = true;
        if known.status == JobStatus::Queued {
            known.status = JobStatus::Dead;
        }
    }

    fn in_flight(&self, is_scheduled: bool) -> Vec<JobId> {
        let of = self.jobs.iter().filter(|(_, k)| !k.status.is_terminal() && (k.is_scheduled || !is_scheduled));
        let mut of: Vec<_> = of.map(|(id, k)| (k.row, *id)).collect();
        of.sort_unstable();
        of.into_iter().map(|(_, id)| id).collect()
    }

    fn is_probe_alive(&self) -> bool {
        self.breaker.probe.is_some_and(|probe| !self.jobs[&probe].status.is_terminal())
    }

    fn foresee(&self, call: &Call, minute: i64) -> Foreseen {
        let entry = &self.entries[call.schedule];
        if entry.ticks.get(&minute).is_some_and(|tick| tick.status != TickStatus::Expected) {
            return Foreseen::Ended;
        }
        if entry.is_paused {
            return Foreseen::Skips(TickReason::Paused);
        }
        let scheduled = self.in_flight(true);
        let gives_way = !scheduled.is_empty();
        match call.if_running {
            IfRunning::Skip | IfRunning::Cancel if gives_way && call.is_catch_up => {
                return Foreseen::Waits(TickReason::Running);
            }
            IfRunning::Skip if gives_way => return Foreseen::Skips(TickReason::Running),
            _ => {}
        }
        if self.breaker.admit(&POLICY, self.is_probe_alive(), self.bed.hands.now()) == Admission::Refuse {
            return Foreseen::Skips(TickReason::BreakerOpen);
        }
        let cancels = if call.if_running == IfRunning::Cancel { scheduled } else { Vec::new() };
        let outstanding = self.in_flight(false).len() - cancels.len();
        if call.guard.is_some_and(|most| outstanding >= most as usize) {
            let reason = TickReason::Guard;
            return if call.is_catch_up { Foreseen::Waits(reason) } else { Foreseen::Skips(reason) };
        }
        Foreseen::Fires { cancels }
    }

    async fn tick(&mut self, calls: &[Call]) {
        let mut minutes = [self.entries[0].next(), self.entries[1].next()];
        let mut dues = Vec::new();
        let mut planned = Vec::new();
        for call in calls {
            let name = SCHEDULES[call.schedule];
            let minute = minutes[call.schedule] - call.back;
            if call.back == 0 {
                minutes[call.schedule] += 1;
            }
            dues.push(Due {
                if_running: call.if_running,
                guard: call.guard,
                is_catch_up: call.is_catch_up,
                next: Some(expected(self.bed.minute(minute + 1))),
                ..due(name, self.bed.minute(minute))
            });
            planned.push((call, minute));
        }
        let ticked = self.bed.ledger.writer.tick(dues.clone(), 1).await.expect("answered");
        self.last.clear();
        for (((call, minute), due), ticked) in planned.into_iter().zip(dues).zip(ticked) {
            let foreseen = self.foresee(call, minute);
            self.check(call, minute, &due, foreseen, ticked).await;
            if self.entries[call.schedule].ticks.get(&minute).is_some_and(|t| t.status != TickStatus::Expected) {
                self.last.push(due);
            }
        }
    }

    async fn check(&mut self, call: &Call, minute: i64, due: &Due, foreseen: Foreseen, ticked: Ticked) {
        match (foreseen, ticked) {
            (Foreseen::Ended, Ticked::AlreadyEnded) => {}
            (Foreseen::Waits(reason), Ticked::Waits { reason: told }) => {
                assert_eq!(told, reason);
                if let Some(tick) = self.entries[call.schedule].ticks.get_mut(&minute) {
                    tick.reason = Some(reason);
                }
            }
            (Foreseen::Skips(reason), Ticked::Skipped { reason: told, job: None, cancelled, flagged }) => {
                assert_eq!(told, reason);
                assert!(cancelled.is_empty() && flagged.is_empty());
                let entry = &mut self.entries[call.schedule];
                entry.end(minute, TickStatus::Skipped, Some(reason), None);
                entry.expect(minute + 1);
            }
            (Foreseen::Fires { cancels }, Ticked::Fired { job, cancelled, flagged, breaker, .. }) => {
                assert_eq!(job, due.job.id);
                let is_probe = self.breaker.admit(&POLICY, self.is_probe_alive(), self.bed.hands.now());
                let mut told: Vec<JobId> =
                    cancelled.iter().map(|buried| buried.transition.job).chain(flagged).collect();
                told.sort_unstable();
                let mut wanted = cancels.clone();
                wanted.sort_unstable();
                assert_eq!(told, wanted);
                cancels.into_iter().for_each(|job| self.cancelled(job));
                let change = if is_probe == Admission::Probe { self.breaker.probe(job) } else { None };
                assert_eq!(breaker.map(|event| event.change), change);
                let row = self.bed.ledger.readers.job(job).await.expect("read").expect("there").row;
                self.remember(job, row, true);
                let status = if call.is_catch_up { TickStatus::CaughtUp } else { TickStatus::Fired };
                let entry = &mut self.entries[call.schedule];
                entry.end(minute, status, None, Some(job));
                entry.expect(minute + 1);
            }
            (foreseen, ticked) => panic!("{foreseen:?} was foreseen for {call:?}, not {ticked:?}"),
        }
    }

    async fn finish(&mut self, job: JobId, how: How) {
        let now = self.bed.hands.now();
        let (outcome, ending, status, says) = match how {
            How::Succeed => (succeeded(now), Ending::Succeeded, JobStatus::Succeeded, Some(true)),
            How::Skip => {
                let outcome = Outcome { status: AttemptStatus::Skipped, ..succeeded(now) };
                (outcome, Ending::Skipped, JobStatus::Skipped, None)
            }
            How::Fail => (failed(Cause::ExitConfig, now), Ending::Failed, JobStatus::Failed, Some(false)),
            How::Die => (failed(Cause::ExitCode, now), Ending::Dead, JobStatus::Dead, Some(false)),
        };
        let known = self.jobs.get_mut(&job).expect("known");
        known.status = status;
        let fence = ductile_domain::job::Fence { job, claim_no: known.claim_no };
        let says = says.filter(|is_success| known.is_scheduled && (*is_success || !known.is_cancelled));
        let finished = self.bed.ledger.writer.finish(finish(fence, outcome, ending)).await.expect("finished");
        let change = self.breaker.count(&POLICY, job, says, now);
        assert_eq!(finished.breaker.map(|event| event.change), change);
        if says == Some(true) {
            let row = self.bed.ledger.readers.job(job).await.expect("read").expect("there");
            let schedule = usize::from(row.requested_by.as_deref() == Some("b"));
            self.entries[schedule].last_success = Some(job);
        }
    }

    async fn arrange(&mut self, schedule: usize, ahead: i64) {
        let minute = self.entries[schedule].next() + ahead;
        let others_end = (TickStatus::Skipped, TickReason::ClockWentBack);
        let to = Arrangement { others_end, ..arrangement(SCHEDULES[schedule], &[self.bed.minute(minute)]) };
        self.bed.arrange(to).await;
        let now = self.bed.hands.now();
        let entry = &mut self.entries[schedule];
        for (at, tick) in entry.ticks.iter_mut().filter(|(at, t)| t.status == TickStatus::Expected && **at != minute) {
            let is_taken_back = now < self.bed.minute(*at);
            let reason = Some(TickReason::ClockWentBack);
            *tick = Tick { status: TickStatus::Skipped, reason, job: None, is_taken_back };
        }
        entry.expect(minute);
    }

    async fn reopen(&mut self, is_clean: bool) {
        let dir = std::mem::replace(&mut self.bed.dir, tempfile::tempdir().expect("a directory"));
        let hands = self.bed.hands.clone();
        self.bed.ledger.readers.close().await;
        if is_clean {
            self.bed.ledger.writer.close().await;
        } else {
            self.bed.ledger.writer.flush().await;
        }
        // beside an open ledger, these are what a kill leaves behind
        let copy = tempfile::tempdir().expect("a directory");
        for name in ["ductile.db", "ductile.db-wal"] {
            let from = dir.path().join(name);
            if from.exists() {
                std::fs::copy(from, copy.path().join(name)).expect("copied");
            }
        }
        self.bed.ledger.writer.close().await;
        self.bed = Bed::in_dir(copy, hands).await;
        self.bed.generation(1, POLICY).await;
        let now = self.bed.hands.now();
        for recovered in self.bed.ledger.writer.recover().await.expect("recovered") {
            let job = recovered.orphan.fence.job;
            let known = self.jobs.get_mut(&job).expect("known");
            assert_eq!(known.status, JobStatus::Running);
            let is_exhausted = recovered.orphan.attempt >= recovered.orphan.max_attempts;
            let is_last = is_exhausted || known.is_cancelled || recovered.finished.is_quarantined;
            known.status = if is_last { JobStatus::Dead } else { JobStatus::Queued };
            let says = (is_last && known.is_scheduled && !known.is_cancelled).then_some(false);
            let change = self.breaker.count(&POLICY, job, says, now);
            assert_eq!(recovered.finished.breaker.map(|event| event.change), change);
        }
    }

    /// The rows say what the model says.
    async fn compare(&self) {
        let mut conn = self.bed.sql().await;
        let rows =
            sqlx::query("SELECT schedule_id, instant, status, reason, job_id FROM schedule_ticks ORDER BY instant");
        let rows = rows.fetch_all(&mut conn).await.expect("read");
        for (name, entry) in SCHEDULES.iter().zip(&self.entries) {
            let of = rows.iter().filter(|row| row.get::<String, _>(0) == *name);
            let found: Vec<(String, String, Option<String>, Option<String>)> =
                of.map(|r| (r.get(1), r.get(2), r.get(3), r.get(4))).collect();
            let wanted: Vec<_> = entry
                .ticks
                .iter()
                .map(|(minute, tick)| {
                    let reason = tick.reason.map(|reason| reason.as_str().to_owned());
                    let instant = time::format(self.bed.minute(*minute));
                    (instant, tick.status.as_str().to_owned(), reason, tick.job.map(|job| job.to_string()))
                })
                .collect();
            assert_eq!(found, wanted, "{name}");
            let row = self.bed.ledger.readers.entry("echo", name).await.expect("read").expect("there");
            assert_eq!(row.next_run_at, Some(self.bed.minute(entry.next())), "{name}");
            let status = if entry.is_paused { EntryStatus::PausedManual } else { EntryStatus::Active };
            assert_eq!(row.status, status, "{name}");
            assert_eq!(row.last_success_job_id, entry.last_success.map(|job| job.to_string()), "{name}");
        }
        let rows =
            sqlx::query("SELECT id, status, submitted_by FROM job_queue").fetch_all(&mut conn).await.expect("read");
        assert_eq!(rows.len(), self.jobs.len());
        for row in rows {
            let known = &self.jobs[&row.get::<String, _>(0).parse().expect("a UUID")];
            assert_eq!(
                (row.get::<String, _>(1).as_str(), row.get::<String, _>(2) == "scheduler"),
                (known.status.as_str(), known.is_scheduled)
            );
        }
        let rows = self.bed.ledger.readers.breakers(None).await.expect("read");
        let text = |at: Option<_>| at.map(time::format);
        match rows.as_slice() {
            [] => assert_eq!(self.breaker, Breaker::default()),
            [row] => {
                assert_eq!(row.state, self.breaker.state.as_str());
                assert_eq!(row.failure_count, u64::from(self.breaker.failure_count));
                assert_eq!(
                    (&row.opened_at, &row.last_failure_at),
                    (&text(self.breaker.opened_at), &text(self.breaker.last_failure_at))
                );
                assert_eq!(row.last_job_id, self.breaker.last_job.map(|job| job.to_string()));
            }
            more => panic!("{more:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// SCH-15, SCH-16, SCH-17, SCH-18, BRK-01 to BRK-09: each tick ends at most once, no poll goes past its guard, and the
    /// breaker is that of the pure model.
    #[test]
    fn rows_and_model_agree_after_every_step(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.run(step).await;
                world.compare().await;
            }
            world.bed.ledger.close().await;
        });
    }
}
