//! Random trees of jobs with joins in joins, ended in every way, against a model that counts anew after each step.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ductile_domain::ids::{ContextId, JobId, JoinId};
use ductile_domain::job::{JobStatus, NewJob, Seat};
use ductile_domain::outcome::Cause;
use ductile_domain::plan::Plan;
use ductile_domain::retry::Ending;
use ductile_ledger::{Cancelled, Enqueued, Finish, Finished, Submission, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};
use sqlx::Row as _;
use support::{Bed, arrival, context, failed, finish, join, new_job, seat, succeeded};

/// Numbers that look random and are the same for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[derive(Debug, Clone)]
struct Job {
    seat: Option<Seat>,
    is_live: bool,
    is_running: bool,
    attempt: u32,
    max_attempts: u32,
    context: Option<ContextId>,
}

#[derive(Debug, Default, Clone)]
struct Branch {
    has_failed: bool,
    payload: Option<u64>,
}

#[derive(Debug)]
struct Join {
    outer: Option<Seat>,
    job: JobId,
    context: Option<ContextId>,
    branches: Vec<Branch>,
    has_fired: bool,
}

/// The definition, with nothing remembered between two counts.
#[derive(Default)]
struct Model {
    jobs: BTreeMap<JobId, Job>,
    joins: BTreeMap<JoinId, Join>,
    contexts: BTreeSet<ContextId>,
}

impl Model {
    fn open(&self, join: JoinId) -> usize {
        let seated = self.jobs.values().filter(|job| job.is_live && job.seat.is_some_and(|s| s.join == join));
        let nested = self.joins.values().filter(|j| !j.has_fired && j.outer.is_some_and(|s| s.join == join));
        seated.count() + nested.count()
    }

    fn branch(&mut self, seat: Seat) -> Option<&mut Branch> {
        self.joins.get_mut(&seat.join)?.branches.get_mut(seat.branch as usize)
    }

    fn accept(&mut self, new: &NewJob) {
        self.contexts.extend(new.context);
        let job = Job {
            seat: new.seat,
            is_live: true,
            is_running: false,
            attempt: 1,
            max_attempts: new.max_attempts,
            context: new.context,
        };
        self.jobs.insert(new.id, job);
    }

    /// What a committed plan changes.
    fn carry_out(&mut self, plan: &Plan, answers: &[Enqueued]) {
        for new in &plan.joins {
            let branches = vec![Branch::default(); new.branches.len()];
            let (job, context) = (new.job.id, new.job.context);
            self.contexts.extend(context);
            self.joins.insert(new.id, Join { outer: new.outer, job, context, branches, has_fired: false });
        }
        for (new, answer) in plan.children.iter().zip(answers) {
            if matches!(answer, Enqueued::Accepted { .. }) {
                self.accept(new);
            }
        }
        for arrived in &plan.arrivals {
            let payload = arrived.payload.as_ref().and_then(|p| p.get().parse().ok());
            if let Some(branch) = self.branch(arrived.seat) {
                branch.payload = payload;
            }
        }
    }

    fn end(&mut self, job: JobId, is_bad: bool) {
        let job = self.jobs.get_mut(&job).expect("known");
        (job.is_live, job.is_running) = (false, false);
        let seat = job.seat;
        if let (true, Some(branch)) = (is_bad, seat.and_then(|seat| self.branch(seat))) {
            branch.has_failed = true;
        }
    }

    /// Fires what has nothing open, and answers the jobs that follow.
    fn fire(&mut self) -> BTreeSet<JobId> {
        let mut born = BTreeSet::new();
        while let Some(id) = self.joins.iter().find(|(id, j)| !j.has_fired && self.open(**id) == 0).map(|(id, _)| *id) {
            let join = self.joins.get_mut(&id).expect("just found");
            join.has_fired = true;
            let (job, seat, context) = (join.job, join.outer, join.context);
            self.accept(&NewJob { id: job, seat, context, max_attempts: 1, ..new_job("core.join") });
            born.insert(job);
        }
        born
    }

    fn some(&self, dice: &mut Dice, wanted: impl Fn(&Job) -> bool) -> Option<JobId> {
        let found: Vec<_> = self.jobs.iter().filter(|(_, job)| wanted(job)).map(|(id, _)| *id).collect();
        (!found.is_empty()).then(|| found[dice.roll(found.len() as u64) as usize])
    }
}

struct World {
    bed: Option<Bed>,
    model: Model,
    dice: Dice,
    arrivals: u64,
    /// Jobs that may still be made.
    budget: u32,
}

impl World {
    fn bed(&self) -> &Bed {
        self.bed.as_ref().expect("open")
    }

