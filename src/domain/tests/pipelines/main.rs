//! Pipelines and routes from the words of a configuration to jobs, without a ledger and without a process.

mod compiling;
mod depth;
mod hooks;
mod joins;
mod payloads;
mod planning;
mod preparing;
mod properties;
mod run;
mod starting;
mod views;
mod world;
