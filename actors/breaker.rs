//! The breaker actor: answers how many circuit breakers of plugins in force are open.
//!
//! The rows of `circuit_breakers` are the truth: a tick is admitted or refused, and an end counted, in the transaction that
//! writes it. What this actor holds is what it last read, for when the rows can't be read.

use std::sync::Arc;

use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo};
use serde_json::{Value, json};

use crate::shared::Shared;

/// State: the way to the rows.
pub(crate) struct Breaker {
    shared: Arc<Shared>,
    open: u64,
}

pub(crate) enum Msg {
    /// How many breakers are open?
    CountOpen(Reply<u64>),
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::CountOpen(_) => "CountOpen",
        }
    }
}

impl Server for Breaker {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared, open: 0 })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::CountOpen(reply) => {
                let generation = self.shared.generation();
                let open = self.shared.readers.open_breakers(|plugin| generation.config.wants(plugin)).await;
                if let Ok(open) = open {
                    self.open = open;
                }
                reply.send(self.open);
            }
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({ "open": self.open })
    }
}
