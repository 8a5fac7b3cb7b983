//! Which columns a model is trained on and what is made of them; everything that was done is said in notes.
//!
//! Fill values, centers and scales are taken from the training rows alone: the held-out rows must not leak into the model.

use ndarray::Array2;

use crate::model::encode::{Feature, FeatureKind};
use crate::model::table::{Cell, Column, Table, Values};
use crate::model::train::TrainError;

/// Different values up to which a text column becomes one number for each value; with more it is left out.
const MOST_CATEGORIES: usize = 50;

/// Numbers at most in the whole training matrix: 8 bytes each.
const MOST_NUMBERS: usize = 250_000_000;

/// What the algorithm wants.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    /// Numbers brought to mean 0 and standard deviation 1.
    pub standardized: bool,
    /// No numbers of a category that add up to one.
    pub independent: bool,
}

/// What goes into the model file, and what was done.
#[derive(Debug)]
pub struct Prepared {
    /// The columns used, in the table's order.
    pub features: Vec<Feature>,
    /// Columns that exist and are not used.
    pub ignored: Vec<String>,
}

/// Chooses columns and how to encode them.
///
/// # Errors
/// [`TrainError::Data`] for a column without any value, no usable column, or more numbers than are kept in memory;
/// [`TrainError::Setting`] if `drop` names no column.
pub fn prepare(
    table: &Table,
    target: &str,
    drop: &[String],
    training_rows: &[usize],
    wants: Wants,
    note: &mut dyn FnMut(String),
) -> Result<Prepared, TrainError> {
    check_drop(table, drop)?;
    let mut prepared = Prepared { features: Vec::new(), ignored: Vec::new() };
    if let Some(ids) = &table.ids {
        let name =
            if ids.name.is_empty() { "the first column, which has no name," } else { &format!("`{}`", ids.name) };
        let doubled = if ids.unique { "" } else { "; it has doubled values, so rows are named by their number" };
        note(format!("{name} names the rows and is no feature{doubled}"));
        prepared.ignored.push(ids.name.clone());
    }
    for column in table.columns.iter().filter(|column| column.name != target) {
        let feature = if drop.contains(&column.name) {
            note(format!("`{}` is dropped, as asked", column.name));
            None
        } else {
            feature(column, training_rows, wants, note)?
        };
        match feature {
            Some(kind) => prepared.features.push(Feature { name: column.name.clone(), kind }),
            None => prepared.ignored.push(column.name.clone()),
        }
    }
    let width: usize = prepared.features.iter().map(Feature::width).sum();
    if width == 0 {
        return Err(TrainError::Data("no column is left to learn from".to_owned()));
    }
    if width * training_rows.len() > MOST_NUMBERS {
        return Err(TrainError::Data(format!(
            "{} rows of {width} numbers are more than is kept in memory ({MOST_NUMBERS}); drop columns or rows",
            training_rows.len()
        )));
    }
    Ok(prepared)
}

/// The numbers of these rows, one row of the matrix each.
pub fn matrix(table: &Table, features: &[Feature], rows: &[usize]) -> Array2<f64> {
    let columns: Vec<&Column> = features.iter().filter_map(|feature| table.column(&feature.name)).collect();
    let width: usize = features.iter().map(Feature::width).sum();
    let mut numbers = Vec::with_capacity(width * rows.len());
    for row in rows {
        for (feature, column) in features.iter().zip(&columns) {
            let fits = feature.encode(column.cell(*row), &mut numbers);
            debug_assert!(fits, "features are made from these columns");
        }
    }
    Array2::from_shape_vec((rows.len(), width), numbers)
        .expect("every row gives as many numbers as its features' widths")
}

fn check_drop(table: &Table, drop: &[String]) -> Result<(), TrainError> {
    let ids = table.ids.as_ref().map(|ids| ids.name.as_str());
    for name in drop {
        if table.column(name).is_none() && ids != Some(name) {
            let names = table.columns.iter().map(|column| column.name.as_str());
            return Err(TrainError::Setting(format!(
                "`drop` names the column `{name}`, which does not exist{}",
                did_you_mean(name, names)
            )));
        }
    }
    Ok(())
}

