//! What the adapters of foreign load generators share.

use crate::ids::Micros;
use crate::load::report::{LoadModel, LoadReport, RequestReport, Tool, Verdict};

/// Reads one of the tool's result files by its name; `None` if it is not there.
pub type Files<'a> = dyn Fn(&str) -> Option<Vec<u8>> + 'a;

/// Results that cannot be read: the tool broke, whatever the server did.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It did not come so far.
    #[error("{tool} ended without writing `{file}`: its own output says why")]
    Missing {
        /// Its name.
        tool: &'static str,
        /// The file.
        file: String,
    },
    /// Not what it writes.
    #[error("`{file}` is not what {tool} writes: {reason}")]
    Malformed {
        /// Its name.
        tool: &'static str,
        /// The file.
        file: String,
        /// The parser's word.
        reason: String,
    },
}

/// A report with nothing in it yet.
pub(super) fn empty(tool: Tool, users: u32) -> LoadReport {
    LoadReport {
        tool,
        target: String::new(),
        model: LoadModel::Closed { users },
        started: Micros::default(),
        ended: Micros::default(),
        counted_seconds: 0.0,
        verdict: Verdict::Invalid,
        reasons: Vec::new(),
        notes: Vec::new(),
        thresholds: Vec::new(),
        total: RequestReport { name: "all".to_owned(), ..RequestReport::default() },
        requests: Vec::new(),
        errors: Vec::new(),
        series: Vec::new(),
        contract: Vec::new(),
        generator: None,
        cancelled: false,
    }
}

/// A word for `sh`, whatever is in it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Arguments as one line for `sh`.
pub(super) fn line(arguments: &[String]) -> String {
    arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, expected) in [
            ("a-b/c.py", "a-b/c.py"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(rm x)", "'$(rm x)'"),
            ("it's", r"'it'\''s'"),
            ("p(95)", "'p(95)'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
