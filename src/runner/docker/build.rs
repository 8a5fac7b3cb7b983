//! Images that are built from the source tree, by the engine's own classic builder.
//!
//! The result has a label, by which the collection of garbage finds it, and a tag, by which people do.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bollard::errors::Error;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::StreamExt;

use super::archive::watched;
use super::context::{Context, Verdict, inside};
use super::image::{LABEL_IMAGE, prepared};
use super::{DockerRunner, credentials, fault};
use crate::runner::{PreparedImage, Progress, Pull, RunnerError, TarStream};

/// Lines of output in the error of a build that failed.
const LAST_LINES: usize = 20;

/// Bytes of one line of output; longer ones are cut into several.
const LONGEST_LINE: usize = 16 << 10;

/// What to build.
pub(super) struct Recipe<'a> {
    /// Folder in the tree.
    pub(super) folder: &'a str,
    /// Path of the Dockerfile in that folder.
    pub(super) dockerfile: &'a str,
    /// Build arguments.
    pub(super) args: &'a BTreeMap<String, String>,
    /// Whether newer base images are asked for.
    pub(super) pull: Pull,
}

/// Builds an image.
pub(super) async fn build(
    runner: &DockerRunner,
    recipe: &Recipe<'_>,
    tree: Option<TarStream>,
    progress: Progress<'_>,
) -> Result<PreparedImage, RunnerError> {
    let wrong = |detail: String| RunnerError::Build { context: recipe.folder.to_owned(), detail };
    let folder = inside(recipe.folder).ok_or_else(|| wrong("it is not a folder within the source tree".to_owned()))?;
    let dockerfile = inside(recipe.dockerfile)
        .ok_or_else(|| wrong(format!("the Dockerfile `{}` is not within the context", recipe.dockerfile)))?;
    let tree = tree.ok_or_else(|| fault::other("a build was asked for without a source tree".to_owned()))?;

    let context = Context::new(tree, folder, &dockerfile, &runner.tasks).await.map_err(wrong)?;
    let (tar, seen) = context.split();
    let (tar, watch) = watched(tar);

    let logins = credentials::all(runner.settings.config_dir.as_deref(), progress).await;
    let docker = runner.patient();
    let options = options(runner, recipe, &dockerfile.display().to_string());
    let mut events = docker.build_image(options.build(), Some(logins), Some(bollard::body_try_stream(tar)));
    let mut log = BuildLog::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => log.note(&event, progress),
            Err(error) => {
                let reason = watch.failure().or_else(|| missing(Context::verdict(&seen), recipe));
                return Err(failed(runner, recipe, &log, reason, &error));
            }
        }
    }
    drop(events);
    log.end_line(progress);
    if Context::verdict(&seen) == Verdict::IgnoreFileTooLate {
        progress("warning: .dockerignore came too late in the source tree's archive, and was not heeded".to_owned());
    }
    let id = log.id.ok_or_else(|| wrong("the engine ended the build without an image".to_owned()))?;
    tag(runner, &id).await?;
    let found = runner.docker.inspect_image(&id).await;
    let found = found.map_err(|error| runner.fault(&format!("look at the built image `{id}`"), &error))?;
    prepared(&found, None).ok_or_else(|| wrong("the engine does not tell the image's id".to_owned()))
}

fn options(runner: &DockerRunner, recipe: &Recipe<'_>, dockerfile: &str) -> BuildImageOptionsBuilder {
    let args: HashMap<String, String> = recipe.args.clone().into_iter().collect();
    let labels = HashMap::from([(LABEL_IMAGE.to_owned(), runner.settings.instance.clone())]);
    let options =
        BuildImageOptionsBuilder::new().dockerfile(dockerfile).buildargs(&args).labels(&labels).rm(true).forcerm(true);
    match recipe.pull {
        Pull::IfMissing | Pull::Never => options,
        Pull::Always => options.pull("1"),
    }
}

