//! Git's smart HTTP, as its servers have spoken it since 2009: a list of refs, then questions with one answer each.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use url::Url;

use super::super::MirrorError;
use super::super::remote::{Address, Credentials, Token, is_loopback, shown};
use super::meter::{Meter, Part};
use super::{CONNECT, Session, certificates, words};

/// Servers give smart HTTP only to those that look like git.
const AGENT: &str = concat!("git/2.0 (orchestrator ", env!("CARGO_PKG_VERSION"), ")");
const LISTING: &str = "/info/refs?service=git-upload-pack";
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const REQUEST: &str = "application/x-git-upload-pack-request";
const RESULT: &str = "application/x-git-upload-pack-result";
/// Redirects of the list of refs that are followed, within the same host.
const REDIRECTS: usize = 3;
/// Bytes of a token at most.
const TOKEN: u64 = 64 << 10;
/// Bytes of what is asked, at most: a line for each ref that is wanted.
const ASKED: usize = 64 << 20;

/// A connection to one repository.
pub(super) struct Http {
    session: Arc<Session>,
    opened: Mutex<Option<Opened>>,
}

/// What the first request has found.
#[derive(Clone)]
struct Opened {
    client: Client,
    login: Option<(String, String)>,
    /// The repository's address, without a slash at the end; after a redirect where that led.
    base: String,
}

impl Opened {
    fn new(session: &Session) -> Result<Self, MirrorError> {
        let base = session.remote.url.trim_end_matches('/').to_owned();
        Ok(Self { client: client(session)?, login: login(session)?, base })
    }

    /// With the credentials. It goes to the repository's own host: the base leads to no other.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.login {
            Some((user, token)) => request.basic_auth(user, Some(token)),
            None => request,
        }
    }
}

impl Http {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, opened: Mutex::default() }
    }

    fn list(&self) -> Result<Answer, MirrorError> {
        let mut opened = Opened::new(&self.session)?;
        let meter = Meter::new(&self.session, Part::Refs);
        for _ in 0..=REDIRECTS {
            let request = opened.request(Method::GET, LISTING).header(ACCEPT, ADVERTISEMENT);
            let response = send(&self.session, &meter, request.header(CACHE_CONTROL, "no-cache"))?;
            if response.status().is_redirection() {
                opened.base = elsewhere(&self.session, &response)?;
                continue;
            }
            good(&self.session, &response, ADVERTISEMENT)?;
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
            return Ok(Answer { response, rest: Bytes::new(), meter });
        }
        Err(MirrorError::Refused(format!("{} redirects in circles", self.session.remote.url)))
    }

    fn question(&self) -> Result<Exchange, MirrorError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let opened = opened.ok_or_else(|| self.session.unreachable("the list of refs was not asked for"))?;
        let request = opened.request(Method::POST, "/git-upload-pack");
        let request = request.header(CONTENT_TYPE, REQUEST).header(ACCEPT, RESULT);
        Ok(Exchange { session: Arc::clone(&self.session), request: Some(request), asked: Vec::new(), answer: None })
    }
}

