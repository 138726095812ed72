//! What conditions mean, operator by operator, and what is refused when they are loaded.

use ductile_domain::condition::{Condition, MAX_DEPTH, MAX_PREDICATES, Operator, Verdict};
use ductile_domain::path::{Fault, Root, Roots, Scope};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const PAYLOAD: &str = r#"{
    "status": "Error", "count": 3, "ratio": 1.50, "big": 12345678901234567890123, "text": "ABC", "empty": "",
    "nothing": null, "yes": true, "list": [1, {"a": "x"}], "object": {"a": 1, "b": [2]}, "digits": "5",
    "greek": "ΟΔΟΣ", "lines": "a\nb", "half": "x\ud800y", "twice": 1, "twice": 2
}"#;
const CONTEXT: &str = r#"{"web": {"url": "https://example.org"}, "tries": 2}"#;
const CONFIG: &str = r#"{"limit": 10, "mode": "strict"}"#;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("valid JSON")
}

fn evaluate(condition: &Value) -> Verdict {
    let (payload, context, config) = (raw(PAYLOAD), raw(CONTEXT), raw(CONFIG));
    let scope = Scope { payload: Some(&payload), context: Some(&context), config: Some(&config) };
    parsed(condition).evaluate(&scope)
}

fn parsed(condition: &Value) -> Condition {
    Condition::parse(condition, Roots::Step).unwrap_or_else(|faults| panic!("{condition}: {faults:?}"))
}

fn refused(condition: &Value) -> Vec<Fault> {
    Condition::parse(condition, Roots::Step).expect_err(&condition.to_string())
}

