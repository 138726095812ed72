//! The operator's configuration after loading, merging and interpolation: typed, with defaults filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::retry::RetryPolicy;
use crate::scope::Grants;

/// One configuration, complete. Its `Debug` only counts pipelines and routes, for their values may be secrets.
#[derive(Clone)]
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
