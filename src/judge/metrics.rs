//! Metrics that are computed from predictions: one table from the name that users write to the function.
//!
//! Every function takes a weight for each row, so that a bootstrap resample is a vector of counts and sorting is done once.
//! Classes are text. In a task of two classes the positive class is the rarer one among the labels (with equal counts the
//! greater one); a class that is predicted but never a label counts as a wrong prediction.

use std::collections::BTreeMap;

use crate::judge::classes::{label_counts, labels_of, positive_index};
use crate::judge::predictions::Predictions;
use crate::pipeline::types::Goal;

/// Classes at most: more is a sign that the label is a number to be predicted.
const MOST_CLASSES: usize = 1000;

/// A metric that can be computed from predictions.
#[derive(Debug)]
pub struct Metric {
    /// As users write it.
    pub name: &'static str,
    /// Which way is better.
    pub goal: Goal,
    /// What it is, for people.
    pub meaning: &'static str,
    needs: Needs,
    compute: fn(&Sample, &[u32]) -> Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Any number of classes.
    Classes,
    /// Two classes among the labels.
    TwoClasses,
    /// Two classes, and a score in each row.
    Scores,
    /// Two classes, and a probability in each row.
    Probabilities,
    /// Labels and predictions that are numbers.
    Numbers,
}

/// All metrics that can be computed from predictions.
pub const METRICS: &[Metric] = &[
    metric("accuracy", Goal::Maximize, Needs::Classes, accuracy, "share of rows predicted right"),
    metric(
        "precision",
        Goal::Maximize,
        Needs::TwoClasses,
        precision,
        "of the rows predicted positive, the share that is",
    ),
    metric("recall", Goal::Maximize, Needs::TwoClasses, recall, "of the positive rows, the share that is found"),
    metric("f1", Goal::Maximize, Needs::TwoClasses, f1, "harmonic mean of precision and recall of the positive class"),
    metric("precision_macro", Goal::Maximize, Needs::Classes, precision_macro, "mean of the classes' precisions"),
    metric("recall_macro", Goal::Maximize, Needs::Classes, recall_macro, "mean of the classes' recalls"),
    metric("f1_macro", Goal::Maximize, Needs::Classes, f1_macro, "mean of the classes' F1"),
    metric(
        "average_precision",
        Goal::Maximize,
        Needs::Scores,
        average_precision,
        "mean precision over the positive rows in the order of score: the area under the precision-recall steps",
    ),
    metric(
        "roc_auc",
        Goal::Maximize,
        Needs::Scores,
        roc_auc,
        "chance that a positive row has a higher score than another",
    ),
    metric("log_loss", Goal::Minimize, Needs::Probabilities, log_loss, "mean negative log of the truth's probability"),
    metric("mae", Goal::Minimize, Needs::Numbers, mae, "mean absolute error"),
    metric("rmse", Goal::Minimize, Needs::Numbers, rmse, "root of the mean squared error"),
    metric("r2", Goal::Maximize, Needs::Numbers, r2, "1 - squared error / squared distance from the mean"),
];

const fn metric(
    name: &'static str,
    goal: Goal,
    needs: Needs,
    compute: fn(&Sample, &[u32]) -> Option<f64>,
    meaning: &'static str,
) -> Metric {
    Metric { name, goal, meaning, needs, compute }
}

/// The metric of this name, if it can be computed from predictions.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Why a metric cannot be computed from these predictions; a sentence's end (`f1 cannot be computed: ...`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Not two classes.
    #[error("it needs two classes, and the labels are of {0}; use `f1_macro`, `precision_macro` or `recall_macro`")]
    NotTwoClasses(usize),
    /// So many classes that it must be a number.
    #[error(
        "the labels have more than {MOST_CLASSES} different values; if they are numbers, use `mae`, `rmse` or `r2`"
    )]
    TooManyClasses,
    /// A row has no score.
    #[error("the row of id `{0}` has no score")]
    NoScore(String),
    /// A score is not a probability.
    #[error("the score {score} of id `{id}` is not a probability in 0..=1")]
    NotProbability {
        /// Which row.
        id: String,
        /// Its score.
        score: String,
    },
    /// A label or prediction is not a number.
    #[error("`{value}` (of id `{id}`) is not a number")]
    NotNumber {
        /// Which row.
        id: String,
        /// The text.
        value: String,
    },
    /// No value exists, as R² where all labels are equal.
    #[error("it has no value for these rows")]
    Undefined,
}

