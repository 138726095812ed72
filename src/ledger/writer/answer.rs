//! Reads what a batch returned and gives every operation its answer.

use std::collections::HashMap;
use std::sync::Arc;

use ductile_domain::ids::JobId;
use ductile_domain::job::{Candidate, ClaimedJob, Fence, JobStatus};
use ductile_domain::time::{self, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Op;
use crate::error::WriteError;
use crate::ops::{
    Cancelled, Claimed, Claims, Enqueued, Finished, Refusal, Refused, Transition, Verdict, candidate, status_word,
};

/// `op, result, status, row, plugin, next_retry_at, attempt`.
type FinishRow = (usize, u8, Option<String>, Option<i64>, Option<String>, Option<String>, Option<u32>);
/// `op, status before`.
type CancelRow = (usize, Option<String>);
/// `op, index, id, status, is a duplicate, row, plugin`.
type EnqueueRow = (usize, usize, JobId, String, u8, i64, String);
/// `op, row, job, verdict`, then the job's columns.
type ClaimRow = (
    usize,
    i64,
    JobId,
    u8,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<u32>,
    Option<u32>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<JobId>,
    Option<String>,
    Option<String>,
);
/// `job, from, to, reason`.
type TransitionRow = (JobId, Option<String>, String, Option<String>);

/// The one value that a batch returns.
#[derive(Deserialize)]
struct Raw(Option<i64>, Vec<FinishRow>, Vec<CancelRow>, Vec<EnqueueRow>, Vec<ClaimRow>, Vec<TransitionRow>);

/// An answer that did not come to the form in which the batch writes it.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) serde_json::Error);

/// Everything that a committed batch says, by the number of the operation.
pub(super) struct Answers {
    finishes: HashMap<usize, Finished>,
    cancels: HashMap<usize, Cancelled>,
    enqueues: HashMap<usize, Vec<Enqueued>>,
    claims: HashMap<usize, Claims>,
    /// Rows that became ready.
    pub(super) ready: Vec<Candidate>,
}

/// Transitions of one job in one batch, by the operation that wrote them.
#[derive(Default)]
struct OfJob {
    enqueue: i64,
    claim: i64,
    cancel: i64,
    finish: Vec<Transition>,
}

impl Answers {
    pub(super) fn read(text: &str, ops: &[Op], at: Timestamp) -> Result<Self, Unreadable> {
        let Raw(base, finishes, cancels, enqueues, claims, transitions) =
            serde_json::from_str(text).map_err(Unreadable)?;
        let mut by_job = by_job(base.unwrap_or(0), transitions, at);
        let mut answers = Self {
            finishes: HashMap::with_capacity(finishes.len()),
            cancels: HashMap::with_capacity(cancels.len()),
            enqueues: HashMap::new(),
            claims: HashMap::new(),
            ready: Vec::new(),
        };
        for (no, result, status, row, plugin, due, _attempt) in finishes {
            let job = match &ops[no] {
                Op::Finish(finish, _) => finish.fence.job,
                Op::GiveBack { fence, .. } => fence.job,
                _ => continue,
            };
            let verdict = match result {
                1 => Verdict::Applied,
                2 => Verdict::AlreadyApplied,
                _ => Verdict::Fenced,
            };
            let status = status.as_deref().and_then(|s| s.parse::<JobStatus>().ok());
            let due = due.as_deref().and_then(time::parse);
            // a claim later in the batch may have taken the row already; the hint does no harm then
            if let (Verdict::Applied, Some(JobStatus::Queued), Some(row), Some(plugin)) = (verdict, status, row, plugin)
            {
                answers.ready.push(candidate(row, job, &plugin, due));
            }
            let transitions = if verdict == Verdict::Applied {
                by_job.get_mut(&job).map(|t| std::mem::take(&mut t.finish)).unwrap_or_default()
            } else {
                Vec::new()
            };
            answers.finishes.insert(no, Finished { verdict, status, due, transitions, children: Vec::new() });
        }
        for (no, before) in cancels {
            let Op::Cancel { job, .. } = &ops[no] else { continue };
            let answer = match before.as_deref().and_then(|s| s.parse().ok()) {
                None => Cancelled::Unknown,
                Some(JobStatus::Queued) => Cancelled::Dead { transition: by_job.get(job).map_or(0, |t| t.cancel) },
                Some(JobStatus::Running) => Cancelled::Flagged,
                Some(status) => Cancelled::AlreadyTerminal(status),
            };
            answers.cancels.insert(no, answer);
        }
        for (no, _index, job, status, is_duplicate, row, plugin) in enqueues {
            let enqueued = if is_duplicate == 0 {
                answers.ready.push(candidate(row, job, &plugin, None));
                Enqueued::Accepted { job, row, transition: by_job.get(&job).map_or(0, |t| t.enqueue) }
            } else {
                Enqueued::Duplicate { job, status: status.parse().unwrap_or(JobStatus::Queued) }
            };
            answers.enqueues.entry(no).or_default().push(enqueued);
        }
        for row in claims {
            let no = row.0;
            let claims = answers.claims.entry(no).or_default();
            if row.3 == 0 {
                let transition = by_job.get(&row.2).map_or(0, |t| t.claim);
                claims.claimed.extend(claimed(row, transition, at));
            } else {
                claims.refused.push(Refused { row: row.1, job: row.2, why: refusal(row.3) });
            }
        }
        // what was claimed in the same batch is not ready any more
        if !answers.claims.is_empty() && !answers.ready.is_empty() {
            let taken: std::collections::HashSet<JobId> =
                answers.claims.values().flat_map(|c| c.claimed.iter().map(|c| c.job.fence.job)).collect();
            answers.ready.retain(|c| !taken.contains(&c.job));
        }
        Ok(answers)
    }

    /// Attempts that the batch began.
    pub(super) fn began(&self) -> impl Iterator<Item = JobId> {
        self.claims.values().flat_map(|c| c.claimed.iter().map(|c| c.job.fence.job))
    }

    /// Attempts that it ended, of the operations that asked for it.
    pub(super) fn ended(&self, ops: &[Op]) -> Vec<JobId> {
        let applied = self.finishes.iter().filter(|(_, f)| f.verdict == Verdict::Applied);
        applied
            .filter_map(|(no, _)| match &ops[*no] {
                Op::Finish(finish, _) => Some(finish.fence.job),
                Op::GiveBack { fence, .. } => Some(fence.job),
                _ => None,
            })
            .collect()
    }

    /// Answers every operation; a caller that went away is no concern.
    pub(super) fn give(mut self, ops: Vec<Op>) {
        for (no, op) in ops.into_iter().enumerate() {
            match op {
                Op::Finish(_, reply) | Op::GiveBack { reply, .. } => {
                    let children = self.enqueues.remove(&no).unwrap_or_default();
                    let answer = self.finishes.remove(&no).map(|f| Finished { children, ..f });
                    let _ = reply.send(answer.ok_or(WriteError::Closed));
                }
                Op::Cancel { reply, .. } => {
                    let _ = reply.send(self.cancels.remove(&no).ok_or(WriteError::Closed));
                }
                Op::Enqueue { reply, .. } => {
                    let _ = reply.send(Ok(self.enqueues.remove(&no).unwrap_or_default()));
                }
                Op::Claim(_, reply) | Op::StandingClaim(_, reply) => {
                    let _ = reply.send(Ok(self.claims.remove(&no).unwrap_or_default()));
                }
            }
        }
    }
}

/// Answers a claim that will not be decided.
pub(super) fn withdraw(op: Op) {
    if let Op::StandingClaim(request, reply) | Op::Claim(request, reply) = op {
        let refused =
            request.candidates.iter().map(|(c, _)| Refused { row: c.row, job: c.job, why: Refusal::Withdrawn });
        drop(reply.send(Ok(Claims { claimed: Vec::new(), refused: refused.collect() })));
    }
}

/// Answers an operation that was not committed.
pub(super) fn refuse(op: Op, error: WriteError) {
    match op {
        Op::Finish(_, reply) | Op::GiveBack { reply, .. } => drop(reply.send(Err(error))),
        Op::Cancel { reply, .. } => drop(reply.send(Err(error))),
        Op::Enqueue { reply, .. } => drop(reply.send(Err(error))),
        Op::Claim(_, reply) | Op::StandingClaim(_, reply) => drop(reply.send(Err(error))),
    }
}

fn by_job(base: i64, rows: Vec<TransitionRow>, at: Timestamp) -> HashMap<JobId, OfJob> {
    let mut by_job: HashMap<JobId, OfJob> = HashMap::with_capacity(rows.len());
    for (id, (job, from, to, reason)) in (base + 1..).zip(rows) {
        let of_job = by_job.entry(job).or_default();
        match (from.as_deref(), to.as_str()) {
            (None, _) => of_job.enqueue = id,
            (Some("queued"), "running") => of_job.claim = id,
            (Some("queued"), _) => of_job.cancel = id,
            (Some(from), to) => {
                let (from, to) = (Some(status_word(from)), status_word(to));
                of_job.finish.push(Transition { id, job, from, to, reason, at });
            }
        }
    }
    by_job
}

fn refusal(verdict: u8) -> Refusal {
    match verdict {
        2 => Refusal::NotDue,
        3 => Refusal::TwinRunning,
        4 => Refusal::PluginCap,
        5 => Refusal::GlobalCap,
        _ => Refusal::Gone,
    }
}

/// `None` when a column that is never NULL is; the row stays `running` and the reaper finds it.
fn claimed(row: ClaimRow, transition: i64, at: Timestamp) -> Option<Claimed> {
    let (
        _,
        q,
        job,
        _,
        plugin,
        command,
        payload,
        attempt,
        max_attempts,
        by,
        key,
        created,
        claim_no,
        parent,
        state,
        context,
    ) = row;
    let mut unreadable = None;
    let mut raw = |text: Option<String>, column: &'static str| {
        text.and_then(|text| match RawValue::from_string(text) {
            Ok(value) => Some(value),
            Err(_) => {
                unreadable = Some(column);
                None
            }
        })
    };
    let payload = raw(payload, "payload");
    let state = raw(state, "state");
    let context = raw(context, "accumulated_json");
    Some(Claimed {
        job: ClaimedJob {
            fence: Fence { job, claim_no: claim_no? },
            row: q,
            plugin: Arc::from(plugin?),
            command: Arc::from(command?),
            payload,
            attempt: attempt?,
            max_attempts: max_attempts?,
            submitted_by: Arc::from(by?),
            dedupe_key: key,
            created_at: created.as_deref().and_then(time::parse).unwrap_or(at),
            started_at: at,
            state,
            context,
            parent,
        },
        transition,
        unreadable,
    })
}
