//! PIP-52: every small change of every example, judged by the schema and by the gateway.

use std::collections::BTreeMap;

use ductile_domain::catalog::Catalog;
use ductile_domain::config::Config;
use ductile_domain::pipeline::Pipelines;
use ductile_domain::problem::Problem;
use serde_json::{Map, Value, json};

use crate::cookbook;
use crate::schemas::{PIPELINES, validator};
use crate::verdict::{home, lines, loaded, loaded_text, named, plugins};

/// What only the gateway can tell: names that must exist or be unique, syntax inside texts, rules between steps, limits.
const BEYOND_A_SCHEMA: &[&str] = &[
    "no plugin or alias is named",
    "has no command",
    "no pipeline is named",
    "calls",
    "no instance is named",
    "another step is named",
    "an earlier pipeline is named",
    "no split directly before",
    "bad pattern",
    "not allowed here",
    "means nothing beside",
    "lies inside",
    "segment",
    "could not be compiled",
];

/// All values below, each with the way to it.
fn ways(value: &Value, way: &mut Vec<Value>, found: &mut Vec<Vec<Value>>) {
    found.push(way.clone());
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                way.push(json!(key));
                ways(child, way, found);
                way.pop();
            }
        }
        Value::Array(items) => {
            for (i, child) in items.iter().enumerate() {
                way.push(json!(i));
                ways(child, way, found);
                way.pop();
            }
        }
        _ => {}
    }
}

fn at<'a>(root: &'a mut Value, way: &[Value]) -> &'a mut Value {
    way.iter().fold(root, |value, step| match step {
        Value::String(key) => value.get_mut(key).expect("the way exists"),
        index => value.get_mut(usize::try_from(index.as_u64().expect("an index")).expect("small")).expect("it exists"),
    })
}

/// The document with one value removed, replaced by others, or given a key that nobody knows.
fn mutants(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    ways(document, &mut Vec::new(), &mut all);
    let mut mutants = Vec::new();
    for way in all.iter().filter(|way| way.len() > 1) {
        let shown: Vec<String> = way.iter().map(Value::to_string).collect();
        let shown = shown.join("/");
        for (word, new) in [
            ("null", Value::Null),
            ("true", json!(true)),
            ("a number", json!(-3)),
            ("an empty text", json!("")),
            ("a text", json!("odd text")),
            ("an empty list", json!([])),
            ("an empty map", json!({})),
        ] {
            let mut mutant = document.clone();
            *at(&mut mutant, way) = new;
            mutants.push((format!("{shown} = {word}"), mutant));
        }
        let mut mutant = document.clone();
        if let Some(map) = at(&mut mutant, way).as_object_mut() {
            map.insert("surplus".to_owned(), json!("payload.x"));
            mutants.push((format!("{shown} has a surplus key"), mutant));
        }
        let (last, parent) = way.split_last().expect("not the root");
        let mut mutant = document.clone();
        match (at(&mut mutant, parent), last) {
            (Value::Object(map), Value::String(key)) => drop(map.remove(key)),
            (Value::Array(items), index) => {
                drop(items.remove(usize::try_from(index.as_u64().expect("an index")).expect("small")));
            }
            _ => continue,
        }
        mutants.push((format!("{shown} removed"), mutant));
    }
    mutants
}

fn verdict(config: &mut Config, catalog: &Catalog, document: &Value) -> Vec<Problem> {
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    (config.pipelines, config.routes) = (list("pipelines"), list("routes"));
    Pipelines::compile(config, catalog).1.into_iter().filter(Problem::is_error).collect()
}

#[test]
fn the_schema_and_the_gateway_judge_every_small_change_alike() {
    let schema = validator(PIPELINES);
    let mut counts: BTreeMap<(bool, bool), usize> = BTreeMap::new();
    for file in cookbook::files() {
        let loaded = loaded(&file, &home);
        let found = plugins(named(&loaded.config).iter().map(String::as_str));
        let entries: String = found.keys().map(|name| format!("  {name}: {{}}\n")).collect();
        let mut config = loaded_text(&format!("plugins:\n{entries}")).expect("entries").config;
        config.instances.clone_from(&loaded.config.instances);
        let (catalog, _) = Catalog::build(&config, &found);
        let mut document = Map::new();
        for (key, list) in [("pipelines", &loaded.config.pipelines), ("routes", &loaded.config.routes)] {
            document.insert(key.to_owned(), json!(list));
        }
        for (change, mutant) in mutants(&Value::Object(document)) {
            let errors = verdict(&mut config, &catalog, &mutant);
            let accepts = schema.is_valid(&mutant);
            *counts.entry((accepts, errors.is_empty())).or_default() += 1;
            assert!(accepts || !errors.is_empty(), "{}: only the schema refuses {change}", file.display());
            let is_beyond = |p: &Problem| BEYOND_A_SCHEMA.iter().any(|words| p.message.contains(words));
            let blind = accepts && !errors.is_empty() && !errors.iter().all(is_beyond);
            assert!(!blind, "{}: only the gateway refuses {change}:\n{}", file.display(), lines(&errors));
        }
    }
    // Neither side just nods or shakes its head.
    assert!(counts.get(&(true, true)).is_some_and(|n| *n > 100), "{counts:?}");
    assert!(counts.get(&(false, false)).is_some_and(|n| *n > 1000), "{counts:?}");
    assert!(counts.get(&(true, false)).is_some_and(|n| *n > 40), "{counts:?}");
}
