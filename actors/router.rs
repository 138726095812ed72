//! The router: decides what must follow an attempt when the plan that was made at its end is overtaken by a reload. It
//! plans as a pure function and never acts.
//!
//! Woken by `Plan` questions. A crash costs the asker one repetition.

use std::sync::Arc;

use ductile_domain::generation::Generation;
use ductile_domain::job::ClaimedJob;
use ductile_domain::plan::{self, Plan};
use ductile_ledger::Finish;
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shared::Shared;

/// State: how much was planned, for inspection.
pub(crate) struct Router {
    shared: Arc<Shared>,
    planned: u64,
}

pub(crate) enum Msg {
    /// What must follow this end under this generation?
    Plan { generation: Arc<Generation>, job: Arc<ClaimedJob>, finish: Arc<Finish>, reply: Reply<Plan> },
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
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared, planned: 0 })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Plan { generation, job, finish, reply } => {
                self.planned += 1;
                let now = self.shared.clock.now();
                reply.send(plan::plan(&generation, &job, &finish.outcome, now, &mut Uuid::now_v7));
            }
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({ "planned": self.planned })
    }
}