    /// What follows a job that sits there: children, arrivals, splits within splits.
    fn grow(&mut self, plan: &mut Plan, seat_here: Option<Seat>, above: Option<ContextId>, depth: u32) {
        for _ in 0..self.dice.roll(3) {
            match self.dice.roll(4) {
                0 if depth < 3 && self.budget > 0 => {
                    let own = context(above, "join");
                    let mut new = join(seat_here, self.dice.roll(4) as usize);
                    new.job.context = Some(own.id);
                    plan.contexts.push(own);
                    let seats: Vec<_> = (0..).map(|n| seat(&new, n)).take(new.branches.len()).collect();
                    plan.joins.push(new);
                    for inner in seats {
                        self.grow(plan, Some(inner), above, depth + 1);
                    }
                }
                1 if seat_here.is_some() => {
                    self.arrivals += 1;
                    plan.arrivals.push(arrival(seat_here.expect("just seen"), &self.arrivals.to_string()));
                }
                _ if self.budget > 0 => {
                    self.budget -= 1;
                    let own = context(above, "step");
                    let mut job = NewJob { seat: seat_here, context: Some(own.id), ..new_job("echo") };
                    job.max_attempts = 1 + self.dice.roll(2) as u32;
                    if self.dice.roll(4) == 0 {
                        (job.dedupe_key, job.dedupe_in_flight) = (Some(format!("k{}", self.dice.roll(3))), true);
                    }
                    plan.contexts.push(own);
                    plan.children.push(job);
                }
                _ => {}
            }
        }
    }

    async fn step(&mut self) {
        match self.dice.roll(12) {
            0 => self.submit().await,
            1 => self.cancel().await,
            2 if self.dice.roll(4) == 0 => self.restart().await,
            3..=5 => drop(self.claim().await),
            _ => {
                let running = self.model.some(&mut self.dice, |job| job.is_running);
                let job = match running {
                    Some(job) => Some(job),
                    None => self.claim().await,
                };
                if let Some(job) = job {
                    self.end(job).await;
                }
            }
        }
    }

    async fn submit(&mut self) {
        let mut plan = Plan::default();
        self.grow(&mut plan, None, None, 0);
        let Plan { children, contexts, joins, arrivals, .. } = plan.clone();
        let submission = Submission { jobs: children, contexts, joins, arrivals };
        let answer = self.bed().ledger.writer.submit(submission, 1).await.expect("submitted");
        if answer.jobs.is_empty() || answer.jobs.iter().any(|job| matches!(job, Enqueued::Accepted { .. })) {
            self.model.carry_out(&plan, &answer.jobs);
        }
        let born: BTreeSet<_> = answer.born.iter().map(|b| b.job).collect();
        assert_eq!(born, self.model.fire());
    }

    async fn claim(&mut self) -> Option<JobId> {
        let job = self.model.some(&mut self.dice, |job| job.is_live && !job.is_running)?;
        let row = self.bed().ledger.readers.job(job).await.expect("read").expect("there");
        let candidate =
            ductile_domain::job::Candidate { row: row.row, job, plugin: row.plugin.as_str().into(), due: None };
        let claims = self.bed().claim(vec![candidate]).await;
        // a twin may run
        let claimed = claims.claimed.first()?.job.clone();
        let known = self.model.jobs.get_mut(&job).expect("known");
        known.is_running = true;
        assert_eq!((claimed.seat, claimed.context_id), (known.seat, known.context));
        assert_eq!(claimed.context.is_some(), known.context.is_some(), "it stands in the table");
        Some(job)
    }

    async fn end(&mut self, job: JobId) {
        let now = self.bed().hands.now();
        let row = self.bed().ledger.readers.running().await.expect("read");
        let row = row.into_iter().find(|row| row.job_id == job.to_string()).expect("it runs");
        let fence = ductile_domain::job::Fence { job, claim_no: row.claim_no };
        let known = self.model.jobs[&job].clone();
        let writer = self.bed().ledger.writer.clone();
        let is_cancelled = row.is_cancel_requested;
        let roll = self.dice.roll(10);
        let (answer, plan): (Finished, Plan) = match roll {
            0 => (writer.give_back(fence, "a stop".into(), None).await.expect("answered"), Plan::default()),
            1 | 2 => {
                let ending = if known.attempt < known.max_attempts { Ending::Retry { due: now } } else { Ending::Dead };
                let end = finish(fence, failed(Cause::ExitCode, now), ending);
                (writer.finish(end).await.expect("answered"), Plan::default())
            }
            3 => {
                let end = finish(fence, failed(Cause::Preflight, now), Ending::Failed);
                (writer.finish(end).await.expect("answered"), Plan::default())
            }
            _ => {
                let mut plan = Plan::default();
                self.grow(&mut plan, known.seat, known.context, 0);
                let end = Finish { plan: plan.clone(), ..finish(fence, succeeded(now), Ending::Succeeded) };
                let answer = writer.finish(end.clone()).await.expect("answered");
                if self.dice.roll(4) == 0 {
                    let again = writer.finish(end).await.expect("answered");
                    assert_eq!((again.verdict, again.born.len()), (Verdict::AlreadyApplied, 0));
                }
                (answer, plan)
            }
        };
        assert_eq!(answer.verdict, Verdict::Applied);
        self.model.carry_out(&plan, &answer.children);
        let status = answer.status.expect("there");
        assert!(!is_cancelled || status.is_terminal());
        if status.is_terminal() {
            self.model.end(job, matches!(status, JobStatus::Failed | JobStatus::Dead));
        } else {
            let known = self.model.jobs.get_mut(&job).expect("known");
            known.is_running = false;
            known.attempt += u32::from(roll != 0);
        }
        self.expect_born(&answer);
    }

