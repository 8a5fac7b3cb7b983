//! The built-in model server.
//!
//! `POST /predict` (an object, or a list of objects, by column name) · `GET /healthz` · `GET /metrics` (Prometheus) · `GET /` and
//! `POST /try` (a page for people). Wrong rows are told as `application/problem+json` with every wrong column.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listen::{self, Limits};
use crate::model::encode::FeatureKind;
use crate::model::page::{self, Answer};
use crate::model::predict::{Predictor, RowError};
use crate::model::rows::{self, MOST_ROWS, Predicted, Refused};
use crate::model::saved::ModelError;
use crate::model::table::{Cell, cell_of};

/// Bytes of a request's body at most.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Rows from which on the work leaves the threads that serve connections.
const MANY_ROWS: usize = 64;

/// Bytes from which on it does, too.
const MUCH: usize = 64 * 1024;

/// How long open requests may take to end after the order to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at once; others wait until one ends.
const MOST_CONNECTIONS: usize = 4096;

/// How long the head of a request may take, and a connection may say nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The address cannot be had.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The metrics cannot be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves a model until `shutdown` is done; then lets open requests end, at most 10 seconds. `ready` gets the address really
/// bound (the port, where 0 was asked for) before the first request is taken.
///
/// # Errors
/// [`ServeError`] before the first request; afterwards it runs on.
pub async fn serve(
    model: &Path,
    addr: SocketAddr,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let app = router(Predictor::load(model)?)?;
    let taken = |source| ServeError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(taken)?;
    ready(listener.local_addr().map_err(taken)?);
    let stop = CancellationToken::new();
    let served = listen::serve(listener, None, app, limits(), stop.clone());
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => {}
        () = shutdown => {
            stop.cancel();
            served.await;
        }
    }
    Ok(())
}

/// What clients of a model may do: many connections, each of them quick.
fn limits() -> Limits {
    Limits { connections: listen::connections(MOST_CONNECTIONS), head: HEAD_TIMEOUT, last: STOP_TIMEOUT }
}

struct App {
    predictor: Predictor,
    metrics: Metrics,
}

struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: Histogram,
    rows: IntCounter,
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let requests = Opts::new("model_requests_total", "Requests to the model by path and status.");
        let duration =
            HistogramOpts::new("model_predict_duration_seconds", "Time to answer POST /predict.").buckets(vec![
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
            ]);
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["path", "status"])?,
            duration: Histogram::with_opts(duration)?,
            rows: IntCounter::new("model_predicted_rows_total", "Rows predicted.")?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.duration.clone()))?;
        metrics.registry.register(Box::new(metrics.rows.clone()))?;
        Ok(metrics)
    }

    fn count(&self, path: &str, response: Response) -> Response {
        self.requests.with_label_values(&[path, response.status().as_str()]).inc();
        response
    }
}

/// The routes for a model.
///
/// # Errors
/// [`ServeError::Metrics`]
pub fn router(predictor: Predictor) -> Result<Router, ServeError> {
    let app = Arc::new(App { predictor, metrics: Metrics::new()? });
    Ok(Router::new()
        .route("/predict", post(predict))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/", get(form))
        .route("/try", post(try_once))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(app))
}

async fn predict(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Response {
    let started = Instant::now();
    let response = match body {
        Err(rejection) => unread(&rejection),
        Ok(body) if body.iter().filter(|byte| **byte == b'{').nth(MANY_ROWS).is_some() || body.len() > MUCH => {
            let worker = Arc::clone(&app);
            tokio::task::spawn_blocking(move || answer(&worker, &body)).await.unwrap_or_else(|error| {
                problem(StatusCode::INTERNAL_SERVER_ERROR, "the prediction failed", &error.to_string(), Map::new())
            })
        }
        Ok(body) => answer(&app, &body),
    };
    app.metrics.duration.observe(started.elapsed().as_secs_f64());
    app.metrics.count("/predict", response)
}

/// A body that is too long, or broke off.
fn unread(rejection: &BytesRejection) -> Response {
    let status = rejection.status();
    if status != StatusCode::PAYLOAD_TOO_LARGE {
        return problem(status, "no body", "the request's body broke off", Map::new());
    }
    let detail = format!("at most {} MiB are taken in one request; send the rows in several", MOST_BYTES >> 20);
    problem(status, "too large", &detail, Map::new())
}

fn answer(app: &App, body: &[u8]) -> Response {
    match rows::predict(&app.predictor, body) {
        Ok(Predicted::One(prediction)) => {
            app.metrics.rows.inc();
            json_response(&prediction)
        }
        Ok(Predicted::Many(predictions)) => {
            app.metrics.rows.inc_by(predictions.len() as u64);
            json_response(&predictions)
        }
        Err(Refused::Syntax(error)) => {
            let detail = format!("the body must be JSON: {error}");
            problem(StatusCode::BAD_REQUEST, "not JSON", &detail, Map::new())
        }
        Err(Refused::Shape(error)) => problem(StatusCode::UNPROCESSABLE_ENTITY, "not a row", &error, Map::new()),
        Err(Refused::TooMany) => {
            let detail = format!("at most {MOST_ROWS} rows are taken in one request; send the rows in several");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too many rows", &detail, Map::new())
        }
        Err(Refused::Columns(errors)) => wrong_rows(&errors),
    }
}

fn json_response(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "no answer", &error.to_string(), Map::new()),
    }
}

