//! The control socket: who owns the file, who may replace it, and who may speak through it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Uid, User};

use crate::auth::Peer;
use crate::error::Error;

/// Binds the control socket at `path` with mode 0600 from its first moment, whatever the umask.
///
/// A socket that nobody answers is replaced; anything else that stands there is left alone.
///
/// # Errors
/// `SocketInUse` when someone answers there, `NotASocket` when it is no socket, `BindSocket` for all else.
pub fn bind_control_socket(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::BindSocket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(Error::SocketInUse { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Names are short because the kernel allows 107 bytes for the whole path.
    let private = dir.join(format!(".s{}", std::process::id()));
    // One that was left by a dead process with our number is in the way.
    remove_private(&private);
    DirBuilder::new().mode(0o700).create(&private).map_err(failed)?;
    let bound = bind_in(&private, path);
    remove_private(&private);
    bound.map_err(failed)
}

fn bind_in(private: &Path, path: &Path) -> io::Result<UnixListener> {
    let inside = private.join("s");
    let listener = UnixListener::bind(&inside)?;
    // Nobody else can enter the directory, so nobody connects before the mode is final.
    fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
    fs::rename(&inside, path)?;
    Ok(listener)
}

fn remove_private(private: &Path) {
    // Both fail when there is nothing, which is the usual case.
    let _ = fs::remove_file(private.join("s"));
    let _ = fs::remove_dir(private);
}

/// Decides by the kernel's word who speaks; without one it is a foreigner.
pub(crate) fn peer(uid: io::Result<u32>) -> Peer {
    let Ok(uid) = uid.map(Uid::from_raw) else { return Peer::Foreign };
    if !uid.is_root() && uid != Uid::effective() {
        return Peer::Foreign;
    }
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    Peer::Socket(Arc::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_its_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("ductile.sock");
        let _listener = bind_control_socket(&path).expect("binds");
        let mode = fs::symlink_metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> =
            fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names, ["ductile.sock"]);
    }

    #[test]
    fn only_a_socket_that_nobody_answers_is_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("ductile.sock");
        let first = bind_control_socket(&path).expect("binds");
        assert!(matches!(bind_control_socket(&path), Err(Error::SocketInUse { .. })));
        drop(first);
        let second = bind_control_socket(&path).expect("replaces the stale one");
        UnixStream::connect(&path).expect("the new one answers");
        drop(second);

        let file = dir.path().join("precious");
        fs::write(&file, "data").expect("writable");
        assert!(matches!(bind_control_socket(&file), Err(Error::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&file).expect("still there"), "data");
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let deep = dir.path().join("d".repeat(100));
        fs::create_dir(&deep).expect("creatable");
        assert!(matches!(bind_control_socket(&deep.join("s.sock")), Err(Error::BindSocket { .. })));
        assert_eq!(fs::read_dir(&deep).expect("readable").count(), 0);
    }
}