    fn expect_born(&mut self, answer: &Finished) {
        let born: BTreeSet<_> = answer.born.iter().map(|b| b.job).collect();
        assert_eq!(born, self.model.fire());
    }

    async fn cancel(&mut self) {
        let Some(job) = self.model.some(&mut self.dice, |job| job.is_live) else { return };
        let answer = self.bed().ledger.writer.cancel(job, "x".into(), "x".into()).await.expect("answered");
        match answer {
            Cancelled::Dead(buried) => {
                self.model.end(job, true);
                let born: BTreeSet<_> = buried.born.iter().map(|b| b.job).collect();
                assert_eq!(born, self.model.fire());
            }
            Cancelled::Flagged => assert!(self.model.jobs[&job].is_running),
            other => panic!("{other:?}"),
        }
    }

    /// What runs is found by the next start, and tried again or dead.
    async fn restart(&mut self) {
        let bed = self.bed.take().expect("open").reopen().await;
        let recovered = bed.ledger.writer.recover().await.expect("recovered");
        self.bed = Some(bed);
        assert_eq!(recovered.len(), self.model.jobs.values().filter(|job| job.is_running).count());
        for orphan in recovered {
            let job = orphan.orphan.fence.job;
            if orphan.finished.status.is_some_and(JobStatus::is_terminal) {
                self.model.end(job, true);
            } else {
                let known = self.model.jobs.get_mut(&job).expect("known");
                (known.is_running, known.attempt) = (false, known.attempt + 1);
            }
            self.expect_born(&orphan.finished);
        }
    }

    /// The rows say what the model says.
    async fn compare(&self) {
        let bed = self.bed();
        bed.assert_joins_are_balanced().await;
        let mut conn = bed.sql().await;
        let rows = sqlx::query("SELECT id, open, fired_at IS NOT NULL FROM pipeline_joins");
        let mut seen = 0;
        for row in rows.fetch_all(&mut conn).await.expect("read") {
            let id: JoinId = row.get::<String, _>(0).parse().expect("a UUID");
            let open = usize::try_from(row.get::<i64, _>(1)).expect("never below nothing");
            assert_eq!((open, row.get::<bool, _>(2)), (self.model.open(id), self.model.joins[&id].has_fired));
            seen += 1;
        }
        assert_eq!(seen, self.model.joins.len());
        let rows = sqlx::query("SELECT id FROM event_context").fetch_all(&mut conn).await.expect("read");
        let written: BTreeSet<ContextId> =
            rows.iter().map(|row| row.get::<String, _>(0).parse().expect("a UUID")).collect();
        assert_eq!(written, self.model.contexts, "no more and no less than what jobs and joins name");
    }

    /// What each join's job was told.
    async fn compare_payloads(&self) {
        for join in self.model.joins.values() {
            let row = self.bed().ledger.readers.job(join.job).await.expect("read").expect("every join fires");
            let said: Value = serde_json::from_str(row.payload.expect("a payload").get()).expect("JSON");
            let said: Vec<_> = said["branches"].as_array().expect("a list").clone();
            assert_eq!(said.len(), join.branches.len());
            for (said, branch) in said.iter().zip(&join.branches) {
                let status = if branch.has_failed { "failed" } else { "succeeded" };
                assert_eq!((&said["status"], &said["payload"]), (&json!(status), &json!(branch.payload)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    /// PIP-12: whatever happens in whatever order, a join counts what it should and fires once.
    #[test]
    fn joins_and_model_agree_after_every_step(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (bed, model) = (Some(Bed::new().await), Model::default());
            let mut world = World { bed, model, dice: Dice(seed), arrivals: 0, budget: 60 };
            for _ in 0..70 {
                world.step().await;
                world.compare().await;
            }
            world.budget = 0;
            // a job that was given back for ever would never end; the dice see to it
            for n in 0.. {
                assert!(n < 20_000, "jobs are left");
                let Some(job) = world.model.some(&mut world.dice, |job| job.is_running) else {
                    if world.model.some(&mut world.dice, |job| job.is_live).is_none() {
                        break;
                    }
                    world.bed().hands.advance(Duration::from_secs(60));
                    world.claim().await;
                    continue;
                };
                world.end(job).await;
            }
            world.compare().await;
            assert!(world.model.joins.values().all(|join| join.has_fired));
            world.compare_payloads().await;
            world.bed.take().expect("open").ledger.close().await;
        });
    }
}
