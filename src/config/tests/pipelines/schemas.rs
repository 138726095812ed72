//! CFG-33, PIP-52: the published schemas and the gateway come to the same verdict, as far as a schema can tell.

use std::path::{Path, PathBuf};

use ductile_domain::problem::Problem;
use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

use crate::cookbook;
use crate::verdict::{checkout, compile, lines, loaded_text, plugins};

/// The schema of pipelines and routes.
pub(crate) const PIPELINES: &str = "pipelines.schema.json";
const CONFIG: &str = "config.schema.json";

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(checkout().join("schemas").join(name)).expect("the schema");
    serde_json::from_str(&text).expect("JSON")
}

/// A validator that reads no file and asks no network.
pub(crate) fn validator(name: &str) -> Validator {
    let own = schema(name);
    jsonschema::meta::validate(&own).expect("a schema by the rules of schemas");
    let other = schema(PIPELINES);
    let id = other["$id"].as_str().expect("an id").to_owned();
    let registry = Registry::new().add(&id, other.clone()).expect("a resource").prepare().expect("a registry");
    let options = jsonschema::options();
    options.with_registry(&registry).offline().build(&own).expect("a schema that refers to nothing else")
}

fn document(yaml: &str) -> Value {
    ductile_yaml::load_value(yaml).expect("YAML").value
}

fn read(path: &Path) -> Value {
    document(&std::fs::read_to_string(path).expect("readable"))
}

fn complaints(validator: &Validator, document: &Value) -> String {
    validator.iter_errors(document).map(|e| format!("{}: {e}\n", e.instance_path())).collect()
}

/// Configuration files that the gateway accepts.
fn good_files() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files = cookbook::files();
    let shipped = ["config.yaml", "plugins.yaml", "pipelines.yaml"];
    files.extend(shipped.map(|name| checkout().join("config").join(name)));
    files.push(here.join("pipelines/only_warnings/config.yaml"));
    files.push(here.join("schedules/all_forms/config.yaml"));
    let mut dirs = vec![here.join("good")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("fixtures") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") && !path.ends_with("unlisted.yaml") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn the_schemas_accept_what_the_gateway_accepts() {
    let (config, pipelines) = (validator(CONFIG), validator(PIPELINES));
    let files = good_files();
    assert!(files.len() > 25, "only {} files", files.len());
    for file in files {
        let document = read(&file);
        for validator in [&config, &pipelines] {
            let complaints = complaints(validator, &document);
            assert!(complaints.is_empty(), "{}:\n{complaints}", file.display());
        }
    }
}

