//! Logs: ranges, search, the whole as text, and live.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use utoipa::{IntoParams, ToSchema};

use super::builds::allowed;
use super::page::{Asked, Named, UpTo};
use crate::engine::notice::Notice;
use crate::engine::now;
use crate::ids::{BuildId, NodeKey};
use crate::logs::{Follow, Line, LogError, LogReader};
use crate::store::access::Scope;
use crate::store::attempts;
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::held::held;
use crate::web::problem::{Answer, Problem};

/// Lines of one answer at most.
const MOST_LINES: u64 = 5000;
/// Text of one answer, about.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// Hits of one search at most.
const MOST_HITS: u64 = 500;
/// How often the row is asked whether the attempt has ended, if nobody tells of its build.
const LOOK: std::time::Duration = std::time::Duration::from_secs(5);

/// A line of a log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineView {
    /// Counted from 0.
    pub number: u64,
    /// When it was written, in microseconds since the epoch.
    pub at: i64,
    /// `stdout`, `stderr`, or `note` for what the orchestrator says itself.
    #[schema(value_type = String)]
    pub stream: crate::logs::Stream,
    /// The step, counted from 0.
    pub step: Option<u32>,
    /// The text. It comes from outside: escape it.
    pub text: String,
    /// The stream's next line goes on with this one.
    pub continued: bool,
}

impl From<Line> for LineView {
    fn from(line: Line) -> Self {
        let Line { number, at, stream, step, text, continued } = line;
        Self { number, at: at.0, stream, step, text, continued }
    }
}

/// A piece of a log.
#[derive(Debug, Serialize, ToSchema)]
pub struct Piece {
    /// The lines.
    pub lines: Vec<LineView>,
    /// The attempt has ended: no more lines will come.
    pub ended: bool,
}

/// Which lines.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Range {
    /// The first line, counted from 0.
    pub from: Option<u64>,
    /// How many, up to 5000; 1000 if not given.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 5000)]
    pub limit: Option<UpTo<MOST_LINES>>,
    /// The last lines instead.
    #[serde(default)]
    pub tail: bool,
    /// The log of the model API beside the attempt.
    #[serde(default)]
    pub serve: bool,
}

/// One attempt's log.
type Which = (u64, String, u32);

struct Found {
    path: PathBuf,
    build: BuildId,
    node: NodeKey,
    attempt: u32,
    ended: bool,
}

async fn find(caller: &Caller, app: &App, (build, stage, attempt): Which, serve: bool) -> Answer<Found> {
    let build = BuildId(build);
    allowed(caller, app, Scope::Read, build).await?;
    let none = || Problem::missing(format!("build {build} has no attempt {attempt} of `{stage}`"));
    // Parsed, so that a path is only ever made of a valid name.
    let node: NodeKey = stage.parse().map_err(|_| none())?;
    let key = node.clone();
    let row = app.engine.store.read(move |db| attempts::find(db, build, &key, attempt)).await?.ok_or_else(none)?;
    let paths = &app.engine.paths;
    let path = if serve { paths.serve_log(build, &node, attempt) } else { paths.log(build, &node, attempt) };
    Ok(Found { path, build, node, attempt, ended: row.ended_at.is_some() })
}

/// Reads on a thread where it may block. A log that is not there has no lines.
async fn read<T: Send + Default + 'static>(
    path: PathBuf,
    read: impl FnOnce(&mut LogReader) -> Result<T, LogError> + Send + 'static,
) -> Answer<T> {
    let read = tokio::task::spawn_blocking(move || match LogReader::open(&path) {
        Ok(mut reader) => read(&mut reader),
        Err(LogError::Absent { .. }) => Ok(T::default()),
        Err(error) => Err(error),
    });
    read.await.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))
}

/// A range of lines, or the last ones.
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/attempts/{attempt}/log",
    params(("build" = u64, Path), ("stage" = String, Path), ("attempt" = u32, Path), Range),
    responses((status = 200, body = Piece), (status = 404, body = Problem)))]
