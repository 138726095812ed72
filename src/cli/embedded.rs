//! The shipped plugins, compiled in, for a gateway that starts from nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use include_dir::{Dir, DirEntry, include_dir};

static PLUGINS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugins");

/// What the shipped plugins share.
const SHARED: &str = "_lib";

/// Writes the shipped plugin `name` into `root`, with what the plugins share; false when there is none of that name.
///
/// # Errors
/// A file could not be written.
pub(crate) fn write_plugin(name: &str, root: &Path) -> std::io::Result<bool> {
    let Some(dir) = PLUGINS.get_dir(name) else { return Ok(false) };
    write_dir(dir, root)?;
    if let Some(shared) = PLUGINS.get_dir(SHARED).filter(|_| !root.join(SHARED).exists()) {
        write_dir(shared, root)?;
    }
    Ok(true)
}

fn write_dir(dir: &Dir<'_>, root: &Path) -> std::io::Result<()> {
    make_dir(&root.join(dir.path()))?;
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) if dir.path().ends_with("__pycache__") => {}
            DirEntry::Dir(dir) => write_dir(dir, root)?,
            DirEntry::File(file) => write_file(&root.join(file.path()), file.contents())?,
        }
    }
    Ok(())
}

/// Makes a directory that only its owner can use.
///
/// # Errors
/// It could not be made.
pub(crate) fn make_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file with its final mode: a script (it begins with `#!`) is executable.
///
/// # Errors
/// It exists, or could not be written.
pub(crate) fn write_file(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mode = if contents.starts_with(b"#!") { 0o755 } else { 0o644 };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_shipped_plugin_is_written_as_it_is_found_by_discovery() {
        let root = tempfile::tempdir().expect("temporary directory");
        assert!(write_plugin("echo", root.path()).expect("written"));
        assert!(!write_plugin("no-such-plugin", root.path()).expect("nothing to write"));
        let mode = |path: &str| fs::metadata(root.path().join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode("echo/run.sh"), 0o755);
        assert_eq!(mode("echo/manifest.yaml"), 0o644);
        assert_eq!(mode("echo"), 0o700);
        assert!(write_plugin("sys_exec", root.path()).expect("written"));
        assert!(root.path().join("_lib/_stopwatch.py").is_file(), "sys_exec needs it");
        let found = ductile_plugin::discover::discover(&[root.path().to_path_buf()]);
        assert!(found.plugins.contains_key("echo"), "{:?}", found.problems);
    }
}
