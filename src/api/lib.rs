//! The HTTP face of the gateway: routes, authentication, live events, the control socket, one error shape.
//!
//! [`router`] makes a router of any [`gateway::Gateway`]; [`server`] carries connections to it.

mod auth;
mod call;
mod control_socket;
mod error;
pub mod events;
pub mod gateway;
mod patient_io;
mod routes;
pub mod server;
mod sync_places;
mod views;

pub use call::Patience;
pub use control_socket::bind_control_socket;
pub use error::{CODES, Code, CodeInfo, Error, ListenerKind};
pub use routes::{Access, RouteInfo, router, router_with, routes};
pub use views::schedules;
