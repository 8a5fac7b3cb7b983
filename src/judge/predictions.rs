//! A model's predictions on held-out rows: `id,label,prediction[,score]`, read, digested and paired.
//!
//! Labels and predictions are kept as text; numbers are brought into one form first (`1.0` is `1`), since one library
//! writes classes as floats and the next as integers.

use std::collections::BTreeMap;

use crate::pipeline::diagnostic::shown;

/// Rows that are read at most: a bound for memory, far above what a held-out set needs.
const MOST_ROWS: usize = 20_000_000;

/// Bytes of an id, label or prediction at most: messages quote them, and reports keep them.
const LONGEST: usize = 1024;

/// Ids that a message gives as examples.
const EXAMPLES: usize = 3;

/// One held-out row with what the model said.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionRow {
    /// Names the row; the same row has the same id in every build.
    pub id: String,
    /// The truth.
    pub label: String,
    /// What the model said.
    pub prediction: String,
    /// How sure it was that the row is of the rarer class; larger is surer. Any scale, but `log_loss` needs a probability.
    pub score: Option<f64>,
}

/// All rows of one model, sorted by id, each id once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    rows: Vec<PredictionRow>,
}

/// Why a predictions file cannot be used. Lines count from 1, the header being the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictionsError {
    /// A needed column is not in the header.
    #[error(
        "the header has no column `{column}`; it must be `id,label,prediction` or `id,label,prediction,score`, and is `{header}`"
    )]
    MissingColumn {
        /// The column.
        column: &'static str,
        /// The header found.
        header: String,
    },
    /// A column is there twice.
    #[error("the header has the column `{column}` twice")]
    DoubledColumn {
        /// The column.
        column: &'static str,
    },
    /// No row at all.
    #[error("it has no rows")]
    Empty,
    /// More rows than are read.
    #[error("it has more than {MOST_ROWS} rows")]
    TooMany,
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// The line's number.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// One id is on two lines.
    #[error("the id `{id}` is on line {first} and again on line {second}; an id names one row")]
    DoubledId {
        /// The id.
        id: String,
        /// The line it is on first.
        first: u64,
        /// The line it is on again.
        second: u64,
    },
}

impl Predictions {
    /// Reads CSV text. Columns may be in any order and others beside them; the score may be left out or empty.
    ///
    /// # Errors
    /// [`PredictionsError`], with the line, for a missing column or value, a doubled id, a score that is not a finite
    /// number, `NaN` as label or prediction, or broken CSV.
    pub fn parse(csv: &[u8]) -> Result<Self, PredictionsError> {
        let csv = csv.strip_prefix(b"\xef\xbb\xbf").unwrap_or(csv);
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(csv);
        let header = reader.headers().map_err(|error| line_error(1, &error))?.clone();
        let columns = Columns::find(&header)?;
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| line_error(error.position().map_or(0, csv::Position::line), &error))?;
            let line = record.position().map_or(0, csv::Position::line);
            if rows.len() == MOST_ROWS {
                return Err(PredictionsError::TooMany);
            }
            let row = columns.row(&record).map_err(|problem| PredictionsError::Line { line, problem })?;
            rows.push((row, line));
        }
        if rows.is_empty() {
            return Err(PredictionsError::Empty);
        }
        rows.sort_by(|(a, line_a), (b, line_b)| a.id.cmp(&b.id).then(line_a.cmp(line_b)));
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0.id == pair[1].0.id) {
            let id = pair[0].0.id.clone();
            return Err(PredictionsError::DoubledId { id, first: pair[0].1, second: pair[1].1 });
        }
        Ok(Self { rows: rows.into_iter().map(|(row, _)| row).collect() })
    }

    /// The rows, sorted by id.
    pub fn rows(&self) -> &[PredictionRow] {
        &self.rows
    }

    /// BLAKE3, in hex, of all ids and labels in the order of ids: equal for two files if and only if they are about the
    /// very same rows. Each text is hashed with its length (8 bytes, little-endian) before it.
    pub fn rows_digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in self.rows.iter().flat_map(|row| [&row.id, &row.label]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Where the columns are.
struct Columns {
    id: usize,
    label: usize,
    prediction: usize,
    score: Option<usize>,
}

impl Columns {
    fn find(header: &csv::StringRecord) -> Result<Self, PredictionsError> {
        let find = |column: &'static str| {
            let mut at = header.iter().enumerate().filter(|(_, name)| name.trim() == column).map(|(index, _)| index);
            match (at.next(), at.next()) {
                (_, Some(_)) => Err(PredictionsError::DoubledColumn { column }),
                (found, None) => Ok(found),
            }
        };
        let need = |column| {
            find(column)?.ok_or_else(|| PredictionsError::MissingColumn {
                column,
                header: shown(&header.iter().take(20).collect::<Vec<_>>().join(",")),
            })
        };
        Ok(Self { id: need("id")?, label: need("label")?, prediction: need("prediction")?, score: find("score")? })
    }

    fn row(&self, record: &csv::StringRecord) -> Result<PredictionRow, String> {
        let value = |index: usize, name: &str| match record.get(index).map(str::trim) {
            None | Some("") => Err(format!("no value for `{name}`")),
            Some(value) if value.len() > LONGEST => {
                Err(format!("`{name}` has {} bytes, more than {LONGEST}: `{}`", value.len(), shown(value)))
            }
            Some(value) => Ok(value),
        };
        let class = |index: usize, name: &str| {
            let text = value(index, name)?;
            if is_not_finite(text) {
                return Err(format!("`{name}` is `{text}`, which is neither a class nor a number to compare"));
            }
            Ok(canonical(text))
        };
        let score = match self.score.and_then(|index| record.get(index)).map(str::trim) {
            None | Some("") => None,
            Some(text) => match text.parse::<f64>() {
                Ok(score) if score.is_finite() => Some(score),
                Ok(_) | Err(_) => return Err(format!("`score` is `{}`, which is not a finite number", shown(text))),
            },
        };
        Ok(PredictionRow {
            id: value(self.id, "id")?.to_owned(),
            label: class(self.label, "label")?,
            prediction: class(self.prediction, "prediction")?,
            score,
        })
    }
}

