//! `ductile system start`: one gateway in the foreground, from its configuration to its exit code.

use crate::boot::{BootOptions, Signals, boot};

/// Runs a gateway until it stops; answers the process's exit code. Logging is the caller's.
#[must_use]
pub fn run(options: BootOptions) -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .thread_name("ductile-rt")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ductile: failed to start the runtime: {error}");
            return 70;
        }
    };
    let code = runtime.block_on(async {
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("ductile: failed to listen for signals: {error}");
                return 70;
            }
        };
        match boot(options).await {
            Ok(running) => running.run(signals).await,
            Err(error) => {
                eprintln!("ductile: {error}");
                error.exit_code()
            }
        }
    });
    // Tasks that ignore the stop are not waited for: everything that matters has been committed.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// The actors are light; what is heavy runs in processes. More threads only move work between cores.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(2)
}
