//! Sends spans: builds from where it stopped last time, requests as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::spans::{self, Ended};
use super::{ENDPOINTS, Served};
use crate::engine::Engine;
use crate::engine::notice::{Notice, Notices};
use crate::ids::BuildId;
use crate::store::{StoreError, attempts, builds, events, settings};

/// The name of the place in the event log up to which builds were sent, in the store's settings.
const PLACE: &str = "traces-sent-to";
/// Requests that wait to be sent. What comes beyond is counted, not kept.
const WAITING: usize = 4096;
/// Spans that are sent at once.
const BATCH: usize = 512;
/// Events that are looked at together.
const EVENTS: usize = 500;
/// Between two looks without a hint, and between two sendings of requests.
const LOOK: Duration = Duration::from_secs(2);
/// Waits of a collector that does not take what it is sent: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// For the last spans, when the daemon stops.
const LAST: Duration = Duration::from_secs(2);
/// A collector's answer is short.
const LONGEST_ANSWER: usize = 1 << 20;

/// Where requests are told.
#[derive(Debug, Clone)]
pub struct Requests {
    queue: mpsc::Sender<Served>,
    dropped: Arc<AtomicU64>,
}

impl Requests {
    /// Keeps it if there is room.
    pub fn tell(&self, served: Served) {
        if self.queue.try_send(served).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Our own client, as the exporter wants it.
#[derive(Debug)]
struct Http(reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: axum::http::Request<Bytes>) -> Result<axum::http::Response<Bytes>, HttpError> {
        // An address may hold a password.
        let quiet = reqwest::Error::without_url;
        let mut answer = self.0.execute(request.try_into()?).await.map_err(quiet)?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(quiet)? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err("the collector's answer is too long".into());
            }
            body.extend_from_slice(&part);
        }
        Ok(axum::http::Response::builder().status(answer.status()).body(body.into())?)
    }
}

/// Sends spans.
pub struct Sender {
    engine: Arc<Engine>,
    notices: broadcast::Receiver<Notice>,
    requests: mpsc::Receiver<Served>,
    dropped: Arc<AtomicU64>,
    exporter: OtlpExporter,
    /// Up to where builds were sent.
    place: u64,
    /// Requests that are being sent: they stay until the collector has taken them.
    waiting: Vec<SpanData>,
}

/// Why nothing is sent for now.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Collector(String),
}

impl Sender {
    /// A sender as the environment describes it. Builds that ended before the very first one was made are not sent.
    ///
    /// # Errors
    /// If the environment makes no sense, or the database's.
    pub async fn new(engine: &Arc<Engine>, notices: &Notices) -> anyhow::Result<(Self, Requests)> {
        // Another part may have chosen it already: it is the same.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
            // Each request has its own from OTEL_EXPORTER_OTLP_TIMEOUT; this one is for a collector that never ends its answer.
            .timeout(Duration::from_secs(30))
            .build()
            .context("cannot make a client for traces")?;
        let built = OtlpExporter::builder().with_http().with_http_client(Http(http)).build();
        let mut exporter = built.with_context(|| format!("traces cannot be sent as {} say", ENDPOINTS.join(" or ")))?;
        let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
        let mut resource = Resource::builder();
        if !named {
            resource = resource.with_service_name("orchestrator");
        }
        exporter.set_resource(&resource.build());
        let place = engine
            .store
            .write(|tx| settings::get_or_make(tx, PLACE, &events::last(tx)?.to_string()))
            .await?
            .parse()
            .unwrap_or_default();
        let (queue, requests) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let told = Requests { queue, dropped: Arc::clone(&dropped) };
        let (notices, waiting) = (notices.subscribe(), Vec::new());
        Ok((Self { engine: Arc::clone(engine), notices, requests, dropped, exporter, place, waiting }, told))
    }

    /// Works until `stop`, then sends what there is, for a moment.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            let sent = tokio::select! {
                () = stop.cancelled() => break,
                sent = self.send() => sent,
            };
            match sent {
                Ok(true) => wait = Duration::ZERO,
                Ok(false) => {
                    wait = Duration::ZERO;
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = hinted(&mut self.notices) => {}
                    }
                }
                Err(error) => {
                    wait = (wait * 2).clamp(FIRST_WAIT, LAST_WAIT);
                    tracing::warn!("traces cannot be sent: {error}; trying again in {} s", wait.as_secs());
                }
            }
        }
        if tokio::time::timeout(LAST, self.send()).await.is_err() {
            tracing::warn!("the collector did not take the last traces in time; builds are sent after the next start");
        }
    }

    /// Sends what there is; answers whether there may be more.
    async fn send(&mut self) -> Result<bool, Untold> {
        let more_builds = self.send_builds().await?;
        while self.waiting.len() < BATCH
            && let Ok(served) = self.requests.try_recv()
        {
            self.waiting.push(spans::of_served(&served));
        }
        let more = self.waiting.len() == BATCH;
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} requests came faster than the collector takes them, and have no trace");
        }
        if !self.waiting.is_empty() {
            self.export(self.waiting.clone()).await?;
            self.waiting.clear();
        }
        Ok(more_builds || more)
    }

    async fn send_builds(&mut self) -> Result<bool, Untold> {
        let place = self.place;
        let found = self.engine.store.read(move |db| events::ends(db, place, EVENTS)).await?;
        for (seq, build) in &found.ends {
            for batch in self.spans(*seq, *build).await?.chunks(BATCH) {
                self.export(batch.to_vec()).await?;
            }
            self.keep(*seq).await?;
        }
        // Nothing is written for events that are no ends: they are looked at again after a restart.
        self.place = found.upto;
        Ok(found.more)
    }

    async fn keep(&mut self, place: u64) -> Result<(), StoreError> {
        self.place = place;
        self.engine.store.write(move |tx| settings::set(tx, PLACE, &place.to_string())).await
    }

    /// The spans of a build; none if retention has removed it.
    async fn spans(&self, seq: u64, id: BuildId) -> Result<Vec<SpanData>, StoreError> {
        let instance = self.engine.store.instance.clone();
        let read = self.engine.store.read(move |db| {
            let build = match builds::get(db, id) {
                Ok(build) => build,
                Err(StoreError::Missing(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut stages = Vec::new();
            for stage in builds::stages(db, id)? {
                let tries = attempts::of_stage(db, id, &stage.node)?;
                stages.push((stage, tries));
            }
            Ok(Some(Ended { instance, seq, build, stages }))
        });
        Ok(read.await?.map(|ended| spans::of_build(&ended)).unwrap_or_default())
    }

    async fn export(&self, batch: Vec<SpanData>) -> Result<(), Untold> {
        self.exporter.export(batch).await.map_err(|error| Untold::Collector(error.to_string()))
    }
}

/// Until a build has ended, or for a while.
async fn hinted(notices: &mut broadcast::Receiver<Notice>) {
    let told = async {
        loop {
            match notices.recv().await {
                Ok(Notice::Event { event, .. })
                    if matches!(event.event, crate::build::event::Event::BuildEnded { .. }) =>
                {
                    return;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    };
    // Either way there is a look.
    let _ = tokio::time::timeout(LOOK, told).await;
}
