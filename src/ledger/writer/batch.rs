//! Which operations may share a transaction.

use std::collections::HashSet;

use ductile_domain::ids::JobId;

use super::Op;

/// Operations in one transaction at most.
const MOST_OPS: usize = 256;
/// Candidates and new jobs count one each.
const MOST_WEIGHT: usize = 2048;

/// Operations that will share one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<Op>,
    touched: HashSet<JobId>,
    weight: usize,
}

impl Batch {
    /// Takes the operation, or hands it back when it must wait for the next transaction.
    pub(super) fn admit(&mut self, op: Op) -> Option<Op> {
        let weight = match &op {
            Op::Enqueue { jobs, .. } => jobs.len(),
            Op::Claim(request, _) | Op::StandingClaim(request, _) => request.candidates.len(),
            Op::Finish(finish, _) => 1 + finish.plan.children.len() + finish.plan.facts.len(),
            Op::GiveBack { .. } | Op::Cancel { .. } => 1,
        };
        if !self.ops.is_empty() && (self.ops.len() >= MOST_OPS || self.weight + weight > MOST_WEIGHT) {
            return Some(op);
        }
        // operations run by kind, so that two writes about one job would not run in the order in which they came
        let is_free = match &op {
            Op::Finish(finish, _) => self.touched.insert(finish.fence.job),
            Op::GiveBack { fence, .. } => self.touched.insert(fence.job),
            Op::Cancel { job, .. } => self.touched.insert(*job),
            Op::Enqueue { jobs, .. } => {
                let is_free = jobs.iter().all(|j| !self.touched.contains(&j.id));
                self.touched.extend(jobs.iter().map(|j| j.id));
                is_free
            }
            Op::Claim(..) | Op::StandingClaim(..) => true,
        };
        if !is_free && !self.ops.is_empty() {
            return Some(op);
        }
        self.weight += weight;
        self.ops.push(op);
        None
    }

    /// Jobs of the attempts that it ends.
    pub(super) fn ended(&self) -> impl Iterator<Item = JobId> {
        self.ops.iter().filter_map(Op::ends)
    }

    /// Attempts that it ends.
    pub(super) fn ends(&self) -> usize {
        self.ended().count()
    }

    /// True when an answer leaves the gateway, so that the commit must be on disk before it.
    pub(super) fn is_awaited(&self) -> bool {
        self.ops.iter().any(|op| match op {
            Op::Enqueue { .. } | Op::Cancel { .. } => true,
            Op::Finish(finish, _) => finish.is_awaited,
            Op::GiveBack { .. } | Op::Claim(..) | Op::StandingClaim(..) => false,
        })
    }
}
