//! The SQLite ledger.

/// Read access.
#[derive(Debug)]
pub struct Readers;
