//! The same HTTP server in front of a gateway that keeps nothing: what an enqueue costs before any durability.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ductile_api::events::EventRing;
use ductile_api::gateway::{
    Cancelled, Gateway, GenerationUse, Health, PipelineStart, Refusal, Reloaded, Submission, Submitted, SyncPlace,
};
use ductile_domain::catalog::Catalog;
use ductile_domain::generation::Generation;
use ductile_domain::ids::{BootId, JobId};
use ductile_domain::time::Timestamp;
use ductile_domain::tree::TreeNode;
use ductile_domain::version::Build;
use ductile_ledger::Readers;
use serde_json::Value;

use crate::plugins::{Built, Kind};

/// A server process that answers enqueues from memory.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

pub(crate) fn start(built: &Built) -> Server {
    let address = crate::gateway::free_address();
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--serve-without-ledger", &format!("{address},{}", built.root().display())])
        .stdin(Stdio::null())
        .spawn()
        .expect("the server starts");
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Server { child, address }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the child process: the server of the gateway, and nothing behind it.
pub(crate) fn serve(arguments: &str) {
    let (address, root) = arguments.split_once(',').expect("address,root");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let home = tempfile::tempdir().expect("a directory");
        let config = home.path().join("config.yaml");
        std::fs::write(&config, configuration(root)).expect("the configuration");
        let loaded = ductile_config::load(&config, &|_| None).expect("a sound configuration");
        let found = ductile_plugin::discover::discover(&loaded.config.plugin_roots);
        let (catalog, _) = Catalog::build(&loaded.config, &found.plugins);
        let boot = BootId::from(uuid::Uuid::nil());
        let forgetful = Forgetful {
            generation: Arc::new(Generation {
                no: 1,
                snapshot: None,
                config: loaded.config,
                catalog,
                pipelines: Arc::default(),
                schedules: Arc::default(),
            }),
            events: EventRing::new(boot),
            boot,
            readers: Readers::connect(&home.path().join("none.db"), Duration::from_secs(1)),
        };
        let listener = std::net::TcpListener::bind(address).expect("a port");
        let router = ductile_api::router(Arc::new(forgetful));
        let connections = ductile_api::server::Connections::default();
        ductile_api::server::serve_tcp(listener, router, &connections, std::future::pending()).await.expect("served");
    });
}

fn configuration(root: &str) -> String {
    format!(
        "plugin_roots: [{root}]\napi: {{auth: {{tokens: [{{token: {}, scopes: ['*']}}]}}}}\nplugins: {{{}: {{enabled: true}}}}\n",
        crate::client::TOKEN,
        Kind::Static.name()
    )
}

struct Forgetful {
    generation: Arc<Generation>,
    events: EventRing,
    boot: BootId,
    /// The trait offers reads; nobody asks for them here.
    readers: Readers,
}

impl Gateway for Forgetful {
    async fn submit(&self, _: Submission) -> Result<Submitted, Refusal> {
        Ok(Submitted::Accepted(JobId::from(uuid::Uuid::now_v7())))
    }

    async fn start_pipeline(&self, start: PipelineStart) -> Result<Vec<Submitted>, Refusal> {
        Err(Refusal::UnknownPipeline(start.pipeline.to_string()))
    }

    async fn wait_for_family(&self, _: JobId, _: Duration) -> bool {
        false
    }

    fn sync_place(&self) -> Option<SyncPlace> {
        None
    }

    async fn cancel(&self, _: JobId, _: String, _: String) -> Result<Cancelled, Refusal> {
        Ok(Cancelled::Unknown)
    }

    async fn wait(&self, _: JobId, _: Duration) {}

    async fn set_dispatch(&self, _: bool, _: String) -> Result<(), Refusal> {
        Ok(())
    }

    async fn run_schedule(&self, plugin: String, id: String, _: &'static str, _: String) -> Result<Submitted, Refusal> {
        Err(Refusal::UnknownSchedule { plugin, schedule: Some(id) })
    }

    async fn pause_schedules(
        &self,
        plugin: String,
        schedule: Option<String>,
        _: bool,
        _: String,
    ) -> Result<Vec<String>, Refusal> {
        Err(Refusal::UnknownSchedule { plugin, schedule })
    }

    async fn reset_breaker(&self, _: String, _: String) -> Result<usize, Refusal> {
        Ok(0)
    }

    async fn restart_actor(&self, path: &str) -> Result<(), Refusal> {
        Err(Refusal::UnknownActor(path.to_owned()))
    }

    async fn inspect_actor(&self, path: &str) -> Result<Option<Value>, Refusal> {
        Err(Refusal::UnknownActor(path.to_owned()))
    }

    async fn reload(&self, _: String) -> Result<Reloaded, Refusal> {
        unreachable!("the benchmark reloads nothing")
    }

    fn generations(&self) -> Vec<GenerationUse> {
        Vec::new()
    }

    fn stop(&self, _: String) {}

    fn tree(&self) -> TreeNode {
        unreachable!("the benchmark asks for no tree")
    }

    fn generation(&self) -> Arc<Generation> {
        self.generation.clone()
    }

    async fn health(&self) -> Health {
        unreachable!("the benchmark asks for no health here")
    }

    fn events(&self) -> &EventRing {
        &self.events
    }

    fn readers(&self) -> &Readers {
        &self.readers
    }

    fn now(&self) -> Timestamp {
        std::time::SystemTime::now().into()
    }

    fn build(&self) -> Build {
        Build { version: "none", commit: "none", built_at: "1970-01-01T00:00:00Z" }
    }

    fn boot_id(&self) -> BootId {
        self.boot
    }
}
