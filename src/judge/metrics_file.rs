//! A metrics file: JSON in which nested numbers get dotted names. Anything but finite numbers is an error that names it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::pipeline::diagnostic::shown;

/// Bytes that are read at most.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Numbers that are kept at most.
const MOST_NUMBERS: usize = 1000;

/// Why a metrics file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsFileError {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object of numbers.
    #[error("it must be a JSON object such as {{\"accuracy\": 0.9}}, and is a {0}")]
    NotObject(&'static str),
    /// A value is not a finite number.
    #[error("the metric `{name}` is {found}, not a finite number")]
    NotNumber {
        /// Dotted name.
        name: String,
        /// What it is.
        found: String,
    },
    /// One name stands for two numbers.
    #[error("the metric `{0}` is there twice")]
    Doubled(String),
    /// A name that no report could show.
    #[error("the name of the metric `{0}` has more than {LONGEST_NAME} bytes")]
    LongName(String),
    /// No number at all.
    #[error("it holds no number")]
    Empty,
    /// Larger than what is read.
    #[error("it is too large: at most {MOST_NUMBERS} numbers and {} MiB are read", MOST_BYTES / 1024 / 1024)]
    TooLarge,
}

/// Bytes of a metric's dotted name at most.
const LONGEST_NAME: usize = 200;

/// Reads the numbers of a metrics file: `{"a": {"b": 1}}` is `a.b` = 1.
///
/// # Errors
/// [`MetricsFileError`]; `NaN` and `Infinity` are named, although they are not JSON (Python writes them).
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, f64>, MetricsFileError> {
    if bytes.len() > MOST_BYTES {
        return Err(MetricsFileError::TooLarge);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        // Only to find the name: the quoted word then fails as text that is not a number.
        Err(error) => serde_json::from_slice(&quote_not_numbers(bytes))
            .map_err(|_| MetricsFileError::NotJson(error.to_string()))?,
    };
    let Value::Object(fields) = value else { return Err(MetricsFileError::NotObject(kind(&value))) };
    let mut numbers = BTreeMap::new();
    for (name, value) in fields {
        collect(name, value, &mut numbers)?;
    }
    if numbers.is_empty() { Err(MetricsFileError::Empty) } else { Ok(numbers) }
}

fn collect(name: String, value: Value, numbers: &mut BTreeMap<String, f64>) -> Result<(), MetricsFileError> {
    let found = match &value {
        Value::Object(_) => {
            let Value::Object(fields) = value else { return Ok(()) };
            return fields.into_iter().try_for_each(|(key, value)| collect(format!("{name}.{key}"), value, numbers));
        }
        _ if name.len() > LONGEST_NAME => return Err(MetricsFileError::LongName(shown(&name))),
        Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(_) if numbers.len() == MOST_NUMBERS => return Err(MetricsFileError::TooLarge),
            Some(number) => {
                return match numbers.insert(name.clone(), number) {
                    None => Ok(()),
                    Some(_) => Err(MetricsFileError::Doubled(name)),
                };
            }
            None => number.to_string(),
        },
        Value::String(text) => match text.as_str() {
            "NaN" | "Infinity" | "-Infinity" => text.clone(),
            text => match text.char_indices().nth(40) {
                Some((end, _)) => format!("the text {:?}", format!("{}…", &text[..end])),
                None => format!("the text {text:?}"),
            },
        },
        Value::Array(_) => "a list".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
    };
    Err(MetricsFileError::NotNumber { name, found })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Puts bare `NaN`, `Infinity` and `-Infinity` outside of strings into quotes.
fn quote_not_numbers(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let (mut rest, mut in_string) = (bytes, false);
    while let Some(&byte) = rest.first() {
        let word = [&b"NaN"[..], b"-Infinity", b"Infinity"].into_iter().find(|word| rest.starts_with(word));
        if let (false, Some(word)) = (in_string, word) {
            out.extend([b"\"", word, b"\""].concat());
            rest = &rest[word.len()..];
            continue;
        }
        let taken = if in_string && byte == b'\\' { rest.len().min(2) } else { 1 };
        in_string ^= byte == b'"';
        out.extend(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), expected);
    }

    #[test]
    fn nested_numbers_get_dotted_names() {
        let numbers = parse(br#"{"accuracy": 0.5, "confusion": {"0": {"1": 3}}, "rows": 7}"#).expect("valid");
        let expected = [("accuracy", 0.5), ("confusion.0.1", 3.0), ("rows", 7.0)];
        assert_eq!(numbers, expected.map(|(name, number)| (name.to_owned(), number)).into());
    }

    #[test]
    fn anything_else_is_named() {
        check_error(r#"{"a": {"f1": NaN}}"#, "the metric `a.f1` is NaN, not a finite number");
        check_error(r#"{"say \"NaN": 1, "loss": -Infinity}"#, "the metric `loss` is -Infinity, not a finite number");
        check_error(r#"{"a": "0.9"}"#, "the metric `a` is the text \"0.9\", not a finite number");
        check_error(r#"{"a": null}"#, "the metric `a` is null, not a finite number");
        check_error(r#"{"a": [1]}"#, "the metric `a` is a list, not a finite number");
        check_error(r#"{"a": true}"#, "the metric `a` is true, not a finite number");
        check_error(r#"{"a.b": 1, "a": {"b": 2}}"#, "the metric `a.b` is there twice");
        check_error("{}", "it holds no number");
        check_error("[1]", "it must be a JSON object such as {\"accuracy\": 0.9}, and is a list");
        check_error("{", "it is not JSON: EOF while parsing an object at line 1 column 1");
        check_error("{\"a\": 1e999}", "it is not JSON: number out of range at line 1 column 11");
        assert!(parse(&[b'['; 100_000]).is_err());
    }
}
