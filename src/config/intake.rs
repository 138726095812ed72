//! Reads the files that take part: `config.yaml`, then its includes in order, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ductile_domain::problem::Problem;

use crate::findings::Findings;
use crate::merge::{merge, normalize};
use crate::node::{Content, Filled, Node, Origin};
use crate::paths::{Env, is_url, resolve};

/// Every byte that takes part passes through here and into the hash.
pub(crate) struct Intake<'a> {
    /// Directory of `config.yaml`.
    pub(crate) dir: &'a Path,
    pub(crate) env: &'a Env<'a>,
    /// Files that are symlinks.
    pub(crate) symlinks: Vec<PathBuf>,
    hasher: blake3::Hasher,
    seen: BTreeSet<PathBuf>,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(dir: &'a Path, env: &'a Env<'a>) -> Self {
        Self { dir, env, symlinks: Vec::new(), hasher: blake3::Hasher::new(), seen: BTreeSet::new() }
    }

    /// BLAKE3 over all bytes read so far, lower-case hex.
    pub(crate) fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// The bytes of one regular file, hashed and listed among the files. Answers its index too.
    pub(crate) fn read(&mut self, path: &Path, findings: &mut Findings) -> io::Result<(usize, Vec<u8>)> {
        // A pipe or a device would block or never end.
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() > ductile_yaml::LARGEST_DOCUMENT as u64 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
        }
        let bytes = std::fs::read(path)?;
        self.hasher.update(&bytes);
        if path.is_symlink() {
            self.symlinks.push(path.to_path_buf());
        }
        findings.files.push(path.to_path_buf());
        Ok((findings.files.len() - 1, bytes))
    }

    /// The merged document of `config.yaml` and all that it includes.
    pub(crate) fn document(&mut self, config_yaml: &Path, findings: &mut Findings) -> BTreeMap<String, Node> {
        let origin = Origin { file: usize::MAX, line: 0, column: 0 };
        let mut merged = Node { content: Content::Map(BTreeMap::new()), origin, filled: Filled::AsWritten };
        self.file(config_yaml, None, &mut merged, findings);
        match merged.content {
            Content::Map(map) => map,
            _ => BTreeMap::new(),
        }
    }

    fn file(&mut self, path: &Path, by: Option<&Place>, merged: &mut Node, findings: &mut Findings) {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if !self.seen.insert(identity) {
            if let Some(by) = by.filter(|by| !by.is_directory) {
                let text = format!("{} was loaded already; it is loaded once", path.display());
                findings.add(Problem::warning("include", text).at_path(&by.path), by.origin);
            }
            return;
        }
        let (index, bytes) = match self.read(path, findings) {
            Ok(read) => read,
            Err(source) => return unreadable(path, by, &source, findings),
        };
        let Some(mut map) = parse(index, &bytes, path, findings) else {
            findings.is_complete = false;
            return;
        };
        normalize(&mut map, findings);
        let include = if by.is_none() { map.get("include").cloned() } else { map.remove("include") };
        let origin = Origin { file: index, line: 1, column: 1 };
        let node = Node { content: Content::Map(map), origin, filled: Filled::AsWritten };
        let earlier = std::mem::replace(
            merged,
            Node { content: Content::Map(BTreeMap::new()), origin, filled: Filled::AsWritten },
        );
        *merged = merge(earlier, node, "");
        for (at, entry) in path_list(include.as_ref(), "include", findings) {
            self.include(&at, &entry, merged, findings);
        }
    }

    fn include(&mut self, at: &Place, entry: &str, merged: &mut Node, findings: &mut Findings) {
        let path = resolve(entry, self.dir, self.env);
        if !path.is_dir() {
            return self.file(&path, Some(at), merged, findings);
        }
        let at = Place { is_directory: true, ..at.clone() };
        let mut files = match yaml_files(&path) {
            Ok(files) => files,
            Err(source) => return unreadable(&path, Some(&at), &source, findings),
        };
        files.sort();
        if files.is_empty() {
            let text = format!("the directory {} holds no *.yaml file", path.display());
            findings.add(Problem::warning("include", text).at_path(&at.path), at.origin);
        }
        for file in files {
            self.file(&file, Some(&at), merged, findings);
        }
    }
}

