//! What the gateway means by its words: pure values and decisions, without IO, clock, async or randomness.
//!
//! Times and ids are arguments. Everything to the right of this crate (ledger, plugin, api, actors) shares these types.

pub mod builtin;
pub mod catalog;
pub mod config;
pub mod event;
pub mod generation;
pub mod ids;
pub mod job;
pub mod manifest;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod problem;
pub mod retry;
pub mod scope;
pub mod time;
pub mod tree;
pub mod version;
