//! The operator's configuration after loading, merging and interpolation: typed, with defaults filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::{Map, Value};

use crate::breaker::BreakerPolicy;
use crate::retry::RetryPolicy;
use crate::schedule::Schedule;
use crate::scope::Grants;

/// One configuration, complete. Its `Debug` only counts pipelines and routes, for their values may be secrets.
#[derive(Clone, Default)]
pub struct Config {
    /// Gateway-wide settings.
    pub service: Service,
    /// Directories that are scanned for plugins, absolute, in order, without duplicates.
    pub plugin_roots: Vec<PathBuf>,
    /// The operator's plugin entries by name.
    pub plugins: BTreeMap<String, PluginEntry>,
    /// The HTTP API.
    pub api: Api,
    /// The ledger.
    pub state: State,
    /// `pipelines:` of all files in order, merged and interpolated but otherwise unchecked: what the entries say is the
    /// compiler's matter, which names them `pipelines[<index>]` or `pipelines.<name>` in the paths of its problems.
    ///
    /// A text may hold a value from the environment. Problems may quote such a text as a whole, and parts of it where
    /// their path is its own or that of the map around it: who adds their places takes it out again
    /// (`ductile_config::Provenance::place`). Nothing else may show it.
    pub pipelines: Vec<Value>,
    /// `routes:`, as [`Config::pipelines`]; problems name them `routes[<index>]`.
    pub routes: Vec<Value>,
    /// `instances[].name`: where relay steps may send to.
    pub instances: Vec<String>,
    /// Where it came from.
    pub source: Source,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("service", &self.service)
            .field("plugin_roots", &self.plugin_roots)
            .field("plugins", &self.plugins)
            .field("api", &self.api)
            .field("state", &self.state)
            .field("pipelines", &self.pipelines.len())
            .field("routes", &self.routes.len())
            .field("instances", &self.instances)
            .field("source", &self.source)
            .finish()
    }
}

impl Config {
    /// True when an enabled entry has that name, whether or not its plugin could be loaded.
    #[must_use]
    pub fn wants(&self, plugin: &str) -> bool {
        self.plugins.get(plugin).is_some_and(|entry| entry.enabled)
    }
}

/// `service:`.
#[derive(Debug, Clone)]
pub struct Service {
    /// Operator-facing name.
    pub name: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// `json` or `text`.
    pub log_format: String,
    /// Upper bound of the scheduler's sleep; at least 100 ms.
    pub tick_interval: Duration,
    /// Cap of concurrent jobs over all plugins.
    pub max_workers: u32,
    /// Default dedupe window.
    pub dedupe_ttl: Duration,
    /// How long terminal rows of `job_queue` stay.
    pub job_queue_retention: Duration,
    /// How long rows of `job_log` stay.
    pub job_log_retention: Duration,
    /// How long all other rows stay.
    pub retention: Retention,
    /// How long a stop waits for running jobs.
    pub drain_timeout: Duration,
    /// Every warning is an error.
    pub strict_mode: bool,
    /// False: configuration files and plugins that are reached by a symbolic link are refused.
    pub allow_symlinks: bool,
    /// Environment variables that every plugin gets beside the allow-list.
    pub plugin_env_passthrough: Vec<String>,
    /// How long a chain of jobs may grow of which each was started by a hook of the one before.
    pub hook_max_depth: u32,
    /// Zone of schedules that name none: `service.timezone`, otherwise the system's.
    pub timezone: Tz,
}

/// How long rows of the tables stay that are neither `job_queue` nor `job_log`: `service.<table>_retention`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// `job_transitions`.
    pub job_transitions: Duration,
    /// `job_attempts`.
    pub job_attempts: Duration,
    /// `circuit_breaker_transitions`.
    pub breaker_transitions: Duration,
    /// `schedule_ticks` that have ended.
    pub schedule_ticks: Duration,
    /// `plugin_facts`, but never the newest per plugin and type.
    pub facts: Duration,
    /// `config_snapshots` that no job refers to, but never the newest.
    pub snapshots: Duration,
    /// `job_quarantine`.
    pub quarantine: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Retention {
    fn default() -> Self {
        Self {
            job_transitions: 30 * DAY,
            job_attempts: 30 * DAY,
            breaker_transitions: 90 * DAY,
            schedule_ticks: 30 * DAY,
            facts: 365 * DAY,
            snapshots: 365 * DAY,
            quarantine: 90 * DAY,
        }
    }
}

