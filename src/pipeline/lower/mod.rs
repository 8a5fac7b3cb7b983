//! From the file as written to the values that the program works with: defaults applied, units read, meanings checked.
//!
//! Every function gives `None` only where an error has been reported; the caller goes on with what it has.

mod http;
mod loadtest;
mod promote;
mod serve;
mod stage;
mod train;
mod triggers;
mod tune;

use std::time::Duration;

use indexmap::IndexMap;

use super::diagnostic::{Diagnostic, Sink, did_you_mean, list, shown};
use super::raw;
use super::substitute::{self, references};
use super::tree::At;
use super::types::{Pipeline, Ready, Resources, Stage};
use super::units;
use crate::ids::StageName;

/// What lowering gives: as much of the pipeline as is good.
pub(super) struct Lowered {
    /// All but the stages; `None` after an error in it.
    pub(super) pipeline: Option<Pipeline>,
    /// The stages that are good.
    pub(super) stages: IndexMap<String, Stage>,
}

/// What the functions of this module share.
struct Cx<'a> {
    sink: &'a mut Sink,
    /// Names of parameters.
    params: Vec<&'a str>,
    /// Names of the matrix axes of the stage that is looked at.
    axes: Vec<String>,
    /// All stages, good or not.
    stage_names: Vec<&'a str>,
}

/// Lowers a file.
pub(super) fn pipeline(raw: &raw::Pipeline, at: At<'_>, sink: &mut Sink) -> Lowered {
    let params_at = at.get("params");
    let mut cx = Cx {
        sink,
        params: params_at.entries().map(|(name, _)| name).collect(),
        axes: Vec::new(),
        stage_names: at.get("stages").entries().map(|(name, _)| name).collect(),
    };
    let on = triggers::on(raw.on.as_ref(), at.get("on"), &mut cx);
    let concurrency = raw.concurrency.as_ref().map(|raw| triggers::concurrency(raw, at.get("concurrency"), &mut cx));
    let params = triggers::params(&raw.params, params_at, &mut cx);
    let env = cx.env(&raw.env, at.get("env"));
    let secrets = cx.secrets(&raw.secrets, at.get("secrets"), &env);
    let shared = stage::Shared::new(raw.defaults.as_ref(), at.get("defaults"), &env, &secrets, &mut cx);
    let serve_at = at.get("serve");
    let serve = match &raw.serve {
        None => Some(None),
        Some(raw) => serve::serve(raw, serve_at, &shared, &mut cx).map(Some),
    };
    let mut stages = IndexMap::new();
    for (name, raw) in raw.stages.iter().flatten() {
        let stage_at = at.get("stages").get(name);
        if let Some(stage) = stage::stage(name, raw, stage_at, &shared, &mut cx) {
            stages.insert(name.clone(), stage);
        }
    }
    let good = || {
        Some(Pipeline {
            name: raw.name.as_ref().map(|name| name.0.clone()),
            on: on?,
            concurrency: match concurrency {
                None => None,
                Some(made) => Some(made?),
            },
            params: params?,
            env,
            secrets,
            serve: serve?,
            stages: IndexMap::new(),
        })
    };
    Lowered { pipeline: good(), stages }
}

