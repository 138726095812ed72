//! The ring of live events.

/// Placeholder shape until the module is written.
#[derive(Debug)]
pub struct EventRing;
