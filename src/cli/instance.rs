//! Which gateway is meant: its configuration, its database, its lock and its control socket.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::client::{Client, Target};
use crate::error::Error;
use crate::report::Report;

/// The files of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    /// `config.yaml`, absolute.
    pub config: PathBuf,
    /// The database.
    pub state: PathBuf,
}

impl Instance {
    /// Reads the configuration that the flags name, as far as needed to find the rest.
    ///
    /// Variables that this shell lacks don't matter, unless the database's path is made of them. When the files are
    /// broken (someone is editing them) and a socket stands beside them, that one is taken.
    ///
    /// # Errors
    /// All problems of the configuration.
    pub(crate) fn locate(global: &Global, report: &Report) -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let config = ductile_config::locate(global.config.as_deref(), &env);
        let lenient = |name: &str| Some(env(name).unwrap_or_else(|| format!("{UNDEFINED}{name}")));
        let state = match ductile_config::load(&config, &lenient) {
            Ok(loaded) if !loaded.config.state.path.to_string_lossy().contains(UNDEFINED) => loaded.config.state.path,
            Ok(_) => return Err(Error::Config(ductile_config::load(&config, &env).err().unwrap_or_default())),
            Err(problems) => {
                let state = config.with_file_name("ductile.db");
                if !socket_beside(&state).exists() {
                    return Err(Error::Config(problems));
                }
                report.note(
                    "note: the configuration has problems (see `ductile config check`); using the socket beside it",
                );
                state
            }
        };
        let instance = Self { config, state };
        report.detail(format!("configuration {}", instance.config.display()));
        report.detail(format!("database      {}", instance.state.display()));
        report.detail(format!("socket        {}", instance.socket().display()));
        Ok(instance)
    }

    /// The control socket.
    #[must_use]
    pub(crate) fn socket(&self) -> PathBuf {
        socket_beside(&self.state)
    }

    /// A client for its control socket.
    #[must_use]
    pub(crate) fn client(&self) -> Client {
        Client::new(Target::Socket(self.socket()), None)
    }

    /// The lock file.
    #[must_use]
    pub(crate) fn lock(&self) -> PathBuf {
        self.state.with_file_name("ductile.lock")
    }
}

/// Stands for the value of a variable that this shell does not have.
const UNDEFINED: &str = "__undefined__";

fn socket_beside(state: &Path) -> PathBuf {
    state.with_file_name("ductile.sock")
}

/// A client for the gateway that the flags name.
///
/// # Errors
/// A bad address, or all problems of the configuration.
pub(crate) fn connect(global: &Global, report: &Report) -> Result<Client, Error> {
    let target = match &global.api_url {
        Some(url) => Target::parse(url)?,
        None => Target::Socket(Instance::locate(global, report)?.socket()),
    };
    report.detail(format!("asking        {target}"));
    Ok(Client::new(target, global.api_key.clone()))
}

/// What a lock file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// A process holds it; its pid, when the file tells.
    Held(Option<u32>),
    /// Nobody holds it.
    Free,
    /// It can't be looked at.
    Unknown,
}

impl Lock {
    /// Takes the lock for as long as the file is kept, so that no gateway starts meanwhile.
    ///
    /// # Errors
    /// Somebody holds it, or the file can't be used.
    pub(crate) fn hold(path: &Path) -> Result<File, Error> {
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(Error::io(format!("open the lock {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Failed(format!(
                "a gateway holds {} and uses the database; stop it first: `ductile system stop`",
                path.display()
            ))),
            Err(TryLockError::Error(source)) => {
                Err(Error::Io { what: format!("take the lock {}", path.display()), source })
            }
        }
    }

    /// Looks at the lock file. Nothing is written, and a lock is taken for no longer than the look.
    #[must_use]
    pub(crate) fn look(path: &Path) -> Self {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::Free,
            Err(_) => return Self::Unknown,
        };
        match file.try_lock_shared() {
            Ok(()) => Self::Free,
            Err(TryLockError::WouldBlock) => Self::Held(
                std::fs::read_to_string(path).ok().and_then(|text| text.split_whitespace().next()?.parse().ok()),
            ),
            Err(TryLockError::Error(_)) => Self::Unknown,
        }
    }
}

/// What to tell someone whose gateway does not answer at `socket`.
#[must_use]
pub(crate) fn advice(socket: &Path) -> Vec<String> {
    let lock = socket.with_file_name("ductile.lock");
    let start = "start one with `ductile system start`, or name another with --config or --api-url".to_owned();
    match Lock::look(&lock) {
        Lock::Held(pid) => {
            let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            vec![
                format!("{who} holds the lock {}: it is starting, stopping or stuck", lock.display()),
                "try again in a moment, and read its log".into(),
            ]
        }
        Lock::Free => vec![format!("the lock {} is free: no gateway runs here", lock.display()), start],
        Lock::Unknown => vec![format!("the lock {} can't be read", lock.display()), start],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_held_lock_names_its_process() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("ductile.lock");
        assert_eq!(Lock::look(&path), Lock::Free);
        let mut file = File::create(&path).expect("create");
        writeln!(file, "4711").expect("write");
        assert_eq!(Lock::look(&path), Lock::Free);
        file.lock().expect("lock");
        assert_eq!(Lock::look(&path), Lock::Held(Some(4711)));
        let advice = advice(&dir.path().join("ductile.sock")).join("\n");
        assert!(advice.contains("process 4711 holds the lock"), "{advice}");
        drop(file);
        assert_eq!(Lock::look(&path), Lock::Free);
    }
}
