//! Who asks, and what they may do.
//!
//! Tokens are random, shown once, and stored as hashes. Identity comes from the token, or from the cookie of a browser that was
//! signed in with one ([`super::session`]); nothing that the caller says changes it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use rand::RngCore;
use rusqlite::Connection;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::App;
use super::problem::Problem;
use super::session;
use crate::config::types::Network;
use crate::engine::now;
use crate::ids::Micros;
use crate::store::StoreError;
use crate::store::access::{self, Scope, TokenRow};
use crate::store::sessions::{self, SessionRow};

/// What every token begins with, so that scanners find leaked ones.
pub const PREFIX: &str = "orc_";

/// What proxies say about where a request came from: the client first, then each proxy but the last.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A new random token of 256 bits.
pub fn new_token() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// How a token is stored: SHA-256 in hex. A token is random enough that no slow hash is needed.
pub fn hash(token: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(token.as_bytes()).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How callers are let in.
#[derive(Debug)]
pub struct Guard {
    /// Nobody needs a token. Only for a daemon that listens on loopback alone.
    pub open: bool,
    /// Whose `X-Forwarded-For` is believed.
    proxies: Vec<Network>,
    wrong: Mutex<HashMap<IpAddr, Wrong>>,
    /// Tells open streams that a token or a session was ended.
    ended: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy)]
struct Wrong {
    count: u32,
    last: Instant,
}

/// Wrong tokens that one address may send before it has to wait.
const FREE: u32 = 10;
/// Wait after each wrong token beyond these; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// After this time without a wrong token an address is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Addresses that are remembered. Beyond them the oldest is forgotten.
const REMEMBERED: usize = 10_000;

impl Guard {
    /// A guard; `open` lets everybody do everything. What these proxies say of whom they speak for is believed.
    pub fn new(open: bool, proxies: Vec<Network>) -> Self {
        Self { open, proxies, wrong: Mutex::default(), ended: watch::Sender::new(()) }
    }

    /// Lets all open streams look whether they may go on: somebody's token or session was ended.
    pub(super) fn tell_end(&self) {
        self.ended.send_replace(());
    }

    /// Hears of [`Guard::tell_end`].
    pub(super) fn hear_ends(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Whose address a request is from: the nearest one that is no proxy of ours. Everything behind that could be made up.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        let said = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let said: Vec<&str> = said.flat_map(|value| value.split(',')).collect();
        for hop in said.iter().rev() {
            if !self.is_proxy(nearest) {
                break;
            }
            let Ok(address) = hop.trim().parse() else { break };
            nearest = address;
        }
        nearest
    }

    /// Whether what this address says of others is believed.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.holds(address))
    }

    /// How long this address has to wait before its token is looked at.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let Wrong { count, last } = *wrong.get(&address)?;
        let beyond = count.checked_sub(FREE)?;
        let wait = FIRST_WAIT.saturating_mul(1 << beyond.min(10)).min(LONGEST_WAIT);
        wait.checked_sub(last.elapsed()).filter(|left| !left.is_zero())
    }

    /// Notes that something wrong came from this address.
    pub(super) fn was_wrong(&self, address: IpAddr) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= REMEMBERED {
            wrong.retain(|_, wrong| wrong.last.elapsed() < FORGET);
        }
        if wrong.len() >= REMEMBERED
            && let Some(oldest) = wrong.iter().min_by_key(|(_, wrong)| wrong.last).map(|(address, _)| *address)
        {
            wrong.remove(&oldest);
        }
        let entry = wrong.entry(address).or_insert(Wrong { count: 0, last: Instant::now() });
        if entry.last.elapsed() >= FORGET {
            entry.count = 0;
        }
        *entry = Wrong { count: entry.count.saturating_add(1), last: Instant::now() };
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the audit log.
    pub name: String,
    scopes: Vec<Scope>,
    projects: Option<Vec<String>>,
    by: By,
}

/// By what somebody is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// The daemon asks for nothing, or somebody else has vouched.
    Nothing,
    /// The token with this number.
    Token(u64),
    /// A cookie.
    Session(Held),
}

