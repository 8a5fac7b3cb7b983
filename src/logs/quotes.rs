//! Hides secrets in what this program says about the words of others: reports, failures, notes.
//!
//! PURE. Such texts quote answers, files and errors, and are cut, escaped once more and freed of digits (so that like errors
//! are counted together) on their way. So more forms of a secret are looked for than in a log, and the begin of one that `…` cut
//! off is hidden too.

use serde_json::Value;

use super::mask::{self, Mask, SHORTEST};

/// The mark at which a text was cut.
const CUT: char = '…';

/// What a set of secrets looks like in quotes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Quotes(Mask);

impl Quotes {
    /// For secrets given as (name, value).
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut forms, _) = mask::all_forms(secrets);
        let more: Vec<Vec<u8>> =
            forms.iter().flat_map(|form| [escaped_again(form), without_digits(form)]).flatten().collect();
        forms.extend(more);
        Self(Mask::of(forms))
    }

    /// The text with all secrets hidden.
    pub fn text(&self, text: &str) -> String {
        let masked = self.0.apply_once(text);
        if !masked.contains(CUT) {
            return masked;
        }
        let mut out = String::with_capacity(masked.len());
        let mut pieces = masked.split(CUT).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                out.push_str(piece);
                break;
            }
            let begun = self.0.begun_at_the_end(piece);
            out.push_str(&piece[..piece.len() - begun]);
            if begun > 0 {
                out.push_str("***");
            }
            out.push(CUT);
        }
        out
    }

    /// The value with all secrets hidden in its texts and in the names of its fields.
    pub fn json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.json(value)).collect()),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(name, value)| (self.text(&name), self.json(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// As [`Quotes::json`], for a value that was read from somebody else's file: a number there may be a secret, too. Numbers
    /// of our own are counts and measurements.
    pub fn foreign_json(&self, value: Value) -> Value {
        match value {
            Value::Number(number) if self.is_in(&number.to_string()) => Value::String(self.text(&number.to_string())),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.foreign_json(value)).collect()),
            Value::Object(fields) => Value::Object(
                fields.into_iter().map(|(name, value)| (self.text(&name), self.foreign_json(value))).collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.json(value),
        }
    }

    /// Whether a secret is in the text.
    pub fn is_in(&self, text: &str) -> bool {
        self.text(text) != text
    }
}

/// As a quoted text is escaped when it is quoted once more; nothing where that changes nothing.
fn escaped_again(form: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(form).ok()?;
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    (escaped != text).then(|| escaped.into_bytes())
}

/// With `#` for each run of digits, as errors are grouped; nothing where too little is left.
fn without_digits(form: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(form.len());
    for (at, byte) in form.iter().enumerate() {
        match (byte.is_ascii_digit(), at > 0 && form[at - 1].is_ascii_digit()) {
            (true, true) => {}
            (true, false) => out.push(b'#'),
            (false, _) => out.push(*byte),
        }
    }
    let kept = String::from_utf8_lossy(&out).chars().filter(|c| *c != '#').count();
    (kept >= SHORTEST && out != form).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn quotes(value: &str) -> Quotes {
        Quotes::new([("NAME", value)])
    }

    #[test]
    fn quotes_hide_more_than_logs() {
        let check = |secret: &str, text: &str, expected: &str| {
            assert_eq!(quotes(secret).text(text), expected, "{text}");
        };
        check("hunter22-x", "body: hunter22-x", "body: ***");
        check("hunter22-x", "body: hunter#-x", "body: ***");
        check("hunter22-x", "body: hunter2…", "body: ***…");
        check("hunter22-x", "\"say hunt…\" and hun… and hunt", "\"say ***…\" and hun… and hunt");
        check("größer als", "ist größ…", "ist ***…");
        check("pa\"ss\\wd", r#"{\"a\":\"pa\\\"ss\\\\wd\"}"#, r#"{\"a\":\"***\"}"#);
        check("12345678", "# of #", "# of #");
        check("", "nothing…", "nothing…");
    }

    #[test]
    fn names_and_numbers_are_hidden_too() {
        let value = json!({"hunter22": [1, "hunter22", null, {"a": 2.5}], "n": 48151623});
        assert_eq!(quotes("hunter22").json(value.clone()), json!({"***": [1, "***", null, {"a": 2.5}], "n": 48151623}));
        assert_eq!(quotes("48151623").json(value.clone())["n"], 48151623);
        assert_eq!(quotes("48151623").foreign_json(value)["n"], "***");
    }
}
