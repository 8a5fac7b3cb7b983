//! What `run` shows while a build goes on: a live tree on a terminal, plain lines elsewhere, events as JSON.
//!
//! The log files are what is shown; notices only say where to look.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{text, tree};
use crate::build::event::{Event, Stamped};
use crate::build::status::Outcome;
use crate::engine::Engine;
use crate::engine::notice::Notice;
use crate::engine::submit::Expanded;
use crate::ids::{BuildId, NodeKey};
use crate::logs::{Follow, Line, LogReader};

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A tree that redraws itself.
    Tree,
    /// Each line as it comes, with its stage before it.
    Plain,
    /// Each event as a line of JSON.
    Json,
}

impl Style {
    /// The tree on a terminal, unless something else is asked for.
    pub fn choose(json: bool, plain: bool) -> Self {
        match (json, plain) {
            (true, _) => Style::Json,
            (false, true) => Style::Plain,
            (false, false) if std::io::stdout().is_terminal() && std::env::var_os("CI").is_none() => Style::Tree,
            (false, false) => Style::Plain,
        }
    }
}

/// What a display is told.
pub enum Seen {
    /// A notice of the driver.
    Notice(Box<Notice>),
    /// Lines of an attempt's log.
    Lines(NodeKey, Vec<Line>),
}

/// Characters of a line that are shown; the log has them all.
const LONGEST: usize = 4000;
/// Log batches that may wait for the display. A display that is slower than the log holds up its readers, never the build.
const BATCHES: usize = 64;

