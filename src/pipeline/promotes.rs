//! A promotion among the other stages: what it waits for, and whether there can ever be the evidence that it asks for.

use super::check::Stages;
use super::diagnostic::{Diagnostic, Sink, Span, did_you_mean, shown};
use super::predicted;
use super::tree::At;
use super::types::{Deploy, Generator, Kind, PairedTest, Promote, Serve, ServeApp, ServePort, Stage, Task, Train};

/// The numbers that a load test reports.
const LOAD_METRICS: [&str; 12] = [
    "requests",
    "failed",
    "dropped",
    "failure_rate",
    "rps",
    "mean_ms",
    "max_ms",
    "p50_ms",
    "p75_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
];
/// And the one whose name holds a dot.
const LOAD_P999: &str = "p99.9_ms";

/// Checks one promotion.
pub(super) fn check(all: &Stages<'_>, index: usize, serve: Option<&Serve>, sink: &mut Sink) {
    let Some(stage) = all.stages.get(all.names[index]) else { return };
    let Kind::Promote(promote) = &stage.kind else { return };
    let at = all.at.get(all.names[index]).get("promote");
    let train = trained(all, index, promote, sink);
    for (key, metric) in metrics(promote) {
        let metric_at = at.get(key).get(metric);
        waits_for(all, index, metric, sink);
        has_numbers(all, metric, metric_at, train, sink);
    }
    if let Some((name, train)) = train {
        for (metric, rule) in &promote.better_if {
            if rule.test != PairedTest::None && train.predictions.is_none() {
                let message = format!("`{}` can never be tested: `{name}` keeps no predictions", shown(metric));
                sink.push(
                    Diagnostic::error("no-predictions", at.get("better_if").get(metric).get("test").span(), message)
                        .related(all.at.get(name).get("train").key_span(), "trained here")
                        .help("add `predictions: <file>` there (id, label, prediction of held-out rows), or write `test: none`"),
                );
            }
        }
    }
    fixed_port(promote, at, serve, sink);
}

fn metrics(promote: &Promote) -> impl Iterator<Item = (&'static str, &str)> {
    let better = promote.better_if.keys().map(|name| ("better_if", name.as_str()));
    better.chain(promote.guardrails.keys().map(|name| ("guardrails", name.as_str())))
}

/// Where a stage's `needs` is, or would be.
fn needs_span(all: &Stages<'_>, index: usize) -> Span {
    let stage_at = all.at.get(all.names[index]);
    let needs = stage_at.get("needs");
    if needs.exists() { needs.span() } else { stage_at.key_span() }
}

/// The training whose version is the candidate, if there is exactly one in this file.
fn trained<'a>(all: &'a Stages<'_>, index: usize, promote: &Promote, sink: &mut Sink) -> Option<(&'a str, &'a Train)> {
    let at = all.at.get(all.names[index]).get("promote");
    let trains = |name: &str| match all.stages.get(name).map(|stage| &stage.kind) {
        Some(Kind::Train(train)) if train.model == promote.model => Some(train),
        Some(
            Kind::Train(_) | Kind::Plain | Kind::TestApi(_) | Kind::Loadtest(_) | Kind::Promote(_) | Kind::Tune(_),
        )
        | None => None,
    };
    let trainers: Vec<usize> = (0..all.names.len()).filter(|at| trains(all.names[*at]).is_some()).collect();
    let before: Vec<usize> = trainers.iter().copied().filter(|trainer| all.before[index][*trainer]).collect();
    match (&trainers[..], &before[..]) {
        // A training stage that is wrong itself may well be the one.
        ([], _) if all.names.len() != all.stages.len() => None,
        ([], _) => {
            unknown_model(all, promote, at, sink);
            None
        }
        ([first, ..], []) => {
            let name = all.names[*first];
            let message = format!(
                "`{}` does not wait for `{name}`, which trains the model `{}`",
                all.names[index], promote.model
            );
            sink.push(
                Diagnostic::error("not-before", needs_span(all, index), message)
                    .related(all.at.get(name).key_span(), "trained here")
                    .help(format!("add `{name}` to its `needs`")),
            );
            None
        }
        (_, [one]) => {
            let name = all.names[*one];
            if all.stages.get(name).is_some_and(|stage| super::matrix::cells(stage).len() > 1) {
                let message = format!("`{name}` has a matrix: it trains several versions of `{}`", promote.model);
                sink.push(
                    Diagnostic::error("which-candidate", needs_span(all, index), message)
                        .related(all.at.get(name).get("matrix").key_span(), "the matrix")
                        .help("one version can be the candidate: train it in a stage without a matrix"),
                );
                return None;
            }
            Some((name, trains(name)?))
        }
        (_, [one, other, ..]) => {
            several_trainers(all, index, (*one, *other), promote, sink);
            None
        }
    }
}

