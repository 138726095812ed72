//! The router: decides which jobs must follow an event. It plans as a pure function and never acts.
//!
//! Woken by `Plan` questions. A crash costs the asker one repetition.

use std::sync::Arc;

use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_domain::outcome::Outcome;
use ductile_domain::plan::{self, Plan};
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo};
use serde_json::{Value, json};

/// State: how much was planned, for inspection.
pub(crate) struct Router {
    planned: u64,
}

pub(crate) enum Msg {
    /// What must follow this attempt under this generation?
    Plan { generation: Arc<Generation>, job: Arc<ClaimedJob>, outcome: Arc<Outcome>, reply: Reply<Plan> },
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Plan { .. } => "Plan",
        }
    }
}

impl Server for Router {
    type Msg = Msg;
    type Args = ();

    async fn init((): (), _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { planned: 0 })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Plan { generation, job, outcome, reply } => {
                self.planned += 1;
                reply.send(plan::plan(&generation, &job, &outcome, chrono::Utc::now(), &mut uuid::Uuid::now_v7));
            }
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({ "planned": self.planned })
    }
}
