//! `ductile config ...`: what is configured, and whether it can be put in force.

mod init;

use ductile_config::{Loaded, Provenance};
use ductile_domain::problem::Problem;
use serde_json::{Value, json};

use crate::args::{Config, ConfigCheck, ConfigGet, ConfigShow, Global};
use crate::compiled::Compiled;
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
            let strict = loaded.config.service.strict_mode;
            (Compiled::of(loaded).problems().cloned().collect(), strict)
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

/// C-96: `plugin:NAME`, `plugin:NAME.KEY`, `plugin:*` and the same of `pipeline:` as dotted paths; anything else is one
/// already.
fn path_of(entity: &str) -> Result<String, Error> {
    let kinds = [("plugin", "plugins"), ("pipeline", "pipelines")];
    match entity.split_once(':') {
        Some((kind, name)) => match kinds.iter().find(|(word, _)| *word == kind) {
            Some((_, key)) if name == "*" => Ok((*key).to_owned()),
            Some((_, key)) => Ok(format!("{key}.{name}")),
            None => Err(Error::Usage(format!(
                "no entities of type {kind:?}: use plugin:NAME, pipeline:NAME, `*` for all of a kind, or a path"
            ))),
        },
        None => Ok(entity.to_owned()),
    }
}

/// The value at a dotted path; names may contain dots, so the longest that fits is taken first. An entry of a list is
/// found by its `name` or its place.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    if let Some(found) = entry(value, path) {
        return Some(found);
    }
    path.match_indices('.').rev().find_map(|(at, _)| find(entry(value, &path[..at])?, &path[at + 1..]))
}

fn entry<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(key),
        Value::Array(items) => {
            items.iter().find(|item| item["name"] == key).or_else(|| items.get(key.parse::<usize>().ok()?))
        }
        _ => None,
    }
}

fn missing(document: &Value, path: &str) -> Error {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let names: Vec<&str> = match find(document, parent) {
        Some(Value::Object(fields)) => fields.keys().map(String::as_str).collect(),
        Some(Value::Array(items)) => items.iter().filter_map(|item| item["name"].as_str()).collect(),
        _ => Vec::new(),
    };
    let hint = match ductile_domain::problem::did_you_mean(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => format!("{} has no entries", if parent.is_empty() { "it" } else { parent }),
        None => format!("there is: {}", names.join(", ")),
    };
    Error::Failed(format!("the configuration has no {path}; {hint}"))
}

/// With `-v`: the file and line of each value that was written.
fn origins(provenance: &Provenance, path: &str, report: &Report) {
    for (at, place) in provenance.below(path) {
        report.detail(format!("{at}: {}:{}", place.file.display(), place.line));
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

    /// CLI-20: the entries of a list are found by their names.
    #[test]
    fn pipelines_are_found_by_name() {
        let document =
            json!({"pipelines": [{"name": "a.b", "on": "x"}, {"name": "nightly", "steps": [{"uses": "echo"}]}]});
        let at = |entity: &str| find(&document, &path_of(entity).expect("an entity")).cloned();
        assert_eq!(at("pipeline:a.b.on"), Some(json!("x")));
        assert_eq!(at("pipeline:nightly.steps.0.uses"), Some(json!("echo")));
        assert_eq!(at("pipeline:*"), Some(document["pipelines"].clone()));
        let error = missing(&document, "pipelines.nightli");
        assert_eq!(error.to_string(), "the configuration has no pipelines.nightli; did you mean nightly?");
        let error = missing(&json!({"pipelines": []}), "pipelines.x");
        assert_eq!(error.to_string(), "the configuration has no pipelines.x; pipelines has no entries");
    }
}
