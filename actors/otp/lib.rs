//! The OTP layer: servers, addresses that survive restarts, supervisors and a tree that can be read at any time. Knows nothing of jobs.
//!
//! A [`Server`] is an actor. A [`Slot`] is its address and its bounded mailbox. A [`SupervisorSpec`] is a list of children with a
//! strategy; [`Root::start`] starts the tree in order and [`Root::stop`] ends it in reverse. A [`DynSupervisor`] owns short-lived
//! children. The [`Tree`] shows all of it without sending a message.

#[cfg(panic = "abort")]
compile_error!("supervision rests on unwinding: build with panic = \"unwind\"");

mod call_rank;
mod child;
mod context;
#[cfg(feature = "test-hooks")]
mod ctl;
mod dynamic;
mod events;
mod exit;
mod intensity;
mod node;
mod operator;
mod panic_report;
mod process;
mod reply;
mod root;
mod server;
mod slot;
mod spec;
mod supervisor;
mod tree;

pub use context::{Cx, Task, Timer};
#[cfg(feature = "test-hooks")]
pub use ctl::Ctl;
pub use dynamic::DynSupervisor;
pub use events::{ActorEvent, CrashReport};
pub use exit::Exit;
pub use intensity::{Backoff, Intensity, IntensityUse};
pub use operator::{RestartError, RestartHandle, Restarting};
pub use reply::Reply;
pub use root::Root;
pub use server::{Message, Server, StartCause, StartInfo};
pub use slot::{CallError, CastError, Slot};
pub use spec::{ChildSpec, Restart, Shutdown, StartError, Strategy, SupervisorSpec};
pub use tree::{Handling, InspectError, Kind, LastExit, Mailbox, Node, Phase, Tree};
