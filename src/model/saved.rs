//! The model file: one JSON document with a format number, all that a prediction needs, and how it came about.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::encode::{Feature, FeatureKind};
use crate::model::fitted::Fitted;

/// The only format there is. A file of another number is refused with both numbers.
pub const FORMAT: u32 = 1;

/// Bytes of a model file that are read at most.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A trained model. The same data, settings and seed give the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// See [`FORMAT`].
    pub format: u32,
    /// `classification` or `regression`.
    pub task: ModelTask,
    /// As in YAML.
    pub algorithm: String,
    /// The column that is predicted.
    pub target: String,
    /// The classes in their order; empty for numbers.
    pub classes: Vec<String>,
    /// With two classes, the index of the rarer one, which scores and `threshold` are about.
    pub positive: Option<usize>,
    /// From which probability on the positive class is predicted.
    pub threshold: f64,
    /// The columns that are used, in order.
    pub features: Vec<Feature>,
    /// Columns that may be given and are not used.
    pub ignored: Vec<String>,
    /// How it came about.
    pub training: Training,
    /// What was learned.
    pub fitted: Fitted,
}

/// What a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelTask {
    /// Classes.
    Classification,
    /// Numbers.
    Regression,
}

/// How a model came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// BLAKE3 of the data file, in hex.
    pub data_digest: String,
    /// Rows learned from.
    pub rows: usize,
    /// Rows held out.
    pub held_out: usize,
    /// Share asked to be held out.
    pub holdout: f64,
    /// Of the split and the algorithm.
    pub seed: u64,
    /// The algorithm's settings, defaults filled in.
    pub params: IndexMap<String, Value>,
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be read or written.
    #[error("cannot {verb} the model `{path}`: {source}")]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a model file of this format.
    #[error("`{path}` is not a model of the built-in trainer: {problem}")]
    Invalid {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Read first, to tell a newer format from a broken file.
#[derive(Deserialize)]
struct Head {
    format: Option<u32>,
}

impl Model {
    /// Reads and checks a model file.
    ///
    /// # Errors
    /// [`ModelError`] if it cannot be read, is of another format, or does not fit together.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let shown = path.display().to_string();
        let io = |source| ModelError::Io { verb: "read", path: shown.clone(), source };
        let invalid = |problem: String| ModelError::Invalid { path: shown.clone(), problem };
        let open = || File::open(path).map(BufReader::new).map_err(io);
        if std::fs::metadata(path).map_err(io)?.len() > MOST_BYTES {
            return Err(invalid(format!("it is larger than {} GiB", MOST_BYTES >> 30)));
        }
        let model: Self = match serde_json::from_reader(open()?) {
            Ok(model) => model,
            Err(error) => {
                let other = serde_json::from_reader::<_, Head>(open()?).ok().and_then(|head| head.format);
                return Err(invalid(match other.filter(|format| *format != FORMAT) {
                    Some(format) => format!("its format is {format}, and this version reads {FORMAT}"),
                    None => error.to_string(),
                }));
            }
        };
        match model.fault() {
            None => Ok(model),
            Some(problem) => Err(invalid(problem)),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`ModelError::Io`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let io = |source| ModelError::Io { verb: "write", path: path.display().to_string(), source };
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        serde_json::to_writer(&mut file, self).map_err(|error| io(error.into()))?;
        file.write_all(b"\n").and_then(|()| file.flush()).map_err(io)
    }

    /// Why the parts do not fit together, if so: a file may come from anywhere.
    fn fault(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("its format is {}, and this version reads {FORMAT}", self.format));
        }
        let classes = self.classes.len();
        let counted = match self.task {
            ModelTask::Classification => classes >= 2 && self.positive.is_some() == (classes == 2),
            ModelTask::Regression => classes == 0 && self.positive.is_none(),
        };
        if !counted || self.positive.is_some_and(|positive| positive >= classes) {
            return Some("its classes do not fit its task".to_owned());
        }
        let sound = |feature: &Feature| match &feature.kind {
            FeatureKind::Number { scale, .. } => *scale != 0.0,
            FeatureKind::Category { values, .. } => !values.is_empty(),
        };
        if !self.features.iter().all(sound) {
            return Some("a column has a scale of 0 or no values".to_owned());
        }
        self.fitted.fault(self.features.iter().map(Feature::width).sum(), classes).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_error(text: &str, expected: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.json");
        std::fs::write(&path, text).expect("written");
        let error = Model::load(&path).expect_err("an error").to_string();
        assert!(error.ends_with(expected), "{error}");
    }

    fn model() -> Value {
        let number = json!({"type": "number", "fill": 0.0, "center": 0.0, "scale": 1.0});
        json!({
            "format": 1, "task": "regression", "algorithm": "linear", "target": "y", "classes": [], "positive": null,
            "threshold": 0.5, "features": [{"name": "a", "kind": number}], "ignored": [],
            "training": {"data_digest": "", "rows": 1, "held_out": 1, "holdout": 0.5, "seed": 1, "params": {}},
            "fitted": {"form": "linear", "intercept": 1.0, "weights": [2.0]}
        })
    }

    #[test]
    fn a_file_that_does_not_fit_together_is_refused() {
        let with = |place: &str, value: Value| {
            let mut model = model();
            *model.pointer_mut(place).expect(place) = value;
            model.to_string()
        };
        check_error("{", "EOF while parsing an object at line 1 column 1");
        check_error(&json!({"format": 2, "new": true}).to_string(), "its format is 2, and this version reads 1");
        check_error(&with("/fitted/weights", json!([])), "what was learned does not fit its columns and classes");
        check_error(&with("/classes", json!(["a", "b"])), "its classes do not fit its task");
        check_error(&with("/features/0/kind/scale", json!(0.0)), "a column has a scale of 0 or no values");
    }

    #[test]
    fn a_model_is_the_same_after_writing_and_reading() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.json");
        let model: Model = serde_json::from_value(model()).expect("valid");
        model.save(&path).expect("written");
        assert_eq!(Model::load(&path).expect("read"), model);
    }
}