fn line_error(line: u64, error: &csv::Error) -> PredictionsError {
    let problem = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "the text is not UTF-8".to_owned(),
        other => format!("the CSV is broken: {other:?}"),
    };
    PredictionsError::Line { line, problem }
}

fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
    matches!(word.as_str(), "nan" | "inf" | "infinity")
}

/// One form for each number (`1.0`, `1`, `1e0`), other text as it stands.
pub fn canonical(text: &str) -> String {
    let like_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        // Adding zero makes -0 into 0.
        Ok(number) if like_number && number.is_finite() => format!("{}", number + 0.0),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

/// Why two models' predictions cannot be laid side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The ids are not the same.
    #[error("they are not of the same rows: {}", rows_words(*.only_candidate, *.only_champion, .examples))]
    OtherRows {
        /// How many ids only the candidate has.
        only_candidate: usize,
        /// How many ids only the champion has.
        only_champion: usize,
        /// Some of these ids.
        examples: Vec<String>,
    },
    /// The ids are the same, but the truth is not.
    #[error(
        "the label of id `{id}` is `{candidate}` in the candidate's predictions and `{champion}` in the champion's ({count} such rows); an id must name the same row in every build"
    )]
    LabelsDiffer {
        /// The first such id.
        id: String,
        /// Its label in the candidate's file.
        candidate: String,
        /// Its label in the champion's file.
        champion: String,
        /// How many ids differ.
        count: usize,
    },
}

fn rows_words(only_candidate: usize, only_champion: usize, examples: &[String]) -> String {
    format!(
        "{only_candidate} ids are only in the candidate's and {only_champion} only in the champion's (such as {})",
        examples.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ")
    )
}

