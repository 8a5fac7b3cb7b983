//! `train`.

use super::Cx;
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{Algorithm, Linfa, Task, Train};

/// `at` is the stage's place; `works` says whether it has a script.
pub(super) fn train(raw: &raw::Train, stage_at: At<'_>, works: bool, cx: &mut Cx<'_>) -> Option<Train> {
    let at = stage_at.get("train");
    let has_linfa = at.get("linfa").exists();
    let other = if stage_at.get("command").exists() { "command" } else { "run" };
    if works && has_linfa {
        let message = format!("`{other}` and the built-in trainer `linfa` exclude each other");
        cx.push(
            Diagnostic::error("two-works", at.get("linfa").key_span(), message)
                .related(stage_at.get(other).key_span(), "the other one")
                .help("keep the script to train with your own code, `linfa` to train without any"),
        );
        return None;
    }
    if !works && !has_linfa && !stage_at.get("run").exists() && !stage_at.get("command").exists() {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "nothing trains the model").help(
                "add `run` with a training script to the stage, or `linfa` under `train` for the built-in trainer",
            ),
        );
        return None;
    }
    let linfa = match &raw.linfa {
        Some(raw) => Some(linfa(raw, at.get("linfa"), cx)?),
        None => None,
    };
    let path = |path: &Option<raw::OutputPath>| path.as_ref().map(|path| path.0.clone());
    let built_in = |name: &str| linfa.as_ref().map(|_| name.to_owned());
    let artifact = path(&raw.artifact).or_else(|| built_in("model.json"));
    if artifact.is_none() && !has_linfa && !at.get("artifact").exists() && !cx.sink.has_error_in(at.key_span()) {
        cx.push(
            Diagnostic::error("missing-key", at.key_span(), "`train` needs the key `artifact`")
                .help("`artifact`: the file or folder that the script writes the model to"),
        );
    }
    if raw.score.is_some() && raw.evaluation.is_none() && !at.get("evaluation").exists() {
        let message = "`score` needs `evaluation`: the rows that models are scored on";
        cx.push(Diagnostic::error("missing-key", at.get("score").key_span(), message).help("add `evaluation: <file>`"));
    }
    if has_linfa && raw.score.is_some() {
        let message = "the built-in trainer scores its models by itself";
        cx.push(Diagnostic::error("no-meaning-here", at.get("score").key_span(), message).help("remove `score`"));
    }
    Some(Train {
        model: raw.model.as_ref()?.0.clone(),
        artifact: artifact?,
        metrics: path(&raw.metrics).or_else(|| built_in("metrics.json")),
        predictions: path(&raw.predictions).or_else(|| built_in("predictions.csv")),
        params: path(&raw.params),
        data: raw.data.iter().map(|path| path.0.clone()).collect(),
        evaluation: path(&raw.evaluation).or_else(|| built_in("evaluation.csv")),
        score: raw.score.as_ref().map(|script| script.0.clone()),
        linfa,
    })
}

fn linfa(raw: &raw::Linfa, at: At<'_>, cx: &mut Cx<'_>) -> Option<Linfa> {
    let task = raw.task.map(|task| match task {
        raw::Task::Classification => Task::Classification,
        raw::Task::Regression => Task::Regression,
    });
    let algorithm = raw.algorithm.map(algorithm);
    if let (Some(task), Some(algorithm)) = (task, algorithm) {
        let (fits, help) = match (task, algorithm) {
            (Task::Classification, Algorithm::Linear | Algorithm::ElasticNet) => {
                (false, "for classes use `logistic`, `decision-tree`, `random-forest`, `naive-bayes`, `svm` or `knn`")
            }
            (Task::Regression, Algorithm::Logistic | Algorithm::NaiveBayes) => {
                (false, "for numbers use `linear`, `elastic-net`, `decision-tree`, `random-forest`, `svm` or `knn`")
            }
            (Task::Classification | Task::Regression, _) => (true, ""),
        };
        if !fits {
            let message = "the algorithm does not fit the task";
            cx.push(
                Diagnostic::error("algorithm-and-task", at.get("algorithm").span(), message)
                    .related(at.get("task").span(), "the task")
                    .help(help),
            );
            return None;
        }
    }
    let target = raw.target.as_ref().map(|text| text.0.clone());
    let drop: Vec<String> = raw.drop.iter().map(|text| text.0.clone()).collect();
    if let Some(index) = target.as_ref().and_then(|target| drop.iter().position(|column| column == target)) {
        let message = "the column to predict cannot be left out";
        cx.push(
            Diagnostic::error("two-values", at.get("drop").item(index).span(), message).help("remove it from `drop`"),
        );
    }
    Some(Linfa {
        data: raw.data.as_ref()?.0.clone(),
        target: target?,
        task: task?,
        algorithm: algorithm?,
        params: raw.params.clone(),
        holdout: raw.holdout.unwrap_or(0.2),
        seed: raw.seed.unwrap_or(7),
        drop,
    })
}

fn algorithm(word: raw::LinfaAlgorithm) -> Algorithm {
    match word {
        raw::LinfaAlgorithm::Linear => Algorithm::Linear,
        raw::LinfaAlgorithm::ElasticNet => Algorithm::ElasticNet,
        raw::LinfaAlgorithm::Logistic => Algorithm::Logistic,
        raw::LinfaAlgorithm::DecisionTree => Algorithm::DecisionTree,
        raw::LinfaAlgorithm::RandomForest => Algorithm::RandomForest,
        raw::LinfaAlgorithm::NaiveBayes => Algorithm::NaiveBayes,
        raw::LinfaAlgorithm::Svm => Algorithm::Svm,
        raw::LinfaAlgorithm::Knn => Algorithm::Knn,
    }
}
