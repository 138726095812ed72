//! The command line: arguments in, exit code out. Talks to a running gateway over its control socket, starts one, or
//! reads its database when none runs.

mod api;
mod args;
mod client;
mod compiled;
mod config;
mod demo;
mod embedded;
mod error;
mod exit_code;
mod instance;
mod job;
mod logging;
mod offline;
mod pipeline;
mod plugin;
mod records;
mod report;
mod schedule;
mod sse;
mod system;
mod table;
mod terminal;
mod tree_view;
mod version;
mod watch;
mod yaml;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, Global, Job, JobLogs, Plugin, System};
use crate::error::Error;
use crate::report::Report;
pub use ductile_domain::version::Build;

/// Runs the command that `args` (the program's name first) ask for; answers the exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>, build: Build) -> i32 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(refused) => {
            let code = refused.exit_code();
            Report::new(false, false).help(&refused.render(), code != exit_code::OK);
            return code;
        }
    };
    let mut report = Report::new(cli.global.wants_json(), cli.global.verbose);
    let command = if cli.version { Some(Command::Version) } else { cli.command };
    let Some(command) = command else {
        report.help(&Cli::command().render_help(), true);
        return exit_code::USAGE;
    };
    dispatch(command, &cli.global, build, &mut report).unwrap_or_else(|error| {
        let code = error.exit_code();
        if matches!(error, Error::Told { .. }) {
            return code;
        }
        report.failure(&error.document());
        report.note(format!("ductile: {error}"));
        code
    })
}

fn dispatch(command: Command, global: &Global, build: Build, report: &mut Report) -> Result<i32, Error> {
    match command {
        Command::System(action) => return system::run(action, global, build, report),
        Command::Status => return system::run(System::Status, global, build, report),
        Command::Job(action) => block_on(job::run(action, global, report))?,
        Command::Logs(flat) => {
            let plugin = flat.name.or(flat.logs.plugin);
            block_on(job::run(Job::Logs(JobLogs { plugin, ..flat.logs }), global, report))?;
        }
        Command::Queue(args) => block_on(job::run(Job::List(args), global, report))?,
        Command::Inspect(args) => block_on(job::run(Job::Inspect(args), global, report))?,
        Command::Plugin(action) => block_on(plugin::run(action, global, report))?,
        Command::Plugins => block_on(plugin::run(Plugin::List, global, report))?,
        Command::Run(args) => block_on(plugin::run(Plugin::Run(args), global, report))?,
        Command::Schedule(action) => block_on(schedule::run(action, global, report))?,
        Command::Pipeline(action) => block_on(pipeline::run(action, global, report))?,
        Command::Init(args) => config::run(crate::args::Config::Init(args), global, report)?,
        Command::Config(action) => config::run(action, global, report)?,
        Command::Api(args) => block_on(api::run(&args, global, report))?,
        Command::Version => version::show(build, report),
    }
    Ok(exit_code::OK)
}

/// Runs a command that waits for answers; one thread is enough for it.
fn block_on<T>(command: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("start the runtime"))?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
