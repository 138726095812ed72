//! For arbitrary trees and payloads: reading answers, deciding repeats itself, claims only ever add.

use std::collections::BTreeMap;

use ductile_domain::baggage::{Baggage, BaggageFault};
use ductile_domain::condition::{Condition, Operator};
use ductile_domain::number;
use ductile_domain::path::{Path, Roots, Scope};
use ductile_domain::raw::{Object, Raw};
use ductile_domain::same::same;
use ductile_domain::template::{Template, With};
use proptest::prelude::*;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("a tree can be written")
}

fn object(members: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(members.into_iter().collect::<Map<_, _>>())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[a-z_][a-z0-9_]{0,5}"]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Eighths: every reader of JSON agrees on them.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[a-cA-C]{0,3}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inside), 0..4).prop_map(object),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    prop::collection::vec((name(), tree()), 0..5).prop_map(object)
}

fn map_texts(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(list) => list.iter().map(|one| map_texts(one, change)).collect(),
        Value::Object(map) => object(map.iter().map(|(key, one)| (key.clone(), map_texts(one, change)))),
        other => other.clone(),
    }
}

/// What comes close to a condition.
fn almost_a_condition() -> impl Strategy<Value = Value> {
    let words: Vec<&str> = Operator::ALL.map(Operator::word).to_vec();
    let path = prop_oneof![
        ("payload|context|config", name()).prop_map(|(root, name)| format!("{root}.{name}")),
        ("payload|context", name(), name()).prop_map(|(root, a, b)| format!("{root}.{a}.{b}")),
        "payload(\\.[0-9a-c]{1,2}){1,3}",
        any::<String>(),
    ];
    let operator = prop_oneof![12 => prop::sample::select(words).prop_map(str::to_owned), 1 => any::<String>()];
    let atom = (path, operator, prop::option::of(tree())).prop_map(|(path, operator, value)| {
        let mut map = json!({"path": path, "op": operator});
        if let Some(value) = value {
            map["value"] = value;
        }
        map
    });
    atom.prop_recursive(5, 24, 3, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..4).prop_map(|list| json!({"all": list})),
            prop::collection::vec(inside.clone(), 0..4).prop_map(|list| json!({"any": list})),
            inside.prop_map(|child| json!({"not": child})),
            tree(),
        ]
    })
}

/// A condition that is accepted: a predicate per operator with a fitting operand, grouped.
fn condition() -> impl Strategy<Value = Value> {
    let path = ("payload|context", name()).prop_map(|(root, name)| format!("{root}.{name}"));
    let asked = prop_oneof![
        Just(json!({"op": "exists"})),
        (prop::sample::select(vec!["eq", "neq"]), tree()).prop_map(|(op, value)| json!({"op": op, "value": value})),
        prop::collection::vec(tree(), 0..3).prop_map(|list| json!({"op": "in", "value": list})),
        (prop::sample::select(vec!["gt", "gte", "lt", "lte"]), -3i64..4)
            .prop_map(|(op, value)| json!({"op": op, "value": value})),
        (prop::sample::select(vec!["contains", "startswith", "endswith"]), "[a-cA-C]{0,2}")
            .prop_map(|(op, value)| json!({"op": op, "value": value})),
        "[a-c]{0,2}[.]?[*]?"
            .prop_filter("a repetition needs something", |p| p != "*")
            .prop_map(|p| json!({"op": "regex", "value": p})),
    ];
    let atom = (path, asked).prop_map(|(path, mut asked)| {
        asked["path"] = Value::from(path);
        asked
    });
    atom.prop_recursive(3, 12, 3, |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 1..4).prop_map(|list| json!({"all": list})),
            prop::collection::vec(inside.clone(), 1..4).prop_map(|list| json!({"any": list})),
            inside.prop_map(|child| json!({"not": child})),
        ]
    })
}

