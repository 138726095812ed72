//! `ductile plugin check`: what the gateway would say of a plugin's directory, before it is asked to load it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ductile_domain::catalog::Discovered;
use ductile_domain::problem::Problem;
use serde_json::json;

use crate::args::{Global, PluginCheck};
use crate::error::Error;
use crate::exit_code;
use crate::report::{Report, Style};

const CATEGORY: &str = "plugin_refs";
/// The kernel reads no more of a script's first line.
const LONGEST_SHEBANG: usize = 256;

/// Prints every problem; nothing is run.
///
/// # Errors
/// The gateway would not load the plugin, or could not execute it.
pub(super) fn run(args: &PluginCheck, global: &Global, report: &mut Report) -> Result<(), Error> {
    let (found, mut problems) = look(&args.dir);
    if let (Some(found), Some(path)) = (&found, &global.config) {
        problems.extend(in_force(found, path)?);
    }
    let is_good = found.is_some() && !problems.iter().any(Problem::is_error);
    if report.is_json() {
        report.document(&json!({
            "dir": args.dir,
            "valid": is_good,
            "plugin": found.as_ref().map(|f| &f.manifest),
            "entrypoint": found.as_ref().map(|f| &f.entrypoint),
            "problems": problems,
        }));
    } else {
        let (errors, warnings): (Vec<_>, Vec<_>) = problems.iter().partition(|p| p.is_error());
        let name = found.as_ref().map_or_else(
            || args.dir.display().to_string(),
            |f| format!("plugin {} {}", f.manifest.name, f.manifest.version),
        );
        let verdict = if is_good { "would be loaded" } else { "would not be loaded" };
        let style = if is_good { Style::Green } else { Style::Red };
        report.styled(&format!("{name} {verdict} ({} error(s), {} warning(s))", errors.len(), warnings.len()), style);
        if let Some(found) = &found {
            for command in &found.manifest.commands {
                let kind = if command.kind == ductile_domain::manifest::CommandType::Read { "read" } else { "write" };
                let about = command.description.as_deref().unwrap_or_default();
                report.line(format!("  {:<14} {kind:<6} {about}", command.name));
            }
        }
        for problem in &problems {
            report.line(problem.to_string());
        }
        if is_good {
            report.line(format!("next: ductile plugin test {}", args.dir.display()));
        }
    }
    if is_good { Ok(()) } else { Err(Error::Told { code: exit_code::FAILED }) }
}

/// The plugin in `dir`, if the gateway would load it, and everything that can be said about it without running it.
pub(super) fn look(dir: &Path) -> (Option<Discovered>, Vec<Problem>) {
    let discovery = ductile_plugin::discover::look_at(dir);
    let mut problems = discovery.problems;
    let found = discovery.plugins.into_values().next();
    if let Some(found) = &found {
        let path = std::env::var_os("PATH").unwrap_or_default();
        problems.extend(interpreter(&found.entrypoint, &path));
        problems.extend(undescribed(found));
    }
    (found, problems)
}

/// Whether that configuration would load this very directory, and run it.
fn in_force(found: &Discovered, config: &Path) -> Result<Option<Problem>, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let path = ductile_config::locate(Some(config), &env);
    let config = ductile_config::load(&path, &env).map_err(Error::Config)?.config;
    let name = &found.manifest.name;
    let root = found.dir.parent().unwrap_or(&found.dir);
    let (message, hint) = match ductile_plugin::discover::discover_for(&config).plugins.get(name) {
        None => (
            "is found in no plugin root of this configuration".to_owned(),
            format!("add {} to plugin_roots", root.display()),
        ),
        Some(other) if other.dir != found.dir => (
            format!("plugin {name:?} is found in {} first, so this one is ignored", other.dir.display()),
            "rename one of them, or put its root first".to_owned(),
        ),
        Some(_) if config.plugins.iter().any(|(entry, keys)| keys.uses.as_deref().unwrap_or(entry) == name) => {
            return Ok(None);
        }
        Some(_) => (
            format!("plugin {name:?} is found and has no entry, so it can't be run"),
            format!("add `{name}:` with `enabled: true` under plugins"),
        ),
    };
    Ok(Some(Problem::warning(CATEGORY, message).in_file(path).hint(hint)))
}

