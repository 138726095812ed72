//! What a start would meet: configuration, plugins, lock, database, space, address.

use std::net::TcpListener;
use std::path::Path;

use ductile_domain::config::State;
use ductile_domain::problem::Problem;
use ductile_ledger::Examiner;

use super::Finding;
use crate::args::Global;
use crate::compiled::Compiled;
use crate::error::Error;
use crate::instance::Lock;
use crate::plugin::interpreter;

/// Less than so many bytes free is worth a warning, whatever the size of the disk.
const LITTLE_SPACE: u64 = 512 * 1024 * 1024;

/// The findings, and what the configuration on disk is.
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// `None` when it can't be loaded.
    pub(super) config_hash: Option<String>,
}

/// Looks at the files of the instance.
pub(super) async fn look(global: &Global) -> Looked {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(global.config.as_deref(), &env);
    let loaded = match ductile_config::load(&path, &env) {
        Ok(loaded) => loaded,
        Err(problems) => return Looked { findings: vec![of_problems("config", &problems, &path)], config_hash: None },
    };
    let compiled = Compiled::of(loaded);
    let mut findings = vec![match compiled.of_files.len() {
        0 => Finding::ok("config", path.display().to_string()),
        _ => of_problems("config", &compiled.of_files, &path),
    }];
    findings.push(plugins(&compiled, &path));
    findings.push(pipelines(&compiled, &path));
    let config = compiled.generation.config;
    let lock = Lock::look(&config.state.path.with_file_name("ductile.lock"));
    let is_held = matches!(lock, Lock::Held(_));
    findings.push(match super::super::selfcheck::held_by(lock) {
        Ok(detail) => Finding::ok("lock", detail),
        Err(detail) => Finding::fail("lock", detail, "find out which process holds it: `fuser` on the lock file"),
    });
    findings.push(database(&config.state.path, is_held).await);
    findings.extend(space(&config.state));
    if config.api.enabled && !is_held {
        findings.push(match TcpListener::bind(config.api.listen) {
            Ok(_) => Finding::ok("address", format!("{} is free", config.api.listen)),
            Err(error) => Finding::fail(
                "address",
                format!("{} can't be listened on: {error}", config.api.listen),
                "change api.listen, or end what uses it",
            ),
        });
    }
    Looked { findings, config_hash: Some(config.source.hash) }
}

/// The worst of them, and how many there are.
fn of_problems(id: &'static str, problems: &[Problem], config: &Path) -> Finding {
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let first = problems.iter().find(|p| p.is_error()).or(problems.first());
    let first = first.map(ToString::to_string).unwrap_or_default();
    let hint = format!("`ductile config check --config {}` lists them all", config.display());
    let detail = format!("{errors} error(s), {} warning(s): {first}", problems.len() - errors);
    if errors > 0 { Finding::fail(id, detail, hint) } else { Finding::warn(id, detail, hint) }
}

/// Roots, manifests, entries and what would execute the entrypoints of those that are enabled.
fn plugins(compiled: &Compiled, path: &Path) -> Finding {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let runnable: Vec<_> = compiled.generation.catalog.iter().filter(|p| p.is_runnable).collect();
    let broken = runnable.iter().filter_map(|plugin| interpreter(&plugin.entrypoint, &search));
    let problems: Vec<Problem> = compiled.of_plugins.iter().cloned().chain(broken).collect();
    match problems.len() {
        0 => Finding::ok("plugins", format!("{} can be run", runnable.len())),
        _ => of_problems("plugins", &problems, path),
    }
}

/// What an event would meet.
fn pipelines(compiled: &Compiled, path: &Path) -> Finding {
    let pipelines = &compiled.generation.pipelines;
    match compiled.of_pipelines.len() {
        0 => Finding::ok(
            "pipelines",
            format!("{} pipeline(s), {} route(s)", pipelines.iter().count(), pipelines.routes().len()),
        ),
        _ => of_problems("pipelines", &compiled.of_pipelines, path),
    }
}

async fn database(path: &Path, is_held: bool) -> Finding {
    if is_held {
        return Finding::ok("database", format!("{} is in use", path.display()));
    }
    if !path.exists() {
        return Finding::ok("database", format!("there is no {} yet; the first start makes it", path.display()));
    }
    let examined = async {
        let mut examiner = Examiner::open(path).await?;
        examiner.check_schema().await?;
        examiner.close().await
    };
    match examined.await {
        Ok(()) => Finding::ok("database", format!("{}, schema {}", path.display(), ductile_ledger::VERSION)),
        Err(error) => {
            Finding::fail("database", Error::ledger(error).to_string(), "`ductile system selfcheck` looks closer")
        }
    }
}

/// `None` when the system does not tell.
fn space(state: &State) -> Option<Finding> {
    let dir = state.path.parent()?;
    let free = ductile_ledger::free_space(dir).ok()?;
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let (detail, least) = (format!("{} MiB free for {}", mib(free), dir.display()), state.min_free_space);
    Some(if free < least {
        let hint = format!("free some: below state.min_free_space ({} MiB) the gateway takes nothing in", mib(least));
        Finding::fail("space", detail, hint)
    } else if free < LITTLE_SPACE.max(least.saturating_mul(2)) {
        Finding::warn("space", detail, "free some, or shorten service.job_log_retention")
    } else {
        Finding::ok("space", detail)
    })
}
