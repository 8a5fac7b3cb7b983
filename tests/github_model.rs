//! A small model of GitHub's API on loopback: statuses, check runs, comments, App tokens, and the faults that a test asks for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub bearer: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub raw: Vec<u8>,
}

/// A fault: status, headers, body.
pub type Fault = (u16, Vec<(&'static str, String)>, Value);
type Faults = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

#[derive(Default)]
struct Held {
    seen: Vec<Seen>,
    statuses: Vec<(String, Value)>,
    checks: Vec<Value>,
    comments: Vec<Value>,
    faults: Option<Faults>,
}

/// The model. It ends with the test.
#[derive(Clone)]
pub struct GitHubModel {
    pub address: SocketAddr,
    held: Arc<Mutex<Held>>,
}

impl GitHubModel {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    /// At an address that was free a moment ago.
    pub fn start_at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let held = Arc::<Mutex<Held>>::default();
        let model = Self { address, held };
        let app = Router::new().fallback(answer).with_state(model.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let _ = axum::serve(listener, app).await;
            });
        });
        model
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is answered in place of the truth.
    pub fn faults(&self, faults: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.held.lock().unwrap().faults = Some(Box::new(faults));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.held.lock().unwrap().seen.clone()
    }

    /// The states of a context at a commit, in the order in which they came.
    pub fn states(&self, commit: &str, context: &str) -> Vec<String> {
        let held = self.held.lock().unwrap();
        let of = held.statuses.iter().filter(|(at, body)| at == commit && body["context"] == context);
        of.map(|(_, body)| body["state"].as_str().unwrap().to_owned()).collect()
    }

    pub fn last_status(&self, commit: &str) -> Value {
        let held = self.held.lock().unwrap();
        held.statuses.iter().rev().find(|(at, _)| at == commit).map(|(_, body)| body.clone()).unwrap_or_default()
    }

    pub fn checks(&self) -> Vec<Value> {
        self.held.lock().unwrap().checks.clone()
    }

    pub fn comments(&self) -> Vec<String> {
        let held = self.held.lock().unwrap();
        held.comments.iter().map(|comment| comment["body"].as_str().unwrap().to_owned()).collect()
    }

    /// Somebody else writes a comment.
    pub fn comment(&self, text: &str) {
        let mut held = self.held.lock().unwrap();
        let id = held.comments.len() + 1;
        held.comments.push(json!({ "id": id, "body": text }));
    }
}

async fn answer(
    State(model): State<GitHubModel>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seen = Seen {
        method: method.to_string(),
        path: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        bearer: bearer.trim_start_matches("Bearer ").to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        raw: body.to_vec(),
        headers,
    };
    let mut held = model.held.lock().unwrap();
    held.seen.push(seen.clone());
    let fault = held.faults.as_mut().and_then(|faults| faults(&seen));
    let (status, more, body) = match fault {
        Some(fault) => fault,
        None => held.truth(&seen),
    };
    let mut response = (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response();
    for (name, value) in more {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl Held {
    fn truth(&mut self, seen: &Seen) -> Fault {
        let path = seen.path.split('?').next().unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // `repositories/1/...` is as long as it is with one name less.
        let rest = match parts.as_slice() {
            ["repositories", _, rest @ ..] | ["repos", _, _, rest @ ..] => rest,
            rest => rest,
        };
        let body = seen.body.clone();
        match (seen.method.as_str(), rest) {
            ("POST", ["statuses", commit]) => {
                if body["description"].as_str().is_none_or(|text| text.chars().count() > 140) {
                    return (422, Vec::new(), json!({ "message": "Validation Failed" }));
                }
                self.statuses.push(((*commit).to_owned(), body));
                (201, Vec::new(), json!({}))
            }
            ("GET", ["commits", _, "check-runs"]) => (200, Vec::new(), json!({ "check_runs": self.checks })),
            ("POST", ["check-runs"]) => {
                let mut run = body;
                run["id"] = json!(self.checks.len() + 100);
                self.checks.push(run.clone());
                (201, Vec::new(), run)
            }
            ("PATCH", ["check-runs", id]) => change(&mut self.checks, id, &body),
            ("GET", ["issues", _, "comments"]) => {
                let page = seen.path.rsplit("page=").next().and_then(|page| page.parse::<usize>().ok()).unwrap_or(1);
                let rows: Vec<&Value> = self.comments.iter().skip((page - 1) * 100).take(100).collect();
                (200, Vec::new(), json!(rows))
            }
            ("POST", ["issues", _, "comments"]) => {
                let id = self.comments.len() + 1;
                self.comments.push(json!({ "id": id, "body": body["body"] }));
                (201, Vec::new(), json!({ "id": id }))
            }
            ("PATCH", ["issues", "comments", id]) => change(&mut self.comments, id, &body),
            ("GET", ["installation"]) => (200, Vec::new(), json!({ "id": 77 })),
            ("POST", ["app", "installations", "77", "access_tokens"]) => {
                (201, Vec::new(), json!({ "token": "of the installation", "expires_at": "2099-01-01T00:00:00Z" }))
            }
            // A hook: whatever comes is taken.
            ("POST", ["hook", ..]) => (200, Vec::new(), json!({})),
            _ => (404, Vec::new(), json!({ "message": "Not Found" })),
        }
    }
}

fn change(rows: &mut [Value], id: &str, body: &Value) -> Fault {
    let Some(row) = rows.iter_mut().find(|row| row["id"].as_u64() == id.parse().ok()) else {
        return (404, Vec::new(), json!({ "message": "Not Found" }));
    };
    for (name, value) in body.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
    (200, Vec::new(), row.clone())
}
