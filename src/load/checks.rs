//! `test-api`: requests to the model API, one after the other, with what each answer must be.
//!
//! Every check has a connection of its own, so that one broken answer cannot spoil the next check.

use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::judge::checks::{Answer, evaluate};
use crate::load::encode::Encoded;
use crate::load::http::{Ask, BODY_EXCERPT, Connection, ExchangeError, Keep, Reply};
use crate::load::target::{Endpoint, Target, TargetError};
use crate::pipeline::types::{ApiCheck, Expect, HttpRequest, JsonTest};

/// Time for one check's answer.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of one check. All text is from outside: show it as such.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// Whether the answer is as expected.
    pub passed: bool,
    /// What is wrong, in words.
    pub failures: Vec<String>,
    /// The request as it was sent (first 4 KiB); empty if it could not be made.
    pub request: String,
    /// The answer's status; `None` without an answer.
    pub status: Option<u16>,
    /// The answer's headers.
    pub headers: Vec<(String, String)>,
    /// The first 4 KiB of the answer's body.
    pub body: String,
    /// Length of the whole body.
    pub body_bytes: u64,
    /// From connecting to the last byte.
    pub latency_ms: f64,
    /// What was expected, a line each.
    pub expected: Vec<String>,
}

/// Runs all checks in order, failed or not.
///
/// # Errors
/// [`TargetError`] if the target makes no sense. That nobody listens fails each check instead.
pub async fn run_checks(target: &Target, checks: &[ApiCheck]) -> Result<Vec<CheckResult>, TargetError> {
    let endpoint = Endpoint::resolve(target).await?;
    let mut results = Vec::with_capacity(checks.len());
    for check in checks {
        let single = SingleRequest {
            name: &check.name,
            request: &check.request,
            body: None,
            expect: &check.expect,
            timeout: CHECK_TIMEOUT,
        };
        results.push(try_once(target, &endpoint, single).await);
    }
    Ok(results)
}

/// One request to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct SingleRequest<'a> {
    pub name: &'a str,
    pub request: &'a HttpRequest,
    /// The body, where the request takes it from a file.
    pub body: Option<&'a Bytes>,
    pub expect: &'a Expect,
    pub timeout: Duration,
}

/// Sends one request on a connection of its own and judges the answer.
pub(super) async fn try_once(target: &Target, endpoint: &Endpoint, single: SingleRequest<'_>) -> CheckResult {
    let mut result = CheckResult {
        name: single.name.to_owned(),
        passed: false,
        failures: Vec::new(),
        request: String::new(),
        status: None,
        headers: Vec::new(),
        body: String::new(),
        body_bytes: 0,
        latency_ms: 0.0,
        expected: describe(single.expect),
    };
    let encoded = match Encoded::new(&target.base, single.request) {
        Ok(encoded) => encoded,
        Err(error) => {
            result.failures.push(error.to_string());
            return result;
        }
    };
    let mut space = Vec::new();
    let bytes = encoded.bytes(single.body, &mut space);
    result.request = excerpt(bytes);
    let ask = Ask { bytes, is_head: encoded.is_head(), keep: Keep::ALL };
    let started = Instant::now();
    let answer = tokio::time::timeout(single.timeout, exchange_once(endpoint, ask)).await;
    let latency = started.elapsed();
    result.latency_ms = latency.as_secs_f64() * 1000.0;
    match answer.unwrap_or(Err(ExchangeError::Timeout(single.timeout))) {
        Err(error) => result.failures.push(error.to_string()),
        Ok(reply) => {
            result.status = Some(reply.status);
            result.body = excerpt(&reply.body);
            result.body_bytes = reply.body_bytes;
            result.headers.clone_from(&reply.headers);
            let answer = Answer { status: reply.status, headers: reply.headers, body: &reply.body, latency };
            result.failures = evaluate(single.expect, &answer);
            if !result.failures.is_empty() && (300..400).contains(&answer.status) {
                result
                    .failures
                    .push("redirects are not followed: ask for the address that the answer names".to_owned());
            }
        }
    }
    result.passed = result.failures.is_empty();
    result
}

async fn exchange_once(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Reply, ExchangeError> {
    let mut reply = Reply::default();
    Connection::open(endpoint).await?.exchange(ask, &mut reply).await?;
    Ok(reply)
}

/// The first 4 KiB as text; what is not UTF-8 is shown as such. Bytes that are no text (compressed, an image)
/// are not shown.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    if is_binary(&bytes[..bytes.len().min(BODY_EXCERPT)]) {
        return "(no text)".to_owned();
    }
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_EXCERPT)]).into_owned();
    if bytes.len() > BODY_EXCERPT {
        // The cut may have gone through a character.
        if text.ends_with('\u{fffd}') {
            text.pop();
        }
        text.push('…');
    }
    text
}

