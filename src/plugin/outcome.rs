//! The one judgement of an attempt: what the process did and said becomes an outcome.
//!
//! The exit code is stronger than the answer, and both must be good: exit 1 with `status: ok` fails, exit 0 with
//! `status: error` fails too.

use std::time::Instant;

use ductile_domain::catalog::Plugin;
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome};
use ductile_domain::time::Timestamp;
use serde_json::value::RawValue;

use crate::process::{End, Exited, nanos};
use crate::protocol::{self, Response};

/// The largest snapshot that a plugin may leave behind, in bytes of JSON.
pub const LARGEST_STATE: usize = 1024 * 1024;

/// EX_CONFIG: the plugin can't work as it is configured.
const EXIT_CONFIG: i32 = 78;

/// What shells answer when a command of theirs was ended by SIGKILL, which is how the kernel frees memory.
const EXIT_KILLED: i32 = 137;

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// What runtimes say when the kernel refuses them memory. Nothing but their word tells so: a limit that is set on a
/// process refuses, and what that does then is its own matter.
const OUT_OF_MEMORY: [&str; 9] = [
    "MemoryError",
    "OutOfMemory",
    "NoMemoryError",
    "out of memory",
    "Out of memory",
    "Cannot allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "memory allocation of",
];

/// Judges an ended attempt. The texts beside the outcome are warnings for the log, in the order in which they arose.
///
/// A spawn that failed for want of the gateway's own means (`SpawnFailed { ours: true }`) is the caller's to give
/// back; judged here, it is a failure like any other.
#[must_use]
pub fn judge(exited: Exited, plugin: &Plugin, command: &str, now: Timestamp) -> (Outcome, Vec<String>) {
    let begun = Instant::now();
    let mut warnings = Vec::new();
    if exited.stderr_truncated {
        warnings.push(format!("stderr was cut after {} bytes", exited.stderr.len()));
    }
    if exited.leaked {
        warnings.push("processes of the plugin held its output open after it had ended; they were killed".to_owned());
    }
    let answer = match exited.end {
        End::Exited(_) => Some(protocol::response(&exited.stdout)),
        _ => None,
    };
    let mut verdict = verdict(&exited, &answer, plugin, command);
    let response = answer.and_then(Result::ok);
    let mut outcome = Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: text(&exited.stdout, response.is_some()),
        stderr: text(&exited.stderr, false),
        exit_code: if let End::Exited(code) = exited.end { Some(code) } else { None },
        signal: if let End::Signaled(signal) = exited.end { Some(signal) } else { None },
        events: Vec::new(),
        state_updates: None,
        timing: exited.timing,
        usage: exited.usage,
        subs: None,
        ended_at: now,
    };
    if let Some(response) = response {
        let Response { events, state_updates, subs, warnings: more, .. } = response;
        warnings.extend(more);
        outcome.subs = subs.and_then(|s| stopwatch(&s, plugin.manifest.max_subs, &mut warnings));
        if verdict.is_none() {
            match snapshot(state_updates, command, &mut warnings) {
                Ok(updates) => (outcome.events, outcome.state_updates) = (events, updates),
                Err(refused) => verdict = Some(refused),
            }
        }
    }
    if let Some((cause, error)) = verdict {
        outcome.status = if cause == Cause::Timeout { AttemptStatus::TimedOut } else { AttemptStatus::Failed };
        outcome.cause = Some(cause);
        outcome.error = Some(error);
    }
    outcome.timing.runtime_post_ns = nanos(begun.elapsed());
    (outcome, warnings)
}