/// The session by whose cookie somebody is known.
#[derive(Clone, PartialEq, Eq)]
struct Held {
    hash: String,
    csrf: String,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Caller {
    /// Who has this token.
    pub(super) fn of_token(row: TokenRow) -> Self {
        Self { name: row.name, scopes: row.scopes, projects: row.projects, by: By::Token(row.id) }
    }

    /// Who has the session whose cookie has this hash.
    pub(super) fn of_session(row: SessionRow, hash: String) -> Self {
        let by = By::Session(Held { hash, csrf: row.csrf });
        Self { name: row.actor, scopes: row.scopes, projects: row.projects, by }
    }

    /// Who is known from elsewhere.
    pub(super) fn known(name: String, scopes: Vec<Scope>, projects: Option<Vec<String>>) -> Self {
        Self { name, scopes, projects, by: By::Nothing }
    }

    fn everyone() -> Self {
        Self { name: "anyone".to_owned(), scopes: vec![Scope::Admin], projects: None, by: By::Nothing }
    }

    /// Who makes this request, by token or else by cookie. A form's CSRF token is in its body: [`Caller::signed`] checks it.
    ///
    /// # Errors
    /// [`Problem::unauthenticated`], [`Problem::too_many`], [`Problem::forbidden`] for other sites' pages, or the store's.
    pub(super) async fn identify(parts: &Parts, app: &App) -> Result<Self, Problem> {
        if app.guard.open {
            session::check_open(parts, app)?;
            return Ok(Caller::everyone());
        }
        match bearer(parts) {
            Some(token) => token_row(app, parts, &token).await.map(Caller::of_token),
            None => session::caller(parts, app).await,
        }
    }

    /// Checks the CSRF token that came with a request that changes something. Only who is known by a cookie needs one.
    ///
    /// # Errors
    /// [`Problem::forbidden`].
    pub(super) fn signed(&self, given: Option<&str>) -> Result<(), Problem> {
        let By::Session(held) = &self.by else { return Ok(()) };
        let is_ours = |given: &[u8]| bool::from(given.ct_eq(held.csrf.as_bytes()));
        // As it is stored, or as pages show it.
        let same =
            |given: &str| is_ours(given.as_bytes()) || session::unmask(given).is_some_and(|given| is_ours(&given));
        if given.is_some_and(same) {
            return Ok(());
        }
        Err(Problem::forbidden(
            "the CSRF token (the form's field `csrf`, or the header `x-csrf-token`) is missing or another session's; load the \
             page again",
        ))
    }

    /// What forms of this caller have to hold as `csrf`; empty where nothing is asked for.
    pub fn csrf(&self) -> &str {
        match &self.by {
            By::Session(held) => &held.csrf,
            By::Nothing | By::Token(_) => "",
        }
    }

    /// The hash of the session by whose cookie the caller is known.
    pub(super) fn session(&self) -> Option<&str> {
        match &self.by {
            By::Session(held) => Some(&held.hash),
            By::Nothing | By::Token(_) => None,
        }
    }

    /// Who this is, as no two callers are: names of tokens are anybody's to choose.
    pub(super) fn identity(&self) -> String {
        match &self.by {
            By::Nothing => format!("name {}", self.name),
            By::Token(id) => format!("token {id}"),
            By::Session(held) => format!("session {}", held.hash),
        }
    }

    /// Whether what the caller is known by can end while the daemon runs.
    pub(super) fn can_end(&self) -> bool {
        self.by != By::Nothing
    }

    /// Whether what the caller is known by holds still.
    ///
    /// # Errors
    /// The database's.
    pub(super) fn holds(&self, db: &Connection, at: Micros) -> Result<bool, StoreError> {
        match &self.by {
            By::Nothing => Ok(true),
            By::Token(id) => access::token_holds(db, *id, at),
            By::Session(held) => sessions::valid(db, &held.hash, at).map(|row| row.is_some()),
        }
    }

    /// What the caller may do.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// Whether the caller may do this at all. `Admin` holds all others, and each of them holds `Read`.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&Scope::Admin)
            || self.scopes.contains(&scope)
            || (scope == Scope::Read && !self.scopes.is_empty())
    }

    /// Whether the caller sees this project.
    pub fn sees(&self, project: &str) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.iter().any(|name| name == project))
    }

    /// The projects that the caller is held to; `None` for all.
    pub fn projects(&self) -> Option<&[String]> {
        self.projects.as_deref()
    }

    /// Lets the caller do something for all projects.
    ///
    /// # Errors
    /// [`Problem::forbidden`].
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        if !self.has(scope) {
            return Err(Problem::forbidden(format!("this needs a token with the scope `{}`", word(scope))));
        }
        if self.projects.is_some() && scope == Scope::Admin {
            return Err(Problem::forbidden("this needs a token that is not held to projects"));
        }
        Ok(())
    }

    /// Lets the caller do something with one project. What the caller may not see does not exist for them.
    ///
    /// # Errors
    /// [`Problem::missing`] or [`Problem::forbidden`].
    pub fn may_in(&self, scope: Scope, project: &str) -> Result<(), Problem> {
        if !self.sees(project) {
            return Err(Problem::missing(format!("there is no project `{project}`")));
        }
        if self.has(scope) {
            return Ok(());
        }
        Err(Problem::forbidden(format!("this needs a token with the scope `{}`", word(scope))))
    }
}

fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Trigger => "trigger",
        Scope::Approve => "approve",
        Scope::Admin => "admin",
    }
}

/// Between two notes that a token was used.
const NOTED: Duration = Duration::from_secs(60);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::identify(parts, app).await?;
        if session::changes(&parts.method) {
            caller.signed(parts.headers.get(session::CSRF_HEADER).and_then(|value| value.to_str().ok()))?;
        }
        Ok(caller)
    }
}

