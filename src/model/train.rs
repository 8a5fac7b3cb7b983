//! The built-in trainer: a data file in, a model with metrics and predictions out.
//!
//! The same file, settings and seed give the same bytes. The rows held out depend on the data, `holdout` and `seed` alone, so
//! two algorithms tried on the same data are compared on the same rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::{Map, Value};

use crate::judge::classes::{class_order, confusion, positive_class, rarer_class};
use crate::judge::metrics::METRICS;
use crate::judge::predictions::{Predictions, PredictionsError};
use crate::model::fit::{Truth, fit};
use crate::model::params::{self, Chosen, Settings};
use crate::model::predict::Predictor;
use crate::model::prepare::{Prepared, Wants, did_you_mean, matrix, prepare};
use crate::model::saved::{FORMAT, Model, ModelError, ModelTask, Training};
use crate::model::score::{label, predictions_csv};
use crate::model::table::{Cell, Column, LONGEST_WORD, MOST_WORDS, Table, TableError, Values, text_of};
use crate::model::tree::below;
use crate::pipeline::types::{Linfa, Task};

/// Rows with a target that training needs.
const FEWEST_ROWS: usize = 10;

/// Classes at most: more is a sign that the target is a number.
const MOST_CLASSES: usize = 100;

/// Where the results go.
#[derive(Debug, Clone)]
pub struct TrainPaths {
    /// The model.
    pub model: PathBuf,
    /// JSON of numbers.
    pub metrics: PathBuf,
    /// CSV of the held-out rows' predictions.
    pub predictions: PathBuf,
    /// The held-out rows themselves as CSV, for scoring another model on them; not written if absent.
    pub evaluation: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSummary {
    /// Rows learned from.
    pub rows: usize,
    /// Rows held out.
    pub held_out: usize,
    /// Columns used, in order.
    pub features: Vec<String>,
    /// Metrics on the held-out rows, by dotted name.
    pub metrics: BTreeMap<String, f64>,
    /// With two classes, the rarer one, which `f1`, `precision`, `recall` and scores are about.
    pub positive_class: Option<String>,
}

/// Why nothing was trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data file cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The pipeline asks for something that does not exist.
    #[error("{0}")]
    Setting(String),
    /// The data cannot be learned from.
    #[error("{0}")]
    Data(String),
    /// The algorithm found nothing usable.
    #[error("{0}")]
    Fit(String),
    /// The model cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Another result cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The predictions that were just made cannot be read.
    #[error("our own predictions are broken: {0}")]
    Predictions(#[from] PredictionsError),
}

/// Trains on a data file and writes the results. `note` takes lines for the log: all that was done to the data, and how the
/// model fares.
///
/// # Errors
/// [`TrainError`]; nothing half-written is left that a caller would take for a result, since the model comes last.
pub fn train(
    spec: &Linfa,
    data_file: &Path,
    out: &TrainPaths,
    note: &mut dyn FnMut(String),
) -> Result<TrainSummary, TrainError> {
    let settings = params::read(spec.algorithm, spec.task, &spec.params)?;
    let table = Table::load(data_file, &spec.data)?;
    note(format!("{} rows and {} columns in `{}`", table.rows, table.columns.len(), spec.data));
    let target = target_column(spec, &table)?;
    let rows: Vec<usize> = (0..table.rows).filter(|row| target.cell(*row) != Cell::Missing).collect();
    if rows.len() < table.rows {
        note(format!("{} rows without a `{}` are left out", table.rows - rows.len(), spec.target));
    }
    let answers = Answers::read(spec, target, &rows)?;
    let split = split(&answers, spec);
    let (training, held_out) = (select(&rows, &split.training), select(&rows, &split.held_out));
    let prepared = prepare(&table, &spec.target, &spec.drop, &training, wants(&settings), note)?;
    let x = matrix(&table, &prepared.features, &training);
    note(format!(
        "training `{}` on {} rows with {} columns ({} numbers each); {} rows are held out",
        params::word(spec.algorithm),
        training.len(),
        prepared.features.len(),
        x.ncols(),
        held_out.len()
    ));
    let fitted = fit(x, &answers.truth(&split.training), &settings, spec.seed)?;
    let labels: Vec<String> = held_out.iter().map(|row| label(target.cell(*row))).collect();
    let model = Model {
        format: FORMAT,
        task: answers.task(),
        algorithm: params::word(spec.algorithm).to_owned(),
        target: spec.target.clone(),
        positive: answers.positive(&labels),
        classes: answers.classes,
        threshold: settings.threshold,
        training: Training {
            data_digest: digest(data_file)?,
            rows: training.len(),
            held_out: held_out.len(),
            holdout: spec.holdout,
            seed: spec.seed,
            params: settings.resolved,
        },
        features: prepared.features.clone(),
        ignored: prepared.ignored.clone(),
        fitted,
    };
    if let Some(path) = &out.evaluation {
        write(path, &evaluation_csv(&table, &prepared, spec, &held_out).map_err(TrainError::Fit)?)?;
    }
    evaluate(&Predictor::new(model), &table, &held_out, &labels, out, note)
}

fn wants(settings: &Settings) -> Wants {
    match settings.algorithm {
        Chosen::Linear => Wants { standardized: true, independent: true },
        Chosen::ElasticNet { .. } | Chosen::Logistic { .. } | Chosen::Svm { .. } | Chosen::Knn { .. } => {
            Wants { standardized: true, independent: false }
        }
        Chosen::DecisionTree { .. } | Chosen::RandomForest { .. } | Chosen::NaiveBayes { .. } => {
            Wants { standardized: false, independent: false }
        }
    }
}

fn target_column<'a>(spec: &Linfa, table: &'a Table) -> Result<&'a Column, TrainError> {
    let name = &spec.target;
    let Some(column) = table.column(name) else {
        let hint = did_you_mean(name, table.columns.iter().map(|column| column.name.as_str()));
        return Err(TrainError::Setting(format!("`{}` has no column `{name}` (the target){hint}", spec.data)));
    };
    if matches!(column.values, Values::TooManyWords) {
        return Err(TrainError::Data(format!(
            "the target `{name}` is neither a class nor a number: it has more than {MOST_WORDS} different texts, or texts \
             of more than {LONGEST_WORD} bytes"
        )));
    }
    if column.missing == table.rows {
        return Err(TrainError::Data(format!("the target `{name}` has no value in any row")));
    }
    if spec.drop.contains(name) {
        return Err(TrainError::Setting(format!("`drop` names the target `{name}`")));
    }
    Ok(column)
}