impl Cx<'_> {
    fn push(&mut self, diagnostic: Diagnostic) {
        self.sink.push(diagnostic);
    }

    /// A duration that the shape check found good.
    fn duration(&mut self, raw: Option<&raw::DurationText>, default: Duration) -> Duration {
        raw.and_then(|text| units::duration(&text.0).ok()).unwrap_or(default)
    }

    /// A duration that must not be zero.
    fn positive(&mut self, raw: Option<&raw::DurationText>, default: Duration, at: At<'_>, key: &str) -> Duration {
        let found = self.duration(raw, default);
        if found.is_zero() {
            self.push(Diagnostic::error("out-of-range", at.span(), format!("`{key}` must be more than 0")));
        }
        found
    }

    /// Checks that a text's substitutions are known.
    fn template(&mut self, raw: &raw::Template, at: At<'_>) -> String {
        self.template_with(raw, at, &[])
    }

    fn template_with(&mut self, raw: &raw::Template, at: At<'_>, extra: &[&str]) -> String {
        let text = &raw.0;
        for found in references(text) {
            if let Some(problem) = self.bad_reference(&text[found.start..found.end], found.name, extra) {
                let (message, help) = problem;
                self.push(Diagnostic::error("unknown-substitution", at.span(), message).help(help));
            }
        }
        text.clone()
    }

    /// What is wrong with one `${...}`.
    fn bad_reference(&self, written: &str, name: Option<&str>, extra: &[&str]) -> Option<(String, String)> {
        let Some(name) = name.map(str::trim) else {
            let help = "close it by `}`; to have the text itself write `$${`";
            return Some((format!("`{}` is not closed", shown(written)), help.to_owned()));
        };
        let written = shown(written);
        match name.split_once('.') {
            Some(("params", param)) if self.params.contains(&param) => None,
            Some(("params", param)) => {
                let help = did_you_mean(param, self.params.iter().copied()).unwrap_or_else(|| match self.params[..] {
                    [] => "add it under `params` at the top of the file".to_owned(),
                    [..] => format!("parameters are {}", list(self.params.iter().copied(), "and")),
                });
                Some((format!("`{written}`: there is no parameter `{}`", shown(param)), help))
            }
            Some(("matrix", axis)) if self.axes.iter().any(|known| known == axis) => None,
            Some(("matrix", axis)) => {
                let axes = self.axes.iter().map(String::as_str);
                let help = did_you_mean(axis, axes.clone()).unwrap_or_else(|| match self.axes[..] {
                    [] => "only a stage with a `matrix` has such values".to_owned(),
                    [..] => format!("the matrix has {}", list(axes, "and")),
                });
                Some((format!("`{written}`: the matrix has no `{}` here", shown(axis)), help))
            }
            Some(_) | None if extra.contains(&name) => None,
            Some(_) | None => {
                let mut known = vec!["${params.NAME}", "${matrix.NAME}"];
                let branch: Vec<String> = extra.iter().map(|word| format!("${{{word}}}")).collect();
                known.extend(branch.iter().map(String::as_str));
                let help = format!("known are {}; to have the text itself write `${written}`", list(known, "and"));
                Some((format!("`{written}` is not known"), help))
            }
        }
    }

    /// Variables.
    fn env(&mut self, raw: &IndexMap<String, raw::Template>, at: At<'_>) -> IndexMap<String, String> {
        let mut env = IndexMap::new();
        for (name, value) in raw {
            let value_at = at.get(name);
            if name == "ORCHESTRATOR" || name.starts_with("ORCHESTRATOR_") {
                let message = format!("the variable `{}` is set by orchestrator itself", shown(name));
                self.push(Diagnostic::error("reserved-name", value_at.key_span(), message).help("choose another name"));
            }
            if let Some(param) = self.params.iter().find(|param| substitute::variable("PARAM", param) == *name) {
                let message = format!("the variable `{name}` is set by the parameter `{param}`");
                self.push(
                    Diagnostic::error("reserved-name", value_at.key_span(), message)
                        .help("choose another name, or remove it"),
                );
            }
            env.insert(name.clone(), self.template(value, value_at));
        }
        env
    }

    /// Names of secrets, without doubles; none may be a variable too.
    fn secrets(&mut self, raw: &[raw::Variable], at: At<'_>, env: &IndexMap<String, String>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (index, name) in raw.iter().enumerate() {
            if env.contains_key(&name.0) {
                let message = format!("`{}` is a variable of `env` and a secret at once", name.0);
                self.push(Diagnostic::error("two-values", at.item(index).span(), message).help("keep one of them"));
            }
            if !names.contains(&name.0) {
                names.push(name.0.clone());
            }
        }
        names
    }

    fn ready(&mut self, raw: Option<&raw::Ready>, at: At<'_>, path: Option<&str>) -> Ready {
        let own = raw.and_then(|ready| ready.path.clone());
        if let Some(path) = own.as_deref().filter(|path| !path.starts_with('/')) {
            let message = format!("`{}` is not a path", shown(path));
            self.push(Diagnostic::error("bad-path", at.get("path").span(), message).help(format!("write `/{path}`")));
        }
        let timeout = raw.and_then(|ready| ready.timeout.as_ref());
        let timeout = self.positive(timeout, Duration::from_secs(60), at.get("timeout"), "timeout");
        Ready { path: own.or_else(|| path.map(str::to_owned)), timeout }
    }

    fn resources(&mut self, raw: Option<&raw::Resources>, at: At<'_>) -> Resources {
        let Some(raw) = raw else { return Resources::default() };
        let memory_bytes = raw.memory.as_ref().and_then(|text| units::size(&text.0).ok());
        // Below this no container engine starts a container.
        let least = 6 << 20;
        if memory_bytes.is_some_and(|bytes| bytes < least) {
            let diagnostic =
                Diagnostic::error("out-of-range", at.get("memory").span(), "`memory` must be at least `6MiB`");
            self.push(diagnostic);
        }
        Resources { cpus: raw.cpus, memory_bytes, pids: raw.pids, gpus: raw.gpus }
    }

    /// The name of a stage that there must be.
    fn stage_name(&mut self, text: &str, at: At<'_>) -> Option<StageName> {
        if self.stage_names.contains(&text) {
            return StageName::new(text).ok();
        }
        let message = format!("there is no stage `{}`", shown(text));
        let help =
            did_you_mean(text, self.stage_names.iter().copied()).unwrap_or_else(|| match self.stage_names.len() {
                0..=12 => format!("stages are {}", list(self.stage_names.iter().copied(), "and")),
                count => format!("there are {count} stages, and none has a name like it"),
            });
        self.push(Diagnostic::error("unknown-stage", at.span(), message).help(help));
        None
    }
}
