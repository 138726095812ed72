//! The HTTP face of the gateway: routes, authentication, live events, error shape.

pub mod events;
pub mod gateway;
