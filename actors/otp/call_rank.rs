//! Calls go only towards a lower rank, so no circle of actors can wait for one another.

use crate::process::current;

/// Checks a call from the running actor to `to`: a violation panics where it can be fixed (debug, tests) and is counted in a release.
pub(crate) fn check(to: &str, rank: u8) {
    let Some(caller) = current() else { return };
    if rank < caller.rank {
        return;
    }
    caller.tree.count_rank_violation();
    if cfg!(any(debug_assertions, feature = "test-hooks")) {
        panic!(
            "{} (rank {}) may not call {to} (rank {rank}): calls go only towards a lower rank",
            caller.node.path, caller.rank
        );
    }
}
