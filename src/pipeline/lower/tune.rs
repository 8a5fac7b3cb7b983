//! `tune`: read and checked in full; running it comes later.

use indexmap::IndexMap;
use serde_json::json;

use super::Cx;
use super::promote::goal;
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::raw;
use crate::pipeline::substitute;
use crate::pipeline::tree::At;
use crate::pipeline::types::{SearchSpace, Tune};

pub(super) fn tune(raw: &raw::Tune, stage_at: At<'_>, works: bool, cx: &mut Cx<'_>) -> Option<Tune> {
    let at = stage_at.get("tune");
    if !works && !stage_at.get("run").exists() && !stage_at.get("command").exists() {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "nothing is run for a trial")
                .help("add `run` with the training script to the stage: it gets the values as `PARAM_<NAME>`"),
        );
    }
    let algorithm = raw.algorithm.unwrap_or(raw::TuneAlgorithm::Tpe);
    let parameters = parameters(raw, at.get("parameters"), algorithm, cx);
    if raw.trials.zip(raw.parallel).is_some_and(|(trials, parallel)| parallel > trials) {
        let message = "`parallel` is more than `trials`";
        cx.push(Diagnostic::error("out-of-range", at.get("parallel").span(), message));
    }
    let objective = raw.objective.as_ref()?;
    Some(Tune {
        parameters: parameters?,
        metric: objective.metric.clone()?,
        goal: goal(objective.goal?),
        target: objective.target,
        algorithm: algorithm.word().to_owned(),
        trials: raw.trials?,
        parallel: raw.parallel.unwrap_or(1),
        max_failed: raw.max_failed.unwrap_or(0),
        early_stopping: match &raw.early_stopping {
            None => None,
            Some(rule) => Some(early_stopping(rule, at.get("early_stopping"), cx)?),
        },
    })
}

fn parameters(
    raw: &raw::Tune,
    at: At<'_>,
    algorithm: raw::TuneAlgorithm,
    cx: &mut Cx<'_>,
) -> Option<IndexMap<String, SearchSpace>> {
    let mut made = IndexMap::new();
    let mut good = true;
    for (name, space) in raw.parameters.iter().flatten() {
        let here = at.get(name);
        if cx.params.contains(&name.as_str()) {
            let message = format!("`{name}` is a parameter of the pipeline already");
            let help = format!("both would be the variable `{}`: rename one", substitute::variable("PARAM", name));
            cx.push(Diagnostic::error("same-variable", here.key_span(), message).help(help));
        }
        match search_space(space, here, algorithm, cx) {
            Some(space) => drop(made.insert(name.clone(), space)),
            None => good = false,
        }
    }
    good.then_some(made)
}

fn search_space(
    raw: &raw::SearchSpace,
    at: At<'_>,
    algorithm: raw::TuneAlgorithm,
    cx: &mut Cx<'_>,
) -> Option<SearchSpace> {
    let present: Vec<&str> = ["int", "float", "log", "choice"].into_iter().filter(|key| at.get(key).exists()).collect();
    let key = match present[..] {
        [only] => only,
        [] => {
            if !cx.sink.has_error_in(at.whole()) {
                cx.push(
                    Diagnostic::error("missing-key", at.span(), "this parameter has no values")
                        .help("write `int: [50, 500]`, `float: [0, 1]`, `log: [1e-4, 1e-1]` or `choice: [a, b]`"),
                );
            }
            return None;
        }
        [first, second, ..] => {
            let message = format!("`{first}` and `{second}` exclude each other");
            cx.push(
                Diagnostic::error("two-values", at.get(second).key_span(), message)
                    .related(at.get(first).key_span(), "the other one")
                    .help("keep one of them"),
            );
            return None;
        }
    };
    let backwards = |cx: &mut Cx<'_>| {
        let message = "the first number must be less than the second";
        cx.push(Diagnostic::error("out-of-range", at.get(key).span(), message));
        None
    };
    if algorithm == raw::TuneAlgorithm::Grid && matches!(key, "float" | "log") {
        let message = format!("`grid` tries all values, and `{key}` has no end of them");
        cx.push(
            Diagnostic::error("endless-grid", at.get(key).key_span(), message)
                .help("use `choice`, or another algorithm"),
        );
    }
    match (key, raw) {
        ("int", raw::SearchSpace { int: Some(range), .. }) => match range[..] {
            [low, high] if low < high => Some(SearchSpace::Int(low, high)),
            [..] => backwards(cx),
        },
        ("float", raw::SearchSpace { float: Some(range), .. }) => match range[..] {
            [low, high] if low < high => Some(SearchSpace::Float(low, high)),
            [..] => backwards(cx),
        },
        ("log", raw::SearchSpace { log: Some(range), .. }) => match range[..] {
            [low, _] if low <= 0.0 => {
                let message = "a logarithmic range begins above 0";
                cx.push(Diagnostic::error("out-of-range", at.get(key).span(), message));
                None
            }
            [low, high] if low < high => Some(SearchSpace::Log(low, high)),
            [..] => backwards(cx),
        },
        ("choice", raw::SearchSpace { choice: Some(values), .. }) => {
            Some(SearchSpace::Choice(values.iter().map(|value| value.0.clone()).collect()))
        }
        (_, _) => None,
    }
}

fn early_stopping(raw: &raw::EarlyStopping, at: At<'_>, cx: &mut Cx<'_>) -> Option<serde_json::Value> {
    match (&raw.median, &raw.asha) {
        (Some(median), None) => Some(json!({ "median": { "min_trials": median.min_trials.unwrap_or(5) } })),
        (None, Some(asha)) => Some(
            json!({ "asha": { "min_steps": asha.min_steps.unwrap_or(1), "reduction": asha.reduction.unwrap_or(3) } }),
        ),
        (both, _) => {
            if !cx.sink.has_error_in(at.whole()) {
                let message =
                    if both.is_some() { "`median` and `asha` exclude each other" } else { "there is no rule here" };
                cx.push(
                    Diagnostic::error("two-values", at.key_span(), message)
                        .help("write `{ median: { min_trials: 5 } }` or `{ asha: {} }`"),
                );
            }
            None
        }
    }
}
