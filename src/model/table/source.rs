//! A CSV or Parquet file, read cell by cell.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::{Cell, MOST_COLUMNS, TableError, cell_of};

/// Takes the line (or row), the column's index and the value.
type EachCell<'a> = dyn FnMut(u64, usize, Cell<'_>) -> Result<(), TableError> + 'a;

/// A data file, of whichever kind.
pub(super) struct Source<'a> {
    path: &'a Path,
    parquet: bool,
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self, TableError> {
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

    pub(super) fn header(&self) -> Result<Vec<String>, TableError> {
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

    pub(super) fn for_each_cell(&self, each: &mut EachCell<'_>) -> Result<(), TableError> {
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

    pub(super) fn line(&self, line: u64, problem: String) -> TableError {
        TableError::Line { path: self.shown(), line, problem }
    }

    pub(super) fn content(&self, problem: String) -> TableError {
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