/// PIP-15, PIP-16, PIP-17, PIP-18: each operator, true and false, with right and wrong types and absent paths.
#[test]
fn each_operator_says_true_and_false_as_documented() {
    let table: &[(&str, &str, Value, bool)] = &[
        ("exists", "payload.status", Value::Null, true),
        ("exists", "payload.nothing", Value::Null, true),
        ("exists", "payload.list.1.a", Value::Null, true),
        ("exists", "payload.missing", Value::Null, false),
        ("exists", "payload.list.2", Value::Null, false),
        ("exists", "payload.status.x", Value::Null, false),
        ("eq", "payload.status", json!("Error"), true),
        ("eq", "payload.status", json!("error"), false),
        ("eq", "payload.count", json!(3), true),
        ("eq", "payload.count", json!(3.0), true),
        ("eq", "payload.count", json!("3"), false),
        ("eq", "payload.digits", json!(5), false),
        ("eq", "payload.ratio", json!(1.5), true),
        ("eq", "payload.big", json!(1.2345678901234568e22), false),
        ("eq", "payload.yes", json!(true), true),
        ("eq", "payload.yes", json!("true"), false),
        ("eq", "payload.nothing", json!(null), true),
        ("eq", "payload.missing", json!(null), true),
        ("eq", "payload.missing", json!(""), false),
        ("eq", "payload.empty", json!(null), false),
        ("eq", "payload.object", json!({"b": [2.0], "a": 1}), true),
        ("eq", "payload.object", json!({"a": 1}), false),
        ("eq", "payload.list", json!([1, {"a": "x"}]), true),
        ("eq", "payload.list", json!([{"a": "x"}, 1]), false),
        ("eq", "payload.twice", json!(2), true),
        ("eq", "context.web.url", json!("https://example.org"), true),
        ("eq", "config.mode", json!("strict"), true),
        ("neq", "payload.status", json!("Error"), false),
        ("neq", "payload.status", json!("ok"), true),
        ("neq", "payload.digits", json!(5), true),
        ("neq", "payload.missing", json!("x"), true),
        ("neq", "payload.missing", json!(null), false),
        ("in", "payload.status", json!(["Error", "Warning"]), true),
        ("in", "payload.status", json!(["error"]), false),
        ("in", "payload.count", json!([1, 2, 3.0]), true),
        ("in", "payload.count", json!(["3"]), false),
        ("in", "payload.missing", json!([null]), true),
        ("in", "payload.missing", json!([]), false),
        ("in", "payload.object", json!([{"a": 1, "b": [2]}]), true),
        ("gt", "payload.count", json!(2), true),
        ("gt", "payload.count", json!(3), false),
        ("gt", "payload.digits", json!(3), false),
        ("gt", "payload.missing", json!(-1), false),
        ("gt", "payload.nothing", json!(-1), false),
        ("gt", "payload.yes", json!(0), false),
        ("gt", "payload.big", json!(1.234567890123456e22), true),
        ("gt", "config.limit", json!(9.99), true),
        ("gte", "payload.count", json!(3), true),
        ("gte", "payload.count", json!(3.0000001), false),
        ("gte", "payload.digits", json!(5), false),
        ("lt", "payload.ratio", json!(1.6), true),
        ("lt", "payload.ratio", json!(1.5), false),
        ("lt", "payload.missing", json!(1), false),
        ("lte", "payload.ratio", json!(1.5), true),
        ("lte", "payload.ratio", json!(1.4), false),
        ("lte", "payload.status", json!(1), false),
        ("contains", "payload.text", json!("b"), true),
        ("contains", "payload.text", json!(""), true),
        ("contains", "payload.text", json!("d"), false),
        ("contains", "payload.count", json!("3"), false),
        ("contains", "payload.list", json!("1"), false),
        ("contains", "payload.missing", json!(""), false),
        ("contains", "payload.greek", json!("δος"), false),
        ("contains", "payload.greek", json!("δοσ"), true),
        ("contains", "payload.half", json!("Y"), true),
        ("startswith", "payload.text", json!("aB"), true),
        ("startswith", "payload.text", json!("bc"), false),
        ("startswith", "payload.nothing", json!(""), false),
        ("endswith", "payload.text", json!("bC"), true),
        ("endswith", "payload.text", json!("ab"), false),
        ("endswith", "payload.yes", json!("e"), false),
        ("regex", "payload.text", json!("A.C"), true),
        ("regex", "payload.text", json!("B"), false),
        ("regex", "payload.text", json!("abc"), false),
        ("regex", "payload.text", json!("(?i)abc"), true),
        ("regex", "payload.text", json!("A|AB|ABC"), true),
        ("regex", "payload.text", json!("(?x) A B C  # spaces are free"), true),
        ("regex", "payload.text", json!("(?x) A B # )|(?:.*"), false),
        ("regex", "payload.lines", json!("a"), false),
        ("regex", "payload.lines", json!("(?m)^a$"), false),
        ("regex", "payload.lines", json!("(?s)a.b"), true),
        ("regex", "payload.empty", json!(""), true),
        ("regex", "payload.count", json!("3"), false),
        ("regex", "payload.missing", json!(".*"), false),
    ];
    for (operator, path, value, expected) in table {
        let mut condition = json!({"path": path, "op": operator});
        if *operator != "exists" {
            condition["value"] = value.clone();
        }
        let verdict = evaluate(&condition);
        assert_eq!(verdict.holds, *expected, "{condition}: {}", verdict.reason);
        let opposite = evaluate(&json!({"not": condition}));
        assert_eq!(opposite.holds, !expected, "not {condition}");
        assert_eq!(opposite.reason, format!("not: {}", verdict.reason));
    }
    for operator in Operator::ALL {
        for expected in [true, false] {
            let is_covered = table.iter().any(|(word, .., holds)| *word == operator.word() && *holds == expected);
            assert!(is_covered, "{operator} {expected} has no line");
        }
    }
}

/// PIP-22, PIP-23: without a context every `context.*` predicate is false, whatever its operator.
#[test]
fn a_context_predicate_is_false_without_a_context() {
    let payload = raw(PAYLOAD);
    let empty = raw("{}");
    for context in [None, Some(&*empty)] {
        let scope = Scope { payload: Some(&payload), context, ..Scope::default() };
        for condition in [
            json!({"path": "context.web.url", "op": "exists"}),
            json!({"path": "context.web.url", "op": "eq", "value": null}),
            json!({"path": "context.web.url", "op": "neq", "value": "x"}),
            json!({"path": "context.web.url", "op": "in", "value": [null]}),
        ] {
            let verdict = parsed(&condition).evaluate(&scope);
            assert!(!verdict.holds, "{condition}");
            assert!(verdict.reason.ends_with("(there is no context)"), "{}", verdict.reason);
        }
        // `not` is ordinary negation, also then.
        assert!(parsed(&json!({"not": {"path": "context.x", "op": "exists"}})).evaluate(&scope).holds);
    }
    // With any context a missing path compares as null.
    assert!(evaluate(&json!({"path": "context.nope", "op": "eq", "value": null})).holds);
}

