//! From a row's columns to the numbers that a model computes with; part of the model file.

use serde::{Deserialize, Serialize};

use crate::model::table::{Cell, text_of};

/// One column that the model uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// What is made of its values.
    pub kind: FeatureKind,
}

/// What is made of a column's values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeatureKind {
    /// A number: `(x - center) / scale`.
    Number {
        /// Takes the place of a missing value: the median of the training rows.
        fill: f64,
        /// Subtracted.
        center: f64,
        /// Divided by; not 0.
        scale: f64,
    },
    /// A category: for each of the values 1 if it is that one, else 0.
    Category {
        /// Takes the place of a missing value: the most frequent of the training rows.
        fill: String,
        /// The values known; another gives all zeros.
        values: Vec<String>,
        /// Leave out the first value's number, for models that cannot bear numbers that add up to one.
        skip_first: bool,
    },
}

impl Feature {
    /// How many numbers it makes.
    pub fn width(&self) -> usize {
        match &self.kind {
            FeatureKind::Number { .. } => 1,
            FeatureKind::Category { values, skip_first, .. } => values.len() - usize::from(*skip_first),
        }
    }

    /// Appends the numbers for one value. False if the value is a text where a number is needed.
    #[must_use]
    pub fn encode(&self, cell: Cell<'_>, out: &mut Vec<f64>) -> bool {
        match &self.kind {
            FeatureKind::Number { fill, center, scale } => {
                let number = match cell {
                    Cell::Missing => *fill,
                    Cell::Number(number) => number,
                    Cell::Text(_) => return false,
                };
                out.push((number - center) / scale);
            }
            FeatureKind::Category { fill, values, skip_first } => {
                let owned;
                let word = match cell {
                    Cell::Missing => fill.as_str(),
                    Cell::Text(text) => text,
                    Cell::Number(_) => {
                        owned = text_of(cell);
                        owned.as_str()
                    }
                };
                let values = &values[usize::from(*skip_first)..];
                out.extend(values.iter().map(|value| if value == word { 1.0 } else { 0.0 }));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(feature: &Feature, cell: Cell<'_>, expected: Option<&[f64]>) {
        let mut out = Vec::new();
        let fits = feature.encode(cell, &mut out);
        assert_eq!(fits.then_some(out.as_slice()), expected, "{cell:?}");
        assert!(!fits || out.len() == feature.width());
    }

    #[test]
    fn numbers_are_filled_and_scaled_and_categories_spread() {
        let number = FeatureKind::Number { fill: 3.0, center: 1.0, scale: 2.0 };
        let number = Feature { name: "n".into(), kind: number };
        check(&number, Cell::Number(5.0), Some(&[2.0]));
        check(&number, Cell::Missing, Some(&[1.0]));
        check(&number, Cell::Text("five"), None);
        let category = |skip_first| Feature {
            name: "c".into(),
            kind: FeatureKind::Category { fill: "b".into(), values: vec!["1".into(), "b".into()], skip_first },
        };
        check(&category(false), Cell::Number(1.0), Some(&[1.0, 0.0]));
        check(&category(false), Cell::Missing, Some(&[0.0, 1.0]));
        check(&category(false), Cell::Text("new"), Some(&[0.0, 0.0]));
        check(&category(true), Cell::Text("b"), Some(&[1.0]));
    }
}
