//! The layer against OTP's `supervisor_SUITE`, whose case names stand in the doc comments, and against its own promises.

mod chaos;
mod dynamic;
mod groups;
mod kit;
mod model;
mod operator;
mod reports;
mod restart;
mod slot;
mod start_stop;
