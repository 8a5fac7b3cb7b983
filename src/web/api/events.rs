//! What happens, told live: of one build, or of all that the caller sees. The rows are what is told; notices only wake.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::builds::allowed;
use super::page::Named;
use crate::engine::notice::Notice;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::{StoreError, builds, events};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::held::held;
use crate::web::problem::{Answer, Problem};

/// What happened to a build, from its first event on, and live until it has ended (server-sent events, `id` is the event's
/// place; `Last-Event-ID` continues).
#[utoipa::path(get, path = "/builds/{build}/events", params(("build" = u64, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = Problem)))]
pub async fn of_build(
    caller: Caller,
    State(app): State<App>,
    Named(id): Named<u64>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let id = BuildId(id);
    allowed(&caller, &app, Scope::Read, id).await?;
    let last = last_event(&headers).unwrap_or(0);
    Ok(stream(caller, Told::new(app, Whose::Build(id), last)))
}

/// What happens to all builds that the caller sees, from now on (server-sent events; each with `build`, `project` and `event`;
/// `id` is the event's place, `Last-Event-ID` continues). It does not end by itself.
#[utoipa::path(get, path = "/events",
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 401, body = Problem)))]
pub async fn all(
    caller: Caller,
    State(app): State<App>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    caller.may(Scope::Read)?;
    let last = match last_event(&headers) {
        Some(last) => last,
        None => app.engine.store.read(events::last).await?,
    };
    Ok(stream(caller.clone(), Told::new(app, Whose::All(caller), last)))
}

fn last_event(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn stream(caller: Caller, told: Told) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let app = told.app.clone();
    let events = futures_util::stream::unfold(told, |mut told| async move {
        let event = told.next().await?;
        Some((Ok(event), told))
    });
    Sse::new(held(caller, app, events)).keep_alive(KeepAlive::default())
}

/// Whose events.
#[derive(Debug, Clone)]
enum Whose {
    Build(BuildId),
    All(Caller),
}

/// A follower of events.
struct Told {
    app: App,
    whose: Whose,
    /// The place of the last one that was told or passed over.
    last: u64,
    ready: VecDeque<(u64, String)>,
    notices: Receiver<Notice>,
    over: bool,
}

/// What a look at the rows found.
struct Found {
    events: Vec<(u64, String)>,
    /// Up to where it looked.
    upto: u64,
    /// There may be more at once.
    more: bool,
    /// Nothing will come any more.
    over: bool,
}

/// Events that are read at once.
const BATCH: usize = 200;
/// A look at the rows without a notice.
const LOOK: Duration = Duration::from_secs(5);

impl Told {
    fn new(app: App, whose: Whose, last: u64) -> Self {
        let notices = app.notices.subscribe();
        Self { app, whose, last, ready: VecDeque::new(), notices, over: false }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((seq, body)) = self.ready.pop_front() {
                return Some(Event::default().id(seq.to_string()).data(body));
            }
            if self.over {
                return None;
            }
            let found = match self.look().await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "a follower of events ends");
                    return None;
                }
            };
            self.last = found.upto;
            self.over = found.over;
            let nothing = found.events.is_empty() && !found.more && !found.over;
            self.ready.extend(found.events);
            if nothing && !self.woken().await {
                return None;
            }
        }
    }

    async fn look(&self) -> Result<Found, StoreError> {
        let last = self.last;
        match self.whose.clone() {
            Whose::Build(build) => {
                let read = self.app.engine.store.read(move |db| {
                    let events = events::after(db, build, last, BATCH)?;
                    // In this order: an end that comes in between has its events at the next look.
                    let over = builds::get(db, build)?.status.is_terminal();
                    Ok((events, over))
                });
                let (events, ended) = read.await?;
                let more = events.len() == BATCH;
                let upto = events.last().map_or(last, |(seq, _)| *seq);
                let over = ended && events.is_empty();
                Ok(Found { events, upto, more: more || ended, over })
            }
            Whose::All(caller) => {
                let rows = self.app.engine.store.read(move |db| events::of_all(db, last, BATCH)).await?;
                let (more, upto) = (rows.len() == BATCH, rows.last().map_or(last, |row| row.seq));
                let seen = rows.into_iter().filter(|row| caller.sees(&row.project));
                let events = seen.map(|row| (row.seq, row.body)).collect();
                Ok(Found { events, upto, more, over: false })
            }
        }
    }

    /// Until something is told, or for a while; false if the daemon stops.
    async fn woken(&mut self) -> bool {
        let told = async {
            loop {
                match (self.notices.recv().await, &self.whose) {
                    (Ok(Notice::Event { build: of, .. }), Whose::Build(build)) if of != *build => {}
                    (Ok(Notice::Event { .. }), _) | (Err(RecvError::Lagged(_) | RecvError::Closed), _) => return,
                    (Ok(Notice::Progress { .. } | Notice::Load { .. } | Notice::Waiting { .. }), _) => {}
                }
            }
        };
        tokio::select! {
            // Either way the rows are looked at.
            _ = tokio::time::timeout(LOOK, told) => true,
            () = self.app.stop.cancelled() => false,
        }
    }
}