/// Shows a build until its driver has let go of the notices.
pub async fn watch(
    engine: Arc<Engine>,
    build: BuildId,
    expanded: Arc<Expanded>,
    mut notices: broadcast::Receiver<Notice>,
    style: Style,
) {
    let (sender, mut seen) = mpsc::channel(BATCHES);
    let show = tokio::spawn(async move {
        match style {
            Style::Tree => tree::show(&expanded.plan, build, &mut seen).await,
            Style::Plain => plain(&expanded.plan, &mut seen).await,
            Style::Json => json(&mut seen).await,
        }
    });
    let mut followers = JoinSet::new();
    let mut open: BTreeMap<(NodeKey, u32), Followed> = BTreeMap::new();
    loop {
        match notices.recv().await {
            Ok(notice) => {
                if let Notice::Event { event, .. } = &notice
                    && style != Style::Json
                    && follow(&engine, build, event, &mut open, &mut followers, &sender)
                {
                    continue;
                }
                if sender.send(Seen::Notice(Box::new(notice))).await.is_err() {
                    break;
                }
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "the display is slower than the build");
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    // Whatever is still followed has been written to its end.
    drop(open);
    while followers.join_next().await.is_some() {}
    drop(sender);
    let _ = show.await;
}

/// A log that is followed.
struct Followed {
    /// Says that the log is whole.
    over: watch::Sender<bool>,
    /// Takes the attempt's last event, which is shown after its last line.
    last: oneshot::Sender<Notice>,
}

/// Follows the log of an attempt that begins. Answers whether the event was handed to a follower.
fn follow(
    engine: &Engine,
    build: BuildId,
    stamped: &Stamped,
    open: &mut BTreeMap<(NodeKey, u32), Followed>,
    followers: &mut JoinSet<()>,
    sender: &mpsc::Sender<Seen>,
) -> bool {
    let mut start = |node: &NodeKey, attempt: u32| {
        let (over, ended) = watch::channel(false);
        let (last, end) = oneshot::channel();
        let mut follow = Follow::new(&engine.paths.log(build, node, attempt), 0, ended);
        let (node_key, sender) = (node.clone(), sender.clone());
        followers.spawn(async move {
            while let Ok(Some(lines)) = follow.next().await {
                if sender.send(Seen::Lines(node_key.clone(), lines)).await.is_err() {
                    break;
                }
            }
            if let Ok(notice) = end.await {
                // The display is gone only when nobody looks.
                let _ = sender.send(Seen::Notice(Box::new(notice))).await;
            }
        });
        Followed { over, last }
    };
    match &stamped.event {
        Event::AttemptStarted { node, attempt } => {
            let followed = start(node, *attempt);
            open.insert((node.clone(), *attempt), followed);
            false
        }
        // Of a build that is taken up again, the start was told to somebody else.
        Event::AttemptLaunched { node, attempt } => {
            open.entry((node.clone(), *attempt)).or_insert_with(|| start(node, *attempt));
            false
        }
        Event::AttemptEnded { node, attempt, .. } => {
            let followed = open.remove(&(node.clone(), *attempt)).unwrap_or_else(|| start(node, *attempt));
            // Told even if nobody listens any more.
            let _ = followed.last.send(Notice::Event { build, event: stamped.clone() });
            let _ = followed.over.send(true);
            true
        }
        Event::BuildStarted
        | Event::CancelRequested { .. }
        | Event::StageSkipped { .. }
        | Event::StageReused { .. }
        | Event::StageCancelled { .. }
        | Event::BuildEnded { .. }
        | Event::Retried { .. } => false,
    }
}

/// A line of a log as it may be shown: no control characters.
pub fn clean(line: &str) -> String {
    text::one_line(line, LONGEST)
}

/// The last lines of a log, cleaned; empty if there is none.
pub fn last_lines(log: &Path, count: u64) -> Vec<String> {
    let lines = LogReader::open(log).and_then(|mut log| log.tail(count, 64 << 10)).unwrap_or_default();
    lines.into_iter().map(|line| clean(&line.text)).collect()
}

async fn json(seen: &mut mpsc::Receiver<Seen>) {
    while let Some(seen) = seen.recv().await {
        if let Seen::Notice(notice) = seen
            && let Notice::Event { build, event } = *notice
        {
            let line = serde_json::json!({ "build": build.0, "at": event.at.0, "event": event.event });
            text::line(&line.to_string());
        }
    }
}

async fn plain(plan: &crate::build::plan::Plan, seen: &mut mpsc::Receiver<Seen>) {
    let width = plan.nodes.iter().map(|node| node.key.to_string().chars().count()).max().unwrap_or(0);
    while let Some(seen) = seen.recv().await {
        match seen {
            Seen::Lines(node, lines) => {
                let prefix = format!("{} {} ", pad(&node, width), text::paint(text::DIM, "|"));
                text::block(&prefix, lines.iter().map(|line| line.text.as_str()), LONGEST);
            }
            Seen::Notice(notice) => {
                if let Some((node, words)) = in_words(&notice) {
                    let node = node.map_or(" ".repeat(width), |node| pad(&node, width));
                    text::line(&format!("{node} {} {words}", text::paint(text::BOLD, "·")));
                }
            }
        }
    }
}

fn pad(node: &NodeKey, width: usize) -> String {
    format!("{:<width$}", node.to_string())
}

/// A notice as a line for people.
pub fn in_words(notice: &Notice) -> Option<(Option<NodeKey>, String)> {
    match notice {
        Notice::Event { event, .. } => event_in_words(&event.event),
        Notice::Progress { node, text } | Notice::Load { node, text } => Some((Some(node.clone()), clean(text))),
        Notice::Waiting { text } => Some((None, text::paint(text::WARN, clean(text)))),
    }
}

fn event_in_words(event: &Event) -> Option<(Option<NodeKey>, String)> {
    let words = match event {
        Event::BuildStarted | Event::BuildEnded { .. } | Event::AttemptLaunched { .. } => return None,
        Event::Retried { actor, .. } => format!("wanted again by {}", clean(actor)),
        Event::CancelRequested { reason } => reason.to_string(),
        Event::StageSkipped { reason, .. } => format!("skipped: {reason}"),
        Event::StageReused { from, .. } => format!("reused from build {from}"),
        Event::StageCancelled { reason, .. } => format!("cancelled: {reason}"),
        Event::AttemptStarted { attempt: 1, .. } => "started".to_owned(),
        Event::AttemptStarted { attempt, .. } => format!("started, attempt {attempt}"),
        Event::AttemptEnded { outcome, .. } => match outcome {
            Outcome::Succeeded => text::paint(text::GOOD, "succeeded"),
            Outcome::Failed { failure } => text::paint(text::BAD, format!("failed: {}", clean(&failure.message))),
            Outcome::Cancelled { reason } => text::paint(text::WARN, format!("cancelled: {reason}")),
            Outcome::Interrupted { detail } => text::paint(text::WARN, format!("interrupted: {}", clean(detail))),
        },
    };
    Some((event.node().cloned(), words))
}
