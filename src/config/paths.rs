//! Which `config.yaml` is meant, and what a path inside it means.

use std::path::{Component, Path, PathBuf};

/// Looks a variable of the environment up.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The absolute path of the `config.yaml` to load: the flag, else `$DUCTILE_CONFIG_DIR`, else `~/.config/ductile`.
///
/// Flag and variable may name the file or its directory. The file need not exist: a path that doesn't is taken for a
/// file when it ends in `.yaml` or `.yml`.
#[must_use]
pub fn locate(flag: Option<&Path>, env: &Env<'_>) -> PathBuf {
    let given = match flag {
        Some(path) => path.to_path_buf(),
        None => match env("DUCTILE_CONFIG_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => home(env).unwrap_or_default().join(".config/ductile"),
        },
    };
    let given = std::path::absolute(&given).unwrap_or(given);
    let looks_like_file = given.extension().is_some_and(|e| e == "yaml" || e == "yml");
    if given.is_file() || looks_like_file && !given.is_dir() { given } else { given.join("config.yaml") }
}

/// `path` as meant in a file of `dir`: `~/` is the home directory, a relative path begins at `dir`.
pub(crate) fn resolve(path: &str, dir: &Path, env: &Env<'_>) -> PathBuf {
    if path == "~" || path.starts_with("~/") {
        let home = home(env).unwrap_or_else(|| dir.to_path_buf());
        return tidy(&home.join(path.trim_start_matches('~').trim_start_matches('/')));
    }
    tidy(&dir.join(path))
}

/// True for what no local path looks like.
pub(crate) fn is_url(path: &str) -> bool {
    path.contains("://")
}

fn home(env: &Env<'_>) -> Option<PathBuf> {
    env("HOME").filter(|h| !h.is_empty()).map(PathBuf::from).or_else(std::env::home_dir)
}

/// The path without `.` and `..`, unless a symlink on the way makes `..` mean another directory.
fn tidy(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            Component::ParentDir if clean.has_root() => {}
            other => clean.push(other),
        }
    }
    let real = |p: &Path| p.parent().and_then(|dir| dir.canonicalize().ok());
    match (real(path), real(&clean)) {
        (Some(written), Some(cleaned)) if written != cleaned => path.to_path_buf(),
        _ => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-01: the flag wins over the variable, the variable over the home directory; file or directory.
    #[test]
    fn the_flag_wins_over_the_variable_and_the_variable_over_home() {
        let env = |name: &str| match name {
            "DUCTILE_CONFIG_DIR" => Some("/from/env".to_owned()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        };
        assert_eq!(locate(Some(Path::new("/flag/my.yaml")), &env), Path::new("/flag/my.yaml"));
        assert_eq!(locate(Some(Path::new("/flag/dir")), &env), Path::new("/flag/dir/config.yaml"));
        assert_eq!(locate(None, &env), Path::new("/from/env/config.yaml"));
        let env = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(locate(None, &env), Path::new("/home/me/.config/ductile/config.yaml"));
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("odd.yaml")).expect("directory");
        std::fs::write(dir.path().join("plain"), "").expect("file");
        assert_eq!(locate(Some(&dir.path().join("odd.yaml")), &env), dir.path().join("odd.yaml/config.yaml"));
        assert_eq!(locate(Some(&dir.path().join("plain")), &env), dir.path().join("plain"));
        assert!(locate(Some(Path::new("here")), &env).is_absolute());
    }

    #[test]
    fn a_path_is_resolved_and_tidied() {
        let env = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let dir = Path::new("/none/config");
        assert_eq!(resolve("~/x", dir, &env), Path::new("/home/me/x"));
        assert_eq!(resolve("~", dir, &env), Path::new("/home/me"));
        assert_eq!(resolve("../data/./d.db", dir, &env), Path::new("/none/data/d.db"));
        assert_eq!(resolve("/abs", dir, &env), Path::new("/abs"));
        assert_eq!(resolve("../../../..", dir, &env), Path::new("/"));
    }

    #[test]
    fn a_symlink_keeps_the_meaning_of_dot_dot() {
        let root = tempfile::tempdir().expect("temporary directory");
        let real = root.path().join("real/config");
        std::fs::create_dir_all(&real).expect("directory");
        std::os::unix::fs::symlink(&real, root.path().join("link")).expect("symlink");
        let env = |_: &str| None;
        let found = resolve("../data.db", &root.path().join("link"), &env);
        let parent = found.parent().expect("a parent").canonicalize().expect("exists");
        assert_eq!(parent, root.path().join("real").canonicalize().expect("exists"));
    }
}
