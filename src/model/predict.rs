//! One row in, one prediction out, by column name.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::encode::{Feature, FeatureKind};
use crate::model::saved::{Model, ModelError, ModelTask};
use crate::model::table::{Cell, Column};

/// Names that a message lists; there are fields with all of them.
const MOST_NAMED: usize = 20;

/// A model that answers.
#[derive(Debug)]
pub struct Predictor {
    model: Model,
    /// Every name that a row may hold.
    known: HashSet<String>,
}

/// What the model says about one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class (a JSON number where the class is one) or the number.
    pub prediction: Value,
    /// With two classes: how likely the rarer one (`positive_class`) is. With several: how likely the predicted one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// The class that `probability` is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive_class: Option<Value>,
    /// How likely each class is.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub probabilities: Map<String, Value>,
}

/// Why a row cannot be predicted.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RowError {
    /// Columns that are not there. A value that is not known is `null`.
    pub missing: Vec<String>,
    /// Names that are no columns.
    pub unknown: Vec<String>,
    /// Names that are there more than once.
    pub duplicate: Vec<String>,
    /// Columns whose values are of the wrong type, or too large, in words.
    pub wrong: Vec<WrongValue>,
}

/// A value of the wrong type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WrongValue {
    /// Which column.
    pub column: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub got: String,
}

/// Raw output: probabilities by class, or the number.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A class.
    Classes {
        /// Index of the class that is said.
        predicted: usize,
        /// How likely each class is.
        probabilities: Vec<f64>,
    },
    /// The number.
    Number(f64),
}

impl Output {
    fn is_finite(&self) -> bool {
        match self {
            Output::Classes { probabilities, .. } => probabilities.iter().all(|probability| probability.is_finite()),
            Output::Number(number) => number.is_finite(),
        }
    }
}

impl Predictor {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`ModelError`] if it cannot be used.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        Model::load(path).map(Self::new)
    }

    /// Takes a model that was just trained.
    pub fn new(model: Model) -> Self {
        let names = model.features.iter().map(|feature| &feature.name);
        let known = names.chain(&model.ignored).chain([&model.target]).cloned().collect();
        Self { model, known }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Predicts one row given by column name. Columns that the model ignores, and the target, may be there.
    ///
    /// # Errors
    /// [`RowError`] with every missing, unknown and wrong column.
    pub fn predict(&self, row: &Map<String, Value>) -> Result<Prediction, RowError> {
        let mut error = RowError::default();
        let mut numbers = Vec::with_capacity(self.model.features.len());
        for feature in &self.model.features {
            match row.get(&feature.name) {
                None => error.missing.push(feature.name.clone()),
                Some(value) => {
                    if !encode_json(feature, value, &mut numbers) {
                        error.wrong.push(wrong_value(feature, value));
                    }
                }
            }
        }
        error.unknown.extend(row.keys().filter(|name| !self.known.contains(*name)).cloned());
        if error != RowError::default() {
            return Err(error);
        }
        let output = self.output(&numbers);
        if output.is_finite() {
            return Ok(self.told(output));
        }
        error.wrong.extend(self.farthest(row));
        Err(error)
    }

    /// The value farthest from what the model was trained on, if its answer is no number.
    fn farthest(&self, row: &Map<String, Value>) -> Option<WrongValue> {
        let distance = |feature: &Feature| {
            let mut numbers = Vec::new();
            let encoded = row.get(&feature.name).is_some_and(|value| encode_json(feature, value, &mut numbers));
            numbers.first().filter(|_| encoded).map_or(0.0, |number| number.abs())
        };
        let farthest = self.model.features.iter().max_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let got = row.get(&farthest.name)?.to_string();
        let expected = "nearer to what the model was trained on: what comes out is not a number".to_owned();
        Some(WrongValue { column: farthest.name.clone(), expected, got })
    }

    /// Predicts a row of a table. `columns` are the model's features, in order.
    ///
    /// # Errors
    /// The name of the column whose value is a text where a number is needed.
    pub fn output_of(&self, columns: &[&Column], row: usize) -> Result<Output, String> {
        let mut numbers = Vec::with_capacity(columns.len());
        for (feature, column) in self.model.features.iter().zip(columns) {
            if !feature.encode(column.cell(row), &mut numbers) {
                return Err(feature.name.clone());
            }
        }
        Ok(self.output(&numbers))
    }

    fn output(&self, numbers: &[f64]) -> Output {
        let classes = self.model.classes.len();
        let probabilities = self.model.fitted.predict(numbers, classes);
        if self.model.task == ModelTask::Regression {
            return Output::Number(probabilities.first().copied().unwrap_or(f64::NAN));
        }
        let predicted = match self.model.positive {
            Some(positive) if probabilities[positive] >= self.model.threshold => positive,
            Some(positive) => 1 - positive,
            None => most_likely(&probabilities),
        };
        Output::Classes { predicted, probabilities }
    }

    fn told(&self, output: Output) -> Prediction {
        let class = |index: usize| class_value(&self.model.classes[index]);
        match output {
            Output::Number(number) => Prediction {
                prediction: number.into(),
                probability: None,
                positive_class: None,
                probabilities: Map::new(),
            },
            Output::Classes { predicted, probabilities } => {
                let about = self.model.positive.unwrap_or(predicted);
                Prediction {
                    prediction: class(predicted),
                    probability: Some(probabilities[about]),
                    positive_class: self.model.positive.map(class),
                    probabilities: self
                        .model
                        .classes
                        .iter()
                        .zip(probabilities)
                        .map(|(name, probability)| (name.clone(), probability.into()))
                        .collect(),
                }
            }
        }
    }
}

