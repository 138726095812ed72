//! The drainer: last to start, first to stop; its stop lets running jobs end while everything else still lives.
//!
//! It drains only when the whole gateway is being stopped: as a bystander of a group restart its stop does nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ductile_domain::event::LiveEvent;
use ductile_otp::{Cx, Exit, Message, Server, StartInfo};
use serde_json::{Map, Value, json};

use crate::dispatcher;
use crate::shared::Shared;

/// How often the drain looks at what still runs.
const LOOK: Duration = Duration::from_millis(20);

/// State: the way to what is shared.
pub(crate) struct Drainer {
    shared: Arc<Shared>,
}

/// The drainer is told nothing; its life is its message.
pub(crate) enum Msg {}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match *self {}
    }
}

impl Server for Drainer {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {}
    }

    async fn terminate(&mut self, _: &Cx<Self>, _: &Exit) {
        if self.shared.flags.is_shutting_down() {
            self.drain().await;
        }
    }

    fn inspect(&self) -> Value {
        json!({ "draining": self.shared.flags.is_draining() })
    }
}

impl Drainer {
    /// New work is refused, running jobs get `service.drain_timeout`; what is left is interrupted by the stop of the
    /// job supervisor, which gives the attempts back.
    async fn drain(&self) {
        let shared = &self.shared;
        shared.flags.begin_drain();
        shared.addresses.dispatcher.wake(|| dispatcher::Msg::Recheck);
        let patience = shared.generation().config.service.drain_timeout;
        let began = Instant::now();
        self.say("drain.started", shared.jobs.count());
        tracing::info!(component = "drainer", running = shared.jobs.count(), timeout = ?patience, "draining");
        let mut said = Instant::now();
        while shared.jobs.count() > 0 && began.elapsed() < patience && !shared.flags.is_hurried() {
            tokio::time::sleep(LOOK).await;
            if said.elapsed() > Duration::from_secs(1) {
                said = Instant::now();
                self.say("drain.progress", shared.jobs.count());
            }
        }
        self.say("drain.ended", shared.jobs.count());
    }

    fn say(&self, kind: &'static str, running: usize) {
        let fields = Map::from_iter([("running".to_owned(), Value::from(running))]);
        self.shared.ring.emit(LiveEvent::other(kind, self.shared.clock.now(), fields));
    }
}