/// `; did you mean ...?` if a known name is near, else the known names.
pub fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let distance = |name: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &wrong.to_lowercase());
    let near = known.iter().map(|name| (distance(name), *name)).min();
    match near {
        Some((distance, name)) if distance <= (wrong.chars().count() / 3).max(2) => format!("; did you mean `{name}`?"),
        Some(_) => {
            let more = if known.len() > 30 { ", ..." } else { "" };
            format!("; there are `{}`{more}", known[..known.len().min(30)].join("`, `"))
        }
        None => String::new(),
    }
}

fn feature(
    column: &Column,
    rows: &[usize],
    wants: Wants,
    note: &mut dyn FnMut(String),
) -> Result<Option<FeatureKind>, TrainError> {
    let name = &column.name;
    if let Some((numbers, line, text)) = &column.stray_text {
        note(format!("`{name}` has {numbers} numbers, but also text (`{text}` on line {line}): taken as categories"));
    }
    let made = match &column.values {
        Values::TooManyWords => {
            note(format!("`{name}` is left out: it has too many different values, or long texts"));
            return Ok(None);
        }
        Values::Numbers(numbers) => {
            if is_different_everywhere(numbers) {
                note(format!(
                    "`{name}` is another whole number in every row: if it only names the row, list it under `drop`"
                ));
            }
            number(column, numbers, rows, wants)?
        }
        Values::Words { words, .. } => {
            let made = category(column, rows, wants)?;
            if made.is_none() && words.len() > MOST_CATEGORIES {
                note(format!(
                    "`{name}` is left out: it has {} different values, more than {MOST_CATEGORIES}",
                    words.len()
                ));
                return Ok(None);
            }
            made
        }
    };
    match &made {
        None => note(format!("`{name}` is left out: it is the same in every training row")),
        Some(FeatureKind::Number { fill, .. }) if column.missing > 0 => {
            note(format!("`{name}`: {} missing values are taken as the median, {fill}", column.missing));
        }
        Some(FeatureKind::Number { .. }) => {}
        Some(FeatureKind::Category { fill, values, .. }) => {
            let missing = match column.missing {
                0 => String::new(),
                count => format!("; {count} missing values are taken as the most frequent, `{fill}`"),
            };
            note(format!("`{name}` is a category of {} values{missing}", values.len()));
        }
    }
    Ok(made)
}

/// Rows from which on it is no accident.
const MANY_ROWS: usize = 50;

