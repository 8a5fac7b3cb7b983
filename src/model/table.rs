//! A CSV or Parquet file as typed columns.
//!
//! The file is read twice: once to see which columns are numbers, once to keep the values. So memory holds the typed values
//! alone, never the text of the file.

mod bounded;
mod caught;
mod foreign;
mod source;

use std::collections::HashMap;
use std::path::Path;

use source::Source;

/// Columns at most.
const MOST_COLUMNS: usize = 10_000;

/// Values at most, in all columns: 8 bytes each.
const MOST_VALUES: usize = 200_000_000;

/// Different words that a text column may hold; beyond that its values are not kept.
pub const MOST_WORDS: usize = 10_000;

/// Bytes of a word, or of a column's name, at most; a text column with longer ones is not kept.
pub const LONGEST_WORD: usize = 1000;

/// Stands for a missing value among word codes.
pub const MISSING: u32 = u32::MAX;

/// Why a data file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file is not there or cannot be read.
    #[error("cannot read the data file `{path}`: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// One line is not what it should be.
    #[error("`{path}`, line {line}: {problem}")]
    Line {
        /// Which file.
        path: String,
        /// Counting from 1, the header being the first; for Parquet, the row.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// The file as a whole is not what it should be.
    #[error("`{path}`: {problem}")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Typed columns of equal length.
#[derive(Debug, Clone)]
pub struct Table {
    /// In the file's order, without the column that names rows.
    pub columns: Vec<Column>,
    /// How many rows.
    pub rows: usize,
    /// The column that names rows.
    pub ids: Option<Ids>,
}

/// The column that names rows: the first, if its header is empty (as pandas writes its index), or one called `id`.
#[derive(Debug, Clone)]
pub struct Ids {
    /// Its header.
    pub name: String,
    /// One for each row.
    pub values: Vec<String>,
    /// Whether every row has another.
    pub unique: bool,
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its header.
    pub name: String,
    /// Its values.
    pub values: Values,
    /// How many are missing: empty, `NA`, `N/A`, `NaN`, `null` or `?`.
    pub missing: usize,
    /// For a text column in which other values are numbers: how many are, and the first that is not, with its line.
    pub stray_text: Option<(usize, u64, String)>,
}

/// A column's values.
#[derive(Debug, Clone)]
pub enum Values {
    /// Finite numbers; `NaN` where missing.
    Numbers(Vec<f64>),
    /// Words by code, [`MISSING`] where missing.
    Words {
        /// One for each row.
        codes: Vec<u32>,
        /// By code, in the order of first appearance.
        words: Vec<String>,
    },
    /// More than [`MOST_WORDS`] different words, or one longer than [`LONGEST_WORD`]: not kept.
    TooManyWords,
}

/// One value as read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// None.
    Missing,
    /// A finite number.
    Number(f64),
    /// Anything else.
    Text(&'a str),
}

impl Column {
    /// The value of one row.
    pub fn cell(&self, row: usize) -> Cell<'_> {
        match &self.values {
            Values::Numbers(numbers) if numbers[row].is_nan() => Cell::Missing,
            Values::Numbers(numbers) => Cell::Number(numbers[row]),
            Values::Words { codes, .. } if codes[row] == MISSING => Cell::Missing,
            Values::Words { codes, words } => Cell::Text(&words[codes[row] as usize]),
            Values::TooManyWords => Cell::Missing,
        }
    }
}

