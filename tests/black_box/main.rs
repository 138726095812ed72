//! The gateway as its users meet it: the real binary, real processes, real signals, one file per feature.

mod bad_input;
mod cli;
mod cli_authors;
mod cli_doctor;
mod cli_everywhere;
mod cli_pipelines;
mod cli_schedules;
mod contract;
mod contract_loading;
mod crash;
mod docs;
mod doors;
mod file_system;
mod gateway;
mod jobs;
mod misbehaving_plugins;
mod pipeline_crashes;
mod pipelines;
mod reload;
mod reload_storm;
mod scenarios;
mod start_stop;
mod tables;
