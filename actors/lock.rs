//! The single-instance lock: held from before the ledger is opened until the process ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// The kernel releases it with the process, whatever way that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _held: Flock<File>,
}

impl Lock {
    /// Takes the lock and writes the process id into the file.
    ///
    /// The error is a text for people: who holds it, or why the file can't be used.
    pub(crate) fn acquire(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            format!("Failed to acquire PID lock {}: {what}: {e}", path.display())
        };
        if let Some(dir) = path.parent().filter(|d| !d.is_dir()) {
            std::fs::create_dir(dir).map_err(|e| {
                failed(&format!("its directory {} does not exist and can't be created", dir.display()), &e)
            })?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| failed("the file can't be opened; check the directory of state.path", &e))?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                return Err(format!(
                    "Failed to acquire PID lock {}: a gateway is running with pid {}; stop it with `ductile system stop`",
                    path.display(),
                    if holder.is_empty() { "unknown" } else { holder },
                ));
            }
            Err((_, e)) => return Err(failed("flock", &e)),
        };
        let written = held
            .set_len(0)
            .and_then(|()| held.rewind())
            .and_then(|()| writeln!(held, "{}", std::process::id()))
            .and_then(|()| held.flush());
        written.map_err(|e| failed("the process id can't be written", &e))?;
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPS-01: a second holder is refused and told who holds it; the end of the first frees it.
    #[test]
    fn only_one_gateway_holds_the_lock() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("ductile.lock");
        let first = Lock::acquire(&path).expect("free");
        let refused = Lock::acquire(&path).expect_err("held");
        assert!(refused.contains("Failed to acquire PID lock"), "{refused}");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        assert!(Lock::acquire(&path).is_ok());
    }
}
