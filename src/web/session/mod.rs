//! Browsers: somebody signs in with a token once, and is known by a cookie from then on.
//!
//! For those who write pages and handlers:
//! - A page that is read takes the caller; who is not signed in is led to `/sign-in` and back by `pages::for_people`.
//! - A form that changes something takes [`SignedForm<T>`], which gives the caller and the form's fields. Every such form holds
//!   `<input type="hidden" name="csrf" value="{{ caller.csrf() }}">` ([`Caller::csrf`]; empty where no cookie is in play, and
//!   then nothing is asked for). A script that asks the API sends the same text as the header `x-csrf-token`.
//! - The way out is such a form that posts to `/sign-out`.
//! - A page must not be sent with `Referrer-Policy: no-referrer`: browsers then do not say where its forms come from, and over
//!   plain http nothing else says it. `same-origin` tells strangers as little.
//!
//! With `auth.mode` `oidc` or `github`, people also sign in at a provider ([`provider`]).
//!
//! What holds: a cookie alone changes nothing. The request has to say by `Sec-Fetch-Site` or `Origin` that one of our own pages
//! makes it, and has to carry the session's CSRF token. Reading across sites is refused as well (streams, scripts, images);
//! links may be followed. A daemon that asks for no token refuses the same, and every name of the host that is not its own.

mod cookie;
mod elsewhere;
mod form;
mod mask;
mod next;
mod origin;
mod page;
mod provider;
mod sign;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use rand::RngCore;
use url::Url;

use super::App;
use super::auth::{Caller, hash};
use super::problem::Problem;
use crate::config::types::Config;
use crate::engine::now;
use crate::ids::Micros;
use crate::store::sessions::{self, NewSession, SessionRow};

pub use form::SignedForm;
pub use mask::{mask, unmask};
use origin::From;
pub use origin::changes;
use provider::Provider;

/// The header that carries the CSRF token of a request that is no form.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// Between two notes that a session was used.
const NOTED: Duration = Duration::from_secs(60);
/// Bytes of the sign-in form at most.
const MOST_BYTES: usize = 16 << 10;

/// How browsers are known.
#[derive(Debug)]
pub struct Sessions {
    instance: String,
    https: bool,
    public: Option<Url>,
    lasts: Duration,
    idle: Duration,
    provider: Option<Provider>,
}

impl Sessions {
    /// As configured, for the data folder of this instance.
    ///
    /// # Errors
    /// If the secret for a provider cannot be read.
    pub fn new(config: &Config, instance: &str) -> anyhow::Result<Self> {
        let public = Url::parse(&config.server.public_url).ok();
        Ok(Self {
            instance: instance.to_owned(),
            https: config.server.tls.is_some() || public.as_ref().is_some_and(|url| url.scheme() == "https"),
            public,
            lasts: config.auth.session,
            idle: config.auth.idle.min(config.auth.session),
            provider: Provider::new(config)?,
        })
    }

    /// Until when a session lasts that is used now.
    fn until(&self, made_at: Micros, now: Micros) -> Micros {
        let after = |moment: Micros, time: Duration| {
            moment.0.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
        };
        Micros(after(made_at, self.lasts).min(after(now, self.idle)))
    }
}

/// What answers to any name: a probe may call us as it likes and learns nothing, and a webhook that comes through a tunnel has
/// the tunnel's name, and a signature.
const ANY_NAME: [&str; 2] = ["/healthz", "/hooks/github"];

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/sign-in", get(sign::page).post(sign::sign_in))
        .route("/sign-in/start", get(elsewhere::start))
        .route("/sign-in/callback", get(elsewhere::callback))
        .route("/sign-out", post(sign::sign_out))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
}

/// The address that a request is from.
fn address(app: &App, parts: &Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|info| app.guard.client(info.0.ip(), &parts.headers))
}

/// Where the browser's connection ends: whether it speaks https, also to a proxy of ours.
fn is_https(parts: &Parts, app: &App) -> bool {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let proxied = peer.is_some_and(|info| app.guard.is_proxy(info.0.ip()));
    app.sessions.https || (proxied && origin::is_forwarded_https(&parts.headers))
}

