//! What a bearer token may do: words in the configuration, decisions at the door.

use std::collections::BTreeSet;
use std::fmt;

use crate::manifest::CommandType;

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need<'a> {
    /// Run a command of a plugin.
    Invoke {
        /// Plugin or alias.
        plugin: &'a str,
        /// Its command.
        command: &'a str,
        /// Read commands need less.
        kind: CommandType,
    },
    /// Read the catalog.
    Catalog,
    /// Read what one plugin declares.
    Plugin {
        /// Plugin or alias.
        plugin: &'a str,
    },
    /// Start a pipeline by its name.
    RunPipeline,
    /// See how plugins are wired: pipelines, routes, the topology.
    Wiring,
    /// Read the facts that one plugin left.
    Facts {
        /// Plugin or alias.
        plugin: &'a str,
    },
    /// See jobs and their states.
    Jobs,
    /// See a job together with all that followed from it.
    JobTree,
    /// Search the log of ended attempts.
    JobLogs,
    /// Cancel or replay jobs.
    JobsWrite,
    /// See live events.
    Events,
    /// Everything else.
    Admin,
}

/// The scopes of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    words: BTreeSet<String>,
}

/// A word that grants nothing because nobody knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownScope(pub String);

impl fmt::Display for UnknownScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown scope {:?}", self.0)
    }
}

/// Every word that is no plugin's, canonical forms only.
pub const WORDS: &[&str] = &[
    "*",
    "plugin:ro",
    "plugin:rw",
    "jobs:ro",
    "jobs:rw",
    "events:ro",
    "events:rw",
    "jobs:status:ro",
    "jobs:result:ro",
    "jobs:logs:ro",
    "jobs:tree:ro",
    "events:meta:ro",
    "events:payload:ro",
    "plugin:catalog:ro",
    "plugin:invoke:ro",
];

impl Grants {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self { words: BTreeSet::from(["*".to_owned()]) }
    }

    /// Reads scope words; legacy words are translated, unknown ones are an error.
    ///
    /// # Errors
    /// The first word that is neither documented nor of the form `<plugin>:ro|rw|allow:<command>|deny:<command>`.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownScope> {
        let mut grants = Self::default();
        for word in words {
            let canonical = match word {
                "read:jobs" => "jobs:ro",
                "read:events" => "events:ro",
                other => other,
            };
            if !WORDS.contains(&canonical) && !is_plugin_scope(canonical) {
                return Err(UnknownScope(word.to_owned()));
            }
            grants.words.insert(canonical.to_owned());
        }
        Ok(grants)
    }

    /// The words, sorted.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// True when the token may not run the command, whatever else it may do.
    #[must_use]
    pub fn denies(&self, plugin: &str, command: &str) -> bool {
        !self.words.contains("*") && self.words.contains(&format!("{plugin}:deny:{command}"))
    }

    fn has_any(&self, words: &[&str]) -> bool {
        words.iter().any(|w| self.words.contains(*w))
    }

    /// True when the token may do what the request needs. A `deny` wins over everything but `*`.
    #[must_use]
    pub fn allow(&self, need: &Need<'_>) -> bool {
        if self.words.contains("*") {
            return true;
        }
        match need {
            Need::Invoke { plugin, command, kind } => {
                if self.denies(plugin, command) {
                    return false;
                }
                let reads = *kind == CommandType::Read;
                self.has_any(&["plugin:rw"])
                    || self.words.contains(&format!("{plugin}:rw"))
                    || self.words.contains(&format!("{plugin}:allow:{command}"))
                    || reads
                        && (self.has_any(&["plugin:ro", "plugin:invoke:ro"])
                            || self.words.contains(&format!("{plugin}:ro")))
            }
            Need::Catalog => {
                self.has_any(&["plugin:ro", "plugin:rw", "plugin:catalog:ro"])
                    || self.words.iter().any(|w| is_plugin_scope(w))
            }
            Need::Plugin { plugin } => {
                self.has_any(&["plugin:ro", "plugin:rw", "plugin:catalog:ro"])
                    || self.words.iter().any(|w| is_plugin_scope(w) && w.split(':').next() == Some(*plugin))
            }
            // A pipeline may run commands of all plugins, and each may write.
            Need::RunPipeline => self.has_any(&["plugin:rw"]),
            Need::Wiring => self.has_any(&["plugin:ro", "plugin:rw", "plugin:catalog:ro"]),
            // What a plugin observed is more than what it declares: the catalog's scope is not enough.
            Need::Facts { plugin } => {
                self.has_any(&["plugin:ro", "plugin:rw"])
                    || ["ro", "rw"].iter().any(|verb| self.words.contains(&format!("{plugin}:{verb}")))
            }
            Need::JobTree => self.has_any(&["jobs:ro", "jobs:rw", "jobs:tree:ro"]),
            Need::JobLogs => self.has_any(&["jobs:ro", "jobs:rw", "jobs:logs:ro"]),
            Need::Jobs => self.has_any(&["jobs:ro", "jobs:rw", "jobs:status:ro"]),
            Need::JobsWrite => self.has_any(&["jobs:rw"]),
            Need::Events => self.has_any(&["events:ro", "events:rw", "events:meta:ro"]),
            Need::Admin => false,
        }
    }

    /// True when live events may carry what plugins said, beside that something happened.
    #[must_use]
    pub fn sees_event_payloads(&self) -> bool {
        self.has_any(&["*", "events:ro", "events:rw", "events:payload:ro"])
    }

    /// True when answers may carry `result`, `last_error` and `stderr`.
    #[must_use]
    pub fn sees_results(&self) -> bool {
        self.has_any(&["*", "jobs:ro", "jobs:rw", "jobs:result:ro"])
    }
}