impl Table {
    /// Reads a CSV file, or a Parquet file (known by its first bytes). Messages call it `name`.
    ///
    /// # Errors
    /// [`TableError`], with the line where there is one.
    pub fn load(path: &Path, name: &str) -> Result<Self, TableError> {
        let source = Source::open(path, name)?;
        let header = source.header()?;
        let ids = id_column(&header);
        let mut seen: Vec<Seen> = header.iter().map(|_| Seen::default()).collect();
        let mut rows = 0;
        source.for_each_cell(&mut |line, column, cell| {
            rows += usize::from(column == 0);
            if rows * header.len() > MOST_VALUES {
                return Err(source.content(format!(
                    "it holds more than {MOST_VALUES} values, which is more than is kept in memory"
                )));
            }
            seen[column].take(line, cell);
            Ok(())
        })?;
        if rows == 0 {
            return Err(source.content("it has no rows".to_owned()));
        }
        for (name, seen) in header.iter().zip(&seen) {
            if let (Some((line, text)), None) = (&seen.infinite, &seen.first_text) {
                let problem = format!("`{name}` is `{text}`, which is not a finite number (at most {:e})", f64::MAX);
                return Err(source.line(*line, problem));
            }
        }
        let mut builders: Vec<Builder> =
            seen.iter().enumerate().map(|(index, seen)| Builder::new(seen, Some(index) == ids, rows)).collect();
        source.for_each_cell(&mut |_, column, cell| {
            builders[column].push(cell);
            Ok(())
        })?;
        Ok(assemble(header, seen, builders, ids, rows))
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The name of a row: from the column that names rows if each is different there, else its number from 0.
    pub fn row_id(&self, row: usize) -> String {
        match &self.ids {
            Some(ids) if ids.unique => ids.values[row].clone(),
            Some(_) | None => row.to_string(),
        }
    }
}

fn id_column(header: &[String]) -> Option<usize> {
    let index_names = ["", "Unnamed: 0", "__index_level_0__"];
    match header.first() {
        Some(first) if index_names.contains(&first.as_str()) => Some(0),
        Some(_) | None => header.iter().position(|name| name.eq_ignore_ascii_case("id")),
    }
}

fn assemble(header: Vec<String>, seen: Vec<Seen>, builders: Vec<Builder>, ids: Option<usize>, rows: usize) -> Table {
    let mut table = Table { columns: Vec::new(), rows, ids: None };
    for (index, ((name, seen), builder)) in header.into_iter().zip(seen).zip(builders).enumerate() {
        let values = match builder {
            Builder::Ids(values) => {
                let unique = seen.missing == 0 && is_unique(&values);
                table.ids = Some(Ids { name, values, unique });
                continue;
            }
            Builder::Numbers(numbers) => Values::Numbers(numbers),
            Builder::Words { codes, words, .. } => Values::Words { codes, words },
            Builder::TooManyWords => Values::TooManyWords,
        };
        debug_assert_ne!(Some(index), ids, "the column that names rows is built as such");
        let stray_text = seen.first_text.filter(|_| seen.numbers > 0).map(|(line, text)| (seen.numbers, line, text));
        table.columns.push(Column { name, values, missing: seen.missing, stray_text });
    }
    table
}

fn is_unique(values: &[String]) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(values.len());
    values.iter().all(|value| seen.insert(value))
}

/// What the first reading saw of a column.
#[derive(Debug, Default)]
struct Seen {
    missing: usize,
    numbers: usize,
    first_text: Option<(u64, String)>,
    infinite: Option<(u64, String)>,
}

impl Seen {
    fn take(&mut self, line: u64, cell: Cell<'_>) {
        match cell {
            Cell::Missing => self.missing += 1,
            Cell::Number(_) => self.numbers += 1,
            Cell::Text(text) => {
                // What reads as a number and is none of [`cell_of`]'s: `inf`, or digits beyond the largest there is.
                let infinite = text.parse::<f64>().is_ok();
                let place = if infinite { &mut self.infinite } else { &mut self.first_text };
                if place.is_none() {
                    *place = Some((line, text.chars().take(40).collect()));
                }
            }
        }
    }
}

/// Collects a column in the second reading.
enum Builder {
    Ids(Vec<String>),
    Numbers(Vec<f64>),
    Words { codes: Vec<u32>, words: Vec<String>, by_word: HashMap<String, u32> },
    TooManyWords,
}

impl Builder {
    fn new(seen: &Seen, is_id: bool, rows: usize) -> Self {
        if is_id {
            Builder::Ids(Vec::with_capacity(rows))
        } else if seen.first_text.is_none() {
            Builder::Numbers(Vec::with_capacity(rows))
        } else {
            Builder::Words { codes: Vec::with_capacity(rows), words: Vec::new(), by_word: HashMap::new() }
        }
    }

    fn push(&mut self, cell: Cell<'_>) {
        match self {
            Builder::Ids(ids) => ids.push(text_of(cell)),
            // A text here means that the file changed between the readings; it counts as missing.
            Builder::Numbers(numbers) => numbers.push(if let Cell::Number(number) = cell { number } else { f64::NAN }),
            Builder::TooManyWords => {}
            Builder::Words { codes, words, by_word } => {
                if cell == Cell::Missing {
                    codes.push(MISSING);
                    return;
                }
                if matches!(cell, Cell::Text(text) if text.len() > LONGEST_WORD) {
                    *self = Builder::TooManyWords;
                    return;
                }
                let word = text_of(cell);
                let next = words.len() as u32;
                let code = *by_word.entry(word).or_insert_with_key(|word| {
                    words.push(word.clone());
                    next
                });
                codes.push(code);
                if words.len() > MOST_WORDS {
                    *self = Builder::TooManyWords;
                }
            }
        }
    }
}

/// A value as text; numbers in their shortest form.
pub fn text_of(cell: Cell<'_>) -> String {
    match cell {
        Cell::Missing => String::new(),
        // Adding zero makes -0 into 0.
        Cell::Number(number) => (number + 0.0).to_string(),
        Cell::Text(text) => text.to_owned(),
    }
}

/// What a value in a text file is.
pub fn cell_of(text: &str) -> Cell<'_> {
    let text = text.trim();
    let missing = ["", "na", "n/a", "nan", "-nan", "+nan", "null", "?"];
    if missing.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Cell::Missing;
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Cell::Number(number),
        Ok(_) | Err(_) => Cell::Text(text),
    }
}

#[cfg(test)]
mod tests;