/// PIP-14: groups nest, and the reason names the predicate that decided.
#[test]
fn groups_combine_and_say_which_predicate_decided() {
    let yes = json!({"path": "payload.count", "op": "gte", "value": 3});
    let no = json!({"path": "payload.count", "op": "gt", "value": 3});
    let odd = json!({"path": "payload.status", "op": "gt", "value": 3});
    for (condition, holds, reason) in [
        (yes.clone(), true, "payload.count gte is true"),
        (no.clone(), false, "payload.count gt is false"),
        (odd.clone(), false, "payload.status gt is false (payload.status is a text, not a number)"),
        (json!({"all": [yes, no]}), false, "all[1]: payload.count gt is false"),
        (json!({"all": [yes, yes]}), true, "all: every one holds"),
        (json!({"any": [no, yes]}), true, "any[1]: payload.count gte is true"),
        (json!({"any": [no, odd]}), false, "any: not one holds"),
        (json!({"not": {"any": [no, yes]}}), false, "not.any[1]: payload.count gte is true"),
        (
            json!({"all": [yes, {"not": {"any": [no, {"all": [yes]}]}}]}),
            false,
            "all[1].not.any[1].all: every one holds",
        ),
        (
            json!({"path": "payload.nope.x", "op": "regex", "value": "x"}),
            false,
            "payload.nope.x regex is false (payload.nope.x is absent, not a text)",
        ),
        (
            json!({"path": "payload.nope", "op": "neq", "value": "secret"}),
            true,
            "payload.nope neq is true (payload.nope is absent)",
        ),
    ] {
        assert_eq!(evaluate(&condition), Verdict { holds, reason: reason.to_owned() }, "{condition}");
    }
}

/// PIP-14, PIP-15, PIP-16, PIP-19, PIP-20: each is refused when it is loaded, with the place, and all of them at once.
#[test]
fn what_is_wrong_with_a_tree_is_said_when_it_is_loaded() {
    let atom = json!({"path": "payload.a", "op": "exists"});
    let table: &[(Value, &str, &str, &str)] = &[
        (json!("x"), "", "a condition is an object, not a text", "write {path"),
        (json!([atom]), "", "a condition is an object, not a list", "write {path"),
        (json!({}), "", "an empty condition", "write {path"),
        (json!({"all": [atom], "any": [atom]}), "", "this has \"all\", \"any\"", "write {path"),
        (json!({"path": "payload.a", "op": "exists", "not": atom}), "", "this has \"path\", \"op\", \"not\"", "write"),
        (json!({"al": [atom]}), "al", "unknown key", "did you mean \"all\"?"),
        (json!({"path": "payload.a", "op": "exists", "case": 1}), "case", "unknown key", "write {path"),
        (json!({"all": []}), "all", "at least one", ""),
        (json!({"any": {}}), "any", "needs a list of conditions, not an object", ""),
        (json!({"not": [atom]}), "not", "a condition is an object, not a list", "write {path"),
        (json!({"op": "exists"}), "path", "is missing", ""),
        (json!({"path": "payload.a"}), "op", "is missing", ""),
        (json!({"path": 3, "op": "exists"}), "path", "needs a path such as payload.status, not a number", ""),
        (json!({"path": "env.a", "op": "exists"}), "path", "must begin with one of payload.*, context.*, config.*", ""),
        (json!({"path": "payload", "op": "exists"}), "path", "names no key", "write payload.<key>"),
        (json!({"path": "payload..a", "op": "exists"}), "path", "empty segment", ""),
        (json!({"path": "payload.a", "op": "exits"}), "op", "unknown operator \"exits\"", "did you mean \"exists\"?"),
        (json!({"path": "payload.a", "op": "EQ", "value": 1}), "op", "unknown operator", "did you mean \"eq\"?"),
        (
            json!({"path": "payload.a", "op": "matches", "value": 1}),
            "op",
            "unknown operator",
            "operators are exists, eq",
        ),
        (json!({"path": "payload.a", "op": null}), "op", "needs an operator such as eq, not null", ""),
        (json!({"path": "payload.a", "op": "exists", "value": true}), "value", "takes no value", "not: {...}"),
        (json!({"path": "payload.a", "op": "eq"}), "value", "eq needs a value", ""),
        (json!({"path": "payload.a", "op": "in", "value": "x"}), "value", "in needs a list, not a text", ""),
        (json!({"path": "payload.a", "op": "gt", "value": "3"}), "value", "gt needs a number, not a text", ""),
        (
            json!({"path": "payload.a", "op": "contains", "value": 3}),
            "value",
            "contains needs a text, not a number",
            "",
        ),
        (json!({"path": "payload.a", "op": "regex", "value": ["x"]}), "value", "regex needs a pattern, not a list", ""),
        (json!({"path": "payload.a", "op": "regex", "value": "("}), "value", "bad pattern: unclosed group", "RE2"),
        (json!({"path": "payload.a", "op": "regex", "value": "a)|(?:b"}), "value", "bad pattern: unopened group", ""),
        (json!({"path": "payload.a", "op": "regex", "value": "(?=a)"}), "value", "bad pattern", "no look-around"),
        (json!({"path": "payload.a", "op": "regex", "value": "(a{999}){999}"}), "value", "bad pattern", ""),
        (json!({"path": "payload.a", "op": "regex", "value": "a".repeat(5000)}), "value", "of 5000 bytes", ""),
    ];
    for (condition, at, message, hint) in table {
        let faults = refused(condition);
        assert_eq!(faults.len(), 1, "{condition}: {faults:?}");
        let fault = &faults[0];
        assert_eq!(fault.at, *at, "{condition}: {fault}");
        assert!(fault.message.contains(message), "{condition}: {fault}");
        assert!(fault.hint.as_deref().unwrap_or_default().contains(hint), "{condition}: {fault}");
    }
    let many = json!({"all": [{"path": "x", "op": "is"}, {"not": {"path": "payload.a", "op": "gt"}}, 3, {"typo": 1}]});
    let places: Vec<String> = refused(&many).into_iter().map(|fault| fault.at).collect();
    assert_eq!(places, ["all[0].path", "all[0].op", "all[1].not.value", "all[2]", "all[3].typo"]);
}

