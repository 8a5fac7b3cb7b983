//! The data of charts as CSV (RFC 4180), for those who want the numbers.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::web::problem::{Answer, Problem};

/// A table as a file that the browser keeps. `name` is made of our own words and valid names.
///
/// # Errors
/// Our own fault alone.
pub fn answer<const N: usize>(
    name: &str,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Answer<Response> {
    // A text may hold what separates fields elsewhere.
    let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::NonNumeric).from_writer(Vec::new());
    writer.write_record(head).map_err(|error| Problem::internal(&error))?;
    for row in rows {
        writer.write_record(row).map_err(|error| Problem::internal(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| Problem::internal(&error))?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.csv\"")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, bytes).into_response())
}

/// What separates fields or rows where commas do not: as spreadsheets are set in many countries, or told to.
const SEPARATORS: [char; 5] = [';', '\t', '|', '\n', '\r'];

/// A text from outside: spreadsheets take what begins like a formula for one. One that separates by `;` does not know our quotes in
/// the middle of a line, so the text may be several fields to it, each of which may begin so.
pub fn text(value: &str) -> String {
    let mut safe = String::with_capacity(value.len() + 1);
    for field in value.split_inclusive(SEPARATORS) {
        // Quotes and blanks before it are taken off, or do not count.
        let begin = field.trim_start_matches(|c: char| c == '"' || (c.is_whitespace() && !SEPARATORS.contains(&c)));
        if begin.starts_with(['=', '+', '-', '@']) || field.starts_with(['\t', '\r']) {
            safe.push('\'');
        }
        safe.push_str(field);
    }
    safe
}

/// A number, or nothing.
pub fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_formula_is_text() {
        assert_eq!(text("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(text("main"), "main");
        assert_eq!(text(""), "");
        assert_eq!(text("a-b=c; d"), "a-b=c; d");
        assert_eq!(text("\t=1"), "'\t'=1");
        assert_eq!(text("x;=1+1;@SUM(A1)"), "x;'=1+1;'@SUM(A1)");
        assert_eq!(text("x; \"=1+1"), "x;' \"=1+1");
        assert_eq!(text("x|+1\n-2"), "x|'+1\n'-2");
        assert_eq!(number(Some(0.25)), "0.25");
        assert_eq!(number(Some(f64::NAN)), "");
        assert_eq!(number(None), "");
    }

    /// As a spreadsheet reads it that knows another separator: of each line that it would cut, no field is a formula.
    #[tokio::test]
    async fn no_separator_makes_a_formula_of_a_text() {
        let hostile = ["=1+1", "x;=1+1;y", "x;\"=1+1;\"", "\"=1+1", "x\t@SUM(1)", "a|b;+1"];
        let rows = hostile.map(|one| ["7".to_owned(), text(one)]);
        let answer = answer("t", ["number", "text"], rows).expect("a table");
        let bytes = axum::body::to_bytes(answer.into_body(), 10_000).await.expect("a body");
        let table = std::str::from_utf8(&bytes).expect("text");
        assert!(table.starts_with("\"number\",\"text\"\n7,\"'=1+1\"\n7,\"x;'=1+1;y\"\n"), "{table}");
        for separator in [',', ';', '\t', '|'] {
            for field in table.lines().flat_map(|line| line.split(separator)) {
                let begin = field.trim_start_matches(['"', ' ']);
                assert!(!begin.starts_with(['=', '+', '-', '@']), "{field:?} of {table}");
            }
        }
    }
}
