//! Requests, what is expected of their answers, and `test-api`.

use indexmap::IndexMap;
use serde_json::Value;

use super::Cx;
use crate::pipeline::diagnostic::{Diagnostic, did_you_mean, list, nearest, shown};
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{ApiCheck, Body, Expect, HttpRequest, JsonTest, TestApi};
use crate::pipeline::units;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

pub(super) fn test_api(raw: &raw::TestApi, at: At<'_>, works: bool, cx: &mut Cx<'_>) -> Option<TestApi> {
    let checks_at = at.get("checks");
    if raw.checks.is_empty() && !works && !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "`test-api` checks nothing")
                .help("add `checks`, or `run` with a script that uses `$SERVE_URL`"),
        );
        return None;
    }
    let mut good = true;
    let mut checks = Vec::new();
    for (index, check) in raw.checks.iter().enumerate() {
        let at = checks_at.item(index);
        let parts = Parts {
            request: check.request.as_deref(),
            headers: &check.headers,
            json: check.json.as_ref(),
            json_lines: None,
            body: check.body.as_deref(),
            form: check.form.as_ref(),
        };
        let request = request(&parts, at, cx);
        let expect = expect(check.expect.as_ref(), at.get("expect"), cx);
        match (request, expect) {
            (Some(request), Some(expect)) => {
                let name = check.name.clone().unwrap_or_else(|| title(&request));
                checks.push(ApiCheck { name, request, expect });
            }
            (_, _) => good = false,
        }
    }
    good.then_some(TestApi { checks })
}

/// `METHOD /path`.
pub(super) fn title(request: &HttpRequest) -> String {
    format!("{} {}", request.method, request.path)
}

/// The keys of a request, which two mappings of the language share.
pub(super) struct Parts<'r> {
    pub(super) request: Option<&'r str>,
    pub(super) headers: &'r IndexMap<String, raw::Text>,
    pub(super) json: Option<&'r Value>,
    pub(super) json_lines: Option<&'r raw::OutputPath>,
    pub(super) body: Option<&'r str>,
    pub(super) form: Option<&'r IndexMap<String, raw::Text>>,
}

pub(super) fn request(parts: &Parts<'_>, at: At<'_>, cx: &mut Cx<'_>) -> Option<HttpRequest> {
    let line = parts.request.and_then(|line| match request_line(line) {
        Ok(found) => Some(found),
        Err((message, help)) => {
            cx.push(Diagnostic::error("bad-request", at.get("request").span(), message).help(help));
            None
        }
    });
    let headers = headers(parts.headers, at.get("headers"), cx);
    let bodies: Vec<&str> =
        ["json", "json_lines", "body", "form"].into_iter().filter(|key| at.get(key).exists()).collect();
    if let [first, second, ..] = bodies[..] {
        let message = format!("`{first}` and `{second}` exclude each other: a request has one body");
        cx.push(
            Diagnostic::error("two-bodies", at.get(second).key_span(), message)
                .related(at.get(first).key_span(), "the other one")
                .help("keep one of them"),
        );
        return None;
    }
    let body = if at.get("json").exists() {
        Body::Json(parts.json.cloned().unwrap_or(Value::Null))
    } else if let Some(path) = parts.json_lines {
        Body::JsonLines(path.0.clone())
    } else if let Some(text) = parts.body {
        Body::Text(text.to_owned())
    } else if let Some(form) = parts.form {
        Body::Form(form.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect())
    } else {
        Body::None
    };
    let (method, path) = line?;
    Some(HttpRequest { method, path, headers, body })
}

/// Reads `POST /predict`.
fn request_line(line: &str) -> Result<(String, String), (String, String)> {
    let shape = "write method and path, like `POST /predict`";
    let mut words = line.split_whitespace();
    let (Some(method), path, None) = (words.next(), words.next(), words.next()) else {
        let message = format!("`{}` is not a method and a path", shown(line));
        return Err((message, format!("{shape}; a blank in the path is written `%20`")));
    };
    let Some(path) = path else {
        let help =
            if method.starts_with('/') { format!("did you mean `GET {}`?", shown(method)) } else { shape.to_owned() };
        return Err((format!("`{}` is not a method and a path", shown(line)), help));
    };
    if !METHODS.contains(&method) {
        let help = match nearest(method, METHODS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("methods are {}", list(METHODS, "and")),
        };
        return Err((format!("`{}` is not an HTTP method", shown(method)), help));
    }
    if !path.starts_with('/') {
        let help = if path.starts_with("http") {
            "write the path alone: the address is that of the model API"
        } else {
            "a path begins with `/`"
        };
        return Err((format!("`{}` is not a path", shown(path)), help.to_owned()));
    }
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '#')) {
        return Err((format!("`{bad}` cannot stand in a path"), "write it percent-encoded, like `%20`".to_owned()));
    }
    Ok((method.to_owned(), path.to_owned()))
}

