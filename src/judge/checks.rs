//! Whether one answer of the model API is what the pipeline expects: the failures, in words.
//!
//! A load test calls this for every answer, so [`Checks`] compiles paths and patterns once, and a body is only parsed
//! where something is asked of its JSON.

use std::fmt::Write;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::pipeline::types::{Expect, JsonTest};

/// Characters of an outside value that a message repeats.
const EXCERPT: usize = 120;

/// Failing values that are told one by one for each test of a path; the rest is counted.
const TOLD: usize = 3;

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Names with values, in the order received; one name may come several times.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: &'a [u8],
    /// From sending the request (or from when it was due) to the last byte.
    pub latency: Duration,
}

/// Everything in which the answer is not as expected, in words with both values; empty if all is well.
///
/// For many answers to the same expectation, make [`Checks`] once instead.
pub fn evaluate(expect: &Expect, answer: &Answer<'_>) -> Vec<String> {
    Checks::new(expect).failures(answer)
}

/// An expectation with its JSONPaths and patterns compiled.
#[derive(Debug, Clone)]
pub struct Checks {
    status: Option<u16>,
    headers: Vec<(String, String)>,
    json: Vec<PathTests>,
    body_contains: Option<String>,
    latency: Option<Duration>,
    /// Paths or patterns that cannot be compiled: told for every answer, so that a broken check never passes.
    broken: Vec<String>,
}

#[derive(Debug, Clone)]
struct PathTests {
    text: String,
    path: JsonPath,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
enum Test {
    Plain(JsonTest),
    Pattern(Regex),
}

impl Checks {
    /// Compiles an expectation. A path or pattern that is not valid makes every answer fail with a message that says so.
    pub fn new(expect: &Expect) -> Self {
        let mut broken = Vec::new();
        let mut json = Vec::new();
        for (text, tests) in &expect.json {
            match JsonPath::parse(text) {
                Ok(path) => {
                    let tests = tests.iter().filter_map(|test| compile(text, test, &mut broken)).collect();
                    json.push(PathTests { text: text.clone(), path, tests });
                }
                Err(error) => broken.push(format!("the check's path `{text}` is not a JSONPath: {error}")),
            }
        }
        Self {
            status: expect.status,
            headers: expect.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            json,
            body_contains: expect.body_contains.clone(),
            latency: expect.latency,
            broken,
        }
    }

    /// Everything in which the answer is not as expected, in words; empty if all is well.
    pub fn failures(&self, answer: &Answer<'_>) -> Vec<String> {
        let mut failures = self.broken.clone();
        failures.extend(self.wrong_status(answer.status));
        if let Some(limit) = self.latency.filter(|limit| answer.latency > *limit) {
            failures.push(format!("latency: expected at most {limit:.0?}, got {:.1?}", answer.latency));
        }
        failures.extend(self.headers.iter().filter_map(|(name, value)| wrong_header(name, value, answer)));
        if let Some(text) = &self.body_contains
            && !contains(answer.body, text.as_bytes())
        {
            failures.push(format!("body: expected it to hold {}, got {}", quoted(text), body_excerpt(answer.body)));
        }
        self.json_failures(answer.body, &mut failures);
        failures
    }

    fn wrong_status(&self, got: u16) -> Option<String> {
        match self.status {
            Some(wanted) if wanted != got => Some(format!("status: expected {wanted}, got {got}")),
            None if !(200..300).contains(&got) => Some(format!("status: expected 2xx, got {got}")),
            Some(_) | None => None,
        }
    }

    fn json_failures(&self, body: &[u8], failures: &mut Vec<String>) {
        if self.json.is_empty() {
            return;
        }
        let value: Value = match serde_json::from_slice(body) {
            Ok(value) => value,
            Err(error) => {
                failures.push(format!("body: expected JSON, got {} ({error})", body_excerpt(body)));
                return;
            }
        };
        for tests in &self.json {
            tests.failures(&value, failures);
        }
    }
}

impl PathTests {
    fn failures(&self, value: &Value, failures: &mut Vec<String>) {
        let path = &self.text;
        let selected = self.path.query(value).all();
        if selected.is_empty() {
            failures.push(format!("{path}: expected at least one value, got none; the body is {}", excerpt(value)));
            return;
        }
        for test in &self.tests {
            let mut wrong = selected.iter().filter(|got| !test.holds(got));
            for got in wrong.by_ref().take(TOLD) {
                failures.push(format!("{path}: expected {}, got {}", test.wanted(), test.seen(got)));
            }
            let more = wrong.count();
            if more > 0 {
                failures.push(format!("{path}: and {more} more values that are not {}", test.wanted()));
            }
        }
    }
}

impl Test {
    fn holds(&self, got: &Value) -> bool {
        let number = |holds: fn(&f64, &f64) -> bool, limit: &f64| got.as_f64().is_some_and(|got| holds(&got, limit));
        match self {
            Test::Pattern(pattern) => got.as_str().is_some_and(|text| pattern.is_match(text)),
            Test::Plain(test) => match test {
                JsonTest::Eq(wanted) => same(got, wanted),
                JsonTest::Ne(unwanted) => !same(got, unwanted),
                JsonTest::Lt(limit) => number(f64::lt, limit),
                JsonTest::Le(limit) => number(f64::le, limit),
                JsonTest::Gt(limit) => number(f64::gt, limit),
                JsonTest::Ge(limit) => number(f64::ge, limit),
                JsonTest::Type(kind) => kind == kind_of(got) || (kind == "integer" && is_integer(got)),
                JsonTest::Length(wanted) => length(got) == Some(*wanted),
                // Compiled into `Pattern`.
                JsonTest::Matches(_) => false,
            },
        }
    }

