//! A generation made of pipelines and routes, and jobs in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::config::{Config, NotifyOnComplete, PluginEntry, Service, Source};
use ductile_domain::generation::Generation;
use ductile_domain::ids::JobId;
use ductile_domain::job::{ClaimedJob, Fence};
use ductile_domain::manifest::{Command, CommandType, Manifest, PROTOCOL};
use ductile_domain::outcome::{AttemptStatus, EmittedEvent, Outcome, Timing, Usage};
use ductile_domain::pipeline::Pipelines;
use ductile_domain::plan::{Plan, plan};
use ductile_domain::problem::Problem;
use ductile_domain::retry::RetryPolicy;
use ductile_domain::time::{self, Timestamp};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

/// Window in which twins are suppressed.
pub(crate) const DEDUPE: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> Timestamp {
    time::parse("2026-01-02T03:04:05.678Z").expect("a time")
}

pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("valid JSON")
}

pub(crate) fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("valid JSON")
}

/// Ids that count.
pub(crate) fn counter() -> impl FnMut() -> Uuid {
    let mut last = 0_u128;
    move || {
        last += 1;
        Uuid::from_u128(last)
    }
}

fn entry(enabled: bool, uses: Option<&str>, notify: NotifyOnComplete) -> PluginEntry {
    PluginEntry {
        enabled,
        uses: uses.map(str::to_owned),
        config: json!({"limit": 5, "token": "canary"}).as_object().cloned().expect("an object"),
        retry: RetryPolicy { max_attempts: 3, ..RetryPolicy::default() },
        notify_on_complete: notify,
        ..PluginEntry::default()
    }
}

/// `a` to `f` (which fire no hooks), `root` and `chain` (which do), alias `a.poll`, `off`, which is disabled and fires hooks,
/// `broken`, which could not be loaded, and `unlisted`, which nobody configured. All have `handle` and `poll`; `reader` only has `poll`.
pub(crate) fn config(pipelines: Value, routes: Value) -> Config {
    let mut plugins: BTreeMap<String, PluginEntry> = ["a", "b", "c", "d", "e", "f", "reader", "broken"]
        .into_iter()
        .map(|name| (name.to_owned(), entry(true, None, NotifyOnComplete::Never)))
        .collect();
    plugins.insert("root".into(), entry(true, None, NotifyOnComplete::Roots));
    plugins.insert("chain".into(), entry(true, None, NotifyOnComplete::Cascade));
    plugins.insert("a.poll".into(), entry(true, Some("b"), NotifyOnComplete::Never));
    plugins.insert("off".into(), entry(false, None, NotifyOnComplete::Roots));
    Config {
        service: Service { max_workers: 3, dedupe_ttl: DEDUPE, hook_max_depth: 2, ..Service::default() },
        plugins,
        pipelines: pipelines.as_array().cloned().expect("a list"),
        routes: routes.as_array().cloned().expect("a list"),
        instances: vec!["lab".into()],
        source: Source { sanitized: json!({ "pipelines": pipelines, "routes": routes }), ..Source::default() },
        ..Config::default()
    }
}

pub(crate) fn catalog(config: &Config) -> Catalog {
    let found = ["a", "b", "c", "d", "e", "f", "root", "chain", "off", "unlisted", "reader"].map(|name| {
        let mut commands = vec![Command::new("poll", CommandType::Read)];
        if name != "reader" {
            commands.push(Command::new("handle", CommandType::Write));
        }
        let manifest = Manifest {
            name: name.to_owned(),
            version: "1".into(),
            protocol: PROTOCOL,
            entrypoint: "run".into(),
            description: None,
            commands,
            required_config: Vec::new(),
            optional_config: Vec::new(),
            concurrency_safe: true,
            max_subs: 32,
            fact_outputs: Vec::new(),
        };
        let found = Discovered { manifest: Arc::new(manifest), dir: "/p".into(), entrypoint: "/p/run".into() };
        (name.to_owned(), found)
    });
    Catalog::build(config, &found.into()).0
}

pub(crate) fn compile(pipelines: Value, routes: Value) -> (Generation, Vec<Problem>) {
    compile_config(config(pipelines, routes))
}

fn compile_config(config: Config) -> (Generation, Vec<Problem>) {
    let catalog = catalog(&config);
    let (pipelines, problems) = Pipelines::compile(&config, &catalog);
    let pipelines = Arc::new(pipelines);
    (Generation { no: 7, snapshot: Some(3), config, catalog, pipelines, schedules: Arc::default() }, problems)
}

/// A generation of pipelines that must be sound.
pub(crate) fn sound(pipelines: Value) -> Generation {
    wired(pipelines, json!([]))
}

pub(crate) fn wired(pipelines: Value, routes: Value) -> Generation {
    of(config(pipelines, routes))
}

/// A generation of a configuration that must be sound.
pub(crate) fn of(config: Config) -> Generation {
    let (generation, problems) = compile_config(config);
    let errors: Vec<_> = problems.iter().filter(|p| p.is_error()).map(Problem::to_string).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    generation
}

/// A job that nothing caused.
pub(crate) fn job(plugin: &str, command: &str) -> ClaimedJob {
    ClaimedJob {
        fence: Fence { job: JobId::from(Uuid::from_u128(1 << 100)), claim_no: 1 },
        row: 1,
        plugin: plugin.into(),
        command: command.into(),
        payload: None,
        attempt: 1,
        max_attempts: 3,
        submitted_by: "api".into(),
        dedupe_key: None,
        created_at: now(),
        started_at: now(),
        state: None,
        context: None,
        context_id: None,
        seat: None,
        is_routed: true,
        memory_tier: 0,
        parent: None,
    }
}

pub(crate) fn event(kind: &str, payload: &str) -> EmittedEvent {
    EmittedEvent { kind: kind.to_owned(), payload: Some(raw(payload)), dedupe_key: None }
}

pub(crate) fn success(events: Vec<EmittedEvent>) -> Outcome {
    Outcome {
        status: AttemptStatus::Succeeded,
        cause: None,
        error: None,
        result: None,
        stderr: None,
        exit_code: Some(0),
        signal: None,
        events,
        state_updates: None,
        timing: Timing::default(),
        usage: Usage::default(),
        subs: None,
        ended_at: now(),
    }
}

/// What follows when a job of `plugin` outside of every pipeline emits these.
pub(crate) fn emits(generation: &Generation, plugin: &str, events: Vec<EmittedEvent>) -> Plan {
    plan(generation, &job(plugin, "poll"), &success(events), now(), &mut counter())
}

/// `plugin.command <target key>` of each child.
pub(crate) fn children(plan: &Plan) -> Vec<String> {
    plan.children.iter().map(|job| format!("{}.{} {}", job.plugin, job.command, job.target_key)).collect()
}

/// `path: message` of each problem, warnings with a `?` before them.
pub(crate) fn told(problems: &[Problem]) -> Vec<String> {
    let mark = |problem: &Problem| if problem.is_error() { "" } else { "?" };
    problems.iter().map(|p| format!("{}{}: {}", mark(p), p.path.as_deref().unwrap_or("-"), p.message)).collect()
}