/// Durable paths with their values: none inside another.
fn claims() -> impl Strategy<Value = BTreeMap<String, Value>> {
    prop::collection::btree_map("[a-c](\\.[a-c]){0,2}", tree(), 0..5).prop_map(|mut claims| {
        let keys: Vec<String> = claims.keys().cloned().collect();
        claims.retain(|key, _| {
            !keys.iter().any(|outer| key.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.')))
        });
        claims
    })
}

/// Claims the values one after the other; the payload has them under `0`, `1`, ...
fn claim(inherited: Option<&RawValue>, claims: &BTreeMap<String, Value>) -> Result<Box<RawValue>, BaggageFault> {
    let payload = raw(&object(claims.values().enumerate().map(|(i, value)| (i.to_string(), value.clone()))));
    let sources = object(claims.keys().enumerate().map(|(i, key)| (key.clone(), json!(format!("payload.{i}")))));
    let scope = Scope { payload: Some(&payload), context: inherited, config: None };
    Baggage::parse(&sources).expect("durable paths").claim(inherited, &scope)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_a_condition_or_says_why_not(tree in prop_oneof![almost_a_condition(), tree()]) {
        match Condition::parse(&tree, Roots::Step) {
            Ok(condition) => {
                let shown = condition.to_json();
                prop_assert_eq!(Condition::parse(&shown, Roots::Step), Ok(condition), "{} is shown as {}", tree, shown);
            }
            Err(faults) => prop_assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty())),
        }
    }

    #[test]
    fn deciding_repeats_itself_and_not_is_the_opposite(tree in condition(), payload in document(), context in document()) {
        let (payload, context) = (raw(&payload), raw(&context));
        let scope = Scope { payload: Some(&payload), context: Some(&context), config: None };
        let condition = Condition::parse(&tree, Roots::Data).expect("a condition");
        let verdict = condition.evaluate(&scope);
        prop_assert_eq!(&condition.evaluate(&scope), &verdict);
        prop_assert!(!verdict.reason.is_empty());
        let not = Condition::parse(&json!({"not": tree}), Roots::Data).expect("a condition");
        prop_assert_eq!(not.evaluate(&scope).holds, !verdict.holds);
        let all = Condition::parse(&json!({"all": [tree, tree]}), Roots::Data).expect("a condition");
        let any = Condition::parse(&json!({"any": [tree, {"not": tree}]}), Roots::Data).expect("a condition");
        prop_assert_eq!(all.evaluate(&scope).holds, verdict.holds);
        prop_assert!(any.evaluate(&scope).holds);
    }

    /// PIP-18: a path that leads nowhere is a null that does not exist.
    #[test]
    fn an_absent_path_decides_like_null_except_for_exists(value in tree(), payload in document()) {
        let (payload, null) = (raw(&payload), raw(&json!({"here": null})));
        let (there, here) = (
            Scope { payload: Some(&payload), ..Scope::default() },
            Scope { payload: Some(&null), ..Scope::default() },
        );
        for operator in Operator::ALL {
            let ask = |path: &str| {
                let mut tree = json!({"path": path, "op": operator.word()});
                if operator != Operator::Exists {
                    tree["value"] = value.clone();
                }
                Condition::parse(&tree, Roots::Data)
            };
            if let (Ok(absent), Ok(is_null)) = (ask("payload.never-there"), ask("payload.here")) {
                let (absent, is_null) = (absent.evaluate(&there).holds, is_null.evaluate(&here).holds);
                prop_assert_eq!(absent != is_null, operator == Operator::Exists, "{}", operator);
            }
        }
    }

    #[test]
    fn any_text_is_a_path_that_reads_back_or_is_refused(text in prop_oneof![any::<String>(), "payload[.a-c0-9_-]{0,9}"]) {
        if let Ok(path) = Path::parse(&text, Roots::Step) {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn looking_into_text_finds_what_a_tree_has(payload in document(), segments in prop::collection::vec("[a-c]|[0-2]", 0..4)) {
        let path = Path::parse(format!("payload.{}", segments.join(".")).trim_end_matches('.'), Roots::Data);
        let path = path.expect("a path");
        let text = raw(&payload);
        let found = path.find(&Scope { payload: Some(&text), ..Scope::default() });
        let found = found.map(|raw| serde_json::from_str::<Value>(raw.get()).expect("valid JSON"));
        prop_assert_eq!(found.as_ref(), path.lookup(&payload));
    }

    #[test]
    fn any_text_is_a_template_or_malformed_and_doubled_braces_give_it_back(text in any::<String>(), payload in document()) {
        let payload = raw(&payload);
        let scope = Scope { payload: Some(&payload), ..Scope::default() };
        if let Ok(template) = Template::parse(&text) {
            let _ = template.render(&scope);
        }
        let doubled = text.replace('{', "{{").replace('}', "}}");
        let itself = Template::parse(&doubled).expect("a literal").render(&scope).expect("a literal");
        prop_assert_eq!(serde_json::from_str::<Value>(itself.get()).expect("valid JSON"), Value::from(text));
    }

    /// PIP-28: a reference is a copy; between other characters it is text that a reader finds again.
    #[test]
    fn a_reference_gives_the_value_back(value in tree()) {
        let payload = raw(&json!({"v": value}));
        let scope = Scope { payload: Some(&payload), ..Scope::default() };
        let copy = Template::parse("{payload.v}").expect("a template").render(&scope).expect("present");
        prop_assert_eq!(copy.get(), value.to_string());
        let mixed = Template::parse("<{payload.v}>").expect("a template").render(&scope).expect("present");
        let mixed: String = serde_json::from_str(mixed.get()).expect("a text");
        let expected = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        prop_assert_eq!(mixed, format!("<{expected}>"));
    }

    /// PIP-27: what has no reference is literal, whatever its type.
    #[test]
    fn with_without_references_is_what_was_written(value in tree()) {
        let doubled = map_texts(&value, &|text| text.replace('{', "{{").replace('}', "}}"));
        let with = With::parse(&Map::from_iter([("k".to_owned(), doubled)]));
        prop_assert_eq!(with.faults(), []);
        let rendered = with.render(&Scope::default()).expect("no reference");
        prop_assert_eq!(serde_json::from_str::<Value>(rendered[0].1.get()).expect("valid JSON"), value);
    }

    #[test]
    fn numbers_compare_like_integers_and_floats(a in any::<i64>(), b in any::<i64>(), x in any::<f64>(), y in any::<f64>()) {
        prop_assert_eq!(number::compare(&a.to_string(), &b.to_string()), a.cmp(&b));
        let spelled_out = format!("{a}.000e0");
        prop_assert!(number::compare(&a.to_string(), &spelled_out).is_eq());
        prop_assume!(x.is_finite() && y.is_finite());
        let (left, right) = (Value::from(x).to_string(), Value::from(y).to_string());
        prop_assert_eq!(Some(number::compare(&left, &right)), x.partial_cmp(&y));
    }

    #[test]
    fn an_object_that_is_read_and_written_is_the_same(tree in document()) {
        let text = raw(&tree);
        let object = Object::read(Raw::from(&*text)).expect("an object");
        let written = object.to_raw_value();
        prop_assert_eq!(written.get(), text.get());
        let compact = Raw::from(&*text).compact();
        prop_assert_eq!(serde_json::from_str::<Value>(&compact).expect("valid JSON"), tree);
    }

    /// PIP-34: what was there stays there, claiming again changes nothing, and a conflict is a fault.
    #[test]
    fn claims_only_add(first in claims(), second in claims()) {
        let one = claim(None, &first).expect("nothing was there");
        let again = claim(Some(&one), &first).expect("the same values");
        prop_assert_eq!(again.get(), one.get());
        match claim(Some(&one), &second) {
            Ok(both) => {
                let here = Raw::from(&*both);
                for (key, value) in first.iter().chain(&second) {
                    let found = key.split('.').try_fold(here, |value, segment| value.child(segment));
                    let found = found.expect("a claimed path is there");
                    let value = raw(value);
                    prop_assert!(value.get().starts_with('{') || same(found, Raw::from(&*value)), "{} in {}", key, both);
                }
            }
            Err(fault) => {
                prop_assert!(matches!(fault, BaggageFault::Immutable { .. }), "{}", fault);
                prop_assert!(!first.is_empty() && !second.is_empty());
            }
        }
    }

    /// The order and the grouping of hops don't matter to what is known in the end.
    #[test]
    fn accretion_is_associative_and_commutative(a in claims(), b in claims(), c in claims()) {
        let chain = |hops: [&BTreeMap<String, Value>; 3]| {
            hops.into_iter().try_fold(None::<Box<RawValue>>, |so_far, hop| claim(so_far.as_deref(), hop).map(Some))
        };
        let forward = chain([&a, &b, &c]);
        let backward = chain([&c, &b, &a]);
        prop_assert_eq!(forward.is_ok(), backward.is_ok());
        if let (Ok(Some(forward)), Ok(Some(backward))) = (forward, backward) {
            prop_assert!(same(Raw::from(&*forward), Raw::from(&*backward)), "{} and {}", forward, backward);
            // b and c at once: the same as one after the other, where one step can claim both.
            let mut together = b.clone();
            together.extend(c.clone());
            let keys: Vec<&String> = together.keys().collect();
            let is_one_step = keys.iter().all(|key| {
                !keys.iter().any(|outer| key.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('.')))
            }) && b.keys().all(|key| !c.contains_key(key));
            if is_one_step {
                let base = claim(None, &a).expect("nothing was there");
                let grouped = claim(Some(&base), &together).expect("each hop could");
                prop_assert!(same(Raw::from(&*forward), Raw::from(&*grouped)), "{} and {}", forward, grouped);
            }
        }
    }
}
