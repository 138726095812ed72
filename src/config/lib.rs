//! From YAML files to one typed configuration, or to every problem found: read, merge, interpolate, type, check.
//!
//! The only IO is reading the files that the configuration names, and the zone that the system is set to. The environment is
//! an argument.

mod dotenv;
mod findings;
mod intake;
mod interpolate;
mod merge;
mod node;
mod paths;
mod provenance;
mod sanitize;
mod section;
mod show;
mod typed;
mod units;

use std::collections::BTreeMap;
use std::path::Path;

use ductile_domain::config::{Config, Source};
use ductile_domain::problem::Problem;

use crate::findings::Findings;
use crate::intake::{Intake, path_list};
use crate::interpolate::Variables;
use crate::node::{Content, Filled, Node, Origin};
pub use crate::paths::{Env, locate};
pub use crate::provenance::{Place, Provenance};

/// A configuration that may be put in force.
#[derive(Debug)]
pub struct Loaded {
    /// Complete, with defaults.
    pub config: Config,
    /// What is worth knowing; strict mode refuses these.
    pub warnings: Vec<Problem>,
    /// Which file each value came from, for problems that are found later.
    pub provenance: Provenance,
}

/// Loads `config_yaml` and all that it includes.
///
/// `env` answers variables of the process environment.
///
/// # Errors
/// Every problem that was found, warnings too, in the order of files and lines; at least one is an error.
pub fn load(config_yaml: &Path, env: &Env<'_>) -> Result<Loaded, Vec<Problem>> {
    let config_yaml = std::path::absolute(config_yaml).unwrap_or_else(|_| config_yaml.to_path_buf());
    let dir = config_yaml.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut findings = Findings::new();
    let mut intake = Intake::new(&dir, env);
    let mut document = intake.document(&config_yaml, &mut findings);
    let files = environment_files(&document, &mut intake, &mut findings);
    interpolate::document(&mut document, &Variables { env, files }, &mut findings);
    let root = root(document);
    let mut config = typed::read(&root, &mut intake, &mut findings);
    if findings.has_errors() {
        return Err(findings.into_sorted());
    }
    let provenance = Provenance::of(&root, &findings);
    let document = root.map().map(|map| typed::with_defaults(&config, map)).unwrap_or_default();
    config.source = Source {
        path: config_yaml,
        files: findings.files.clone(),
        hash: intake.hash(),
        sanitized: sanitize::document(&document),
    };
    Ok(Loaded { config, warnings: findings.into_sorted(), provenance })
}

fn root(document: BTreeMap<String, Node>) -> Node {
    let origin = Origin { file: 0, line: 1, column: 1 };
    Node { content: Content::Map(document), origin, filled: Filled::AsWritten }
}

/// The variables of all `.env` files; of two that name the same one the first wins.
fn environment_files(
    document: &BTreeMap<String, Node>,
    intake: &mut Intake<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let include = document.get("environment_vars").and_then(Node::map).and_then(|keys| keys.get("include"));
    for (at, entry) in path_list(include, "environment_vars.include", findings) {
        // Relative to the file that declares it, not to config.yaml.
        let declared_in =
            findings.files.get(at.origin.file).and_then(|f| f.parent()).unwrap_or(intake.dir).to_path_buf();
        let path = paths::resolve(&entry, &declared_in, intake.env);
        let bytes = match intake.read(&path, findings) {
            Ok((_, bytes)) => bytes,
            Err(source) => {
                findings.is_complete = false;
                let text = format!("{} can't be read: {source}", path.display());
                findings.add(Problem::error("env_vars", text).at_path(&at.path), at.origin);
                continue;
            }
        };
        let Ok(text) = String::from_utf8(bytes) else {
            findings.problems.push(Problem::error("env_vars", "the file is not UTF-8").in_file(&path));
            continue;
        };
        let (found, bad) = dotenv::parse(&text);
        for (name, value) in found {
            variables.entry(name).or_insert(value);
        }
        for bad in bad {
            findings.problems.push(Problem::error("env_vars", bad.message).in_file(&path).at(bad.line, 1));
        }
    }
    variables
}
