//! HTTP: webhooks, the API, what monitors ask. It reads `store` and `logs`, and changes things only through transactions that
//! the daemon's loops then act upon.

pub mod api;
pub mod auth;
mod held;
pub mod hooks;
pub mod idempotency;
pub mod metrics;
pub mod pages;
pub mod problem;
pub mod request_id;
pub mod session;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::watch::ConfigState;
use crate::daemon::projects::Projects;
use crate::daemon::queue::QueueHandle;
use crate::daemon::secrets::Sealed;
use crate::daemon::traces::Traces;
use crate::engine::Engine;
use crate::engine::notice::Notices;
use auth::Guard;
use session::Sessions;

/// What every handler has.
#[derive(Clone)]
pub struct App {
    /// Store, artifacts, paths.
    pub engine: Arc<Engine>,
    /// The queue.
    pub queue: QueueHandle,
    /// Hints about what happens.
    pub notices: Notices,
    /// The projects of the configuration.
    pub projects: Projects,
    /// Cancelled when the daemon stops: streams end then.
    pub stop: CancellationToken,
    /// Who may do what.
    pub guard: Arc<Guard>,
    /// How browsers are known.
    pub sessions: Arc<Sessions>,
    /// Where people and other programs reach this daemon.
    pub public_url: Arc<str>,
    /// The newest configuration.
    pub config: watch::Receiver<ConfigState>,
    /// Where requests are told as traces.
    pub traces: Traces,
    /// Sets and removes secrets.
    pub secrets: Sealed,
}

/// All routes; `/metrics` among them if it has no address of its own.
pub fn router(app: App, numbers: bool) -> Router {
    let counted = axum::middleware::from_fn_with_state(app.clone(), metrics::deliveries);
    let hooks = post(hooks::github).layer(DefaultBodyLimit::max(crate::trigger::github::MAX_BODY_BYTES)).layer(counted);
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .nest("/api/v1", api::router().layer(axum::middleware::from_fn_with_state(app.clone(), idempotency::once)))
        .route("/hooks/github", hooks)
        .merge(session::routes())
        .merge(pages::router())
        .with_state(app.clone());
    let routes = if numbers { routes.merge(metrics::route(app.clone())) } else { routes };
    routes
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), session::own_names))
        .layer(axum::middleware::from_fn(api::sealed::seal))
        .layer(axum::middleware::from_fn(pages::for_people))
        .layer(pages::packed())
        .layer(axum::middleware::from_fn_with_state(app.traces, request_id::stamp))
}
