//! From a commit to builds: which pipelines want it, and what they build.

use std::sync::Arc;

use indexmap::IndexMap;

use super::decider::Trouble;
use super::place::{Place, short};
use super::projects::Project;
use super::settle::{NewBuild, Settled};
use super::subject::{Asked, Subject};
use crate::build::plan::Selection;
use crate::engine::{Engine, submit};
use crate::ids::Micros;
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::types::{Pipeline, Schedule};
use crate::pipeline::{self, matrix};
use crate::source::mirror::{Control, Mirror, MirrorError, Oid, TreeOptions};
use crate::store::builds::BuildRequest;
use crate::store::heads;
use crate::store::triggers::Decided;
use crate::trigger::decide::{Against, Candidate, Decision, Event, ProjectPolicy, Trust, second, skip_mark};

/// Pipeline files of a project at most.
const FILES: usize = 50;
/// Bytes of a pipeline file at most; the parser has the same limit.
const FILE_BYTES: usize = 1 << 20;

/// Why builds were not made.
#[derive(Debug)]
pub enum Unmade {
    /// The repository.
    Repository(MirrorError),
    /// Anything else.
    Trouble(Trouble),
}

impl From<MirrorError> for Unmade {
    fn from(error: MirrorError) -> Self {
        Unmade::Repository(error)
    }
}

impl From<Trouble> for Unmade {
    fn from(trouble: Trouble) -> Self {
        Unmade::Trouble(trouble)
    }
}

impl From<crate::store::StoreError> for Unmade {
    fn from(error: crate::store::StoreError) -> Self {
        Unmade::Trouble(error.into())
    }
}

type Made = Result<(Decided, Settled), Unmade>;

/// A pipeline file at a commit.
struct File {
    path: String,
    text: String,
    parsed: Result<Pipeline, Vec<Diagnostic>>,
}

/// Makes the builds of a push, tag, pull request or release.
///
/// # Errors
/// [`Unmade`].
pub async fn of_candidate(engine: &Arc<Engine>, project: &Arc<Project>, candidate: &Candidate) -> Made {
    if let Some(branch) = candidate.branch.as_deref().filter(|_| candidate.event == Event::Push)
        && !project.policy.branches.is_empty()
        && !pipeline::condition::any_glob(&project.policy.branches, branch)
    {
        let reason = format!("branch `{branch}` is not one of the project's");
        return Ok((Decided::Ignored, Settled { reason, ..Settled::default() }));
    }
    let place = Place::of_candidate(project, candidate).await?;
    let mirror = project.mirror()?;
    let info = place.info(mirror).await?;
    let commit = place.commit.to_string();
    let moved = matches!(candidate.event, Event::Push | Event::Tag);
    let head = moved.then(|| (candidate.git_ref.to_string(), commit.clone()));
    if let Some(mark) = skip_mark(&info.message).filter(|_| candidate.event == Event::Push) {
        let reason = format!("the commit's message says `{mark}`");
        return Ok((Decided::Skipped, Settled { reason, head, ..Settled::default() }));
    }
    let (name, git_ref) = (project.name.clone(), candidate.git_ref.to_string());
    let last = engine.store.read(move |db| heads::get(db, &name, &git_ref)).await?;
    let changed = place.changed(mirror, candidate, last.as_deref()).await?;
    let policy = ProjectPolicy { default_branch: place.default_branch.0.clone(), ..project.policy.clone() };
    let read_at = match candidate.pipeline_commit() {
        Some(commit) => Oid::from_str(commit.as_str()).unwrap_or(place.commit),
        None => place.commit,
    };
    let files = files(project, mirror, read_at).await?;
    let mut wanted = Vec::new();
    let mut reasons = Vec::new();
    for file in &files {
        match &file.parsed {
            Err(diagnostics) => reasons.push((Decided::Failed, invalid(&file.path, diagnostics))),
            Ok(pipeline) => {
                match second(candidate, &Against { pipeline, changed: changed.as_deref(), policy: &policy }) {
                    Decision::Skip(reason) => reasons.push((Decided::Skipped, format!("{}: {reason}", file.path))),
                    Decision::Start { trust } => wanted.push((file, trust, None)),
                    Decision::AwaitApproval { reason, trust, .. } => {
                        wanted.push((file, trust, Some(reason.to_string())));
                    }
                }
            }
        }
    }
    let mut builds = Vec::new();
    if !wanted.is_empty() {
        let source = source(engine, mirror, place.commit).await?;
        for (file, trust, awaits) in wanted {
            let about = About {
                event: candidate.event.word().to_owned(),
                branch: candidate.branch.clone(),
                tag: candidate.tag.clone(),
                pull_request: candidate.pull_request.as_ref().map(|pull_request| pull_request.number),
                title: candidate.title.clone().or_else(|| info.message.lines().next().map(str::to_owned)),
                actor: candidate.actor.as_ref().map_or_else(|| info.author.clone(), |actor| actor.login.clone()),
                changed: changed.clone(),
                untrusted: trust == Trust::Untrusted,
                params: candidate.inputs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                selection: Selection::default(),
                reuse: true,
            };
            let made = build(project, &place, &source, file, about).map(|new| NewBuild { awaits, ..new });
            match made {
                Ok(new) => builds.push(new),
                Err(problem) => reasons.push((Decided::Failed, format!("{}: {problem}", file.path))),
            }
        }
    }
    let subject = format!("{} at {}", short(candidate.git_ref.as_str()), &commit[..commit.len().min(9)]);
    let failed = reasons.iter().find(|(decided, _)| *decided == Decided::Failed);
    let trouble = failed.filter(|_| project.reports).map(|(_, reason)| (commit.clone(), reason.clone()));
    Ok(decided(builds, reasons, &subject, candidate.note.as_deref(), Settled { head, trouble, ..Settled::default() }))
}

