//! `tune`.

use indexmap::IndexMap;

use super::promote::Goal;

/// `tune`: parsed and checked; running it comes later and says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Tune {
    /// The search space.
    pub parameters: IndexMap<String, SearchSpace>,
    /// The metric to improve.
    pub metric: String,
    /// Which way is better.
    pub goal: Goal,
    /// Good enough to stop.
    pub target: Option<f64>,
    /// `tpe`, `random`, `grid`, `sobol`.
    pub algorithm: String,
    /// How many at most.
    pub trials: u32,
    /// How many at once.
    pub parallel: u32,
    /// Failed trials that are borne.
    pub max_failed: u32,
    /// Early stopping rule as written, checked.
    pub early_stopping: Option<serde_json::Value>,
}

/// One parameter's range.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchSpace {
    /// Whole numbers, both ends included.
    Int(i64, i64),
    /// Numbers.
    Float(f64, f64),
    /// Numbers on a logarithmic scale.
    Log(f64, f64),
    /// One of these.
    Choice(Vec<String>),
}
