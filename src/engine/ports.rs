//! Whether a version could be deployed on its port: asked before a build is begun, and again before anything is decided.

use std::sync::Arc;

use super::runners::name_for;
use super::{Engine, EngineError};
use crate::pipeline::types::{Serve, ServeApp};
use crate::runner::ports;
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
