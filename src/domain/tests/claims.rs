//! What `with` and `baggage` make of a payload.

use ductile_domain::baggage::{Baggage, BaggageFault, MAX_BYTES, MAX_CLAIMS, MAX_NESTING};
use ductile_domain::path::Scope;
use ductile_domain::raw::Kind;
use ductile_domain::template::{RenderError, Template, With};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const PAYLOAD: &str = r#"{
    "count": 12345678901234567890123, "price": 1.10, "status": "ok \"quoted\" \u00e9", "none": null, "yes": true,
    "list": [1.0, { "a" : "b c" }], "url": "https://example.org", "half": "\udc80",
    "metadata": {"lang": "de", "odd name": {"x": 1e3}, "score": 0.10}
}"#;
const CONTEXT: &str =
    r#"{"web":{"url":"https://example.org","n":1.50},"origin_plugin":"fetch","ductile":{"root":"p"}}"#;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("valid JSON")
}

fn render(text: &str) -> Result<String, RenderError> {
    let (payload, context) = (raw(PAYLOAD), raw(CONTEXT));
    let scope = Scope { payload: Some(&payload), context: Some(&context), config: None };
    let template = Template::parse(text).map_err(RenderError::Malformed)?;
    template.render(&scope).map(|value| value.get().to_owned())
}

