//! Requests as plugins see them, answers as the gateway judges them.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use ductile_domain::catalog::Plugin;
use ductile_domain::outcome::{AttemptStatus, Cause, Outcome, Timing, Usage};
use ductile_domain::time;
use ductile_plugin::{End, Exited, outcome, protocol};
use serde_json::{Value, json};

use support::{job, raw, root};

fn echo() -> Plugin {
    support::plugin(&root().join("plugins/echo"))
}

fn request(plugin: &Plugin, job: &ductile_domain::job::ClaimedJob) -> Value {
    let deadline = time::parse("2026-01-01T00:01:00Z").expect("valid");
    serde_json::from_slice(&protocol::request(job, plugin, deadline)).expect("one JSON value")
}

fn judged(command: &str, end: End, stdout: &[u8]) -> (Outcome, Vec<String>) {
    judged_by(&echo(), command, end, stdout)
}

fn judged_by(plugin: &Plugin, command: &str, end: End, stdout: &[u8]) -> (Outcome, Vec<String>) {
    let exited = Exited {
        end,
        stdout: stdout.to_vec(),
        stderr: Vec::new(),
        stderr_truncated: false,
        leaked: false,
        timing: Timing::default(),
        usage: Usage::default(),
        bounds: None,
        is_out_of_memory: false,
    };
    outcome::judge(exited, plugin, command, time::parse("2026-01-01T00:00:30Z").expect("valid"))
}