pub async fn lines(
    caller: Caller,
    State(app): State<App>,
    Named(which): Named<Which>,
    Asked(range): Asked<Range>,
) -> Answer<Json<Piece>> {
    let found = find(&caller, &app, which, range.serve).await?;
    let count = range.limit.map_or(1000, |limit| limit.get() as u64);
    let from = range.from.unwrap_or(0);
    let lines = read(found.path, move |log| {
        if range.tail { log.tail(count, MOST_BYTES) } else { log.lines(from..from.saturating_add(count), MOST_BYTES) }
    });
    let lines = lines.await?.into_iter().map(LineView::from).collect();
    Ok(Json(Piece { lines, ended: found.ended }))
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// The text, as it stands.
    #[param(min_length = 1, max_length = 1000)]
    pub text: String,
    /// Lines before and after each hit, up to 10.
    #[param(value_type = Option<u8>, maximum = 10)]
    pub context: Option<UpTo<10, 0>>,
    /// Hits, up to 500; 100 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 500)]
    pub limit: Option<UpTo<MOST_HITS>>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hits {
    /// In the log's order.
    pub hits: Vec<HitView>,
    /// There are more.
    pub more: bool,
}

/// A line that holds the text.
#[derive(Debug, Serialize, ToSchema)]
pub struct HitView {
    /// Lines before it.
    pub before: Vec<LineView>,
    /// The line.
    pub line: LineView,
    /// Lines after it.
    pub after: Vec<LineView>,
}

/// Lines that hold a text, with their neighbours.
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/attempts/{attempt}/log/search",
    params(("build" = u64, Path), ("stage" = String, Path), ("attempt" = u32, Path), Wanted),
    responses((status = 200, body = Hits), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn search(
    caller: Caller,
    State(app): State<App>,
    Named(which): Named<Which>,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<Hits>> {
    if wanted.text.is_empty() || wanted.text.len() > 1000 {
        return Err(Problem::invalid("`text` is 1 to 1000 bytes"));
    }
    let found = find(&caller, &app, which, false).await?;
    let most = wanted.limit.map_or(100, UpTo::get);
    let context = wanted.context.map_or(0, UpTo::get);
    let found = read(found.path, move |log| log.search(&wanted.text, most, context).map(Some)).await?;
    let found = found.unwrap_or(crate::logs::Search { hits: Vec::new(), more: false });
    let views = |lines: Vec<Line>| lines.into_iter().map(LineView::from).collect();
    let hits = found.hits.into_iter().map(|hit| HitView {
        before: views(hit.before),
        line: hit.line.into(),
        after: views(hit.after),
    });
    Ok(Json(Hits { hits: hits.collect(), more: found.more }))
}

/// The whole log as plain text, streamed.
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/attempts/{attempt}/log/raw",
    params(("build" = u64, Path), ("stage" = String, Path), ("attempt" = u32, Path)),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = Problem)))]
