//! Conditions: parse, show, evaluate, and compare with a plain evaluator wherever trees of values suffice.

use std::cmp::Ordering;

use ductile_domain::condition::Condition;
use ductile_domain::path::{Path, Root, Roots, Scope};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Target, check, reached, shape};
use crate::mutate::SEPARATOR;

pub(super) const TARGET: Target = Target { name: "condition", seeds: SEEDS, words: WORDS, run };

const SEEDS: &[&str] = &[
    "{\"path\":\"payload.a\",\"op\":\"exists\"}\n---\n{\"a\":1}\n---\n{\"x\":{\"y\":2}}",
    "{\"path\":\"context.x.y\",\"op\":\"eq\",\"value\":2}\n---\n{\"a\":1.10}\n---\n{\"x\":{\"y\":2.0}}",
    "{\"path\":\"payload.l.0\",\"op\":\"neq\",\"value\":null}\n---\n{\"l\":[null,{\"k\":\"v\"}]}\n---\nnull",
    "{\"path\":\"payload.s\",\"op\":\"in\",\"value\":[\"x\",1,true]}\n---\n{\"s\":\"x\"}\n---\n{}",
    "{\"path\":\"payload.n\",\"op\":\"gt\",\"value\":1e3}\n---\n{\"n\":12345678901234567890123}\n---\n{}",
    "{\"path\":\"payload.n\",\"op\":\"gte\",\"value\":-5}\n---\n{\"n\":-5}",
    "{\"path\":\"payload.n\",\"op\":\"lt\",\"value\":0.5}\n---\n{\"n\":\"0\"}",
    "{\"path\":\"payload.n\",\"op\":\"lte\",\"value\":0}\n---\n{\"n\":-0.0}",
    "{\"path\":\"payload.s\",\"op\":\"contains\",\"value\":\"B\"}\n---\n{\"s\":\"abc\\ud83d\\ude00\"}",
    "{\"path\":\"payload.s\",\"op\":\"startswith\",\"value\":\"İ\"}\n---\n{\"s\":\"i̇x\"}",
    "{\"path\":\"payload.s\",\"op\":\"endswith\",\"value\":\"c\"}\n---\n{\"s\":\"abC\"}",
    "{\"path\":\"payload.s\",\"op\":\"regex\",\"value\":\"(?i)a[b-d]+\\\\w*|x{2,5}\"}\n---\n{\"s\":\"ABCd\"}",
    "{\"path\":\"payload.s\",\"op\":\"regex\",\"value\":\"(?x)a # b\"}\n---\n{\"s\":\"a\"}",
    "{\"all\":[{\"path\":\"payload.a\",\"op\":\"exists\"},{\"any\":[{\"path\":\"config.m\",\"op\":\"eq\",\"value\":{\"a\":[1]}},{\"not\":{\"path\":\"context.q\",\"op\":\"exists\"}}]}]}\n---\n{\"a\":1,\"a\":2}\n---\n{\"q\":1}\n---\n{\"m\":{\"a\":[1]}}",
];

const WORDS: &[&str] = &[
    "path",
    "op",
    "value",
    "all",
    "any",
    "not",
    "exists",
    "eq",
    "neq",
    "in",
    "gt",
    "gte",
    "lt",
    "lte",
    "contains",
    "startswith",
    "endswith",
    "regex",
    "payload.",
    "context.",
    "config.",
    "payload.a",
    "payload.s",
    "payload.n",
    "payload.l.0",
    ".0",
    "-",
    "_",
    "1e400",
    "1e-400",
    "0.1",
    "-0",
    "9007199254740993",
    "\\ud800",
    "(?i)",
    "(?x) #",
    "(?m)^",
    "(?s).",
    "$",
    "\\\\b",
    "\\\\pL",
    "[^a]",
    "{2,3}",
    "{1000}",
    ")|(",
    "*",
    "ß",
    "ς",
    "null",
    "true",
];

