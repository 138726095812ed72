//! What fails here. The one shape of every refusal: `{"error", "code", "context", "hint"}`; what the caller reads is kept apart from
//! what the log gets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use ductile_domain::problem::Problem;
use serde::Serialize;
use serde_json::{Value, json};

use crate::call::{quoted, suggestion};
use crate::gateway::Refusal;

macro_rules! codes {
    ($($variant:ident $status:ident $word:literal $meaning:literal;)*) => {
        /// Why a request was refused; the word of each is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        /// Every code with its status and meaning, for the documentation.
        pub const CODES: &[CodeInfo] =
            &[$(CodeInfo { code: Code::$variant, word: $word, status: StatusCode::$status, meaning: $meaning }),*];
    };
}

codes! {
    InvalidJson BAD_REQUEST "invalid_json" "The body is not JSON.";
    InvalidBody BAD_REQUEST "invalid_body" "The body is JSON of the wrong shape.";
    InvalidParameter BAD_REQUEST "invalid_parameter" "A query parameter or header is unknown or malformed.";
    InvalidPath BAD_REQUEST "invalid_path" "A part of the path is not what its grammar allows.";
    SeveralEntries BAD_REQUEST "several_entries" "The pipeline begins with several jobs, so there is no one job to wait for or to repeat.";
    InvalidBaggage BAD_REQUEST "invalid_baggage" "What the pipeline's first steps claim as baggage can't be had from the payload.";
    BodyUnreadable BAD_REQUEST "body_unreadable" "The body ended before its announced length.";
    Unauthorized UNAUTHORIZED "unauthorized" "The bearer token is missing or unknown.";
    Forbidden FORBIDDEN "forbidden" "The token lacks the scope that the request needs.";
    ForeignPeer FORBIDDEN "foreign_peer" "The control socket serves the gateway's own user and root only.";
    NoSuchRoute NOT_FOUND "no_such_route" "Nothing is served under that path.";
    UnknownPlugin NOT_FOUND "unknown_plugin" "No plugin or alias has that name.";
    PluginNotRunnable NOT_FOUND "plugin_not_runnable" "The plugin was discovered, but is disabled or not configured.";
    UnknownCommand NOT_FOUND "unknown_command" "The plugin declares no such command.";
    UnknownPipeline NOT_FOUND "unknown_pipeline" "No pipeline has that name.";
    UnknownSchedule NOT_FOUND "unknown_schedule" "The plugin has no schedule of that id.";
    UnknownJob NOT_FOUND "unknown_job" "The ledger holds no such job.";
    NotQuarantined NOT_FOUND "not_quarantined" "The job was not quarantined, or what was kept of it is pruned.";
    UnknownActor NOT_FOUND "unknown_actor" "No actor has that path.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The path is served, but not with that method.";
    BodyTimeout REQUEST_TIMEOUT "body_timeout" "The body did not arrive in time.";
    AlreadyTerminal CONFLICT "already_terminal" "The job had ended before; nothing was changed.";
    InvalidSchedule CONFLICT "invalid_schedule" "The schedule can't be read, so nothing of it is run.";
    NotReplayable CONFLICT "not_replayable" "The job has not ended, or what it ran or its input is gone.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is larger than `api.max_body_size`.";
    ContextTooLarge PAYLOAD_TOO_LARGE "context_too_large" "What the pipeline's first steps claim as baggage is larger than a context may be.";
    InvalidConfig UNPROCESSABLE_ENTITY "invalid_config" "The configuration on disk has errors; the one in force stays.";
    Internal INTERNAL_SERVER_ERROR "internal" "A fault of the gateway; its log has the details.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "The gateway cannot take this now; try again after `Retry-After`.";
    TooManySync SERVICE_UNAVAILABLE "too_many_sync" "All places of calls that wait for a pipeline are taken.";
    TooManyClients SERVICE_UNAVAILABLE "too_many_clients" "All places for live events are taken.";
    Timeout SERVICE_UNAVAILABLE "timeout" "The request took longer than the gateway allows.";
}

/// One row of [`CODES`].
#[derive(Debug, Clone, Copy)]
pub struct CodeInfo {
    /// The code.
    pub code: Code,
    /// What `code` says in answers.
    pub word: &'static str,
    /// The status it comes with.
    pub status: StatusCode,
    /// What happened.
    pub meaning: &'static str,
}

