//! `ductile config init`: a small configuration that starts, with a token that only its owner can read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use crate::args::ConfigInit;
use crate::embedded::{make_dir, write_file, write_plugin};
use crate::error::Error;
use crate::report::Report;

/// The variable that holds the secret.
const VARIABLE: &str = "DUCTILE_ADMIN_TOKEN";

/// The file; whoever reads it learns the names of things and no secret.
const CONFIG: &str = "\
# The configuration of this gateway. `ductile config check` names every problem, `ductile config show` prints every key
# with its default. After a change: `ductile config check && ductile system reload`.

# Holds the secret of the token below.
environment_vars:
  include:
    - .env

plugin_roots:
  - plugins

plugins:
  echo:
    enabled: true

api:
  enabled: true
  listen: 127.0.0.1:8080
  auth:
    tokens:
      - name: admin
        token: ${DUCTILE_ADMIN_TOKEN}
        scopes: [\"*\"]
";

/// Writes the directory of `config`, the path of its `config.yaml`.
///
/// # Errors
/// There is a configuration already, or a file could not be written.
pub(super) fn run(args: &ConfigInit, config: &Path, report: &mut Report) -> Result<(), Error> {
    let dir = config.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let secrets = dir.join(".env");
    let plugins = dir.join("plugins");
    for taken in [config, &secrets, &plugins.join("echo")] {
        if taken.symlink_metadata().is_ok() {
            return Err(Error::Failed(format!(
                "{} exists and is left as it is; name an empty directory with --config",
                taken.display()
            )));
        }
    }
    let files = [config, &secrets, &plugins.join("echo")].map(|path| path.display().to_string());
    if args.dry.dry_run {
        files.iter().for_each(|file| report.line(format!("would write {file}")));
        if report.is_json() {
            report.document(&json!({"dry_run": true, "files": files}));
        }
        return Ok(());
    }
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    make_dir(dir).map_err(Error::io(format!("make {}", dir.display())))?;
    write_secret(&secrets, &secret).map_err(Error::io(format!("write {}", secrets.display())))?;
    make_dir(&plugins).map_err(Error::io(format!("make {}", plugins.display())))?;
    write_plugin("echo", &plugins).map_err(Error::io(format!("write into {}", plugins.display())))?;
    // Last, so that a directory that could not be finished is no configuration.
    write_file(config, CONFIG.as_bytes()).map_err(Error::io(format!("write {}", config.display())))?;
    if report.is_json() {
        report.document(&json!({"config": config, "files": files, "token": {"name": "admin", "secret": secret}}));
    } else {
        files.iter().for_each(|file| report.line(format!("wrote {file}")));
        report.line(format!("the token `admin` (kept in .env, shown only now): {secret}"));
        report.line(format!("next: ductile system start --config {}", dir.display()));
    }
    Ok(())
}

/// Creates the file with its final mode before it holds anything.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{VARIABLE}={secret}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_the_variable_that_holds_the_secret() {
        assert!(CONFIG.contains(&format!("${{{VARIABLE}}}")));
    }
}
