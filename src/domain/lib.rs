//! What the gateway means by its words: pure values and decisions, without IO, clock, async or randomness.
//!
//! Times and ids are arguments. Everything to the right of this crate (ledger, plugin, api, actors) shares these types.

pub mod baggage;
pub mod breaker;
pub mod builtin;
pub mod catalog;
pub mod condition;
pub mod config;
pub mod event;
pub mod generation;
pub mod ids;
pub mod job;
pub mod manifest;
pub mod number;
pub mod outcome;
pub mod path;
pub mod pipeline;
pub mod plan;
pub mod problem;
pub mod raw;
pub mod retry;
pub mod same;
pub mod schedule;
pub mod scope;
pub mod secrets;
pub mod template;
pub mod time;
pub mod tree;
pub mod version;