impl Code {
    /// Its row of [`CODES`].
    #[must_use]
    pub fn info(self) -> &'static CodeInfo {
        // The table is made from the same list, in the same order.
        &CODES[self as usize]
    }
}

/// A request that was refused. Boxed, since most requests are not.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Refused>);

#[derive(Debug)]
struct Refused {
    code: Code,
    message: Cow<'static, str>,
    hint: Cow<'static, str>,
    context: Value,
    retry_after: Option<Duration>,
    /// Figures that stand beside `error` too.
    beside: BTreeMap<&'static str, u64>,
    /// For the log only; never in an answer.
    internal: Option<String>,
}

#[derive(Serialize)]
struct Shape<'a> {
    error: &'a str,
    code: &'a str,
    /// An object, empty when there is nothing to add.
    context: &'a Value,
    hint: &'a str,
    #[serde(flatten)]
    beside: &'a BTreeMap<&'static str, u64>,
}

impl ApiError {
    /// A refusal: what is wrong, and the caller's next step.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self(Box::new(Refused {
            code,
            message,
            hint,
            context: json!({}),
            retry_after: None,
            beside: BTreeMap::new(),
            internal: None,
        }))
    }

    /// What is wrong, as the caller reads it.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Adds machine-readable details.
    pub(crate) fn context(mut self, context: Value) -> Self {
        self.0.context = context;
        self
    }

    /// Says figures beside the text as well, where programs written for other gateways read them.
    fn beside<const N: usize>(mut self, figures: [(&'static str, u64); N]) -> Self {
        self.0.context = figures.into_iter().map(|(key, figure)| (key.to_owned(), Value::from(figure))).collect();
        self.0.beside = figures.into();
        self
    }

    /// Says when to try again.
    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The name is the caller's and may be anything.
    pub(crate) fn unknown_pipeline<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(
            Code::UnknownPipeline,
            format!("unknown pipeline {}", quoted(name)),
            suggestion(name, known, "GET /pipelines lists the pipelines"),
        )
    }

    /// The names are the caller's and may be anything.
    pub(crate) fn unknown_schedule<'a>(
        plugin: &str,
        schedule: Option<&str>,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let (message, hint) = match schedule {
            Some(id) => (
                format!("plugin {} has no schedule {}", quoted(plugin), quoted(id)),
                suggestion(id, known, "GET /scheduler/jobs lists the schedules"),
            ),
            None => (
                format!("plugin {} has no schedule", quoted(plugin)),
                "GET /scheduler/jobs lists the schedules".to_owned(),
            ),
        };
        Self::new(Code::UnknownSchedule, message, hint)
    }

    /// API-09.
    fn several_entries(entries: usize) -> Self {
        Self::new(
            Code::SeveralEntries,
            format!("the pipeline begins with {entries} jobs, and this call is for one that begins with one"),
            "use ?async=true, and no key for duplicates",
        )
        .context(json!({ "entries": entries }))
    }

    /// API-12.
    pub(crate) fn too_many_sync(limit: u32) -> Self {
        Self::new(
            Code::TooManySync,
            format!("{limit} calls wait for a pipeline already"),
            "try again after the time in `Retry-After`, use ?async=true, or raise api.max_concurrent_sync",
        )
        .context(json!({ "limit": limit }))
    }

    /// API-33: every problem at once, with its place.
    fn invalid_config(problems: &[Problem]) -> Self {
        let errors = problems.iter().filter(|p| p.is_error()).count();
        let (noun, verb) = if errors == 1 { ("error", "it") } else { ("errors", "them") };
        Self::new(
            Code::InvalidConfig,
            format!("the configuration has {errors} {noun}; nothing was changed"),
            format!("correct {verb} and reload again; `ductile config check` lists the same problems"),
        )
        .context(json!({ "problems": problems }))
    }

    /// A fault of ours: the caller learns that there was one, the log learns which.
    pub(crate) fn internal(what: impl Into<String>) -> Self {
        let mut error = Self::new(
            Code::Internal,
            "the gateway failed to answer this request",
            "try again; if it persists, look for `request failed` in the gateway's log",
        );
        error.0.internal = Some(what.into());
        error
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable { reason, retry_after } => {
                Self::new(Code::Unavailable, reason, "try again after the time in `Retry-After`")
                    .retry_after(retry_after)
            }
            Refusal::UnknownActor(path) => Self::new(
                Code::UnknownActor,
                format!("no actor has the path {path:?}"),
                "GET /system/tree lists all paths",
            ),
            Refusal::PluginGone(plugin) => Self::new(
                Code::PluginNotRunnable,
                format!("plugin {plugin:?} was removed or disabled by a reload"),
                "GET /plugins lists what can be run now",
            )
            .context(json!({ "plugin": plugin })),
            Refusal::UnknownPipeline(name) => Self::unknown_pipeline(&name, []),
            Refusal::UnknownSchedule { plugin, schedule } => Self::unknown_schedule(&plugin, schedule.as_deref(), []),
            Refusal::InvalidSchedule { plugin, schedule, reason } => Self::new(
                Code::InvalidSchedule,
                format!("schedule {schedule:?} of plugin {plugin:?} can't be read: {reason}"),
                "`ductile config check` names its file and line; reload when it is mended",
            )
            .context(json!({ "plugin": plugin, "schedule_id": schedule })),
            Refusal::SeveralEntries { entries } => Self::several_entries(entries),
            Refusal::Baggage(why) => Self::new(
                Code::InvalidBaggage,
                why,
                "send what the pipeline's first steps claim; GET /pipeline/{name} shows their `baggage`",
            ),
            Refusal::ContextTooLarge { bytes_actual, bytes_limit } => Self::new(
                Code::ContextTooLarge,
                format!("the baggage of the pipeline's first steps is {bytes_actual} bytes; {bytes_limit} are allowed"),
                "hand large values on as payload or as the path of a file, and claim only what must last",
            )
            .beside([("bytes_actual", bytes_actual), ("bytes_limit", bytes_limit)]),
            Refusal::InvalidConfig(problems) => Self::invalid_config(&problems),
            Refusal::Internal(what) => Self::internal(what),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let refused = *self.0;
        let info = refused.code.info();
        if let Some(what) = &refused.internal {
            tracing::error!(code = info.word, cause = %what, "request failed");
        }
        let shape = Shape {
            error: &refused.message,
            code: info.word,
            context: &refused.context,
            hint: &refused.hint,
            beside: &refused.beside,
        };
        let text = serde_json::to_string(&shape).expect("texts and values are valid JSON");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = info.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if info.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if info.status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = refused.retry_after.unwrap_or(Duration::from_secs(1));
            // Whole seconds, rounded up: "now" would be an invitation to spin.
            let seconds = wait.as_millis().div_ceil(1_000).clamp(1, 3_600) as u64;
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A door that could not be opened.
#[derive(Debug)]
pub enum Error {
    /// The runtime refused the listener.
    RegisterListener {
        /// Which door.
        kind: ListenerKind,
        /// Why.
        source: io::Error,
    },
    /// The control socket could not be made.
    BindSocket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers at the control socket.
    SocketInUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else stands where the control socket belongs.
    NotASocket {
        /// Where.
        path: PathBuf,
    },
}

/// The two kinds of doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// `api.listen`.
    Tcp,
    /// The control socket.
    Unix,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegisterListener { kind: ListenerKind::Tcp, .. } => f.write_str("failed to serve the TCP listener"),
            Self::RegisterListener { kind: ListenerKind::Unix, .. } => {
                f.write_str("failed to serve the control socket")
            }
            Self::BindSocket { path, .. } => write!(f, "failed to bind the control socket {}", path.display()),
            Self::SocketInUse { path } => {
                write!(f, "failed to bind the control socket {}: another gateway answers there", path.display())
            }
            Self::NotASocket { path } => {
                write!(f, "failed to bind the control socket {}: a file that is no socket is there", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::RegisterListener { source, .. } | Self::BindSocket { source, .. } => Some(source),
            Self::SocketInUse { .. } | Self::NotASocket { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_own_row_and_no_word_stands_twice() {
        for (at, info) in CODES.iter().enumerate() {
            assert_eq!(info.code.info().word, info.word);
            assert!(CODES[..at].iter().all(|other| other.word != info.word), "{} stands twice", info.word);
        }
    }

    #[test]
    fn what_the_log_gets_is_not_in_the_answer() {
        let error = ApiError::from(Refusal::Internal("disk path /secret".to_owned()));
        assert_eq!(error.0.internal.as_deref(), Some("disk path /secret"));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!format!("{:?}", response.body()).contains("secret"));
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        for (wait, seconds) in [(0, "1"), (10, "1"), (1_001, "2"), (100_000_000, "3600")] {
            let refusal = Refusal::Unavailable { reason: "busy".into(), retry_after: Duration::from_millis(wait) };
            let response = ApiError::from(refusal).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }
}
