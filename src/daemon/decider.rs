//! Decides what is made of each trigger of a project, one after the other.
//!
//! ```text
//! open trigger -> candidate -> (fetch, pipelines at the commit) -> decision -> one transaction: decision, builds, heads
//! ```
//!
//! A trigger is open until that transaction; killed before it, the next start decides again, with the same outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::builds;
use super::projects::{Project, Projects};
use super::queue::QueueHandle;
use super::settle::{Settled, settle};
use super::subject::Subject;
use crate::engine::{Engine, now};
use crate::ids::Micros;
use crate::source::mirror::MirrorError;
use crate::store::StoreError;
use crate::store::triggers::{self, Decided, Source, TriggerRow};
use crate::store::{deliveries, heads, queue};
use crate::trigger::decide::{Candidate, Event, First, first};
use crate::trigger::git::{CommitId, GitRef};
use crate::trigger::github;

/// Waits between tries: doubled from the first to the last.
const FIRST_TRY: Duration = Duration::from_secs(1);
const LAST_TRY: Duration = Duration::from_secs(600);
/// A repository that is not there may be a repository that we may not see; after so many tries it is not there.
const MISSING_TRIES: u32 = 10;
/// The same event for the same commit is the same within this time: GitHub offers deliveries again for three days.
const SAME: Duration = Duration::from_secs(3 * 24 * 3600);

/// What keeps a trigger from being decided now.
#[derive(Debug)]
pub enum Trouble {
    /// It is tried again.
    Later(String),
    /// It stays so.
    Final(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Later(error.to_string())
    }
}

impl From<MirrorError> for Trouble {
    fn from(error: MirrorError) -> Self {
        match error {
            // What an operator can mend, or what mends itself.
            MirrorError::Unreachable { .. }
            | MirrorError::Denied { .. }
            | MirrorError::Untrusted { .. }
            | MirrorError::Damaged { .. }
            | MirrorError::Cancelled
            | MirrorError::Artifact(_)
            | MirrorError::Io { .. } => Trouble::Later(error.to_string()),
            MirrorError::NotFound(_) | MirrorError::TooLarge(_) | MirrorError::Refused(_) => {
                Trouble::Final(error.to_string())
            }
        }
    }
}

/// What a trigger asks for, as far as the repository is not needed for it.
#[derive(Debug)]
pub enum Wish {
    /// A build, if the pipelines want it.
    Candidate(Box<Candidate>),
    /// A build of a schedule or of someone.
    Asked(Subject),
    /// It is settled already.
    Settled(Decided, Settled),
}

/// Decides for all projects.
#[derive(Clone)]
pub struct Decider {
    /// Store, artifacts, paths.
    pub engine: Arc<Engine>,
    /// The projects.
    pub projects: Projects,
    /// Told when there are builds.
    pub queue: QueueHandle,
    /// How many builds may wait.
    pub most_waiting: watch::Receiver<usize>,
}

