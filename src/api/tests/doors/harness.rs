//! A fake gateway with a catalog, tokens and a ring, and the shortest ways to ask its router.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use chrono::TimeDelta;
use ductile_api::events::EventRing;
use ductile_api::gateway::{
    Cancelled, Gateway, GenerationUse, Health, LimitsLevel, PipelineStart, Refusal, Reloaded, Submission, Submitted,
    SyncPlace, SyncPlaces,
};
use ductile_api::{Patience, router_with};
use ductile_domain::catalog::{Catalog, Discovered};
use ductile_domain::config::{Api, Config, PluginEntry, Service, Source, Token};
use ductile_domain::event::{Fields, JobFields, LiveEvent};
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::manifest::{Command, CommandType, Manifest, PROTOCOL};
use ductile_domain::pipeline::Pipelines;
use ductile_domain::schedule::{Schedule, Schedules};
use ductile_domain::scope::Grants;
use ductile_domain::time::Timestamp;
use ductile_domain::tree::TreeNode;
use ductile_domain::version::Build;
use ductile_ledger::{Clock, Ledger, OpenOptions, Readers};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use uuid::Uuid;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// The secret of the token that may do everything.
pub(crate) const ADMIN: &str = "canary-admin-5f2c";
pub(crate) const BODY_LIMIT: usize = 4_096;

pub(crate) fn job(number: u128) -> JobId {
    JobId::from(Uuid::from_u128(number))
}

pub(crate) struct Fake {
    pub(crate) generation: Mutex<Arc<Generation>>,
    pub(crate) ring: EventRing,
    pub(crate) ledger: Ledger,
    /// How far the ledger's clock is ahead, in hours.
    hours: Arc<AtomicI64>,
    /// When it stands still: where, in milliseconds.
    stopped: Arc<AtomicI64>,
    _dir: TempDir,
    /// What the next submissions are answered with.
    pub(crate) answer: Mutex<Result<Submitted, Refusal>>,
    pub(crate) cancelled: Mutex<Cancelled>,
    pub(crate) submissions: Mutex<Vec<Submission>>,
    /// What starts of pipelines are answered with.
    pub(crate) entries: Mutex<Result<Vec<Submitted>, Refusal>>,
    pub(crate) starts: Mutex<Vec<PipelineStart>>,
    pub(crate) places: SyncPlaces,
    /// Every other thing that was asked for, as text.
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) health: Mutex<&'static str>,
    /// What reloads are answered with.
    pub(crate) reloaded: Mutex<Result<Reloaded, Refusal>>,
    /// Waits end when it turns true.
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) panics: bool,
}

impl Fake {
    /// Tokens are named by their scopes, and their secret is their name.
    pub(crate) async fn new(scopes: &[&[&str]]) -> Self {
        let boot = BootId::from(Uuid::from_u128(0xb007));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hours = Arc::new(AtomicI64::new(0));
        let stopped = Arc::new(AtomicI64::new(0));
        let clock = (hours.clone(), stopped.clone());
        let mut options = OpenOptions::new(dir.path().join("state.db"), boot);
        options.clock = Clock::new(move || now(&clock.0, &clock.1));
        let ledger = ductile_ledger::open(options).await;
        Self {
            generation: Mutex::new(Arc::new(generation(scopes, &["*"]))),
            ring: EventRing::new(boot),
            ledger: ledger.expect("a new ledger opens"),
            hours,
            stopped,
            _dir: dir,
            answer: Mutex::new(Ok(Submitted::Accepted(job(1)))),
            cancelled: Mutex::new(Cancelled::Dead),
            submissions: Mutex::default(),
            entries: Mutex::new(Ok(vec![Submitted::Accepted(job(1))])),
            starts: Mutex::default(),
            places: SyncPlaces::default(),
            asked: Mutex::default(),
            health: Mutex::new("ok"),
            reloaded: Mutex::new(Ok(reloaded())),
            ended: watch::Sender::new(false),
            panics: false,
        }
    }

    /// Puts a generation with these tokens in force, and without the administrator's when there is no scope for it.
    pub(crate) fn put_in_force(&self, scopes: &[&[&str]], admin: &[&str]) {
        *self.generation.lock().expect("not poisoned") = Arc::new(generation(scopes, admin));
    }

