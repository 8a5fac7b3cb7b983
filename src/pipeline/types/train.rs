//! `train`.

use indexmap::IndexMap;

/// `train`. Paths are relative to the workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Train {
    /// Registry name.
    pub model: String,
    /// The model's file or folder. For the built-in trainer: `model.json`.
    pub artifact: String,
    /// JSON of numbers. For the built-in trainer: `metrics.json`.
    pub metrics: Option<String>,
    /// CSV `id,label,prediction[,score]`. For the built-in trainer: `predictions.csv`.
    pub predictions: Option<String>,
    /// JSON or YAML of parameters.
    pub params: Option<String>,
    /// Data files, hashed for lineage.
    pub data: Vec<String>,
    /// The held-out rows.
    pub evaluation: Option<String>,
    /// Scores a model (`$MODEL`) on rows (`$EVALUATION`) into `$PREDICTIONS`.
    pub score: Option<String>,
    /// The built-in trainer, instead of `run`.
    pub linfa: Option<Linfa>,
}

impl Train {
    /// The paths that count as outputs.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        [
            Some(&self.artifact),
            self.metrics.as_ref(),
            self.predictions.as_ref(),
            self.params.as_ref(),
            self.evaluation.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

/// The built-in trainer's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Linfa {
    /// CSV or Parquet file.
    pub data: String,
    /// The column to predict.
    pub target: String,
    /// Classes or numbers.
    pub task: Task,
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// The algorithm's own settings, by name.
    pub params: IndexMap<String, serde_json::Value>,
    /// Share of rows held out, in (0, 1).
    pub holdout: f64,
    /// For the split and the algorithm.
    pub seed: u64,
    /// Columns to leave out.
    pub drop: Vec<String>,
}

/// What the built-in trainer predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Classes.
    Classification,
    /// Numbers.
    Regression,
}

/// The built-in trainer's algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ordinary least squares.
    Linear,
    /// Linear with L1 and L2 penalty.
    ElasticNet,
    /// Logistic regression.
    Logistic,
    /// One tree.
    DecisionTree,
    /// Many trees.
    RandomForest,
    /// Gaussian naive Bayes.
    NaiveBayes,
    /// Support vectors.
    Svm,
    /// Nearest neighbours.
    Knn,
}
