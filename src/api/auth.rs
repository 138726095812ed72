//! Who calls, and what they may do: bearer tokens at the TCP door, peer credentials at the control socket.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use ductile_domain::config::Token;
use ductile_domain::generation::Generation;
use ductile_domain::scope::Need;
use serde_json::json;

use crate::error::{ApiError, Code};

/// Longest token that is worth hashing.
const LONGEST_TOKEN: usize = 4_096;

/// The other end of a connection; the server puts it into every request.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Anyone who can reach the TCP listener: needs a token.
    Tcp,
    /// The gateway's own user or root at the control socket: may do everything.
    Socket(Arc<str>),
    /// Another user at the control socket: may do nothing.
    Foreign,
}

/// Who made a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody in particular; only the public list is open to them.
    Anyone,
    /// The token with that place in its generation.
    Token(Arc<Generation>, usize),
    /// A user at the control socket.
    Socket(Arc<str>),
}

impl Caller {
    /// Finds out who calls; a public route asks nobody, and a token sent there is ignored.
    pub(crate) fn identify(
        peer: Option<&Peer>,
        headers: &HeaderMap,
        generation: &Arc<Generation>,
        is_public: bool,
    ) -> Result<Self, ApiError> {
        match peer {
            Some(Peer::Foreign) => Err(foreign()),
            Some(Peer::Socket(user)) => Ok(Self::Socket(user.clone())),
            _ if is_public => Ok(Self::Anyone),
            Some(Peer::Tcp) | None => {
                let tokens = &generation.config.api.tokens;
                let place = bearer(headers).and_then(|secret| find(tokens, secret)).ok_or_else(unauthorized)?;
                Ok(Self::Token(generation.clone(), place))
            }
        }
    }

    fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(generation, place) => generation.config.api.tokens.get(*place),
            Self::Anyone | Self::Socket(_) => None,
        }
    }

    /// True when the caller may do what is needed.
    pub(crate) fn may(&self, need: &Need<'_>) -> bool {
        matches!(self, Self::Socket(_)) || self.token().is_some_and(|t| t.grants.allow(need))
    }

    /// Refuses unless the caller may do what is needed.
    pub(crate) fn demand(&self, need: &Need<'_>) -> Result<(), ApiError> {
        if self.may(need) { Ok(()) } else { Err(forbidden(need)) }
    }

    /// True when a scope of the caller's forbids the command, whatever else is allowed.
    pub(crate) fn denies(&self, plugin: &str, command: &str) -> bool {
        self.token().is_some_and(|t| t.grants.denies(plugin, command))
    }

    /// True when answers may carry `result`, `last_error` and `stderr`.
    pub(crate) fn sees_results(&self) -> bool {
        matches!(self, Self::Socket(_)) || self.token().is_some_and(|t| t.grants.sees_results())
    }

    /// True when live events may carry what plugins said.
    pub(crate) fn sees_event_payloads(&self) -> bool {
        matches!(self, Self::Socket(_)) || self.token().is_some_and(|t| t.grants.sees_event_payloads())
    }

    /// What `requested_by` records.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Anyone => "anyone".to_owned(),
            Self::Token(..) => self.token().map(|t| t.name.clone()).unwrap_or_default(),
            Self::Socket(user) => format!("socket:{user}"),
        }
    }

    /// What `submitted_by` records: `cli` for our own client at the control socket, otherwise `api`.
    pub(crate) fn submitted_by(&self, headers: &HeaderMap) -> &'static str {
        let is_cli = headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"ductile-cli"));
        if is_cli && matches!(self, Self::Socket(_)) { "cli" } else { "api" }
    }
}

/// The token of `Authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, secret) = value.split_at_checked(7)?;
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !secret.is_empty() && secret.len() <= LONGEST_TOKEN).then_some(secret)
}

/// Compares with every token, so that the time tells neither which one matched nor how much of it.
fn find(tokens: &[Token], secret: &[u8]) -> Option<usize> {
    let hash = blake3::hash(secret);
    let mut found = None;
    for (place, token) in tokens.iter().enumerate() {
        // `blake3::Hash` compares in constant time.
        let is_equal = blake3::Hash::from_bytes(token.hash) == hash;
        if is_equal && found.is_none() {
            found = Some(place);
        }
    }
    found
}

fn unauthorized() -> ApiError {
    ApiError::new(
        Code::Unauthorized,
        "missing or invalid bearer token",
        "send `Authorization: Bearer <token>` with a token of api.auth.tokens, or use the control socket",
    )
}

pub(crate) fn foreign() -> ApiError {
    ApiError::new(
        Code::ForeignPeer,
        "the control socket serves the gateway's own user and root only",
        "run the command as the gateway's user, or use the TCP listener with a token",
    )
}

fn forbidden(need: &Need<'_>) -> ApiError {
    let scopes = scopes_for(need);
    ApiError::new(
        Code::Forbidden,
        "the token lacks the scope that this request needs",
        format!("use a token with one of these scopes: {}", scopes.join(", ")),
    )
    .context(json!({ "scopes": scopes }))
}

/// Scopes any of which satisfies the need, the narrowest first.
fn scopes_for(need: &Need<'_>) -> Vec<String> {
    use ductile_domain::manifest::CommandType;
    let fixed: &[&str] = match need {
        Need::Invoke { plugin, command, kind } => {
            let mut scopes = vec![format!("{plugin}:allow:{command}")];
            if *kind == CommandType::Read {
                scopes.extend([format!("{plugin}:ro"), "plugin:ro".to_owned()]);
            }
            scopes.extend([format!("{plugin}:rw"), "plugin:rw".to_owned(), "*".to_owned()]);
            return scopes;
        }
        Need::Plugin { plugin } => return vec![format!("{plugin}:ro"), "plugin:ro".to_owned(), "*".to_owned()],
        Need::Facts { plugin } => return vec![format!("{plugin}:ro"), "plugin:ro".to_owned(), "*".to_owned()],
        Need::RunPipeline => &["plugin:rw", "*"],
        Need::Wiring => &["plugin:catalog:ro", "plugin:ro", "*"],
        Need::JobTree => &["jobs:tree:ro", "jobs:ro", "*"],
        Need::Catalog => &["plugin:catalog:ro", "plugin:ro", "*"],
        Need::Jobs => &["jobs:status:ro", "jobs:ro", "*"],
        Need::JobLogs => &["jobs:logs:ro", "jobs:ro", "*"],
        Need::JobsWrite => &["jobs:rw", "*"],
        Need::Events => &["events:meta:ro", "events:ro", "*"],
        Need::Admin => &["*"],
    };
    fixed.iter().map(|&s| s.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use ductile_domain::scope::Grants;

    use super::*;

    fn token(name: &str, secret: &str) -> Token {
        Token { name: name.to_owned(), hash: *blake3::hash(secret.as_bytes()).as_bytes(), grants: Grants::all() }
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header value"))])
    }

    #[test]
    fn only_the_whole_secret_of_a_token_is_accepted() {
        let tokens = [token("a", "first"), token("b", "second")];
        let find = |value: &str| bearer(&headers(value)).and_then(|secret| find(&tokens, secret));
        assert_eq!(find("Bearer first"), Some(0));
        assert_eq!(find("bearer second"), Some(1));
        for wrong in ["first", "Bearer", "Bearer ", "Bearer firs", "Bearer firstx", "Basic first", "Bearer FIRST"] {
            assert_eq!(find(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn two_authorization_headers_are_none() {
        let mut twice = headers("Bearer first");
        twice.append(AUTHORIZATION, "Bearer second".parse().expect("a header value"));
        assert_eq!(bearer(&twice), None);
    }
}
