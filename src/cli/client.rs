//! HTTP/1.1 to the gateway: over its control socket, or over TCP when an address was given.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::error::Error;
use crate::sse::Events;

/// Answers larger than this are refused; the largest honest one is a page of logs with results.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the gateway may take to answer a request that asks it to wait for nothing.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The control socket.
    Socket(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl Target {
    /// Reads `http://host[:port][/]`, `host:port` or `unix:PATH`.
    ///
    /// # Errors
    /// A usage error that says what is accepted.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Socket(path.trim_start_matches("//").into()));
        }
        let usage = |why: &str| Error::Usage(format!("--api-url {url}: {why}; use http://HOST:PORT or unix:PATH"));
        if url.starts_with("https://") {
            return Err(usage("TLS is the matter of a proxy in front of the gateway"));
        }
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
            return Err(usage("not an address"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:80") }))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// A request of the caller's own making.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Headers beside the client's own, which they replace.
    pub headers: Vec<(header::HeaderName, header::HeaderValue)>,
    /// The body as it is sent.
    pub body: Option<String>,
}

/// Talks to one gateway. Every request has its own connection, so a restart between two of them does not matter.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    target: Target,
    token: Option<String>,
}

impl Client {
    /// A client; the token is sent over TCP only, since the socket asks the kernel who is there.
    #[must_use]
    pub(crate) fn new(target: Target, token: Option<String>) -> Self {
        Self { target, token }
    }

    /// Where requests go.
    #[must_use]
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// `GET`, for an answer in JSON.
    ///
    /// # Errors
    /// Nobody answered, the caller may not ask, or the answer was no.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.ask(Method::GET, path, None, ANSWER).await
    }

    /// `GET` of something that takes up to `wait` until it is answered.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn get_waiting(&self, path: &str, wait: Duration) -> Result<Value, Error> {
        self.ask(Method::GET, path, None, ANSWER + wait).await
    }

    /// `POST`, for an answer in JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.ask(Method::POST, path, body, ANSWER).await
    }

    /// `POST` of something that takes up to `wait` until it is answered.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post_waiting(&self, path: &str, body: &Value, wait: Duration) -> Result<Value, Error> {
        self.ask(Method::POST, path, Some(body), ANSWER + wait).await
    }

    /// Opens the stream of live events; `last_id` is the id of the last one that was seen.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn events(&self, query: &str, last_id: Option<&str>) -> Result<Events, Error> {
        let path = format!("/events{query}");
        let mut request = self.request(Method::GET, &path, None)?;
        request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("text/event-stream"));
        if let Some(value) = last_id.and_then(|id| header::HeaderValue::from_str(id).ok()) {
            request.headers_mut().insert("last-event-id", value);
        }
        let response = tokio::time::timeout(ANSWER, self.send(request)).await.map_err(|_| self.too_slow())??;
        if response.status().is_success() {
            return Ok(Events::new(response.into_body()));
        }
        let status = response.status();
        let body = self.read(response).await?;
        Err(refusal(status, &body))
    }

    /// Sends a request of the caller's own making and hands out the answer, whatever its status.
    ///
    /// # Errors
    /// Nobody answered.
    pub(crate) async fn fetch(&self, asked: &Asked) -> Result<Response<Incoming>, Error> {
        let mut request = self.request_with(asked.method.clone(), &asked.path, asked.body.clone())?;
        for (name, value) in &asked.headers {
            request.headers_mut().insert(name, value.clone());
        }
        self.send(request).await
    }

    /// The answer ended in the middle.
    #[must_use]
    pub(crate) fn broke_off(&self, why: &str) -> Error {
        self.unreachable(format!("the answer broke off: {why}"))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, limit: Duration) -> Result<Value, Error> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            let response = self.send(request).await?;
            let status = response.status();
            let body = self.read(response).await?;
            Ok::<_, Error>((status, body))
        };
        let (status, body) = tokio::time::timeout(limit, exchange).await.map_err(|_| self.too_slow())??;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|e| Error::Answer(format!("{path} did not answer with JSON: {e}")))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = self.request_with(method, path, body.map(Value::to_string))?;
        if body.is_some() {
            request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        }
        Ok(request)
    }

    fn request_with(&self, method: Method, path: &str, body: Option<String>) -> Result<Request<Full<Bytes>>, Error> {
        let host = match &self.target {
            Target::Socket(_) => "localhost",
            Target::Tcp(address) => address,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("ductile-cli/", env!("CARGO_PKG_VERSION")));
        if let (Some(token), Target::Tcp(_)) = (&self.token, &self.target) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| Error::Usage(format!("{path:?} or the token can't be sent in a request: {e}")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let connected = match &self.target {
            Target::Socket(path) => {
                let stream = self.connected(tokio::time::timeout(CONNECT, UnixStream::connect(path)).await)?;
                exchange(stream, request).await
            }
            Target::Tcp(address) => {
                let stream = self.connected(tokio::time::timeout(CONNECT, TcpStream::connect(address)).await)?;
                exchange(stream, request).await
            }
        };
        connected.map_err(|e| self.unreachable(format!("the connection broke: {e}")))
    }

    fn connected<T>(&self, result: Result<std::io::Result<T>, tokio::time::error::Elapsed>) -> Result<T, Error> {
        match result {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::NotPermitted {
                reason: format!("{}: {e}", self.target),
                hint: Some("the control socket is for the user that runs the gateway, and for root".into()),
            }),
            Ok(Err(e)) => Err(self.unreachable(match e.kind() {
                std::io::ErrorKind::NotFound => "there is no such socket".into(),
                _ => e.to_string(),
            })),
            Err(_) => Err(self.unreachable(format!("no connection within {} s", CONNECT.as_secs()))),
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        let advice = match &self.target {
            Target::Socket(path) => crate::instance::advice(path),
            Target::Tcp(_) => vec!["check the address, and that `api.enabled` is true there".into()],
        };
        Error::Unreachable { tried: self.target.to_string(), reason, advice }
    }

    fn too_slow(&self) -> Error {
        self.unreachable("it is there, but did not answer in time".into())
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, Error> {
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|e| self.broke_off(&e.to_string()))
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself with the response's body; its errors also surface there.
    tokio::spawn(connection);
    sender.send_request(request).await
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let message = text("error").unwrap_or_else(|| {
        let raw = String::from_utf8_lossy(body);
        let raw = crate::table::one_line(&raw);
        if raw.is_empty() { status.canonical_reason().unwrap_or("no reason given").to_owned() } else { raw }
    });
    match status {
        StatusCode::UNAUTHORIZED => Error::NotPermitted {
            reason: message,
            hint: text("hint").or_else(|| Some("give a token with --api-key or in DUCTILE_API_KEY".into())),
        },
        StatusCode::FORBIDDEN => Error::NotPermitted { reason: message, hint: text("hint") },
        _ if answer["context"]["problems"].is_array() => {
            let problems = answer["context"]["problems"].as_array().cloned().unwrap_or_default();
            Error::Rejected { message, problems }
        }
        _ => Error::Refused { status: status.as_u16(), code: text("code"), message, hint: hint(&answer) },
    }
}

/// The next step, with the steps of a run that there are to choose from.
fn hint(answer: &Value) -> Option<String> {
    let hint = answer["hint"].as_str().filter(|text| !text.is_empty())?;
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    let steps =
        answer["context"]["steps"].as_array().into_iter().flatten().filter(|step| step.is_object()).map(|step| {
            let place = format!("{}/{}", text(step, "pipeline"), text(step, "step_id"));
            crate::table::one_line(&format!("  {} {place}: {}", text(step, "job_id"), text(step, "status")))
        });
    Some(std::iter::once(hint.to_owned()).chain(steps).collect::<Vec<_>>().join("\n"))
}

/// `text` for use as one segment of a path or as a value in a query.
#[must_use]
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte.into());
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// `?key=value&...` of the pairs that have a value; empty when none has.
#[must_use]
pub(crate) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let pairs: Vec<_> = pairs.iter().filter_map(|(key, value)| value.map(|v| format!("{key}={}", encode(v)))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests;
