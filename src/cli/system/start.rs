//! `ductile system start`: the gateway in the foreground.

use ductile_domain::version::Build;

use crate::args::Global;
use crate::error::Error;
use crate::logging;

/// Runs the gateway until it stops; answers the process's exit code.
///
/// # Errors
/// All problems of the configuration.
pub(crate) fn run(global: &Global, build: Build) -> Result<i32, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(global.config.as_deref(), &env);
    let loaded = ductile_config::load(&path, &env).map_err(Error::Config)?;
    ductile_ledger::arm_failpoints();
    let (_log, settings) = logging::start(&loaded.config.service, global.verbose);
    Ok(ductile_actors::run(ductile_actors::BootOptions {
        config: loaded.config,
        build,
        warnings: loaded.warnings,
        provenance: loaded.provenance,
        numbers: ductile_actors::Numbers::default(),
        on_reload: ductile_actors::OnReload::new(move |config| settings.apply(&config.service)),
        clock: ductile_ledger::Clock::default(),
    }))
}