fn cookie_name(parts: &Parts, app: &App) -> String {
    cookie::name(&app.sessions.instance, is_https(parts, app))
}

fn from(parts: &Parts, app: &App) -> From {
    origin::from(parts, is_https(parts, app), app.sessions.public.as_ref())
}

fn foreign() -> Problem {
    Problem::forbidden(
        "the browser says that another site's page asks for this; if it was one of this server's own pages, set \
         `server.public_url` to the address that the browser shows",
    )
}

/// The layer that lets a daemon which asks for no token answer to the names of its own machine alone, whatever is asked for: who
/// gives a name of his own this machine's address (DNS rebinding) would else read with the browsers of those who visit him.
pub async fn own_names(State(app): State<App>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let any = !app.guard.open || ANY_NAME.contains(&parts.uri.path());
    if !any && !origin::is_known_host(&parts, app.sessions.public.as_ref()) {
        return Problem::forbidden(
            "this server asks for no token, and answers only to the names of its own machine; ask for `localhost`, or set \
             `server.public_url` to the address that you use",
        )
        .into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

/// Checks what comes from a browser to a daemon that asks for no token: its own pages may do everything, others nothing. Its name
/// was looked at before, by [`own_names`].
///
/// # Errors
/// [`Problem::forbidden`].
pub fn check_open(parts: &Parts, app: &App) -> Result<(), Problem> {
    let from = from(parts, app);
    let refused = match origin::changes(&parts.method) {
        true => from == From::Foreign,
        false => origin::is_foreign_read(parts, from),
    };
    if refused { Err(foreign()) } else { Ok(()) }
}

/// Who is known by the cookie of this request. Whether the CSRF token is there is for the one who asks to check.
///
/// # Errors
/// [`Problem::unauthenticated`], [`Problem::forbidden`] if another site's page asks, or the store's.
pub async fn caller(parts: &Parts, app: &App) -> Result<Caller, Problem> {
    let Some(hash) = cookie_hash(parts, app) else { return Err(Problem::unauthenticated()) };
    let from = from(parts, app);
    let refused = match origin::changes(&parts.method) {
        true => from != From::Ours,
        false => origin::is_foreign_read(parts, from),
    };
    if refused {
        return Err(foreign());
    }
    let (known, at) = (hash.clone(), now());
    let row = app.engine.store.read(move |db| sessions::valid(db, &known, at)).await?;
    let row = row.ok_or_else(Problem::unauthenticated)?;
    prolong(app, &hash, &row, at);
    Ok(Caller::of_session(row, hash))
}

fn cookie_hash(parts: &Parts, app: &App) -> Option<String> {
    cookie::get(&parts.headers, &cookie_name(parts, app)).map(hash)
}

/// Notes the use of a session without holding the request up.
fn prolong(app: &App, hash: &str, row: &SessionRow, at: Micros) {
    let until = app.sessions.until(row.made_at, at);
    if until.since(row.expires_at) < NOTED {
        return;
    }
    let (engine, hash) = (std::sync::Arc::clone(&app.engine), hash.to_owned());
    tokio::spawn(async move {
        if let Err(error) = engine.store.write(move |tx| sessions::prolong(tx, &hash, until, at)).await {
            tracing::warn!(%error, "cannot note the use of a session");
        }
    });
}

/// A random text of 256 bits.
fn random() -> String {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A new session: the cookie's value, and what is stored. It ends with `token`, if that opens it.
fn new_session(app: &App, caller: &Caller, token: Option<u64>, at: Micros) -> (String, NewSession) {
    let value = random();
    let new = NewSession {
        hash: hash(&value),
        csrf: random(),
        actor: caller.name.clone(),
        scopes: caller.scopes().to_vec(),
        projects: caller.projects().map(<[String]>::to_vec),
        token,
        expires_at: app.sessions.until(at, at),
    };
    (value, new)
}
