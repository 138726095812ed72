//! Protocol 2: one JSON object in, one JSON object out.
//!
//! Values pass through as they were written (`RawValue`); nothing is parsed and built again.

use std::fmt;

use ductile_domain::catalog::Plugin;
use ductile_domain::job::ClaimedJob;
use ductile_domain::manifest::PROTOCOL;
use ductile_domain::outcome::EmittedEvent;
use ductile_domain::raw::Object;
use ductile_domain::time::{self, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Event types that only the gateway may use.
pub const RESERVED_PREFIXES: &[&str] = &["ductile.", "job."];

/// The longest event type and dedupe key, in bytes.
const LONGEST_NAME: usize = 512;

/// The deepest answer that is taken. The ledger's JSON functions, the command line and most callers' parsers have limits
/// of their own, and an answer that they can't read would be lost to the operator.
const DEEPEST: usize = 100;

/// Writes the request for one attempt: compact JSON without a line end. Payload and context of the job are those that
/// preflight made of the stored ones.
#[must_use]
pub fn request(job: &ClaimedJob, plugin: &Plugin, deadline_at: Timestamp) -> Vec<u8> {
    let stored = job.payload.as_deref().map(RawValue::get);
    let state = job.state.as_deref().map_or("{}", RawValue::get);
    let size = stored.map_or(0, str::len) * 2 + state.len() + plugin.config.get().len() + 512;
    let mut out = String::with_capacity(size);
    out.push_str("{\"protocol\":");
    out.push_str(&PROTOCOL.to_string());
    out.push_str(",\"job_id\":\"");
    out.push_str(&job.fence.job.to_string());
    out.push_str("\",\"command\":");
    push_text(&mut out, &job.command);
    out.push_str(",\"config\":");
    out.push_str(plugin.config.get());
    out.push_str(",\"state\":");
    out.push_str(state);
    out.push_str(",\"context\":");
    push_context(&mut out, job.context.as_deref(), &job.plugin);
    let payload = if &*job.command == "handle" {
        let event = stored.unwrap_or("{}");
        out.push_str(",\"event\":");
        out.push_str(event);
        Some(payload_of(event).unwrap_or("{}"))
    } else {
        stored
    };
    if let Some(payload) = payload.filter(|p| p.trim_start().starts_with('{')) {
        out.push_str(",\"payload\":");
        out.push_str(payload);
    }
    out.push_str(",\"deadline_at\":\"");
    out.push_str(&time::format(deadline_at));
    out.push_str("\"}");
    out.into_bytes()
}

/// The `payload` of an event's envelope, as it stands there.
fn payload_of(event: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    serde_json::from_str::<Envelope<'_>>(event).ok()?.payload.map(RawValue::get)
}

/// The context as preflight shows it, with `ductile_plugin`, which always names the plugin that runs now.
fn push_context(out: &mut String, context: Option<&RawValue>, plugin: &str) {
    const KEY: &str = "ductile_plugin";
    match context.and_then(|context| Object::read(context.into())) {
        Some(mut shown) => {
            shown.set_value(KEY, &plugin.into());
            out.push_str(shown.to_raw_value().get());
        }
        None => {
            out.push('{');
            push_text(out, KEY);
            out.push(':');
            push_text(out, plugin);
            out.push('}');
        }
    }
}

fn push_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("text is always JSON"));
}

/// What a plugin answered, checked.
#[derive(Debug, Clone)]
pub struct Response {
    /// `None` for `status: ok`.
    pub failure: Option<Failure>,
    /// Events in the plugin's order, without those that were refused.
    pub events: Vec<EmittedEvent>,
    /// The snapshot, a JSON object.
    pub state_updates: Option<Box<RawValue>>,
    /// `ductile_stopwatch_subs` as written; whether it is a list of objects is not known yet.
    pub subs: Option<Box<RawValue>>,
    /// What was accepted although it should be different.
    pub warnings: Vec<String>,
}

/// `status: error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The plugin's text.
    pub error: String,
    /// False: another attempt can't succeed.
    pub retry: bool,
}

/// Output that is not one response; the text says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolError(String);

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol error: {}", self.0)
    }
}

impl std::error::Error for ProtocolError {}

fn fault(text: impl Into<String>) -> ProtocolError {
    ProtocolError(text.into())
}

/// Fields of a response that the gateway knows; unknown ones are ignored, null means absent.
#[derive(Deserialize)]
struct Fields<'a> {
    status: Option<serde_json::Value>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<serde_json::Value>,
    retry: Option<serde_json::Value>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    state_updates: Option<&'a RawValue>,
    #[serde(borrow)]
    logs: Option<&'a RawValue>,
    #[serde(borrow)]
    ductile_stopwatch_subs: Option<&'a RawValue>,
}