    fn wanted(&self) -> String {
        match self {
            Test::Pattern(pattern) => format!("text that matches /{pattern}/"),
            Test::Plain(test) => match test {
                JsonTest::Eq(wanted) => excerpt(wanted),
                JsonTest::Ne(unwanted) => format!("anything but {}", excerpt(unwanted)),
                JsonTest::Lt(limit) => format!("a number < {limit}"),
                JsonTest::Le(limit) => format!("a number <= {limit}"),
                JsonTest::Gt(limit) => format!("a number > {limit}"),
                JsonTest::Ge(limit) => format!("a number >= {limit}"),
                JsonTest::Type(kind) => format!("type {kind}"),
                JsonTest::Length(wanted) => format!("length {wanted}"),
                JsonTest::Matches(pattern) => format!("text that matches /{pattern}/"),
            },
        }
    }

    /// What was found, with the property that the test is about.
    fn seen(&self, got: &Value) -> String {
        match self {
            Test::Plain(JsonTest::Type(_)) => format!("{}: {}", kind_of(got), excerpt(got)),
            Test::Plain(JsonTest::Length(_)) => match length(got) {
                Some(length) => format!("length {length}: {}", excerpt(got)),
                None => format!("a {}, which has no length: {}", kind_of(got), excerpt(got)),
            },
            Test::Plain(_) | Test::Pattern(_) => excerpt(got),
        }
    }
}

fn compile(path: &str, test: &JsonTest, broken: &mut Vec<String>) -> Option<Test> {
    let JsonTest::Matches(pattern) = test else { return Some(Test::Plain(test.clone())) };
    match Regex::new(pattern) {
        Ok(pattern) => Some(Test::Pattern(pattern)),
        Err(error) => {
            broken.push(format!("{path}: the check's pattern is not valid: {error}"));
            None
        }
    }
}

fn wrong_header(name: &str, wanted: &str, answer: &Answer<'_>) -> Option<String> {
    let mut got = answer.headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    if got.clone().any(|value| value == wanted) {
        return None;
    }
    let wanted = quoted(wanted);
    Some(match got.next() {
        Some(value) => format!("header {name}: expected {wanted}, got {}", quoted(value)),
        None => format!("header {name}: expected {wanted}, got no such header"),
    })
}

/// JSON equality in which `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || ((x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        (a, b) => a == b,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// As in JSON Schema: a number without a fraction, however it is written.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn length(value: &Value) -> Option<u64> {
    let length = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    Some(length as u64)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// The value as JSON, cut to [`EXCERPT`] characters.
fn excerpt(value: &Value) -> String {
    cut(&value.to_string())
}

/// The text in quotes with control characters escaped, cut to [`EXCERPT`] characters.
fn quoted(text: &str) -> String {
    cut(&format!("{text:?}"))
}

fn body_excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    // Four bytes are enough for any character, so the cut below still finds its end.
    let head = &body[..body.len().min(EXCERPT * 4)];
    quoted(&String::from_utf8_lossy(head))
}