/// PIP-19: the condition of a pipeline has no plugin whose configuration it could read.
#[test]
fn config_is_refused_where_no_plugin_stands_behind_it() {
    let condition = json!({"any": [{"path": "config.mode", "op": "exists"}, {"path": "payload.a", "op": "exists"}]});
    let faults = Condition::parse(&condition, Roots::Data).expect_err("config in a pipeline's if");
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].at, "any[0].path");
    assert!(faults[0].to_string().contains("in the `if` of a step only"), "{}", faults[0]);
    let step = parsed(&condition);
    assert!(step.reads(Root::Config) && step.reads(Root::Payload) && !step.reads(Root::Context));
}

/// PIP-20: a tree of depth 10 with 64 predicates is accepted, one more of either is not.
#[test]
fn depth_and_size_have_limits() {
    let atom = || json!({"path": "payload.a", "op": "exists"});
    let nested = |depth: usize| (1..depth).fold(atom(), |inside, _| json!({"not": inside}));
    assert!(Condition::parse(&nested(MAX_DEPTH), Roots::Data).is_ok());
    let faults = refused(&nested(MAX_DEPTH + 1));
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("deeper than 10"), "{}", faults[0]);
    assert_eq!(faults[0].at, ["not"; 10].join("."));
    let wide = |count: usize| json!({"any": (0..count).map(|_| atom()).collect::<Vec<_>>()});
    assert!(Condition::parse(&wide(MAX_PREDICATES), Roots::Data).is_ok());
    let faults = refused(&wide(MAX_PREDICATES + 1));
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("65 predicates; at most 64"), "{}", faults[0]);
}

#[test]
fn a_condition_is_shown_as_it_was_written() {
    for condition in [
        json!({"path": "payload.a", "op": "exists"}),
        json!({"path": "payload.a-b.0", "op": "eq", "value": null}),
        json!({"path": "payload.a", "op": "contains", "value": "MiXeD"}),
        json!({"all": [{"not": {"path": "config.a", "op": "in", "value": [1, {"b": 2}]}},
                       {"any": [{"path": "context.a", "op": "regex", "value": "(?i)x+"}]}]}),
    ] {
        let parsed = parsed(&condition);
        assert_eq!(parsed.to_json(), condition);
        assert_eq!(Condition::parse(&parsed.to_json(), Roots::Step), Ok(parsed));
    }
}

/// Reasons go to logs: what a configuration or a payload says stays out of them.
#[test]
fn a_reason_never_shows_a_value() {
    let payload = raw(r#"{"token":"canary-1","n":"canary-2"}"#);
    let scope = Scope { payload: Some(&payload), ..Scope::default() };
    for operator in ["eq", "neq", "contains", "startswith", "endswith", "regex"] {
        let condition = json!({"any": [{"path": "payload.token", "op": operator, "value": "canary-3"},
                                       {"path": "payload.n", "op": "gt", "value": 424_242}]});
        let reason = parsed(&condition).evaluate(&scope).reason;
        assert!(!reason.contains("canary") && !reason.contains("424242"), "{reason}");
    }
}
