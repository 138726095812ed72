//! Finds plugins in the roots. Nothing is passed over in silence, and one bad plugin stops no other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ductile_domain::catalog::Discovered;
use ductile_domain::problem::Problem;

use crate::manifest::{self, CATEGORY};

/// The file that makes a directory a plugin.
const MANIFEST: &str = "manifest.yaml";

/// Writable by everybody.
const WORLD_WRITABLE: u32 = 0o002;
/// In a sticky directory only an entry's owner may replace it.
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;

/// What the roots hold.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Plugins that may be loaded, by the name in their manifest.
    pub plugins: BTreeMap<String, Discovered>,
    /// What keeps others from being loaded, and warnings.
    pub problems: Vec<Problem>,
}

/// Looks at the direct subdirectories of each root, in the order of the roots and then of names.
///
/// The first plugin of a name wins. A root that is named twice counts once.
#[must_use]
pub fn discover(roots: &[PathBuf]) -> Discovery {
    let mut discovery = Discovery::default();
    let mut approved: Vec<PathBuf> = Vec::new();
    for root in roots {
        match approve(root) {
            Ok(root) if approved.contains(&root) => {}
            Ok(root) => approved.push(root),
            Err(problem) => discovery.problems.push(*problem),
        }
    }
    for root in &approved {
        discovery.scan(root, &approved);
    }
    discovery
}

fn approve(root: &Path) -> Result<PathBuf, Box<Problem>> {
    let problem = |message: String, hint: &str| {
        Box::new(Problem::error(CATEGORY, message).at_path("plugin_roots").in_file(root).hint(hint.to_owned()))
    };
    let resolved = root.canonicalize().map_err(|e| {
        problem(
            format!("plugin root {} can't be used: {e}", root.display()),
            "create it or remove it from plugin_roots",
        )
    })?;
    let mode = fs::metadata(&resolved).map_or(0, |m| if m.is_dir() { m.permissions().mode() } else { 0 });
    if mode == 0 {
        return Err(problem(format!("plugin root {} is no directory", root.display()), "name a directory"));
    }
    if mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
        let message = format!("plugin root {} is writable by everybody", root.display());
        return Err(problem(message, "run `chmod o-w` on it"));
    }
    Ok(resolved)
}

impl Discovery {
    fn scan(&mut self, root: &Path, approved: &[PathBuf]) {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) => {
                self.problems
                    .push(Problem::error(CATEGORY, format!("failed to list the plugin root: {error}")).in_file(root));
                return;
            }
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => self
                    .problems
                    .push(Problem::error(CATEGORY, format!("failed to list the plugin root: {error}")).in_file(root)),
            }
        }
        paths.sort();
        for path in paths {
            if is_candidate(&path)
                && let Err(problem) = self.look_at(&path, approved)
            {
                self.problems.push(*problem);
            }
        }
    }

    /// Takes the plugin in `path`, if it is one.
    fn look_at(&mut self, path: &Path, approved: &[PathBuf]) -> Result<(), Box<Problem>> {
        let refuse = |message: String, hint: &str| {
            Box::new(Problem::error(CATEGORY, message).in_file(path).hint(hint.to_owned()))
        };
        let dir = path.canonicalize().map_err(|e| refuse(format!("failed to resolve: {e}"), "remove the dead link"))?;
        if !dir.is_dir() {
            return Ok(());
        }
        if dir != path {
            if !approved.iter().any(|root| dir.starts_with(root)) {
                let message = format!("this link ends in {}, outside of every plugin root", dir.display());
                return Err(refuse(message, "move the plugin into a root, or add its directory to plugin_roots"));
            }
            let message = format!("this plugin is a symbolic link to {}", dir.display());
            self.problems.push(Problem::warning(CATEGORY, message).in_file(path));
        }
        let manifest_path = dir.join(MANIFEST);
        if !manifest_path.exists() {
            if let Some(name) = entrypoint_like(&dir) {
                let message = format!("the directory has {name} and no {MANIFEST}; it is ignored");
                self.problems.push(Problem::warning(CATEGORY, message).in_file(path).hint("add a manifest.yaml"));
            }
            return Ok(());
        }
        refuse_world_writable(&dir)?;
        refuse_world_writable(&manifest_path)?;
        let manifest = match manifest::read(&manifest_path) {
            Ok((manifest, warnings)) => {
                self.problems.extend(warnings);
                manifest
            }
            Err(mut problems) => {
                let last = problems.pop();
                self.problems.extend(problems);
                return last.map_or(Ok(()), |p| Err(Box::new(p)));
            }
        };
        if let Some(first) = self.plugins.get(&manifest.name) {
            let message = format!("plugin {:?} was already found in {}", manifest.name, first.dir.display());
            let hint = "this one is ignored; rename it or remove it";
            self.problems.push(Problem::warning(CATEGORY, message).in_file(path).hint(hint));
            return Ok(());
        }
        let entrypoint = entrypoint(&dir, &manifest.entrypoint, approved).map_err(|(message, hint)| {
            Box::new(Problem::error(CATEGORY, message).in_file(&manifest_path).at_path("entrypoint").hint(hint))
        })?;
        let name = manifest.name.clone();
        self.plugins.insert(name, Discovered { manifest: Arc::new(manifest), dir, entrypoint });
        Ok(())
    }
}

/// Hidden and shared directories are no plugins.
fn is_candidate(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    !name.is_empty() && !name.starts_with(['.', '_']) && name != "lib"
}

fn entrypoint_like(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter(|n| n == "run" || n.starts_with("run.")).min()
}

fn refuse_world_writable(path: &Path) -> Result<(), Box<Problem>> {
    let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & WORLD_WRITABLE == 0 {
        return Ok(());
    }
    let problem = Problem::error(CATEGORY, "is writable by everybody, so anybody could decide what the gateway runs");
    Err(Box::new(problem.in_file(path).hint("run `chmod o-w` on it")))
}

/// The executable's resolved path, or what is wrong with it and what to do.
fn entrypoint(dir: &Path, relative: &str, approved: &[PathBuf]) -> Result<PathBuf, (String, String)> {
    let written = dir.join(relative);
    let path = written.canonicalize().map_err(|e| {
        (format!("the entrypoint {relative:?} can't be found: {e}"), "name an existing file".to_owned())
    })?;
    if !approved.iter().any(|root| path.starts_with(root)) {
        let message = format!("the entrypoint ends in {}, outside of every plugin root", path.display());
        return Err((message, "put the executable into the plugin's directory".to_owned()));
    }
    let metadata = fs::metadata(&path).map_err(|e| (e.to_string(), "check the file's permissions".to_owned()))?;
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        return Err((format!("the entrypoint {relative:?} is no file"), "name an executable file".to_owned()));
    }
    if mode & EXECUTABLE == 0 {
        let hint = format!("run `chmod +x {}`", path.display());
        return Err((format!("the entrypoint {relative:?} is not executable"), hint));
    }
    if mode & WORLD_WRITABLE != 0 {
        let hint = format!("run `chmod o-w {}`", path.display());
        return Err((format!("the entrypoint {relative:?} is writable by everybody"), hint));
    }
    Ok(path)
}