/// What is to be predicted, for the rows that have it.
struct Answers {
    /// In their order; empty for numbers.
    classes: Vec<String>,
    codes: Vec<usize>,
    numbers: Vec<f64>,
}

impl Answers {
    fn read(spec: &Linfa, target: &Column, rows: &[usize]) -> Result<Self, TrainError> {
        if rows.len() < FEWEST_ROWS {
            return Err(TrainError::Data(format!(
                "there are {} rows to learn from; at least {FEWEST_ROWS} are needed",
                rows.len()
            )));
        }
        match spec.task {
            Task::Classification => Self::classes(spec, target, rows),
            Task::Regression => Self::numbers(spec, target, rows),
        }
    }

    fn numbers(spec: &Linfa, target: &Column, rows: &[usize]) -> Result<Self, TrainError> {
        let name = &spec.target;
        let Values::Numbers(values) = &target.values else {
            let example = match &target.stray_text {
                Some((_, line, text)) => format!("line {line} has `{text}`"),
                None => "it holds text".to_owned(),
            };
            return Err(TrainError::Data(format!(
                "the target `{name}` is not a number: {example}; for classes use `task: classification`"
            )));
        };
        let numbers: Vec<f64> = rows.iter().map(|row| values[*row]).collect();
        if numbers.iter().all(|number| *number == numbers[0]) {
            return Err(TrainError::Data(format!(
                "the target `{name}` is {} in every row: there is nothing to learn",
                numbers[0]
            )));
        }
        // Whatever is learned, its errors are squared.
        if !numbers.iter().map(|number| number * number).sum::<f64>().is_finite() {
            let most = numbers.iter().copied().map(f64::abs).fold(0.0, f64::max);
            return Err(TrainError::Data(format!(
                "the target `{name}` has numbers as large as {most:e}, whose squares are beyond all numbers: divide them"
            )));
        }
        Ok(Self { classes: Vec::new(), codes: Vec::new(), numbers })
    }