/// PRO-01, PRO-02, PRO-03, PRO-04: the fields of a request that is no `handle`.
#[test]
fn a_poll_gets_its_payload_at_the_top_and_no_event() {
    let mut plugin = echo();
    plugin.config = raw(r#"{"key": "v\u00e9"}"#);
    let mut poll = job(&plugin, "poll", Some(r#"{"message": "hi"}"#));
    poll.state = Some(raw(r#"{"seen":[1.50]}"#));
    let expected = json!({"protocol": 2, "job_id": poll.fence.job.to_string(), "command": "poll", "config": {"key": "vé"},
        "state": {"seen": [1.5]}, "context": {"ductile_plugin": "echo"}, "payload": {"message": "hi"},
        "deadline_at": "2026-01-01T00:01:00.000Z"});
    assert_eq!(request(&plugin, &poll), expected);
    poll.payload = None;
    poll.state = None;
    let bare = request(&plugin, &poll);
    assert_eq!((bare.get("payload"), &bare["state"]), (None, &json!({})));
}

/// PRO-02, PRO-03: `handle` has the envelope, and its payload at the top too.
#[test]
fn a_handle_gets_the_envelope_and_its_payload_twice() {
    let plugin = echo();
    let envelope = json!({"type": "a.b", "payload": {"n": 1}, "source": "echo", "timestamp": "t", "event_id": "e"});
    let mut handle = job(&plugin, "handle", Some(&envelope.to_string()));
    handle.context = Some(raw(r#"{ "ductile_pipeline":"p", "x":{"y":[]} }"#));
    let request = request(&plugin, &handle);
    assert_eq!((&request["event"], &request["payload"]), (&envelope, &json!({"n": 1})));
    assert_eq!(request["context"], json!({"ductile_plugin": "echo", "ductile_pipeline": "p", "x": {"y": []}}));
}

#[test]
fn values_are_passed_on_as_they_were_written() {
    let plugin = echo();
    let text = r#"{"big":12345678901234567890123,"f":1.10,"e":"\u00e9\/"}"#;
    let bytes = protocol::request(
        &job(&plugin, "poll", Some(text)),
        &plugin,
        time::parse("2026-01-01T00:00:00Z").expect("valid"),
    );
    assert!(String::from_utf8(bytes).expect("UTF-8").contains(text));
}

#[test]
fn the_context_names_the_plugin_that_runs_and_nobody_else() {
    let plugin = echo();
    let mut poll = job(&plugin, "poll", None);
    for (context, expected) in [
        (r#"{"ductile_plugin":"upstream","a":1}"#, json!({"ductile_plugin": "echo", "a": 1})),
        (r#"{"note":"ductile_plugin"}"#, json!({"ductile_plugin": "echo", "note": "ductile_plugin"})),
        ("{}", json!({"ductile_plugin": "echo"})),
        ("{ }", json!({"ductile_plugin": "echo"})),
    ] {
        poll.context = Some(raw(context));
        assert_eq!(request(&plugin, &poll)["context"], expected, "{context}");
    }
}

/// PRO-06, PRO-09, PRO-10, PRO-14, DIS-11: a whole answer; unknown fields are ignored, stdout is kept verbatim.
#[test]
fn a_whole_answer_succeeds_and_is_kept_verbatim() {
    let text = r#" {"protocol":2,"status":"ok","result":"done","extra":[],"events":[{"type":"a.b","payload":{"n":1.50},
        "dedupe_key":"k"},{"type":"a.c"}],"state_updates":{"x":1},"logs":[{"level":"info","message":"m"}]}
"#;
    let (outcome, warnings) = judged("poll", End::Exited(0), text.as_bytes());
    assert_eq!((outcome.status, outcome.error.as_deref()), (AttemptStatus::Succeeded, None));
    assert_eq!(outcome.result.as_deref(), Some(text));
    assert_eq!(outcome.events.len(), 2);
    assert_eq!(outcome.events[0].payload.as_deref().map(|p| p.get()), Some(r#"{"n":1.50}"#));
    assert_eq!(outcome.events[0].dedupe_key.as_deref(), Some("k"));
    assert_eq!(outcome.state_updates.as_deref().map(|s| s.get()), Some(r#"{"x":1}"#));
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// D-03: ok without a result is accepted with a warning; null means absent.
#[test]
fn an_answer_without_a_result_is_warned_of() {
    let text =
        br#"{"status":"ok","result":null,"error":null,"retry":null,"events":null,"state_updates":null,"logs":null}"#;
    let (outcome, warnings) = judged("poll", End::Exited(0), text);
    assert_eq!(outcome.status, AttemptStatus::Succeeded, "{:?}", outcome.error);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

/// D-02, PRO-07, PRO-08: status error fails with the plugin's own text; retry is true unless refused.
#[test]
fn status_error_fails_with_the_plugins_text() {
    for (text, code, cause) in [
        (r#"{"status":"error","error":"no luck"}"#, 0, Cause::PluginError),
        (r#"{"status":"error","error":"no luck","retry":true}"#, 0, Cause::PluginError),
        (r#"{"status":"error","error":"no luck","retry":false}"#, 0, Cause::RetryRefused),
        (r#"{"status":"error","error":"no luck"}"#, 1, Cause::ExitCode),
        (r#"{"status":"error","error":"no luck","retry":false}"#, 1, Cause::RetryRefused),
        (r#"{"status":"error","error":"no luck","retry":true}"#, 78, Cause::ExitConfig),
    ] {
        let (outcome, _) = judged("poll", End::Exited(code), text.as_bytes());
        assert_eq!((outcome.status, outcome.cause), (AttemptStatus::Failed, Some(cause)), "{text} {code}");
        assert_eq!(outcome.error.as_deref(), Some("no luck"), "{text} {code}");
        assert_eq!(outcome.result.as_deref(), Some(text));
    }
}

/// DIS-12, D-04: whatever is not one object with known fields of their shapes is a protocol error.
#[test]
fn wrong_answers_are_protocol_errors() {
    for text in [
        &b""[..],
        b" \n",
        b"null",
        b"[]",
        b"{",
        b"{}",
        br#"{"status":"OK"}"#,
        br#"{"status":1}"#,
        br#"{"status":"ok","status":"ok"}"#,
        br#"{"status":"ok","result":"x"}garbage"#,
        br#"{"status":"ok","result":"x"} {}"#,
        b"{\"status\":\"ok\",\"result\":\"a\0b\"}",
        b"{\"status\":\"ok\"}\0",
        b"\xff\xfe",
        br#"{"status":"ok","events":{}}"#,
        br#"{"status":"ok","events":[{"payload":{}}]}"#,
        br#"{"status":"ok","events":["a.b"]}"#,
        br#"{"status":"ok","state_updates":[]}"#,
        br#"{"status":"error","error":"x","retry":"no"}"#,
    ] {
        let (outcome, _) = judged("poll", End::Exited(0), text);
        let shown = String::from_utf8_lossy(text);
        assert_eq!((outcome.status, outcome.cause), (AttemptStatus::Failed, Some(Cause::Protocol)), "{shown}");
        assert!(outcome.error.is_some_and(|e| e.starts_with("protocol error: ")), "{shown}");
        assert!(outcome.events.is_empty() && outcome.state_updates.is_none(), "{shown}");
    }
}

/// MAN-26, C-51: reserved and unusable event types are refused with a warning, the others stand.
#[test]
fn reserved_events_are_refused_with_a_warning() {
    let text = br#"{"status":"ok","result":"x","events":[{"type":"job.failed"},{"type":"ductile.step.succeeded"},
        {"type":"a\u0000b"},{"type":""},{"type":"ok.one","dedupe_key":""},{"type":"jobs.fine"}]}"#;
    let (outcome, warnings) = judged("poll", End::Exited(0), text);
    let kept: Vec<_> = outcome.events.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!((kept, warnings.len()), (vec!["jobs.fine"], 5), "{warnings:?}");
}

/// FCT-08: a failure leaves no event and no state, whatever it printed.
#[test]
fn a_failure_emits_nothing() {
    let text = br#"{"status":"error","error":"x","events":[{"type":"a.b"}],"state_updates":{"a":1}}"#;
    let (outcome, _) = judged("poll", End::Exited(0), text);
    assert!(outcome.events.is_empty() && outcome.state_updates.is_none());
}

/// FCT-09, C-38: `health` and `init` keep no state, and say so.
#[test]
fn health_and_init_keep_no_state() {
    for command in ["health", "init"] {
        let text = br#"{"status":"ok","result":"x","state_updates":{"a":1}}"#;
        let (outcome, warnings) = judged(command, End::Exited(0), text);
        assert_eq!((outcome.status, outcome.state_updates.is_none()), (AttemptStatus::Succeeded, true), "{command}");
        assert_eq!(warnings.len(), 1, "{command}");
    }
}

/// FCT-10: a snapshot of more than 1 MiB fails the job; one of exactly 1 MiB does not.
#[test]
fn a_snapshot_above_a_mebibyte_fails_the_job() {
    for (size, status) in [(1 << 20, AttemptStatus::Succeeded), ((1 << 20) + 1, AttemptStatus::Failed)] {
        let updates = format!("{{\"x\":\"{}\"}}", "y".repeat(size - 8));
        assert_eq!(updates.len(), size);
        let text = format!(
            "{{\"status\":\"ok\",\"result\":\"x\",\"events\":[{{\"type\":\"a.b\"}}],\"state_updates\":{updates}}}"
        );
        let (outcome, _) = judged("poll", End::Exited(0), text.as_bytes());
        assert_eq!(outcome.status, status, "{:?}", outcome.error);
        assert_eq!(outcome.events.len(), usize::from(status == AttemptStatus::Succeeded));
    }
}

/// TEL-04, TEL-05, TEL-06: sub-spans are kept verbatim from the head up to the cap; malformed ones vanish.
#[test]
fn the_stopwatch_is_capped_from_the_head() {
    let plugin = echo();
    let spans: Vec<Value> = (0..40).map(|i| json!({"name": format!("s{i}"), "dur_ns": i, "own": [1]})).collect();
    let answer = |subs: Value| json!({"status": "ok", "result": "x", "ductile_stopwatch_subs": subs}).to_string();
    let (outcome, warnings) = judged_by(&plugin, "poll", End::Exited(0), answer(json!(spans)).as_bytes());
    let kept: Vec<Value> = serde_json::from_str(&outcome.subs.expect("spans")).expect("a list");
    assert_eq!((kept.as_slice(), warnings.len()), (&spans[..32], 1), "{warnings:?}");
    let (outcome, warnings) = judged("poll", End::Exited(0), answer(json!([1, {"name": "a"}, "x", null])).as_bytes());
    assert_eq!((outcome.subs.as_deref(), warnings.len()), (Some(r#"[{"name":"a"}]"#), 0));
    for malformed in [json!("x"), json!({}), json!([]), json!(null)] {
        let (outcome, warnings) = judged("poll", End::Exited(0), answer(malformed).as_bytes());
        assert_eq!((outcome.status, outcome.subs, warnings.len()), (AttemptStatus::Succeeded, None, 0));
    }
}

/// An answer that its readers could not parse is refused whole: 100 levels are taken, 101 are not, brackets in texts don't
/// count.
#[test]
fn an_answer_that_is_too_deep_is_refused() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    // One level is the answer itself.
    for (levels, cause) in [(99, None), (100, Some(Cause::Protocol)), (1_000_000, Some(Cause::Protocol))] {
        for field in ["result", "novel", "logs"] {
            let text = format!("{{\"status\":\"ok\",\"{field}\":{},\"result2\":\"\"}}", nested(levels));
            let (outcome, _) = judged("poll", End::Exited(0), text.as_bytes());
            assert_eq!(outcome.cause, cause, "{levels} in {field}: {:?}", outcome.error);
        }
    }
    let text = json!({"status": "ok", "result": format!("\"{}\\", nested(500))}).to_string();
    let (outcome, _) = judged("poll", End::Exited(0), text.as_bytes());
    assert_eq!(outcome.cause, None, "{:?}", outcome.error);
}
