//! Finds plugins in the roots. Nothing is passed over in silence, and one bad plugin stops no other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ductile_domain::catalog::Discovered;
use ductile_domain::config::Config;
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

/// What may be done with symbolic links on the way to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed with a warning, as long as they end inside a root.
    Allowed,
    /// Whatever is reached by one is not loaded.
    Refused,
}

/// What the roots of a configuration hold, links treated as its `service.allow_symlinks` says.
#[must_use]
pub fn discover_for(config: &Config) -> Discovery {
    let links = if config.service.allow_symlinks { Links::Allowed } else { Links::Refused };
    discover_with(&config.plugin_roots, links)
}

/// The same for roots without a configuration; links are allowed.
#[must_use]
pub fn discover(roots: &[PathBuf]) -> Discovery {
    discover_with(roots, Links::Allowed)
}

/// Looks at the direct subdirectories of each root, in the order of the roots and then of names.
///
/// The first plugin of a name wins. A root that is named twice counts once.
#[must_use]
pub fn discover_with(roots: &[PathBuf], links: Links) -> Discovery {
    let mut discovery = Discovery::default();
    let mut approved: Vec<PathBuf> = Vec::new();
    for root in roots {
        match discovery.approve(root, links) {
            Ok(root) if approved.contains(&root) => {}
            Ok(root) => approved.push(root),
            Err(problem) => discovery.problems.push(*problem),
        }
    }
    let scan = Scan { approved: &approved, links };
    for root in &approved {
        discovery.scan(root, scan);
    }
    discovery
}

/// Looks at one plugin's directory as a scan of its parent would.
///
/// Its own name is only warned of, so that a template can be looked at, and a missing manifest is an error.
#[must_use]
pub fn look_at(dir: &Path) -> Discovery {
    let mut discovery = Discovery::default();
    let refused = |message: String, hint: &str| Problem::error(CATEGORY, message).in_file(dir).hint(hint.to_owned());
    let (dir, root) = match dir.canonicalize() {
        Ok(resolved) if resolved.is_dir() => {
            let root = resolved.parent().unwrap_or(&resolved).to_owned();
            (resolved, root)
        }
        Ok(_) => {
            discovery
                .problems
                .push(refused("is no directory".to_owned(), "name the directory that holds manifest.yaml"));
            return discovery;
        }
        Err(error) => {
            discovery.problems.push(refused(format!("can't be used: {error}"), "name a plugin's directory"));
            return discovery;
        }
    };
    let root = match discovery.approve(&root, Links::Allowed) {
        Ok(root) => root,
        Err(problem) => {
            discovery.problems.push(*problem);
            return discovery;
        }
    };
    if !is_candidate(&dir) {
        let message = "the gateway passes over `lib` and names that begin with `.` or `_`";
        discovery.problems.push(Problem::warning(CATEGORY, message).in_file(&dir).hint("copy it under another name"));
    }
    match discovery.look_at(&dir, Scan { approved: &[root], links: Links::Allowed }) {
        Err(problem) => discovery.problems.push(*problem),
        Ok(()) if discovery.plugins.is_empty() => {
            let message = format!("there is no {MANIFEST}, so this is no plugin");
            discovery.problems.push(Problem::error(CATEGORY, message).in_file(&dir).hint("add a manifest.yaml"));
        }
        Ok(()) => {}
    }
    discovery
}

/// What holds for every plugin that is looked at.
#[derive(Clone, Copy)]
struct Scan<'a> {
    /// The roots, links resolved.
    approved: &'a [PathBuf],
    links: Links,
}

impl Scan<'_> {
    fn is_inside(&self, resolved: &Path) -> bool {
        self.approved.iter().any(|root| resolved.starts_with(root))
    }
}

