//! Traces for OpenTelemetry: what builds and requests did when, sent to a collector (OTLP over HTTP, protobuf).
//!
//! ```text
//! `build-ended` in the event log -> rows of the build -> spans -> collector -> place in the log stored
//! request answered -> channel with an end --^
//! ```
//!
//! Spans of builds are made of the rows, with their times, after the end: so they are whole also for builds that outlived their
//! daemon, and no build waits for a collector. Builds that ended while nobody listened are sent later; requests are not kept.
//!
//! All of it is behind the feature `otel`; without it, whoever asks for traces is told so.

#[cfg(feature = "otel")]
mod send;
#[cfg(feature = "otel")]
mod spans;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::notice::Notices;

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Served {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The pattern that it matched (`/builds/{build}`), never what stood in the address.
    pub route: Option<String>,
    /// The answer's status.
    pub status: u16,
    /// Its number, as in the log and in the answer's header.
    pub id: String,
    /// When it came.
    pub began: SystemTime,
    /// Until its answer began.
    pub took: Duration,
}

/// Where requests are told; to nobody, usually.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    requests: Option<send::Requests>,
}

impl Traces {
    /// Tells of a request, if somebody listens and has room.
    pub fn request(&self, served: impl FnOnce() -> Served) {
        #[cfg(feature = "otel")]
        if let Some(requests) = &self.requests {
            requests.tell(served());
        }
        #[cfg(not(feature = "otel"))]
        let _ = served;
    }
}

/// The variables that ask for traces, as OpenTelemetry has them.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether the environment names a collector, and does not switch it off.
fn is_asked_for(variable: impl Fn(&str) -> Option<String>) -> bool {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    !off && ENDPOINTS.iter().any(|name| variable(name).is_some_and(|value| !value.trim().is_empty()))
}

/// Begins to send traces, if the environment asks for them.
///
/// # Errors
/// If what the environment says makes no sense; with the variable's name.
pub async fn start(
    engine: &Arc<Engine>,
    notices: &Notices,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<Traces> {
    if !is_asked_for(|name| std::env::var(name).ok()) {
        return Ok(Traces::default());
    }
    #[cfg(feature = "otel")]
    {
        let (sender, requests) = send::Sender::new(engine, notices).await?;
        tasks.spawn(sender.run(stop.clone()));
        Ok(Traces { requests: Some(requests) })
    }
    #[cfg(not(feature = "otel"))]
    {
        let _ = (engine, notices, tasks, stop);
        tracing::warn!(
            "{} is set, but this program was built without OpenTelemetry: no traces are sent. Build it with `cargo build --release \
             --features otel`",
            ENDPOINTS.join(" or ")
        );
        Ok(Traces::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_for_by_an_endpoint_that_is_not_switched_off() {
        let check = |variables: &[(&str, &str)], expected: bool| {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(is_asked_for(variable), expected, "{variables:?}");
        };
        check(&[], false);
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false);
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], true);
        check(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/v1/traces")], true);
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "True")], false);
    }
}