/// Rows that cannot be predicted, with their index if a list was sent.
fn wrong_rows(errors: &[(Option<usize>, RowError)]) -> Response {
    let mut more = Map::new();
    let detail = match errors {
        [(None, error)] => {
            more.insert("missing".to_owned(), json!(error.missing));
            more.insert("unknown".to_owned(), json!(error.unknown));
            more.insert("duplicate".to_owned(), json!(error.duplicate));
            more.insert("wrong".to_owned(), json!(error.wrong));
            error.to_string()
        }
        several => {
            let row = |(index, error): &(Option<usize>, RowError)| json!({"row": index, "missing": error.missing, "unknown": error.unknown, "duplicate": error.duplicate, "wrong": error.wrong});
            more.insert("rows".to_owned(), several.iter().map(row).collect());
            let (index, error) = &several[0];
            let others = if several.len() > 1 { ", and others are listed under `rows`" } else { "" };
            format!("row {}: {error}{others}", index.unwrap_or(0))
        }
    };
    problem(StatusCode::UNPROCESSABLE_ENTITY, "the columns do not fit the model", &detail, more)
}

/// An error as RFC 9457 has it.
fn problem(status: StatusCode, title: &str, detail: &str, more: Map<String, Value>) -> Response {
    let mut body = Map::new();
    body.insert("title".to_owned(), title.into());
    body.insert("status".to_owned(), status.as_u16().into());
    body.insert("detail".to_owned(), detail.into());
    body.extend(more);
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
    (status, content_type, Value::Object(body).to_string()).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&app.metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT))], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "no metrics", &error.to_string(), Map::new()),
    }
}

async fn form(State(app): State<Arc<App>>) -> Response {
    app.metrics.count("/", html(StatusCode::OK, page::render(app.predictor.model(), &Map::new(), &Answer::None)))
}

async fn try_once(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return app.metrics.count("/try", unread(&rejection)),
    };
    let model = app.predictor.model();
    let mut row = Map::new();
    for (name, text) in url::form_urlencoded::parse(&body) {
        let is_number = model
            .features
            .iter()
            .any(|feature| feature.name == name && matches!(feature.kind, FeatureKind::Number { .. }));
        let value = match cell_of(&text) {
            Cell::Missing => Value::Null,
            Cell::Number(number) if is_number => number.into(),
            Cell::Number(_) | Cell::Text(_) => Value::String(text.into_owned()),
        };
        row.insert(name.into_owned(), value);
    }
    let response = match app.predictor.predict(&row) {
        Ok(prediction) => {
            app.metrics.rows.inc();
            html(StatusCode::OK, page::render(model, &row, &Answer::Prediction(&prediction)))
        }
        Err(error) => {
            let page = page::render(model, &row, &Answer::Problem(&error.to_string()));
            html(StatusCode::UNPROCESSABLE_ENTITY, page)
        }
    };
    app.metrics.count("/try", response)
}

fn html(status: StatusCode, page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
            ),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, page).into_response()
}

async fn not_found(State(app): State<Arc<App>>) -> Response {
    let detail = "there are POST /predict, GET /healthz, GET /metrics and GET /";
    app.metrics.count("other", problem(StatusCode::NOT_FOUND, "no such path", detail, Map::new()))
}

async fn wrong_method(State(app): State<Arc<App>>) -> Response {
    let detail = "/predict and /try take POST, the other paths GET";
    app.metrics.count("other", problem(StatusCode::METHOD_NOT_ALLOWED, "wrong method", detail, Map::new()))
}
