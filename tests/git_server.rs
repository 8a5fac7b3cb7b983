//! A git server over http or https on this machine, that can be told to do its worst.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A name that no resolver knows, for which the server has a certificate too.
pub const ELSEWHERE: &str = "git.invalid";

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    head: String,
    body: Vec<u8>,
}

/// What is done with a request.
pub enum Treat {
    /// As git does.
    Git,
    /// As git does for another path.
    GitAt(String),
    /// As git does, then changed: the whole answer, head and body. The connection ends after it.
    Changed(Box<dyn Fn(Vec<u8>) -> Vec<u8>>),
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then others for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, then silence until the client goes.
    Silent(Vec<u8>),
}

/// The server. It serves until the tests end.
pub struct GitServer {
    pub address: SocketAddr,
    /// The authority that signed its certificate; empty without TLS.
    pub authority: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl GitServer {
    /// Serves the repositories in a folder over https, to those who know the token.
    pub fn https(folder: &Path, token: &str, treat: impl Fn(&Request) -> Treat + Send + Sync + 'static) -> Self {
        Self::start(folder, Some(certificate()), Some(token), treat)
    }

    /// As [`GitServer::https`], with a certificate that signed itself.
    pub fn self_signed(folder: &Path, token: &str) -> Self {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self::start(folder, Some((config(&own, &key), pem(&own))), Some(token), |_| Treat::Git)
    }

    /// Serves the repositories in a folder over http, to all.
    pub fn http(folder: &Path, treat: impl Fn(&Request) -> Treat + Send + Sync + 'static) -> Self {
        Self::start(folder, None, None, treat)
    }

    fn start(
        folder: &Path,
        tls: Option<(Arc<ServerConfig>, String)>,
        token: Option<&str>,
        treat: impl Fn(&Request) -> Treat + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (config, authority) = tls.unzip();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let served = Arc::new(Served {
            folder: folder.to_owned(),
            authorization: token.map(|token| format!("Basic {}", STANDARD.encode(format!("x-access-token:{token}")))),
            treat: Box::new(treat),
            seen: Arc::clone(&seen),
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, config) = (Arc::clone(&served), config.clone());
                thread::spawn(move || match config {
                    Some(config) => served.answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
                    None => served.answer(stream),
                });
            }
        });
        Self { address, authority: authority.unwrap_or_default(), seen }
    }

    /// The address of a repository.
    pub fn url(&self, name: &str) -> String {
        let scheme = if self.authority.is_empty() { "http" } else { "https" };
        format!("{scheme}://localhost:{}/{name}", self.address.port())
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

struct Served {
    folder: PathBuf,
    authorization: Option<String>,
    treat: Box<dyn Fn(&Request) -> Treat + Send + Sync>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Served {
    /// One request a connection. A client that goes early is no failure.
    fn answer(&self, mut stream: impl Read + Write) {
        let Some(request) = read(&mut stream) else { return };
        self.seen.lock().unwrap().push(request.clone());
        let _ = match (self.treat)(&request) {
            Treat::Git => stream.write_all(&self.git(&request, &request.target)),
            Treat::GitAt(target) => stream.write_all(&self.git(&request, &target)),
            Treat::Changed(change) => stream.write_all(&change(self.git(&request, &request.target))),
            Treat::Bytes(bytes) => stream.write_all(&bytes),
            Treat::Endless(first, then) => {
                let then = then.repeat(1 + 30_000 / then.len());
                let mut sent = stream.write_all(&first);
                while sent.is_ok() {
                    sent = stream.write_all(&then);
                }
                sent
            }
            Treat::Silent(first) => {
                let sent = stream.write_all(&first).and_then(|()| stream.flush());
                // Ends when the client closes.
                sent.and_then(|()| stream.read(&mut [0]).map(drop))
            }
        };
        let _ = stream.flush();
    }

    fn git(&self, request: &Request, target: &str) -> Vec<u8> {
        if self.authorization.is_some() && self.authorization != request.authorization {
            return reply("401 Unauthorized", "www-authenticate: Basic realm=\"git\"\r\n", b"who are you?");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let given = |name: &str| header(&request.head, name).unwrap_or_default();
        let mut backend = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.folder)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", given("content-type"))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut input, body) = (backend.stdin.take().unwrap(), request.body.clone());
        let writer = thread::spawn(move || input.write_all(&body));
        let said = backend.wait_with_output().unwrap().stdout;
        let _ = writer.join().unwrap();
        let end = said.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(said[..end].to_vec()).unwrap();
        let status = header(&head, "status").unwrap_or("200 OK");
        reply(status, &format!("{head}\r\n"), &said[end + 4..])
    }
}

/// An answer, after which the connection ends.
pub fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The head of an answer of git that says no length.
pub fn head(kind: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/x-git-upload-pack-{kind}\r\n\r\n").into()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut body = vec![0; header(&head, "content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let mut line = head.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next()?.to_owned());
    let authorization = header(&head, "authorization").map(str::to_owned);
    Some(Request { method, target, authorization, head, body })
}

/// A certificate for `localhost` and [`ELSEWHERE`], and the authority that signed it, in PEM.
fn certificate() -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let signed =
        CertificateParams::new(["localhost", ELSEWHERE].map(str::to_owned)).unwrap().signed_by(&key, &issuer).unwrap();
    (config(&signed, &key), pem(&authority))
}

fn config(certificate: &Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

fn pem(certificate: &Certificate) -> String {
    let text = STANDARD.encode(certificate.der());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// A proxy that connects to a server whatever it is asked for; what it was asked for.
pub fn proxy(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let kept = Arc::clone(&asked);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                kept.lock().unwrap().push(String::from_utf8(head).unwrap());
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
                let mut target = TcpStream::connect(server).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), target.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let _ = std::io::copy(&mut target, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    (address, asked)
}
