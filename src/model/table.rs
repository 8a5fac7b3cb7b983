//! A CSV or Parquet file as typed columns.
//!
//! The file is read twice: once to see which columns are numbers, once to keep the values. So memory holds the typed values
//! alone, never the text of the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

/// Columns at most.
const MOST_COLUMNS: usize = 10_000;

/// Values at most, in all columns: 8 bytes each.
const MOST_VALUES: usize = 200_000_000;

/// Different words that a text column may hold; beyond that its values are not kept.
pub const MOST_WORDS: usize = 10_000;

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
    /// More than [`MOST_WORDS`] different words: not kept.
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
    /// Reads a CSV file, or a Parquet file (known by its first bytes).
    ///
    /// # Errors
    /// [`TableError`], with the line where there is one.
    pub fn load(path: &Path) -> Result<Self, TableError> {
        let source = Source::open(path)?;
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
                return Err(source.line(*line, format!("`{name}` is `{text}`, which is not a finite number")));
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
                let word = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
                let place = if word == "inf" || word == "infinity" { &mut self.infinite } else { &mut self.first_text };
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
    let missing = ["", "na", "n/a", "nan", "null", "?"];
    if missing.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Cell::Missing;
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Cell::Number(number),
        Ok(_) | Err(_) => Cell::Text(text),
    }
}

/// Takes the line (or row), the column's index and the value.
type EachCell<'a> = dyn FnMut(u64, usize, Cell<'_>) -> Result<(), TableError> + 'a;

struct Source<'a> {
    path: &'a Path,
    parquet: bool,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, TableError> {
        let mut source = Self { path, parquet: false };
        let mut magic = [0; 4];
        let mut file = source.file()?;
        source.parquet = match file.read_exact(&mut magic) {
            Ok(()) => &magic == b"PAR1",
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(source.read(error)),
        };
        Ok(source)
    }

    fn header(&self) -> Result<Vec<String>, TableError> {
        let header: Vec<String> = if self.parquet {
            let reader = self.parquet_reader()?;
            let schema = reader.metadata().file_metadata().schema_descr().root_schema();
            schema.get_fields().iter().map(|field| field.name().to_owned()).collect()
        } else {
            let mut reader = self.csv_reader()?;
            let header = reader.headers().map_err(|error| self.csv_error(&error, 1))?;
            header.iter().map(|name| name.trim().to_owned()).collect()
        };
        self.check_header(&header)?;
        Ok(header)
    }

    fn check_header(&self, header: &[String]) -> Result<(), TableError> {
        if header.len() > MOST_COLUMNS {
            return Err(self.content(format!("it has {} columns; at most {MOST_COLUMNS} are read", header.len())));
        }
        if header.iter().all(String::is_empty) {
            return Err(self.content("it is empty: no header".to_owned()));
        }
        if let [only] = header
            && let Some(mark) = [';', '\t', '|'].into_iter().find(|mark| only.contains(*mark))
        {
            return Err(
                self.content(format!("its values seem to be separated by {mark:?}; they must be separated by commas"))
            );
        }
        let mut seen = HashMap::new();
        for (index, name) in header.iter().enumerate() {
            if name.is_empty() && index > 0 {
                return Err(self.line(1, format!("column {} has no name", index + 1)));
            }
            if let Some(first) = seen.insert(name, index) {
                return Err(self.line(1, format!("columns {} and {} are both called `{name}`", first + 1, index + 1)));
            }
        }
        Ok(())
    }

    fn for_each_cell(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        if self.parquet { self.parquet_cells(each) } else { self.csv_cells(each) }
    }

    fn csv_cells(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        let mut reader = self.csv_reader()?;
        reader.headers().map_err(|error| self.csv_error(&error, 1))?;
        let mut record = csv::StringRecord::new();
        loop {
            let start = reader.position().line();
            if !reader.read_record(&mut record).map_err(|error| self.csv_error(&error, start))? {
                return Ok(());
            }
            let line = record.position().map_or(start, csv::Position::line);
            for (column, text) in record.iter().enumerate() {
                each(line, column, cell_of(text))?;
            }
        }
    }

    fn parquet_cells(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        let reader = self.parquet_reader()?;
        let broken =
            |error: parquet::errors::ParquetError| self.content(format!("it is not a readable Parquet file: {error}"));
        for (row, line) in reader.get_row_iter(None).map_err(broken)?.zip(1..) {
            let row = row.map_err(broken)?;
            for (column, (name, field)) in row.get_column_iter().enumerate() {
                let mut text = String::new();
                let cell = field_cell(field, &mut text).ok_or_else(|| {
                    self.line(
                        line,
                        format!("`{name}` is a list, map, group or binary; only numbers, texts and booleans are read"),
                    )
                })?;
                each(line, column, cell)?;
            }
        }
        Ok(())
    }

    fn file(&self) -> Result<File, TableError> {
        File::open(self.path).map_err(|error| self.read(error))
    }

    fn csv_reader(&self) -> Result<csv::Reader<BufReader<File>>, TableError> {
        Ok(csv::Reader::from_reader(BufReader::new(self.file()?)))
    }

    fn parquet_reader(&self) -> Result<SerializedFileReader<File>, TableError> {
        SerializedFileReader::new(self.file()?)
            .map_err(|error| self.content(format!("it is not a readable Parquet file: {error}")))
    }

    /// `line` is where the record began.
    fn csv_error(&self, error: &csv::Error, line: u64) -> TableError {
        match error.kind() {
            csv::ErrorKind::Io(source) => self.read(std::io::Error::new(source.kind(), source.to_string())),
            csv::ErrorKind::Utf8 { .. } => self.line(line, "the text is not UTF-8".to_owned()),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                self.line(line, format!("it has {len} values, and the header has {expected_len}"))
            }
            other => self.line(line, format!("the CSV is broken: {other:?}")),
        }
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self, source: std::io::Error) -> TableError {
        TableError::Read { path: self.shown(), source }
    }

    fn line(&self, line: u64, problem: String) -> TableError {
        TableError::Line { path: self.shown(), line, problem }
    }

    fn content(&self, problem: String) -> TableError {
        TableError::Content { path: self.shown(), problem }
    }
}