    fn classes(spec: &Linfa, target: &Column, rows: &[usize]) -> Result<Self, TrainError> {
        let name = &spec.target;
        let data = |words: String| Err(TrainError::Data(words));
        let labels: Vec<String> = rows.iter().map(|row| label(target.cell(*row))).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        labels.iter().for_each(|label| *counts.entry(label).or_default() += 1);
        if counts.len() > MOST_CLASSES {
            return data(format!(
                "the target `{name}` has {} different values; for numbers use `task: regression`",
                counts.len()
            ));
        }
        if let [only] = counts.keys().copied().collect::<Vec<_>>()[..] {
            return data(format!("the target `{name}` is `{only}` in every row: there is nothing to learn"));
        }
        if let Some((class, _)) = counts.iter().find(|(_, count)| **count < 2) {
            return data(format!(
                "the class `{class}` of `{name}` has a single row; at least 2 are needed, one to learn from and one held out"
            ));
        }
        let mut classes: Vec<&str> = counts.keys().copied().collect();
        classes.sort_by(|a, b| class_order(a, b));
        let by_name: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(code, class)| (*class, code)).collect();
        let codes = labels.iter().map(|label| by_name[label.as_str()]).collect();
        Ok(Self { classes: classes.into_iter().map(str::to_owned).collect(), codes, numbers: Vec::new() })
    }

    fn task(&self) -> ModelTask {
        if self.classes.is_empty() { ModelTask::Regression } else { ModelTask::Classification }
    }

    fn truth(&self, places: &[usize]) -> Truth {
        match self.task() {
            ModelTask::Classification => {
                Truth::Classes { codes: select(&self.codes, places), count: self.classes.len() }
            }
            ModelTask::Regression => Truth::Numbers(select(&self.numbers, places)),
        }
    }

    /// The rarer class among the held-out labels: the one that metrics of these labels are about.
    fn positive(&self, labels: &[String]) -> Option<usize> {
        let rare = rarer_class(labels.iter().map(String::as_str))?;
        (self.classes.len() == 2).then(|| self.classes.iter().position(|class| *class == rare)).flatten()
    }
}

fn select<T: Clone>(items: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|place| items[*place].clone()).collect()
}

/// Places among the rows with a target.
struct Split {
    training: Vec<usize>,
    held_out: Vec<usize>,
}

/// Draws the held-out rows, for classes the same share of each.
fn split(answers: &Answers, spec: &Linfa) -> Split {
    let mut strata: Vec<Vec<usize>> = match answers.task() {
        ModelTask::Regression => vec![(0..answers.numbers.len()).collect()],
        ModelTask::Classification => {
            let mut strata = vec![Vec::new(); answers.classes.len()];
            answers.codes.iter().enumerate().for_each(|(place, code)| strata[*code].push(place));
            strata
        }
    };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(spec.seed);
    let mut split = Split { training: Vec::new(), held_out: Vec::new() };
    for stratum in &mut strata {
        for last in (1..stratum.len()).rev() {
            stratum.swap(last, below(&mut random, last + 1));
        }
        let held_out = ((stratum.len() as f64 * spec.holdout).round() as usize).clamp(1, stratum.len() - 1);
        split.held_out.extend(&stratum[..held_out]);
        split.training.extend(&stratum[held_out..]);
    }
    split.held_out.sort_unstable();
    split.training.sort_unstable();
    split
}

