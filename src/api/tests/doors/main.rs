//! The doors from outside: a fake gateway, a real ledger, real sockets.

mod access;
mod connections;
mod discovery;
mod figures;
mod harness;
mod history;
mod invoke;
mod jobs;
mod live_events;
mod pipelines;
mod runs;
mod schedules;
mod socket;
mod system;
mod wiring;
