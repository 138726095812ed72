//! What an actor implements: the gen_server of this layer.

use std::future::Future;

use serde_json::{Value, json};

use crate::{Cx, Exit};

/// What an actor is sent.
pub trait Message: Send + 'static {
    /// Name of the variant, for the tree and for crash reports.
    fn kind(&self) -> &'static str;
}

/// An actor: its state is `Self`, one message is handled at a time.
pub trait Server: Sized + Send + 'static {
    /// What it is sent.
    type Msg: Message;
    /// Given again at every start and restart.
    type Args: Clone + Send + Sync + 'static;

    /// Builds the state; must be cheap (limit 5 s), since the supervisor waits for it. `Err(Exit::Normal)` means "not needed": the
    /// child stays down and nothing failed. Any other error is a failed start.
    fn init(args: Self::Args, cx: &Cx<Self>, start: StartInfo) -> impl Future<Output = Result<Self, Exit>> + Send;

    /// Heavy work right after the start, before the first message; nobody waits for it.
    fn continue_(&mut self, _cx: &Cx<Self>) -> impl Future<Output = Result<(), Exit>> + Send {
        async { Ok(()) }
    }

    /// Handles one message. An error ends the actor; `Err(Exit::Normal)` ends it without a fault.
    fn handle(&mut self, cx: &Cx<Self>, msg: Self::Msg) -> impl Future<Output = Result<(), Exit>> + Send;

    /// Runs after a stop and after an error, within the child's shutdown limit; not after a panic or a kill.
    fn terminate(&mut self, _cx: &Cx<Self>, _why: &Exit) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// What [`crate::Tree::inspect`] shows; must hold no secret.
    fn inspect(&self) -> Value {
        json!({})
    }
}

/// Why a server is being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartCause {
    /// First start.
    Boot,
    /// The n-th restart since the first start, from 1.
    Restart(u64),
    /// Somebody asked for a restart.
    Operator,
}

/// What a server is told at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartInfo {
    /// Why it is started.
    pub cause: StartCause,
    /// Counts attempts to start from 1; never used twice.
    pub incarnation: u64,
}
