//! Where requests go: an address, resolved once, and connections to it, plain or with TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use crate::load::http::ExchangeError;
use crate::load::trust::Trust;

/// Time to connect, TLS included, unless said otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The server under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http` or `https`; a path is put before each request's.
    pub base: Url,
    /// Where to connect, instead of what the URL's host resolves to. Host header and certificate stay the URL's.
    pub address: Option<SocketAddr>,
    /// Time for TCP and TLS together.
    pub connect_timeout: Duration,
    /// Whose certificates are believed.
    pub trust: Trust,
}

impl Target {
    /// A target with the usual settings.
    pub fn new(base: Url) -> Self {
        Self { base, address: None, connect_timeout: CONNECT_TIMEOUT, trust: Trust::System }
    }
}

/// A target that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither http nor https.
    #[error("`{0}` cannot be loaded: the address must start with http:// or https://")]
    Scheme(Url),
    /// No host in it.
    #[error("`{0}` names no host")]
    Host(Url),
    /// The name is unknown.
    #[error("cannot find the address of `{host}`")]
    Resolve {
        /// As in the URL.
        host: String,
        /// The resolver's answer.
        #[source]
        source: io::Error,
    },
    /// Nobody to believe.
    #[error(
        "there is no usable certificate authority: install ca-certificates, or name a file with PEM certificates (--ca-cert)"
    )]
    Roots,
    /// The TLS library refused our settings.
    #[error("cannot set up TLS")]
    Tls(#[source] tokio_rustls::rustls::Error),
}

/// A resolved target; shared by all connections.
pub struct Endpoint {
    addresses: Vec<SocketAddr>,
    /// The address that worked last, so that `localhost` does not try IPv6 each time in vain.
    preferred: AtomicUsize,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
}

impl Endpoint {
    /// Looks the host up and loads the authorities.
    ///
    /// # Errors
    /// [`TargetError`] if no connection could ever be made. That nobody listens is not known here yet.
    pub async fn resolve(target: &Target) -> Result<Self, TargetError> {
        let tls = match target.base.scheme() {
            "http" => None,
            "https" => Some(connector(target)?),
            _ => return Err(TargetError::Scheme(target.base.clone())),
        };
        let addresses = match target.address {
            Some(address) => vec![address],
            None => lookup(&target.base).await?,
        };
        Ok(Self { addresses, preferred: AtomicUsize::new(0), tls, connect_timeout: target.connect_timeout })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The last address's error, if none can be reached in time.
    pub async fn connect(&self) -> Result<Stream, ExchangeError> {
        tokio::time::timeout(self.connect_timeout, self.connect_any())
            .await
            .unwrap_or(Err(ExchangeError::ConnectTimeout))
    }

    async fn connect_any(&self) -> Result<Stream, ExchangeError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = ExchangeError::ConnectTimeout;
        for offset in 0..self.addresses.len() {
            let index = (first + offset) % self.addresses.len();
            match TcpStream::connect(self.addresses[index]).await {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return self.secure(stream).await;
                }
                Err(error) => last = ExchangeError::from_connect(error),
            }
        }
        Err(last)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Stream, ExchangeError> {
        // Small requests must not wait for the answer to the one before.
        stream.set_nodelay(true).map_err(ExchangeError::from_connect)?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(ExchangeError::from_tls)?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

async fn lookup(base: &Url) -> Result<Vec<SocketAddr>, TargetError> {
    let host = base.host_str().ok_or_else(|| TargetError::Host(base.clone()))?;
    let port = base.port_or_known_default().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let failed = |source| TargetError::Resolve { host: bare.clone(), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((bare.as_str(), port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

fn connector(target: &Target) -> Result<(TlsConnector, ServerName<'static>), TargetError> {
    let host = target.base.host_str().ok_or_else(|| TargetError::Host(target.base.clone()))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| TargetError::Host(target.base.clone()))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = target.trust.verifier(&provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TargetError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // We speak HTTP/1.1 only; said, so that a server that prefers HTTP/2 does not start it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// A connection's bytes.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
