//! The config actor: owns the change from one generation to the next.
//!
//! The generation in force lives outside, so a crash of this actor loses nothing, and a change that has begun goes on to
//! its end. Woken by questions only; it never touches a job.

use std::sync::Arc;

use ductile_api::gateway::{Refusal, Reloaded};
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo};
use serde_json::{Value, json};

use crate::reload;
use crate::shared::Shared;

/// State: nothing but the way to what is shared.
pub(crate) struct Config {
    shared: Arc<Shared>,
}

pub(crate) enum Msg {
    /// Read the configuration again and put it in force. Its place in the mailbox is kept until the answer, so that
    /// only a few wait behind the one that is under way.
    Reload { requested_by: String, reply: Reply<Result<Reloaded, Refusal>> },
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Reload { .. } => "Reload",
        }
    }
}

impl Server for Config {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Reload { requested_by, reply } => self.reload(requested_by, reply),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        let generation = self.shared.generation();
        json!({
            "generation": generation.no, "hash": generation.config.source.hash, "files": generation.config.source.files,
            "held": self.shared.generations.uses(), "waiting_or_under_way": self.shared.addresses.config.len(),
        })
    }
}

impl Config {
    /// A task of its own, not of this actor: what was committed must be put in force even when the actor dies meanwhile.
    fn reload(&self, requested_by: String, reply: Reply<Result<Reloaded, Refusal>>) {
        let shared = self.shared.clone();
        drop(tokio::spawn(async move { reply.send(reload::reload(&shared, requested_by).await) }));
    }
}