/// What people and agents would miss.
fn undescribed(found: &Discovered) -> Option<Problem> {
    let manifest = &found.manifest;
    let mut missing: Vec<String> = Vec::new();
    if manifest.description.is_none() {
        missing.push("the plugin".to_owned());
    }
    missing.extend(manifest.commands.iter().filter(|c| c.description.is_none()).map(|c| format!("`{}`", c.name)));
    let message = format!("no description of {}", missing.join(", "));
    let problem = Problem::warning("manifest", message)
        .in_file(found.dir.join("manifest.yaml"))
        .hint("one sentence each; people and agents choose by it");
    (!missing.is_empty()).then_some(problem)
}

/// What keeps the system from executing the file, which it says at a spawn only, and then in few words.
#[must_use]
pub(crate) fn interpreter(entrypoint: &Path, search: &std::ffi::OsStr) -> Option<Problem> {
    let error = |message: String, hint: &str| {
        Some(Problem::error(CATEGORY, message).in_file(entrypoint).at(1, 1).hint(hint.to_owned()))
    };
    let mut head = Vec::new();
    if let Err(e) = File::open(entrypoint).and_then(|f| f.take(LONGEST_SHEBANG as u64).read_to_end(&mut head)) {
        return error(format!("can't be read: {e}"), "scripts must be readable for their interpreter");
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_text = !head.contains(&0);
        return is_text
            .then(|| {
                error("has no `#!` line and is no binary".into(), "begin it with a line like #!/usr/bin/env python3")
            })
            .flatten();
    };
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return error(
            "its first line ends with a carriage return, which becomes a part of the interpreter's name".into(),
            "save it with Unix line ends",
        );
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    if program.is_empty() || !program.starts_with('/') {
        return error(format!("the interpreter {program:?} is no absolute path"), "write #!/usr/bin/env NAME");
    }
    if !is_executable(Path::new(program)) {
        return error(
            format!("its interpreter {program} is not there or not executable"),
            "install it or name another",
        );
    }
    if Path::new(program).file_name().is_some_and(|name| name == "env") {
        let name = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        let is_there = if name.contains('/') {
            is_executable(Path::new(name))
        } else {
            std::env::split_paths(search).map(|dir| dir.join(name)).any(|path: PathBuf| is_executable(&path))
        };
        if !is_there {
            return error(format!("{name} is not on the PATH"), "install it; the plugin gets the gateway's PATH");
        }
    }
    None
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MAN-07: the shebang selects the interpreter, so one that can't work is found before the first job fails by it.
    #[test]
    fn a_first_line_that_can_not_work_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("run");
        let said = |text: &[u8]| {
            std::fs::write(&path, text).expect("a file");
            interpreter(&path, "/usr/bin:/bin".as_ref()).map(|p| p.message)
        };
        for good in [
            &b"#!/bin/sh\n"[..],
            b"#! /bin/sh -eu\n",
            b"#!/usr/bin/env sh\n",
            b"#!/usr/bin/env -S sh -e\n",
            b"\x7fELF\0\0",
        ] {
            assert_eq!(said(good), None, "{}", String::from_utf8_lossy(good));
        }
        for (bad, part) in [
            (&b"#!/bin/sh\r\nexit\r\n"[..], "carriage return"),
            (b"echo hello\n", "no `#!` line"),
            (b"", "no `#!` line"),
            (b"#!\n", "no absolute path"),
            (b"#!sh\n", "no absolute path"),
            (b"#!/no/such/sh\n", "/no/such/sh is not there"),
            (b"#!/usr/bin/env no-such-language\n", "no-such-language is not on the PATH"),
        ] {
            assert!(said(bad).is_some_and(|m| m.contains(part)), "{}", String::from_utf8_lossy(bad));
        }
    }
}
