//! Confusion matrices, out of the metrics `confusion.<label>.<prediction>` of a version. PURE.

use std::collections::{BTreeMap, BTreeSet};

/// Classes that a page has room for.
const CLASSES: usize = 12;

/// How often each label met each prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// The classes, in order.
    pub classes: Vec<String>,
    /// A row for each label.
    pub rows: Vec<Row>,
}

/// The rows of one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The label.
    pub label: String,
    /// How often each class was predicted for it.
    pub cells: Vec<Cell>,
}

/// How often a label met a prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// How often.
    pub count: f64,
    /// As a share of the label's rows, in tenths: the depth of its ground.
    pub tenth: u8,
    /// Label and prediction agree.
    pub right: bool,
}

impl Matrix {
    /// The matrix of these metrics, if they have one with as many classes as a page has room for.
    pub fn of(metrics: &BTreeMap<String, f64>) -> Option<Self> {
        let mut counts: BTreeMap<(String, String), f64> = BTreeMap::new();
        for (name, count) in metrics {
            let Some(pair) = name.strip_prefix("confusion.") else { continue };
            counts.insert(split(pair)?, *count);
        }
        let classes: BTreeSet<&String> = counts.keys().flat_map(|(label, said)| [label, said]).collect();
        if classes.is_empty() || classes.len() > CLASSES {
            return None;
        }
        let row = |label: &&String| {
            let count = |said: &&String| {
                let count = counts.get(&((*label).clone(), (*said).clone())).copied();
                count.filter(|count| count.is_finite() && *count >= 0.0).unwrap_or(0.0)
            };
            let all: f64 = classes.iter().map(count).sum();
            let cell = |said: &&String| Cell {
                count: count(said),
                tenth: if all > 0.0 { (count(said) / all * 10.0).round() as u8 } else { 0 },
                right: label == said,
            };
            Row { label: (*label).clone(), cells: classes.iter().map(cell).collect() }
        };
        let rows = classes.iter().map(row).collect();
        Some(Self { rows, classes: classes.into_iter().cloned().collect() })
    }
}

/// Labels may hold dots, as `1.0` does; all have equally many.
fn split(pair: &str) -> Option<(String, String)> {
    let dots: Vec<usize> = pair.match_indices('.').map(|(at, _)| at).collect();
    let middle = if dots.len() % 2 == 1 { dots.get(dots.len() / 2) } else { None };
    let at = *middle?;
    Some((pair.get(..at)?.to_owned(), pair.get(at + 1..)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cells: &[(&str, f64)]) -> Option<Matrix> {
        Matrix::of(&cells.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    #[test]
    fn pairs_that_never_met_are_nothing() {
        let matrix = of(&[("f1", 0.5), ("confusion.0.0", 30.0), ("confusion.0.1", 10.0), ("confusion.1.1", 5.0)]);
        let matrix = matrix.expect("two classes");
        assert_eq!(matrix.classes, ["0", "1"]);
        let counts: Vec<Vec<f64>> =
            matrix.rows.iter().map(|row| row.cells.iter().map(|cell| cell.count).collect()).collect();
        assert_eq!(counts, [[30.0, 10.0], [0.0, 5.0]]);
        assert_eq!(matrix.rows[0].cells[0], Cell { count: 30.0, tenth: 8, right: true });
        assert_eq!(matrix.rows[1].cells[0], Cell { count: 0.0, tenth: 0, right: false });
    }

    #[test]
    fn labels_may_hold_dots() {
        let matrix = of(&[("confusion.0.0.1.0", 3.0), ("confusion.1.0.1.0", 4.0)]).expect("two classes");
        assert_eq!(matrix.classes, ["0.0", "1.0"]);
    }

    #[test]
    fn none_without_cells_or_with_too_many_or_what_cannot_be_read() {
        assert_eq!(of(&[("f1", 0.5)]), None);
        assert_eq!(of(&[("confusion.a", 1.0)]), None);
        assert_eq!(of(&[("confusion.a.b.c", 1.0)]), None);
        let many: Vec<(String, f64)> = (0..13).map(|n| (format!("confusion.{n}.{n}"), 1.0)).collect();
        assert_eq!(Matrix::of(&many.into_iter().collect()), None);
        assert!(of(&[("confusion.a.a", f64::NAN)]).is_some());
    }
}
