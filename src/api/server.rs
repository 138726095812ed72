//! Carries requests from listeners to the router: limits, deadlines, and an end that waits for nobody for ever.
//!
//! Connections are plain tasks in a tracker that outlives the accept loop, so a loop that is restarted cuts nobody off.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;

use crate::auth::{Peer, foreign};
use crate::control_socket;
use crate::error::{Error, ListenerKind};
use crate::patient_io::{PatientIo, Transport};

/// What one door allows its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at a time; further ones wait in the listener's backlog.
    pub connections: usize,
    /// Time for a request's head to arrive; also how long an idle connection is kept.
    pub head: Duration,
    /// Time without progress after which a client that does not read is dropped.
    pub write: Duration,
    /// Bytes of a request's head, and of an answer that may wait for a client; at least 8,192.
    pub buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 512, head: Duration::from_secs(10), write: Duration::from_secs(30), buffer: 64 * 1024 }
    }
}

/// How a request came in; the server puts it, in an `Arc`, into each request's extensions.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Peer,
    /// True once the door closes: streams and waits end early.
    pub(crate) closing: watch::Receiver<bool>,
}

/// The open connections of one door. Clones share them.
#[derive(Debug, Clone)]
pub struct Connections {
    limits: Limits,
    permits: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    open: watch::Sender<usize>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            permits: Arc::new(Semaphore::new(limits.connections.max(1))),
            closing: watch::Sender::new(false),
            cut: watch::Sender::new(false),
            open: watch::Sender::new(0),
        }
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Ends all connections: live events say `bye`, waits answer with what there is, requests in hand finish; what is
    /// left after `grace` is cut. Answers how many were cut. For good: later connections end after one request.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.closing.send_replace(true);
        let mut open = self.open.subscribe();
        // The sender is our own, so the wait fails by its time only.
        if tokio::time::timeout(grace, open.wait_for(|open| *open == 0)).await.is_ok() {
            return 0;
        }
        let left = self.open();
        self.cut.send_replace(true);
        let _ = open.wait_for(|open| *open == 0).await;
        left
    }

    fn spawn<T: Transport>(&self, transport: T, permit: OwnedSemaphorePermit, peer: Peer, router: Router) {
        let mut builder = http1::Builder::new();
        // The timeout needs the timer, or hyper panics.
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(self.limits.buffer.max(8_192));
        let origin = Arc::new(Origin { peer, closing: self.closing.subscribe() });
        let io = TokioIo::new(PatientIo::new(transport, self.limits.write));
        let (mut closing, mut cut) = (self.closing.subscribe(), self.cut.subscribe());
        let counted = Counted::new(self.open.clone(), permit);
        tokio::spawn(async move {
            let _counted = counted;
            let service = service_fn(move |request| answer(router.clone(), origin.clone(), request));
            let mut connection = pin!(builder.serve_connection(io, service));
            let mut is_closing = false;
            loop {
                tokio::select! {
                    ended = connection.as_mut() => {
                        // Clients vanish; that is their matter and not worth more than a trace.
                        if let Err(error) = ended {
                            tracing::debug!(%error, "connection ended");
                        }
                        return;
                    }
                    _ = closing.wait_for(|closing| *closing), if !is_closing => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    _ = cut.wait_for(|cut| *cut) => return,
                }
            }
        });
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Counted {
    open: watch::Sender<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(open: watch::Sender<usize>, permit: OwnedSemaphorePermit) -> Self {
        open.send_modify(|open| *open += 1);
        Self { open, _permit: permit }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

async fn answer(
    mut router: Router,
    origin: Arc<Origin>,
    mut request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    if matches!(origin.peer, Peer::Foreign) {
        return Ok(foreign().into_response());
    }
    request.extensions_mut().insert(origin);
    router.call(request.map(Body::new)).await
}

/// Serves a TCP listener until `stop` resolves or the future is dropped; connections live on in `connections`.
///
/// # Errors
/// When the listener cannot be handed to the runtime; single failed accepts are logged and survived.
pub async fn serve_tcp(
    listener: std::net::TcpListener,
    router: Router,
    connections: &Connections,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = register(ListenerKind::Tcp, || {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })?;
    let serve = async {
        loop {
            let permit = permit(connections).await;
            let Some((stream, _)) = survived(listener.accept().await).await else { continue };
            // Answers are written whole; Nagle would only delay the last piece.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            connections.spawn(stream, permit, Peer::Tcp, router.clone());
        }
    };
    until(stop, serve).await;
    Ok(())
}

/// Serves a Unix listener like [`serve_tcp`]; the kernel says who calls, and only the gateway's own user and root get
/// an answer other than 403.
///
/// # Errors
/// When the listener cannot be handed to the runtime.
pub async fn serve_unix(
    listener: std::os::unix::net::UnixListener,
    router: Router,
    connections: &Connections,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = register(ListenerKind::Unix, || {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    })?;
    let serve = async {
        loop {
            let permit = permit(connections).await;
            let Some((stream, _)) = survived(listener.accept().await).await else { continue };
            let peer = control_socket::peer(stream.peer_cred().map(|c| c.uid()));
            connections.spawn(stream, permit, peer, router.clone());
        }
    };
    until(stop, serve).await;
    Ok(())
}

fn register<L>(kind: ListenerKind, act: impl FnOnce() -> io::Result<L>) -> Result<L, Error> {
    act().map_err(|source| Error::RegisterListener { kind, source })
}

async fn permit(connections: &Connections) -> OwnedSemaphorePermit {
    connections.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
}

/// What was accepted; after a failed accept `None`, when the next may be tried.
async fn survived<S>(accepted: io::Result<S>) -> Option<S> {
    match accepted {
        Ok(stream) => return Some(stream),
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
        Err(error) => {
            // Out of file descriptors, most likely: the backlog keeps the client, so pause and try again.
            tracing::warn!(%error, "accepting a connection failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    None
}

async fn until(stop: impl Future<Output = ()>, serve: impl Future<Output = Infallible>) {
    tokio::select! {
        () = stop => {}
        never = serve => match never {},
    }
}
