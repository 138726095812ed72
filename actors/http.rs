//! The http actor: owns the accept loops of the doors. Listeners and connections outlive it, so that its restart costs
//! a caller some milliseconds and no connection.
//!
//! Woken by its own stop, and by a reload that changes the API's address. It never handles a request: connections are
//! plain tasks.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ductile_api::server;
use ductile_domain::config::Api;
use ductile_otp::{Cx, Exit, Message, Reply, Server, StartInfo};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::handle::Handle;
use crate::shared::Shared;

/// The sockets, bound before the tree starts and cloned by every incarnation.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The control socket.
    control: UnixListener,
    /// The TCP door, when the API is enabled.
    tcp: Mutex<Option<Arc<Door>>>,
}

/// A listening socket. It is closed when nobody holds it.
#[derive(Debug)]
pub(crate) struct Door {
    /// As it was configured; port 0 stands for any.
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

/// An address that can't be listened on.
#[derive(Debug)]
pub(crate) struct Refused {
    address: SocketAddr,
    source: io::Error,
}

impl Listeners {
    pub(crate) fn new(control: UnixListener, tcp: Option<Arc<Door>>) -> Self {
        Self { control, tcp: Mutex::new(tcp) }
    }

    /// The door that serves, or is about to.
    pub(crate) fn tcp(&self) -> Option<Arc<Door>> {
        self.tcp.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes effect when the http actor is told, or starts.
    pub(crate) fn set_tcp(&self, door: Option<Arc<Door>>) {
        *self.tcp.lock().unwrap_or_else(PoisonError::into_inner) = door;
    }
}

impl Door {
    /// Binds the API's address.
    pub(crate) fn bind(api: &Api) -> Result<Self, Refused> {
        let address = api.listen;
        let refused = |source| Refused { address, source };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        if api.tokens.is_empty() {
            tracing::warn!(
                component = "gateway", %address,
                "the API has no token: it answers the public list only; the control socket answers its owner. \
                 Add one under api.auth.tokens to let others in"
            );
        }
        Ok(Self { address, listener })
    }
}

impl Refused {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "a process listens there, or this gateway itself on another address with that port: stop it, or set \
                 api.listen to another port (or api.enabled: false)"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher port in api.listen",
            io::ErrorKind::AddrNotAvailable => "no interface has this address: correct api.listen",
            _ => "correct api.listen",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to listen on {}: {}", self.address, self.source)
    }
}

/// How long open connections may take to end when the gateway stops.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// State: the accept loop at the TCP door; the connections outlive it.
pub(crate) struct Http {
    shared: Arc<Shared>,
    tcp: Option<AcceptLoop>,
}

/// A loop that ends when this is dropped.
struct AcceptLoop {
    door: Arc<Door>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

pub(crate) enum Msg {
    /// A reload has changed the listeners: serve the one there is now; answered when the former one is closed.
    Listen(Reply<()>),
    /// An accept loop failed, which it never does by itself.
    Failed(String),
}

impl Message for Msg {
    fn kind(&self) -> &'static str {
        match self {
            Self::Listen(_) => "Listen",
            Self::Failed(_) => "Failed",
        }
    }
}

impl Server for Http {
    type Msg = Msg;
    type Args = Arc<Shared>;

    async fn init(shared: Self::Args, cx: &Cx<Self>, _: StartInfo) -> Result<Self, Exit> {
        let control = shared.listeners.control.try_clone();
        let control = control.map_err(|e| Exit::Error(format!("could not clone the control socket: {e}")))?;
        let routes = ductile_api::router(Arc::new(Handle::new(shared.clone())));
        let (connections, me) = (shared.connections.clone(), cx.slot().clone());
        drop(cx.spawn(async move {
            if let Err(error) = server::serve_unix(control, routes, &connections, std::future::pending()).await {
                let _ = me.try_cast(Msg::Failed(error.to_string()));
            }
        }));
        let mut http = Self { shared, tcp: None };
        http.listen(cx).await?;
        Ok(http)
    }

    async fn handle(&mut self, cx: &Cx<Self>, msg: Msg) -> Result<(), Exit> {
        match msg {
            Msg::Listen(reply) => {
                self.listen(cx).await?;
                reply.send(());
                Ok(())
            }
            Msg::Failed(reason) => Err(Exit::Error(reason)),
        }
    }

    /// A restart leaves the connections alone; the stop of the gateway ends them.
    async fn terminate(&mut self, _: &Cx<Self>, _: &Exit) {
        if self.shared.flags.is_shutting_down() {
            self.shared.connections.drain(CLOSE_GRACE).await;
        }
    }

    fn inspect(&self) -> Value {
        json!({
            "connections": self.shared.connections.open(), "waiting_callers": self.shared.waiters.len() + self.shared.families.len(),
            "listening": self.tcp.as_ref().and_then(|l| l.door.listener.local_addr().ok()).map(|a| a.to_string()),
        })
    }
}

impl Http {
    /// Serves the door that there is now, then closes the one before it. Its connections live on.
    async fn listen(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let wanted = self.shared.listeners.tcp();
        let served = self.tcp.as_ref().map(|l| &l.door);
        if wanted.as_ref().map(Arc::as_ptr) == served.map(Arc::as_ptr) {
            return Ok(());
        }
        let next = wanted.map(|door| self.accept(cx, door)).transpose()?;
        if let Some(AcceptLoop { door, stop, ended }) = std::mem::replace(&mut self.tcp, next) {
            drop(stop);
            // An error says that the loop is gone, which is what is waited for.
            let _ = ended.await;
            tracing::info!(component = "gateway", address = %door.address, "the API listens there no more");
        }
        Ok(())
    }

    fn accept(&self, cx: &Cx<Self>, door: Arc<Door>) -> Result<AcceptLoop, Exit> {
        let listener = door.listener.try_clone();
        let listener = listener.map_err(|e| Exit::Error(format!("could not clone the API's listener: {e}")))?;
        let routes = ductile_api::router(Arc::new(Handle::new(self.shared.clone())));
        let (connections, me) = (self.shared.connections.clone(), cx.slot().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        drop(cx.spawn(async move {
            let until = async { drop(stopped.await) };
            if let Err(error) = server::serve_tcp(listener, routes, &connections, until).await {
                let _ = me.try_cast(Msg::Failed(error.to_string()));
            }
            let _ = end.send(());
        }));
        Ok(AcceptLoop { door, stop, ended })
    }
}
