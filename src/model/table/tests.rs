use std::fs::File;
use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

fn load(text: &[u8]) -> Result<Table, TableError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data.csv");
    std::fs::write(&path, text).expect("written");
    Table::load(&path, "data.csv")
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
    let cells = |name: &str| (0..3).map(|row| text_of(table.column(name).expect(name).cell(row))).collect::<Vec<_>>();
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
    check_error(b"a\n1\ninf\n", "line 3: `a` is `inf`, which is not a finite number (at most 1.7976931348623157e308)");
    check_error(b"a\n\xff\n", "line 2: the text is not UTF-8");
    check_error(b"a,b\n", "it has no rows");
    check_error(b"", "it is empty: no header");
    check_error(b"a;b\n1;2\n", "its values seem to be separated by ';'; they must be separated by commas");
    let error = Table::load(Path::new("/no/such/file.csv"), "file.csv").expect_err("an error").to_string();
    assert!(error.starts_with("cannot read the data file `file.csv`"), "{error}");
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

/// Two rows of four columns.
fn small_parquet(path: &Path) {
    let schema = "message m { required int64 id; optional double x; required binary s (UTF8); required boolean b; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut writer =
        SerializedFileWriter::new(File::create(path).expect("a file"), schema, Default::default()).expect("a writer");
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
}

#[test]
fn parquet_is_read_like_csv() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    small_parquet(&path);
    let table = Table::load(&path, "data.csv").expect("read");
    assert_eq!((table.rows, table.row_id(1)), (2, "6".to_owned()));
    let row = |row| table.columns.iter().map(|column| text_of(column.cell(row))).collect::<Vec<_>>();
    assert_eq!([row(0), row(1)], [["1.5", "u", "true"], ["", "v", "false"]]);

    std::fs::write(&path, b"PAR1 but nothing more").expect("written");
    let error = Table::load(&path, "data.csv").expect_err("an error").to_string();
    assert!(error.contains("it is not a readable Parquet file"), "{error}");
}

/// Whatever became of a Parquet file's bytes: an error or a table, and no panic.
#[test]
fn damaged_parquet_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data");
    small_parquet(&path);
    let whole = std::fs::read(&path).expect("read");
    let mut refused = 0;
    for place in 0..whole.len() {
        std::fs::write(&path, &whole[..place]).expect("written");
        refused += usize::from(Table::load(&path, "data").is_err());
        for bits in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] ^= bits;
            std::fs::write(&path, damaged).expect("written");
            refused += usize::from(Table::load(&path, "data").is_err());
        }
    }
    assert!(refused > whole.len(), "{refused}");
}