/// Samples with faults that a schema can see: both refuse each.
#[test]
fn the_schemas_refuse_what_the_gateway_refuses() {
    let (config, pipelines) = (validator(CONFIG), validator(PIPELINES));
    let found = plugins(["echo"]);
    for bad in [
        "{on: a, steps: [{uses: echo}]}",
        "{name: p, steps: [{uses: echo}]}",
        "{name: p, on: a, on-hook: job.failed, steps: [{uses: echo}]}",
        "{name: p, on: [a, b], steps: [{uses: echo}]}",
        "{name: p, on-hook: job.done, steps: [{uses: echo}]}",
        "{name: p, on: a}",
        "{name: p, on: a, steps: []}",
        "{name: p, on: a, steps: [{}]}",
        "{name: p, on: a, steps: [echo]}",
        "{name: p, on: a, steps: [{use: echo}]}",
        "{name: p, on: a, step: [{uses: echo}], steps: [{uses: echo}]}",
        "{name: p, on: a, steps: [{uses: echo, call: p}]}",
        "{name: p, on: a, steps: [{split: []}]}",
        "{name: p, on: a, steps: [{steps: [{uses: echo}], with: {a: b}}]}",
        "{name: p, on: a, steps: [{uses: echo, with: [a]}]}",
        "{name: p, on: a, steps: [{uses: echo, payload: a}]}",
        "{name: p, on: a, steps: [{uses: echo, baggage: {from: payload.x}}]}",
        "{name: p, on: a, steps: [{uses: echo, baggage: {a: env.x}}]}",
        "{name: p, on: a, steps: [{uses: echo, baggage: {a-b: payload.x}}]}",
        "{name: p, on: a, steps: [{uses: echo}, {uses: echo, join: any}]}",
        "{name: p, on: a, steps: [{relay: {to: lab}}]}",
        "{name: p, on: a, steps: [{relay: {to: lab, event: x, with: {a: 1}}}]}",
        "{name: p, on: a, from_plugin: [echo], steps: [{uses: echo}]}",
        "{name: p, on: a, max_depth: -1, steps: [{uses: echo}]}",
        "{name: p, on: a, max_depth: many, steps: [{uses: echo}]}",
        "{name: p, on: a, timeout: 30, steps: [{uses: echo}]}",
        "{name: p, on: a, timeout: soon, steps: [{uses: echo}]}",
        "{name: p, on: a, execution_mode: fast, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: env.x, op: exists}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: is}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: eq}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: exists, value: 1}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: in, value: 1}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: gt, value: '1'}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: regex, value: 1}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {path: payload.x, op: eq, value: 1, not: {}}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {all: []}, steps: [{uses: echo}]}",
        "{name: p, on: a, if: {any: {path: payload.x, op: exists}}, steps: [{uses: echo}]}",
    ] {
        let yaml = format!("plugins: {{echo: {{}}}}\npipelines: [{bad}]\n");
        let loaded = loaded_text(&yaml).unwrap_or_else(|p| panic!("{bad}\n{}", lines(&p)));
        let (_, problems) = compile(&loaded, &found);
        assert!(problems.iter().any(Problem::is_error), "the gateway accepts {bad}");
        for validator in [&config, &pipelines] {
            assert!(!validator.is_valid(&document(&yaml)), "a schema accepts {bad}");
        }
    }
    for bad in ["{from: echo, event_type: a}", "{from: echo, event_type: a, to: echo, if: {}}", "[echo]"] {
        let yaml = format!("plugins: {{echo: {{}}}}\nroutes: [{bad}]\n");
        let (_, problems) = compile(&loaded_text(&yaml).expect("it loads"), &found);
        assert!(problems.iter().any(Problem::is_error), "the gateway accepts {bad}");
        assert!(!pipelines.is_valid(&document(&yaml)), "the schema accepts {bad}");
    }
}

/// What the loader refuses outside of pipelines.
#[test]
fn the_schema_of_the_configuration_refuses_what_the_loader_refuses() {
    let config = validator(CONFIG);
    for bad in [
        "service: []",
        "service: {log_level: loud}",
        "service: {tick_interval: 60}",
        "service: {tick_interval: 1y}",
        "service: {max_workers: 0}",
        "service: {max_workers: 1.5}",
        "service: {hook_max_depth: -1}",
        "service: {strict_mode: 'yes'}",
        "service: {plugin_env_passthrough: [A=b]}",
        "service: {api_port: 70000}",
        "state: x",
        "state: {durability: some}",
        "state: {path: 3}",
        "api: {listen: nowhere}",
        "api: {enabled: maybe}",
        "api: {max_body_size: 0}",
        "api: {max_body_size: 1 TB}",
        "api: {max_sync_timeout: 5}",
        "api: {max_concurrent_sync: 0}",
        "api: {auth: {tokens: [{token: x}]}}",
        "tokens: [{name: x}]",
        "plugins: []",
        "plugins: {-x: {}}",
        "plugins: {a: {enabled: 3}}",
        "plugins: {a: {config: []}}",
        "plugins: {a: {retry: {max_attempts: 0}}}",
        "plugins: {a: {timeouts: {poll: 3}}}",
        "plugins: {a: {notify_on_complete: sometimes}}",
        "plugins: {a: {max_outstanding_polls: 0}}",
        "plugins: {a: {circuit_breaker: {threshold: 0}}}",
        "plugins: {a: {circuit_breaker: {reset_after: 5}}}",
        "plugins: {a: {limits: {memory: 10}}}",
        "plugins: {a: {limits: {open_files: 2}}}",
        "plugins: {a: {limits: {memory: 256MB, tiers: 512MB}}}",
        "plugins: {a: {schedules: {every: 5m}}}",
        "service: {facts_retention: 5}",
        "service: {timezone: 3}",
        "state: {min_free_space: 1 TB}",
        "include: 3",
        "include: ['${X}.yaml']",
        "include: ['https://example.org/x.yaml']",
        "plugin_roots: ['']",
        "pipelines: {}",
        "routes: x",
        "instances: {}",
    ] {
        let problems = loaded_text(bad).expect_err(bad);
        assert!(problems.iter().any(Problem::is_error), "{bad}");
        assert!(!config.is_valid(&document(bad)), "the schema accepts {bad}");
    }
}

