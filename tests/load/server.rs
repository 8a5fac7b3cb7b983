//! A small HTTP server whose every byte the test decides, with an account of what it was asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::load::target::Target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its number, from 0.
    pub number: u64,
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// What to do about it.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Before anything else.
    pub wait: Duration,
    /// Sent as they are.
    pub bytes: Vec<u8>,
    /// Afterwards.
    pub close: bool,
}

/// An answer with a length.
pub fn answer(status: &str, body: &str) -> Answer {
    let bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    Answer { bytes, ..Answer::default() }
}

pub fn raw(bytes: &str) -> Answer {
    Answer { bytes: bytes.as_bytes().to_vec(), ..Answer::default() }
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

struct Account {
    requests: AtomicU64,
    connections: AtomicU64,
    asked: Mutex<Vec<Asked>>,
    handler: Box<Handler>,
}

/// The server; it ends when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    account: Arc<Account>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_tls(None, handler).await
    }

    pub async fn with_tls(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let account = Arc::new(Account {
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            asked: Mutex::new(Vec::new()),
            handler: Box::new(handler),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&account)));
        Self { address, account, _tasks: tasks }
    }

    pub fn target(&self) -> Target {
        Target::new(Url::parse(&format!("http://{}", self.address)).unwrap())
    }

    pub fn requests(&self) -> u64 {
        self.account.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.account.connections.load(Ordering::SeqCst)
    }

    /// The first 10,000 requests.
    pub fn asked(&self) -> Vec<Asked> {
        self.account.asked.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, account: Arc<Account>) {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        account.connections.fetch_add(1, Ordering::SeqCst);
        let account = Arc::clone(&account);
        let tls = tls.clone();
        tasks.spawn(async move {
            match tls {
                None => serve(stream, &account).await,
                Some(tls) => {
                    // A client that does not trust us goes away in the handshake.
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &account).await;
                    }
                }
            }
        });
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, account: &Account) {
    let mut buffer = Vec::new();
    while let Some(mut asked) = read_request(&mut stream, &mut buffer).await {
        asked.number = account.requests.fetch_add(1, Ordering::SeqCst);
        let answer = (account.handler)(&asked);
        {
            let mut all = account.asked.lock().unwrap();
            if all.len() < 10_000 {
                all.push(asked);
            }
        }
        if !answer.wait.is_zero() {
            // The fault that is tested: a slow server.
            tokio::time::sleep(answer.wait).await;
        }
        if stream.write_all(&answer.bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if answer.close {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Asked> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
                .map_or(0, |length| length.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                let mut words = head.split(' ');
                let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                return Some(Asked { number: 0, method, path, body });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
