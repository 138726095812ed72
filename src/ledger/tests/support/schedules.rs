//! Ticks and entries to put into a ledger.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ductile_domain::breaker::BreakerPolicy;
use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimedJob, NewJob};
use ductile_domain::outcome::Cause;
use ductile_domain::retry::Ending;
use ductile_domain::schedule::{EntryStatus, Expected, IfRunning, TickReason, TickStatus};
use ductile_domain::time::{self, Timestamp};
use ductile_ledger::{Arrangement, Due, Ended, Finished, Snapshot, TickFilter, TickRow, Ticked};
use uuid::Uuid;

use super::{Bed, failed, finish, new_job};

/// The timing of all these schedules.
pub(crate) const PRINT: &str = "0123456789abcdef";

/// A tick without jitter.
pub(crate) const fn expected(instant: Timestamp) -> Expected {
    Expected { instant, due: instant }
}

/// An active schedule of `echo` of which these are expected.
pub(crate) fn arrangement(schedule: &str, instants: &[Timestamp]) -> Arrangement {
    Arrangement {
        plugin: "echo".into(),
        schedule: schedule.into(),
        command: "poll".into(),
        status: EntryStatus::Active,
        reason: None,
        fingerprint: Some(PRINT.into()),
        anchor: None,
        armed_by: None,
        others_end: (TickStatus::Skipped, TickReason::Replaced),
        ended: Vec::new(),
        expect: instants.iter().copied().map(expected).collect(),
        is_removed: false,
    }
}

pub(crate) const fn ended(instant: Timestamp, status: TickStatus, reason: TickReason) -> Ended {
    Ended { instant, due: instant, last: None, status, reason }
}

/// A tick of a schedule of `echo` that gives way to jobs that run.
pub(crate) fn due(schedule: &str, instant: Timestamp) -> Due {
    let key = format!("schedule:echo:{schedule}:{}", time::format(instant));
    Due {
        plugin: "echo".into(),
        schedule: schedule.into(),
        fingerprint: PRINT.into(),
        instant,
        due: instant,
        is_catch_up: false,
        is_late: false,
        skip: None,
        job: NewJob {
            submitted_by: "scheduler",
            requested_by: Some(schedule.into()),
            dedupe_key: Some(key),
            dedupe_in_flight: true,
            dedupe_window: Duration::from_secs(30),
            max_attempts: 1,
            ..new_job("echo")
        },
        if_running: IfRunning::Skip,
        guard: None,
        next: None,
        is_last: false,
        passed: Vec::new(),
    }
}

/// Any of several jobs at a time.
pub(crate) fn queueing(schedule: &str, instant: Timestamp) -> Due {
    Due { if_running: IfRunning::Queue, ..due(schedule, instant) }
}

/// The job of a tick that fired.
#[track_caller]
pub(crate) fn fired(ticked: &Ticked) -> JobId {
    match ticked {
        Ticked::Fired { job, .. } => *job,
        other => panic!("it did not fire: {other:?}"),
    }
}

/// Why it was skipped.
#[track_caller]
pub(crate) fn skipped(ticked: &Ticked) -> TickReason {
    match ticked {
        Ticked::Skipped { reason, .. } => *reason,
        other => panic!("it was not skipped: {other:?}"),
    }
}

impl Bed {
    /// Minutes after the beginning.
    pub(crate) fn minute(&self, n: i64) -> Timestamp {
        time::parse("2026-01-01T00:00:00Z").expect("valid") + TimeDelta::minutes(n)
    }

    pub(crate) async fn arrange(&self, arrangement: Arrangement) {
        self.ledger.writer.arrange(vec![arrangement]).await.expect("answered").remove(0).expect("arranged");
    }

    pub(crate) async fn tick(&self, due: Due) -> Ticked {
        self.ledger.writer.tick(vec![due], 1).await.expect("answered").remove(0)
    }

    /// The ticks of `echo`, the oldest row first: minute, status and reason.
    pub(crate) async fn ticks_of(&self, schedule: &str) -> Vec<(i64, String, Option<String>)> {
        let mut rows = self.rows_of(schedule).await;
        rows.sort_by(|a, b| a.instant.cmp(&b.instant));
        let minute = |row: &TickRow| (time::parse(&row.instant).expect("a time") - self.minute(0)).num_minutes();
        rows.into_iter().map(|row| (minute(&row), row.status, row.reason)).collect()
    }

    pub(crate) async fn rows_of(&self, schedule: &str) -> Vec<TickRow> {
        let filter = TickFilter { schedule: Some(schedule.into()), limit: 1000, ..TickFilter::default() };
        self.ledger.readers.ticks(&filter).await.expect("read")
    }

    /// Puts a generation in force with that breaker for `echo`.
    pub(crate) async fn generation(&self, generation: u64, breaker: BreakerPolicy) {
        let breakers = [("echo".to_owned(), breaker)].into();
        let snapshot = Snapshot { generation, plugins: vec!["echo".into()], breakers, ..Snapshot::default() };
        self.ledger.writer.record_snapshot(snapshot).await.expect("recorded");
    }

    /// Enqueues a job as a tick would, and claims it.
    pub(crate) async fn scheduled(&self, plugin: &str, command: &str) -> Arc<ClaimedJob> {
        let id = JobId::from(Uuid::now_v7());
        let job = NewJob { requested_by: Some("default".into()), ..NewJob::new(id, plugin, command, "scheduler") };
        let row = match self.enqueue(job).await {
            ductile_ledger::Enqueued::Accepted { row, .. } => row,
            ductile_ledger::Enqueued::Duplicate { .. } => panic!("it has no key"),
        };
        self.claim(vec![Candidate { row, job: id, plugin: plugin.into(), due: None }]).await.claimed.remove(0).job
    }

    /// The next job of `echo` fails for good.
    pub(crate) async fn fail(&self, job: &ClaimedJob) -> Finished {
        let end = finish(job.fence, failed(Cause::ExitConfig, self.hands.now()), Ending::Failed);
        self.ledger.writer.finish(end).await.expect("finished")
    }

    pub(crate) async fn succeed(&self, job: &ClaimedJob) -> Finished {
        self.ledger.writer.finish(self.succeeded(job.fence)).await.expect("finished")
    }
}