/// The trouble with the attempt, if there was one, and its text for `last_error`.
fn verdict(
    exited: &Exited,
    answer: &Option<Result<Response, protocol::ProtocolError>>,
    plugin: &Plugin,
    command: &str,
) -> Option<(Cause, String)> {
    let failure = answer.as_ref().and_then(|a| a.as_ref().ok()).and_then(|r| r.failure.as_ref());
    if let Some(text) = out_of_memory(exited, failure.map(|f| (f.retry, &*f.error)), plugin) {
        return Some((Cause::OutOfMemory, text));
    }
    Some(match &exited.end {
        End::Exited(EXIT_CONFIG) => {
            let what = failure.map_or_else(|| exit_text(EXIT_CONFIG, exited), |f| f.error.clone());
            (Cause::ExitConfig, what)
        }
        End::Exited(code) if *code != 0 => match failure {
            Some(failure) if failure.retry => (Cause::ExitCode, failure.error.clone()),
            Some(failure) => (Cause::RetryRefused, failure.error.clone()),
            None => (Cause::ExitCode, exit_text(*code, exited)),
        },
        End::Exited(_) => match (answer, failure) {
            (_, Some(failure)) if failure.retry => (Cause::PluginError, failure.error.clone()),
            (_, Some(failure)) => (Cause::RetryRefused, failure.error.clone()),
            (Some(Err(error)), None) => (Cause::Protocol, error.to_string()),
            (Some(Ok(_)) | None, None) => return None,
        },
        End::Signaled(signal) => (Cause::Signal, signal_text(*signal, exited, plugin)),
        End::TimedOut => {
            let limit = plugin.deadline(command).as_secs_f64();
            let name = &plugin.name;
            let hint = format!("raise plugins.{name}.timeouts.{command} if it needs longer");
            (Cause::Timeout, format!("timed out after {limit} s; its process group was ended; {hint}"))
        }
        End::Cancelled => (Cause::Cancelled, "cancelled".to_owned()),
        End::OutputTooLarge => {
            let cap = bytes(exited.stdout.len() as u64);
            (Cause::OutputTooLarge, format!("protocol error: stdout exceeded the cap of {cap}; answer with less"))
        }
        End::SpawnFailed { error, .. } => (Cause::SpawnFailed, error.clone()),
    })
}

/// `exit code 3`, with the last line of stderr when there is one.
fn exit_text(code: i32, exited: &Exited) -> String {
    let name = if code == EXIT_CONFIG { " (EX_CONFIG: not retried)" } else { "" };
    let stderr = String::from_utf8_lossy(&exited.stderr);
    match stderr.lines().rev().map(str::trim).find(|l| !l.is_empty()) {
        Some(line) => {
            let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
            format!("exit code {code}{name}: {line}")
        }
        None => format!("exit code {code}{name}"),
    }
}

/// The text for an attempt that ended for want of memory; `None` when it did not. `said` is what the plugin answered.
fn out_of_memory(exited: &Exited, said: Option<(bool, &str)>, plugin: &Plugin) -> Option<String> {
    let limit = exited.bounds.and_then(|bounds| bounds.memory);
    let is_refused = || limit.is_some() && said.is_none() && says_out_of_memory(&exited.stderr);
    let what = match exited.end {
        End::Exited(0 | EXIT_CONFIG) => return None,
        // who says that no other attempt can help knows better
        End::Exited(_) if said.is_some_and(|(retry, _)| !retry) => return None,
        End::Exited(code) if code == EXIT_KILLED || exited.is_out_of_memory || is_refused() => {
            said.map_or_else(|| exit_text(code, exited), |(_, error)| error.to_owned())
        }
        End::Signaled(signal)
            if exited.is_out_of_memory
                || signal == SIGKILL && limit.is_some() && !has_used_up_its_time(exited)
                || is_refused() =>
        {
            format!("killed by signal {signal}{}", signal_name(signal))
        }
        _ => return None,
    };
    let peak = exited.usage.peak_memory.map(|peak| format!(", it had used {}", bytes(peak)));
    let hint = format!("raise plugins.{}.limits.memory if it needs more", plugin.name);
    let limit = limit.map(|limit| format!("; its limit is {}{}; {hint}", bytes(limit), peak.unwrap_or_default()));
    Some(format!("out of memory: {what}{}", limit.unwrap_or_default()))
}

