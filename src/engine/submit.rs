//! A build request becomes a row.

use std::sync::Arc;

use super::{Engine, EngineError, now};
use crate::build::plan::{self, Plan};
use crate::ids::BuildId;
use crate::pipeline;
use crate::pipeline::condition::Facts;
use crate::pipeline::matrix;
use crate::pipeline::params::{self, Params};
use crate::pipeline::types::Pipeline;
use crate::store::builds::{self, BuildRequest};

/// What a request expands to: always the same for the same request.
#[derive(Debug, Clone)]
pub struct Expanded {
    /// The checked pipeline.
    pub pipeline: Pipeline,
    /// Parameters with defaults filled in.
    pub params: Params,
    /// The graph.
    pub plan: Plan,
}

/// Parses and plans a request again.
///
/// # Errors
/// If the text does not parse, a parameter is wrong, or a stage asked for is not there.
pub fn expand(request: &BuildRequest) -> Result<Expanded, EngineError> {
    let parsed = pipeline::parse(&request.file, request.text.as_bytes()).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect();
        EngineError::Pipeline(format!("{} is not valid: {}", request.file, lines.join("; ")))
    })?;
    let given: Vec<(String, String)> = request.params.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let params = params::resolve(&parsed.pipeline, &given).map_err(|wrong| EngineError::Pipeline(wrong.join("; ")))?;
    let mut pipeline = parsed.pipeline;
    pipeline.serve = pipeline.serve.map(|serve| matrix::serve_with(&serve, &params));
    let plan = plan::plan(&pipeline, &params, &facts(request), &request.selection)
        .map_err(|unknown| EngineError::Pipeline(unknown.to_string()))?;
    Ok(Expanded { pipeline, params, plan })
}

impl Expanded {
    /// Names of all secrets that its stages and its model API name, each once.
    pub fn secrets(&self) -> Vec<String> {
        let serve = self.pipeline.serve.iter().flat_map(|serve| &serve.secrets);
        let names = self.plan.nodes.iter().flat_map(|node| &node.stage.secrets).chain(serve);
        names.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect()
    }
}

/// What `when` looks at.
pub fn facts(request: &BuildRequest) -> Facts {
    Facts {
        event: request.event.clone(),
        branch: request.branch.clone(),
        tag: request.tag.clone(),
        changed_paths: request.changed_paths.clone(),
        default_branch: request.default_branch.clone().unwrap_or_else(|| "main".to_owned()),
    }
}

impl Engine {
    /// Stores a build with its stages waiting. It does not run before it is driven.
    ///
    /// # Errors
    /// As [`expand`], or the database's.
    pub async fn submit(self: &Arc<Self>, request: BuildRequest) -> Result<BuildId, EngineError> {
        let plan = expand(&request)?.plan;
        Ok(self.store.write(move |tx| builds::create(tx, &request, &plan, now())).await?)
    }
}
