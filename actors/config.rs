//! The config actor: owns the change from one generation to the next.
//!
//! The generation in force lives outside, so a crash of this actor loses nothing. Woken by questions only; it never
//! touches a job.

use std::sync::Arc;

use ductile_otp::{Cx, Exit, Message, Server, StartInfo};
use serde_json::{Value, json};

use crate::shared::Shared;

/// State: nothing but the way to what is shared.
pub(crate) struct Config {
    shared: Arc<Shared>,
}

/// Nobody asks it anything yet: the generation in force is read where it lies.
pub(crate) enum Msg {}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match *self {}
    }
}

impl Server for Config {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, _: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        Ok(Self { shared })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {}
    }

    fn inspect(&self) -> Value {
        let generation = self.shared.generation();
        json!({ "generation": generation.no, "hash": generation.config.source.hash, "files": generation.config.source.files })
    }
}
