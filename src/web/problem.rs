//! Errors as `application/problem+json` (RFC 9457), each with a stable code.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::EngineError;
use crate::store::StoreError;

/// What went wrong, for programs (`code`) and people (`title`, `detail`).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Stable: programs may rely on it.
    #[schema(example = "not-found")]
    pub code: &'static str,
    /// What the code means.
    pub title: &'static str,
    /// What happened here, and what to do.
    pub detail: String,
    /// Seconds after which another try makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// A kind of problem. Programs rely on the codes: they are added, never renamed.
#[derive(Debug, Clone, Copy)]
struct Kind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    /// For the docs: when, and what to do.
    means: &'static str,
}

const fn kind(status: StatusCode, code: &'static str, title: &'static str, means: &'static str) -> Kind {
    Kind { status, code, title, means }
}

const INVALID: Kind = kind(
    StatusCode::BAD_REQUEST,
    "invalid-request",
    "The request is not valid",
    "a parameter, header or body cannot be read or makes no sense; `detail` names it",
);
const UNAUTHENTICATED: Kind = kind(
    StatusCode::UNAUTHORIZED,
    "unauthenticated",
    "Sign in first",
    "no token, or one that is mistyped, past its time or revoked",
);
const UNSIGNED: Kind = kind(
    StatusCode::UNAUTHORIZED,
    "unsigned",
    "The delivery is not signed by anyone known",
    "a webhook whose signature is missing or wrong; `/hooks/github` alone answers it",
);
const FORBIDDEN: Kind = kind(
    StatusCode::FORBIDDEN,
    "forbidden",
    "You may not do this",
    "the token lacks the scope that `detail` names, or a browser's request is not one of our own pages'",
);
const MISSING: Kind = kind(
    StatusCode::NOT_FOUND,
    "not-found",
    "There is no such thing",
    "no such path, build, project, ...; or the token may not know of it",
);
const WRONG_METHOD: Kind = kind(
    StatusCode::METHOD_NOT_ALLOWED,
    "method-not-allowed",
    "Not with this method",
    "the path is there for another method",
);
const CONFLICT: Kind = kind(
    StatusCode::CONFLICT,
    "conflict",
    "Not possible in this state",
    "the build has ended, is under way, ...; or the idempotency key was another request's",
);
const TOO_LARGE: Kind =
    kind(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", "2 MiB to the API, 25 MiB for webhooks");
const TOO_MANY: Kind = kind(
    StatusCode::TOO_MANY_REQUESTS,
    "too-many-requests",
    "Too many tries",
    "too many wrong tokens came from this address; go on after `retry_after` seconds",
);
const INTERNAL: Kind = kind(
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal",
    "The server failed",
    "our fault; the daemon's log has more under the answer's `x-request-id`",
);
const UNAVAILABLE: Kind = kind(
    StatusCode::SERVICE_UNAVAILABLE,
    "unavailable",
    "Not possible at the moment",
    "the database is busy, a disk is full, ...; try again after `retry_after` seconds",
);

/// All kinds, by status.
const KINDS: [Kind; 11] = [
    INVALID,
    UNAUTHENTICATED,
    UNSIGNED,
    FORBIDDEN,
    MISSING,
    WRONG_METHOD,
    CONFLICT,
    TOO_LARGE,
    TOO_MANY,
    INTERNAL,
    UNAVAILABLE,
];

/// The codes as a table of Markdown, for the docs.
pub fn table() -> String {
    let head = "| status | code | when |\n|---|---|---|\n".to_owned();
    KINDS
        .iter()
        .fold(head, |table, kind| format!("{table}| {} | `{}` | {} |\n", kind.status.as_u16(), kind.code, kind.means))
}

/// The result of a handler.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let Kind { status, code, title, means: _ } = kind;
        Self { status: status.as_u16(), code, title, detail: detail.into(), retry_after: None }
    }

    /// There is no such thing, or the caller may not know of it.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(MISSING, detail)
    }

    /// The request does not make sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(INVALID, detail)
    }

    /// The request makes sense, but not in this state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(CONFLICT, detail)
    }

    /// Nobody knows who asks.
    pub fn unauthenticated() -> Self {
        let detail = "send `Authorization: Bearer <token>` with a token that is valid; `orchestrator tokens` makes one";
        Self::new(UNAUTHENTICATED, detail)
    }

    /// A webhook call that nobody known has signed. Not told: by which of the secrets, or how nearly.
    pub fn unsigned() -> Self {
        let detail = "X-Hub-Signature-256 is missing or wrong: give the webhook the secret that the project has here";
        Self::new(UNSIGNED, detail)
    }

    /// The caller may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(FORBIDDEN, detail)
    }

    /// Too many tries.
    pub fn too_many(seconds: u64) -> Self {
        let detail = format!("try again in {seconds} s");
        let plain = Self::new(TOO_MANY, detail);
        Self { retry_after: Some(seconds), ..plain }
    }

    /// The body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(TOO_LARGE, detail)
    }

    /// Something that the answer needs is not there now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let plain = Self::new(UNAVAILABLE, detail);
        Self { retry_after: Some(1), ..plain }
    }

    /// Our own fault.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "an error of the server's own; its log has more under this request's id";
        Self::new(INTERNAL, detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(detail) => Problem::missing(detail),
            StoreError::Conflict(detail) => Problem::conflict(detail),
            StoreError::Full => Problem::unavailable("the disk of the data folder is full"),
            StoreError::Busy => Problem::unavailable("the database is busy"),
            error @ (StoreError::Corrupt(_) | StoreError::Other(_)) => Problem::internal(&error),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Pipeline(detail) | EngineError::Secrets(detail) => Problem::invalid(detail),
            EngineError::Taken(id) => Problem::conflict(format!("build {id} has not ended; cancel it first")),
            EngineError::Unstored { .. } => Problem::unavailable(error.to_string()),
            error @ (EngineError::Runner(_)
            | EngineError::Artifact(_)
            | EngineError::Source(_)
            | EngineError::Io { .. }
            | EngineError::Illegal(_)) => Problem::internal(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For those who show it otherwise.
        response.extensions_mut().insert(self);
        response
    }
}

/// No route is there.
pub async fn not_found(uri: Uri) -> Problem {
    Problem::missing(format!("there is nothing at {}", uri.path()))
}

/// The route is there for other methods.
pub async fn wrong_method() -> Problem {
    Problem::new(WRONG_METHOD, "the path exists for another method")
}