/// Reads the end of what was printed only.
fn says_out_of_memory(stderr: &[u8]) -> bool {
    const TAIL: usize = 4096;
    let tail = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(TAIL)..]);
    OUT_OF_MEMORY.iter().any(|words| tail.contains(words))
}

/// A process that passes over SIGXCPU is killed a second of processor time later.
fn has_used_up_its_time(exited: &Exited) -> bool {
    let limit = exited.bounds.and_then(|bounds| bounds.cpu_time);
    // the kernel counts a little differently when it enforces
    limit.zip(exited.usage.cpu).is_some_and(|(limit, used)| used >= limit.mul_f64(0.9))
}

fn signal_text(signal: i32, exited: &Exited, plugin: &Plugin) -> String {
    let text = format!("killed by signal {signal}{}", signal_name(signal));
    match exited.bounds.and_then(|bounds| bounds.cpu_time) {
        Some(limit) if signal == SIGXCPU || signal == SIGKILL && has_used_up_its_time(exited) => {
            let name = &plugin.name;
            let limit = limit.as_secs_f64();
            format!(
                "{text}: it used up its {limit} s of processor time; raise plugins.{name}.limits.cpu_time if it needs more"
            )
        }
        _ => text,
    }
}

fn signal_name(signal: i32) -> String {
    const NAMES: [(i32, &str); 15] = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (6, "ABRT"),
        (7, "BUS"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (13, "PIPE"),
        (14, "ALRM"),
        (15, "TERM"),
        (24, "XCPU"),
        (25, "XFSZ"),
        (31, "SYS"),
    ];
    NAMES.iter().find(|(n, _)| *n == signal).map_or_else(String::new, |(_, name)| format!(" (SIG{name})"))
}

fn bytes(n: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if n >= MIB && n.is_multiple_of(MIB) { format!("{} MiB", n / MIB) } else { format!("{n} bytes") }
}

/// What is stored of an output: verbatim when it was a response; otherwise readable, and not longer than it was.
fn text(output: &[u8], is_response: bool) -> Option<String> {
    if output.is_empty() {
        return None;
    }
    let mut text = String::from_utf8_lossy(output).into_owned();
    if !is_response {
        text = text.replace('\0', "\u{fffd}");
    }
    text.truncate(text.floor_char_boundary(output.len()));
    Some(text)
}

/// The snapshot of a success, if it may be kept.
fn snapshot(
    updates: Option<Box<RawValue>>,
    command: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<Box<RawValue>>, (Cause, String)> {
    let Some(updates) = updates else { return Ok(None) };
    if matches!(command, "health" | "init") {
        warnings.push(format!("`state_updates` from {command} was ignored; {command} keeps no state"));
        return Ok(None);
    }
    let size = updates.get().len();
    if size > LARGEST_STATE {
        let cap = bytes(LARGEST_STATE as u64);
        let error = format!("`state_updates` has {size} bytes, more than {cap}; nothing of it was stored");
        return Err((Cause::Protocol, error));
    }
    Ok(Some(updates))
}

/// The sub-spans that are kept, a JSON array: objects only, from the head, at most `cap`.
fn stopwatch(subs: &RawValue, cap: usize, warnings: &mut Vec<String>) -> Option<String> {
    let list: Vec<&RawValue> = serde_json::from_str(subs.get()).ok()?;
    let spans: Vec<&str> = list.into_iter().map(RawValue::get).filter(|s| s.starts_with('{')).collect();
    if spans.len() > cap {
        warnings.push(format!("ductile_stopwatch_subs has {} entries; the first {cap} are kept", spans.len()));
    }
    let kept = &spans[..spans.len().min(cap)];
    (!kept.is_empty()).then(|| format!("[{}]", kept.join(",")))
}
