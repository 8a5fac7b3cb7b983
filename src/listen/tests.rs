use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use super::tls::Acceptor;
use super::{Limits, serve};

const LIMITS: Limits = Limits { connections: 3, head: Duration::from_millis(300), last: Duration::from_millis(500) };

struct Server {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn server(tls: Option<Acceptor>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move { peer.ip().to_string() }))
        .route("/count", post(|body: axum::body::Bytes| async move { body.len().to_string() }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_secs(60)).await }));
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, tls, app, LIMITS, stop.clone()));
    Server { address, stop, task }
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn ask(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn whoever_says_nothing_is_not_waited_for() {
    let server = server(None).await;
    // As many as there are places, each with a part of a head or nothing at all.
    let mut held = Vec::new();
    for part in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(part).await.unwrap();
        held.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), ask(server.address)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    for mut stream in held {
        let mut rest = Vec::new();
        // It was closed, with or without an answer.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_not_waited_for() {
    let server = server(None).await;
    let head = b"POST /count HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n";
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    stalled.write_all(&[head, &b"half"[..]].concat()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stalled.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "it is still open after {answer:?}");
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    // One that is slow, but goes on, is heard.
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(head).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(LIMITS.head / 2).await;
        slow.write_all(b"ab").await.unwrap();
    }
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn it_stops_though_a_request_goes_on() {
    let server = server(None).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(ask(server.address).await.starts_with("HTTP/1.1 200"));
    server.stop.cancel();
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

/// A certificate for `localhost`, written as two files; gives what clients have to believe.
fn certificate(folder: &std::path::Path) -> CertificateDer<'static> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", certificate.der())).unwrap();
    std::fs::write(folder.join("key.pem"), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    certificate.der().clone()
}

fn pem(kind: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

async fn ask_tls(address: std::net::SocketAddr, believed: &CertificateDer<'static>) -> Result<String, String> {
    let mut roots = RootCertStore::empty();
    roots.add(believed.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    stream.write_all(ASK).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer)
}

#[tokio::test]
async fn certificates_are_renewed_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let acceptor = Acceptor::new(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
    let server = server(Some(acceptor.clone())).await;
    let follow = tokio::spawn(acceptor.follow_every(Duration::from_millis(20), server.stop.clone()));
    assert!(ask_tls(server.address, &first).await.unwrap().ends_with("127.0.0.1"));
    // Plain words get no answer, and hold nobody up.
    assert!(!ask(server.address).await.contains("200"));

    std::fs::write(folder.path().join("cert.pem"), "half of a file").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ask_tls(server.address, &first).await.is_ok(), "a bad file changes nothing");
    let second = certificate(folder.path());
    let until = Instant::now() + Duration::from_secs(10);
    while ask_tls(server.address, &second).await.is_err() {
        assert!(Instant::now() < until, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ask_tls(server.address, &first).await.is_err());
    server.stop.cancel();
    server.task.await.unwrap();
    follow.await.unwrap();
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let check = |part: &str| {
        let said = Acceptor::new(&cert, &key).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    };
    check("cert.pem");
    certificate(folder.path());
    std::fs::write(&key, "nothing").unwrap();
    check("key.pem");
    std::fs::write(&cert, "").unwrap();
    check("there is no certificate in it");
    certificate(folder.path());
    let other = tempfile::tempdir().unwrap();
    certificate(other.path());
    std::fs::copy(other.path().join("key.pem"), &key).unwrap();
    check("cannot be used together");
}
