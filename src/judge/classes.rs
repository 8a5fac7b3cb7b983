//! Classes of labels: their order, and which is the positive one.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::judge::predictions::Predictions;

/// How often each label occurs, in the order of classes (numbers by value, then text).
pub(super) fn label_counts<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<(&'a str, u64)> {
    let mut counts = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_insert(0u64) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, _), (b, _)| class_order(a, b));
    counts
}

/// The order of classes: numbers before other text, numbers by value.
pub fn class_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

pub(super) fn labels_of(predictions: &Predictions) -> impl Iterator<Item = &str> {
    predictions.rows().iter().map(|row| row.label.as_str())
}

pub(super) fn positive_index(counts: &[(&str, u64)]) -> u32 {
    // `min_by_key` keeps the first of equals, and the greater class must win: hence from the end.
    counts.iter().enumerate().rev().min_by_key(|(_, (_, count))| *count).map_or(0, |(index, _)| index as u32)
}

/// The class that `f1`, `precision`, `recall`, `average_precision` and `roc_auc` are about: the rarer of two, with equal
/// counts the greater. `None` if the labels are not of two classes.
pub fn positive_class(predictions: &Predictions) -> Option<String> {
    rarer_class(labels_of(predictions))
}

/// The same for labels alone.
pub fn rarer_class<'a>(labels: impl Iterator<Item = &'a str>) -> Option<String> {
    let counts = label_counts(labels);
    (counts.len() == 2).then(|| counts[positive_index(&counts) as usize].0.to_owned())
}

/// How often each label met each prediction: `confusion["label"]["prediction"]`; pairs that never met are left out.
pub fn confusion(predictions: &Predictions) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut matrix: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for row in predictions.rows() {
        *matrix.entry(row.label.clone()).or_default().entry(row.prediction.clone()).or_default() += 1;
    }
    matrix
}
