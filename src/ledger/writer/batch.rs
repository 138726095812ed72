//! What will share the next transaction, in the order in which it came.

use std::time::Instant;

use ductile_domain::ids::JobId;
use ductile_domain::job::Fence;

use super::claim::Grant;
use super::{Op, Started};
use crate::error::WriteError;

/// What one transaction holds at most; candidates, new jobs and facts count one each.
const MOST_WEIGHT: usize = 2048;

/// One piece of a transaction.
pub(super) enum Item {
    Op(Op),
    /// A claim that was granted already and is yet to be written; `Started` is told when it is.
    Grant(Grant, Started),
}

impl Item {
    fn job(&self) -> Option<JobId> {
        match self {
            Self::Op(op) => op.ends().map(|fence| fence.job),
            Self::Grant(grant, _) => Some(grant.claimed.job.fence.job),
        }
    }
}

/// Pieces that wait for the next transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    weight: usize,
    /// When the first piece came.
    pub(super) since: Option<Instant>,
    /// An answer leaves the gateway, so that the commit must be on disk before it.
    pub(super) is_awaited: bool,
    /// It changes what a grant would read, so that none is made before the commit.
    pub(super) holds_grants: bool,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.weight >= MOST_WEIGHT
    }

    pub(super) fn put(&mut self, item: Item) {
        self.since.get_or_insert_with(Instant::now);
        self.weight += 1;
        match &item {
            Item::Op(Op::Submit { submission, .. }) => {
                self.weight += submission.jobs.len() + submission.joins.len();
                self.is_awaited = true;
            }
            Item::Op(Op::Cancel { .. }) => self.is_awaited = true,
            Item::Op(Op::Finish(finish, _)) => {
                self.weight += finish.plan.children.len() + finish.plan.joins.len() + finish.plan.facts.len();
                self.is_awaited |= finish.is_awaited;
            }
            Item::Op(Op::GiveBack { .. }) | Item::Grant(..) => {}
        }
        self.holds_grants |= matches!(&item, Item::Op(op) if op.holds_grants());
        self.items.push(item);
    }

    /// True when a piece is about this job.
    pub(super) fn touches(&self, job: JobId) -> bool {
        self.items.iter().any(|item| item.job() == Some(job))
    }

    /// Takes out an end of the same claim: its caller repeats it, having waited too long.
    pub(super) fn replaced(&mut self, fence: Fence) -> Option<Op> {
        let at = self.items.iter().position(|item| matches!(item, Item::Op(op) if op.ends() == Some(fence)))?;
        match self.items.remove(at) {
            Item::Op(op) => Some(op),
            Item::Grant(..) => None,
        }
    }

    /// After a failure of the file: the doors are told, what is ours is tried again.
    pub(super) fn keep_ours(items: impl IntoIterator<Item = Item>, error: &WriteError) -> Self {
        let mut kept = Self::default();
        for item in items {
            match item {
                Item::Op(op @ (Op::Submit { .. } | Op::Cancel { .. })) => op.refuse(error.clone()),
                item => kept.put(item),
            }
        }
        kept
    }
}