impl CheckResult {
    /// For the log: one line if it passed, else the request, the answer and what was expected.
    ///
    /// Control characters of outside text are shown by name, so that an answer cannot repaint the terminal.
    pub fn render(&self) -> String {
        harmless(&self.render_raw())
    }

    fn render_raw(&self) -> String {
        let mut out = String::new();
        let mark = if self.passed { "ok  " } else { "FAIL" };
        let status = self.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        put(&mut out, format_args!("{mark} {} ({status}, {:.1} ms)", self.name, self.latency_ms));
        if self.passed {
            return out;
        }
        for failure in &self.failures {
            put(&mut out, format_args!("     - {failure}"));
        }
        put(&mut out, format_args!("     expected:"));
        for line in &self.expected {
            put(&mut out, format_args!("       {line}"));
        }
        if !self.request.is_empty() {
            put(&mut out, format_args!("     request:"));
            indent(&mut out, &self.request);
        }
        if let Some(status) = self.status {
            put(&mut out, format_args!("     answer: HTTP {status}"));
            for (name, value) in &self.headers {
                put(&mut out, format_args!("       {name}: {value}"));
            }
            put(&mut out, format_args!("       (body: {} bytes)", self.body_bytes));
            indent(&mut out, &self.body);
        }
        out
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

fn indent(out: &mut String, text: &str) {
    for line in text.lines() {
        if !line.is_empty() {
            out.push_str("       ");
        }
        out.push_str(line);
        out.push('\n');
    }
}

/// Control characters but line ends and tabs by name.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether more than a tenth is neither text nor white space.
fn is_binary(bytes: &[u8]) -> bool {
    let strange = |c: char| c == '\u{fffd}' || (c.is_control() && !c.is_ascii_whitespace() && c != '\u{1b}');
    let count: usize = bytes
        .utf8_chunks()
        .map(|chunk| chunk.valid().chars().filter(|c| strange(*c)).count() + chunk.invalid().len())
        .sum();
    count * 10 > bytes.len()
}

/// An expectation, a line a part.
fn describe(expect: &Expect) -> Vec<String> {
    let mut lines = vec![format!("status {}", expect.status.map_or_else(|| "2xx".to_owned(), |s| s.to_string()))];
    lines.extend(expect.headers.iter().map(|(name, value)| format!("header {name}: {value}")));
    for (path, tests) in &expect.json {
        let tests: Vec<String> = tests.iter().map(describe_test).collect();
        lines.push(format!("json {path} {}", tests.join(" and ")));
    }
    lines.extend(expect.body_contains.iter().map(|text| format!("body contains {text:?}")));
    lines.extend(expect.latency.iter().map(|limit| format!("latency at most {limit:?}")));
    lines
}

fn describe_test(test: &JsonTest) -> String {
    match test {
        JsonTest::Eq(value) => format!("= {value}"),
        JsonTest::Ne(value) => format!("not {value}"),
        JsonTest::Lt(limit) => format!("< {limit}"),
        JsonTest::Le(limit) => format!("<= {limit}"),
        JsonTest::Gt(limit) => format!("> {limit}"),
        JsonTest::Ge(limit) => format!(">= {limit}"),
        JsonTest::Matches(pattern) => format!("matches {pattern:?}"),
        JsonTest::Type(name) => format!("is a {name}"),
        JsonTest::Length(length) => format!("has length {length}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_do_not_cut_characters() {
        assert_eq!(excerpt(b"abc"), "abc");
        assert_eq!(excerpt("gr\u{fc}n \u{1b}[1m".as_bytes()), "gr\u{fc}n \u{1b}[1m");
        assert_eq!(excerpt(b"\x1f\x8b\x08\0\0\0\0\0\x02\xffK"), "(no text)");
        let long = format!("{}é", "a".repeat(BODY_EXCERPT - 1));
        assert_eq!(excerpt(long.as_bytes()), format!("{}…", "a".repeat(BODY_EXCERPT - 1)));
    }

    #[test]
    fn a_failed_check_shows_everything_and_no_control_characters() {
        let result = CheckResult {
            name: "one player".to_owned(),
            passed: false,
            failures: vec!["status: expected 200, got 500".to_owned()],
            request: "POST /predict HTTP/1.1\r\nhost: x\r\n\r\n{}".to_owned(),
            status: Some(500),
            headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
            body: "\u{1b}[2Jmodel not loaded".to_owned(),
            body_bytes: 20,
            latency_ms: 1.25,
            expected: vec!["status 200".to_owned()],
        };
        insta::assert_snapshot!(result.render(), @r"
        FAIL one player (500, 1.2 ms)
             - status: expected 200, got 500
             expected:
               status 200
             request:
               POST /predict HTTP/1.1
               host: x

               {}
             answer: HTTP 500
               content-type: text/plain
               (body: 20 bytes)
               \u{1b}[2Jmodel not loaded
        ");
    }
}
