//! A saved model on rows whose truth is known: `id,label,prediction[,score]`.
//!
//! So a champion is compared with a candidate on the candidate's held-out rows.

use std::path::Path;

use crate::judge::classes::rarer_class;
use crate::judge::predictions::canonical;
use crate::model::predict::{Output, Predictor};
use crate::model::saved::{ModelError, ModelTask};
use crate::model::table::{Cell, Column, Table, TableError, text_of};

/// Why rows cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The rows cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The rows are not what the model needs.
    #[error("`{path}` does not fit the model: {problem}")]
    Rows {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The predictions cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Scores the model on every row of an evaluation file (CSV or Parquet with the model's columns, the target and, to name the
/// rows, `id` or an unnamed first column), and writes the predictions. Returns the number of rows.
///
/// # Errors
/// [`ScoreError`]
pub fn score(model: &Path, evaluation: &Path, predictions: &Path) -> Result<usize, ScoreError> {
    let predictor = Predictor::load(model)?;
    // Where it lies for the moment is nobody's business.
    let name = evaluation.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let table = Table::load(evaluation, &name)?;
    let rows_error = |problem| ScoreError::Rows { path: name.clone(), problem };
    let labels = labels(&predictor, &table).map_err(rows_error)?;
    let rows: Vec<usize> = (0..table.rows).collect();
    let csv = predictions_csv(&predictor, &table, &rows, &labels).map_err(rows_error)?;
    std::fs::write(predictions, csv)
        .map_err(|source| ScoreError::Write { path: predictions.display().to_string(), source })?;
    Ok(table.rows)
}

fn labels(predictor: &Predictor, table: &Table) -> Result<Vec<String>, String> {
    let target = &predictor.model().target;
    let column = table.column(target).ok_or_else(|| format!("it has no column `{target}`, which holds the truth"))?;
    (0..table.rows)
        .map(|row| match column.cell(row) {
            Cell::Missing => Err(format!("`{target}` has no value in the row `{}`", table.row_id(row))),
            cell => Ok(label(cell)),
        })
        .collect()
}

/// A label in the form in which predictions are compared.
pub(super) fn label(cell: Cell<'_>) -> String {
    canonical(&text_of(cell))
}

/// The predictions file for these rows; `labels` has one for each of `rows`. The score is the probability of the class that is
/// the rarer one among these labels, with several classes that of the predicted class.
///
/// # Errors
/// What is wrong with the table, in words.
pub(super) fn predictions_csv(
    predictor: &Predictor,
    table: &Table,
    rows: &[usize],
    labels: &[String],
) -> Result<Vec<u8>, String> {
    let model = predictor.model();
    let columns: Vec<&Column> = model
        .features
        .iter()
        .map(|feature| table.column(&feature.name).ok_or_else(|| format!("it has no column `{}`", feature.name)))
        .collect::<Result<_, _>>()?;
    let rare = rarer_class(labels.iter().map(String::as_str));
    let positive = rare.and_then(|rare| model.classes.iter().position(|class| *class == rare));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |record: &[String]| writer.write_record(record).map_err(|error| error.to_string());
    let header = ["id", "label", "prediction", "score"].map(str::to_owned);
    let width = if model.task == ModelTask::Classification { 4 } else { 3 };
    write(&header[..width])?;
    for (row, label) in rows.iter().zip(labels) {
        let id = table.row_id(*row);
        let output = predictor
            .output_of(&columns, *row)
            .map_err(|column| format!("`{column}` is a text in the row `{id}`, and the model needs a number"))?;
        match output {
            Output::Number(number) if number.is_finite() => write(&[id, label.clone(), number.to_string()])?,
            Output::Number(_) => {
                return Err(format!("the model's prediction for the row `{id}` is not a number (NaN)"));
            }
            Output::Classes { predicted, probabilities } => {
                let score = probabilities[positive.unwrap_or(predicted)];
                if !score.is_finite() {
                    return Err(format!("the model's score for the row `{id}` is not a number (NaN)"));
                }
                write(&[id, label.clone(), model.classes[predicted].clone(), score.to_string()])?;
            }
        }
    }
    writer.into_inner().map_err(|error| error.to_string())
}