/// One model's predictions, made ready for one metric and for weighted rows.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Code of each row's label, in `0..classes`.
    labels: Vec<u32>,
    /// Code of each row's prediction; `classes` stands for any class that is no label.
    predictions: Vec<u32>,
    classes: Vec<String>,
    positive: u32,
    scores: Vec<f64>,
    /// Rows from the highest score down.
    by_score: Vec<u32>,
    truth: Vec<f64>,
    guess: Vec<f64>,
}

impl Metric {
    /// Makes the rows ready for this metric.
    ///
    /// # Errors
    /// [`MetricError`] if the rows are not what this metric needs.
    pub fn sample(&self, predictions: &Predictions) -> Result<Sample, MetricError> {
        let mut sample = Sample::empty();
        if self.needs == Needs::Numbers {
            sample.read_numbers(predictions)?;
            return Ok(sample);
        }
        sample.read_classes(predictions)?;
        if self.needs != Needs::Classes && sample.classes.len() != 2 {
            return Err(MetricError::NotTwoClasses(sample.classes.len()));
        }
        if matches!(self.needs, Needs::Scores | Needs::Probabilities) {
            sample.read_scores(predictions, self.needs == Needs::Probabilities)?;
        }
        Ok(sample)
    }

    /// The metric over rows counted as often as their weights say; `None` where it has no value. `weights` has one entry
    /// a row.
    pub fn weighted(&self, sample: &Sample, weights: &[u32]) -> Option<f64> {
        (self.compute)(sample, weights).filter(|value| value.is_finite())
    }

    /// The metric over all rows.
    ///
    /// # Errors
    /// [`MetricError`] if the rows are not what this metric needs, or it has no value for them.
    pub fn of(&self, predictions: &Predictions) -> Result<f64, MetricError> {
        let sample = self.sample(predictions)?;
        self.weighted(&sample, &vec![1; predictions.rows().len()]).ok_or(MetricError::Undefined)
    }

    /// Whether it is about classes, so that resamples are drawn within each label.
    pub fn is_classification(&self) -> bool {
        self.needs != Needs::Numbers
    }
}

impl Sample {
    fn empty() -> Self {
        Self {
            labels: Vec::new(),
            predictions: Vec::new(),
            classes: Vec::new(),
            positive: 0,
            scores: Vec::new(),
            by_score: Vec::new(),
            truth: Vec::new(),
            guess: Vec::new(),
        }
    }