impl SmartSubtransport for Http {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let made = match service {
            Service::UploadPackLs => self.list().map(|answer| {
                let (session, answer) = (Arc::clone(&self.session), Some(answer));
                Exchange { session, request: None, asked: Vec::new(), answer }
            }),
            Service::UploadPack => self.question(),
            Service::ReceivePackLs | Service::ReceivePack => {
                Err(MirrorError::Refused("nothing is ever pushed".to_owned()))
            }
        };
        match made {
            Ok(stream) => Ok(Box::new(stream)),
            Err(why) => Err(self.session.stop(why)),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// A question, sent when its answer is first read.
struct Exchange {
    session: Arc<Session>,
    request: Option<RequestBuilder>,
    asked: Vec<u8>,
    answer: Option<Answer>,
}

impl Exchange {
    fn answer(&mut self) -> Result<&mut Answer, MirrorError> {
        if let Some(request) = self.request.take() {
            let meter = Meter::new(&self.session, Part::Pack);
            let response = send(&self.session, &meter, request.body(mem::take(&mut self.asked)))?;
            if response.status().is_redirection() {
                let text =
                    format!("{} redirects after its list of refs, which is not followed", self.session.remote.url);
                return Err(MirrorError::Refused(text));
            }
            good(&self.session, &response, RESULT)?;
            self.answer = Some(Answer { response, rest: Bytes::new(), meter });
        }
        self.answer.as_mut().ok_or_else(|| self.session.unreachable("its answer was not good before"))
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let session = Arc::clone(&self.session);
        self.answer().and_then(|answer| answer.read(&session, buffer)).map_err(|why| session.stop_io(why))
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.request.is_none() || self.asked.len() + bytes.len() > ASKED {
            let text = format!("{} would have to be asked for too much at once", self.session.remote.url);
            return Err(self.session.stop_io(MirrorError::TooLarge(text)));
        }
        self.asked.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer's body, piece by piece.
struct Answer {
    response: Response,
    rest: Bytes,
    meter: Meter,
}

impl Answer {
    fn read(&mut self, session: &Session, buffer: &mut [u8]) -> Result<usize, MirrorError> {
        while self.rest.is_empty() {
            let patience = self.meter.patience()?;
            let response = &mut self.response;
            let next =
                session.wait(patience, async { response.chunk().await.map_err(|error| broken(session, &error)) });
            let Some(bytes) = next? else { return Ok(0) };
            self.meter.count(bytes.len())?;
            self.rest = bytes;
        }
        let most = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

fn client(session: &Session) -> Result<Client, MirrorError> {
    let network = &session.remote.network;
    let (secure, here) = match session.remote.check()? {
        Address::Http { secure, host, .. } => (secure, is_loopback(&host)),
        Address::Ssh { .. } | Address::Local(_) => (true, false),
    };
    let tls = if secure { certificates::client(network.authorities.as_deref()) } else { certificates::none() };
    let tls = tls.map_err(|why| session.untrusted(why))?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .user_agent(AGENT);
    if secure {
        builder = builder.https_only(true);
    }
    // A proxy of the environment carries https as it is; it would read and change http.
    if !secure || here {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| session.unreachable(cause(&error)))
}

/// User and token.
fn login(session: &Session) -> Result<Option<(String, String)>, MirrorError> {
    let Credentials::Token { user, token } = &session.remote.credentials else { return Ok(None) };
    let token = match token {
        Token::Text(text) => text.clone(),
        Token::File(path) => {
            let unusable = |why: &str| session.denied(format!("the token's file {} {why}", path.display()));
            let mut text = String::new();
            let read = File::open(path).and_then(|file| file.take(TOKEN).read_to_string(&mut text));
            read.map_err(|error| unusable(&format!("cannot be read: {error}")))?;
            match text.trim() {
                "" => return Err(unusable("is empty")),
                token if token.contains(char::is_control) => return Err(unusable("holds more than a token")),
                token => token.to_owned(),
            }
        }
    };
    Ok(Some((user.clone(), token)))
}

fn send(session: &Session, meter: &Meter, request: RequestBuilder) -> Result<Response, MirrorError> {
    session.wait(meter.patience()?, async { request.send().await.map_err(|error| broken(session, &error)) })
}

/// Where the list of refs is instead. Hosts do that for repositories with a new name.
fn elsewhere(session: &Session, response: &Response) -> Result<String, MirrorError> {
    let refused = |to: &str, why: &str| {
        let url = &session.remote.url;
        MirrorError::Refused(format!("{url} redirects to {}, which is not followed: {why}", shown(to)))
    };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let to = response.url().join(location).map_err(|_| refused(location, "it is no URL"))?;
    if origin(&to) != origin(response.url()) {
        let host = to.host_str().unwrap_or_default();
        return Err(refused(host, "it is another host; if that is right, write the new address"));
    }
    let plain = to.username().is_empty() && to.password().is_none();
    let base = to.as_str().strip_suffix(LISTING).filter(|_| plain);
    Ok(base.ok_or_else(|| refused(to.path(), "no repository is there; it may want credentials"))?.to_owned())
}

fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

/// Refuses what is no answer of git.
fn good(session: &Session, response: &Response, wanted: &str) -> Result<(), MirrorError> {
    let (url, status) = (&session.remote.url, response.status());
    if !status.is_success() {
        return Err(refusal(session, status));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing known");
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let text = format!("{url} is no git repository: it answers with {}; check the address", shown(kind));
    Err(MirrorError::NotFound(text))
}

fn refusal(session: &Session, status: StatusCode) -> MirrorError {
    let none = session.remote.credentials == Credentials::None;
    match status {
        StatusCode::UNAUTHORIZED if none => session.denied("it asks for credentials, and none are set (401)"),
        StatusCode::UNAUTHORIZED => session.denied("the token is wrong or expired (401)"),
        StatusCode::FORBIDDEN if none => session.denied("it cannot be read without credentials (403)"),
        StatusCode::FORBIDDEN => session.denied("the token may not read it (403)"),
        StatusCode::NOT_FOUND | StatusCode::GONE => MirrorError::NotFound(format!(
            "{} was not found ({}); check the address, and that the credentials may see it",
            session.remote.url,
            status.as_u16()
        )),
        other => session.unreachable(format!("it answers with status {}", other.as_u16())),
    }
}

fn broken(session: &Session, error: &reqwest::Error) -> MirrorError {
    match certificates::distrust(error) {
        Some(why) => session.untrusted(why),
        None if error.is_timeout() => {
            session.unreachable(format!("no connection within {}", crate::words::duration(CONNECT)))
        }
        None => session.unreachable(cause(error)),
    }
}

/// The innermost reason: what is around it says only that there was one.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    words(&cause.to_string())
}
