//! What the exit codes mean; scripts may rely on them.

/// Done.
pub(crate) const OK: i32 = 0;
/// The thing asked for failed: a job, a request that was refused, a wait that ended too early.
pub(crate) const FAILED: i32 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: i32 = 2;
/// No gateway could be reached.
pub(crate) const UNREACHABLE: i32 = 69;
/// A bug, or the supervision gave up.
pub(crate) const INTERNAL: i32 = 70;
/// A stop took longer than it may.
pub(crate) const STOP_TIMED_OUT: i32 = 75;
/// The caller may not do that.
pub(crate) const NOT_PERMITTED: i32 = 77;
/// The configuration is wrong or not what it was locked as.
pub(crate) const CONFIG: i32 = 78;
