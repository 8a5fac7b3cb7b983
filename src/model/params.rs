//! The algorithms' own settings: names, defaults and bounds, read from `params`.

use indexmap::IndexMap;
use serde_json::Value;

use crate::model::prepare::did_you_mean;
use crate::model::train::TrainError;
use crate::model::tree::Quality;
use crate::pipeline::types::{Algorithm, Task};

/// Settings with everything filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The algorithm with its own.
    pub algorithm: Chosen,
    /// Rows of a class count by how rare it is.
    pub balanced: bool,
    /// From which probability on the rarer of two classes is predicted.
    pub threshold: f64,
    /// As resolved, for the model file and the log.
    pub resolved: IndexMap<String, Value>,
}

/// An algorithm with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    /// Ordinary least squares.
    Linear,
    /// Linear with penalty.
    ElasticNet { penalty: f64, l1_ratio: f64, max_iterations: u32, tolerance: f64 },
    /// Logistic regression.
    Logistic { alpha: f64, max_iterations: u64, tolerance: f64 },
    /// One tree.
    DecisionTree { max_depth: usize, min_split: usize, min_leaf: usize, quality: Quality },
    /// Many trees.
    RandomForest {
        trees: usize,
        max_depth: usize,
        min_split: usize,
        min_leaf: usize,
        features: Option<f64>,
        sample: f64,
        quality: Quality,
    },
    /// Gaussian naive Bayes.
    NaiveBayes { smoothing: f64 },
    /// Support vectors.
    Svm { c: f64, kernel: KernelChoice, tolerance: f64, epsilon: f64 },
    /// Nearest neighbours.
    Knn { neighbours: usize },
}

/// A support vector machine's kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KernelChoice {
    /// The product itself.
    Linear,
    /// exp(-distance² / width); the width is the number of features if not given.
    Gaussian { width: Option<f64> },
    /// (product + constant)^degree.
    Polynomial { constant: f64, degree: f64 },
}

/// The algorithm's word in YAML.
pub fn word(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Linear => "linear",
        Algorithm::ElasticNet => "elastic-net",
        Algorithm::Logistic => "logistic",
        Algorithm::DecisionTree => "decision-tree",
        Algorithm::RandomForest => "random-forest",
        Algorithm::NaiveBayes => "naive-bayes",
        Algorithm::Svm => "svm",
        Algorithm::Knn => "knn",
    }
}

/// Reads and checks the settings of an algorithm for a task.
///
/// # Errors
/// [`TrainError::Setting`] if the algorithm cannot do the task, or a setting is unknown, of the wrong type or out of bounds.
pub fn read(algorithm: Algorithm, task: Task, given: &IndexMap<String, Value>) -> Result<Settings, TrainError> {
    check_task(algorithm, task)?;
    let mut reader = Reader { algorithm: word(algorithm), given, resolved: IndexMap::new() };
    let chosen = match algorithm {
        Algorithm::Linear => Chosen::Linear,
        Algorithm::ElasticNet => Chosen::ElasticNet {
            penalty: reader.number("penalty", 0.1, 0.0, 1e9)?,
            l1_ratio: reader.number("l1_ratio", 0.5, 0.0, 1.0)?,
            max_iterations: reader.whole("max_iterations", 1000, 1, 1_000_000)? as u32,
            tolerance: reader.number("tolerance", 1e-4, 1e-12, 1.0)?,
        },
        Algorithm::Logistic => Chosen::Logistic {
            alpha: reader.number("alpha", 1.0, 0.0, 1e9)?,
            max_iterations: reader.whole("max_iterations", 500, 1, 1_000_000)? as u64,
            tolerance: reader.number("tolerance", 1e-4, 1e-12, 1.0)?,
        },
        Algorithm::DecisionTree => Chosen::DecisionTree {
            max_depth: reader.whole("max_depth", 6, 1, 64)?,
            min_split: reader.whole("min_split", 2, 2, 1_000_000)?,
            min_leaf: reader.whole("min_leaf", 1, 1, 1_000_000)?,
            quality: reader.quality(task)?,
        },
        Algorithm::RandomForest => Chosen::RandomForest {
            trees: reader.whole("trees", 100, 1, 5000)?,
            max_depth: reader.whole("max_depth", 32, 1, 64)?,
            min_split: reader.whole("min_split", 2, 2, 1_000_000)?,
            min_leaf: reader.whole("min_leaf", 1, 1, 1_000_000)?,
            features: reader.optional("features", 0.0, 1.0)?,
            sample: reader.number("sample", 1.0, 0.01, 1.0)?,
            quality: reader.quality(task)?,
        },
        Algorithm::NaiveBayes => Chosen::NaiveBayes { smoothing: reader.number("smoothing", 1e-9, 0.0, 1.0)? },
        Algorithm::Svm => Chosen::Svm {
            c: reader.number("c", 1.0, 1e-9, 1e9)?,
            kernel: reader.kernel()?,
            tolerance: reader.number("tolerance", 1e-3, 1e-9, 1.0)?,
            epsilon: if task == Task::Regression { reader.number("epsilon", 0.1, 1e-9, 1e9)? } else { 0.1 },
        },
        Algorithm::Knn => Chosen::Knn { neighbours: reader.whole("neighbours", 5, 1, 10_000)? },
    };
    let classes = task == Task::Classification;
    let weighs = matches!(algorithm, Algorithm::DecisionTree | Algorithm::RandomForest | Algorithm::Svm);
    let balanced = if classes && weighs { reader.boolean("balanced", false)? } else { false };
    let threshold = if classes { reader.number("threshold", 0.5, 0.0, 1.0)? } else { 0.5 };
    reader.check_unknown()?;
    Ok(Settings { algorithm: chosen, balanced, threshold, resolved: reader.resolved })
}

