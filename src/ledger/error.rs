//! What can go wrong with the file, and what can go wrong with one operation; each text says the cause and the next
//! step.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A ledger that could not be opened, read or migrated.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory of the database does not exist or is no directory.
    DirectoryMissing {
        /// That directory.
        directory: PathBuf,
    },
    /// SQLite could not open the file.
    OpenLedger {
        /// The database.
        path: PathBuf,
        /// Its own words.
        source: sqlx::Error,
    },
    /// The writer's connection or thread could not be started.
    StartWriter {
        /// The database.
        path: PathBuf,
        /// Its own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file could not be created, read or renamed.
    TouchFile {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Another process holds the write lock.
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The file is damaged.
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file is something else.
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A SQLite database, but not a ledger of this gateway.
    ForeignDatabase {
        /// The file.
        path: PathBuf,
        /// Whose it seems to be.
        owner: String,
    },
    /// Written by a newer gateway.
    NewerVersion {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this gateway knows.
        known: i64,
    },
    /// Written by an older gateway.
    OlderVersion {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version that this gateway needs.
        known: i64,
    },
    /// Tables, columns, indexes or triggers of the schema are missing or differ.
    SchemaDiffers {
        /// The database.
        path: PathBuf,
        /// Each difference, such as `index job_log_completed_idx is missing`.
        differences: Vec<String>,
    },
    /// The file or its file system can't be written.
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// The file system is full.
    DiskFull {
        /// The database.
        path: PathBuf,
    },
    /// A read failed.
    Read {
        /// What was read, such as `job`.
        what: &'static str,
        /// SQLite's words.
        source: sqlx::Error,
    },
    /// A migration failed; the database is as it was.
    Migrate {
        /// The step's number.
        version: i64,
        /// SQLite's words.
        source: sqlx::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectoryMissing { directory } => write!(
                f,
                "failed to open the ledger: the directory {} does not exist; create it or change state.path",
                directory.display()
            ),
            Self::OpenLedger { path, .. } => write!(f, "failed to open the ledger {}", path.display()),
            Self::StartWriter { path, .. } => write!(f, "failed to start writing to the ledger {}", path.display()),
            Self::TouchFile { path, .. } => {
                write!(f, "failed to open the file {}; check its owner and permissions", path.display())
            }
            Self::Busy { path } => write!(
                f,
                "failed to open the ledger {}: another process holds its write lock; end that process (see `fuser`) and try again",
                path.display()
            ),
            Self::Corrupt { path, detail } => write!(
                f,
                "failed to open the ledger {}: the file is damaged ({detail}); restore a backup, the damaged file is left as it is",
                path.display()
            ),
            Self::NotADatabase { path } => write!(
                f,
                "failed to open the ledger {}: the file is not a SQLite database; move it away or change state.path",
                path.display()
            ),
            Self::ForeignDatabase { path, owner } => write!(
                f,
                "failed to open the ledger {}: the database belongs to {owner}; change state.path to a new file",
                path.display()
            ),
            Self::NewerVersion { path, found, known } => write!(
                f,
                "failed to open the ledger {}: it has schema version {found} and this gateway knows {known}; install the newer gateway or restore a backup",
                path.display()
            ),
            Self::OlderVersion { path, found, known } => write!(
                f,
                "failed to open the ledger {}: it has schema version {found} and this gateway needs {known}; run `ductile system migrate`",
                path.display()
            ),
            Self::SchemaDiffers { path, differences } => write!(
                f,
                "failed to open the ledger {}: {}; run `ductile system migrate` or restore a backup",
                path.display(),
                differences.join(", ")
            ),
            Self::ReadOnly { path } => write!(
                f,
                "failed to open the ledger {}: the file or its file system is read-only; make it writable or change state.path",
                path.display()
            ),
            Self::DiskFull { path } => write!(
                f,
                "failed to open the ledger {}: no space is left on its file system; free some and start again",
                path.display()
            ),
            Self::Read { what, .. } => write!(f, "failed to read {what} from the ledger"),
            Self::Migrate { version, .. } => {
                write!(f, "failed to migrate the ledger to version {version}; nothing was changed")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::OpenLedger { source, .. } | Self::Read { source, .. } | Self::Migrate { source, .. } => Some(source),
            Self::TouchFile { source, .. } => Some(source),
            Self::StartWriter { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl Error {
    /// True when a read found no connection free in time: it may be asked again.
    #[must_use]
    pub const fn is_overloaded(&self) -> bool {
        matches!(self, Self::Read { source: sqlx::Error::PoolTimedOut, .. })
    }

    /// True when the file is not a sound ledger of this version, so that waiting or making room would not help.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::NotADatabase { .. }
                | Self::ForeignDatabase { .. }
                | Self::NewerVersion { .. }
                | Self::OlderVersion { .. }
                | Self::SchemaDiffers { .. }
        )
    }

    /// Names what SQLite said about opening or creating `path`.
    pub(crate) fn opening(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        match code_of_read(&source) {
            Some(BUSY | LOCKED) => Self::Busy { path },
            Some(CORRUPT) => Self::Corrupt { path, detail: source.to_string() },
            Some(NOT_A_DATABASE) => Self::NotADatabase { path },
            Some(READ_ONLY) => Self::ReadOnly { path },
            Some(FULL) => Self::DiskFull { path },
            _ => Self::OpenLedger { path, source },
        }
    }
}

impl Error {
    /// Names what kept the writer from starting.
    pub(crate) fn starting(path: &Path, source: StartError) -> Self {
        let path = path.to_owned();
        match source {
            StartError::Thread(source) => Self::StartWriter { path, source: source.into() },
            StartError::Open(source) => match code_of_write(&source) {
                Some(BUSY | LOCKED) => Self::Busy { path },
                Some(CORRUPT) => Self::Corrupt { path, detail: source.to_string() },
                Some(READ_ONLY) => Self::ReadOnly { path },
                Some(FULL) => Self::DiskFull { path },
                _ => Self::StartWriter { path, source: source.into() },
            },
        }
    }
}

/// An operation that was not committed. A state of the ledger, never a reason to crash.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WriteError {
    /// Another process holds the write lock; try again later.
    Busy,
    /// The file system is full; intake must stop.
    Full,
    /// The file or its file system has become read-only.
    ReadOnly,
    /// Reading or writing the file failed, or it is damaged.
    Damaged(String),
    /// More operations wait than the writer takes; try again later.
    Overloaded,
    /// The writer has been closed.
    Closed,
    /// A plugin that the jobs need is not in the generation in force; nothing was enqueued.
    PluginGone {
        /// That plugin.
        plugin: String,
    },
    /// The generation that was named is not in force any more; nothing was written.
    Outdated,
    /// The plugin's merged state would exceed its limit; the attempt must fail.
    StateTooLarge {
        /// The plugin.
        plugin: String,
        /// Bytes of the merged state.
        bytes: usize,
        /// Most that is kept.
        limit: usize,
    },
    /// SQLite refused this operation alone.
    Refused(Arc<rusqlite::Error>),
}

impl WriteError {
    /// True when the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::ReadOnly | Self::Damaged(_) | Self::Overloaded)
    }

    /// True when the file as a whole is in trouble, so that running the operations one by one would not help.
    pub(crate) const fn is_of_the_file(&self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::ReadOnly | Self::Damaged(_) | Self::Closed)
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(source: rusqlite::Error) -> Self {
        match code_of_write(&source) {
            Some(BUSY | LOCKED) => Self::Busy,
            Some(FULL) => Self::Full,
            Some(READ_ONLY) => Self::ReadOnly,
            Some(IO_ERROR | CORRUPT | NOT_A_DATABASE | CANNOT_OPEN) => Self::Damaged(source.to_string()),
            _ => Self::Refused(Arc::new(source)),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("failed to write: another process holds the ledger's write lock"),
            Self::Full => f.write_str("failed to write: no space is left on the ledger's file system"),
            Self::ReadOnly => f.write_str("failed to write: the ledger is read-only"),
            Self::Damaged(detail) => write!(f, "failed to write: the ledger's file is in trouble: {detail}"),
            Self::Overloaded => f.write_str("failed to write: too many operations wait for the ledger"),
            Self::Closed => f.write_str("failed to write: the ledger is closed"),
            Self::PluginGone { plugin } => {
                write!(f, "failed to enqueue: plugin {plugin:?} is not in the configuration in force")
            }
            Self::Outdated => f.write_str("failed to write: another configuration has come into force"),
            Self::StateTooLarge { plugin, bytes, limit } => {
                write!(f, "failed to merge the state of {plugin:?}: {bytes} bytes are more than {limit}")
            }
            Self::Refused(_) => f.write_str("failed to write: the ledger refused the operation"),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}

/// A writer that could not be started on a file that was found in order.
#[derive(Debug)]
pub(crate) enum StartError {
    Open(rusqlite::Error),
    Thread(std::io::Error),
}

pub(crate) const BUSY: i32 = 5;
pub(crate) const LOCKED: i32 = 6;
pub(crate) const READ_ONLY: i32 = 8;
pub(crate) const IO_ERROR: i32 = 10;
pub(crate) const CORRUPT: i32 = 11;
pub(crate) const FULL: i32 = 13;
pub(crate) const CANNOT_OPEN: i32 = 14;
pub(crate) const NOT_A_DATABASE: i32 = 26;

/// The shared memory beside the file could not grow: an I/O error by its number, a full file system by its cause.
const SHARED_MEMORY_SIZE: i32 = 10 | 19 << 8;

/// SQLite's primary result code, without its extension.
fn primary(extended: i32) -> i32 {
    if extended == SHARED_MEMORY_SIZE { FULL } else { extended & 0xff }
}

fn code_of_read(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(primary(code))
}

fn code_of_write(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|e| primary(e.extended_code))
}