/// Makes the build of a schedule, or the one that someone asked for.
///
/// # Errors
/// [`Unmade`].
pub async fn of_subject(engine: &Arc<Engine>, project: &Arc<Project>, subject: Subject) -> Made {
    match subject {
        Subject::Head { git_ref, .. } => {
            Err(Trouble::Final(format!("`{git_ref}` was taken for something that was asked for")).into())
        }
        Subject::Schedule { pipeline, line, branch, slot, missed } => {
            let asked = Asked { branch: Some(branch), pipeline: Some(pipeline.clone()), ..Asked::default() };
            let (decided, settled) = asked_for(engine, project, asked, "schedule").await?;
            let reason = match missed {
                0 => settled.reason,
                missed => format!("{}; {missed} earlier times passed while nothing ran", settled.reason),
            };
            Ok((decided, Settled { reason, slot: Some((pipeline, line, Micros(slot))), ..settled }))
        }
        Subject::Manual(asked) => asked_for(engine, project, asked, "manual").await,
    }
}

async fn asked_for(engine: &Arc<Engine>, project: &Arc<Project>, asked: Asked, event: &str) -> Made {
    let place = match (&asked.commit, &asked.tag, &asked.branch) {
        (Some(commit), _, _) => Place::of_commit(project, commit, None).await?,
        (None, Some(tag), _) => Place::of_ref(project, &format!("refs/tags/{tag}")).await?,
        (None, None, Some(branch)) => Place::of_ref(project, &format!("refs/heads/{branch}")).await?,
        (None, None, None) => Place::of_default(project).await?,
    };
    let mirror = project.mirror()?;
    let info = place.info(mirror).await?;
    let files = files(project, mirror, place.commit).await?;
    let names = || files.iter().map(|file| file.path.clone()).collect::<Vec<_>>().join(", ");
    let file = match (&asked.pipeline, &files[..]) {
        (Some(path), _) => files.iter().find(|file| file.path == *path).ok_or_else(|| {
            Trouble::Final(format!("there is no pipeline `{path}` at this commit; there are: {}", names()))
        })?,
        (None, [file]) => file,
        (None, _) => {
            return Err(Trouble::Final(format!("the project has several pipelines, name one of: {}", names())).into());
        }
    };
    if let Err(diagnostics) = &file.parsed {
        return Err(Trouble::Final(invalid(&file.path, diagnostics)).into());
    }
    let source = source(engine, mirror, place.commit).await?;
    let default = (asked.commit.is_none() && asked.tag.is_none()).then(|| place.default_branch.0.clone());
    let about = About {
        event: event.to_owned(),
        branch: asked.branch.or(default),
        tag: asked.tag,
        pull_request: None,
        title: info.message.lines().next().map(str::to_owned),
        actor: if asked.actor.is_empty() { "orchestrator".to_owned() } else { asked.actor },
        changed: None,
        untrusted: false,
        params: asked.params.into_iter().collect(),
        selection: Selection { only: asked.stages, from: asked.from },
        reuse: !asked.no_reuse,
    };
    let subject = about.branch.clone().or_else(|| about.tag.clone()).unwrap_or_else(|| place.commit.to_string());
    let new = build(project, &place, &source, file, about).map_err(Trouble::Final)?;
    Ok(decided(vec![new], Vec::new(), &subject, None, Settled::default()))
}

