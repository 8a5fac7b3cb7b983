//! A CSV or Parquet file, read cell by cell.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::bounded::{Bounded, LONGEST_ROW, MOST_ROW_LINES, Meter};
use super::caught::caught;
use super::{Cell, LONGEST_WORD, MOST_COLUMNS, TableError, cell_of, foreign};

/// Bytes of text that are read at once.
const BUFFER: usize = 64 << 10;

/// Takes the line (or row), the column's index and the value.
type EachCell<'a> = dyn FnMut(u64, usize, Cell<'_>) -> Result<(), TableError> + 'a;

/// A data file, of whichever kind.
pub(super) struct Source<'a> {
    path: &'a Path,
    /// What it is called in messages.
    name: &'a str,
    parquet: bool,
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &'a Path, name: &'a str) -> Result<Self, TableError> {
        let mut source = Self { path, name, parquet: false };
        let mut begin = Vec::new();
        let read = source.file()?.take(foreign::TELLING as u64).read_to_end(&mut begin);
        read.map_err(|error| source.read(error))?;
        source.parquet = begin.starts_with(b"PAR1");
        match foreign::what(&begin) {
            Some(words) => Err(source.content(words.to_owned())),
            None => Ok(source),
        }
    }

    pub(super) fn header(&self) -> Result<Vec<String>, TableError> {
        let header: Vec<String> = if self.parquet {
            let reader = self.parquet_reader()?;
            let schema = reader.metadata().file_metadata().schema_descr().root_schema();
            schema.get_fields().iter().map(|field| field.name().to_owned()).collect()
        } else {
            let mut reader = self.csv_reader(Meter::default())?;
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
        if let Some(index) = header.iter().position(|name| name.len() > LONGEST_WORD) {
            let problem = format!("the name of column {} is longer than {LONGEST_WORD} bytes", index + 1);
            return Err(self.line(1, format!("{problem}; is it a table with a header?")));
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

    pub(super) fn for_each_cell(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        if self.parquet { self.parquet_cells(each) } else { self.csv_cells(each) }
    }

    fn csv_cells(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        let meter = Meter::default();
        let mut reader = self.csv_reader(meter.clone())?;
        reader.headers().map_err(|error| self.csv_error(&error, 1))?;
        let mut record = csv::StringRecord::new();
        loop {
            meter.restart();
            let start = reader.position().line();
            let read = reader.read_record(&mut record);
            let line = record.position().map_or(start, csv::Position::line);
            let lines = reader.position().line().saturating_sub(line);
            let unclosed = |error| if lines > 1 { self.unclosed(error, lines) } else { error };
            if !read.map_err(|error| unclosed(self.csv_error(&error, start)))? {
                return Ok(());
            }
            if lines > MOST_ROW_LINES {
                return Err(unclosed(self.line(line, "it is too long a row".to_owned())));
            }
            for (column, text) in record.iter().enumerate() {
                each(line, column, cell_of(text))?;
            }
        }
    }

    fn parquet_cells(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
        let reader = self.parquet_reader()?;
        let mut rows = self.whole(caught(|| reader.get_row_iter(None)))?;
        for line in 1.. {
            let Some(row) = self.whole(caught(|| rows.next().transpose()))? else { break };
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

    fn csv_reader(&self, meter: Meter) -> Result<csv::Reader<Bounded<File>>, TableError> {
        Ok(csv::ReaderBuilder::new().buffer_capacity(BUFFER).from_reader(Bounded::new(self.file()?, meter)))
    }

    fn parquet_reader(&self) -> Result<SerializedFileReader<File>, TableError> {
        let file = self.file()?;
        self.whole(caught(|| SerializedFileReader::new(file)))
    }

    /// What the Parquet library gave, if it neither failed nor panicked.
    fn whole<T>(&self, given: Option<Result<T, ParquetError>>) -> Result<T, TableError> {
        let reason = match given {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) => error.to_string(),
            None => "it is damaged".to_owned(),
        };
        Err(self.content(format!("it is not a readable Parquet file: {reason}")))
    }

    /// `line` is where the record began.
    fn csv_error(&self, error: &csv::Error, line: u64) -> TableError {
        match error.kind() {
            csv::ErrorKind::Io(source) if source.kind() == ErrorKind::FileTooLarge => self.line(
                line,
                format!("the row has more than {} MiB: is a quotation mark in it not closed?", LONGEST_ROW >> 20),
            ),
            csv::ErrorKind::Io(source) => self.read(std::io::Error::new(source.kind(), source.to_string())),
            csv::ErrorKind::Utf8 { .. } => self.line(line, "the text is not UTF-8".to_owned()),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                self.line(line, format!("it has {len} values, and the header has {expected_len}"))
            }
            other => self.line(line, format!("the CSV is broken: {other:?}")),
        }
    }

    /// Says what is mostly the reason if a row goes over several lines.
    fn unclosed(&self, error: TableError, lines: u64) -> TableError {
        match error {
            TableError::Line { path, line, problem } => {
                let problem =
                    format!("{problem}; the row goes over {lines} lines: is a quotation mark in it not closed?");
                TableError::Line { path, line, problem }
            }
            other @ (TableError::Read { .. } | TableError::Content { .. }) => other,
        }
    }

    fn read(&self, source: std::io::Error) -> TableError {
        TableError::Read { path: self.name.to_owned(), source }
    }

    pub(super) fn line(&self, line: u64, problem: String) -> TableError {
        TableError::Line { path: self.name.to_owned(), line, problem }
    }

    pub(super) fn content(&self, problem: String) -> TableError {
        TableError::Content { path: self.name.to_owned(), problem }
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
