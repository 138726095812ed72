//! The http actor: owns the accept loops of the doors. Listeners and connections outlive it, so that its restart costs
//! a caller some milliseconds and no connection.
//!
//! Woken by its own stop only. It never handles a request: connections are plain tasks.

use std::sync::Arc;
use std::time::Duration;

use ductile_api::server;
use ductile_otp::{Cx, Exit, Message, Server, StartInfo};
use serde_json::{Value, json};

use crate::handle::Handle;
use crate::shared::Shared;

/// The sockets, bound before the tree starts and cloned by every incarnation.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The control socket.
    pub(crate) control: std::os::unix::net::UnixListener,
    /// The TCP door, when the API is enabled.
    pub(crate) tcp: Option<std::net::TcpListener>,
}

/// How long open connections may take to end when the gateway stops.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// State: the connections, which outlive it.
pub(crate) struct Http {
    shared: Arc<Shared>,
}

pub(crate) enum Msg {
    /// An accept loop ended, which it never does by itself.
    Ended(Option<String>),
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Ended(_) => "Ended",
        }
    }
}

impl Server for Http {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let failed = |what: &'static str| move |e: std::io::Error| Exit::Error(format!("could not clone {what}: {e}"));
        let router = ductile_api::router(Arc::new(Handle::new(shared.clone())));
        let control = shared.listeners.control.try_clone().map_err(failed("the control socket"))?;
        let tcp = match &shared.listeners.tcp {
            Some(tcp) => Some(tcp.try_clone().map_err(failed("the API's listener"))?),
            None => None,
        };
        let (connections, routes, me) = (shared.connections.clone(), router.clone(), cx.slot().clone());
        drop(cx.spawn(async move {
            let ended = server::serve_unix(control, routes, &connections, std::future::pending()).await;
            let _ = me.try_cast(Msg::Ended(ended.err().map(|e| e.to_string())));
        }));
        if let Some(tcp) = tcp {
            let (connections, me) = (shared.connections.clone(), cx.slot().clone());
            drop(cx.spawn(async move {
                let ended = server::serve_tcp(tcp, router, &connections, std::future::pending()).await;
                let _ = me.try_cast(Msg::Ended(ended.err().map(|e| e.to_string())));
            }));
        }
        Ok(Self { shared })
    }

    async fn handle(&mut self, _: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Ended(reason) => Err(Exit::Error(reason.unwrap_or_else(|| "an accept loop ended".to_owned()))),
        }
    }

    /// A restart leaves the connections alone; the stop of the gateway ends them.
    async fn terminate(&mut self, _: &Cx<Self>, _: &Exit) {
        if self.shared.flags.is_shutting_down() {
            self.shared.connections.drain(CLOSE_GRACE).await;
        }
    }

    fn inspect(&self) -> Value {
        json!({ "connections": self.shared.connections.open(), "waiting_callers": self.shared.waiters.len() })
    }
}