fn unknown_model(all: &Stages<'_>, promote: &Promote, at: At<'_>, sink: &mut Sink) {
    let known = all.stages.values().filter_map(|stage| match &stage.kind {
        Kind::Train(train) => Some(train.model.as_str()),
        Kind::Plain | Kind::TestApi(_) | Kind::Loadtest(_) | Kind::Promote(_) | Kind::Tune(_) => None,
    });
    let near = did_you_mean(&promote.model, known);
    let message = format!("no stage of this file trains the model `{}`", promote.model);
    let help = near.unwrap_or_else(|| "a promotion judges what its own build trained: add a `train` stage".to_owned());
    sink.push(Diagnostic::error("no-train", at.get("model").span(), message).help(help));
}

/// Two trainings of one model before it are fine if they never run in one build.
fn several_trainers(all: &Stages<'_>, index: usize, (one, other): (usize, usize), promote: &Promote, sink: &mut Sink) {
    let (one, other) = (all.names[one], all.names[other]);
    let always = |name: &str| !all.at.get(name).get("when").exists();
    if !always(one) || !always(other) {
        return;
    }
    let message = format!("`{one}` and `{other}` both train the model `{}`", promote.model);
    sink.push(
        Diagnostic::error("which-candidate", needs_span(all, index), message)
            .related(all.at.get(one).key_span(), "one")
            .related(all.at.get(other).key_span(), "the other")
            .help("one version can be the candidate: need one of them, or give them different models"),
    );
}

/// `load.p95_ms` is known once `load` has run.
fn waits_for(all: &Stages<'_>, index: usize, metric: &str, sink: &mut Sink) {
    let Some((prefix, _)) = metric.split_once('.') else { return };
    let Some(other) = all.names.iter().position(|name| *name == prefix) else { return };
    if other != index && !all.before[index][other] {
        let message = format!("`{}` looks at `{}`, and does not wait for `{prefix}`", all.names[index], shown(metric));
        let diagnostic = Diagnostic::error("not-before", needs_span(all, index), message);
        sink.push(diagnostic.help(format!("add `{prefix}` to its `needs`")));
    }
}

