//! Parses arguments, runs the subcommand, exits with its code.

fn main() {
    let build = ductile_cli::Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("DUCTILE_COMMIT"),
        built_at: env!("DUCTILE_BUILT_AT"),
    };
    std::process::exit(ductile_cli::run(std::env::args_os(), build));
}
