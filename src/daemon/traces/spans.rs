//! Rows as spans. PURE. Names and attributes follow OpenTelemetry's conventions for CI/CD, version control and HTTP.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Served;
use crate::build::status::{BuildStatus, Outcome};
use crate::ids::Micros;
use crate::store::attempts::AttemptRow;
use crate::store::builds::{BuildRow, StageRow};

/// A build that has ended, with all that it did.
#[derive(Debug)]
pub struct Ended {
    /// The data folder's own number.
    pub instance: String,
    /// The place of its end in the event log: a build that was retried ends again, and that is another trace.
    pub seq: u64,
    /// The build.
    pub build: BuildRow,
    /// Its stages, each with its attempts.
    pub stages: Vec<(StageRow, Vec<AttemptRow>)>,
}

fn moment(at: Micros) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(at.0.max(0).unsigned_abs())
}

/// What makes spans of one trace. Numbers are made of what they are of: sent twice after a crash, a span is the same.
struct Trace<'a> {
    of: &'a Ended,
    id: TraceId,
}

impl Trace<'_> {
    fn hash(of: &Ended, what: &str) -> blake3::Hash {
        let name = format!("{}/{}/{}/{what}", of.instance, of.build.id.0, of.seq);
        blake3::Hasher::new_derive_key("orchestrator: number of a span").update(name.as_bytes()).finalize()
    }

    fn span_id(&self, what: &str) -> SpanId {
        let hash = Self::hash(self.of, what);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        SpanId::from_bytes(bytes)
    }

    /// A span; `what` tells it from the others of its trace.
    fn span(
        &self,
        (what, parent): (&str, Option<SpanId>),
        name: String,
        (from, to): (Micros, Micros),
        (attributes, status): (Vec<KeyValue>, Status),
    ) -> SpanData {
        let context = (self.id, self.span_id(what));
        let times = (moment(from), moment(to.max(from)));
        span(context, parent, (name.into(), SpanKind::Internal), times, (attributes, status))
    }
}

fn span(
    (trace, id): (TraceId, SpanId),
    parent: Option<SpanId>,
    (name, span_kind): (Cow<'static, str>, SpanKind),
    (start_time, end_time): (SystemTime, SystemTime),
    (attributes, status): (Vec<KeyValue>, Status),
) -> SpanData {
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: false,
        span_kind,
        name,
        start_time,
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("orchestrator")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// The trace of a build: itself, how long it waited, its stages, their attempts and steps.
pub fn of_build(of: &Ended) -> Vec<SpanData> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Trace::hash(of, "trace").as_bytes()[..16]);
    let trace = Trace { of, id: TraceId::from_bytes(bytes) };
    let build = &of.build;
    let end = build.ended_at.unwrap_or(build.created_at);
    let root = trace.span_id("build");
    let name = format!("build {}", build.request.pipeline);
    let mut spans = vec![trace.span(("build", None), name, (build.created_at, end), of_request(build))];
    let begun = build.started_at.unwrap_or(end);
    let waited = (Vec::new(), Status::Unset);
    spans.push(trace.span(("queued", Some(root)), "queued".to_owned(), (build.created_at, begun), waited));
    for (stage, attempts) in &of.stages {
        let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else { continue };
        let node = stage.node.to_string();
        let what = format!("stage {node}");
        let times = (first.started_at, last.ended_at.unwrap_or(end));
        let attributes = vec![
            KeyValue::new("cicd.pipeline.task.name", node.clone()),
            KeyValue::new("cicd.pipeline.task.run.result", result_of(last.outcome.as_ref())),
            KeyValue::new("orchestrator.stage.kind", stage.kind.clone()),
        ];
        let told = (attributes, status_of(last.outcome.as_ref()));
        spans.push(trace.span((&what, Some(root)), what.clone(), times, told));
        for attempt in attempts {
            of_attempt(&trace, &what, attempt, end, &mut spans);
        }
    }
    spans
}