/// The row of a token that holds.
///
/// # Errors
/// [`Problem::unauthenticated`], [`Problem::too_many`] if wrong ones come from this address too often, or the store's.
pub(super) async fn token_row(app: &App, parts: &Parts, token: &str) -> Result<TokenRow, Problem> {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let address = address.map(|info| app.guard.client(info.0.ip(), &parts.headers));
    let (hash, at) = (hash(token), now());
    let row = app.engine.store.read(move |db| access::valid_token(db, &hash, at)).await?;
    let Some(row) = row else {
        // A right token is let in whatever others behind the same address try; a random one is not guessed any sooner.
        let Some(address) = address else { return Err(Problem::unauthenticated()) };
        if let Some(wait) = app.guard.wait(address) {
            return Err(Problem::too_many(wait.as_secs().max(1)));
        }
        app.guard.was_wrong(address);
        return Err(Problem::unauthenticated());
    };
    if row.used_at.is_none_or(|used| at.since(used) >= NOTED) {
        note(app, row.id, at);
    }
    Ok(row)
}

/// Notes the use of a token without holding the request up.
fn note(app: &App, token: u64, at: Micros) {
    let engine = std::sync::Arc::clone(&app.engine);
    tokio::spawn(async move {
        if let Err(error) = engine.store.write(move |tx| access::token_used(tx, token, at)).await {
            tracing::warn!(%error, "cannot note the use of a token");
        }
    });
}

/// The token of a request. As the password of basic authentication, which feed readers know, it only reads: browsers send
/// such a password by themselves, also on behalf of other sites.
fn bearer(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = value.split_once(' ')?;
    let given = given.trim();
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        given.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") && parts.method.is_safe() {
        let pair = base64::engine::general_purpose::STANDARD.decode(given).ok()?;
        String::from_utf8(pair).ok()?.split_once(':')?.1.to_owned()
    } else {
        return None;
    };
    token.starts_with(PREFIX).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(scopes: &[Scope], projects: Option<&[&str]>) -> Caller {
        let projects = projects.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Caller { name: "t".to_owned(), scopes: scopes.to_vec(), projects, by: By::Nothing }
    }

    #[test]
    fn scopes() {
        let check = |scopes: &[Scope], wanted: Scope, expected: bool| {
            assert_eq!(caller(scopes, None).has(wanted), expected, "{scopes:?} {wanted:?}");
        };
        check(&[Scope::Admin], Scope::Approve, true);
        check(&[Scope::Trigger], Scope::Read, true);
        check(&[Scope::Read], Scope::Trigger, false);
        check(&[Scope::Trigger], Scope::Approve, false);
        check(&[], Scope::Read, false);
    }

    #[test]
    fn what_one_may_not_see_does_not_exist() {
        let held = caller(&[Scope::Trigger], Some(&["a"]));
        assert!(held.may_in(Scope::Trigger, "a").is_ok());
        assert_eq!(held.may_in(Scope::Read, "b").unwrap_err().code, "not-found");
        assert_eq!(held.may_in(Scope::Approve, "a").unwrap_err().code, "forbidden");
        assert_eq!(caller(&[Scope::Admin], Some(&["a"])).may(Scope::Admin).unwrap_err().code, "forbidden");
    }

    #[test]
    fn only_our_proxies_are_believed() {
        let guard = Guard::new(false, vec![Network::parse("10.0.0.0/8").unwrap()]);
        let check = |peer: &str, said: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            assert_eq!(
                guard.client(peer.parse().unwrap(), &headers),
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {said:?}"
            );
        };
        check("1.2.3.4", &[], "1.2.3.4");
        check("1.2.3.4", &["9.9.9.9"], "1.2.3.4");
        check("10.0.0.1", &["9.9.9.9"], "9.9.9.9");
        check("10.0.0.1", &["6.6.6.6, 9.9.9.9"], "9.9.9.9");
        check("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9");
        check("10.0.0.1", &["6.6.6.6", "9.9.9.9"], "9.9.9.9");
        check("10.0.0.1", &["9.9.9.9, unknown"], "10.0.0.1");
        check("10.0.0.1", &["::1"], "::1");
    }

    #[test]
    fn guessing_gets_slower() {
        let guard = Guard::new(false, Vec::new());
        let address = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..FREE {
            guard.was_wrong(address);
        }
        assert!(guard.wait(address).is_some());
        for _ in 0..5 {
            guard.was_wrong(address);
        }
        assert!(guard.wait(address).unwrap() > Duration::from_secs(20));
        assert!(guard.wait(IpAddr::from([127, 0, 0, 2])).is_none());
    }

    #[test]
    fn tokens_are_long_and_their_hashes_hex() {
        let token = new_token();
        assert_eq!(token.len(), 4 + 43);
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
