//! Claims: parse and accrete; what was inherited stays, and claiming again changes nothing.

use ductile_domain::baggage::Baggage;
use ductile_domain::path::Scope;
use ductile_domain::raw::{Kind, Raw};
use ductile_domain::same::same;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Target, check, reached, shape};
use crate::mutate::SEPARATOR;

pub(super) const TARGET: Target = Target { name: "baggage", seeds: SEEDS, words: WORDS, run };

const SEEDS: &[&str] = &[
    "{\"web.url\":\"payload.url\",\"web.n\":\"payload.n\"}\n---\n{\"url\":\"x\",\"n\":1.10}\n---\n{\"web\":{\"url\":\"x\"}}",
    "{\"from\":\"payload.m\",\"namespace\":\"a.b\"}\n---\n{\"m\":{\"x\":{\"y\":[1]},\"z\":null}}\n---\n{\"a\":{\"b\":{\"x\":{}}}}",
    "{\"a\":\"payload.m\",\"b\":\"context.a\"}\n---\n{\"m\":{\"x\":1,\"x\":2}}\n---\n{\"a\":{\"x\":2.0}}",
    "{\"origin_x\":\"payload.a\",\"ductile.q\":\"payload.a\",\"a.b\":\"payload.a\",\"a\":\"payload.a\"}",
];

const WORDS: &[&str] = &[
    "from",
    "namespace",
    "web",
    "web.url",
    "a",
    "a.b",
    "payload.",
    "context.",
    "payload.m",
    "payload.m.x",
    "context.a",
    "origin_",
    "ductile",
    "1",
    "_",
    "x",
    "y",
    "{}",
    "\\ud800",
];

fn run(input: &str) -> Result<u64, String> {
    let mut parts = input.split(SEPARATOR);
    let Ok(tree) = serde_json::from_str::<Value>(parts.next().unwrap_or_default()) else { return Ok(0) };
    let mut raw = || parts.next().and_then(|part| RawValue::from_string(part.to_owned()).ok());
    let (payload, inherited) = (raw(), raw());
    let baggage = match Baggage::parse(&tree) {
        Ok(baggage) => baggage,
        Err(faults) => return Ok(reached(faults.iter().map(|f| shape(&f.message)).take(3).collect::<Vec<_>>())),
    };
    let scope = Scope { payload: payload.as_deref(), context: inherited.as_deref(), config: None };
    let first = match baggage.claim(inherited.as_deref(), &scope) {
        Ok(first) => first,
        Err(fault) => return Ok(reached(("fault", shape(&fault.to_string())))),
    };
    if let Some(inherited) = &inherited {
        check(is_inside(Raw::from(&**inherited), Raw::from(&*first), 0), || {
            format!("inherited values changed: {first}")
        })?;
    }
    let again = baggage.claim(Some(&first), &scope).map_err(|fault| format!("claiming again fails: {fault}"))?;
    check(again.get() == first.get(), || format!("claiming again changes {first} to {again}"))?;
    for claim in baggage.claims() {
        let wanted = claim.from.find(&scope).ok_or("a claim without a source")?;
        let found = claim.key.split('.').try_fold(Raw::from(&*first), |value, segment| value.child(segment));
        let is_there = found.is_some_and(|found| is_inside(wanted, found, 0));
        check(is_there, || format!("{} is not claimed in {first}", claim.key))?;
    }
    Ok(reached(("ok", baggage.claims().len(), first.get().len().ilog2(), Raw::from(&*first).nesting())))
}

/// True when everything in `part` is in `whole` with the same value.
fn is_inside(part: Raw<'_>, whole: Raw<'_>, depth: usize) -> bool {
    if part.kind() != Kind::Object || depth > 200 {
        return same(part, whole);
    }
    let whole = whole.unique_members();
    let find = |key: &str| whole.iter().find(|(other, _)| other == key).map(|(_, value)| *value);
    part.unique_members()
        .into_iter()
        .all(|(key, value)| find(&key).is_some_and(|found| is_inside(value, found, depth + 1)))
}