/// Predicts the held-out rows, computes metrics from that file as `promote` will, and writes all results.
fn evaluate(
    predictor: &Predictor,
    table: &Table,
    held_out: &[usize],
    labels: &[String],
    out: &TrainPaths,
    note: &mut dyn FnMut(String),
) -> Result<TrainSummary, TrainError> {
    let csv = predictions_csv(predictor, table, held_out, labels).map_err(TrainError::Fit)?;
    let predictions = Predictions::parse(&csv)?;
    let model = predictor.model();
    let classification = model.task == ModelTask::Classification;
    let mut metrics: BTreeMap<String, f64> = METRICS
        .iter()
        .filter(|metric| metric.is_classification() == classification)
        .filter_map(|metric| Some((metric.name.to_owned(), metric.of(&predictions).ok()?)))
        .collect();
    metrics.insert("rows".to_owned(), held_out.len() as f64);
    metrics.insert("training_rows".to_owned(), model.training.rows as f64);
    let mut json: Map<String, Value> = metrics.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    let positive = positive_class(&predictions).filter(|_| classification);
    if classification {
        tell_classes(labels, positive.as_deref(), &metrics, note);
        for (truth, row) in confusion(&predictions) {
            for (said, count) in row {
                metrics.insert(format!("confusion.{truth}.{said}"), count as f64);
                let matrix = json.entry("confusion").or_insert_with(|| Value::Object(Map::new()));
                matrix[&truth][&said] = count.into();
            }
        }
    } else {
        let value = |name: &str| metrics.get(name).map_or("undefined".to_owned(), |value| format!("{value:.4}"));
        note(format!("held-out rows: MAE {}, RMSE {}, R² {}", value("mae"), value("rmse"), value("r2")));
    }
    let mut text = serde_json::to_vec_pretty(&json).map_err(|error| TrainError::Fit(error.to_string()))?;
    text.push(b'\n');
    write(&out.predictions, &csv)?;
    write(&out.metrics, &text)?;
    model.save(&out.model)?;
    Ok(TrainSummary {
        rows: model.training.rows,
        held_out: held_out.len(),
        features: model.features.iter().map(|feature| feature.name.clone()).collect(),
        metrics,
        positive_class: positive,
    })
}

/// Says the metrics, and what a model that always says the commonest class would get.
fn tell_classes(
    labels: &[String],
    positive: Option<&str>,
    metrics: &BTreeMap<String, f64>,
    note: &mut dyn FnMut(String),
) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    labels.iter().for_each(|label| *counts.entry(label).or_default() += 1);
    let value = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
    let Some((common, count)) = counts.iter().max_by_key(|(_, count)| **count) else { return };
    note(format!(
        "held-out rows: accuracy {:.4} (always saying `{common}` would get {:.4})",
        value("accuracy"),
        *count as f64 / labels.len() as f64
    ));
    match positive {
        Some(class) => note(format!(
            "the rarer class `{class}` ({} of {} rows): precision {:.4}, recall {:.4}, F1 {:.4}, average precision {:.4}, ROC AUC {:.4}",
            counts.get(class).copied().unwrap_or(0),
            labels.len(),
            value("precision"),
            value("recall"),
            value("f1"),
            value("average_precision"),
            value("roc_auc"),
        )),
        None => note(format!(
            "mean over {} classes: F1 {:.4}, recall {:.4}",
            counts.len(),
            value("f1_macro"),
            value("recall_macro")
        )),
    }
}

/// The held-out rows with all columns that were kept, `id` first.
fn evaluation_csv(table: &Table, prepared: &Prepared, spec: &Linfa, held_out: &[usize]) -> Result<Vec<u8>, String> {
    let names = prepared.features.iter().map(|feature| &feature.name).chain([&spec.target]);
    let columns: Vec<&Column> = names.filter_map(|name| table.column(name)).collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = std::iter::once("id").chain(columns.iter().map(|column| column.name.as_str()));
    writer.write_record(header).map_err(|error| error.to_string())?;
    for row in held_out {
        let values = columns.iter().map(|column| text_of(column.cell(*row)));
        let record: Vec<String> = std::iter::once(table.row_id(*row)).chain(values).collect();
        writer.write_record(&record).map_err(|error| error.to_string())?;
    }
    writer.into_inner().map_err(|error| error.to_string())
}

fn digest(path: &Path) -> Result<String, TrainError> {
    let read = |source| TrainError::Table(TableError::Read { path: path.display().to_string(), source });
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(read)?).map_err(read)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    std::fs::write(path, bytes).map_err(|source| TrainError::Write { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests;
