//! Looks at the repositories: when one is polled or watched, and once at the start, for what happened meanwhile.
//!
//! ```text
//! heads of the remote - heads that were acted upon = triggers
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::place::{default_branch, short};
use super::projects::{Project, Projects};
use super::subject::Subject;
use crate::config::types::Poll;
use crate::engine::{Engine, now};
use crate::pipeline::condition::any_glob;
use crate::source::mirror::{self, Control, Head, MirrorError};
use crate::store::StoreError;
use crate::store::heads;
use crate::store::triggers::{self, Source};

/// After an error: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(600);
/// A watched repository is looked at this often all the same: a watch may be lost.
const WATCHED: Duration = Duration::from_secs(300);
/// New branches and tags of one look at most; more are the work of a mistake, and the next look goes on.
const AT_ONCE: usize = 200;

/// Looks at all repositories.
#[derive(Clone)]
pub struct Intake {
    /// Store.
    pub engine: Arc<Engine>,
    /// The projects.
    pub projects: Projects,
}

impl Intake {
    /// Works until `stop`. A project whose settings change is begun anew.
    pub async fn run(self, stop: CancellationToken) {
        let mut changes = self.projects.changes();
        let mut working: BTreeMap<String, (Arc<Project>, CancellationToken)> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let all = changes.borrow_and_update().clone();
            working.retain(|name, (project, token)| {
                let stays = all.get(name).is_some_and(|now| now.settings == project.settings);
                if !stays {
                    token.cancel();
                }
                stays
            });
            for (name, project) in all.iter() {
                if !working.contains_key(name) {
                    let token = stop.child_token();
                    working.insert(name.clone(), (Arc::clone(project), token.clone()));
                    let (intake, project) = (self.clone(), Arc::clone(project));
                    tasks.spawn(async move { intake.look_after(&project, &token).await });
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "the look at a repository broke");
                },
                changed = changes.changed() => if changed.is_err() { break },
            }
        }
        tasks.shutdown().await;
    }

    async fn look_after(&self, project: &Project, stop: &CancellationToken) {
        let mut source = Source::CatchUp;
        let mut failures = 0_u32;
        loop {
            // Watched before it is looked at, so that nothing falls between.
            let mut watch = match (project.settings.poll, project.local()) {
                (Poll::Watch, Some(folder)) => mirror::watch(folder).map_err(|error| tell(project, &error)).ok(),
                (Poll::Watch | Poll::Off | Poll::Every(_), _) => None,
            };
            loop {
                let begun = std::time::Instant::now();
                let looked = self.look(project, source).await;
                self.engine.metrics.look(&project.name, looked.is_ok(), begun.elapsed());
                let wait = match looked {
                    Ok(()) => {
                        failures = 0;
                        source = if watch.is_some() { Source::Watch } else { Source::Poll };
                        usual_wait(project)
                    }
                    Err(error) => {
                        tell(project, &error);
                        failures += 1;
                        Some(FIRST_RETRY.saturating_mul(1 << failures.min(12)).min(LAST_RETRY))
                    }
                };
                let changed = async {
                    match &mut watch {
                        Some(watch) => watch.changed().await,
                        None => std::future::pending().await,
                    }
                };
                let sleep = async {
                    match wait {
                        Some(wait) => tokio::time::sleep(jittered(wait)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = changed => {}
                    () = sleep => if project.settings.poll == Poll::Watch { break },
                }
            }
        }
    }

    /// Compares the repository's refs with those that were acted upon, and makes a trigger of each difference.
    async fn look(&self, project: &Project, source: Source) -> Result<(), LookError> {
        let refs = project.mirror()?.heads(&Control::default()).await?;
        let name = project.name.clone();
        let known =
            self.engine.store.read(move |db| Ok((heads::of_project(db, &name)?, heads::any(db, &name)?))).await?;
        let found = compare(project, &refs, &known.0, known.1);
        project.saw(refs);
        if found.is_empty() {
            return Ok(());
        }
        let name = project.name.clone();
        let made = self.engine.store.write(move |tx| note(tx, &name, source, &found));
        if made.await? > 0 {
            self.projects.waker(&project.name).notify_one();
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn tell(project: &Project, error: &dyn std::fmt::Display) {
    tracing::warn!(project = project.name, "cannot look at the repository: {error}");
}

/// Until the next look at a repository; none if webhooks alone tell of it.
fn usual_wait(project: &Project) -> Option<Duration> {
    match project.settings.poll {
        Poll::Off => None,
        Poll::Watch => Some(WATCHED),
        Poll::Every(every) => Some(every),
    }
}

/// Up to a tenth more or less, so that many projects do not ask one host at the same moment.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::thread_rng().gen_range(0.9..1.1))
}

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Refs that are to be built.
    moved: Vec<Subject>,
    /// Refs that are only noted.
    noted: Vec<(String, String)>,
    /// Refs that are gone.
    gone: Vec<String>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.moved.is_empty() && self.noted.is_empty() && self.gone.is_empty()
    }
}

/// The difference between the refs now and those that were acted upon. A project that is looked at for the first time builds
/// its default branch, and notes all else: nobody wants a build of every old tag.
fn compare(project: &Project, refs: &[Head], known: &BTreeMap<String, String>, seen: bool) -> Found {
    let mut found = Found::default();
    let first = default_branch(refs).0;
    for head in refs {
        let branch = head.name.strip_prefix("refs/heads/");
        if branch.is_none() && !head.name.starts_with("refs/tags/") {
            continue;
        }
        let globs = &project.policy.branches;
        if branch.is_some_and(|branch| !globs.is_empty() && !any_glob(globs, branch)) {
            continue;
        }
        let commit = head.target.to_string();
        let before = known.get(&head.name);
        if before == Some(&commit) {
            continue;
        }
        if !seen && branch != Some(first.as_str()) {
            found.noted.push((head.name.clone(), commit));
        } else if found.moved.len() < AT_ONCE {
            found.moved.push(Subject::Head { git_ref: head.name.clone(), commit, before: before.cloned() });
        }
    }
    found.gone = known.keys().filter(|name| !refs.iter().any(|head| head.name == **name)).cloned().collect();
    found
}

/// Stores what was found. A difference that an open trigger tells already is not told again.
fn note(tx: &rusqlite::Connection, project: &str, source: Source, found: &Found) -> Result<usize, StoreError> {
    let at = now();
    for (name, commit) in &found.noted {
        heads::set(tx, project, name, commit, at)?;
    }
    for name in &found.gone {
        tracing::info!(project, "`{}` is gone", short(name));
        heads::remove(tx, project, name)?;
    }
    let mut made = 0;
    for subject in &found.moved {
        let subject = serde_json::to_value(subject)?;
        if !triggers::is_open(tx, project, &subject)? {
            triggers::create(tx, project, source, &subject, at)?;
            made += 1;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn project(branches: &str) -> Project {
        let text = format!("[projects.p]\nrepository = \"/srv/p\"\nbranches = {branches}\n");
        let parsed = config::parse("t", &text, std::path::Path::new("/"), &BTreeMap::new()).unwrap();
        let all = super::super::projects::read(&parsed.config, std::path::Path::new("/nowhere"));
        Arc::into_inner(all).unwrap().remove("p").map(|project| Arc::into_inner(project).unwrap()).unwrap()
    }

    fn head(name: &str, digit: char) -> Head {
        let target = digit.to_string().repeat(40).parse().unwrap();
        let symref = (name == "HEAD").then(|| "refs/heads/main".to_owned());
        Head { name: name.to_owned(), target, symref }
    }

    fn check(
        branches: &str,
        refs: &[(&str, char)],
        known: &[(&str, char)],
        moved: &[&str],
        noted: &[&str],
        gone: &[&str],
    ) {
        let refs: Vec<_> = refs.iter().map(|(name, digit)| head(name, *digit)).collect();
        let seen = !known.is_empty();
        let known = known.iter().map(|(name, digit)| ((*name).to_owned(), digit.to_string().repeat(40))).collect();
        let found = compare(&project(branches), &refs, &known, seen);
        let names: Vec<_> = found
            .moved
            .iter()
            .map(|subject| match subject {
                Subject::Head { git_ref, .. } => git_ref.as_str(),
                Subject::Schedule { .. } | Subject::Manual(_) => "?",
            })
            .collect();
        assert_eq!(names, moved);
        assert_eq!(found.noted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), noted);
        assert_eq!(found.gone, gone);
    }

    #[test]
    fn the_first_look_builds_the_default_branch_alone() {
        let refs = [("HEAD", '1'), ("refs/heads/main", '1'), ("refs/heads/old", '2'), ("refs/tags/v1", '3')];
        check("[]", &refs, &[], &["refs/heads/main"], &["refs/heads/old", "refs/tags/v1"], &[]);
    }

    #[test]
    fn later_looks_tell_what_moved_and_what_is_gone() {
        let known = [("refs/heads/main", '1'), ("refs/heads/gone", '2')];
        let refs = [("HEAD", '1'), ("refs/heads/main", '1'), ("refs/heads/new", '4'), ("refs/pull/1/head", '5')];
        check("[]", &refs, &known, &["refs/heads/new"], &[], &["refs/heads/gone"]);
        check("[\"main\"]", &refs, &known, &[], &[], &["refs/heads/gone"]);
        check("[]", &[("refs/heads/main", '9')], &known[..1], &["refs/heads/main"], &[], &[]);
    }
}
