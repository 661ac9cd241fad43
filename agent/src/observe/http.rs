//! Answers to the kubelet's probes and to Prometheus, over HTTP.
//!
//! Invariant: whoever can reach the port can read numbers, and nothing else. What strangers can make the
//! agent hold is bounded: [`MOST`] connections, each for [`PATIENCE`], for one request with a head of
//! [`HEAD`] bytes. The newest connection is always served, so holding all others keeps no probe out.
//!
//! It runs on the thread of the loop: while that hangs, nothing is answered, and the kubelet starts the
//! container anew.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::metrics;
use super::status::Status;

/// How many connections are served at once. One more ends the oldest.
const MOST: usize = 32;
/// How long a connection may take, from its beginning to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many bytes the head of a request may have; the least that hyper can be told.
const HEAD: usize = 8 << 10;
/// How long to wait when no connection can be accepted, for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_secs(1);
const TEXT: &str = "text/plain; charset=utf-8";

/// Where to listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Listen {
    At(SocketAddr),
    Nowhere,
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        let address =
            text.parse().map_err(|_| "want ADDRESS:PORT, such as 127.0.0.1:7284 or [::]:7284, or none");
        address.map(Self::At)
    }
}

/// Begins to answer, if it is to `listen` anywhere. It ends with the runtime.
///
/// # Errors
/// The port can't be had. That is fatal: without answers, the kubelet would end the container for no reason
/// told.
pub(crate) async fn start(listen: Listen, status: Arc<Status>) -> Result<()> {
    let Listen::At(address) = listen else { return Ok(()) };
    let listener = bind(address).await.with_context(|| {
        let advice =
            "does another program have the port? (--listen, and the container's port, choose another)";
        format!("listening on {address} for probes and scrapes; {advice}")
    })?;
    let address = listener.local_addr().context("asking which address is listened on")?;
    info!(%address, "Serving /healthz, /readyz and /metrics");
    tokio::spawn(serve(listener, status));
    Ok(())
}

/// Where there is no IPv6, all addresses are those of IPv4.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let first = TcpListener::bind(address).await;
    match first {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        other => other,
    }
}

async fn serve(listener: TcpListener, status: Arc<Status>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() == MOST
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(talk(stream, status.clone())).abort_handle());
            }
            Err(error) => {
                warn!(%error, "A connection can't be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one request. If that fails, it is the client that has to know.
async fn talk(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(|request: Request<Incoming>| {
        future::ready(Ok::<_, Infallible>(answer(&status, request.method(), request.uri().path())))
    });
    let mut http = http1::Builder::new();
    // The time of the whole connection is limited instead.
    http.header_read_timeout(None).keep_alive(false).max_buf_size(HEAD);
    drop(tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await);
}

/// The answer to a request. That to HEAD is the same; hyper leaves its body out.
fn answer(status: &Status, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match status.reasons().as_slice() {
            [] => page(StatusCode::OK, TEXT, "ready\n".to_owned()),
            reasons => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("not ready:\n- {}\n", reasons.join("\n- ")),
            ),
        },
        "/metrics" => page(StatusCode::OK, metrics::CONTENT_TYPE, status.metrics.text()),
        _ => page(StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