/// How long the sizes of the ledger's file are remembered: a year and a month, to compare with.
const STORAGE_SAMPLES_RETENTION: Duration = Duration::from_secs(400 * 86_400);

impl Service {
    /// How long rows of a table of the ledger stay; `None` for tables that hold what is, not what was.
    #[must_use]
    pub fn retention_of(&self, table: &str) -> Option<Duration> {
        let kept = &self.retention;
        Some(match table {
            "job_queue" => self.job_queue_retention,
            "job_log" | "job_stopwatch" => self.job_log_retention,
            // a context is older than the end of its job, and what the log has can be replayed with it
            "event_context" | "pipeline_joins" | "pipeline_join_branches" => {
                self.job_log_retention.saturating_add(self.job_queue_retention)
            }
            "job_transitions" => kept.job_transitions,
            "job_attempts" => kept.job_attempts,
            "circuit_breaker_transitions" => kept.breaker_transitions,
            "schedule_ticks" => kept.schedule_ticks,
            "plugin_facts" => kept.facts,
            "config_snapshots" => kept.snapshots,
            "job_quarantine" => kept.quarantine,
            "storage_samples" => STORAGE_SAMPLES_RETENTION,
            _ => return None,
        })
    }
}

impl Default for Service {
    /// What holds where the operator says nothing, with one worker and in UTC: processors and zone are the machine's matter.
    fn default() -> Self {
        Self {
            name: "ductile".to_owned(),
            log_level: "info".to_owned(),
            log_format: "json".to_owned(),
            tick_interval: Duration::from_secs(60),
            max_workers: 1,
            dedupe_ttl: DAY,
            job_queue_retention: DAY,
            job_log_retention: 30 * DAY,
            retention: Retention::default(),
            drain_timeout: Duration::from_secs(30),
            strict_mode: false,
            allow_symlinks: true,
            plugin_env_passthrough: Vec::new(),
            hook_max_depth: 4,
            timezone: Tz::UTC,
        }
    }
}

/// `plugins.<name>:`. Its `Debug` names the keys of `config` only, for their values may be secrets.
#[derive(Clone)]
pub struct PluginEntry {
    /// False keeps it from being run.
    pub enabled: bool,
    /// Base plugin of an alias.
    pub uses: Option<String>,
    /// Static config handed to the plugin.
    pub config: Map<String, Value>,
    /// Attempts and backoff.
    pub retry: RetryPolicy,
    /// Cap of concurrent jobs; 1 to `service.max_workers`.
    pub parallelism: Option<u32>,
    /// `timeouts.<command>`.
    pub timeouts: BTreeMap<String, Duration>,
    /// Flat `timeout`.
    pub timeout: Option<Duration>,
    /// Environment variables that it gets beside the allow-list.
    pub env_passthrough: Vec<String>,
    /// Whether the ends of its jobs fire hooks.
    pub notify_on_complete: NotifyOnComplete,
    /// `schedules:`, as far as they can be read without the plugin's manifest.
    pub schedules: Vec<Arc<Schedule>>,
    /// Most polls that may be queued or running for the scheduler to enqueue another.
    pub max_outstanding_polls: u32,
    /// When its schedules stop firing.
    pub circuit_breaker: BreakerPolicy,
    /// Bounds of each of its processes.
    pub limits: ResourceLimits,
}

impl Default for PluginEntry {
    /// An enabled entry that says nothing else.
    fn default() -> Self {
        Self {
            enabled: true,
            uses: None,
            config: Map::new(),
            retry: RetryPolicy::default(),
            parallelism: None,
            timeouts: BTreeMap::new(),
            timeout: None,
            env_passthrough: Vec::new(),
            notify_on_complete: NotifyOnComplete::default(),
            schedules: Vec::new(),
            max_outstanding_polls: 1,
            circuit_breaker: BreakerPolicy::default(),
            limits: ResourceLimits::default(),
        }
    }
}

