//! `GET /metrics`: what is counted, with what is only known at the moment when somebody asks.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::{Answer, Problem};
use super::{App, request_id};
use crate::daemon::traces::Traces;
use crate::metrics::Champion;
use crate::store::{models, outbox};

/// How long the champions that were read hold: a person at a terminal may change them.
const CHAMPIONS: Duration = Duration::from_secs(15);
/// Models whose champions are shown.
const MODELS: usize = 500;
/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a scrape needs.
#[derive(Clone)]
struct Scrape {
    app: App,
    /// When the champions were read.
    champions: Arc<Mutex<Option<Instant>>>,
}

/// `/metrics` alone.
pub fn route(app: App) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Scrape { app, champions: Arc::default() })
}

/// What is served at an address of its own: `/metrics` and `/healthz`. It answers to any name, since scrapers have their own for
/// us: whoever gives it an address says by that who reaches it.
pub fn alone(app: App) -> Router {
    route(app)
        .layer(middleware::from_fn_with_state(Traces::default(), request_id::stamp))
        .route("/healthz", get(|| async { "ok\n" }))
}

/// Counts the answers to webhook calls, and how long they took.
pub async fn deliveries(State(app): State<App>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let response = next.run(request).await;
    // Any other method is no delivery.
    if response.status() != axum::http::StatusCode::METHOD_NOT_ALLOWED {
        app.engine.metrics.delivery(response.status().as_u16(), begun.elapsed());
    }
    response
}

async fn metrics(State(scrape): State<Scrape>) -> Answer<Response> {
    let Scrape { app, champions } = scrape;
    let metrics = &app.engine.metrics;
    for pool in app.queue.slots.view() {
        metrics.places(&pool.runner, pool.slots, pool.held.len(), pool.waiting.len());
    }
    metrics.untold(app.engine.store.read(outbox::waiting).await?);
    metrics.machine(free_bytes(app.engine.paths.root()), resident_bytes());
    let due = {
        let mut read_at = champions.lock().unwrap_or_else(PoisonError::into_inner);
        let due = read_at.is_none_or(|at| at.elapsed() > CHAMPIONS);
        if due {
            *read_at = Some(Instant::now());
        }
        due
    };
    if due {
        metrics.champions(&read_champions(&app).await?);
    }
    let all = app.projects.all();
    for project in all.keys() {
        metrics.known_project(project);
    }
    let names: BTreeSet<&str> = all.keys().map(String::as_str).collect();
    metrics.keep_projects(&|project| names.contains(project));
    let text = metrics.render().map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}

async fn read_champions(app: &App) -> Answer<Vec<Champion>> {
    let read = app.engine.store.read(|db| {
        let mut champions = Vec::new();
        for (model, _) in models::names(db)?.into_iter().take(MODELS) {
            if let Some(version) = models::champion(db, &model)? {
                let metrics = models::version(db, &model, version)?.metrics;
                champions.push(Champion { model, version, metrics });
            }
        }
        Ok(champions)
    });
    Ok(read.await?)
}

/// What an ordinary user may still write there.
fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(path).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Memory of this process, as the kernel counts it.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}
