//! What the ledger's file is made of, how it grows, and what is free beside it.

use std::time::Duration;

use axum::http::StatusCode;
use ductile_ledger::Storage;
use serde::Serialize;

use crate::call::{Answer, Call, json_answer};
use crate::gateway::Gateway;
use crate::views::unreadable;

/// How long the file is looked through; of what is not seen by then there are no numbers.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    storage: Storage,
    /// With less free on the disk no new work is taken in; 0 when nobody looks.
    min_free_bytes: u64,
    /// Why none is taken in now.
    intake_stopped: Option<String>,
}

pub(super) async fn show<G: Gateway>(call: Call<G>) -> Answer {
    let (gateway, config) = (&call.app.gateway, &call.generation.config);
    let storage = gateway.readers().storage(&config.service, gateway.now(), PATIENCE).await.map_err(unreadable)?;
    let (min_free_bytes, intake_stopped) = (config.state.min_free_space, gateway.intake_stopped());
    json_answer(StatusCode::OK, &Shown { storage, min_free_bytes, intake_stopped })
}
