//! Opens the file: creates or checks it, and yields the one writer and the readers.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ductile_domain::config::Durability;
use ductile_domain::ids::BootId;
use ductile_domain::time;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _, Row};

use crate::clock::Clock;
use crate::error::Error;
use crate::feed::CommitFeed;
use crate::readers::Readers;
use crate::schema;
use crate::writer::{InForce, Writer};

/// How to open a ledger. The caller holds the instance's lock file already.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The SQLite file; created when absent or empty.
    pub path: PathBuf,
    /// Which commits are synced.
    pub durability: Durability,
    /// This start of the gateway: the owner of the rows that it claims.
    pub boot: BootId,
    /// Gets the rows that become ready.
    pub feed: CommitFeed,
    /// The generation in force; to be kept for the next writer when this one ends before the gateway does.
    pub in_force: InForce,
    /// Stamps rows.
    pub clock: Clock,
    /// How long a statement waits for a lock that another process holds.
    pub busy_timeout: Duration,
    /// Operations of doors (enqueue, cancel) that may wait; more are refused at once.
    pub capacity: usize,
}

impl OpenOptions {
    /// The usual settings.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, boot: BootId) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Accepted,
            boot,
            feed: CommitFeed::default(),
            in_force: InForce::default(),
            clock: Clock::default(),
            busy_timeout: Duration::from_secs(5),
            capacity: 4096,
        }
    }
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    /// Everything that changes the file.
    pub writer: Writer,
    /// Everything that only looks.
    pub readers: Readers,
    /// False when the last user of the file did not close it: run [`Readers::quick_check`] beside the start.
    pub was_clean: bool,
    /// The start of the gateway that had the file open before, whose processes may have been left.
    pub former_boot: Option<BootId>,
}

impl Ledger {
    /// Commits what waits, marks the stop as clean and closes all connections.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Opens or creates the ledger.
///
/// # Errors
/// Names what is wrong with the file; an existing file is never altered then.
pub async fn open(options: OpenOptions) -> Result<Ledger, Error> {
    let is_new = prepare_file(&options.path)?;
    let mut conn = connect(&options.path, options.busy_timeout).await?;
    let naming = |source| Error::opening(&options.path, source);
    if is_new || is_empty(&mut conn).await.map_err(naming)? {
        schema::create(&mut conn).await.map_err(naming)?;
    } else {
        check(&mut conn, &options.path).await?;
    }
    let (was_clean, former_boot) = take(&mut conn, &options).await.map_err(naming)?;
    let readers = Readers::connect(&options.path, options.busy_timeout);
    let writer = Writer::start(&options).map_err(|source| Error::starting(&options.path, source))?;
    // not before: the last connection would copy the write-ahead log back and remove it
    conn.close().await.map_err(naming)?;
    Ok(Ledger { writer, readers, was_clean, former_boot })
}

/// Creates the file with its final mode, or looks at the header of the one that exists. True when it is empty.
pub(crate) fn prepare_file(path: &Path) -> Result<bool, Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(Error::DirectoryMissing { directory: directory.to_owned() });
    }
    let touching = |source: std::io::Error| match source.kind() {
        ErrorKind::ReadOnlyFilesystem => Error::ReadOnly { path: path.to_owned() },
        ErrorKind::StorageFull => Error::DiskFull { path: path.to_owned() },
        _ => Error::TouchFile { path: path.to_owned(), source },
    };
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // an existing file on a read-only file system says so below
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem && path.exists() => {}
        Err(error) => return Err(touching(error)),
    }
    let mut header = Vec::with_capacity(16);
    // for writing as well: SQLite itself would only say that it can't open the file
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|f| f.take(16).read_to_end(&mut header))
        .map_err(touching)?;
    match header.as_slice() {
        [] => Ok(true),
        b"SQLite format 3\0" => Ok(false),
        _ => Err(Error::NotADatabase { path: path.to_owned() }),
    }
}

/// One connection without any change to the file.
pub(crate) async fn connect(path: &Path, busy_timeout: Duration) -> Result<SqliteConnection, Error> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(busy_timeout)
        .foreign_keys(true)
        .statement_cache_capacity(64)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| Error::opening(path, source))
}

pub(crate) async fn is_empty(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT count(*) FROM sqlite_master").fetch_one(conn).await?;
    Ok(row.get::<i64, _>(0) == 0)
}

pub(crate) async fn pragma(conn: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    Ok(sqlx::query(sql).fetch_one(conn).await?.get(0))
}

/// Whose file it is and which version it has.
pub(crate) async fn identify(conn: &mut SqliteConnection, path: &Path) -> Result<i64, Error> {
    let naming = |source| Error::opening(path, source);
    let application = pragma(conn, "PRAGMA application_id").await.map_err(naming)?;
    if application != schema::APPLICATION_ID {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE name IN ('job_queue', 'job_log')), group_concat(name, ', ')
             FROM sqlite_master WHERE type = 'table'",
        )
        .fetch_one(conn)
        .await
        .map_err(naming)?;
        let owner = if row.get::<i64, _>(0) == 2 {
            "the Go implementation of Ductile, which this gateway does not open".to_owned()
        } else {
            format!("another application (tables: {})", row.get::<String, _>(1))
        };
        return Err(Error::ForeignDatabase { path: path.to_owned(), owner });
    }
    pragma(conn, "PRAGMA user_version").await.map_err(naming)
}

pub(crate) async fn check(conn: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let found = identify(conn, path).await?;
    let known = schema::VERSION;
    let path = path.to_owned();
    if found > known {
        return Err(Error::NewerVersion { path, found, known });
    }
    if found < known {
        return Err(Error::OlderVersion { path, found, known });
    }
    let differences = schema::differences(conn).await.map_err(|source| Error::opening(&path, source))?;
    if differences.is_empty() { Ok(()) } else { Err(Error::SchemaDiffers { path, differences }) }
}

/// Sets the journal mode, and notes that the file is in use. Answers whether it had been closed cleanly,
/// and by which start of the gateway.
async fn take(conn: &mut SqliteConnection, options: &OpenOptions) -> Result<(bool, Option<BootId>), sqlx::Error> {
    sqlx::raw_sql("PRAGMA journal_mode = WAL; PRAGMA trusted_schema = OFF").execute(&mut *conn).await?;
    let was_clean = sqlx::query("SELECT value FROM ledger_meta WHERE name = 'clean_shutdown'")
        .fetch_optional(&mut *conn)
        .await?
        .is_none_or(|row| row.get::<String, _>(0) == "1");
    let former_boot = sqlx::query("SELECT value FROM ledger_meta WHERE name = 'boot_id'")
        .fetch_optional(&mut *conn)
        .await?
        .and_then(|row| row.get::<String, _>(0).parse().ok());
    sqlx::query(
        "INSERT INTO ledger_meta (name, value) VALUES ('clean_shutdown', '0'), ('boot_id', ?1), ('last_start_at', ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(options.boot.to_string())
    .bind(time::format(options.clock.now()))
    .execute(&mut *conn)
    .await?;
    Ok((was_clean, former_boot))
}