    /// Code of each row's label; empty for numbers.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read_classes(&mut self, predictions: &Predictions) -> Result<(), MetricError> {
        let counts = label_counts(labels_of(predictions));
        if counts.len() > MOST_CLASSES {
            return Err(MetricError::TooManyClasses);
        }
        self.positive = positive_index(&counts);
        let other = counts.len() as u32;
        let codes: BTreeMap<&str, u32> = counts.iter().zip(0..).map(|((class, _), code)| (*class, code)).collect();
        for row in predictions.rows() {
            self.labels.push(codes[row.label.as_str()]);
            self.predictions.push(codes.get(row.prediction.as_str()).copied().unwrap_or(other));
        }
        self.classes = counts.into_iter().map(|(class, _)| class.to_owned()).collect();
        Ok(())
    }

    fn read_scores(&mut self, predictions: &Predictions, probability: bool) -> Result<(), MetricError> {
        for row in predictions.rows() {
            let score = row.score.ok_or_else(|| MetricError::NoScore(row.id.clone()))?;
            if probability && !(0.0..=1.0).contains(&score) {
                return Err(MetricError::NotProbability { id: row.id.clone(), score: score.to_string() });
            }
            self.scores.push(score);
        }
        self.by_score = (0..self.scores.len() as u32).collect();
        self.by_score.sort_by(|a, b| self.scores[*b as usize].total_cmp(&self.scores[*a as usize]).then(a.cmp(b)));
        Ok(())
    }

    fn read_numbers(&mut self, predictions: &Predictions) -> Result<(), MetricError> {
        for row in predictions.rows() {
            let number = |text: &String| {
                let not_number = || MetricError::NotNumber { id: row.id.clone(), value: text.clone() };
                text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(not_number)
            };
            self.truth.push(number(&row.label)?);
            self.guess.push(number(&row.prediction)?);
        }
        Ok(())
    }

    /// For class `class`: (true positives, predicted, actual), weighted.
    fn counts(&self, class: u32, weights: &[u32]) -> (f64, f64, f64) {
        let (mut hit, mut predicted, mut actual) = (0u64, 0u64, 0u64);
        for ((label, prediction), weight) in self.labels.iter().zip(&self.predictions).zip(weights) {
            let weight = u64::from(*weight);
            let (is, said) = (*label == class, *prediction == class);
            hit += if is && said { weight } else { 0 };
            predicted += if said { weight } else { 0 };
            actual += if is { weight } else { 0 };
        }
        (hit as f64, predicted as f64, actual as f64)
    }

    fn mean_over_classes(&self, weights: &[u32], of: fn(f64, f64, f64) -> f64) -> Option<f64> {
        let mut counts = vec![(0u64, 0u64, 0u64); self.classes.len() + 1];
        for ((label, prediction), weight) in self.labels.iter().zip(&self.predictions).zip(weights) {
            let weight = u64::from(*weight);
            counts[*label as usize].2 += weight;
            counts[*prediction as usize].1 += weight;
            if label == prediction {
                counts[*label as usize].0 += weight;
            }
        }
        let classes = &counts[..self.classes.len()];
        let sum: f64 = classes.iter().map(|(hit, said, is)| of(*hit as f64, *said as f64, *is as f64)).sum();
        Some(sum / self.classes.len() as f64)
    }

    fn mean_error(&self, weights: &[u32], of: fn(f64) -> f64) -> Option<f64> {
        let errors = self.truth.iter().zip(&self.guess).zip(weights);
        let sum: f64 = errors.map(|((truth, guess), weight)| of(guess - truth) * f64::from(*weight)).sum();
        Some(sum / total(weights))
    }
}

fn total(weights: &[u32]) -> f64 {
    weights.iter().map(|weight| u64::from(*weight)).sum::<u64>() as f64
}

/// 0 where nothing was predicted or nothing is there to find: such a model has found nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

fn accuracy(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let rows = sample.labels.iter().zip(&sample.predictions).zip(weights);
    let right: u64 = rows.filter(|((label, said), _)| label == said).map(|(_, weight)| u64::from(*weight)).sum();
    Some(right as f64 / total(weights))
}

fn precision(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let (hit, predicted, _) = sample.counts(sample.positive, weights);
    Some(share(hit, predicted))
}

fn recall(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let (hit, _, actual) = sample.counts(sample.positive, weights);
    Some(share(hit, actual))
}

fn f1(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let (hit, predicted, actual) = sample.counts(sample.positive, weights);
    Some(share(2.0 * hit, predicted + actual))
}

fn precision_macro(sample: &Sample, weights: &[u32]) -> Option<f64> {
    sample.mean_over_classes(weights, |hit, predicted, _| share(hit, predicted))
}

fn recall_macro(sample: &Sample, weights: &[u32]) -> Option<f64> {
    sample.mean_over_classes(weights, |hit, _, actual| share(hit, actual))
}

fn f1_macro(sample: &Sample, weights: &[u32]) -> Option<f64> {
    sample.mean_over_classes(weights, |hit, predicted, actual| share(2.0 * hit, predicted + actual))
}

