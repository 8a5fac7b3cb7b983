//! Whether a version could be deployed on its port: asked before a build is begun, and again before anything is decided.

use std::sync::Arc;

use super::runners::name_for;
use super::submit::Expanded;
use super::{Engine, EngineError};
use crate::pipeline::types::{Deploy, Kind, Serve, ServeApp};
use crate::runner::ports;
use crate::store::builds::BuildRequest;
use crate::store::deployments;

/// The name of the runner that a server runs on.
pub fn runner_of(serve: &Serve, chosen: Option<&str>) -> String {
    match serve.app {
        ServeApp::Linfa(_) => "local".to_owned(),
        ServeApp::Work(_) => name_for(None, chosen, serve.image.as_ref()),
    }
}

/// Why a port cannot be this model's: another model serves there, or (`here`: it would be a port of this host) somebody else
/// listens.
///
/// # Errors
/// The database's.
pub async fn taken(engine: &Arc<Engine>, model: &str, port: u16, here: bool) -> Result<Option<String>, EngineError> {
    let open = engine.store.read(deployments::open).await?;
    if let Some(other) = open.iter().find(|row| row.port == port && row.model != model) {
        return Ok(Some(format!(
            "port {port} serves model `{}` (version {}): deploy `{model}` on another port, or stop that one with \
             `orchestrator deployments stop {}`",
            other.model, other.version, other.model
        )));
    }
    let ours = open.iter().any(|row| row.port == port);
    let user = if here && !ours { ports::user_of(port) } else { None };
    Ok(user.map(|user| format!("port {port} is used by {user}; stop that, or deploy on another port")))
}

/// The same for every promotion of a build that is about to begin: nobody wants to hear of it at the end.
///
/// # Errors
/// The database's.
pub async fn taken_for(
    engine: &Arc<Engine>,
    request: &BuildRequest,
    expanded: &Expanded,
) -> Result<Option<String>, EngineError> {
    let Some(serve) = &expanded.pipeline.serve else { return Ok(None) };
    let here = runner_of(serve, request.runner.as_deref()) == "local";
    for node in expanded.plan.nodes.iter().filter(|node| node.skip.is_none()) {
        let Kind::Promote(promote) = &node.stage.kind else { continue };
        // What waits for a person is deployed by that person.
        let Deploy::Replace { port } = &promote.deploy else { continue };
        if promote.approval_manual {
            continue;
        }
        if let Some(why) = taken(engine, &promote.model, *port, here).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}