/// Whether anything in this file ever says the metric's number.
fn has_numbers(all: &Stages<'_>, metric: &str, at: At<'_>, train: Option<(&str, &Train)>, sink: &mut Sink) {
    let Some((trainer, train)) = train else { return };
    // A script's metrics file may hold any name.
    if train.metrics.is_some() && train.linfa.is_none() {
        return;
    }
    let prefix = metric.split_once('.').filter(|(prefix, _)| all.names.contains(prefix));
    if let Some((prefix, name)) = prefix {
        let Some(stage) = all.stages.get(prefix).filter(|stage| stage.matrix.is_none()) else { return };
        of_stage(all, metric, (prefix, name, stage), at, sink);
        return;
    }
    let predicted = predicted::find(metric);
    let problem = match (&train.linfa, predicted) {
        (Some(linfa), Some(known)) if known.task != linfa.task => Some(match linfa.task {
            Task::Classification => format!("`{metric}` is of numbers, and `{trainer}` predicts classes"),
            Task::Regression => format!("`{metric}` is of classes, and `{trainer}` predicts numbers"),
        }),
        (Some(_), None) if !built_in_name(metric) => {
            Some(format!("the built-in trainer reports no metric `{}`", shown(metric)))
        }
        (None, Some(_)) if train.predictions.is_some() => None,
        (None, _) => Some(format!("nothing says what `{}` is", shown(metric))),
        (Some(_), _) => None,
    };
    let Some(message) = problem else { return };
    let help = match &train.linfa {
        Some(linfa) => {
            let fitting = predicted::PREDICTED.iter().filter(|known| known.task == linfa.task).map(|known| known.name);
            did_you_mean(metric, fitting.clone())
                .unwrap_or_else(|| format!("it reports {}", super::diagnostic::list(fitting, "and")))
        }
        None => format!("add `metrics: <file>` to `train` of `{trainer}`, a JSON file that holds it"),
    };
    sink.push(
        Diagnostic::error("no-metric", at.key_span(), message)
            .related(all.at.get(trainer).get("train").key_span(), "trained here")
            .help(help),
    );
}

/// Numbers of the built-in trainer that are not computed from predictions alone.
fn built_in_name(metric: &str) -> bool {
    matches!(metric, "rows" | "training_rows") || metric.starts_with("confusion.")
}

fn of_stage(all: &Stages<'_>, metric: &str, (prefix, name, stage): (&str, &str, &Stage), at: At<'_>, sink: &mut Sink) {
    let (message, help) = match &stage.kind {
        Kind::Loadtest(spec) => {
            // A tool's summary may hold percentiles of its own.
            let open = matches!(spec.generator, Generator::K6 { .. });
            if open || name == LOAD_P999 || LOAD_METRICS.contains(&name) {
                return;
            }
            let known = LOAD_METRICS.into_iter().chain([LOAD_P999]);
            let near = did_you_mean(name, known.clone());
            let help = near.unwrap_or_else(|| format!("there are {}", super::diagnostic::list(known, "and")));
            (format!("a load test reports no `{}`", shown(name)), help)
        }
        Kind::Train(_) => return,
        Kind::Plain | Kind::TestApi(_) | Kind::Promote(_) | Kind::Tune(_) => {
            let help = "`train` and `loadtest` stages report numbers; name the metric of a training without its stage";
            (format!("`{}`: the stage `{prefix}` reports no numbers", shown(metric)), help.to_owned())
        }
    };
    sink.push(
        Diagnostic::error("no-metric", at.key_span(), message)
            .related(all.at.get(prefix).key_span(), "this stage")
            .help(help),
    );
}

/// Without an image the model API runs on the host, where the new one cannot listen on the old one's port beside it.
fn fixed_port(promote: &Promote, at: At<'_>, serve: Option<&Serve>, sink: &mut Sink) {
    let Some(serve) = serve.filter(|_| promote.deploy != Deploy::None) else { return };
    let on_host = matches!(serve.app, ServeApp::Linfa(_)) || serve.image.is_none();
    if on_host && matches!(serve.port, ServePort::Fixed(_)) {
        let message = "`serve` has a fixed port and no image, so the new version cannot be tried beside the old one";
        sink.push(
            Diagnostic::error("fixed-port", at.get("deploy").key_span(), message)
                .help("write `port: auto` in `serve`, and let the server listen on `$PORT`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::load::report::{QUANTILES, quantile_name};

    #[test]
    fn all_percentiles_of_a_load_test_are_known() {
        for quantile in QUANTILES {
            let name = format!("{}_ms", quantile_name(quantile));
            assert!(name == LOAD_P999 || LOAD_METRICS.contains(&name.as_str()), "{name}");
        }
    }
}