    /// The same generation with another configuration.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Config)) {
        let mut held = self.generation.lock().expect("not poisoned");
        change(&mut Arc::get_mut(&mut held).expect("not shared yet").config);
    }

    fn note(&self, text: String) {
        self.asked.lock().expect("not poisoned").push(text);
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// Moves the ledger's clock.
    pub(crate) fn an_hour_passes(&self) {
        self.hours.fetch_add(1, Ordering::SeqCst);
    }

    /// Stops the ledger's clock.
    pub(crate) fn stand_at(&self, at: Timestamp) {
        self.stopped.store(at.timestamp_millis(), Ordering::SeqCst);
    }

    /// The same generation with other schedules of `echo`.
    pub(crate) fn rearrange(&self, change: impl FnOnce(&mut [Arc<Schedule>])) {
        let mut held = self.generation.lock().expect("not poisoned");
        let generation = Arc::get_mut(&mut held).expect("not shared yet");
        change(&mut generation.config.plugins.get_mut("echo").expect("configured").schedules);
        generation.schedules = Arc::new(Schedules::compile(&generation.config, &generation.catalog).0);
    }

    /// No plugin could be loaded.
    pub(crate) fn lose_plugins(&self) {
        let mut held = self.generation.lock().expect("not poisoned");
        let generation = Arc::get_mut(&mut held).expect("not shared yet");
        generation.catalog = Catalog::build(&generation.config, &BTreeMap::new()).0;
        generation.schedules = Arc::new(Schedules::compile(&generation.config, &generation.catalog).0);
    }

    /// Forgets what was asked for so far.
    pub(crate) fn forget(&self) {
        self.asked.lock().expect("not poisoned").clear();
        self.submitted();
        self.started();
    }

    pub(crate) fn started(&self) -> Vec<PipelineStart> {
        std::mem::take(&mut *self.starts.lock().expect("not poisoned"))
    }

    pub(crate) fn submitted(&self) -> Vec<Submission> {
        std::mem::take(&mut *self.submissions.lock().expect("not poisoned"))
    }
}

impl Gateway for Fake {
    async fn submit(&self, submission: Submission) -> Result<Submitted, Refusal> {
        assert!(!self.panics, "the fake was told to panic over secret-of-the-log");
        self.submissions.lock().expect("not poisoned").push(submission);
        self.answer.lock().expect("not poisoned").clone()
    }

    async fn start_pipeline(&self, start: PipelineStart) -> Result<Vec<Submitted>, Refusal> {
        self.starts.lock().expect("not poisoned").push(start);
        self.entries.lock().expect("not poisoned").clone()
    }

    async fn wait_for_family(&self, job: JobId, time: Duration) -> bool {
        self.note(format!("wait for the family of {job} {time:?}"));
        let mut ended = self.ended.subscribe();
        timeout(time, ended.wait_for(|ended| *ended)).await.is_ok()
    }

    fn sync_place(&self) -> Option<SyncPlace> {
        self.places.take(self.generation().config.api.max_concurrent_sync)
    }

    async fn cancel(&self, job: JobId, why: String, requested_by: String) -> Result<Cancelled, Refusal> {
        self.note(format!("cancel {job} {why} {requested_by}"));
        Ok(*self.cancelled.lock().expect("not poisoned"))
    }

    async fn wait(&self, job: JobId, time: Duration) {
        self.note(format!("wait {job} {time:?}"));
        let mut ended = self.ended.subscribe();
        let _ = timeout(time, ended.wait_for(|ended| *ended)).await;
    }

    async fn set_dispatch(&self, on: bool, requested_by: String) -> Result<(), Refusal> {
        self.note(format!("dispatch {on} {requested_by}"));
        Ok(())
    }

    async fn run_schedule(
        &self,
        plugin: String,
        schedule: String,
        submitted_by: &'static str,
        requested_by: String,
    ) -> Result<Submitted, Refusal> {
        self.note(format!("run schedule {plugin}/{schedule} {submitted_by} {requested_by}"));
        self.answer.lock().expect("not poisoned").clone()
    }

    async fn pause_schedules(
        &self,
        plugin: String,
        schedule: Option<String>,
        paused: bool,
        requested_by: String,
    ) -> Result<Vec<String>, Refusal> {
        self.note(format!("pause schedules {plugin} {schedule:?} {paused} {requested_by}"));
        Ok(vec![schedule.unwrap_or_else(|| "default".to_owned())])
    }

    async fn reset_breaker(&self, plugin: String, requested_by: String) -> Result<usize, Refusal> {
        self.note(format!("reset breaker {plugin} {requested_by}"));
        Ok(1)
    }