/// Reads a plugin's stdout: exactly one JSON object and white space.
///
/// # Errors
/// Anything else, and known fields of a wrong shape. `logs` and the stopwatch are advisory: wrong ones are warned of
/// or ignored.
pub fn response(stdout: &[u8]) -> Result<Response, ProtocolError> {
    let text = std::str::from_utf8(stdout).map_err(|e| {
        let at = e.valid_up_to();
        fault(format!("stdout is not UTF-8 (byte {at}); print one JSON object in UTF-8 and send all else to stderr"))
    })?;
    let begin = text.trim_start();
    if begin.is_empty() {
        return Err(fault("stdout is empty; print one JSON object such as {\"status\":\"ok\",\"result\":\"done\"}"));
    }
    if !begin.starts_with('{') {
        return Err(fault("stdout does not begin with a JSON object; send logging and progress to stderr"));
    }
    if is_too_deep(text) {
        return Err(fault(format!("stdout is nested deeper than {DEEPEST} levels; answer with a flatter object")));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = Fields::deserialize(&mut reader).map_err(|e| {
        let what = if e.is_eof() { "stdout ends inside the JSON object" } else { "stdout is not a JSON object" };
        fault(format!("{what}: {e}"))
    })?;
    reader.end().map_err(|_| {
        fault("stdout goes on behind the JSON object; print exactly one object, all else belongs on stderr")
    })?;
    check(fields)
}

/// Counts brackets outside of texts; what is no JSON is found by the reader.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > DEEPEST {
                    return true;
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn check(fields: Fields<'_>) -> Result<Response, ProtocolError> {
    let mut warnings = Vec::new();
    let failure = match fields.status.as_ref().and_then(serde_json::Value::as_str) {
        Some("ok") => {
            if fields.result.is_none() {
                warnings.push("the response has status ok and no `result`; give a short summary".to_owned());
            }
            None
        }
        Some("error") => Some(failure(fields.error, fields.retry)?),
        Some(other) => return Err(fault(format!("`status` is {other:?}; it must be \"ok\" or \"error\""))),
        None => return Err(fault("`status` is missing or no text; it must be \"ok\" or \"error\"")),
    };
    let state_updates = match fields.state_updates {
        Some(updates) if !updates.get().starts_with('{') => {
            return Err(fault("`state_updates` is no object; send the whole snapshot as one object or leave it out"));
        }
        updates => updates.map(RawValue::to_owned),
    };
    if fields.logs.is_some_and(|l| serde_json::from_str::<Vec<LogEntry>>(l.get()).is_err()) {
        warnings.push("`logs` is not a list of {level: info|warn|error, message}; it was kept and not read".to_owned());
    }
    Ok(Response {
        failure,
        events: events(fields.events, &mut warnings)?,
        state_updates,
        subs: fields.ductile_stopwatch_subs.map(RawValue::to_owned),
        warnings,
    })
}

#[derive(Deserialize)]
struct LogEntry {
    #[serde(rename = "level")]
    _level: LogLevel,
    #[serde(rename = "message")]
    _message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogLevel {
    Info,
    Warn,
    Error,
}

fn failure(error: Option<serde_json::Value>, retry: Option<serde_json::Value>) -> Result<Failure, ProtocolError> {
    let error = match error {
        Some(serde_json::Value::String(text)) if !text.trim().is_empty() => text.replace('\0', "\u{fffd}"),
        None | Some(serde_json::Value::String(_)) => "the plugin answered status error without an `error` text".into(),
        Some(other) => other.to_string(),
    };
    let retry = match retry {
        None => true,
        Some(serde_json::Value::Bool(retry)) => retry,
        Some(other) => return Err(fault(format!("`retry` is {other}; it must be true or false"))),
    };
    Ok(Failure { error, retry })
}

fn events(list: Option<&RawValue>, warnings: &mut Vec<String>) -> Result<Vec<EmittedEvent>, ProtocolError> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let events: Vec<EmittedEvent> = serde_json::from_str(list.get())
        .map_err(|e| fault(format!("`events` must be a list of {{type, payload, dedupe_key?}}: {e}")))?;
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        match refusal(&event) {
            None => kept.push(event),
            Some(why) => warnings.push(format!("the event {:?} was refused: {why}", head(&event.kind))),
        }
    }
    Ok(kept)
}

fn refusal(event: &EmittedEvent) -> Option<String> {
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|p| event.kind.starts_with(**p)) {
        return Some(format!("types beginning with {prefix:?} are the gateway's own"));
    }
    if !is_plain(&event.kind) {
        return Some(format!("a type is 1 to {LONGEST_NAME} bytes without control characters"));
    }
    if !event.dedupe_key.as_deref().is_none_or(is_plain) {
        return Some(format!("a dedupe key is 1 to {LONGEST_NAME} bytes without control characters"));
    }
    None
}

fn is_plain(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The beginning of a text, for messages.
fn head(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(i, _)| &text[..i])
}