fn headers(raw: &IndexMap<String, raw::Text>, at: At<'_>, cx: &mut Cx<'_>) -> IndexMap<String, String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for (name, value) in raw {
        let here = at.get(name);
        if name.is_empty() || !name.bytes().all(token) {
            let message = format!("`{}` is not a valid name of a header", shown(name));
            cx.push(Diagnostic::error("bad-header", here.key_span(), message));
        }
        if value.0.chars().any(|c| c.is_control() && c != '\t') {
            let message = format!("the header `{}` holds a line end or another control character", shown(name));
            cx.push(Diagnostic::error("bad-header", here.key_span(), message));
        }
    }
    raw.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
}

pub(super) fn expect(raw: Option<&raw::Expect>, at: At<'_>, cx: &mut Cx<'_>) -> Option<Expect> {
    let Some(raw) = raw else { return Some(Expect::default()) };
    let mut json = IndexMap::new();
    let mut good = true;
    for (path, expectation) in &raw.json {
        let here = at.get("json").get(path);
        if serde_json_path::JsonPath::parse(path).is_err() {
            let message = format!("`{}` is not a JSONPath", shown(path));
            let help = if path.starts_with('$') {
                "JSONPath is written like `$.probability` or `$.items[0].name`".to_owned()
            } else {
                format!("a JSONPath begins with `$`: `$.{}`", shown(path))
            };
            cx.push(Diagnostic::error("bad-jsonpath", here.key_span(), message).help(help));
        }
        match json_tests(expectation, here, cx) {
            Some(tests) => drop(json.insert(path.clone(), tests)),
            None => good = false,
        }
    }
    let headers = headers(&raw.headers, at.get("headers"), cx);
    good.then(|| Expect {
        status: raw.status,
        headers,
        json,
        body_contains: raw.body_contains.as_ref().map(|text| text.0.clone()),
        latency: raw.latency.as_ref().and_then(|text| units::duration(&text.0).ok()),
    })
}

fn json_tests(raw: &raw::JsonExpectation, at: At<'_>, cx: &mut Cx<'_>) -> Option<Vec<JsonTest>> {
    let raw = match raw {
        raw::JsonExpectation::Equal(value) => return Some(vec![JsonTest::Eq(value.clone())]),
        raw::JsonExpectation::Tests(tests) => tests,
    };
    let matches = raw.matches.as_ref().map(|pattern| {
        if let Err(error) = regex::Regex::new(pattern) {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let message = format!("`{}` is not a regular expression: {why}", shown(pattern));
            cx.push(Diagnostic::error("bad-regex", at.get("matches").span(), message));
        }
        JsonTest::Matches(pattern.clone())
    });
    let tests: Vec<JsonTest> = [
        raw.eq.clone().map(JsonTest::Eq),
        raw.ne.clone().map(JsonTest::Ne),
        raw.lt.map(JsonTest::Lt),
        raw.le.map(JsonTest::Le),
        raw.gt.map(JsonTest::Gt),
        raw.ge.map(JsonTest::Ge),
        matches,
        raw.r#type.map(|word| JsonTest::Type(word.word().to_owned())),
        raw.length.map(JsonTest::Length),
    ]
    .into_iter()
    .flatten()
    .collect();
    if tests.is_empty() && !cx.sink.has_error_in(at.whole()) {
        let help = "write a value, or tests like `{ ge: 0, le: 1 }`; an object that must be equal is `{ eq: {...} }`";
        cx.push(Diagnostic::error("nothing-to-do", at.span(), "nothing is tested here").help(help));
    }
    let low = raw.ge.or(raw.gt);
    let high = raw.le.or(raw.lt);
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        let message = "no number can be both: the lower limit is above the upper one";
        cx.push(Diagnostic::error("out-of-range", at.span(), message));
    }
    (!tests.is_empty()).then_some(tests)
}

/// The known name that was most likely meant, or all of them.
pub(super) fn one_of(word: &str, known: &[String]) -> String {
    let names = || known.iter().map(String::as_str);
    did_you_mean(word, names()).unwrap_or_else(|| format!("known are {}", list(names().take(12), "and")))
}

#[cfg(test)]
mod tests {
    use super::request_line;

    #[test]
    fn request_lines() {
        assert_eq!(request_line("POST /predict?x=1"), Ok(("POST".into(), "/predict?x=1".into())));
        for (line, message) in [
            ("post /predict", "`post` is not an HTTP method"),
            ("POST", "`POST` is not a method and a path"),
            ("/predict", "`/predict` is not a method and a path"),
            ("GET predict", "`predict` is not a path"),
            ("GET /a b", "`GET /a b` is not a method and a path"),
            ("GET /ü", "`ü` cannot stand in a path"),
            ("", "`` is not a method and a path"),
        ] {
            assert_eq!(request_line(line).map_err(|(message, _)| message), Err(message.to_owned()), "{line}");
        }
    }
}
