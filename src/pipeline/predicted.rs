//! The metrics that are computed from predictions, as far as the language has to know them: what can never be judged is refused.
//!
//! `judge::metrics` computes them; a test there keeps the two in step.

use super::types::{Goal, Task};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predicted {
    /// As users write it.
    pub name: &'static str,
    /// Which way is better.
    pub goal: Goal,
    /// What is predicted.
    pub task: Task,
    /// Whether its values lie in 0..=1.
    pub is_share: bool,
}

const fn share(name: &'static str) -> Predicted {
    Predicted { name, goal: Goal::Maximize, task: Task::Classification, is_share: true }
}

const fn error(name: &'static str, task: Task) -> Predicted {
    Predicted { name, goal: Goal::Minimize, task, is_share: false }
}

/// All of them.
pub const PREDICTED: [Predicted; 13] = [
    share("accuracy"),
    share("precision"),
    share("recall"),
    share("f1"),
    share("precision_macro"),
    share("recall_macro"),
    share("f1_macro"),
    share("average_precision"),
    share("roc_auc"),
    error("log_loss", Task::Classification),
    error("mae", Task::Regression),
    error("rmse", Task::Regression),
    Predicted { name: "r2", goal: Goal::Maximize, task: Task::Regression, is_share: false },
];

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Predicted> {
    PREDICTED.iter().find(|metric| metric.name == name)
}