impl Decider {
    /// Works until `stop`: one project's triggers one after the other, projects beside each other.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.projects.changes();
        let mut working: BTreeMap<String, CancellationToken> = BTreeMap::new();
        let mut workers = FuturesUnordered::new();
        loop {
            let all = changes.borrow_and_update().clone();
            working.retain(|name, token| {
                let stays = all.contains_key(name);
                if !stays {
                    token.cancel();
                }
                stays
            });
            for name in all.keys() {
                if !working.contains_key(name) {
                    let token = stop.child_token();
                    working.insert(name.clone(), token.clone());
                    let (decider, name) = (self.clone(), name.clone());
                    workers.push(tokio::spawn(async move { decider.work(&name, &token).await }));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = workers.next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the worker of a project broke");
                        // Those that still work are kept apart from the one that broke by starting all that do not work.
                        working.retain(|_, token| !token.is_cancelled());
                    }
                }
                changed = changes.changed() => if changed.is_err() { break },
            }
        }
        while workers.next().await.is_some() {}
    }

    async fn work(&self, name: &str, stop: &CancellationToken) {
        let waker = self.projects.waker(name);
        while !stop.is_cancelled() {
            let wait = match self.step(name).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(project = name, %error, "triggers cannot be read; trying again");
                    Some(FIRST_TRY)
                }
            };
            let sleep = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = waker.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Decides what is open and due. Answers how long to wait for the next, if there is one.
    async fn step(&self, name: &str) -> Result<Option<Duration>, StoreError> {
        loop {
            let project = name.to_owned();
            let open = self.engine.store.read(move |db| triggers::next_open(db, &project, now())).await?;
            let (Some(trigger), Some(project)) = (open, self.projects.get(name)) else { return Ok(None) };
            let wait = trigger.next_at.since(now());
            if !wait.is_zero() {
                return Ok(Some(wait));
            }
            self.decide(&project, trigger).await?;
        }
    }

    async fn decide(&self, project: &Arc<Project>, trigger: TriggerRow) -> Result<(), StoreError> {
        let (id, tries) = (trigger.id, trigger.tries);
        let verdict = match self.verdict(project, &trigger).await {
            Ok((decided, settled)) => self.room(&trigger, &settled).await.map(|()| (decided, settled)),
            Err(trouble) => Err(trouble),
        };
        let (decided, settled) = match verdict {
            Ok(verdict) => verdict,
            Err(Trouble::Later(problem)) => return self.postpone(id, tries, problem).await,
            Err(Trouble::Final(problem)) => (Decided::Failed, Settled { reason: problem, ..Settled::default() }),
        };
        let (name, word) = (project.name.clone(), decided.word());
        let reason = settled.reason.clone();
        let came = self.engine.store.write(move |tx| settle(tx, &name, id, decided, &settled, now())).await?;
        self.engine.metrics.trigger(&project.name, trigger.source.word(), word);
        let made: Vec<u64> = came.made.iter().map(|build| build.0).collect();
        if decided == Decided::Failed {
            tracing::warn!(trigger = id, project = project.name, decision = word, ?made, "{reason}");
        } else {
            tracing::info!(trigger = id, project = project.name, decision = word, ?made, "{reason}");
        }
        if !came.made.is_empty() || !came.ended.is_empty() {
            self.queue.nudge();
        }
        Ok(())
    }

    async fn postpone(&self, id: u64, tries: u32, problem: String) -> Result<(), StoreError> {
        let wait = FIRST_TRY.saturating_mul(1 << tries.min(12)).min(LAST_TRY);
        tracing::warn!(trigger = id, "{problem}; trying again in {} s", wait.as_secs());
        let next = Micros(now().0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)));
        self.engine.store.write(move |tx| triggers::postpone(tx, id, &problem, next)).await
    }

    async fn verdict(&self, project: &Arc<Project>, trigger: &TriggerRow) -> Result<(Decided, Settled), Trouble> {
        match self.wish(project, trigger).await? {
            Wish::Settled(decided, settled) => Ok((decided, settled)),
            Wish::Candidate(candidate) => {
                let identity = identity(&candidate);
                if let Some(identity) = &identity
                    && let Some(settled) = self.seen_before(project, trigger, &candidate, identity).await?
                {
                    return Ok((Decided::Duplicate, settled));
                }
                let made = builds::of_candidate(&self.engine, project, &candidate).await;
                self.missing_later(trigger, made).map(|(decided, settled)| (decided, Settled { identity, ..settled }))
            }
            Wish::Asked(subject) => {
                // Someone waits for the answer: what is not there is not there.
                let waits = matches!(subject, Subject::Manual(_));
                let made = builds::of_subject(&self.engine, project, subject).await;
                match made {
                    Err(builds::Unmade::Repository(MirrorError::NotFound(text))) if waits => Err(Trouble::Final(text)),
                    made => self.missing_later(trigger, made),
                }
            }
        }
    }

    /// A repository that is not there may be one that we may not see yet.
    fn missing_later<T>(&self, trigger: &TriggerRow, made: Result<T, builds::Unmade>) -> Result<T, Trouble> {
        made.map_err(|error| match error {
            builds::Unmade::Repository(MirrorError::NotFound(text)) if trigger.tries < MISSING_TRIES => {
                Trouble::Later(text)
            }
            builds::Unmade::Repository(error) => error.into(),
            builds::Unmade::Trouble(trouble) => trouble,
        })
    }

    /// Whether the queue takes the builds. What nobody waits for stays open until it does: nothing is lost.
    async fn room(&self, trigger: &TriggerRow, settled: &Settled) -> Result<(), Trouble> {
        if settled.builds.is_empty() {
            return Ok(());
        }
        let most = *self.most_waiting.borrow();
        let waiting = self.engine.store.read(move |db| queue::count_waiting(db, most)).await?;
        if waiting + settled.builds.len() <= most {
            return Ok(());
        }
        let full = format!("the queue is full: {waiting} of {most} builds wait (queue.max_waiting)");
        Err(match trigger.source {
            Source::Manual => Trouble::Final(full),
            Source::Webhook | Source::Poll | Source::Watch | Source::CatchUp | Source::Schedule => Trouble::Later(full),
        })
    }

    async fn wish(&self, project: &Project, trigger: &TriggerRow) -> Result<Wish, Trouble> {
        if let (Source::Webhook, Some(delivery)) = (trigger.source, trigger.delivery) {
            let read =
                self.engine.store.read(move |db| Ok((deliveries::get(db, delivery)?, deliveries::body(db, delivery)?)));
            let (row, body) = read.await?;
            return Ok(of_delivery(project, &row, &body));
        }
        let subject: Subject = serde_json::from_value(trigger.subject.clone())
            .map_err(|error| Trouble::Final(format!("the trigger cannot be read: {error}")))?;
        match subject {
            Subject::Head { git_ref, commit, before } => {
                let candidate = of_head(&git_ref, &commit, before.as_deref());
                let candidate = candidate.ok_or_else(|| Trouble::Final(format!("`{git_ref}` is no branch or tag")))?;
                Ok(Wish::Candidate(Box::new(candidate)))
            }
            asked @ (Subject::Schedule { .. } | Subject::Manual(_)) => Ok(Wish::Asked(asked)),
        }
    }

    /// Whether the same was acted upon before.
    async fn seen_before(
        &self,
        project: &Project,
        trigger: &TriggerRow,
        candidate: &Candidate,
        identity: &str,
    ) -> Result<Option<Settled>, Trouble> {
        // Whoever replays a delivery wants it again.
        if trigger.subject.get("replay").is_some() {
            return Ok(None);
        }
        let (name, same, git_ref) = (project.name.clone(), identity.to_owned(), candidate.git_ref.to_string());
        let read = self.engine.store.read(move |db| {
            let Some(before) = triggers::acted_upon(db, &name, &same)? else { return Ok(None) };
            let live = triggers::has_use(db, &before)?;
            Ok(Some((before, live, heads::get(db, &name, &git_ref)?)))
        });
        let Some((before, live, head)) = read.await? else { return Ok(None) };
        let moved_back = head.is_some()
            && head.as_deref() == candidate.before.as_ref().map(CommitId::as_str)
            && head.as_deref() != candidate.commit.as_ref().map(CommitId::as_str);
        if moved_back || !live || before.id == trigger.id || now().since(before.received_at) > SAME {
            return Ok(None);
        }
        let reason = format!("the same as trigger {} ({})", before.id, before.source.word());
        // What was seen in the repository itself is where the ref stands, whoever told of it first.
        let seen = trigger.source != Source::Webhook && matches!(candidate.event, Event::Push | Event::Tag);
        let at = candidate.commit.as_ref().filter(|_| seen);
        let head = at.map(|commit| (candidate.git_ref.to_string(), commit.to_string()));
        Ok(Some(Settled { reason, identity: Some(identity.to_owned()), head, ..Settled::default() }))
    }
}

