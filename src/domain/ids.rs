//! Identities with a closed grammar, so that no id is ever a piece of a path or of SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    /// What was expected, such as `job id`.
    pub kind: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {}: expected a UUID such as 01890f3e-7c5a-7000-8000-000000000000", self.kind)
    }
}

impl std::error::Error for InvalidId {}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The UUID behind the id.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Accepts the hyphenated form only.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 36 {
                    return Err(InvalidId { kind: $kind });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId { kind: $kind })
            }
        }
    };
}

uuid_id!(
    /// Names one job for its whole life; version 7, so ids sort by creation.
    JobId,
    "job id"
);
uuid_id!(
    /// Names one start of the gateway; every process and every `running` row carries it.
    BootId,
    "boot id"
);
uuid_id!(
    /// Names one event that a plugin emitted or a door accepted.
    EventId,
    "event id"
);
uuid_id!(
    /// Names one row of `event_context`.
    ContextId,
    "context id"
);

uuid_id!(
    /// Names one join that waits for the branches of one split.
    JoinId,
    "join id"
);

/// Where new ids come from; this crate has no randomness of its own.
pub type Fresh<'a> = &'a mut dyn FnMut() -> Uuid;

/// True when `text` may name a plugin, an alias or a command: letters, digits, `_`, `-`, `.`, at most 128 bytes,
/// beginning with a letter or a digit.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b) if b.is_ascii_alphanumeric())
        && bytes.len() <= 128
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hyphenated_uuids_are_job_ids() {
        let id: JobId = "01890f3e-7c5a-7000-8000-000000000001".parse().expect("a UUID parses");
        assert_eq!(id.to_string(), "01890f3e-7c5a-7000-8000-000000000001");
        for bad in
            ["", "x", "01890f3e7c5a70008000000000000001", "../../etc/passwd", "{01890f3e-7c5a-7000-8000-00000000000}"]
        {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_have_a_closed_grammar() {
        for good in ["echo", "py-greet", "core.switch", "sys_exec", "2fa"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".hidden", "a/b", "a b", "..", "-x", "é"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