/// Whole numbers of which none comes twice.
fn is_different_everywhere(numbers: &[f64]) -> bool {
    if numbers.len() < MANY_ROWS || numbers.iter().any(|number| number.fract() != 0.0) {
        return false;
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.windows(2).all(|pair| pair[0] < pair[1])
}

fn all_missing(column: &Column) -> TrainError {
    TrainError::Data(format!("the column `{}` has no value in any row; list it under `drop`", column.name))
}

/// `None` if it is the same in every training row.
fn number(column: &Column, numbers: &[f64], rows: &[usize], wants: Wants) -> Result<Option<FeatureKind>, TrainError> {
    if column.missing == numbers.len() {
        return Err(all_missing(column));
    }
    let mut known: Vec<f64> = rows.iter().map(|row| numbers[*row]).filter(|number| !number.is_nan()).collect();
    known.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (known.first(), known.last()) else { return Ok(None) };
    if least == most {
        return Ok(None);
    }
    let middle = known.len() / 2;
    let fill =
        if known.len().is_multiple_of(2) { f64::midpoint(known[middle - 1], known[middle]) } else { known[middle] };
    if !wants.standardized {
        return Ok(Some(FeatureKind::Number { fill, center: 0.0, scale: 1.0 }));
    }
    let center = known.iter().sum::<f64>() / known.len() as f64;
    let variance = known.iter().map(|number| (number - center).powi(2)).sum::<f64>() / known.len() as f64;
    let scale = variance.sqrt();
    if !center.is_finite() || !scale.is_finite() || scale == 0.0 {
        return Err(TrainError::Data(format!(
            "the numbers of `{}` are too large or too close together to be standardized (from {least} to {most})",
            column.name
        )));
    }
    Ok(Some(FeatureKind::Number { fill, center, scale }))
}

/// `None` if it is the same in every training row, or has too many values.
fn category(column: &Column, rows: &[usize], wants: Wants) -> Result<Option<FeatureKind>, TrainError> {
    let Values::Words { codes, words } = &column.values else { return Ok(None) };
    if column.missing == codes.len() {
        return Err(all_missing(column));
    }
    let mut counts = vec![0usize; words.len()];
    for row in rows {
        if let Cell::Text(_) = column.cell(*row) {
            counts[codes[*row] as usize] += 1;
        }
    }
    let mut values: Vec<(&String, usize)> = words.iter().zip(counts).filter(|(_, count)| *count > 0).collect();
    if values.len() < 2 || values.len() > MOST_CATEGORIES {
        return Ok(None);
    }
    values.sort();
    // The last of equals by count: `max_by_key` keeps it, and it is the same in every run.
    let fill = values.iter().max_by_key(|(_, count)| *count).map(|(word, _)| (*word).clone()).unwrap_or_default();
    let values = values.into_iter().map(|(word, _)| word.clone()).collect();
    Ok(Some(FeatureKind::Category { fill, values, skip_first: wants.independent }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTS: Wants = Wants { standardized: false, independent: false };

    fn prepare_text(text: &str, drop: &[&str], wants: Wants) -> (Result<Prepared, String>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.csv");
        std::fs::write(&path, text).expect("written");
        let table = Table::load(&path, "data.csv").expect("read");
        let rows: Vec<usize> = (0..table.rows).collect();
        let drop: Vec<String> = drop.iter().map(|name| (*name).to_owned()).collect();
        let mut notes = Vec::new();
        let prepared = prepare(&table, "y", &drop, &rows, wants, &mut |line| notes.push(line));
        (prepared.map_err(|error| error.to_string()), notes)
    }

    #[test]
    fn what_is_done_is_said() {
        let text = ",a,b,c,d,e,y\n0,1,x,5,u,3,0\n1,,y,5,u,4,1\n2,3,,5,u,oops,0\n3,9,y,5,u,3,1\n";
        let (prepared, notes) = prepare_text(text, &["d"], WANTS);
        let prepared = prepared.expect("prepared");
        assert_eq!(
            notes,
            [
                "the first column, which has no name, names the rows and is no feature",
                "`a`: 1 missing values are taken as the median, 3",
                "`b` is a category of 2 values; 1 missing values are taken as the most frequent, `y`",
                "`c` is left out: it is the same in every training row",
                "`d` is dropped, as asked",
                "`e` has 3 numbers, but also text (`oops` on line 4): taken as categories",
                "`e` is a category of 3 values",
            ]
        );
        assert_eq!(prepared.ignored, ["", "c", "d"]);
        assert_eq!(prepared.features.len(), 3);
    }

    #[test]
    fn a_category_of_too_many_values_is_left_out() {
        let rows: String = (0..60).map(|row| format!("w{row},{row},{}\n", row % 2)).collect();
        let (prepared, notes) = prepare_text(&format!("w,a,y\n{rows}"), &[], WANTS);
        assert_eq!(
            notes,
            [
                "`w` is left out: it has 60 different values, more than 50",
                "`a` is another whole number in every row: if it only names the row, list it under `drop`",
            ]
        );
        assert_eq!(prepared.expect("prepared").ignored, ["w"]);
    }

    #[test]
    fn standardized_numbers_have_mean_zero_and_deviation_one() {
        let (prepared, _) = prepare_text("a,y\n1,0\n3,1\n", &[], Wants { standardized: true, independent: true });
        let kind = &prepared.expect("prepared").features[0].kind;
        assert_eq!(*kind, FeatureKind::Number { fill: 2.0, center: 2.0, scale: 1.0 });
    }

    #[test]
    fn errors() {
        let error = |text: &str, drop: &[&str]| prepare_text(text, drop, WANTS).0.expect_err("an error");
        assert_eq!(error("a,b,y\n,1,0\n,2,1\n", &[]), "the column `a` has no value in any row; list it under `drop`");
        assert_eq!(error("a,y\n1,0\n1,1\n", &[]), "no column is left to learn from");
        assert_eq!(
            error("goals,y\n1,0\n2,1\n", &["gaols"]),
            "`drop` names the column `gaols`, which does not exist; did you mean `goals`?"
        );
    }
}