fn is_plugin_scope(word: &str) -> bool {
    let mut parts = word.splitn(3, ':');
    let (Some(plugin), Some(verb)) = (parts.next(), parts.next()) else { return false };
    if !crate::ids::is_name(plugin) || matches!(plugin, "jobs" | "events" | "plugin" | "read") {
        return false;
    }
    match (verb, parts.next()) {
        ("ro" | "rw", None) => true,
        ("allow" | "deny", Some(command)) => crate::ids::is_name(command),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(words: &[&str]) -> Grants {
        Grants::parse(words.iter().copied()).expect("known words")
    }

    const READ: Need<'_> = Need::Invoke { plugin: "echo", command: "poll", kind: CommandType::Read };
    const WRITE: Need<'_> = Need::Invoke { plugin: "echo", command: "handle", kind: CommandType::Write };

    #[test]
    fn write_implies_read_and_deny_wins() {
        assert!(grants(&["plugin:rw"]).allow(&READ));
        assert!(!grants(&["plugin:ro"]).allow(&WRITE));
        assert!(grants(&["echo:rw"]).allow(&WRITE));
        assert!(!grants(&["other:rw"]).allow(&WRITE));
        assert!(!grants(&["plugin:rw", "echo:deny:handle"]).allow(&WRITE));
        assert!(grants(&["echo:allow:handle"]).allow(&WRITE));
        assert!(grants(&["jobs:rw"]).allow(&Need::Jobs));
        assert!(!grants(&["jobs:ro"]).allow(&Need::JobsWrite));
        assert!(!grants(&["jobs:ro"]).allow(&Need::Admin));
    }

    #[test]
    fn an_unknown_word_is_refused() {
        assert_eq!(Grants::parse(["jobs:write"]), Err(UnknownScope("jobs:write".into())));
        assert!(Grants::parse(["read:jobs", "withings:ro"]).is_ok());
    }

    /// C-78: `<plugin>:ro` grants that plugin only.
    #[test]
    fn a_scope_of_one_plugin_shows_no_other_and_logs_have_their_own() {
        assert!(grants(&["echo:ro"]).allow(&Need::Plugin { plugin: "echo" }));
        assert!(!grants(&["echo:ro"]).allow(&Need::Plugin { plugin: "ech" }));
        assert!(!grants(&["jobs:status:ro"]).allow(&Need::JobLogs));
        assert!(grants(&["jobs:logs:ro"]).allow(&Need::JobLogs));
        assert!(!grants(&["events:meta:ro"]).sees_event_payloads());
        assert!(grants(&["events:ro"]).sees_event_payloads());
    }

    /// API-06, D-14: a scope of one plugin opens no pipeline, which may run all plugins.
    #[test]
    fn pipelines_are_started_with_the_right_to_write_and_seen_with_the_right_to_read() {
        for (word, starts, sees) in [
            ("*", true, true),
            ("plugin:rw", true, true),
            ("plugin:ro", false, true),
            ("plugin:catalog:ro", false, true),
            ("plugin:invoke:ro", false, false),
            ("echo:rw", false, false),
            ("jobs:rw", false, false),
        ] {
            let grants = grants(&[word]);
            assert_eq!((grants.allow(&Need::RunPipeline), grants.allow(&Need::Wiring)), (starts, sees), "{word}");
        }
    }

    #[test]
    fn facts_need_more_than_the_catalog_and_a_denial_is_one_of_its_own() {
        let facts = Need::Facts { plugin: "echo" };
        for (word, allowed) in [
            ("plugin:ro", true),
            ("echo:rw", true),
            ("echo:ro", true),
            ("plugin:catalog:ro", false),
            ("echo:allow:poll", false),
            ("other:ro", false),
            ("jobs:ro", false),
        ] {
            assert_eq!(grants(&[word]).allow(&facts), allowed, "{word}");
        }
        assert!(grants(&["jobs:tree:ro"]).allow(&Need::JobTree) && !grants(&["jobs:tree:ro"]).allow(&Need::Jobs));
        assert!(grants(&["jobs:rw", "echo:deny:handle"]).denies("echo", "handle"));
        assert!(!grants(&["*", "echo:deny:handle"]).denies("echo", "handle"));
    }

    #[test]
    fn results_need_their_scope() {
        assert!(!grants(&["jobs:status:ro"]).sees_results());
        assert!(grants(&["jobs:ro"]).sees_results());
    }
}