/// What a request needs beside place, source and file.
struct About {
    event: String,
    branch: Option<String>,
    tag: Option<String>,
    pull_request: Option<u64>,
    title: Option<String>,
    actor: String,
    changed: Option<Vec<String>>,
    untrusted: bool,
    params: IndexMap<String, String>,
    selection: Selection,
    reuse: bool,
}

fn build(project: &Project, place: &Place, source: &str, file: &File, about: About) -> Result<NewBuild, String> {
    let pipeline = file.parsed.as_ref().map_err(|diagnostics| invalid(&file.path, diagnostics))?;
    let name = pipeline.name.clone().unwrap_or_else(|| stem(&file.path).to_owned());
    // Builds of one pull request stand in each other's way, not in that of other ones into the same branch.
    let line = match about.pull_request {
        Some(number) => format!("pull/{number}"),
        None => about.branch.clone().or_else(|| about.tag.clone()).unwrap_or_default(),
    };
    let event = about.event.clone();
    let request = BuildRequest {
        project: project.name.clone(),
        pipeline: name,
        file: file.path.clone(),
        text: file.text.clone(),
        folder: std::path::PathBuf::new(),
        source: source.to_owned(),
        commit: Some(place.commit.to_string()),
        dirty: false,
        branch: about.branch,
        tag: about.tag,
        default_branch: Some(place.default_branch.0.clone()),
        event: about.event,
        changed_paths: about.changed,
        params: about.params,
        selection: about.selection,
        // What the project may not use cannot be asked for by its pipeline: see `Runners`.
        runner: (!project.settings.trusted || about.untrusted).then(|| "docker".to_owned()),
        reuse: about.reuse,
        keep: false,
        actor: about.actor,
        title: about.title.map(|title| title.chars().take(300).collect()),
        pull_request: about.pull_request,
        untrusted: about.untrusted,
        reports: project.reports,
        url: None,
        secrets: std::collections::BTreeMap::new(),
    };
    let expanded = submit::expand(&request).map_err(|error| error.to_string())?;
    if request.runner.is_some() {
        needs_image(&expanded.plan, &request)?;
    }
    let concurrency = pipeline.concurrency.as_ref();
    Ok(NewBuild {
        plan: expanded.plan,
        priority: project.settings.priority,
        group: concurrency.map(|concurrency| matrix::group(concurrency, &line, &event, &expanded.params)),
        supersede: concurrency.is_some_and(|concurrency| concurrency.cancel_superseded),
        awaits: None,
        request,
    })
}

/// A project that may not act with the daemon's own rights runs in containers only.
fn needs_image(plan: &crate::build::plan::Plan, request: &BuildRequest) -> Result<(), String> {
    let (why, or) = if request.untrusted {
        ("a pull request from a fork", "")
    } else {
        ("a project without `trusted = true`", ", or set `trusted = true` for the project")
    };
    let bare = plan.nodes.iter().find(|node| {
        let local = node.stage.runner.as_deref() == Some("local");
        local || (node.stage.image.is_none() && node.stage.work.is_some())
    });
    match bare {
        None => Ok(()),
        Some(node) => Err(format!(
            "stage `{}` names no image, so it would run with the daemon's own rights on its host, and {why} may not do \
             that; give it an `image`{or}",
            node.key
        )),
    }
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}