/// Event, ref and commit.
fn identity(candidate: &Candidate) -> Option<String> {
    let key = candidate.duplicate_key()?;
    let commit = key.commit.as_ref().map_or("", CommitId::as_str);
    Some(format!("{} {} {commit}", key.event.word(), key.git_ref))
}

/// What a stored delivery means for a project.
fn of_delivery(project: &Project, row: &deliveries::DeliveryRow, body: &[u8]) -> Wish {
    let headers: BTreeMap<String, String> = serde_json::from_str(&row.headers).unwrap_or_default();
    let content_type = headers.get("content-type").map(String::as_str);
    let settled = |decided, reason: String| Wish::Settled(decided, Settled { reason, ..Settled::default() });
    let received = match github::parse(&github::Delivery { event: &row.event, content_type, body }) {
        Ok(received) => received,
        Err(problem) => return settled(Decided::Failed, problem.to_string()),
    };
    match first(&received, &project.policy) {
        First::Ignore(reason) => settled(Decided::Ignored, reason.to_string()),
        First::Candidate(candidate) => Wish::Candidate(candidate),
        First::CancelPullRequest { number, merged } => {
            let how = if merged { "merged" } else { "closed" };
            let reason = format!("pull request #{number} was {how}: its builds end");
            Wish::Settled(Decided::Cancelled, Settled { reason, closed: Some(number), ..Settled::default() })
        }
        First::CheckSetup(report) if report.problems.is_empty() => {
            settled(Decided::Ignored, "ping: the webhook is set up well".to_owned())
        }
        First::CheckSetup(report) => settled(Decided::Failed, format!("ping: {}", report.problems.join("; "))),
        First::Rebuild(rebuild) => Wish::Asked(Subject::Manual(super::subject::Asked {
            commit: Some(rebuild.commit.to_string()),
            actor: rebuild.actor.map_or_else(|| "github".to_owned(), |actor| actor.login),
            ..super::subject::Asked::default()
        })),
    }
}

/// A branch or tag that was seen somewhere else than before.
fn of_head(git_ref: &str, commit: &str, before: Option<&str>) -> Option<Candidate> {
    let git_ref = GitRef::new(git_ref)?;
    let event = if git_ref.tag().is_some() { Event::Tag } else { Event::Push };
    Some(Candidate {
        event,
        commit: Some(CommitId::new(commit)?),
        branch: git_ref.branch().map(str::to_owned),
        tag: git_ref.tag().map(str::to_owned),
        git_ref,
        base: None,
        pull_request: None,
        actor: None,
        title: None,
        before: before.and_then(CommitId::new),
        inputs: BTreeMap::new(),
        note: None,
    })
}
