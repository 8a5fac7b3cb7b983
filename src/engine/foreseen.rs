//! What is sure to keep a build from passing, told before it begins: nobody wants to hear of it at the end of an hour.

use std::path::Path;
use std::sync::Arc;

use super::runners::name_for;
use super::submit::Expanded;
use super::{Engine, EngineError, inputs, ports};
use crate::artifact::manifest::{Digest, Manifest};
use crate::build::plan::{Node, Plan};
use crate::pipeline::diagnostic::nearest;
use crate::pipeline::types::{Body, Deploy, Generator, Kind, ServeApp, Stage};
use crate::store::builds::BuildRequest;
use crate::store::models;
use crate::words::tidy;

/// Each reason, for people; none if the build may well pass. Only stages count that run in any case and may not fail.
///
/// # Errors
/// The database's, or if the source tree cannot be read.
pub async fn reasons(
    engine: &Arc<Engine>,
    request: &BuildRequest,
    expanded: &Expanded,
) -> Result<Vec<String>, EngineError> {
    let wrong = |error: String| EngineError::Artifact(error);
    let digest: Digest =
        request.source.parse().map_err(|error: <Digest as std::str::FromStr>::Err| wrong(error.to_string()))?;
    let tree = engine.artifacts.manifest(&digest).await.map_err(|error| wrong(error.to_string()))?;
    let plan = &expanded.plan;
    let mut found = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        if node.skip.is_some() || node.stage.allow_failure || plan.is_cleanup(index) {
            continue;
        }
        found.extend(no_image(node, request));
        found.extend(others_model(engine, node, request).await?);
        for (key, path) in files(&node.stage) {
            if !is_there(&tree, path) && !is_made(plan, index, path)? {
                found.push(missing(node, key, path, &tree, &request.folder));
            }
        }
    }
    found.extend(server_without_image(request, expanded));
    found.extend(taken_port(engine, request, expanded).await?);
    Ok(found)
}

/// Docker is asked for, and the stage says no image.
fn no_image(node: &Node, request: &BuildRequest) -> Option<String> {
    let stage = &node.stage;
    let runner = name_for(stage.runner.as_deref(), request.runner.as_deref(), stage.image.as_ref());
    let wants = runner == "docker" && stage.runs_a_unit() && stage.image.is_none();
    wants.then(|| format!("stage `{}` names no image, which the runner `docker` needs: add `image` to it", node.key))
}

/// The same for the model API, if a stage starts it.
fn server_without_image(request: &BuildRequest, expanded: &Expanded) -> Option<String> {
    let serve = expanded.pipeline.serve.as_ref()?;
    let used = expanded.plan.nodes.iter().any(|node| node.skip.is_none() && node.stage.kind.uses_serve());
    let wants = used
        && matches!(serve.app, ServeApp::Work(_))
        && serve.image.is_none()
        && ports::runner_of(serve, request.runner.as_deref()) == "docker";
    wants.then(|| "`serve` names no image, which the runner `docker` needs: add `image` to it".to_owned())
}

/// The model that it would register belongs to another project.
async fn others_model(
    engine: &Arc<Engine>,
    node: &Node,
    request: &BuildRequest,
) -> Result<Option<String>, EngineError> {
    let Kind::Train(train) = &node.stage.kind else { return Ok(None) };
    let (model, project) = (train.model.clone(), request.project.clone());
    let may = engine.store.read(move |db| models::may_be_of(db, &model, &project)).await?;
    Ok((!may).then(|| format!("stage `{}`: {}", node.key, models::belongs_elsewhere(&train.model))))
}

/// The files that a stage reads in any case, with the keys that name them.
fn files(stage: &Stage) -> Vec<(&'static str, &str)> {
    match &stage.kind {
        Kind::Train(train) => train.linfa.iter().map(|linfa| ("data", linfa.data.as_str())).collect(),
        Kind::Loadtest(load) => {
            let script = match &load.generator {
                Generator::Locust { file, .. } => Some(("locust", file.as_str())),
                Generator::K6 { file, .. } => Some(("k6", file.as_str())),
                Generator::Users(_) | Generator::Rate { .. } => None,
            };
            let bodies = load.scenario.iter().filter_map(|item| match &item.request.body {
                Body::JsonLines(file) => Some(("json_lines", file.as_str())),
                Body::None | Body::Json(_) | Body::Text(_) | Body::Form(_) => None,
            });
            script.into_iter().chain(bodies).collect()
        }
        Kind::Plain | Kind::TestApi(_) | Kind::Promote(_) | Kind::Tune(_) => Vec::new(),
    }
}

fn is_there(tree: &Manifest, path: &str) -> bool {
    let path = tidy(path);
    // Whether a link's target is there is for the stage to see.
    tree.files
        .iter()
        .any(|file| file.path == path || (file.link.is_some() && path.starts_with(&format!("{}/", file.path))))
}

/// Whether a stage before may make it.
fn is_made(plan: &Plan, index: usize, path: &str) -> Result<bool, EngineError> {
    let path = tidy(path);
    for before in plan.ancestors(index) {
        let outputs: Vec<String> = plan.nodes[before].stage.output_paths().iter().map(|output| tidy(output)).collect();
        if inputs::set(&outputs).map_err(|error| EngineError::Source(error.to_string()))?.is_match(&path) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn missing(node: &Node, key: &str, path: &str, tree: &Manifest, folder: &Path) -> String {
    let lead = format!("stage `{}`: there is no `{path}` in the source tree (`{key}`)", node.key);
    if folder.join(path).exists() {
        return format!("{lead}; it is in the folder, and ignored by git or .orchestratorignore");
    }
    let path = tidy(path);
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    let elsewhere = tree.files.iter().find(|file| name(&file.path) == name(&path)).map(|file| file.path.as_str());
    match elsewhere.or_else(|| nearest(&path, tree.files.iter().map(|file| file.path.as_str()))) {
        Some(near) => format!("{lead}; did you mean `{near}`?"),
        None => format!("{lead}, and no stage before makes it"),
    }
}

/// A port that a promotion would deploy on is not free.
async fn taken_port(
    engine: &Arc<Engine>,
    request: &BuildRequest,
    expanded: &Expanded,
) -> Result<Option<String>, EngineError> {
    let Some(serve) = &expanded.pipeline.serve else { return Ok(None) };
    let here = ports::runner_of(serve, request.runner.as_deref()) == "local";
    for node in expanded.plan.nodes.iter().filter(|node| node.skip.is_none()) {
        let Kind::Promote(promote) = &node.stage.kind else { continue };
        // What waits for a person is deployed by that person.
        let Deploy::Replace { port } = &promote.deploy else { continue };
        if promote.approval_manual {
            continue;
        }
        if let Some(why) = ports::taken(engine, &promote.model, *port, here).await? {
            return Ok(Some(format!("`promote` could not deploy: {why}")));
        }
    }
    Ok(None)
}