impl Discovery {
    fn approve(&mut self, root: &Path, links: Links) -> Result<PathBuf, Box<Problem>> {
        let refuse = |message: String, hint: &str| {
            Box::new(Problem::error(CATEGORY, message).at_path("plugin_roots").in_file(root).hint(hint.to_owned()))
        };
        let resolved = root.canonicalize().map_err(|e| {
            let message = format!("plugin root {} can't be used: {e}", root.display());
            refuse(message, "create it or remove it from plugin_roots")
        })?;
        if root.is_symlink() {
            self.linked(root, &format!("plugin root {}", root.display()), &resolved, links)?;
        }
        let metadata = fs::metadata(&resolved).map_err(|e| refuse(e.to_string(), "check its permissions"))?;
        if !metadata.is_dir() {
            return Err(refuse(format!("plugin root {} is no directory", root.display()), "name a directory"));
        }
        let mode = metadata.permissions().mode();
        if mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
            let message = format!("plugin root {} is writable by everybody", root.display());
            return Err(refuse(message, "run `chmod o-w` on it"));
        }
        Ok(resolved)
    }

    /// Says that `what` is a link to `target`: a warning, or the reason to refuse it.
    fn linked(&mut self, path: &Path, what: &str, target: &Path, links: Links) -> Result<(), Box<Problem>> {
        let message = format!("{what} is a symbolic link to {}", target.display());
        match links {
            Links::Allowed => {
                self.problems.push(Problem::warning(CATEGORY, message).in_file(path));
                Ok(())
            }
            Links::Refused => {
                let message = format!("{message}, and service.allow_symlinks is false");
                let hint = "replace it by what it points to, or set service.allow_symlinks: true";
                Err(Box::new(Problem::error(CATEGORY, message).in_file(path).hint(hint)))
            }
        }
    }

    fn scan(&mut self, root: &Path, scan: Scan<'_>) {
        let failed = |error: std::io::Error| {
            Problem::error(CATEGORY, format!("failed to list the plugin root: {error}")).in_file(root)
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        match fs::read_dir(root) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => paths.push(entry.path()),
                        Err(error) => self.problems.push(failed(error)),
                    }
                }
            }
            Err(error) => self.problems.push(failed(error)),
        }
        paths.sort();
        for path in paths {
            if is_candidate(&path)
                && let Err(problem) = self.look_at(&path, scan)
            {
                self.problems.push(*problem);
            }
        }
    }

    /// Takes the plugin in `path`, if it is one.
    fn look_at(&mut self, path: &Path, scan: Scan<'_>) -> Result<(), Box<Problem>> {
        let refuse = |message: String, hint: &str| {
            Box::new(Problem::error(CATEGORY, message).in_file(path).hint(hint.to_owned()))
        };
        let dir = path.canonicalize().map_err(|e| refuse(format!("failed to resolve: {e}"), "remove the dead link"))?;
        if !dir.is_dir() {
            return Ok(());
        }
        if dir != path {
            if !scan.is_inside(&dir) {
                let message = format!("this link ends in {}, outside of every plugin root", dir.display());
                return Err(refuse(message, "move the plugin into a root, or add its directory to plugin_roots"));
            }
            self.linked(path, "this plugin", &dir, scan.links)?;
        }
        let written = dir.join(MANIFEST);
        if !written.exists() {
            if written.is_symlink() {
                return Err(refuse(format!("its {MANIFEST} is a link to nowhere"), "replace it by a file"));
            }
            if let Some(name) = entrypoint_like(&dir) {
                let message = format!("the directory has {name} and no {MANIFEST}; it is ignored");
                self.problems.push(Problem::warning(CATEGORY, message).in_file(path).hint("add a manifest.yaml"));
            }
            return Ok(());
        }
        let manifest_path = written
            .canonicalize()
            .map_err(|e| refuse(format!("failed to resolve its {MANIFEST}: {e}"), "check its permissions"))?;
        if manifest_path != written {
            if !scan.is_inside(&manifest_path) {
                let message = format!("its {MANIFEST} ends in {}, outside of every root", manifest_path.display());
                return Err(refuse(message, "replace the link by a file"));
            }
            self.linked(&written, "this manifest", &manifest_path, scan.links)?;
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
        let entrypoint = self.entrypoint(&dir, &manifest.entrypoint, &manifest_path, scan)?;
        let name = manifest.name.clone();
        self.plugins.insert(name, Discovered { manifest: Arc::new(manifest), dir, entrypoint });
        Ok(())
    }

    /// The executable's resolved path.
    fn entrypoint(
        &mut self,
        dir: &Path,
        relative: &str,
        manifest: &Path,
        scan: Scan<'_>,
    ) -> Result<PathBuf, Box<Problem>> {
        let refuse = |message: String, hint: String| {
            Box::new(Problem::error(CATEGORY, message).in_file(manifest).at_path("entrypoint").hint(hint))
        };
        let written: PathBuf = dir.join(relative).components().collect();
        let path = written.canonicalize().map_err(|e| {
            refuse(format!("the entrypoint {relative:?} can't be found: {e}"), "name an existing file".to_owned())
        })?;
        if !scan.is_inside(&path) {
            let message = format!("the entrypoint ends in {}, outside of every plugin root", path.display());
            return Err(refuse(message, "put the executable into the plugin's directory".to_owned()));
        }
        if path != written {
            self.linked(&written, "this entrypoint", &path, scan.links)?;
        }
        let metadata =
            fs::metadata(&path).map_err(|e| refuse(e.to_string(), "check the file's permissions".to_owned()))?;
        let mode = metadata.permissions().mode();
        if !metadata.is_file() {
            let message = format!("the entrypoint {relative:?} is no file");
            return Err(refuse(message, "name an executable file".to_owned()));
        }
        if mode & EXECUTABLE == 0 {
            let hint = format!("run `chmod +x {}`", path.display());
            return Err(refuse(format!("the entrypoint {relative:?} is not executable"), hint));
        }
        if mode & WORLD_WRITABLE != 0 {
            let hint = format!("run `chmod o-w {}`", path.display());
            return Err(refuse(format!("the entrypoint {relative:?} is writable by everybody"), hint));
        }
        // Who may write a directory may replace what lies in it.
        let inside = |parent: &&Path| parent.starts_with(dir) && *parent != dir;
        for parent in path.ancestors().skip(1).take_while(inside) {
            refuse_world_writable(parent)?;
        }
        Ok(path)
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
