//! A request as bytes, made once and sent many times.
//!
//! PURE. Whatever the pipeline says is checked here, so that nothing it holds can end a header early or start a second
//! request.

use bytes::Bytes;
use url::Url;

use crate::pipeline::types::{Body, HttpRequest};

/// A request that cannot be sent as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Not a token.
    #[error("`{0}` is not an HTTP method")]
    Method(String),
    /// Does not make a URL.
    #[error("path `{0}` is not valid: it must start with `/`")]
    Path(String),
    /// A name or value with forbidden characters.
    #[error("header `{0}` is not valid: a name is letters, digits and `-`, a value is one line of text")]
    Header(String),
    /// We frame messages ourselves.
    #[error("header `{0}` is set by the client itself and cannot be given")]
    Framing(String),
}

/// A request ready to be written to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Request line and headers, without `Content-Length` and the empty line.
    head: Vec<u8>,
    /// Everything, unless each sending has another body.
    whole: Option<Vec<u8>>,
    is_head: bool,
}

impl Encoded {
    /// Prepares a request to `base` (whose path, if any, is put before the request's).
    ///
    /// # Errors
    /// [`EncodeError`] if a part of the request cannot be sent.
    pub fn new(base: &Url, request: &HttpRequest) -> Result<Self, EncodeError> {
        if request.method.is_empty() || !request.method.bytes().all(is_token) || request.method == "CONNECT" {
            return Err(EncodeError::Method(request.method.clone()));
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, path(base, &request.path)?).into_bytes();
        for (name, value) in headers(base, request)? {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let body = match &request.body {
            Body::None => Some(None),
            Body::Json(value) => Some(Some(value.to_string())),
            Body::Text(text) => Some(Some(text.clone())),
            Body::Form(fields) => Some(Some(form(fields))),
            Body::JsonLines(_) => None,
        };
        let mut encoded = Self { head, whole: None, is_head: request.method == "HEAD" };
        if let Some(body) = body {
            let mut whole = Vec::new();
            match body {
                Some(body) => encoded.write(Some(body.as_bytes()), &mut whole),
                None if takes_body(&request.method) => encoded.write(Some(b""), &mut whole),
                None => encoded.write(None, &mut whole),
            }
            encoded.whole = Some(whole);
        }
        Ok(encoded)
    }

    /// Whether the answer has no body whatever its headers say.
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// The bytes to send; with a body of its own the request is put together in `space`.
    pub fn bytes<'a>(&'a self, body: Option<&Bytes>, space: &'a mut Vec<u8>) -> &'a [u8] {
        match &self.whole {
            Some(whole) => whole,
            None => {
                space.clear();
                self.write(Some(body.map_or(&b""[..], |body| body)), space);
                space
            }
        }
    }

    fn write(&self, body: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if let Some(body) = body {
            out.extend_from_slice(b"content-length: ");
            decimal(body.len(), out);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(body);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Without `format!`: this runs for each request with a body of its own.
fn decimal(mut number: usize, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn takes_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

fn path(base: &Url, path: &str) -> Result<String, EncodeError> {
    let wrong = || EncodeError::Path(path.to_owned());
    if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control()) {
        return Err(wrong());
    }
    let mut url = base.clone();
    let prefix = base.path().trim_end_matches('/').to_owned();
    let (path_only, query) = path
        .split('#')
        .next()
        .unwrap_or_default()
        .split_once('?')
        .map_or_else(|| (path.split('#').next().unwrap_or_default(), None), |(path, query)| (path, Some(query)));
    url.set_path(&format!("{prefix}{path_only}"));
    url.set_query(query);
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}{query}", url.path()))
}

fn headers(base: &Url, request: &HttpRequest) -> Result<Vec<(String, String)>, EncodeError> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &request.headers {
        let good_value = !value.chars().any(|c| c.is_control() && c != '\t');
        if name.is_empty() || !name.bytes().all(is_token) || !good_value {
            return Err(EncodeError::Header(name.clone()));
        }
        if ["content-length", "transfer-encoding", "expect", "upgrade"].iter().any(|own| name.eq_ignore_ascii_case(own))
        {
            return Err(EncodeError::Framing(name.clone()));
        }
        headers.push((name.clone(), value.clone()));
    }
    let content_type = match &request.body {
        Body::Json(_) | Body::JsonLines(_) => Some("application/json"),
        Body::Form(_) => Some("application/x-www-form-urlencoded"),
        Body::None | Body::Text(_) => None,
    };
    let own = [
        ("host", Some(host(base))),
        ("user-agent", Some(concat!("orchestrator/", env!("CARGO_PKG_VERSION")).to_owned())),
        ("accept", Some("*/*".to_owned())),
        ("content-type", content_type.map(str::to_owned)),
    ];
    for (name, value) in own.into_iter().rev() {
        if let Some(value) = value
            && !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
        {
            headers.insert(0, (name.to_owned(), value));
        }
    }
    Ok(headers)
}

fn host(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn form(fields: &indexmap::IndexMap<String, String>) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::*;

    fn request(method: &str, path: &str, body: Body) -> HttpRequest {
        HttpRequest { method: method.to_owned(), path: path.to_owned(), headers: IndexMap::new(), body }
    }

    fn base() -> Url {
        Url::parse("http://model:8000").unwrap()
    }

    fn text(base: &Url, request: &HttpRequest) -> String {
        let mut space = Vec::new();
        String::from_utf8(Encoded::new(base, request).unwrap().bytes(None, &mut space).to_vec()).unwrap()
    }

    #[test]
    fn requests_as_they_go_out() {
        let agent = concat!("user-agent: orchestrator/", env!("CARGO_PKG_VERSION"), "\r\naccept: */*\r\n");
        assert_eq!(
            text(&base(), &request("GET", "/healthz", Body::None)),
            format!("GET /healthz HTTP/1.1\r\nhost: model:8000\r\n{agent}\r\n")
        );
        assert_eq!(
            text(&base(), &request("POST", "/predict?a=1", Body::Json(json!({"Goals": 20})))),
            format!(
                "POST /predict?a=1 HTTP/1.1\r\nhost: model:8000\r\n{agent}content-type: application/json\r\n\
                 content-length: 12\r\n\r\n{{\"Goals\":20}}"
            )
        );
        let empty = text(&base(), &request("POST", "/", Body::None));
        assert!(empty.ends_with("content-length: 0\r\n\r\n"), "{empty}");
        let fields = IndexMap::from([("a b".to_owned(), "1&2".to_owned())]);
        let form = text(&base(), &request("POST", "/", Body::Form(fields)));
        assert!(form.ends_with("\r\n\r\na+b=1%262") && form.contains("x-www-form-urlencoded"), "{form}");
    }

    #[test]
    fn each_line_is_a_body_of_its_own() {
        let encoded = Encoded::new(&base(), &request("POST", "/p", Body::JsonLines("f.jsonl".to_owned()))).unwrap();
        let mut space = Vec::new();
        let sent = encoded.bytes(Some(&Bytes::from_static(b"{\"a\":10}")), &mut space);
        assert!(sent.ends_with(b"content-length: 8\r\n\r\n{\"a\":10}"));
        let sent = encoded.bytes(Some(&Bytes::from_static(b"{}")), &mut space);
        assert!(sent.ends_with(b"content-length: 2\r\n\r\n{}"));
    }

    #[test]
    fn paths_are_joined_and_escaped() {
        let check = |base: &str, path: &str, expected: &str| {
            let sent = text(&Url::parse(base).unwrap(), &request("GET", path, Body::None));
            assert_eq!(sent.split(' ').nth(1), Some(expected), "{base} {path}");
        };
        check("http://h/", "/a", "/a");
        check("http://h/api/", "/a?q=1", "/api/a?q=1");
        check("http://h", "/a b?q=c d", "/a%20b?q=c%20d");
        check("http://h", "/한", "/%ED%95%9C");
        check("http://h", "/a#fragment", "/a");
    }

    #[test]
    fn nothing_can_be_smuggled_in() {
        let with = |name: &str, value: &str| {
            let mut request = request("GET", "/", Body::None);
            request.headers.insert(name.to_owned(), value.to_owned());
            Encoded::new(&base(), &request)
        };
        assert_eq!(with("a", "b\r\nc: d"), Err(EncodeError::Header("a".to_owned())));
        assert_eq!(with("a\r\nb", "c"), Err(EncodeError::Header("a\r\nb".to_owned())));
        assert_eq!(with("Content-Length", "3"), Err(EncodeError::Framing("Content-Length".to_owned())));
        assert!(with("authorization", "Bearer x").is_ok());
        for (method, path) in [("GE T", "/"), ("", "/"), ("GET", "x"), ("GET", "/\r\nHost: evil")] {
            assert!(Encoded::new(&base(), &request(method, path, Body::None)).is_err(), "{method} {path}");
        }
    }

    #[test]
    fn a_given_host_replaces_ours() {
        let mut request = request("GET", "/", Body::None);
        request.headers.insert("Host".to_owned(), "other".to_owned());
        let sent = text(&base(), &request);
        assert!(sent.contains("Host: other\r\n") && !sent.contains("model"), "{sent}");
    }
}
