//! Connections of an HTTP server, for those who are not friendly: how many there may be, how long a handshake and the head of a
//! request may take, and how they end. axum's own `serve` bounds none of these.

pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutBody;
use tower_service::Service;

use tls::Acceptor;

/// What a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; others wait outside.
    pub connections: usize,
    /// How long a TLS handshake, and the head of a request, may take; also how long a connection, or a request in
    /// the middle of its body, may say nothing.
    pub head: Duration,
    /// How long requests may go on after the order to stop.
    pub last: Duration,
}

/// After an error of the system (too many files are open): nothing gets better at once.
const BREATH: Duration = Duration::from_millis(100);
/// Files that are not for connections: logs, the database, units.
const OTHER_FILES: u64 = 1024;

/// As many connections as are wanted, and as the process may have files. The process's limit is raised as far as it may be.
pub fn connections(wanted: usize) -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let needed = (wanted as u64 + OTHER_FILES).min(hard).max(soft);
    let soft = if setrlimit(Resource::RLIMIT_NOFILE, needed, hard).is_ok() { needed } else { soft };
    let free = usize::try_from(soft.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    // At least a few, however tight it is.
    wanted.min(free.max(64))
}

/// Serves until `stop`; then takes nobody new, lets requests end, and cuts what goes on for too long.
pub async fn serve(listener: TcpListener, tls: Option<Acceptor>, app: Router, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let (tls, app, watcher, stopped) = (tls.clone(), app.clone(), graceful.watcher(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            let served = match tls {
                None => watcher
                    .watch(connection(stream, peer, app, limits, Version::Http1))
                    .await
                    .map_err(|error| error.to_string()),
                Some(tls) => {
                    let shaken = tokio::select! {
                        // Nobody has asked for anything yet.
                        () = stopped.cancelled() => return,
                        shaken = tokio::time::timeout(limits.head, tls.accept(stream)) => shaken,
                    };
                    match shaken {
                        Ok(Ok(stream)) => {
                            let version = match stream.get_ref().1.alpn_protocol() {
                                Some(b"h2") => Version::Http2,
                                Some(_) | None => Version::Http1,
                            };
                            let ended = watcher.watch(connection(stream, peer, app, limits, version)).await;
                            ended.map_err(|error| error.to_string())
                        }
                        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS connection"),
                        Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a connection broke");
            }
        });
    }
    // New ones are refused from here on.
    drop(listener);
    if tokio::time::timeout(limits.last, graceful.shutdown()).await.is_err() {
        tracing::info!("requests that did not end in time are cut");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are small and whole: waiting to fill a packet only adds latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    Ok((stream, peer, place))
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// One connection. The peer's address is in each request's extensions, as [`ConnectInfo`].
fn connection<S>(
    stream: S,
    peer: SocketAddr,
    app: Router,
    limits: Limits,
    version: Version,
) -> impl hyper_util::server::graceful::GracefulConnection<Error: std::fmt::Display>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(|body| Body::new(TimeoutBody::new(limits.head, body)));
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().call(request)
    });
    // Known beforehand: to find it out by the first bytes, hyper waits for them without end.
    let mut builder = match version {
        Version::Http1 => Builder::new(TokioExecutor::new()).http1_only(),
        Version::Http2 => Builder::new(TokioExecutor::new()).http2_only(),
    };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.head).keep_alive_timeout(limits.head);
    builder.serve_connection(TokioIo::new(stream), answer).into_owned()
}

#[cfg(test)]
mod tests;
