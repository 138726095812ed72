//! The three plugins of the benchmark, built into a temporary directory.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Static binary of a few kilobytes.
    Static,
    /// `sh` without forks.
    Shell,
    /// Python with `json`.
    Python,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static => "static binary",
            Self::Shell => "sh",
            Self::Python => "Python",
        })
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Static, Self::Shell, Self::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Static => "tiny",
            Self::Shell => "shell",
            Self::Python => "python",
        }
    }
}

/// Where the plugins are.
pub(crate) struct Built {
    /// The root of everything temporary.
    pub(crate) dir: PathBuf,
}

impl Built {
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("plugins")
    }

    pub(crate) fn entrypoint(&self, kind: Kind) -> PathBuf {
        self.root().join(kind.name()).join("run")
    }
}

/// A binary of the same build.
pub(crate) fn beside_this_binary(name: &str) -> PathBuf {
    std::env::current_exe().map(|p| p.with_file_name(name)).unwrap_or_default()
}

pub(crate) fn build(dir: &Path) -> Built {
    let built = Built { dir: dir.to_owned() };
    for kind in Kind::ALL {
        let home = built.root().join(kind.name());
        fs::create_dir_all(&home).expect("the plugin's directory");
        manifest(&home, kind.name());
        let run = home.join("run");
        match kind {
            Kind::Static => compile(&home, &run),
            Kind::Shell => fs::write(&run, include_str!("plugins/shell.sh")).expect("the script"),
            Kind::Python => fs::write(&run, include_str!("plugins/python.py")).expect("the script"),
        }
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("an executable");
    }
    let capped = built.root().join("capped");
    fs::create_dir_all(&capped).expect("the plugin's directory");
    manifest(&capped, "capped");
    fs::write(capped.join("run"), "#!/bin/sh\nexec sleep 600\n").expect("the script");
    fs::set_permissions(capped.join("run"), fs::Permissions::from_mode(0o755)).expect("an executable");
    built
}

fn manifest(home: &Path, name: &str) {
    let text = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nversion: 1.0.0\nprotocol: 2\nentrypoint: run\ncommands:\n  - {{name: poll, type: write}}\n"
    );
    fs::write(home.join("manifest.yaml"), text).expect("the manifest");
}

fn compile(home: &Path, run: &Path) {
    let source = home.join("tiny.c");
    fs::write(&source, include_str!("plugins/tiny.c")).expect("the source");
    let status = Command::new("cc")
        .args(["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-o"])
        .args([run, &source])
        .status()
        .expect("a C compiler named cc builds the static plugin");
    assert!(status.success(), "cc failed");
}