/// `text` lends its memory to values that are made into text. `None` for nested values and bytes.
fn field_cell<'a>(field: &'a Field, text: &'a mut String) -> Option<Cell<'a>> {
    let number = |number: f64| if number.is_finite() { Cell::Number(number) } else { Cell::Missing };
    Some(match field {
        Field::Null => Cell::Missing,
        Field::Bool(value) => Cell::Text(if *value { "true" } else { "false" }),
        Field::Byte(value) => number(f64::from(*value)),
        Field::Short(value) => number(f64::from(*value)),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => number(f64::from(*value)),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => number(*value as f64),
        Field::UByte(value) => number(f64::from(*value)),
        Field::UShort(value) => number(f64::from(*value)),
        Field::UInt(value) => number(f64::from(*value)),
        Field::ULong(value) => number(*value as f64),
        Field::Float16(value) => number(value.to_f64()),
        Field::Float(value) => number(f64::from(*value)),
        Field::Double(value) => number(*value),
        Field::Decimal(_) => {
            *text = field.to_string();
            cell_of(text)
        }
        Field::Str(value) => cell_of(value),
        Field::Bytes(_) | Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    fn load(text: &[u8]) -> Result<Table, TableError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.csv");
        std::fs::write(&path, text).expect("written");
        Table::load(&path)
    }

    fn check_error(text: &[u8], expected: &str) {
        let error = load(text).expect_err("an error").to_string();
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn columns_are_typed_and_missing_values_known() {
        let table = load(b"\xef\xbb\xbf,a,b,c\n7,1, x ,?\n8,NaN,3,2\n9,-2.5,,na\n").expect("read");
        assert_eq!((table.rows, table.columns.len()), (3, 3));
        assert_eq!(table.row_id(2), "9");
        let cells =
            |name: &str| (0..3).map(|row| text_of(table.column(name).expect(name).cell(row))).collect::<Vec<_>>();
        assert_eq!(cells("a"), ["1", "", "-2.5"]);
        assert_eq!(cells("b"), ["x", "3", ""]);
        assert_eq!(cells("c"), ["", "2", ""]);
        assert!(matches!(table.columns[0].values, Values::Numbers(_)));
        assert_eq!(table.columns[1].stray_text, Some((1, 2, "x".into())));
        assert_eq!(table.columns[2].missing, 2);
    }

    #[test]
    fn rows_are_named_by_number_where_ids_are_doubled() {
        let table = load(b"a,id\n1,x\n2,x\n").expect("read");
        assert_eq!(table.row_id(1), "1");
        assert_eq!(table.columns.len(), 1);
    }

    #[test]
    fn errors_name_line_and_column() {
        check_error(b"a,b\n1,2\n3\n", "line 3: it has 1 values, and the header has 2");
        check_error(b"a,a\n1,2\n", "line 1: columns 1 and 2 are both called `a`");
        check_error(b"a,\n1,2\n", "line 1: column 2 has no name");
        check_error(b"a\n1\ninf\n", "line 3: `a` is `inf`, which is not a finite number");
        check_error(b"a\n\xff\n", "line 2: the text is not UTF-8");
        check_error(b"a,b\n", "it has no rows");
        check_error(b"", "it is empty: no header");
        check_error(b"a;b\n1;2\n", "its values seem to be separated by ';'; they must be separated by commas");
        let error = Table::load(Path::new("/no/such/file.csv")).expect_err("an error").to_string();
        assert!(error.starts_with("cannot read the data file `/no/such/file.csv`"), "{error}");
    }

    #[test]
    fn a_column_of_countless_words_is_not_kept() {
        let mut text = "a,b\n".to_owned();
        for row in 0..=MOST_WORDS {
            text += &format!("word-{row},{row}\n");
        }
        let table = load(text.as_bytes()).expect("read");
        assert!(matches!(table.columns[0].values, Values::TooManyWords));
    }

    #[test]
    fn parquet_is_read_like_csv() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let schema =
            "message m { required int64 id; optional double x; required binary s (UTF8); required boolean b; }";
        let schema = Arc::new(parse_message_type(schema).expect("a schema"));
        let mut writer = SerializedFileWriter::new(File::create(&path).expect("a file"), schema, Default::default())
            .expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("next").expect("id");
        column.typed::<Int64Type>().write_batch(&[5, 6], None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("next").expect("x");
        column.typed::<DoubleType>().write_batch(&[1.5], Some(&[1, 0]), None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("next").expect("s");
        let words = [ByteArray::from("u"), ByteArray::from("v")];
        column.typed::<ByteArrayType>().write_batch(&words, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("next").expect("b");
        column.typed::<BoolType>().write_batch(&[true, false], None, None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");

        let table = Table::load(&path).expect("read");
        assert_eq!((table.rows, table.row_id(1)), (2, "6".to_owned()));
        let row = |row| table.columns.iter().map(|column| text_of(column.cell(row))).collect::<Vec<_>>();
        assert_eq!([row(0), row(1)], [["1.5", "u", "true"], ["", "v", "false"]]);

        std::fs::write(&path, b"PAR1 but nothing more").expect("written");
        let error = Table::load(&path).expect_err("an error").to_string();
        assert!(error.contains("it is not a readable Parquet file"), "{error}");
    }
}
