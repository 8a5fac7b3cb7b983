//! `test-api`, and what it shares with load tests: requests and what is expected of their answers.

use std::time::Duration;

use indexmap::IndexMap;

/// `test-api`.
#[derive(Debug, Clone, PartialEq)]
pub struct TestApi {
    /// In order.
    pub checks: Vec<ApiCheck>,
}

/// One request with what is expected of its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiCheck {
    /// Its name; `METHOD /path` by default.
    pub name: String,
    /// What is sent.
    pub request: HttpRequest,
    /// What must come back.
    pub expect: Expect,
}

/// A request to the model API.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    /// `GET`, `POST`, ... in capitals.
    pub method: String,
    /// Path with query, starting with `/`.
    pub path: String,
    /// Headers.
    pub headers: IndexMap<String, String>,
    /// Body.
    pub body: Body,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// None.
    None,
    /// JSON, with its content type.
    Json(serde_json::Value),
    /// As it stands.
    Text(String),
    /// `application/x-www-form-urlencoded`.
    Form(IndexMap<String, String>),
    /// One JSON document a line, from a file of the workspace; taken in turn (load tests only).
    JsonLines(String),
}

/// What an answer must be. Absent parts are not looked at, but for the status: 2xx by default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expect {
    /// Exact status.
    pub status: Option<u16>,
    /// Headers (name without case) with their exact values.
    pub headers: IndexMap<String, String>,
    /// JSONPath (RFC 9535) to what every selected value must be; at least one must be selected.
    pub json: IndexMap<String, Vec<JsonTest>>,
    /// Text that the body holds.
    pub body_contains: Option<String>,
    /// Longest time to the whole answer.
    pub latency: Option<Duration>,
}

/// One test of a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTest {
    /// Equal.
    Eq(serde_json::Value),
    /// Not equal.
    Ne(serde_json::Value),
    /// Less than.
    Lt(f64),
    /// At most.
    Le(f64),
    /// More than.
    Gt(f64),
    /// At least.
    Ge(f64),
    /// Text that matches this regular expression.
    Matches(String),
    /// `null`, `boolean`, `number`, `integer`, `string`, `array`, `object`.
    Type(String),
    /// Length of text (characters), array or object.
    Length(u64),
}