/// Calls `step(positives, negatives)` for each group of rows with one score, from the highest score down.
fn for_score_groups(sample: &Sample, weights: &[u32], mut step: impl FnMut(f64, f64)) {
    let same = |a: &u32, b: &u32| sample.scores[*a as usize] == sample.scores[*b as usize];
    for group in sample.by_score.chunk_by(same) {
        let (mut positives, mut negatives) = (0u64, 0u64);
        for row in group {
            let weight = u64::from(weights[*row as usize]);
            if sample.labels[*row as usize] == sample.positive {
                positives += weight;
            } else {
                negatives += weight;
            }
        }
        step(positives as f64, negatives as f64);
    }
}

fn average_precision(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let (mut hits, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for_score_groups(sample, weights, |positives, negatives| {
        hits += positives;
        seen += positives + negatives;
        sum += positives * share(hits, seen);
    });
    (hits > 0.0).then(|| sum / hits)
}

fn roc_auc(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let (mut positives_above, mut negatives_all, mut wins) = (0.0, 0.0, 0.0);
    for_score_groups(sample, weights, |positives, negatives| {
        wins += negatives * (positives_above + positives / 2.0);
        positives_above += positives;
        negatives_all += negatives;
    });
    (positives_above > 0.0 && negatives_all > 0.0).then(|| wins / (positives_above * negatives_all))
}

fn log_loss(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let sum: f64 = (0..weights.len())
        .map(|row| {
            let score = sample.scores[row];
            let truth = if sample.labels[row] == sample.positive { score } else { 1.0 - score };
            // A certain and wrong prediction would make the mean infinite; the usual floor keeps it comparable.
            -truth.max(1e-15).ln() * f64::from(weights[row])
        })
        .sum();
    Some(sum / total(weights))
}

fn mae(sample: &Sample, weights: &[u32]) -> Option<f64> {
    sample.mean_error(weights, f64::abs)
}

fn rmse(sample: &Sample, weights: &[u32]) -> Option<f64> {
    sample.mean_error(weights, |error| error * error).map(f64::sqrt)
}

fn r2(sample: &Sample, weights: &[u32]) -> Option<f64> {
    let rows = || sample.truth.iter().zip(weights).map(|(truth, weight)| (truth, f64::from(*weight)));
    let mean = rows().map(|(truth, weight)| truth * weight).sum::<f64>() / total(weights);
    let spread = rows().map(|(truth, weight)| (truth - mean).powi(2) * weight).sum::<f64>() / total(weights);
    let error = sample.mean_error(weights, |error| error * error)?;
    (spread > 0.0).then(|| 1.0 - error / spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::classes::{confusion, positive_class};

    fn parse(text: &str) -> Predictions {
        Predictions::parse(text.as_bytes()).expect("valid")
    }

    fn check(predictions: &Predictions, name: &str, expected: f64) {
        let got = find(name).expect(name).of(predictions).expect(name);
        assert!((got - expected).abs() < 1e-12, "{name}: {got} is not {expected}");
    }

    /// Two classes; the expected values were computed by hand.
    const BINARY: &str = "id,label,prediction,score\n\
        a,1,1,0.9\nb,0,1,0.9\nc,0,0,0.2\nd,1,0,0.4\ne,0,0,0.1\nf,0,0,0.4\ng,0,0,0.3\nh,1,1,0.8\ni,0,0,0.0\nj,0,0,0.05\n";

    #[test]
    fn the_language_knows_the_same_metrics() {
        let here: Vec<_> =
            METRICS.iter().map(|metric| (metric.name, metric.goal, metric.needs == Needs::Numbers)).collect();
        let there: Vec<_> = crate::pipeline::predicted::PREDICTED
            .iter()
            .map(|metric| (metric.name, metric.goal, metric.task == crate::pipeline::types::Task::Regression))
            .collect();
        assert_eq!(here, there);
    }

    #[test]
    fn binary_metrics() {
        let rows = parse(BINARY);
        assert_eq!(positive_class(&rows).as_deref(), Some("1"));
        check(&rows, "accuracy", 0.8);
        check(&rows, "precision", 2.0 / 3.0);
        check(&rows, "recall", 2.0 / 3.0);
        check(&rows, "f1", 2.0 / 3.0);
        check(&rows, "f1_macro", (2.0 / 3.0 + 12.0 / 14.0) / 2.0);
        check(&rows, "recall_macro", (2.0 / 3.0 + 6.0 / 7.0) / 2.0);
        // Score groups from the top: (1+,1-), (1+,0-), (1+,1-), ...
        check(&rows, "average_precision", (0.5 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0);
        check(&rows, "roc_auc", (0.5 + 2.5 + 5.0 * 3.0) / 21.0);
        assert_eq!(confusion(&rows)["1"]["0"], 1);
    }

    #[test]
    fn weights_are_the_same_as_repeated_rows() {
        let rows = parse(BINARY);
        let weights = [2, 0, 1, 3, 1, 1, 0, 1, 2, 1];
        let mut text = "id,label,prediction,score\n".to_owned();
        for (row, weight) in rows.rows().iter().zip(weights) {
            for copy in 0..weight {
                let score = row.score.unwrap();
                text += &format!("{}{copy},{},{},{score}\n", row.id, row.label, row.prediction);
            }
        }
        let repeated = parse(&text);
        for metric in METRICS {
            let weighted = metric.weighted(&metric.sample(&rows).expect("sample"), &weights).expect("value");
            // Positive must be the same class in both: 6 of 12 and 6 of 12 is a tie, so the greater, 1.
            let plain = metric.of(&repeated).expect("value");
            assert!((weighted - plain).abs() < 1e-12, "{}: {weighted} is not {plain}", metric.name);
        }
    }

    #[test]
    fn the_rare_class_is_positive_and_ties_go_to_the_greater() {
        assert_eq!(positive_class(&parse("id,label,prediction\na,yes,no\nb,no,no\nc,yes,no\n")).as_deref(), Some("no"));
        assert_eq!(positive_class(&parse("id,label,prediction\na,9,9\nb,10,9\n")).as_deref(), Some("10"));
        assert_eq!(positive_class(&parse("id,label,prediction\na,1,1\nb,2,2\nc,3,3\n")), None);
    }

    #[test]
    fn regression_metrics() {
        let rows = parse("id,label,prediction\na,3,2.5\nb,-0.5,0\nc,2,2\nd,7,8\n");
        check(&rows, "mae", 0.5);
        check(&rows, "rmse", 0.375f64.sqrt());
        check(&rows, "r2", 0.948_608_137_044_967_9);
        let flat = parse("id,label,prediction\na,1,1\nb,1,2\n");
        assert_eq!(find("r2").unwrap().of(&flat), Err(MetricError::Undefined));
    }

    #[test]
    fn nothing_found_is_zero_and_a_foreign_class_is_wrong() {
        let rows = parse("id,label,prediction\na,0,0\nb,0,0\nc,1,0\nd,0,dog\n");
        check(&rows, "precision", 0.0);
        check(&rows, "f1", 0.0);
        check(&rows, "accuracy", 0.5);
    }

    #[test]
    fn errors_say_what_is_needed() {
        let three = parse("id,label,prediction\na,1,1\nb,2,2\nc,3,3\n");
        assert_eq!(find("f1").unwrap().of(&three), Err(MetricError::NotTwoClasses(3)));
        let no_score = parse("id,label,prediction,score\na,1,1,0.5\nb,0,0,\n");
        assert_eq!(find("roc_auc").unwrap().of(&no_score), Err(MetricError::NoScore("b".into())));
        let margin = parse("id,label,prediction,score\na,1,1,1.5\nb,0,0,-1\n");
        assert!(find("log_loss").unwrap().of(&margin).is_err());
        assert_eq!(
            find("mae").unwrap().of(&parse("id,label,prediction\na,cat,1\n")),
            Err(MetricError::NotNumber { id: "a".into(), value: "cat".into() })
        );
    }
}