/// The pipeline files at a commit.
async fn files(project: &Project, mirror: &Mirror, commit: Oid) -> Result<Vec<File>, Unmade> {
    let mut paths: Vec<String> = Vec::new();
    for glob in &project.settings.pipeline {
        for path in mirror.list_at(commit, glob, FILES).await? {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    if paths.is_empty() {
        let globs = project.settings.pipeline.join(", ");
        return Err(Trouble::Final(format!("there is no pipeline at this commit: no file matches {globs}")).into());
    }
    let mut files = Vec::new();
    for path in paths.into_iter().take(FILES) {
        let Some(bytes) = mirror.file_at(commit, &path, FILE_BYTES).await? else { continue };
        let parsed = pipeline::parse(&path, &bytes).map(|parsed| parsed.pipeline);
        files.push(File { path, text: String::from_utf8_lossy(&bytes).into_owned(), parsed });
    }
    Ok(files)
}

/// The schedules of all pipelines at a commit, each with its file. Pipelines that are not valid have none.
///
/// # Errors
/// The mirror's.
pub async fn schedules(project: &Project, commit: Oid) -> Result<Vec<(String, Schedule)>, MirrorError> {
    let files = match files(project, project.mirror()?, commit).await {
        Ok(files) => files,
        Err(Unmade::Repository(error)) => return Err(error),
        Err(Unmade::Trouble(_)) => Vec::new(),
    };
    let of_file = |file: File| {
        let lines = file.parsed.map(|pipeline| pipeline.on.schedule).unwrap_or_default();
        lines.into_iter().map(move |line| (file.path.clone(), line))
    };
    Ok(files.into_iter().flat_map(of_file).collect())
}

async fn source(engine: &Arc<Engine>, mirror: &Mirror, commit: Oid) -> Result<String, MirrorError> {
    let tree = mirror.tree(commit, &TreeOptions::default(), &engine.artifacts, &Control::default()).await?;
    for warning in &tree.warnings {
        tracing::warn!(repository = mirror.remote().url, commit = %commit, "{warning}");
    }
    Ok(tree.digest.to_string())
}

/// The first few mistakes of a pipeline.
fn invalid(path: &str, diagnostics: &[Diagnostic]) -> String {
    const SHOWN: usize = 5;
    let told = |diagnostic: &Diagnostic| format!("line {}: {}", diagnostic.span.line, diagnostic.message);
    let mut lines: Vec<String> = diagnostics.iter().take(SHOWN).map(told).collect();
    if diagnostics.len() > SHOWN {
        lines.push(format!("and {} more", diagnostics.len() - SHOWN));
    }
    format!("{path} is not valid: {}", lines.join("; "))
}

fn decided(
    builds: Vec<NewBuild>,
    reasons: Vec<(Decided, String)>,
    subject: &str,
    note: Option<&str>,
    settled: Settled,
) -> (Decided, Settled) {
    let decided = if builds.iter().any(|new| new.awaits.is_none()) {
        Decided::Started
    } else if !builds.is_empty() {
        Decided::Awaiting
    } else if reasons.iter().any(|(decided, _)| *decided == Decided::Failed) {
        Decided::Failed
    } else {
        Decided::Skipped
    };
    let mut parts = Vec::new();
    for new in &builds {
        let how = new.awaits.as_ref().map_or_else(String::new, |why| format!(", which waits: {why}"));
        parts.push(format!("a build of {subject} by {}{how}", new.request.file));
    }
    parts.extend(reasons.into_iter().map(|(_, reason)| reason));
    parts.extend(note.map(str::to_owned));
    (decided, Settled { reason: parts.join("; "), builds, ..settled })
}