fn run(input: &str) -> Result<u64, String> {
    let mut parts = input.split(SEPARATOR);
    let Ok(tree) = serde_json::from_str::<Value>(parts.next().unwrap_or_default()) else { return Ok(0) };
    let mut raw = || parts.next().and_then(|part| RawValue::from_string(part.to_owned()).ok());
    let (payload, context, config) = (raw(), raw(), raw());
    let scope = Scope { payload: payload.as_deref(), context: context.as_deref(), config: config.as_deref() };

    let condition = match Condition::parse(&tree, Roots::Step) {
        Ok(condition) => condition,
        Err(faults) => {
            check(!faults.is_empty() && faults.iter().all(|f| !f.message.is_empty()), || {
                "a refusal says why".to_owned()
            })?;
            return Ok(reached(faults.iter().map(|f| shape(&f.message)).take(3).collect::<Vec<_>>()));
        }
    };
    let is_data = !condition.reads(Root::Config);
    check(Condition::parse(&tree, Roots::Data).is_ok() == is_data, || "only config.* differs by place".to_owned())?;
    let again =
        Condition::parse(&condition.to_json(), Roots::Step).map_err(|f| format!("what is shown is refused: {f:?}"))?;
    check(again == condition, || "what is shown is the condition".to_owned())?;
    let verdict = condition.evaluate(&scope);
    check(again.evaluate(&scope) == verdict, || "the same condition says the same".to_owned())?;
    if let Ok(opposite) = Condition::parse(&json!({"not": tree}), Roots::Step) {
        check(opposite.evaluate(&scope).holds != verdict.holds, || "not is the opposite".to_owned())?;
    }
    let trees =
        [&payload, &context, &config].map(|raw| raw.as_ref().map(|raw| serde_json::from_str::<Value>(raw.get())));
    if trees.iter().flatten().all(|tree| tree.as_ref().is_ok_and(is_plain)) && is_plain(&tree) {
        let [payload, context, config] = trees.map(|tree| tree.and_then(Result::ok));
        let plain = Plain { payload, context, config };
        if let Some(expected) = plain.evaluate(&tree) {
            check(expected == verdict.holds, || format!("a plain evaluator says {expected}: {}", verdict.reason))?;
        }
    }
    // Which operators decided, and why; not the names in the paths.
    let names_nothing = |word: &&str| !word.contains(['.', '[']);
    Ok(reached((verdict.holds, verdict.reason.split_whitespace().filter(names_nothing).collect::<Vec<_>>())))
}

/// True when a tree of floats and strings loses nothing: small whole numbers only.
fn is_plain(tree: &Value) -> bool {
    match tree {
        Value::Number(number) => number.as_i64().is_some_and(|n| n.abs() < 1 << 50),
        Value::Array(list) => list.iter().all(is_plain),
        Value::Object(map) => map.values().all(is_plain),
        _ => true,
    }
}

/// The documented meaning once more, in the plainest way.
struct Plain {
    payload: Option<Value>,
    context: Option<Value>,
    config: Option<Value>,
}

impl Plain {
    /// `None` for what it has no opinion about.
    fn evaluate(&self, tree: &Value) -> Option<bool> {
        let list =
            |key: &str| -> Option<Vec<bool>> { tree[key].as_array()?.iter().map(|c| self.evaluate(c)).collect() };
        if tree.get("all").is_some() {
            return Some(list("all")?.into_iter().all(|holds| holds));
        }
        if tree.get("any").is_some() {
            return Some(list("any")?.into_iter().any(|holds| holds));
        }
        if let Some(child) = tree.get("not") {
            return Some(!self.evaluate(child)?);
        }
        let path = Path::parse(tree["path"].as_str()?, Roots::Step).ok()?;
        let root = match path.root() {
            Root::Payload => &self.payload,
            Root::Context => &self.context,
            Root::Config => &self.config,
        };
        let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
        if path.root() == Root::Context && root.as_ref().is_none_or(is_empty) {
            return Some(false);
        }
        let found = root.as_ref().and_then(|root| path.lookup(root));
        let value = found.unwrap_or(&Value::Null);
        let operand = &tree["value"];
        let order = || value.as_i64().zip(operand.as_i64()).map(|(a, b)| a.cmp(&b));
        let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
        let texts = || value.as_str().zip(operand.as_str()).map(|(a, b)| (lower(a), lower(b)));
        Some(match tree["op"].as_str()? {
            "exists" => found.is_some(),
            "eq" => value == operand,
            "neq" => value != operand,
            "in" => operand.as_array()?.contains(value),
            "gt" => order() == Some(Ordering::Greater),
            "gte" => order().is_some_and(Ordering::is_ge),
            "lt" => order() == Some(Ordering::Less),
            "lte" => order().is_some_and(Ordering::is_le),
            "contains" => texts().is_some_and(|(a, b)| a.contains(&b)),
            "startswith" => texts().is_some_and(|(a, b)| a.starts_with(&b)),
            "endswith" => texts().is_some_and(|(a, b)| a.ends_with(&b)),
            _ => return None,
        })
    }
}
