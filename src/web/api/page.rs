//! Lists in pages: the newest first, each page with the cursor of the next.

use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::web::problem::Problem;

/// Rows of a page if nothing is asked for, and at most.
const USUAL: u16 = 20;
const MOST: u16 = 200;

/// Which page.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The `next` of the page before; the first page without it.
    pub before: Option<u64>,
    /// Rows, 1 to 200; 20 if not given.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
}

impl Page {
    /// Rows, within bounds.
    pub fn limit(self) -> usize {
        usize::from(self.limit.unwrap_or(USUAL).clamp(1, MOST))
    }
}

/// One page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed<T> {
    /// The rows, newest first.
    pub items: Vec<T>,
    /// Give it as `before` to get the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl<T> Listed<T> {
    /// A page of what was read with a limit of one more than is shown.
    pub fn of(mut items: Vec<T>, limit: usize, id: impl Fn(&T) -> u64) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(id) } else { None };
        Self { items, next }
    }
}

/// The query string, with errors as problems.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked.map(|Query(value)| Self(value)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// Parts of the path, with errors as problems: what cannot be a number or name is not there.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::<T>::from_request_parts(parts, state).await;
        named.map(|Path(value)| Self(value)).map_err(|error| Problem::missing(error.body_text()))
    }
}

/// A JSON body, with errors as problems.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::<T>::from_request(request, state).await;
        body.map(|Json(value)| Self(value)).map_err(|error| match error.status().as_u16() {
            413 => Problem::too_large(error.body_text()),
            _ => Problem::invalid(error.body_text()),
        })
    }
}

/// A JSON body that may be left out.
pub struct Perhaps<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Perhaps<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Problem::too_large(error.body_text()))?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| Problem::invalid(format!("the body: {error}")))?;
        Ok(Self(Some(value)))
    }
}
