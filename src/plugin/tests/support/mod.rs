//! Runs a plugin directory of `tests/plugins` or `plugins` as the gateway does, without the gateway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_domain::catalog::Plugin;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::job::{ClaimedJob, Fence};
use ductile_domain::manifest::Manifest;
use ductile_domain::outcome::Outcome;
use ductile_domain::retry::RetryPolicy;
use ductile_domain::time;
use ductile_plugin::leftovers::find_by_boot_ids;
use ductile_plugin::{Bounds, Exited, Invocation, Limits, Run, Runner, environment, manifest, outcome, protocol};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The deadline of a test that expects none to pass.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// The checkout's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the crate lies in the checkout")
}

/// A plugin as a generation would hold it.
pub(crate) fn plugin(dir: &Path) -> Plugin {
    let (manifest, _) = manifest::read(&dir.join("manifest.yaml")).expect("a valid manifest");
    of_manifest(manifest, dir)
}

/// The same for a manifest that was made elsewhere.
pub(crate) fn of_manifest(manifest: Manifest, dir: &Path) -> Plugin {
    Plugin {
        name: manifest.name.as_str().into(),
        entrypoint: dir.join(&manifest.entrypoint),
        manifest: Arc::new(manifest),
        dir: dir.to_owned(),
        is_runnable: true,
        config: RawValue::from_string("{}".into()).expect("JSON"),
        retry: RetryPolicy::default(),
        parallelism: 1,
        timeouts: BTreeMap::new(),
        timeout: None,
        env_passthrough: Vec::new(),
        limits: ductile_domain::config::ResourceLimits::default(),
    }
}

pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

/// A claimed job of that plugin.
pub(crate) fn job(plugin: &Plugin, command: &str, payload: Option<&str>) -> ClaimedJob {
    let now = time::parse("2026-01-01T00:00:00Z").expect("valid");
    ClaimedJob {
        fence: Fence { job: JobId::from(Uuid::now_v7()), claim_no: 1 },
        row: 1,
        plugin: plugin.name.clone(),
        command: command.into(),
        payload: payload.map(raw),
        attempt: 1,
        max_attempts: 4,
        submitted_by: "api".into(),
        dedupe_key: None,
        created_at: now,
        started_at: now,
        state: None,
        context: None,
        context_id: None,
        seat: None,
        is_routed: true,
        memory_tier: 0,
        parent: None,
    }
}

/// One runner and one start of the gateway; on its end nothing of the start may be alive.
pub(crate) struct Bench {
    pub(crate) runner: Runner,
    pub(crate) boot: BootId,
    pub(crate) limits: Limits,
    pub(crate) deadline: Duration,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(4, AMPLE)
    }

    pub(crate) fn with_deadline(deadline: Duration) -> Self {
        Self::with(4, deadline)
    }

    pub(crate) fn with(threads: usize, deadline: Duration) -> Self {
        let boot = BootId::from(Uuid::now_v7());
        Self { runner: Runner::new(threads), boot, limits: Limits::default(), deadline }
    }

    /// The fault `name` of `tests/plugins`.
    pub(crate) fn fault(name: &str) -> Plugin {
        plugin(&root().join("tests/plugins").join(name))
    }

    pub(crate) fn invocation(&self, plugin: &Plugin, job: &ClaimedJob) -> Invocation {
        Invocation {
            program: plugin.entrypoint.as_path().into(),
            dir: None,
            env: environment::allowed(std::env::vars_os(), []),
            extra_env: environment::of_attempt(self.boot, job.fence.job, job.attempt),
            stdin: protocol::request(job, plugin, time::parse("2026-01-01T00:01:00Z").expect("valid")),
            deadline: self.deadline,
            limits: self.limits,
            bounds: Bounds::of(&plugin.limits, job.memory_tier),
        }
    }

    pub(crate) fn start(&self, plugin: &Plugin, command: &str, payload: Option<&str>) -> Run {
        self.runner.start(self.invocation(plugin, &job(plugin, command, payload)), |_, _| {})
    }

    pub(crate) fn exited(&self, plugin: &Plugin, command: &str, payload: Option<&str>) -> Exited {
        let exited = self.start(plugin, command, payload).wait();
        self.expect_nothing_left();
        exited
    }

    /// Runs one attempt to its judgement, and checks that no process of it is left.
    pub(crate) fn judged(&self, plugin: &Plugin, command: &str, payload: Option<&str>) -> (Outcome, Vec<String>) {
        let exited = self.exited(plugin, command, payload);
        outcome::judge(exited, plugin, command, time::parse("2026-01-01T00:00:30Z").expect("valid"))
    }

    /// Killed processes that were not our children take a moment until init has reaped them.
    pub(crate) fn expect_nothing_left(&self) {
        until("every process of the attempt is gone", || find_by_boot_ids(&[self.boot]).is_empty());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runner.shutdown();
        assert_eq!((self.runner.running(), self.runner.threads()), (0, 0));
    }
}

/// Waits for a condition; fails with its name after a long while.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