/// Checks that two models' predictions are of the same rows. Both being sorted by id, row `i` of one is then row `i` of
/// the other.
///
/// # Errors
/// [`PairError`] if ids are missing on one side, or the labels of one id differ.
pub fn check_pair(candidate: &Predictions, champion: &Predictions) -> Result<(), PairError> {
    let ids: BTreeMap<&str, ()> = champion.rows.iter().map(|row| (row.id.as_str(), ())).collect();
    let own: BTreeMap<&str, ()> = candidate.rows.iter().map(|row| (row.id.as_str(), ())).collect();
    let only_candidate: Vec<&str> = own.keys().filter(|id| !ids.contains_key(*id)).copied().collect();
    let only_champion: Vec<&str> = ids.keys().filter(|id| !own.contains_key(*id)).copied().collect();
    if !only_candidate.is_empty() || !only_champion.is_empty() {
        let examples = only_candidate.iter().chain(&only_champion).take(EXAMPLES).map(|id| (*id).to_owned()).collect();
        return Err(PairError::OtherRows {
            only_candidate: only_candidate.len(),
            only_champion: only_champion.len(),
            examples,
        });
    }
    let mut differing = candidate.rows.iter().zip(&champion.rows).filter(|(a, b)| a.label != b.label);
    match differing.next() {
        None => Ok(()),
        Some((a, b)) => Err(PairError::LabelsDiffer {
            id: a.id.clone(),
            candidate: a.label.clone(),
            champion: b.label.clone(),
            count: 1 + differing.count(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Predictions {
        Predictions::parse(text.as_bytes()).expect("valid")
    }

    fn check_error(text: &str, expected: &str) {
        let error = Predictions::parse(text.as_bytes()).expect_err("an error");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn numbers_have_one_form_and_rows_are_sorted() {
        let read = parse("prediction,id,x,label,score\n1.0,b,9,0,0.5\ncat, a ,9,cat,\n");
        let row = |id: &str, label: &str, prediction: &str, score| PredictionRow {
            id: id.into(),
            label: label.into(),
            prediction: prediction.into(),
            score,
        };
        assert_eq!(read.rows(), [row("a", "cat", "cat", None), row("b", "0", "1", Some(0.5))]);
        assert_eq!(canonical("-0.0"), "0");
        assert_eq!(canonical("infinity-pool"), "infinity-pool");
    }

    #[test]
    fn errors_name_the_line() {
        check_error(
            "id,label\na,1\n",
            "the header has no column `prediction`; it must be `id,label,prediction` or `id,label,prediction,score`, and is `id,label`",
        );
        check_error("id,id,label,prediction\n", "the header has the column `id` twice");
        check_error("id,label,prediction\n", "it has no rows");
        check_error("id,label,prediction\na,1,1\nb,,1\n", "line 3: no value for `label`");
        check_error("id,label,prediction\na,1\n", "line 2: no value for `prediction`");
        check_error("id,label,prediction,score\na,1,1,nan\n", "line 2: `score` is `nan`, which is not a finite number");
        check_error(
            "id,label,prediction\na,1,NaN\n",
            "line 2: `prediction` is `NaN`, which is neither a class nor a number to compare",
        );
        check_error(
            "id,label,prediction\na,1,1\nb,1,1\na,0,1\n",
            "the id `a` is on line 2 and again on line 4; an id names one row",
        );
        assert!(matches!(
            Predictions::parse(b"id,label,prediction\n\xff,1,1\n"),
            Err(PredictionsError::Line { line: 2, .. })
        ));
    }

    #[test]
    fn the_digest_is_of_ids_and_labels_alone() {
        let one = parse("id,label,prediction\na,1,1\nb,0,0\n");
        let other = parse("id,label,prediction,score\nb,0.0,1,0.1\na,1,0,0.2\n");
        assert_eq!(one.rows_digest(), other.rows_digest());
        assert_ne!(one.rows_digest(), parse("id,label,prediction\na,1,1\nb,1,0\n").rows_digest());
        // Lengths keep the border between texts.
        assert_ne!(
            parse("id,label,prediction\nab,c,1\n").rows_digest(),
            parse("id,label,prediction\na,bc,1\n").rows_digest()
        );
    }

    #[test]
    fn pairs_need_the_same_rows() {
        let one = parse("id,label,prediction\na,1,1\nb,0,0\n");
        assert_eq!(check_pair(&one, &parse("id,label,prediction\nb,0,1\na,1,1\n")), Ok(()));
        let error = check_pair(&one, &parse("id,label,prediction\nb,0,1\nc,1,1\n")).expect_err("other rows");
        assert_eq!(
            error.to_string(),
            "they are not of the same rows: 1 ids are only in the candidate's and 1 only in the champion's (such as `a`, `c`)"
        );
        let error = check_pair(&one, &parse("id,label,prediction\nb,0,1\na,2,1\n")).expect_err("other label");
        assert_eq!(
            error.to_string(),
            "the label of id `a` is `1` in the candidate's predictions and `2` in the champion's (1 such rows); an id must name the same row in every build"
        );
    }
}
