//! `orchestrator project check`: whether a project can be built, asked of its repository itself.

use std::path::Path;

use globset::{Glob, GlobSetBuilder};
use serde::Serialize;

use super::{config as config_command, data, exit, text};
use crate::config::edit::EditError;
use crate::config::repository::Repository;
use crate::config::types::{Project, SecretFrom};
use crate::daemon::{place, projects};
use crate::pipeline;
use crate::source::mirror::{Control, Limits, Mirror, MirrorError, Remote, Wanted};
use crate::source::probe;

/// Pipelines that are looked at.
const FILES: usize = 100;

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    /// `ok`, `unknown` or `problem`.
    state: &'static str,
    detail: String,
}

fn finding(what: impl Into<String>, state: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what: what.into(), state, detail: detail.into() }
}

/// Looks, and tells.
///
/// # Errors
/// If there is no such project, or the configuration cannot be read.
pub(super) async fn check(given: Option<&Path>, name: &str, json: bool) -> anyhow::Result<i32> {
    let Some(loaded) = config_command::load(given)? else { return Ok(exit::FAILED) };
    let Some(project) = loaded.config.projects.get(name) else {
        let near = pipeline::diagnostic::nearest(name, loaded.config.projects.keys().map(String::as_str));
        return Err(EditError::Absent { name: name.to_owned(), near: near.map(str::to_owned) }.into());
    };
    let mut findings = match &project.repository {
        Repository::Local(path) => local(project, path),
        Repository::Remote(_) => remote(project).await,
    };
    findings.push(secret("webhook secret", project.webhook_secret.as_ref(), "webhooks for this project are refused"));
    if let Some(token) = &project.token {
        findings.push(secret("token", Some(token), ""));
    }
    let problem = findings.iter().any(|one| one.state == "problem");
    if json {
        data::print_json(&findings)?;
    } else {
        for one in &findings {
            let (sign, style) = match one.state {
                "ok" => ("✓", text::GOOD),
                "unknown" => ("?", text::WARN),
                _ => ("✗", text::BAD),
            };
            text::line(&format!("{} {}: {}", text::paint(style, sign), one.what, one.detail));
        }
    }
    Ok(if problem { exit::FAILED } else { exit::PASSED })
}

/// Whether the repository can be read, and its pipelines are good.
fn local(project: &Project, path: &Path) -> Vec<Finding> {
    let mut wanted = GlobSetBuilder::new();
    project.pipeline.iter().filter_map(|pattern| Glob::new(pattern).ok()).for_each(|glob| {
        wanted.add(glob);
    });
    let wanted = wanted.build().unwrap_or_default();
    let probe = match probe::local(path, |name| wanted.is_match(name), pipeline::MAX_BYTES) {
        Ok(probe) => probe,
        Err(words) => return vec![finding("repository", "problem", format!("{}: {words}", path.display()))],
    };
    let mut found = vec![finding("repository", "ok", format!("{}, branch {}", path.display(), probe.branch))];
    found.extend(pipelines(project, &probe.branch, probe.files));
    found
}

/// As [`local`], of a repository on another machine: asked as the daemon asks it, for no more than its newest commit.
async fn remote(project: &Project) -> Vec<Finding> {
    let looked = match projects::remote(project) {
        Ok(remote) => look(project, remote).await.map_err(|error| error.to_string()),
        Err(why) => Err(format!("{} was not asked: {why}", project.repository)),
    };
    let (branch, files) = match looked {
        Ok(looked) => looked,
        Err(words) => return vec![finding("repository", "problem", words)],
    };
    let mut found = vec![finding("repository", "ok", format!("{}, branch {branch}", project.repository))];
    found.extend(pipelines(project, &branch, files));
    found
}

type Files = Vec<(String, Option<Vec<u8>>)>;

async fn look(project: &Project, remote: Remote) -> Result<(String, Files), MirrorError> {
    let folder = tempfile::tempdir()
        .map_err(|source| MirrorError::Io { what: "cannot make a temporary folder".to_owned(), source })?;
    let mirror = Mirror::open(folder.path(), remote, Limits::default())?;
    let control = Control::default();
    let heads = mirror.heads(&control).await?;
    let (branch, commit) = place::default_branch(&heads);
    let Some(commit) = commit else {
        return Err(MirrorError::NotFound(format!("{} has no commit on `{branch}` yet", project.repository)));
    };
    mirror.fetch(&Wanted::Tip(format!("refs/heads/{branch}")), &control).await?;
    let mut files: Files = Vec::new();
    for glob in &project.pipeline {
        for name in mirror.list_at(commit, glob, FILES).await? {
            if files.iter().all(|(other, _)| *other != name) {
                let text = match mirror.file_at(commit, &name, pipeline::MAX_BYTES).await {
                    Err(MirrorError::TooLarge(_)) => None,
                    text => text?,
                };
                files.push((name, text));
            }
        }
    }
    Ok((branch, files))
}

fn pipelines(project: &Project, branch: &str, files: Files) -> Vec<Finding> {
    if files.is_empty() {
        let detail =
            format!("no file on {branch} matches {}; commit one, or set `pipeline`", project.pipeline.join(", "));
        return vec![finding("pipeline", "problem", detail)];
    }
    let judged = files.into_iter().map(|(name, bytes)| {
        let what = format!("pipeline {}", text::one_line(&name, 80));
        match bytes.map(|bytes| pipeline::parse(&name, &bytes)) {
            Some(Ok(parsed)) => finding(what, "ok", format!("valid, {} stages", parsed.pipeline.stages.len())),
            Some(Err(errors)) => {
                let first = errors.first().map(|one| format!("line {}: {}", one.span.line, one.message));
                let detail = format!("{}; see `orchestrator validate`", first.unwrap_or_default());
                finding(what, "problem", detail)
            }
            None => finding(what, "problem", "it is larger than 1 MiB"),
        }
    });
    judged.collect()
}

/// Whether a secret is there. Its text is not shown.
fn secret(what: &str, from: Option<&SecretFrom>, without: &str) -> Finding {
    match from {
        None => finding(what, "unknown", format!("not set: {without}")),
        Some(SecretFrom::File(file)) => match std::fs::read(file) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => {
                finding(what, "problem", format!("{} is empty", file.display()))
            }
            Ok(_) => finding(what, "ok", format!("in {}", file.display())),
            Err(error) => finding(what, "problem", format!("cannot read {}: {error}", file.display())),
        },
        Some(SecretFrom::Environment(name)) => match std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            true => finding(what, "ok", format!("in ${name}")),
            false => finding(what, "unknown", format!("${name} is not set here; the daemon needs it")),
        },
    }
}
