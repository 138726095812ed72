//! What can be fed, and how each target says what it reached.

mod baggage;
mod condition;
mod pipelines;
mod template;

use std::hash::{DefaultHasher, Hash, Hasher};

/// A part that reads what people write.
pub(crate) struct Target {
    /// Its word on the command line.
    pub(crate) name: &'static str,
    /// Inputs to begin with.
    pub(crate) seeds: &'static [&'static str],
    /// Words that mean something to it.
    pub(crate) words: &'static [&'static str],
    /// Runs one input: a number for what it reached, or the property that broke.
    pub(crate) run: fn(&str) -> Result<u64, String>,
}

/// Every target. A new one is a file here and a line in this list.
pub(crate) const ALL: &[Target] = &[condition::TARGET, template::TARGET, baggage::TARGET, pipelines::TARGET];

/// A number for a behaviour.
pub(crate) fn reached(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A message without what the input put into it: quoted parts and digits.
pub(crate) fn shape(message: &str) -> String {
    let mut is_quoted = false;
    let keep = |c: &char| {
        is_quoted ^= *c == '"';
        !is_quoted && !c.is_ascii_digit()
    };
    message.chars().filter(keep).take(60).collect()
}

/// Breaks the property named by the text unless `holds`.
pub(crate) fn check(holds: bool, property: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(property()) }
}
