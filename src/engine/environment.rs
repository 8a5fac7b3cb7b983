//! The variables of scripts, and the secrets of a build.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::build::plan::Node;
use crate::ids::BuildId;
use crate::pipeline::params::Params;
use crate::store::builds::BuildRequest;

/// Values of secrets by name. They live in memory only.
#[derive(Clone, Default)]
pub struct Secrets {
    /// What is given.
    pub values: BTreeMap<String, String>,
    /// Stages that get a secret, where not all do.
    pub stages: BTreeMap<String, Vec<String>>,
    /// Why others are not given, and what to do, for people.
    pub withheld: BTreeMap<String, String>,
}

impl Secrets {
    /// Why a stage that names these cannot run; none if it has them all.
    pub fn lacking<'a>(&self, stage: &str, names: impl IntoIterator<Item = &'a String>) -> Option<String> {
        let mut why = Vec::new();
        for name in names {
            match (self.values.contains_key(name), self.stages.get(name), self.withheld.get(name)) {
                (true, Some(stages), _) if !stages.iter().any(|one| one == stage) => {
                    why.push(format!("{name} is for the stages {} and not for `{stage}`", stages.join(", ")));
                }
                (true, _, _) => {}
                (false, _, Some(reason)) => why.push(reason.clone()),
                (false, _, None) => why.push(format!("{name} is not given")),
            }
        }
        why.dedup();
        (!why.is_empty()).then(|| format!("secrets are missing: {}", why.join("; ")))
    }

    /// (name, value) of each.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for Secrets {
    /// Names only: this value reaches messages sooner or later.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// `PARAM_`, `MATRIX_` and the like want a name of capitals, digits and `_`.
pub fn variable_name(prefix: &str, name: &str) -> String {
    let tail = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    prefix.chars().chain(tail).collect()
}

/// The variables that do not depend on attempt and secrets: what a result's key is made of.
pub fn declared(node: &Node, params: &Params) -> IndexMap<String, String> {
    let mut variables = node.stage.env.clone();
    for (name, value) in params {
        variables.insert(variable_name("PARAM_", name), value.text());
    }
    for (name, value) in &node.matrix {
        variables.insert(variable_name("MATRIX_", name), value.clone());
    }
    variables
}

/// All variables of an attempt's scripts. Ours come last, so that a pipeline cannot pretend to be another build.
pub fn of_attempt(
    build: BuildId,
    request: &BuildRequest,
    node: &Node,
    attempt: u32,
    params: &Params,
    secrets: &Secrets,
) -> Vec<(String, String)> {
    let mut variables = declared(node, params);
    for name in &node.stage.secrets {
        if let Some(value) = secrets.values.get(name) {
            variables.insert(name.clone(), value.clone());
        }
    }
    variables.extend(identity(build, request));
    variables.insert("ORCHESTRATOR_STAGE".to_owned(), node.key.to_string());
    variables.insert("ORCHESTRATOR_ATTEMPT".to_owned(), attempt.to_string());
    variables.into_iter().collect()
}

/// `CI` and the `ORCHESTRATOR_*` variables of a build.
pub fn identity(build: BuildId, request: &BuildRequest) -> Vec<(String, String)> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        ("CI", "true".to_owned()),
        ("ORCHESTRATOR", "true".to_owned()),
        ("ORCHESTRATOR_PROJECT", request.project.clone()),
        ("ORCHESTRATOR_BUILD", build.0.to_string()),
        ("ORCHESTRATOR_COMMIT", text(&request.commit)),
        ("ORCHESTRATOR_BRANCH", text(&request.branch)),
        ("ORCHESTRATOR_TAG", text(&request.tag)),
        ("ORCHESTRATOR_EVENT", request.event.clone()),
        ("ORCHESTRATOR_URL", text(&request.url)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_names_are_capitals() {
        assert_eq!(variable_name("PARAM_", "max-depth"), "PARAM_MAX_DEPTH");
    }

    #[test]
    fn what_a_stage_lacks() {
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let secrets = Secrets {
            values: text(&[("A", "1"), ("B", "2")]),
            stages: BTreeMap::from([("B".to_owned(), vec!["deploy".to_owned()])]),
            withheld: text(&[("C", "C is not set")]),
        };
        let check = |stage: &str, names: &[&str], expected: Option<&str>| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(secrets.lacking(stage, &names).as_deref(), expected, "{stage} {names:?}");
        };
        check("train", &["A"], None);
        check("deploy", &["A", "B"], None);
        check("train", &["A", "B"], Some("secrets are missing: B is for the stages deploy and not for `train`"));
        check("train", &["C", "D"], Some("secrets are missing: C is not set; D is not given"));
    }

    #[test]
    fn secrets_are_never_printed() {
        let values = BTreeMap::from([("TOKEN".to_owned(), "hunter22".to_owned())]);
        let secrets = Secrets { values, ..Secrets::default() };
        assert_eq!(format!("{secrets:?}"), r#"{"TOKEN"}"#);
    }
}