fn cut(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(EXCERPT) else { return text.to_owned() };
    let mut short = text[..end].to_owned();
    write!(short, "…").expect("writing into a String does not fail");
    short
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::*;

    fn answer(body: &str) -> Answer<'_> {
        Answer {
            status: 200,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: body.as_bytes(),
            latency: Duration::from_millis(20),
        }
    }

    fn check_json(path: &str, test: JsonTest, body: &str, expected: &[&str]) {
        let expect = Expect { json: IndexMap::from([(path.to_owned(), vec![test])]), ..Expect::default() };
        assert_eq!(evaluate(&expect, &answer(body)), expected, "{path} of {body}");
    }

    #[test]
    fn json_tests_say_what_was_expected_and_got() {
        let body = r#"{"p": 0.5, "n": 3, "s": "abc", "list": [1, 2.0], "z": null}"#;
        check_json("$.p", JsonTest::Ge(0.0), body, &[]);
        check_json("$.p", JsonTest::Gt(0.5), body, &["$.p: expected a number > 0.5, got 0.5"]);
        check_json("$.s", JsonTest::Le(1.0), body, &["$.s: expected a number <= 1, got \"abc\""]);
        check_json("$.n", JsonTest::Eq(json!(3.0)), body, &[]);
        check_json("$.list", JsonTest::Eq(json!([1.0, 2])), body, &[]);
        check_json("$.n", JsonTest::Ne(json!(3)), body, &["$.n: expected anything but 3, got 3"]);
        check_json("$.n", JsonTest::Type("integer".into()), body, &[]);
        check_json("$.p", JsonTest::Type("integer".into()), body, &["$.p: expected type integer, got number: 0.5"]);
        check_json("$.z", JsonTest::Type("null".into()), body, &[]);
        check_json("$.s", JsonTest::Length(3), body, &[]);
        check_json("$.list", JsonTest::Length(3), body, &["$.list: expected length 3, got length 2: [1,2.0]"]);
        check_json("$.n", JsonTest::Length(1), body, &["$.n: expected length 1, got a number, which has no length: 3"]);
        check_json("$.s", JsonTest::Matches("^a.c$".into()), body, &[]);
        check_json("$.s", JsonTest::Matches("^b".into()), body, &["$.s: expected text that matches /^b/, got \"abc\""]);
    }

    #[test]
    fn a_path_must_select_something_and_every_value_is_tested() {
        check_json(
            "$.gone",
            JsonTest::Ne(json!(1)),
            "{}",
            &["$.gone: expected at least one value, got none; the body is {}"],
        );
        check_json("$[*]", JsonTest::Lt(3.0), "[1, 2, 3]", &["$[*]: expected a number < 3, got 3"]);
        check_json(
            "$[*]",
            JsonTest::Lt(0.0),
            "[1, 2, 3, 4, 5]",
            &[
                "$[*]: expected a number < 0, got 1",
                "$[*]: expected a number < 0, got 2",
                "$[*]: expected a number < 0, got 3",
                "$[*]: and 2 more values that are not a number < 0",
            ],
        );
    }

    #[test]
    fn a_broken_check_never_passes() {
        let expect = Expect { json: IndexMap::from([("not a path".to_owned(), vec![])]), ..Expect::default() };
        assert_eq!(evaluate(&expect, &answer("{}")).len(), 1);
        let tests = vec![JsonTest::Matches("(".into())];
        let expect = Expect { json: IndexMap::from([("$".to_owned(), tests)]), ..Expect::default() };
        assert_eq!(evaluate(&expect, &answer("\"a\"")).len(), 1);
    }

    #[test]
    fn status_headers_body_and_latency() {
        let expect = Expect {
            status: Some(201),
            headers: IndexMap::from([
                ("content-type".to_owned(), "text/plain".to_owned()),
                ("x-id".to_owned(), "1".to_owned()),
            ]),
            body_contains: Some("ok".to_owned()),
            latency: Some(Duration::from_millis(10)),
            ..Expect::default()
        };
        assert_eq!(
            evaluate(&expect, &answer("no\n")),
            [
                "status: expected 201, got 200",
                "latency: expected at most 10ms, got 20.0ms",
                "header content-type: expected \"text/plain\", got \"application/json\"",
                "header x-id: expected \"1\", got no such header",
                "body: expected it to hold \"ok\", got \"no\\n\"",
            ]
        );
        let fine = Answer { status: 204, headers: vec![], body: b"", latency: Duration::ZERO };
        assert_eq!(evaluate(&Expect::default(), &fine), Vec::<String>::new());
        let moved = Answer { status: 302, ..fine };
        assert_eq!(evaluate(&Expect::default(), &moved), ["status: expected 2xx, got 302"]);
    }

    #[test]
    fn hostile_bodies_are_cut_and_named() {
        let long = format!("\"{}\"", "ü".repeat(100_000));
        let expect =
            Expect { json: IndexMap::from([("$".to_owned(), vec![JsonTest::Eq(json!(1))])]), ..Expect::default() };
        let failures = evaluate(&expect, &answer(&long));
        assert!(failures[0].chars().count() < 200, "{}", failures[0]);
        let broken = Answer { body: &[0xff, 0xfe, b'x'], ..answer("") };
        assert_eq!(evaluate(&expect, &broken).len(), 1);
        assert!(evaluate(&expect, &answer(""))[0].contains("an empty body"));
    }
}