fn check_task(algorithm: Algorithm, task: Task) -> Result<(), TrainError> {
    let (fits, others) = match algorithm {
        Algorithm::Linear | Algorithm::ElasticNet => {
            (task == Task::Regression, "`logistic`, `decision-tree`, `random-forest`, `naive-bayes`, `svm` or `knn`")
        }
        Algorithm::Logistic | Algorithm::NaiveBayes => {
            (task == Task::Classification, "`linear`, `elastic-net`, `decision-tree`, `random-forest`, `svm` or `knn`")
        }
        Algorithm::DecisionTree | Algorithm::RandomForest | Algorithm::Svm | Algorithm::Knn => (true, ""),
    };
    let (what, can) = match task {
        Task::Classification => ("classes", "classification"),
        Task::Regression => ("numbers", "regression"),
    };
    if fits {
        return Ok(());
    }
    let word = word(algorithm);
    Err(TrainError::Setting(format!("`algorithm: {word}` does not predict {what}; for `task: {can}` use {others}")))
}

struct Reader<'a> {
    algorithm: &'static str,
    given: &'a IndexMap<String, Value>,
    resolved: IndexMap<String, Value>,
}

impl Reader<'_> {
    fn take<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<Option<T>, TrainError> {
        let Some(value) = self.given.get(name) else { return Ok(None) };
        let read = read(value).ok_or_else(|| {
            TrainError::Setting(format!("`params.{name}` of `{}` must be {what}, and is {value}", self.algorithm))
        })?;
        self.resolved.insert(name.to_owned(), value.clone());
        Ok(Some(read))
    }

    fn optional(&mut self, name: &str, above: f64, most: f64) -> Result<Option<f64>, TrainError> {
        let fits = |value: &Value| value.as_f64().filter(|number| *number > above && *number <= most);
        let read = self.take(name, fits, &format!("a number above {above} and at most {most}"))?;
        if read.is_none() {
            self.resolved.insert(name.to_owned(), Value::Null);
        }
        Ok(read)
    }

    fn number(&mut self, name: &str, default: f64, least: f64, most: f64) -> Result<f64, TrainError> {
        let fits = |value: &Value| value.as_f64().filter(|number| (least..=most).contains(number));
        let read = self.take(name, fits, &format!("a number from {least} to {most}"))?;
        Ok(self.or_default(name, read, default))
    }

    fn whole(&mut self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, TrainError> {
        let fits = |value: &Value| {
            // Substituted parameters may come as 100.0.
            let number = value.as_f64().filter(|number| number.fract() == 0.0)? as usize;
            (least..=most).contains(&number).then_some(number)
        };
        let read = self.take(name, fits, &format!("a whole number from {least} to {most}"))?;
        Ok(self.or_default(name, read, default))
    }

    fn boolean(&mut self, name: &str, default: bool) -> Result<bool, TrainError> {
        let read = self.take(name, Value::as_bool, "`true` or `false`")?;
        Ok(self.or_default(name, read, default))
    }

    fn word(&mut self, name: &str, words: &[&'static str]) -> Result<&'static str, TrainError> {
        let find = |value: &Value| words.iter().find(|word| Some(**word) == value.as_str()).copied();
        let read = self.take(name, find, &format!("one of `{}`", words.join("`, `")))?;
        Ok(self.or_default(name, read, words[0]))
    }

    fn or_default<T: Into<Value> + Copy>(&mut self, name: &str, read: Option<T>, default: T) -> T {
        let value = read.unwrap_or(default);
        self.resolved.insert(name.to_owned(), value.into());
        value
    }

    fn quality(&mut self, task: Task) -> Result<Quality, TrainError> {
        if task == Task::Regression {
            return Ok(Quality::Gini);
        }
        Ok(if self.word("quality", &["gini", "entropy"])? == "gini" { Quality::Gini } else { Quality::Entropy })
    }

    fn kernel(&mut self) -> Result<KernelChoice, TrainError> {
        Ok(match self.word("kernel", &["gaussian", "linear", "polynomial"])? {
            "gaussian" => KernelChoice::Gaussian { width: self.optional("width", 0.0, 1e9)? },
            "linear" => KernelChoice::Linear,
            _ => KernelChoice::Polynomial {
                constant: self.number("constant", 1.0, 0.0, 1e6)?,
                degree: self.whole("degree", 3, 1, 10)? as f64,
            },
        })
    }

    fn check_unknown(&self) -> Result<(), TrainError> {
        let Some(unknown) = self.given.keys().find(|name| !self.resolved.contains_key(*name)) else { return Ok(()) };
        let hint = did_you_mean(unknown, self.resolved.keys().map(String::as_str));
        let hint = if self.resolved.is_empty() { "; it has none".to_owned() } else { hint };
        Err(TrainError::Setting(format!("`{}` has no setting `params.{unknown}`{hint}", self.algorithm)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(algorithm: Algorithm, task: Task, given: &Value) -> Result<Settings, String> {
        let given = given.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), value.clone()));
        read(algorithm, task, &given.collect()).map_err(|error| error.to_string())
    }

    #[expect(clippy::needless_pass_by_value, reason = "tables read better with plain values")]
    fn check_error(algorithm: Algorithm, given: Value, expected: &str) {
        assert_eq!(read_json(algorithm, Task::Classification, &given).expect_err("an error"), expected);
    }

    #[test]
    fn defaults_are_filled_in_and_kept_for_the_record() {
        let given = json!({"trees": 20.0, "balanced": true});
        let settings = read_json(Algorithm::RandomForest, Task::Classification, &given).expect("valid");
        assert!(settings.balanced);
        assert!(matches!(settings.algorithm, Chosen::RandomForest { trees: 20, min_leaf: 1, features: None, .. }));
        assert_eq!(settings.resolved["trees"], json!(20));
        assert_eq!(settings.resolved["threshold"], json!(0.5));
        assert_eq!(settings.resolved["features"], json!(null));
    }

    #[test]
    fn mistakes_are_named() {
        check_error(
            Algorithm::RandomForest,
            json!({"tree": 5}),
            "`random-forest` has no setting `params.tree`; did you mean `trees`?",
        );
        check_error(
            Algorithm::Knn,
            json!({"neighbours": 0}),
            "`params.neighbours` of `knn` must be a whole number from 1 to 10000, and is 0",
        );
        check_error(
            Algorithm::Svm,
            json!({"kernel": "rbf"}),
            "`params.kernel` of `svm` must be one of `gaussian`, `linear`, `polynomial`, and is \"rbf\"",
        );
        check_error(
            Algorithm::Linear,
            json!({}),
            "`algorithm: linear` does not predict classes; for `task: classification` use `logistic`, `decision-tree`, `random-forest`, `naive-bayes`, `svm` or `knn`",
        );
        check_error(
            Algorithm::NaiveBayes,
            json!({"balanced": true}),
            "`naive-bayes` has no setting `params.balanced`; there are `smoothing`, `threshold`",
        );
        let error = read_json(Algorithm::Linear, Task::Regression, &json!({"a": 1})).expect_err("an error");
        assert_eq!(error, "`linear` has no setting `params.a`; it has none");
    }
}