/// What keeps a single schedule from firing, as far as a schema can tell.
#[test]
fn the_schema_refuses_schedules_that_would_not_fire() {
    let config = validator(CONFIG);
    for bad in [
        "{id: a}",
        "{every: 5m, cron: '@daily'}",
        "{every: 5}",
        "{every: fortnightly}",
        "{every: null}",
        "{cron: 0 0 * * * * *}",
        "{cron: 5}",
        "{at: tomorrow}",
        "{at: '2026-03-15T14:00:00'}",
        "{after: soon}",
        "{id: a b, every: 5m}",
        "{command: a b, every: 5m}",
        "{every: 5m, payload: [1]}",
        "{every: 5m, jitter: 3}",
        "{every: 5m, only_between: 8-18}",
        "{every: 5m, not_on: caturday}",
        "{every: 5m, not_on: [8]}",
        "{every: 5m, timezone: 3}",
        "{every: 5m, catch_up: always}",
        "{every: 5m, if_running: wait}",
        "5m",
        "null",
    ] {
        let yaml = format!("plugins: {{a: {{schedules: [{bad}]}}}}");
        let loaded = loaded_text(&yaml).unwrap_or_else(|p| panic!("{bad}\n{}", lines(&p)));
        assert!(loaded.config.plugins["a"].schedules[0].timing.is_err(), "the gateway accepts {bad}");
        assert!(!config.is_valid(&document(&yaml)), "the schema accepts {bad}");
    }
}

/// The defaults that the schema prints are those in force.
#[test]
fn the_schemas_defaults_are_those_of_the_loader() {
    let loaded = loaded_text("plugins: {a: {schedules: [{every: 5m}]}}").expect("a configuration");
    let shown = &loaded.config.source.sanitized;
    let schema = schema(CONFIG);
    let properties = |section: &Value| section["properties"].as_object().cloned().unwrap_or_default();
    let mut count = 0;
    let entry = &schema["properties"]["plugins"]["patternProperties"]["^(?!x-)[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"];
    let of = |key: &str| &schema["properties"][key];
    for (written, section) in [
        (&shown["service"], of("service")),
        (&shown["state"], of("state")),
        (&shown["api"], of("api")),
        (&shown["plugins"]["a"], entry),
        (&shown["plugins"]["a"]["retry"], &entry["properties"]["retry"]),
        (&shown["plugins"]["a"]["circuit_breaker"], &entry["properties"]["circuit_breaker"]),
        (&shown["plugins"]["a"]["schedules"][0], &schema["$defs"]["schedule"]),
    ] {
        for (key, property) in properties(section) {
            let Some(default) = property.get("default") else { continue };
            count += 1;
            let sizes = [(json!("1MB"), json!(1 << 20)), (json!("64MB"), json!(64 << 20))];
            let is_same = written[&key] == *default || sizes.contains(&(default.clone(), written[&key].clone()));
            let same_span = key == "dedupe_ttl" || key == "job_queue_retention";
            assert!(is_same || same_span, "{key}: the schema says {default}, the loader {}", written[&key]);
        }
        for (key, value) in written.as_object().into_iter().flatten() {
            assert!(section["properties"].get(key).is_some(), "the schema does not know {key}: {value}");
        }
    }
    assert!(count > 30, "only {count} defaults");
}
