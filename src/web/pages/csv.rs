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
    let mut writer = csv::Writer::from_writer(Vec::new());
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

/// A text from outside: spreadsheets take what begins like a formula for one.
pub fn text(value: &str) -> String {
    if value.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{value}") } else { value.to_owned() }
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
        assert_eq!(number(Some(0.25)), "0.25");
        assert_eq!(number(Some(f64::NAN)), "");
        assert_eq!(number(None), "");
    }
}