    async fn restart_actor(&self, path: &str) -> Result<(), Refusal> {
        self.note(format!("restart {path}"));
        Ok(())
    }

    async fn inspect_actor(&self, path: &str) -> Result<Option<Value>, Refusal> {
        self.note(format!("inspect {path}"));
        Ok(path.ends_with("queue").then(|| Value::from("its state")))
    }

    async fn reload(&self, requested_by: String) -> Result<Reloaded, Refusal> {
        self.note(format!("reload {requested_by}"));
        self.reloaded.lock().expect("not poisoned").clone()
    }

    fn generations(&self) -> Vec<GenerationUse> {
        vec![GenerationUse { no: 3, attempts: 2 }, GenerationUse { no: 4, attempts: 0 }]
    }

    fn stop(&self, requested_by: String) {
        self.note(format!("stop {requested_by}"));
    }

    fn tree(&self) -> TreeNode {
        let queue = node("root/exec_sup/queue", "worker", Vec::new());
        let stuck = node("root/exec_sup/stuck", "worker", Vec::new());
        node("root", "supervisor", vec![node("root/exec_sup", "supervisor", vec![queue, stuck])])
    }

    fn generation(&self) -> Arc<Generation> {
        self.generation.lock().expect("not poisoned").clone()
    }

    async fn health(&self) -> Health {
        Health {
            status: (*self.health.lock().expect("not poisoned")).to_owned(),
            reasons: vec!["a reason for operators".to_owned()],
            uptime_seconds: 7,
            queue_depth: 3,
            running: 2,
            plugins_loaded: 1,
            plugins_circuit_open: 0,
            paused: false,
            limits: LimitsLevel::default(),
        }
    }

    fn events(&self) -> &EventRing {
        &self.ring
    }

    fn readers(&self) -> &Readers {
        &self.ledger.readers
    }

    fn now(&self) -> Timestamp {
        now(&self.hours, &self.stopped)
    }

    fn boot_id(&self) -> BootId {
        self.ring.boot()
    }

    fn build(&self) -> Build {
        Build { version: "1.2.3", commit: "abcdef123456", built_at: "2026-01-01T00:00:00Z" }
    }
}

fn now(hours: &AtomicI64, stopped: &AtomicI64) -> Timestamp {
    match stopped.load(Ordering::SeqCst) {
        0 => chrono::Utc::now() + TimeDelta::hours(hours.load(Ordering::SeqCst)),
        at => Timestamp::from_timestamp_millis(at).expect("a time"),
    }
}

fn reloaded() -> Reloaded {
    let one = |path: &str| vec![path.to_owned()];
    Reloaded {
        reloaded_at: "2026-01-01T00:00:00.000Z".to_owned(),
        generation: 5,
        config_snapshot_id: 10,
        added: one("plugins.new"),
        changed: one("service.max_workers"),
        removed: one("plugins.old"),
        restart_required: one("state.path"),
        warnings: Vec::new(),
    }
}

fn node(path: &str, kind: &str, children: Vec<TreeNode>) -> TreeNode {
    TreeNode {
        path: path.to_owned(),
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        kind: kind.to_owned(),
        strategy: None,
        restart: "permanent".to_owned(),
        phase: "up".to_owned(),
        incarnation: 1,
        restarts: 0,
        started_at: "2026-01-01T00:00:00.000Z".to_owned(),
        last_exit: None,
        mailbox: None,
        handling: None,
        children,
    }
}

pub(crate) fn generation(scopes: &[&[&str]], admin: &[&str]) -> Generation {
    let mut config = config();
    if !admin.is_empty() {
        config.api.tokens.push(token(ADMIN, admin));
    }
    config.api.tokens.extend(scopes.iter().map(|words| token(&words.join(" "), words)));
    let found = BTreeMap::from(["echo", "alone"].map(|name| (name.to_owned(), discovered(name))));
    for (name, uses) in [("echo", None), ("parrot", Some("echo"))] {
        config.plugins.insert(name.to_owned(), entry(uses));
    }
    config.plugins.get_mut("echo").expect("just inserted").schedules = crate::schedules::schedules();
    let (pipelines, shown) = crate::wiring::wiring();
    config.pipelines = pipelines["pipelines"].as_array().expect("a list").clone();
    config.routes = pipelines["routes"].as_array().expect("a list").clone();
    config.source.sanitized = shown;
    let (catalog, mut problems) = Catalog::build(&config, &found);
    let (pipelines, of_pipelines) = Pipelines::compile(&config, &catalog);
    problems.extend(of_pipelines);
    assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}");
    let schedules = Arc::new(Schedules::compile(&config, &catalog).0);
    Generation { no: 4, snapshot: Some(9), config, catalog, pipelines: Arc::new(pipelines), schedules }
}

