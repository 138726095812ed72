//! The scheduler: owns the tick. Nothing is fired yet.
//!
//! Woken by its own timer, re-armed from the handler so that ticks never pile up.

use std::sync::Arc;

use ductile_otp::{Cx, Exit, Message, Server, StartInfo, Timer};
use serde_json::{Value, json};

use crate::shared::Shared;

/// State: the next tick.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    ticks: u64,
    timer: Option<Timer>,
}

pub(crate) enum Msg {
    /// `service.tick_interval` has passed.
    Tick,
    /// Something has changed that may make it wake earlier.
    Look,
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Tick => "Tick",
            Self::Look => "Look",
        }
    }
}

impl Server for Scheduler {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let mut scheduler = Self { shared, ticks: 0, timer: None };
        scheduler.arm(cx);
        Ok(scheduler)
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Tick => self.tick(cx),
            Msg::Look => self.arm(cx),
        }
        Ok(())
    }

    fn inspect(&self) -> Value {
        json!({ "ticks": self.ticks })
    }
}

impl Scheduler {
    fn arm(&mut self, cx: &Cx<Self>) {
        let interval = self.shared.generation().config.service.tick_interval;
        self.timer = Some(cx.send_after(interval, Msg::Tick));
    }

    fn tick(&mut self, cx: &Cx<Self>) {
        self.ticks += 1;
        self.arm(cx);
    }
}
