//! Finds plugins and runs one as a subprocess: discovery, protocol, process, limits.
//!
//! What passes between: [`discover::discover`] finds plugins, [`protocol::request`] writes what one is asked,
//! [`runner::Runner`] runs its process, [`outcome::judge`] turns what came back into an outcome.

mod capture;
mod cgroup;
pub mod discover;
pub mod environment;
mod group;
pub mod leftovers;
mod limits;
pub mod manifest;
pub mod outcome;
mod process;
pub mod protocol;
mod rlimits;
mod runner;
mod schema;

pub use cgroup::{Cgroups, Level};
pub use limits::{Bounds, Limits};
pub use process::{End, Exited, Invocation};
pub use runner::{Handle, Run, Runner};
