//! The supervision tree of the gateway: one file per actor, the tree itself as data, and the handle through which the
//! doors reach it.

mod agenda;
mod announce;
mod asking;
mod assembly;
mod attempt;
mod boot;
mod breaker;
mod config;
mod dispatcher;
mod drainer;
mod ending;
mod environments;
mod families;
mod firing;
mod generations;
mod handle;
mod hints;
mod http;
mod job;
mod jumps;
mod ledger;
mod lock;
mod maintenance;
mod notify;
mod preflight;
mod queue;
mod reaper;
mod reload;
mod resuming;
mod router;
mod run;
mod scheduler;
mod shared;
mod silence;
mod space;
mod submission;
mod tree;
mod waiters;
mod wall;

pub use assembly::fingerprint;
pub use boot::{BootError, BootOptions, OnReload, Running, Signals, boot, control_socket};
pub use handle::Handle;
pub use run::run;
pub use shared::Shared;
pub use tree::Numbers;