fn of_request(build: &BuildRow) -> (Vec<KeyValue>, Status) {
    let request = &build.request;
    let (result, status) = match build.status {
        BuildStatus::Passed => ("success", Status::Ok),
        BuildStatus::Failed => ("failure", Status::error("the build failed")),
        BuildStatus::Cancelled { .. } => ("cancellation", Status::Unset),
        // It runs again already; its next end is told, too.
        BuildStatus::Queued | BuildStatus::Running => ("error", Status::Unset),
    };
    let mut attributes = vec![
        KeyValue::new("cicd.pipeline.name", request.pipeline.clone()),
        KeyValue::new("cicd.pipeline.run.id", build.id.0.to_string()),
        KeyValue::new("cicd.pipeline.result", result),
        KeyValue::new("orchestrator.project", request.project.clone()),
        KeyValue::new("orchestrator.event", request.event.clone()),
    ];
    let refs = [
        ("vcs.ref.head.name", request.branch.as_ref().or(request.tag.as_ref())),
        ("vcs.ref.head.revision", request.commit.as_ref()),
    ];
    attributes.extend(refs.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, value?.clone()))));
    (attributes, status)
}

fn of_attempt(trace: &Trace<'_>, stage: &str, attempt: &AttemptRow, end: Micros, spans: &mut Vec<SpanData>) {
    let what = format!("{stage} attempt {}", attempt.attempt);
    let ended = attempt.ended_at.unwrap_or(end);
    let attributes = vec![
        KeyValue::new("orchestrator.attempt", i64::from(attempt.attempt)),
        KeyValue::new("orchestrator.runner", attempt.runner.clone()),
        KeyValue::new("cicd.pipeline.task.run.result", result_of(attempt.outcome.as_ref())),
    ];
    let told = (attributes, status_of(attempt.outcome.as_ref()));
    let parent = Some(trace.span_id(stage));
    spans.push(trace.span((&what, parent), "attempt".to_owned(), (attempt.started_at, ended), told));
    let parent = Some(trace.span_id(&what));
    for (at, step) in attempt.steps.iter().enumerate() {
        let code = step.code.map(|code| KeyValue::new("process.exit.code", code));
        let status = match step.code {
            Some(0) => Status::Ok,
            Some(code) => Status::error(format!("exit code {code}")),
            None => Status::Unset,
        };
        let times = (step.started_at, step.ended_at.unwrap_or(ended));
        let step_is = format!("{what} step {at}");
        let told = (code.into_iter().collect(), status);
        spans.push(trace.span((&step_is, parent), format!("step {}", step.name), times, told));
    }
}

fn result_of(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Succeeded) => "success",
        Some(Outcome::Failed { .. }) => "failure",
        Some(Outcome::Cancelled { .. }) => "cancellation",
        Some(Outcome::Interrupted { .. }) | None => "error",
    }
}

/// Failures say why; what they say is masked as in the log.
fn status_of(outcome: Option<&Outcome>) -> Status {
    match outcome {
        Some(Outcome::Succeeded) => Status::Ok,
        Some(Outcome::Failed { failure }) => Status::error(failure.message.clone()),
        Some(Outcome::Interrupted { detail }) => Status::error(detail.clone()),
        Some(Outcome::Cancelled { .. }) | None => Status::Unset,
    }
}

/// A request, as a trace of its own.
pub fn of_served(served: &Served) -> SpanData {
    let name = match &served.route {
        Some(route) => format!("{} {route}", served.method),
        None => served.method.clone(),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", served.method.clone()),
        KeyValue::new("http.response.status_code", i64::from(served.status)),
        KeyValue::new("orchestrator.request.id", served.id.clone()),
    ];
    attributes.extend(served.route.clone().map(|route| KeyValue::new("http.route", route)));
    // What a client did wrong is no error of the server.
    let status = if served.status >= 500 { Status::error("") } else { Status::Unset };
    let context = (TraceId::from_bytes(rand::random()), SpanId::from_bytes(rand::random()));
    let times = (served.began, served.began + served.took);
    span(context, None, (name.into(), SpanKind::Server), times, (attributes, status))
}