/// PIP-28: a pure reference is a copy, anything else a text; braces are doubled.
#[test]
fn a_reference_alone_keeps_its_type_and_spelling_and_everything_else_is_text() {
    for (template, expected) in [
        ("{payload.count}", "12345678901234567890123"),
        ("{payload.price}", "1.10"),
        ("{ payload.price }", "1.10"),
        ("{payload.none}", "null"),
        ("{payload.yes}", "true"),
        ("{payload.status}", r#""ok \"quoted\" \u00e9""#),
        ("{payload.half}", r#""\udc80""#),
        ("{payload.list}", r#"[1.0, { "a" : "b c" }]"#),
        ("{payload.list.1.a}", r#""b c""#),
        ("{context.web.n}", "1.50"),
        ("Build: {payload.status}", r#""Build: ok \"quoted\" \u00e9""#),
        ("{payload.price} ", r#""1.10 ""#),
        ("{payload.count}{payload.price}", r#""123456789012345678901231.10""#),
        ("<{payload.none}|{payload.yes}>", r#""<null|true>""#),
        ("={payload.list}", r#""=[1.0,{\"a\":\"b c\"}]""#),
        ("={payload.half}", r#""=\udc80""#),
        ("{{payload.count}}", r#""{payload.count}""#),
        ("{{{payload.price}}}", r#""{1.10}""#),
        ("{{}}", r#""{}""#),
        ("", r#""""#),
        ("a \"b\"\n\\", r#""a \"b\"\n\\""#),
    ] {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
    let payload = raw(r#"{"a":1}"#);
    let scope = Scope { payload: Some(&payload), ..Scope::default() };
    let whole = Template::parse("{payload}").expect("the whole payload").render(&scope).expect("present");
    assert_eq!(whole.get(), r#"{"a":1}"#);
}

/// PIP-29: nothing is substituted for what is missing or malformed.
#[test]
fn a_missing_path_or_a_malformed_template_is_an_error_that_names_it() {
    for (template, part) in [
        ("{payload.nope}", "path \"payload.nope\" is missing"),
        ("x {context.web.nope} y", "path \"context.web.nope\" is missing"),
        ("{payload.list.2}", "path \"payload.list.2\" is missing"),
        ("{payload.url", "\"{\" without its partner"),
        ("payload.url}", "\"}\" without its partner"),
        ("{{{payload.url}}", "\"}\" without its partner"),
        ("{}", "must begin with one of payload.*, context.*"),
        ("{config.secret}", "not allowed here"),
        ("{env.HOME}", "must begin with one of"),
        ("{payload..x}", "empty segment"),
        ("{payload.a b}", "segments are"),
        ("{payload.{payload.a}}", "segments are"),
    ] {
        let error = render(template).expect_err(template).to_string();
        assert!(error.contains(part), "{template}: {error}");
    }
    let error = Template::parse("{\"a\": 1}").expect_err("JSON is no template");
    assert!(error.to_string().contains("a brace itself is written twice"), "{error}");
}

/// PIP-27, PIP-29: entries read one snapshot; what is no text is itself; texts are templates at any depth.
#[test]
fn with_values_are_rendered_from_one_snapshot() {
    let (payload, context) = (raw(PAYLOAD), raw(CONTEXT));
    let scope = Scope { payload: Some(&payload), context: Some(&context), config: None };
    let with = json!({"count": 7, "status": "{payload.count}", "twice": "{payload.status}", "flag": false, "gone": null,
                      "deep": {"list": ["{payload.price}", 2, {"k {x}": "n={context.web.n}"}], "empty": {}}});
    let with = With::parse(with.as_object().expect("an object"));
    assert!(with.faults().is_empty() && !with.is_empty());
    let rendered = with.render(&scope).expect("all paths exist");
    let rendered: Vec<(&str, &str)> = rendered.iter().map(|(key, value)| (*key, value.get())).collect();
    assert_eq!(
        rendered,
        [
            ("count", "7"),
            ("deep", r#"{"empty":{},"list":[1.10,2,{"k {x}":"n=1.50"}]}"#),
            ("flag", "false"),
            ("gone", "null"),
            ("status", "12345678901234567890123"),
            ("twice", r#""ok \"quoted\" \u00e9""#),
        ]
    );
    let bad = json!({"a": "{payload.url}", "b": {"c": ["{oops"]}, "d": "{payload.nope}"});
    let bad = With::parse(bad.as_object().expect("an object"));
    assert_eq!(bad.faults().iter().map(|fault| fault.at.as_str()).collect::<Vec<_>>(), ["b.c[0]"]);
    let error = bad.render(&scope).expect_err("malformed").to_string();
    assert!(error.starts_with("with \"b\": \"{\" without its partner"), "{error}");
    assert!(With::default().render(&scope).expect("nothing to do").is_empty());
}

#[test]
fn with_cannot_grow_without_end() {
    let payload = raw(&format!(r#"{{"big":"{}"}}"#, "x".repeat(1 << 20)));
    let scope = Scope { payload: Some(&payload), ..Scope::default() };
    let many = Template::parse(&"{payload.big}".repeat(100)).expect("a template");
    assert_eq!(many.render(&scope).map(|_| ()), Err(RenderError::TooLarge));
    let list = json!({"l": vec!["{payload.big}"; 100]});
    let with = With::parse(list.as_object().expect("an object"));
    assert_eq!(with.render(&scope).map(|_| ()).expect_err("too large").error, RenderError::TooLarge);
    let deep = (0..1000).fold(json!(1), |inside, _| json!([inside]));
    let deep = With::parse(json!({"d": deep}).as_object().expect("an object"));
    assert_eq!(deep.faults().len(), 1);
}

fn claim_with(baggage: &Value, payload: &str, context: Option<&str>) -> Result<String, BaggageFault> {
    let (payload, context) = (raw(payload), context.map(raw));
    let scope = Scope { payload: Some(&payload), context: context.as_deref(), config: None };
    let baggage = Baggage::parse(baggage).unwrap_or_else(|faults| panic!("{baggage}: {faults:?}"));
    baggage.claim(context.as_deref(), &scope).map(|value| value.get().to_owned())
}

/// PIP-32, PIP-37: claims land under their durable path, as they were written; nothing else changes.
#[test]
fn claims_are_added_below_what_was_inherited() {
    for (baggage, context, expected) in [
        (json!({"a": "payload.price"}), None, r#"{"a":1.10}"#),
        (
            json!({"a.b": "payload.count", "a.c": "payload.none"}),
            None,
            r#"{"a":{"b":12345678901234567890123,"c":null}}"#,
        ),
        (json!({"web.n2": "context.web.n"}), Some(r#"{"web":{"n":1.50}}"#), r#"{"web":{"n":1.50,"n2":1.50}}"#),
        (json!({"z": "payload.list"}), Some(r#"{"k": [1 , 2.0]}"#), r#"{"k":[1 , 2.0],"z":[1.0, { "a" : "b c" }]}"#),
        (json!({}), Some(r#"{"k": 1.0}"#), r#"{"k": 1.0}"#),
        (json!({}), None, "{}"),
    ] {
        assert_eq!(claim_with(&baggage, PAYLOAD, context).as_deref(), Ok(expected), "{baggage}");
    }
}

/// PIP-33: a missing source fails the claim.
#[test]
fn a_missing_source_is_named() {
    let error = claim_with(&json!({"web.url": "payload.nope"}), PAYLOAD, None).expect_err("missing");
    assert_eq!(error.to_string(), "baggage path \"web.url\": path \"payload.nope\" is missing");
    let error = claim_with(&json!({"web.url": "context.a"}), PAYLOAD, None).expect_err("missing");
    assert_eq!(error, BaggageFault::Missing { key: "web.url".into(), path: "context.a".into() });
}

/// PIP-34: what was claimed stays as it is; the same value may be claimed again.
#[test]
fn inherited_paths_are_immutable() {
    let inherited = r#"{"web":{"url":"https://example.org","n":1.50,"tags":["a"],"deep":{"x":1}},"n":null}"#;
    for (key, value, conflict) in [
        ("web.url", r#""https:\/\/example.org""#, None),
        ("web.n", "1.5", None),
        ("web.n", "15e-1", None),
        ("web.tags", r#"[ "a" ]"#, None),
        ("web.deep", r#"{"x":1}"#, None),
        ("web.deep", r#"{}"#, None),
        ("web.deep", r#"{"y":2}"#, None),
        ("web.new", "1", None),
        ("web.url", r#""https://example.com""#, Some("web.url")),
        ("web.n", "\"1.50\"", Some("web.n")),
        ("web.tags", r#"["a","b"]"#, Some("web.tags")),
        ("web.deep", r#"{"x":2}"#, Some("web.deep.x")),
        ("web.deep.x.y", "1", Some("web.deep.x")),
        ("web.deep", "1", Some("web.deep")),
        ("web", r#"{"deep":{"x":{"y":1}}}"#, Some("web.deep.x")),
        ("web", "null", Some("web")),
        ("n", "1", Some("n")),
        ("n.x", "1", Some("n")),
    ] {
        let answer = claim_with(&json!({key: "payload.v"}), &format!(r#"{{"v":{value}}}"#), Some(inherited));
        match conflict {
            None => {
                let accumulated = answer.unwrap_or_else(|fault| panic!("{key} {value}: {fault}"));
                assert!(accumulated.contains(r#""n":1.50"#), "the first spelling stays: {accumulated}");
            }
            Some(path) => {
                let fault = answer.expect_err(key);
                assert_eq!(fault.to_string(), format!("baggage path \"{path}\" is immutable"), "{key} {value}");
            }
        }
    }
}

/// PIP-35, PIP-36: an object is imported under a namespace that the author names.
#[test]
fn a_bulk_import_needs_an_object_and_a_namespace() {
    let bulk = json!({"from": "payload.metadata", "namespace": "whisper.first"});
    assert_eq!(
        claim_with(&bulk, PAYLOAD, Some(r#"{"whisper":{"first":{"lang":"de"}}}"#)).as_deref(),
        Ok(r#"{"whisper":{"first":{"lang":"de","odd name":{"x": 1e3},"score":0.10}}}"#)
    );
    assert_eq!(
        claim_with(&bulk, PAYLOAD, Some(r#"{"whisper":{"first":{"score":0.2}}}"#)),
        Err(BaggageFault::Immutable { path: "whisper.first.score".into() })
    );
    let text = json!({"from": "payload.url", "namespace": "w"});
    assert_eq!(
        claim_with(&text, PAYLOAD, None),
        Err(BaggageFault::NotAnObject { path: "payload.url".into(), kind: Kind::Text })
    );
    let missing = Baggage::parse(&json!({"from": "payload.metadata"})).expect_err("no namespace");
    assert_eq!(missing.len(), 1);
    assert!(missing[0].at == "namespace" && missing[0].message.contains("missing"), "{}", missing[0]);
    let whole = json!({"from": "payload", "namespace": "all"});
    assert_eq!(claim_with(&whole, r#"{"a":1}"#, None).as_deref(), Ok(r#"{"all":{"a":1}}"#));
}

/// PIP-39: the gateway's own names; and the grammar of durable paths.
#[test]
fn what_cannot_be_claimed_is_refused_when_it_is_loaded() {
    let many: Value =
        (0..=MAX_CLAIMS).map(|i| (format!("k{i}"), json!("payload.a"))).collect::<serde_json::Map<_, _>>().into();
    for (baggage, at, part) in [
        (json!({"origin_plugin": "payload.a"}), "origin_plugin", "set by the gateway"),
        (json!({"origin_x.y": "payload.a"}), "origin_x.y", "set by the gateway"),
        (json!({"ductile.route_depth": "payload.a"}), "ductile.route_depth", "set by the gateway"),
        (json!({"ductile_plugin": "payload.a"}), "ductile_plugin", "set by the gateway"),
        (json!({"from": "payload.a", "namespace": "origin_x"}), "namespace", "set by the gateway"),
        (json!({"from": "payload.a", "namespace": ""}), "namespace", "no durable path"),
        (json!({"from": "payload.a", "namespace": 3}), "namespace", "needs a durable path, not a number"),
        (json!({"from": "payload.a", "namespace": "w", "x": "payload.b"}), "x", "beside a bulk import"),
        (json!({"web url": "payload.a"}), "web url", "no durable path"),
        (json!({"web-url": "payload.a"}), "web-url", "no durable path"),
        (json!({"1st": "payload.a"}), "1st", "no durable path"),
        (json!({"web..url": "payload.a"}), "web..url", "no durable path"),
        (json!({"a.": "payload.a"}), "a.", "no durable path"),
        (json!({"größe": "payload.a"}), "größe", "no durable path"),
        (json!({"web": "payload.a", "web.url": "payload.b"}), "web.url", "lies inside \"web\""),
        (json!({"web": {"url": "payload.a"}}), "web", "not an object"),
        (json!({"web": "{payload.a}"}), "web", "must begin"),
        (json!({"web": "config.a"}), "web", "not allowed here"),
        (json!({"web": "literal"}), "web", "must begin"),
        (json!({"web": 3}), "web", "needs a source such as payload.url, not a number"),
        (json!(["payload.a"]), "", "not a list"),
        (many, "", "257 claims"),
    ] {
        let faults = Baggage::parse(&baggage).expect_err(&baggage.to_string());
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].at, at);
        assert!(faults[0].message.contains(part), "{}", faults[0]);
    }
    let faults = Baggage::parse(&json!({"origin_a": "x", "b": 1})).expect_err("three faults");
    assert_eq!(faults.iter().map(|fault| fault.at.as_str()).collect::<Vec<_>>(), ["b", "origin_a", "origin_a"]);
    let fault = &Baggage::parse(&json!({"web": "{payload.a}"})).expect_err("braces")[0];
    assert_eq!(fault.hint.as_deref(), Some("write payload.a without braces"));
    assert!(Baggage::parse(&json!({"web": "payload.a", "web2.url": "payload.b", "trace_id": "payload.c"})).is_ok());
}

/// The size that is refused is told with its limit.
#[test]
fn baggage_has_a_largest_size_and_nesting() {
    let half = "x".repeat(MAX_BYTES / 2);
    let inherited = format!(r#"{{"a":"{half}"}}"#);
    let payload = |size: usize| format!(r#"{{"v":"{}"}}"#, "x".repeat(size));
    let claim = json!({"b": "payload.v"});
    let around = r#"{"a":"","b":""}"#.len();
    let fits = claim_with(&claim, &payload(MAX_BYTES / 2 - around), Some(&inherited)).expect("exactly the limit");
    assert_eq!(fits.len(), MAX_BYTES);
    assert_eq!(
        claim_with(&claim, &payload(MAX_BYTES / 2 - around + 1), Some(&inherited)),
        Err(BaggageFault::TooLarge { bytes_actual: MAX_BYTES + 1, bytes_limit: MAX_BYTES })
    );
    let deep = |n: usize| format!(r#"{{"v":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(claim_with(&claim, &deep(MAX_NESTING - 1), None).is_ok());
    assert_eq!(claim_with(&claim, &deep(MAX_NESTING), None), Err(BaggageFault::TooDeep { key: "b".into() }));
    assert_eq!(claim_with(&claim, &deep(400_000), None), Err(BaggageFault::TooDeep { key: "b".into() }));
}
