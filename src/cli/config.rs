//! `ductile config ...`: what is configured, and whether it can be put in force.

mod init;

use ductile_config::{Loaded, Provenance};
use ductile_domain::catalog::Catalog;
use ductile_domain::problem::Problem;
use serde_json::{Value, json};

use crate::args::{Config, ConfigCheck, ConfigGet, ConfigShow, Global};
use crate::error::Error;
use crate::exit_code;
use crate::report::Report;
use crate::yaml;

/// Runs one action.
///
/// # Errors
/// What the action says.
pub(crate) fn run(action: Config, global: &Global, report: &mut Report) -> Result<(), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(global.config.as_deref(), &env);
    report.detail(format!("configuration {}", path.display()));
    let load = || ductile_config::load(&path, &env);
    match action {
        Config::Check(args) => check(&args, load(), report),
        Config::Show(args) => show(&args, load().map_err(Error::Config)?, report),
        Config::Get(args) => get(&args, load().map_err(Error::Config)?, report),
        Config::Init(args) => init::run(&args, &path, report),
    }
}

/// Everything that a start or a reload would complain about, in one list, and whether warnings count as errors.
#[must_use]
pub(crate) fn problems(loaded: Result<Loaded, Vec<Problem>>) -> (Vec<Problem>, bool) {
    match loaded {
        Err(problems) => (problems, false),
        Ok(loaded) => {
            let discovery = ductile_plugin::discover::discover_for(&loaded.config);
            let (_, found) = Catalog::build(&loaded.config, &discovery.plugins);
            let problems = loaded.warnings.into_iter().chain(discovery.problems).chain(found).collect();
            (problems, loaded.config.service.strict_mode)
        }
    }
}

/// What a start would say.
fn check(args: &ConfigCheck, loaded: Result<Loaded, Vec<Problem>>, report: &mut Report) -> Result<(), Error> {
    let (problems, is_strict) = problems(loaded);
    let strict = args.strict || is_strict;
    let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|p| p.is_error());
    let valid = errors.is_empty() && (warnings.is_empty() || !strict);
    if report.is_json() {
        report.document(&json!({"valid": valid, "errors": errors, "warnings": warnings}));
    } else {
        report.line(verdict(valid, errors.len(), warnings.len()));
        for problem in &problems {
            report.line(problem.to_string());
        }
        if !valid && errors.is_empty() {
            report.line("strict mode: warnings are errors");
        }
    }
    if valid { Ok(()) } else { Err(Error::Told { code: exit_code::CONFIG }) }
}

fn verdict(valid: bool, errors: usize, warnings: usize) -> String {
    match (valid, warnings) {
        (true, 0) => "Configuration valid".to_owned(),
        (true, warnings) => format!("Configuration valid ({warnings} warning(s))"),
        (false, _) => format!("Configuration invalid ({errors} error(s), {warnings} warning(s))"),
    }
}

fn show(args: &ConfigShow, loaded: Loaded, report: &mut Report) -> Result<(), Error> {
    let document = &loaded.config.source.sanitized;
    let path = args.entity.as_deref().map_or_else(|| Ok(String::new()), path_of)?;
    let shown = find(document, &path).ok_or_else(|| missing(document, &path))?;
    if report.is_json() {
        report.document(shown);
    } else {
        report.raw(&yaml::write(shown));
    }
    origins(&loaded.provenance, &path, report);
    Ok(())
}

/// CLI-21: one value; text bare, so that a shell can use it.
fn get(args: &ConfigGet, loaded: Loaded, report: &mut Report) -> Result<(), Error> {
    let document = &loaded.config.source.sanitized;
    let path = path_of(&args.path)?;
    let value = find(document, &path).ok_or_else(|| missing(document, &path))?;
    if report.is_json() {
        report.document(value);
    } else {
        match value {
            Value::String(text) => report.line(text),
            Value::Object(_) | Value::Array(_) => report.raw(&yaml::write(value)),
            other => report.line(other.to_string()),
        }
    }
    origins(&loaded.provenance, &path, report);
    Ok(())
}

/// C-96: `plugin:NAME`, `plugin:NAME.KEY` and `plugin:*` as dotted paths; anything else is one already.
fn path_of(entity: &str) -> Result<String, Error> {
    match entity.split_once(':') {
        Some(("plugin", "*")) => Ok("plugins".to_owned()),
        Some(("plugin", name)) => Ok(format!("plugins.{name}")),
        Some((kind, _)) => {
            Err(Error::Usage(format!("no entities of type {kind:?}: use plugin:NAME, plugin:* or a path")))
        }
        None => Ok(entity.to_owned()),
    }
}

/// The value at a dotted path; names may contain dots, so the longest that fits is taken first.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    let fields = value.as_object()?;
    if let Some(found) = fields.get(path) {
        return Some(found);
    }
    path.match_indices('.').rev().find_map(|(at, _)| find(fields.get(&path[..at])?, &path[at + 1..]))
}

fn missing(document: &Value, path: &str) -> Error {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let names: Vec<&str> = find(document, parent)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let hint = match ductile_domain::problem::did_you_mean(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there is: {}", names.join(", ")),
    };
    Error::Failed(format!("the configuration has no {path}; {hint}"))
}

/// With `-v`: the file and line of each value that was written.
fn origins(provenance: &Provenance, path: &str, report: &Report) {
    for (at, place) in provenance.iter() {
        let is_below = path.is_empty()
            || at.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if is_below {
            report.detail(format!("{at}: {}:{}", place.file.display(), place.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-17: the verdict in the doctor's words.
    #[test]
    fn the_verdict_counts_warnings() {
        assert_eq!(verdict(true, 0, 0), "Configuration valid");
        assert_eq!(verdict(true, 0, 2), "Configuration valid (2 warning(s))");
        assert_eq!(verdict(false, 1, 2), "Configuration invalid (1 error(s), 2 warning(s))");
    }

    #[test]
    fn paths_lead_into_the_document() {
        let document = json!({"service": {"name": "d"}, "plugins": {"a.b": {"enabled": true}, "echo": {}}});
        assert_eq!(find(&document, "service.name"), Some(&json!("d")));
        assert_eq!(find(&document, "plugins.a.b.enabled"), Some(&json!(true)));
        assert_eq!(find(&document, ""), Some(&document));
        assert_eq!(find(&document, "plugins.nope"), None);
        assert_eq!(path_of("plugin:a.b.enabled").ok().as_deref(), Some("plugins.a.b.enabled"));
        assert_eq!(path_of("plugin:*").ok().as_deref(), Some("plugins"));
        assert_eq!(path_of("webhook:x").expect_err("no such kind").exit_code(), 2);
        let error = missing(&document, "plugins.ecko");
        assert_eq!(error.to_string(), "the configuration has no plugins.ecko; did you mean echo?");
    }
}