fn token(secret: &str, words: &[&str]) -> Token {
    Token {
        name: words.join(" "),
        hash: *blake3::hash(secret.as_bytes()).as_bytes(),
        grants: Grants::parse(words.iter().copied()).expect("known words"),
    }
}

fn entry(uses: Option<&str>) -> PluginEntry {
    PluginEntry { uses: uses.map(str::to_owned), ..PluginEntry::default() }
}

fn discovered(name: &str) -> Discovered {
    let manifest = Manifest {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        protocol: PROTOCOL,
        entrypoint: "run".to_owned(),
        description: Some("A demonstration plugin".to_owned()),
        commands: vec![
            Command::new("poll", CommandType::Read),
            Command {
                description: Some("Takes an event".to_owned()),
                input_schema: Some(json!({ "type": "object", "properties": { "message": { "type": "string" } } })),
                ..Command::new("handle", CommandType::Write)
            },
            Command::new("facts", CommandType::Read),
        ],
        required_config: Vec::new(),
        optional_config: Vec::new(),
        concurrency_safe: true,
        max_subs: 16,
        fact_outputs: Vec::new(),
    };
    Discovered { manifest: Arc::new(manifest), dir: PathBuf::from("/p"), entrypoint: PathBuf::from("/p/run") }
}

fn config() -> Config {
    Config {
        service: Service { max_workers: 4, dedupe_ttl: Duration::from_secs(3_600), ..Service::default() },
        api: Api { max_body_size: BODY_LIMIT, ..Api::default() },
        source: Source { path: PathBuf::from("/etc/ductile/config.yaml"), ..Source::default() },
        ..Config::default()
    }
}

/// A router over a fake, asked without a network.
pub(crate) struct Door {
    pub(crate) fake: Arc<Fake>,
    pub(crate) router: Router,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    /// Asserts the one error shape and that it names this code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(body["context"].is_object() && body.as_object().is_some_and(|b| b.len() == 4), "{}", self.text);
        for key in ["error", "hint"] {
            assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "no {key} in {}", self.text);
        }
        assert_eq!(self.headers.contains_key("retry-after"), status == 503, "{:?}", self.headers);
        body
    }
}

impl Door {
    pub(crate) async fn new() -> Self {
        Self::of(Fake::new(&[]).await)
    }

    pub(crate) async fn with_tokens(scopes: &[&[&str]]) -> Self {
        Self::of(Fake::new(scopes).await)
    }

    pub(crate) fn of(fake: Fake) -> Self {
        Self::patient(fake, Patience::default())
    }

    pub(crate) fn patient(fake: Fake, patience: Patience) -> Self {
        let fake = Arc::new(fake);
        Self { router: router_with(fake.clone(), patience), fake }
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Reply {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect()).await.expect("the body ends").expect("the body is whole");
        let text = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
        Reply { status: parts.status, headers: parts.headers, text }
    }

    /// The response without waiting for its body.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::response::Response {
        let answer = timeout(DEADLINE, self.router.clone().oneshot(request));
        answer.await.expect("an answer in time").expect("routers do not fail")
    }

    /// Asks as the administrator.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(request("GET", path, Some(ADMIN), Body::empty())).await
    }

    /// Asks as the administrator.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.ask(request("POST", path, Some(ADMIN), body.into())).await
    }
}

pub(crate) fn request(method: &str, path: &str, token: Option<&str>, body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(body).expect("a request")
}

/// A job's event, as the gateway would emit it.
pub(crate) fn job_event(kind: &'static str, job: JobId, transition: Option<i64>) -> LiveEvent {
    let fields = JobFields {
        job,
        plugin: "echo".into(),
        command: "poll".into(),
        transition,
        attempt: Some(1),
        more: vec![("last_error", Value::from("said by the plugin"))],
    };
    LiveEvent { kind: kind.into(), at: chrono::DateTime::UNIX_EPOCH, fields: Fields::Job(Box::new(fields)) }
}

pub(crate) fn other_event(kind: &'static str) -> LiveEvent {
    LiveEvent::other(kind, chrono::DateTime::UNIX_EPOCH, Map::new())
}