/// The first of the greatest.
fn most_likely(probabilities: &[f64]) -> usize {
    let better = |best: usize, index: usize| if probabilities[index] > probabilities[best] { index } else { best };
    (0..probabilities.len()).fold(0, better)
}

/// A class as the data had it: a number where it is one.
fn class_value(class: &str) -> Value {
    match class.parse::<serde_json::Number>() {
        Ok(number) if number.to_string() == class => Value::Number(number),
        Ok(_) | Err(_) => Value::String(class.to_owned()),
    }
}

fn encode_json(feature: &Feature, value: &Value, numbers: &mut Vec<f64>) -> bool {
    let cell = match value {
        Value::Null => Cell::Missing,
        Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Cell::Number(number),
            None => return false,
        },
        Value::String(text) => Cell::Text(text),
        Value::Bool(value) => Cell::Text(if *value { "true" } else { "false" }),
        Value::Array(_) | Value::Object(_) => return false,
    };
    feature.encode(cell, numbers)
}

fn wrong_value(feature: &Feature, value: &Value) -> WrongValue {
    let expected = match &feature.kind {
        FeatureKind::Number { .. } => "a number or null",
        FeatureKind::Category { .. } => "a text, number, boolean or null",
    };
    let got = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => cut(&value.to_string()),
    };
    WrongValue { column: feature.name.clone(), expected: expected.to_owned(), got }
}

/// The first characters of a text that others chose.
fn cut(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |names: &[String]| {
            let shown: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{}`", cut(name))).collect();
            let rest = names.len() - shown.len();
            format!("{}{}", shown.join(", "), if rest > 0 { format!(" and {rest} more") } else { String::new() })
        };
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing: {}", list(&self.missing)));
        }
        if !self.unknown.is_empty() {
            parts.push(format!("unknown: {}", list(&self.unknown)));
        }
        if !self.duplicate.is_empty() {
            parts.push(format!("given more than once: {}", list(&self.duplicate)));
        }
        let wrong = |value: &WrongValue| format!("`{}` must be {}, and is {}", value.column, value.expected, value.got);
        parts.extend(self.wrong.iter().take(MOST_NAMED).map(wrong));
        f.write_str(&parts.join("; "))
    }
}

impl std::error::Error for RowError {}