/// Where a path was written.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) origin: Origin,
    is_directory: bool,
}

/// The entries of a list of paths that may be used; a `${`, a URL and what is no text are reported and left out.
pub(crate) fn path_list(node: Option<&Node>, path: &str, findings: &mut Findings) -> Vec<(Place, String)> {
    let category = match path {
        "environment_vars.include" => "env_vars",
        "plugin_roots" => "plugin_refs",
        _ => "include",
    };
    let single;
    let items = match node.map(|n| (&n.content, n)) {
        None | Some((Content::Null, _)) => return Vec::new(),
        Some((Content::List(items), _)) => items,
        Some((_, node)) => {
            single = vec![node.clone()];
            &single
        }
    };
    let is_list = node.is_some_and(|n| matches!(n.content, Content::List(_)));
    let mut entries = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = if is_list { format!("{path}[{i}]") } else { path.to_owned() };
        let problem = match item.text() {
            None | Some("") => Problem::error(category, format!("expected a path, found {}", item.shown())),
            Some(text) if text.contains("${") => Problem::error(category, "`${` is not allowed in this path")
                .hint("which files are read must not depend on the environment; write the path itself"),
            Some(text) if is_url(text) => {
                Problem::error(category, format!("{text:?} is a URL; only local files are read"))
                    .hint("copy the file beside config.yaml and name it here")
            }
            Some(text) => {
                entries.push((Place { path, origin: item.origin, is_directory: false }, text.to_owned()));
                continue;
            }
        };
        findings.add(problem.at_path(path), item.origin);
        findings.is_complete = false;
    }
    entries
}

fn unreadable(path: &Path, by: Option<&Place>, source: &io::Error, findings: &mut Findings) {
    findings.is_complete = false;
    let text = match source.kind() {
        io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("{} can't be read: {source}", path.display()),
    };
    let hint = match (source.kind(), by) {
        (io::ErrorKind::FileTooLarge, _) => "spread it over several files and name them under `include`",
        (io::ErrorKind::NotFound, Some(_)) => "create it or remove the entry",
        (_, Some(_)) => "mend it or remove the entry",
        (_, None) => "name the directory of config.yaml with --config or $DUCTILE_CONFIG_DIR",
    };
    let problem = Problem::error("include", text).hint(hint);
    match by {
        Some(by) => findings.add(problem.at_path(&by.path), by.origin),
        None => findings.problems.push(problem.in_file(path)),
    }
}

/// The top level of one file, or a problem.
fn parse(index: usize, bytes: &[u8], path: &Path, findings: &mut Findings) -> Option<BTreeMap<String, Node>> {
    let unreadable = match std::str::from_utf8(bytes) {
        Ok(text) => match ductile_yaml::load_value(text) {
            Ok(document) => match Node::read(document, index) {
                Node { content: Content::Map(map), .. } => return Some(map),
                Node { content: Content::Null, .. } => return Some(BTreeMap::new()),
                other => {
                    let text = format!("expected `key: value` lines at the top level, found {}", other.shown());
                    Problem::error("yaml", text).in_file(path).at(other.origin.line.max(1), other.origin.column.max(1))
                }
            },
            Err(error) => {
                let problem = Problem::error("yaml", error.message).in_file(path);
                match (error.line, error.column) {
                    (Some(line), column) => problem.at(
                        usize::try_from(line).unwrap_or(1),
                        column.and_then(|c| usize::try_from(c).ok()).unwrap_or(1),
                    ),
                    _ => problem,
                }
            }
        },
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            Problem::error("yaml", "the file is not UTF-8").in_file(path).at(line, 1)
        }
    };
    findings.problems.push(unreadable);
    None
}

fn yaml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        // Editors leave hidden copies beside the file that they edit.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|e| e == "yaml") && !is_hidden && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}