pub async fn raw(caller: Caller, State(app): State<App>, Named(which): Named<Which>) -> Answer<Response> {
    let found = find(&caller, &app, which, false).await?;
    let name = format!("{}-{}-{}.log", found.build.0, found.node, found.attempt);
    // A bounded channel between the reading thread and the connection: a slow reader holds up its own thread only.
    let (sender, mut receiver) = mpsc::channel::<Result<Vec<u8>, std::io::Error>>(4);
    tokio::task::spawn_blocking(move || send_text(&found.path, &sender));
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; frame-ancestors 'none'".to_owned()),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn send_text(path: &std::path::Path, sender: &mpsc::Sender<Result<Vec<u8>, std::io::Error>>) {
    const CHUNK: usize = 64 * 1024;
    let mut reader = match LogReader::open(path) {
        Ok(reader) => reader,
        Err(LogError::Absent { .. }) => return,
        Err(error) => {
            let _ = sender.blocking_send(Err(std::io::Error::other(error)));
            return;
        }
    };
    let mut chunk = Vec::with_capacity(CHUNK * 2);
    let lines = match reader.lines_from(0) {
        Ok(lines) => lines,
        Err(error) => {
            let _ = sender.blocking_send(Err(std::io::Error::other(error)));
            return;
        }
    };
    for line in lines {
        let sent = match line {
            Ok(line) => {
                chunk.extend_from_slice(line.text.as_bytes());
                if !line.continued {
                    chunk.push(b'\n');
                }
                if chunk.len() < CHUNK {
                    continue;
                }
                sender.blocking_send(Ok(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK * 2))))
            }
            Err(error) => sender.blocking_send(Err(std::io::Error::other(error))),
        };
        // The reader has gone away.
        if sent.is_err() {
            return;
        }
    }
    let _ = sender.blocking_send(Ok(chunk));
}

/// The log from a line on, and live until the attempt has ended (server-sent events: `id` is the line's number, `data` the
/// line as JSON; `Last-Event-ID` continues; an event `end` says that it is complete).
#[utoipa::path(get, path = "/builds/{build}/stages/{stage}/attempts/{attempt}/log/follow",
    params(("build" = u64, Path), ("stage" = String, Path), ("attempt" = u32, Path), Range),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = Problem)))]
pub async fn follow(
    caller: Caller,
    State(app): State<App>,
    Named(which): Named<Which>,
    Asked(range): Asked<Range>,
    headers: axum::http::HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let found = find(&caller, &app, which, range.serve).await?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let first = last.map_or(range.from.unwrap_or(0), |last: u64| last.saturating_add(1));
    let (over, ended) = watch::channel(found.ended);
    if !found.ended {
        tokio::spawn(tell_end(app.clone(), found.build, found.node, found.attempt, over));
    }
    let following =
        Following { follow: Follow::new(&found.path, first, ended), ready: Vec::new().into_iter(), over: false };
    let stream = futures_util::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok(event), following))
    });
    Ok(Sse::new(held(caller, app, stream)).keep_alive(KeepAlive::default()))
}

struct Following {
    follow: Follow,
    ready: std::vec::IntoIter<Line>,
    over: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(line) = self.ready.next() {
                let number = line.number.to_string();
                let data = serde_json::to_string(&LineView::from(line)).unwrap_or_default();
                return Some(Event::default().id(number).data(data));
            }
            if self.over {
                return None;
            }
            match self.follow.next().await {
                Ok(Some(lines)) => self.ready = lines.into_iter(),
                Ok(None) => {
                    self.over = true;
                    return Some(Event::default().event("end").data(now().0.to_string()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a follower of a log ends");
                    return None;
                }
            }
        }
    }
}

/// Tells a follower that its attempt has ended; ends with it.
async fn tell_end(app: App, build: BuildId, node: NodeKey, attempt: u32, over: watch::Sender<bool>) {
    let mut notices = app.notices.subscribe();
    loop {
        let key = node.clone();
        let row = app.engine.store.read(move |db| attempts::find(db, build, &key, attempt)).await;
        if row.is_ok_and(|row| row.is_none_or(|row| row.ended_at.is_some())) {
            let _ = over.send(true);
            return;
        }
        tokio::select! {
            () = over.closed() => return,
            () = of_build(&mut notices, build) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Until something happens to a build, or may have.
async fn of_build(notices: &mut Receiver<Notice>, build: BuildId) {
    loop {
        match notices.recv().await {
            Ok(Notice::Event { build: of, .. }) if of == build => return,
            Ok(Notice::Event { .. } | Notice::Progress { .. } | Notice::Load { .. } | Notice::Waiting { .. }) => {}
            Err(RecvError::Lagged(_)) => return,
            // The daemon stops.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
