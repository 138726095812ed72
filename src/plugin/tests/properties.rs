//! Whatever a plugin prints and whatever an author writes: a judgement, never a panic, and every refusal has a reason.

#[expect(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::path::Path;

use ductile_domain::outcome::{AttemptStatus, Timing, Usage};
use ductile_domain::time;
use ductile_plugin::{End, Exited, manifest, outcome};
use proptest::prelude::*;

use support::root;

const ANSWER: &str = r#"{"status":"ok","result":"done","retry":true,"error":null,"events":[{"type":"a.b","payload":{"n":[1,{"x":null}]},
"dedupe_key":"k"}],"state_updates":{"a":{"b":[]}},"logs":[{"level":"info","message":"m\u00e9\n"}],"ductile_stopwatch_subs":[{"name":"a","dur_ns":1}]}"#;

/// `text` with some bytes overwritten, taken out or doubled.
fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>());
    prop::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, kind, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] = b"{}[]\",:\\0-tn"[usize::from(byte) % 12],
                2 => drop(bytes.remove(at)),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// PRO-06, PRO-12: an answer is taken exactly when it is one JSON object that says ok; else there is a text for people.
    #[test]
    fn any_output_is_judged(stdout in prop_oneof![mutated(ANSWER), prop::collection::vec(any::<u8>(), 0..60)], code in 0..2) {
        let plugin = support::plugin(&root().join("plugins/echo"));
        let exited = Exited {
            end: End::Exited(code),
            stdout: stdout.clone(),
            stderr: Vec::new(),
            stderr_truncated: false,
            leaked: false,
            timing: Timing::default(),
            usage: Usage::default(),
            bounds: None,
            is_out_of_memory: false,
        };
        let now = time::parse("2026-01-01T00:00:30Z").expect("valid");
        let (outcome, _) = outcome::judge(exited, &plugin, "poll", now);
        let whole = serde_json::from_slice::<serde_json::Value>(&stdout).ok();
        match outcome.status {
            AttemptStatus::Succeeded => {
                prop_assert_eq!(code, 0);
                prop_assert!(std::str::from_utf8(&stdout).is_ok());
                // A lone half of a surrogate pair is JSON that this reader refuses.
                let is_ok = whole.is_none_or(|w| w["status"] == "ok");
                prop_assert!(is_ok && outcome.cause.is_none() && outcome.error.is_none());
            }
            AttemptStatus::Failed => {
                prop_assert!(outcome.cause.is_some() && outcome.error.is_some_and(|e| !e.trim().is_empty()));
                prop_assert!(outcome.events.is_empty() && outcome.state_updates.is_none());
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// MAN-19: a manifest is taken with warnings only, or refused with reasons that name the file.
    #[test]
    fn any_manifest_is_taken_or_refused_with_reasons(
        bytes in mutated(include_str!("../../../plugins/_template/python_plugin/manifest.yaml"))
    ) {
        let text = String::from_utf8_lossy(&bytes);
        let path = Path::new("/p/manifest.yaml");
        match manifest::check(&text, path) {
            Ok((manifest, warnings)) => {
                prop_assert!(warnings.iter().all(|w| !w.is_error()), "{warnings:?}");
                prop_assert!(!manifest.commands.is_empty() && (1..=256).contains(&manifest.max_subs));
                prop_assert!(!manifest.entrypoint.split('/').any(|part| part == ".."));
                prop_assert!(manifest.fact_outputs.iter().all(|rule| manifest.command(&rule.command).is_some()));
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|p| p.file.as_deref() == Some(path) && !p.message.is_empty()));
                let has_place = |p: &ductile_domain::problem::Problem| p.line.is_some() || p.path.is_none();
                prop_assert!(problems.iter().all(has_place), "{problems:?}");
            }
        }
    }
}
