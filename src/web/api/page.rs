//! Lists in pages: the newest first, each page with the cursor of the next.

use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::web::problem::Problem;

/// Rows of a page if nothing is asked for.
const USUAL: usize = 20;

/// A number of rows or lines, from 1 (or `LEAST`) to `MOST`; any other is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct UpTo<const MOST: u64, const LEAST: u64 = 1>(u64);

impl<const MOST: u64, const LEAST: u64> TryFrom<u64> for UpTo<MOST, LEAST> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        if (LEAST..=MOST).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("{LEAST} to {MOST}, not {number}"))
        }
    }
}

impl<const MOST: u64, const LEAST: u64> UpTo<MOST, LEAST> {
    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The number, as a count.
    pub fn get(self) -> usize {
        // The greatest that is used is a few thousand.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Rows of a page.
pub type Rows = UpTo<200>;

/// A place in a list: a number as the database has them.
pub type Cursor = UpTo<{ i64::MAX as u64 }, 0>;

/// Which page.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// The `next` of the page before; the first page without it.
    #[param(value_type = Option<i64>, minimum = 0)]
    pub before: Option<Cursor>,
    /// Rows, 1 to 200; 20 if not given.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    pub limit: Option<Rows>,
}

impl Page {
    /// Where the page before ended.
    pub fn before(self) -> Option<u64> {
        self.before.map(Cursor::number)
    }

    /// Rows.
    pub fn limit(self) -> usize {
        rows(self.limit)
    }
}

/// How many rows, as many as usual if nothing is asked for.
pub fn rows(limit: Option<Rows>) -> usize {
    limit.map_or(USUAL, Rows::get)
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
        let body = Json::<Value>::from_request(request, state).await;
        let Json(value) = body.map_err(|error| match error.status().as_u16() {
            413 => Problem::too_large(error.body_text()),
            _ => Problem::invalid(error.body_text()),
        })?;
        object(value).map(Self)
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
        match value {
            Value::Null => Ok(Self(None)),
            value => object(value).map(|value| Self(Some(value))),
        }
    }
}

/// Every body is an object; a list would be taken for its fields in order.
fn object<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    if !value.is_object() {
        return Err(Problem::invalid("the body has to be a JSON object"));
    }
    serde_json::from_value(value).map_err(|error| Problem::invalid(format!("the body: {error}")))
}