/// `plugins.<name>.limits`: what one process of a plugin may use. `None` bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processor time.
    pub cpu_time: Option<Duration>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Bytes of memory of a second try after the first ran out of it, ascending, all above `memory`.
    pub tiers: Vec<u64>,
}

impl ResourceLimits {
    /// Bytes of memory of an attempt of that tier: 0 for `memory`, n for the n-th of `tiers`, the last beyond them.
    #[must_use]
    pub fn memory_of(&self, tier: u32) -> Option<u64> {
        let index = usize::try_from(tier).unwrap_or(usize::MAX).min(self.tiers.len());
        index.checked_sub(1).map_or(self.memory, |i| self.tiers.get(i).copied())
    }

    /// True when nothing is bounded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `plugins.<name>.notify_on_complete`: which of a plugin's jobs fire `on-hook` pipelines when they end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyOnComplete {
    /// None.
    #[default]
    Never,
    /// Those without a parent.
    Roots,
    /// Those, and those that a hook started while their chain is shorter than [`Service::hook_max_depth`].
    Cascade,
}

impl fmt::Debug for PluginEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginEntry")
            .field("enabled", &self.enabled)
            .field("uses", &self.uses)
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .field("retry", &self.retry)
            .field("parallelism", &self.parallelism)
            .field("timeouts", &self.timeouts)
            .field("timeout", &self.timeout)
            .field("env_passthrough", &self.env_passthrough)
            .field("notify_on_complete", &self.notify_on_complete)
            .field("schedules", &self.schedules)
            .field("max_outstanding_polls", &self.max_outstanding_polls)
            .field("circuit_breaker", &self.circuit_breaker)
            .field("limits", &self.limits)
            .finish()
    }
}

/// `api:`.
#[derive(Debug, Clone)]
pub struct Api {
    /// False: no TCP listener; the control socket always serves.
    pub enabled: bool,
    /// Address of the TCP listener.
    pub listen: SocketAddr,
    /// Largest request body in bytes.
    pub max_body_size: usize,
    /// Longest wait of a synchronous call, whatever the pipeline's own timeout.
    pub max_sync_timeout: Duration,
    /// How many synchronous calls may wait at the same time.
    pub max_concurrent_sync: u32,
    /// Bearer tokens.
    pub tokens: Vec<Token>,
}

/// A bearer token: the gateway keeps only its hash.
#[derive(Debug, Clone)]
pub struct Token {
    /// Shown as `requested_by`.
    pub name: String,
    /// BLAKE3 of the secret.
    pub hash: [u8; 32],
    /// What it may do.
    pub grants: Grants,
}

/// `state:`.
#[derive(Debug, Clone)]
pub struct State {
    /// The SQLite file, absolute.
    pub path: PathBuf,
    /// Which commits are synced.
    pub durability: Durability,
    /// Bytes that must stay free on its file system: with less, doors take nothing in.
    pub min_free_space: u64,
}

impl Default for State {
    /// `ductile.db` in the working directory.
    fn default() -> Self {
        Self { path: PathBuf::from("ductile.db"), durability: Durability::Accepted, min_free_space: 64 << 20 }
    }
}

impl Default for Api {
    /// What holds where the operator says nothing.
    fn default() -> Self {
        Self {
            enabled: true,
            listen: ([127, 0, 0, 1], 8080).into(),
            max_body_size: 1 << 20,
            max_sync_timeout: Duration::from_secs(5 * 60),
            max_concurrent_sync: 10,
            tokens: Vec::new(),
        }
    }
}

/// `state.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every commit whose answer leaves the gateway is synced.
    Accepted,
    /// Every commit is synced.
    Full,
    /// None is; a power cut may lose a suffix.
    Normal,
}

/// Where a configuration came from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// `config.yaml`, absolute.
    pub path: PathBuf,
    /// All files that took part, in the order of merging.
    pub files: Vec<PathBuf>,
    /// BLAKE3 over the raw bytes of all files, lower-case hex.
    pub hash: String,
    /// The merged document with secrets replaced, for snapshots and views.
    pub sanitized: Value,
}