fn missing(verdict: Verdict, recipe: &Recipe<'_>) -> Option<String> {
    match verdict {
        Verdict::Empty => Some("there is no such folder in the source tree, or it is empty".to_owned()),
        Verdict::NoDockerfile => Some(format!("there is no `{}` in it", recipe.dockerfile)),
        Verdict::Good | Verdict::IgnoreFileTooLate => None,
    }
}

/// A name by which people and the collection of garbage see what the image is; builds themselves use the id.
async fn tag(runner: &DockerRunner, id: &str) -> Result<(), RunnerError> {
    let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
    let repo = format!("orchestrator/{}", runner.settings.instance);
    let options = TagImageOptionsBuilder::new().repo(&repo).tag(&short).build();
    let tagged = runner.docker.tag_image(id, Some(options)).await;
    tagged.map_err(|error| runner.fault(&format!("name the built image `{id}`"), &error))
}

/// The output of a build, line by line.
#[derive(Debug, Default)]
struct BuildLog {
    /// The unfinished line.
    line: String,
    /// The last lines.
    last: VecDeque<String>,
    /// `Step 2/5 : RUN ...`.
    step: Option<String>,
    /// The image.
    id: Option<String>,
}

impl BuildLog {
    fn note(&mut self, event: &BuildInfo, progress: Progress<'_>) {
        if let Some(id) = event.aux.as_ref().and_then(|aux| aux.id.clone()) {
            self.id = Some(id);
        }
        for piece in event.stream.as_deref().unwrap_or("").split_inclusive('\n') {
            self.line.push_str(piece);
            if piece.ends_with('\n') || self.line.len() >= LONGEST_LINE {
                self.end_line(progress);
            }
        }
    }

    fn end_line(&mut self, progress: Progress<'_>) {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        if line.starts_with("Step ") && line.contains(" : ") {
            self.step = Some(line.to_owned());
            self.last.clear();
        } else {
            self.last.push_back(line.to_owned());
            if self.last.len() > LAST_LINES {
                self.last.pop_front();
            }
        }
        progress(line.to_owned());
    }
}

fn failed(
    runner: &DockerRunner,
    recipe: &Recipe<'_>,
    log: &BuildLog,
    reason: Option<String>,
    error: &Error,
) -> RunnerError {
    let wrong = |detail: String| RunnerError::Build { context: recipe.folder.to_owned(), detail };
    if let Some(reason) = reason.filter(|_| log.step.is_none()) {
        return wrong(reason);
    }
    match error {
        Error::DockerStreamError { error } => wrong(explain(log, error.trim())),
        Error::DockerResponseServerError { message, .. } => wrong(explain(log, message.trim())),
        _ => runner.fault(&format!("build the image from `{}`", recipe.folder), error),
    }
}

/// PURE: the step, what the engine said, and the step's last output.
fn explain(log: &BuildLog, error: &str) -> String {
    let mut text = match &log.step {
        Some(step) => format!("{step}\n{error}"),
        None => error.to_owned(),
    };
    if error.contains("requires BuildKit") {
        text.push_str("\nthe image is built by the engine's classic builder, which has no BuildKit features");
    }
    let rest = log.line.trim_end();
    for line in log.last.iter().map(String::as_str).chain((!rest.is_empty()).then_some(rest)) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_failure_names_its_step() {
        let mut log = BuildLog::default();
        let told = Mutex::new(Vec::new());
        let progress = |line: String| told.lock().unwrap().push(line);
        for piece in ["Step 1/2 : FROM x\n", " ---> 123\n", "Step 2/2 : RUN make\n", "no ru", "le\nlast"] {
            let event = BuildInfo { stream: Some(piece.to_owned()), ..BuildInfo::default() };
            log.note(&event, &progress);
        }
        assert_eq!(explain(&log, "exit 2"), "Step 2/2 : RUN make\nexit 2\n  no rule\n  last");
        let expected = ["Step 1/2 : FROM x", " ---> 123", "Step 2/2 : RUN make", "no rule"];
        assert_eq!(*told.lock().unwrap(), expected);
    }
}
